"""Every metric: name, unit, labels and buckets. Packets are counted by the ledger and read at scrape time, so they cost nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from anyio.from_thread import run_sync
from anyio.lowlevel import EventLoopToken
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from streamfuse.clock import SystemClock
from streamfuse.interfaces import Clock
from streamfuse.sync import Synchronizer
from streamfuse.types import SECOND, Outcome, Prediction, Window

disable_created_metrics()  # type: ignore[no-untyped-call]

STAGE_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
LATENCY_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, 30.0, 60.0)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)
STAGES = ("synchronize", "prepare", "predict", "publish", "commit")


class Metrics:
    """The metrics of one daemon, in a registry of their own. The clock times the stages."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self.registry = CollectorRegistry()
        self._queues = _Queues()
        self.registry.register(self._queues)
        self._embeddings = _Embeddings()
        self.registry.register(self._embeddings)
        self._read: Callable[[Callable[[], _Snapshot]], _Snapshot] = lambda read: read()
        windows = Counter("streamfuse_windows", "Windows emitted", ["complete"], registry=self.registry)
        self._complete, self._incomplete = windows.labels("true"), windows.labels("false")
        self._absent = Counter(
            "streamfuse_windows_absent", "Windows without a stream, by why", ["stream", "reason"], registry=self.registry
        )
        self._absences: dict[tuple[str, str], Counter] = {}
        self._revisions = Counter("streamfuse_window_revisions", "Windows emitted again with late packets", registry=self.registry)
        self._stale = Counter(
            "streamfuse_windows_stale", "Windows not published, as their partitions moved to another replica", registry=self.registry
        )
        self._predictions = Counter("streamfuse_predictions", "Predictions published, by label", ["label"], registry=self.registry)
        self._latency = Histogram(
            "streamfuse_end_to_end_seconds",
            "From the end of a window (event time) until its prediction is published",
            buckets=LATENCY_BUCKETS,
            registry=self.registry,
        )
        self._batch = Histogram("streamfuse_batch_windows", "Windows in a micro-batch", buckets=BATCH_BUCKETS, registry=self.registry)
        stages = Histogram("streamfuse_stage_seconds", "Time in a stage", ["stage"], buckets=STAGE_BUCKETS, registry=self.registry)
        self._stages = {stage: stages.labels(stage) for stage in STAGES}
        self._commits = Counter("streamfuse_commits", "Cursors committed to the sources", registry=self.registry)
        self._losses = Counter(
            "streamfuse_losses", "Records that no window got, by stream and reason", ["stream", "reason"], registry=self.registry
        )
        self._letters = Counter(
            "streamfuse_dead_letters",
            "Records that were written to the dead letters",
            ["stream", "stage", "reason"],
            registry=self.registry,
        )
        self._ready = Gauge("streamfuse_ready", "1 while the daemon is ready", registry=self.registry)
        self._model = Info("streamfuse_model", "The model that predicts", registry=self.registry)
        self._kafka_clients = Gauge(
            "streamfuse_kafka_client_info", "The Kafka client libraries in use", ["transport", "version", "crc32c"], registry=self.registry
        )

    def window(self, window: Window) -> None:
        (self._incomplete if window.absent else self._complete).inc()
        if window.revision:
            self._revisions.inc()
        for absence in window.absent.items():
            counter = self._absences.get(absence)
            if counter is None:
                counter = self._absences[absence] = self._absent.labels(*absence)
            counter.inc()

    def batch(self, windows: int) -> None:
        self._batch.observe(windows)

    def published(self, prediction: Prediction, now: int) -> None:
        """`now` is when it was durable. A recording played at full speed has no latency to speak of: below 0 and above 1 h are left out."""
        self._predictions.labels(prediction.label).inc()
        seconds = (now - prediction.end) / SECOND
        if 0 <= seconds < 3600:
            self._latency.observe(seconds)

    def stale(self, windows: int) -> None:
        if windows:
            self._stale.inc(windows)

    def committed(self) -> None:
        self._commits.inc()

    def lost(self, stream: str, reason: Outcome) -> None:
        self._losses.labels(stream, reason.value).inc()

    def dead_letter(self, stream: str, stage: str, reason: str) -> None:
        self._letters.labels(stream, stage, reason).inc()

    def ready(self, is_ready: bool) -> None:
        self._ready.set(int(is_ready))

    def model(self, name: str, digest: str, device: str) -> None:
        self._model.info({"name": name, "digest": digest, "device": device})

    def kafka_client(self, transport: str, version: str, crc32c: str) -> None:
        self._kafka_clients.labels(transport, version, crc32c).set(1)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = self._clock.monotonic()
        try:
            yield
        finally:
            self._stages[name].observe((self._clock.monotonic() - began) / SECOND)

    def watch(self, synchronizer: Synchronizer) -> None:
        """Read the synchronizer at each scrape."""
        self.registry.register(_Synchronizer(synchronizer, self._clock, lambda read: self._read(read)))

    def read_on_the_loop(self, token: EventLoopToken) -> None:
        """From now on scrapes, which come on other threads, look at the pipeline only between two steps of its event loop."""
        self._read = lambda read: run_sync(read, token=token)

    def watch_embeddings(self, counts: Callable[[], Mapping[tuple[str, str], int]]) -> None:
        """Read a runner's counts at each scrape: by stream, and by `computed` or `kept`."""
        self._embeddings.counts = counts

    def watch_queue(self, name: str, depth: Callable[[], int]) -> None:
        """Read a channel's depth at each scrape."""
        self._queues.depths[name] = depth


