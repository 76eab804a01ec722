"""JSON Schemas of the headers that our records have, for producers and readers in other languages: the values as text.

The headers of a record are an object here, name -> value as UTF-8. What is said nothing of is passed over by us, and may be there.
"""

from __future__ import annotations

from typing import Any

from streamfuse.codecs import MAX_CHANNELS, MAX_DURATION, MAX_RATE
from streamfuse.dead_letters import (
    COUNT,
    ERROR,
    NULLS,
    OFFSET,
    PARTITION,
    REASON,
    REASONS,
    STAGE,
    STREAM,
    TIME,
    TIMESTAMP,
    TOPIC,
    VALUE_BYTES,
)
from streamfuse.documents import PREDICTION_SCHEMA_ID
from streamfuse.lengths import SAMPLE_BYTES
from streamfuse.types import SECOND, Stage

DIALECT = "https://json-schema.org/draft/2020-12/schema"
PACKET_SCHEMA_ID = "urn:streamfuse:schema:packet:1"

_TIME = r"^\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,18})?([Zz]|[+-]\d\d:\d\d)$"
_NUMBER = r"^[0-9]{1,19}$"
_NAME = "[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]*"


def packet_headers() -> dict[str, Any]:
    """Of a packet: a CloudEvent 1.0 in Kafka's binary mode, with extension attributes of ours."""
    return {
        "$schema": DIALECT,
        "$id": PACKET_SCHEMA_ID,
        "title": "StreamFuse packet: headers",
        "description": "A frame, a chunk of sound or a text: the record's value is its bare bytes, its key the room or session.",
        "type": "object",
        "properties": {
            **_event(
                "frame", "Names the producer; ce_source and ce_id together name the packet: of two with one name, the second is dropped."
            ),
            "ce_time": _text(_TIME, "Event time: when it happened (RFC 3339). The record's timestamp counts where it is missing."),
            "content-type": _text(
                rf"^{_NAME}/{_NAME}[ \t]*(;.*)?$",
                "Media type of the value; guessed from its first bytes where it is missing.",
                examples=["image/jpeg", "image/png", "audio/pcm", "audio/flac", "audio/ogg;codecs=opus", "text/plain;charset=utf-8"],
            ),
            "ce_stream": _text("", "The stream; needed only where several streams share a topic.", examples=["video", "audio", "text"]),
            "ce_duration": _text(
                _NUMBER,
                f"What it covers from its event time on, in ns, up to {MAX_DURATION // SECOND} s. Of sound, what its bytes say where"
                " it is missing; an instant else.",
                examples=["40000000"],
            ),
            "ce_sequence": _text("", "The producer's own count, 20 digits (CloudEvents' extension `sequence`).", examples=[f"{17:020d}"]),
            "ce_samplerate": _text(_up_to(MAX_RATE), "Of sound: Hz. Needed with PCM.", examples=["16000"]),
            "ce_channels": _text(_up_to(MAX_CHANNELS), "Of sound: number of channels, interleaved. Needed with PCM.", examples=["1"]),
            "ce_encoding": {
                "type": "string",
                "enum": list(SAMPLE_BYTES),
                "description": "Of PCM: its samples; s16le where it is missing (s16be with audio/L16).",
            },
        },
        "required": ["ce_specversion", "ce_id", "ce_source", "ce_type"],
        "if": {"required": ["content-type"], "properties": {"content-type": {"pattern": "^audio/([pP][cC][mM]|[lL]16)$"}}},
        "then": {"required": ["ce_samplerate", "ce_channels"]},
    }


def prediction_headers() -> dict[str, Any]:
    return {
        "title": "StreamFuse prediction: headers",
        "type": "object",
        "properties": {
            **_event("streamfuse.prediction", "Names the model."),
            "ce_type": {"const": "streamfuse.prediction"},
            "ce_id": _text(".", "key/start/end/revision, in ns: the same in every run."),
            "ce_time": _text(_TIME, "When it was made."),
            "ce_dataschema": {"const": PREDICTION_SCHEMA_ID},
            "content-type": {"const": "application/json"},
        },
        "required": ["ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time", "ce_dataschema", "content-type"],
    }


def dead_letter_headers() -> dict[str, Any]:
    """Of a dead letter: those of its original, and after them these."""
    return {
        "title": "StreamFuse dead letter: headers",
        "description": "The headers of the original as they were, in their order, and after them these.",
        "type": "object",
        "properties": {
            COUNT: _text(_NUMBER, "How many headers before this one are the original's."),
            NULLS: _text(r"^([0-9]+|value)(,([0-9]+|value))*$", "What had no value: numbers of headers, from 0, and `value`."),
            ERROR: _text(".", "A sentence: what was expected, what was found, what to change."),
            STAGE: {"type": "string", "enum": [stage.value for stage in Stage], "description": "Where it was found."},
            REASON: {"type": "string", "enum": [reason.value for reason in REASONS]},
            STREAM: _text("", "The stream that it was of, or would have been."),
            TOPIC: _text(".", "Where the original stood."),
            PARTITION: _text(_NUMBER, "Where the original stood."),
            OFFSET: _text(_NUMBER, "Where the original stood; with topic and partition it makes two letters the same."),
            TIMESTAMP: _text(r"^-?[0-9]{1,19}$", "The original's own timestamp, ms since 1970."),
            TIME: _text(_TIME, "When it became a dead letter."),
            VALUE_BYTES: _text(_NUMBER, "Only where the topic had no room for the value: how many bytes it has where it stood."),
        },
        "required": [COUNT, ERROR, STAGE, REASON, STREAM, TOPIC, PARTITION, OFFSET, TIMESTAMP, TIME],
    }


def _event(kind: str, source: str) -> dict[str, Any]:
    """What CloudEvents 1.0 requires."""
    return {
        "ce_specversion": {"const": "1.0", "description": "Version of CloudEvents."},
        "ce_id": _text(".", "Unique within ce_source."),
        "ce_source": _text(".", source),
        "ce_type": _text(".", "Kind of the event, as its producer names it.", examples=[kind]),
    }


def _text(pattern: str, description: str, **more: Any) -> dict[str, Any]:
    return {"type": "string", **({"pattern": pattern} if pattern else {}), "description": description, **more}


def _up_to(most: int) -> str:
    """Whole numbers from 1 to `most`, which is 10**n or less than 100."""
    digits = len(str(most))
    if most == 10 ** (digits - 1):
        return rf"^0*([1-9][0-9]{{0,{digits - 2}}}|{most})$"
    tens, ones = divmod(most, 10)
    return rf"^0*([1-9]|[1-{tens - 1}][0-9]|{tens}[0-{ones}])$"
