"""`streamfuse sim` and `streamfuse subscribe` as a person types them, with a daemon between them on a real broker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer, TopicPartition

from streamfuse.codecs import Record, RecordDecoder, format_time, prediction_from_json, prediction_to_json
from streamfuse.types import MILLISECOND, SECOND, Packet
from tests.kafka.broker import Broker
from tests.kafka.test_subscribe import committed, make_topic, prediction, publish
from tests.running import PATIENCE, Running, free_port
from tests.sources.clips import Clip, write

pytestmark = pytest.mark.kafka

STREAMS = ("video", "audio", "text", "truth")


@pytest.fixture
def topics(broker: Broker, unique: str) -> dict[str, str]:
    """Stream -> topic, and `predictions`; all of them there."""
    made = {name: f"{unique}.{name}" for name in (*STREAMS, "predictions")}
    for topic in made.values():
        broker.create_topic(topic)
    return made


def streamfuse(*arguments: object, **settings: str) -> subprocess.CompletedProcess[str]:
    """With these settings in the environment."""
    command = [sys.executable, "-m", "streamfuse", *map(str, arguments)]
    environ = {**os.environ, "OMP_NUM_THREADS": "1", **settings}
    return subprocess.run(command, capture_output=True, text=True, env=environ, timeout=PATIENCE, check=False)


def interrupted(error: Path, ready: Callable[[str], bool], *arguments: object) -> tuple[int, str]:
    """Starts it, sends Ctrl-C as soon as what it said is enough, and gives its exit code and all that it said."""
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}
    with error.open("w") as file:
        process = subprocess.Popen([sys.executable, "-m", "streamfuse", *map(str, arguments)], env=environ, stderr=file)
    try:
        deadline = time.monotonic() + PATIENCE
        while not ready(error.read_text()):
            assert time.monotonic() < deadline, error.read_text()
            assert process.poll() is None, error.read_text()
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.05)
        process.send_signal(signal.SIGINT)
        return process.wait(PATIENCE), error.read_text()
    finally:
        process.kill()
        process.wait()


def pairs(topics: dict[str, str], *streams: str) -> str:
    return ",".join(f"{stream}={topics[stream]}" for stream in streams)


def packets(broker: Broker, topics: dict[str, str], *streams: str) -> list[Packet]:
    """All packets that stand in these topics."""
    decoder = RecordDecoder({stream: topics[stream] for stream in streams}, 2**24)
    consumer = KafkaConsumer(bootstrap_servers=broker.bootstrap, auto_offset_reset="earliest", metrics_enabled=False)
    try:
        partitions = [TopicPartition(topics[stream], 0) for stream in streams]
        consumer.assign(partitions)
        ends = consumer.end_offsets(partitions)
        found: list[Packet] = []
        while any(consumer.position(partition) < end for partition, end in ends.items()):
            for records in consumer.poll(500).values():
                for r in records:
                    item = decoder.decode(
                        Record(r.topic, r.partition, r.offset, r.key, r.value, tuple(r.headers), r.timestamp * MILLISECOND)
                    )
                    assert isinstance(item, Packet), item
                    found.append(item)
        return found
    finally:
        consumer.close()


def daemon(broker: Broker, topics: dict[str, str], folder: Path) -> Running:
    kafka = {"type": "kafka", "bootstrap": broker.bootstrap}
    config: dict[str, Any] = {
        "sources": [{**kafka, "topics": {s: topics[s] for s in STREAMS}, "group": topics["predictions"], "start": "earliest"}],
        "sync": {"streams": {"video": {}, "audio": {}, "text": {"required": False}, "truth": {"required": False}}},
        "models": {"device": "cpu", "truth": "truth"},
        "sinks": [{**kafka, "topic": topics["predictions"]}],
    }
    return Running(folder, config)


@pytest.mark.slow
def test_sim_publishes_and_subscribe_prints_what_a_daemon_made_of_it(broker: Broker, topics: dict[str, str], tmp_path: Path) -> None:
    sim = streamfuse("sim", "--seconds", 3, "--pace", "full", "--bootstrap", broker.bootstrap, "--topics", pairs(topics, *STREAMS))
    assert sim.returncode == 0, sim.stderr
    sent = packets(broker, topics, *STREAMS)
    counts = Counter(packet.stream for packet in sent)
    assert f"published {', '.join(f'{count} {stream}' for stream, count in sorted(counts.items()))}\n" in sim.stderr
    assert counts["video"] == 45
    assert counts["audio"] == 75
    assert counts["truth"] >= 1

    tail = ("subscribe", "--bootstrap", broker.bootstrap, "--topic", topics["predictions"], "--from-start", "--count", 5)
    with daemon(broker, topics, tmp_path):
        read = streamfuse(*tail, "--json")
        assert read.returncode == 0, read.stderr
    predictions = [prediction_from_json(line) for line in read.stdout.splitlines()]
    assert [p.end - p.start for p in predictions] == [SECOND] * 5
    assert [p.start - predictions[0].start for p in predictions] == [n * SECOND // 2 for n in range(5)]
    assert {p.key for p in predictions} == {packet.key for packet in sent}
    assert all(p.truth in p.scores for p in predictions)

    pretty = streamfuse(*tail)
    assert pretty.returncode == 0, pretty.stderr
    assert [p.label in line for p, line in zip(predictions, pretty.stdout.splitlines(), strict=True)] == [True] * 5


def test_sim_publishes_a_clip(broker: Broker, topics: dict[str, str], tmp_path: Path) -> None:
    clip = write(tmp_path / "lobby.mkv", Clip())
    named = pairs(topics, "video", "audio", "text")
    sim = streamfuse("sim", "--clip", clip, "--pace", "full", "--bootstrap", broker.bootstrap, "--topics", named)
    assert sim.returncode == 0, sim.stderr
    sent = packets(broker, topics, "video", "audio", "text")
    assert Counter(packet.stream for packet in sent) == {"video": 50, "audio": 50, "text": 2}
    assert {packet.key for packet in sent} == {"lobby"}
    assert [packet.payload for packet in sent if packet.stream == "text"] == ["hello you", "good bye"]


def test_sim_can_be_stopped_while_it_waits_for_a_broker(tmp_path: Path) -> None:
    arguments = ("sim", "--bootstrap", f"127.0.0.1:{free_port()}")
    code, said = interrupted(tmp_path / "stderr", lambda said: "attempt 1 failed" in said, *arguments)
    assert code == 0, said
    assert "published nothing" in said


def test_sim_is_stopped_by_ctrl_c_and_says_how_much_it_was(broker: Broker, topics: dict[str, str], tmp_path: Path) -> None:
    arguments = ("sim", "--bootstrap", broker.bootstrap, "--topics", pairs(topics, *STREAMS))
    code, said = interrupted(tmp_path / "stderr", lambda said: bool(packets(broker, topics, *STREAMS)), *arguments)
    assert code == 0, said
    sent = Counter(packet.stream for packet in packets(broker, topics, *STREAMS))
    assert f"published {', '.join(f'{count} {stream}' for stream, count in sorted(sent.items()))}\n" in said


def test_subscribe_names_a_topic_that_is_not_there(broker: Broker, unique: str, tmp_path: Path) -> None:
    arguments = ("subscribe", "--bootstrap", broker.bootstrap, "--topic", unique)
    code, said = interrupted(tmp_path / "stderr", lambda said: f"no topic {unique}" in said, *arguments)
    assert code == 0, said


def test_subscribe_prints_each_windows_latest_revision_once_or_every_record(broker: Broker, unique: str) -> None:
    make_topic(broker, unique)
    published = [prediction(0), prediction(0, 1), prediction(0), prediction(0, 1), prediction(1)]
    publish(broker, unique, published)
    tail = ("subscribe", "--bootstrap", broker.bootstrap, "--topic", unique, "--from-start", "--json")
    once = streamfuse(*tail, "--count", 3)
    assert once.stdout.splitlines() == [prediction_to_json(published[number]) for number in (0, 1, 4)], once.stderr
    every = streamfuse(*tail, "--raw", "--count", 5)
    assert every.stdout.splitlines() == [prediction_to_json(one) for one in published], every.stderr


def test_subscribe_goes_on_where_its_group_stopped(broker: Broker, unique: str) -> None:
    make_topic(broker, unique)
    publish(broker, unique, [prediction(number) for number in range(5)])
    tail = ("subscribe", "--bootstrap", broker.bootstrap, "--topic", unique, "--group", unique, "--from-start", "--json", "--count", 2)
    for expected in ([0, 1], [2, 3]):
        ran = streamfuse(*tail)
        assert [prediction_from_json(line) for line in ran.stdout.splitlines()] == [prediction(n) for n in expected], ran.stderr
    assert committed(broker, unique) == {0: 4}


def test_subscribe_begins_at_a_time(broker: Broker, unique: str) -> None:
    make_topic(broker, unique)
    publish(broker, unique, [prediction(number) for number in range(5)])
    at = format_time(prediction(3).produced_at)
    ran = streamfuse("subscribe", "--bootstrap", broker.bootstrap, "--topic", unique, "--since", at, "--json", "--count", 2)
    assert [prediction_from_json(line) for line in ran.stdout.splitlines()] == [prediction(3), prediction(4)], ran.stderr


def test_subscribe_takes_the_sink_of_a_daemons_config_and_the_environment(broker: Broker, unique: str, tmp_path: Path) -> None:
    make_topic(broker, unique)
    publish(broker, unique, [prediction(0)])
    config = tmp_path / "daemon.yaml"
    config.write_text(f"sinks:\n  - type: jsonl\n  - {{type: kafka, topic: {unique}, bootstrap: 'nowhere:1'}}\n")
    tail = ("subscribe", "--from-start", "--json", "--count", 1)
    for arguments, environ in (
        (("--config", config), {"STREAMFUSE_SINKS__1__BOOTSTRAP": broker.bootstrap}),
        (("--config", config, "--bootstrap", broker.bootstrap), {}),
        ((), {"STREAMFUSE_SINKS__0__BOOTSTRAP": broker.bootstrap, "STREAMFUSE_SINKS__0__TOPIC": unique}),
    ):
        ran = streamfuse(*tail, *arguments, **environ)
        assert [prediction_from_json(line) for line in ran.stdout.splitlines()] == [prediction(0)], ran.stderr


def test_subscribe_commits_when_it_is_terminated(broker: Broker, unique: str) -> None:
    make_topic(broker, unique)
    publish(broker, unique, [prediction(number) for number in range(5)])
    arguments = ("--bootstrap", broker.bootstrap, "--topic", unique, "--group", unique, "--from-start")
    command = [sys.executable, "-m", "streamfuse", "subscribe", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(5):
            next(process.stdout)
        process.terminate()
        assert process.wait(PATIENCE) == 0
    assert committed(broker, unique) == {0: 5}
