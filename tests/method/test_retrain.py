"""Retraining is training without the forget rows."""

from dataclasses import replace

from cells import Cells
from method.bench import Bench, same

from unlearnbench.method.retrain import retrain
from unlearnbench.pipeline import inputs


def test_with_nothing_to_forget_it_is_the_original(bench: Bench) -> None:
    none = inputs.task(bench.cell, bench.data, bench.parts.hide_forget())
    assert same(retrain(bench.fresh(), none).state_dict(), bench.original.state_dict())


def test_forget_rows_have_no_say(bench: Bench) -> None:
    spoiled = bench.data.y.clone()
    spoiled[bench.parts.forget] = 0
    other = replace(bench.data, y=spoiled)
    task = inputs.task(bench.cell, other, bench.parts)
    assert same(
        retrain(bench.fresh(), task).state_dict(), retrain(bench.fresh(), bench.task).state_dict()
    )


def test_second_retrain_is_the_same_function_at_the_next_seed(cell: Cells) -> None:
    second = cell("method=second_retrain", "seed=0")
    assert second.method["call"] == cell("method=retrain").method["call"]
    assert second.model_seed == 1
