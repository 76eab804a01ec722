"""The Kafka client kafka-python 3, behind our seam.

kafka-python keeps some of what we need to itself: the end of what a reader of committed records may read, the commits of several
partitions at once, a bound on the wait for a transaction. So this module reaches below its public face, of the minor version that
pyproject.toml pins.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, TypeVar

import kafka
import kafka.errors
import kafka.record.util
from kafka import ConsumerRebalanceListener, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.net.compat import KafkaNetClient
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector
from kafka.structs import ConsumerGroupMetadata, OffsetAndMetadata
from kafka.util import Timer

from streamfuse.codecs import Record, WireRecord
from streamfuse.config import KafkaConnection
from streamfuse.kafka.client import CLIENT_ID, LONGEST_DELAY
from streamfuse.kafka.clients import Reading
from streamfuse.kafka.examination import Watch, examine, sasl_options
from streamfuse.kafka.header_names import read_any_header_name
from streamfuse.kafka.security import Kind, Rights, key_password, uses_password, uses_tls
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
from streamfuse.types import MILLISECOND

T = TypeVar("T")

FOR_EVER_MS = 2**31 - 1
REQUEST_MS = 3_000
CLOSE_MS = 3_000
BETWEEN_LOOKS = 0.5
END = "\0"  # of commit metadata: confluent-kafka writes it, and reads on until it finds it
FRESH = 0.5  # seconds for which an answer to a fetch tells of the present; while all is well they come every 25 ms
OUTDATED = (
    kafka.errors.CommitFailedError,
    kafka.errors.IllegalGenerationError,
    kafka.errors.RebalanceInProgressError,
    kafka.errors.UnknownMemberIdError,
)
TOO_LARGE = (kafka.errors.MessageSizeTooLargeError, kafka.errors.RecordListTooLargeError)
UNAUTHORIZED: tuple[tuple[Kind, type[Exception]], ...] = (
    ("topic", kafka.errors.TopicAuthorizationFailedError),
    ("group", kafka.errors.GroupAuthorizationFailedError),
    ("transactional-id", kafka.errors.TransactionalIdAuthorizationFailedError),
    ("cluster", kafka.errors.ClusterAuthorizationFailedError),
)
UNPROVEN = (  # a `Watch` finds out whether the broker means it
    kafka.errors.SaslAuthenticationFailedError,
    kafka.errors.UnsupportedSaslMechanismError,
    kafka.errors.IllegalSaslStateError,
)
FENCED = (kafka.errors.ProducerFencedError, kafka.errors.InvalidProducerEpochError, kafka.errors.InvalidTxnStateError)

log = logging.getLogger(__name__)


def client_info() -> ClientInfo:
    """Raises Refused where checksums would be computed in pure Python: a record of 50 KB would cost 22 ms."""
    if kafka.record.util.crc32c_c is None:
        raise Refused(
            "expected the package crc32c, found none, so that each record of 50 KB would cost 22 ms", "pip install 'kafka-python[crc32c]'"
        )
    return ClientInfo("kafka-python", kafka.__version__, "native")


def make_consumer(settings: KafkaConnection, reading: Reading) -> KafkaPythonConsumer:
    client_info()
    read_any_header_name()
    return KafkaPythonConsumer(settings, reading)


def make_producer(settings: KafkaConnection, max_record_bytes: int) -> KafkaPythonProducer:
    client_info()
    return KafkaPythonProducer(settings, max_record_bytes)


def make_transactional_producer(
    settings: KafkaConnection, transactional_id: str, timeout: int, max_record_bytes: int
) -> KafkaPythonTransactions:
    client_info()
    return KafkaPythonTransactions(settings, transactional_id, timeout, max_record_bytes)


def connection_options(settings: KafkaConnection) -> dict[str, Any]:
    """The settings as kafka-python names them. Raises ConfigError where a password can't be read."""
    options: dict[str, Any] = {
        "bootstrap_servers": settings.bootstrap.split(","),
        "bootstrap_timeout_ms": settings.connect_timeout // MILLISECOND,
        "client_id": CLIENT_ID,
        "security_protocol": settings.security.upper(),
        "reconnect_backoff_max_ms": int(LONGEST_DELAY * 1000),
        "metrics_enabled": False,
    }
    if uses_tls(settings):  # read anew for each connection, so that renewed files are used
        options["ssl_cafile"] = _text(settings.ca_file)
        options["ssl_certfile"] = _text(settings.certificate_file)
        options["ssl_keyfile"] = _text(settings.key_file)
        options["ssl_password"] = key_password(settings) or ""  # for None OpenSSL would ask on the terminal
    if uses_password(settings):
        options |= sasl_options(settings)
    return options


