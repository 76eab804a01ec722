"""What a scrape tells: the ledger, the windows, the latencies, by Prometheus' conventions."""

from __future__ import annotations

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from streamfuse.metrics import Metrics
from streamfuse.sync import StreamPolicy, Synchronizer, Tumbling
from streamfuse.testing import ManualClock, predict
from streamfuse.types import SECOND, Absence, Outcome, Packet, Position, Window


def scraped(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = generate_latest(metrics.registry).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def watched() -> tuple[Metrics, Synchronizer]:
    synchronizer = Synchronizer({"video": StreamPolicy()}, Tumbling(SECOND))
    metrics = Metrics(ManualClock(5 * SECOND))
    metrics.watch(synchronizer)
    return metrics, synchronizer


def test_a_scrape_tells_the_ledger() -> None:
    metrics, synchronizer = watched()
    for offset, second in enumerate((0, 1, 2, 2)):
        synchronizer.push(Packet("video", "a", second * SECOND, 0, "", Position("video", offset), second * SECOND, f"p{second}"))
    found = scraped(metrics)
    assert found["streamfuse_packets_received_total", (("stream", "video"),)] == 4
    assert found["streamfuse_packets_total", (("outcome", "used"), ("stream", "video"))] == 2
    assert found["streamfuse_packets_total", (("outcome", "duplicate"), ("stream", "video"))] == 1
    assert found["streamfuse_packets_buffered", (("stream", "video"),)] == 1
    assert found["streamfuse_ledger_unaccounted", (("stream", "video"),)] == 0
    assert found["streamfuse_watermark_lag_seconds", (("stream", "video"),)] == 3


def test_a_packet_found_undecodable_afterwards_makes_no_counter_go_back() -> None:
    metrics, synchronizer = watched()
    synchronizer.add("video", 0)
    synchronizer.finish()
    before = scraped(metrics)["streamfuse_packets_total", (("outcome", "used"), ("stream", "video"))]
    synchronizer.ledger.found_undecodable("video")
    found = scraped(metrics)
    assert found["streamfuse_packets_total", (("outcome", "used"), ("stream", "video"))] == before == 1
    assert found["streamfuse_packets_total", (("outcome", "undecodable"), ("stream", "video"))] == 1


def test_windows_are_counted_by_completeness_and_absent_streams_by_reason() -> None:
    metrics = Metrics()
    metrics.window(Window("a", 0, 1, {}))
    metrics.window(Window("a", 0, 1, {}, {"text": Absence.GAP}, 1))
    found = scraped(metrics)
    assert found["streamfuse_windows_total", (("complete", "true"),)] == 1
    assert found["streamfuse_windows_total", (("complete", "false"),)] == 1
    assert found["streamfuse_windows_absent_total", (("reason", "gap"), ("stream", "text"))] == 1
    assert found["streamfuse_window_revisions_total", ()] == 1


def test_a_recording_at_full_speed_has_no_latency() -> None:
    metrics = Metrics()
    prediction = predict(Window("a", 0, SECOND, {}))
    metrics.published(prediction, 2 * SECOND)
    metrics.published(prediction, 0)
    metrics.published(prediction, 10**18)
    found = scraped(metrics)
    assert found["streamfuse_end_to_end_seconds_count", ()] == 1
    assert found["streamfuse_end_to_end_seconds_sum", ()] == 1


def test_several_queues_share_one_metric() -> None:
    metrics = Metrics()
    metrics.watch_queue("items", lambda: 3)
    metrics.watch_queue("windows", lambda: 0)
    found = scraped(metrics)
    assert found["streamfuse_queue_depth", (("queue", "items"),)] == 3
    assert found["streamfuse_queue_depth", (("queue", "windows"),)] == 0


def test_losses_and_the_model_are_told() -> None:
    metrics = Metrics()
    metrics.lost("video", Outcome.LATE)
    metrics.model("who", "sha256:1", "cpu")
    found = scraped(metrics)
    assert found["streamfuse_losses_total", (("reason", "late"), ("stream", "video"))] == 1
    assert found["streamfuse_model_info", (("device", "cpu"), ("digest", "sha256:1"), ("name", "who"))] == 1


def test_embeddings_are_read_at_each_scrape() -> None:
    metrics, counts = Metrics(), {("video", "computed"): 1}
    assert metrics.registry.get_sample_value("streamfuse_embeddings_total", {"stream": "video", "result": "computed"}) is None
    metrics.watch_embeddings(lambda: counts)
    counts["video", "computed"] = 5
    assert metrics.registry.get_sample_value("streamfuse_embeddings_total", {"stream": "video", "result": "computed"}) == 5
