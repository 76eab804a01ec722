"""Between records on the wire and packets: CloudEvents 1.0 in Kafka's binary mode, the same for in-process topics.

The value is the bare payload (JPEG, PNG, PCM, FLAC, Opus in Ogg, UTF-8), the headers describe it (CloudEvents 1.0.2, Kafka protocol
binding 1.0.2):

| header | |
|---|---|
| `ce_specversion`, `ce_id`, `ce_source`, `ce_type` | required; `ce_source` + `#` + `ce_id` is the packet's id |
| `ce_time` | event time, RFC 3339 with up to ns; the record's timestamp where it is missing |
| `content-type` | media type; guessed from the first bytes where it is missing |
| `ce_stream` | stream, needed only where several streams share a topic |
| `ce_duration` | ns, decimal; of sound, what its bytes say where it is missing |
| `ce_sequence` | the producer's offset, 20 digits (CloudEvents' `sequence` extension) |
| `ce_samplerate`, `ce_channels` | of sound: Hz and number |
| `ce_encoding` | of PCM: `s16le`, `s16be` or `f32le` |

A producer that knows nothing of CloudEvents sends no `ce_` header at all: topic -> stream, record timestamp -> event time, key -> key, and
a `Format` per stream for what it does not say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar
from urllib.parse import quote

from streamfuse.documents import (
    PREDICTION_SCHEMA_ID,
    cursor_from_json,
    cursor_to_json,
    format_time,
    parse_time,
    prediction_from_json,
    prediction_schema,
    prediction_to_json,
)
from streamfuse.errors import InvalidRecord, RecordError, UndecodablePayload
from streamfuse.headers import Attributes, Headers, by_name, refuse_attributes
from streamfuse.lengths import SAMPLE_BYTES, sound_length
from streamfuse.types import (
    SECOND,
    Audio,
    Encoded,
    Image,
    Loss,
    Outcome,
    Packet,
    Payload,
    Position,
    Prediction,
    Record,
    partition_name,
)

__all__ = [
    "Format",
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
REMEMBERED = 4096
"""Bound of each memory of a decoder; a full one starts anew."""
LONGEST_REMEMBERED = 1024
"""Bytes; what is said at greater length is read anew each time."""

_MAGIC = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"OggS", "audio/ogg"),
    (b"fLaC", "audio/flac"),
    (b"RIFF", "audio/wav"),
    (b"\x93NUMPY", "application/x-npy"),
)
_PCM = {"audio/pcm": "s16le", "audio/l16": "s16be"}  # and the encoding that they stand for: RFC 2586 has L16 in network byte order
_FILES = ("audio/flac", "audio/ogg", "audio/opus")  # sound that tells its length itself
K = TypeVar("K")
V = TypeVar("V")


class WireRecord(NamedTuple):
    """What is to be written to a topic. `timestamp` in ns UTC; Kafka keeps its milliseconds."""

    key: bytes | None
    value: bytes | None
    headers: Headers
    timestamp: int


# --- decoding ---------------------------------------------------------------------------------------------------------


class Format(NamedTuple):
    """What the records of a stream are where their headers don't say: the media type in lower case, and of sound the rest."""

    media_type: str | None = None
    rate: int | None = None
    channels: int | None = None
    encoding: str | None = None
    duration: int | None = None


