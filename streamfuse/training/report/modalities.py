"""What the modalities are worth: when some are missing, under noise, and for each answer."""

from __future__ import annotations

from collections.abc import Iterator

from streamfuse.training.compare import Comparison, lower_is_better
from streamfuse.training.evaluate import TaskResult
from streamfuse.training.report import plots
from streamfuse.training.report.blocks import Block, Cell, Figure, Figures, Folded, Points, Table
from streamfuse.training.report.numbers import DASH, bare, column, difference, digits, label
from streamfuse.training.report.words import name_of, over_rows
from streamfuse.training.robustness import Curve


def subsets(comparison: Comparison, task: str) -> Iterator[Block]:
    if len(comparison.streams) < 2:
        return
    values = [one.mean for method in comparison.methods for one in method.tasks[task].subsets if one.mean is not None]
    if not values:
        return
    ranked = comparison.ranked(task)
    first = ranked[0].tasks[task]
    lower = lower_is_better(first)

    def heat(value: float | None) -> float | None:
        if value is None:
            return None
        part = (value - min(values)) / (max(values) - min(values) or 1)
        return 1 - part if lower else part

    if len(ranked) == 1:
        all_shown = first.subsets[-1]
        whole = all_shown.mean
        rows = [
            [
                *(Cell("●" if stream in one.shown else "○") for stream in ranked[0].streams),
                Cell(bare(first.primary, one.mean, one.deviation), one.mean, heat(one.mean)),
                Cell(
                    difference(first.primary, one.mean - whole)
                    if one.mean is not None and whole is not None and one is not all_shown
                    else ""
                ),
                Cell(f"{one.rows:,}", one.rows),
            ]
            for one in reversed(first.subsets)
        ]
        yield Table([*ranked[0].streams, column(first.primary), "against all", "rows"], rows, f"{_SUBSETS} {over_rows(first)}.")
        return
    columns = sorted({one.shown for method in ranked for one in method.tasks[task].subsets}, key=lambda shown: -len(shown))
    rows = []
    for method in ranked:
        found = {one.shown: one for one in method.tasks[task].subsets}
        cells = [Cell(method.name, strong=method.name == comparison.chosen)]
        for shown in columns:
            own = found.get(shown)
            if own is None:
                cells.append(Cell(""))
            else:
                text = bare(first.primary, own.mean, own.deviation)
                cells.append(Cell(text, own.mean, heat(own.mean), title=f"{own.rows:,} rows"))
        rows.append(cells)
    caption = f"{_capital(column(first.primary))}, with these modalities shown and the others hidden. {_SUBSETS} {over_rows(first)}."
    yield Table(["method", *map(name_of, columns)], rows, caption)
    yield Folded("How each fusion treats a missing modality", [Points([f"{m.name}: {m.missing}." for m in ranked])])


_SUBSETS = "The model's own answers, without training anew,"


def robustness(comparison: Comparison, task: str, numbers: dict[str, int]) -> Iterator[Block]:
    methods = comparison.methods
    results = [(numbers[method.name], method.name, method.tasks[task]) for method in methods]
    if not results[0][2].robustness:
        return
    own = results[0][2]
    chance = _chance(own)
    if len(methods) == 1:
        entries = [(number, curve.stream, curve) for number, curve in enumerate(own.robustness)]
        figure = Figure("", plots.robustness(entries, own, chance))
        yield Figures([figure], [curve.stream for curve in own.robustness], _noise_caption(comparison, chance))
    else:
        figures = []
        for stream in comparison.streams:
            drawn = [(number, name, curve) for number, name, result in results for curve in result.robustness if curve.stream == stream]
            figures.append(Figure(f"noise on {stream}", plots.robustness(drawn, own, chance)))
        yield Figures(figures, [name for _, name, _ in results], _noise_caption(comparison, chance))
    rows = []
    for method in comparison.ranked(task):
        for curve in method.tasks[task].robustness:
            name = curve.stream if len(methods) == 1 else f"{method.name}, {curve.stream}"
            rows.append(
                [
                    Cell(name),
                    *(Cell(bare(own.primary, mean), mean) for mean in curve.means),
                    Cell(bare(own.primary, curve.area), curve.area),
                    Cell(_kept(curve, own), _share_kept(curve)),
                ]
            )
    header = ["noise on", *(f"{level:g}" for level in own.robustness[0].levels), "mean (area)", "kept at 0.9"]
    table = Table(header, rows)
    yield table if len(methods) == 1 else Folded("The numbers", [table])


