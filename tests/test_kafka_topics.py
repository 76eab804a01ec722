"""What a config needs of Kafka's topics, what is wrong with those that are there, and what is created."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from streamfuse.config import Config, TopicsSettings
from streamfuse.kafka.topics import Cluster, Finding, clusters, create_missing, judge, planned, table, told, with_flags
from streamfuse.kafka.transport import NewTopic, TopicDescription

CONFIGS = {
    "cleanup.policy": "delete",
    "retention.ms": "604800000",
    "max.message.bytes": "1048588",
    "min.insync.replicas": "1",
    "message.timestamp.type": "CreateTime",
}
FINE = TopicDescription(4, 1, CONFIGS)
LETTERS = TopicDescription(1, 1, {**CONFIGS, "max.message.bytes": "2000000"})
WATERMARKS = TopicDescription(4, 1, {**CONFIGS, "cleanup.policy": "compact"})
ALL = {"video": FINE, "audio": FINE, "text": FINE, "fusion-watermarks": WATERMARKS, "predictions": FINE, "dead-letters": LETTERS}


def config(sink: Mapping[str, Any] | None = None, **source: Any) -> Config:
    topics = {"video": "video", "audio": "audio", "text": "text"}
    return Config.model_validate(
        {
            "sources": [{"type": "kafka", "group": "fusion", "topics": topics, **source}],
            "sinks": [{"type": "kafka", **(sink or {})}],
            "dead_letters": {"type": "kafka"},
        }
    )


def cluster(**source: Any) -> Cluster:
    (found,) = clusters(config(**source))
    return found


def findings(there: Mapping[str, TopicDescription], **source: Any) -> list[Finding]:
    return judge(cluster(**source), there)


def changed(topic: str, **configs: str) -> dict[str, TopicDescription]:
    named = {name.replace("_", "."): value for name, value in configs.items()}
    return {**ALL, topic: replace(ALL[topic], configs={**(ALL[topic].configs or {}), **named})}


class MemoryAdmin:
    """Fulfils `transport.Admin`; the broker's default is 3 partitions."""

    def __init__(self, there: Mapping[str, TopicDescription]) -> None:
        self.there = dict(there)
        self.calls: list[list[NewTopic]] = []

    def describe(self, topics: Iterable[str]) -> dict[str, TopicDescription]:
        return {topic: self.there[topic] for topic in topics if topic in self.there}

    def create(self, topics: Sequence[NewTopic]) -> None:
        self.calls.append(list(topics))
        for topic in topics:
            self.there[topic.name] = TopicDescription(topic.partitions or 3, topic.replication or 1, {**CONFIGS, **topic.configs})

    def close(self) -> None: ...


def created(there: Mapping[str, TopicDescription], settings: TopicsSettings | None = None, **source: Any) -> dict[str, NewTopic]:
    admin = MemoryAdmin(there)
    said: list[NewTopic] = []
    create_missing(admin, cluster(**source), settings or TopicsSettings(), said.append)
    assert [topic for call in admin.calls for topic in call] == said
    return {topic.name: topic for topic in said}


# --- which topics ---


def test_all_topics_of_a_config_are_wanted_once() -> None:
    assert [wanted.name for wanted in cluster().topics] == ["video", "audio", "text", "fusion-watermarks", "predictions", "dead-letters"]


def test_streams_that_share_a_topic_want_one() -> None:
    wanted = {topic.name: topic.purposes for topic in cluster(topics={"video": "all", "text": "all"}).topics}
    assert wanted["all"] == "input video, text"


def test_topics_at_other_brokers_are_a_cluster_of_their_own() -> None:
    assert [[topic.name for topic in found.topics] for found in clusters(config({"bootstrap": "elsewhere:9092"}))] == [
        ["video", "audio", "text", "fusion-watermarks", "dead-letters"],
        ["predictions"],
    ]


