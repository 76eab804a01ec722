"""Watermarks of more keys than Kafka's commit metadata holds, on a real broker."""

from __future__ import annotations

import pytest

from streamfuse.clock import SystemClock
from streamfuse.config import KafkaConnection
from streamfuse.kafka.clients import make_admin, make_transactional_producer
from streamfuse.kafka.exactly_once import ExactlyOnce
from streamfuse.metrics import Metrics
from streamfuse.subscription import subscribe
from streamfuse.testing import predict
from streamfuse.types import SECOND, Cursor, Emitted, Offsets, Window
from tests.kafka.broker import Broker
from tests.kafka.traffic import Reading, produce, source_of

pytestmark = [pytest.mark.kafka, pytest.mark.anyio]

KEYS = 1500


def marks(of: int) -> dict[str, int | None]:
    return {f"room-{n * 7919:x}": 1_777_636_800 * SECOND + n * 123_456_789 + of for n in range(KEYS)}


async def test_the_watermarks_of_many_keys_come_back_from_their_topic(broker: Broker, unique: str) -> None:
    broker.create_topic(unique)
    produce(broker, unique, ["one", "two"])
    for life in range(3):
        async with source_of(broker, {"text": unique}, unique) as source:
            reading = Reading(source)
            await reading.packets(1)
            if life:
                (resumed,) = reading.resumed
                assert resumed.watermarks == marks(life - 1)
            await source.commit(Cursor({f"{unique}/0": Offsets(1, 1)}, marks(life)))
            await source.commit(Cursor({f"{unique}/0": Offsets(1, 1)}, marks(life)))
    admin = make_admin(KafkaConnection(bootstrap=broker.bootstrap))
    try:
        described = admin.describe([f"{unique}-watermarks"])[f"{unique}-watermarks"]
    finally:
        admin.close()
    assert described.config("cleanup.policy", "") == "compact"


async def test_with_exactly_once_they_are_written_in_the_transaction(broker: Broker, unique: str) -> None:
    broker.create_topic(unique)
    broker.create_topic(f"{unique}-predictions")
    produce(broker, unique, ["one", "two"])
    settings = KafkaConnection(bootstrap=broker.bootstrap)
    for life in range(3):
        async with (
            source_of(broker, {"text": unique}, unique) as source,
            ExactlyOnce(
                source,
                [f"{unique}-predictions"],
                lambda: make_transactional_producer(settings, unique, 10 * SECOND),
                SystemClock(),
                Metrics(),
            ) as delivery,
        ):
            reading = Reading(source)
            (packet, *_) = await reading.packets(1)
            if life:
                (resumed,) = reading.resumed
                assert resumed.watermarks == marks(life - 1)
            cursor = Cursor({f"{unique}/0": Offsets(1, 1)}, marks(life))
            window = Window(packet.key, life, life + 1, {"text": (packet,)}, cursor=cursor)
            await delivery.publish([Emitted(window, (len(reading.revoked),))], [predict(window)])
            await delivery.commit()
    async with subscribe(settings, topic=f"{unique}-predictions", start="earliest") as predictions:
        assert [(await anext(predictions)).start for _ in range(3)] == [0, 1, 2]
