"""The command line: what it does, what it shows, and what it says to a mistake."""

import re
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hydra.core.global_hydra import GlobalHydra
from rich.console import Console
from sweeps import TINY, Preloaded, command, table

import unlearnbench
from unlearnbench.cli import main, tables
from unlearnbench.config import validate
from unlearnbench.core.cell import AXES
from unlearnbench.core.errors import printable
from unlearnbench.results.load import load_results

pytest_plugins = ["sweep_fixtures"]

FAST = [*TINY, "method.call.epochs=1", "attack.call.splits=2"]

MINE = """
name: mine
label: Mine
version: 1
call: {_target_: unruly.shrunk, strength: 0.5}
space: {}
"""


class Told:
    """What the command said, and its exit code."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
        self.monkeypatch, self.capsys = monkeypatch, capsys

    def __call__(self, *words: str) -> tuple[int, str, str]:
        """Run the command in this process."""
        self.monkeypatch.setattr("sys.argv", ["unlearnbench", *words])
        try:
            main.main()
            code: object = 0
        except SystemExit as end:
            code = end.code
        said = self.capsys.readouterr()
        if isinstance(code, str):  # what the interpreter does with it
            return 1, said.out, f"{said.err}{code}\n"
        assert code is None or isinstance(code, int)
        return code or 0, said.out, said.err


@pytest.fixture
def told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Told:
    monkeypatch.setenv("UNLEARNBENCH_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")  # main changes it; this puts it back
    monkeypatch.setattr(main, "FULL_ERROR", False)
    assert not GlobalHydra.instance().is_initialized()
    return Told(monkeypatch, capsys)


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's own folder of options; their code is the module ``unruly``."""
    folder = tmp_path_factory.mktemp("options")
    (folder / "method").mkdir()
    (folder / "method" / "mine.yaml").write_text(MINE)
    return folder