def test_the_order_of_bootstrap_addresses_makes_no_other_cluster() -> None:
    assert [len(found.topics) for found in clusters(config({"bootstrap": "b:2, a:1"}, bootstrap="a:1,b:2"))] == [5, 1]


def test_a_config_without_kafka_wants_nothing() -> None:
    assert clusters(Config.model_validate({"sources": [{"type": "simulator"}]})) == []


# --- mistakes ---


def test_topics_that_fit_have_no_mistake() -> None:
    assert findings(ALL) == []


def test_a_missing_topic_is_told_with_the_command_that_creates_it() -> None:
    (found,) = findings({name: described for name, described in ALL.items() if name != "audio"})
    assert str(found) == "audio: expected this topic (input audio), found none; `streamfuse topics create` makes it"
    assert found.is_mistake


def test_a_missing_topic_of_watermarks_is_a_note() -> None:
    (found,) = findings({name: described for name, described in ALL.items() if name != "fusion-watermarks"})
    assert (found.topic, found.is_mistake) == ("fusion-watermarks", False)


def test_unequal_partitions_are_told_of_those_that_have_fewer() -> None:
    (found,) = findings({**ALL, "text": replace(FINE, partitions=2)})
    assert found.topic == "text"
    assert "found 2 (video has 4, audio has 4, text has 2)" in found.what
    assert found.fix.startswith("kafka-topics.sh --bootstrap-server localhost:9092 --alter --topic text --partitions 4 ")


def test_predictions_may_have_other_partitions() -> None:
    assert findings({**ALL, "predictions": replace(FINE, partitions=1)}) == []


def test_watermarks_need_as_many_partitions() -> None:
    (found,) = findings({**ALL, "fusion-watermarks": replace(WATERMARKS, partitions=1)})
    assert found.fix.endswith("--alter --topic fusion-watermarks --partitions 4")


@pytest.mark.parametrize("policy", ["delete", "compact,delete"])
def test_watermarks_need_compaction_alone(policy: str) -> None:
    (found,) = findings(changed("fusion-watermarks", cleanup_policy=policy))
    assert found.fix.endswith("--entity-name fusion-watermarks --add-config cleanup.policy=compact")


@pytest.mark.parametrize("topic", ["video", "predictions", "dead-letters"])
def test_compaction_of_what_is_no_state_is_a_mistake(topic: str) -> None:
    (found,) = findings(changed(topic, cleanup_policy="compact"))
    assert (found.topic, found.fix.endswith("--add-config cleanup.policy=delete")) == (topic, True)


def test_a_topic_that_takes_less_than_max_record_bytes_is_a_mistake() -> None:
    found = [one for one in findings(ALL, max_record_bytes=2_000_000) if one.topic == "video"]
    assert [one.fix for one in found] == [
        "kafka-configs.sh --bootstrap-server localhost:9092 --alter --entity-type topics --entity-name video"
        " --add-config max.message.bytes=2000000"
    ]


def test_the_default_of_max_record_bytes_asks_nothing_of_a_topic() -> None:
    assert findings(changed("video", max_message_bytes="1000")) == []


def test_a_topic_that_takes_more_than_max_record_bytes_is_noted() -> None:
    assert {(one.topic, one.is_mistake) for one in findings(ALL, max_record_bytes=1000)} == {
        ("video", False),
        ("audio", False),
        ("text", False),
    }


def test_dead_letters_need_room_for_the_greatest_record_and_its_reason() -> None:
    (found,) = findings(changed("dead-letters", max_message_bytes="1048588"))
    assert found.fix.endswith(f"--entity-name dead-letters --add-config max.message.bytes={1_048_588 + 16 * 1024}")


def test_more_in_sync_replicas_than_replicas_are_a_mistake() -> None:
    (found,) = findings(changed("predictions", min_insync_replicas="2"))
    assert "nobody can write there" in found.what


def test_time_by_the_broker_is_noted() -> None:
    (found,) = findings(changed("video", message_timestamp_type="LogAppendTime"))
    assert not found.is_mistake


