"""Contributions are exact Shapley values, by hand-checked numbers."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from streamfuse.models.batch import Modality
from streamfuse.models.shapley import shapley

STREAMS = ("a", "b")


def tokens(present: tuple[bool, bool]) -> dict[str, Modality]:
    return {
        s: Modality(torch.zeros(1, 1, 1), torch.zeros(1, 1), torch.tensor([[there]])) for s, there in zip(STREAMS, present, strict=True)
    }


def game(some: Mapping[str, Modality], present: Tensor) -> Tensor:
    """Two labels; the probability of the second is .5 with nothing, .6 with a, .5 with b, .9 with both."""
    a, b = ((some[s].mask[:, 0] & present[:, i]).float() for i, s in enumerate(STREAMS))
    chance = 0.5 + 0.1 * a + 0.3 * a * b
    return torch.stack([1 - chance, chance], 1)


def test_what_only_both_achieve_is_shared() -> None:
    probability, shares = shapley(game, tokens((True, True)), STREAMS)
    assert probability[0].tolist() == pytest.approx([0.1, 0.9])
    assert shares[0].tolist() == pytest.approx([0.25, 0.15])


def test_absent_stream_contributes_nothing() -> None:
    _, shares = shapley(game, tokens((True, False)), STREAMS)
    assert shares[0].tolist() == pytest.approx([0.1, 0.0], abs=1e-6)
