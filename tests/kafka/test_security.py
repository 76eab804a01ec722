"""TLS, passwords, client certificates and rights on a real broker: what works, and what is told where it does not."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from kafka import KafkaConsumer, TopicPartition

from streamfuse.clock import SystemClock
from streamfuse.codecs import WireRecord
from streamfuse.config import KafkaConnection, KafkaSinkSettings, KafkaSourceSettings
from streamfuse.errors import SinkError, SourceError
from streamfuse.kafka.clients import Reading, make_consumer, make_producer, make_transactional_producer
from streamfuse.kafka.transport import Committed, Outgoing, Partition, Passing, Refused, TransactionalProducer, TransportError
from streamfuse.sinks.kafka import KafkaSink
from streamfuse.sources.kafka import KafkaSource
from streamfuse.types import MILLISECOND, SECOND
from tests.kafka import traffic
from tests.kafka.rooms import NOON, Place, Published, records
from tests.kafka.secure import KEY_PASSWORD, PASSWORD, PLAIN_USER, SecureBroker
from tests.kafka.traffic import PATIENCE, produce
from tests.running import Running
from tests.sinks.contract import prediction

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.usefixtures("closed_sockets")]

SOON = 8  # seconds within which a start ends that waiting can't help
LATER = 20  # ... and a run; a refusal must have stood for seconds
TRANSPORTS = ("kafka-python", "confluent")
WAYS = ("SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN", "without TLS", "certificate", "locked key")


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class User:
    """One of the broker's users, and how it connects."""

    def __init__(self, broker: SecureBroker, way: str, transport: str, name: str) -> None:
        """`name` is that of the test; a user with a password is made anew."""
        made = broker.certificates
        self.broker = broker
        self.name = {"PLAIN": PLAIN_USER, "certificate": "client", "locked key": "client"}.get(way, name)
        self.options: dict[str, Any] = {"bootstrap": broker.secure, "security": "sasl_ssl", "ca_file": str(made.ca), "transport": transport}
        if way == "without TLS":
            self.options |= {
                "bootstrap": broker.open,
                "security": "sasl_plaintext",
                "ca_file": None,
                "username": name,
                "password": PASSWORD,
            }
            broker.set_password(name)
        elif way in ("certificate", "locked key"):
            self.options |= {"bootstrap": broker.mutual, "security": "ssl", "certificate_file": str(made.certificate)}
            self.options |= (
                {"key_file": str(made.key)} if way == "certificate" else {"key_file": str(made.locked_key), "key_password": KEY_PASSWORD}
            )
        else:
            self.options |= {"mechanism": way, "username": self.name, "password": PASSWORD}
            if way != "PLAIN":
                broker.set_password(self.name)

    def connection(self, **changed: object) -> KafkaConnection:
        return KafkaConnection.model_validate({name: value for name, value in (self.options | changed).items() if value is not None})

    def source(self, topic: str, group: str, **changed: object) -> KafkaSource:
        given = {"type": "kafka", "topics": {"text": topic}, "group": group, "start": "earliest"}
        return KafkaSource(KafkaSourceSettings.model_validate(self.options | given | changed), SystemClock())

    def sink(self, topic: str, **changed: object) -> KafkaSink:
        return KafkaSink(KafkaSinkSettings.model_validate(self.options | {"type": "kafka", "topic": topic} | changed))

    def may(self, kind: str, name: str, *rights: str, prefixed: bool = False) -> None:
        self.broker.allow(self.name, kind, name, rights, prefixed=prefixed)


@pytest.fixture
def room(secure_broker: SecureBroker, transport: str, unique: str) -> User:
    return User(secure_broker, "SCRAM-SHA-512", transport, unique)


