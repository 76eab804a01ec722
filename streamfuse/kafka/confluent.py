"""The Kafka client confluent-kafka (librdkafka, in C), behind our seam: several times as fast as kafka-python."""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from operator import methodcaller
from typing import Any, NamedTuple

import confluent_kafka
from confluent_kafka import OFFSET_INVALID, KafkaError, KafkaException, TopicPartition

from streamfuse.codecs import WireRecord
from streamfuse.config import KafkaConnection
from streamfuse.kafka.client import CLIENT_ID, LONGEST_DELAY
from streamfuse.kafka.clients import Reading
from streamfuse.kafka.examination import Watch
from streamfuse.kafka.security import Kind, Rights, key_password, password, uses_password, uses_tls
from streamfuse.kafka.transport import (
    ClientInfo,
    Committed,
    Outdated,
    Outgoing,
    Partition,
    Passing,
    Polled,
    Rebalance,
    Refused,
    TooLarge,
    TransportError,
)
from streamfuse.types import MILLISECOND, Record

REQUEST = 3.0  # seconds
SLICE = 0.1  # of a poll, as a rebalance does not end it
POLL_BYTES = 4 * 1024 * 1024  # of values in a poll, about
MOST = 250  # records in a step
QUEUE_BYTES = 32 * 1024 * 1024  # fetched ahead by librdkafka, beside our own buffer
STATISTICS_MS = 250
FRESH = 1.0  # seconds for which what a broker has said tells of the present; while all is well it answers every 25 ms
SETTLED = 0.5  # seconds until a partition that we go on with has been answered for, and the statistics tell of it
COORDINATOR = 5.0  # seconds in which a coordinator that is there takes a transaction's offsets; it answers within milliseconds
UNGROUPED = f"{CLIENT_ID}-ungrouped"  # librdkafka wants a group's name from everybody
LATEST, EARLIEST = -1, -2
GROUP_METADATA = b"CGMDv2:"  # before the generation, in what librdkafka serializes

UNREADABLE = [("ce_?", None)]
"""In the place of headers of which a name is not UTF-8: confluent-kafka can't read them, and a record with these is refused, not taken for
one that wants to be no CloudEvent."""

OUTDATED = (KafkaError.ILLEGAL_GENERATION, KafkaError.UNKNOWN_MEMBER_ID, KafkaError.REBALANCE_IN_PROGRESS, KafkaError._ASSIGNMENT_LOST)
TOO_LARGE = (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE, KafkaError.INVALID_MSG_SIZE)
UNAUTHORIZED: dict[int, Kind] = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "topic",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "group",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "cluster",
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: "transactional-id",
}
FENCED = (
    KafkaError._FENCED,
    KafkaError.PRODUCER_FENCED,
    KafkaError.INVALID_PRODUCER_EPOCH,
    KafkaError.INVALID_TXN_STATE,
    KafkaError.UNKNOWN_PRODUCER_ID,
    KafkaError.INVALID_PRODUCER_ID_MAPPING,
)
PASSING = (
    KafkaError._AUTHENTICATION,  # of this and the next three a `Watch` finds out whether the broker means it
    KafkaError._SSL,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError.UNSUPPORTED_SASL_MECHANISM,
    KafkaError._TRANSPORT,
    KafkaError._TIMED_OUT,
    KafkaError._TIMED_OUT_QUEUE,
    KafkaError._MSG_TIMED_OUT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._RESOLVE,
    KafkaError._WAIT_COORD,
    KafkaError._WAIT_CACHE,
    KafkaError._IN_PROGRESS,
    KafkaError._STATE,
    KafkaError._RETRY,
    KafkaError._DESTROY,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError._QUEUE_FULL,
    KafkaError._PURGE_QUEUE,
    KafkaError._PURGE_INFLIGHT,
    KafkaError._MAX_POLL_EXCEEDED,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    KafkaError.UNSTABLE_OFFSET_COMMIT,
    KafkaError.NETWORK_EXCEPTION,
    KafkaError.CONCURRENT_TRANSACTIONS,
)

