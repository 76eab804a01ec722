"""What every Kafka client of ours shares: the way to the first connection, the patience with a broker that is away, the password."""

from __future__ import annotations

import logging

import anyio

from streamfuse.config import KafkaConnection
from streamfuse.errors import ConfigError, Problem

DEFAULT_PORT = 9092
FIRST_DELAY = 0.25
LONGEST_DELAY = 5.0  # seconds between two attempts
CLIENT_ID = "streamfuse"

log = logging.getLogger(__name__)


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


def password(settings: KafkaConnection) -> str | None:
    """Raises ConfigError where the password file can't be read."""
    if settings.password_file is not None:
        try:
            return settings.password_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            message = f"expected a file with the password, found: {error}; check the path and the rights of this user"
            raise ConfigError([Problem("password_file", message)]) from None
    return None if settings.password is None else settings.password.get_secret_value()


def _root(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error) or "no answer"
