"""What has happened in one key, and what of a partition was read and is still needed."""

from __future__ import annotations

from collections import deque

from streamfuse.sync.buffer import NEVER, Entry
from streamfuse.sync.open_windows import Span
from streamfuse.sync.watermark import FOREVER, Frontier, StreamState
from streamfuse.sync.windows import Shape
from streamfuse.types import Offsets


class Partition:
    """What of a partition was read, and what is still needed: its low-water mark."""

    __slots__ = ("next", "pending", "replayed")

    def __init__(self, offsets: Offsets) -> None:
        self.next = offsets.needed
        self.replayed = offsets.seen  # records before it were accounted for in an earlier run
        self.pending: deque[tuple[int, Entry]] = deque()

    def offsets(self) -> Offsets:
        pending = self.pending
        while pending and pending[0][1].done:
            pending.popleft()
        seen = self.next if self.next > self.replayed else self.replayed
        return Offsets(pending[0][0] if pending else self.next, seen)


class Key:
    """Everything about one key. Keys share nothing, so that none holds back another (rule 2)."""

    __slots__ = (
        "deferred",
        "disordered",
        "due",
        "floor",
        "frontier",
        "held",
        "held_state",
        "name",
        "partitions",
        "required",
        "restored",
        "scheduled",
        "streams",
        "touched",
        "windows",
    )

    def __init__(self, name: str, streams: dict[str, StreamState], shape: Shape, now: int) -> None:
        self.name = name
        self.streams = streams
        self.required = [stream for stream in streams.values() if stream.required]
        self.windows = shape.open()
        self.floor = NEVER  # windows that end at or before it are closed
        self.restored = NEVER  # what the floor was before the restart
        self.deferred: dict[Span, None] = {}  # revisions that wait for the end of a replay
        self.frontier = Frontier()
        self.due = FOREVER  # nothing of it is released before this; never too great
        self.held = NEVER
        self.held_state: int | None = None
        self.disordered = False  # a late packet was let in, so that windows may differ from their first revision
        self.partitions: dict[str, Partition] = {}
        self.scheduled = FOREVER
        self.touched = now