log = logging.getLogger(__name__)


def client_info() -> ClientInfo:
    version, librdkafka = confluent_kafka.version(), confluent_kafka.libversion()
    told = [found if isinstance(found, str) else found[0] for found in (version, librdkafka)]
    return ClientInfo("confluent", f"{told[0]} (librdkafka {told[1]})", "native")


def make_consumer(settings: KafkaConnection, reading: Reading) -> ConfluentConsumer:
    return ConfluentConsumer(settings, reading)


def make_producer(settings: KafkaConnection, max_record_bytes: int) -> ConfluentProducer:
    return ConfluentProducer(settings, max_record_bytes)


def make_transactional_producer(
    settings: KafkaConnection, transactional_id: str, timeout: int, max_record_bytes: int
) -> ConfluentTransactions:
    return ConfluentTransactions(settings, transactional_id, timeout, max_record_bytes)


def connection_options(settings: KafkaConnection) -> dict[str, Any]:
    """The settings as librdkafka names them. Raises ConfigError where a password can't be read."""
    options: dict[str, Any] = {
        "bootstrap.servers": settings.bootstrap,
        "client.id": CLIENT_ID,
        "security.protocol": settings.security.upper(),
        "reconnect.backoff.ms": 250,
        "reconnect.backoff.max.ms": int(LONGEST_DELAY * 1000),
        "log.connection.close": False,  # brokers close idle ones
        "logger": _Log(),
    }
    if uses_tls(settings):
        files = {
            "ssl.ca.location": settings.ca_file,
            "ssl.certificate.location": settings.certificate_file,
            "ssl.key.location": settings.key_file,
            "ssl.key.password": key_password(settings),
        }
        options |= {name: str(value) for name, value in files.items() if value is not None}
    if uses_password(settings):
        options |= {"sasl.mechanism": settings.mechanism, "sasl.username": settings.username, "sasl.password": password(settings)}
    return options