# ---------------------------------------------------------------------------------------------
# Mistakes.


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["method=finetun"], "method=finetun: no such option; did you mean finetune or "),
        (["-m", "method=finetune,originl"], "method=originl: no such option; did you mean orig"),
        (["-m", "method=glob(zz*)"], "method=glob(zz*): no option fits; there are: "),
        (["sweep=quickstar"], "sweep=quickstar: no such option; did you mean quickstart?"),
        (["sed=3"], "sed is no key here; did you mean seed"),
        (["method.call.epoch=3"], "method.call.epoch is no key here; did you mean epochs?"),
        (["method.call.sgd.lrr=1"], "method.call.sgd.lrr is no key here; did you mean lr?"),
        (["seed=abc"], "seed=abc: must be int, as its default 0"),
        (["-m", "seed=0,x"], "seed=x: must be int, as its default 0"),
        (["method.call.epochs=[1]"], "method.call.epochs=[1]: must be int, as its default 5"),
        (["method.call=3"], "method.call=3: holds several keys: _target_, sgd"),
        (["seed=0,1"], "seed=0,1 is a sweep: add -m"),
        (["method=finetune", "seed=range(3)"], "seed=range(3) is a sweep: add -m"),
        (["method=glob(*)"], "method=glob(*) is a sweep: add -m"),
        (["dataset=npz"], "dataset.path has no default: say dataset.path="),
        (["workers=0"], "workers=0: must be in [1, 1e9] integer or null"),
        (["-m", "seed=0,1", "device=gpu"], "device=gpu: must be auto, cpu, cuda or cuda:N"),
        (["method=(a"], "method=(a: "),
        (["precision=16-mixed"], "precision=16-mixed: must be 32-true, bf16-mixed or 64-true"),
        (["plan", "precision=16-mixed"], "precision=16-mixed: must be 32-true, bf16-mixed or "),
        (["--nope"], "--nope: there is no such flag; see unlearnbench --help"),
        (["--cfg", "nope"], "argument --cfg/-c: invalid choice: 'nope'"),
        (["--config-dir"], "unlearnbench: argument -cd/--config-dir: expected one argument"),
        (["--config-dir", "/nowhere"], "hydra.searchpath=[file:///nowhere]: there is no such fo"),
        (["controls=[1,2]"], "controls=1: no such method; there are: "),
        (["plan", "dataset=digits", "seed=~/x"], "seed=~/x: token recognition error at: '~'; as "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line(words: list[str], line: str, told: Told, tmp_path: Path) -> None:
    code, out, err = told(*words)
    assert code == 1
    assert err.startswith(f"unlearnbench: {line}")
    assert err.count("\n") == 1
    assert out == ""
    assert not (tmp_path / "results").exists()


def test_a_mistake_beside_a_folder_of_options_is_told_as_it_is(told: Told, options: Path) -> None:
    """The folder is no override, and its options are there when the mistake is looked for."""
    flag = ["--config-dir", str(options)]
    code, _, err = told(*flag, "method=mine", "device=gpu")
    assert (code, err) == (1, "unlearnbench: device=gpu: must be auto, cpu, cuda or cuda:N\n")
    _, _, err = told(*flag, "method=min")
    assert err == "unlearnbench: method=min: no such option; did you mean mine?\n"
    _, _, err = told(*flag, "method=mine", "method.call.strenght=1")
    assert err.startswith("unlearnbench: method.call.strenght is no key here; did you mean stre")


@pytest.mark.tried(
    "~, a relative path, spaces, commas and quotes in --config-dir, spelled in four ways",
    "one folder, for cells and commands",
)
@pytest.mark.parametrize("folder", ["~/a b,c", "a b,c", "./a b,c", "it's"])
def test_a_folder_of_options_is_a_path_like_others(
    folder: str, told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name in ("a b,c", "it's"):
        (tmp_path / name / "method").mkdir(parents=True)
        (tmp_path / name / "method" / "mine.yaml").write_text(MINE)
    for flag in (["--config-dir", folder], [f"--config-dir={folder}"], ["-cd", folder]):
        for words in (["plan", *flag], [*flag, "--cfg", "job"]):
            code, out, err = told(*words, "method=mine")
            assert (code, err) == (0, ""), words
            assert "1 unlearned" in out or "name: mine" in out


def test_a_results_folder_that_cannot_be_is_one_line(told: Told, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, _, err = told(f"paths.results={tmp_path / 'file' / 'results'}")
    assert code == 1
    assert re.fullmatch(r"unlearnbench: .*Not a directory: '.*'\n", err)


def test_full_error_shows_all(tmp_path: Path) -> None:
    done = command(["method=finetun"], tmp_path, HYDRA_FULL_ERROR="1")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "HydraException" in done.stderr or "MissingConfigException" in done.stderr


@pytest.mark.tried(
    "a data set, a forget set or an original in a file that is not there",
    "one line with the whole path, before anything runs",
)
@pytest.mark.parametrize(
    "axis", ["dataset=npz dataset", "forget=rows forget", "train=checkpoint train"]
)
def test_a_missing_file_is_one_line_and_no_row(axis: str, told: Told, tmp_path: Path) -> None:
    missing = tmp_path / "none.npz"
    choice, key = axis.split()
    code, out, err = told(choice, f"{key}.path={missing}")
    assert (code, out) == (1, "")
    assert err == f"unlearnbench: {key}.path={missing}: there is no such file or folder\n"
    assert not (tmp_path / "results").exists()


# ---------------------------------------------------------------------------------------------
# What it shows.


def test_help_lists_the_axes_and_their_options(told: Told) -> None:
    code, out, _ = told("--help")
    assert code == 0
    for axis in AXES:
        assert re.search(rf"^{axis}: .*{validate.options(axis)[0]}", out, re.MULTILINE), axis
    assert "unlearnbench method=finetune seed=1" in out
    assert "epochs: 5" in out


def test_cfg_job_prints_the_cell(told: Told) -> None:
    code, out, _ = told("--cfg", "job", "method=gradient_ascent", "seed=7")
    assert code == 0
    assert "seed: 7" in out
    assert "_target_: unlearnbench.method.gradient_ascent.gradient_ascent" in out


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("method=fin", ["method=finetune"]),
        ("method.call.ep", ["method.call.epochs="]),
        ("dataset=wi", ["dataset=wine", "dataset=wine_quality"]),
    ],
)
def test_tab_completes(
    line: str,
    words: list[str],
    told: Told,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    typed = f"unlearnbench {line}"
    monkeypatch.setenv("COMP_LINE", typed)
    monkeypatch.setenv("COMP_POINT", str(len(typed)))
    code, out, _ = told("-sc", "query=bash")
    assert (code, out.split()) == (0, words)


def test_tab_completion_installs(told: Told) -> None:
    code, script, _ = told("-sc", "install=bash")
    assert code == 0
    assert re.search(r"complete .* unlearnbench$", script, re.MULTILINE)


# ---------------------------------------------------------------------------------------------
# What it does.


@pytest.fixture(scope="module")
def single(preloaded: Preloaded, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """One cell, computed by the command."""
    folder = tmp_path_factory.mktemp("single")
    code, sweep = preloaded.run([*FAST, "method=finetune", "seed=1"], folder)
    assert code == 0, sweep.err
    return folder, sweep.out


def test_one_cell_and_its_controls(single: tuple[Path, str]) -> None:
    folder, out = single
    wide = load_results(folder, wide=True)
    methods = ["finetune", "original", "retrain", "second_retrain"]
    assert sorted(wide["method"]) == methods
    assert set(wide["seed"]) == {1}
    assert out.startswith("4 cells → 1 original, 2 retrains, 1 unlearned; 3 waves\n")
    assert "5/5" in out  # the bar's counts
    lines = [line.split()[0] for line in out.splitlines() if line.split()]
    assert [word for word in lines if word in methods] == [*methods[1:], methods[0]]
    assert f"rows in {folder / 'rows'}" in out


def test_run_from_python_gives_the_same_rows(
    single: tuple[Path, str], preloaded: Preloaded, tmp_path: Path
) -> None:
    """``unlearnbench.run`` by words on the command's folder, and by keywords on a new one."""
    folder, _ = single
    paths = {"results": str(folder)}
    frame = unlearnbench.run([*FAST, "method=finetune", "seed=1"], paths=paths)
    pd.testing.assert_frame_equal(frame, unlearnbench.load_results(folder))
    code, sweep = preloaded.run([], tmp_path, partial(by_keywords, tmp_path))
    assert code == 0, sweep.err
    pd.testing.assert_frame_equal(table(tmp_path), table(folder))


def by_keywords(results: Path) -> None:
    unlearnbench.run(
        dataset="breast_cancer",
        model="logreg",
        train={"call": {"epochs": 2}},
        method="finetune",
        seed=1,
        **{"method.call.epochs": 1, "attack.call.splits": 2},
        paths={"results": str(results)},
    )


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"seed": range(3)}, ["seed=0,1,2"]),
        ({"method": ["finetune", "original"]}, ["method=finetune,original"]),
        ({"train": {"call": {"sgd": {"lr": 0.1}}}}, ["train.call.sgd.lr=0.1"]),
        ({"forget": {"call": {"count": None}}}, ["forget.call.count=null"]),
        ({"model": "cnn", "seed": 2}, ["model=cnn", "seed=2"]),
        ({"forget": {"call": {"count": [None, 1]}}}, ["forget.call.count=null,1"]),
        ({"dataset": {"path": Path("~/a b")}}, ["dataset.path='~/a b'"]),
    ],
)
def test_keywords_are_words(given: dict[str, object], words: list[str]) -> None:
    assert unlearnbench._words(given) == words


