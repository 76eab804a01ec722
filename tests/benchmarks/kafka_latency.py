"""Latency at 500 records a second: from the sending of a record until a reader has it, our source beside the bare client; and through all.

    python -m tests.benchmarks.kafka_latency [--rounds N] [--seconds N] [--sizes KB ...] [--rooms N]

Needs STREAMFUSE_KAFKA_HOME. The records go to three topics by turns, sent by the bare client without lingering, and are read by that
client, and by our source on that client; sender and reader are processes of their own. Through all: rooms whose windows of a second end
together go through a daemon, from the end of a window (event time) until a reader has its prediction.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from statistics import median

import anyio

from streamfuse.clock import SystemClock
from streamfuse.codecs import encode_packet
from streamfuse.config import KafkaSourceSettings
from streamfuse.sources.kafka import KafkaSource
from streamfuse.types import Encoded, Packet, Position
from tests.benchmarks.kafka_quix import config
from tests.benchmarks.kafka_setup import EXIT_NO_SUBJECT, Live, answer, here, in_a_process, one_broker, percentile, transports
from tests.benchmarks.measure import table
from tests.kafka.broker import Broker
from tests.kafka.warm import Warm

RATE = 500
STREAMS = ("video", "audio", "text")
READERS = ("kafka-python", "ours on kafka-python", "confluent", "ours on confluent")
MODULE = "tests.benchmarks.kafka_latency"
WARM_UP = 2.0


def main() -> None:
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 50], metavar="KB")
    parser.add_argument("--rooms", type=int, default=24, help="through all; 24 send 504 records a second")
    parser.add_argument("--asked", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.asked:
        child(**json.loads(options.asked))
        return
    with one_broker() as broker:
        for size in options.sizes:
            records(broker, size, options.rounds, options.seconds)
        for size in options.sizes:
            through_all(broker, size, options.rounds, options.seconds, options.rooms)


def records(broker: Broker, size: int, rounds: int, seconds: int) -> None:
    found: dict[str, list[dict[str, float]]] = {}
    for number in range(rounds):
        for reader in READERS:
            topics = {stream: f"{stream}-{size}-{number}-{READERS.index(reader)}" for stream in STREAMS}
            for topic in topics.values():
                broker.create_topic(topic)
            client = reader.removeprefix("ours on ")
            with in_a_process(MODULE, role="send", client=client, bootstrap=broker.bootstrap, topics=topics, size=size * 1000):
                one = answer(MODULE, role="read", client=reader, bootstrap=broker.bootstrap, topics=topics, seconds=seconds)
            if one is not None:
                found.setdefault(reader, []).append(one)
    rows = []
    for reader in READERS:
        if reader not in found:
            rows.append([reader, "not here", "", "", ""])
            continue
        p50, p99, cpu, share = (median(one[name] for one in found[reader]) for name in ("p50", "p99", "cpu", "received"))
        rows.append([reader, f"{p50 * 1000:.1f} ms", f"{p99 * 1000:.1f} ms", f"{cpu:.0%} of a core", f"{share / RATE:.0%}"])
    table(f"a record of {size} KB, {RATE} a second, until it is read", ["reader", "p50", "p99", "CPU of the reader", "of the rate"], rows)


def through_all(broker: Broker, size: int, rounds: int, seconds: int, rooms: int) -> None:
    rows = []
    for transport in transports():
        found = []
        for number in range(rounds):
            with (
                tempfile.TemporaryDirectory(prefix="bench-") as folder,
                Live(broker, f"all-{size}-{number}-{transport}", rooms, seconds, picture=size * 1000) as live,
                Warm(Path(folder) / "daemon", config(broker, live, transport)) as daemon,
            ):
                found.append(live.measure(daemon.process.pid))
        p50, p99, cpu = (median(getattr(one, name) for one in found) for name in ("p50", "p99", "cpu_share"))
        rows.append([transport, str(sum(one.windows for one in found)), f"{p50 * 1000:.0f} ms", f"{p99 * 1000:.0f} ms", f"{cpu:.0%}"])
    title = f"{rooms} rooms, {rooms * Live.RATE} records a second, pictures of {size} KB: from the end of a window until its prediction"
    table(title, ["client", "windows", "p50", "p99", "of a core"], rows)


# --- in processes of their own ---


def child(role: str, client: str, bootstrap: str, topics: dict[str, str], size: int = 0, seconds: float = 0.0) -> None:
    if not here(client):
        sys.exit(EXIT_NO_SUBJECT)
    if role == "send":
        send(client, bootstrap, topics, size)
    elif client.startswith("ours"):
        print(json.dumps(anyio.run(read_ours, client.removeprefix("ours on "), bootstrap, topics, Latencies(seconds))))
    else:
        print(json.dumps(read_bare(values_of(client, bootstrap, topics.values()), Latencies(seconds))))


def send(client: str, bootstrap: str, topics: dict[str, str], size: int) -> None:
    """Until it is killed."""
    deliver = sender(client, bootstrap)
    began, number = time.time_ns(), 0
    while True:
        due = began + number * 1_000_000_000 // RATE
        time.sleep(max(0, due - time.time_ns()) / 1e9)
        stream = STREAMS[number % len(STREAMS)]
        now = time.time_ns()
        data = now.to_bytes(8, "big") + bytes(size - 8)
        packet = Packet(stream, f"room-{number % 12}", now, 0, Encoded(data, "image/jpeg"), Position("", -1), now, f"bench#{number}")
        deliver(topics[stream], *encode_packet(packet)[:3])
        number += 1


def sender(client: str, bootstrap: str) -> Callable[[str, bytes | None, bytes | None, object], object]:
    if client == "confluent":
        import confluent_kafka

        producer = confluent_kafka.Producer({"bootstrap.servers": bootstrap, "linger.ms": 0})

        def deliver(topic: str, key: bytes | None, value: bytes | None, headers: object) -> None:
            producer.produce(topic, value, key, headers=list(headers))  # type: ignore[call-overload]
            producer.poll(0)

        return deliver
    from kafka import KafkaProducer

    plain = KafkaProducer(bootstrap_servers=bootstrap, linger_ms=0, metrics_enabled=False)
    return lambda topic, key, value, headers: plain.send(topic, value, key, list(headers))  # type: ignore[call-overload]


class Latencies:
    """Of what comes in `seconds`, a warm-up left out."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._from = self._until = self._cpu = 0.0
        self._all: list[float] = []

    def saw(self, value: bytes) -> bool:
        """Whether there is more to measure."""
        now = time.monotonic()
        if not self._until:
            self._from, self._until = now + WARM_UP, now + WARM_UP + self._seconds
        if now >= self._from:
            if not self._all:
                self._cpu = time.process_time()
            self._all.append((time.time_ns() - int.from_bytes(value[:8], "big")) / 1e9)
        return now < self._until

    def result(self) -> dict[str, float]:
        cpu = (time.process_time() - self._cpu) / self._seconds
        received = len(self._all) / self._seconds
        return {"p50": percentile(self._all, 0.5), "p99": percentile(self._all, 0.99), "cpu": cpu, "received": received}


