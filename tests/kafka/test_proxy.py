"""The bad network is as bad as it says, and no worse."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.kafka.proxy import Proxy


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that sends back what it gets."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve(connection: socket.socket) -> None:
            with connection:
                try:
                    while data := connection.recv(65536):
                        connection.sendall(data)
                except OSError:
                    return

        def accept() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def proxy(echo: int) -> Iterator[Proxy]:
    with Proxy() as proxy:
        proxy.target = echo
        yield proxy


@pytest.fixture
def connection(proxy: Proxy) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as made:
        yield made


def ask(connection: socket.socket, data: bytes) -> tuple[bytes, float]:
    """What comes back, and after how many seconds."""
    began = time.monotonic()
    connection.sendall(data)
    got = b""
    while len(got) < len(data):
        more = connection.recv(65536)
        if not more:
            break
        got += more
    return got, time.monotonic() - began


def is_over(connection: socket.socket) -> bool:
    try:
        return connection.recv(10) == b""
    except ConnectionResetError:
        return True


def test_it_forwards_both_ways(connection: socket.socket) -> None:
    data = bytes(range(256)) * 4000
    threading.Thread(target=connection.sendall, args=(data,)).start()
    got = b""
    while len(got) < len(data):
        got += connection.recv(65536)
    assert got == data


def test_a_cut_ends_every_connection_and_lets_new_ones_in(proxy: Proxy, connection: socket.socket) -> None:
    ask(connection, b"one")
    assert proxy.cut() == 1
    assert is_over(connection)
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as another:
        assert ask(another, b"two")[0] == b"two"


def test_a_delay_counts_each_way(proxy: Proxy, connection: socket.socket) -> None:
    proxy.delay = 0.1
    got, seconds = ask(connection, b"late")
    assert got == b"late"
    assert seconds >= 0.2


def test_a_rate_holds_back_what_is_sent(proxy: Proxy, connection: socket.socket) -> None:
    proxy.rate = 100_000
    ask(connection, b"x" * 20_000)
    _, seconds = ask(connection, b"y")
    assert seconds >= 0.1


def test_in_silence_nothing_comes_and_nothing_is_lost(proxy: Proxy, connection: socket.socket) -> None:
    ask(connection, b"before")
    connection.settimeout(0.3)
    with proxy.silent():
        connection.sendall(b"during")
        with pytest.raises(TimeoutError):
            connection.recv(10)
    connection.settimeout(10)
    assert connection.recv(10) == b"during"


def test_without_a_target_connections_are_refused(proxy: Proxy) -> None:
    proxy.target = 0
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as refused:
        assert is_over(refused)
