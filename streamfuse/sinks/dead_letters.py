"""Keeps the records that were of no use, and stops the daemon where there are too many of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Protocol, Self

from streamfuse.config import DeadLetterLimit, JsonlDeadLetterSettings
from streamfuse.dead_letters import DeadLetter, letter_of, letter_to_json
from streamfuse.errors import TooManyDeadLetters
from streamfuse.interfaces import Clock
from streamfuse.metrics import Metrics
from streamfuse.share import Share, ShareLimit
from streamfuse.sinks.jsonl import LineFile
from streamfuse.types import SECOND, Loss


class LetterWriter(Protocol):
    """Where dead letters go. Used as `async with writer:`; may be written to by several tasks at a time."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None: ...

    async def write(self, letters: Sequence[DeadLetter]) -> None:
        """Returns when all of them are durable; waits where waiting helps. Raises SinkError where it won't."""
        ...


class DeadLetters:
    """The dead letters of a daemon. Without a `writer` they are only counted, for the limit. Used as `async with`.

    `received` tells how many records came from topics so far. To switch the limit off, set `dead_letters.max_share` to 1.
    """

    def __init__(
        self, settings: DeadLetterLimit, writer: LetterWriter | None, received: Callable[[], int], clock: Clock, metrics: Metrics
    ) -> None:
        self._limit = ShareLimit(settings.max_share, settings.over, settings.min_records)
        self._writer = writer
        self._received = received
        self._clock = clock
        self._metrics = metrics
        self._refused = 0

    async def __aenter__(self) -> Self:
        if self._writer is not None:
            await self._writer.__aenter__()
        self.look()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        if self._writer is not None:
            await self._writer.__aexit__(kind, error, trace)

    def look(self) -> Share | None:
        """Note how many records came so far. To be called every second or so, also while none is of no use: shares need both numbers."""
        return self._limit.note(self._clock.monotonic(), self._received(), self._refused)

    async def take(self, losses: Sequence[Loss]) -> None:
        """Returns when those that are dead letters are durable; passes over the others.

        Raises TooManyDeadLetters before it writes those that are too many: they are not committed either, and come again.
        """
        letters = [letter for loss in losses if (letter := letter_of(loss, self._clock.now())) is not None]
        if not letters:
            return
        self._refused += len(letters)
        share = self.look()
        if share is not None:
            raise self._too_many(share, letters[-1])
        if self._writer is not None:
            await self._writer.write(letters)
            for letter in letters:
                self._metrics.dead_letter(letter.stream, letter.stage, letter.reason)

    def _too_many(self, share: Share, last: DeadLetter) -> TooManyDeadLetters:
        limit = self._limit
        return TooManyDeadLetters(
            f"expected at most {limit.most:.3g} of the records to be of no use over {limit.over / SECOND:g} s, found"
            f" {share.refused} of {share.received}, the last one {last.reason}: {last.error}. What is not committed is read again: mend the"
            " producer or the config first, or raise dead_letters.max_share (1 switches the limit off)"
        )


class JsonlLetters:
    """Writes dead letters to a file, one JSON object a line by `letter_to_json`, for installations without Kafka."""

    def __init__(self, settings: JsonlDeadLetterSettings) -> None:
        self._lines = LineFile(settings.path)

    async def __aenter__(self) -> Self:
        await self._lines.open()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        await self._lines.close()

    async def write(self, letters: Sequence[DeadLetter]) -> None:
        await self._lines.write([letter_to_json(letter) for letter in letters])
