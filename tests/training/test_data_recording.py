"""Recordings become windows as serving cuts them, with the label that covers most of each."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamfuse.errors import DataError
from streamfuse.training.data import open_data
from streamfuse.training.samples import Samples

TEXT = {"text": {"type": "text_bytes", "length": 8, "most": 2}}
SYNC: dict[str, Any] = {"windows": {"type": "tumbling", "size": "1s"}, "streams": {"text": {"required": False}, "truth": {}}}


def line(text: str, at: float, **more: Any) -> dict[str, Any]:
    return {"text": text, "event_time": round(at * 1e9), **more}


def truth(text: str, at: float, lasts: float = 1, **more: Any) -> dict[str, Any]:
    return line(text, at, stream="truth", duration=round(lasts * 1e9), **more)


def opened(folder: Path, lines: Sequence[Mapping[str, Any]], inputs: Any = None, heads: Any = None, **options: Any) -> Samples:
    (folder / "r.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines), encoding="utf-8")
    source = {"type": "jsonl", "path": "r.jsonl", "streams": ["truth"]}
    return open_data({"type": "recording", "sources": [source], "sync": SYNC, **options}, folder, inputs or TEXT, heads)


def words(samples: Samples, row: int) -> list[str]:
    return [bytes(text).rstrip(b"\0").decode() for text in np.asarray(samples.read(row)["text"].data, np.uint8)]


def labels(samples: Samples) -> list[str]:
    return [samples.heads["label"]["labels"][number] for number in samples.targets["label"]]


def sentence(folder: Path, *arguments: Any, **options: Any) -> str:
    with pytest.raises(DataError) as error:
        opened(folder, *arguments, **options)
    return str(error.value)


def test_windows_have_their_packets_labels_and_rooms(tmp_path: Path) -> None:
    lines = [
        *(truth(label, at, key=key) for at, label in ((0, "on"), (1, "off"), (2, "on")) for key in ("a", "b")),
        line("one", 0.2, key="a"), line("two", 1.5, key="a"), line("three", 1.7, key="a"), line("x", 2.5, key="b"),
    ]  # fmt: skip
    samples = opened(tmp_path, lines)
    told = {name: (label, group) for name, label, group in zip(samples.names, labels(samples), samples.groups, strict=True)}
    assert told == {
        f"{key} 1970-01-01T00:00:0{second}.000000000Z": (label, key) for key in "ab" for second, label in enumerate(("on", "off", "on"))
    }
    row = samples.names.index("a 1970-01-01T00:00:01.000000000Z")
    assert words(samples, row) == ["two", "three"]
    assert samples.read(row)["text"].time == pytest.approx([-0.5, -0.3])
    assert samples.read(samples.names.index("b 1970-01-01T00:00:00.000000000Z")) == {}


def test_the_label_is_what_covers_most_of_the_window(tmp_path: Path) -> None:
    lines = [truth("a", 0, 0.3), truth("b", 0.3, 0.4), truth("a", 0.7, 0.2), truth("b", 1.0, 0.2), line("x", 0.5), line("y", 1.5)]
    assert labels(opened(tmp_path, lines)) == ["a", "b"]


def test_windows_without_a_label_are_left_out_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        sync = {**SYNC, "streams": {"text": {}, "truth": {}}}
        samples = opened(tmp_path, [truth("a", 0), line("x", 0.5), line("y", 1.5), truth("b", 2), line("z", 2.5)], sync=sync)
    assert labels(samples) == ["a", "b"]
    assert "1 of 3 windows have no label and are left out" in caplog.text


def test_labels_of_a_model_keep_their_order_and_others_are_told(tmp_path: Path) -> None:
    lines = [truth("a", 0), truth("b", 1), line("x", 0.5)]
    heads = {"label": {"type": "classification", "labels": ["b", "a"]}}
    assert opened(tmp_path, lines, None, heads).targets["label"].tolist() == [1, 0]
    heads = {"label": {"type": "classification", "labels": ["b", "c"]}}
    assert "label: expected one of b, c, found 'a'" in sentence(tmp_path, lines, None, heads)


def test_a_simulated_room_is_a_recording(tmp_path: Path) -> None:
    samples = open_data(
        {
            "type": "recording",
            "sources": [{"type": "simulator", "seconds": 3, "espeak": False, "width": 64, "height": 64, "fps": 5}],
            "sync": {**SYNC, "streams": {"video": {}, "audio": {}, "text": {"required": False}, "truth": {}}},
            "task": "state",
        },
        tmp_path,
        {"video": {"type": "frames", "height": 8, "width": 8}, "audio": {"type": "waveform"}},
    )  # fmt: skip
    assert len(samples.names) >= 3
    assert list(samples.heads) == ["state"]
    assert set(samples.groups) == {"room-1"}
    assert samples.read(1)["audio"].mask.all()
    assert samples.read(1)["video"].data.shape == (5, 8, 8, 3)


def test_records_of_no_use_are_left_out_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        samples = opened(tmp_path, [truth("a", 0), line("x", 0.5), {"text": "no time"}, truth("b", 1), line("y", 1.5)])
    assert labels(samples) == ["a", "b"]
    assert "1 records stand in no window: quarantined" in caplog.text


def test_a_recording_without_labels_is_told(tmp_path: Path) -> None:
    assert (
        "expected windows with a label from the stream 'truth', found none in 1 windows; are its keys and event times those of the"
        in sentence(tmp_path, [truth("a", 0), line("x", 0.5, key="other"), truth(" ", 0)][1:])
    )


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"truth": "labels"}, "data.truth: expected a stream of data.sync.streams, found 'labels'; there are text, truth"),
        ({"sources": [{"type": "jsonl", "path": "r.jsonl", "follow": True}]}, "data.sources.0: expected a file with an end"),
        ({"sources": [{"type": "media", "path": "rtsp://a/b"}]}, "data.sources.0: expected files with an end"),
        ({"sources": [{"type": "kafka", "topics": {"text": "t"}}]}, "data.sources.0.type: expected jsonl, media or simulator, found kafka"),
        ({"sources": [{"type": "simulator"}]}, "data.sources.0.seconds: is needed: a recording has an end"),
        ({"sources": [{"type": "jsonl", "path": "gone.jsonl"}]}, "there is no"),
        ({"sources": []}, "data.sources: list should have at least 1 item"),
        ({"max_bytes": 3}, "the windows need more than data.max_bytes = 3 of memory"),
    ],
)
def test_what_is_no_recording_is_told(tmp_path: Path, options: dict[str, Any], found: str) -> None:
    assert found in sentence(tmp_path, [truth("a", 0), line("x", 0.5)], **options)


def test_inputs_must_be_streams_of_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"model.inputs.txt: expected a stream of data.sync.streams, found 'txt'"):
        opened(tmp_path, [truth("a", 0)], {"txt": {"type": "text_bytes"}})
