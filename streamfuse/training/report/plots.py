"""The figures of a report, each from results alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from streamfuse.training.calibration import Reliability
from streamfuse.training.evaluate import MethodResult, TaskResult
from streamfuse.training.lines import Line
from streamfuse.training.metrics import UNBOUNDED
from streamfuse.training.report.numbers import amount, digits, label, told
from streamfuse.training.report.svg import (
    RIGHT,
    TOP,
    WIDE,
    WIDTH,
    Axes,
    box,
    colour,
    dot,
    drawing,
    line,
    text,
    ticks,
)
from streamfuse.training.robustness import Curve
from streamfuse.training.subsets import Contribution


def forest(methods: Sequence[tuple[int, MethodResult]], task: str) -> str:
    """One line a method: its mean, its interval and each seed; methods with the number of their colour."""
    step, left = 24, 150
    height = TOP + step * len(methods) + 34
    results = [(number, method.name, method.tasks[task]) for number, method in methods]
    values = [value for _, _, own in results for value in (own.summary.low, own.summary.high, *own.scores[own.primary].values)]
    there = [value for value in values if value is not None]
    if not there:
        return ""
    measure = results[0][2].primary
    pad = max((max(there) - min(there)) * 0.08, 1e-3)
    low, high = min(there) - pad, max(there) + pad

    def x(value: float) -> float:
        return left + (value - low) / (high - low) * (WIDE - left - RIGHT)

    parts = []
    for value in ticks(low, high, 6):
        parts += [
            line(x(value), TOP, x(value), height - 30, "grid"),
            text(x(value), height - 16, _axis_number(measure, value), kind="tick"),
        ]
    parts.append(text((left + WIDE) / 2, height - 2, label(measure), kind="label"))
    for row, (number, name, own) in enumerate(results):
        y = TOP + step * (row + 0.5)
        parts.append(text(left - 10, y + 4, _shortened(name, 22), "end", "name"))
        if own.summary.low is not None and own.summary.high is not None:
            parts.append(f'<g class="{colour(number)}">{line(x(own.summary.low), y, x(own.summary.high), y, "interval")}</g>')
        parts += [dot(x(value), y, 2.2, number, "seed") for value in own.scores[own.primary].values if value is not None]
        if own.summary.mean is not None:
            parts.append(dot(x(own.summary.mean), y, 5, number, title=f"{name}: {told(measure, own.summary.mean)}"))
    return drawing(parts, f"{label(measure)} of each method with its interval", WIDE, height)


def robustness(entries: Sequence[tuple[int, str, Curve]], task: TaskResult, chance: float | None = None) -> str:
    """The measure by the level of noise; entries are a colour's number, a name and a curve."""
    known = [value for _, _, curve in entries for value in curve.means if value is not None]
    if not known:
        return ""
    is_share = task.primary not in UNBOUNDED
    top = 1.0 if is_share else max(known) * 1.08
    axes = Axes((0, 1), (0, top), "noise", label(task.primary), percent_y=is_share)
    parts = axes.drawn()
    if chance is not None:
        parts.append(axes.line((0, 1), (chance, chance), 0, "always the most frequent label", "chance"))
    for number, name, curve in entries:
        pairs = [(x, y) for x, y in zip(curve.levels, curve.means, strict=True) if y is not None]
        if len(entries) <= 4 and all(one is not None for one in curve.deviations):
            spread = [one or 0.0 for one in curve.deviations]
            low = [max(y - s, 0) for (_, y), s in zip(pairs, spread, strict=True)]
            high = [min(y + s, top) for (_, y), s in zip(pairs, spread, strict=True)]
            parts.append(axes.band([x for x, _ in pairs], low, high, number))
        title = f"{name}: {told(task.primary, pairs[0][1])} without noise, {told(task.primary, pairs[-1][1])} with nothing but noise"
        parts.append(axes.line([x for x, _ in pairs], [y for _, y in pairs], number, title))
        parts += [dot(*axes.at(x, y), 2.2, number, "seed") for x, y in pairs]
    return drawing(parts, f"{label(task.primary)} under noise")


def contribution_bars(entries: Sequence[tuple[str, Sequence[Contribution]]], streams: Sequence[str]) -> str:
    """One bar a method: each modality's part of what moves its answers, coloured by its place in `streams`."""
    step, left = 26, 150
    width, height = WIDE, TOP + step * len(entries) + 22
    span = width - left - RIGHT
    parts = []
    for value in (0, 0.25, 0.5, 0.75, 1):
        parts += [
            line(left + value * span, TOP, left + value * span, height - 18, "grid"),
            text(left + value * span, height - 4, f"{100 * value:.0f} %", kind="tick"),
        ]
    for row, (name, own) in enumerate(entries):
        y, at = TOP + step * row + 4, float(left)
        parts.append(text(left - 10, y + 13, _shortened(name, 22), "end", "name"))
        for one in own:
            title = f"{name}, {one.stream}: {100 * one.part:.1f} %, mean size {digits(one.size)}"
            parts.append(box(at, y, one.part * span - 1, step - 8, f"bar {colour(streams.index(one.stream))}", title=title))
            if one.part > 0.08:
                parts.append(text(at + one.part * span / 2, y + 13, f"{100 * one.part:.0f} %", kind="inside"))
            at += one.part * span
    return drawing(parts, "each modality's part of what moves the answers", width, height)


