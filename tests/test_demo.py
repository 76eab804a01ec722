"""The demo: the package's own config, lines where there is no terminal, a summary that adds up."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from streamfuse.assembly import build
from streamfuse.codecs import prediction_from_json
from streamfuse.config import MediaSourceSettings, SimulatorSourceSettings, TopicsSourceSettings
from streamfuse.demo import demo_config
from streamfuse.errors import ConfigError
from streamfuse.testing import ManualClock, predict
from streamfuse.types import SECOND, Absence, Prediction, Window
from streamfuse.view import View

ENVIRON = {**os.environ, "OMP_NUM_THREADS": "1", "STREAMFUSE_FEED__0__PACE": "full"}


def prediction(second: int, label: str, truth: str | None = None, **absent: Absence) -> Prediction:
    made = predict(Window("room-1", second * SECOND, (second + 1) * SECOND, {}, absent), (second + 1) * SECOND + SECOND // 10)
    return Prediction(
        made.key,
        made.start,
        made.end,
        0,
        label,
        {label: 0.9},
        made.absent,
        {},
        {},
        "model",
        "digest",
        made.produced_at,
        {"text": "a [word]"},
        truth,
    )


@pytest.fixture
def view() -> View:
    config = demo_config(None, rooms=1, seed=7, seconds=1, out=None)
    return View(build(config, clock=ManualClock()), Console(width=100, force_terminal=False, record=True))


def test_without_a_clip_it_is_the_packages_own_config_with_what_was_asked_for() -> None:
    config = demo_config(None, rooms=3, seed=5, seconds=None, out=Path("out.jsonl"))
    (simulator,) = config.feed
    assert isinstance(simulator, SimulatorSourceSettings)
    assert (simulator.rooms, simulator.seed, simulator.seconds) == (3, 5, None)
    assert [sink.type for sink in config.sinks] == ["topics", "jsonl"]


def test_a_clip_has_no_truth(tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    clip.touch()
    config = demo_config(str(clip), rooms=1, seed=7, seconds=20, out=None)
    (feed,), (source,) = config.feed, config.sources
    assert isinstance(feed, MediaSourceSettings)
    assert isinstance(source, TopicsSourceSettings)
    assert config.models.truth is None
    assert set(source.topics) == set(config.sync.streams) == {"video", "audio", "text"}


def test_a_clip_that_is_not_there_is_told() -> None:
    with pytest.raises(ConfigError, match="there is no file none"):
        demo_config("none.mp4", rooms=1, seed=7, seconds=20, out=None)


def test_the_summary_counts_what_was_right(view: View) -> None:
    view.take(prediction(0, "silence", "silence"))
    view.take(prediction(1, "silence", "other sound", text=Absence.IDLE))
    view.take(prediction(2, "other sound"))
    view.summary()
    text = view.console.export_text()
    assert "3 predictions of 3 windows" in text
    assert "50% of 2 windows" in text
    assert "p50 100 ms" in text
    assert "1 windows without text: idle" in text
    assert "The ledger balances" in text


def test_the_live_view_shows_streams_and_windows(view: View) -> None:
    view.take(prediction(0, "silence", "other sound"))
    view.console.print(view)
    text = view.console.export_text()
    assert "a [word]" in text
    assert "other sound" in text
    assert "video" in text
    assert "absent" in text


def test_a_line_says_what_was_predicted_and_what_was_true(view: View) -> None:
    view.take(prediction(0, "silence", "other sound"))
    line = view.line(prediction(1, "silence", "other sound", text=Absence.IDLE))
    assert "1.0-2.0 s" in line
    assert "truth: other sound" in line
    assert "without text: idle" in line


@pytest.mark.slow
def test_it_ends_by_itself_with_lines_and_a_summary_where_there_is_no_terminal(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    command = [sys.executable, "-m", "streamfuse", "demo", "--seconds", "4", "--out", str(out)]
    done = subprocess.run(command, env=ENVIRON, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    records = [prediction_from_json(line) for line in out.read_text().splitlines()]
    assert len(records) >= 8
    assert f"{len(records)} predictions" in done.stdout
    assert "accuracy against the truth" in done.stdout
    assert "The ledger balances" in done.stdout
    assert f"streamfuse subscribe {out}" in done.stdout
    assert "\x1b" not in done.stdout


@pytest.mark.slow
def test_on_a_terminal_it_is_live() -> None:
    leader, follower = pty.openpty()
    environ = {**ENVIRON, "TERM": "xterm", "COLUMNS": "120", "LINES": "40", "STREAMFUSE_FEED__0__PACE": "realtime"}
    command = [sys.executable, "-m", "streamfuse", "demo", "--seconds", "3"]
    with subprocess.Popen(command, env=environ, stdin=follower, stdout=follower, stderr=subprocess.PIPE) as running:
        os.close(follower)
        shown = b""
        while True:
            try:
                data = os.read(leader, 65536)
            except OSError:  # Linux says so when the last writer has gone
                break
            if not data:
                break
            shown += data
        os.close(leader)
        assert running.stderr is not None
        error = running.stderr.read()
    assert running.returncode == 0, error.decode()
    text = shown.decode()
    assert "Ctrl-C stops" in text
    assert "flowing" in text
    assert "The ledger balances" in text
