"""Comparisons with loops by hand are made in float64, where no processor decides them."""

from pathlib import Path

import pytest
import torch
from method.bench import Bench, all_close, close

ONE_PASS = {"test_sisa.py"}
"""Compares stored float32 outputs with one pass of the net, no training."""


@pytest.mark.tried(
    "a training by hand against the method on a processor with other instructions",
    "both run in float64 and agree to 1e-9; a comparison in float32 is refused",
)
def test_a_comparison_in_float32_is_refused() -> None:
    one = torch.ones(3)
    with pytest.raises(AssertionError, match="float32"):
        close(one, one.double())
    with pytest.raises(AssertionError, match="float32"):
        all_close({"w": one}, {"w": one})
    close(one.double() + 1e-10, one.double())
    with pytest.raises(AssertionError, match="not close"):
        close(one.double() + 1e-8, one.double())
    with pytest.raises(AssertionError):
        all_close({"n": torch.tensor(1)}, {"n": torch.tensor(2)})


def test_the_bench_computes_in_float64(bench: Bench) -> None:
    x, _ = next(iter(bench.task.retain))
    nets = (bench.original, bench.fresh())
    assert {x.dtype, *(p.dtype for net in nets for p in net.parameters())} == {torch.float64}


def test_no_other_comparison_is_made() -> None:
    files = Path(__file__).parent.glob("test_*.py")
    others = {p.name for p in files if "testing.assert_" + "close" in p.read_text()}
    assert others == ONE_PASS