# --- what works --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_with_the_rights_that_it_needs_a_user_reads_and_publishes_in_transactions(
    secure_broker: SecureBroker, unique: str, transport: str, way: str
) -> None:
    user = User(secure_broker, way, transport, unique)
    for topic in ("in", "out"):
        secure_broker.create_topic(f"{unique}-{topic}")
    user.may("topic", f"{unique}-in", "read")
    user.may("topic", f"{unique}-out", "write")
    user.may("group", unique, "read")
    user.may("transactional_id", f"{unique}-", "write", prefixed=True)
    produce(secure_broker, f"{unique}-in", ["hello"])

    settings = user.connection()
    consumer = make_consumer(settings, Reading(group=unique, start="earliest"))
    transactions = make_transactional_producer(settings, f"{unique}-1", 20 * SECOND)
    try:
        transactions.open()
        consumer.subscribe([f"{unique}-in"])
        membership, read = None, list[bytes | None]()
        deadline = time.monotonic() + PATIENCE
        while not read and time.monotonic() < deadline:
            polled = consumer.poll(0.5)
            membership = polled.rebalances[-1].membership if polled.rebalances else membership
            read += [record.value for records in polled.records.values() for record in records]
        done = {Partition(f"{unique}-in", 0): Committed(1, "done")}
        transactions.transact([Outgoing(f"{unique}-out", record("in a transaction"))], done, unique, membership)
        assert consumer.committed(done) == done
    finally:
        consumer.close()
        transactions.close(1)
    assert read == [b"hello"]
    assert publish(settings, f"{unique}-out", "alone") is None
    assert written(secure_broker, f"{unique}-out") == [b"in a transaction", b"alone"]


def test_a_name_with_signs_of_scram_logs_in(secure_broker: SecureBroker, unique: str, transport: str) -> None:
    name = f"{unique}=a,b"
    user = User(secure_broker, "SCRAM-SHA-512", transport, name)
    secure_broker.create_topic(unique)
    user.may("topic", unique, "write")
    assert publish(user.connection(), unique, "hello") is None


def record(text: str) -> WireRecord:
    return WireRecord(b"key", text.encode(), (), 1)


def publish(settings: KafkaConnection, topic: str, text: str) -> TransportError | None:
    """Why it could not be; None when it is durable."""
    producer = make_producer(settings)
    told: list[TransportError | None] = []
    done = threading.Event()

    def tell(error: TransportError | None) -> None:
        told.append(error)
        done.set()

    try:
        producer.send(topic, record(text), tell)
        assert done.wait(PATIENCE)
    finally:
        producer.close(1)
    return told[0]


def written(broker: SecureBroker, topic: str) -> list[bytes]:
    consumer = KafkaConsumer(bootstrap_servers=broker.bootstrap, auto_offset_reset="earliest", metrics_enabled=False)
    try:
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        end = consumer.end_offsets([partition])[partition]
        found: list[bytes] = []
        while consumer.position(partition) < end:
            for fetched in consumer.poll(500).values():
                found += [one.value for one in fetched]
        return found
    finally:
        consumer.close()


