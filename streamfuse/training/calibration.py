"""Calibration: does what is answered with 80 % come true in 80 % of the cases, and one number that mends it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamfuse.models.heads import Kind

BINS = 15
"""Of equal width over [0, 1], as in Guo et al. (ICML 2017); a bin holds its upper edge."""


@dataclass(frozen=True, slots=True)
class Reliability:
    """By bin that holds anything: how many, their mean confidence, and which share of them came true. `error` is the expected
    calibration error (ECE): the mean gap between the two, weighted by how many."""

    counts: tuple[int, ...]
    confidence: tuple[float, ...]
    came_true: tuple[float, ...]
    error: float | None


def reliability(confidence: NDArray[np.floating], came_true: NDArray[np.bool_], bins: int = BINS) -> Reliability:
    """Of confidences in [0, 1], `(n,)`, and whether each came true."""
    if not len(confidence):
        return Reliability((), (), (), None)
    number = np.clip(np.ceil(np.asarray(confidence, np.float64) * bins).astype(np.int64) - 1, 0, bins - 1)
    counts = np.bincount(number, minlength=bins)
    filled = counts > 0
    sure = np.bincount(number, confidence, bins)[filled] / counts[filled]
    true = np.bincount(number, came_true, bins)[filled] / counts[filled]
    error = float((counts[filled] * np.abs(sure - true)).sum() / len(confidence))
    return Reliability(tuple(counts[filled].tolist()), tuple(sure.tolist()), tuple(true.tolist()), error)


def fit_temperature(kind: Kind, answers: NDArray[np.floating], targets: NDArray[Any]) -> float | None:
    """The temperature, between 1/20 and 20, under which these rows' targets are most likely; fit it on validation, never on
    test. None for estimates, and where no target is known."""
    if kind == "regression":
        return None
    from scipy.optimize import minimize_scalar  # comes with scikit-learn, whose absence `metrics` tells

    known = (targets >= 0) if kind != "multilabel" else ~np.isnan(targets)
    if not known.any():
        return None

    def surprise(log_temperature: float) -> float:
        scaled = scale(kind, answers, float(np.exp(log_temperature)))
        if kind == "multilabel":
            own = np.where(targets[known] > 0.5, scaled[known], 1 - scaled[known])
        else:
            own = scaled[known, targets[known].astype(np.int64)]
        return float(-np.log(np.clip(own, 1e-12, 1)).mean())

    found = minimize_scalar(surprise, bounds=(-np.log(20), np.log(20)), method="bounded")
    return float(np.exp(found.x))


def scale(kind: Kind, answers: NDArray[np.floating], temperature: float) -> NDArray[np.float64]:
    """Probabilities made softer (above 1) or surer (below 1); which is the greatest stays as it is. For `multilabel` each by
    its own log odds, otherwise each row by its log probabilities, which is the same as by its logits."""
    p = np.clip(np.asarray(answers, np.float64), 1e-12, 1 - 1e-12)
    if kind == "multilabel":
        odds = (p / (1 - p)) ** (1 / temperature)
        return np.asarray(odds / (1 + odds))
    logs = np.log(p) / temperature
    powers = np.exp(logs - logs.max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True))
