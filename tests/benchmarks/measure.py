"""Timing and printing for the benchmarks: CPU time, alternatives interleaved, medians, plain tables."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median

Run = Callable[[], object]


def cpu_seconds(subjects: Mapping[str, Callable[[], Run]], rounds: int) -> dict[str, float]:
    """The median CPU time of each subject over `rounds`, run in turn (A B C, A B C, ...) so that what disturbs one disturbs all.

    Each subject prepares a run, untimed, and the run is timed.
    """
    times: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(rounds):
        for name, prepare in subjects.items():
            run = prepare()
            gc.collect()
            start = time.process_time()
            run()
            times[name].append(time.process_time() - start)
    return {name: median(taken) for name, taken in times.items()}


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print it: the first column to the left, figures to the right."""
    lines = [list(header), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    print(f"\n{title}")
    for line in lines:
        cells = [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        print("  " + "  ".join(cells).rstrip())
