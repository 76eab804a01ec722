"""Looks at topics and creates them by kafka-python."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import kafka.admin
import kafka.errors
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.net.compat import KafkaNetClient

from streamfuse.config import KafkaConnection
from streamfuse.kafka.admin import REQUEST, UNKNOWN_TOPIC, not_created, not_seen
from streamfuse.kafka.kafka_python import client_info, connection_options
from streamfuse.kafka.transport import NewTopic, Passing, Refused, TopicDescription


def make_admin(settings: KafkaConnection) -> KafkaPythonAdmin:
    client_info()
    return KafkaPythonAdmin(settings)


class KafkaPythonAdmin:
    """Fulfils `transport.Admin`."""

    def __init__(self, settings: KafkaConnection) -> None:
        self._settings = settings
        opened: list[KafkaNetClient] = []

        def client(**configs: Any) -> KafkaNetClient:
            opened.append(KafkaNetClient(**configs))
            return opened[0]

        options = {name: value for name, value in connection_options(settings).items() if name in KafkaAdminClient.DEFAULT_CONFIG}
        options |= {"request_timeout_ms": int(REQUEST * 1000), "kafka_client": client}
        try:
            with _translated():
                self._admin = KafkaAdminClient(**options)
        except BaseException:
            for one in opened:  # kafka-python leaves its thread and its connections behind
                one.close()
            raise

    def describe(self, topics: Iterable[str]) -> dict[str, TopicDescription]:
        wanted = list(topics)
        with _translated():
            found = {topic["name"]: topic for topic in self._admin.describe_topics(wanted)} if wanted else {}
            there = {name: topic for name, topic in found.items() if topic["error_code"] != UNKNOWN_TOPIC}
            for name, topic in there.items():
                if code := topic["error_code"]:
                    raise not_seen(self._settings, name, code, _said(code))
            resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in there]
            configs = self._admin.describe_configs(resources, config_filter="all").get("topic", {}) if resources else {}
        return {
            name: TopicDescription(
                len(topic["partitions"]),
                min(len(partition["replica_nodes"]) for partition in topic["partitions"]),
                {key: told["value"] or "" for key, told in configs.get(name, {}).items()} or None,
            )
            for name, topic in there.items()
            if topic["partitions"]
        }

    def create(self, topics: Sequence[NewTopic]) -> None:
        new = [
            kafka.admin.NewTopic(
                topic.name,
                -1 if topic.partitions is None else topic.partitions,
                -1 if topic.replication is None else topic.replication,
                topic_configs=dict(topic.configs),
            )
            for topic in topics
        ]
        by_name = {topic.name: topic for topic in topics}
        with _translated():
            for told in self._admin.create_topics(new, timeout_ms=int(REQUEST * 1000), raise_errors=False)["topics"]:
                if code := told["error_code"]:
                    said = told["error_message"] or _said(code)
                    if (error := not_created(self._settings, by_name[told["name"]], code, said)) is not None:
                        raise error
            self._admin.wait_for_topics(list(by_name), timeout_ms=int(REQUEST * 1000))

    def close(self) -> None:
        self._admin.close()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except kafka.errors.RetriableError as error:
        raise Passing(f"{type(error).__name__}: {error}") from error
    except kafka.errors.KafkaError as error:
        raise Refused(f"{type(error).__name__}: {error}") from error


def _said(code: int) -> str:
    error: type[Exception] = kafka.errors.for_code(code)
    return f"{error.__name__}: {getattr(error, 'description', '')}"
