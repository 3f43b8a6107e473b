"""What every method keeps to, whatever it computes: the properties of ``unlearnbench check``."""

from functools import cache

import pytest
from cells import composed

from unlearnbench.check import properties, run
from unlearnbench.check.subject import PASS, SKIP, Subject, memorised, subject_of
from unlearnbench.config import validate
from unlearnbench.core.errors import Skip

ON_A_RESNET = {"cfw_as_run"}  # it acts on nothing in the small net, and takes a minute elsewhere
METHODS = [
    pytest.param(name, marks=[pytest.mark.slow] * (name in ON_A_RESNET))
    for name in validate.options("method")
    if name != "original"  # it calls nothing
]
SLOW = {
    "It runs on model=resnet18": {
        # Each 0.4 s of a core and more; of each kind (a teacher, some layers, a mask) one stays.
        *("amnesiac", "bad_teacher", "bad_teacher_as_run", "fcs", "fisher", "influence"),
        *("influence_as_run", "msg_as_run", "prmq", "salun", "salun_as_run", "scrub_no_rewind"),
        *("sisa", "sisa_retrain", "ssd", "unsir"),
    },
    "What the model memorised of the forget rows is less sure, as it is after retraining": {
        # Seconds each, for a training of 30 epochs; tests of their own hold them to more: to be
        # training without the rows, to the bit, to take steps back to the initial weights, to
        # lower the accuracy on the class, to be a dense solve.
        *("sisa", "sisa_retrain", "second_retrain", "amnesiac", "unsir", "influence"),
        "bad_teacher_as_run",  # bad_teacher stays; this one's teacher is a ResNet-18
    },
    "Every hyper-parameter changes the result": {
        # Seconds each. Of three scrubs and of two bad teachers one stays; influence's settings
        # are those of a dense solve in a test of its own.
        *("bad_teacher_as_run", "influence", "scrub_as_run", "scrub_no_rewind"),
    },
    "Another process with another hash seed gives the same bits": {
        # Seconds each in the other process, which draws and hashes as this one does: of scrubs, bad
        # teachers and ensembles one stays.
        *("bad_teacher_as_run", "fcs", "influence", "influence_as_run", "scrub_as_run"),
        *("scrub_no_rewind", "sisa_retrain", "second_retrain", "fisher"),
    },
    "Another seed gives another result": {"influence"},  # a run of some seconds each
    "The forget rows matter: other rows in their place, another result": {
        # Two runs of seconds each, and the dense solve in a test of its own sees each row.
        *("bad_teacher_as_run", "influence", "scrub_as_run", "second_retrain"),
    },
}
"""Where a property costs too much to be asked of these methods each time."""
ASKED = [
    pytest.param(
        *method.values,
        asked,
        marks=[*method.marks, *[pytest.mark.slow] * (method.values[0] in SLOW.get(asked, ()))],
    )
    for method in METHODS
    for asked in properties.properties()
]


def test_what_is_slow_is_asked_by_its_name() -> None:
    assert set(SLOW) <= set(properties.properties())


@cache
def subject(name: str) -> Subject:
    return subject_of(composed(f"method={name}").method)


@pytest.mark.parametrize(("name", "asked"), ASKED)
def test_contract(name: str, asked: str) -> None:
    verdict = run.verdict_of(subject(name), asked)
    assert "looks at no forget row" not in verdict.reason, "declare the trait ignores_forget"
    if verdict.result == SKIP:
        pytest.skip(verdict.reason)
    assert verdict.result == PASS, verdict.reason


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_runs_on_tiny_vit(name: str) -> None:
    try:
        properties.runs_on("tiny_vit", subject(name))
    except Skip as reason:
        pytest.skip(str(reason))


@pytest.mark.tried(
    "a property on the edge of its threshold, which another processor decides",
    "the nearest methods are three times as far as the threshold of `less sure` and more",
)
@pytest.mark.parametrize("name", ["gradient_ascent", "influence_as_run", "cf_k"])
def test_less_sure_has_a_margin(name: str) -> None:
    before, after, retrained = memorised(subject(name))
    assert before - after > 3 * properties.LESS_SURE * (before - retrained)
    assert properties.LESS_SURE * (before - retrained) > 100 * 1e-6, "far above what rounding does"