def test_configs_that_we_may_not_see_are_no_mistake() -> None:
    hidden = {name: replace(described, configs=None) for name, described in ALL.items()}
    assert [one.topic for one in findings(hidden)] == ["fusion-watermarks"]
    assert table(cluster(), hidden)[1] == ("video", "input video", "4", "1", "?", "?", "?")


# --- creating ---


def test_what_is_missing_is_created_with_equal_partitions() -> None:
    made = created({}, TopicsSettings(partitions=6, replication=1))
    assert {name: topic.partitions for name, topic in made.items()} == dict.fromkeys(ALL, 6)
    assert made["fusion-watermarks"].configs == {"cleanup.policy": "compact"}


def test_without_a_number_the_brokers_default_holds_and_the_rest_follows() -> None:
    made = created({})
    assert (made["video"].partitions, made["fusion-watermarks"].partitions) == (None, 3)


def test_a_new_topic_equals_those_that_are_there() -> None:
    made = created({"video": FINE}, TopicsSettings(partitions=12))
    assert {made["audio"].partitions, made["text"].partitions, made["fusion-watermarks"].partitions} == {4}
    assert made["predictions"].partitions == 12


def test_dead_letters_are_created_with_room() -> None:
    assert created({})["dead-letters"].configs == {"max.message.bytes": str(1_048_588 + 16 * 1024)}


def test_a_topic_is_created_to_take_what_max_record_bytes_says() -> None:
    made = created({}, max_record_bytes=5_000_000)
    assert made["video"].configs == {"max.message.bytes": "5000000"}
    assert made["dead-letters"].configs == {"max.message.bytes": str(5_000_000 + 16 * 1024)}


def test_retention_is_for_all_but_watermarks() -> None:
    made = created({}, TopicsSettings(retention="1500us"))
    assert made["video"].configs == {"retention.ms": "2"}
    assert "retention.ms" not in made["fusion-watermarks"].configs


def test_nothing_is_created_where_partitions_differ_already() -> None:
    admin = MemoryAdmin({"video": FINE, "audio": replace(FINE, partitions=2)})
    found = create_missing(admin, cluster(), TopicsSettings(), lambda _: None)
    assert admin.calls == []
    assert [one.topic for one in found] == ["audio"]


def test_what_does_not_fit_is_told_and_left_alone() -> None:
    admin = MemoryAdmin(changed("predictions", cleanup_policy="compact"))
    found = create_missing(admin, cluster(), TopicsSettings(), lambda _: None)
    assert (admin.calls, [one.topic for one in found]) == ([], ["predictions"])


def test_what_was_created_fits() -> None:
    admin = MemoryAdmin({})
    create_missing(admin, cluster(), TopicsSettings(), lambda _: None)
    assert judge(cluster(), admin.there) == []


def test_a_plan_is_what_is_created_later() -> None:
    assert {topic.name: topic.configs for topic in planned(cluster(), TopicsSettings(partitions=2), {})}.keys() == ALL.keys()


# --- in words ---


def test_a_topic_to_be_is_told_in_a_line() -> None:
    assert told(NewTopic("video", 4, 3, {"retention.ms": "1000"})) == "video with 4 partitions, 3 replicas, retention.ms=1000"
    assert told(NewTopic("video", None, None, {})) == "video with the brokers' default of partitions"


@pytest.mark.parametrize(("milliseconds", "text"), [("604800000", "7d"), ("5400000", "90m"), ("1500", "1500ms"), ("-1", "for ever")])
def test_retention_is_told_in_its_greatest_unit(milliseconds: str, text: str) -> None:
    assert table(cluster(), changed("video", retention_ms=milliseconds))[1][4] == text


def test_flags_hold_against_the_config() -> None:
    assert with_flags(TopicsSettings(partitions=1, replication=2), 5, None, None) == TopicsSettings(partitions=5, replication=2)