def test_run_raises_what_the_command_says(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="method=finetun: no such option; did you mean finetune"):
        unlearnbench.run(method="finetun")
    assert not GlobalHydra.instance().is_initialized()


@pytest.mark.parametrize("overrides", ["method=finetune", [3], [None]])
def test_overrides_are_a_list_of_texts(overrides: Any) -> None:
    with pytest.raises(ValueError, match="overrides: must be a list of texts such as"):
        unlearnbench.run(overrides)


def test_a_users_own_method(options: Path, preloaded: Preloaded, tmp_path: Path) -> None:
    """By flag, by Hydra's search path in a sweep, and from Python; one model for all of them."""
    search = f"hydra.searchpath=[file://{options}]"
    words = [*TINY, "attack=none", "method=mine"]
    code, sweep = preloaded.run(["--config-dir", str(options), *words], tmp_path)
    assert code == 0, sweep.err
    wide = load_results(tmp_path, wide=True).set_index("method")
    assert wide.loc["mine", "status"] == "ok"
    # Half the weights are the same argmax: it is their function that was called, and on the model.
    assert wide.loc["mine", "test_acc"] == wide.loc["original", "test_acc"]
    code, sweep = preloaded.run(["-m", search, *words, "seed=0,1"], tmp_path)
    assert code == 0, sweep.err
    assert sweep.out.startswith(
        "8 cells (4 there) → 1 original, 2 retrains, 1 unlearned; 1 in store"
    )
    code, sweep = preloaded.run([search, *words], tmp_path)
    assert (code, sweep.out.split("\n")[0]) == (0, "4 cells, all there"), sweep.err
    frame = unlearnbench.run([search, *words], paths={"results": str(tmp_path)})
    assert "mine" in set(frame["method"])


