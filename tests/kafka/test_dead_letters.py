"""Dead letters on a real broker: complete, in their original bytes, waited for, shown, and published again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from streamfuse.cli import main
from streamfuse.codecs import WireRecord, encode_packet
from streamfuse.config import KafkaConnection, KafkaDeadLetterSettings
from streamfuse.dead_letters import DeadLetter, letter_from_json, letter_to_record
from streamfuse.kafka.clients import Reading, make_consumer
from streamfuse.kafka.letters import LetterTopic
from streamfuse.kafka.transport import Partition
from streamfuse.types import MILLISECOND, SECOND, Encoded, Packet, Record
from tests.kafka.broker import Broker
from tests.kafka.fuzz import assert_same, through_kafka
from tests.kafka.rooms import NOON, Place, Published, contents, records
from tests.kafka.traffic import PATIENCE
from tests.running import Running

pytestmark = pytest.mark.kafka

LARGE = 2_000_000
TRANSPORTS = ["kafka-python", "confluent"]


def place_of(broker: Broker, name: str, letter_bytes: int = 10 * LARGE, transport: str = "kafka-python") -> Place:
    """With a topic for dead letters of at most so many bytes, and topics that take more than brokers do by themselves."""
    place = Place.make(broker, name, transport=transport)
    for topic in place.topics.values():
        configure(broker, topic, {"max.message.bytes": str(2 * LARGE), "retention.ms": "-1"})
    broker.create_topic(f"{name}.dead", 1, {"max.message.bytes": str(letter_bytes)})
    return place


def configure(broker: Broker, topic: str, configs: Mapping[str, str]) -> None:
    from kafka.admin import ConfigResource, ConfigResourceType

    with broker.admin() as admin:
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs=dict(configs))])


def config(place: Place, **dead_letters: object) -> dict[str, Any]:
    settings = place.config()
    kafka = {"type": "kafka", "bootstrap": place.broker.bootstrap, "transport": place.transport}
    settings["dead_letters"] = {**kafka, "topic": f"{place.name}.dead", **dead_letters}
    settings["sources"][0]["max_record_bytes"] = LARGE // 2
    return settings


def publish(place: Place, sent: Sequence[tuple[str, WireRecord]]) -> None:
    """To the topics of their streams, by another client than ours: kafka-python writes no header without a value."""
    producer = Producer({"bootstrap.servers": place.broker.bootstrap, "acks": "all", "message.max.bytes": 4 * LARGE})
    failures: list[object] = []
    for topic, wire in sent:
        producer.produce(
            topic,
            wire.value,
            wire.key,
            headers=list(wire.headers),
            timestamp=wire.timestamp // MILLISECOND,
            on_delivery=lambda error, _: failures.append(error) if error else None,
        )
        producer.poll(0)
    assert producer.flush(PATIENCE) == 0
    assert failures == []


def good(place: Place, seconds: int, begin: int = 0) -> list[tuple[str, WireRecord]]:
    return [(place.topics[packet.stream], encode_packet(packet)) for packet in records(1, ["room"], begin, seconds)]


def wire(stream: str, payload: Encoded, **headers: bytes | None) -> WireRecord:
    made = encode_packet(Packet(stream, "room", NOON + 2 * SECOND, 0, payload, records(1, ["room"], 0, 1)[0].position, NOON + 2 * SECOND))
    described = {"ce_id": b"bad " + json.dumps([*headers]).encode(), **headers}
    kept = [(name, value) for name, value in made.headers if name not in described]
    return made._replace(headers=(*kept, *described.items()))


def dead(settings: Mapping[str, Any]) -> list[DeadLetter]:
    with LetterTopic(KafkaDeadLetterSettings.model_validate(settings["dead_letters"])) as topic:
        found = [letter for _, letter in topic.letters()]
    assert all(isinstance(letter, DeadLetter) for letter in found), found
    return [letter for letter in found if isinstance(letter, DeadLetter)]


def stored(place: Place, topic: str) -> dict[int, Record]:
    """What stands in partition 0 and 1 of a topic, by offset, the latter from 1,000,000 on."""
    consumer = make_consumer(KafkaConnection(bootstrap=place.broker.bootstrap), Reading())
    try:
        ends = consumer.ends([Partition(topic, 0), Partition(topic, 1)])
        consumer.assign(dict.fromkeys(ends, 0))
        found: dict[int, Record] = {}
        while len(found) < sum(ends.values()):
            for partition, batch in consumer.poll(1).records.items():
                found.update({partition.number * 1_000_000 + record.offset: record for record in batch})
        return found
    finally:
        consumer.close()


def letter(topic: str, offset: int, **changed: Any) -> DeadLetter:
    record = Record(topic, 0, offset, b"room", b"%d" % offset, (("a", b"1"), ("a", b"")), NOON + offset * SECOND)
    given = {"stream": "text", "stage": "decode", "reason": "quarantined", "error": "expected more, found less; send more"}
    return DeadLetter(record._replace(**changed.pop("record", {})), **{**given, "time": NOON + offset * SECOND, **changed})


# --- through the daemon ------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_each_refused_record_stands_in_the_dead_letters_in_its_original_bytes(
    broker: Broker, unique: str, tmp_path: Path, transport: str
) -> None:
    place = place_of(broker, unique, transport=transport)
    text, picture = Encoded(b"a word", "text/plain"), Encoded(b"\xff\xd8\xff" + b"noise" * 300, "image/jpeg")
    junk = (("", b""), ("traceparent", b"\xff\xfe\0"), ("streamfuse_dl_headers", b"99"), ("a", None), ("a", b"1"), ("a", b"2"))
    bad = {
        "corrupt JPEG": ("video", wire("video", picture)),
        "bad ce_time": ("text", wire("text", text, ce_time=b"yesterday")),
        "1970": ("text", wire("text", text, ce_time=b"1970-01-01T00:00:00Z")),
        "no ce_id": ("text", WireRecord(b"room", b"a word", (("ce_specversion", b"1.0"), ("ce_type", b"t"), ("ce_source", b"s")), NOON)),
        "oversized value": ("video", wire("video", Encoded(bytes(LARGE), "image/jpeg"))),
        "key that is not UTF-8": ("text", wire("text", text)._replace(key=b"\xff\xfe")),
        "null header": ("text", wire("text", text, ce_id=None)),
        "junk headers": ("text", WireRecord(b"room", b"\xff", junk, NOON)),
        "null value": ("text", WireRecord(b"room", None, (), NOON)),
        "neither key nor value": ("text", WireRecord(None, None, junk, NOON)),
    }
    publish(place, [*good(place, 3), *((place.topics[stream], one) for stream, one in bad.values()), *good(place, 9, begin=3)])
    settings = config(place, max_share=1)
    with Running(tmp_path / "daemon", settings) as daemon, Published(place) as published:
        daemon.notified("READY=1")
        daemon.until(lambda: daemon.total("streamfuse_dead_letters_total") == len(bad))
        published.until_more(10, daemon)
        by_stage = {stage: daemon.total("streamfuse_dead_letters_total", stage=stage) for stage in ("decode", "synchronize", "prepare")}
        assert daemon.terminate()[0] == 0, daemon.said
    assert by_stage == {"decode": len(bad) - 2, "synchronize": 1, "prepare": 1}
    letters = dead(settings)
    sent = sorted((place.topics[stream], one.key or b"", one.value or b"", one.headers) for stream, one in bad.values())
    found = sorted((x.record.topic, x.record.key or b"", x.record.value or b"", x.record.headers) for x in letters)
    assert found == sent
    for topic in {one.record.topic for one in letters}:
        there = stored(place, topic)
        for one in letters:
            if one.record.topic == topic:
                assert_same(one, there[one.record.partition * 1_000_000 + one.record.offset])


@pytest.mark.slow
def test_too_many_of_them_stop_the_daemon_with_an_exit_code_of_its_own(broker: Broker, unique: str, tmp_path: Path) -> None:
    place = place_of(broker, unique)
    bad = [(place.topics["text"], WireRecord(b"room", b"\xff", (), NOON))] * 1000
    publish(place, [*good(place, 10), *bad])
    with Running(tmp_path / "daemon", config(place)) as daemon:
        code, said = daemon.ended()
    assert code == 8, said
    assert "expected at most 0.05 of the records to be of no use over 60 s" in said
    assert "ExceptionGroup" not in said
    assert len(dead(config(place))) < 100


@pytest.mark.slow
def test_dead_letters_whose_broker_is_away_are_waited_for_and_nothing_passes_them(
    broker: Broker, own_broker: Broker, unique: str, tmp_path: Path
) -> None:
    place = place_of(broker, unique)
    settings = config(place, max_share=1, bootstrap=own_broker.bootstrap)
    with own_broker, Running(tmp_path / "daemon", settings) as daemon, Published(place) as published:
        own_broker.create_topic(f"{unique}.dead")
        daemon.notified("READY=1")
        own_broker.kill()
        publish(place, [(place.topics["text"], WireRecord(b"room", b"\xff", (), NOON))])
        daemon.until(lambda: "no acknowledgement" in daemon.said)
        sent = place.publish(records(1, ["room"], 0, 5))
        daemon.until(lambda: daemon.metric("streamfuse_queue_depth", queue="items") > 0)  # they are here, and wait
        published.to_the_end()
        assert published.all == []
        own_broker.start()
        published.until_there([window.id for window in place.windows(sent)], daemon)
        assert daemon.terminate()[0] == 0, daemon.said
        assert [one.record.value for one in dead(settings)] == [b"\xff"]


@pytest.mark.slow
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_letter_that_is_too_large_for_its_topic_goes_without_its_value(
    broker: Broker, unique: str, tmp_path: Path, transport: str
) -> None:
    place = place_of(broker, unique, letter_bytes=LARGE // 2, transport=transport)
    huge = wire("video", Encoded(bytes(LARGE), "image/jpeg"))
    publish(place, [(place.topics["video"], huge)])
    settings = config(place, max_share=1)
    with Running(tmp_path / "daemon", settings) as daemon:
        daemon.notified("READY=1")
        daemon.until(lambda: daemon.total("streamfuse_dead_letters_total") == 1)
        assert "so that it goes without its value" in daemon.said
        assert daemon.terminate()[0] == 0, daemon.said
    (one,) = dead(settings)
    assert (one.record.key, one.record.value, one.record.headers, one.omitted) == (huge.key, None, huge.headers, LARGE)


@pytest.mark.slow
def test_a_replay_after_the_cause_is_mended_lands_in_the_predictions(
    broker: Broker, unique: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = place_of(broker, unique)
    sent = place.publish(records(1, ["room", "hall"], 0, 10))
    sounds = [packet for packet in sent if packet.stream == "audio"]
    settings = config(place, max_share=1)
    settings["sources"][0]["max_record_bytes"] = 5000  # pictures are smaller, sounds greater
    with Running(tmp_path / "first", settings) as daemon:
        daemon.notified("READY=1")
        daemon.until(lambda: daemon.total("streamfuse_dead_letters_total") == len(sounds))
        assert daemon.terminate()[0] == 0, daemon.said
    settings["sources"][0]["max_record_bytes"] = LARGE
    replay = ("dlq", "replay", str(tmp_path / "config.yaml"))
    Path(replay[2]).write_text(json.dumps(settings))
    assert streamfuse(*replay, "--dry-run") == 0
    assert f"would replay {len(sounds)} records: {len(sounds)} to {place.topics['audio']}" in capsys.readouterr().out
    with Running(tmp_path / "second", settings) as daemon, Published(place) as published:
        daemon.notified("READY=1")
        assert streamfuse(*replay) == 0
        assert f"replayed {len(sounds)} records" in capsys.readouterr().out
        windows = {window.id: contents(window) for window in place.windows(sent)}
        published.until_there(windows, daemon)
        assert daemon.terminate()[0] == 0, daemon.said
    assert {prediction.id: contents(prediction) for prediction in published.all} == windows
    assert streamfuse(*replay) == 0
    assert f"replayed 0 records\n{len(sounds)} were replayed before; --again repeats them" in capsys.readouterr().out


@pytest.mark.slow
def test_mutated_records_leave_a_daemon_running_and_each_refused_one_a_letter(broker: Broker, unique: str, tmp_path: Path) -> None:
    verdict = through_kafka(broker, unique, tmp_path / "daemon", 2_000, seed=4)
    assert {stage for stage, _ in verdict.letters} == {"decode", "synchronize", "prepare"}


# --- the commands ------------------------------------------------------------------------------------------------------------------------


def streamfuse(*arguments: str) -> int:
    return main(arguments)


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The client that the commands use."""
    chosen: str = request.param
    monkeypatch.setenv("STREAMFUSE_DEAD_LETTERS__TRANSPORT", chosen)
    return chosen


