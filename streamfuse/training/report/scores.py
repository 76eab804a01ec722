"""How good the methods are, which differ by more than chance, and where the one that is told in detail errs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from streamfuse.training.compare import Comparison, lower_is_better
from streamfuse.training.evaluate import TaskResult
from streamfuse.training.metrics import LOWER_IS_BETTER, UNBOUNDED
from streamfuse.training.report import plots
from streamfuse.training.report.blocks import Block, Cell, Figure, Figures, Folded, Table, Text
from streamfuse.training.report.numbers import bare, column, difference, gap, label, with_deviation
from streamfuse.training.report.words import interval, verdict

MOST_LINES = 10
"""Labels that are drawn as curves; the others stand in the table."""


def scores(comparison: Comparison, task: str, numbers: dict[str, int]) -> Iterator[Block]:
    if len(comparison.methods) == 1:
        yield from _one_method(comparison.methods[0].tasks[task])
        return
    ranked = comparison.ranked(task)
    measure = ranked[0].tasks[task].primary
    svg = plots.forest([(numbers[method.name], method) for method in ranked], task)
    if svg:
        caption = "Large dot: mean over seeds. Small dots: each seed. Line: 95 % bootstrap interval."
        yield Figures([Figure("", svg)], caption=caption)
    kind = ranked[0].tasks[task].kind
    shown = {
        "regression": ["mae", "rmse", "r2", "pearson"],
        "ordinal": ["mae", "accuracy", "balanced_accuracy", "f1_macro", "pearson", "ece"],
    }.get(kind, ["accuracy", "balanced_accuracy", "f1_macro", "roc_auc", "pr_auc", "ece"])
    best = {name: _best([method.tasks[task].scores[name].mean for method in ranked], name) for name in shown}
    rows = []
    for method in ranked:
        own = method.tasks[task]
        marked = f"{method.name} ★" if method.name == comparison.chosen else method.name
        cells = [Cell(marked, strong=method.name == comparison.chosen, title=f"fusion: {method.fusion}")]
        for name in shown:
            spread = own.scores[name]
            text = bare(name, spread.mean, spread.deviation)
            cells.append(Cell(text, spread.mean, strong=spread.mean is not None and spread.mean == best[name], title=spread.note))
            if name == measure:
                cells.append(Cell(f"{bare(name, own.summary.low)} to {bare(name, own.summary.high)}", own.summary.low))
        cells.append(Cell(bare(measure, own.validation), own.validation))
        rows.append(cells)
    header = ["method"]
    for name in shown:
        header += [column(name), "95 % interval"] if name == measure else [column(name)]
    caption = "Mean ± standard deviation over seeds; the best of each column is bold."
    if comparison.chosen:
        caption += f" ★ is chosen by the validation's {label(measure)}, in the last column."
    yield Table([*header, f"validation: {column(measure)}"], rows, caption)
    measures = [name for name in ranked[0].tasks[task].scores if name not in shown]
    more = [
        [Cell(method.name), *(_spread_cell(name, method.tasks[task]) for name in measures)]
        for method in ranked
    ]  # fmt: skip
    if measures:
        yield Folded("All other measures", [Table(["method", *map(column, measures)], more)])


def _one_method(own: TaskResult) -> Iterator[Block]:
    rows = []
    remarks = any(spread.note for spread in own.scores.values())
    for name, spread in own.scores.items():
        leading = name == own.primary
        cells = [Cell(label(name), strong=leading), Cell(with_deviation(name, spread.mean, spread.deviation), spread.mean, strong=leading)]
        rows.append([*cells, Cell(interval(name, own.summary) if leading else ""), *([Cell(spread.note)] if remarks else [])])
    yield Table(["measure", "value", "95 % interval", *(["remark"] if remarks else [])], rows)


def _spread_cell(name: str, own: TaskResult) -> Cell:
    spread = own.scores[name]
    return Cell(bare(name, spread.mean, spread.deviation), spread.mean, title=spread.note)


def differences(comparison: Comparison, task: str) -> Iterator[Block]:
    found = comparison.differences[task]
    if not found:
        return
    own = comparison.methods[0].tasks[task]
    measure, lower = own.primary, lower_is_better(own)
    best = comparison.ranked(task)[0].name
    significant = sum(one.significant for one in found)
    yield Text(
        f"{significant} of {len(found)} pairs differ significantly in {label(measure)}."
        if significant
        else f"No significant difference: none of the {len(found)} pairs differs significantly in {label(measure)}."
    )

    def table(pairs: Sequence[int]) -> Table:
        rows = []
        for i in pairs:
            one = found[i].towards(best)
            found_gap = f"{difference(measure, one.difference)} ({gap(measure, one.low)} to {gap(measure, one.high)})"
            words = verdict(one, measure, lower)
            name = f"{one.first} against {one.second}"
            rows.append([Cell(name), Cell(found_gap, one.difference), Cell(f"{one.corrected:.4f}", one.corrected), Cell(words)])
        return Table(["pair", "difference (95 % interval)", "p, corrected", "verdict"], rows)

    of_best = [i for i, one in enumerate(found) if best in (one.first, one.second)]
    yield table(of_best)
    if len(of_best) < len(found):
        yield Folded(f"All {len(found)} pairs", [table(range(len(found)))])


def errors(comparison: Comparison, task: str) -> Iterator[Block]:
    own = comparison.leading.tasks[task]
    figures = []
    if own.confusion is not None and len(own.names) <= 30:
        figures.append(Figure("Confusion", plots.confusion_matrix(own.confusion, own.names)))
    if own.calibration is not None and own.calibration.before.error is not None:
        after = own.calibration.after
        caption = f"ECE {100 * own.calibration.before.error:.1f} points"
        if after is not None and after.error is not None and own.calibration.temperature is not None:
            caption += f"; line: {100 * after.error:.1f} after temperature {own.calibration.temperature:.2f}, from validation"
        figures.append(Figure("Reliability", plots.reliability_diagram(own.calibration.before, after), caption))
    lines = own.roc[:MOST_LINES]
    if lines:
        figures.append(Figure("ROC", plots.curves(own.roc[:MOST_LINES], "false positive rate", "true positive rate", True)))
        figures.append(Figure("Precision and recall", plots.curves(own.precision_recall[:MOST_LINES], "recall", "precision", False)))
    if own.estimates:
        figures.append(Figure("Estimates", plots.scatter(own.estimates, own.names[0])))
    if figures:
        left_out = f" The curves are those of the first {MOST_LINES} of {len(own.roc)} labels." if len(own.roc) > MOST_LINES else ""
        yield Figures(figures, [one.name for one in lines], f"All seeds' answers together.{left_out}")
    if own.each:
        measures = list(next(iter(own.each.values())))
        rows = [
            [
                Cell(name),
                *(Cell(bare(m, spread.mean, spread.deviation), spread.mean, title=spread.note) for m, spread in each.items()),
            ]
            for name, each in own.each.items()
        ]
        yield Table(["label" if own.kind != "regression" else "value", *map(column, measures)], rows)


def _best(values: Sequence[float | None], measure: str) -> float | None:
    there = [value for value in values if value is not None]
    if not there:
        return None
    return min(there) if measure in LOWER_IS_BETTER | UNBOUNDED else max(there)
