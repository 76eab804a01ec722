"""The AsyncAPI 3.0 document of a config: every topic that it reads and writes, with the schemas of its records."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from streamfuse.config import Config, FormatSettings, KafkaConnection
from streamfuse.documents import prediction_schema
from streamfuse.header_schemas import dead_letter_headers, packet_headers, prediction_headers
from streamfuse.topic_uses import Purpose, TopicUse, topic_uses

BINDING = "0.5.0"  # of the AsyncAPI bindings for Kafka
EXAMPLE = {
    "sources": [{"type": "kafka", "topics": {"video": "video", "audio": "audio", "text": "text"}}],
    "sinks": [{"type": "kafka"}],
    "dead_letters": {"type": "kafka"},
}
"""A config with every kind of topic, as `config/kafka.yaml` has them."""
CONTENT_TYPES = (
    "image/jpeg",
    "image/png",
    "audio/pcm",
    "audio/l16",
    "audio/flac",
    "audio/ogg",
    "text/plain",
    "application/x-npy",
    "application/json",
)

_ABOUT = """\
Aligns video, sound and text by event time, and publishes what a fusion model says about each window.

Records are CloudEvents 1.0 in Kafka's binary mode: attributes in headers, the bare payload as the value, the room or session as the key.
All records of one key go to the partition that Kafka's own partitioner (murmur2) gives it, in topics with equal numbers of partitions.
Producers that know nothing of CloudEvents may leave the ce_ headers out altogether: the topic then names the stream, the record's
timestamp is the event time, and the config says the rest (`formats`).
"""
_DIRECTIONS = {Purpose.INPUT: "receive", Purpose.PREDICTIONS: "send", Purpose.DEAD_LETTERS: "send"}
_TITLES = {
    Purpose.PREDICTIONS: "Predictions, one for each window; of several with one identity the greatest revision holds.",
    Purpose.DEAD_LETTERS: "Records that were of no use, as they stood in their topics, with the reason.",
    Purpose.WATERMARKS: "Up to where the windows of each key are closed. Our own; only a compacted topic keeps it.",
}


def document(config: Config) -> dict[str, Any]:
    """A plain tree of what JSON and YAML can hold. Of the connections it tells addresses and methods, no names and no secrets."""
    uses = topic_uses(config)
    servers = _Servers()
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    messages: dict[str, Any] = {}
    carried: dict[str, dict[str, Any]] = {}
    for use in uses:
        channel = _place(channels, use.topic, _channel(use, servers.names_of(use.brokers)))
        told = [_place(messages, name, message) for name, message in _messages(use).items()]
        carried.setdefault(channel, {}).update({name: _ref("components", "messages", name) for name in told})
        _place(operations, f"{_direction(use)}.{channel}", _operation(use, channel))
    for name, refs in carried.items():
        channels[name] = {**channels[name], "messages": refs}
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "StreamFuse", "version": version("streamfuse"), "description": _ABOUT, "license": {"name": "Apache-2.0"}},
        "defaultContentType": "application/json",
        **({"servers": servers.described} if servers.described else {}),
        "channels": channels,
        "operations": operations,
        "components": {
            "messages": messages,
            "schemas": _schemas(uses),
            **({"securitySchemes": servers.security} if servers.security else {}),
        },
    }


class _Servers:
    """The brokers, one server for each address."""

    def __init__(self) -> None:
        self.described: dict[str, Any] = {}
        self.security: dict[str, Any] = {}
        self._names: dict[str, str] = {}

    def names_of(self, brokers: KafkaConnection | None) -> list[str]:
        if brokers is None:
            self.described["in-process"] = {"host": "localhost", "protocol": "in-process", "description": "Topics within the process."}
            return ["in-process"]
        return [self._name(address.strip(), brokers) for address in brokers.bootstrap.split(",")]

    def _name(self, address: str, brokers: KafkaConnection) -> str:
        if address not in self._names:
            number = len(self._names)
            self._names[address] = name = f"kafka-{number + 1}" if number else "kafka"
            security = self._security(brokers)
            self.described[name] = {
                "host": address,
                "protocol": "kafka-secure" if "ssl" in brokers.security else "kafka",
                **({"security": [_ref("components", "securitySchemes", scheme) for scheme in security]} if security else {}),
            }
        return self._names[address]

    def _security(self, brokers: KafkaConnection) -> list[str]:
        schemes = []
        if brokers.security.startswith("sasl"):
            kind = {"PLAIN": "plain", "SCRAM-SHA-256": "scramSha256", "SCRAM-SHA-512": "scramSha512"}[brokers.mechanism]
            self.security[kind] = {"type": kind}
            schemes.append(kind)
        if brokers.certificate_file is not None:
            self.security["certificate"] = {"type": "X509"}
            schemes.append("certificate")
        return schemes


def _channel(use: TopicUse, servers: Sequence[str]) -> dict[str, Any]:
    title = _TITLES.get(use.purpose) or f"Packets of the stream{'s' if len(use.streams) > 1 else ''} {', '.join(use.streams)}."
    if use.together and len(use.together) > 1 and use.purpose is Purpose.INPUT:
        title += f" As many partitions as {', '.join(topic for topic in use.together if topic != use.topic)}."
    kafka = {
        "topic": use.topic,
        "topicConfiguration": {"cleanup.policy": ["compact" if use.compacted else "delete"]},
        "bindingVersion": BINDING,
    }
    return {
        "address": use.topic,
        "description": title,
        "servers": [_ref("servers", name) for name in servers],
        **({"bindings": {"kafka": kafka}} if use.brokers else {}),
    }


def _operation(use: TopicUse, channel: str) -> dict[str, Any]:
    group = {"groupId": {"type": "string", "enum": [use.group]}, "bindingVersion": BINDING}
    return {
        "action": _direction(use),
        "channel": _ref("channels", channel),
        **({"bindings": {"kafka": group}} if use.group and use.purpose is Purpose.INPUT else {}),
    }


def _direction(use: TopicUse) -> str:
    return _DIRECTIONS.get(use.purpose, "send")


def _messages(use: TopicUse) -> dict[str, Any]:
    if use.purpose is Purpose.INPUT:
        return {stream: _packet(stream, stated) for stream, stated in zip(use.streams, use.formats, strict=True)}
    if use.purpose is Purpose.PREDICTIONS:
        return {
            "prediction": {
                "title": "Prediction",
                "summary": "What a model says about one window.",
                "contentType": "application/json",
                "headers": _ref("components", "schemas", "predictionHeaders"),
                "payload": _ref("components", "schemas", "prediction"),
                "bindings": _keyed("The room or session."),
            }
        }
    if use.purpose is Purpose.DEAD_LETTERS:
        return {
            "deadLetter": {
                "title": "Dead letter",
                "summary": "A record that was of no use, byte by byte, and why.",
                "contentType": "application/octet-stream",
                "headers": _ref("components", "schemas", "deadLetterHeaders"),
                "payload": {"description": "The original's value."},
                "bindings": _keyed("The original's key."),
            }
        }
    return {
        "watermark": {
            "title": "Watermark",
            "summary": "`k` + key -> its watermarks by version; `v` -> the version that is complete with this record.",
            "contentType": "application/json",
            "payload": {"type": "object"},
            "bindings": _keyed("`v`, or `k` and the room or session."),
        }
    }


def _packet(stream: str, stated: FormatSettings | None) -> dict[str, Any]:
    media_type = stated.media_type if stated else None
    allowed = [media_type] if media_type else list(CONTENT_TYPES)
    summary = "One frame, chunk of sound, text or row of numbers."
    if stated:
        known = stated.model_dump(exclude_none=True)
        summary += " Where the headers don't say: " + ", ".join(f"{name} {_told(name, value)}" for name, value in known.items()) + "."
    return {
        "title": f"Packet of {stream}",
        "summary": summary,
        "contentType": media_type or "application/octet-stream",
        "headers": _ref("components", "schemas", "packetHeaders"),
        "payload": {"description": f"The bare bytes: {', '.join(allowed)}."},
        "bindings": _keyed("The room or session, UTF-8: what belongs together has one key."),
    }


def _told(name: str, value: object) -> str:
    return f"{value} ns" if name == "duration" else str(value)


def _keyed(description: str) -> dict[str, Any]:
    return {"kafka": {"key": {"type": "string", "description": description}, "bindingVersion": BINDING}}


def _schemas(uses: Sequence[TopicUse]) -> dict[str, Any]:
    """Those of the messages that there are, without what marks a schema that stands for itself."""
    made = {
        Purpose.INPUT: {"packetHeaders": packet_headers},
        Purpose.PREDICTIONS: {"predictionHeaders": prediction_headers, "prediction": prediction_schema},
        Purpose.DEAD_LETTERS: {"deadLetterHeaders": dead_letter_headers},
    }
    used = {use.purpose for use in uses}
    return {
        name: {word: value for word, value in make().items() if word not in ("$schema", "$id")}
        for purpose, schemas in made.items()
        if purpose in used
        for name, make in schemas.items()
    }


def _ref(*path: str) -> dict[str, str]:
    return {"$ref": "#/" + "/".join(path)}


def _place(into: dict[str, Any], name: str, what: Any) -> str:
    """Puts it there under a name that a reference can hold, and under another than what is there already and differs."""
    name = first = re.sub(r"[^A-Za-z0-9._-]", "_", name)
    number = 1
    while into.setdefault(name, what) != what:
        number += 1
        name = f"{first}-{number}"
    return name
