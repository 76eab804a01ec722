"""Rooms whose records are known beforehand, what a daemon must predict for them, and what stands in its topic of predictions."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self

import cv2
import numpy as np
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import MemberToRemove

from streamfuse.assembly import make_synchronizer
from streamfuse.codecs import encode_packet, prediction_from_json
from streamfuse.config import Config
from streamfuse.types import MILLISECOND, SECOND, Encoded, Packet, Payload, Position, Prediction, Window, WindowId
from tests.kafka.traffic import PATIENCE
from tests.running import Running

NOON = 1_777_636_800 * SECOND
STREAMS = ("video", "audio", "text")
PARTITIONS = 2
DELIVERIES = ["at_least_once", "exactly_once"]
WAYS = [("at_least_once", "kafka-python"), ("exactly_once", "confluent")]
"""So that each delivery and each client meets each fault."""
EVERY = {"video": 200 * MILLISECOND, "audio": 200 * MILLISECOND, "text": SECOND}
_PICTURES = [
    bytes(cv2.imencode(".jpg", np.random.default_rng(n).integers(0, 255, (24, 32, 3), dtype=np.uint8))[1].tobytes()) for n in range(8)
]
_NOISE = np.random.default_rng(4).integers(-3000, 3000, 3200, dtype=np.int16).tobytes()


class Brokers(Protocol):
    """One broker, or several of a cluster."""

    @property
    def bootstrap(self) -> str: ...

    def create_topic(
        self, name: str, partitions: int = 1, configs: Mapping[str, str] | None = None, on: Sequence[int] | None = None
    ) -> None: ...

    def admin(self) -> AbstractContextManager[Any]: ...


@dataclass(frozen=True)
class Place:
    """Topics and group of one test. All streams are required, without hold or idleness, so that the windows depend on the packets alone.

    `bootstrap` is where its daemons find the brokers, where that is not where the test does. `delivery` and `transport` are as in the
    config, and left out of it where they are the defaults.
    """

    broker: Brokers
    name: str
    sync: Mapping[str, Any] = field(default_factory=dict)
    bootstrap: str = ""
    delivery: str = "at_least_once"
    transport: str = "kafka-python"

    @classmethod
    def make(
        cls,
        broker: Brokers,
        name: str,
        *,
        bootstrap: str = "",
        delivery: str = "at_least_once",
        transport: str = "kafka-python",
        partitions: int = PARTITIONS,
        predictions_on: Sequence[int] | None = None,
        **sync: object,
    ) -> Self:
        """`predictions_on` are the brokers that have the topic of predictions, where not all have it."""
        for stream in STREAMS:
            broker.create_topic(f"{name}.{stream}", partitions, {"retention.ms": "-1"})  # the records are of a day long ago
        broker.create_topic(f"{name}.predictions", 1, {"message.timestamp.type": "LogAppendTime"}, predictions_on)
        return cls(broker, name, sync, bootstrap, delivery, transport)

    @property
    def topics(self) -> dict[str, str]:
        return {stream: f"{self.name}.{stream}" for stream in STREAMS}

    def config(self) -> dict[str, Any]:
        """Of a daemon that reads and predicts here."""
        kafka = {"type": "kafka", "bootstrap": self.bootstrap or self.broker.bootstrap}
        if self.transport != "kafka-python":
            kafka["transport"] = self.transport
        delivery = {} if self.delivery == "at_least_once" else {"delivery": self.delivery}
        required = {"max_out_of_orderness": "300ms", "idle_timeout": None}
        return {
            "sources": [{**kafka, "topics": self.topics, "group": self.name, "start": "earliest"}],
            "sync": {
                "windows": {"type": "sliding", "size": "1s", "hop": "500ms"},
                "streams": dict.fromkeys(STREAMS, required),
                "max_hold": None,
                **self.sync,
            },
            "models": {"device": "cpu", "max_batch": 8},
            "sinks": [{**kafka, "topic": f"{self.name}.predictions"}],
            "pipeline": {"commit_interval": "100ms", **delivery},
        }

    def publish(self, packets: Sequence[Packet]) -> Sequence[Packet]:
        """Returns them when all are acknowledged."""
        producer = KafkaProducer(bootstrap_servers=self.broker.bootstrap, acks="all", linger_ms=20, metrics_enabled=False)
        try:
            for packet in packets:
                key, value, headers, timestamp = encode_packet(packet)
                producer.send(self.topics[packet.stream], value, key, list(headers), timestamp_ms=timestamp // MILLISECOND)
            producer.flush(PATIENCE)
        finally:
            producer.close()
        return packets

    def windows(self, packets: Iterable[Packet]) -> list[Window]:
        """What the synchronizer alone makes of them, in this process and in one go."""
        synchronizer = make_synchronizer(Config.model_validate(self.config()).sync)
        windows = [window for packet in packets for window in synchronizer.push(packet)]
        assert not any(synchronizer.unaccounted().values())
        return windows

    def forget_the_dead(self) -> None:
        """Put all members out of the group, as the broker would do to dead ones after 10 s of silence."""
        with self.broker.admin() as admin:
            members = [MemberToRemove(member_id=member["member_id"]) for member in self._members(admin)]
            admin.remove_group_members(self.name, members)

    def shares(self) -> list[int]:
        """With how many partitions each member of the group goes; empty while it rebalances."""
        with self.broker.admin() as admin:
            group = admin.describe_groups([self.name])[self.name]  # once: between two looks it may start to rebalance
        if group["group_state"] != "Stable":
            return []
        return sorted(sum(len(topic["partitions"]) for topic in m["member_assignment"]["assigned_partitions"]) for m in group["members"])

    def _members(self, admin: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = admin.describe_groups([self.name])[self.name]["members"]
        return found


class Published:
    """Reads the topic of predictions as it grows, from its beginning."""

    def __init__(self, place: Place) -> None:
        self.all: list[Prediction] = []
        self._consumer: KafkaConsumer = KafkaConsumer(
            bootstrap_servers=place.broker.bootstrap,
            isolation_level="read_committed" if place.delivery == "exactly_once" else "read_uncommitted",
            auto_offset_reset="earliest",
            fetch_max_wait_ms=20,
            metrics_enabled=False,
        )
        self._partition = TopicPartition(f"{place.name}.predictions", 0)
        self._consumer.assign([self._partition])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        self._consumer.close()

    def until_more(self, count: int, *daemons: Running) -> None:
        """Read on until so many more are there; the daemons must be running all the while."""
        enough = len(self.all) + count
        self._until(lambda: len(self.all) >= enough, daemons)

    def until_there(self, ids: Iterable[WindowId], *daemons: Running) -> None:
        """Read on until all of these are there; the daemons must be running all the while."""
        wanted = set(ids)
        self._until(lambda: wanted <= {prediction.id for prediction in self.all}, daemons)

    def to_the_end(self) -> None:
        """Read all that stands there now."""
        end = self._consumer.end_offsets([self._partition])[self._partition]
        while self._consumer.position(self._partition) < end:
            self.more(1)

    def more(self, seconds: float) -> int:
        """Read what comes, for up to so long; returns how many came."""
        before = len(self.all)
        self._poll(round(seconds * 1000))
        return len(self.all) - before

    def _until(self, enough: Callable[[], bool], daemons: Sequence[Running]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not enough():
            self._poll(50)
            said = "\n".join(daemon.said for daemon in daemons)
            assert all(daemon.process.poll() is None for daemon in daemons), said
            assert time.monotonic() < deadline, f"{len(self.all)} predictions in {PATIENCE} s:\n{said}"

    def _poll(self, milliseconds: int) -> None:
        for records in self._consumer.poll(milliseconds).values():
            self.all += [prediction_from_json(record.value) for record in records]


def records(
    seed: int, rooms: Sequence[str], begin: int, seconds: int, *, late: float = 0.0, twice: float = 0.0, pauses: bool = False
) -> list[Packet]:
    """The packets of some seconds of these rooms, in an order in which they could arrive: up to 250 ms out of order.

    `late` is the share of pictures and sounds that comes a second later still, `twice` the share that comes twice. The first room has no
    picture in every seventh second. Text is never late: whether a window without any says `gap` or `late` depends on what came first.
    With `pauses` each room is silent in every third second, so that sessions end.
    """
    dice = random.Random(seed)
    arriving: list[tuple[int, Packet]] = []
    for number, room in enumerate(rooms):
        for stream, step in EVERY.items():
            for at in range(begin * SECOND, (begin + seconds) * SECOND, step):
                if stream == "video" and room == rooms[0] and at // SECOND % 7 == 3:
                    continue
                if pauses and (at // SECOND + number) % 3 == 2:
                    continue
                packet = _packet(stream, room, NOON + at, step)
                delay = dice.randrange(250 * MILLISECOND) + (SECOND if stream != "text" and dice.random() < late else 0)
                arriving.append((at + delay, packet))
                if dice.random() < twice:
                    arriving.append((at + delay + dice.randrange(SECOND), packet))
    return [packet for _, packet in sorted(arriving, key=lambda one: one[0])]


def _packet(stream: str, room: str, at: int, step: int) -> Packet:
    loud = (at // SECOND + len(room)) % 4 < 2  # so that predictions differ
    payload: Payload = f"word {at // SECOND}"
    if stream == "video":
        payload = Encoded(_PICTURES[at // step % len(_PICTURES)], "image/jpeg")
    elif stream == "audio":
        payload = Encoded(_NOISE if loud else bytes(len(_NOISE)), "audio/pcm", 16_000, 1)
    duration = 0 if stream == "video" else step
    return Packet(stream, room, at, duration, payload, Position("", -1), at + 50 * MILLISECOND, f"{room}/{stream}#{at}")


def contents(one: Window | Prediction) -> tuple[dict[str, int], dict[str, str]]:
    """How many packets of each stream it holds, and why it holds none of the others."""
    if isinstance(one, Prediction):
        return dict(one.packets), dict(one.absent)
    return {stream: len(packets) for stream, packets in one.packets.items()}, {stream: str(why) for stream, why in one.absent.items()}


def repeats(predictions: Iterable[Prediction]) -> list[list[Prediction]]:
    """The predictions of each window that was published more than once."""
    by_id: dict[WindowId, list[Prediction]] = defaultdict(list)
    for prediction in predictions:
        by_id[prediction.id].append(prediction)
    return [same for same in by_id.values() if len(same) > 1]