def test_stock_sweeper_and_launcher_run_all_cells(preloaded: Preloaded, tmp_path: Path) -> None:
    stock = ["hydra/sweeper=basic", "hydra/launcher=basic", "controls=[]"]
    words = [*stock, *TINY, "attack=none", "method.call.epochs=1", "method.call._target_=%s"]
    both = "unruly.nowhere,unlearnbench.method.finetune.finetune"
    code, sweep = preloaded.run(["-m", *" ".join(words).replace("%s", both).split()], tmp_path)
    assert code == 1  # the first cell failed, the second was computed all the same
    assert sorted(load_results(tmp_path, wide=True)["status"]) == ["failed", "ok"]
    assert "\nunlearnbench: failed: controls=[] dataset=breast_cancer" in sweep.err
    assert "Traceback" not in sweep.err


@pytest.mark.slow
def test_submitit_runs_cells_one_by_one(tmp_path: Path) -> None:
    """Hydra's own plugin; each cell is a process of its own, which pulls what it needs."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="the plugin is an extra")
    words = ["-m", *TINY, "attack=none", "hydra/launcher=submitit_local", "controls=[retrain]"]
    done = command([*words, "method=finetune,original"], tmp_path)
    assert done.returncode == 0, done.stderr
    wide = load_results(tmp_path, wide=True)
    assert sorted(wide["method"]) == ["finetune", "original", "retrain"]
    assert set(wide["status"]) == {"ok"}
    broken = command([*words, "method=finetune", "method.call._target_=unruly.nowhere"], tmp_path)
    assert broken.returncode == 1
    assert "unlearnbench: failed: " in broken.stderr


def test_a_study_writes_its_table(preloaded: Preloaded, tmp_path: Path) -> None:
    words = ["-m", "sweep=quickstart", *FAST, "method=original", "seed=0"]
    code, sweep = preloaded.run([word for word in words if "epochs=1" not in word], tmp_path)
    assert code == 0, sweep.err
    written = tmp_path / "tables" / "quickstart.md"
    assert f"wrote {written}" in sweep.out
    assert "unlearnbench report quickstart" in sweep.out
    text = written.read_text()
    assert text.startswith("### dataset breast_cancer · model logreg")
    assert [line.split()[1] for line in text.splitlines()[4:7]] == [
        "original",
        "retrain",
        "second_retrain",
    ]
    assert len(load_results(tmp_path, sweep="quickstart", wide=True)) == 3


@pytest.mark.parametrize(
    ("width", "lines", "columns"),
    [(100, 1, "RA % VA % MIA AUC n"), (36, 2, "RA % VA % MIA AUC n"), (30, 2, "RA % MIA AUC n")],
)
def test_a_table_has_the_width_of_the_terminal(
    width: int,
    lines: int,
    columns: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Intervals go under their means before columns are left out; nothing is folded."""
    means = {"RA %": "10.0 ± 1.0", "VA %": "20.0 ± 1.0", "MIA AUC": "0.5 ± 0.1", "n": "3"}
    monkeypatch.setattr(tables, "console", Console(width=width, highlight=False))
    tables.show("title", pd.DataFrame([{"method": "near", **means}]))
    _, _, head, _, *body = (line.rstrip() for line in capsys.readouterr().out.splitlines())
    assert " ".join(head.split()) == f"method {columns}"
    assert len([line for line in body if line]) == lines
    assert len(head) <= width


