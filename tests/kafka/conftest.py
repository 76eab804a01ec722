"""One broker for all tests of a session, and topics of their own for each."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from kafka.net.inet import KafkaNetSocket
from kafka.net.transport import KafkaSSLTransport

from tests.kafka import traffic
from tests.kafka.broker import Broker
from tests.kafka.secure import SecureBroker

_numbers = count()


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """Shared: leave it running as you found it."""
    with Broker(Path(os.environ["STREAMFUSE_KAFKA_HOME"]), tmp_path_factory.mktemp("kafka")) as broker:
        yield broker


@pytest.fixture(scope="session")
def secure_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureBroker]:
    """Shared as well: use names of your own for users, topics and groups."""
    with SecureBroker(Path(os.environ["STREAMFUSE_KAFKA_HOME"]), tmp_path_factory.mktemp("secure")) as broker:
        yield broker


@pytest.fixture
def closed_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closes those of connections that failed."""
    connect = KafkaNetSocket.sock_connect

    async def connect_or_close(self: KafkaNetSocket, net: Any, sock: socket.socket, *arguments: Any, **named: Any) -> Any:
        try:
            return await connect(self, net, sock, *arguments, **named)
        except BaseException:
            sock.close()  # kafka-python leaves it to the garbage collector, which warns in whichever test it runs
            raise

    handshake = KafkaSSLTransport.handshake

    async def handshake_or_close(self: KafkaSSLTransport) -> None:
        try:
            await handshake(self)
        except BaseException:
            self._sock.close()
            raise

    monkeypatch.setattr(KafkaNetSocket, "sock_connect", connect_or_close)
    monkeypatch.setattr(KafkaSSLTransport, "handshake", handshake_or_close)


@pytest.fixture
def own_broker(tmp_path: Path, closed_sockets: None) -> Iterator[Broker]:
    """One that this test may start, stop and kill."""
    broker = Broker(Path(os.environ["STREAMFUSE_KAFKA_HOME"]), tmp_path)
    yield broker
    broker.kill()


@pytest.fixture(params=["kafka-python", "confluent"])
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each of our clients, for a test that uses this fixture; what `traffic` makes uses it."""
    name = str(request.param)
    if name == "confluent":
        pytest.importorskip("confluent_kafka", reason="needs confluent-kafka: pip install 'streamfuse[fast]'")
    monkeypatch.setattr(traffic, "transport", name)
    return name


@pytest.fixture
def unique() -> str:
    """A name for this test's topics and groups."""
    return f"t{next(_numbers)}"
