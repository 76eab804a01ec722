"""What stands in a report, and in which order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from streamfuse.training.compare import Comparison, lower_is_better
from streamfuse.training.evaluate import TaskResult
from streamfuse.training.metrics import LOWER_IS_BETTER, UNBOUNDED
from streamfuse.training.quality import Quality
from streamfuse.training.report import plots
from streamfuse.training.report.blocks import Block, Cell, Figure, Figures, Folded, Points, Report, Section, Table, Text
from streamfuse.training.report.numbers import DASH, amount, bare, column, difference, digits, gap, label, with_deviation
from streamfuse.training.report.words import in_short, interval, name_of, over_rows, verdict
from streamfuse.training.robustness import Curve
from streamfuse.training.statistics import DRAWS, LEAST_GROUPS

MOST_LINES = 10
"""Labels that are drawn as curves; the others stand in the table."""


def build_report(comparison: Comparison) -> Report:
    data, methods = comparison.data, comparison.methods
    first = methods[0].tasks[comparison.tasks[0]]
    title = f"{methods[0].name} on {data.name}" if len(methods) == 1 else f"{len(methods)} methods on {data.name}"
    seeds = len({seed for method in methods for seed in method.seeds})
    facts = [f"{data.part} part", f"{first.rows:,} rows", f"{seeds} seed{'s' if seeds > 1 else ''}", " + ".join(comparison.streams)]
    if data.groups:
        facts.insert(2, f"{len(data.groups)} groups")
    return Report(title, facts, in_short(comparison), list(_sections(comparison)))


def _sections(comparison: Comparison) -> Iterator[Section]:
    numbers = {method.name: number for number, method in enumerate(comparison.methods)}
    for task in comparison.tasks:
        of = f" ({task})" if len(comparison.tasks) > 1 else ""
        made: list[tuple[str, list[Block]]] = [
            ("Scores", list(_scores(comparison, task, numbers))),
            ("Is the difference significant?", list(_differences(comparison, task))),
            ("When modalities are missing", list(_subsets(comparison, task))),
            ("Under noise", list(_robustness(comparison, task, numbers))),
            ("Which modality carries the answer", list(_contributions(comparison, task))),
            (f"Where {comparison.leading.name} errs" if len(comparison.methods) > 1 else "Where it errs", list(_errors(comparison, task))),
        ]
        yield from (Section(f"{title}{of}", blocks) for title, blocks in made if blocks)
    made = [
        ("Weights in the fusion", list(_weights(comparison))),
        ("Between modalities", list(_crossings(comparison))),
        ("How it learned", list(_learning(comparison, numbers))),
        ("What it costs", list(_cost(comparison, numbers))),
        ("The data", list(_data(comparison))),
        ("How this was measured", list(_notes(comparison))),
    ]
    yield from (Section(title, blocks) for title, blocks in made if blocks)


# --- scores --------------------------------------------------------------------------------------------------------------------------


def _scores(comparison: Comparison, task: str, numbers: dict[str, int]) -> Iterator[Block]:
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


def _differences(comparison: Comparison, task: str) -> Iterator[Block]:
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


# --- modalities ----------------------------------------------------------------------------------------------------------------------


def _subsets(comparison: Comparison, task: str) -> Iterator[Block]:
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


def _robustness(comparison: Comparison, task: str, numbers: dict[str, int]) -> Iterator[Block]:
    methods = comparison.methods
    results = [(numbers[method.name], method.name, method.tasks[task]) for method in methods]
    if not results[0][2].robustness:
        return
    own = results[0][2]
    chance = _chance(own)
    if len(methods) == 1:
        entries = [(number, curve.stream, curve) for number, curve in enumerate(own.robustness)]
        figure = Figure("", plots.robustness(entries, own, chance))
        yield Figures([figure], [curve.stream for curve in own.robustness], _NOISE)
    else:
        figures = []
        for stream in comparison.streams:
            drawn = [(number, name, curve) for number, name, result in results for curve in result.robustness if curve.stream == stream]
            figures.append(Figure(f"noise on {stream}", plots.robustness(drawn, own, chance)))
        yield Figures(figures, [name for _, name, _ in results], _NOISE)
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


_NOISE = (
    "Noise takes the signal's place, (1 − level) : level; at 1 nothing of the modality is left. Dotted: always answering the most "
    "frequent label. Bands: one standard deviation over seeds."
)


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


def _contributions(comparison: Comparison, task: str) -> Iterator[Block]:
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


def _weights(comparison: Comparison) -> Iterator[Block]:
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


def _crossings(comparison: Comparison) -> Iterator[Block]:
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


# --- errors --------------------------------------------------------------------------------------------------------------------------


def _errors(comparison: Comparison, task: str) -> Iterator[Block]:
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


# --- learning, cost, data ------------------------------------------------------------------------------------------------------------


def _learning(comparison: Comparison, numbers: dict[str, int]) -> Iterator[Block]:
    entries = [
        (numbers[method.name], f"{method.name}, seed {seed}", history)
        for method in comparison.methods
        for seed, history in method.history.items()
    ]
    figures = [Figure(f"{side.capitalize()} loss", svg) for side in ("train", "validation") if (svg := plots.learning(entries, side))]
    if figures:
        names = [method.name for method in comparison.methods]
        yield Figures(figures, names if len(names) > 1 else [], "One line a run; stages of training stand one after the other.")


def _cost(comparison: Comparison, numbers: dict[str, int]) -> Iterator[Block]:
    known = [method for method in comparison.methods if method.cost is not None]
    if not known:
        return
    header = ["method", "parameters", "FLOPs of one window"]
    sizes = [latency.size for latency in known[0].cost.latency] if known[0].cost is not None else []
    for size in sizes:
        header += [f"CPU ms, batch {size}: median", "p90"]
    rows = []
    for method in known:
        cost = method.cost
        assert cost is not None
        cells = [Cell(method.name), Cell(amount(cost.all_parameters), cost.all_parameters)]
        cells.append(Cell(amount(cost.flops), cost.flops) if cost.flops else Cell(DASH))
        for latency in cost.latency:
            cells += [Cell(digits(latency.median), latency.median), Cell(digits(latency.p90), latency.p90)]
        rows.append(cells)
    yield Table(header, rows, "CPU time of a whole forward pass on one thread, models taking turns; a GPU is another matter.")
    figures = []
    task = comparison.tasks[0]
    scatter = plots.trade_off([(numbers[method.name], method) for method in known], task)
    if scatter:
        figures.append(Figure("What it buys", scatter))
    leading = comparison.leading
    if leading.cost is not None:
        figures.append(
            Figure(f"Parameters of {leading.name}" if len(known) > 1 else "Parameters", plots.parameter_bars(leading.cost.parameters))
        )
    if figures:
        yield Figures(figures, [method.name for method in comparison.methods] if scatter else [])


def _data(comparison: Comparison) -> Iterator[Block]:
    data = comparison.data
    if data.parts:
        rows = [
            [Cell(name), Cell(f"{count:,}", count), Cell("judged here" if name == data.part else "")] for name, count in data.parts.items()
        ]
        yield Table(["part", "rows", ""], rows)
    if data.groups:
        yield Text(f"Groups in the {data.part} part: {', '.join(data.groups[:12])}{' …' if len(data.groups) > 12 else ''}.")
    if data.remarks:
        yield Points(data.remarks)
    if data.quality is not None:
        yield from _quality(data.quality)


def _quality(quality: Quality) -> Iterator[Block]:
    total = sum(quality.rows.values())
    streams = [
        [
            Cell(name),
            Cell(f"{100 * own.present / max(total, 1):.1f}", own.present),
            Cell(f"{own.items:.1f}", own.items),
            Cell(f"{len(own.constant)}", len(own.constant)),
        ]
        for name, own in quality.streams.items()
    ]
    yield Table(["stream", "in rows, %", "items a row", "constant features"], streams)
    for task, labels in quality.classes.items():
        rows = [
            [Cell(name), *(Cell(f"{parts.get(part, 0):,}", parts.get(part, 0)) for part in quality.rows)] for name, parts in labels.items()
        ]
        yield Folded(f"Rows of each {task}", [Table([task, *quality.rows], rows)])
    if quality.findings:
        yield Points([f"{finding.severity}: {finding}" for finding in quality.findings])
    else:
        yield Text("Nothing was found wrong with the data: no duplicates across parts, no group on two sides, no number that is none.")


def _notes(comparison: Comparison) -> Iterator[Block]:
    own = comparison.leading.tasks[comparison.tasks[0]]
    groups = len(set(comparison.data.groups))
    seeds = "a draw takes both anew" if own.summary.seeds > 1 else "what another seed would change is not in them"
    notes = [f"Intervals: {DRAWS:,} bootstrap draws over {own.summary.drawn}; {seeds}."]
    pairs = len(comparison.differences.get(comparison.tasks[0], ()))
    if pairs:
        corrected = f"p values corrected for all {pairs} pairs (Holm 1979)"
        notes.append(f"Differences: paired bootstrap on the same rows, {corrected}; significant below 0.05.")
    notes += [
        "Temperature and thresholds come from the validation part; nothing that is judged here had a say in training or in the choice.",
        "Precision, recall and F1 count a label that was never answered as 0. ROC and PR areas of more than two labels are means over "
        "labels, each against the rest. ECE has 15 bins of equal width.",
    ]
    if 0 < groups < LEAST_GROUPS:
        notes.append(
            f"The rows are of {groups} groups, too few to draw whole groups: rows of one group are alike, so the intervals are "
            "narrower than what another group would show."
        )
    yield Points(notes)


def _best(values: Sequence[float | None], measure: str) -> float | None:
    there = [value for value in values if value is not None]
    if not there:
        return None
    return min(there) if measure in LOWER_IS_BETTER | UNBOUNDED else max(there)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
