"""Writes dead letters to a Kafka topic."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from types import TracebackType
from typing import Self

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
        self._topic = settings.topic
        self._what = f"dead letters kafka:{settings.topic}"
        self._producer = RecordProducer(settings, self._what, [settings.topic], MAX_LETTER_BYTES)
        self._told = False

    async def __aenter__(self) -> Self:
        await self._producer.__aenter__()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        await self._producer.__aexit__(kind, error, trace)

    async def write(self, letters: Sequence[DeadLetter]) -> None:
        futures = await self._producer.send([Outgoing(self._topic, letter_to_record(letter)) for letter in letters])
        refused = []
        for letter, future in zip(letters, futures, strict=True):
            try:
                await self._producer.delivered([future])
            except SinkError as error:
                if not isinstance(error.__cause__, TooLarge) or letter.omitted is not None:
                    raise
                self._tell(letter, error)
                refused.append(without_value(letter))
        if refused:
            await self.write(refused)

    def _tell(self, letter: DeadLetter, error: SinkError) -> None:
        if not self._told:
            self._told = True
            log.warning(
                "%s: expected room for a letter of %d bytes, found none, so that it goes without its value (further ones too): %s",
                self._what,
                letter.record.size,
                error,
            )
