"""The plan of a sweep: distinct jobs, each once, and nothing that is there."""

import hashlib
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from unlearnbench.config import compose as compose_module
from unlearnbench.config import validate
from unlearnbench.config.compose import expand
from unlearnbench.core.cell import NOTHING, ORIGINAL, Cell
from unlearnbench.protocol.request_pairs import RequestPair
from unlearnbench.store.artifacts import Store
from unlearnbench.sweep import plan
from unlearnbench.sweep.plan import Job

CONTROLS = ["original", "retrain", "second_retrain"]
METHODS = ["finetune", "gradient_ascent", "neggrad_plus", "random_labels"]


def grid(*words: str, controls: list[str] = CONTROLS) -> list[Cell]:
    axes = [f"method={','.join(METHODS)}", "seed=range(10)"]
    return compose_module.cells(expand(["attack=none", *axes, *words]), controls)


@pytest.fixture(scope="module")
def cells() -> list[Cell]:
    return grid()


def put(store: Store, job: Job) -> None:
    store.get(job.key, lambda folder: {})


def kinds(jobs: tuple[Job, ...]) -> dict[str, int]:
    return dict(Counter(job.kind for job in jobs))


def test_originals_are_one_a_seed_not_one_a_cell(cells: list[Cell], tmp_path: Path) -> None:
    made = plan.plan(cells, Store(tmp_path), set())
    assert made.cells == (4 + 3) * 10
    # The second retrain of a seed is the retrain of the next: one more, not ten.
    assert kinds(made.jobs) == {"original": 10, "retrained": 11, "unlearned": 40, "rows": 10}
    assert len({job.key for job in made.jobs}) == len(made.jobs)


def test_second_retrain_is_the_next_seeds_retrain(cells: list[Cell]) -> None:
    by = {(cell.method["name"], cell.seed): cell for cell in cells}
    for seed in range(9):
        assert by["second_retrain", seed].predictions_key == by["retrain", seed + 1].predictions_key
        assert by["second_retrain", seed].key != by["retrain", seed + 1].key


def test_another_method_starts_from_the_same_original(cells: list[Cell]) -> None:
    starts = {cell.seed: set() for cell in cells}  # type: dict[int, set[str]]
    for cell in cells:
        if cell.method["name"] in METHODS:
            starts[cell.seed].add(cell.original_key)
    assert all(len(keys) == 1 for keys in starts.values())
    assert len(set.union(*starts.values())) == 10


def test_another_forget_set_needs_no_other_original(tmp_path: Path) -> None:
    two = grid("forget=random,by_class")
    assert kinds(plan.plan(two, Store(tmp_path), set()).jobs)["original"] == 10


def test_each_job_comes_after_all_it_needs(cells: list[Cell], tmp_path: Path) -> None:
    jobs = plan.plan(cells, Store(tmp_path), set()).jobs
    assert [job.wave for job in jobs] == sorted(job.wave for job in jobs)
    before: set[str] = set()
    for job in jobs:
        assert before >= {*job.needs}
        assert bool(job.needs) == (job.wave > 1)
        before.add(job.key)


def test_rows_need_every_output_that_they_read(cells: list[Cell], tmp_path: Path) -> None:
    rows = [job for job in plan.plan(cells, Store(tmp_path), set()).jobs if job.kind == "rows"]
    assert sorted(cell.key for job in rows for cell in job.cells) == sorted(c.key for c in cells)
    for job in rows:
        for cell in job.cells:
            assert {cell.predictions_key, cell.original().predictions_key} <= {*job.needs} or (
                cell.from_scratch and cell.predictions_key in job.needs
            )


def test_rows_are_written_fifty_cells_a_file(tmp_path: Path) -> None:
    words = ["seed=0", f"method.call.epochs=range(1,{plan.ROWS_AT_ONCE})"]
    many = compose_module.cells(expand(["attack=none", "method=finetune", *words]), CONTROLS)
    rows = [job for job in plan.plan(many, Store(tmp_path), set()).jobs if job.kind == "rows"]
    assert [len(job.cells) for job in rows] == [plan.ROWS_AT_ONCE, 2]


def test_what_is_in_the_store_is_not_planned(cells: list[Cell], tmp_path: Path) -> None:
    store = Store(tmp_path)
    jobs = plan.plan(cells, store, set()).jobs
    there = [job for job in jobs if job.kind == "original"][:4]
    for job in there:
        put(store, job)
    left = plan.plan(cells, store, set())
    assert [job.key for job in left.jobs] == [
        job.key for job in jobs if job.key not in {one.key for one in there}
    ]
    told = "70 cells → 10 originals, 11 retrains, 40 unlearned; 4 in store; 3 waves"
    assert str(left) == told
    assert left.line(1214) == f"{told}, 1,214 tasks"


def test_finished_cells_are_not_planned_nor_what_only_they_need(
    cells: list[Cell], tmp_path: Path
) -> None:
    finished = {cell.key for cell in cells if cell.seed != 3}
    left = plan.plan(cells, Store(tmp_path), finished)
    assert kinds(left.jobs) == {"original": 1, "retrained": 2, "unlearned": 4, "rows": 1}
    assert str(left) == "70 cells (63 there) → 1 original, 2 retrains, 4 unlearned; 3 waves"
    everything = plan.plan(cells, Store(tmp_path), {cell.key for cell in cells})
    assert everything.jobs == ()
    assert str(everything) == "70 cells, all there"


def test_a_cell_is_finished_with_its_models_utility_only(tmp_path: Path) -> None:
    (cell,) = compose_module.cells([["attack=umia"]])
    for finished in ({cell.key}, {cell.utility_key}):
        assert plan.plan([cell], Store(tmp_path), finished).jobs
    assert not plan.plan([cell], Store(tmp_path), {cell.key, cell.utility_key}).jobs


