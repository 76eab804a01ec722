"""The daemon as a process: readiness, metrics, signals, exit codes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from streamfuse.codecs import prediction_from_json

CONFIG = """
sources:
  - type: simulator
    rooms: 1
    {simulator}
sync:
  streams: {{video: {{}}, audio: {{}}, text: {{required: false}}, truth: {{required: false}}}}
models: {{bundle: who-is-talking, device: cpu, truth: truth}}
sinks: [{{type: jsonl, path: {out}}}]
losses: {{type: jsonl, path: {losses}}}
web: {{port: {port}}}
pipeline: {{drain_timeout: {drain}}}
"""


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


class Running:
    """A daemon in a process of its own."""

    def __init__(self, folder: Path, simulator: str, drain: str = "10s") -> None:
        self.out = folder / "predictions.jsonl"
        self.losses = folder / "losses.jsonl"
        self.port = free_port()
        config = folder / "config.yaml"
        config.write_text(CONFIG.format(simulator=simulator, out=self.out, losses=self.losses, port=self.port, drain=drain))
        self.notifications = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notifications.bind(str(folder / "notify"))
        self.notifications.settimeout(60)
        environ = {**os.environ, "NOTIFY_SOCKET": str(folder / "notify"), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "streamfuse", "run", str(config)], env=environ, stderr=subprocess.PIPE, text=True
        )

    def notified(self, state: str) -> None:
        while state not in self.notifications.recv(4096).decode().split("\n"):
            pass

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refused:
            return refused.code, refused.read().decode()

    def metric(self, name: str, **labels: str) -> float:
        for family in text_string_to_metric_families(self.get("/metrics")[1]):
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    return float(sample.value)
        return float("nan")

    def until(self, holds: Callable[[], bool]) -> None:
        """Ask until it holds; the daemon is another process, so there is nothing else to wait on."""
        deadline = time.monotonic() + 60
        while not holds():
            assert time.monotonic() < deadline
            assert self.process.poll() is None, self.process.communicate()[1]

    def ended(self) -> tuple[int, str]:
        error = self.process.communicate(timeout=60)[1]
        return self.process.returncode, error

    def close(self) -> None:
        self.notifications.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    started: list[Running] = []

    def start(simulator: str, **options: str) -> Running:
        started.append(Running(tmp_path, simulator, **options))
        return started[-1]

    yield start
    for daemon in started:
        daemon.close()


def test_it_runs_to_the_end_of_its_input(run: Callable[..., Running]) -> None:
    daemon = run("seconds: 5\n    pace: full")
    code, error = daemon.ended()
    assert code == 0, error
    predictions = [prediction_from_json(line) for line in daemon.out.read_text().splitlines()]
    # Windows of 1 s every 0.5 s over 5 s and a bit: each once, in order.
    assert 10 <= len(predictions) <= 13
    assert [p.end for p in predictions] == sorted({p.end for p in predictions})
    assert all(p.truth is not None for p in predictions[:9])
    assert all(p.digest for p in predictions)


@pytest.mark.slow
def test_it_says_when_it_is_ready_and_what_it_does(run: Callable[..., Running]) -> None:
    daemon = run("pace: realtime")
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
def test_sigterm_drains_and_ends_with_0(run: Callable[..., Running]) -> None:
    daemon = run("pace: realtime")
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
def test_a_second_sigterm_ends_it_at_once(run: Callable[..., Running]) -> None:
    daemon = run("pace: realtime", drain="1h")
    daemon.notified("READY=1")
    os.kill(daemon.process.pid, signal.SIGSTOP)  # so that both signals are there before it can finish with the first
    daemon.process.send_signal(signal.SIGTERM)
    daemon.process.send_signal(signal.SIGINT)
    os.kill(daemon.process.pid, signal.SIGCONT)
    code, error = daemon.ended()
    assert code in (130, 143), error
    assert "ending at once" in error


def test_a_port_that_is_taken_is_told(run: Callable[..., Running]) -> None:
    with socket.socket() as taken:
        daemon = run("seconds: 1")
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", daemon.port))
        taken.listen()
        code, error = daemon.ended()
    assert code == 3
    assert "web.port" in error


def test_a_full_disk_ends_it_with_6(run: Callable[..., Running], tmp_path: Path) -> None:
    (tmp_path / "predictions.jsonl").symlink_to("/dev/full")
    code, error = run("seconds: 3\n    pace: full").ended()
    assert code == 6
    assert "No space left" in error or "full" in error
