"""Publishes predictions to a Kafka topic, as JSON keyed by their key."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from streamfuse.codecs import encode_prediction
from streamfuse.config import KafkaSinkSettings
from streamfuse.kafka.producer import RecordProducer
from streamfuse.kafka.transport import Outgoing
from streamfuse.types import Prediction


class KafkaSink:
    """Durable means acknowledged by all in-sync replicas. The order holds per key, as partitions are chosen by the key.

    Entering waits for the broker and the topic, and publishing waits for a broker that went away; both say so in the log. SinkError is for
    what waiting can't help: a missing right, a record that is too large.
    """

    def __init__(self, settings: KafkaSinkSettings) -> None:
        self.name = f"kafka:{settings.topic}"
        self._topic = settings.topic
        self._producer = RecordProducer(settings, f"sink {self.name}", [settings.topic])

    async def __aenter__(self) -> Self:
        await self._producer.__aenter__()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        await self._producer.__aexit__(kind, error, trace)

    async def publish(self, predictions: Sequence[Prediction]) -> None:
        if predictions:
            await self._producer.delivered(await self._producer.send([Outgoing(self._topic, encode_prediction(p)) for p in predictions]))
