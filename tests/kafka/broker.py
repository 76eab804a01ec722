"""A real Apache Kafka for tests: a KRaft broker on loopback that can be killed and started again on the same data."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Self

from kafka import KafkaAdminClient
from kafka.admin import NewTopic

CLUSTER_ID = "abcdefghijklmnopqrstuv"
START_TIMEOUT = 90.0

PROPERTIES = """
process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
listeners=PLAINTEXT://127.0.0.1:{port},PROXIED://127.0.0.1:{behind},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},PROXIED://127.0.0.1:{proxy}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={data}
default.replication.factor={replicas}
min.insync.replicas={in_sync}
offsets.topic.replication.factor={replicas}
offsets.topic.num.partitions=1
transaction.state.log.replication.factor={replicas}
transaction.state.log.min.isr={in_sync}
transaction.state.log.num.partitions=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
auto.create.topics.enable=false
"""


class Broker:
    """Use it with `with`. `properties` are added to the broker's, or stand in their place.

    Who connects to `behind` is told to find the broker at `proxy`, a port that the caller forwards to `behind`.
    """

    def __init__(
        self,
        home: Path,
        folder: Path,
        properties: Mapping[str, str] | None = None,
        *,
        node: int = 1,
        voters: Mapping[int, int] | None = None,
        proxy: int | None = None,
    ) -> None:
        """One of a cluster is `node`, and `voters` are all of them, each with the port of its controller."""
        self._home = home
        self._folder = folder
        self.port, self.behind, controller = free_ports(3)
        self.bootstrap = f"127.0.0.1:{self.port}"
        self.data = folder / "data"
        self._properties = folder / "server.properties"
        voters = voters or {node: controller}
        text = PROPERTIES.format(
            node=node,
            voters=",".join(f"{number}@127.0.0.1:{port}" for number, port in voters.items()),
            port=self.port,
            behind=self.behind,
            controller=voters[node],
            proxy=proxy or self.behind,
            data=self.data,
            replicas=len(voters),
            in_sync=min(2, len(voters)),
        )
        self._properties.write_text(text + "".join(f"{name}={value}\n" for name, value in (properties or {}).items()))
        self._process: subprocess.Popen[str] | None = None
        self._formatted = False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        self.kill()

    def start(self) -> None:
        """Returns when the broker takes connections. Keeps the data of the last run."""
        if not self._formatted:
            self._run("kafka-storage.sh", "format", "-t", CLUSTER_ID, "-c", str(self._properties))
            self._formatted = True
        self._process = subprocess.Popen(
            [self._home / "bin" / "kafka-server-start.sh", self._properties],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self._environment(),
            start_new_session=True,
        )
        said: SimpleQueue[str] = SimpleQueue()
        threading.Thread(target=_follow, args=(self._process, said), daemon=True).start()
        lines = []
        try:
            while "Kafka Server started" not in (line := said.get(timeout=START_TIMEOUT)):
                lines.append(line)
                if not line:
                    raise RuntimeError("expected Apache Kafka to start, found that it ended:\n" + "".join(lines[-30:]))
        except Empty:
            self.kill()
            raise RuntimeError("expected Apache Kafka to start, found it silent:\n" + "".join(lines[-30:])) from None

    def kill(self) -> None:
        """As the power would go: SIGKILL. `start` brings it back with its data."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Stands still (SIGSTOP) for the time of the block: connections stay, nothing answers."""
        if self._process is None:
            raise RuntimeError("expected a running broker, found none; start it first")
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def create_topic(
        self, name: str, partitions: int = 1, configs: Mapping[str, str] | None = None, on: Sequence[int] | None = None
    ) -> None:
        """`on` is for clusters: here there is but one broker."""
        with self.admin() as admin:
            admin.create_topics([NewTopic(name, partitions, 1, topic_configs=dict(configs or {}))])

    @contextmanager
    def admin(self) -> Iterator[KafkaAdminClient]:
        admin = KafkaAdminClient(bootstrap_servers=self.bootstrap)
        try:
            yield admin
        finally:
            admin.close()

    def _run(self, script: str, *arguments: str) -> None:
        command: Sequence[str | Path] = [self._home / "bin" / script, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=self._environment(), check=False)
        if done.returncode:
            raise RuntimeError(f"expected {script} to succeed, found:\n{done.stdout}{done.stderr}")

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "KAFKA_HEAP_OPTS": "-Xmx256m", "LOG_DIR": str(self._folder / "logs")}


def _follow(process: subprocess.Popen[str], said: SimpleQueue[str]) -> None:
    """Passes on what the broker says and, at its end, an empty line; a pipe that nobody reads would stop it."""
    if process.stdout is not None:
        with process.stdout as lines:
            for line in lines:
                said.put(line)
    said.put("")


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
