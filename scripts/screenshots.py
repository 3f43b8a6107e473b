"""Pictures of a report's page for the documentation: light, dark, and as wide as a phone.

    python scripts/screenshots.py results/reference/tuned_digits/report/index.html docs/pictures

of what `unlearnbench report tuned_digits paths.results=results/reference` has written.
"""

import argparse
import shutil
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

SIZES = {"light": (1280, 1180), "dark": (1280, 1180), "phone": (390, 1180)}
COLOURS = 64
"""Colours of a picture's palette: the page has few, and the file shrinks to a third."""


def main() -> None:
    """Take one picture of the page per entry of ``SIZES``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium") or shutil.which("google-chrome"),
            args=["--no-sandbox"],
        )
        for name, (width, height) in SIZES.items():
            page = browser.new_page(
                viewport={"width": width, "height": height},
                color_scheme="dark" if name == "dark" else "light",
            )
            page.goto(arguments.page.resolve().as_uri())
            page.wait_for_selector("html[data-ready]", state="attached")
            taken = Image.open(BytesIO(page.screenshot())).convert("RGB")
            path = arguments.folder / f"report_{name}.png"
            taken.quantize(COLOURS).save(path, optimize=True)
            print(f"{path}: {path.stat().st_size / 1000:.0f} kB")
        browser.close()


if __name__ == "__main__":
    main()
