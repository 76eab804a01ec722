"""The compacted topic of watermarks on the brokers: written before a commit names a version of it, read when a partition is gained."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from streamfuse.codecs import WireRecord
from streamfuse.config import KafkaConnection
from streamfuse.errors import InvalidRecord
from streamfuse.kafka.clients import make_admin
from streamfuse.kafka.transport import Consumer, NewTopic, Outgoing, Partition, Passing, Refused
from streamfuse.kafka.watermark_log import LogRecord, WatermarkLog, version_of

PATIENCE = 10.0  # seconds for the broker to show what was committed; a transaction's end reaches each partition a little later
POLL = 0.1


def outgoing(topic: str, records: Sequence[tuple[int, LogRecord]], now: int) -> list[Outgoing]:
    """The records of partition numbers as they go into the topic; `now` in ns UTC."""
    return [Outgoing(topic, WireRecord(record.key, record.value, (), now), number) for number, record in records]


def create(settings: KafkaConnection, topic: str, partitions: int) -> None:
    """Makes the topic, where it is not there yet; the brokers' defaults hold for its replication. Blocks; raises Passing and Refused."""
    admin = make_admin(settings)
    try:
        admin.create([NewTopic(topic, partitions, None, {"cleanup.policy": "compact"})])
    finally:
        admin.close()


def read_watermarks(make: Callable[[], Consumer], topic: str, versions: Mapping[int, int]) -> dict[int, WatermarkLog]:
    """The watermarks of these partition numbers in the versions that their commits name.

    `make` makes a consumer of committed records without a group. Blocks for up to some seconds. Raises Passing where the broker is away
    or does not show these versions yet, Refused where it never will.
    """
    consumer = make()
    try:
        if consumer.counts([topic])[topic] <= max(versions):
            raise Refused(
                f"expected topic {topic} with {max(versions) + 1} partitions, which the group's commits name, found it missing",
                "restore it, or reset the group's offsets (kafka-consumer-groups.sh --reset-offsets) to begin anew",
            )
        partitions = [Partition(topic, number) for number in versions]
        found: dict[int, list[LogRecord]] = {number: [] for number in versions}
        consumer.assign(consumer.begins(partitions))
        deadline = time.monotonic() + PATIENCE
        missing = dict(versions)
        while missing or consumer.lagging(partitions):
            if time.monotonic() > deadline:
                raise Passing(f"topic {topic} does not show the watermarks of partitions {sorted(missing)} yet")
            for partition, records in consumer.poll(POLL).records.items():
                for record in records:
                    entry = LogRecord(record.key or b"", record.value)
                    found[partition.number].append(entry)
                    version = version_of(entry)
                    if version is not None and version >= missing.get(partition.number, version + 1):
                        del missing[partition.number]
        return {number: WatermarkLog(records, versions[number]) for number, records in found.items()}
    except InvalidRecord as error:
        raise Refused(str(error), "name another watermarks_topic") from error
    finally:
        consumer.close()
