"""Looks at topics and creates them by confluent-kafka."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import confluent_kafka
import confluent_kafka.admin
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType  # type: ignore[attr-defined]

from streamfuse.config import KafkaConnection
from streamfuse.kafka.admin import PASSING, REQUEST, UNKNOWN_TOPIC, not_created, not_seen
from streamfuse.kafka.confluent import connection_options
from streamfuse.kafka.transport import NewTopic, Passing, Refused, TopicDescription

BETWEEN_LOOKS = 0.1


def make_admin(settings: KafkaConnection) -> ConfluentAdmin:
    return ConfluentAdmin(settings)


class ConfluentAdmin:
    """Fulfils `transport.Admin`."""

    def __init__(self, settings: KafkaConnection) -> None:
        self._settings = settings
        with _translated():
            self._admin = AdminClient(connection_options(settings))
            self._admin.list_topics("__consumer_offsets", timeout=settings.connect_timeout / 1e9)

    def describe(self, topics: Iterable[str]) -> dict[str, TopicDescription]:
        wanted = list(topics)
        if not wanted:
            return {}
        there: dict[str, Any] = {}
        with _translated():
            told = self._admin.describe_topics(confluent_kafka.TopicCollection(wanted), request_timeout=REQUEST)
            for name, (topic, error) in _results(told).items():
                if error is None:
                    there[name] = topic
                elif error.code() != UNKNOWN_TOPIC:
                    raise not_seen(self._settings, name, error.code(), error.str())
            resources = [ConfigResource(ResourceType.TOPIC, name) for name in there]
            configs = _results(self._admin.describe_configs(resources, request_timeout=REQUEST)) if resources else {}
        known = {
            resource.name: {key: entry.value or "" for key, entry in (found or {}).items()} for resource, (found, _) in configs.items()
        }
        return {
            name: TopicDescription(
                len(topic.partitions), min(len(partition.replicas) for partition in topic.partitions), known.get(name) or None
            )
            for name, topic in there.items()
            if topic.partitions
        }

    def create(self, topics: Sequence[NewTopic]) -> None:
        new = [
            confluent_kafka.admin.NewTopic(  # type: ignore[attr-defined]
                topic.name,
                num_partitions=-1 if topic.partitions is None else topic.partitions,
                replication_factor=-1 if topic.replication is None else topic.replication,
                config=dict(topic.configs),
            )
            for topic in topics
        ]
        by_name = {topic.name: topic for topic in topics}
        with _translated():
            for name, (_, error) in _results(self._admin.create_topics(new, request_timeout=REQUEST)).items():
                if error is not None and (refusal := not_created(self._settings, by_name[name], error.code(), error.str())) is not None:
                    raise refusal
        until = time.monotonic() + REQUEST
        while len(self.describe(by_name)) < len(by_name):
            if time.monotonic() > until:
                raise Passing(f"topics {', '.join(by_name)} were created, and are not to be seen yet")
            time.sleep(BETWEEN_LOOKS)

    def close(self) -> None:
        """librdkafka ends with its object."""


def _results(futures: Mapping[Any, Future[Any]]) -> dict[Any, tuple[Any, KafkaError | None]]:
    """What came of each; raises KafkaException where the broker is away."""
    found: dict[Any, tuple[Any, KafkaError | None]] = {}
    for name, future in futures.items():
        try:
            found[name] = future.result(), None
        except KafkaException as error:
            if error.args[0].code() < 0:  # librdkafka's own
                raise
            found[name] = None, error.args[0]
    return found


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except KafkaException as error:
        told = error.args[0]
        if told.code() < 0 or told.code() in PASSING or told.retriable():
            raise Passing(f"{told.name()}: {told.str()}") from error
        raise Refused(f"{told.name()}: {told.str()}") from error
