"""How numbers are told: shares in percent, differences of shares in points, all else with three digits that count."""

from __future__ import annotations

from streamfuse.training.metrics import UNBOUNDED

LABELS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "roc_auc": "ROC AUC",
    "pr_auc": "PR AUC",
    "log_loss": "log loss",
    "ece": "ECE",
    "mae": "MAE",
    "mse": "MSE",
    "rmse": "RMSE",
    "r2": "R²",
    "pearson": "Pearson r",
}
DASH = "–"
SPACE = "\u00a0"
"""That does not break a line."""


def label(measure: str) -> str:
    name, _, average = measure.rpartition("_")
    if average in ("macro", "micro", "weighted"):
        return f"{'F1' if name == 'f1' else name} ({average})"
    return LABELS.get(measure, "F1" if measure == "f1" else measure.replace("_", " "))


def column(measure: str) -> str:
    """A table's head: the unit stands there, so that the cells are short."""
    return f"{label(measure)}, %" if is_share(measure) else label(measure)


def is_share(measure: str) -> bool:
    return measure not in UNBOUNDED and measure not in ("r2", "pearson")


def told(measure: str, value: float | None) -> str:
    return bare(measure, value) + (f"{SPACE}%" if is_share(measure) and value is not None else "")


def bare(measure: str, value: float | None, deviation: float | None = None) -> str:
    """Without its unit, with its deviation if it has one."""
    if value is None:
        return DASH
    spread = "" if deviation is None else f"{SPACE}±{SPACE}{bare(measure, deviation)}"
    return (f"{100 * value:.1f}" if is_share(measure) else digits(value)) + spread


def with_deviation(measure: str, value: float | None, deviation: float | None) -> str:
    return bare(measure, value, deviation) + (f"{SPACE}%" if is_share(measure) and value is not None else "")


def difference(measure: str, value: float) -> str:
    """With its sign; of shares in points."""
    return gap(measure, value) + (f"{SPACE}points" if is_share(measure) else "")


def gap(measure: str, value: float) -> str:
    """The same without its unit."""
    size = bare(measure, abs(value))
    sign = "" if float(size.replace(",", "")) == 0 else "−" if value < 0 else "+"
    return f"{sign}{size}"


def digits(value: float) -> str:
    """Three digits that count."""
    if value != 0 and abs(value) < 0.001:
        return f"{value:.1e}"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:#.3g}".rstrip(".") if abs(value) >= 1 else f"{value:.3f}"


def amount(value: float) -> str:
    """A count that may be large: `12.3 M`."""
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.0f}"


def listed(names: list[str] | tuple[str, ...], word: str = "and") -> str:
    return f"{', '.join(names[:-1])} {word} {names[-1]}" if len(names) > 1 else "".join(names)
