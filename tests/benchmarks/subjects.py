"""StreamFuse and its alternatives under one harness: each pairs every video frame with the audio chunk nearest to it.

`live` runs follow the simulated arrival times: between two records each system is told how long nothing came. Backlog runs take the records
as fast as they can be read, as after a restart.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from prometheus_client import generate_latest

from streamfuse import MILLISECOND, SECOND, Anchored, Packet, Position, StreamPolicy, Synchronizer, Window
from streamfuse.metrics import Metrics
from streamfuse.sync.windows import Shape
from tests.benchmarks.workload import Decision, Outcome, Record, Workload

SCRAPE = 15 * SECOND
EPOCH = 1_790_000_000  # s; any instant will do


class StreamFuse:
    """Our synchronizer with anchored windows, as an application would set it for this workload.

    The ledger and the cursor are always kept. With `metrics`, every window is counted as the daemon counts it, and all metrics are scraped
    every 15 s of arrival time.
    """

    def __init__(
        self,
        *streams: str,
        live: bool = True,
        batch: int = 1,
        max_out_of_orderness: int = 40 * MILLISECOND,
        max_hold: int | None = 40 * MILLISECOND,
        allowed_lateness: int = 2500 * MILLISECOND,
        metrics: bool = False,
        windows: Shape = Anchored("video", tolerance=round(Workload.TOLERANCE * SECOND)),  # noqa: B008 - a frozen value
    ) -> None:
        self._policies = {s: StreamPolicy(max_out_of_orderness=max_out_of_orderness) for s in streams}
        self._live = live
        self._batch = batch
        self._max_hold = max_hold
        self._allowed_lateness = allowed_lateness
        self._metrics = metrics
        self._windows = windows

    def prepare(self, records: Sequence[Record]) -> list[Packet]:
        offsets = dict.fromkeys((r.stream for r in records), 0)
        packets = []
        for r in records:
            position = Position(r.stream, offsets[r.stream])
            offsets[r.stream] += 1
            packets.append(Packet(r.stream, "room", _ns(r.event_time), 0, str(r.sequence), position, _ns(r.arrival_time)))
        return packets

    def run(self, prepared: Any) -> Outcome:
        packets: list[Packet] = prepared
        sync = Synchronizer(
            self._policies,
            self._windows,
            max_hold=self._max_hold,
            allowed_lateness=self._allowed_lateness,
        )
        decisions: dict[str, Decision] = {}
        metrics = _watched(sync) if self._metrics else None
        scrape = packets[0].arrival_time + SCRAPE

        def decide(windows: list[Window], now: int) -> None:
            for window in windows:
                if metrics is not None:
                    metrics.window(window)
                if self._windows.primary is None:
                    continue
                (frame,) = window.packets["video"]
                if frame.payload not in decisions:  # the first answer counts, not its revisions
                    chunk = window.packets.get("audio")
                    held = (now - frame.arrival_time) / SECOND
                    answer = None if chunk is None else int(str(chunk[0].payload))
                    decisions[str(frame.payload)] = Decision(int(str(frame.payload)), answer, held)

        now = packets[0].arrival_time
        for first in range(0, len(packets), self._batch):
            batch = packets[first : first + self._batch]
            arrival = batch[-1].arrival_time
            if self._live:
                while (upcoming := sync.until_next()) is not None and now + upcoming <= arrival:
                    now += upcoming
                    decide(sync.elapse(upcoming), now)
                if now < arrival:
                    decide(sync.elapse(arrival - now), arrival)
            now = arrival
            windows = sync.push(batch[0]) if self._batch == 1 else sync.push_all(batch)
            if windows:
                decide(windows, now)
            if metrics is not None and now >= scrape:
                generate_latest(metrics.registry)
                scrape += SCRAPE
        while self._live and (upcoming := sync.until_next()) is not None:
            now += upcoming
            decide(sync.elapse(upcoming), now)
        decide(sync.finish(), now)
        if any(sync.unaccounted().values()):
            raise AssertionError(f"the ledger does not balance: {sync.unaccounted()}")
        return Outcome(list(decisions.values()), {name: account.late for name, account in sync.ledger.accounts.items()})


class Bytewax:
    """Bytewax 0.21: `collect_window` over sliding windows that overlap by the tolerance on both sides, then the nearest chunk by hand.

    A frame is answered by the one window in whose middle (`hop` long) it lies, so that its neighbours are in the window too. Bytewax has
    one watermark for all streams of a key: the newest event time less `wait`, carried forward by the clock that it is given. Without
    `pair`, it only collects tumbling windows of `hop`.
    """

    def __init__(self, *, live: bool, batch: int, hop: float, wait: float = 0.150, pair: bool = True) -> None:
        self._dataflow: Any = importlib.import_module("bytewax.dataflow")
        self._op: Any = importlib.import_module("bytewax.operators")
        self._windowing: Any = importlib.import_module("bytewax.operators.windowing")
        self._testing: Any = importlib.import_module("bytewax.testing")
        self._live = live
        self._pair = pair
        self._batch = batch
        self._hop = timedelta(seconds=hop)
        self._wait = timedelta(seconds=wait)
        self._tolerance = timedelta(seconds=Workload.TOLERANCE)

    def prepare(self, records: Sequence[Record]) -> list[tuple[datetime, str, int, datetime]]:
        return [(_utc(r.arrival_time), r.stream, r.sequence, _utc(r.event_time)) for r in records]

    def run(self, prepared: Any) -> Outcome:
        op, windowing, testing = self._op, self._windowing, self._testing
        start = now = prepared[0][0]
        origin = _utc(0.0)
        late: dict[str, int] = {}
        out: list[Decision] = []

        def arriving() -> Iterator[tuple[str, Any]]:
            nonlocal now
            for record in prepared:
                now = record[0]
                yield "room", record

        def pair(item: Any) -> list[Decision]:
            _, (number, records) = item
            low = origin + number * self._hop + self._tolerance
            audio = [r for r in records if r[1] == "audio"]
            found = []
            for frame in records:
                if frame[1] == "video" and low <= frame[3] < low + self._hop:
                    nearest = min(audio, key=lambda r: abs(r[3] - frame[3]), default=None)
                    answer = nearest[2] if nearest and abs(nearest[3] - frame[3]) <= self._tolerance else None
                    found.append(Decision(frame[2], answer, (now - frame[0]).total_seconds()))
            return found

        def count_late(item: Any) -> Any:
            stream = item[1][1][1]
            late[stream] = late.get(stream, 0) + 1
            return item

        flow = self._dataflow.Dataflow("avt120")
        clock = windowing.EventClock(
            ts_getter=lambda record: record[3],
            wait_for_system_duration=self._wait,
            now_getter=(lambda: now) if self._live else (lambda: start),
            to_system_utc=lambda _: None,  # the machine's clock has no say in a simulation
        )
        if self._pair:
            shape = windowing.SlidingWindower(align_to=origin, length=self._hop + 2 * self._tolerance, offset=self._hop)
        else:
            shape = windowing.TumblingWindower(align_to=origin, length=self._hop)
        records = op.input("records", flow, testing.TestingSource(arriving(), self._batch))
        windows = windowing.collect_window("align", records, clock, shape)
        answers = op.flat_map("pair", windows.down, pair) if self._pair else windows.down
        op.output("answers", answers, testing.TestingSink(out))
        op.output("late", op.map("count", windows.late, count_late), testing.TestingSink([]))
        testing.run_main(flow)
        return Outcome(out if self._pair else [], late)


class Ros:
    """ROS 1's `message_filters.ApproximateTimeSynchronizer`, its messages given to it in order of arrival.

    It answers as soon as every queue has a message within the slop, nearest or not, and uses each message once; a frame that finds no
    partner is never answered.
    """

    def __init__(self, *streams: str, queue_size: int = 30) -> None:
        packages = "/usr/lib/python3/dist-packages"  # where Debian installs python3-message-filters
        if packages not in sys.path:
            sys.path.append(packages)
        self._filters: Any = importlib.import_module("message_filters")
        self._rospy: Any = importlib.import_module("rospy")
        self._rospy.rostime.set_rostime_initialized(True)
        self._streams = streams
        self._queue_size = queue_size

    def prepare(self, records: Sequence[Record]) -> list[tuple[int, Any]]:
        return [(self._streams.index(r.stream), _Message(self._rospy.Time.from_sec(EPOCH + r.event_time), r)) for r in records]

    def run(self, prepared: Any) -> Outcome:
        filters = [self._filters.SimpleFilter() for _ in self._streams]
        aligned = self._filters.ApproximateTimeSynchronizer(filters, self._queue_size, Workload.TOLERANCE)
        video, audio = self._streams.index("video"), self._streams.index("audio")
        out: list[Decision] = []
        now = 0.0

        def decide(*messages: _Message) -> None:
            frame = messages[video].record
            out.append(Decision(frame.sequence, messages[audio].record.sequence, now - frame.arrival_time))

        aligned.registerCallback(decide)
        for stream, message in prepared:
            now = message.record.arrival_time
            filters[stream].signalMessage(message)
        return Outcome(out)


class _Message:
    """What the synchronizer of ROS needs of a message: `header.stamp`."""

    __slots__ = ("header", "record", "stamp")

    def __init__(self, stamp: Any, record: Record) -> None:
        self.stamp = stamp
        self.header = self
        self.record = record


def _watched(sync: Synchronizer) -> Metrics:
    metrics = Metrics()
    metrics.watch(sync)
    return metrics


def _ns(seconds: float) -> int:
    return EPOCH * SECOND + round(seconds * SECOND)


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(EPOCH, UTC) + timedelta(seconds=seconds)
