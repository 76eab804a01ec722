"""The daemon as a process: readiness, metrics, signals, exit codes."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest

from streamfuse.codecs import prediction_from_json
from tests.running import Running


class OnSimulator(Running):
    """A daemon that watches one simulated room."""

    def __init__(self, folder: Path, simulator: Mapping[str, object], drain: str) -> None:
        self.out = folder / "predictions.jsonl"
        super().__init__(
            folder,
            {
                "sources": [{"type": "simulator", "rooms": 1, **simulator}],
                "sync": {"streams": {"video": {}, "audio": {}, "text": {"required": False}, "truth": {"required": False}}},
                "models": {"bundle": "who-is-talking", "device": "cpu", "truth": "truth"},
                "sinks": [{"type": "jsonl", "path": str(self.out)}],
                "losses": {"type": "jsonl", "path": str(folder / "losses.jsonl")},
                "pipeline": {"drain_timeout": drain},
            },
        )


class Run(Protocol):
    def __call__(self, *, drain: str = "10s", **simulator: object) -> OnSimulator: ...


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    with ExitStack() as stack:

        def start(*, drain: str = "10s", **simulator: object) -> OnSimulator:
            return stack.enter_context(OnSimulator(tmp_path, simulator, drain))

        yield start


def test_it_runs_to_the_end_of_its_input(run: Run) -> None:
    daemon = run(seconds=5, pace="full")
    code, error = daemon.ended()
    assert code == 0, error
    predictions = [prediction_from_json(line) for line in daemon.out.read_text().splitlines()]
    # Windows of 1 s every 0.5 s over 5 s and a bit: each once, in order.
    assert 10 <= len(predictions) <= 13
    assert [p.end for p in predictions] == sorted({p.end for p in predictions})
    assert all(p.truth is not None for p in predictions[:9])
    assert all(p.digest for p in predictions)


@pytest.mark.slow
def test_it_says_when_it_is_ready_and_what_it_does(run: Run) -> None:
    daemon = run(pace="realtime")
    daemon.notified("READY=1")
    assert daemon.get("/readyz") == (200, "ready\n")
    assert daemon.get("/livez") == (200, "alive\n")
    assert daemon.get("/nothing")[0] == 404
    daemon.until(lambda: daemon.metric("streamfuse_windows_total", complete="true") >= 1)
    assert daemon.metric("streamfuse_packets_received_total", stream="audio") > 0
    assert daemon.metric("streamfuse_ledger_unaccounted", stream="audio") == 0
    assert daemon.metric("streamfuse_ready") == 1
    daemon.until(lambda: daemon.metric("streamfuse_end_to_end_seconds_count") >= 1)
    for name in ("streamfuse_watermark_lag_seconds", "streamfuse_queue_depth", "streamfuse_stage_seconds_count", "streamfuse_model_info"):
        assert daemon.metric(name) >= 0, name


@pytest.mark.slow
def test_sigterm_drains_and_ends_with_0(run: Run) -> None:
    daemon = run(pace="realtime")
    daemon.notified("READY=1")
    daemon.until(lambda: daemon.metric("streamfuse_windows_total", complete="true") >= 1)
    daemon.process.send_signal(signal.SIGTERM)
    daemon.notified("STOPPING=1")
    code, error = daemon.ended()
    assert code == 0, error
    lines = daemon.out.read_text().splitlines()
    assert lines
    assert [json.loads(line)["schema"] for line in lines]


@pytest.mark.slow
def test_a_second_sigterm_ends_it_at_once(run: Run) -> None:
    daemon = run(pace="realtime", drain="1h")
    daemon.notified("READY=1")
    os.kill(daemon.process.pid, signal.SIGSTOP)  # so that both signals are there before it can finish with the first
    daemon.process.send_signal(signal.SIGTERM)
    daemon.process.send_signal(signal.SIGINT)
    os.kill(daemon.process.pid, signal.SIGCONT)
    code, error = daemon.ended()
    assert code in (130, 143), error
    assert "ending at once" in error


def test_a_port_that_is_taken_is_told(run: Run) -> None:
    with socket.socket() as taken:
        daemon = run(seconds=1)
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", daemon.port))
        taken.listen()
        code, error = daemon.ended()
    assert code == 3
    assert "web.port" in error


def test_a_full_disk_ends_it_with_6(run: Run, tmp_path: Path) -> None:
    (tmp_path / "predictions.jsonl").symlink_to("/dev/full")
    code, error = run(seconds=3, pace="full").ended()
    assert code == 6
    assert "No space left" in error or "full" in error
