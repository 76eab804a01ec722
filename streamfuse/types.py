"""The values that flow through StreamFuse: packets in, windows between, predictions out, and the cursor back.

Time is an `int` of nanoseconds: UTC for instants, plain for durations. Every value is frozen; nothing here has behaviour beyond
describing itself, and nothing here imports anything heavier than the standard library.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SECOND = 1_000_000_000
MILLISECOND = 1_000_000


class Outcome(StrEnum):
    """Where a received packet ended. Each received packet has one outcome or is still buffered."""

    USED = "used"  # part of at least one window
    UNMATCHED = "unmatched"  # in time, but no window wanted it (between windows, or never the nearest to an anchor)
    LATE = "late"  # every window that it belongs to was closed
    DUPLICATE = "duplicate"  # the same packet was received before
    SHED = "shed"  # given up on purpose under overload, by a `drop_oldest` policy
    UNDECODABLE = "undecodable"  # the payload is not what it says it is
    QUARANTINED = "quarantined"  # the payload may be fine, its description (headers, event time) is not believable
    REVOKED = "revoked"  # its partition moved to another replica, which reads it again


class Absence(StrEnum):
    """Why a window has no packet of a stream."""

    IDLE = "idle"  # the stream was silent for longer than its idle timeout, or was never there
    LATE = "late"  # the hold ended before the stream's packets came
    GAP = "gap"  # the stream went on past the window and has nothing in it
    SHED = "shed"
    UNDECODABLE = "undecodable"
    CLOCK = "clock"  # the stream's packets were quarantined for their event times


class Stage(StrEnum):
    """Where a record was found to be of no use."""

    DECODE = "decode"  # at its source: its headers, its size, or a payload that can be judged at once
    SYNCHRONIZE = "synchronize"  # its event time or its stream
    PREPARE = "prepare"  # its payload, when the model's turn came


class Position(NamedTuple):
    """Where a record stands in its source: the partition's name and the record's own offset in it."""

    partition: str
    offset: int


class Offsets(NamedTuple):
    """A partition's part of a cursor: `needed` is the first offset that is still needed, `seen` the next one never read so far."""

    needed: int
    seen: int


def partition_name(topic: str, partition: int) -> str:
    return f"{topic}/{partition}"


Headers = tuple[tuple[str, bytes | None], ...]


