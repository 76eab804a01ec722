"""The packets of one stream of one key that open windows may still need, in order of event time."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from streamfuse.types import Packet

NEVER = -(1 << 63)  # before any event time


class Entry:
    """A received packet that is not settled yet.

    `admit` is the watermark at its arrival: it was in time for windows that end after it (NEVER: for all). `last` is the end of the last
    window that it can belong to. `done` tells the partition's low-water mark that it is needed no more. `silent` says that it was accounted
    for before a restart.
    """

    __slots__ = ("admit", "done", "last", "packet", "silent", "stop", "used")

    def __init__(self, packet: Packet) -> None:
        self.packet = packet
        self.stop = 0
        self.admit = NEVER
        self.last = NEVER
        self.used = False
        self.done = False
        self.silent = False


class Buffer:
    """Sorted by event time; equal times in order of arrival."""

    __slots__ = ("_entries", "_head", "_longest", "_times")

    def __init__(self) -> None:
        self._times: list[int] = []
        self._entries: list[Entry] = []
        self._head = 0  # entries before it are released; they are cut off in bulk
        self._longest = 1

    def __len__(self) -> int:
        return len(self._entries) - self._head

    def insert(self, entry: Entry) -> None:
        time = entry.packet.event_time
        length = entry.stop - time
        if length > self._longest:
            self._longest = length
        times = self._times
        if not times or time >= times[-1]:
            times.append(time)
            self._entries.append(entry)
        else:
            at = bisect_right(times, time, self._head)
            times.insert(at, time)
            self._entries.insert(at, entry)

    def holds(self, packet: Packet) -> bool:
        """Whether the same packet is here: the same id, or without ids the same time and payload."""
        times = self._times
        time = packet.event_time
        if not times or time > times[-1]:
            return False
        at = bisect_left(times, time, self._head)
        while at < len(times) and times[at] == time:
            other = self._entries[at].packet
            if (packet.id == other.id) if packet.id or other.id else (packet.payload == other.payload):
                return True
            at += 1
        return False

    def overlapping(self, start: int, end: int, lateness: int) -> list[Entry]:
        """Entries that cover a part of `[start, end)` and were in time for a window that ends at `end`, or late by less than `lateness`."""
        times = self._times
        entries = self._entries
        at = bisect_left(times, start - self._longest + 1, self._head)
        stop = bisect_left(times, end, at)
        return [e for e in entries[at:stop] if e.stop > start and e.admit - lateness < end]

    def oldest(self) -> Entry | None:
        return self._entries[self._head] if self._head < len(self._entries) else None

    def take(self, bound: int) -> list[Entry]:
        """Remove the entries up to the first whose last window ends past `bound`."""
        entries = self._entries
        head = at = self._head
        while at < len(entries) and entries[at].last <= bound:
            at += 1
        taken = entries[head:at]
        self._head = at
        if at >= 64 and at * 2 >= len(entries):
            del entries[:at]
            del self._times[:at]
            self._head = 0
            if not self._times:
                self._longest = 1
        return taken

    def all(self) -> list[Entry]:
        return self._entries[self._head :]
