"""Three brokers that stand in for each other: any one can be killed, and with it the leaders and coordinators that it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import kafka.errors
from kafka import KafkaAdminClient
from kafka.admin import NewTopic

from tests.kafka.broker import Broker, free_ports
from tests.kafka.traffic import PATIENCE

NODES = (1, 2, 3)
PROPERTIES = {  # a dead broker is noticed in 3 s, where the default is 9
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
}


class Cluster:
    """Every topic has three replicas, of which two must have a record before it is acknowledged. Use it with `with`."""

    def __init__(self, home: Path, folder: Path) -> None:
        voters = dict(zip(NODES, free_ports(len(NODES)), strict=True))
        self.brokers: dict[int, Broker] = {}
        for node in NODES:
            place = folder / f"broker-{node}"
            place.mkdir()
            self.brokers[node] = Broker(home, place, PROPERTIES, node=node, voters=voters)
        self.bootstrap = ",".join(broker.bootstrap for broker in self.brokers.values())

    def __enter__(self) -> Self:
        try:
            with ThreadPoolExecutor() as threads:  # none of them starts alone
                list(threads.map(Broker.start, self.brokers.values()))
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        for broker in self.brokers.values():
            broker.kill()

    @contextmanager
    def admin(self) -> Iterator[KafkaAdminClient]:
        admin = KafkaAdminClient(bootstrap_servers=self.bootstrap)
        try:
            yield admin
        finally:
            admin.close()

    def create_topic(
        self,
        name: str,
        partitions: int = 1,
        configs: Mapping[str, str] | None = None,
        on: Sequence[int] | None = None,
    ) -> None:
        """`on` are the brokers that have it, all where not given; the first of them leads."""
        assignments = {partition: list(on or NODES) for partition in range(partitions)}
        with self.admin() as admin:
            admin.create_topics([NewTopic(name, replica_assignments=assignments, topic_configs=dict(configs or {}))])

    def leader(self, topic: str) -> int:
        """The broker that leads the topic's partition 0."""
        found: int = self._partition(topic)["leader_id"]
        return found

    def coordinator(self) -> int:
        """The broker that coordinates all groups. It leads the only partition of their topic."""
        return self.leader("__consumer_offsets")

    def until_in_sync(self, topic: str, replicas: int) -> None:
        """Returns when so many replicas of the topic's partition 0 are in sync."""
        _until(lambda: len(self._partition(topic)["isr_nodes"]) == replicas)

    def until_moved(self, topic: str, away_from: int) -> None:
        """Returns when another broker leads the topic's partition 0."""
        _until(lambda: self.leader(topic) not in (-1, away_from))

    def _partition(self, topic: str) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                with self.admin() as admin:
                    (described,) = admin.describe_topics([topic])
                found: dict[str, Any] = described["partitions"][0]
                return found
            except (kafka.errors.KafkaError, IndexError):  # brokers that come and go
                if time.monotonic() > deadline:
                    raise


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
