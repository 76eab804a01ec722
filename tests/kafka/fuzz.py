"""Mutated records through the whole way in: no crash, a ledger that balances, a dead letter for each refused record.

python -m tests.kafka.fuzz --records 1000000 --seed 7                 in this process, without Kafka
python -m tests.kafka.fuzz --records 20000 --seed 7 --through-kafka   through a broker and a daemon (STREAMFUSE_KAFKA_HOME)
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from confluent_kafka import Producer

from streamfuse.assembly import make_synchronizer
from streamfuse.clock import SystemClock
from streamfuse.codecs import RecordDecoder, WireRecord, encode_packet
from streamfuse.config import Config, KafkaConnection, KafkaDeadLetterSettings
from streamfuse.dead_letters import DeadLetter, letter_from_json, letter_from_record, letter_of, letter_to_json, letter_to_record
from streamfuse.errors import UndecodablePayload
from streamfuse.kafka.clients import Reading, make_consumer
from streamfuse.kafka.letters import LetterTopic
from streamfuse.kafka.transport import Partition
from streamfuse.models.decode import decode
from streamfuse.sync import Synchronizer
from streamfuse.types import MILLISECOND, SECOND, Loss, Outcome, Packet, Position, Record, Stage, Window
from tests.kafka.broker import Broker
from tests.kafka.rooms import NOON, PARTITIONS, STREAMS, Place, records
from tests.kafka.traffic import PATIENCE
from tests.mutation import Mutator
from tests.running import Running

ROOMS = 4
MAX_RECORD_BYTES = 10_000
MODALITIES = {"video": "image", "audio": "audio", "text": "text"}
AT_ONCE = 200  # records that are pushed together


class Verdict(NamedTuple):
    """What came of it: letters by stage and reason, and how many records had which outcome."""

    letters: Counter[tuple[str, str]]
    outcomes: Counter[str]
    windows: int


def mutated(count: int, seed: int, latest: int = 2**63) -> Iterator[tuple[str, WireRecord]]:
    """So many records, most of them mutated, each with its stream."""
    mutate = Mutator(seed, latest=latest)
    return islice(((packet.stream, mutate(encode_packet(packet))) for packet in _valid(seed)), count)


def in_memory(count: int, seed: int, **sync: object) -> Verdict:
    """`sync` are settings of the synchronizer. Raises AssertionError where something is not as it must be."""
    judge = _Judge(_config(sync))
    offsets: Counter[tuple[str, int]] = Counter()
    waiting: list[Record] = []
    for stream, wire in mutated(count, seed):
        partition = hash_of(wire.key) % PARTITIONS
        offset = offsets[stream, partition]
        offsets[stream, partition] += 1
        arrived = wire.timestamp if wire.timestamp >= 0 else NOON  # as a source does it
        waiting.append(Record(stream, partition, offset, wire.key, wire.value, wire.headers, arrived))
        if len(waiting) == AT_ONCE:
            judge.read(waiting)
            waiting = []
    judge.read(waiting)
    return judge.verdict()


def hash_of(key: bytes | None) -> int:
    return sum(key or b"")


class _Judge:
    """Does what the daemon does with records, one stage after the other, and keeps the books beside it."""

    def __init__(self, config: Config) -> None:
        self._decoder = RecordDecoder({stream: stream for stream in STREAMS}, MAX_RECORD_BYTES)
        self._synchronizer: Synchronizer = make_synchronizer(config.sync)
        self._sent: dict[Position, Record] = {}
        self._refused: Counter[Position] = Counter()
        self._letters: Counter[tuple[str, str]] = Counter()
        self._decoded: set[Position] = set()
        self._windows = 0

    def read(self, batch: list[Record]) -> None:
        self._sent.update((record.position, record) for record in batch)
        self._work(self._synchronizer.push_all([self._decoder.decode(record) for record in batch]))
        assert not any(self._synchronizer.unaccounted().values())

    def verdict(self) -> Verdict:
        synchronizer = self._synchronizer
        self._work(synchronizer.finish())
        outcomes: Counter[str] = Counter()
        for account in synchronizer.ledger.accounts.values():
            outcomes.update({outcome.value: number for outcome, number in account.counts().items()})
        assert not any(synchronizer.unaccounted().values())
        assert not any(synchronizer.buffered().values())
        assert sum(outcomes.values()) == len(self._sent)
        assert set(self._refused.values()) <= {1}, "a record has two letters"
        assert len(self._refused) == outcomes[Outcome.UNDECODABLE] + outcomes[Outcome.QUARANTINED]
        return Verdict(self._letters, outcomes, self._windows)

    def _work(self, windows: list[Window]) -> None:
        for loss in self._synchronizer.take_losses():
            self._bury(loss)
        self._windows += len(windows)
        for window in windows:
            for stream, packets in window.packets.items():
                for packet in packets:
                    self._prepare(stream, packet)

    def _prepare(self, stream: str, packet: Packet) -> None:
        if packet.position in self._decoded:
            return
        self._decoded.add(packet.position)
        try:
            decode(packet, MODALITIES[stream], max_pixels=1_000_000)
        except UndecodablePayload as error:
            self._synchronizer.ledger.found_undecodable(stream)
            found = (stream, packet.key, Outcome.UNDECODABLE, str(error), packet.position, packet.event_time, packet)
            self._bury(Loss(*found, packet.original, Stage.PREPARE))

    def _bury(self, loss: Loss) -> None:
        """The letter of a loss, on its way through a topic and through a file, must be the record as it was sent."""
        letter = letter_of(loss, 1_800_000_000 * SECOND)
        if letter is None:
            assert loss.reason in (Outcome.LATE, Outcome.DUPLICATE), loss
            return
        wire = letter_to_record(letter)
        letters = (letter, letter_from_record(Record("dead", 0, 0, *wire)), letter_from_json(letter_to_json(letter)))
        for one in letters:
            assert_same(one, self._sent[letter.record.position])
        assert letters[1] == letters[2] == letter_from_record(Record("dead", 0, 0, *letter_to_record(letters[1])))
        self._refused[letter.record.position] += 1
        self._letters[letter.stage, letter.reason] += 1


def assert_same(letter: DeadLetter, sent: Record) -> None:
    """All of it as it was sent, and the time to the millisecond, as Kafka keeps it."""
    assert letter.record._replace(timestamp=0) == sent._replace(timestamp=0)
    assert letter.record.timestamp // MILLISECOND == sent.timestamp // MILLISECOND
    assert letter.error


def _valid(seed: int) -> Iterator[Packet]:
    """Rooms without an end, others every 30 s: a record from the future makes all that follow in its room late."""
    begin = 0
    while True:
        rooms = [f"room-{begin}-{number}" for number in range(ROOMS)]
        yield from records(seed + begin, rooms, begin, 30, late=0.02, twice=0.02)
        begin += 30


def _config(sync: Mapping[str, object]) -> Config:
    source = {"type": "topics", "topics": {stream: stream for stream in STREAMS}}
    streams = {stream: {"max_out_of_orderness": "300ms"} for stream in STREAMS}
    return Config.model_validate({"sources": [source], "sync": {"streams": streams, "allowed_lateness": "500ms", **sync}})


def through_kafka(broker: Broker, name: str, folder: Path, count: int, seed: int) -> Verdict:
    """The same through a broker and a daemon, whose metrics and dead letters are looked at instead."""
    place = Place.make(broker, name)
    broker.create_topic(f"{name}.dead")
    config = place.config()
    kafka = {"type": "kafka", "bootstrap": broker.bootstrap}
    config["sources"][0]["max_record_bytes"] = MAX_RECORD_BYTES
    config["dead_letters"] = {**kafka, "topic": f"{name}.dead", "max_share": 1}
    config["sync"]["streams"] = {stream: {"max_out_of_orderness": "300ms", "idle_timeout": "2s"} for stream in STREAMS}
    config["sync"]["max_hold"] = "500ms"
    sent = _publish(place, count, seed)
    with Running(folder, config) as daemon:
        daemon.notified("READY=1")
        read = 0.0
        while read < count:  # however many there are, and however slow the machine: as long as it gets on
            daemon.until(partial(_more, daemon, read))
            read = daemon.total("streamfuse_packets_received_total")
        daemon.until(lambda: _settled(daemon))
        outcomes = Counter({outcome.value: round(daemon.total("streamfuse_packets_total", outcome=outcome.value)) for outcome in Outcome})
        assert daemon.total("streamfuse_ledger_unaccounted") == 0, daemon.said
        windows = round(daemon.total("streamfuse_windows_total"))
        assert daemon.terminate()[0] == 0, daemon.said
    letters: dict[Position, DeadLetter] = {}
    with LetterTopic(KafkaDeadLetterSettings.model_validate(config["dead_letters"])) as topic:
        for _, letter in topic.letters():
            assert isinstance(letter, DeadLetter), letter
            assert letter.record.position not in letters, "a record has two letters"
            assert_same(letter, sent[letter.record.position])
            letters[letter.record.position] = letter
    decoder = RecordDecoder(place.topics, MAX_RECORD_BYTES)
    assert {position for position, record in sent.items() if isinstance(decoder.decode(record), Loss)} <= letters.keys()
    assert len(letters) >= outcomes[Outcome.UNDECODABLE] + outcomes[Outcome.QUARANTINED]  # what was drained at the stop comes on top
    return Verdict(Counter((letter.stage, letter.reason) for letter in letters.values()), outcomes, windows)


def _publish(place: Place, count: int, seed: int) -> dict[Position, Record]:
    """Returns what then stands in the topics. Published by another client than ours: kafka-python can't write all of it."""
    failures: list[str] = []
    producer = Producer({"bootstrap.servers": place.broker.bootstrap, "acks": "all"})
    for stream, wire in mutated(count, seed, latest=SystemClock().now()):
        producer.produce(
            place.topics[stream],
            wire.value,
            wire.key,
            headers=list(wire.headers),
            timestamp=max(wire.timestamp // MILLISECOND, 1),  # it takes 0 for none
            on_delivery=lambda error, _: None if error is None else failures.append(str(error)),
        )
        producer.poll(0)
    assert producer.flush(PATIENCE) == 0
    assert not failures
    sent: dict[Position, Record] = {}
    consumer = make_consumer(KafkaConnection(bootstrap=place.broker.bootstrap), Reading())
    partitions = [Partition(topic, number) for topic in place.topics.values() for number in range(PARTITIONS)]
    consumer.assign(dict.fromkeys(partitions, 0))
    while len(sent) < count:
        sent.update((record.position, record) for batch in consumer.poll(1).records.values() for record in batch)
    consumer.close()
    return sent


def _more(daemon: Running, than: float) -> bool:
    return daemon.total("streamfuse_packets_received_total") > than


def _settled(daemon: Running) -> bool:
    """Whether each record that was refused so far has its letter."""
    refused = sum(daemon.total("streamfuse_packets_total", outcome=outcome) for outcome in (Outcome.UNDECODABLE, Outcome.QUARANTINED))
    return daemon.total("streamfuse_dead_letters_total") == refused


def main() -> int:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m tests.kafka.fuzz", description=__doc__, formatter_class=raw)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--through-kafka", action="store_true", help="publish them to a broker and let a daemon read them")
    options = parser.parse_args()
    print(f"{options.records} records from seed {options.seed}", flush=True)
    began = time.monotonic()
    if options.through_kafka:
        with tempfile.TemporaryDirectory() as folder, Broker(Path(os.environ["STREAMFUSE_KAFKA_HOME"]), Path(folder)) as broker:
            verdict = through_kafka(broker, "fuzz", Path(folder) / "daemon", options.records, options.seed)
    else:
        verdict = in_memory(options.records, options.seed)
    print(f"{time.monotonic() - began:.0f} s, {verdict.windows} windows; all records accounted for, each refused one has its letter:")
    for outcome, number in sorted(verdict.outcomes.items()):
        print(f"  {outcome:<12} {number:>9,}")
    for (stage, reason), number in sorted(verdict.letters.items()):
        print(f"  dead letters {number:>9,}  {stage} {reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
