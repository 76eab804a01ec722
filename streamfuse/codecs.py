"""Between records on the wire and packets: CloudEvents 1.0 in Kafka's binary mode, the same for in-process topics.

The value is the bare payload (JPEG, PNG, PCM, UTF-8), the headers describe it (CloudEvents 1.0.2, Kafka protocol
binding 1.0.2):

| header | |
|---|---|
| `ce_specversion`, `ce_id`, `ce_source`, `ce_type` | required; `ce_source` + `#` + `ce_id` is the packet's id |
| `ce_time` | event time, RFC 3339 with up to ns; the record's timestamp where it is missing |
| `content-type` | media type; guessed from the first bytes where it is missing |
| `ce_stream` | stream, needed only where several streams share a topic |
| `ce_duration` | ns, decimal |
| `ce_sequence` | the producer's offset, 20 digits (CloudEvents' `sequence` extension) |
| `ce_rate`, `ce_channels` | of sound: Hz and number |

A producer that knows nothing of CloudEvents sends no `ce_` header at all: topic -> stream, record timestamp -> event
time, key -> key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple
from urllib.parse import quote

from streamfuse.documents import (
    cursor_from_json,
    cursor_to_json,
    format_time,
    parse_time,
    prediction_from_json,
    prediction_schema,
    prediction_to_json,
)
from streamfuse.errors import InvalidRecord, RecordError, UndecodablePayload
from streamfuse.headers import Attributes, Headers
from streamfuse.types import (
    SECOND,
    Audio,
    Encoded,
    Image,
    Loss,
    Outcome,
    Packet,
    Payload,
    Prediction,
    Record,
    partition_name,
)

__all__ = [
    "Record",
    "RecordDecoder",
    "WireRecord",
    "cursor_from_json",
    "cursor_to_json",
    "encode_packet",
    "encode_prediction",
    "format_time",
    "parse_time",
    "partition_name",
    "prediction_from_json",
    "prediction_schema",
    "prediction_to_json",
]

NO_KEY = "default"
"""The key of records without one."""
JPEG_QUALITY = 85
MAX_DURATION = 3600 * SECOND
MAX_RATE = 1_000_000
MAX_CHANNELS = 64

_MAGIC = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"OggS", "audio/ogg"),
    (b"fLaC", "audio/flac"),
    (b"RIFF", "audio/wav"),
)
_PCM = ("audio/pcm", "audio/l16")  # 16 bit: little-endian, and big-endian as RFC 3551 has it


class WireRecord(NamedTuple):
    """What is to be written to a topic. `timestamp` in ns UTC; Kafka keeps its milliseconds."""

    key: bytes | None
    value: bytes
    headers: Headers
    timestamp: int


# --- decoding ---------------------------------------------------------------------------------------------------------


class RecordDecoder:
    """Turns the records of a source into packets. `topics` maps each stream to its topic, as in the config."""

    def __init__(self, topics: Mapping[str, str], max_record_bytes: int) -> None:
        self.topics = dict(topics)
        self.max_record_bytes = max_record_bytes
        self._streams: dict[str, list[str]] = {}
        for stream, topic in topics.items():
            self._streams.setdefault(topic, []).append(stream)

    def decode(self, record: Record) -> Packet | Loss:
        """Never raises: a record that can't be a packet is a Loss, `quarantined` for its description and
        `undecodable` for its payload, with the stream and event time as far as they are known."""
        try:
            return self._packet(record)
        except RecordError as error:
            return Loss(
                stream=self._known_stream(record),
                key=NO_KEY if record.key is None else record.key.decode(errors="backslashreplace"),
                reason=Outcome.UNDECODABLE if isinstance(error, UndecodablePayload) else Outcome.QUARANTINED,
                detail=f"{record.topic}/{record.partition} at offset {record.offset}: {error}",
                position=record.position,
                event_time=_known_event_time(record),
                record=record,
            )

    def _packet(self, record: Record) -> Packet:
        if record.value is None:
            raise UndecodablePayload("expected a payload, found a null value; send the bare payload as the record's value")
        if len(record.value) > self.max_record_bytes:
            raise InvalidRecord(
                f"expected at most {self.max_record_bytes} bytes, found {len(record.value)}; send smaller records or raise max_record_bytes"
            )
        attributes = Attributes(record.headers)
        is_event = attributes.cloud_event
        stream = self._stream(record.topic, attributes)
        declared, parameters = attributes.media_type()
        media_type = declared or _guess(record.value)
        rate = attributes.integer("ce_rate", 1, MAX_RATE, parameters.get("rate"))
        channels = attributes.integer("ce_channels", 1, MAX_CHANNELS, parameters.get("channels"))
        duration = attributes.integer("ce_duration", 0, MAX_DURATION)
        return Packet(
            stream=stream,
            key=_key(record.key),
            event_time=(event_time := _event_time(record, attributes)),
            duration=_sound_duration(record.value, media_type, rate, channels) if duration is None else duration,
            payload=_payload(record.value, media_type, parameters, rate, channels),
            position=record.position,
            arrival_time=record.timestamp if record.timestamp >= 0 else event_time,
            id=f"{attributes.required('ce_source')}#{attributes.required('ce_id')}" if is_event else "",
            original=record,
        )

    def _stream(self, topic: str, attributes: Attributes) -> str:
        streams = self._streams.get(topic)
        if streams is None:
            raise InvalidRecord(f"expected a topic of {sorted(self._streams)}, found {topic!r}; add it to topics")
        named = attributes.text("ce_stream")
        if named in streams:
            return named
        if len(streams) > 1:
            raise InvalidRecord(
                f"expected ce_stream to be one of {streams}, which share the topic, found {named!r};"
                " set it or give each stream a topic of its own"
            )
        if named in self.topics:
            raise InvalidRecord(
                f"expected a record of stream {streams[0]!r} in this topic, found ce_stream {named!r}, whose topic is"
                f" {self.topics[named]!r}; send it there"
            )
        return streams[0]  # the producer's own name for it; the config's holds

    def _known_stream(self, record: Record) -> str:
        try:
            return self._stream(record.topic, Attributes(record.headers))
        except InvalidRecord:
            return self._streams.get(record.topic, [record.topic])[0]


def _known_event_time(record: Record) -> int | None:
    try:
        return _event_time(record, Attributes(record.headers))
    except InvalidRecord:
        return None


def _key(key: bytes | None) -> str:
    if key is None:
        return NO_KEY
    try:
        return key.decode()
    except UnicodeDecodeError:
        raise InvalidRecord(f"expected the record's key in UTF-8, found {key[:40]!r}; the key names the room or session") from None


def _event_time(record: Record, attributes: Attributes) -> int:
    time = attributes.text("ce_time")
    if time is not None:
        try:
            return parse_time(time)
        except InvalidRecord as error:
            raise InvalidRecord(f"ce_time: {error}") from None
    if record.timestamp < 0:
        raise InvalidRecord("expected an event time, found neither ce_time nor a record timestamp; set one of them")
    return record.timestamp


def _guess(value: bytes) -> str:
    return next((media_type for magic, media_type in _MAGIC if value.startswith(magic)), "text/plain")


def _payload(value: bytes, media_type: str, parameters: Mapping[str, str], rate: int | None, channels: int | None) -> Payload:
    if media_type.startswith("text/"):
        charset = parameters.get("charset", "utf-8").lower()
        if charset not in ("utf-8", "utf8", "us-ascii"):
            raise UndecodablePayload(f"expected text in UTF-8, found charset {charset[:40]!r}")
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise UndecodablePayload(
                f"expected text in UTF-8, found byte 0x{value[error.start]:02x} at {error.start}; send UTF-8, or set"
                " content-type if this is not text"
            ) from None
    if media_type in _PCM:
        if rate is None or channels is None:
            raise InvalidRecord(f"expected ce_rate and ce_channels with {media_type}, found {rate} and {channels}; set both")
        if len(value) % (2 * channels):
            raise UndecodablePayload(
                f"expected whole samples of 16 bits x {channels} channels, found {len(value)} bytes; check the sample width"
            )
    return Encoded(value, media_type, rate, channels)


def _sound_duration(value: bytes, media_type: str, rate: int | None, channels: int | None) -> int:
    if media_type not in _PCM or not rate or not channels:
        return 0
    return len(value) // (2 * channels) * SECOND // rate


# --- encoding ---------------------------------------------------------------------------------------------------------


def encode_packet(packet: Packet) -> WireRecord:
    """The packet as a record: `RecordDecoder` gives back an equal one (with an `id` where it had none, and images as
    JPEG).

    Blocks for the time of a JPEG encoding where the payload is an `Image`. Raises InvalidRecord for an instant
    outside the years 1 to 9999 or an image that can't be encoded. The record's timestamp is the packet's arrival time.
    """
    value, media_type, rate, channels = _encode_payload(packet.payload)
    source, _, name = packet.id.rpartition("#")
    if not packet.id:
        source = "streamfuse/" + quote(packet.position.partition)
        name = f"{packet.position.offset}@{packet.event_time}"
    attributes: list[tuple[str, str | int | None]] = [
        ("ce_specversion", "1.0"),
        ("ce_id", name or "-"),
        ("ce_source", source or "streamfuse"),
        ("ce_type", "streamfuse.packet"),
        ("ce_time", format_time(packet.event_time)),
        ("content-type", media_type),
        ("ce_stream", packet.stream),
        ("ce_duration", packet.duration),
        ("ce_sequence", f"{max(packet.position.offset, 0):020d}"),
        ("ce_rate", rate),
        ("ce_channels", channels),
    ]
    return WireRecord(_utf8(packet.key), value, _headers(attributes), packet.arrival_time)


def encode_prediction(prediction: Prediction) -> WireRecord:
    """The prediction as a record: JSON by `prediction_schema()`, keyed by its key, with an id that is the same in
    every run."""
    p = prediction
    attributes: list[tuple[str, str | int | None]] = [
        ("ce_specversion", "1.0"),
        ("ce_id", f"{p.key}/{p.start}/{p.end}/{p.revision}"),
        ("ce_source", "streamfuse/" + quote(p.model)),
        ("ce_type", "streamfuse.prediction"),
        ("ce_time", format_time(p.produced_at)),
        ("content-type", "application/json"),
    ]
    return WireRecord(_utf8(p.key), prediction_to_json(p).encode(), _headers(attributes), p.produced_at)


def _encode_payload(payload: Payload) -> tuple[bytes, str, int | None, int | None]:
    match payload:
        case str():
            return _utf8(payload), "text/plain; charset=utf-8", None, None
        case Encoded():
            return payload.data, payload.media_type, payload.rate, payload.channels
        case Audio():
            return (
                payload.samples.astype("<i2", copy=False).tobytes(),
                "audio/pcm",
                payload.rate,
                payload.samples.shape[1],
            )
        case Image():
            return _jpeg(payload), "image/jpeg", None, None


def _jpeg(image: Image) -> bytes:
    import cv2

    try:
        encoded, data = cv2.imencode(".jpg", image.pixels, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    except cv2.error as error:
        raise InvalidRecord(f"expected pixels (height, width, 3), found {image.pixels.shape}: {error}") from None
    if not encoded:
        raise InvalidRecord(f"expected pixels that JPEG can hold, found {image.pixels.shape}")
    return data.tobytes()


def _utf8(text: str) -> bytes:
    return text.encode(errors="replace")  # JSON can smuggle in lone surrogates, which UTF-8 has not


def _headers(attributes: Sequence[tuple[str, str | int | None]]) -> Headers:
    return tuple((name, _utf8(str(value))) for name, value in attributes if value is not None)
