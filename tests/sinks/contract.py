"""What every sink promises. A test module subclasses `SinkContract` and gives it a `place`."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import pytest

from streamfuse.interfaces import Sink
from streamfuse.types import SECOND, Prediction

NOON = 1_777_636_800 * SECOND


def prediction(number: int = 0, key: str = "room-1") -> Prediction:
    return Prediction(
        key=key,
        start=NOON + number * SECOND,
        end=NOON + (number + 1) * SECOND,
        revision=0,
        label="silence",
        scores={"silence": 0.75, "other sound": 0.25},
        absent={"text": "idle"},
        contributions={"video": 0.5, "audio": -0.25},
        packets={"video": 15, "audio": 25},
        model="who-is-talking",
        digest="sha256:00",
        produced_at=NOON + (number + 2) * SECOND,
    )


class Place(Protocol):
    """Where a sink writes to."""

    def sink(self) -> Sink:
        """A new sink that writes there."""
        ...

    async def predictions(self) -> list[Prediction]:
        """What stands there now, read without the sink."""
        ...


@pytest.mark.anyio
class SinkContract:
    @pytest.fixture
    def place(self) -> Place:
        raise NotImplementedError

    async def test_predictions_are_durable_when_publish_returns(self, place: Place) -> None:
        async with place.sink() as sink:
            await sink.publish([prediction(0)])
            assert await place.predictions() == [prediction(0)]

    async def test_order_is_kept_within_and_between_calls(self, place: Place) -> None:
        async with place.sink() as sink:
            await sink.publish([prediction(n) for n in range(20)])
            await sink.publish([prediction(n) for n in range(20, 30)])
        assert await place.predictions() == [prediction(n) for n in range(30)]

    async def test_publishing_nothing_writes_nothing(self, place: Place) -> None:
        async with place.sink() as sink:
            await sink.publish([])
            await sink.publish([prediction(0)])
            await sink.publish([])
        assert await place.predictions() == [prediction(0)]

    async def test_the_same_prediction_may_come_twice(self, place: Place) -> None:
        async with place.sink() as sink:
            await sink.publish([prediction(0), prediction(0)])
        assert await place.predictions() == [prediction(0), prediction(0)]

    async def test_a_sink_that_opens_again_appends(self, place: Place) -> None:
        for number in range(2):
            async with place.sink() as sink:
                await sink.publish([prediction(number)])
        assert await place.predictions() == [prediction(0), prediction(1)]

    async def test_every_field_survives(self, place: Place) -> None:
        full = replace(prediction(0, key="Küche 日本\n"), revision=3, texts={"text": "grüß\tGott\u2028"}, truth="silence")
        async with place.sink() as sink:
            await sink.publish([full])
        assert await place.predictions() == [full]

    async def test_a_sink_says_its_name(self, place: Place) -> None:
        assert place.sink().name