def distributions(entries: Sequence[tuple[int, str, Sequence[float]]], title: str, unit: str) -> str:
    """A box each: the middle half, the 5th and 95th percentile, the median. Entries are a colour's number, a name and `QUANTILES`."""
    step, left = 34, 88
    height = TOP + step * len(entries) + 36
    low = min(0.0, *(quantiles[0] for _, _, quantiles in entries))
    high = max(0.0, *(quantiles[-1] for _, _, quantiles in entries))
    low, high = (low, high) if high - low > 1e-9 else (low - 0.5, high + 0.5)

    def x(value: float) -> float:
        return left + (value - low) / (high - low) * (WIDTH - left - RIGHT)

    parts = []
    for value in ticks(low, high, 5):
        kind = "axis" if value == 0 else "grid"
        parts += [line(x(value), TOP, x(value), height - 32, kind), text(x(value), height - 18, f"{value:.3g}", kind="tick")]
    parts.append(text((left + WIDTH - RIGHT) / 2, height - 3, unit, kind="label"))
    for row, (number, name, (least, lower, middle, upper, most)) in enumerate(entries):
        y = TOP + step * (row + 0.5)
        parts += [
            text(left - 8, y + 4, _shortened(name, 13), "end", "name"),
            f'<g class="{colour(number)}">{line(x(least), y, x(most), y, "whisker")}</g>',
            box(x(lower), y - 9, max(x(upper) - x(lower), 1.5), 18, f"bar {colour(number)}", title=f"{name}: half of the rows lie in here"),
            line(x(middle), y - 11, x(middle), y + 11, "median"),
        ]
    return drawing(parts, title, height=height)


def curves(lines: Sequence[Line], x_label: str, y_label: str, diagonal: bool) -> str:
    """ROC or precision-recall, one curve a label."""
    axes = Axes((0, 1), (0, 1), x_label, y_label)
    parts = axes.drawn()
    if diagonal:
        parts.append(axes.line((0, 1), (0, 1), 0, "chance", "chance"))
    parts += [axes.line(one.x, one.y, number, f"{one.name}: area {one.area:.3f}") for number, one in enumerate(lines)]
    return drawing(parts, f"{y_label} by {x_label}")


def reliability_diagram(before: Reliability, after: Reliability | None) -> str:
    """What came true by what was said; bars are as answered, dots after the temperature."""
    axes = Axes((0, 1), (0, 1), "confidence", "came true", percent_x=True, percent_y=True)
    parts = axes.drawn()
    total = sum(before.counts) or 1
    for sure, true, count in zip(before.confidence, before.came_true, before.counts, strict=True):
        (x, y), (_, floor) = axes.at(sure, true), axes.at(sure, 0)
        width = 7 + 8 * (count / total) ** 0.5
        title = f"said {100 * sure:.0f} %, came true {100 * true:.0f} % of {count:,} answers"
        parts.append(box(x - width / 2, y, width, floor - y, f"bar soft {colour(0)}", title=title))
    parts.append(axes.line((0, 1), (0, 1), 0, "perfect", "chance"))
    if after is not None:
        parts.append(axes.line(after.confidence, after.came_true, 1, "after the temperature"))
        parts += [dot(*axes.at(x, y), 2.5, 1) for x, y in zip(after.confidence, after.came_true, strict=True)]
    return drawing(parts, "reliability diagram")


