"""Why addition fails on parity, and that the benchmark can tell a fusion that does not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.benchmarks.xor import accuracy, draw, make_model


def interaction(fusion: str) -> Tensor:
    """What a model that was not trained makes of two modalities beyond a sum of what it makes of each: 0 if it is one."""
    torch.manual_seed(0)
    model = make_model(fusion, "ab").eval()
    inputs, _ = draw(2, 2)
    a, b = inputs["a"], inputs["b"]

    def answer(first: int, second: int) -> Tensor:
        rows = {"a": a._replace(data=a.data[[first]]), "b": b._replace(data=b.data[[second]])}
        said: Tensor = model({s: part._replace(time=part.time[:1], mask=part.mask[:1]) for s, part in rows.items()})["parity"]
        return said

    with torch.inference_mode():
        return (answer(0, 0) + answer(1, 1) - answer(0, 1) - answer(1, 0)).abs().max()


def test_addition_answers_with_a_sum_over_the_modalities() -> None:
    assert float(interaction("addition")) < 1e-6


@pytest.mark.parametrize("fusion", ["low_rank", "tensor", "late_transformer"])
def test_fusions_with_interactions_do_not(fusion: str) -> None:
    assert float(interaction(fusion)) > 1e-4


def test_labels_are_balanced_and_no_modality_tells_them_alone() -> None:
    inputs, labels = draw(3, 64)
    bits = {s: part.data[:, :, 0].mean(1) > 0 for s, part in inputs.items()}
    assert int(labels.sum()) == 32
    for bit in bits.values():
        assert int(labels[bit].sum()) == 16


def test_training_tells_a_fusion_that_can_from_one_that_can_not() -> None:
    assert accuracy("low_rank", 2, 0, steps=60) > 0.98
    assert accuracy("addition", 2, 0, steps=60) <= 0.77
