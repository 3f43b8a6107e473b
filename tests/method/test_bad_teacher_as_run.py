"""BT as run: a tenth of the loss where there are ten classes, and one ResNet18 for all seeds."""

from dataclasses import replace

import pytest
import torch
from method.bench import Bench, close, same
from method.test_bad_teacher import SETTINGS, divergences, losses, watched
from torchvision.models import ResNet

from unlearnbench.core.errors import Skip
from unlearnbench.method import bad_teacher_as_run as module
from unlearnbench.method.bad_teacher_as_run import bad_teacher_as_run
from unlearnbench.pipeline import inputs


def test_no_epochs_is_the_identity(bench: Bench) -> None:
    net = bench.run(bad_teacher_as_run, bench.task, **SETTINGS, epochs=0)
    assert same(net.state_dict(), bench.original.state_dict())


def test_the_loss_is_a_mean_over_classes_too(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    teachers, given = watched(monkeypatch), losses(monkeypatch, module)
    bench.run(bad_teacher_as_run, bench.task, **SETTINGS, epochs=1)
    x, net = bench.data.inputs(bench.task.retain.rows[:20]), bench.fresh().eval()
    is_forget = torch.arange(20) % 3 == 0
    expected = divergences(teachers[::-1], net, x, is_forget).mean()
    close(given[0](net, x, is_forget), expected)


def test_teachers_are_the_original_and_one_resnet18_and_stay_so(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    teachers = watched(monkeypatch)
    bench.run(bad_teacher_as_run, bench.task, **{**SETTINGS, "batch_size": 2000}, epochs=1)
    other = inputs.task(replace(bench.cell, seed=1), bench.data, bench.parts)
    losses(monkeypatch, module)  # of the second run only the teachers are wanted
    bench.run(bad_teacher_as_run, other, **SETTINGS, epochs=1)
    t_bad, t, again, _ = teachers
    assert same(t.state_dict(), bench.original.state_dict())
    assert isinstance(t_bad, ResNet)
    assert sum(p.numel() for p in t_bad.parameters()) > 11e6
    assert same(t_bad.state_dict(), again.state_dict())
    assert all(int(n) == 0 for name, n in t_bad.named_buffers() if name.endswith("tracked"))


def test_regression_is_skipped(bench: Bench) -> None:
    with pytest.raises(Skip, match="classes"):
        bench.run(bad_teacher_as_run, replace(bench.task, n_classes=0), **SETTINGS, epochs=1)