@pytest.fixture
def letters(broker: Broker, unique: str, transport: str) -> list[DeadLetter]:
    """Some that stand in the topic `unique.dead`, and the topic `unique` that they come from."""
    broker.create_topic(unique, 1, {"retention.ms": "-1"})
    broker.create_topic(f"{unique}.dead", 1, {"retention.ms": "-1"})
    made = [
        letter(unique, 0),
        letter(
            unique,
            1,
            reason="undecodable",
            stage="prepare",
            record={"value": b"\xff\xd8\xff", "headers": (("content-type", b"image/jpeg"),)},
        ),
        letter(unique, 2, record={"key": b"\xff", "value": None}),
        letter(unique, 3, record={"key": None}, error="one line\nand \x1b[31manother"),
    ]
    produce_letters(broker, f"{unique}.dead", made)
    return made


def produce_letters(broker: Broker, topic: str, made: Sequence[DeadLetter]) -> None:
    publish(Place(broker, topic), [(topic, letter_to_record(one)) for one in made])


def at(broker: Broker, unique: str) -> tuple[str, ...]:
    return ("--bootstrap", broker.bootstrap, "--topic", f"{unique}.dead")


def test_show_tells_each_in_a_line(broker: Broker, unique: str, letters: Sequence[DeadLetter], capsys: pytest.CaptureFixture[str]) -> None:
    assert streamfuse("dlq", "show", *at(broker, unique)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        f"2026-05-01T12:00:00Z  {unique}/0@0  key room  decode quarantined  1 bytes  expected more, found less; send more",
        f"2026-05-01T12:00:01Z  {unique}/0@1  key room  prepare undecodable  3 bytes  expected more, found less; send more",
        f"2026-05-01T12:00:02Z  {unique}/0@2  key \\xff  decode quarantined  no value  expected more, found less; send more",
    ]
    assert lines[3].endswith(r"key (none)  decode quarantined  1 bytes  one line\nand \x1b[31manother")
    assert len(lines) == 4


