"""Ingest: how fast our Kafka source reads, and at what cost, beside the bare client that it reads with.

    python -m tests.benchmarks.kafka_ingest [--rounds N] [--megabytes N] [--sizes KB ...] [--partitions N]

Needs STREAMFUSE_KAFKA_HOME. Three topics hold records as our own publisher makes them, video, audio and text by turns, of the same size;
every reader reads all of them, each in a process of its own, by turns, and is timed from its first batch to its last record. What ours does
beside: it turns records into packets, and puts them in the order of event time. Medians over the rounds.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import Any

import anyio

from streamfuse.clock import SystemClock
from streamfuse.codecs import encode_packet
from streamfuse.config import KafkaSourceSettings
from streamfuse.sources.kafka import KafkaSource
from streamfuse.types import MILLISECOND, SECOND, Encoded, Packet, Payload, Position
from tests.benchmarks.kafka_setup import EXIT_NO_SUBJECT, answer, here, one_broker, produce_all
from tests.benchmarks.measure import table

NOON = 1_777_636_800 * SECOND
EVERY = 10 * MILLISECOND
STREAMS = ("video", "audio", "text")
KEYS = 12
READERS = ("kafka-python", "ours on kafka-python", "confluent", "ours on confluent")

Batch = tuple[int, int]  # records, and the bytes of their values


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.kafka_ingest", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--megabytes", type=int, default=600, help="read in each measurement; no more than 200,000 records")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 10, 50], metavar="KB")
    parser.add_argument("--partitions", type=int, default=1, help="of each topic")
    parser.add_argument("--asked", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.asked:
        print(json.dumps(read(**json.loads(options.asked))))
        return
    with one_broker() as broker:
        for size in options.sizes:
            count = min(200_000, options.megabytes * 1000 // size) // len(STREAMS) * len(STREAMS)
            topics = {stream: f"{stream}-{size}" for stream in STREAMS}
            for topic in topics.values():
                broker.create_topic(topic, options.partitions, {"retention.ms": "-1"})
            produce_all(broker.bootstrap, ((topics[p.stream], encode_packet(p)) for p in packets(size * 1000, count)))
            found: dict[str, list[dict[str, float]]] = {}
            for _ in range(options.rounds):
                for reader in READERS:
                    asked = {"bootstrap": broker.bootstrap, "topics": topics, "partitions": options.partitions, "count": count}
                    if (one := answer("tests.benchmarks.kafka_ingest", reader=reader, **asked)) is not None:
                        found.setdefault(reader, []).append(one)
            report(size, count, found)


def packets(size: int, count: int) -> Iterator[Packet]:
    payloads: dict[str, Payload] = {
        "video": Encoded(b"\xff\xd8\xff" + bytes(size - 3), "image/jpeg"),
        "audio": Encoded(bytes(size), "audio/pcm", 16_000, 1),
        "text": "w" * size,
    }
    for number in range(count // len(STREAMS)):
        at = NOON + number * EVERY
        for stream in STREAMS:
            key = f"room-{number % KEYS}"
            yield Packet(stream, key, at, EVERY, payloads[stream], Position("", -1), at, f"bench#{number}")


def report(size: int, count: int, found: dict[str, list[dict[str, float]]]) -> None:
    rows = []
    for reader in READERS:
        if reader not in found:
            rows.append([reader, "not here", "", "", ""])
            continue
        speed, cpu = (median(one[name] for one in found[reader]) for name in ("megabytes_a_second", "cpu_us"))
        bare = reader.removeprefix("ours on ")
        ratios = ["", ""]
        if bare != reader and bare in found:
            base_speed, base_cpu = (median(one[name] for one in found[bare]) for name in ("megabytes_a_second", "cpu_us"))
            ratios = [f"{speed / base_speed:.0%}", f"{cpu / base_cpu:.2f}"]
        rows.append([reader, f"{speed:.0f}", ratios[0], f"{cpu:.0f}", ratios[1]])
    header = ["reader", "MB/s", "of the bare client", "CPU us a record", "times the bare client"]
    table(f"{count:,} records of {size} KB", header, rows)


# --- in a process of its own ---


def read(reader: str, bootstrap: str, topics: dict[str, str], partitions: int, count: int) -> dict[str, float]:
    if not here(reader):
        sys.exit(EXIT_NO_SUBJECT)
    clock = Stopwatch(count)
    if reader.startswith("ours"):
        transport = reader.removeprefix("ours on ")
        anyio.run(read_ours, transport, bootstrap, topics, clock)
    elif reader == "confluent":
        read_confluent(bootstrap, sorted(topics.values()), partitions, clock)
    else:
        read_kafka_python(bootstrap, sorted(topics.values()), partitions, clock)
    return clock.result()


class Stopwatch:
    """Runs from the first batch on, until `count` records were read; the first batch is not counted, for it was fetched before."""

    def __init__(self, count: int) -> None:
        self._left = count
        self._records = self._bytes = 0
        self._began = self._cpu = self._seconds = self._cpu_seconds = 0.0

    def saw(self, records: int, size: int) -> bool:
        """Whether there is more to come."""
        self._left -= records
        if not self._began:
            self._began, self._cpu = time.perf_counter(), time.process_time()
        else:
            self._records += records
            self._bytes += size
        if self._left <= 0:
            self._seconds, self._cpu_seconds = time.perf_counter() - self._began, time.process_time() - self._cpu
        return self._left > 0

    def result(self) -> dict[str, float]:
        return {"megabytes_a_second": self._bytes / self._seconds / 1e6, "cpu_us": self._cpu_seconds / self._records * 1e6}


async def read_ours(transport: str, bootstrap: str, topics: dict[str, str], clock: Stopwatch) -> None:
    settings = {"type": "kafka", "bootstrap": bootstrap, "topics": topics, "group": str(uuid.uuid4()), "start": "earliest"}
    async with KafkaSource(KafkaSourceSettings.model_validate({**settings, "transport": transport}), SystemClock()) as source:
        async for items in source.batches():
            read = [size_of(item.payload) for item in items if isinstance(item, Packet)]
            if read and not clock.saw(len(read), sum(read)):
                return


def size_of(payload: Payload) -> int:
    match payload:
        case Encoded():
            return len(payload.data)
        case str():
            return len(payload)
    raise TypeError(f"expected a payload as it came, found {type(payload).__name__}")


def read_kafka_python(bootstrap: str, topics: Sequence[str], partitions: int, clock: Stopwatch) -> None:
    from kafka import KafkaConsumer, TopicPartition

    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=4 * 1024 * 1024,
        metrics_enabled=False,
    )
    consumer.assign([TopicPartition(topic, number) for topic in topics for number in range(partitions)])

    def poll() -> Batch:
        records = [record for batch in consumer.poll(1000).values() for record in batch]
        return len(records), sum(len(record.value) for record in records)

    drain(poll, clock)
    consumer.close()


def read_confluent(bootstrap: str, topics: Sequence[str], partitions: int, clock: Stopwatch) -> None:
    import confluent_kafka

    settings: dict[str, Any] = {
        "bootstrap.servers": bootstrap,
        "group.id": str(uuid.uuid4()),
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
    }
    consumer = confluent_kafka.Consumer(settings)
    consumer.assign([confluent_kafka.TopicPartition(topic, number) for topic in topics for number in range(partitions)])

    def poll() -> Batch:
        first = consumer.poll(1.0)
        messages = [] if first is None else [first, *consumer.consume(500, 0)]
        for message in messages:
            # As every application does: headers, key and time are made when they are asked for.
            message.headers(), message.key(), message.timestamp()
        return len(messages), sum(len(message.value() or b"") for message in messages)

    drain(poll, clock)
    consumer.close()


def drain(poll: Callable[[], Batch], clock: Stopwatch) -> None:
    while True:
        records, size = poll()
        if records and not clock.saw(records, size):
            return


if __name__ == "__main__":
    main()
