"""Notices that a topic which we read was deleted, or deleted and created anew: clients go on without a word, and windows wait for ever."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from streamfuse.errors import SourceError
from streamfuse.kafka.transport import Partition
from streamfuse.types import Record

BETWEEN_LOOKS = 5.0  # seconds
ABSENT = 10.0  # ... for which a topic must be absent: a broker that has just started may not know it yet


class Presence:
    """Belongs to the thread that polls. Times are seconds of a clock that never goes back."""

    def __init__(self, topics: Iterable[str], what: str) -> None:
        self._what = what
        self._heard = dict.fromkeys(topics, float("-inf"))
        self._absent: dict[str, float] = {}
        self._next: dict[Partition, int] = {}

    def begin(self, partitions: Iterable[Partition]) -> None:
        """These are read from another place than before."""
        for partition in partitions:
            self._next.pop(partition, None)

    def hear(self, records: Mapping[Partition, Sequence[Record]], now: float) -> None:
        """What a poll brought. Raises SourceError where offsets begin again."""
        for partition, some in records.items():
            if some:
                first = some[0].offset
                if first < self._next.get(partition, first):
                    raise SourceError(
                        f"{self._what}: expected offset {self._next[partition]} of {partition.name}, or more, found {first}: the topic"
                        " was deleted and created anew, or has lost what it had; start again, to read it from where its group stands"
                    )
                self._next[partition] = some[-1].offset + 1
                self._heard[partition.topic] = now
                self._absent.pop(partition.topic, None)

    def look(self, counts: Callable[[Sequence[str]], Mapping[str, int]], now: float) -> None:
        """Asks for the topics that have been silent for some seconds. Raises SourceError where one has been absent for longer, and what
        `counts` raises."""
        silent = [topic for topic, heard in self._heard.items() if now - heard >= BETWEEN_LOOKS]
        if not silent:
            return
        self._heard.update(dict.fromkeys(silent, now))
        for topic, count in counts(silent).items():
            if count:
                self._absent.pop(topic, None)
            elif now - self._absent.setdefault(topic, now) >= ABSENT:
                raise SourceError(
                    f"{self._what}: expected topic {topic}, which it was reading, found that it is gone: somebody has deleted it, and with"
                    " it what was unread; create it anew (`streamfuse topics create CONFIG`), or take it out of the config"
                )