async def read_ours(transport: str, bootstrap: str, topics: dict[str, str], latencies: Latencies) -> dict[str, float]:
    settings = {"type": "kafka", "bootstrap": bootstrap, "topics": topics, "group": str(uuid.uuid4()), "start": "latest"}
    async with KafkaSource(KafkaSourceSettings.model_validate({**settings, "transport": transport}), SystemClock()) as source:
        async for items in source.batches():
            for item in items:
                if isinstance(item, Packet) and isinstance(item.payload, Encoded) and not latencies.saw(item.payload.data):
                    return latencies.result()
    raise AssertionError("the source ended")


def read_bare(values: Iterable[bytes], latencies: Latencies) -> dict[str, float]:
    for value in values:
        if not latencies.saw(value):
            break
    return latencies.result()


def values_of(client: str, bootstrap: str, topics: Iterable[str]) -> Iterator[bytes]:
    if client == "confluent":
        import confluent_kafka

        consumer = confluent_kafka.Consumer(
            {"bootstrap.servers": bootstrap, "group.id": str(uuid.uuid4()), "auto.offset.reset": "latest", "enable.auto.commit": False}
        )
        consumer.assign([confluent_kafka.TopicPartition(topic, 0) for topic in topics])
        while True:
            message = consumer.poll(1.0)
            if message is not None:
                yield message.value() or b""
    from kafka import KafkaConsumer, TopicPartition

    plain = KafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="latest", metrics_enabled=False)
    plain.assign([TopicPartition(topic, 0) for topic in topics])
    while True:
        for records in plain.poll(1000).values():
            for record in records:
                yield record.value


if __name__ == "__main__":
    main()
