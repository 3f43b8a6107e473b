"""``unlearnbench tune``: killed, shared, timed; what it is asked, what it chooses and writes."""

import json
import math
import os
import re
import signal
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from cells import Cells
from omegaconf import OmegaConf
from sweeps import TINY, Preloaded, until

import unlearnbench
from unlearnbench.config import compose
from unlearnbench.core.errors import ConfigError
from unlearnbench.search import journal_study as search
from unlearnbench.search.journal_study import COMPLETE, FAILED, Outcome, Told
from unlearnbench.search.study import Study
from unlearnbench.tune import choose, request, run, write

pytest_plugins = ["sweep_fixtures"]

OFF = """
name: "off"
label: 'Off'
version: 4
call: {_target_: unruly.off, strength: 0.0, steps: 1}
space:
  strength: {low: 0.0, high: 1.2}
  steps: {low: 1, high: 2}
"""


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """A search over a method that is right where its strength is within a quarter of 0.6."""
    (tmp_path / "conf" / "method").mkdir(parents=True)
    (tmp_path / "conf" / "method" / "off.yaml").write_text(OFF)
    own = f"hydra.searchpath=[file://{tmp_path / 'conf'}]"
    return ["tune", *TINY, "method='off'", own, "seeds=100,101", "fresh=102", "best=2"]


def trials(results: Path) -> pd.DataFrame:
    """All trials, but for what a clock said, and git, which may go on meanwhile."""
    return unlearnbench.load_trials(results).drop(columns=["seconds", "commit"])


def test_a_known_optimum_is_found_written_and_applied(
    preloaded: Preloaded, words: list[str], tmp_path: Path
) -> None:
    results = tmp_path / "results"
    code, said = preloaded.run([*words, "trials=15", "workers=2"], results, UNRULY_RAISES="0.1")
    assert code == 0, said.err
    found = trials(results)
    whole = found[(found["phase"] == "search") & (found["trial_status"] == COMPLETE)]
    means = whole.groupby("trial")["score"].mean()
    settings = found.drop_duplicates("trial").set_index("trial")["settings"]
    strength = settings.map(lambda text: json.loads(text)["strength"])
    assert strength[0] == 0.0
    raised = found[found["trial_status"] == FAILED]
    assert 0 in set(raised["trial"])
    assert set(raised["reason"]) == {"KeyError: 'on purpose'"}
    assert (raised["score"] == math.inf).all()
    assert abs(strength[means.idxmin()] - 0.6) < 0.25
    assert sorted(found["trial"].unique()) == list(range(15))
    told = OmegaConf.load(results / "tuned" / "breast_cancer_logreg" / "off.yaml")
    assert abs(told.call.strength - 0.6) < 0.25
    assert told.provenance.method_version == 4
    assert "tune" in told.provenance.command
    assert "trials=15" in told.provenance.command
    assert list(told.provenance.seeds) == [100, 101]
    assert list(told.provenance.fresh_seeds) == [102]
    assert sum(told.provenance.trials.values()) == 15
    fresh = found[(found["phase"] == "fresh") & (found["trial"] == told.provenance.trial)]
    assert told.provenance.score_on_fresh_seeds == pytest.approx(fresh["score"].mean())
    assert told.provenance.score_in_search == pytest.approx(means[told.provenance.trial])
    # Trials were kept nowhere; and the same command has nothing left to do.
    before = {path for path in results.rglob("manifest.json")}
    assert len(before) == 4 * 3  # original and retrained of three seeds, with their predictions
    code, said = preloaded.run([*words, "trials=15", "workers=2"], results)
    assert code == 0
    assert "0 to do" in said.out
    assert {path for path in results.rglob("manifest.json")} == before
    pd.testing.assert_frame_equal(trials(results), found)


def test_killed_in_the_middle_and_run_again_it_is_the_same_search(
    preloaded: Preloaded, words: list[str], tmp_path: Path
) -> None:
    log, gate = tmp_path / "log", tmp_path / "gate"
    words = [*words, "trials=12", "workers=1"]
    code, _ = preloaded.run(words, tmp_path / "whole", UNRULY_LOG=str(tmp_path / "all"))
    assert code == 0
    told = {"UNRULY_LOG": str(log), "UNRULY_GATE": str(gate), "UNRULY_AFTER": "9"}
    killed = preloaded.start(words, tmp_path / "killed", **told)
    until(lambda: log.is_file() and len(log.read_text().splitlines()) == 9)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    gate.touch()
    code, said = preloaded.run(words, tmp_path / "killed", **told)
    assert code == 0, said.err
    pd.testing.assert_frame_equal(trials(tmp_path / "killed"), trials(tmp_path / "whole"))
    whole = (tmp_path / "all").read_text().splitlines()
    # The trial that was under way, on its first or second seed, is tried anew; no other.
    assert 1 <= len(log.read_text().splitlines()) - len(whole) <= 2
    assert len(list((tmp_path / "killed" / "studies").iterdir())) == 1


