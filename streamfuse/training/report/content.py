"""What stands in a report, and in which order."""

from __future__ import annotations

from collections.abc import Iterator

from streamfuse.training.compare import Comparison
from streamfuse.training.quality import Quality
from streamfuse.training.report import plots
from streamfuse.training.report.blocks import Block, Cell, Figure, Figures, Folded, Points, Report, Section, Table, Text
from streamfuse.training.report.modalities import contributions, crossings, robustness, subsets, weights
from streamfuse.training.report.numbers import DASH, amount, digits
from streamfuse.training.report.scores import differences, errors, scores
from streamfuse.training.report.words import in_short
from streamfuse.training.statistics import DRAWS, LEAST_GROUPS


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
            ("Scores", list(scores(comparison, task, numbers))),
            ("Is the difference significant?", list(differences(comparison, task))),
            ("When modalities are missing", list(subsets(comparison, task))),
            ("Under noise", list(robustness(comparison, task, numbers))),
            ("Which modality carries the answer", list(contributions(comparison, task))),
            (f"Where {comparison.leading.name} errs" if len(comparison.methods) > 1 else "Where it errs", list(errors(comparison, task))),
        ]
        yield from (Section(f"{title}{of}", blocks) for title, blocks in made if blocks)
    made = [
        ("Weights in the fusion", list(weights(comparison))),
        ("Between modalities", list(crossings(comparison))),
        ("How it learned", list(_learning(comparison, numbers))),
        ("What it costs", list(_cost(comparison, numbers))),
        ("The data", list(_data(comparison))),
        ("How this was measured", list(_notes(comparison))),
    ]
    yield from (Section(title, blocks) for title, blocks in made if blocks)


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