class ConfluentConsumer:
    """Fulfils `transport.Consumer`.

    librdkafka begins to fetch where it is told when it is given its partitions. So what a rebalance brings is given to it in the `poll`
    after the one that told of it, and a `seek` gives it all of its partitions anew.

    The end that `lagging` compares with is the high watermark of the last fetch; where only committed records are read, also the last
    stable offset, of which librdkafka tells four times a second: an open transaction is no lag. Where the broker has been silent for a
    second, or a partition was paused until now, more may be there.
    """

    def __init__(self, settings: KafkaConnection, reading: Reading) -> None:
        session = reading.session_timeout // MILLISECOND
        options: dict[str, Any] = {
            "group.id": reading.group or UNGROUPED,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "session.timeout.ms": session,
            "heartbeat.interval.ms": min(3_000, session // 3),
            "max.poll.interval.ms": max(300_000, session),
            "auto.offset.reset": reading.start,
            "isolation.level": "read_committed" if reading.read_committed else "read_uncommitted",
            "allow.auto.create.topics": False,
            "partition.assignment.strategy": "range",
            "check.crcs": True,
            "enable.partition.eof": True,  # tells where the last transaction's marker ends
            "fetch.min.bytes": 64 * 1024,
            "fetch.wait.max.ms": 25,
            "fetch.max.bytes": max(reading.fetch_bytes, 1_000_000),  # librdkafka takes no less
            "max.partition.fetch.bytes": min(4 * 1024 * 1024, reading.fetch_bytes),
            "queued.max.messages.kbytes": max(min(QUEUE_BYTES, reading.fetch_bytes) // 1024, 1),
            "fetch.queue.backoff.ms": 10,  # how long a full queue keeps it from fetching; 1 s where not given
            "statistics.interval.ms": STATISTICS_MS,
            "stats_cb": self._learn,
            "on_commit": self._note_commit,
        }
        if reading.instance is not None:
            options["group.instance.id"] = reading.instance
        self._read_committed = reading.read_committed
        self._trouble = _Trouble(settings, Rights(settings, "Read", reading.group))
        self._assigned: frozenset[Partition] = frozenset()
        self._ours = False  # False from a revocation on until the next assignment
        self._given = True  # whether librdkafka has got its partitions
        self._positions: dict[Partition, int] = {}
        self._paused: set[Partition] = set()
        self._pending: dict[Partition, list[Record]] = {}
        self._rebalances: list[Rebalance] = []
        self._member: tuple[int, str] = (-1, "")
        self._failure: TransportError | None = None
        self._commits: deque[_Commit] = deque()
        self._known = _Known()
        self._settled: dict[Partition, float] = {}
        self._handles: dict[Partition, TopicPartition] = {}
        with _translated(self._trouble):
            self._consumer = confluent_kafka.Consumer({**connection_options(settings), **options, "error_cb": self._trouble.note})
        _await_broker(self._consumer, settings, self._trouble, partial(self._serve, 0.0), self.close)

    def subscribe(self, topics: Sequence[str]) -> None:
        self._trouble.rights.topics.update(topics)
        with _translated(self._trouble):
            self._consumer.subscribe(list(topics), on_assign=self._gain, on_revoke=self._revoke, on_lost=self._lose)

    def assign(self, offsets: Mapping[Partition, int]) -> None:
        self._trouble.rights.topics.update(partition.topic for partition in offsets)
        self._keep(frozenset(offsets), frozenset(offsets) & self._assigned)
        for partition, offset in offsets.items():
            self.seek(partition, offset)

    def poll(self, timeout: float) -> Polled:
        with _translated(self._trouble):
            self._give()
            until = time.monotonic() + timeout
            while True:
                ready = self._rebalances or self._failure or self._pending.keys() - self._paused
                left = 0.0 if ready else max(until - time.monotonic(), 0.0)
                self._serve(min(left, SLICE))
                if ready or left == 0.0 or self._rebalances or self._failure or self._pending.keys() - self._paused:
                    break
        rebalances, self._rebalances = self._rebalances, []
        ready = self._pending.keys() - self._paused
        if self._failure is not None and not rebalances and not ready:
            failure, self._failure = self._failure, None
            raise failure
        return Polled(rebalances, {partition: self._pending.pop(partition) for partition in ready})

    def lagging(self, partitions: Iterable[Partition]) -> frozenset[Partition]:
        now = time.monotonic()
        return frozenset(partition for partition in partitions if self._lags(partition, now))

    def seek(self, partition: Partition, offset: int) -> None:
        if partition in self._assigned:
            self._positions[partition] = offset
            self._pending.pop(partition, None)
            self._given = False

    def pause(self, partitions: Iterable[Partition]) -> None:
        new = [partition for partition in partitions if partition in self._assigned and partition not in self._paused]
        self._paused.update(new)
        if self._given and self._ours and new:
            with suppress(KafkaException):  # no longer ours; the next poll tells
                self._consumer.pause([self._handle(partition) for partition in new])

    def resume(self, partitions: Iterable[Partition]) -> None:
        old = [partition for partition in partitions if partition in self._paused]
        self._paused.difference_update(old)
        self._settled.update(dict.fromkeys(old, time.monotonic() + SETTLED))
        if self._given and self._ours and old:
            with suppress(KafkaException):
                self._consumer.resume([self._handle(partition) for partition in old])

    def committed(self, partitions: Iterable[Partition]) -> dict[Partition, Committed]:
        wanted = [TopicPartition(*partition) for partition in partitions]
        with _translated(self._trouble):
            found = self._consumer.committed(wanted, timeout=REQUEST) if wanted else []
        self._raise_errors(found)
        return {Partition(one.topic, one.partition): Committed(one.offset, _metadata(one)) for one in found if one.offset >= 0}

    def commit(self, offsets: Mapping[Partition, Committed]) -> None:
        commit = _Commit(_offsets(offsets))
        with _translated(self._trouble):
            self._consumer.commit(offsets=commit.offsets, asynchronous=True)  # synchronous, it waits for a broker that is away
            self._commits.append(commit)
            until = time.monotonic() + REQUEST
            while commit.error is NO_ANSWER and time.monotonic() < until:
                self._serve(0.05)
        if commit.error is NO_ANSWER:
            raise Passing(f"no answer to a commit for {REQUEST:g} s")
        if commit.error is not None:
            raise self._trouble.meaning(commit.error)

    def counts(self, topics: Iterable[str]) -> dict[str, int]:
        wanted = list(topics)
        self._trouble.rights.topics.update(wanted)
        with _translated(self._trouble):
            return {topic: _count(self._consumer, topic) for topic in wanted}

    def begins(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        return self._look_up(partitions, EARLIEST)

    def ends(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        return self._look_up(partitions, LATEST)

    def since(self, partitions: Iterable[Partition], time: int) -> dict[Partition, int]:
        found = self._look_up(partitions, max(-(-time // MILLISECOND), 0))
        return found | self.ends(partition for partition, offset in found.items() if offset < 0)

    def close(self) -> None:
        self._trouble.watch.end()
        with suppress(KafkaException, RuntimeError):
            self._consumer.close()

    # --- what librdkafka tells, in the calls that serve it ---

    def _serve(self, timeout: float) -> None:
        """Waits up to `timeout` for records, and files what is there."""
        first = self._consumer.poll(timeout)
        if first is None:
            return
        filed, size = 1, self._file((first,))
        while size < POLL_BYTES:  # by small steps: librdkafka's memory of a step is free again before the next
            more = self._consumer.consume(min(POLL_BYTES * filed // size // 4 + 1, MOST), 0)
            if not more:
                return
            filed += len(more)
            size += self._file(more)

    def _file(self, messages: Iterable[Any]) -> int:
        """Returns the bytes of their values, and one."""
        topic, number, offset, size = "", -1, -1, 1
        partition, records = Partition(topic, number), list[Record]()
        for message in messages:
            if (error := message.error()) is not None:
                self._passed(partition, offset)
                self._hear(error, message.topic(), message.partition(), message.offset())
                offset = -1
                continue
            if message.partition() != number or message.topic() != topic:
                self._passed(partition, offset)
                topic, number = message.topic(), message.partition()
                partition = Partition(topic, number)
                records = self._pending.setdefault(partition, [])
            try:
                headers = _headers(message)
            except (SystemError, UnicodeDecodeError):
                headers = UNREADABLE
            offset, value, (kind, milliseconds) = message.offset(), message.value(), message.timestamp()
            if value is not None:
                size += len(value)
            described = tuple(headers) if headers else ()
            records.append(Record(topic, number, offset, message.key(), value, described, milliseconds * MILLISECOND if kind else -1))
        self._passed(partition, offset)
        return size

    def _passed(self, partition: Partition, offset: int) -> None:
        if offset >= 0:
            self._positions[partition] = offset + 1

    def _hear(self, error: KafkaError, topic: str | None, number: int | None, offset: int | None) -> None:
        if error.code() == KafkaError._PARTITION_EOF and topic is not None and number is not None and offset is not None:
            self._positions[Partition(topic, number)] = offset
            return
        if error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED and self._trouble.rights.group is None:
            return  # librdkafka looks for the coordinator of the group that it was given in place of none; we ask nothing of it
        meaning = self._trouble.meaning(error, () if topic is None else (topic,))
        if isinstance(meaning, Refused):
            self._failure = meaning
        elif error.code() != KafkaError._MAX_POLL_EXCEEDED:  # a `lose` follows
            log.warning("%s", meaning)

    def _gain(self, _: object, partitions: list[TopicPartition]) -> None:
        membership = self._consumer.consumer_group_metadata()
        member = _generation(membership), self._consumer.memberid()
        unbroken = self._member[0] >= 0 and member == (self._member[0] + 1, self._member[1])
        self._member = member
        assigned = frozenset(Partition(one.topic, one.partition) for one in partitions)
        self._keep(assigned, assigned & self._assigned if unbroken else frozenset())
        self._consumer.assign([])  # or librdkafka begins at once
        self._rebalances.append(Rebalance(assigned, unbroken, membership))

    def _revoke(self, _: object, partitions: list[TopicPartition]) -> None:
        """Told of all partitions before each rebalance; which of them are lost, the assignment says."""
        self._ours = False

    def _lose(self, _: object, partitions: list[TopicPartition]) -> None:
        self._member = (-1, "")
        self._keep(frozenset(), frozenset())
        self._rebalances.append(Rebalance(frozenset(), False, None))

    def _note_commit(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        if self._commits:
            self._commits.popleft().error = error or next((one.error for one in partitions if one.error is not None), None)

    def _learn(self, statistics: str) -> None:
        self._known = _known(json.loads(statistics))

    # --- which partitions are ours ---

    def _keep(self, assigned: frozenset[Partition], kept: frozenset[Partition]) -> None:
        self._assigned, self._ours, self._given = assigned, True, False
        self._positions = {partition: offset for partition, offset in self._positions.items() if partition in kept}
        self._pending = {partition: records for partition, records in self._pending.items() if partition in kept}
        self._paused &= kept

    def _give(self) -> None:
        """Where nobody has said where to begin, the group's commit does, or `Reading.start`."""
        if self._given or not self._ours:
            return
        self._given = True
        self._consumer.assign([TopicPartition(*one, self._positions.get(one, OFFSET_INVALID)) for one in self._assigned])
        if self._paused:
            self._consumer.pause([self._handle(partition) for partition in self._paused])
        self._settled = dict.fromkeys(self._assigned, time.monotonic() + SETTLED)

    def _lags(self, partition: Partition, now: float) -> bool:
        position = self._positions.get(partition)
        if position is None or partition not in self._assigned or not (self._given and self._ours):
            return True
        if partition in self._paused or partition in self._pending or now < self._settled.get(partition, 0.0):
            return True
        if self._trouble.at > self._known.at or not self._known.answers(partition, now):
            return True
        _, high = self._consumer.get_watermark_offsets(self._handle(partition), cached=True)
        stable = self._known.stable.get(partition, -1) if self._read_committed else -1
        return position < high if stable < 0 else position < min(high, stable)

    def _look_up(self, partitions: Iterable[Partition], milliseconds: int) -> dict[Partition, int]:
        wanted = [TopicPartition(*partition, milliseconds) for partition in partitions]
        with _translated(self._trouble):
            found = self._consumer.offsets_for_times(wanted, timeout=REQUEST) if wanted else []
        self._raise_errors(found)
        return {Partition(one.topic, one.partition): one.offset for one in found}

    def _raise_errors(self, found: Iterable[TopicPartition]) -> None:
        for one in found:
            if one.error is not None:
                raise self._trouble.meaning(one.error, (one.topic,))

    def _handle(self, partition: Partition) -> TopicPartition:
        return self._handles.get(partition) or self._handles.setdefault(partition, TopicPartition(*partition))


class ConfluentProducer:
    """Fulfils `transport.Producer`."""

    def __init__(self, settings: KafkaConnection, max_record_bytes: int, transactional_id: str | None = None, **options: object) -> None:
        defaults: dict[str, Any] = {
            "acks": "all",
            "enable.idempotence": True,
            "linger.ms": 5,
            "message.max.bytes": min(max_record_bytes + 64 * 1024, 1_000_000_000),
            "message.timeout.ms": 0,  # as long as it takes
            "partitioner": "murmur2_random",
            "queue.buffering.max.kbytes": 64 * 1024,
        }
        if transactional_id is not None:
            options["transactional.id"] = transactional_id
        self.complaints = _Trouble(settings, Rights(settings, "Write", transactional_id=transactional_id))
        self._known: set[str] = set()
        self._closing = threading.Event()
        with _translated(self.complaints):
            self.client = confluent_kafka.Producer(
                {**connection_options(settings), **defaults, **options, "error_cb": self.complaints.note}
            )
        _await_broker(self.client, settings, self.complaints, partial(self.client.poll, 0.0), self._drop)
        self.complaints.watch.on_refusal(self._drop)  # what waits for an acknowledgement fails
        self._thread = threading.Thread(target=self._serve, name="confluent producer", daemon=True)
        self._thread.start()

    @property
    def trouble(self) -> str:
        return self.complaints.text

    def count(self, topic: str) -> int:
        self.complaints.rights.topics.add(topic)
        with _translated(self.complaints):
            return _count(self.client, topic)

    def send(self, topic: str, record: WireRecord, done: Callable[[TransportError | None], None], partition: int | None = None) -> None:
        self.require(topic)
        with _translated(self.complaints):
            _produce(
                self.client,
                Outgoing(topic, record, partition),
                lambda error, _: done(None if error is None else self._meaning(error, topic)),
            )

    def require(self, topic: str) -> None:
        """Raises Refused where there is no such topic, and none comes for seconds: brokers learn of a new one a moment later. librdkafka
        would keep a record for it, and tell of that half a minute later."""
        if topic not in self._known:
            until = time.monotonic() + REQUEST
            while not self.count(topic):
                if time.monotonic() >= until:
                    raise _missing(topic)
                time.sleep(0.1)
            self._known.add(topic)

    def _meaning(self, error: KafkaError, topic: str) -> TransportError:
        return self.complaints.watch.refusal or self.complaints.meaning(error, (topic,))

    def close(self, timeout: float) -> None:
        self.complaints.watch.end()
        with suppress(KafkaException):
            self.client.flush(timeout)
        self._closing.set()
        self._thread.join()
        self._drop()

    def _drop(self) -> None:
        """What is not acknowledged by now fails, and may or may not have been written."""
        with suppress(KafkaException):
            self.client.purge()
            self.client.flush(1.0)

    def _serve(self) -> None:
        while not self._closing.is_set():
            try:
                self.client.poll(SLICE)
            except KafkaException as error:  # a fatal one, told here once; each record is told that there is one
                self.complaints.note(error.args[0])


class ConfluentTransactions:
    """Fulfils `transport.TransactionalProducer`."""

    def __init__(self, settings: KafkaConnection, transactional_id: str, timeout: int, max_record_bytes: int) -> None:
        self._timeout = timeout / 1e9
        self._connect_timeout = settings.connect_timeout / 1e9
        milliseconds = timeout // MILLISECOND
        self._made = ConfluentProducer(
            settings,
            max_record_bytes,
            transactional_id,
            **{
                "transaction.timeout.ms": milliseconds,
                "message.timeout.ms": milliseconds,
                "linger.ms": 0,
                "retry.backoff.ms": 10,  # the broker is still ending the transaction before: 100 ms is longer than that takes
            },
        )
        self._client = self._made.client

    def open(self) -> None:
        with _translated(self._made.complaints):
            self._client.init_transactions(self._connect_timeout)

    def transact(self, records: Sequence[Outgoing], offsets: Mapping[Partition, Committed], group: str, membership: object) -> None:
        until = time.monotonic() + self._timeout
        failed: list[KafkaError] = []

        def note(error: KafkaError | None, _: object) -> None:
            if error is not None and error.code() not in (KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT):
                failed.append(error)

        if offsets and membership is None:
            raise Outdated(f"no member of group {group}")
        self._made.complaints.rights.group = group
        with _translated(self._made.complaints):
            self._client.begin_transaction()
            try:
                for record in records:
                    self._made.require(record.topic)
                    self._send(record, note, until)
                if offsets:
                    self._send_offsets(offsets, membership, until)
            except (KafkaException, TransportError) as error:
                self._made.complaints.watch.check()
                self._abort(until)
                raise self._first(failed, error) from error
            try:
                self._client.commit_transaction(_left(until))
            except KafkaException as error:
                self._made.complaints.watch.check()
                if not error.args[0].txn_requires_abort():
                    raise Passing(f"the transaction may or may not have been committed: {_told(error.args[0])}") from error
                self._abort(until)
                raise self._first(failed, error) from error

    def close(self, timeout: float) -> None:
        self._made.close(timeout)

    def _send(self, record: Outgoing, note: Callable[[KafkaError | None, object], None], until: float) -> None:
        while True:
            try:
                return _produce(self._client, record, note)
            except Passing:  # the queue is full
                if time.monotonic() > until:
                    raise
                time.sleep(0.01)

    def _send_offsets(self, offsets: Mapping[Partition, Committed], membership: object, until: float) -> None:
        """librdkafka 2.16 may wait for ever for a coordinator that was away, whatever time it is given: then its thread is left behind."""
        answered: Future[None] = Future()

        def send() -> None:
            try:
                self._client.send_offsets_to_transaction(_offsets(offsets), membership, _left(until))
            except KafkaException as error:
                answered.set_exception(error)
            else:
                answered.set_result(None)

        threading.Thread(target=send, name="confluent offsets", daemon=True).start()
        try:
            answered.result(min(_left(until), COORDINATOR) + SLICE)
        except TimeoutError:
            raise Passing("the group's coordinator does not answer") from None

    def _abort(self, until: float) -> None:
        """Where it can't be aborted now, the broker does so in time, or the next producer with this id."""
        with suppress(KafkaException):
            self._client.abort_transaction(_left(until))

    def _first(self, failed: Sequence[KafkaError], error: KafkaException | TransportError) -> TransportError:
        """What came first: after the first failure all else fails with an error that only tells of it."""
        if isinstance(error, TransportError):
            return error
        return self._made.complaints.meaning(failed[0] if failed else error.args[0])


class _Commit:
    """A commit on its way; `error` is None when it is durable."""

    def __init__(self, offsets: list[TopicPartition]) -> None:
        self.offsets = offsets
        self.error: KafkaError | None = NO_ANSWER


NO_ANSWER = KafkaError(KafkaError._IN_PROGRESS)


class _Known(NamedTuple):
    """What librdkafka's statistics last told: when, since when each broker is silent, who leads what, how far records are committed."""

    at: float = float("-inf")
    heard: Mapping[int, float] = {}
    leaders: Mapping[Partition, int] = {}
    stable: Mapping[Partition, int] = {}

    def answers(self, partition: Partition, now: float) -> bool:
        return now - self.heard.get(self.leaders.get(partition, -1), float("-inf")) < FRESH


def _known(statistics: Mapping[str, Any]) -> _Known:
    now = time.monotonic()
    brokers = (broker for broker in statistics["brokers"].values() if broker["state"] == "UP" and broker["rxidle"] >= 0)
    heard = {broker["nodeid"]: now - broker["rxidle"] / 1e6 for broker in brokers}
    leaders: dict[Partition, int] = {}
    stable: dict[Partition, int] = {}
    for topic, told in statistics["topics"].items():
        for number, one in told["partitions"].items():
            if one["desired"]:
                partition = Partition(topic, int(number))
                leaders[partition] = one["leader"]
                stable[partition] = one["ls_offset"]
    return _Known(now, heard, leaders, stable)


class _Trouble:
    """What librdkafka has last complained of, and when; why it can't connect any more, a `Watch` finds out."""

    BETWEEN_LOOKS = 2.0

    def __init__(self, settings: KafkaConnection, rights: Rights) -> None:
        self.text = ""
        self.at = float("-inf")
        self.watch = Watch(settings)
        self.rights = rights
        self._fatal: KafkaError | None = None
        self._fatal_is_told = threading.Event()
        self._looked_at = float("-inf")

    def note(self, error: KafkaError) -> None:
        now = time.monotonic()
        self.text, self.at = _told(error), now
        if error.fatal():
            self._fatal = error
            self._fatal_is_told.set()
        if now - self._looked_at > self.BETWEEN_LOOKS:
            self._looked_at = now
            self.watch.failed()

    def meaning(self, error: KafkaError, topics: Iterable[str] = ()) -> TransportError:
        if error.code() == KafkaError._FATAL:  # of what, another thread is told at this moment
            self._fatal_is_told.wait(SLICE * 5)
            self._fatal_is_told.set()
            error = self._fatal or error
        if (kind := UNAUTHORIZED.get(error.code())) is not None:
            return self.rights.lacking(kind, topics)
        return _meaning(error)


class _Log:
    """Where librdkafka logs to."""

    def log(self, level: int, _: str, facility: str, client: str, text: str) -> None:
        log.log(level, f"{facility}: %s", text)


@contextmanager
def _translated(trouble: _Trouble) -> Iterator[None]:
    trouble.watch.check()
    try:
        yield
    except KafkaException as error:
        raise trouble.watch.refusal or trouble.meaning(error.args[0]) from error


def _meaning(error: KafkaError) -> TransportError:
    code, told = error.code(), _told(error)
    if code in OUTDATED:
        return Outdated(told)
    if code in FENCED:
        return Passing(told)
    if code == KafkaError.FENCED_INSTANCE_ID or (error.fatal() and "FENCED_INSTANCE_ID" in told):
        return Refused(f"another member of the group goes by the same instance ({told})", "give each replica an instance of its own")
    if code in TOO_LARGE:
        return TooLarge(told, "raise max.message.bytes of the topic, or publish less per record")
    if code == KafkaError.TOPIC_EXCEPTION:
        return Refused(told, "choose a topic name of letters, digits, '.', '_' and '-'")
    if code in PASSING or error.retriable():
        return Passing(told)
    return Refused(told)


def _told(error: KafkaError) -> str:
    return f"{error.name()}: {error.str()}"


def _missing(topic: str) -> Refused:
    return Refused(f"there is no topic {topic}", f"create it with kafka-topics.sh --create --topic {topic}")


def _await_broker(
    client: Any, settings: KafkaConnection, trouble: _Trouble, serve: Callable[[], object], give_up: Callable[[], None]
) -> None:
    """Returns when a broker has answered. Raises Passing where none does within `connect_timeout`, Refused where waiting won't help.

    `serve` takes what librdkafka has to tell meanwhile, of which it tells once only.
    """
    until = time.monotonic() + settings.connect_timeout / 1e9
    while True:
        try:
            with _translated(trouble):
                client.list_topics("__consumer_offsets", timeout=min(1.0, _left(until)))
                serve()
            return
        except Passing:
            if time.monotonic() > until:
                give_up()
                raise
        except BaseException:
            give_up()
            raise


def _count(client: Any, topic: str) -> int:
    metadata = client.list_topics(topic, timeout=REQUEST).topics.get(topic)
    if metadata is None:
        return 0
    if metadata.error is not None and metadata.error.code() not in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.LEADER_NOT_AVAILABLE):
        raise KafkaException(metadata.error)
    return len(metadata.partitions)


def _produce(client: Any, outgoing: Outgoing, done: Callable[[KafkaError | None, object], None]) -> None:
    topic, (key, value, headers, timestamp), partition = outgoing
    milliseconds = max(timestamp // MILLISECOND, 1)  # 0 would be the present
    where = {} if partition is None else {"partition": partition}
    try:
        client.produce(topic, value, key, headers=list(headers), timestamp=milliseconds, on_delivery=done, **where)
    except BufferError as error:
        raise Passing("the producer's queue is full") from error


def _offsets(offsets: Mapping[Partition, Committed]) -> list[TopicPartition]:
    return [TopicPartition(*partition, offset, metadata) for partition, (offset, metadata) in offsets.items()]


_headers = methodcaller("headers")
"""Of headers of which a name is not UTF-8, confluent-kafka returns half a list with an exception pending, which breaks out somewhere later;
only a call that is not inlined looks for it."""


def _metadata(found: TopicPartition) -> str:
    """confluent-kafka reads on until it finds a NUL, which clients of ours write and other tools don't."""
    try:
        return found.metadata or ""
    except UnicodeDecodeError:
        return "\ufffd"


def _generation(membership: object) -> int:
    """The group's generation, -1 where it can't be told: librdkafka has no other way to tell it."""
    if isinstance(membership, bytes) and membership.startswith(GROUP_METADATA):
        return int.from_bytes(membership[len(GROUP_METADATA) :][:4], sys.byteorder, signed=True)
    return -1


def _left(until: float) -> float:
    return max(until - time.monotonic(), 0.001)
