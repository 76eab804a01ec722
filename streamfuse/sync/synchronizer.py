"""The synchronizer: packets in, windows out; a pure state machine that keeps the eleven rules of time.

It reads no clock, starts nothing and waits for nothing. Time comes in with the packets (event time, arrival time) and through
`elapse` (time spent waiting for input). The same calls give the same windows.

A stream's own watermark decides what is in time for a window, not what the other streams happened to have sent by then: that is what
makes the windows independent of how the streams interleave (rule 4).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from typing import cast

from streamfuse.ledger import Ledger
from streamfuse.sync.buffer import NEVER, Entry
from streamfuse.sync.clock_doctor import ClockPolicy, Verdict
from streamfuse.sync.key import Key, Partition, Rules
from streamfuse.sync.open_windows import Span
from streamfuse.sync.watermark import FOREVER, StreamPolicy, StreamState, watermark
from streamfuse.sync.windows import Shape
from streamfuse.types import (
    SECOND,
    Absence,
    Cursor,
    Item,
    Loss,
    Offsets,
    Outcome,
    Packet,
    Payload,
    Position,
    Resume,
    Revoke,
    Stage,
    Window,
)

MAX_DURATION = 3600 * SECOND
MAX_INSTANT = 1 << 62  # ns before and after 1970: the years 1824 to 2116, well within what stands for never and for ever
REPLAY = 60 * SECOND  # after so much waiting, records of the last run that are not back are gone (retention), not on their way
_REFUSED = (Outcome.UNDECODABLE, Outcome.QUARANTINED)
_ABSENCE_BY_LOSS = {
    Outcome.SHED: Absence.SHED,
    Outcome.UNDECODABLE: Absence.UNDECODABLE,
    Outcome.QUARANTINED: Absence.CLOCK,
    Outcome.LATE: Absence.LATE,
}


class Synchronizer:
    """Aligns packets by event time into windows, per key.

    `streams` names every stream with its policy; at least one is required. `max_hold` (ns, None: no bound) is how long a window may wait
    for input after its end. `allowed_lateness` (ns) is how long a closed window may still be revised. `forget_after` (ns of waiting) is
    when a silent key is forgotten. With `side_output`, what did not get into a window is kept for `take_losses`.

    Raises ValueError for settings that can't work.
    """

    def __init__(
        self,
        streams: Mapping[str, StreamPolicy],
        windows: Shape,
        *,
        max_hold: int | None = None,
        allowed_lateness: int = 0,
        forget_after: int = 3600 * SECOND,
        clock: ClockPolicy | None = None,
        side_output: bool = False,
    ) -> None:
        if not any(policy.required for policy in streams.values()):
            raise ValueError("at least one stream must be required: without one, no watermark ever closes a window")
        primary = windows.primary
        if primary is not None and not (primary in streams and streams[primary].required):
            raise ValueError(f"the primary stream {primary!r} must be one of the streams, and required")
        if allowed_lateness < 0 or (max_hold is not None and max_hold < 0):
            raise ValueError("allowed_lateness and max_hold must not be negative")
        self._policies = dict(streams)
        self._shape = windows
        required = (name for name, policy in streams.items() if policy.required)
        self._makers = frozenset(required) if primary is None else frozenset((primary,))
        self._bounded = windows.bounded
        self._rules = Rules(max_hold, allowed_lateness, max(policy.max_out_of_orderness for policy in streams.values()))
        self._lateness = allowed_lateness
        self._forget_after = forget_after
        self._clock_policy = clock or ClockPolicy()
        self._side_output = side_output
        self._losses: list[Loss] = []
        self._keys: dict[str, Key] = {}
        self._partitions: dict[str, Partition] = {}
        self._finished: set[str] = set()
        self._now = 0  # time spent waiting for input
        self._deadlines: list[tuple[int, str]] = []
        self._replaying = False
        self._resumed_at = 0
        self._withheld: dict[str, None] = {}  # keys with output since the last cursor
        self._unscheduled: dict[str, Key] = {}  # their deadlines are worked out when somebody waits
        self._forgotten: dict[str, None] = {}
        self._forget_at = forget_after
        self.ledger = Ledger(tuple(streams))
        self.clock_steps = 0

    # --- what comes in ---------------------------------------------------------------------------------------------------------------

    def add(self, stream: str, event_time: int, payload: object = None, *, key: str = "", duration: int = 0) -> list[Window]:
        """`push` for those who only align: a packet without a history, of any payload. Returns the windows that it closes."""
        return self.push(Packet(stream, key, event_time, duration, cast(Payload, payload), _NOWHERE, event_time))

    def push(self, item: Item) -> list[Window]:
        """Take in what a source yields, and return the windows that are complete by it, in order."""
        if not isinstance(item, Packet):
            return self.push_all((item,))
        out: list[Window] = []
        key = self._packet(item, out)
        if key is not None:
            self._advance(key, out)
            self._unscheduled[key.name] = key
        return out

    def push_all(self, items: Iterable[Item]) -> list[Window]:
        """`push` for items that are here at the same time: the windows are worked out once, after the last of them."""
        out: list[Window] = []
        touched: dict[str, Key] = {}
        for item in items:
            if isinstance(item, Packet):
                key = self._packet(item, out)
                if key is not None:
                    touched[key.name] = key
            elif isinstance(item, Loss):
                self._lost(item)
            else:
                self._advance_all(touched, out)
                touched.clear()
                if isinstance(item, Resume):
                    self._resume(item.cursor)
                else:
                    self._revoke(item)
        self._advance_all(touched, out)
        return out

    def elapse(self, waited: int) -> list[Window]:
        """`waited` ns were spent waiting for input in vain. Returns the windows that waited long enough.

        Only time in which nothing could be waiting to be read counts: not our own work, not a paused partition.
        """
        self._schedule_all()
        self._now += waited
        out: list[Window] = []
        while self._deadlines and self._deadlines[0][0] <= self._now:
            at, name = heapq.heappop(self._deadlines)
            key = self._keys.get(name)
            if key is None or key.scheduled != at:
                continue
            key.scheduled = FOREVER
            self._advance(key, out)
            self._schedule(key)
        if self._replaying and self._now - self._resumed_at >= REPLAY:
            self._caught_up(out)
        if self._now >= self._forget_at:
            self._forget()
        return out

    def until_next(self) -> int | None:
        """After how much more waiting something would happen; None: nothing would."""
        self._schedule_all()
        while self._deadlines:
            at, name = self._deadlines[0]
            key = self._keys.get(name)
            if key is not None and key.scheduled == at:
                return max(0, at - self._now)
            heapq.heappop(self._deadlines)
        return None

    def finish(self, stream: str | None = None, key: str | None = None) -> list[Window]:
        """The input has ended (rule 9): of one stream, of one stream of one key, or altogether. Returns the windows that this closes."""
        if key is None:
            self._finished.update(self._policies if stream is None else (stream,))
        out: list[Window] = []
        if stream is None and key is None:
            self._caught_up(out)
        for state in [k for k in self._keys.values() if key is None or k.name == key]:
            for ended in state.streams.values():
                if stream is None or ended.name == stream:
                    self._settle_suspects(state, ended, out)
                    ended.finished = True
            self._advance(state, out)
            self._unscheduled[state.name] = state
        return out

    # --- what can be asked -----------------------------------------------------------------------------------------------------------

    def cursor(self) -> Cursor:
        """Where to resume if everything up to now is durable; empty while revisions wait for the end of a replay."""
        if self._withholding:
            return Cursor()
        return Cursor(
            {name: partition.offsets() for name, partition in self._partitions.items()},
            {name: key.floor for name, key in self._keys.items() if key.floor > NEVER},
        )

    def take_losses(self) -> list[Loss]:
        """Late, duplicate and quarantined packets since the last call (with `side_output`)."""
        losses, self._losses = self._losses, []
        return losses

    @property
    def keys(self) -> int:
        return len(self._keys)

    def buffered(self) -> dict[str, int]:
        """Packets per stream that open windows may still need."""
        counts = dict.fromkeys(self._policies, 0)
        for key in self._keys.values():
            for stream in key.streams.values():
                counts[stream.name] += len(stream.buffer) + len(stream.doctor.suspects)
        return counts

    def watermarks(self) -> dict[str, dict[str, int]]:
        """The watermark (ns of event time) of each stream of each key that has one."""
        return {key.name: {s.name: s.watermark for s in key.streams.values() if s.watermark > NEVER} for key in self._keys.values()}

    def furthest(self) -> dict[str, int]:
        """Per stream its greatest watermark over all keys (ns of event time)."""
        furthest: dict[str, int] = {}
        for key in self._keys.values():
            for stream in key.streams.values():
                if stream.watermark > furthest.get(stream.name, NEVER):
                    furthest[stream.name] = stream.watermark
        return furthest

    def unaccounted(self) -> dict[str, int]:
        """Per stream, the packets that the ledger can't account for: all 0, always (rule 11)."""
        buffered = self.buffered()
        return {stream: account.received - account.settled() - buffered.get(stream, 0) for stream, account in self.ledger.accounts.items()}

    # --- packets ---------------------------------------------------------------------------------------------------------------------

    def _packet(self, packet: Packet, out: list[Window]) -> Key | None:
        """Take a packet in. Returns its key, where that may have come further by it."""
        name = packet.key
        key = self._keys.get(name)
        stream = None if key is None else key.streams.get(packet.stream)
        if stream is None and packet.stream not in self._policies:
            known = ", ".join(self._policies)
            self._lost(
                _loss(
                    packet,
                    Outcome.QUARANTINED,
                    f"expected one of the streams {known}, found {packet.stream!r}; add it to sync.streams",
                )
            )
            return None
        if key is None or stream is None:
            key = self._open(name)
            stream = key.streams[packet.stream]
        stream.account.received += 1
        stream.active_at = key.touched = self._now

        entry = Entry(packet)
        where, offset = packet.position
        if offset >= 0:
            partition = key.partitions.get(where) or self._partition(key, where)
            if offset < partition.next:
                self._settle(stream, entry, Outcome.DUPLICATE, f"offset {offset} of {where} was read before")
                return None
            partition.next = offset + 1
            partition.pending.append((offset, entry))
            entry.silent = offset < partition.replayed

        doctor = stream.doctor
        verdict = doctor.examine(packet)
        if verdict is Verdict.GOOD:
            if doctor.suspects:
                self._settle_suspects(key, stream, out)
            self._admit(key, stream, entry, out)
        elif verdict is Verdict.ABSURD:
            self._mark(key, stream, packet.arrival_time, packet.arrival_time + 1, Absence.CLOCK)
            error = (packet.event_time - packet.arrival_time) / SECOND
            self._settle(
                stream,
                entry,
                Outcome.QUARANTINED,
                f"expected an event time near the arrival time, found one {error:+.0f} s away; "
                "set the producer's clock, or raise sync.clock.max_error",
            )
        else:
            if not doctor.agrees(packet):
                self._settle_suspects(key, stream, out)
            if doctor.keep(entry):
                doctor.confirm()
                self.clock_steps += 1
                for suspect in doctor.release():
                    if doctor.refuses:
                        self._refuse(key, stream, suspect)
                    else:
                        self._admit(key, stream, suspect, out)
        if self._replaying and all(partition.next >= partition.replayed for partition in self._partitions.values()):
            self._caught_up(out)
        return key

    def _admit(self, key: Key, stream: StreamState, entry: Entry, out: list[Window]) -> None:
        """A packet whose clock is believed: into the buffer, and into the windows that are open to it."""
        packet = entry.packet
        silent = entry.silent
        shift = stream.doctor.shift - stream.lag
        if shift:
            packet = entry.packet = _shifted(packet, shift)
        start = packet.event_time
        duration = packet.duration
        if not 0 <= duration <= MAX_DURATION:
            self._settle(
                stream,
                entry,
                Outcome.QUARANTINED,
                f"expected a duration of 0 s to 3600 s, found {duration / SECOND:.3f} s",
            )
            return
        if not -MAX_INSTANT <= start <= MAX_INSTANT:
            self._settle(
                stream,
                entry,
                Outcome.QUARANTINED,
                f"expected an event time within the years 1824 to 2116, found {start} ns since 1970; set the producer's clock",
            )
            return
        stop = entry.stop = start + (duration or 1)
        if start <= stream.newest and stream.buffer.holds(packet):
            self._settle(stream, entry, Outcome.DUPLICATE, f"packet {packet.id or start} was received before")
            return

        closed = stream.watermark + stream.allowance
        if not silent and key.floor > closed:
            closed = key.floor
        if start > stream.newest:
            stream.newest = start
            mark = start - stream.max_out_of_orderness
            if mark > stream.watermark:
                stream.watermark = mark
        if start > key.frontier.time:
            key.frontier.reach(start, self._now)

        windows = key.windows
        # A packet between the windows is still needed until the watermark has passed it: it tells which packets after it are late.
        last = windows.last_end(stream.name, start, stop)
        if last <= start:
            last = start + 1
        entry.last = last
        lateness = self._lateness
        if silent and last <= key.restored - lateness:
            self._settle(stream, entry, Outcome.DUPLICATE, "it was accounted for before the restart")
            return
        if last <= closed - lateness:
            self._mark(key, stream, start, stop, Absence.LATE)
            self._settle(
                stream,
                entry,
                Outcome.LATE,
                f"it came when the stream was {(closed - start) / SECOND:.3f} s past it; "
                f"raise {stream.name}'s max_out_of_orderness, or allowed_lateness",
            )
            return
        if last > closed and stream.required:
            if silent and last <= key.restored:
                windows.restore(stream.name, max(start, closed), stop)
            else:
                windows.add(stream.name, start, stop, max(closed, key.floor))
        disordered = last <= closed or closed - stream.allowance > start
        if disordered:
            entry.admit = closed
            self._mark(key, stream, start, stop, Absence.LATE)
        if silent and start < key.restored:
            entry.used = True
        stream.buffer.insert(entry)
        if last < key.due:
            key.due = last
        if lateness and disordered:
            key.disordered = True
            self._revise(key, stream, entry, closed, out)

    def _revise(self, key: Key, stream: StreamState, entry: Entry, closed: int, out: list[Window]) -> None:
        """A packet came late, but within the allowed lateness: the closed windows that it belongs to get a further revision."""
        packet = entry.packet
        start, stop, oldest = packet.event_time, entry.stop, closed - self._lateness
        if stream.required and self._bounded:  # a late packet never changes the bounds of a session
            key.windows.add(stream.name, start, stop, max(oldest, key.floor))
        spans = key.windows.reopen(stream.name, start, stop, oldest, closed)
        published = key.restored if entry.silent else NEVER  # before the restart
        spans = [span for span in spans if published < span[1] <= key.floor]
        if self._replaying:
            key.deferred.update(dict.fromkeys(spans))  # what else these windows hold may not have been read again yet
            return
        windows = [(span, *key.gather(span, self._lateness, self._now)) for span in spans]
        # With `nearest`, a late packet may be no nearer to the anchor than what the window has.
        revised = [window for window in windows if packet in window[1].get(stream.name, ()) and self._exists(window[1])]
        for span, packets, absent, late in revised:
            cursor = self._cursor(key) if span == revised[-1][0] else None
            out.append(Window(key.name, *span, packets, absent, late, cursor))

    def _caught_up(self, out: list[Window]) -> None:
        """Everything that was read before the restart has been read again: publish the revisions that waited for it."""
        self._replaying = False
        revised = [(key, span) for key in self._keys.values() for span in key.deferred]
        self._withheld.update(dict.fromkeys(key.name for key, _ in revised))
        for key, span in revised:
            packets, absent, late = key.gather(span, self._lateness, self._now)
            is_last = (key, span) == revised[-1]
            out.append(Window(key.name, *span, packets, absent, late, self._cursor(key) if is_last else None))
        for key, _ in revised:
            key.deferred.clear()

    # --- windows ---------------------------------------------------------------------------------------------------------------------

    def _advance_all(self, keys: Mapping[str, Key], out: list[Window]) -> None:
        for key in keys.values():
            self._advance(key, out)
        self._unscheduled.update(keys)

    def _advance(self, key: Key, out: list[Window]) -> None:
        """Close what the watermark or the waiting has completed, and release what nothing needs any more."""
        least = watermark(key.required, self._now)
        floor = key.floor
        reach = key.reach(least, self._rules, self._now)
        upcoming = key.windows.next_end()
        if upcoming is not None and upcoming <= reach:
            for span in key.windows.due(reach):
                self._close(key, span, out)
            floor = key.floor
        if self._bounded or reach == FOREVER:
            if self._bounded and least is not None and least > floor:
                key.floor = least
            if key.due <= reach - self._lateness:
                self._release(key, reach)

    def _close(self, key: Key, span: Span, out: list[Window]) -> None:
        """The window has come to its end. What came late, but before this, is in a revision that follows at once."""
        packets, absent, late = key.gather(span, self._lateness if key.disordered else 0, self._now)
        first = key.gather(span, 0, self._now)[:2] if late else (packets, absent)
        if span[1] > key.floor:
            key.floor = span[1]
        if key.due <= key.floor - self._lateness:
            self._release(key, key.floor)
        if late and first[0] != packets and self._exists(packets):
            if self._exists(first[0]):
                out.append(Window(key.name, *span, *first))
            out.append(Window(key.name, *span, packets, absent, late, self._cursor(key)))
        elif self._exists(first[0]):
            out.append(Window(key.name, *span, *first, 0, self._cursor(key)))

    def _exists(self, packets: Mapping[str, tuple[Packet, ...]]) -> bool:
        """Whether there is a window: it takes a packet of the primary stream, or of any required one. Optional streams only join."""
        return not self._makers.isdisjoint(packets)

    @property
    def _withholding(self) -> bool:
        """While records are read again, a window may close before the late packets that revise it are back. A cursor past it would tell
        the next run that they had revised it."""
        return self._replaying and self._lateness > 0

    def _cursor(self, key: Key) -> Cursor | None:
        """What of the cursor the windows since the last one have changed."""
        self._withheld[key.name] = None
        if self._withholding:
            return None
        moved = [self._keys[name] for name in self._withheld if name in self._keys]
        self._withheld.clear()
        offsets = {name: partition.offsets() for one in moved for name, partition in one.partitions.items()}
        watermarks: dict[str, int | None] = {one.name: one.floor for one in moved}
        if self._forgotten:
            watermarks = {**dict.fromkeys(self._forgotten), **watermarks}
            self._forgotten.clear()
        return Cursor(offsets, watermarks)

    def _release(self, key: Key, reach: int) -> None:
        for stream, entry in key.release(reach, self._lateness):
            self._settle(stream, entry, Outcome.LATE, "the windows that it belongs to were closed to it when it came")

    def _schedule_all(self) -> None:
        for name, key in self._unscheduled.items():
            if self._keys.get(name) is key:
                self._schedule(key)
        self._unscheduled.clear()

    def _schedule(self, key: Key) -> None:
        """Note when waiting alone would close this key's next window."""
        at = key.deadline(self._rules)
        if at < FOREVER:
            at = max(at, self._now + 1)
            if at != key.scheduled:
                heapq.heappush(self._deadlines, (at, key.name))
        key.scheduled = at

    # --- outcomes --------------------------------------------------------------------------------------------------------------------

    def _settle(self, stream: StreamState, entry: Entry, outcome: Outcome, detail: str) -> None:
        """A packet that no window will get."""
        entry.done = True
        self.ledger.count(stream.name, outcome)
        if self._side_output:
            self._losses.append(_loss(entry.packet, outcome, detail))

    def _lost(self, loss: Loss) -> None:
        """A record that its source could not make a packet of, or gave up.

        One that is read again after a restart is counted again, but was told before: the cursor that says so followed the telling.
        """
        account = self.ledger.account(loss.stream)
        account.received += 1
        self.ledger.count(loss.stream, loss.reason)
        told = False
        if loss.position is not None and loss.position.offset >= 0:
            partition = self._partitions.get(loss.position.partition)
            if partition is None:
                partition = self._partitions[loss.position.partition] = Partition(Offsets(loss.position.offset, 0))
            partition.next = max(partition.next, loss.position.offset + 1)
            told = loss.position.offset < partition.replayed and loss.reason in _REFUSED
        key = self._keys.get(loss.key)
        if key is not None and loss.event_time is not None and loss.stream in key.streams:
            reason = _ABSENCE_BY_LOSS.get(loss.reason)
            if reason is not None:
                self._mark(key, key.streams[loss.stream], loss.event_time, loss.event_time + 1, reason)
        if self._side_output and not told:
            self._losses.append(loss)

    def _settle_suspects(self, key: Key, stream: StreamState, out: list[Window]) -> None:
        """The stream's clock was not set after all: its suspects were delayed, or wrongly stamped."""
        for entry in stream.doctor.release():
            if stream.doctor.is_ahead(entry.packet):
                self._refuse(key, stream, entry)
            else:
                self._admit(key, stream, entry, out)

    def _refuse(self, key: Key, stream: StreamState, entry: Entry) -> None:
        packet = entry.packet
        self._mark(key, stream, packet.arrival_time, packet.arrival_time + 1, Absence.CLOCK)
        ahead = (packet.event_time - packet.arrival_time) / SECOND
        self._settle(
            stream,
            entry,
            Outcome.QUARANTINED,
            f"its event time is {ahead:+.3f} s from its arrival, unlike the packets around it; see sync.clock",
        )

    @staticmethod
    def _mark(key: Key, stream: StreamState, start: int, stop: int, reason: Absence) -> None:
        if len(stream.marks) < 1000:
            stream.marks.append((start, stop, reason))
            key.due = min(key.due, stop)

    # --- keys and partitions ---------------------------------------------------------------------------------------------------------

    def _open(self, name: str) -> Key:
        streams = {
            stream: StreamState(
                stream,
                policy,
                self._clock_policy,
                self._shape.allowance(stream),
                self.ledger.account(stream),
                self._now,
            )
            for stream, policy in self._policies.items()
        }
        for stream in self._finished:
            streams[stream].finished = True
        key = self._keys[name] = Key(name, streams, self._shape, self._now)
        return key

    def _partition(self, key: Key, name: str) -> Partition:
        partition = self._partitions.get(name)
        if partition is None:
            partition = self._partitions[name] = Partition(Offsets(-1, 0))
        key.partitions[name] = partition
        return partition

    def _resume(self, cursor: Cursor) -> None:
        self._replaying = True
        self._resumed_at = self._now
        for name, offsets in cursor.offsets.items():
            self._partitions[name] = Partition(offsets)
        for name, floor in cursor.watermarks.items():
            if floor is not None:
                key = self._keys.get(name) or self._open(name)
                key.floor = key.restored = max(key.floor, floor)

    def _revoke(self, revoke: Revoke) -> None:
        for key in [k for k in self._keys.values() if not revoke.partitions.isdisjoint(k.partitions)]:
            for stream in key.streams.values():
                for entry in [*stream.buffer.all(), *stream.doctor.release()]:
                    entry.done = True
                    stream.account.revoked += 1
            del self._keys[key.name]
        for name in revoke.partitions:
            self._partitions.pop(name, None)

    def _forget(self) -> None:
        """Keys that were silent for long are forgotten, so that keys that come and go don't fill the memory."""
        before = self._now - self._forget_after
        for key in [k for k in self._keys.values() if k.touched <= before]:
            if not any(len(s.buffer) or s.doctor.suspects for s in key.streams.values()):
                del self._keys[key.name]
                self._forgotten[key.name] = None
        self._forget_at = self._now + max(1, self._forget_after // 10)


_NOWHERE = Position("", -1)


def _loss(packet: Packet, reason: Outcome, detail: str) -> Loss:
    return Loss(packet.stream, packet.key, reason, detail, packet.position, packet.event_time, packet, packet.original, Stage.SYNCHRONIZE)


def _shifted(packet: Packet, shift: int) -> Packet:
    return Packet(
        packet.stream,
        packet.key,
        packet.event_time + shift,
        packet.duration,
        packet.payload,
        packet.position,
        packet.arrival_time,
        packet.id,
        packet.original,
    )
