"""Bad records among good ones, through the whole daemon: each is counted with its reason and told, and nothing else is lost."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import anyio
import cv2
import numpy as np
import pytest

from streamfuse.assembly import build
from streamfuse.codecs import WireRecord, encode_packet, prediction_from_json
from streamfuse.config import Config
from streamfuse.daemon import Daemon
from streamfuse.testing import ManualClock
from streamfuse.topics import Topics
from streamfuse.types import SECOND, Encoded, Packet, Position

pytestmark = pytest.mark.anyio

START = 1_800_000_000 * SECOND
SECONDS = 4


def jpeg(width: int = 64, height: int = 48) -> bytes:
    noise = np.random.default_rng(3).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return bytes(cv2.imencode(".jpg", noise)[1].tobytes())


def png_of(width: int, height: int) -> bytes:
    """The beginning of a PNG that says how large it is."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))


GOOD = {
    "video": Encoded(jpeg(), "image/jpeg"),
    "audio": Encoded(b"\1\0" * 1600, "audio/pcm", 16_000, 1),
    "text": Encoded(b"a word", "text/plain"),
}


def record(stream: str, at: float, payload: Encoded | None = None, name: str | None = None) -> WireRecord:
    """A record at `at` s from the start."""
    time = START + round(at * SECOND)
    duration = SECOND // 10 if stream == "audio" else 0
    number = round(at * 1000)
    return encode_packet(
        Packet(stream, "room", time, duration, payload or GOOD[stream], Position(stream, number), time, f"test#{name or number}")
    )


def changed(wire: WireRecord, **headers: str | None) -> WireRecord:
    kept = [(name, value) for name, value in wire.headers if name not in headers]
    return wire._replace(headers=(*kept, *((name, text.encode()) for name, text in headers.items() if text is not None)))


class Bad(NamedTuple):
    """A bad record: where it goes in, the outcome it must have, and words of the sentence that tells about it."""

    stream: str
    wire: WireRecord
    outcome: str
    words: Sequence[str]


CASES = {
    "corrupt JPEG": Bad("video", record("video", 1.25, Encoded(jpeg()[:2] + b"noise" * 300, "image/jpeg")), "undecodable", ["JPEG"]),
    "truncated JPEG": Bad("video", record("video", 1.25, Encoded(jpeg()[:-900], "image/jpeg")), "undecodable", ["JPEG"]),
    "huge image": Bad("video", record("video", 1.25, Encoded(png_of(30_000, 30_000), "image/png")), "undecodable", ["30000", "max_pixels"]),
    "half a sample": Bad("audio", record("audio", 1.25, Encoded(b"\1" * 3201, "audio/pcm", 16_000, 1)), "undecodable", ["3201"]),
    "wrong rate": Bad("audio", changed(record("audio", 1.25), ce_samplerate="0"), "quarantined", ["rate"]),
    "text in no UTF-8": Bad("text", record("text", 1.25, Encoded(b"caf\xe9", "text/plain")), "undecodable", ["UTF-8"]),
    "no id": Bad("video", changed(record("video", 1.25), ce_id=None), "quarantined", ["ce_id"]),
    "absurd duration": Bad("video", changed(record("video", 1.25), ce_duration="-5"), "quarantined", ["ce_duration"]),
    "absurd time": Bad("video", changed(record("video", 1.25), ce_time="yesterday"), "quarantined", ["ce_time"]),
    "1970": Bad("video", changed(record("video", 1.25), ce_time="1970-01-01T00:00:01Z"), "quarantined", ["clock"]),
    "2100": Bad("video", changed(record("video", 1.25), ce_time="2100-01-01T00:00:00Z"), "quarantined", ["clock"]),
    "duplicate": Bad("video", record("video", 1.2), "duplicate", ["received before"]),
    "late": Bad("video", record("video", 0.05), "late", ["max_out_of_orderness"]),
    "null value": Bad("video", WireRecord(b"room", None, (), START), "undecodable", ["value"]),
}


