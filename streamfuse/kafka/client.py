"""What every Kafka client of ours shares: its name, and the patience with a broker that is away."""

from __future__ import annotations

import logging
from collections.abc import Sequence

DEFAULT_PORT = 9092
FIRST_DELAY = 0.25
LONGEST_DELAY = 5.0  # seconds between two attempts
CLIENT_ID = "streamfuse"

log = logging.getLogger(__name__)


def missing(topics: Sequence[str], bootstrap: str) -> str:
    """What to say of topics that are not there, with the commands that create them."""
    named = f"topic{'s' if len(topics) > 1 else ''} {', '.join(topics)}"
    return (
        f"expected {named} at {bootstrap}, found none; `streamfuse topics create CONFIG` creates what a config needs, or"
        f" kafka-topics.sh --bootstrap-server {bootstrap} --create --topic {topics[0]}, or the daemon itself with `topics: create`"
    )


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
