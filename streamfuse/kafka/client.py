"""What every Kafka client of ours shares: its options, the way to the first connection, and the true cause of a failure.

kafka-python keeps the cause of a failed connection to its loggers and raises a time-out; we listen to them and say it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import anyio
import anyio.to_thread
import kafka.errors
import kafka.record.util
from kafka.net.compat import KafkaNetClient

from streamfuse.config import KafkaConnection
from streamfuse.errors import ConfigError, Problem

T = TypeVar("T")

DEFAULT_PORT = 9092
FIRST_DELAY = 0.25
LONGEST_DELAY = 5.0  # seconds between two attempts
CLIENT_ID = "streamfuse"

log = logging.getLogger(__name__)


def connection_options(settings: KafkaConnection) -> dict[str, Any]:
    """The settings as kafka-python names them. Raises ConfigError where the password file can't be read."""
    options: dict[str, Any] = {
        "bootstrap_servers": settings.bootstrap.split(","),
        "bootstrap_timeout_ms": settings.connect_timeout // 1_000_000,
        "client_id": CLIENT_ID,
        "security_protocol": settings.security.upper(),
        "ssl_cafile": _text(settings.ca_file),
        "ssl_certfile": _text(settings.certificate_file),
        "ssl_keyfile": _text(settings.key_file),
        "reconnect_backoff_max_ms": int(LONGEST_DELAY * 1000),
        "metrics_enabled": False,
    }
    if settings.security.startswith("sasl"):
        options["sasl_mechanism"] = settings.mechanism
        options["sasl_plain_username"] = settings.username
        options["sasl_plain_password"] = password(settings)
    return options


def checksum_problem() -> str | None:
    """Why checksums would be slow, where they would: in pure Python a record of 50 KB costs 22 ms."""
    if kafka.record.util.crc32c_c is None:
        return "expected the package crc32c, found none, so that each record of 50 KB would cost 22 ms; pip install 'kafka-python[crc32c]'"
    return None


class Patience:
    """Waits longer from attempt to attempt, up to 5 s, and says why: at the first, second, fourth, eighth ... and when the cause
    changes."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._attempts = 0
        self._cause = ""

    def delay(self, cause: str) -> float:
        """Seconds to wait before the next attempt."""
        self._attempts += 1
        if cause != self._cause or self._attempts & (self._attempts - 1) == 0:
            log.warning("%s: attempt %d failed, trying on: %s", self._what, self._attempts, cause)
        self._cause = cause
        return min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(self._attempts - 1, 10))

    def over(self) -> None:
        if self._attempts:
            log.info("%s: succeeded after %d attempts", self._what, self._attempts + 1)
        self._attempts, self._cause = 0, ""


async def connect(make: Callable[..., T], settings: KafkaConnection, options: Mapping[str, Any], what: str) -> T:
    """Makes a client as soon as the broker takes it; waits for that as long as it takes.

    A cancellation is heeded within `connect_timeout`. Raises what `make` raises where waiting won't help.
    """
    patience = Patience(f"{what} connects to {settings.bootstrap}")
    while True:
        cause = await unreachable(settings)
        if cause is None:
            try:
                client = await anyio.to_thread.run_sync(_make, make, {**connection_options(settings), **options})
            except kafka.errors.KafkaTimeoutError as error:
                cause = str(error)
            else:
                patience.over()
                return client
        await anyio.sleep(patience.delay(cause))


class Causes(logging.Handler):
    """Keeps the last warning of the `kafka` loggers: `with Causes() as causes: ...; causes.last`."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.last = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.last = record.getMessage()

    @classmethod
    @contextmanager
    def listen(cls) -> Iterator[Causes]:
        causes = cls()
        logger = logging.getLogger("kafka")
        logger.addHandler(causes)
        try:
            yield causes
        finally:
            logger.removeHandler(causes)


def _make(make: Callable[..., T], options: Mapping[str, Any]) -> T:
    opened: list[KafkaNetClient] = []

    def client(**configs: Any) -> KafkaNetClient:
        opened.append(KafkaNetClient(**configs))
        return opened[0]

    with Causes.listen() as causes:
        try:
            return make(**options, kafka_client=client)
        except kafka.errors.KafkaError as error:
            for one in opened:  # kafka-python leaves its thread and its connections behind
                one.close()
            if isinstance(error, kafka.errors.KafkaTimeoutError) and causes.last:
                raise kafka.errors.KafkaTimeoutError(f"{error} ({causes.last})") from error
            raise


async def unreachable(settings: KafkaConnection) -> str | None:
    """Why no bootstrap broker takes a connection; None when one does."""
    causes = []
    for address in settings.bootstrap.split(","):
        host, _, port = address.strip().rpartition(":")
        if not host or not port.isdigit():
            host, port = address.strip(), str(DEFAULT_PORT)
        try:
            with anyio.fail_after(settings.connect_timeout / 1e9):
                stream = await anyio.connect_tcp(host.strip("[]"), int(port))
        except (OSError, TimeoutError) as error:
            causes.append(f"{address.strip()}: {_root(error)}")
        else:
            await stream.aclose()
            return None
    return "; ".join(causes)


def _root(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error) or "no answer"


def _text(path: object) -> str | None:
    return None if path is None else str(path)


def password(settings: KafkaConnection) -> str | None:
    if settings.password_file is not None:
        try:
            return settings.password_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            message = f"expected a file with the password, found: {error}; check the path and the rights of this user"
            raise ConfigError([Problem("password_file", message)]) from None
    return None if settings.password is None else settings.password.get_secret_value()
