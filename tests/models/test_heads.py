"""Each head's answer and loss, by hand-checked numbers."""

from __future__ import annotations

import math

import pytest
import torch

from streamfuse.models.heads import Classification, Multilabel, Ordinal, Regression
from streamfuse.models.parts import HEADS, UnknownPart

NAN = float("nan")


def test_classification_reads_probabilities_that_add_up_to_one() -> None:
    assert Classification(4, ["a", "b"]).read(torch.tensor([[0.0, math.log(3)]])).tolist() == [[0.25, pytest.approx(0.75)]]


def test_missing_class_costs_nothing() -> None:
    losses = Classification(4, ["a", "b"]).loss(torch.tensor([[0.0, 0.0], [5.0, 0.0]]), torch.tensor([0, -1]), 0.1)
    assert losses.tolist() == [pytest.approx(math.log(2)), 0]


def test_labels_of_multilabel_are_independent_and_unknown_ones_do_not_count() -> None:
    head = Multilabel(4, ["a", "b"])
    assert head.read(torch.zeros(1, 2)).tolist() == [[0.5, 0.5]]
    losses = head.loss(torch.zeros(3, 2), torch.tensor([[1.0, 0.0], [NAN, 1.0], [NAN, NAN]]))
    assert losses.tolist() == [pytest.approx(math.log(2)), pytest.approx(math.log(2)), 0]


def test_regression_answers_in_the_targets_own_units() -> None:
    head = Regression(4, ["loudness"], mean=[10], scale=[2])
    assert head.read(torch.tensor([[1.5]])).tolist() == [[13]]
    assert head.loss(torch.tensor([[1.5], [1.5], [1.5]]), torch.tensor([[13.0], [15.0], [NAN]])).tolist() == [0, 0.5, 0]


def test_ordinal_probabilities_add_up_to_one_and_rise_with_the_score() -> None:
    head = Ordinal(1, ["low", "middle", "high"], normalised=False)
    with torch.no_grad():
        head.linear.weight.fill_(1)
        head.linear.bias.zero_()
        head.steps.fill_(5)
        read = head.read(head(torch.tensor([[-9.0], [1.5], [9.0]])))
    assert read.sum(1).tolist() == pytest.approx([1, 1, 1])
    assert read.argmax(1).tolist() == [0, 1, 2]


def test_ordinal_loss_is_that_of_its_thresholds() -> None:
    head = Ordinal(4, ["low", "middle", "high"])
    losses = head.loss(torch.zeros(2, 2), torch.tensor([1, -1]))
    assert losses.tolist() == [pytest.approx(2 * math.log(2)), 0]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"type": "classification", "labels": ["a", "a"]}, "names that differ"),
        ({"type": "classification", "labels": []}, "names that differ"),
        ({"type": "ordinal", "labels": ["a"]}, "two labels or more"),
        ({"type": "regression", "targets": ["x"], "scale": [0]}, "a scale above 0"),
        ({"type": "magic"}, "classification"),
    ],
)
def test_head_that_can_not_be_is_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(UnknownPart, match=said):
        HEADS.make(options, features=4)
