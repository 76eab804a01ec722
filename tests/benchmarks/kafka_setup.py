"""What the Kafka benchmarks share: a broker of their own, records in its topics, what a process cost, and tables of latencies."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import cv2
import kafka.errors
import numpy as np
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition

from streamfuse.codecs import WireRecord, encode_packet, prediction_from_json
from streamfuse.types import MILLISECOND, SECOND, Encoded, Packet, Payload, Position
from tests.kafka.broker import Broker

EXIT_NO_SUBJECT = 77
START_TIMEOUT = 60.0
TICK = os.sysconf("SC_CLK_TCK")


@contextmanager
def one_broker() -> Iterator[Broker]:
    """Ends the process, with a word, where there is no Kafka."""
    home = os.environ.get("STREAMFUSE_KAFKA_HOME")
    if not home:
        print("STREAMFUSE_KAFKA_HOME is not set: point it at a Kafka distribution, or run `make kafka`", file=sys.stderr)
        sys.exit(0)
    with tempfile.TemporaryDirectory(prefix="kafka-") as folder, Broker(Path(home), Path(folder)) as broker:
        yield broker


def here(reader: str) -> bool:
    """Whether a client (`confluent`), or our source on it (`ours on confluent`), is to be had here."""
    from streamfuse.kafka.clients import MODULES

    client = reader.removeprefix("ours on ")
    package = {"kafka-python": "kafka", "confluent": "confluent_kafka"}[client]
    return all(importlib.util.find_spec(name) is not None for name in (package, MODULES[client]) if reader != client or name == package)


def transports() -> list[str]:
    return [name for name in ("kafka-python", "confluent") if here(f"ours on {name}")]


def produce_all(bootstrap: str, records: Iterable[tuple[str, WireRecord]]) -> None:
    """Returns when all of them are acknowledged."""
    producer = KafkaProducer(
        bootstrap_servers=bootstrap, acks="all", linger_ms=20, batch_size=256 * 1024, max_request_size=2**24, metrics_enabled=False
    )
    for topic, (key, value, headers, timestamp) in records:
        producer.send(topic, value, key, list(headers), timestamp_ms=timestamp // MILLISECOND)
    producer.flush()
    producer.close()


def cpu_of(pid: int) -> float:
    """CPU seconds of a process so far, of all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def until_shared(bootstrap: str, group: str, members: int) -> None:
    """Returns when so many members share the partitions."""
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    deadline = time.monotonic() + START_TIMEOUT
    try:
        while not _shared(admin, group, members):
            if time.monotonic() > deadline:
                raise RuntimeError(f"expected {members} members to share the partitions, found otherwise for {START_TIMEOUT:.0f} s")
            time.sleep(0.05)
    finally:
        admin.close()


def _shared(admin: KafkaAdminClient, group: str, members: int) -> bool:
    try:
        found = admin.describe_groups([group])[group]
    except kafka.errors.RetriableError:
        return False
    return found["group_state"] == "Stable" and len(found["members"]) == members


