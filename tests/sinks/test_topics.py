"""The sink to in-process topics fulfils the contract and tells when nothing can take its predictions."""

from __future__ import annotations

import pytest

from streamfuse.config import TopicsSinkSettings
from streamfuse.documents import prediction_from_json
from streamfuse.errors import SinkError
from streamfuse.sinks.topics import TopicsSink
from streamfuse.topics import Topics
from streamfuse.types import Prediction
from tests.sinks.contract import SinkContract, prediction


class InProcessTopic:
    def __init__(self) -> None:
        self.topics = Topics()

    def sink(self) -> TopicsSink:
        return TopicsSink(TopicsSinkSettings(type="topics", topic="said"), self.topics)

    async def predictions(self) -> list[Prediction]:
        with self.topics.subscribe("said") as subscription:
            return [prediction_from_json(record.value or b"") for record in await anext(subscription)]


class TestTopicsSink(SinkContract):
    @pytest.fixture
    def place(self) -> InProcessTopic:
        return InProcessTopic()


@pytest.mark.anyio
async def test_a_closed_topic_is_a_sink_error() -> None:
    place = InProcessTopic()
    async with place.sink() as sink:
        place.topics.close()
        with pytest.raises(SinkError, match="expected topic said to be open"):
            await sink.publish([prediction()])