def daemon(folder: Path, topics: Topics) -> Daemon:
    config = Config.model_validate(
        {
            "sources": [{"type": "topics"}],
            "sync": {
                "windows": {"type": "tumbling", "size": "1s"},
                "streams": {
                    "video": {"max_out_of_orderness": "50ms"},
                    "audio": {"max_out_of_orderness": "50ms"},
                    "text": {"required": False},
                },
            },
            "sinks": [{"type": "jsonl", "path": str(folder / "predictions.jsonl")}],
            "losses": {"type": "jsonl", "path": str(folder / "losses.jsonl")},
            "web": {"enabled": False},
        }
    )
    return build(config, clock=ManualClock(START), topics=topics)


async def run(folder: Path, bad: Sequence[Bad]) -> Daemon:
    """Four seconds of good records, with the bad ones after 1.2 s."""
    topics = Topics()
    made = daemon(folder, topics)
    for tenth in range(SECONDS * 10):
        if tenth % 10 == 0:
            await topics.publish("text", *record("text", tenth / 10))
        await topics.publish("audio", *record("audio", tenth / 10))
        await topics.publish("video", *record("video", tenth / 10))
        if tenth == 15:
            for one in bad:
                await topics.publish(one.stream, *one.wire)
    topics.close("video", "audio", "text")
    await made.run(anyio.Event())
    return made


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


@pytest.mark.parametrize("name", CASES)
async def test_it_is_counted_told_and_nothing_else_is_lost(name: str, tmp_path: Path) -> None:
    bad = CASES[name]
    made = await run(tmp_path, [bad])
    accounts = made.synchronizer.ledger.accounts
    assert not any(made.synchronizer.unaccounted().values())
    counts = {outcome.value: count for outcome, count in accounts[bad.stream].counts().items() if count}
    good = {"video": 40, "audio": 40, "text": 4}
    assert counts == {"used": good[bad.stream], bad.outcome: 1}
    assert all(account.used == good[stream] for stream, account in accounts.items())

    (told,) = map(json.loads, lines(tmp_path / "losses.jsonl"))
    assert told["reason"] == bad.outcome
    assert all(word in told["detail"] for word in bad.words), told["detail"]

    predictions = [prediction_from_json(line) for line in lines(tmp_path / "predictions.jsonl")]
    assert [p.start for p in predictions] == [START + n * SECOND for n in range(SECONDS)]
    assert all(not p.absent for p in predictions)


async def test_all_of_them_together(tmp_path: Path) -> None:
    made = await run(tmp_path, list(CASES.values()))
    assert not any(made.synchronizer.unaccounted().values())
    assert len(lines(tmp_path / "losses.jsonl")) == len(CASES)
    assert sum(account.used for account in made.synchronizer.ledger.accounts.values()) == 84
    predictions = [prediction_from_json(line) for line in lines(tmp_path / "predictions.jsonl")]
    assert [p.start for p in predictions] == [START + n * SECOND for n in range(SECONDS)]


async def test_a_window_whose_only_frame_is_undecodable_says_so(tmp_path: Path) -> None:
    topics = Topics()
    made = daemon(tmp_path, topics)
    await topics.publish("audio", *record("audio", 0.1))
    await topics.publish("video", *record("video", 0.1, Encoded(jpeg()[:200], "image/jpeg")))
    topics.close("video", "audio", "text")
    await made.run(anyio.Event())
    (prediction,) = [prediction_from_json(line) for line in lines(tmp_path / "predictions.jsonl")]
    assert prediction.absent == {"video": "undecodable", "text": "idle"}
    assert made.synchronizer.ledger.accounts["video"].undecodable == 1


async def test_a_topic_that_nobody_writes_to_is_idle_and_stalls_nothing(tmp_path: Path) -> None:
    topics = Topics()
    made = daemon(tmp_path, topics)
    for tenth in range(25):
        await topics.publish("audio", *record("audio", tenth / 10))
    topics.close("video", "audio", "text")
    await made.run(anyio.Event())
    predictions = [prediction_from_json(line) for line in lines(tmp_path / "predictions.jsonl")]
    assert [p.absent for p in predictions] == [{"video": "idle", "text": "idle"}] * 3
