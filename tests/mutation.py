"""Breaks records in every way that a producer might: headers, keys, values, timestamps. What comes of it depends on the seed alone."""

from __future__ import annotations

import random
from collections.abc import Callable

from streamfuse.codecs import WireRecord
from streamfuse.types import SECOND

HOUR = 3600 * SECOND
HUGE = ("9" * 5000, "-1", "0", "1e9", "NaN", "0x10", "٣٣٣", str(2**63), str(-(2**63)), "1" * 19, " 7", "", "4294967296", "3600000000000")
TIMES = (
    "yesterday",
    "",
    "2026-05-01T12:00:00",
    "2026-02-30T12:00:00Z",
    "0000-01-01T00:00:00Z",
    "9999-12-31T23:59:60.999999999Z",
    "0001-01-01T00:00:00+23:59",
    "1970-01-01T00:00:00Z",
    "2026-05-01T12:00:00.123456789123456789123Z",
    "2026-05-01T24:00:00Z",
    "1714564800",
)
TYPES = (
    "image/jpeg",
    "image/png",
    "audio/pcm",
    "audio/l16",
    "audio/ogg",
    "audio/flac",
    "audio/wav",
    "text/plain",
    "text/plain; charset=latin-1",
)
ODD_TYPES = (
    "",
    ";",
    "image",
    "image/",
    "IMAGE/JPEG;;;",
    "application/cloudevents+json",
    "audio/pcm; rate=0; channels=0",
    "\0",
    "audio/pcm;rate",
)
NAMES = (
    "ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time", "content-type", "ce_stream", "ce_duration", "ce_sequence",
    "ce_samplerate", "ce_channels", "ce_encoding", "ce_dataschema",
)  # fmt: skip
NUMBERS = ("ce_duration", "ce_sequence", "ce_samplerate", "ce_channels")
ENCODINGS = ("s16le", "s16be", "f32le", "u8", "S16LE", "")


class Mutator:
    """`kept` is the share of records that stay as they are. No timestamp is later than `latest`: brokers refuse some."""

    def __init__(self, seed: int, *, kept: float = 0.3, largest: int = 20_000, latest: int = 2**63) -> None:
        self._dice = random.Random(seed)
        self._kept = kept
        self._largest = largest
        self._latest = latest
        self._values: list[bytes] = [b""]

    def __call__(self, wire: WireRecord) -> WireRecord:
        dice = self._dice
        value = wire.value or b""
        if len(self._values) < 50:
            self._values.append(value)
        if dice.random() < self._kept:
            return wire
        for _ in range(1 if dice.random() < 0.7 else dice.randrange(2, 5)):
            wire = dice.choice(self._ways())(wire)
        return wire

    def _ways(self) -> tuple[Callable[[WireRecord], WireRecord], ...]:
        return (self._headers, self._headers, self._headers, self._value, self._value, self._key, self._timestamp)

    # --- headers ---

    def _headers(self, wire: WireRecord) -> WireRecord:
        dice = self._dice
        headers = list(wire.headers)
        way = dice.randrange(12)
        at = dice.randrange(len(headers)) if headers else 0
        if way == 0 and headers:
            del headers[at]
        elif way == 1 and headers:
            headers.insert(dice.randrange(len(headers) + 1), (headers[at][0], self._noise(dice.randrange(20))))
        elif way == 2 and headers:
            headers[at] = (headers[at][0], None if dice.random() < 0.5 else b"")
        elif way == 3 and headers:
            headers[at] = (headers[at][0], self._bent(headers[at][1] or b""))
        elif way == 4:
            headers = [(name, value) for name, value in headers if name != "ce_time"]
            headers.append(("ce_time", dice.choice(TIMES).encode()))
        elif way == 5:
            headers.append((dice.choice(NUMBERS), dice.choice(HUGE).encode()))
        elif way == 6:
            headers.append(("content-type", dice.choice(TYPES + ODD_TYPES).encode()))
        elif way == 7:
            headers += [(self._name(), self._noise(dice.randrange(40))) for _ in range(dice.choice((1, 3, 300)))]
        elif way == 8:
            headers.append((dice.choice(NAMES), self._noise(dice.choice((1, 50, 9000)))))
        elif way == 9 and headers:
            headers[at] = (dice.choice((str.upper, str.title, str.strip))(headers[at][0]), headers[at][1])
        elif way == 10:
            headers.append(("ce_encoding", dice.choice(ENCODINGS).encode()))
        else:
            headers = []
        return wire._replace(headers=tuple(headers))

    def _name(self) -> str:
        dice = self._dice
        return dice.choice(("", "traceparent", "ce_", "CE_TIME", "\0", "ключ", "streamfuse_dl_headers", "streamfuse_dl_replays", "a" * 300))

    # --- the rest ---

    def _value(self, wire: WireRecord) -> WireRecord:
        dice = self._dice
        value = wire.value or b""
        ways: tuple[Callable[[], bytes | None], ...] = (
            lambda: None,
            lambda: b"",
            lambda: self._bent(value),
            lambda: self._bent(value),
            lambda: value[: dice.randrange(len(value) + 1)],
            lambda: value + self._noise(dice.randrange(1, 50)),
            lambda: self._noise(dice.randrange(200)),
            lambda: dice.choice(self._values),
            lambda: value[:200] + bytes(self._largest),
            lambda: dice.choice((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"OggS", b"fLaC", b"RIFF")) + self._noise(60),
        )
        return wire._replace(value=dice.choice(ways)())

    def _key(self, wire: WireRecord) -> WireRecord:
        keys = (None, b"", b"\xff\xfe", b"caf\xe9", b"\0", "звук".encode(), b"k" * 3000, b"room\n")
        return wire._replace(key=self._dice.choice(keys))

    def _timestamp(self, wire: WireRecord) -> WireRecord:
        dice = self._dice
        moved = wire.timestamp + dice.choice((-1, 1)) * dice.choice((SECOND // 2, 30 * SECOND, 20 * HOUR, 30 * HOUR))
        timestamp = dice.choice((moved, moved, -1_000_000, 0, 2**62, 2**63))
        return wire._replace(timestamp=min(timestamp, self._latest) // 1_000_000 * 1_000_000)

    def _bent(self, data: bytes) -> bytes:
        """Some of its bytes are others now."""
        bent = bytearray(data)
        for _ in range(min(len(bent), self._dice.choice((1, 3, 30)))):
            bent[self._dice.randrange(len(bent))] = self._dice.randrange(256)
        return bytes(bent)

    def _noise(self, length: int) -> bytes:
        return self._dice.randbytes(length)
