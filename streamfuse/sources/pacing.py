"""Where a recording's time begins, and when its instants are due."""

from __future__ import annotations

from streamfuse.config import Pace
from streamfuse.documents import parse_time
from streamfuse.errors import InvalidRecord, SourceError
from streamfuse.interfaces import Clock


class Pacer:
    """The first instant asked for is due at once, each later one as long after it as their distance says.

    It counts on the monotonic clock, so that NTP neither stops nor hurries the playback. Who falls behind catches up.
    """

    def __init__(self, pace: Pace, clock: Clock) -> None:
        self._clock = clock
        self._full = pace == "full"
        self._offset: int | None = None

    def wait(self, instant: int) -> int:
        """ns until `instant` is due; 0 where it is due already."""
        if self._full:
            return 0
        now = self._clock.monotonic()
        if self._offset is None:
            self._offset = now - instant
        return max(0, instant + self._offset - now)


def origin(start: str, clock: Clock) -> int:
    """The event time (ns UTC) of a recording's first instant by the setting `start`: `now`, `file` (0, which is 1970)
    or an RFC 3339 instant. Raises SourceError for anything else."""
    if start == "now":
        return clock.now()
    if start == "file":
        return 0
    try:
        return parse_time(start)
    except InvalidRecord as error:
        raise SourceError(f"start: expected now, file or an instant; {error}") from None
