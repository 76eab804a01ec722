"""What every Kafka client of ours does, on a real broker. A client passes if a subclass of each of these suites does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import MemberToRemove
from kafka.structs import OffsetAndMetadata

from streamfuse.codecs import WireRecord
from streamfuse.config import KafkaConnection
from streamfuse.kafka.clients import Reading, make_consumer, make_producer, make_transactional_producer
from streamfuse.kafka.transport import (
    Committed,
    Consumer,
    Outdated,
    Outgoing,
    Partition,
    Passing,
    Polled,
    Producer,
    Rebalance,
    Refused,
    TooLarge,
    TransactionalProducer,
    TransportError,
)
from streamfuse.types import MILLISECOND, SECOND, Record
from tests.kafka.broker import Broker
from tests.kafka.traffic import PATIENCE

Transport = Literal["kafka-python", "confluent"]
NOON = 1_777_636_800 * SECOND
SOON = 20 * SECOND


@dataclass
class Place:
    """A broker, and a name for topics and groups that nobody else has. Closes what it has opened."""

    broker: Broker
    name: str
    transport: Transport
    opened: ExitStack = field(default_factory=ExitStack)

    @property
    def other(self) -> Place:
        """The same with the other client."""
        return Place(self.broker, self.name, "confluent" if self.transport == "kafka-python" else "kafka-python", self.opened)

    @property
    def settings(self) -> KafkaConnection:
        return KafkaConnection(bootstrap=self.broker.bootstrap, transport=self.transport)

    def topic(self, partitions: int = 1, name: str = "", **configs: str) -> list[Partition]:
        topic = f"{self.name}{name}"
        self.broker.create_topic(topic, partitions, {"retention.ms": "-1", **configs})
        return [Partition(topic, number) for number in range(partitions)]

    def consumer(self, **reading: Any) -> Consumer:
        consumer = make_consumer(self.settings, Reading(**{"group": self.name, "start": "earliest", **reading}))
        self.opened.callback(consumer.close)
        return consumer

    def producer(self, max_record_bytes: int = 1024 * 1024) -> Producer:
        producer = make_producer(self.settings, max_record_bytes)
        self.opened.callback(producer.close, 1.0)
        return producer

    def transactions(self, name: str = "", timeout: int = 30 * SECOND) -> TransactionalProducer:
        producer = make_transactional_producer(self.settings, f"{self.name}{name}", timeout)
        self.opened.callback(producer.close, 1.0)
        within(producer.open)
        return producer

    def write(self, partition: Partition, values: Iterable[str | bytes | None], **more: Any) -> None:
        """With a client of the tests' own; returns when all is acknowledged."""
        producer = KafkaProducer(bootstrap_servers=self.broker.bootstrap, acks="all", metrics_enabled=False)
        try:
            for value in values:
                data = value.encode() if isinstance(value, str) else value
                producer.send(partition.topic, data, **{"key": b"key", "partition": partition.number, **more})
            producer.flush(PATIENCE)
        finally:
            producer.close()

    def read(self, partitions: Sequence[Partition], committed: bool = True) -> list[Any]:
        """All that is there, by a client of the tests' own."""
        consumer = KafkaConsumer(
            bootstrap_servers=self.broker.bootstrap,
            auto_offset_reset="earliest",
            isolation_level="read_committed" if committed else "read_uncommitted",
            metrics_enabled=False,
        )
        try:
            wanted = [TopicPartition(*partition) for partition in partitions]
            consumer.assign(wanted)
            ends = consumer.end_offsets(wanted)
            found: list[Any] = []
            while any(consumer.position(one) < end for one, end in ends.items()):
                for records in consumer.poll(500).values():
                    found += records
            return found
        finally:
            consumer.close()

    @contextmanager
    def open_transaction(self, partition: Partition, values: Iterable[str], name: str = "-other") -> Iterator[KafkaProducer]:
        """Written, and neither committed nor aborted until the caller does so; or, at the end of the block, by the broker's time-out."""
        producer = KafkaProducer(
            bootstrap_servers=self.broker.bootstrap,
            transactional_id=f"{self.name}{name}",
            transaction_timeout_ms=60_000,
            metrics_enabled=False,
        )
        try:
            producer.init_transactions()
            producer.begin_transaction()
            for value in values:
                producer.send(partition.topic, value.encode(), partition=partition.number).get(PATIENCE)
            yield producer
        finally:
            producer.close(1)

    def put_out(self) -> None:
        """Put all members out of the group, as the broker does to those that were silent."""
        with self.broker.admin() as admin:
            members = admin.describe_groups([self.name])[self.name]["members"]
            admin.remove_group_members(self.name, [MemberToRemove(member_id=member["member_id"]) for member in members])