@pytest.mark.parametrize(
    ("options", "offsets"),
    [
        (["--newest", "2"], [2, 3]),
        (["--oldest", "2"], [0, 1]),
        (["--all"], [0, 1, 2, 3]),
        (["--reason", "undecodable"], [1]),
        (["--stage", "decode"], [0, 2, 3]),
        (["--key", "room"], [0, 1]),
        (["--from", "elsewhere"], []),
        (["--since", "2026-05-01T12:00:02Z"], [2, 3]),
        (["--since", "1h"], []),
    ],
    ids=lambda value: " ".join(value) if value and isinstance(value[0], str) else "",
)
def test_show_takes_those_that_are_asked_for(
    broker: Broker,
    unique: str,
    letters: Sequence[DeadLetter],
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    offsets: list[int],
) -> None:
    assert streamfuse("dlq", "show", *at(broker, unique), "--json", *options) == 0
    assert [letter_from_json(line) for line in capsys.readouterr().out.splitlines()] == [letters[offset] for offset in offsets]


def test_show_counts_them_by_topic_stage_and_reason(
    broker: Broker, unique: str, letters: Sequence[DeadLetter], capsys: pytest.CaptureFixture[str]
) -> None:
    assert streamfuse("dlq", "show", *at(broker, unique), "--count") == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["3", unique, "decode", "quarantined"],
        ["1", unique, "prepare", "undecodable"],
        ["4", "in", "all"],
    ]
    assert streamfuse("dlq", "show", *at(broker, unique), "--count", "--json") == 0
    assert json.loads(capsys.readouterr().out)["letters"] == 4


