"""Names of sweeps, words of overrides, text that nothing obeys."""

import pytest

from unlearnbench.config.arguments import override_words, parse_arguments, sweep_name
from unlearnbench.core.errors import ConfigError, nothing_said, printable, text_of
from unlearnbench.results import load, parts, schema
from unlearnbench.sweep import estimate, run_record

NAMES = ["../x", "..", ".", "a/b", "/etc/x", "a\\b", "a\0b", "", " ", ".hidden", "a\nb", "x" * 300]
NAMES += ["rows", "Store", "sweeps", "-m", "a b", "\x1b[31mred"]


@pytest.mark.tried(
    "names of sweeps that are paths, folders of the results, or no names at all",
    "refused in one line, and nothing is written or read outside the results folder",
)
@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_name_of_a_sweep_is_refused(name: str) -> None:
    with pytest.raises(ConfigError) as refused:
        sweep_name(name)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 300


@pytest.mark.tried(
    "`unlearnbench report ../sweeps/x`, and so for every command that takes a sweep",
    "refused in one line",
)
@pytest.mark.parametrize("command", ["report", "status", "retry", "cancel", "collect"])
@pytest.mark.parametrize("name", ["../sweeps/x", "/tmp/x", "..", "rows", "--", "-x"])
def test_no_command_takes_what_is_no_name(command: str, name: str) -> None:
    words = ["--", "-x/.."] if name == "--" else [name]
    with pytest.raises(ConfigError) as refused:
        parse_arguments(command, words)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["methods", "audit_digits", "sweep-0a1b2c3d", "tune-1", "é.v+2"])
def test_names_of_sweeps_are_taken(name: str) -> None:
    assert parse_arguments("report", [name])[0] == sweep_name(name) == name


@pytest.mark.tried("`load_results(sweep='../x')` and `load_scores` from Python", "refused")
def test_a_sweep_is_looked_for_in_its_folder_alone(tmp_path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "results" / "rows").mkdir(parents=True)
    (tmp_path / "results" / "sweeps").mkdir()
    parts.write(tmp_path, "x", [{"sweep": "x", "key": "k", "utility_key": "k"}], schema.SWEEP)
    with pytest.raises(ConfigError, match="must be of letters"):
        load.load_sweep(tmp_path / "results", "../../x")
    with pytest.raises(ConfigError, match="must be of letters"):
        run_record.write_cells(tmp_path / "results", "../x", [])
    assert not (tmp_path / "results" / "x.parquet").exists()
    assert estimate.results_folder([]) is not None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        ("a.b=1 c=2", ["a.b=1", "c=2"]),
        ("dataset.path='a b.npz' c=2", ["dataset.path='a b.npz'", "c=2"]),
        ('p="a \' b" c=2', ['p="a \' b"', "c=2"]),
        (r"p='it\'s c=3' d=4", [r"p='it\'s c=3'", "d=4"]),
        ("h=[8, 4] c=2", ["h=[8, 4]", "c=2"]),
        ("h={a: [1, 2], b: '] x'} c=2", ["h={a: [1, 2], b: '] x'}", "c=2"]),
        ("p=it's c=2", ["p=it's", "c=2"]),  # as they were before they had quotes
        ("h=[8,4 c=2", ["h=[8,4", "c=2"]),
        (r"p=a\ b c=2", [r"p=a\ b", "c=2"]),
    ],
)
def test_overrides_are_apart_by_spaces_outside_of_quotes(text: str, words: list[str]) -> None:
    assert override_words(text) == words


@pytest.mark.tried(
    "escape sequences, control characters, turned writing in names and reasons",
    "shown by their numbers on the terminal, in tables, figures and on the page",
)
@pytest.mark.parametrize("text", ["\x1b[31m", "\x9b31m", "a\rb", "a\0b", "\u202eabc", "\ud800"])
def test_what_a_terminal_obeys_is_shown_by_its_number(text: str) -> None:
    assert "\\x" in printable(text)
    assert printable(text).isprintable()


@pytest.mark.parametrize("text", ["", "99 ± 1 ≈ é 猫", "two\nlines"])
def test_text_stays(text: str) -> None:
    assert printable(text) == text


@pytest.mark.tried("a MemoryError, whose text is empty", "its meaning and the line that raised it")
def test_an_error_that_says_nothing_has_its_place() -> None:
    try:
        raise MemoryError
    except MemoryError as error:
        told = nothing_said(error)
    assert told.startswith("MemoryError: not enough memory (in test_words.py, line ")
    assert nothing_said(KeyError()) == "KeyError: no reason was given"


class _Mute(Exception):
    def __str__(self) -> str:
        raise KeyError


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("a\n  b\x1b\udcff"), "a b\\x1b\\xdcff"),
        (OSError(28, "No space left on device"), "[Errno 28] No space left on device"),
        (ValueError(" \n "), "ValueError: no reason was given"),
        (_Mute(), "_Mute: no reason was given"),
        (type("Numb", (Exception,), {"__str__": lambda _: 5})(), "Numb: no reason was given"),
    ],
)
def test_every_error_has_a_text(error: Exception, told: str) -> None:
    assert text_of(error) == told