def test_compositions_are_one_a_distinct_option_not_one_a_cell(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A full composition takes 50 ms; a sweep of 180 cells must plan while one watches."""
    compose, asked = validate.hydra_compose, []
    monkeypatch.setattr(
        validate, "hydra_compose", lambda *a, **k: asked.append(k) or compose(*a, **k)
    )

    def compositions(methods: list[str], seeds: int) -> int:
        asked.clear()
        words = [f"method={','.join(methods)}", f"seed=range({seeds})"]
        assert len(compose_module.cells(expand(words))) == len(methods) * seeds
        return len(asked)

    few = compositions(METHODS[:2], 2)
    assert compositions(METHODS[:2], 90) == few
    assert compositions(METHODS[:3], 60) == few + 1


def calls(function: Callable[[], object]) -> int:
    """Calls of functions, Python's and C's, that a call makes: what it costs, on any machine."""
    count = 0

    def counted(frame: object, event: str, _: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(counted)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count


def test_no_step_is_quadratic_in_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each twenty seeds more cost what the twenty before did, from words to jobs."""
    store, composed, real = Store(tmp_path), dict[str, Any](), validate.hydra_compose

    def once(name: str, overrides: list[str], **more: Any) -> Any:
        asked = str(overrides)
        if asked not in composed:
            composed[asked] = real(name, overrides=overrides, **more)
        return composed[asked]

    monkeypatch.setattr(validate, "hydra_compose", once)  # of which there are as many for one seed
    each: dict[str, list[int]] = {name: [] for name in ("cells", "plan", "needed")}
    for seeds in (1, 20, 40, 60):
        typed = ["attack=umia", "method=finetune,gradient_ascent", f"seed=range({seeds})"]
        words, made = expand(typed), dict[str, Any]()

        def step(name: str, function: Callable[[], object], made: Any = made) -> None:
            each[name].append(calls(lambda: made.__setitem__(name, function())))

        step("cells", lambda words=words: compose_module.cells(words, CONTROLS))
        step("plan", lambda made=made: plan.plan(made["cells"], store, set()))
        step("needed", lambda made=made: plan.needed(made["cells"]))
        assert len(made["cells"]) == 5 * seeds
    for name, (_, one, two, three) in each.items():
        assert three - two < 1.1 * (two - one), name


def test_digests_and_looks_at_the_store_are_few_a_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed, listed = [], []
    real, sha256 = Store._listed, hashlib.sha256
    monkeypatch.setattr(Store, "_listed", lambda *a: listed.append(a) or real(*a))
    monkeypatch.setattr(hashlib, "sha256", lambda text: hashed.append(text) or sha256(text))
    cells = compose_module.cells(
        expand(["attack=none", "forget.call.seed=range(5)", "seed=range(60)"]), ["retrain"]
    )
    plan.plan(cells, Store(tmp_path), set())
    assert len(cells) == 2 * 300
    assert len(hashed) < 12 * len(cells)
    assert 0 < len(listed) <= 256


def test_planning_imports_no_torch(tmp_path: Path) -> None:
    text = f"""
import sys
from pathlib import Path
from unlearnbench.cli import main
from unlearnbench.config import compose
from unlearnbench.results import load
from unlearnbench.sweep import local
from unlearnbench.sweep.plan import plan
from unlearnbench.store.artifacts import Store
grid = compose.cells([["method=finetune", "seed=1"]], {CONTROLS})
print(plan(grid, Store(Path({str(tmp_path)!r})), load.finished(Path({str(tmp_path)!r}))))
print(sys.modules.keys() & {{"torch", "lightning", "sklearn", "torchvision"}})
"""
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "4 cells → 1 original, 2 retrains, 1 unlearned; 3 waves\nset()\n"


def test_an_attack_on_a_population_needs_its_shadows_once(tmp_path: Path) -> None:
    """Originals and retrained models of the population serve every method and attack."""
    words = ["attack=ulira", "attack.shadow_models.models=8"]
    cells = compose_module.cells(
        [[*words, f"method={name}"] for name in ("finetune", "gradient_ascent")]
    )
    made = plan.plan(cells, Store(tmp_path), set())
    assert kinds(made.jobs) == {
        "original": 1 + 8,
        "retrained": 1 + 8,
        "unlearned": 2 * (1 + 8),
        "rows": 1,
    }
    keys = {job.key for job in made.jobs}
    assert all(set(job.needs) <= keys for job in made.jobs)


@pytest.mark.parametrize("method", ["sisa", "sisa_retrain"])
def test_an_ensemble_needs_what_it_was_before_a_request(method: str) -> None:
    """With what its ``prepare`` step left, if it has one."""
    words = [
        f"method={method}",
        "attack=double_output",
        "request_pairs.originals=1",
        "request_pairs.requests=2",
    ]
    (one,) = compose_module.cells([words])
    before = [replace(each, forget=NOTHING) for each in RequestPair.models(one)]
    found = plan.needed([one])
    assert {each.model_key for each in before} <= found
    if method == "sisa":
        assert {each.prepared_key for each in before} <= found


@pytest.mark.tried(
    "an attack on one output with ceiling: original, of a method that trains from scratch",
    "the original is planned and made by a job of its own, not while rows are computed",
)
def test_the_ceiling_of_an_attack_on_one_output_is_planned() -> None:
    (plain,) = compose_module.cells([["attack=umia", "method=retrain"]])
    traits = {"headline": ["mia_test_auc"], "ends": {"floor": "retrain", "ceiling": "original"}}
    asked = replace(plain, attack={**plain.attack, "traits": traits})
    original = replace(plain, method=ORIGINAL).predictions_key
    assert original in plan.needed([asked])
    assert original not in plan.needed([plain])