def confusion_matrix(counts: Sequence[Sequence[int]], names: Sequence[str]) -> str:
    """Rows are the truth, in percent of it."""
    size = len(names)
    left, bottom = 92, 74
    width = WIDTH
    side = (width - left - RIGHT) / size
    height = TOP + side * size + bottom
    parts = []
    for i, row in enumerate(counts):
        total = sum(row)
        y = TOP + side * i
        parts.append(text(left - 7, y + side / 2 + 4, _shortened(names[i], 14), "end", "name"))
        for j, count in enumerate(row):
            part = count / total if total else 0.0
            title = f"{names[i]} answered as {names[j]}: {count:,} of {total:,}"
            kind = "right" if i == j else "wrong"
            parts.append(box(left + side * j, y, side - 1.5, side - 1.5, f"cell {kind}", f"--h:{100 * part:.0f}%", title))
            if size <= 12 and (part >= 0.005 or size <= 6):
                inside = f"{100 * part:.0f}" + (" %" if size <= 5 else "")
                parts.append(text(left + side * (j + 0.5), y + side / 2 + 4, inside, kind="count"))
    for j, name in enumerate(names):
        x, y = left + side * (j + 0.5), TOP + side * size + 10
        anchor = f'<text transform="translate({x + 3:.1f} {y:.1f}) rotate(-42)" text-anchor="end" class="name">'
        parts.append(f"{anchor}{_escaped(_shortened(name, 12))}</text>")
    parts.append(text(left + side * size / 2, height - 4, "answer (rows: the truth)", kind="label"))
    return drawing(parts, "confusion matrix", width, height)


def scatter(points: Sequence[tuple[float, float]], name: str) -> str:
    """Estimates by truth."""
    values = [value for point in points for value in point]
    span = (min(values), max(values))
    axes = Axes(span, span, f"{name}, truth", "answer")
    parts = [*axes.drawn(), axes.line(span, span, 0, "perfect", "chance")]
    parts += [dot(*axes.at(x, y), 1.8, 0, "cloud") for x, y in points[:: max(len(points) // 1000, 1)]]
    return drawing(parts, "estimates by truth")


def learning(entries: Sequence[tuple[int, str, Sequence[Mapping[str, Any]]]], side: str) -> str:
    """Loss by epoch of each run: `side` is train or validation; entries are a colour's number, a name and the lines of a history."""
    drawn = []
    for number, name, history in entries:
        losses = [(i + 1.0, loss) for i, record in enumerate(history) if (loss := _loss(record, side)) is not None]
        if losses:
            drawn.append((number, name, losses))
    if not drawn:
        return ""
    values = sorted(loss for _, _, losses in drawn for _, loss in losses)
    top = values[min(int(len(values) * 0.99), len(values) - 1)] * 1.05
    low = min(values[0], 0 if values[0] > 0 else values[0]) if values[0] < top * 0.5 else values[0] * 0.95
    last = max(losses[-1][0] for _, _, losses in drawn)
    axes = Axes((1, max(last, 2)), (low, top), "epoch", f"{side} loss", whole_x=True)
    parts = axes.drawn()
    for number, name, losses in drawn:
        parts.append(axes.line([x for x, _ in losses], [min(y, top) for _, y in losses], number, name, "line thin"))
    return drawing(parts, f"{side} loss by epoch")


def trade_off(methods: Sequence[tuple[int, MethodResult]], task: str) -> str:
    """What each method's measure costs in CPU time of one window."""
    known = [
        (number, method.name, method.cost.latency[0].median, mean)
        for number, method in methods
        if method.cost is not None and method.cost.latency and (mean := method.tasks[task].summary.mean) is not None
    ]
    if len(known) < 2:
        return ""
    measure = methods[0][1].tasks[task].primary
    times, values = [one[2] for one in known], [one[3] for one in known]
    pad = max((max(values) - min(values)) * 0.15, 1e-3)
    axes = Axes(
        (0, max(times) * 1.1),
        (min(values) - pad, max(values) + pad),
        "CPU time of one window, ms",
        label(measure),
        percent_y=measure not in UNBOUNDED,
    )
    parts = axes.drawn()
    for number, name, taken, value in known:
        parts.append(dot(*axes.at(taken, value), 5, number, title=f"{name}: {told(measure, value)}, {digits(taken)} ms"))
    return drawing(parts, "measure by CPU time")


def parameter_bars(parts_of: Mapping[str, int]) -> str:
    """Where the parameters are."""
    step, left = 26, 110
    height = TOP + step * len(parts_of) + 6
    most = max([*parts_of.values(), 1])
    parts = []
    for row, (name, count) in enumerate(parts_of.items()):
        y = TOP + step * row
        span = count / most * (WIDTH - left - RIGHT - 50)
        parts += [
            text(left - 8, y + 13, _shortened(name, 17), "end", "name"),
            box(left, y, max(span, 1), step - 8, f"bar {colour(0)}", title=f"{name}: {count:,}"),
            text(left + span + 6, y + 13, amount(count), "start", "tick"),
        ]
    return drawing(parts, "parameters by part", height=height)


def _loss(record: Mapping[str, Any], side: str) -> float | None:
    found = record.get("loss") if side == "train" else record.get("validation", {}).get("loss")
    return float(found) if isinstance(found, int | float) else None


def _axis_number(measure: str, value: float) -> str:
    return digits(value) if measure in UNBOUNDED else f"{100 * value:.4g} %"


def _shortened(name: str, most: int) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _escaped(name: str) -> str:
    return name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