def test_check_says_pass_fail_and_skip_and_ends_accordingly(told: Told) -> None:
    code, said, _ = told("check", "method=gradient_ascent", "model=logreg")
    assert code == 0
    assert "gradient_ascent: PASS All weights are finite" in said
    assert "gradient_ascent: PASS It runs on model=logreg" in said
    assert re.search(r"gradient_ascent: SKIP .*: it runs no net beside the one", said)
    assert re.search(r"\d+ PASS, \d+ SKIP$", said.strip())
    code, said, _ = told("check", "method=unruly.shrunk", "method.call.strength=0.0")
    assert code == 1
    assert re.search(
        r"unruly.shrunk: FAIL Weights changed, not only buffers: the model is as it was", said
    )


def test_check_says_a_mistake_in_one_line(told: Told) -> None:
    code, _, said = told("check", "method=scrubb")
    assert code == 1
    assert (
        said == "unlearnbench: method=scrubb: no such option; did you mean scrub or scrub_as_run?\n"
    )


def test_pictures_are_named_the_first_of_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pictures").mkdir()
    keys = [f"{number:08x}{0:056x}" for number in range(8)]
    names = [f"digits-cnn-default-m-a-seed0-{key[:8]}.png" for key in keys]
    for name in names[1:]:
        (tmp_path / "pictures" / name).touch()
    about = {"status": "ok", "reason": None, "method": "m", "attack": "a", "seed": 0}
    wide = pd.DataFrame({"key": keys, **about})
    assert not tables.tell(wide, tmp_path)
    said = capsys.readouterr().out
    for name in names:
        assert (f"picture of m seed 0: {tmp_path}/pictures/{name}" in said) == (name in names[1:6])
    assert f"2 more pictures in {tmp_path}/pictures" in said


@pytest.mark.tried(
    "methods, reasons and titles with `[red]`, `:smile:`, escape sequences",
    "printed as they are, escape sequences by their numbers",
)
@pytest.mark.parametrize("text", ["[red]x[/red]", "[/]", ":smile:", "\x1b[31mred", "\x1b]0;t\x07"])
def test_the_terminal_obeys_no_text(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    about = {"status": "failed", "reason": text, "method": text, "attack": "a", "seed": 0}
    tables.tell(pd.DataFrame({"key": ["k"], **about}), tmp_path)
    tables.show(text, pd.DataFrame([{"method": text, "RA %": text, text: "1"}]))
    tables.show_plain(pd.DataFrame([{"method": text, text: text}]))
    told = capsys.readouterr().out
    assert told.count(printable(text)) >= 7
    assert "\x1b" not in told
    assert "\x07" not in told
    assert "\x1b" not in main.explained(ValueError(printable(text)))


def test_a_mistake_that_says_nothing_is_told_by_its_type() -> None:
    assert main.explained(MemoryError()) == "MemoryError: not enough memory"
