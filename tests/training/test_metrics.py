"""Measures against scikit-learn, and against numbers worked out by hand where it has none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics as sk

from streamfuse.training import calibration
from streamfuse.training.metrics import (
    NAMES,
    choose_thresholds,
    confusion,
    primary_parts,
    recall_at,
    score,
    score_each,
)

LABELS = ["a", "b", "c"]


def probabilities(rows: int, names: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).dirichlet(np.ones(names), rows).astype(np.float32)


def labels(rows: int, names: int, seed: int = 1) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, names, rows)


@pytest.mark.parametrize("average", ["macro", "micro", "weighted"])
def test_precision_recall_and_f1_are_scikit_learns(average: str) -> None:
    answers, targets = probabilities(200, 3), labels(200, 3)
    found = score("classification", answers, targets, LABELS)
    wanted = sk.precision_recall_fscore_support(targets, answers.argmax(1), average=average)
    assert [found[f"{part}_{average}"].value for part in ("precision", "recall", "f1")] == pytest.approx(list(wanted[:3]))


def test_what_a_classification_scores_is_what_scikit_learn_says() -> None:
    answers, targets = probabilities(200, 3).astype(np.float64), labels(200, 3)
    answers /= answers.sum(1, keepdims=True)
    found = score("classification", answers, targets, LABELS)
    guess = answers.argmax(1)
    assert found["accuracy"].value == pytest.approx(sk.accuracy_score(targets, guess))
    assert found["balanced_accuracy"].value == pytest.approx(sk.balanced_accuracy_score(targets, guess))
    assert found["roc_auc"].value == pytest.approx(sk.roc_auc_score(targets, answers, multi_class="ovr", average="macro"))
    assert found["pr_auc"].value == pytest.approx(sk.average_precision_score(np.eye(3)[targets], answers, average="macro"))
    assert found["log_loss"].value == pytest.approx(sk.log_loss(targets, answers))


def test_the_areas_of_two_labels_are_those_of_the_second() -> None:
    answers, targets = probabilities(100, 2), labels(100, 2)
    found = score("classification", answers, targets, ["no", "yes"])
    assert found["roc_auc"].value == pytest.approx(sk.roc_auc_score(targets, answers[:, 1]))
    assert found["pr_auc"].value == pytest.approx(sk.average_precision_score(targets, answers[:, 1]))


@pytest.mark.parametrize("average", ["macro", "micro", "weighted"])
def test_multilabel_measures_are_scikit_learns(average: str) -> None:
    random = np.random.default_rng(2)
    answers, targets = random.random((200, 3)).astype(np.float32), (random.random((200, 3)) < 0.4).astype(np.float32)
    found = score("multilabel", answers, targets, LABELS)
    wanted = sk.precision_recall_fscore_support(targets, answers >= 0.5, average=average)
    assert [found[f"{part}_{average}"].value for part in ("precision", "recall", "f1")] == pytest.approx(list(wanted[:3]))
    assert found["roc_auc"].value == pytest.approx(sk.roc_auc_score(targets, answers, average="macro"))
    assert found["pr_auc"].value == pytest.approx(sk.average_precision_score(targets, answers, average="macro"))


def test_an_unknown_label_of_a_row_does_not_count() -> None:
    answers = np.array([[0.9, 0.1], [0.8, 0.7], [0.3, 0.6]], np.float32)
    targets = np.array([[1, np.nan], [0, 1], [np.nan, 0]], np.float32)
    found = score("multilabel", answers, targets, ["a", "b"])
    assert found["accuracy"].value == pytest.approx(2 / 4)
    assert found["recall_macro"].value == 1.0
    assert found["precision_micro"].value == pytest.approx(2 / 4)


def test_regression_measures_are_scikit_learns() -> None:
    random = np.random.default_rng(3)
    targets = random.normal(size=(80, 1)).astype(np.float32)
    answers = (targets + random.normal(size=(80, 1)) * 0.3).astype(np.float32)
    targets[:5] = np.nan
    found = score("regression", answers, targets, ["height"])
    there = targets[5:, 0].astype(np.float64), answers[5:, 0].astype(np.float64)
    assert found["mae"].value == pytest.approx(sk.mean_absolute_error(*there))
    assert found["mse"].value == pytest.approx(sk.mean_squared_error(*there))
    assert found["rmse"].value == pytest.approx(sk.root_mean_squared_error(*there))
    assert found["r2"].value == pytest.approx(sk.r2_score(*there))
    assert found["pearson"].value == pytest.approx(np.corrcoef(*there)[0, 1])


def test_an_ordinal_task_has_errors_in_steps_between_its_labels() -> None:
    answers = np.eye(3, dtype=np.float32)[[0, 2, 1, 0]]
    found = score("ordinal", answers, np.array([0, 2, 2, 2]), LABELS)
    assert [found["mae"].value, found["mse"].value] == pytest.approx([3 / 4, 5 / 4])
    assert found["accuracy"].value == 0.5


def test_each_label_is_scored_against_the_rest() -> None:
    answers, targets = probabilities(100, 3), labels(100, 3)
    found = score_each("classification", answers, targets, LABELS)
    wanted = sk.precision_recall_fscore_support(targets, answers.argmax(1))
    for i, name in enumerate(LABELS):
        assert found[name]["f1"].value == pytest.approx(wanted[2][i])
        assert found[name]["roc_auc"].value == pytest.approx(sk.roc_auc_score(targets == i, answers[:, i]))


def test_the_confusion_counts_truth_by_answer() -> None:
    answers, targets = probabilities(100, 3), labels(100, 3)
    found = confusion("classification", answers, targets, LABELS)
    assert found is not None
    assert found.tolist() == sk.confusion_matrix(targets, answers.argmax(1)).tolist()
    assert confusion("regression", answers, answers, LABELS) is None


def test_recall_at_k_is_top_k_accuracy() -> None:
    similarity = np.random.default_rng(4).normal(size=(50, 50))
    for k in (1, 3, 10):
        wanted = sk.top_k_accuracy_score(np.arange(50), similarity, k=k, labels=np.arange(50))
        assert recall_at(similarity, k).value == pytest.approx(wanted)


def test_equal_similarities_find_nothing() -> None:
    assert recall_at(np.ones((4, 4)), 1).value == 0.0
    assert recall_at(np.empty((0, 0)), 1).value is None


def test_one_class_only_has_no_area_and_says_why() -> None:
    found = score("classification", probabilities(5, 3), np.full(5, 1), LABELS)
    assert found["roc_auc"].value is None
    assert found["roc_auc"].note == "all rows are 'b'"
    assert found["accuracy"].value is not None


def test_a_label_that_no_row_is_is_left_out_of_the_areas_by_name() -> None:
    found = score("classification", probabilities(20, 3), labels(20, 2), LABELS)
    assert found["roc_auc"].value is not None
    assert found["roc_auc"].note == "without c, which no row is"


def test_estimates_that_do_not_vary_have_no_correlation() -> None:
    found = score("regression", np.ones((4, 1)), np.array([[1.0], [2], [3], [4]]), ["x"])
    assert (found["pearson"].value, found["pearson"].note) == (None, "all answers are equal")
    assert found["r2"].value is not None
    same = score("regression", np.array([[1.0], [2]]), np.ones((2, 1)), ["x"])
    assert (same["r2"].value, same["r2"].note) == (None, "all targets are equal")


def test_answers_that_are_no_numbers_give_a_reason() -> None:
    answers = probabilities(3, 3)
    answers[1, 0] = np.nan
    assert score("classification", answers, labels(3, 3), LABELS)["accuracy"].note == "1 answers are not finite numbers"


ROWS = st.integers(0, 12)


@given(rows=ROWS, kind=st.sampled_from(sorted(NAMES)), names=st.integers(2, 4), unknown=st.floats(0, 1), seed=st.integers(0, 99))
@settings(max_examples=200, deadline=None)
def test_every_measure_has_a_value_or_a_reason(rows: int, kind: Any, names: int, unknown: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    hidden = random.random((rows, names)) < unknown
    targets: NDArray[Any]
    if kind in ("classification", "ordinal"):
        targets = np.where(hidden[:, 0], -1, random.integers(0, names, rows))
    else:
        targets = np.where(hidden, np.nan, random.integers(0, 2, (rows, names))).astype(np.float32)
    answers, titles = probabilities(rows, names, seed), [f"n{i}" for i in range(names)]
    found = score(kind, answers, targets, titles)
    assert found.keys() == set(NAMES[kind])
    for own in found.values():
        assert own.note if own.value is None else np.isfinite(own.value)
    numerators, denominators = primary_parts(kind, answers, targets)
    if denominators.sum() > 0:
        primary = {"classification": "accuracy", "multilabel": "accuracy", "regression": "mae", "ordinal": "mae"}[kind]
        assert numerators.sum() / denominators.sum() == pytest.approx(found[primary].value, abs=1e-6)


def test_thresholds_are_those_with_the_best_f1() -> None:
    answers = np.array([[0.1], [0.2], [0.3], [0.9]], np.float32)
    targets = np.array([[0], [1], [1], [1]], np.float32)
    assert choose_thresholds(answers, targets) == pytest.approx([0.2])
    assert score("multilabel", answers, targets, ["a"], choose_thresholds(answers, targets))["f1_macro"].value == 1.0


def test_the_calibration_error_is_the_weighted_gap() -> None:
    found = calibration.reliability(np.array([0.95, 0.95, 0.55, 0.55]), np.array([True, True, True, False]), bins=10)
    assert found.counts == (2, 2)
    assert found.confidence == pytest.approx((0.55, 0.95))
    assert found.came_true == (0.5, 1.0)
    assert found.error == pytest.approx(0.05)


def test_the_edges_of_confidence_stand_in_the_outer_bins() -> None:
    found = calibration.reliability(np.array([0.0, 1.0]), np.array([False, True]))
    assert (found.counts, found.error) == ((1, 1), 0.0)


@pytest.mark.parametrize("kind", ["classification", "multilabel"])
def test_a_temperature_undoes_what_made_answers_too_sure(kind: Any) -> None:
    random = np.random.default_rng(5)
    honest = random.dirichlet(np.ones(3), 20_000) if kind == "classification" else random.random((20_000, 2))
    targets: NDArray[Any]
    if kind == "classification":
        targets = (random.random((20_000, 1)) > honest.cumsum(1)).sum(1)
    else:
        targets = (random.random(honest.shape) < honest).astype(np.float32)
    too_sure = calibration.scale(kind, honest, 1 / 3)
    assert calibration.fit_temperature(kind, too_sure, targets) == pytest.approx(3, rel=0.05)
    assert calibration.scale(kind, too_sure, 3.0) == pytest.approx(honest, abs=1e-3)


def test_there_is_no_temperature_without_a_known_target() -> None:
    assert calibration.fit_temperature("classification", probabilities(3, 3), np.full(3, -1)) is None
    assert calibration.fit_temperature("regression", probabilities(3, 3), probabilities(3, 3)) is None
