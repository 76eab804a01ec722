"""Contributions are exact Shapley values, by hand-checked numbers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from streamfuse.models.batch import Modality
from streamfuse.models.shapley import shapley, shares, subsets_of

STREAMS = ("a", "b")


def tokens(present: tuple[bool, ...], streams: tuple[str, ...] = STREAMS) -> dict[str, Modality]:
    return {
        s: Modality(torch.zeros(1, 1, 1), torch.zeros(1, 1), torch.tensor([[there]])) for s, there in zip(streams, present, strict=True)
    }


def game(some: Mapping[str, Modality], present: Tensor) -> Tensor:
    """Two labels; the probability of the second is .5 with nothing, .6 with a, .5 with b, .9 with both."""
    a, b = ((some[s].mask[:, 0] & present[:, i]).float() for i, s in enumerate(STREAMS))
    chance = 0.5 + 0.1 * a + 0.3 * a * b
    return torch.stack([1 - chance, chance], 1)


def test_what_only_both_achieve_is_shared() -> None:
    probability, values = shapley(game, tokens((True, True)), STREAMS)
    assert probability[0].tolist() == pytest.approx([0.1, 0.9])
    assert values[0].tolist() == pytest.approx([0.25, 0.15])


def test_absent_stream_contributes_nothing() -> None:
    _, values = shapley(game, tokens((True, False)), STREAMS)
    assert values[0].tolist() == pytest.approx([0.1, 0.0], abs=1e-6)
    assert float(values[0, 1]) == 0


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6])
def test_values_are_the_mean_gain_over_all_orders_of_the_streams(count: int) -> None:
    worth = torch.rand(2**count, 3, generator=torch.Generator().manual_seed(count), dtype=torch.float64)
    number = {subset: i for i, subset in enumerate(subsets_of(count))}
    expected = torch.zeros(3, count, dtype=torch.float64)
    for order in itertools.permutations(range(count)):
        for at, stream in enumerate(order):
            before, after = (tuple(i in order[:n] for i in range(count)) for n in (at, at + 1))
            expected[:, stream] += (worth[number[after]] - worth[number[before]]) / math.factorial(count)
    torch.testing.assert_close(shares(worth, count), expected)


def test_values_add_up_to_the_answer_less_that_with_nothing() -> None:
    worth = torch.rand(64, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(shares(worth, 6).sum(1), worth[-1] - worth[0])


def test_no_more_windows_are_fused_at_once_than_is_bounded_and_the_values_stay() -> None:
    streams = tuple("abcdef")
    batch = {s: Modality(torch.zeros(5, 1, 1), torch.zeros(5, 1), torch.ones(5, 1, dtype=torch.bool)) for s in streams}
    passes: list[int] = []

    def fuse(some: Mapping[str, Modality], shown: Tensor) -> Tensor:
        passes.append(len(shown))
        # Six streams of unlike worth, and one subset worth more than its parts.
        chance = shown.float() @ torch.arange(1.0, 7) / 100 + shown[:, 0] * shown[:, 5] * 0.2
        return chance[:, None]

    _, bounded = shapley(fuse, batch, streams, rows=50)
    assert max(passes) <= 50
    assert sum(passes) == 64 * 5
    torch.testing.assert_close(bounded, torch.tensor([[0.11, 0.02, 0.03, 0.04, 0.05, 0.16]]).expand(5, -1))