class KafkaPythonConsumer:
    """Fulfils `transport.Consumer`.

    The end that `lagging` compares with comes with each fetch: the last stable offset where only committed records are read (an open
    transaction is no lag), the high watermark otherwise. Where no fetch was answered for half a second, as the partition is paused, its
    broker away or its leader unknown, more may be there.
    """

    def __init__(self, settings: KafkaConnection, reading: Reading) -> None:
        options = {
            "group_id": reading.group,
            "group_instance_id": reading.instance,
            "enable_auto_commit": False,
            "session_timeout_ms": reading.session_timeout // MILLISECOND,
            "heartbeat_interval_ms": min(3_000, reading.session_timeout // MILLISECOND // 3),
            "auto_offset_reset": reading.start,
            "isolation_level": "read_committed" if reading.read_committed else "read_uncommitted",
            "allow_auto_create_topics": False,
            "partition_assignment_strategy": [RangePartitionAssignor()],
            "fetch_min_bytes": 64 * 1024,  # a fetch costs 2-4 ms of CPU: rather 40 a second than one for each record
            "fetch_max_wait_ms": 25,
            "fetch_max_bytes": reading.fetch_bytes,
            "max_partition_fetch_bytes": 4 * 1024 * 1024,
            "max_poll_records": 5_000,  # each hand-over to the loop costs a change of threads
        }
        self._read_committed = reading.read_committed
        self._watch = Watch(settings)
        self._rights = Rights(settings, "Read", reading.group)
        self._consumer = _make(KafkaConsumer, settings, options, self._watch, self._rights)
        self._rebalances: deque[Rebalance] = deque()
        self._assigned: frozenset[Partition] = frozenset()
        self._heard: dict[TopicPartition, _Heard] = {}
        self._listen()

    def subscribe(self, topics: Sequence[str]) -> None:
        self._rights.topics.update(topics)
        with _translated(self._watch, self._rights):
            self._consumer.subscribe(list(topics), listener=_Listener(self._consumer, self._rebalances.append))
        with suppress(kafka.errors.KafkaError):  # who joins before it knows the partitions joins again as soon as it does
            self._consumer._net.run(self._ask, topics)

    def assign(self, offsets: Mapping[Partition, int]) -> None:
        self._rights.topics.update(partition.topic for partition in offsets)
        with _translated(self._watch, self._rights):
            self._consumer.assign([TopicPartition(*partition) for partition in offsets])
        for partition, offset in offsets.items():
            self.seek(partition, offset)

    def poll(self, timeout: float) -> Polled:
        timer = Timer(timeout * 1000)
        with _translated(self._watch, self._rights):
            while True:  # as `KafkaConsumer.poll` does it, but a rebalance ends it too
                self._unpark()
                fetched = self._consumer._poll_once(timer, self._consumer.config["max_poll_records"])
                if fetched or self._rebalances or timer.expired:
                    break
        rebalances = [self._rebalances.popleft() for _ in range(len(self._rebalances))]
        for rebalance in rebalances:
            kept = self._assigned & rebalance.assigned if rebalance.unbroken else frozenset()
            for partition in rebalance.assigned - kept:
                if records := fetched.pop(partition, None):
                    self.seek(partition, records[0].offset)
            self.resume(rebalance.assigned - kept)
            self._assigned = rebalance.assigned
        return Polled(rebalances, {Partition(*partition): _records(found) for partition, found in fetched.items()})

    def lagging(self, partitions: Iterable[Partition]) -> frozenset[Partition]:
        since = time.monotonic() - FRESH
        return frozenset(partition for partition in partitions if self._lags(TopicPartition(*partition), since))

    def seek(self, partition: Partition, offset: int) -> None:
        with suppress(ValueError):  # no longer ours; the next poll tells
            self._consumer.seek(TopicPartition(*partition), offset)

    def pause(self, partitions: Iterable[Partition]) -> None:
        self._consumer.pause(*self._ours(partitions))

    def resume(self, partitions: Iterable[Partition]) -> None:
        self._consumer.resume(*self._ours(partitions))

    def committed(self, partitions: Iterable[Partition]) -> dict[Partition, Committed]:
        with _translated(self._watch, self._rights):
            wanted = [TopicPartition(*partition) for partition in partitions]
            found = self._consumer._coordinator.fetch_committed_offsets(wanted, timeout_ms=REQUEST_MS)
        return {Partition(*one): Committed(offset.offset, (offset.metadata or "").rstrip(END)) for one, offset in found.items()}

    def commit(self, offsets: Mapping[Partition, Committed]) -> None:
        with _translated(self._watch, self._rights):
            self._consumer.commit(_offsets(offsets), timeout_ms=REQUEST_MS)

    def counts(self, topics: Iterable[str]) -> dict[str, int]:
        wanted = list(topics)
        self._rights.topics.update(wanted)
        with _translated(self._watch, self._rights):
            return _counts(self._consumer._cluster, wanted, lambda unknown: self._consumer._net.run(self._ask, unknown))

    def begins(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        return self._look_up(self._consumer.beginning_offsets, partitions)

    def ends(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        return self._look_up(self._consumer.end_offsets, partitions)

    def since(self, partitions: Iterable[Partition], time: int) -> dict[Partition, int]:
        wanted = list(partitions)
        milliseconds = max(-(-time // MILLISECOND), 0)
        with _translated(self._watch, self._rights):
            times = {TopicPartition(*partition): milliseconds for partition in wanted}
            found = self._consumer.offsets_for_times(times, timeout_ms=REQUEST_MS) if times else {}
        offsets = {Partition(*partition): place.offset for partition, place in found.items() if place is not None}
        return offsets | self.ends(partition for partition in wanted if partition not in offsets)

    def close(self) -> None:
        self._watch.end()
        with suppress(kafka.errors.KafkaError):
            self._consumer.close(autocommit=False, timeout_ms=CLOSE_MS)

    def _unpark(self) -> None:
        """What is left of a fetch whose partition was paused meanwhile waits for the place of the fetch in hand to be None, which it never
        is as long as other partitions bring records: without this, a partition that was resumed is not read on."""
        fetcher = self._consumer._fetcher
        if fetcher._paused_partition_records and not fetcher._next_partition_records:
            fetcher._next_partition_records = None

    async def _ask(self, topics: Sequence[str]) -> None:
        """Runs on kafka-python's own thread."""
        cluster = self._consumer._cluster
        for topic in topics:
            cluster.add_topic(topic)
        try:
            await self._consumer._manager.wait_for(cluster.request_update(), REQUEST_MS)
        finally:
            _forget_absent(cluster, topics)

    def _look_up(self, find: Callable[..., dict[TopicPartition, int]], partitions: Iterable[Partition]) -> dict[Partition, int]:
        wanted = [TopicPartition(*partition) for partition in partitions]
        with _translated(self._watch, self._rights):
            found = find(wanted, timeout_ms=REQUEST_MS) if wanted else {}
        return {Partition(*partition): offset for partition, offset in found.items()}

    def _ours(self, partitions: Iterable[Partition]) -> list[TopicPartition]:
        assigned = self._consumer.assignment()
        return [one for partition in partitions if (one := TopicPartition(*partition)) in assigned]

    def _lags(self, partition: TopicPartition, since: float) -> bool:
        heard = self._heard.get(partition)
        state = self._consumer._subscription.assignment.get(partition)
        if heard is None or heard.at < since or state is None or state.position is None:
            return True
        return bool(state.position.offset < heard.end)

    def _listen(self) -> None:
        """Note what each fetch tells of the partitions that it asked for. Runs on kafka-python's own thread."""
        fetcher = self._consumer._fetcher
        handle = fetcher._handle_fetch_response

        def hear(node: int, fetch_offsets: Mapping[TopicPartition, int], sent: float, response: Any) -> None:
            handle(node, fetch_offsets, sent, response)
            if response.error_code or response.session_id == THROTTLED:
                return
            now = time.monotonic()
            told = {TopicPartition(topic.topic, one.partition_index): one for topic in response.responses for one in topic.partitions}
            for partition in fetch_offsets:
                if (one := told.get(partition)) is None:  # as before; else its end would be told anew
                    if (before := self._heard.get(partition)) is not None:
                        self._heard[partition] = before._replace(at=now)
                elif not one.error_code:
                    self._heard[partition] = _Heard(now, one.last_stable_offset if self._read_committed else one.high_watermark)

        fetcher._handle_fetch_response = hear


class KafkaPythonProducer:
    """Fulfils `transport.Producer`, but for one thing: kafka-python can't write a header without value, it becomes an empty one."""

    def __init__(self, settings: KafkaConnection, max_record_bytes: int, transactional_id: str | None = None, **options: object) -> None:
        defaults = {
            "transactional_id": transactional_id,
            "acks": "all",
            "enable_idempotence": True,
            "linger_ms": 5,
            "batch_size": 256 * 1024,
            "max_request_size": max_record_bytes + 64 * 1024,
            "delivery_timeout_ms": FOR_EVER_MS,
            "max_block_ms": settings.connect_timeout // MILLISECOND,
        }
        self.watch = Watch(settings)
        self.rights = Rights(settings, "Write", transactional_id=transactional_id)
        self._producer = _make(KafkaProducer, settings, {**defaults, **options}, self.watch, self.rights)
        self.watch.on_refusal(self._producer._sender.force_close)  # what waits for an acknowledgement fails
        if transactional_id is None:
            _outlive_refused_records(self._producer._transaction_manager)

    @property
    def trouble(self) -> str:
        return self.watch.trouble

    def count(self, topic: str) -> int:
        self.rights.topics.add(topic)
        with _translated(self.watch, self.rights):
            return _counts(self._producer._metadata, [topic], self._ask)[topic]

    def send(self, topic: str, record: WireRecord, done: Callable[[TransportError | None], None], partition: int | None = None) -> None:
        with _translated(self.watch, self.rights):
            self.require(topic)
            sent = _send(self._producer, Outgoing(topic, record, partition))
        sent.add_callback(lambda _: done(None))
        sent.add_errback(lambda error: done(self.watch.refusal or _meaning(error, self.rights)))

    def require(self, topic: str) -> None:
        """Raises Refused where there is no such topic, and none comes for seconds: brokers learn of a new one a moment later."""
        if self._producer._metadata.partitions_for_topic(topic) is None:
            deadline = time.monotonic() + REQUEST_MS / 1000
            while not self.count(topic):
                if time.monotonic() >= deadline:
                    raise _missing(topic)
                time.sleep(0.1)

    def _ask(self, topics: Sequence[str]) -> None:
        """The sender's thread asks; nobody else may drive the connections of a producer."""
        for topic in topics:
            self._producer._sender.add_topic(topic)
        answered = threading.Event()
        update = self._producer._metadata.request_update()
        update.add_both(lambda _: answered.set())
        self._producer._sender.wakeup()
        answered.wait(REQUEST_MS / 1000)
        self._producer._sender._client._net.call_soon_threadsafe(lambda: _forget_absent(self._producer._metadata, topics))
        if not update.is_done:
            raise kafka.errors.KafkaTimeoutError(f"no answer for {REQUEST_MS / 1000:g} s")
        if update.failed():
            raise update.exception

    def close(self, timeout: float) -> None:
        self.watch.end()
        _end(self._producer, timeout)


class KafkaPythonTransactions:
    """Fulfils `transport.TransactionalProducer`."""

    def __init__(self, settings: KafkaConnection, transactional_id: str, timeout: int, max_record_bytes: int) -> None:
        self._timeout = timeout / 1e9
        self._made = KafkaPythonProducer(
            settings,
            max_record_bytes,
            transactional_id,
            transaction_timeout_ms=timeout // MILLISECOND,
            linger_ms=0,
            retry_backoff_ms=20,  # the broker is still ending the transaction before: 100 ms is longer than that takes
        )
        self._producer = self._made._producer
        self._manager = self._producer._transaction_manager

    def open(self) -> None:
        with _translated(self._made.watch, self._made.rights):
            self._producer.init_transactions()

    def transact(self, records: Sequence[Outgoing], offsets: Mapping[Partition, Committed], group: str, membership: object) -> None:
        deadline = time.monotonic() + self._timeout
        self._made.rights.group = group
        with _translated(self._made.watch, self._made.rights):
            self._producer.begin_transaction()
            sent = []
            try:
                for record in records:
                    self._made.require(record.topic)
                    sent.append(_send(self._producer, record))
                if offsets:
                    member = membership if isinstance(membership, ConsumerGroupMetadata) else ConsumerGroupMetadata(group_id=group)
                    self._settle(self._manager.send_offsets_to_transaction(_offsets(offsets), member), deadline)
                ending = self._manager.begin_commit()
            except (kafka.errors.KafkaError, TransportError) as error:
                cause = self._cause(error, sent)
                self._abort(deadline)
                raise cause from None
            try:
                self._settle(ending, deadline)
            except kafka.errors.KafkaError as error:
                if not self._manager.has_abortable_error():
                    raise Passing(f"the transaction may or may not have been committed: {_told(error)}") from error
                cause = self._cause(error, sent)
                self._abort(deadline)
                raise cause from None

    def close(self, timeout: float) -> None:
        self._made.close(timeout)

    def _cause(self, error: Exception, sent: Sequence[Any]) -> Exception:
        """What came first: after the first failure all else fails with an error that only tells of it."""
        if type(error) is not kafka.errors.KafkaError:
            return error
        failures = (one.exception for one in sent if one.failed() and not isinstance(one.exception, kafka.errors.TransactionAbortedError))
        return next(failures, None) or self._manager.last_error or error

    def _abort(self, deadline: float) -> None:
        """Where it can't be aborted now, the broker does so in time, or the next producer with this id."""
        with suppress(kafka.errors.KafkaError):
            self._settle(self._manager.begin_abort(), deadline)
        self._manager._pending_txn_offset_commits.clear()  # kafka-python would commit them with the next transaction

    def _settle(self, result: Any, deadline: float) -> None:
        self._producer._sender.wakeup()
        while not result.wait(timeout_ms=min(max(deadline - time.monotonic(), 0.0), BETWEEN_LOOKS) * 1000):
            self._made.watch.check()
            if time.monotonic() >= deadline:
                raise kafka.errors.KafkaTimeoutError(f"no answer for {self._timeout:g} s")


THROTTLED = -1  # the session id of an answer that a quota has emptied


class _Heard(NamedTuple):
    """What a fetch last told of a partition: when, and the end of what may be read of it."""

    at: float
    end: int


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # kafka-python has no types
    """Called on kafka-python's own thread, where nothing may block: notes what happened for the polling thread."""

    def __init__(self, consumer: KafkaConsumer, note: Callable[[Rebalance], None]) -> None:
        self._consumer = consumer
        self._note = note
        self._generation = -1
        self._member = ""

    def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """Told of all partitions before each rebalance; which of them are lost, the assignment says."""

    def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        membership = self._consumer.group_metadata()
        unbroken = (membership.generation_id, membership.member_id) == (self._generation + 1, self._member)
        self._generation, self._member = membership.generation_id, membership.member_id
        self._note(Rebalance(frozenset(Partition(*one) for one in assigned), unbroken, membership))

    def on_partitions_lost(self, lost: set[TopicPartition]) -> None:
        self._generation, self._member = -1, ""
        self._note(Rebalance(frozenset(), False, None))


class _Connections(KafkaConnectionManager):  # type: ignore[misc]  # kafka-python has no types
    """Tells of every connection that fails. kafka-python's own producer spins for ever on a leader that has left the cluster: the error
    keeps it from reading who leads now."""

    def __init__(self, net: NetworkSelector, failed: Callable[[str], None], **configs: Any) -> None:
        super().__init__(net, **configs)
        self._failed = failed

    def get_connection(self, node_id: Any, *arguments: Any, **named: Any) -> Any:
        try:
            return super().get_connection(node_id, *arguments, **named)
        except kafka.errors.UnknownBrokerIdError:
            self.cluster.request_update()
            raise kafka.errors.NodeNotReadyError(node_id) from None

    async def _connect(self, node: Any, conn: Any, **named: Any) -> None:
        await super()._connect(node, conn, **named)
        if conn.init_future.failed() and not self.closed:
            self._failed(f"{node.host}:{node.port}")


def _make(make: Callable[..., T], settings: KafkaConnection, options: Mapping[str, Any], watch: Watch, rights: Rights) -> T:
    opened: list[KafkaNetClient] = []

    def client(**configs: Any) -> KafkaNetClient:
        net = NetworkSelector(**configs)
        opened.append(KafkaNetClient(net, _Connections(net, watch.failed, **configs)))
        return opened[0]

    try:
        return make(**connection_options(settings), **options, kafka_client=client)
    except kafka.errors.KafkaError as error:
        watch.end()
        for one in opened:  # kafka-python leaves its thread and its connections behind
            one.close()
        examine(settings)  # it says why; kafka-python raises a time-out
        raise _meaning(error, rights) from error


@contextmanager
def _translated(watch: Watch, rights: Rights) -> Iterator[None]:
    watch.check()
    try:
        yield
    except kafka.errors.KafkaError as error:
        raise watch.refusal or _meaning(error, rights) from error


def _meaning(error: BaseException, rights: Rights) -> TransportError:
    told = _told(error)
    if isinstance(error, TransportError):
        return error
    if isinstance(error, OUTDATED):
        return Outdated(told)
    if isinstance(error, (kafka.errors.RetriableError, *FENCED, *UNPROVEN)):
        return Passing(told)
    if isinstance(error, kafka.errors.FencedInstanceIdError):
        return Refused(f"another member of the group goes by the same instance ({told})", "give each replica an instance of its own")
    for kind, denied in UNAUTHORIZED:
        if isinstance(error, denied):
            named = error.args[0] if error.args else ()
            return rights.lacking(kind, {named} if isinstance(named, str) else set(named))
    if "ClusterAuthorizationFailedError" in told:  # of an idempotent producer that may not begin kafka-python tells in words alone
        return rights.lacking("cluster")
    if isinstance(error, TOO_LARGE):
        return TooLarge(told, "raise max.message.bytes of the topic, or publish less per record")
    if isinstance(error, kafka.errors.InvalidTopicError):
        return Refused(told, "choose a topic name of letters, digits, '.', '_' and '-'")
    return Refused(told)


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _missing(topic: str) -> Refused:
    return Refused(f"there is no topic {topic}", f"create it with kafka-topics.sh --create --topic {topic}")


def _counts(metadata: Any, topics: Iterable[str], ask: Callable[[list[str]], None]) -> dict[str, int]:
    """Asks the broker only for topics that are not known yet; those that are known are kept up to date by the client."""
    wanted = list(topics)
    for _ in range(2):  # the answer may be to a question of before
        if unknown := [topic for topic in wanted if not metadata.partitions_for_topic(topic)]:
            with suppress(kafka.errors.UnknownTopicOrPartitionError, kafka.errors.LeaderNotAvailableError):
                ask(unknown)
            if refused := metadata.unauthorized_topics & set(unknown):
                raise kafka.errors.TopicAuthorizationFailedError(refused)
    return {topic: len(metadata.partitions_for_topic(topic) or ()) for topic in wanted}


def _forget_absent(metadata: Any, topics: Iterable[str]) -> None:
    """A topic that is not there would be asked for ten times a second, each time with an error in the log. Runs on the client's thread."""
    metadata._topics -= {topic for topic in topics if not metadata.partitions_for_topic(topic)}


def _send(producer: KafkaProducer, outgoing: Outgoing) -> Any:
    topic, (key, value, headers, timestamp), partition = outgoing
    described = [(name, header or b"") for name, header in headers]
    try:
        return producer.send(topic, value, key, described, partition, max(timestamp // MILLISECOND, 0))
    except (TypeError, ValueError) as error:
        raise Refused(_told(error), "correct the topic's name or the partition") from error


def _outlive_refused_records(manager: Any) -> None:
    """kafka-python gives up an idempotent producer, and all that is on its way, for one record that the broker refuses. Kafka's own client
    goes on with a new epoch, and so does kafka-python after other errors."""
    classify = manager.classify_batch_error

    def classify_refused(error: Any, batch: Any, log_start_offset: int = -1) -> str:
        found: str = classify(error, batch, log_start_offset=log_start_offset)
        refused = found == manager.ERROR_CLASS_FATAL and type(error) not in manager._FATAL_ERRORS
        return manager.ERROR_CLASS_NEEDS_EPOCH_BUMP if refused else found

    manager.classify_batch_error = classify_refused


def _offsets(offsets: Mapping[Partition, Committed]) -> dict[TopicPartition, OffsetAndMetadata]:
    return {TopicPartition(*one): OffsetAndMetadata(offset, metadata and metadata + END, -1) for one, (offset, metadata) in offsets.items()}


def _records(fetched: Iterable[ConsumerRecord]) -> list[Record]:
    return [
        Record(topic, partition, offset, key, value, tuple(headers), timestamp * MILLISECOND if timestamp >= 0 else -1)
        for topic, partition, _, offset, timestamp, _, key, value, headers, *_ in fetched
    ]


def _end(producer: KafkaProducer, timeout: float) -> None:
    """Closes it; what is not acknowledged by then fails, and may or may not have been written."""
    try:
        producer.close(timeout)
    except kafka.errors.KafkaTimeoutError:
        producer._sender.force_close()  # kafka-python raises before it has ended its thread
        with suppress(kafka.errors.KafkaTimeoutError):
            producer.close(timeout)


def _text(path: object) -> str | None:
    return None if path is None else str(path)
