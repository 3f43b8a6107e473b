"""The conformance suite catches what it is there to catch, and the command says so."""

import sys
from typing import Any

import pytest
import torch
import unruly
from torch import nn

from unlearnbench import check
from unlearnbench.check import FAIL, PASS, SKIP
from unlearnbench.values import Task
from unlearnbench.words import ConfigError

ASKED = {ask: what for what, ask in check.properties().items()}


def option(function: Any, **settings: Any) -> dict[str, Any]:
    call = {"_target_": f"unruly.{function.__name__}", **settings}
    space = {name: {"low": 0.0, "high": 1.0} for name in settings}
    return {"name": function.__name__, "version": 1, "call": call, "space": space}


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What one property says of a method that is made up here."""

    def told(ask: check.Property, method: Any, **settings: Any) -> check.Verdict:
        monkeypatch.setattr(unruly, method.__name__, method, raising=False)
        return check.verdict(check.subject(option(method, **settings)), ASKED[ask])

    return told


def _noisy(model: nn.Module, std: float, generator: torch.Generator | None = None) -> nn.Module:
    with torch.no_grad():
        for p in model.parameters():
            p.add_(std * torch.randn(p.shape, generator=generator))
    return model.eval()


def fine(model: nn.Module, task: Task, *, std: float) -> nn.Module:
    return _noisy(model, std, task.generator("noise"))


def test_a_method_that_keeps_to_it_passes_everything(told: Any) -> None:
    results = {ask.__name__: told(ask, fine, std=0.1).result for ask in check.PROPERTIES}
    assert results.pop("_teachers") == SKIP
    assert set(results.values()) == {PASS}


def default(model: nn.Module, task: Task, *, std: float = 0.1) -> nn.Module:
    return fine(model, task, std=std)


def ambient(model: nn.Module, task: Task, *, std: float) -> nn.Module:
    return _noisy(model, std)


def forgetful_of_eval(model: nn.Module, task: Task, *, std: float) -> nn.Module:
    return fine(model, task, std=std).train()


def lazy(model: nn.Module, task: Task, *, std: float) -> nn.Module:
    return model.eval()


def exploding(model: nn.Module, task: Task, *, std: float) -> nn.Module:
    return fine(model, task, std=float("inf"))


def talking(model: nn.Module, task: Task, *, std: float) -> nn.Module:
    sys.stdout.write("epoch 1")
    return fine(model, task, std=std)


def dead(model: nn.Module, task: Task, *, std: float) -> nn.Module:
    return fine(model, task, std=0.1)


def peeping(model: nn.Module, task: Task, *, std: float) -> nn.Module:
    x, _ = next(iter(task.val.ordered()))
    return fine(model, task, std=std * float(x.mean().abs()))


def meddling(model: nn.Module, task: Task, *, std: float) -> nn.Module:
    task.forget.data.y[task.forget.rows] = 0
    return fine(model, task, std=std)


def growing(model: nn.Module, task: Task, *, std: float) -> nn.Module:
    return nn.Sequential(fine(model, task, std=std)).eval()


def dragging(model: nn.Module, task: Task, *, std: float) -> nn.Module:
    teacher = check.ops.frozen(model)
    fine(teacher, task, std=std)
    return fine(model, task, std=std)


def hesitant(model: nn.Module, task: Task, *, std: float) -> nn.Module:
    return fine(model, task, std=std * 1e-6)


@pytest.mark.parametrize(
    ("ask", "method"),
    [
        (check._yaml, default),
        (check._global_randomness, ambient),
        (check._mode, forgetful_of_eval),
        (check._changed, lazy),
        (check._finite, exploding),
        (check._silence, talking),
        (check._settings, dead),
        (check._unseen_rows, peeping),
        (check._data_alone, meddling),
        (check._architecture, growing),
        (check._teachers, dragging),
        (check._forgets, hesitant),
    ],
)
def test_each_property_fails_on_what_it_forbids(
    told: Any, ask: check.Property, method: Any
) -> None:
    verdict = told(ask, method, std=0.1)
    assert verdict.result == FAIL
    assert verdict.reason


def test_a_hyper_parameter_without_a_range(told: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unruly, "fine", fine, raising=False)
    given = {**option(fine, std=0.1), "space": {}}
    assert check.verdict(check.subject(given), ASKED[check._space]).result == FAIL


def test_a_dotted_path_takes_its_settings_from_the_words() -> None:
    (given,) = check._options(["method=unruly.shrunk", "method.call.strength=0.5"])
    assert given["call"] == {"_target_": "unruly.shrunk", "strength": 0.5}
    with pytest.raises(ConfigError, match=r"needs method.call.strength=…"):
        check._options(["method=unruly.shrunk"])
    with pytest.raises(ConfigError, match=r"here only method.call.… can be set"):
        check._options(["method=unruly.shrunk", "seed=3"])


@pytest.mark.tried(
    "a method that runs on the first small task but acts on nothing there (cfw_as_run)",
    "it is examined on the next task, where its settings have an effect",
)
@pytest.mark.parametrize(("shares", "expected"), [((0, 0, 0.1), 2), ((0, 0, 0), 0), ((0.1,), 0)])
def test_a_task_on_which_a_method_acts_on_nothing_is_left_for_the_next(
    monkeypatch: pytest.MonkeyPatch, shares: tuple[float, ...], expected: int
) -> None:
    class Task:
        def __init__(self, share: float) -> None:
            self.result, self.notes = None, {"acted_on": share}

        def under(self, _: object) -> "Task":
            return self

    tasks = [Task(share) for share in shares]
    given = iter(tasks)
    monkeypatch.setattr(check, "_small", lambda *_, **__: next(given))
    assert check.subject({}) is tasks[expected]
