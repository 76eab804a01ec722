"""Records become packets or losses, and packets survive the way over the wire."""

from __future__ import annotations

import io
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamfuse.codecs import (
    REMEMBERED,
    Format,
    Record,
    RecordDecoder,
    WireRecord,
    encode_packet,
    encode_prediction,
    format_time,
    parse_time,
)
from streamfuse.errors import InvalidRecord
from streamfuse.headers import Headers
from streamfuse.types import MILLISECOND, SECOND, Audio, Encoded, Image, Loss, Outcome, Packet, Payload, Position, Prediction

TOPICS = {"video": "room.video", "audio": "room.audio", "text": "room.text"}
NOON = 1_777_636_800 * SECOND  # 2026-05-01T12:00:00Z
JPEG = b"\xff\xd8\xff\xe0 not much of a picture"
EVENT: Headers = (("ce_specversion", b"1.0"), ("ce_id", b"7"), ("ce_source", b"cam"), ("ce_type", b"frame"))

instants = st.integers(-62_135_596_800 * SECOND, 253_402_300_799 * SECOND)
names = st.text(min_size=1, max_size=20)
ids = st.one_of(st.just(""), st.builds("{}#{}".format, names, names.filter(lambda name: "#" not in name)))


@st.composite
def payloads(draw: st.DrawFn) -> Payload:
    media_type = draw(st.sampled_from(["image/jpeg", "image/png", "audio/pcm", "audio/l16", "audio/ogg", "application/x"]))
    if draw(st.booleans()):
        return draw(st.text(max_size=200))
    data = draw(st.binary(max_size=200))
    if media_type not in ("audio/pcm", "audio/l16"):
        return Encoded(data, media_type)
    channels = draw(st.integers(1, 8))
    encoding = draw(st.sampled_from([None, "s16be", "f32le"])) if media_type == "audio/pcm" else None
    frame = (4 if encoding == "f32le" else 2) * channels
    return Encoded(data[: len(data) // frame * frame], media_type, draw(st.integers(1, 192_000)), channels, encoding)


@st.composite
def packets(draw: st.DrawFn) -> Packet:
    stream = draw(st.sampled_from(sorted(TOPICS)))
    return Packet(
        stream=stream,
        key=draw(st.text(max_size=20)),
        event_time=draw(instants),
        duration=draw(st.integers(0, 3600 * SECOND)),
        payload=draw(payloads()),
        position=Position(TOPICS[stream] + "/3", draw(st.integers(0, 2**63 - 1))),
        arrival_time=draw(st.integers(0, 2**62)),
        id=draw(ids),
    )


def on_topic(wire: WireRecord, topic: str, *, partition: int = 3, offset: int = 5) -> Record:
    return Record(topic, partition, offset, wire.key, wire.value, wire.headers, wire.timestamp)


def decode(record: Record, max_record_bytes: int = 1000) -> Packet | Loss:
    return RecordDecoder(TOPICS, max_record_bytes).decode(record)


def packet_of(record: Record) -> Packet:
    item = decode(record)
    assert isinstance(item, Packet), item
    return item


def loss_of(record: Record, max_record_bytes: int = 1000) -> Loss:
    item = decode(record, max_record_bytes)
    assert isinstance(item, Loss), item
    return item


def record(
    value: bytes | None = JPEG,
    headers: Headers = (),
    *,
    topic: str = "room.video",
    key: bytes | None = b"room-1",
    timestamp: int = NOON,
) -> Record:
    return Record(topic, 0, 5, key, value, headers, timestamp)


# --- the way there and back ---


@given(packets())
def test_any_packet_survives_the_wire(packet: Packet) -> None:
    wire = encode_packet(packet)
    back = RecordDecoder(TOPICS, 10_000).decode(on_topic(wire, TOPICS[packet.stream], offset=packet.position.offset))
    assert isinstance(back, Packet)
    assert back == replace(packet, id=packet.id or back.id)
    assert back.id


@given(packets())
def test_a_packet_without_an_id_gets_the_same_one_each_time(packet: Packet) -> None:
    assert encode_packet(replace(packet, id="")) == encode_packet(replace(packet, id=""))


def test_sound_goes_as_little_endian_pcm_with_rate_and_channels() -> None:
    sound = Audio(np.array([[1, -2], [256, 3]], dtype=np.int16), 16_000)
    wire = encode_packet(packet_with(sound, "audio"))
    back = packet_of(on_topic(wire, "room.audio"))
    assert back.payload == Encoded(b"\x01\x00\xfe\xff\x00\x01\x03\x00", "audio/pcm", 16_000, 2)


def test_an_image_goes_as_jpeg() -> None:
    wire = encode_packet(packet_with(Image(np.zeros((4, 6, 3), dtype=np.uint8)), "video"))
    assert (wire.value or b"").startswith(b"\xff\xd8\xff")
    assert dict(wire.headers)["content-type"] == b"image/jpeg"


def test_an_image_without_pixels_is_refused_with_a_sentence() -> None:
    with pytest.raises(InvalidRecord, match=r"found \(0, 6, 3\)"):
        encode_packet(packet_with(Image(np.zeros((0, 6, 3), dtype=np.uint8)), "video"))


def test_event_time_keeps_its_nanoseconds() -> None:
    wire = encode_packet(packet_with("hello", "text", event_time=NOON + 123_456_789))
    assert dict(wire.headers)["ce_time"] == b"2026-05-01T12:00:00.123456789Z"


def test_header_names_are_those_of_cloud_events() -> None:
    wire = encode_packet(packet_with(Audio(np.zeros((2, 1), dtype=np.int16), 8_000), "audio"))
    assert [name for name, _ in wire.headers] == [
        "ce_specversion",
        "ce_id",
        "ce_source",
        "ce_type",
        "ce_time",
        "content-type",
        "ce_stream",
        "ce_duration",
        "ce_sequence",
        "ce_samplerate",
        "ce_channels",
        "ce_encoding",
    ]


def test_lone_surrogates_in_text_become_question_marks() -> None:
    assert encode_packet(packet_with("a\ud800b", "text")).value == b"a?b"


def packet_with(payload: Payload, stream: str, event_time: int = NOON) -> Packet:
    return Packet(stream, "room-1", event_time, 40, payload, Position("file/0", 5), NOON)


# --- producers that know nothing of CloudEvents ---


def test_a_plain_record_takes_stream_time_and_key_from_the_record() -> None:
    packet = packet_of(record())
    assert packet == Packet("video", "room-1", NOON, 0, Encoded(JPEG, "image/jpeg"), Position("room.video/0", 5), NOON)


def test_plain_text_is_read_as_utf8() -> None:
    assert packet_of(record("grüß Gott".encode(), topic="room.text")).payload == "grüß Gott"


def test_a_record_without_a_key_belongs_to_the_default_key() -> None:
    assert packet_of(record(key=None)).key == "default"


def test_rate_and_channels_may_stand_in_the_media_type() -> None:
    packet = packet_of(record(b"\0" * 640, (("Content-Type", b"audio/L16; rate=16000; channels=1"),), topic="room.audio"))
    assert packet.payload == Encoded(b"\0" * 640, "audio/l16", 16_000, 1)


def test_the_duration_of_plain_pcm_follows_from_its_length() -> None:
    packet = packet_of(record(b"\0" * 640, (("content-type", b"audio/pcm;rate=16000;channels=1"),), topic="room.audio"))
    assert packet.duration == 20_000_000


def test_names_of_headers_may_be_in_capitals() -> None:
    headers = tuple(
        (name.upper(), value) for name, value in (*EVENT, ("ce_time", b"2026-05-01T12:00:01Z"), ("content-type", b"image/jpeg"))
    )
    packet = packet_of(record(headers=headers))
    assert (packet.event_time, packet.id) == (NOON + SECOND, "cam#7")


FORMATS = {
    "audio": Format("audio/pcm", rate=8_000, channels=2, encoding="f32le"),
    "text": Format(duration=2 * SECOND),
    "video": Format("image/png"),
}


def test_a_row_of_numbers_is_told_by_its_first_bytes() -> None:
    row = io.BytesIO()
    np.save(row, np.arange(4.0))
    assert packet_of(record(row.getvalue())).payload == Encoded(row.getvalue(), "application/x-npy")


def formatted(given: Record) -> Packet:
    item = RecordDecoder(TOPICS, 1000, FORMATS).decode(given)
    assert isinstance(item, Packet), item
    return item


def test_what_a_producer_does_not_say_the_format_of_its_stream_does() -> None:
    packet = formatted(record(b"\0" * 640, topic="room.audio"))
    assert packet.payload == Encoded(b"\0" * 640, "audio/pcm", 8_000, 2, "f32le")
    assert packet.duration == SECOND // 100


def test_the_duration_of_the_format_holds_where_the_record_says_none() -> None:
    assert formatted(record(b"hello", topic="room.text")).duration == 2 * SECOND
    assert formatted(record(b"hello", (*EVENT, ("ce_duration", b"5")), topic="room.text")).duration == 5


def test_what_a_record_says_holds_against_the_format() -> None:
    headers = (*EVENT, ("content-type", b"audio/pcm"), ("ce_samplerate", b"16000"), ("ce_channels", b"1"), ("ce_encoding", b"S16LE"))
    packet = formatted(record(b"\0" * 640, headers, topic="room.audio"))
    assert packet.payload == Encoded(b"\0" * 640, "audio/pcm", 16_000, 1)


def test_a_record_of_another_media_type_takes_nothing_else_from_the_format() -> None:
    packet = formatted(record(b"fLaC", (("content-type", b"audio/flac"),), topic="room.audio"))
    assert packet.payload == Encoded(b"fLaC", "audio/flac")


def test_the_format_holds_against_the_first_bytes() -> None:
    assert formatted(record(JPEG)).payload == Encoded(JPEG, "image/png")


# --- sound ---


def sound_of(value: bytes, **attributes: str) -> Packet | Loss:
    headers = (*EVENT, *((f"ce_{name}", text.encode()) for name, text in attributes.items()))
    return decode(record(value, (*headers, ("content-type", b"audio/pcm")), topic="room.audio"))


@pytest.mark.parametrize(("encoding", "milliseconds"), [("s16le", 40), ("s16be", 40), ("f32le", 20)])
def test_the_duration_of_sound_follows_from_its_encoding(encoding: str, milliseconds: int) -> None:
    packet = sound_of(bytes(640), samplerate="8000", channels="1", encoding=encoding)
    assert isinstance(packet, Packet)
    assert packet.duration == milliseconds * MILLISECOND


def test_an_encoding_that_we_cannot_read_is_quarantined() -> None:
    loss = sound_of(bytes(6), samplerate="8000", channels="1", encoding="s24le")
    assert isinstance(loss, Loss)
    assert "expected ce_encoding of audio/pcm to be s16le or s16be or f32le, found 's24le'" in loss.detail


def test_half_a_sample_of_floats_is_undecodable() -> None:
    loss = sound_of(bytes(6), samplerate="8000", channels="1", encoding="f32le")
    assert isinstance(loss, Loss)
    assert "whole samples of 32 bits x 1 channels, found 6 bytes" in loss.detail


def test_l16_is_big_endian_and_nothing_else() -> None:
    headers = (*EVENT, ("content-type", b"audio/L16;rate=8000;channels=1"), ("ce_encoding", b"s16le"))
    assert "expected ce_encoding of audio/l16 to be s16be" in loss_of(record(bytes(2), headers, topic="room.audio")).detail


def test_the_duration_of_a_flac_file_stands_in_it() -> None:
    streaminfo = bytes(10) + (16_000 << 44 | 15 << 36 | 640).to_bytes(8, "big") + bytes(16)
    value = b"fLaC" + b"\x80\0\0\x22" + streaminfo
    assert packet_of(record(value, topic="room.audio")).duration == 40 * MILLISECOND


# --- what is remembered ---


@pytest.mark.parametrize("zone", ["Z", "z", "+00:00", "+02:00"])
@pytest.mark.parametrize("fraction", ["", ".5", ".123", ".123456", ".123456789", ".1234567899"])
def test_a_time_is_read_the_same_whether_its_second_was_met_before_or_not(fraction: str, zone: str) -> None:
    text = f"2026-05-01T12:00:00{fraction}{zone}"
    decoder = RecordDecoder(TOPICS, 1000)
    for time in ("2026-05-01T12:00:00.1Z", text, text):
        item = decoder.decode(record(headers=(*EVENT, ("ce_time", time.encode()))))
        assert isinstance(item, Packet)
        assert item.event_time == parse_time(time)


def test_no_record_is_read_otherwise_for_those_before_it() -> None:
    headers = (*EVENT, ("content-type", b"text/plain"), ("ce_time", b"2026-05-01T12:00:00.000000001Z"))
    plain, event = record(b"hm", topic="room.text"), record(b"hm", headers, topic="room.text")
    half = [record(b"hm", (one,), topic="room.text") for one in headers if one[0] != "content-type"]
    without = [record(b"hm", tuple(h for h in headers if h[0] != name), topic="room.text") for name, _ in headers]
    torn = record(b"\xff", headers, topic="room.text")
    decoder = RecordDecoder(TOPICS, 1000)
    for one in (plain, event, *half, *without, torn, record(None), plain, event, *half, *without, torn):
        assert decoder.decode(one) == RecordDecoder(TOPICS, 1000).decode(one)


def test_what_a_decoder_remembers_is_bounded() -> None:
    decoder = RecordDecoder(TOPICS, 1000)
    for number in range(2 * REMEMBERED + 2):
        time = format_time(NOON + number * SECOND).encode()
        headers = (*EVENT[:3], ("ce_type", b"%d" % number), ("ce_time", time))
        assert isinstance(decoder.decode(record(headers=headers, key=b"%d" % number)), Packet)
    assert all(len(memory) <= REMEMBERED for memory in (decoder._kinds, decoder._keys, decoder._seconds))


def test_what_is_said_at_great_length_is_not_remembered() -> None:
    decoder = RecordDecoder(TOPICS, 1000)
    assert isinstance(decoder.decode(record(headers=(*EVENT[:3], ("ce_type", b"x" * 5000)), key=b"k" * 5000)), Packet)
    assert (len(decoder._kinds), len(decoder._keys)) == (0, 1)


# --- streams and topics ---


def test_the_configured_stream_holds_where_the_producer_has_a_name_of_its_own() -> None:
    assert packet_of(record(headers=(*EVENT, ("ce_stream", b"front-door")))).stream == "video"


def test_a_record_in_the_topic_of_another_stream_is_quarantined() -> None:
    loss = loss_of(record(headers=(*EVENT, ("ce_stream", b"audio"))))
    assert (loss.reason, "whose topic is 'room.audio'" in loss.detail) == (Outcome.QUARANTINED, True)


def test_streams_that_share_a_topic_are_told_apart_by_their_header() -> None:
    decoder = RecordDecoder({"left": "ears", "right": "ears"}, 1000)
    item = decoder.decode(record(b"hm", (*EVENT, ("ce_stream", b"right")), topic="ears"))
    assert isinstance(item, Packet)
    assert item.stream == "right"


def test_streams_that_share_a_topic_need_their_header() -> None:
    item = RecordDecoder({"left": "ears", "right": "ears"}, 1000).decode(record(b"hm", topic="ears"))
    assert isinstance(item, Loss)
    assert "give each stream a topic of its own" in item.detail


# --- bad input ---


@pytest.mark.parametrize(
    ("headers", "sentence"),
    [
        ((("ce_specversion", b"0.3"),), "expected ce_specversion 1.0, found '0.3'"),
        ((("ce_id", b"7"),), "expected ce_specversion 1.0, found None"),
        (EVENT[:1] + EVENT[2:], "expected header ce_id"),
        (EVENT[:2] + EVENT[3:], "expected header ce_source"),
        (EVENT[:3], "expected header ce_type"),
        ((*EVENT, ("ce_time", b"yesterday")), "ce_time: expected an RFC 3339 time"),
        ((*EVENT, ("ce_time", b"2026-02-30T12:00:00Z")), "ce_time: expected a date and time that exist"),
        ((*EVENT, ("ce_time", b"2026-05-01T12:00:00")), "ce_time: expected an RFC 3339 time"),
        ((*EVENT, ("ce_time", b"\xff\xfe")), "expected header ce_time in UTF-8"),
        ((*EVENT, ("ce_duration", b"-1")), "expected ce_duration to be a whole number from 0"),
        ((*EVENT, ("ce_duration", b"3600000000001")), "expected ce_duration to be a whole number from 0"),
        ((*EVENT, ("ce_duration", b"40ms")), "expected ce_duration to be a whole number from 0"),
        ((*EVENT, ("ce_samplerate", b"16k")), "expected ce_samplerate to be a whole number from 1"),
        ((*EVENT, ("ce_samplerate", b"0")), "expected ce_samplerate to be a whole number from 1"),
        ((*EVENT, ("ce_channels", b"1000")), "expected ce_channels to be a whole number from 1 to 64"),
        ((*EVENT, ("content-type", b"jpeg")), "expected content-type to be a media type"),
        ((*EVENT, ("content-type", b"audio/pcm")), "expected ce_samplerate and ce_channels"),
        ((("content-type", b"application/cloudevents+json"),), "found structured mode"),
    ],
)
def test_an_absurd_header_is_quarantined_with_a_sentence(headers: Headers, sentence: str) -> None:
    loss = loss_of(record(headers=headers))
    assert loss.reason is Outcome.QUARANTINED
    assert sentence in loss.detail


def test_a_key_that_is_not_utf8_is_quarantined() -> None:
    loss = loss_of(record(key=b"\xff1"))
    assert (loss.reason, loss.key) == (Outcome.QUARANTINED, "\\xff1")


def test_a_record_without_any_time_is_quarantined() -> None:
    assert "expected an event time" in loss_of(record(timestamp=-1)).detail


def test_a_record_above_the_limit_is_quarantined() -> None:
    loss = loss_of(record(JPEG * 100), max_record_bytes=2000)
    assert (loss.reason, "raise max_record_bytes" in loss.detail) == (Outcome.QUARANTINED, True)


def test_a_null_value_is_undecodable() -> None:
    assert loss_of(record(None)).reason is Outcome.UNDECODABLE


def test_text_that_is_not_utf8_is_undecodable_and_keeps_its_bytes() -> None:
    sent = record(b"gr\xfc\xdf", topic="room.text")
    loss = loss_of(sent)
    assert (loss.reason, loss.record, loss.event_time) == (Outcome.UNDECODABLE, sent, NOON)
    assert "found byte 0xfc at 2" in loss.detail


def test_text_in_another_charset_is_undecodable() -> None:
    loss = loss_of(record(b"hm", (("content-type", b"text/plain;charset=latin-1"),), topic="room.text"))
    assert "found charset 'latin-1'" in loss.detail


def test_half_a_sample_of_sound_is_undecodable() -> None:
    headers = (("content-type", b"audio/pcm"), ("ce_samplerate", b"16000"), ("ce_channels", b"2"), *EVENT)
    loss = loss_of(record(b"\0" * 6, headers, topic="room.audio"))
    assert (loss.reason, "check the sample width" in loss.detail) == (Outcome.UNDECODABLE, True)


def test_a_loss_says_where_its_record_stands() -> None:
    loss = loss_of(record(None))
    assert loss.position == Position("room.video/0", 5)
    assert loss.detail.startswith("room.video/0 at offset 5: ")


wire_names = st.one_of(
    st.sampled_from([name for name, _ in EVENT] + ["ce_time", "ce_stream", "ce_duration", "ce_samplerate", "ce_encoding", "content-type"]),
    st.text(max_size=12),
)
wire_values = st.one_of(
    st.none(),
    st.binary(max_size=40),
    st.sampled_from([b"1.0", b"-1", b"16000", b"text/plain", b"audio/l16;rate=1e9;channels=0", b"9" * 40]),
    st.sampled_from([b"2026-05-01T12:00:60+23:59", b"0001-01-01T00:00:00+12:00", b"9999-12-31T23:59:60Z", "²".encode()]),
)


wire_headers = st.lists(st.tuples(wire_names, wire_values), max_size=12).map(tuple)


@st.composite
def wire_records(draw: st.DrawFn) -> Record:
    headers = draw(wire_headers)
    return Record(
        topic=draw(st.sampled_from([*TOPICS.values(), "unknown"])),
        partition=0,
        offset=5,
        key=draw(st.one_of(st.none(), st.binary(max_size=8))),
        value=draw(st.one_of(st.none(), st.binary(max_size=40))),
        headers=(*EVENT, *headers) if draw(st.booleans()) else headers,
        timestamp=draw(st.integers(-1, 2**63 - 1)),
    )


@given(wire_records())
def test_whatever_comes_is_a_packet_or_a_loss(given: Record) -> None:
    item = decode(given, 30)
    assert isinstance(item, Packet) or item.reason in (Outcome.QUARANTINED, Outcome.UNDECODABLE)


@given(st.lists(wire_records(), max_size=4))
def test_whatever_came_before_changes_nothing(given: list[Record]) -> None:
    decoder = RecordDecoder(TOPICS, 30)
    assert [decoder.decode(one) for one in given * 2] == [decode(one, 30) for one in given * 2]


# --- predictions, imports ---


def test_a_prediction_is_keyed_by_its_key_and_named_by_its_window() -> None:
    prediction = Prediction("room-1", 0, SECOND, 2, "silence", {"silence": 1.0}, {}, {}, {}, "m", "d", NOON)
    wire = encode_prediction(prediction)
    assert wire.key == b"room-1"
    assert dict(wire.headers)["ce_id"] == b"room-1/0/1000000000/2"


def test_importing_the_codecs_imports_neither_numpy_nor_opencv() -> None:
    check = "import sys, streamfuse.codecs; sys.exit(bool({'numpy', 'cv2', 'torch', 'kafka'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