class _Snapshot(NamedTuple):
    """What a scrape tells of the synchronizer, all from one moment."""

    received: dict[str, int]
    ended: dict[tuple[str, str], int]
    buffered: dict[str, int]
    unaccounted: dict[str, int]
    lags: dict[str, float]
    keys: int
    clock_steps: int


class _Synchronizer(Collector):
    def __init__(self, synchronizer: Synchronizer, clock: Clock, read: Callable[[Callable[[], _Snapshot]], _Snapshot]) -> None:
        self._synchronizer = synchronizer
        self._clock = clock
        self._read = read
        self._greatest: dict[tuple[str, str], int] = {}

    def _look(self) -> _Snapshot:
        synchronizer = self._synchronizer
        accounts = synchronizer.ledger.accounts
        for stream, account in accounts.items():
            for outcome, count in account.counts().items():
                # A packet found undecodable after its window moves from `used`; a counter must not go back for it.
                self._greatest[stream, outcome.value] = max(count, self._greatest.get((stream, outcome.value), 0))
        now = self._clock.now()
        return _Snapshot(
            {stream: account.received for stream, account in accounts.items()},
            dict(self._greatest),
            synchronizer.buffered(),
            synchronizer.unaccounted(),
            {stream: (now - mark) / SECOND for stream, mark in synchronizer.furthest().items()},
            synchronizer.keys,
            synchronizer.clock_steps,
        )

    def collect(self) -> Iterator[Metric]:
        seen = self._read(self._look)
        received = CounterMetricFamily("streamfuse_packets_received", "Packets received", labels=["stream"])
        for stream, count in seen.received.items():
            received.add_metric([stream], count)
        yield received
        ended = CounterMetricFamily("streamfuse_packets", "Where received packets ended (the ledger)", labels=["stream", "outcome"])
        for labels, count in seen.ended.items():
            ended.add_metric(labels, count)
        yield ended
        yield _gauge("streamfuse_packets_buffered", "Packets that open windows may still need", seen.buffered)
        yield _gauge("streamfuse_ledger_unaccounted", "Packets that the ledger can't account for; always 0", seen.unaccounted)
        yield _gauge("streamfuse_watermark_lag_seconds", "How far a stream is behind now", seen.lags)
        yield GaugeMetricFamily("streamfuse_keys", "Keys that are followed", value=seen.keys)
        yield CounterMetricFamily("streamfuse_clock_steps", "Steps of producers' clocks that were detected", value=seen.clock_steps)


class _Queues(Collector):
    def __init__(self) -> None:
        self.depths: dict[str, Callable[[], int]] = {}

    def collect(self) -> Iterator[Metric]:
        yield _gauge(
            "streamfuse_queue_depth", "Items that wait between two stages", {q: depth() for q, depth in self.depths.items()}, "queue"
        )


class _Embeddings(Collector):
    def __init__(self) -> None:
        self.counts: Callable[[], Mapping[tuple[str, str], int]] = dict

    def collect(self) -> Iterator[Metric]:
        family = CounterMetricFamily(
            "streamfuse_embeddings", "Tokens of a stream that were encoded, or kept from earlier windows", labels=["stream", "result"]
        )
        for labels, count in self.counts().items():
            family.add_metric(labels, count)
        yield family


def _gauge(name: str, text: str, values: Mapping[str, float], label: str = "stream") -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for of, value in values.items():
        family.add_metric([of], value)
    return family