class Log:
    """Polls a consumer and keeps what came."""

    def __init__(self, consumer: Consumer) -> None:
        self.consumer = consumer
        self.records: dict[Partition, list[Record]] = {}
        self.rebalances: list[Rebalance] = []

    def poll(self, timeout: float = 0.2) -> Polled:
        polled = self.consumer.poll(timeout)
        self.rebalances += polled.rebalances
        for partition, records in polled.records.items():
            self.records.setdefault(partition, []).extend(records)
        return polled

    def until(self, enough: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not enough():
            assert time.monotonic() < deadline, f"found {self.values()} and {self.rebalances}"
            with suppress(Passing):
                self.poll()

    def until_values(self, count: int) -> list[str]:
        self.until(lambda: len(self.values()) >= count)
        return self.values()

    def until_assigned(self, count: int) -> frozenset[Partition]:
        self.until(lambda: bool(self.rebalances) and len(self.rebalances[-1].assigned) == count)
        return self.rebalances[-1].assigned

    def until_caught_up(self, partitions: Sequence[Partition]) -> None:
        self.until(lambda: not self.consumer.lagging(partitions))

    def values(self) -> list[str]:
        return [(record.value or b"").decode() for records in self.records.values() for record in records]


def within(call: Callable[[], Any]) -> Any:
    """Its result, tried again while it is said to pass."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return call()
        except Passing:
            assert time.monotonic() < deadline


def both(one: Log, other: Log, enough: Callable[[], bool]) -> None:
    """Poll both until then: neither gets anywhere in a rebalance without the other."""
    deadline = time.monotonic() + PATIENCE
    failures: list[BaseException] = []

    def poll(log: Log) -> None:
        try:
            while not enough() and not failures and time.monotonic() < deadline:
                log.poll()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=poll, args=(log,)) for log in (one, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures
    assert enough(), f"found {one.rebalances} and {other.rebalances}"


def wire(value: str | bytes, key: bytes | None = b"key", headers: Any = (), timestamp: int = NOON) -> WireRecord:
    return WireRecord(key, value.encode() if isinstance(value, str) else value, headers, timestamp)


@pytest.mark.usefixtures("closed_sockets")
class Contract:
    transport: Transport

    @pytest.fixture
    def place(self, broker: Broker, unique: str) -> Iterator[Place]:
        place = Place(broker, unique, self.transport)
        with place.opened:
            yield place


class ConsumerContract(Contract):
    def test_records_come_in_order_and_whole(self, place: Place) -> None:
        (partition,) = place.topic()
        headers = [("a", b"1"), ("b", b""), ("a", b"\xff")]
        place.write(partition, ["first", "", None], key=b"\x00k", headers=headers, timestamp_ms=NOON // MILLISECOND + 1)
        log = Log(place.consumer())
        log.consumer.subscribe([partition.topic])
        log.until_values(3)
        assert log.records[partition] == [
            Record(partition.topic, 0, offset, b"\x00k", value, tuple(headers), NOON + MILLISECOND)
            for offset, value in enumerate([b"first", b"", None])
        ]

    def test_a_header_without_value_and_a_record_without_key_come_as_they_are(self, place: Place) -> None:
        confluent_kafka = pytest.importorskip("confluent_kafka", reason="needs confluent-kafka: pip install 'streamfuse[fast]'")
        (partition,) = place.topic()
        producer = confluent_kafka.Producer({"bootstrap.servers": place.broker.bootstrap})  # kafka-python can't write them
        producer.produce(partition.topic, b"value", headers=[("null", None), ("empty", b"")])
        producer.produce(partition.topic)
        assert producer.flush(PATIENCE) == 0
        log = Log(place.consumer())
        log.consumer.subscribe([partition.topic])
        log.until_values(2)
        one, other = log.records[partition]
        assert (one.key, one.headers) == (None, (("null", None), ("empty", b"")))
        assert (other.key, other.value, other.headers) == (None, None, ())

    def test_a_header_name_that_is_not_utf_8_keeps_back_no_record(self, place: Place) -> None:
        (partition,) = place.topic()
        good, bad = [("a", b"1")], [("a", b"1"), (NotUtf8("b"), b"2")]
        for _ in range(10):
            place.write(partition, ["good"] * 100, headers=good)
            place.write(partition, ["bad"], headers=bad)
        log = Log(place.consumer())
        log.consumer.subscribe([partition.topic])
        assert log.until_values(1010) == (["good"] * 100 + ["bad"]) * 10
        for record in log.records[partition]:
            assert record.headers == tuple(good) if record.value == b"good" else record.headers

    def test_a_rebalance_ends_a_poll_and_brings_no_record(self, place: Place) -> None:
        partitions = place.topic(2)
        place.write(partitions[0], ["there"])
        log = Log(place.consumer())
        log.consumer.subscribe([partitions[0].topic])
        began = time.monotonic()
        polled = log.poll(PATIENCE)
        while not polled.rebalances:
            polled = log.poll(PATIENCE)
        assert time.monotonic() - began < PATIENCE / 2
        assert [(one.assigned, one.unbroken) for one in polled.rebalances] == [(frozenset(partitions), False)]
        assert polled.records == {}
        assert log.until_values(1) == ["there"]

    def test_without_a_commit_it_begins_where_it_is_told(self, place: Place) -> None:
        (partition,) = place.topic()
        place.write(partition, ["old"])
        log = Log(place.consumer(start="latest"))
        log.consumer.subscribe([partition.topic])
        log.until_caught_up([partition])
        place.write(partition, ["new"])
        assert log.until_values(1) == ["new"]

    def test_a_commit_decides_where_the_next_member_begins(self, place: Place) -> None:
        (partition,) = place.topic()
        place.write(partition, "01234")
        log = Log(place.consumer())
        log.consumer.subscribe([partition.topic])
        log.until_values(5)
        log.consumer.commit({partition: Committed(3, "")})
        log.consumer.close()
        again = Log(place.consumer())
        again.consumer.subscribe([partition.topic])
        assert again.until_values(2) == ["3", "4"]

    def test_a_seek_after_the_rebalance_decides_where_it_begins(self, place: Place) -> None:
        partitions = place.topic(2)
        for partition in partitions:
            place.write(partition, "01234")
        log = Log(place.consumer())
        log.consumer.subscribe([partitions[0].topic])
        log.until_assigned(2)
        log.consumer.seek(partitions[1], 3)
        log.until_values(7)
        assert [record.offset for record in log.records[partitions[0]]] == [0, 1, 2, 3, 4]
        assert [record.offset for record in log.records[partitions[1]]] == [3, 4]

    def test_a_seek_goes_back_without_a_gap_elsewhere(self, place: Place) -> None:
        partitions = place.topic(2)
        for partition in partitions:
            place.write(partition, "01234")
        log = Log(place.consumer())
        log.consumer.subscribe([partitions[0].topic])
        log.until_values(10)
        log.consumer.seek(partitions[0], 2)
        place.write(partitions[1], "5")
        log.until_values(14)
        assert [record.offset for record in log.records[partitions[0]]] == [0, 1, 2, 3, 4, 2, 3, 4]
        assert [record.offset for record in log.records[partitions[1]]] == [0, 1, 2, 3, 4, 5]

    def test_a_reader_outside_any_group_reads_what_it_names(self, place: Place) -> None:
        partitions = place.topic(3)
        for partition in partitions:
            place.write(partition, "01234")
        log = Log(place.consumer(group=None))
        log.consumer.assign({partitions[0]: 1, partitions[2]: 4})
        log.until_values(5)
        log.consumer.assign({partitions[0]: 5, partitions[1]: 3, partitions[2]: 5})
        log.until_values(7)
        assert {partition.number: [record.offset for record in records] for partition, records in log.records.items()} == {
            0: [1, 2, 3, 4],
            1: [3, 4],
            2: [4],
        }

    def test_a_paused_partition_brings_nothing_and_loses_nothing(self, place: Place) -> None:
        partitions = place.topic(2)
        log = Log(place.consumer())
        log.consumer.subscribe([partitions[0].topic])
        log.until_assigned(2)
        log.consumer.pause([partitions[0]])
        for partition in partitions:
            place.write(partition, [str(n) for n in range(2000)])
        log.until_values(2000)
        assert log.records.keys() == {partitions[1]}
        log.consumer.resume([partitions[0]])
        log.until_values(2500)
        log.consumer.pause([partitions[0]])  # in the midst of what was fetched
        before = len(log.values())
        for _ in range(5):
            log.poll()
        assert len(log.values()) == before
        log.consumer.resume(partitions)
        log.until_values(4000)
        for partition in partitions:
            assert [record.offset for record in log.records[partition]] == list(range(2000))

    def test_what_was_committed_comes_back_with_its_metadata(self, place: Place) -> None:
        partitions = place.topic(3)
        consumer = place.consumer()
        log = Log(consumer)
        consumer.subscribe([partitions[0].topic])
        log.until_assigned(3)
        assert within(lambda: consumer.committed(partitions)) == {}
        given = {partitions[0]: Committed(7, "x" * 4095), partitions[1]: Committed(8, "ü"), partitions[2]: Committed(0, "")}
        within(lambda: consumer.commit(given))
        assert within(lambda: consumer.committed(partitions)) == given
        assert place.consumer().committed([partitions[0]]) == {partitions[0]: given[partitions[0]]}

    def test_metadata_is_the_same_for_the_other_client(self, place: Place) -> None:
        pytest.importorskip("confluent_kafka", reason="needs confluent-kafka: pip install 'streamfuse[fast]'")
        (partition,) = place.topic()
        readers = [place.consumer(), place.other.consumer()]
        for log in (Log(place.consumer()), Log(place.other.consumer())):
            log.consumer.subscribe([partition.topic])
            log.until_assigned(1)
            for size in (0, 1, 2, 3, 7, 8, 15, 16, 17, 24, 100, 1000, 4095):
                given = {partition: Committed(size, "m" * size)}
                within(lambda given=given, log=log: log.consumer.commit(given))  # type: ignore[misc]
                for reader in readers:
                    assert within(lambda reader=reader: reader.committed([partition])) == given  # type: ignore[misc]
            log.consumer.close()

    def test_of_metadata_of_other_tools_the_offset_is_certain(self, place: Place) -> None:
        (partition,) = place.topic()
        theirs = KafkaConsumer(bootstrap_servers=place.broker.bootstrap, group_id=place.name, metrics_enabled=False)
        theirs.assign([TopicPartition(*partition)])
        for size in (1, 2, 3, 16, 24, 1000):
            theirs.commit({TopicPartition(*partition): OffsetAndMetadata(size, "m" * size, -1)})
            (found,) = place.consumer().committed([partition]).values()
            assert found.offset == size
        theirs.close()

    def test_metadata_that_is_too_long_is_refused(self, place: Place) -> None:
        (partition,) = place.topic()
        log = Log(place.consumer())
        log.consumer.subscribe([partition.topic])
        log.until_assigned(1)
        with pytest.raises(Refused):
            within(lambda: log.consumer.commit({partition: Committed(0, "x" * 4096)}))

    def test_the_same_partition_of_all_topics_goes_to_one_member(self, place: Place) -> None:
        topics = [place.topic(4, name) for name in ("-a", "-b")]
        one, other = Log(place.consumer()), Log(place.consumer())
        for log in (one, other):
            log.consumer.subscribe([partitions[0].topic for partitions in topics])
        both(one, other, lambda: all(log.rebalances and len(log.rebalances[-1].assigned) == 4 for log in (one, other)))
        shares = [log.rebalances[-1].assigned for log in (one, other)]
        assert shares[0] | shares[1] == {partition for partitions in topics for partition in partitions}
        for share in shares:
            assert {partition.number for partition in share if partition in topics[0]} == {p.number for p in share if p in topics[1]}

    def test_what_a_member_keeps_unbroken_goes_on_where_it_was(self, place: Place) -> None:
        partitions = place.topic(2)
        for partition in partitions:
            place.write(partition, "01234")
        one = Log(place.consumer())
        one.consumer.subscribe([partitions[0].topic])
        one.until_values(10)
        other = Log(place.consumer())
        other.consumer.subscribe([partitions[0].topic])
        both(one, other, lambda: bool(other.rebalances) and len(one.rebalances[-1].assigned) == 1)
        (kept,) = one.rebalances[-1].assigned
        place.write(kept, "567")
        both(one, other, lambda: len(one.records[kept]) >= 8)
        assert one.rebalances[-1].unbroken
        assert [record.offset for record in one.records[kept]] == list(range(8))

    def test_a_member_that_leaves_gives_its_partitions_away_at_once(self, place: Place) -> None:
        partitions = place.topic(2)
        one, other = Log(place.consumer(session_timeout=60 * SECOND)), Log(place.consumer(session_timeout=60 * SECOND))
        for log in (one, other):
            log.consumer.subscribe([partitions[0].topic])
        both(one, other, lambda: all(log.rebalances and len(log.rebalances[-1].assigned) == 1 for log in (one, other)))
        one.consumer.close()
        began = time.monotonic()
        other.until_assigned(2)
        assert time.monotonic() - began < 30

    def test_who_was_put_out_of_the_group_commits_nothing_and_comes_back(self, place: Place) -> None:
        (partition,) = place.topic()
        log = Log(place.consumer())
        log.consumer.subscribe([partition.topic])
        log.until_assigned(1)
        within(lambda: log.consumer.commit({partition: Committed(1, "")}))
        place.put_out()
        with pytest.raises(Outdated):
            log.consumer.commit({partition: Committed(2, "")})
        before = len(log.rebalances)
        log.until(lambda: len(log.rebalances) > before and log.rebalances[-1].assigned == {partition})
        assert not log.rebalances[-1].unbroken
        assert within(lambda: log.consumer.committed([partition])) == {partition: Committed(1, "")}

    # --- a member that keeps its name ---

    def test_a_static_member_comes_back_without_a_rebalance(self, place: Place) -> None:
        partitions = place.topic(2)
        one, other = Log(place.consumer(instance="one")), Log(place.consumer(instance="other"))
        for log in (one, other):
            log.consumer.subscribe([partitions[0].topic])
        both(one, other, lambda: all(log.rebalances and len(log.rebalances[-1].assigned) == 1 for log in (one, other)))
        before, share = len(other.rebalances), one.rebalances[-1].assigned
        one.consumer.close()
        for _ in range(10):
            other.poll()
        back = Log(place.consumer(instance="one"))
        back.consumer.subscribe([partitions[0].topic])
        both(back, other, lambda: bool(back.rebalances))
        assert back.rebalances[-1].assigned == share
        assert len(other.rebalances) == before

    def test_a_second_member_of_the_same_name_puts_out_the_first(self, place: Place) -> None:
        (partition,) = place.topic()
        one = Log(place.consumer(instance="one"))
        one.consumer.subscribe([partition.topic])
        one.until_assigned(1)
        other = Log(place.consumer(instance="one"))
        other.consumer.subscribe([partition.topic])
        other.until_assigned(1)

        def go_on() -> None:
            for _ in range(100):
                other.poll()
                with suppress(Passing):
                    one.poll()
                    one.consumer.commit({partition: Committed(0, "")})

        with pytest.raises(Refused, match=r"goes by the same instance.*give each replica an instance of its own"):
            go_on()

    # --- whether it is behind ---

    def test_it_is_behind_until_it_has_read_to_the_end(self, place: Place) -> None:
        (partition,) = place.topic()
        place.write(partition, ["x" * 50_000] * 200)  # more than a fetch may bring
        log = Log(place.consumer())
        log.consumer.subscribe([partition.topic])
        while not log.values():
            assert log.consumer.lagging([partition]) == {partition}
            log.poll()
        assert log.consumer.lagging([partition]) == {partition}
        log.until_values(200)
        log.until_caught_up([partition])

    def test_an_empty_partition_is_read_to_its_end(self, place: Place) -> None:
        partitions = place.topic(2)
        log = Log(place.consumer())
        log.consumer.subscribe([partitions[0].topic])
        log.until_caught_up(partitions)

    def test_a_paused_partition_may_have_more(self, place: Place) -> None:
        partitions = place.topic(2)
        log = Log(place.consumer())
        log.consumer.subscribe([partitions[0].topic])
        log.until_caught_up(partitions)
        log.consumer.pause([partitions[0]])
        log.until(lambda: log.consumer.lagging(partitions) == {partitions[0]})
        log.consumer.resume([partitions[0]])
        log.until_caught_up(partitions)

    def test_the_marks_of_transactions_are_no_lag(self, place: Place) -> None:
        (partition,) = place.topic()
        for ending in (KafkaProducer.commit_transaction, KafkaProducer.abort_transaction):
            with place.open_transaction(partition, ["0", "1"]) as producer:
                ending(producer)
        log = Log(place.consumer())
        log.consumer.subscribe([partition.topic])
        log.until_caught_up([partition])
        assert log.values() == ["0", "1"]

    def test_an_open_transaction_is_no_lag_for_who_reads_what_is_committed(self, place: Place) -> None:
        (partition,) = place.topic()
        place.write(partition, ["before"])
        with place.open_transaction(partition, ["open"]) as producer:
            log = Log(place.consumer())
            log.consumer.subscribe([partition.topic])
            log.until_caught_up([partition])
            assert log.values() == ["before"]
            assert log.consumer.ends([partition]) == {partition: 1}
            producer.commit_transaction()
            assert log.until_values(2) == ["before", "open"]
            log.until_caught_up([partition])
            assert log.consumer.ends([partition]) == {partition: 3}

    def test_while_its_broker_is_silent_a_partition_may_have_more(self, place: Place) -> None:
        (partition,) = place.topic()
        log = Log(place.consumer())
        log.consumer.subscribe([partition.topic])
        log.until_caught_up([partition])
        with place.broker.stopped():
            log.until(lambda: log.consumer.lagging([partition]) == {partition})
        log.until_caught_up([partition])

    # --- what it may read ---

    def test_what_was_aborted_is_read_only_by_who_reads_everything(self, place: Place) -> None:
        (partition,) = place.topic()
        with place.open_transaction(partition, ["aborted"]) as producer:
            producer.abort_transaction()
        place.write(partition, ["after"])
        for committed, expected in ((True, ["after"]), (False, ["aborted", "after"])):
            log = Log(place.consumer(group=None, read_committed=committed))
            log.consumer.assign({partition: 0})
            assert log.until_values(len(expected)) == expected

    def test_a_commit_in_an_open_transaction_is_waited_out(self, place: Place) -> None:
        (partition,) = place.topic()
        log = Log(place.consumer())
        log.consumer.subscribe([partition.topic])
        log.until_assigned(1)
        within(lambda: log.consumer.commit({partition: Committed(0, "")}))
        with place.open_transaction(partition, ["0"]) as producer:
            producer.send_offsets_to_transaction({TopicPartition(*partition): OffsetAndMetadata(1, "m\0", -1)}, place.name)
            with pytest.raises(Passing):
                log.consumer.committed([partition])
            producer.commit_transaction()
            assert within(lambda: log.consumer.committed([partition])) == {partition: Committed(1, "m")}

    # --- what it tells ---

    def test_the_oldest_and_the_next_offsets(self, place: Place) -> None:
        partitions = place.topic(2)
        place.write(partitions[0], "01234")
        with place.broker.admin() as admin:
            admin.delete_records({TopicPartition(*partitions[0]): 2})
        consumer = place.consumer()
        assert consumer.begins(partitions) == {partitions[0]: 2, partitions[1]: 0}
        assert consumer.ends(partitions) == {partitions[0]: 5, partitions[1]: 0}
        assert consumer.begins([]) == consumer.ends([]) == {}

    def test_the_first_offset_since_an_instant(self, place: Place) -> None:
        partitions = place.topic(2)
        for second in range(3):
            place.write(partitions[0], [str(second)], timestamp_ms=(NOON + second * SECOND) // MILLISECOND)
        consumer = place.consumer()
        assert consumer.since(partitions, NOON + SECOND) == {partitions[0]: 1, partitions[1]: 0}
        assert consumer.since(partitions, NOON + SECOND + 1) == {partitions[0]: 2, partitions[1]: 0}
        assert consumer.since(partitions, NOON + SOON) == {partitions[0]: 3, partitions[1]: 0}
        assert consumer.since(partitions[:1], -1) == {partitions[0]: 0}
        assert consumer.since([], 0) == {}

    def test_the_numbers_of_partitions(self, place: Place) -> None:
        partitions = place.topic(3)
        consumer = place.consumer()
        assert consumer.counts([partitions[0].topic, f"{place.name}-none"]) == {partitions[0].topic: 3, f"{place.name}-none": 0}
        place.topic(1, "-none")
        assert consumer.counts([f"{place.name}-none"]) == {f"{place.name}-none": 1}

    def test_calls_end_while_the_broker_stands_still(self, place: Place) -> None:
        (partition,) = place.topic()
        log = Log(place.consumer())
        log.consumer.subscribe([partition.topic])
        log.until_assigned(1)
        consumer = log.consumer
        calls: Mapping[str, Callable[[], object]] = {
            "commit": lambda: consumer.commit({partition: Committed(0, "")}),
            "committed": lambda: consumer.committed([partition]),
            "ends": lambda: consumer.ends([partition]),
            "poll": lambda: consumer.poll(0.5),
        }
        took = {}
        with place.broker.stopped():
            for name, call in calls.items():
                began = time.monotonic()
                with suppress(Passing):
                    call()
                took[name] = time.monotonic() - began
        assert max(took.values()) < 8, took


class ProducerContract(Contract):
    def test_who_sends_is_told_when_it_is_durable(self, place: Place) -> None:
        (partition,) = place.topic()
        told = Told()
        producer = place.producer()
        for n in range(500):
            producer.send(partition.topic, wire(str(n), headers=(("h", b"\x00"),)), told)
        assert told.all(500) == [None] * 500
        found = place.read([partition])
        assert [record.value.decode() for record in found] == [str(n) for n in range(500)]
        assert {(record.key, tuple(record.headers), record.timestamp) for record in found} == {
            (b"key", (("h", b"\x00"),), NOON // MILLISECOND)
        }

    def test_the_key_decides_the_partition_as_with_any_client(self, place: Place) -> None:
        """Murmur2; checked against kafka-python's own producer."""
        partitions = place.topic(16)
        told = Told()
        producer, theirs = place.producer(), KafkaProducer(bootstrap_servers=place.broker.bootstrap, metrics_enabled=False)
        keys = [f"room-{n}".encode() for n in range(100)] + [b"\xff\xfe", "grüß".encode(), b"x"]
        for key in keys:
            producer.send(partitions[0].topic, wire("ours", key), told)
            theirs.send(partitions[0].topic, b"theirs", key)
        told.all(len(keys))
        theirs.close()
        homes: dict[bytes, set[int]] = {}
        found = place.read(partitions)
        for record in found:
            homes.setdefault(record.key, set()).add(record.partition)
        assert len(found) == 2 * len(keys)
        assert {len(home) for home in homes.values()} == {1}

    def test_a_partition_may_be_named(self, place: Place) -> None:
        partitions = place.topic(4)
        told = Told()
        place.producer().send(partitions[0].topic, wire("there"), told, 3)
        assert told.all(1) == [None]
        assert [record.partition for record in place.read(partitions)] == [3]

    def test_a_record_that_is_too_large_is_refused(self, place: Place) -> None:
        (partition,) = place.topic()
        with pytest.raises(TooLarge, match=r"raise max\.message\.bytes"):
            place.producer(100_000).send(partition.topic, wire(b"x" * 200_000), Told())

    def test_a_record_that_is_too_large_for_the_topic_is_refused_by_the_broker(self, place: Place) -> None:
        (partition,) = place.topic(1, "", **{"max.message.bytes": "1000"})
        told = Told()
        producer = place.producer()
        producer.send(partition.topic, wire(b"x" * 2000), told)
        (error,) = told.all(1)
        assert isinstance(error, TooLarge)
        producer.send(partition.topic, wire("small"), told)
        assert told.all(2)[1] is None

    def test_a_topic_that_is_not_there_is_refused_with_the_fix(self, place: Place) -> None:
        with pytest.raises(Refused, match=f"there is no topic {place.name}; create it with kafka-topics.sh --create"):
            place.producer().send(place.name, wire("lost"), Told())

    def test_the_number_of_partitions(self, place: Place) -> None:
        partitions = place.topic(3)
        producer = place.producer()
        assert (producer.count(partitions[0].topic), producer.count(f"{place.name}-none")) == (3, 0)

    def test_what_a_silent_broker_has_not_acknowledged_comes_once_it_speaks(self, place: Place) -> None:
        (partition,) = place.topic()
        told = Told()
        producer = place.producer()
        producer.send(partition.topic, wire("0"), told)
        told.all(1)
        with place.broker.stopped():
            producer.send(partition.topic, wire("1"), told)
            with pytest.raises(AssertionError):
                told.all(2, 1.0)
        assert told.all(2) == [None, None]
        assert [record.value for record in place.read([partition])] == [b"0", b"1"]


class TransactionContract(Contract):
    def test_records_and_offsets_come_together(self, place: Place) -> None:
        partitions = place.topic(2)
        member = Member(place, partitions)
        records = [Outgoing(partitions[0].topic, wire(str(n)), n % 2) for n in range(10)]
        for n in range(3):
            offsets = {partitions[0]: Committed(n, f"m{n}"), partitions[1]: Committed(5, "")}
            member.transactions.transact(records, offsets, place.name, member.membership)
        assert len(place.read(partitions)) == 30
        assert within(lambda: member.log.consumer.committed(partitions)) == offsets
        assert within(lambda: place.other.consumer().committed(partitions)) == offsets

    def test_records_alone_and_offsets_alone_are_transactions_too(self, place: Place) -> None:
        (partition,) = place.topic()
        member = Member(place, [partition])
        member.transactions.transact([Outgoing(partition.topic, wire("alone"))], {}, place.name, member.membership)
        member.transactions.transact([], {partition: Committed(1, "")}, place.name, member.membership)
        assert [record.value for record in place.read([partition])] == [b"alone"]
        assert within(lambda: member.log.consumer.committed([partition])) == {partition: Committed(1, "")}

    def test_of_a_refused_transaction_nothing_is_seen_and_the_next_goes_on(self, place: Place) -> None:
        (partition,) = place.topic()
        (narrow,) = place.topic(1, "-narrow", **{"max.message.bytes": "1000"})
        member = Member(place, [partition])
        good = Outgoing(partition.topic, wire("good"))
        for bad in (Outgoing(narrow.topic, wire(b"x" * 2000)), Outgoing(f"{place.name}-none", wire("lost"))):
            with pytest.raises(Refused):
                member.transactions.transact([good, bad], {partition: Committed(9, "")}, place.name, member.membership)
        assert place.read([partition]) == []
        assert within(lambda: member.log.consumer.committed([partition])) == {}
        member.transactions.transact([good], {partition: Committed(1, "")}, place.name, member.membership)
        assert [record.value for record in place.read([partition])] == [b"good"]
        assert within(lambda: member.log.consumer.committed([partition])) == {partition: Committed(1, "")}

    def test_a_member_of_before_is_found_out_and_nothing_is_done(self, place: Place) -> None:
        partitions = place.topic(2)
        member = Member(place, partitions)
        before = member.membership
        other = Log(place.consumer())
        other.consumer.subscribe([partitions[0].topic])
        both(member.log, other, lambda: bool(other.rebalances) and len(member.log.rebalances[-1].assigned) == 1)
        record = Outgoing(partitions[0].topic, wire("stale"), 0)
        with pytest.raises(Outdated):
            member.transactions.transact([record], {partitions[0]: Committed(9, "")}, place.name, before)
        assert place.read(partitions) == []
        assert within(lambda: member.log.consumer.committed(partitions)) == {}
        after = {partitions[1]: Committed(1, "")}  # not the stale one with it
        member.transactions.transact([record], after, place.name, member.membership)
        assert [record.value for record in place.read(partitions)] == [b"stale"]
        assert within(lambda: member.log.consumer.committed(partitions)) == after

    def test_a_second_producer_of_the_same_name_fences_the_first(self, place: Place) -> None:
        (partition,) = place.topic()
        member = Member(place, [partition])
        member.transactions.transact([Outgoing(partition.topic, wire("first"))], {}, place.name, member.membership)
        second = place.transactions()
        with pytest.raises(Passing) as raised:
            member.transactions.transact([Outgoing(partition.topic, wire("fenced"))], {}, place.name, member.membership)
        assert not isinstance(raised.value, Outdated)
        second.transact([Outgoing(partition.topic, wire("second"))], {}, place.name, member.membership)
        assert [record.value for record in place.read([partition])] == [b"first", b"second"]

    def test_opening_ends_what_an_earlier_producer_has_left_open(self, place: Place) -> None:
        (partition,) = place.topic()
        with place.open_transaction(partition, ["left"], name=""):
            place.transactions().transact([Outgoing(partition.topic, wire("next"))], {}, place.name, None)
            assert [record.value for record in place.read([partition])] == [b"next"]

    def test_a_silent_broker_is_told_of_in_time_and_the_next_producer_goes_on(self, place: Place) -> None:
        (partition,) = place.topic()
        member = Member(place, [partition], timeout=3 * SECOND)
        record = Outgoing(partition.topic, wire("once"))
        with place.broker.stopped():
            began = time.monotonic()
            with pytest.raises(Passing):
                member.transactions.transact([record], {partition: Committed(1, "")}, place.name, member.membership)
            assert time.monotonic() - began < 12
            member.transactions.close(1.0)
        again = place.transactions(timeout=3 * SECOND)
        done = bool(within(lambda: member.log.consumer.committed([partition])))
        member.log.until(lambda: bool(member.log.rebalances[-1].assigned))
        if not done:
            again.transact([record], {partition: Committed(1, "")}, place.name, member.membership)
        assert [record.value for record in place.read([partition])] == [b"once"]


class NotUtf8(str):
    def encode(self, *_: str) -> bytes:
        return b"\xff\xfe"


class Told:
    """What a producer has told of its records, in its order."""

    def __init__(self) -> None:
        self._errors: list[TransportError | None] = []
        self._more = threading.Condition()

    def __call__(self, error: TransportError | None) -> None:
        with self._more:
            self._errors.append(error)
            self._more.notify_all()

    def all(self, count: int, patience: float = PATIENCE) -> list[TransportError | None]:
        with self._more:
            assert self._more.wait_for(lambda: len(self._errors) >= count, patience), f"told of {len(self._errors)} of {count}"
            return list(self._errors)


class Member:
    """A member of the group that has its partitions, with a transactional producer."""

    def __init__(self, place: Place, partitions: Sequence[Partition], timeout: int = 30 * SECOND) -> None:
        self.log = Log(place.consumer())
        self.log.consumer.subscribe(sorted({partition.topic for partition in partitions}))
        self.log.until_assigned(len(partitions))
        self.transactions = place.transactions(timeout=timeout)

    @property
    def membership(self) -> object:
        return self.log.rebalances[-1].membership
