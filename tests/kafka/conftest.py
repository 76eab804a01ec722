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

from tests.kafka.broker import Broker

_numbers = count()


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """Shared: leave it running as you found it."""
    with Broker(Path(os.environ["STREAMFUSE_KAFKA_HOME"]), tmp_path_factory.mktemp("kafka")) as broker:
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

    monkeypatch.setattr(KafkaNetSocket, "sock_connect", connect_or_close)


@pytest.fixture
def own_broker(tmp_path: Path, closed_sockets: None) -> Iterator[Broker]:
    """One that this test may start, stop and kill."""
    broker = Broker(Path(os.environ["STREAMFUSE_KAFKA_HOME"]), tmp_path)
    yield broker
    broker.kill()


@pytest.fixture
def unique() -> str:
    """A name for this test's topics and groups."""
    return f"t{next(_numbers)}"