# --- what is refused at the start --------------------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "wrong password": ({"password": "wrong"}, "does not accept the username .* with this password .*; correct username, password"),
    "unknown user": ({"username": "nobody"}, "does not accept the username nobody with this password"),
    "password of PLAIN": (
        {"mechanism": "PLAIN", "username": PLAIN_USER, "password": "wrong"},
        f"does not accept the username {PLAIN_USER}",
    ),
    "mechanism": (
        {"at": "open", "mechanism": "PLAIN"},
        "does not take the mechanism PLAIN; set mechanism to what it offers: SCRAM-SHA-512",
    ),
    "untrusted": ({"ca_file": "other_ca"}, "certificate of localhost:.* is not trusted .*; set ca_file"),
    "system's authorities": ({"ca_file": None}, "certificate of localhost:.* is not trusted .*; set ca_file"),
    "expired": ({"at": "expired"}, "certificate of localhost:.* has expired; renew it"),
    "other host": ({"at": "elsewhere"}, "is for another host .*not valid for 'localhost'.*; use a name that stands in it"),
    "no certificate of ours": ({"at": "mutual", "key_file": None}, "wants a certificate of ours .*; set certificate_file and key_file"),
    "certificate of a stranger": ({"at": "mutual", "key_file": "stranger_key"}, "does not accept our certificate .*; set certificate_file"),
    "expired certificate of ours": ({"at": "mutual", "key_file": "late_key"}, "does not accept our certificate .* a pair that is valid"),
    "no TLS at a TLS port": ({"at": "secure", "security": "plaintext"}, "speaks TLS; set security: ssl"),
    "TLS at a port without": ({"at": "open"}, "speaks no TLS; correct the port in bootstrap"),
    "no password where one is wanted": (
        {"at": "secure", "security": "ssl"},
        "wants a username and a password .SCRAM.*; set security: sasl_ssl",
    ),
    "password where none is taken": ({"at": "mutual", "key_file": "key"}, "takes no username and password; set security: ssl"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refusal_is_one_sentence_with_cause_and_fix_and_comes_soon(
    secure_broker: SecureBroker, transport: str, unique: str, case: str
) -> None:
    changed, told = REFUSED[case]
    settings = refused_settings(User(secure_broker, "SCRAM-SHA-512", transport, unique), dict(changed))
    began = time.monotonic()
    with pytest.raises(Refused, match=told) as refused:
        make_consumer(settings, Reading(group=unique))
    assert time.monotonic() - began < SOON
    assert "\n" not in str(refused.value)
    assert "wrong" not in str(refused.value)
    assert PASSWORD not in str(refused.value)


def refused_settings(user: User, changed: dict[str, Any]) -> KafkaConnection:
    """`at` is a listener; files are named as in `Certificates`."""
    made = user.broker.certificates
    at = changed.pop("at", "secure")
    options: dict[str, Any] = {"bootstrap": getattr(user.broker, at)}
    if at in ("expired", "elsewhere") or (at == "mutual" and changed["key_file"] != "key"):
        options |= {"security": "ssl"}
    if at == "open" and "mechanism" in changed:
        options |= {"security": "sasl_plaintext"}
    if key := changed.pop("key_file", None):
        certificates = {"stranger_key": made.stranger, "late_key": made.late, "key": made.certificate}
        options |= {"key_file": getattr(made, key), "certificate_file": certificates[key]}
    if changed.get("ca_file"):
        changed["ca_file"] = getattr(made, changed["ca_file"])
    options |= changed
    if options.get("security") in ("ssl", "plaintext"):
        options |= dict.fromkeys(("username", "password", "mechanism"))
    if options.get("security") in ("plaintext", "sasl_plaintext"):
        options |= {"ca_file": None}
    return user.connection(**options)


# --- rights that are missing -------------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("granted", "told"),
    [
        ([("group", "", "read")], "User:{name} has no right to read the topic {name}; .*--operation Read --topic {name}$"),
        ([("topic", "", "read")], "User:{name} has no right to be a member of the group {name}; .*--operation Read --group {name}$"),
    ],
    ids=["topic", "group"],
)
async def test_a_source_without_a_right_ends_with_the_command_that_grants_it(
    secure_broker: SecureBroker, room: User, granted: list[tuple[str, str, str]], told: str
) -> None:
    secure_broker.create_topic(room.name)
    for kind, _, right in granted:
        room.may(kind, room.name, right)
    with pytest.raises(SourceError, match=told.format(name=room.name)) as refused, anyio.fail_after(SOON):
        async with room.source(room.name, room.name) as source:
            await traffic.Reading(source).forever()
    assert refused.value.exit_code == 5


