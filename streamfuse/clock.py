"""The only place where time is read."""

from __future__ import annotations

import time


class SystemClock:
    """The machine's clock. `now` is UTC and may jump with NTP; `monotonic` never goes back and is for durations only. Both in ns."""

    def now(self) -> int:
        return time.time_ns()

    def monotonic(self) -> int:
        return time.monotonic_ns()
