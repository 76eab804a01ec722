"""Curves to draw: ROC, and precision by recall, each label against the rest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics as sk

from streamfuse.models.heads import Kind

POINTS = 120
"""The most of a curve."""


@dataclass(frozen=True, slots=True)
class Line:
    """A curve to draw: of a label, or of all labels."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    area: float


def roc_lines(kind: Kind, answers: NDArray[Any], targets: NDArray[Any], names: Sequence[str]) -> Iterator[Line]:
    """True by false positive rate, one a label that some rows are and others not; of two labels the second alone."""
    for name, truth, probability in _labels(kind, answers, targets, names):
        wrong, right, _ = sk.roc_curve(truth, probability)
        yield Line(name, *_thinned(wrong, right), float(sk.roc_auc_score(truth, probability)))


def precision_recall_lines(kind: Kind, answers: NDArray[Any], targets: NDArray[Any], names: Sequence[str]) -> Iterator[Line]:
    """Precision by recall, of the same labels."""
    for name, truth, probability in _labels(kind, answers, targets, names):
        precision, recall, _ = sk.precision_recall_curve(truth, probability)
        yield Line(name, *_thinned(recall[::-1], precision[::-1]), float(sk.average_precision_score(truth, probability)))


def _labels(
    kind: Kind, answers: NDArray[Any], targets: NDArray[Any], names: Sequence[str]
) -> Iterator[tuple[str, NDArray[np.bool_], NDArray[Any]]]:
    if kind == "regression":
        return
    for i, name in enumerate(names):
        if len(names) == 2 and kind != "multilabel" and i == 0:
            continue
        known = ~np.isnan(targets[:, i]) if kind == "multilabel" else targets >= 0
        truth = targets[known, i] > 0.5 if kind == "multilabel" else targets[known] == i
        if 0 < truth.sum() < len(truth):
            yield name, truth, answers[known, i]


def _thinned(x: NDArray[Any], y: NDArray[Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    kept = np.unique(np.linspace(0, len(x) - 1, min(len(x), POINTS)).round().astype(int))
    return tuple(np.round(x[kept], 4).tolist()), tuple(np.round(y[kept], 4).tolist())
