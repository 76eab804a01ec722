"""The report's first paragraph: which fusion works, which modality carries the answer, what happens when one is missing, and whether
it is more than chance, in plain words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from streamfuse.training.compare import Comparison, lower_is_better
from streamfuse.training.evaluate import MethodResult, TaskResult
from streamfuse.training.report.numbers import SPACE, bare, difference, label, listed, told, with_deviation
from streamfuse.training.statistics import Difference, Summary
from streamfuse.training.subsets import SubsetScore

SUFFERS = 0.97
"""A model that keeps this share of its measure suffers little."""


def in_short(comparison: Comparison) -> list[str]:
    """Of the first task."""
    task = comparison.tasks[0]
    leading = comparison.leading
    own = leading.tasks[task]
    if own.summary.mean is None:
        return [f"Nothing can be said: no {comparison.data.part} row has a known target of {task}."]
    return [
        *_which(comparison, task),
        *_carries(leading, own),
        *_missing(leading, own),
        *_noise(leading, own),
        *_sureness(own),
    ]


def verdict(one: Difference, measure: str, lower: bool) -> str:
    """One pair in words."""
    if not one.significant:
        return "no significant difference"
    first_is_better = (one.difference < 0) == lower
    better, worse = (one.first, one.second) if first_is_better else (one.second, one.first)
    return f"{better} is better than {worse}"


def interval(measure: str, summary: Summary) -> str:
    if summary.low is None or summary.high is None:
        return ""
    return f"{bare(measure, summary.low)} to {told(measure, summary.high)}"


def over_rows(own: TaskResult) -> str:
    """Which rows the subset table is over."""
    counts = {one.rows for one in own.subsets}
    if len(counts) == 1:
        return f"over the {counts.pop():,} rows that have every modality"
    return "each over the rows that have what is shown, because none has every modality"


def name_of(shown: Sequence[str]) -> str:
    return " + ".join(shown) if shown else "nothing"


def _which(comparison: Comparison, task: str) -> Iterator[str]:
    ranked = comparison.ranked(task)
    best, own = ranked[0], ranked[0].tasks[task]
    measure = own.primary
    reached = f"{label(measure)} {with_deviation(measure, own.summary.mean, own.summary.deviation)}"
    seeds = f" over {len(best.seeds)} seeds" if len(best.seeds) > 1 else ""
    chance = f" (95{SPACE}% interval {interval(measure, own.summary)}, drawn over {own.summary.drawn})"
    if len(ranked) == 1:
        yield f"{best.name} reaches {reached}{seeds} on {own.rows:,} {comparison.data.part} rows{chance}."
        return
    yield f"{best.name} comes first of {len(ranked)} methods: {reached}{seeds} on {own.rows:,} {comparison.data.part} rows{chance}."
    pairs = [one for one in comparison.differences[task] if best.name in (one.first, one.second)]
    equal = [one.second if one.first == best.name else one.first for one in pairs if not one.significant]
    beaten = [one.second if one.first == best.name else one.first for one in pairs if one.significant]
    if not beaten:
        yield (
            f"No significant difference: no other method is told apart from {best.name} on these rows "
            "(paired bootstrap, Holm's correction). Take the cheapest."
        )
    elif equal:
        yield f"It is significantly better than {listed(beaten)}; to {listed(equal)} there is no significant difference."
    else:
        yield f"It is significantly better than every other method ({listed(beaten)})."
    if comparison.chosen is None:
        yield "No method is chosen, because there is no validation part to choose by; a choice by the test would flatter it."
    elif comparison.chosen != best.name:
        yield f"Validation, by which methods are chosen, prefers {comparison.chosen}: put that one live; it is told in detail below."


def _carries(method: MethodResult, own: TaskResult) -> Iterator[str]:
    if len(method.streams) < 2:
        return
    ranked = sorted(own.contributions, key=lambda one: -one.part)
    alone = [(subset.mean, subset.shown[0]) for subset in own.subsets if len(subset.shown) == 1 and subset.mean is not None]
    alone.sort(reverse=not lower_is_better(own))
    single = f"; alone, {listed([f'{stream} reaches {told(own.primary, mean)}' for mean, stream in alone])}" if alone else ""
    if ranked:
        first, last = ranked[0], ranked[-1]
        parts = listed([f"{one.stream} {100 * one.part:.0f}{SPACE}%" for one in ranked])
        if last.part < 0.02:
            yield f"{first.stream} carries the answer and {last.stream} hardly counts ({parts} of what moves the answers){single}."
        elif first.part - ranked[1].part < 0.1:
            yield f"The modalities carry the answer together ({parts} of what moves the answers){single}."
        else:
            yield f"{first.stream} carries most of the answer ({parts} of what moves the answers){single}."
    if whole := _whole(own):
        best = _best_alone(own)
        if best is not None and best.mean is not None and whole.mean is not None:
            gain = whole.mean - best.mean
            better = (gain < 0) == lower_is_better(own) and abs(gain) > 1e-9
            gap, single = difference(own.primary, gain), f"{best.shown[0]} alone"
            better = (gain < 0) == lower_is_better(own) and abs(gain) > 1e-9
            rows = f", over the {whole.rows:,} rows that have every modality" if whole.rows < own.rows else ""
            yield f"Fusion brings {gap} against {single}{rows}." if better else f"Fusion brings nothing over {single} ({gap}{rows})."


def _missing(method: MethodResult, own: TaskResult) -> Iterator[str]:
    whole = _whole(own)
    count = len(method.streams)
    if whole is None or whole.mean is None or count < 2:
        return
    without = [(next(s for s in method.streams if s not in one.shown), one) for one in own.subsets if len(one.shown) == count - 1]
    known = [(stream, one.mean - whole.mean) for stream, one in without if one.mean is not None]
    if known:
        lower = lower_is_better(own)
        known.sort(key=lambda pair: pair[1] if not lower else -pair[1])
        told_of = listed([f"without {stream} {difference(own.primary, gap)}" for stream, gap in known])
        yield f"When a modality is missing, {label(own.primary)} changes: {told_of}. The fusion treats it so: {method.missing}."


def _noise(method: MethodResult, own: TaskResult) -> Iterator[str]:
    if lower_is_better(own):
        return
    kept = []
    for curve in own.robustness:
        clean, noisy = curve.at(0.0), curve.at(0.9)
        if clean and noisy is not None:
            kept.append((noisy / clean, curve.stream))
    if kept:
        worst, stream = min(kept)
        if worst >= SUFFERS:
            yield f"Noise of 0.9 on any one modality leaves at least {100 * worst:.0f}{SPACE}% of the {label(own.primary)}."
        else:
            parts = listed([f"{100 * share:.0f}{SPACE}% under noise on {name}" for share, name in sorted(kept)])
            yield f"Noise hurts most on {stream}: at level 0.9 the {label(own.primary)} keeps {parts}."


def _sureness(own: TaskResult) -> Iterator[str]:
    calibration = own.calibration
    if calibration is None or calibration.before.error is None:
        return
    error, temperature = calibration.before.error, calibration.temperature
    if temperature is None or calibration.after is None or calibration.after.error is None:
        yield f"Its probabilities are off by {100 * error:.1f} points on average (ECE)."
    else:
        sure = "too sure" if temperature > 1.05 else "not sure enough" if temperature < 0.95 else "about as sure as they should be"
        yield (
            f"Its probabilities are {sure}: off by {100 * error:.1f} points on average (ECE), "
            f"{100 * calibration.after.error:.1f} with the temperature {temperature:.2f} that validation gives."
        )


def _whole(own: TaskResult) -> SubsetScore | None:
    return max(own.subsets, key=lambda one: len(one.shown), default=None)


def _best_alone(own: TaskResult) -> SubsetScore | None:
    known = [(one.mean, one) for one in own.subsets if len(one.shown) == 1 and one.mean is not None]
    if not known:
        return None
    return (min if lower_is_better(own) else max)(known, key=lambda pair: pair[0])[1]
