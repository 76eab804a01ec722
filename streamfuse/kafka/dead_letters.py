"""Writes dead letters to a Kafka topic."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

import anyio

from streamfuse.config import KafkaDeadLetterSettings
from streamfuse.dead_letters import DeadLetter, letter_to_record, without_value
from streamfuse.errors import SinkError
from streamfuse.kafka.producer import RecordProducer
from streamfuse.kafka.transport import Outgoing, TooLarge

MAX_LETTER_BYTES = 256 * 1024 * 1024  # whatever a topic has held; the broker's max.message.bytes is the bound that counts

log = logging.getLogger(__name__)


class KafkaLetters:
    """Keyed like their records, so that the letters of a key stay in order. A broker or topic that is away is waited for.

    A letter that is greater than the topic's max.message.bytes goes without its value, which still stands where the letter says, for as
    long as that topic keeps it. SinkError is for what waiting can't help, such as a missing right.
    """

    def __init__(self, settings: KafkaDeadLetterSettings) -> None:
        self._settings = settings
        self._what = f"dead letters kafka:{settings.topic}"
        self._producer: RecordProducer | None = None
        self._stack = AsyncExitStack()
        self._lock = anyio.Lock()
        self._told = False

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        await self._stack.aclose()

    async def write(self, letters: Sequence[DeadLetter]) -> None:
        async with self._lock:
            failed = await self._send(letters)
            if len(letters) > 1:  # one that is too large takes those beside it along
                failed = [one for letter in failed for one in await self._send([letter])]
            for letter in failed:
                await self._send_without_value(letter)

    async def _send(self, letters: Sequence[DeadLetter]) -> list[DeadLetter]:
        """Returns when all are durable but those that it gives back, one of which at least is too large."""
        assert self._producer is not None, "the dead letters were not entered"
        futures = await self._producer.send([Outgoing(self._settings.topic, letter_to_record(letter)) for letter in letters])
        failed: list[DeadLetter] = []
        for letter, future in zip(letters, futures, strict=True):
            try:
                await self._producer.delivered([future])
            except SinkError as error:
                if not isinstance(error.__cause__, TooLarge) and not failed:
                    raise
                failed.append(letter)
        if failed:
            await self._open()  # kafka-python's producer takes nothing more after one that was too large
        return failed

    async def _send_without_value(self, letter: DeadLetter) -> None:
        if not self._told:
            self._told = True
            log.warning(
                "%s: expected room for a letter of %d bytes, found none, so that it goes without its value, and further ones too;"
                " raise max.message.bytes of the topic",
                self._what,
                letter.record.size,
            )
        if await self._send([without_value(letter)]):
            raise SinkError(
                f"{self._what}: expected room for a letter without its value, found none for its key and headers; raise max.message.bytes"
                " of the topic"
            )

    async def _open(self) -> None:
        await self._stack.aclose()
        self._producer = RecordProducer(self._settings, self._what, [self._settings.topic], MAX_LETTER_BYTES)
        await self._stack.enter_async_context(self._producer)
