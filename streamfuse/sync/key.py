"""What has happened in one key, and what of a partition was read and is still needed."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from streamfuse.sync.buffer import NEVER, Entry
from streamfuse.sync.open_windows import Span
from streamfuse.sync.watermark import FOREVER, Frontier, StreamState
from streamfuse.sync.windows import Shape
from streamfuse.types import Absence, Offsets, Packet


class Rules(NamedTuple):
    """What holds for every key. Times in ns."""

    max_hold: int | None
    lateness: int
    max_out_of_orderness: int  # the greatest of all streams


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

    def reach(self, least: int | None, rules: Rules, now: int) -> int:
        """Up to where windows close: as far as the watermark, or the waiting, has come. `least` is None where no required stream is left
        to wait for."""
        reach = self.floor
        if least is None:
            reach = max(reach, self._carried(rules, now))
        elif least > reach:
            reach = least
        if rules.max_hold is not None and self._held(rules.max_hold, now) > reach:
            reach = self.held
        return reach

    def gather(self, span: Span, lateness: int, now: int) -> tuple[dict[str, tuple[Packet, ...]], dict[str, Absence], int]:
        """What a window has, what it lacks and why, and its revision: how many of its packets came late, by less than `lateness`."""
        start, end = span
        select = self.windows.select
        packets: dict[str, tuple[Packet, ...]] = {}
        absent: dict[str, Absence] = {}
        late = 0
        for name, stream in self.streams.items():
            entries = stream.buffer.overlapping(start, end, lateness)
            chosen = select(name, span, [entry.packet for entry in entries]) if entries else ()
            if chosen:
                packets[name] = tuple(chosen)
                if len(chosen) == len(entries):
                    for entry in entries:
                        entry.used = True
                else:
                    taken = {id(packet) for packet in chosen}
                    for entry in entries:
                        if id(entry.packet) in taken:
                            entry.used = True
            else:
                absent[name] = stream.absence(start, end, now)
            if lateness:
                for entry in entries:
                    if entry.admit >= end:
                        late += 1
        return packets, absent, late

    def release(self, reach: int, lateness: int) -> list[tuple[StreamState, Entry]]:
        """Let go of the packets whose last window is closed and can't be revised any more. Returns those that came too late for all."""
        late: list[tuple[StreamState, Entry]] = []
        if self.deferred:
            return late
        self.frontier.forget(self.floor)
        bound = self.windows.forget(reach - lateness)
        due = FOREVER
        for stream in self.streams.values():
            account = stream.account
            for entry in stream.buffer.take(bound):
                entry.done = True
                if entry.used:
                    account.used += 1
                elif entry.admit > NEVER:
                    late.append((stream, entry))
                else:
                    account.unmatched += 1
            oldest = stream.buffer.oldest()
            if oldest is not None and oldest.last < due:
                due = oldest.last
            if stream.marks:
                if stream.marks[0][1] <= bound:
                    stream.marks = [m for m in stream.marks if m[1] > bound]
                if stream.marks and stream.marks[0][1] < due:
                    due = stream.marks[0][1]
        self.due = due
        return late

    def deadline(self, rules: Rules) -> int:
        """When waiting alone would close the next window; FOREVER where it never would."""
        end = self.windows.next_end()
        if end is None:
            ends = [oldest.last for s in self.streams.values() if (oldest := s.buffer.oldest()) is not None]
            if not ends:
                return FOREVER
            end = min(ends) + rules.lateness
        frontier = self.frontier
        at = FOREVER
        if rules.max_hold is not None:
            at = frontier.when(end) + rules.max_hold
        blocked = 0
        waiting = False
        for stream in self.required:
            if stream.finished:
                continue
            if stream.watermark + stream.allowance < end:
                silent = FOREVER if stream.idle_timeout is None else stream.active_at + stream.idle_timeout
                if silent > blocked:
                    blocked = silent
            else:
                waiting = True
        if blocked < at:
            if not waiting:
                blocked = max(blocked, frontier.at + end + rules.max_out_of_orderness - frontier.time)
            at = min(at, blocked)
        return at

    def _held(self, max_hold: int, now: int) -> int:
        """The event time whose hold has ended: the same as long as the waiting clock stands still and the frontier was moved or was not."""
        frontier = self.frontier
        state = now if frontier.at < now else ~now
        if self.held_state != state and frontier.time > NEVER:
            self.held = frontier.at_time(now - max_hold)
            if max_hold:
                self.held_state = state
        return self.held

    def _carried(self, rules: Rules, now: int) -> int:
        """The watermark where the required streams are all idle or finished: event time goes on with the waiting."""
        if all(s.finished for s in self.required):
            return FOREVER
        if self.frontier.time == NEVER:
            return NEVER
        carried = self.frontier.at_time(now) - rules.max_out_of_orderness
        return max(carried, *(s.watermark for s in self.required))