def _noise_caption(comparison: Comparison, chance: float | None) -> str:
    caption = "Noise takes the signal's place, (1 − level) : level; at 1 nothing of the modality is left."
    if chance is not None:
        caption += " Dotted: always answering the most frequent label."
    if len(comparison.methods) <= 4 and len(comparison.methods[0].seeds) > 1:
        caption += " Bands: one standard deviation over seeds."
    return caption


def _chance(own: TaskResult) -> float | None:
    if own.confusion is None or own.kind != "classification":
        return None
    rows = [sum(row) for row in own.confusion]
    return max(rows) / sum(rows) if sum(rows) else None


def _share_kept(curve: Curve) -> float | None:
    clean, noisy = curve.at(0.0), curve.at(0.9)
    return noisy / clean if clean and noisy is not None else None


def _kept(curve: Curve, own: TaskResult) -> str:
    kept = _share_kept(curve)
    if kept is None:
        return DASH
    return f"× {kept:.2f}" if lower_is_better(own) else f"{100 * kept:.1f} %"


def contributions(comparison: Comparison, task: str) -> Iterator[Block]:
    ranked = comparison.ranked(task)
    entries = [(method.name, method.tasks[task].contributions) for method in ranked if method.tasks[task].contributions]
    leading = comparison.leading
    own = leading.tasks[task]
    if not entries or len(comparison.streams) < 2:
        return
    yield Figures([Figure("", plots.contribution_bars(entries, comparison.streams))], comparison.streams, _SHAPLEY)
    unit = "estimate" if own.kind == "regression" else "probability of the answer"
    boxes = [(comparison.streams.index(one.stream), one.stream, one.quantiles) for one in own.contributions]
    if boxes:
        title = f"{leading.name}: over its rows" if len(ranked) > 1 else "over the rows"
        caption = (
            "Box: the middle half of the rows; line: from the 5th to the 95th percentile. Left of 0 a modality speaks against the answer."
        )
        yield Figures([Figure(title, plots.distributions(boxes, "Shapley values", f"change of the {unit}"), caption)])
    rows = [
        [
            Cell(f"{name}, {one.stream}" if len(entries) > 1 else one.stream),
            Cell(digits(one.size), one.size),
            Cell(f"{100 * one.part:.1f} %"),
        ]
        for name, each in entries
        for one in each
    ]
    table = Table(["modality", "mean |Shapley|", "part"], rows)
    yield Folded("The numbers", [table])


_SHAPLEY = (
    "Each modality's part of the sum of mean absolute Shapley values: exact, over all subsets of the modalities, fused from the same "
    "tokens (Shapley 1953)."
)


def weights(comparison: Comparison) -> Iterator[Block]:
    there = [method for method in comparison.methods if method.weights]
    if not there:
        return
    figures = [
        Figure(
            m.name if m.name == m.fusion else f"{m.name} ({m.fusion})",
            plots.distributions(
                [(comparison.streams.index(w.stream), w.stream, w.quantiles) for w in m.weights], "weights of the fusion", "weight"
            ),
        )
        for m in there
    ]
    yield Figures(
        figures,
        caption="What the fusion's own attention or gates give each modality, over rows. They say where it looks, not what it concludes.",
    )


def crossings(comparison: Comparison) -> Iterator[Block]:
    rows = [
        [
            Cell(one.what if len(comparison.methods) == 1 else f"{method.name}: {one.what}"),
            Cell(label(one.measure)),
            Cell(digits(one.value), one.value),
            Cell(DASH if one.chance is None else digits(one.chance), one.chance),
            Cell(f"{one.rows:,}", one.rows),
        ]
        for method in comparison.methods
        for one in method.crossings
    ]
    if rows:
        caption = (
            "Found: the row's own counterpart is among the k closest. Written: one modality made from another, beside what it really is."
        )
        yield Table(["what", "measure", "value", "by chance", "rows"], rows, caption)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
