"""The AVT-120 workload as records, and what a synchronizer made of it."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

Variant = tuple[str, float, float]


class Record(NamedTuple):
    """One packet on its way: times in seconds."""

    arrival_time: float
    stream: str
    sequence: int
    event_time: float


class Decision(NamedTuple):
    """The audio chunk (or none) that was chosen for a video frame, and how long the frame was held for it, in simulated seconds."""

    video: int
    audio: int | None
    held: float


@dataclass
class Outcome:
    """What came of one run: a decision a frame, and how many packets of each stream came too late."""

    decisions: list[Decision] = field(default_factory=list)
    late: dict[str, int] = field(default_factory=dict)


class Subject(Protocol):
    """A synchronizer under test. `run` takes what `prepare` made of the records; only `run` is timed."""

    def prepare(self, records: Sequence[Record]) -> Any: ...

    def run(self, prepared: Any) -> Outcome: ...


class Workload:
    """The AVT-120 generator, loaded from the folder that STREAMFUSE_BENCH names. Raises SystemExit with what to do where there is none."""

    TOLERANCE = 0.020

    def __init__(self, path: Path | None = None) -> None:
        folder = os.environ.get("STREAMFUSE_BENCH")
        path = path or (Path(folder) / "avt120.py" if folder else None)
        if path is None or not path.is_file():
            raise SystemExit("This benchmark needs the AVT-120 workload: set STREAMFUSE_BENCH to the folder that has avt120.py")
        spec = importlib.util.spec_from_file_location("avt120_workload", path)
        assert spec is not None
        assert spec.loader is not None
        self._module: Any = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = self._module
        spec.loader.exec_module(self._module)

    def records(self, *streams: str, seed: int = 7, gap: Variant | None = None) -> list[Record]:
        """The records of these streams (all where none is named), in order of arrival."""
        made = self._module.records(seed=seed, gap=gap)
        return [Record(*record) for record in made if not streams or record.stream in streams]

    def score(self, outcome: Outcome, records: Sequence[Record]) -> dict[str, float]:
        """`coverage` and `right` as shares of all frames; `held_p50`, `held_p99` and `held_max` in seconds."""
        scored: dict[str, float] = self._module.score(outcome.decisions, self._module.truth(records, self.TOLERANCE))
        return scored


def read_ahead(records: Sequence[Record], stream: str, seconds: float) -> list[Record]:
    """The records in the order in which a backlog is read when one stream's reading is ahead of the others'."""
    return sorted(records, key=lambda r: r.arrival_time - (seconds if r.stream == stream else 0))
