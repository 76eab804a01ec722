"""Finds out when a producer's clock has been set, from nothing but the packets, and takes the step out again.

A packet's *offset* is its arrival time less its event time. It wanders with the network, but it steps only when somebody sets a clock. A
change greater than `step` is a suspicion; it is confirmed when it lasts for `confirm` of arrival time. Suspects wait until then, so that a
step forward does not push the watermark ahead, and a lone absurd stamp is told from a clock that was set. A burst after an outage is not
taken for a step: its packets arrive all at once, so that nothing lasts.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal

from streamfuse.sync.buffer import Entry
from streamfuse.types import SECOND, Packet


@dataclass(frozen=True, slots=True)
class ClockPolicy:
    """What counts as a step, how long it must last, which stamps are never believed, and what to do. Times in ns.

    `reanchor` moves the event times of a set clock back to where they were; `quarantine` refuses its packets until it is back;
    `trust` believes every stamp.
    """

    step: int = SECOND
    confirm: int = SECOND // 2
    max_error: int = 24 * 3600 * SECOND
    policy: Literal["reanchor", "quarantine", "trust"] = "reanchor"


class Verdict(Enum):
    GOOD = "good"
    SUSPECT = "suspect"
    ABSURD = "absurd"


class ClockDoctor:
    """The clock of one stream of one key. `examine` each packet; `keep` a suspect until it is told what it was."""

    __slots__ = ("_first", "_last", "_offset", "_policy", "shift", "suspects")

    def __init__(self, policy: ClockPolicy) -> None:
        self._policy = policy
        self._offset: int | None = None
        self._first = self._last = 0
        self.suspects: list[Entry] = []
        self.shift = 0
        """What is added to event times since the last step that was re-anchored; 0 before any."""

    def examine(self, packet: Packet) -> Verdict:
        offset = packet.arrival_time - packet.event_time
        policy = self._policy
        if self._offset is not None and -policy.step <= offset - self._offset <= policy.step:
            self._offset = offset
            return Verdict.GOOD
        if policy.policy == "trust":
            return Verdict.GOOD
        if not -policy.max_error <= offset <= policy.max_error:
            return Verdict.ABSURD
        if self._offset is None:
            self._offset = offset
            return Verdict.GOOD
        return Verdict.SUSPECT

    def agrees(self, packet: Packet) -> bool:
        """Whether a suspect tells the same offset as the suspects before it. If not, those were no step: `release` them first."""
        offset = packet.arrival_time - packet.event_time
        return not self.suspects or abs(offset - self._first) <= self._policy.step // 2

    def keep(self, entry: Entry) -> bool:
        """Keep a suspect. True when the suspects make a step."""
        packet = entry.packet
        offset = packet.arrival_time - packet.event_time
        if not self.suspects:
            self._first = offset
        self._last = offset
        self.suspects.append(entry)
        lasted = packet.arrival_time - self.suspects[0].packet.arrival_time
        return len(self.suspects) >= 3 and lasted >= self._policy.confirm

    def confirm(self) -> None:
        """The suspects made a step. Under `reanchor` the shift changes by it; under `quarantine` the clock stays what it was."""
        if self._policy.policy == "reanchor" and self._offset is not None:
            self.shift += self._last - self._offset
            self._offset = self._last

    @property
    def refuses(self) -> bool:
        """Whether packets of a stepped clock are refused."""
        return self._policy.policy == "quarantine"

    def is_ahead(self, packet: Packet) -> bool:
        """Whether a stamp lies in the future of what the stream's clock says (a packet with an earlier one is only delayed)."""
        return self._offset is not None and packet.arrival_time - packet.event_time < self._offset

    def release(self) -> list[Entry]:
        """Hand the suspects back, in order of arrival."""
        suspects, self.suspects = self.suspects, []
        return suspects
