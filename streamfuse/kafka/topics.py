"""Compares the topics that are there with those that a config needs, and creates what is missing.

Pure but for `look` and `create_missing`, which ask an `Admin`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from streamfuse.config import Config, KafkaConnection, TopicsSettings
from streamfuse.kafka.transport import Admin, NewTopic, TopicDescription
from streamfuse.topic_uses import Purpose, TopicUse, topic_uses
from streamfuse.types import MILLISECOND

LETTER_ROOM = 16 * 1024
"""Bytes that a dead letter may have more than its record: the error, the place, and headers with their names."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A topic with all its uses, which a config may have several of."""

    name: str
    uses: tuple[TopicUse, ...]

    @property
    def optional(self) -> bool:
        return all(use.optional for use in self.uses)

    @property
    def purposes(self) -> str:
        """`input video, words`, `predictions`."""
        return "; ".join(dict.fromkeys(" ".join((use.purpose.value, ", ".join(use.streams))).strip() for use in self.uses))


@dataclass(frozen=True, slots=True)
class Cluster:
    """The topics of a config that are at the same brokers."""

    brokers: KafkaConnection
    topics: tuple[Wanted, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about a topic that is not as it should be; a note is no mistake. `fix` is a command, or says what to do."""

    topic: str
    what: str
    fix: str
    is_mistake: bool = True

    def __str__(self) -> str:
        return f"{self.topic}: {self.what}; {self.fix}"


def clusters(config: Config) -> list[Cluster]:
    """Where the config reads and writes, each cluster by the addresses of its first mention."""
    found: dict[str, dict[str, list[TopicUse]]] = {}
    brokers: dict[str, KafkaConnection] = {}
    for use in topic_uses(config):
        if use.brokers is not None:
            addresses = ",".join(sorted(address.strip() for address in use.brokers.bootstrap.split(",")))
            brokers.setdefault(addresses, use.brokers)
            found.setdefault(addresses, {}).setdefault(use.topic, []).append(use)
    return [
        Cluster(brokers[addresses], tuple(Wanted(name, tuple(uses)) for name, uses in topics.items()))
        for addresses, topics in found.items()
    ]


def look(admin: Admin, cluster: Cluster) -> dict[str, TopicDescription]:
    """The topics of the cluster that are there. Raises Passing and Refused."""
    return admin.describe([wanted.name for wanted in cluster.topics])


# --- what is not as it should be ---------------------------------------------------------------------------------------------------------


def judge(cluster: Cluster, there: Mapping[str, TopicDescription]) -> list[Finding]:
    """Every mistake and note, in the order of the topics."""
    findings = []
    for wanted in cluster.topics:
        described = there.get(wanted.name)
        if described is None:
            findings.append(_missing(wanted))
            continue
        fix = _Fixes(cluster.brokers.bootstrap, wanted.name)
        for use in wanted.uses:
            findings += _partitions(use, described, there, fix)
            findings += _cleanup(use, described, fix)
            findings += _sizes(use, described, cluster, there, fix)
            findings += _timestamps(use, described)
        findings += _replicas(wanted, described, fix)
    return list(dict.fromkeys(findings))


@dataclass(frozen=True, slots=True)
class _Fixes:
    """Commands that mend a topic."""

    bootstrap: str
    topic: str

    def partitions(self, count: int) -> str:
        return f"kafka-topics.sh --bootstrap-server {self.bootstrap} --alter --topic {self.topic} --partitions {count}"

    def config(self, name: str, value: object) -> str:
        return (
            f"kafka-configs.sh --bootstrap-server {self.bootstrap} --alter --entity-type topics --entity-name {self.topic}"
            f" --add-config {name}={value}"
        )


def _missing(wanted: Wanted) -> Finding:
    if wanted.optional:
        what = "found none; a daemon that may create topics makes it when the watermarks of its keys are too many for a commit"
        return Finding(wanted.name, what, "`streamfuse topics create` makes it now", is_mistake=False)
    return Finding(wanted.name, f"expected this topic ({wanted.purposes}), found none", "`streamfuse topics create` makes it")


def _partitions(use: TopicUse, described: TopicDescription, there: Mapping[str, TopicDescription], fix: _Fixes) -> Iterable[Finding]:
    counts = {topic: there[topic].partitions for topic in use.together if topic in there}
    most = max(counts.values(), default=described.partitions)
    if described.partitions >= most:
        return
    told = ", ".join(f"{topic} has {count}" for topic, count in counts.items())
    if use.purpose is Purpose.WATERMARKS:
        yield Finding(
            fix.topic, f"expected {most} partitions, as the topics of its group have, found {described.partitions}", fix.partitions(most)
        )
    else:
        what = (
            f"expected equal numbers of partitions, so that all streams of a key land on one replica, found {described.partitions} ({told})"
        )
        yield Finding(fix.topic, what, f"{fix.partitions(most)} while no producer runs: keys move to other partitions")


def _cleanup(use: TopicUse, described: TopicDescription, fix: _Fixes) -> Iterable[Finding]:
    policies = described.config("cleanup.policy", "delete").replace(" ", "").split(",")
    if use.compacted and policies != ["compact"]:
        what = f"expected cleanup.policy compact, as old watermarks are needed still, found {','.join(policies)}"
        yield Finding(fix.topic, what, fix.config("cleanup.policy", "compact"))
    elif not use.compacted and "compact" in policies:
        what = f"expected cleanup.policy delete, as compaction takes away all but the last record of a key, found {','.join(policies)}"
        yield Finding(fix.topic, what, fix.config("cleanup.policy", "delete"))


def _sizes(
    use: TopicUse, described: TopicDescription, cluster: Cluster, there: Mapping[str, TopicDescription], fix: _Fixes
) -> Iterable[Finding]:
    least, why = use.greatest, "as max_record_bytes says"
    if use.purpose is Purpose.DEAD_LETTERS:
        least, why = letter_bytes(cluster, there), "room for a letter of the greatest record that the topics may hold"
    size = described.number("max.message.bytes")
    if least is not None and size is not None and size < least:
        yield Finding(
            fix.topic, f"expected max.message.bytes of at least {least}, {why}, found {size}", fix.config("max.message.bytes", least)
        )
    if use.purpose is Purpose.INPUT and least is not None and size is not None and size > least:
        what = f"records above max_record_bytes, {least}, are quarantined, and the topic takes them up to {size}"
        yield Finding(fix.topic, what, f"raise {use.section}.max_record_bytes, or lower max.message.bytes", is_mistake=False)


def _timestamps(use: TopicUse, described: TopicDescription) -> Iterable[Finding]:
    if use.purpose is Purpose.INPUT and described.config("message.timestamp.type", "CreateTime") == "LogAppendTime":
        what = "its records carry the time at which the broker took them, which is the event time of those without ce_time"
        yield Finding(use.topic, what, "set message.timestamp.type=CreateTime, or let producers send ce_time", is_mistake=False)


def _replicas(wanted: Wanted, described: TopicDescription, fix: _Fixes) -> Iterable[Finding]:
    in_sync = described.number("min.insync.replicas")
    if in_sync is not None and in_sync > described.replication:
        what = (
            f"expected at least as many replicas as min.insync.replicas, {in_sync}, found {described.replication}: nobody can write there"
        )
        yield Finding(wanted.name, what, fix.config("min.insync.replicas", described.replication))


def letter_bytes(cluster: Cluster, there: Mapping[str, TopicDescription]) -> int | None:
    """What the topic of dead letters must take: the greatest record of any input at these brokers, and what a letter has more."""
    inputs = [wanted.name for wanted in cluster.topics if any(use.purpose is Purpose.INPUT for use in wanted.uses)]
    sizes = [size for name in inputs if name in there and (size := there[name].number("max.message.bytes")) is not None]
    return max(sizes) + LETTER_ROOM if sizes else None


# --- creating ----------------------------------------------------------------------------------------------------------------------------


def create_missing(admin: Admin, cluster: Cluster, settings: TopicsSettings, created: Callable[[NewTopic], None]) -> list[Finding]:
    """Creates what is missing, tells of each, and returns what is not as it should be with the topics that were there before.

    Creates nothing where topics that must have equal numbers of partitions differ in them already. Raises Passing and Refused.
    """
    there = look(admin, cluster)
    findings = [finding for finding in judge(cluster, there) if finding.topic in there]
    if any(_unequal(wanted, there) for wanted in cluster.topics):
        return findings
    for follows in (False, True):  # what is written follows from what is read: its partitions, the size of its records
        missing = [wanted for wanted in cluster.topics if wanted.name not in there and _follows(wanted) is follows]
        new = [_new(wanted, cluster, settings, there) for wanted in missing]
        if new:
            admin.create(new)
            for topic in new:
                created(topic)
            there = look(admin, cluster)
    return findings


def planned(cluster: Cluster, settings: TopicsSettings, there: Mapping[str, TopicDescription]) -> list[NewTopic]:
    """What `create_missing` would create, as far as that can be told before."""
    there = dict(there)
    found: list[NewTopic] = []
    for follows in (False, True):
        for wanted in cluster.topics:
            if wanted.name not in there and _follows(wanted) is follows:
                found.append(_new(wanted, cluster, settings, there))
    return found


def _follows(wanted: Wanted) -> bool:
    return all(use.purpose in (Purpose.WATERMARKS, Purpose.DEAD_LETTERS) for use in wanted.uses)


def _unequal(wanted: Wanted, there: Mapping[str, TopicDescription]) -> bool:
    return any(
        len({there[topic].partitions for topic in use.together if topic in there}) > 1
        for use in wanted.uses
        if use.purpose is Purpose.INPUT
    )


def _new(wanted: Wanted, cluster: Cluster, settings: TopicsSettings, there: Mapping[str, TopicDescription]) -> NewTopic:
    equal = [there[topic].partitions for use in wanted.uses for topic in use.together if topic in there]
    configs: dict[str, str] = {}
    if any(use.compacted for use in wanted.uses):
        configs["cleanup.policy"] = "compact"
    elif settings.retention is not None:
        configs["retention.ms"] = str(math.ceil(settings.retention / MILLISECOND))
    greatest = [use.greatest for use in wanted.uses if use.greatest is not None]
    if any(use.purpose is Purpose.DEAD_LETTERS for use in wanted.uses) and (size := letter_bytes(cluster, there)) is not None:
        greatest.append(size)
    if greatest:
        configs["max.message.bytes"] = str(max(greatest))
    return NewTopic(wanted.name, max(equal, default=settings.partitions), settings.replication, configs)


# --- in words ----------------------------------------------------------------------------------------------------------------------------


def told(topic: NewTopic) -> str:
    """`video with 4 partitions, 1 replica, retention.ms=1000`."""
    partitions = "the brokers' default of partitions" if topic.partitions is None else f"{topic.partitions} partitions"
    replicas = [] if topic.replication is None else [f"{topic.replication} replicas"]
    return f"{topic.name} with " + ", ".join([partitions, *replicas, *(f"{name}={value}" for name, value in sorted(topic.configs.items()))])


def table(cluster: Cluster, there: Mapping[str, TopicDescription]) -> list[tuple[str, ...]]:
    """A line for each topic, the first of them the headings."""
    lines: list[tuple[str, ...]] = [("topic", "for", "partitions", "replication", "retention", "max.message.bytes", "cleanup")]
    for wanted in cluster.topics:
        described = there.get(wanted.name)
        if described is None:
            lines.append((wanted.name, wanted.purposes, "missing", "", "", "", ""))
            continue
        cells = (_retention(described), _size(described.number("max.message.bytes")), described.config("cleanup.policy", "?"))
        lines.append((wanted.name, wanted.purposes, str(described.partitions), str(described.replication), *cells))
    return lines


def _retention(described: TopicDescription) -> str:
    milliseconds = described.number("retention.ms")
    if milliseconds is None:
        return "?"
    if milliseconds < 0:
        return "for ever"
    for unit, length in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if milliseconds >= length and milliseconds % length == 0:
            return f"{milliseconds // length}{unit}"
    return f"{milliseconds}ms"


def _size(number: int | None) -> str:
    return "?" if number is None else f"{number:,}"


def with_flags(settings: TopicsSettings, partitions: int | None, replication: int | None, retention: int | None) -> TopicsSettings:
    """The settings with what the command line says instead."""
    given = {"partitions": partitions, "replication": replication, "retention": retention}
    return settings.model_copy(update={name: value for name, value in given.items() if value is not None})
