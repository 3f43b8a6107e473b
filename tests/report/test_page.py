"""The page in a real browser: what it asks of a network, sorting, filters, definitions, a phone."""

import re
import shutil
from base64 import b64encode
from collections.abc import Iterator
from hashlib import sha256
from html import unescape
from pathlib import Path

import pytest
from small_study import make

from unlearnbench.report import files

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a small study, alone in a folder, as somebody has it who was sent it."""
    made = files.report(make(tmp_path_factory.mktemp("results")))
    return Path(shutil.copy(made[-1], tmp_path_factory.mktemp("elsewhere") / "sent.html"))


@pytest.fixture(scope="module")
def browser() -> Iterator["sync_api.Browser"]:
    with sync_api.sync_playwright() as playwright:
        own = playwright.chromium.executable_path
        path = next(filter(None, map(shutil.which, [*BROWSERS, own])), None)
        if path is None:
            pytest.skip(f"no browser is installed: none of {', '.join(BROWSERS)} is on the PATH")
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


CELLS = """place => new Promise(told => requestAnimationFrame(() => setTimeout(() => told(
    Array.from(document.querySelectorAll("#board tbody tr"), tr => tr.children[place].innerText)
))))"""
"""A column at one moment, after what was begun before: lines are sorted a little after a click."""


class Reader:
    """A page that is open, and all that it said and asked for meanwhile."""

    def __init__(self, browser: "sync_api.Browser", index: Path, **context: object) -> None:
        self.context = browser.new_context(**context)
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(index.as_uri())
        self.page.wait_for_selector("html[data-ready]", state="attached")

    def column(self, heading: str) -> list[str]:
        """The cells of a column that is shown, from top to bottom."""
        heads = self.page.locator("#board thead tr:last-child th").all_inner_texts()
        place = [head.strip() for head in heads].index(heading)
        found: list[str] = self.page.evaluate(CELLS, place)
        return found

    def numbers(self, heading: str) -> list[float]:
        return [float(text.split()[0]) for text in self.column(heading) if text[:1].isdigit()]

    def choose(self, label: str, option: str) -> None:
        self.page.get_by_label(label, exact=True).select_option(option)


@pytest.fixture
def reader(browser: "sync_api.Browser", index: Path) -> Iterator[Reader]:
    opened = Reader(browser, index)
    yield opened
    opened.context.close()


def test_it_opens_from_disk_and_asks_nothing_else_for_anything(reader: Reader, index: Path) -> None:
    assert reader.said == []
    others = [url for url in reader.asked if not url.startswith(("blob:", "data:"))]
    assert others == [index.as_uri()]


def test_no_address_of_a_network_is_in_what_a_browser_loads(index: Path) -> None:
    text = re.sub(r'<script type="application/octet-stream".*?</script>', "", index.read_text())
    loads = re.findall(r'(?:src|href)="([^"]*)"|url\(([^)]*)\)|@import ([^;]*)', text)
    found = [part.strip("\"'") for each in loads for part in each if part]
    assert [part for part in found if not part.startswith(("#", "data:"))] == []


@pytest.mark.tried(
    "scripts and styles that come into the page by a name",
    "the page's policy runs and applies its own alone, known by their hashes",
)
def test_the_policy_allows_what_is_written_here_and_nothing_else(index: Path) -> None:
    page = index.read_text(encoding="utf-8")
    (policy,) = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', page)
    rules = dict(one.strip().split(" ", 1) for one in unescape(policy).split(";"))
    before = page[: page.index("<meta http-equiv")]
    assert "<script" not in before + page[: page.index("Content-Security-Policy")]
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    for what, more in (("script", {"blob:"}), ("style", set[str]())):
        texts = re.findall(rf"<{what}(?: type=\"module\")?>(.*?)</{what}>", page, re.S)
        digests = (b64encode(sha256(text.encode()).digest()).decode() for text in texts)
        allowed = {f"'sha256-{one}'" for one in digests}
        assert texts
        assert set(rules[f"{what}-src"].split()) == allowed | more
    bare = re.sub(r"<(script|style)[^>]*>.*?</\1>", "", page, flags=re.S)
    assert not re.search(r"<[^>]*\s(style|on[a-z]+)=", bare)  # a policy of hashes allows none


def test_a_click_on_a_heading_sorts_by_numbers_not_by_text(reader: Reader) -> None:
    reader.choose("Data set", "digits")
    heading = reader.page.locator("#board thead th", has_text="RTE")
    heading.click()
    down = reader.numbers("RTE ↑")
    assert down == [50, 2, 1]
    assert reader.column("RTE ↑")[len(down) :] == ["–"] * 3  # what has none comes last
    heading.click()
    assert reader.numbers("RTE ↑") == down[::-1]


def test_the_best_come_first(reader: Reader) -> None:
    heading = reader.page.locator("#board thead tr:last-child th", has_text="RetDev ↓")
    for backwards in (False, True, False):
        heading.click()
        found = reader.numbers("RetDev ↓")
        assert found == sorted(found, reverse=backwards)


def test_it_is_first_sorted_by_data_set_and_ret_dev(reader: Reader) -> None:
    assert reader.column("Data set") == ["digits"] * 6 + ["mnist"] * 6
    assert reader.column("Method")[:6] == [
        "retrain",
        "second_retrain",
        "near",
        "fast",
        "original",
        "worse",
    ]


def test_filters_choose_lines_and_columns(reader: Reader) -> None:
    shown = lambda: reader.page.locator("#board thead tr:last-child th").all_inner_texts()  # noqa: E731
    reader.choose("Data set", "mnist")
    assert len(reader.column("Method")) == 6
    assert "Data set" not in shown()  # the filter says it
    reader.choose("Attack", "ulira")
    assert [head.strip() for head in shown()] == ["Method", "U-LiRA AUC"]
    reader.choose("Attack", "")
    reader.choose("Metric", "test_acc")
    assert [head.strip() for head in shown()] == ["Method", "TA %"]
    assert reader.numbers("TA %")[0] == pytest.approx(92.0, abs=0.11)
    reader.choose("Data set", "")
    assert len(reader.column("Method")) == 12


def test_a_pointer_on_a_number_shows_its_definition_direction_and_n(reader: Reader) -> None:
    tip = reader.page.locator("#tip")
    assert tip.is_hidden()
    reader.page.locator("#board tbody tr", has_text="near").first.locator("td.number").nth(
        1
    ).hover()
    said = tip.inner_text()
    assert "RetDev" in said
    assert "Lower is better" in said
    assert "n = 3 seeds; each value is of 100 cases" in said
    line = reader.page.locator("#board tbody tr", has_text="near").first
    line.locator("td.number").first.hover()
    assert re.search(
        r"difference to retraining [+-][\d.]+ \(95 %: .* over seeds\)", tip.inner_text()
    )


def test_by_keyboard_alone_a_heading_says_what_it_is_and_sorts(reader: Reader) -> None:
    page = reader.page
    page.get_by_label("Search").focus()
    for _ in range(30):
        page.keyboard.press("Tab")
        if "Seconds of retraining" in (page.locator("#tip").text_content() or ""):
            break
    assert page.evaluate("document.activeElement.getAttribute('aria-describedby')") == "tip"
    assert "Higher is better" in page.locator("#tip").inner_text()
    page.keyboard.press("Enter")
    down = reader.numbers("RTE ↑")
    assert down == sorted(down, reverse=True)
    page.keyboard.press("Enter")
    assert reader.numbers("RTE ↑") == down[::-1]
    page.keyboard.press("Escape")
    assert page.locator("#tip").is_hidden()


def test_by_keyboard_cells_are_walked_through_and_say_their_n(reader: Reader) -> None:
    page = reader.page
    page.locator("#board tbody td.number").first.click()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    assert "n = 3 seeds" in page.locator("#tip").inner_text()
    page.keyboard.press("Tab")  # and out of the table, not from cell to cell
    assert page.evaluate("!document.querySelector('#board').contains(document.activeElement)")


def test_a_methods_name_leads_to_what_it_does(reader: Reader) -> None:
    page = reader.page
    part, line = page.locator("#method-retrain"), page.locator("#board tbody tr").first
    assert not part.evaluate("part => part.open")
    page.locator("#board").get_by_role("link", name="retrain", exact=True).first.click()
    page.wait_for_function("document.getElementById('method-retrain').open")
    assert "a fresh net on the retain rows" in part.inner_text()
    for _ in range(2):  # again, after it was closed: the address is the same then
        part.evaluate("part => { part.open = false }")
        line.locator("td.number").nth(1).click()
        page.keyboard.press("Enter")
        page.wait_for_function("document.getElementById('method-retrain').open")


def test_a_mark_says_what_became_of_the_test(reader: Reader) -> None:
    note = reader.page.locator("#leaderboard .note").inner_text()
    marks = {text for text in reader.page.locator("#board .mark").all_inner_texts() if text}
    assert marks
    assert all(f"{mark} " in note for mark in marks)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_told_from_its_ground(
    browser: "sync_api.Browser", index: Path, scheme: str
) -> None:
    opened = Reader(browser, index, color_scheme=scheme)
    grounds = {}
    cells = ("#board tbody th", "#board tbody tr.control td.number", "#board thead th")
    plain = "#board tbody tr:not(.control) td.number"
    for what in ("body", ".card", plain, *cells, ".filters select"):
        colours = opened.page.locator(what).first.evaluate(COLOURS)
        text, ground = (luminance(colour) for colour in colours)
        grounds[what] = ground
        light, dark = max(text, ground), min(text, ground)
        assert (light + 0.05) / (dark + 0.05) > 4.5, what  # WCAG AA
    assert all((ground < 0.1) == (scheme == "dark") for ground in grounds.values())
    opened.context.close()


COLOURS = """(element) => {
  const text = getComputedStyle(element).color;
  let ground = element;
  while (/rgba\\(.*, 0\\)|transparent/.test(getComputedStyle(ground).backgroundColor))
    ground = ground.parentElement;
  return [text, getComputedStyle(ground).backgroundColor];
}"""


def luminance(colour: str) -> float:
    """Relative luminance of a CSS colour."""
    parts = [float(part) / 255 for part in re.findall(r"[\d.]+", colour)[:3]]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_on_a_phone_nothing_but_tables_and_figures_is_wider(
    browser: "sync_api.Browser", index: Path
) -> None:
    opened = Reader(browser, index, viewport={"width": 390, "height": 844}, is_mobile=True)
    page = opened.page
    for method in page.locator("details").all():
        method.evaluate("(element) => element.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    opened.context.close()


def test_a_heading_that_sorts_still_says_what_it_is(reader: Reader) -> None:
    heading = reader.page.locator("#board th.number:visible", has_text="RTE")
    heading.hover()
    heading.click()
    reader.page.wait_for_timeout(300)
    assert reader.page.locator("#tip", has_text="Seconds of retraining").is_visible()


def test_nothing_around_the_board_is_white_in_the_dark(
    browser: "sync_api.Browser", index: Path
) -> None:
    opened = Reader(browser, index, color_scheme="dark")
    colours = opened.page.locator(".dt-container").evaluate(
        "one => [one, ...one.querySelectorAll('.dt-layout-row')]"
        ".map(part => getComputedStyle(part).backgroundColor)"
    )
    assert set(colours) == {"rgba(0, 0, 0, 0)"}
    opened.context.close()


def test_figures_that_are_all_there_need_no_asking(index: Path) -> None:
    assert "--figures" not in index.read_text()


def test_what_a_reader_asks_is_answered_at_the_top(reader: Reader) -> None:
    card = reader.page.locator(".card", has_text="mnist").inner_text()
    assert "near: RetDev 0.020" in card
    assert "2.0 times as fast as retraining" in card
    assert "outputs of one model; shadow models that forgot" in card
    assert "U-LiRA AUC 0.50" in card


def test_a_method_has_its_failure_with_its_reason_as_text(reader: Reader) -> None:
    page = reader.page
    page.locator("#method-broken summary").click()
    assert "RuntimeError: <it> broke" in page.locator("#method-broken").inner_text()
    assert page.locator("#method-broken it").count() == 0
