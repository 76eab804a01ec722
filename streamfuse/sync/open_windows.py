"""The open windows of one key, by shape: which windows a packet belongs to, and which have come to their end.

A window is known by its end, and exists only once a packet belongs to it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Protocol

from streamfuse.types import Packet

Span = tuple[int, int]  # the start and the end of a window


class OpenWindows(Protocol):
    """The open windows of one key. Times are ns of event time; a packet covers `[start, stop)`."""

    def last_end(self, stream: str, start: int, stop: int) -> int:
        """The greatest end of a window that such a packet can belong to; it may be released when that is closed."""
        ...

    def add(self, stream: str, start: int, stop: int, after: int) -> None:
        """A packet arrived in time for the windows that end past `after`."""
        ...

    def restore(self, stream: str, start: int, stop: int) -> None:
        """A packet of windows that were closed before a restart is back, for the windows that may still be revised."""
        ...

    def next_end(self) -> int | None:
        """The end of the first open window."""
        ...

    def due(self, watermark: int) -> Iterator[Span]:
        """Close the windows that end at or before the watermark, in order of end."""
        ...

    def reopen(self, stream: str, start: int, stop: int, after: int, until: int) -> list[Span]:
        """The windows with `after < end <= until` that a late packet belongs to, closed ones too."""
        ...

    def forget(self, before: int) -> int:
        """Windows that end at or before this are never reopened. Returns up to which `last_end` packets are needed no more."""
        ...

    def select(self, stream: str, span: Span, packets: Sequence[Packet]) -> Sequence[Packet]:
        """Of the packets that overlap the window, in order of event time, those that it takes."""
        ...


class Grid:
    """Window k ends at `base + k * hop`. Kept as ranges of k, so that a packet in eight windows costs no more than one in one."""

    __slots__ = ("_base", "_hop", "_ranges", "_size")

    def __init__(self, size: int, hop: int, offset: int) -> None:
        self._size = size
        self._hop = hop
        self._base = offset + size
        self._ranges: deque[list[int]] = deque()

    def last_end(self, stream: str, start: int, stop: int) -> int:
        return self._base + (stop + self._size - 1 - self._base) // self._hop * self._hop

    def add(self, stream: str, start: int, stop: int, after: int) -> None:
        hop = self._hop
        base = self._base
        first = ((start if start > after else after) - base) // hop + 1
        last = (stop + self._size - 1 - base) // hop
        if first > last:
            return
        ranges = self._ranges
        if ranges:
            newest = ranges[-1]
            if newest[0] <= first <= newest[1] + 1:
                if last > newest[1]:
                    newest[1] = last
            elif first > newest[1]:
                ranges.append([first, last])
            else:
                self._merge(first, last)
        else:
            ranges.append([first, last])

    def _merge(self, first: int, last: int) -> None:
        merged: list[list[int]] = []
        for low, high in sorted([*self._ranges, [first, last]]):
            if merged and low <= merged[-1][1] + 1:
                merged[-1][1] = max(merged[-1][1], high)
            else:
                merged.append([low, high])
        self._ranges = deque(merged)

    def restore(self, stream: str, start: int, stop: int) -> None:
        pass

    def next_end(self) -> int | None:
        return self._base + self._ranges[0][0] * self._hop if self._ranges else None

    def due(self, watermark: int) -> Iterator[Span]:
        while self._ranges:
            oldest = self._ranges[0]
            end = self._base + oldest[0] * self._hop
            if end > watermark:
                return
            oldest[0] += 1
            if oldest[0] > oldest[1]:
                self._ranges.popleft()
            yield end - self._size, end

    def reopen(self, stream: str, start: int, stop: int, after: int, until: int) -> list[Span]:
        first = (max(start, after) - self._base) // self._hop + 1
        last = (min(stop + self._size - 1, until) - self._base) // self._hop
        ends = (self._base + k * self._hop for k in range(first, last + 1))
        return [(end - self._size, end) for end in ends]

    def forget(self, before: int) -> int:
        return before

    def select(self, stream: str, span: Span, packets: Sequence[Packet]) -> Sequence[Packet]:
        return packets


class Sessions:
    """Disjoint stretches `[first packet's start, last packet's stop + gap)`, in order."""

    __slots__ = ("_closed", "_gap", "_max_size", "_open")

    def __init__(self, gap: int, max_size: int | None) -> None:
        self._gap = gap
        self._max_size = max_size
        self._open: list[list[int]] = []
        self._closed: list[list[int]] = []

    def last_end(self, stream: str, start: int, stop: int) -> int:
        return stop + self._gap

    def add(self, stream: str, start: int, stop: int, after: int) -> None:
        # A packet that is out of bounds does not reach back to what may have been closed without it.
        start = max(start, after)
        end = stop + self._gap
        if end <= start:
            return
        self._join(self._open, start, end)

    def restore(self, stream: str, start: int, stop: int) -> None:
        self._join(self._closed, start, stop + self._gap)

    @staticmethod
    def _join(sessions: list[list[int]], start: int, end: int) -> None:
        at = bisect_left(sessions, [start])
        if at and sessions[at - 1][1] > start:
            at -= 1
            start = sessions[at][0]
        stale = at
        while stale < len(sessions) and sessions[stale][0] < end:
            end = max(end, sessions[stale][1])
            stale += 1
        sessions[at:stale] = [[start, end]]

    def next_end(self) -> int | None:
        return self._end_of(self._open[0]) if self._open else None

    def _end_of(self, session: list[int]) -> int:
        start, end = session
        return end if self._max_size is None else min(end, start + self._max_size)

    def due(self, watermark: int) -> Iterator[Span]:
        while self._open:
            session = self._open[0]
            start, end = session[0], self._end_of(session)
            if end > watermark:
                return
            if end < session[1]:
                session[0] = end
            else:
                del self._open[0]
            self._closed.append([start, end])
            yield start, end

    def reopen(self, stream: str, start: int, stop: int, after: int, until: int) -> list[Span]:
        sessions = [*((s[0], s[1]) for s in self._closed), *((s[0], self._end_of(s)) for s in self._open)]
        return [s for s in sessions if after < s[1] <= until and s[0] < stop and start < s[1]]

    def forget(self, before: int) -> int:
        while self._closed and self._closed[0][1] <= before:
            del self._closed[0]
        # A session may go on for long after a packet's own gap: the first one that is left needs all of its packets.
        if self._closed:
            return min(before, self._closed[0][0])
        return min(before, self._open[0][0]) if self._open else before

    def select(self, stream: str, span: Span, packets: Sequence[Packet]) -> Sequence[Packet]:
        return packets


class Anchors:
    """The event times of the primary packets whose windows are open, and of those that may still be revised."""

    __slots__ = ("_closed", "_nearest", "_open", "_primary", "_tolerance")

    def __init__(self, primary: str, tolerance: int, take: str) -> None:
        self._primary = primary
        self._tolerance = tolerance
        self._nearest = take == "nearest"
        self._open: list[int] = []
        self._closed: list[int] = []

    def last_end(self, stream: str, start: int, stop: int) -> int:
        return start + self._tolerance + 1 if stream == self._primary else stop + 2 * self._tolerance

    def add(self, stream: str, start: int, stop: int, after: int) -> None:
        if stream == self._primary and start + self._tolerance + 1 > after:
            anchors = self._open
            if not anchors or start > anchors[-1]:
                anchors.append(start)
            elif anchors[bisect_left(anchors, start)] != start:
                insort(anchors, start)

    def restore(self, stream: str, start: int, stop: int) -> None:
        if stream == self._primary and start not in self._closed:
            insort(self._closed, start)

    def next_end(self) -> int | None:
        return self._open[0] + self._tolerance + 1 if self._open else None

    def due(self, watermark: int) -> Iterator[Span]:
        reach = self._tolerance
        while self._open and self._open[0] + reach + 1 <= watermark:
            anchor = self._open.pop(0)
            insort(self._closed, anchor)
            yield anchor - reach, anchor + reach + 1

    def reopen(self, stream: str, start: int, stop: int, after: int, until: int) -> list[Span]:
        reach = self._tolerance
        if stream == self._primary:
            anchors = [start]
            end = start + reach + 1
            if after < end <= until and start not in self._closed and start not in self._open:
                insort(self._closed, start)
        else:
            anchors = [
                *self._closed[bisect_left(self._closed, start - reach) : bisect_right(self._closed, stop - 1 + reach)],
                *self._open[bisect_left(self._open, start - reach) : bisect_right(self._open, stop - 1 + reach)],
            ]
        return [(a - reach, a + reach + 1) for a in anchors if after < a + reach + 1 <= until]

    def forget(self, before: int) -> int:
        reach = before - self._tolerance - 1
        if self._closed and self._closed[0] <= reach:
            del self._closed[: bisect_right(self._closed, reach)]
        return before

    def select(self, stream: str, span: Span, packets: Sequence[Packet]) -> Sequence[Packet]:
        anchor = span[0] + self._tolerance
        if stream == self._primary:
            return [p for p in packets if p.event_time == anchor]
        if not self._nearest or len(packets) < 2:
            return packets
        best = packets[0]
        least = self._distance(best, anchor)
        for packet in packets[1:]:
            distance = self._distance(packet, anchor)
            if distance < least:
                best, least = packet, distance
        return [best]

    @staticmethod
    def _distance(packet: Packet, anchor: int) -> int:
        if packet.event_time > anchor:
            return packet.event_time - anchor
        return max(0, anchor - packet.end + 1)
