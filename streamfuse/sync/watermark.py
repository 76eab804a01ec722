"""Watermarks: how far each stream of a key has come, and how far the key has.

Waiting is counted on a clock of its own that runs only while the owner waits for input (rule 6), so that a slow model never makes a stream
idle. All times are ns.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from streamfuse.ledger import Account
from streamfuse.sync.buffer import NEVER, Buffer
from streamfuse.sync.clock_doctor import ClockDoctor, ClockPolicy
from streamfuse.types import Absence

FOREVER = (1 << 63) - 1  # after any event time


@dataclass(frozen=True, slots=True)
class StreamPolicy:
    """How windows treat a stream.

    A window exists where a `required` stream has a packet, and waits for each of them until its watermark, its idle timeout or the hold
    lets it go; an optional stream joins if it is there. `max_out_of_orderness` is how far a stream's packets may lie behind its newest;
    `idle_timeout` (None: never) how long it may be silent and still hold the watermark; `lag` a constant by which its event times are
    too late. All in ns.
    """

    required: bool = True
    max_out_of_orderness: int = 0
    idle_timeout: int | None = None
    lag: int = 0

    def __post_init__(self) -> None:
        if self.max_out_of_orderness < 0 or (self.idle_timeout is not None and self.idle_timeout < 0):
            raise ValueError("max_out_of_orderness and idle_timeout must not be negative")


class StreamState:
    """What has happened in one stream of one key."""

    __slots__ = (
        "account",
        "active_at",
        "allowance",
        "buffer",
        "doctor",
        "finished",
        "idle_timeout",
        "lag",
        "marks",
        "max_out_of_orderness",
        "name",
        "newest",
        "required",
        "watermark",
    )

    def __init__(self, name: str, policy: StreamPolicy, clock: ClockPolicy, allowance: int, account: Account, now: int) -> None:
        self.name = name
        self.required = policy.required
        self.max_out_of_orderness = policy.max_out_of_orderness
        self.idle_timeout = policy.idle_timeout
        self.lag = policy.lag
        self.allowance = allowance
        self.account = account
        self.watermark = NEVER
        self.newest = NEVER
        self.active_at = now
        self.finished = False
        self.buffer = Buffer()
        self.doctor = ClockDoctor(clock)
        self.marks: list[tuple[int, int, Absence]] = []

    def idle(self, now: int) -> bool:
        return self.finished or (self.idle_timeout is not None and now - self.active_at >= self.idle_timeout)

    def absence(self, start: int, end: int, now: int) -> Absence:
        """Why a window that closes now has nothing of this stream."""
        for low, high, reason in reversed(self.marks):
            if low < end and high > start:
                return reason
        if self.newest >= end:
            return Absence.GAP
        if not self.required or self.newest == NEVER or self.idle(now):
            return Absence.IDLE
        return Absence.LATE


class Frontier:
    """The greatest event time that a key has seen, and when it got there: what `max_hold` is counted from.

    While nothing comes, event time is carried forward by the waiting clock, so that no new packet is needed to close a window (rule 7).
    """

    __slots__ = ("_passed", "at", "time")

    def __init__(self) -> None:
        self.time = NEVER
        self.at = 0
        self._passed: deque[tuple[int, int]] = deque()

    def reach(self, time: int, now: int) -> None:
        if time > self.time:
            self.time = time
            self.at = now
            if self._passed and self._passed[-1][1] == now:
                self._passed[-1] = (time, now)
            else:
                self._passed.append((time, now))

    def when(self, time: int) -> int:
        """When this event time was, or is expected to be, reached."""
        for reached, at in self._passed:
            if reached >= time:
                return at
        return self.at + time - self.time

    def at_time(self, then: int) -> int:
        """The event time that had been reached by `then`, carried forward where nothing came since."""
        if then >= self.at:
            return self.time + then - self.at
        reached = NEVER
        for time, at in self._passed:
            if at > then:
                break
            reached = time
        return reached

    def forget(self, time: int) -> None:
        """Event times up to this are not asked for again."""
        while len(self._passed) > 1 and self._passed[0][0] <= time:
            self._passed.popleft()


def watermark(streams: Iterable[StreamState], now: int) -> int | None:
    """The least watermark over the required streams that are not idle; None when all of them are."""
    least = None
    for stream in streams:
        if not stream.required or stream.finished:
            continue
        if stream.idle_timeout is not None and now - stream.active_at >= stream.idle_timeout:
            continue
        own = stream.watermark + stream.allowance
        if least is None or own < least:
            least = own
    return least