def test_two_commands_on_one_study_lose_and_repeat_nothing(
    preloaded: Preloaded, words: list[str], tmp_path: Path
) -> None:
    results, log = tmp_path / "results", tmp_path / "log"
    words = [*words, "trials=10", "workers=2", "prune=false"]
    both = [preloaded.start(words, results, UNRULY_LOG=str(log)) for _ in range(2)]
    assert [one.wait() for one in both] == [0, 0]
    found = trials(results)
    assert Counter(found[found["phase"] == "search"]["trial"]) == dict.fromkeys(range(10), 2)
    assert len(log.read_text().splitlines()) == len(found)


def test_interrupted_what_was_tried_is_in_the_table(
    preloaded: Preloaded, words: list[str], tmp_path: Path
) -> None:
    results, log = tmp_path / "results", tmp_path / "log"
    told = {"UNRULY_LOG": str(log), "UNRULY_GATE": str(tmp_path / "gate"), "UNRULY_AFTER": "5"}
    running = preloaded.start([*words, "trials=9", "workers=1"], results, **told)
    until(lambda: log.is_file() and len(log.read_text().splitlines()) == 5)
    os.kill(running.pid, signal.SIGINT)
    assert running.wait() == 130
    assert running.err == "unlearnbench: interrupted; the same command goes on from here\n"
    assert set(trials(results)["trial"]) == {0, 1}
    assert not (results / "tuned").exists()


def test_after_the_timeout_no_trial_begins(
    preloaded: Preloaded, words: list[str], tmp_path: Path
) -> None:
    results = tmp_path / "results"
    code, said = preloaded.run([*words, "trials=3", "timeout=0.001"], results)
    assert code == 1  # nothing is found
    assert "skipped: 3 jobs: timeout" in said.out
    with pytest.raises(FileNotFoundError, match="no trials in"):
        unlearnbench.load_trials(results)
    code, _ = preloaded.run([*words, "trials=3"], results)
    assert code == 0
    assert set(trials(results)["trial"]) == {0, 1, 2}


# ---------------------------------------------------------------------------------------------
# What is asked.


def test_a_plan_says_what_is_left_and_what_it_should_cost(
    preloaded: Preloaded, words: list[str], tmp_path: Path
) -> None:
    results = tmp_path / "results"
    search_of_five = ["plan", *words, "method=off,retrain", "trials=5"]
    code, said = preloaded.run(search_of_five, results)
    assert code == 0, said.err
    assert said.out.startswith(
        "1 studies of 5 trials: 5 to do, 0 there; 6 originals and retrains to train, 0 in store\n"
    )
    assert "\nleft out: retrain, which trains from scratch" in said.out
    assert jobs(said.out) == {"1 trained from scratch": 6, "2 trials": 5, "3 trials": 4, "all": 15}
    assert "for nothing like it was done here: 3 original of breast_cancer × logreg" in said.out
    assert not results.exists()
    code, said = preloaded.run([*words, "trials=2"], results)
    assert code == 0, said.err
    code, said = preloaded.run(search_of_five, results)
    assert "3 to do, 2 there; 0 originals and retrains to train, 6 in store\n" in said.out
    assert jobs(said.out) == {"2 trials": 3, "3 trials": 4, "all": 7}
    assert "unknown" not in said.out
    code, said = preloaded.run(["plan", *words, "trials=2"], results)
    assert said.out == "1 studies of 2 trials: 0 to do\n"


def jobs(said: str) -> dict[str, int]:
    """How many there are, by the lines of a bill."""
    return {name: int(n) for name, n in re.findall(r"^ (\w.*?)  +(\d+)  ", said, re.MULTILINE)}


def test_words_make_studies() -> None:
    asked = request.ask(["method=scrub,retrain,original,sisa,ct", "seeds=range(2)", "fresh=5"])
    assert [study.cell.names["method"] for study in asked.studies] == ["scrub", "ct"]
    assert {*asked.left_out} == {"retrain", "original", "sisa"}
    for study in asked.studies:
        assert [cell.seed for cell in (*study.cells, *study.fresh)] == [0, 1, 5]
        assert study.cell.names["attack"] == "umia"
        assert study.objective == "retrained"
    assert asked.name == request.ask(["method=ct,scrub", "seeds=0,1", "fresh=6"]).name


