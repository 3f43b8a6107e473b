"""An ensemble's softmax is the mean of its members' posteriors, and it is a net like any other."""

import torch
from torch import nn

from unlearnbench.core.seeding import generator, seeded
from unlearnbench.model.ensemble import Ensemble


def nets(count: int, purpose: str = "weights") -> list[nn.Module]:
    with seeded(0, purpose):
        return [nn.Linear(4, 3) for _ in range(count)]


def draws() -> torch.Tensor:
    return torch.randn(6, 4, generator=generator(0, "inputs"))


def test_softmax_gives_the_mean_posterior() -> None:
    members = nets(3)
    found = Ensemble(members)(draws())
    mean = torch.stack([member(draws()).softmax(1) for member in members]).mean(0)
    torch.testing.assert_close(found.softmax(1), mean)
    torch.testing.assert_close(found.exp(), mean), "already normalised"


def test_one_member_is_that_member() -> None:
    (member,) = nets(1)
    found = Ensemble([member])(draws())
    torch.testing.assert_close(found, member(draws()).log_softmax(1))


def test_a_certain_member_leaves_no_infinity() -> None:
    sure = nn.Linear(4, 3)
    with torch.no_grad():
        sure.weight.zero_()
        sure.bias.copy_(torch.tensor([1e4, 0.0, 0.0]))
    found = Ensemble([sure, sure])(draws())
    assert found.isfinite().all()
    assert found.argmax(1).tolist() == [0] * 6


def test_its_state_holds_every_member() -> None:
    one, other = Ensemble(nets(3)), Ensemble(nets(3, "other"))
    other.load_state_dict(one.state_dict())
    assert len(one.state_dict()) == 6
    assert torch.equal(other(draws()), one(draws()))
    assert not any(member.training for member in one.eval().members)
