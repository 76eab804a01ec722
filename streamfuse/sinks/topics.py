"""Publishes predictions to an in-process topic."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

import anyio

from streamfuse.codecs import encode_prediction
from streamfuse.config import TopicsSinkSettings
from streamfuse.errors import SinkError
from streamfuse.topics import Topics
from streamfuse.types import Prediction


class TopicsSink:
    """Durable means here: in the topic, from which nothing goes that a reader has not read. Waits for slow readers."""

    def __init__(self, settings: TopicsSinkSettings, topics: Topics) -> None:
        self.name = f"topics:{settings.topic}"
        self._topic = settings.topic
        self._topics = topics

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        return None

    async def publish(self, predictions: Sequence[Prediction]) -> None:
        for prediction in predictions:
            try:
                await self._topics.publish(self._topic, *encode_prediction(prediction))
            except anyio.ClosedResourceError:
                raise SinkError(
                    f"expected topic {self._topic} to be open, found it closed; close topics after the last prediction"
                ) from None
