"""Which topics a config uses, what for, and what follows for each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from streamfuse.config import (
    Config,
    FormatSettings,
    KafkaConnection,
    KafkaDeadLetterSettings,
    KafkaSinkSettings,
    KafkaSourceSettings,
    TopicsSinkSettings,
    TopicsSourceSettings,
)


class Purpose(StrEnum):
    INPUT = "input"
    PREDICTIONS = "predictions"
    DEAD_LETTERS = "dead letters"
    WATERMARKS = "watermarks"


@dataclass(frozen=True, slots=True)
class TopicUse:
    """One use of one topic. `section` is where the config says so; `brokers` is None for an in-process topic.

    `streams` are those that an input carries, with what the config says of their `formats`. `together` names the topics that need as many
    partitions as this one. `greatest` is the size in bytes of the greatest record that is wanted there, where the config says it.
    """

    topic: str
    purpose: Purpose
    section: str
    brokers: KafkaConnection | None
    streams: tuple[str, ...] = ()
    formats: tuple[FormatSettings | None, ...] = ()
    group: str | None = None
    together: tuple[str, ...] = ()
    greatest: int | None = None

    @property
    def compacted(self) -> bool:
        """Whether the newest record of each key is all that counts; in all other topics each record does."""
        return self.purpose is Purpose.WATERMARKS

    @property
    def optional(self) -> bool:
        """Used when it is there."""
        return self.purpose is Purpose.WATERMARKS


def topic_uses(config: Config) -> list[TopicUse]:
    """In the order of the config: what is read, then what is written."""
    uses = [use for number, source in enumerate(config.sources) for use in _read(f"sources.{number}", source)]
    for number, sink in enumerate(config.sinks):
        if isinstance(sink, KafkaSinkSettings | TopicsSinkSettings):
            brokers = sink if isinstance(sink, KafkaSinkSettings) else None
            uses.append(TopicUse(sink.topic, Purpose.PREDICTIONS, f"sinks.{number}", brokers))
    letters = config.dead_letters
    if isinstance(letters, KafkaDeadLetterSettings):
        uses.append(TopicUse(letters.topic, Purpose.DEAD_LETTERS, "dead_letters", letters))
    return uses


def watermarks_topic(source: KafkaSourceSettings) -> str:
    return source.watermarks_topic or f"{source.group}-watermarks"


def _read(section: str, source: object) -> Iterator[TopicUse]:
    if not isinstance(source, KafkaSourceSettings | TopicsSourceSettings):
        return
    kafka = source if isinstance(source, KafkaSourceSettings) else None
    topics = tuple(dict.fromkeys(source.topics.values()))
    for topic in topics:
        streams = tuple(stream for stream, itself in source.topics.items() if itself == topic)
        yield TopicUse(
            topic,
            Purpose.INPUT,
            section,
            kafka,
            streams,
            tuple(source.formats.get(stream) for stream in streams),
            kafka.group if kafka else None,
            topics,
            source.max_record_bytes if "max_record_bytes" in source.model_fields_set else None,
        )
    if kafka:
        yield TopicUse(watermarks_topic(kafka), Purpose.WATERMARKS, section, kafka, group=kafka.group, together=topics)
