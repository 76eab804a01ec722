"""Puts what several partitions bring into the order of event time, so that a backlog is read as it would have come.

Pure: knows neither Kafka nor a clock. A partition of which more is known to be there holds back those that are ahead of it; one that has
been read to its end holds back nobody, and live records pass at once.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from streamfuse.kafka.transport import Partition
from streamfuse.types import Item


class Queued(NamedTuple):
    """An item with the time by which it is put in order (ns UTC), and its size in bytes."""

    time: int
    size: int
    item: Item


class Merge:
    """`patience` (ns) is for how long a partition that has more, but brings none, may hold back the others; until it brings some, it is
    then passed over. Times called `now` are monotonic, in ns."""

    def __init__(self, patience: int) -> None:
        self._patience = patience
        self._queues: dict[Partition, deque[Queued]] = {}
        self._lagging: frozenset[Partition] = frozenset()
        self._awaited: dict[Partition, int] = {}  # has more and nothing queued: since when

    def gain(self, partitions: Iterable[Partition], now: int) -> None:
        """These are to be read from now on; until `heard` says otherwise, they have more."""
        for partition in partitions:
            self._queues[partition] = deque()
            self._lagging |= {partition}
            self._awaited[partition] = now

    def lose(self, partitions: Iterable[Partition]) -> None:
        """These are read no more; what is queued of them is dropped."""
        for partition in partitions:
            self._queues.pop(partition, None)
            self._awaited.pop(partition, None)
            self._lagging -= {partition}

    def add(self, partition: Partition, items: Sequence[Queued]) -> None:
        """In the order of their offsets. Of a partition that is not ours, they are dropped."""
        if items and (queue := self._queues.get(partition)) is not None:
            queue.extend(items)
            self._awaited.pop(partition, None)

    def heard(self, lagging: frozenset[Partition], now: int) -> None:
        """Which partitions have more than they have brought; always of all that are ours."""
        self._lagging = lagging & self._queues.keys()
        for partition in [one for one in self._awaited if one not in self._lagging]:
            del self._awaited[partition]
        self._await(self._lagging, now)

    def take(self, now: int, most: int = 1000) -> tuple[list[Item], dict[Partition, int]]:
        """Up to `most` items whose turn it is, and of how many bytes this relieves each partition's queue."""
        taken: list[Item] = []
        relieved: dict[Partition, int] = {}
        if self._held(now):
            return taken, relieved
        heads = [(queue[0].time, partition) for partition, queue in self._queues.items() if queue]
        heapq.heapify(heads)
        while heads and len(taken) < most:
            _, partition = heapq.heappop(heads)
            queue = self._queues[partition]
            limit: float = heads[0][0] if heads else math.inf  # not 2^63: a bad record may be of the year 9999
            size = 0
            while queue and queue[0].time <= limit and len(taken) < most:
                _, length, item = queue.popleft()
                taken.append(item)
                size += length
            relieved[partition] = relieved.get(partition, 0) + size
            if queue:
                heapq.heappush(heads, (queue[0].time, partition))
            elif partition in self._lagging:
                self._await((partition,), now)
                break
        return taken, relieved

    def behind(self, now: int) -> bool:
        """Whether there is more than `take` has given, so that silence says nothing."""
        return any(self._queues.values()) or self._held(now)

    def until_next(self, now: int) -> int | None:
        """After how much more waiting (ns) `take` would give what it holds back now; None: waiting alone changes nothing."""
        waits = [since + self._patience - now for since in self._awaited.values()]
        return max(waits) if any(self._queues.values()) and waits and max(waits) > 0 else None

    def _held(self, now: int) -> bool:
        return any(now - since < self._patience for since in self._awaited.values())

    def _await(self, partitions: Iterable[Partition], now: int) -> None:
        for partition in partitions:
            if not self._queues[partition]:
                self._awaited.setdefault(partition, now)