@pytest.mark.anyio
@pytest.mark.parametrize("rights", [[], ["read"]], ids=["none", "read"])
async def test_a_sink_without_a_right_ends_with_the_command_that_grants_it(
    secure_broker: SecureBroker, room: User, rights: list[str]
) -> None:
    secure_broker.create_topic(room.name)
    room.may("topic", room.name, *rights)
    what = f"(the topic {room.name}; .* --topic {room.name}|any topic; .* --topic TOPIC)"  # who may write nowhere may not even begin
    told = f"User:{room.name} has no right to write to {what}"
    with pytest.raises(SinkError, match=told) as refused, anyio.fail_after(SOON):
        async with room.sink(room.name) as sink:
            await sink.publish([prediction()])
    assert refused.value.exit_code == 6


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (
            "transactional_id",
            "no right to use the transactional id {name}-1; .*Write --transactional-id {name}- --resource-pattern-type prefixed$",
        ),
        ("topic", "no right to write to the topic {name}; .*--operation Write --topic {name}$"),
        ("group", "no right to be a member of the group .*--operation Read --group .*"),
    ],
)
def test_transactions_without_a_right_end_with_the_command_that_grants_it(
    secure_broker: SecureBroker, room: User, kind: str, told: str
) -> None:
    """The group is one that the user was thrown out of after it had joined."""
    name = room.name
    for topic in (name, f"{name}-in"):
        secure_broker.create_topic(topic)
    room.may("topic", f"{name}-in", "read")
    room.may("group", name, "read")
    if kind != "topic":
        room.may("topic", name, "write")
    if kind != "transactional_id":
        room.may("transactional_id", f"{name}-", "write", prefixed=True)
    consumer = make_consumer(room.connection(), Reading(group=name, start="earliest"))
    transactions = make_transactional_producer(room.connection(), f"{name}-1", 20 * SECOND)
    try:
        consumer.subscribe([f"{name}-in"])
        membership = None
        deadline = time.monotonic() + PATIENCE
        while membership is None and time.monotonic() < deadline:
            membership = next((one.membership for one in consumer.poll(0.5).rebalances), None)
        if kind == "group":
            secure_broker.forbid(name, "group", name)
        began = time.monotonic()
        with pytest.raises(Refused, match=told.format(name=name)):
            transact(transactions, Partition(f"{name}-in", 0), name, membership)
        assert time.monotonic() - began < SOON
    finally:
        consumer.close()
        transactions.close(1)


def transact(transactions: TransactionalProducer, read: Partition, name: str, membership: object) -> None:
    transactions.open()
    transactions.transact([Outgoing(name, record("hello"))], {read: Committed(0, "")}, name, membership)


# --- what is refused later ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def running(secure_broker: SecureBroker, transport: str, unique: str) -> User:
    return reader_and_writer(secure_broker, transport, unique)


def reader_and_writer(broker: SecureBroker, transport: str, name: str) -> User:
    """One that may read and write the topic of its name, connected by way of the proxy."""
    user = User(broker, "SCRAM-SHA-512", transport, name)
    user.options["bootstrap"] = broker.proxied
    broker.create_topic(name)
    user.may("topic", name, "read", "write")
    user.may("group", name, "read")
    return user


async def change_password(user: User) -> None:
    await anyio.to_thread.run_sync(user.broker.set_password, user.name, "another")
    user.broker.proxy.cut()


async def let_certificate_expire(user: User) -> None:
    user.broker.proxy.target = int(user.broker.expired.rpartition(":")[2])
    user.broker.proxy.cut()


async def take_rights_away(user: User) -> None:
    for kind in ("group", "topic"):
        await anyio.to_thread.run_sync(user.broker.forbid, user.name, kind, user.name)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("change", "told"),
    [
        (change_password, "does not accept the username .* with this password"),
        (let_certificate_expire, "the certificate of localhost:.* has expired"),
        (take_rights_away, "has no right to"),
    ],
)
async def test_what_is_refused_later_ends_source_and_sink_with_the_same_sentence(
    secure_broker: SecureBroker, running: User, change: Any, told: str
) -> None:
    proxy = secure_broker.proxy
    try:
        async with running.source(running.name, running.name) as source, running.sink(running.name) as sink:
            await sink.publish([prediction()])
            reading = traffic.Reading(source)
            await reading.until(lambda: bool(reading.items))
            connections = proxy.connections
            await change(running)
            ended = []

            async def end(kind: type[Exception], doing: Awaitable[None]) -> None:
                with pytest.raises(kind, match=told) as refused:
                    await doing
                ended.append(str(refused.value))

            async def publish_on() -> None:
                while True:
                    await sink.publish([prediction()])
                    await anyio.sleep(0.05)

            with anyio.fail_after(LATER):
                async with anyio.create_task_group() as group:
                    group.start_soon(end, SourceError, reading.forever())
                    group.start_soon(end, SinkError, publish_on())
            assert proxy.connections - connections < 100  # librdkafka's consumer tries 20 times a second, kafka-python 3 times
    finally:
        proxy.target = secure_broker.behind_proxy
    assert all("\n" not in sentence and PASSWORD not in sentence for sentence in ended)