class RecordDecoder:
    """Turns the records of a source into packets. `topics` maps each stream to its topic, as in the config; `formats` says what they are
    where their headers don't.

    Most of what headers say is the same from record to record: it is read once and remembered. Belongs to one thread.
    """

    def __init__(self, topics: Mapping[str, str], max_record_bytes: int, formats: Mapping[str, Format] | None = None) -> None:
        self.topics = dict(topics)
        self.max_record_bytes = max_record_bytes
        self._formats = dict(formats or {})
        self._streams: dict[str, list[str]] = {}
        for stream, topic in topics.items():
            self._streams.setdefault(topic, []).append(stream)
        self._kinds: dict[tuple[object, ...], _Kind] = {}
        self._keys: dict[bytes | None, str] = {None: NO_KEY}
        self._seconds: dict[bytes, int] = {}

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
                event_time=self._known_event_time(record),
                record=record,
            )

    def _packet(self, record: Record) -> Packet:
        value = record.value
        if value is None:
            raise UndecodablePayload("expected a payload, found a null value; send the bare payload as the record's value")
        if len(value) > self.max_record_bytes:
            raise InvalidRecord(
                f"expected at most {self.max_record_bytes} bytes, found {len(value)}; send smaller records or raise max_record_bytes"
            )
        headers = dict(record.headers)
        get = headers.get
        version, content_type = get("ce_specversion"), get("content-type")
        if version is None or content_type is None:  # no event, or one with capitals in its names
            headers = by_name(record.headers)
            get = headers.get
            version, content_type = get("ce_specversion"), get("content-type")
        what = (
            record.topic,
            record.partition,
            version,
            get("ce_type"),
            _guess(value) if content_type is None else content_type,
            get("ce_stream"),
            get("ce_samplerate"),
            get("ce_channels"),
            get("ce_encoding"),
        )
        kind = self._kinds.get(what)
        if kind is None:
            kind = _remember(self._kinds, what, self._kind(record, headers, value))
        partition, stream, is_event, is_text, media_type, rate, channels, encoding, frame, _ = kind
        id = _id(get("ce_source"), get("ce_id")) if is_event else _no_id(headers)
        key = self._keys.get(record.key)
        if key is None:
            key = _remember(self._keys, record.key, _key(record.key))
        timestamp, time, digits = record.timestamp, get("ce_time"), get("ce_duration")
        event_time = timestamp if time is None and timestamp >= 0 else self._event_time(time)
        if digits is None:
            duration = _length(kind, value)
        elif digits.isdigit() and len(digits) < _SHORT:
            duration = int(digits)
        else:
            duration = _long_duration(digits)
        if is_text:
            payload: Payload = _text(value)
        else:
            if frame and len(value) % frame:
                raise _torn(value, frame, channels)
            encoded = _EncodedSlots(value, media_type, rate, channels, encoding)
            encoded.__class__ = Encoded  # type: ignore[assignment]
            payload = encoded  # type: ignore[assignment]
        packet = _PacketSlots(
            stream,
            key,
            event_time,
            duration,
            payload,
            _new(Position, (partition, record.offset)),
            event_time if timestamp < 0 else timestamp,
            id,
            record,
        )
        packet.__class__ = Packet  # type: ignore[assignment]
        return packet  # type: ignore[return-value]

    def _kind(self, record: Record, headers: Mapping[str, bytes | None], value: bytes) -> _Kind:
        attributes = Attributes(headers)
        is_event = attributes.cloud_event
        stream = self._stream(record.topic, attributes)
        otherwise = self._formats.get(stream, _UNKNOWN)
        declared, parameters = attributes.media_type()
        media_type = declared or otherwise.media_type or _guess(value)
        if otherwise.media_type not in (None, media_type):
            otherwise = _UNKNOWN  # what it says of one media type does not hold of another
        rate = attributes.integer("ce_samplerate", 1, MAX_RATE, parameters.get("rate"))
        channels = attributes.integer("ce_channels", 1, MAX_CHANNELS, parameters.get("channels"))
        rate = otherwise.rate if rate is None else rate
        channels = otherwise.channels if channels is None else channels
        encoding = (attributes.text("ce_encoding") or otherwise.encoding or _PCM.get(media_type, "")).lower()
        is_text = media_type.startswith("text/")
        if is_text:
            _require_utf8(parameters)
        frame = 0
        if media_type in _PCM:
            if rate is None or channels is None:
                raise InvalidRecord(f"expected ce_samplerate and ce_channels with {media_type}, found {rate} and {channels}; set both")
            frame = _sample_bytes(media_type, encoding) * channels
        return _Kind(
            partition_name(record.topic, record.partition),
            stream,
            is_event,
            is_text,
            media_type,
            rate,
            channels,
            encoding if frame and encoding != _PCM[media_type] else None,  # said only where the media type does not
            frame,
            otherwise.duration,
        )

    def _event_time(self, text: bytes | None) -> int:
        """The quick way for `2026-05-01T12:00:00.123456789Z`, once its second has been met."""
        if text is None:
            raise InvalidRecord("expected an event time, found neither ce_time nor a record timestamp; set one of them")
        second = self._seconds.get(text[:20])
        if second is not None and len(text) == 30 and text[29] == _Z and (fraction := text[20:29]).isdigit():
            return second + int(fraction)
        return self._read_time(text)

    def _read_time(self, text: bytes) -> int:
        second, fraction = self._seconds.get(text[:20]), text[20:-1]
        if second is not None and 0 < len(fraction) <= 9 and text[-1] == _Z and fraction.isdigit():
            return second + int(fraction.ljust(9, b"0"))
        try:
            instant = parse_time(text.decode())
        except UnicodeDecodeError:
            raise InvalidRecord(f"expected header ce_time in UTF-8, found {text[:40]!r}") from None
        except InvalidRecord as error:
            raise InvalidRecord(f"ce_time: {error}") from None
        if text[19:20] == b"." and text[-1] == _Z:
            _remember(self._seconds, text[:20], instant // SECOND * SECOND)
        return instant

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
            return self._stream(record.topic, Attributes(by_name(record.headers)))
        except InvalidRecord:
            return self._streams.get(record.topic, [record.topic])[0]

    def _known_event_time(self, record: Record) -> int | None:
        time = by_name(record.headers).get("ce_time")
        if time is None:
            return record.timestamp if record.timestamp >= 0 else None
        try:
            return self._event_time(time)
        except InvalidRecord:
            return None


class _Kind(NamedTuple):
    """What the records of one kind have in common. `frame`: the bytes of one sample of all channels, 0 where it is no PCM."""

    partition: str
    stream: str
    is_event: bool
    is_text: bool
    media_type: str
    rate: int | None
    channels: int | None
    encoding: str | None
    frame: int
    duration: int | None


_UNKNOWN = Format()
_SHORT = len(str(MAX_DURATION))  # digits that make a duration of less than the greatest
_new = tuple.__new__  # a named tuple's own adds a call
_Z = ord("Z")


def _remember(memory: dict[K, V], key: K, value: V) -> V:
    parts = key if isinstance(key, tuple) else (key,)
    if sum(len(part) for part in parts if isinstance(part, bytes)) <= LONGEST_REMEMBERED:
        if len(memory) >= REMEMBERED:
            memory.clear()
        memory[key] = value
    return value


def _key(key: bytes | None) -> str:
    if key is None:
        return NO_KEY
    try:
        return key.decode()
    except UnicodeDecodeError:
        raise InvalidRecord(f"expected the record's key in UTF-8, found {key[:40]!r}; the key names the room or session") from None


def _id(source: bytes | None, name: bytes | None) -> str:
    if source and name:
        try:
            return (source + b"#" + name).decode()
        except UnicodeDecodeError:
            pass  # whose fault it is, is said below
    attributes = Attributes({"ce_source": source, "ce_id": name})
    return f"{attributes.required('ce_source')}#{attributes.required('ce_id')}"


def _no_id(headers: Mapping[str, bytes | None]) -> str:
    refuse_attributes(headers)
    return ""


def _long_duration(digits: bytes) -> int:
    if digits.isdigit() and len(digits) < 20 and (duration := int(digits)) <= MAX_DURATION:
        return duration
    shown = digits.decode(errors="replace")
    raise InvalidRecord(f"expected ce_duration to be a whole number from 0 to {MAX_DURATION}, found {shown[:40]!r}")


def _length(kind: _Kind, value: bytes) -> int:
    if kind.duration is not None:
        return kind.duration
    if kind.frame and kind.rate:
        return len(value) // kind.frame * SECOND // kind.rate
    if kind.media_type in _FILES:
        return min(sound_length(value), MAX_DURATION)
    return 0


def _guess(value: bytes) -> str:
    first = value[:1]
    if first in b"\xff\x89\x93OfR":
        for magic, media_type in _MAGIC:
            if value.startswith(magic):
                return media_type
    return "text/plain"


def _sample_bytes(media_type: str, encoding: str) -> int:
    known = (_PCM[media_type],) if media_type == "audio/l16" else tuple(SAMPLE_BYTES)
    if encoding not in known:
        raise InvalidRecord(f"expected ce_encoding of {media_type} to be {' or '.join(known)}, found {encoding[:40]!r}; convert the sound")
    return SAMPLE_BYTES[encoding]


def _require_utf8(parameters: Mapping[str, str]) -> None:
    charset = parameters.get("charset", "utf-8").lower()
    if charset not in ("utf-8", "utf8", "us-ascii"):
        raise UndecodablePayload(f"expected text in UTF-8, found charset {charset[:40]!r}; convert the text")


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise UndecodablePayload(
            f"expected text in UTF-8, found byte 0x{value[error.start]:02x} at {error.start}; send UTF-8, or set"
            " content-type if this is not text"
        ) from None


def _torn(value: bytes, frame: int, channels: int | None) -> UndecodablePayload:
    bits = 8 * frame // (channels or 1)
    return UndecodablePayload(
        f"expected whole samples of {bits} bits x {channels} channels, found {len(value)} bytes; check the sample width"
    )


# A frozen dataclass sets each of its fields through object.__setattr__: a third of the cost of decoding. So these two are made as plain
# objects of the same slots, and frozen by taking on their class.


class _PacketSlots:
    __slots__ = Packet.__slots__

    def __init__(
        self,
        stream: str,
        key: str,
        event_time: int,
        duration: int,
        payload: Payload,
        position: Position,
        arrival_time: int,
        id: str,
        original: Record,
    ) -> None:
        self.stream = stream
        self.key = key
        self.event_time = event_time
        self.duration = duration
        self.payload = payload
        self.position = position
        self.arrival_time = arrival_time
        self.id = id
        self.original = original


class _EncodedSlots:
    __slots__ = Encoded.__slots__

    def __init__(self, data: bytes, media_type: str, rate: int | None, channels: int | None, encoding: str | None) -> None:
        self.data = data
        self.media_type = media_type
        self.rate = rate
        self.channels = channels
        self.encoding = encoding


# --- encoding ---------------------------------------------------------------------------------------------------------


def encode_packet(packet: Packet) -> WireRecord:
    """The packet as a record: `RecordDecoder` gives back an equal one (with an `id` where it had none, and images as
    JPEG).

    Blocks for the time of a JPEG encoding where the payload is an `Image`. Raises InvalidRecord for an instant
    outside the years 1 to 9999 or an image that can't be encoded. The record's timestamp is the packet's arrival time.
    """
    value, media_type, rate, channels, encoding = _encode_payload(packet.payload)
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
        ("ce_samplerate", rate),
        ("ce_channels", channels),
        ("ce_encoding", encoding),
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
        ("ce_dataschema", PREDICTION_SCHEMA_ID),
        ("content-type", "application/json"),
    ]
    return WireRecord(_utf8(p.key), prediction_to_json(p).encode(), _headers(attributes), p.produced_at)


def _encode_payload(payload: Payload) -> tuple[bytes, str, int | None, int | None, str | None]:
    """Bytes, media type, and of sound the rate, the channels and the sample format."""
    match payload:
        case str():
            return _utf8(payload), "text/plain; charset=utf-8", None, None, None
        case Encoded():
            encoding = payload.encoding or _PCM.get(payload.media_type)
            return payload.data, payload.media_type, payload.rate, payload.channels, encoding
        case Audio():
            samples = payload.samples.astype("<i2", copy=False)
            return samples.tobytes(), "audio/pcm", payload.rate, payload.samples.shape[1], "s16le"
        case Image():
            return _jpeg(payload), "image/jpeg", None, None, None


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