def test_show_saves_the_payloads(
    broker: Broker, unique: str, letters: Sequence[DeadLetter], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    produce_letters(broker, f"{unique}.dead", [letter("../../escape", 4)])
    assert streamfuse("dlq", "show", *at(broker, unique), "--save", str(tmp_path / "saved")) == 0
    assert {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == {
        f"{unique}-0-0.bin": b"0",
        f"{unique}-0-1.jpg": b"\xff\xd8\xff",
        f"{unique}-0-3.bin": b"3",
        ".._.._escape-0-4.bin": b"4",
    }


def test_show_passes_over_what_is_no_letter(
    broker: Broker, unique: str, letters: Sequence[DeadLetter], capsys: pytest.CaptureFixture[str]
) -> None:
    publish(Place(broker, unique), [(f"{unique}.dead", WireRecord(b"room", b"a word", (), NOON))])
    assert streamfuse("dlq", "show", *at(broker, unique), "--count") == 0
    said = capsys.readouterr()
    assert "4  in all" in said.out
    assert f"passed over {unique}.dead/0 at offset 4: expected a dead letter, found a record without" in said.err


def test_a_replay_publishes_the_originals_once_and_again_when_asked(
    broker: Broker, unique: str, letters: Sequence[DeadLetter], capsys: pytest.CaptureFixture[str]
) -> None:
    assert streamfuse("dlq", "replay", *at(broker, unique), "--stage", "prepare") == 0
    assert streamfuse("dlq", "replay", *at(broker, unique)) == 0
    assert "replayed 3 records" in capsys.readouterr().out
    assert streamfuse("dlq", "replay", *at(broker, unique)) == 0
    assert capsys.readouterr().out == "replayed 0 records\n4 were replayed before; --again repeats them\n"
    assert streamfuse("dlq", "replay", *at(broker, unique), "--again", "--key", "room") == 0
    place = Place(broker, unique)
    consumer = make_consumer(KafkaConnection(bootstrap=place.broker.bootstrap), Reading())
    try:
        consumer.assign({Partition(unique, 0): 0})
        found: list[Record] = []
        while len(found) < 6:
            found += consumer.poll(1).records.get(Partition(unique, 0), ())
    finally:
        consumer.close()
    expected = [letters[number].record for number in (1, 0, 2, 3, 0, 1)]
    once = ("streamfuse_dl_replays", b"1")
    assert [one._replace(offset=0) for one in found] == [one._replace(offset=0, headers=(*one.headers, once)) for one in expected]


@pytest.mark.parametrize(
    ("gone", "sentence"),
    [({"topic": "nowhere"}, "expected topic nowhere at"), ({"partition": 7}, "to have a partition 7, found 1 of them")],
)
def test_a_replay_to_what_does_not_exist_is_refused_before_anything_is_published(
    broker: Broker,
    unique: str,
    letters: Sequence[DeadLetter],
    capsys: pytest.CaptureFixture[str],
    gone: Mapping[str, object],
    sentence: str,
) -> None:
    produce_letters(broker, f"{unique}.dead", [letter(unique, 9, record=gone)])
    assert streamfuse("dlq", "replay", *at(broker, unique)) == 6
    assert sentence in capsys.readouterr().err
    with broker.admin() as admin:
        assert "nowhere" not in admin.list_topics()
    consumer = make_consumer(KafkaConnection(bootstrap=broker.bootstrap), Reading())
    assert consumer.ends([Partition(unique, 0)]) == {Partition(unique, 0): 0}
    consumer.close()


def test_a_letter_without_its_value_is_left_out_of_a_replay(broker: Broker, unique: str, capsys: pytest.CaptureFixture[str]) -> None:
    broker.create_topic(f"{unique}.dead", 1, {"retention.ms": "-1"})
    produce_letters(broker, f"{unique}.dead", [letter(unique, 5, omitted=1234, record={"value": None})])
    assert streamfuse("dlq", "replay", *at(broker, unique)) == 0
    assert f"left out {unique}/0@5: its 1,234 bytes did not fit into the dead letters" in capsys.readouterr().out


def test_a_topic_that_is_not_there_is_named(broker: Broker, unique: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert streamfuse("dlq", "show", *at(broker, unique)) == 5
    assert f"expected topic {unique}.dead at {broker.bootstrap}, found none; correct --topic" in capsys.readouterr().err
