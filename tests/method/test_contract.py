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
ON_RESNET18 = "It runs on model=resnet18"
HEAVY = {"amnesiac", "bad_teacher", "influence_as_run", "sisa", "sisa_retrain", "ssd", "unsir"}
"""On a ResNet-18 these take over 2 s of a core each; all others are asked about it every time."""
ASKED = [
    pytest.param(
        *method.values,
        asked,
        marks=[*method.marks, *[pytest.mark.slow] * (method.values[0] in HEAVY)]
        if asked == ON_RESNET18
        else method.marks,
    )
    for method in METHODS
    for asked in check.properties()
]


@cache
def subject(name: str) -> Subject:
    return check.subject(composed(f"method={name}").method)


@pytest.mark.parametrize(("name", "asked"), ASKED)
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