def test_transactions_that_are_refused_later_end_with_the_same_sentence(secure_broker: SecureBroker, running: User) -> None:
    running.may("transactional_id", f"{running.name}-", "write", prefixed=True)
    outgoing = [Outgoing(running.name, record("hello"))]

    def transact_on() -> None:
        """As a delivery does it: after what passes, with another producer."""
        while True:
            producer = make_transactional_producer(running.connection(), f"{running.name}-1", 20 * SECOND)
            try:
                producer.open()
                producer.transact(outgoing, {}, running.name, None)
                if not changed:
                    secure_broker.set_password(running.name, "another")
                    secure_broker.proxy.cut()
                    changed.append(time.monotonic())
                producer.transact(outgoing, {}, running.name, None)
            except Passing:
                pass
            finally:
                producer.close(1)

    changed: list[float] = []
    with pytest.raises(Refused, match=r"does not accept the username .* with this password"):
        transact_on()
    assert time.monotonic() - changed[0] < LATER


@pytest.mark.anyio
async def test_a_secure_broker_that_restarts_is_waited_for(secure_broker: SecureBroker, unique: str) -> None:
    """By both clients, as a restart takes long."""
    async with AsyncExitStack() as stack:
        sinks, readings = [], []
        for transport in TRANSPORTS:
            user = reader_and_writer(secure_broker, transport, f"{unique}-{transport}")
            sinks.append(await stack.enter_async_context(user.sink(user.name)))
            readings.append(traffic.Reading(await stack.enter_async_context(user.source(user.name, user.name))))
            await sinks[-1].publish([prediction(1)])
        secure_broker.kill()
        async with anyio.create_task_group() as group:
            for sink in sinks:
                group.start_soon(sink.publish, [prediction(2)])
            await anyio.to_thread.run_sync(secure_broker.start)
        for reading in readings:
            await reading.until(partial(enough, reading))


def enough(reading: traffic.Reading) -> bool:
    return len(reading.items) >= 2


# --- a whole daemon ----------------------------------------------------------------------------------------------------------------------


def daemon_config(place: Place, user: User, folder: Path) -> dict[str, Any]:
    """Its secrets come from files; the rights are the least that it needs."""
    password, key_password = folder / "password", folder / "key-password"
    for file, secret in ((password, PASSWORD), (key_password, KEY_PASSWORD)):
        file.touch(mode=0o600)
        file.write_text(f"{secret}\n")
    made = user.broker.certificates
    secure = {name: value for name, value in user.options.items() if name != "password"} | {"password_file": str(password)}
    secure |= {"certificate_file": str(made.certificate), "key_file": str(made.locked_key), "key_password_file": str(key_password)}
    config = place.config()
    config["sources"] = [{**config["sources"][0], **secure, "watermarks_topic": f"{place.name}.watermarks"}]
    config["sinks"] = [{**config["sinks"][0], **secure}]
    config["dead_letters"] = {"type": "kafka", "topic": f"{place.name}.dead-letters", "max_share": 1, **secure}
    for name in ("watermarks", "dead-letters"):
        place.broker.create_topic(f"{place.name}.{name}")
    for topic in place.topics.values():
        user.may("topic", topic, "read")
    user.may("topic", f"{place.name}.watermarks", "read", "write")
    user.may("topic", f"{place.name}.dead-letters", "write")
    user.may("group", place.name, "read")
    if place.delivery == "exactly_once":
        user.may("topic", f"{place.name}.predictions", "write")
        user.may("transactional_id", f"{place.name}-", "write", prefixed=True)
    else:
        config["sinks"][0] |= {"mechanism": "PLAIN", "username": PLAIN_USER}
        user.broker.allow(PLAIN_USER, "topic", f"{place.name}.predictions", ["write"])
    return config


