"""The core types refuse what later stages could not bear, and batches keep their order."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from unlearnbench.core.data import Batches, Dataset, Split
from unlearnbench.core.seeding import generator, number, seeded


def table(n: int = 10) -> Dataset:
    x = torch.arange(n, dtype=torch.float32)[:, None]
    return Dataset(x, torch.zeros(n, dtype=torch.int64), 2, "tabular", torch.arange(n - 2),
                   torch.arange(n - 2, n))  # fmt: skip


def batches(n: int = 10, size: int = 4, seed: int = 0) -> Batches:
    data = table(n)
    rows = torch.arange(n)
    return Batches(data, rows, data.y, size, generator(seed, "order"), generator(seed, "noise"))


def test_a_limit_keeps_the_first_training_rows_and_all_test_rows() -> None:
    x, y = torch.arange(20.0).view(10, 2), torch.arange(10) % 2
    data = Dataset(x, y, 2, "tabular", torch.tensor([9, 1, 3, 5, 7, 0]), torch.tensor([2, 4, 6, 8]))
    less = data.limited(3)
    assert torch.equal(less.x[less.train_rows], x[[9, 1, 3]])
    assert torch.equal(less.x[less.test_rows], x[[2, 4, 6, 8]])
    assert less.rows.tolist() == [9, 1, 3, 2, 4, 6, 8]
    assert torch.equal(less.x, x), "no row gets another number"
    assert torch.equal(data.limited(100).inputs(data.train_rows[:0]), x[:0])
    assert len(data.limited(100).train_rows) == 6
    with pytest.raises(ValueError, match=r"dataset.limit=0"):
        data.limited(0)


def test_a_limited_set_still_holds_a_repeated_channel_once() -> None:
    grey = torch.arange(36, dtype=torch.uint8).view(4, 3, 3, 1)
    data = Dataset(
        grey.expand(-1, -1, -1, 3), torch.zeros(4, dtype=torch.int64), 1, "image",
        torch.arange(3), torch.arange(3, 4), torch.ones(3), torch.ones(3),
    )  # fmt: skip
    less = data.limited(2)
    assert less.x.stride(-1) == 0
    assert torch.equal(less.inputs(less.rows), data.inputs(torch.tensor([0, 1, 3])))


def test_every_row_once_in_a_new_order_each_walk() -> None:
    part = batches()
    walks = [torch.cat([x[:, 0] for x, _ in part]) for _ in range(3)]
    assert all(torch.equal(walk.sort().values, torch.arange(10.0)) for walk in walks)
    assert not torch.equal(walks[0], walks[1])
    assert len(part) == 3
    assert torch.equal(walks[0], torch.cat([x[:, 0] for x, _ in batches()]))
    assert not torch.equal(walks[0], torch.cat([x[:, 0] for x, _ in batches(seed=1)]))


@pytest.mark.tried(
    "a last batch of few rows: n = k · batch size + 1, …", "joins the batch before; none is under ¼"
)
@pytest.mark.parametrize("size", [1, 2, 3, 4, 8, 13, 64])
def test_no_batch_is_under_a_quarter_of_its_size(size: int) -> None:
    """Unless there is one batch only. Every row is walked over once, whatever n mod size."""
    for n in range(3 * size + 2):
        part = replace(batches(max(n, 3), size), rows=torch.arange(n), y=torch.arange(n))
        for walked in (part, part.ordered()):
            lengths = [len(y) for _, y in walked]
            assert len(lengths) == len(part)
            assert all(length >= size / 4 for length in lengths) or lengths == [n]
            assert all(length < 1.25 * size for length in lengths)
        assert torch.equal(torch.cat([y for _, y in part] or [part.y]).sort().values, part.y)
        assert [len(y) for _, y in part.limited(2)] == [len(y) for _, y in part][:2]
        remaining = list(part.ordered().epoch(1))
        assert [len(y) for _, y in remaining] == [len(y) for _, y in part][1:]


def test_walking_one_part_leaves_anothers_order() -> None:
    one, other = batches(), replace(batches(), order=generator(1, "order"))
    next(iter(other))
    assert torch.equal(next(iter(one))[0], next(iter(batches()))[0])


def test_labels_travel_with_their_rows() -> None:
    part = batches().relabelled(torch.arange(10))
    assert all(torch.equal(x[:, 0].long(), y) for x, y in part)
    joined = replace(part, rows=part.rows[:3], y=part.y[:3]).joined(
        replace(part, rows=part.rows[5:], y=part.y[5:])
    )
    assert sorted(y for _, ys in joined for y in ys.tolist()) == [0, 1, 2, 5, 6, 7, 8, 9]
    assert all(torch.equal(x[:, 0].long(), y) for x, y in joined)


def test_ordered_walks_in_the_order_of_the_rows_and_draws_nothing() -> None:
    part = batches().chosen(torch.tensor([7, 2, 9, 0, 4]))
    state = part.order.get_state()
    for _ in range(2):
        assert [x[:, 0].tolist() for x, _ in part.ordered()] == [[7, 2, 9, 0], [4]]
    assert torch.equal(part.order.get_state(), state)


def test_lacking_walks_as_with_the_rows_but_does_not_hand_them_out() -> None:
    """Order, batches and augmentation of the others are as they were, walk after walk."""

    def noisy(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return x + torch.rand(x.shape, generator=generator)

    def some(size: int) -> Batches:
        part = batches(size=size).relabelled(torch.arange(10))
        return replace(part, data=replace(part.data, augment=noisy)).augmented()

    for size in (1, 4):
        whole, gone = some(size), some(size).rows[[2, 7]]
        less = some(size).lacking(gone)
        for _ in range(2):
            expected = []
            for x, y in whole:
                here = ~torch.isin(y, gone)
                if here.any():
                    expected.append((x[here], y[here]))
            found = list(less)
            assert sum(len(y) for _, y in found) == len(whole.rows) - 2
            for mine, theirs in zip(found, expected, strict=True):
                assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))
    # Of some of the rows it is the same ones that are missing.
    ((_, y),) = less.chosen(torch.tensor([7, 3, 2, 5])).batched(9)
    assert sorted(y.tolist()) == [3, 5]


def test_limited_is_the_start_of_a_walk() -> None:
    whole, cut = list(batches()), batches().limited(2)
    assert len(cut) == 2
    for (x, _), (other, _) in zip(cut, whole[:2], strict=True):
        assert torch.equal(x, other)
    assert len(batches().limited(9)) == len(batches())


def test_chosen_are_rows_by_their_places_and_take_their_labels_along() -> None:
    part = batches().relabelled(torch.arange(10) + 100)
    part = part.chosen(torch.tensor([8, 3, 5]))
    assert (part.rows.tolist(), part.y.tolist()) == ([8, 3, 5], [108, 103, 105])
    assert part.chosen(torch.tensor([2])).rows.tolist() == [5]
    assert len(part.chosen(torch.arange(0))) == 0


def test_watched_surrounds_what_is_done_with_each_batch() -> None:
    told: list[tuple[str, list[int]]] = []

    @contextmanager
    def around(rows_B: Tensor) -> Iterator[None]:
        told.append(("in", rows_B.tolist()))
        yield
        told.append(("out", rows_B.tolist()))

    for x, _ in batches().watched(around):
        told.append(("done", x[:, 0].long().tolist()))
    assert [what for what, _ in told] == ["in", "done", "out"] * 3
    rows = [one for _, one in told]
    assert rows[::3] == rows[1::3] == rows[2::3]
    assert sorted(row for one in rows[::3] for row in one) == list(range(10))


def test_endless_walks_again_and_again() -> None:
    walk = batches(n=4, size=2).endless()
    seen = torch.cat([next(walk)[0][:, 0] for _ in range(6)])
    assert seen.long().bincount().tolist() == [3, 3, 3, 3]
    empty = replace(batches(), rows=torch.arange(0))
    with pytest.raises(ValueError, match="empty"):
        next(empty.endless())


def test_augmentation_draws_do_not_move_the_order() -> None:
    data = replace(table(), augment=lambda x, g: x + torch.rand(len(x), 1, generator=g))
    plain = replace(batches(), data=data)
    augmented = replace(batches(), data=data).augmented()
    for _ in range(3):
        for (x, _), (moved, _) in zip(plain, augmented, strict=True):
            assert torch.equal(moved.floor(), x)
            assert not torch.equal(moved, x)


def test_images_are_normalised_channels_last() -> None:
    x = torch.randint(0, 256, (5, 4, 6, 3), dtype=torch.uint8, generator=generator(0, "x"))
    mean, std = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([4.0, 5.0, 6.0])
    y = torch.zeros(5, dtype=torch.int64)
    data = Dataset(x, y, 1, "image", torch.arange(3), torch.arange(3, 5), mean, std)
    found = data.inputs(torch.tensor([4, 0]))
    expected = ((x[[4, 0]].float() - mean) / std).permute(0, 3, 1, 2)
    torch.testing.assert_close(found, expected)
    assert found.shape == (2, 3, 4, 6) == (2, *data.shape)
    assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("mean", [[3.0], [3.0, 3.0, 3.0], [1.0, 2.0, 3.0]])
def test_a_grey_channel_shown_three_times(mean: list[float]) -> None:
    grey = torch.randint(0, 256, (5, 4, 6, 1), dtype=torch.uint8, generator=generator(0, "x"))
    y, rows = torch.zeros(5, dtype=torch.int64), torch.arange(5)
    settings = torch.tensor(mean), torch.tensor([2.0] * len(mean))
    shown = grey.expand(-1, -1, -1, 3)
    data = Dataset(shown, y, 1, "image", rows[:3], rows[3:], *settings)
    dense = replace(data, x=shown.contiguous())
    assert torch.equal(data.inputs(rows), dense.inputs(rows))
    assert data.inputs(rows).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"train_rows": torch.arange(9)}, "once"),
        ({"test_rows": torch.tensor([10])}, r"rows 0\.\.9"),
        ({"test_rows": torch.tensor([-1])}, r"rows 0\.\.9"),
        ({"x": torch.zeros(9, 1)}, "9 inputs but 10 labels"),
        ({"x": torch.zeros(10, 1, dtype=torch.uint8)}, "float32"),
        ({"kind": "image"}, "uint8"),
        ({"y": torch.full((10,), 2)}, "0..1"),
    ],
)
def test_a_data_set_is_checked(change: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        replace(table(), **change)  # type: ignore[arg-type]


def test_a_split_is_checked() -> None:
    rows = torch.arange(10)
    good = Split(train=rows[:6], val=rows[6:8], test=rows[8:], forget=torch.tensor([4, 1]))
    assert good.retain.tolist() == [0, 2, 3, 5]
    assert good.hide_forget().retain.tolist() == [0, 1, 2, 3, 4, 5]
    with pytest.raises(ValueError, match="forget rows must be training"):
        replace(good, forget=torch.tensor([7]))
    with pytest.raises(ValueError, match="twice"):
        replace(good, forget=torch.tensor([1, 1]))
    with pytest.raises(ValueError, match="in two of"):
        replace(good, val=rows[5:8])


def test_generators_are_keyed_by_seed_and_purpose_only() -> None:
    assert number(0, "labels") == number(0, "labels")
    assert len({number(0, "a"), number(0, "b"), number(1, "a"), number(0, "a", "b")}) == 4
    state = torch.random.get_rng_state()
    with seeded(3, "weights"):
        one = torch.rand(3)
    with seeded(3, "weights"):
        assert torch.equal(one, torch.rand(3))
    with seeded(4, "weights"):
        assert not torch.equal(one, torch.rand(3))
    assert torch.equal(torch.random.get_rng_state(), state)