def percentile(values: Iterable[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[int(share * (len(ordered) - 1))]


@contextmanager
def in_a_process(module: str, **asked: object) -> Iterator[subprocess.Popen[str]]:
    """Runs `python -m MODULE --asked JSON`, so that its CPU time is its own; its standard output is a pipe. Leaves none behind."""
    command = [sys.executable, "-m", module, "--asked", json.dumps(asked)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}) as process:
        try:
            yield process
        finally:
            process.kill()


def answer(module: str, **asked: object) -> dict[str, float] | None:
    """What such a process prints at its end, a JSON object; None where its subject is not to be had here."""
    with in_a_process(module, **asked) as process:
        said, _ = process.communicate()
    if process.returncode == EXIT_NO_SUBJECT:
        return None
    if process.returncode:
        raise RuntimeError(f"expected python -m {module} to succeed, found exit code {process.returncode}")
    found: dict[str, float] = json.loads(said)
    return found


def milliseconds_of(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds >= 0.1 else f"{seconds * 1000:.1f} ms"


class Measured(NamedTuple):
    """Of one run: windows that were predicted, how many of them with all that was sent, latencies and CPU time in seconds."""

    windows: int
    whole: int
    p50: float
    p99: float
    cpu_a_window: float
    cpu_share: float


class Live:
    """Rooms that happen now: ten pictures and ten sounds a second and a text each, published as they happen; use it with `with`.

    All rooms are in step, so that their windows of a second end together. The group of who is measured must bear our name.
    """

    RATE = 21
    WARM_UP = 4.0  # seconds after the first prediction that are left out

    def __init__(self, broker: Broker, name: str, rooms: int, seconds: float, *, partitions: int = 2, picture: int = 10_000) -> None:
        """`picture` is how many bytes one has, about."""
        self.name = name
        self.topics = {stream: f"{name}.{stream}" for stream in ("video", "audio", "text")}
        self.predictions = f"{name}.predictions"
        for topic in self.topics.values():
            broker.create_topic(topic, partitions)
        broker.create_topic(self.predictions, partitions)
        self._bootstrap = broker.bootstrap
        self._partitions = partitions
        self._picture = picture
        self._rooms = [f"room-{number}" for number in range(rooms)]
        self._seconds = seconds
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._publish, name="live", daemon=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        self._ending.set()
        if self._thread.ident is not None:
            self._thread.join()

    def begin(self) -> None:
        self._thread.start()

    def measure(self, *processes: int, read_committed: bool = False) -> Measured:
        """Begins when all processes have partitions, lets them warm up, and measures for the seconds that were asked for."""
        until_shared(self._bootstrap, self.name, len(processes))
        self.begin()
        consumer = KafkaConsumer(
            bootstrap_servers=self._bootstrap,
            auto_offset_reset="earliest",
            isolation_level="read_committed" if read_committed else "read_uncommitted",
            fetch_max_wait_ms=5,
            metrics_enabled=False,
        )
        consumer.assign([TopicPartition(self.predictions, number) for number in range(self._partitions)])
        try:
            return self._measure(consumer, processes)
        finally:
            consumer.close()

    def _measure(self, consumer: KafkaConsumer, processes: Sequence[int]) -> Measured:
        latencies: list[float] = []
        windows = whole = 0
        cpu = began = until = 0.0
        deadline = time.monotonic() + START_TIMEOUT
        while not until or time.monotonic() < until:
            if not until and time.monotonic() > deadline:
                raise RuntimeError(f"expected predictions, found none for {START_TIMEOUT:.0f} s")
            for records in consumer.poll(20).values():
                now = time.time_ns()
                for record in records:
                    if not until:
                        began = time.monotonic() + self.WARM_UP
                        until = began + self._seconds
                    elif time.monotonic() >= began:
                        prediction = prediction_from_json(record.value)
                        windows += 1
                        whole += sum(prediction.packets.values()) == self.RATE
                        latencies.append((now - prediction.end) / SECOND)
            if not cpu and until and time.monotonic() >= began:
                cpu = sum(map(cpu_of, processes))
        spent = sum(map(cpu_of, processes)) - cpu
        return Measured(
            windows, whole, percentile(latencies, 0.5), percentile(latencies, 0.99), spent / windows, spent / (time.monotonic() - began)
        )

    def _publish(self) -> None:
        dice = np.random.default_rng(1)
        height = round((self._picture * 0.57) ** 0.5)  # noise takes 1.3 bytes a pixel
        shape = (height, height * 4 // 3, 3)
        pictures = [cv2.imencode(".jpg", dice.integers(0, 255, shape, dtype=np.uint8))[1].tobytes() for _ in range(8)]
        sounds = [dice.integers(-3000, 3000, 1600, dtype=np.int16).tobytes() for _ in range(8)]
        producer = KafkaProducer(bootstrap_servers=self._bootstrap, acks="all", linger_ms=2, metrics_enabled=False)
        step = 100 * MILLISECOND
        at = (time.time_ns() // SECOND + 1) * SECOND
        try:
            while not self._ending.wait(max(0.0, (at + step - time.time_ns()) / SECOND)):  # a sound is sent when it has been heard
                number = at // step
                for room in self._rooms:
                    happened: dict[str, tuple[Payload, int]] = {
                        "video": (Encoded(pictures[number % 8], "image/jpeg"), 0),
                        "audio": (Encoded(sounds[number % 8], "audio/pcm", 16_000, 1), step),
                    }
                    if not at % SECOND:
                        happened["text"] = (f"word {number}", 0)
                    for stream, (payload, duration) in happened.items():
                        packet = Packet(stream, room, at, duration, payload, Position("", -1), at, f"{room}/{stream}#{at}")
                        key, value, headers, _ = encode_packet(packet)
                        producer.send(self.topics[stream], value, key, list(headers))
                at += step
            producer.flush(10)
        finally:
            producer.close(1)