@pytest.mark.parametrize(("transport", "delivery"), [("kafka-python", "at_least_once"), ("confluent", "exactly_once")])
def test_a_daemon_runs_with_the_least_rights_and_says_no_secret(
    secure_broker: SecureBroker, unique: str, tmp_path: Path, transport: str, delivery: str
) -> None:
    place = Place.make(secure_broker, unique, delivery=delivery, transport=transport)
    user = User(secure_broker, "SCRAM-SHA-512", transport, unique)
    config = {**daemon_config(place, user, tmp_path), "log": {"level": "debug"}}
    sent = place.publish(records(1, ["room-1"], 0, 5))
    produce(secure_broker, place.topics["video"], ["this is no picture"], "room-1", 0, NOON // MILLISECOND)
    with Published(place) as published, Running(tmp_path / "daemon", config) as daemon:
        published.until_there([window.id for window in place.windows(sent)], daemon)
        daemon.until(lambda: bool(written(secure_broker, f"{unique}.dead-letters")))
        pages = [daemon.get(path)[1] for path in ("/", "/metrics", "/livez", "/readyz", "/status")]
        code, said = daemon.terminate()
    assert code == 0, said
    assert "streamfuse_windows_total" in pages[1]
    assert "ready" in said
    for secret in (PASSWORD, KEY_PASSWORD):
        assert secret not in "".join([said, *pages])


@pytest.mark.parametrize(("part", "transport", "code"), [("sources", "confluent", 5), ("sinks", "kafka-python", 6)])
def test_a_daemon_that_is_refused_ends_soon_with_one_sentence(
    secure_broker: SecureBroker, unique: str, tmp_path: Path, part: str, transport: str, code: int
) -> None:
    place = Place.make(secure_broker, unique, transport=transport)
    user = User(secure_broker, "SCRAM-SHA-512", transport, unique)
    config = daemon_config(place, user, tmp_path)
    wrong = {"mechanism": "SCRAM-SHA-256", "username": unique, "password": "mistyped-1234", "password_file": None}
    config[part][0] = {**config[part][0], **wrong}
    with Running(tmp_path / "daemon", config) as daemon:
        daemon.notified("STATUS=opening sources and sinks")
        began = time.monotonic()
        ended, said = daemon.ended()
        assert time.monotonic() - began < LATER
    assert ended == code, said
    told = [line for line in said.splitlines() if "does not accept the username" in line]
    assert len(told) == 1, said
    assert told[0].startswith("streamfuse: ")
    assert "connects to" not in said  # it did not try again
    assert "mistyped" not in said


@pytest.mark.parametrize("way", ["PLAIN", "SCRAM-SHA-512", "locked key"])
def test_no_log_of_a_client_holds_a_secret(
    secure_broker: SecureBroker, unique: str, transport: str, way: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not at debug level either, and not of a program that logs all that its libraries say."""
    caplog.set_level(logging.DEBUG)
    if transport == "confluent":
        from streamfuse.kafka import confluent

        options = confluent.connection_options
        monkeypatch.setattr(confluent, "connection_options", lambda settings: {**options(settings), "debug": "all"})
    user = User(secure_broker, way, transport, unique)
    secure_broker.create_topic(unique)
    user.may("topic", unique, "write")
    settings = user.connection()
    assert publish(settings, unique, "hello") is None
    logged = caplog.text
    assert len(logged) > 10_000
    assert "Authenticated as" in logged or transport == "confluent" or way == "locked key"
    for secret in (PASSWORD, KEY_PASSWORD):
        assert secret not in logged + repr(settings) + str(settings)