def test_a_sweep_of_seeds_and_attacks_lends_its_methods_alone() -> None:
    asked = request.ask(["sweep=methods", "selection=no_retrain"])
    assert len(asked.studies) == 18
    assert not asked.left_out
    assert {study.objective for study in asked.studies} == {"no_retrain"}
    seeds = {cell.seed for study in asked.studies for cell in (*study.cells, *study.fresh)}
    assert seeds == {100, 101, 102, 103, 104, 105}
    assert not seeds & {*range(10)}  # on which tables are made


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["seed=3"], "seed=3: a search sets seed itself; say seeds=…"),
        (["attack=ulira"], "attack=ulira: a search sets attack itself; .*umia"),
        (["smapler=tpe"], "smapler is no key here; did you mean sampler"),
        (["sampler=cma"], "sampler=cma: must be tpe, nsga3 or random"),
        (["selection=best"], "selection=best: must be robust, paper or no_retrain"),
        (["trials=many"], "trials=many: must be int, as its default 50"),
        (["trials=0"], r"trials=0: must be in \[1, 1e9\]"),
        (["seeds=1,1"], r"seeds=\[1, 1\]: must be different whole numbers from 0 on"),
        (["seeds=1,2", "fresh=2,3"], r"fresh=\[2, 3\]: \[2\] are tuned on; take others"),
        (["seeds=[]"], r"seeds=\[\]: a trial needs one at least"),
        (["timeout=-1"], r"timeout=-1: must be in \(0, 1e9\] or null"),
        (["method=scurb"], "method=scurb: no such option; did you mean scrub"),
        (["method=retrain"], "nothing to tune: retrain trains from scratch"),
        (["scrub"], "unlearnbench tune: scrub: one sweep at most, key=value"),
    ],
)
def test_mistakes_are_one_line(words: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        request.ask(words)


def test_the_plan_holds_what_is_left_and_in_what_order(tmp_path: Path) -> None:
    words = ["method=ct,scrub", "seeds=100", "fresh=103", "trials=2", "best=1"]
    asked = request.ask([*words, f"paths.results={tmp_path}"])
    jobs = run.plan(asked).jobs
    assert [job.kind for job in jobs] == ["original", "retrained"] * 2 + ["trial"] * (4 + 6)
    assert [job.wave for job in jobs] == [1] * 4 + [2] * 4 + [3] * 6
    slots = [job.slot for job in jobs if job.slot is not None]
    methods = [slot.study.cell.names["method"] for slot in slots]
    assert [slot.number for slot in slots] == [0, 0, 1, 1, 0, 0, 1, 1, 2, 2]
    assert methods == ["ct", "scrub"] * 5
    models = {job.key for job in jobs if job.slot is None}
    first, last = jobs[4], jobs[-1]
    assert len(first.needs) == 2
    assert {*first.needs} < models
    of_study = {job.key for job in jobs[4:8] if job.slot and job.slot.study is slots[-1].study}
    assert {*last.needs} - models == of_study


# ---------------------------------------------------------------------------------------------
# What is chosen and written.


def outcomes(first: int, *scores: float) -> tuple[Outcome, ...]:
    return tuple(Outcome(first + n, (s, 0.0, 0.0, 0.0), s, 10.0) for n, s in enumerate(scores))


def told(slot: int, scores: tuple[float, ...], fresh: tuple[float, ...] = ()) -> Told:
    settings = {"sgd.lr": 0.01 * (1 + slot), "epochs": slot}
    return Told(slot, settings, COMPLETE, "", outcomes(100, *scores), outcomes(103, *fresh))


TRIALS = {
    0: told(0, (0.5, 0.5), (0.6, 0.6)),
    1: told(1, (0.1, 0.1), (0.4, 0.5)),  # the luckiest search
    2: told(2, (0.2, 0.2), (0.2, 0.3)),  # the best on fresh seeds
    3: told(3, (0.0, 0.9), (0.9, 0.8)),  # the one best seed of all
    4: told(4, (0.3, 0.3)),  # not looked at again
}


@pytest.fixture
def study(cell: Cells) -> Study:
    cells = [replace(cell("method=finetune"), seed=seed) for seed in (100, 101, 103, 104)]
    return Study((cells[0], cells[1]), (cells[2], cells[3]), "retrained", "tpe", True, 0)


@pytest.mark.parametrize(
    ("options", "slot"),
    [
        ({"selection": "robust", "best": 3}, 2),
        ({"selection": "robust", "best": 1}, 1),
        ({"selection": "no_retrain", "best": 2}, 2),
        ({"selection": "paper", "best": 3}, 3),
    ],
)
def test_selections(study: Study, options: dict[str, Any], slot: int) -> None:
    chosen = choose.choose(study, TRIALS, options)
    assert chosen is not None
    assert chosen.slot == slot
    alone = choose.choose(replace(study, fresh=()), TRIALS, {"selection": "robust", "best": 3})
    assert alone is not None
    assert alone.slot == 1
    half = {1: TRIALS[1], 2: replace(TRIALS[2], fresh=TRIALS[2].fresh[:1])}
    chosen = choose.choose(study, half, {"selection": "robust", "best": 3})
    assert chosen is not None
    assert chosen.slot == 1  # what is not seen whole is not chosen
    assert choose.choose(study, {4: TRIALS[4]}, {"selection": "robust", "best": 3}) is None


def asked(tmp_path: Path, study: Study, **options: Any) -> request.Asked:
    usual, _ = compose.tuning([])
    settings: Mapping[str, Any] = {"paths": {"results": str(tmp_path), "store": str(tmp_path)}}
    return request.Asked(
        (study,), {}, {**usual, **options}, settings, ("method=finetune", "fresh=a b")
    )


def test_the_winners_curse_is_in_the_table(study: Study) -> None:
    (line,) = choose.table([choose.Found(study, TRIALS, TRIALS[2])]).to_dict("records")
    assert line == {
        "method": "finetune",
        "trials (whole, pruned, failed)": "5 (5, 0, 0)",
        "default": "0.5000",
        "default, fresh": "0.6000",
        "in search": "0.2000",
        "fresh": "0.2500",
        "curse": "+0.0500",
        "trial": "2",
        "minutes": "3.0",
    }


def test_settings_are_written_with_where_they_are_from(study: Study, tmp_path: Path) -> None:
    mine = asked(tmp_path, study)
    found = choose.Found(study, TRIALS, TRIALS[2])
    assert write.write(mine, [found]) == [tmp_path / "tuned" / "digits_cnn"]
    path = tmp_path / "tuned" / "digits_cnn" / "finetune.yaml"
    written = OmegaConf.to_object(OmegaConf.load(path))
    assert written["call"] == {"sgd": {"lr": pytest.approx(0.03)}, "epochs": 2}
    about = written["provenance"]
    assert about["command"] == "unlearnbench tune method=finetune 'fresh=a b'"
    assert about["trials"] == {"complete": 5, "pruned": 0, "failed": 0, "skipped": 0}
    assert about["seconds"] == 10.0 * (2 * 5 + 2 * 4)
    assert about["score_in_search"] == pytest.approx(0.2)
    assert about["score_on_fresh_seeds"] == pytest.approx(0.25)
    assert about["spread"] == pytest.approx(0.1 / math.sqrt(2))
    assert about["default_on_fresh_seeds"] == pytest.approx(0.6)
    assert (about["seeds"], about["fresh_seeds"]) == ([100, 101], [103, 104])
    paper = asked(tmp_path, study, selection="paper")
    assert write.write(paper, [found]) == [tmp_path / "tuned" / "digits_cnn_paper"]
    shipped = asked(tmp_path, study, into=str(tmp_path / "mine"))
    assert write.write(shipped, [found]) == [tmp_path / "mine"]
    assert write.write(shipped, [replace(found, chosen=None)]) == []


def test_the_log_is_a_row_a_trial_and_seed(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = Told(
        5, {"epochs": 3}, FAILED, "diverged", (Outcome(100, (), math.inf, 1.0, FAILED, "diverged"),)
    )
    monkeypatch.setattr(search, "told", lambda results, study: {**TRIALS, 5: failed})
    write.log(asked(tmp_path, study))
    found = unlearnbench.load_trials(tmp_path)
    assert len(found) == 2 * 5 + 2 * 4 + 1
    one = found[(found["trial"] == 1)]
    assert one[["phase", "seed", "score"]].to_numpy().tolist() == [
        ["search", 100, 0.1],
        ["search", 101, 0.1],
        ["fresh", 103, 0.4],
        ["fresh", 104, 0.5],
    ]
    (last,) = found[found["trial"] == 5].to_dict("records")
    assert (last["status"], last["reason"], last["score"]) == (FAILED, "diverged", math.inf)
    assert math.isnan(last["disc_val"])
    assert json.loads(last["settings"]) == {"epochs": 3}


def test_on_slurm_a_search_is_job_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from commands_of_slurm import Commands

    cluster = Commands(tmp_path, monkeypatch)
    words = ["method=ct", "seeds=100", "fresh=103", "trials=3", "hydra/launcher=slurm"]
    words += ["hydra.launcher.target_minutes=1", f"paths.results={tmp_path / 'results'}"]
    mine = request.ask(words)
    assert run.on_slurm(mine)
    assert not run.on_slurm(SimpleNamespace(words=("method=ct",)))  # type: ignore[arg-type]
    said = list(run.submit(mine, run.plan(mine)))
    assert said[0].startswith("1 studies of 3 trials: 3 to do")
    models, first, again = cluster.batches()
    assert "dependency" not in models
    assert first["dependency"] == "afterany:101"
    assert again["dependency"] == "afterany:102"
    assert f"unlearnbench status {mine.name}" in said[-2]
