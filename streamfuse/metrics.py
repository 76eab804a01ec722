"""Every metric: name, unit, labels and buckets. Packets are counted by the ledger and read at scrape time, so they cost nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from streamfuse.ledger import Ledger
from streamfuse.types import SECOND, Outcome, Prediction, Window

disable_created_metrics()  # type: ignore[no-untyped-call]

STAGE_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
LATENCY_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, 30.0, 60.0)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)
STAGES = ("synchronize", "prepare", "predict", "publish")


class Metrics:
    """The metrics of one daemon, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        windows = Counter("streamfuse_windows", "Windows emitted", ["complete"], registry=self.registry)
        self._complete, self._incomplete = windows.labels("true"), windows.labels("false")
        self._absent = Counter(
            "streamfuse_windows_absent", "Windows without a stream, by why", ["stream", "reason"], registry=self.registry
        )
        self._absences: dict[tuple[str, str], Counter] = {}
        self._revisions = Counter("streamfuse_window_revisions", "Windows emitted again with late packets", registry=self.registry)
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
        self._ready = Gauge("streamfuse_ready", "1 while the daemon is ready", registry=self.registry)
        self._model = Info("streamfuse_model", "The model that predicts", registry=self.registry)

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

    def committed(self) -> None:
        self._commits.inc()

    def lost(self, stream: str, reason: Outcome) -> None:
        self._losses.labels(stream, reason.value).inc()

    def ready(self, is_ready: bool) -> None:
        self._ready.set(int(is_ready))

    def model(self, name: str, digest: str, device: str) -> None:
        self._model.info({"name": name, "digest": digest, "device": device})

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self._stages[name].observe(time.perf_counter() - began)

    def watch(
        self,
        ledger: Ledger,
        *,
        buffered: Callable[[], Mapping[str, int]],
        unaccounted: Callable[[], Mapping[str, int]],
        lags: Callable[[], Mapping[str, int]],
        keys: Callable[[], int],
        clock_steps: Callable[[], int],
    ) -> None:
        """Read the synchronizer at each scrape. `lags` gives per stream how far (ns) its furthest watermark is behind now."""
        self.registry.register(_Synchronizer(ledger, buffered, unaccounted, lags, keys, clock_steps))

    def watch_queue(self, name: str, depth: Callable[[], int]) -> None:
        """Read a channel's depth at each scrape."""
        self.registry.register(_Queue(name, depth))


class _Synchronizer(Collector):
    def __init__(
        self,
        ledger: Ledger,
        buffered: Callable[[], Mapping[str, int]],
        unaccounted: Callable[[], Mapping[str, int]],
        lags: Callable[[], Mapping[str, int]],
        keys: Callable[[], int],
        clock_steps: Callable[[], int],
    ) -> None:
        self._ledger = ledger
        self._buffered = buffered
        self._unaccounted = unaccounted
        self._lags = lags
        self._keys = keys
        self._clock_steps = clock_steps
        self._greatest: dict[tuple[str, str], int] = {}
        self._lock = threading.Lock()

    def collect(self) -> Iterator[Metric]:
        received = CounterMetricFamily("streamfuse_packets_received", "Packets received", labels=["stream"])
        ended = CounterMetricFamily("streamfuse_packets", "Where received packets ended (the ledger)", labels=["stream", "outcome"])
        with self._lock:
            for stream, account in list(self._ledger.accounts.items()):
                received.add_metric([stream], account.received)
                for outcome, count in account.counts().items():
                    # A packet found undecodable after its window moves from `used`; a counter must not go back for it.
                    greatest = max(count, self._greatest.get((stream, outcome.value), 0))
                    self._greatest[stream, outcome.value] = greatest
                    ended.add_metric([stream, outcome.value], greatest)
        yield received
        yield ended
        yield _gauge("streamfuse_packets_buffered", "Packets that open windows may still need", self._buffered())
        yield _gauge("streamfuse_ledger_unaccounted", "Packets that the ledger can't account for; always 0", self._unaccounted())
        lag = GaugeMetricFamily(
            "streamfuse_watermark_lag_seconds", "How far a stream's furthest watermark is behind now", labels=["stream"]
        )
        for stream, behind in self._lags().items():
            lag.add_metric([stream], behind / SECOND)
        yield lag
        yield GaugeMetricFamily("streamfuse_keys", "Keys that are followed", value=self._keys())
        yield CounterMetricFamily("streamfuse_clock_steps", "Steps of producers' clocks that were detected", value=self._clock_steps())


class _Queue(Collector):
    def __init__(self, name: str, depth: Callable[[], int]) -> None:
        self._name = name
        self._depth = depth

    def describe(self) -> Iterator[Metric]:
        # Several queues share the name of the metric; the registry must not refuse the second.
        return iter(())

    def collect(self) -> Iterator[Metric]:
        depth = GaugeMetricFamily("streamfuse_queue_depth", "Items that wait between two stages", labels=["queue"])
        depth.add_metric([self._name], self._depth())
        yield depth


def _gauge(name: str, text: str, values: Mapping[str, int]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=["stream"])
    for stream, value in values.items():
        family.add_metric([stream], value)
    return family
