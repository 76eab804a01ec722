"""How good answers are, by the kind of task: scikit-learn's measures on the rows whose truth is known.

Answers are `(rows, names)` as a head reads them, targets as `Samples.targets` has them: class numbers, -1 where unknown, or
rows of numbers, NaN where unknown. A measure that the rows do not define (one class only, no row at all) has no value and
a note that says why; nothing here raises for what the data holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamfuse.errors import StreamFuseError
from streamfuse.models.heads import Kind
from streamfuse.training.calibration import reliability

try:
    from sklearn import metrics as sk
except ImportError:
    raise StreamFuseError("training and evaluation need scikit-learn; pip install 'streamfuse[train]'") from None

Floats = NDArray[np.floating]
Array = NDArray[Any]
"""Of int64 or float32, as the kind of task has it."""

AVERAGES = ("macro", "micro", "weighted")
PRIMARY: Mapping[Kind, str] = {"classification": "accuracy", "multilabel": "accuracy", "regression": "mae", "ordinal": "mae"}
"""What methods are compared by: a mean over rows, so that rows can be drawn again."""
LOWER_IS_BETTER = frozenset({"mae", "mse", "rmse", "ece", "log_loss"})
UNBOUNDED = frozenset({"mae", "mse", "rmse", "log_loss"})
"""Measures that are no shares: they are not told in percent."""


@dataclass(frozen=True, slots=True)
class Score:
    """`note` says why there is no value, or what it leaves out."""

    value: float | None
    note: str = ""


Scores = dict[str, Score]
_OF_LABELS = (
    *("accuracy", "balanced_accuracy"),
    *(f"{part}_{average}" for average in AVERAGES for part in ("precision", "recall", "f1")),
    *("roc_auc", "pr_auc", "log_loss", "ece"),
)
NAMES: Mapping[Kind, tuple[str, ...]] = {
    "classification": _OF_LABELS,
    "multilabel": _OF_LABELS,
    "regression": ("mae", "mse", "rmse", "r2", "pearson"),
    "ordinal": (*_OF_LABELS, "mae", "mse", "pearson"),
}


def score(kind: Kind, answers: Floats, targets: Array, names: Sequence[str], thresholds: Floats | float = 0.5) -> Scores:
    """Every measure of this kind of task, by name.

    Precision, recall and F1 count a label that was never answered, or never true, as 0 (scikit-learn's `zero_division`).
    The areas under the ROC and precision-recall curves are those of the second label where there are two, otherwise the
    mean over labels, each against the rest. ECE is that of `calibration.reliability`. `thresholds`, one a label or one for
    all, say from which probability on a label of a multi-label task is answered. An ordinal task's MAE, MSE and Pearson
    correlation are in steps between its labels.
    """
    known = known_rows(kind, targets)
    if not known.any():
        return dict.fromkeys(NAMES[kind], Score(None, "no row has a known target"))
    answers, targets = np.asarray(answers[known], np.float64), targets[known]
    if not np.isfinite(answers).all():
        return dict.fromkeys(NAMES[kind], Score(None, f"{int((~np.isfinite(answers)).any(1).sum())} answers are not finite numbers"))
    match kind:
        case "multilabel":
            return _multilabel(answers, targets, names, thresholds)
        case "regression":
            return _mean_of([_regression(answers[:, i], targets[:, i]) for i in range(len(names))], names)
        case "ordinal":
            steps = _regression(answers.argmax(1).astype(np.float64), targets.astype(np.float64))
            return _classification(answers, targets, names) | {name: steps[name] for name in ("mae", "mse", "pearson")}
    return _classification(answers, targets, names)


def score_each(kind: Kind, answers: Floats, targets: Array, names: Sequence[str], thresholds: Floats | float = 0.5) -> dict[str, Scores]:
    """Name -> its own measures: of each label against the rest, or of each value that is estimated."""
    each: dict[str, Scores] = {}
    cuts = np.broadcast_to(np.asarray(thresholds, np.float64), len(names))
    for i, name in enumerate(names):
        if kind == "regression":
            each[name] = score("regression", answers[:, i : i + 1], targets[:, i : i + 1], [name])
            continue
        if kind == "multilabel":
            known = ~np.isnan(targets[:, i])
            truth, guess = targets[known, i] > 0.5, answers[known, i] >= cuts[i]
        else:
            known = targets >= 0
            truth, guess = targets[known] == i, answers[known].argmax(1) == i
        each[name] = _of_label(truth, guess, answers[known, i])
    return each


def known_rows(kind: Kind, targets: Array) -> NDArray[np.bool_]:
    """`(rows,)`: is anything of the row's target known?"""
    return np.asarray(targets >= 0 if kind in ("classification", "ordinal") else (~np.isnan(targets)).any(1))


def primary_parts(kind: Kind, answers: Floats, targets: Array, thresholds: Floats | float = 0.5) -> tuple[Floats, Floats]:
    """Two numbers a row, `(rows,)` each; over any rows, the sum of the first by the sum of the second is the primary measure."""
    if kind in ("classification", "ordinal"):
        known = (targets >= 0).astype(np.float64)
        guess = answers.argmax(1)
        each = guess == targets if kind == "classification" else np.abs(guess - targets)
        return each * known, known
    known = (~np.isnan(targets)).astype(np.float64)
    wanted = np.nan_to_num(targets)
    each = (answers >= thresholds) == (wanted > 0.5) if kind == "multilabel" else np.abs(answers - wanted)
    if kind == "regression":  # the mean over values of their means over rows, as `score` has it
        known = known / np.maximum(known.sum(0), 1) / max((known.sum(0) > 0).sum(), 1)
    return (each * known).sum(1), known.sum(1)


def primary(kind: Kind, answers: Floats, targets: Array, thresholds: Floats | float = 0.5) -> float | None:
    """The primary measure alone, None where no row is known."""
    numerators, denominators = primary_parts(kind, answers, targets, thresholds)
    return float(numerators.sum() / denominators.sum()) if denominators.sum() > 0 else None


def recall_at(similarity: Floats, k: int, correct: NDArray[np.bool_] | None = None) -> Score:
    """Of queries, `(queries, candidates)`, the share that finds a correct candidate among the `k` most similar; that of query `i`
    is candidate `i` unless `correct`, of the same shape, says which are. A tie counts against the model: equal similarities find nothing.
    Queries without a correct candidate are left out."""
    right = np.eye(*similarity.shape, dtype=np.bool_) if correct is None else correct
    findable = right.any(1)
    if not findable.any():
        return Score(None, "there is no query with a correct candidate")
    best = np.where(right, similarity, -np.inf).max(1, keepdims=True)
    before = (~right & (similarity >= best)).sum(1)
    return Score(float((before[findable] < k).mean()), "" if findable.all() else f"{(~findable).sum()} queries have no correct candidate")


def confusion(kind: Kind, answers: Floats, targets: Array, names: Sequence[str]) -> NDArray[np.int64] | None:
    """`(truth, answer)` counts of rows; None for tasks that have none."""
    if kind not in ("classification", "ordinal"):
        return None
    known = targets >= 0
    counts = np.zeros((len(names), len(names)), np.int64)
    np.add.at(counts, (targets[known].astype(np.int64), answers[known].argmax(1)), 1)
    return counts


def choose_thresholds(answers: Floats, targets: Array) -> Floats:
    """For each label of a multi-label task, the threshold with the best F1 on these rows, which must not be those of a test;
    0.5 where a label has one class only. `(names,)`"""
    chosen = np.full(answers.shape[1], 0.5)
    for i in range(answers.shape[1]):
        known = ~np.isnan(targets[:, i])
        truth, probability = targets[known, i] > 0.5, answers[known, i].astype(np.float64)
        if 0 < truth.sum() < len(truth):
            precision, recall, cuts = sk.precision_recall_curve(truth, probability)
            f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
            chosen[i] = cuts[f1[:-1].argmax()]
    return chosen


def _classification(answers: Floats, targets: Array, names: Sequence[str]) -> Scores:
    guess = answers.argmax(1)
    there = np.unique(targets)
    one_hot = targets[:, None] == np.arange(len(names))
    binary = len(names) == 2
    columns = range(1, 2) if binary else range(len(names))
    recalls = sk.recall_score(targets, guess, labels=there, average="macro", zero_division=0)
    own = np.clip(answers[np.arange(len(answers)), targets.astype(np.int64)], 1e-12, 1)
    return {
        "accuracy": Score(float((guess == targets).mean())),
        "balanced_accuracy": Score(float(recalls), _all_of_one(there, names)),
        **_averages(targets, guess),
        "roc_auc": _area(sk.roc_auc_score, one_hot, answers, names, columns),
        "pr_auc": _area(sk.average_precision_score, one_hot, answers, names, columns),
        "log_loss": Score(float(-np.log(own).mean())),
        "ece": Score(reliability(answers.max(1), guess == targets).error),
    }


def _multilabel(answers: Floats, targets: Array, names: Sequence[str], thresholds: Floats | float) -> Scores:
    known = ~np.isnan(targets)
    truth, guess = np.nan_to_num(targets) > 0.5, answers >= thresholds
    labels = [i for i in range(len(names)) if known[:, i].any()]
    each = [_of_label(truth[known[:, i], i], guess[known[:, i], i], answers[known[:, i], i]) for i in labels]
    weights = np.array([truth[known[:, i], i].sum() for i in labels], np.float64)
    pooled = _of_label(truth[known], guess[known], answers[known])
    scores: Scores = {"accuracy": Score(float((truth == guess)[known].mean()))}
    scores["balanced_accuracy"] = _mean([own["balanced_accuracy"] for own in each], [names[i] for i in labels])
    for average in AVERAGES:
        for part in ("precision", "recall", "f1"):
            values = np.array([own[part].value for own in each], np.float64)
            if average == "micro":
                scores[f"{part}_{average}"] = pooled[part]
            elif average == "weighted" and not weights.any():
                scores[f"{part}_{average}"] = Score(None, "no label is true of any row")
            else:
                scores[f"{part}_{average}"] = Score(float(np.average(values, weights=weights if average == "weighted" else None)))
    for part in ("roc_auc", "pr_auc"):
        scores[part] = _mean([own[part] for own in each], [names[i] for i in labels])
    probability = np.clip(answers[known], 1e-12, 1 - 1e-12)
    scores["log_loss"] = Score(float(-np.log(np.where(truth[known], probability, 1 - probability)).mean()))
    scores["ece"] = Score(reliability(answers[known], truth[known]).error)
    return scores


def _of_label(truth: NDArray[np.bool_], guess: NDArray[np.bool_], probability: Floats) -> Scores:
    """One label against the rest."""
    if not len(truth):
        return dict.fromkeys(("precision", "recall", "f1", "balanced_accuracy", "roc_auc", "pr_auc"), Score(None, "no row is known"))
    precision, recall, f1, _ = sk.precision_recall_fscore_support(truth, guess, average="binary", zero_division=0)
    both = 0 < truth.sum() < len(truth)
    missing = Score(None, "is true of all rows" if truth.all() else "is true of no row")
    return {
        "precision": Score(float(precision)),
        "recall": Score(float(recall)),
        "f1": Score(float(f1)),
        "balanced_accuracy": Score(float(sk.balanced_accuracy_score(truth, guess))) if both else missing,
        "roc_auc": Score(float(sk.roc_auc_score(truth, probability))) if both else missing,
        "pr_auc": Score(float(sk.average_precision_score(truth, probability))) if both else missing,
    }


def _averages(targets: Array, guess: Array) -> Scores:
    scores: Scores = {}
    for average in AVERAGES:
        found = sk.precision_recall_fscore_support(targets, guess, average=average, zero_division=0)
        scores |= {f"{part}_{average}": Score(float(value)) for part, value in zip(("precision", "recall", "f1"), found, strict=False)}
    return scores


def _area(
    measure: Callable[..., float], one_hot: NDArray[np.bool_], answers: Floats, names: Sequence[str], columns: Sequence[int] | range
) -> Score:
    defined = [i for i in columns if 0 < one_hot[:, i].sum() < len(one_hot)]
    if not defined:
        return Score(None, _all_of_one(np.flatnonzero(one_hot.any(0)), names))
    left_out = [names[i] for i in columns if i not in defined]
    note = f"without {_few(left_out)}, which no row is" if left_out else ""
    return Score(float(np.mean([measure(one_hot[:, i], answers[:, i]) for i in defined])), note)


def _regression(answers: Floats, targets: Floats) -> Scores:
    known = ~np.isnan(targets)
    answers, targets = answers[known], targets[known].astype(np.float64)
    if not len(targets):
        return dict.fromkeys(NAMES["regression"], Score(None, "no row has a known target"))
    error = answers - targets
    mse = float((error**2).mean())
    spread = float(((targets - targets.mean()) ** 2).mean())
    constant = [word for word, values in (("targets", targets), ("answers", answers)) if np.ptp(values) == 0]
    same = f"all {' and '.join(constant)} are equal"
    return {
        "mae": Score(float(np.abs(error).mean())),
        "mse": Score(mse),
        "rmse": Score(mse**0.5),
        "r2": Score(None, "all targets are equal") if "targets" in constant else Score(1 - mse / spread),
        "pearson": Score(None, same) if constant else Score(float(np.corrcoef(answers, targets)[0, 1])),
    }


def _mean_of(each: Sequence[Scores], names: Sequence[str]) -> Scores:
    return {measure: _mean([scores[measure] for scores in each], names) for measure in each[0]}


def _mean(scores: Sequence[Score], names: Sequence[str]) -> Score:
    """The mean of those that have a value, with a note of the others."""
    values = [own.value for own in scores if own.value is not None]
    if not values:
        return Score(None, scores[0].note if len(scores) == 1 else f"no label has a value: {names[0]} {scores[0].note}")
    left_out = [name for name, own in zip(names, scores, strict=True) if own.value is None]
    return Score(float(np.mean(values)), f"without {_few(left_out)}" if left_out else "")


def _all_of_one(there: Array, names: Sequence[str]) -> str:
    return f"all rows are {names[int(there[0])]!r}" if len(there) == 1 else ""


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown
