"""Hooks of MkDocs: add pages that lie outside ``docs/``, and rewrite their links.

Links in the files are valid in the repository. The hook rewrites them to be valid in the site.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

PAGES: tuple[str, ...] = (
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "results/README.md",
    "results/reference/*.*",
)
PAGES += ("results/reference/pictures/*.*",)
"""Pages added to those in ``docs/``, by path in the repository; generated reports are left out."""

LINK = re.compile(r"(\]\(|src=\"|href=\")([^)#\"\s:]+)(?=[)#\"\s])")
"""A relative link of Markdown or HTML; groups: text before the target, and the target."""


def on_files(files: Files, config: Any) -> Files:
    """Add the pages and pictures that lie outside ``docs/``."""
    root = Path(config.config_file_path).parent
    for path in sorted(path for pattern in PAGES for path in root.glob(pattern)):
        uri = path.relative_to(root).as_posix()
        files.append(File.generated(config, uri, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Rewrite the links of a page from paths in the repository to paths in the site."""
    uri = page.file.src_uri
    here = posixpath.dirname(uri if page.file.generated_by else f"docs/{uri}")

    def of_site(match: re.Match[str]) -> str:
        leads = posixpath.normpath(posixpath.join(here, match[2])).removeprefix("docs/")
        return match[1] + posixpath.relpath(leads, posixpath.dirname(uri) or ".")

    return LINK.sub(of_site, markdown)
