"""What every method keeps to, whatever it computes: the properties of ``unlearnbench check``."""

from functools import cache

import pytest
from cells import composed

from unlearnbench import check, config
from unlearnbench.check import PASS, Subject
from unlearnbench.values import Skip

ON_A_RESNET = {"cfw_as_run"}  # it acts on nothing in the small net, and takes a minute elsewhere
METHODS = [
    pytest.param(name, marks=[pytest.mark.slow] * (name in ON_A_RESNET))
    for name in config.options("method")
    if name != "original"  # it calls nothing
]


@cache
def subject(name: str) -> Subject:
    return check.subject(composed(f"method={name}").method)


@pytest.mark.parametrize("asked", check.properties())
@pytest.mark.parametrize("name", METHODS)
def test_contract(name: str, asked: str) -> None:
    verdict = check.verdict(subject(name), asked)
    if verdict.result == check.SKIP:
        pytest.skip(verdict.reason)
    assert verdict.result == PASS, verdict.reason


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_runs_on_tiny_vit(name: str) -> None:
    try:
        check.runs_on("tiny_vit", subject(name))
    except Skip as reason:
        pytest.skip(str(reason))
