"""Topics on a real broker: looked at, compared with a config, created, missing at the start, and deleted under a running daemon."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streamfuse.cli import main
from streamfuse.config import KafkaConnection
from streamfuse.kafka.clients import make_admin
from streamfuse.kafka.transport import Admin, NewTopic, Refused
from tests.kafka.broker import Broker
from tests.kafka.rooms import Place, Published, records
from tests.kafka.secure import PASSWORD, SecureBroker
from tests.running import Running

pytestmark = [pytest.mark.kafka, pytest.mark.usefixtures("closed_sockets")]

ROOMS = ("north", "south")
MIB = 1024 * 1024


@pytest.fixture(params=["kafka-python", "confluent"])
def transport(request: pytest.FixtureRequest) -> str:
    if request.param == "confluent":
        pytest.importorskip("confluent_kafka", reason="needs confluent-kafka: pip install 'streamfuse[fast]'")
    return str(request.param)


@pytest.fixture
def admin(broker: Broker, transport: str) -> Iterator[Admin]:
    made = make_admin(KafkaConnection(bootstrap=broker.bootstrap, transport=transport))
    yield made
    made.close()


def config_of(folder: Path, broker: Broker, name: str, transport: str = "kafka-python", **more: Any) -> Path:
    kafka = {"type": "kafka", "bootstrap": broker.bootstrap, "transport": transport}
    source = {**kafka, "topics": {"video": f"{name}.video", "text": f"{name}.text"}, "group": name}
    tree = {
        "sources": [{**source, **more.pop("source", {})}],
        "sync": {"streams": {"video": {}, "text": {}}},
        "sinks": [{**kafka, "topic": f"{name}.predictions"}],
        "dead_letters": {**kafka, "topic": f"{name}.letters"},
        **more,
    }
    path = folder / "config.yaml"
    path.write_text(json.dumps(tree))
    return path


# --- the admins of both clients ---


def test_a_topic_is_described_as_it_was_created(admin: Admin, unique: str) -> None:
    admin.create([NewTopic(unique, 3, 1, {"cleanup.policy": "compact", "retention.ms": "1000", "max.message.bytes": "2000000"})])
    found = admin.describe([unique])[unique]
    assert (found.partitions, found.replication) == (3, 1)
    assert found.config("cleanup.policy", "") == "compact"
    assert (found.number("retention.ms"), found.number("max.message.bytes"), found.number("min.insync.replicas")) == (1000, 2_000_000, 1)


def test_the_brokers_defaults_hold_where_nothing_is_said(admin: Admin, unique: str) -> None:
    admin.create([NewTopic(unique, None, None, {})])
    found = admin.describe([unique])[unique]
    assert (found.partitions, found.replication, found.config("cleanup.policy", "")) == (1, 1, "delete")


def test_what_is_not_there_is_left_out(admin: Admin, unique: str) -> None:
    admin.create([NewTopic(unique, 1, 1, {})])
    assert admin.describe([unique, f"{unique}.nowhere"]).keys() == {unique}
    assert admin.describe([]) == {}


def test_a_topic_that_is_there_is_passed_over_and_its_neighbour_created(admin: Admin, unique: str) -> None:
    admin.create([NewTopic(unique, 2, 1, {})])
    admin.create([NewTopic(unique, 5, 1, {}), NewTopic(f"{unique}.more", 5, 1, {})])
    assert {name: found.partitions for name, found in admin.describe([unique, f"{unique}.more"]).items()} == {
        unique: 2,
        f"{unique}.more": 5,
    }


def test_more_replicas_than_brokers_are_refused_with_the_fix(admin: Admin, unique: str) -> None:
    with pytest.raises(Refused, match=r"replication factor of 9 .*; set topics.replication to no more than there are brokers"):
        admin.create([NewTopic(unique, 1, 9, {})])


def test_a_name_that_no_topic_can_have_is_refused(admin: Admin) -> None:
    with pytest.raises(Refused, match=r"choose one of letters, digits"):
        admin.create([NewTopic("no name", 1, 1, {})])


def test_a_config_that_no_topic_can_have_is_refused(admin: Admin, unique: str) -> None:
    with pytest.raises(Refused, match=rf"topic {unique}: .*retention\.ms"):
        admin.create([NewTopic(unique, 1, 1, {"retention.ms": "soon"})])


def test_who_may_not_create_is_told_which_right_is_missing(secure_broker: SecureBroker, transport: str, unique: str) -> None:
    secure_broker.set_password(unique)
    secure_broker.allow(unique, "topic", unique, ["describe"])
    settings = {"bootstrap": secure_broker.secure, "security": "sasl_ssl", "ca_file": secure_broker.certificates.ca, "transport": transport}
    made = make_admin(KafkaConnection.model_validate({**settings, "username": unique, "password": PASSWORD}))
    try:
        with pytest.raises(Refused, match=rf"User:{unique} has no right to create the topic {unique}; grant it: kafka-acls.sh --add"):
            made.create([NewTopic(unique, 1, 1, {})])
        secure_broker.create_topic(unique)
        found = made.describe([unique])[unique]
        assert (found.partitions, found.configs) == (1, None)  # without the right to DescribeConfigs
    finally:
        made.close()


# --- the commands ---


def test_create_makes_what_check_then_finds_in_order(
    broker: Broker, transport: str, unique: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_of(tmp_path, broker, unique, transport, source={"max_record_bytes": 2 * MIB})
    assert main(["topics", "check", str(config)]) == 3
    before = capsys.readouterr()
    assert f"  {unique}.video: expected this topic (input video), found none; `streamfuse topics create {config}` makes it" in before.err
    assert before.err.startswith("4 mistakes:")
    assert main(["topics", "create", str(config), "--partitions", "3", "--retention", "1h"]) == 0
    assert f"created {unique}.video with 3 partitions, max.message.bytes=2097152, retention.ms=3600000" in capsys.readouterr().out
    assert main(["topics", "check", str(config)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [f"{unique}.video", "input", "video", "3", "1", "1h", "2,097,152", "delete"] in lines
    assert [f"{unique}-watermarks", "watermarks", "3", "1", "7d", "1,048,588", "compact"] in lines
    assert [f"{unique}.letters", "dead", "letters", "3", "1", "1h", "2,113,536", "delete"] in lines
    assert main(["topics", "create", str(config)]) == 0
    assert "created" not in capsys.readouterr().out


def test_a_dry_run_creates_nothing(broker: Broker, unique: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = config_of(tmp_path, broker, unique)
    assert main(["topics", "create", str(config), "--dry-run"]) == 0
    assert f"would create {unique}.video with" in capsys.readouterr().out
    assert main(["topics", "check", str(config)]) == 3


def test_unequal_partitions_are_told_with_the_command_that_mends_them_and_nothing_is_created(
    broker: Broker, unique: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broker.create_topic(f"{unique}.video", 2)
    broker.create_topic(f"{unique}.text", 1)
    config = config_of(tmp_path, broker, unique)
    assert main(["topics", "create", str(config)]) == 3
    captured = capsys.readouterr()
    assert f"--bootstrap-server {broker.bootstrap} --alter --topic {unique}.text --partitions 2" in captured.err
    assert "created" not in captured.out


def test_a_topic_for_smaller_records_is_a_mistake_and_a_compacted_one_too(
    broker: Broker, unique: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broker.create_topic(f"{unique}.video", 1, {"max.message.bytes": "1000"})
    broker.create_topic(f"{unique}.text", 1, {"cleanup.policy": "compact"})
    config = config_of(tmp_path, broker, unique, source={"max_record_bytes": MIB})
    assert main(["topics", "check", str(config)]) == 3
    said = capsys.readouterr().err
    assert f"--entity-name {unique}.video --add-config max.message.bytes=1048576" in said
    assert f"--entity-name {unique}.text --add-config cleanup.policy=delete" in said


def test_brokers_that_are_away_end_the_command_with_5(own_broker: Broker, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = config_of(tmp_path, own_broker, "away", source={"connect_timeout": "500ms"})
    assert main(["topics", "check", str(config)]) == 5
    assert f"expected brokers at {own_broker.bootstrap}" in capsys.readouterr().err


# --- the daemon ---


@pytest.mark.slow
def test_a_daemon_creates_the_topics_that_are_missing_and_runs(broker: Broker, transport: str, unique: str, tmp_path: Path) -> None:
    place = Place(broker, unique, transport=transport)
    broker.create_topic(f"{unique}.predictions")
    config = {**place.config(), "topics": {"at_start": "create", "partitions": 2}}
    with Running(tmp_path / "daemon", config) as daemon:
        daemon.notified("READY=1")
        assert f"created topic {unique}.video with 2 partitions" in daemon.said
        assert f"created topic {unique}.predictions" not in daemon.said
        sent = records(3, ROOMS, 0, 5)
        place.publish(sent)
        with Published(place) as published:
            published.until_there([window.id for window in place.windows(sent)], daemon)
        assert daemon.terminate()[0] == 0, daemon.said


@pytest.mark.slow
def test_a_daemon_waits_for_a_topic_says_so_and_goes_on(broker: Broker, transport: str, unique: str, tmp_path: Path) -> None:
    place = Place(broker, unique, transport=transport)
    for name in (place.topics["video"], place.topics["audio"], f"{unique}.predictions"):
        broker.create_topic(name, 2 if name != f"{unique}.predictions" else 1)
    with Running(tmp_path / "daemon", place.config()) as daemon:
        daemon.until(lambda: f"expected topic {unique}.text at {broker.bootstrap}, found none" in daemon.said)
        assert f"kafka-topics.sh --bootstrap-server {broker.bootstrap} --create --topic {unique}.text" in daemon.said
        assert daemon.get("/livez")[0] == 200
        assert daemon.get("/readyz")[0] == 503
        broker.create_topic(f"{unique}.text", 2)
        daemon.notified("READY=1")
        assert daemon.terminate()[0] == 0, daemon.said


@pytest.mark.slow
def test_a_daemon_that_may_not_create_ends_with_the_right_that_is_missing(
    secure_broker: SecureBroker, transport: str, unique: str, tmp_path: Path
) -> None:
    secure_broker.set_password(unique)
    place = Place(secure_broker, unique, bootstrap=secure_broker.secure, transport=transport)
    login = {"security": "sasl_ssl", "ca_file": str(secure_broker.certificates.ca), "username": unique, "password": PASSWORD}
    config = place.config()
    config["sources"][0] |= login
    config["sinks"][0] |= login
    with Running(tmp_path / "daemon", {**config, "topics": "create"}) as daemon:
        code, said = daemon.ended()
    assert code == 5, said
    assert f"User:{unique} has no right to" in said
    assert PASSWORD not in said


@pytest.mark.slow
def test_a_topic_that_is_deleted_under_a_reading_daemon_ends_it_with_its_name(
    broker: Broker, transport: str, unique: str, tmp_path: Path
) -> None:
    place = Place.make(broker, unique, transport=transport)
    sent = records(3, ROOMS, 0, 3)
    with Running(tmp_path / "daemon", place.config()) as daemon:
        daemon.notified("READY=1")
        place.publish(sent)
        with Published(place) as published:
            published.until_there([window.id for window in place.windows(sent)], daemon)
        delete(broker, place.topics["text"])
        code, said = daemon.ended()
    assert code == 5, said
    assert f"expected topic {unique}.text, which it was reading, found that it is gone" in said


@pytest.mark.slow
def test_a_topic_of_predictions_that_is_deleted_is_named_and_comes_back_after_a_restart_at_the_latest(
    broker: Broker, transport: str, unique: str, tmp_path: Path
) -> None:
    place = Place.make(broker, unique, transport=transport)
    before, after = records(3, ROOMS, 0, 3), records(4, ROOMS, 3, 3)
    with Running(tmp_path / "first", place.config()) as daemon:
        daemon.notified("READY=1")
        place.publish(before)
        with Published(place) as published:
            published.until_there([window.id for window in place.windows(before)], daemon)
        delete(broker, f"{unique}.predictions")
        place.publish(after)
        daemon.until(lambda: f"expected topic {unique}.predictions at {broker.bootstrap}, found none" in daemon.said)
    broker.create_topic(f"{unique}.predictions")
    with Running(tmp_path / "second", place.config()) as daemon, Published(place) as published:
        new = {window.id for window in place.windows([*before, *after])} - {window.id for window in place.windows(before)}
        published.until_there(new, daemon)


def delete(broker: Broker, topic: str) -> None:
    with broker.admin() as admin:
        admin.delete_topics([topic])