class Record(NamedTuple):
    """A record as it stands in a topic. `timestamp` in ns UTC, negative where there is none."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    timestamp: int

    @property
    def position(self) -> Position:
        return Position(partition_name(self.topic, self.partition), self.offset)

    @property
    def size(self) -> int:
        """Bytes of key and value, and about as many as the headers have."""
        return len(self.key or b"") + len(self.value or b"") + 32 * len(self.headers)


@dataclass(frozen=True, slots=True)
class Encoded:
    """A payload as it came over the wire, not yet decoded.

    `media_type` is an IANA media type in lower case (`image/jpeg`, `image/png`, `audio/pcm`, `audio/flac`, `text/plain`). `rate` (Hz),
    `channels` and `encoding` (the sample format: `s16le`, `s16be`, `f32le`) are for audio; without an encoding, `audio/pcm` is s16le and
    `audio/l16` s16be.
    """

    data: bytes
    media_type: str
    rate: int | None = None
    channels: int | None = None
    encoding: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Image:
    """A decoded frame: `pixels` is `(height, width, 3)` uint8 in BGR order."""

    pixels: NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Audio:
    """Decoded sound: `samples` is `(samples, channels)` int16, `rate` in Hz."""

    samples: NDArray[np.int16]
    rate: int


Payload = Encoded | Image | Audio | str


@dataclass(frozen=True, slots=True)
class Packet:
    """One stretch of one modality: a frame, an audio chunk, a text event.

    It covers `[event_time, event_time + duration)`; a duration of 0 is an instant. `arrival_time` is when the first trusted machine saw it
    (the broker's or our own receipt; for recordings, which never arrived, the event time). `id` is the producer's own name for it
    (CloudEvents `source` + `id`), empty where it has none; two packets of a stream with one id are duplicates.
    `original` is the record that it was made of, where it came from a topic; it says nothing about the packet.
    """

    stream: str
    key: str
    event_time: int
    duration: int
    payload: Payload
    position: Position
    arrival_time: int
    id: str = ""
    original: Record | None = field(default=None, compare=False, repr=False)

    @property
    def end(self) -> int:
        return self.event_time + max(self.duration, 1)


@dataclass(frozen=True, slots=True)
class Loss:
    """A received record that no window will get, with the reason: it is counted and goes to the side output, never silently away.

    `detail` is a sentence saying what was expected, what was found, what to change. `record` is what stands in the topic, where it came
    from one.
    """

    stream: str
    key: str
    reason: Outcome
    detail: str
    position: Position | None = None
    event_time: int | None = None
    packet: Packet | None = None
    record: Record | None = field(default=None, repr=False)
    stage: Stage = Stage.DECODE


@dataclass(frozen=True, slots=True)
class Cursor:
    """The honest point to resume from: for each partition the offsets, for each key the event time up to which its windows are closed.

    A window's cursor holds only what changed since the window before it; `merge` them in order for the whole. A watermark of None says that
    the key was forgotten.
    """

    offsets: Mapping[str, Offsets] = field(default_factory=dict)
    watermarks: Mapping[str, int | None] = field(default_factory=dict)

    def merge(self, later: Cursor) -> Cursor:
        """This cursor, brought up to date with a later one."""
        watermarks = {**self.watermarks, **later.watermarks}
        return Cursor({**self.offsets, **later.offsets}, {k: w for k, w in watermarks.items() if w is not None})


@dataclass(frozen=True, slots=True)
class Resume:
    """A source says: records of these partitions follow, from this cursor on. Always the first thing said of a partition with a history."""

    cursor: Cursor


@dataclass(frozen=True, slots=True)
class Revoke:
    """A source says: these partitions are somebody else's now. Their buffered packets and open windows are dropped, uncommitted."""

    partitions: frozenset[str]


Item = Packet | Loss | Resume | Revoke


class WindowId(NamedTuple):
    """What makes a window the same window, in every run and on every replica.

    The first and the latest revision then hold the same packets. One in between may not: it tells how many late packets it has taken
    in, and those of different streams may come in another order.
    """

    key: str
    start: int
    end: int
    revision: int


@dataclass(frozen=True, slots=True)
class Window:
    """The packets of one key in `[start, end)`: per stream, in order of event time, and for each stream without any, why.

    Revision 0 is the window as it closed; each revision after it has taken in packets that came late. `cursor` is where to resume once this
    window and all before it are durable; None where more output of the same step follows (no point to stop between the two).
    """

    key: str
    start: int
    end: int
    packets: Mapping[str, tuple[Packet, ...]]
    absent: Mapping[str, Absence] = field(default_factory=dict)
    revision: int = 0
    cursor: Cursor | None = None

    @property
    def id(self) -> WindowId:
        return WindowId(self.key, self.start, self.end, self.revision)


class Emitted(NamedTuple):
    """A window on its way through the pipeline, and how many `Revoke`s of each source the synchronizer had taken in before it."""

    window: Window
    revokes: tuple[int, ...]


class Rest(NamedTuple):
    """The whole cursor at the end of a run, when every window has been published, and how many `Revoke`s of each source are in it."""

    cursor: Cursor
    revokes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model says about one window.

    `scores` maps each label to its probability; `label` is the greatest. Where `kind` is `regression`, they are estimates of what it
    names. `contributions` maps each present stream to its exact Shapley value on the score of `label` (Shapley 1953; the baseline is the
    model with nothing present), `weights` to the weight that the fusion gave it; both are empty where they were not asked for, the
    latter for a fusion without weights, too. `packets` counts what went in per stream, `texts` holds the text streams' words when the
    config publishes them, `truth` the true label when there is a truth stream. `model` and `digest` name the bundle. `outputs` has what
    a model of several tasks says to each, the first one included, whose answer `label` and `scores` are.
    """

    key: str
    start: int
    end: int
    revision: int
    label: str
    scores: Mapping[str, float]
    absent: Mapping[str, str]
    contributions: Mapping[str, float]
    packets: Mapping[str, int]
    model: str
    digest: str
    produced_at: int
    texts: Mapping[str, str] = field(default_factory=dict)
    truth: str | None = None
    kind: str = "classification"
    weights: Mapping[str, float] = field(default_factory=dict)
    outputs: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def id(self) -> WindowId:
        return WindowId(self.key, self.start, self.end, self.revision)
