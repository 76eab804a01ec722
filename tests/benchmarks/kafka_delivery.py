"""What exactly once costs, in latency and in throughput, beside at least once; and what the size of its transactions does to it.

    python -m tests.benchmarks.kafka_delivery [--rounds N] [--seconds N] [--rooms N] [--windows N] [--transport NAME]

Needs STREAMFUSE_KAFKA_HOME. Latency: rooms live, from the end of a window (event time) until a reader of committed records has its
prediction. Throughput: a backlog, with a model that costs nothing, so that what is left is reading, windows and delivery; CPU is that of
the whole process. A transaction holds what was predicted in a `commit_interval`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import uuid
from pathlib import Path
from statistics import median
from typing import Any

import anyio
from kafka import KafkaConsumer, TopicPartition

from streamfuse.assembly import build
from streamfuse.clock import SystemClock
from streamfuse.codecs import encode_packet
from streamfuse.config import Config
from streamfuse.testing import MemoryRunner
from streamfuse.types import MILLISECOND, SECOND, Encoded, Packet, Position
from tests.benchmarks.kafka_quix import config
from tests.benchmarks.kafka_setup import Live, cpu_of, in_a_process, milliseconds_of, one_broker, produce_all, until_shared
from tests.benchmarks.measure import table
from tests.kafka.broker import Broker
from tests.kafka.warm import Warm

MODULE = "tests.benchmarks.kafka_delivery"
WAYS = [
    ("at_least_once", "1s"),
    ("exactly_once", "20ms"),
    ("exactly_once", "100ms"),
    ("exactly_once", "500ms"),
    ("exactly_once", "2s"),
]
NOON = 1_777_636_800 * SECOND
HOP = 100 * MILLISECOND
TIMEOUT = 120.0


def main() -> None:
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seconds", type=int, default=15)
    parser.add_argument("--rooms", type=int, default=8)
    parser.add_argument("--windows", type=int, default=20_000, help="of the backlog")
    parser.add_argument("--transport", choices=["kafka-python", "confluent"], default="kafka-python")
    parser.add_argument("--asked", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.asked:
        anyio.run(light, json.loads(options.asked)["config"])
        return
    with one_broker() as broker:
        latency(broker, options)
        throughput(broker, options)


def latency(broker: Broker, options: argparse.Namespace) -> None:
    rows = []
    base = 0.0
    for delivery, interval in WAYS:
        found = []
        for number in range(options.rounds):
            with (
                tempfile.TemporaryDirectory(prefix="bench-") as folder,
                Live(broker, f"{delivery}-{interval}-{number}", options.rooms, options.seconds) as live,
                Warm(Path(folder) / "daemon", with_delivery(config(broker, live, options.transport), delivery, interval)) as daemon,
            ):
                found.append(live.measure(daemon.process.pid, read_committed=True))
        p50, p99, cpu = (median(getattr(one, name) for one in found) for name in ("p50", "p99", "cpu_a_window"))
        base = base or p50
        rows.append([delivery, interval, milliseconds_of(p50), milliseconds_of(p99), f"{p50 / base:.2f}", milliseconds_of(cpu)])
    title = f"from the end of a window until its prediction is read, {options.rooms} rooms live, {options.transport}"
    table(title, ["delivery", "commit_interval", "p50", "p99", "p50 ratio", "CPU a window"], rows)


def throughput(broker: Broker, options: argparse.Namespace) -> None:
    topics = {stream: f"backlog.{stream}" for stream in ("video", "audio")}
    for topic in topics.values():
        broker.create_topic(topic, 2, {"retention.ms": "-1"})
    rooms = 16
    produce_all(broker.bootstrap, ((topics[p.stream], encode_packet(p)) for p in backlog(rooms, options.windows // rooms)))
    rows = []
    base = base_cpu = 0.0
    for delivery, interval in WAYS:
        found = []
        for number in range(options.rounds):
            found.append(drained(broker, topics, f"drained-{delivery}-{interval}-{number}", delivery, interval, options))
        rate, cpu = (median(one[name] for one in found) for name in ("rate", "cpu"))
        base, base_cpu = base or rate, base_cpu or cpu
        rows.append([delivery, interval, f"{rate:.0f}", f"{rate / base:.2f}", f"{cpu * 1e6:.0f} us", f"{cpu / base_cpu:.2f}"])
    title = f"a backlog of {options.windows:,} windows of two records, a model that costs nothing, {options.transport}"
    table(title, ["delivery", "commit_interval", "windows/s", "ratio", "CPU a window", "ratio"], rows)


def backlog(rooms: int, windows: int) -> list[Packet]:
    """A picture and a sound for each window of each room, and of each room two more, to close the last one."""
    payloads = {"video": Encoded(bytes(1000), "image/jpeg"), "audio": Encoded(bytes(1000), "audio/pcm", 16_000, 1)}
    return [
        Packet(stream, f"room-{room}", NOON + n * HOP, 0, payload, Position("", -1), NOON + n * HOP, f"{room}/{stream}#{n}")
        for n in range(windows + 2)
        for room in range(rooms)
        for stream, payload in payloads.items()
    ]


def drained(
    broker: Broker, topics: dict[str, str], name: str, delivery: str, interval: str, options: argparse.Namespace
) -> dict[str, float]:
    """Windows a second, from the assignment of the partitions to the last prediction, and CPU seconds a window."""
    broker.create_topic(name, 2)
    kafka = {"type": "kafka", "bootstrap": broker.bootstrap, "transport": options.transport}
    patient = {"max_out_of_orderness": 0, "idle_timeout": None}
    group = str(uuid.uuid4())
    settings = {
        "sources": [{**kafka, "topics": topics, "group": group, "start": "earliest"}],
        "sync": {"windows": {"type": "tumbling", "size": "100ms"}, "streams": dict.fromkeys(topics, patient), "max_hold": None},
        "models": {"device": "cpu"},
        "sinks": [{**kafka, "topic": name}],
        "web": {"enabled": False},
    }
    wanted = options.windows // 16 * 16
    consumer = KafkaConsumer(bootstrap_servers=broker.bootstrap, auto_offset_reset="earliest", isolation_level="read_committed")
    consumer.assign([TopicPartition(name, number) for number in range(2)])
    count = 0
    try:
        with in_a_process(MODULE, config=with_delivery(settings, delivery, interval)) as process:
            until_shared(broker.bootstrap, group, 1)
            began, cpu = time.monotonic(), cpu_of(process.pid)
            while count < wanted:
                if time.monotonic() > began + TIMEOUT or process.poll() is not None:
                    raise RuntimeError(f"expected {wanted} windows, found {count}")
                count += sum(map(len, consumer.poll(20).values()))
            seconds, spent = time.monotonic() - began, cpu_of(process.pid) - cpu
    finally:
        consumer.close()
    return {"rate": count / seconds, "cpu": spent / count}


def with_delivery(settings: dict[str, Any], delivery: str, interval: str) -> dict[str, Any]:
    return {**settings, "pipeline": {"delivery": delivery, "commit_interval": interval}}


async def light(settings: dict[str, Any]) -> None:
    """A daemon whose model costs nothing, until it is killed."""
    clock = SystemClock()
    daemon = build(Config.model_validate(settings), clock=clock)
    daemon.runner = MemoryRunner(clock)
    await daemon.run(anyio.Event())


if __name__ == "__main__":
    main()
