"""How long rooms are without predictions: after a crash, and while replicas join and leave.

    python -m tests.benchmarks.kafka_recovery [--rounds N] [--rooms N] [--transport NAME]

Needs STREAMFUSE_KAFKA_HOME. Rooms are live, with windows of half a second. The gap is the longest time from one prediction of a room to its
next, as a reader of committed records sees them; undisturbed it is half a second and what scheduling adds. A crash is SIGKILL, and the
replacement is started at once, as a service manager would.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from kafka import KafkaConsumer, TopicPartition

from tests.benchmarks.kafka_quix import config
from tests.benchmarks.kafka_setup import Live, one_broker, until_shared
from tests.benchmarks.measure import table
from tests.kafka.broker import Broker
from tests.kafka.fleet import Fleet
from tests.running import Running

PARTITIONS = 6
CALM = 4.0  # seconds in which all rooms have their predictions again, before the next disturbance
TIMEOUT = 90.0

CRASHES: list[tuple[str, dict[str, Any], str]] = [
    ("two replicas, session_timeout 10s", {}, "at_least_once"),
    ("two replicas, session_timeout 3s", {"session_timeout": "3s"}, "at_least_once"),
    ("two replicas that keep their names (instance)", {"instance": "replica-{slot}"}, "at_least_once"),
    ("two replicas, exactly once", {}, "exactly_once"),
    ("two that keep their names, exactly once", {"instance": "replica-{slot}"}, "exactly_once"),
]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.kafka_recovery", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="crashes of each kind, and joins and leaves")
    parser.add_argument("--rooms", type=int, default=12)
    parser.add_argument("--transport", choices=["kafka-python", "confluent"], default="kafka-python")
    options = parser.parse_args()
    with one_broker() as broker:
        rows = []
        for number, (what, source, delivery) in enumerate(CRASHES):
            undisturbed, gaps = crashes(broker, f"crash-{number}", source, delivery, options)
            rows.append([what, f"{undisturbed:.1f} s", f"{median(gaps):.1f} s", f"{max(gaps):.1f} s"])
        header = ["", "undisturbed", "median", "worst"]
        table(f"the longest gap of any room after a crash, {options.rounds} crashes, {options.transport}", header, rows)
        table("the longest gap of any room while a third replica joins or leaves", header, rebalances(broker, options))


def crashes(broker: Broker, name: str, source: Mapping[str, Any], delivery: str, options: argparse.Namespace) -> tuple[float, list[float]]:
    gaps = []
    with watched(broker, name, source, delivery, options) as (fleet, gap):
        for slot in range(2):
            fleet.start(slot)
        undisturbed = gap(lambda: None)
        for number in range(options.rounds):
            gaps.append(gap(lambda slot=number % 2: restart(fleet, slot)))  # type: ignore[misc]
    return undisturbed, gaps


def rebalances(broker: Broker, options: argparse.Namespace) -> list[list[str]]:
    joins, leaves = [], []
    with watched(broker, "rebalance", {}, "at_least_once", options) as (fleet, gap):
        for slot in range(2):
            fleet.start(slot)
        undisturbed = gap(lambda: None)
        for _ in range(options.rounds):
            joins.append(gap(lambda: until_joined(fleet, broker)))
            leaves.append(gap(lambda: fleet.stop(2)))
    return [
        [what, f"{undisturbed:.1f} s", f"{median(gaps):.1f} s", f"{max(gaps):.1f} s"]
        for what, gaps in (("joins", joins), ("leaves in order (SIGTERM)", leaves))
    ]


def restart(fleet: Fleet, slot: int) -> None:
    fleet.kill(slot)
    fleet.start(slot)


def until_joined(fleet: Fleet, broker: Broker) -> None:
    fleet.start(2)
    until_shared(broker.bootstrap, "rebalance", 3)


@contextmanager
def watched(
    broker: Broker, name: str, source: Mapping[str, Any], delivery: str, options: argparse.Namespace
) -> Iterator[tuple[Fleet, Callable[[Callable[[], object]], float]]]:
    """A fleet to start replicas in, and what measures the longest gap that a disturbance makes."""
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        Live(broker, name, options.rooms, 0, partitions=PARTITIONS) as live,
    ):

        def settings(slot: int) -> dict[str, Any]:
            made = config(broker, live, options.transport)
            given = {key: value.format(slot=slot) if isinstance(value, str) else value for key, value in source.items()}
            made["sources"][0] |= given
            made["sync"]["windows"] = {"type": "tumbling", "size": "500ms"}
            made["pipeline"] = {"delivery": delivery, "commit_interval": "200ms"}
            return made

        live.begin()
        gaps = Gaps(broker, live, options.rooms)
        try:
            with Fleet(Path(folder), settings, kind=Running) as fleet:
                yield fleet, gaps.during
        finally:
            gaps.close()


class Gaps:
    """Follows when each room had its last prediction."""

    def __init__(self, broker: Broker, live: Live, rooms: int) -> None:
        self._rooms = rooms
        self._last: dict[bytes, float] = {}
        self._longest = 0.0
        self._consumer = KafkaConsumer(
            bootstrap_servers=broker.bootstrap,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            fetch_max_wait_ms=5,
            metrics_enabled=False,
        )
        self._consumer.assign([TopicPartition(live.predictions, number) for number in range(PARTITIONS)])

    def during(self, disturb: Callable[[], object]) -> float:
        """Waits until all is calm, disturbs, waits until it is calm again; the longest gap of any room since the disturbance."""
        self._until_calm(time.monotonic())
        self._longest = 0.0
        began = time.monotonic()
        disturbing = threading.Thread(target=disturb)
        disturbing.start()
        while disturbing.is_alive():
            self._poll()
        self._until_calm(began)
        return self._longest

    def close(self) -> None:
        self._consumer.close()

    def _until_calm(self, began: float) -> None:
        """Every room has had predictions for some seconds on end."""
        restless = began
        while time.monotonic() < restless + CALM:
            if time.monotonic() > began + TIMEOUT:
                raise RuntimeError(f"expected predictions of {self._rooms} rooms, found a gap of {TIMEOUT:.0f} s")
            self._poll()
            now = time.monotonic()
            if len(self._last) < self._rooms or now - min(self._last.values()) > 1.5:
                restless = now

    def _poll(self) -> None:
        for records in self._consumer.poll(20).values():
            now = time.monotonic()
            for record in records:
                self._longest = max(self._longest, now - self._last.get(record.key, now))
                self._last[record.key] = now


if __name__ == "__main__":
    main()
