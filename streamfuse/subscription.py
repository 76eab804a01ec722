"""Predictions for a program that reads them: `async for prediction in streamfuse.subscribe("localhost:9092"): ...`."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, TypedDict, Unpack

import anyio
from pydantic import ValidationError

from streamfuse.codecs import Record
from streamfuse.config import KafkaConnection
from streamfuse.errors import ConfigError, InvalidRecord, Problem
from streamfuse.loading import problems_of
from streamfuse.records import FileRecords, Records, TopicRecords
from streamfuse.sieve import Sieve
from streamfuse.topics import Topics
from streamfuse.types import Prediction

REMEMBER = 20_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class ConnectionOptions(TypedDict, total=False):
    """What `KafkaConnection` has besides the brokers, as in the config; durations are written as `10s`."""

    transport: Literal["kafka-python", "confluent"]
    security: Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"]
    ca_file: str | Path | None
    certificate_file: str | Path | None
    key_file: str | Path | None
    key_password: str | None
    key_password_file: str | Path | None
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
    username: str | None
    password: str | None
    password_file: str | Path | None
    connect_timeout: str


def subscribe(
    where: str | Path | KafkaConnection | Topics,
    *,
    topic: str = "predictions",
    key: str | None = None,
    group: str | None = None,
    start: Literal["latest", "earliest"] | datetime = "latest",
    read_committed: bool = True,
    follow: bool = False,
    remember: int = REMEMBER,
    on_invalid: Callable[[Record, InvalidRecord], None] | None = None,
    **connection: Unpack[ConnectionOptions],
) -> Subscription:
    """Predictions as they are published: `async for prediction in subscribe("localhost:9092", topic="predictions", key="room-1")`.

    `where` is brokers (`host:port`, comma separated), the settings of a connection, in-process topics, or a JSONL file: a `Path`, a text
    that ends in `.jsonl` or has a `/` in it, or `-` for standard input. `key` asks for one key only.

    Of each window `(key, start, end)` the latest revision comes: a repeat is dropped, and so is a revision older than one that came
    before; a later one comes. This is known of the last `remember` windows; a repeat of one further back comes again. With `remember=0`
    every record comes.

    With a `group` it resumes where the group stopped, and several members share the topic's partitions. A prediction is processed when the
    next one is asked for, and only then committed: every second, at the close, and by `commit`. So a crash repeats at most the predictions
    of the last second and the one in hand, and so does a partition that moves to another member. To recognize repeats of what came before
    a restart, up to `remember` records before the group's place are read again, silently.

    `start` is where to begin without a group, or where the group has no place yet; a time means the first prediction published at it or
    later. `read_committed=False` also reads what an exactly-once daemon has not committed yet, or has aborted. In-process topics take no
    group and no time. A file is read from its beginning to its end; with `follow` it then waits for more.

    A record that is no prediction is counted, told by the log or to `on_invalid`, and passed over. A broker that is away is waited for,
    and the log says so. Raises ConfigError for options that don't go together; iterating raises SourceError where waiting won't help.
    """
    if remember < 0:
        raise _wrong("remember", f"expected 0 or more windows, found {remember}")
    if not isinstance(start, datetime) and start not in ("latest", "earliest"):
        raise _wrong("start", f"expected latest, earliest or a datetime, found {start!r}")
    sieve = Sieve(key, remember, on_invalid)
    if isinstance(where, Path | Topics) or (isinstance(where, str) and _names_a_file(where)):
        for name in sorted(connection):
            raise _wrong(name, "is for Kafka only; leave it out")
        if group is not None or isinstance(start, datetime):
            raise _wrong("start" if group is None else "group", "is for Kafka only; leave it out")
        if isinstance(where, Topics):
            return Subscription(TopicRecords(where, topic, start == "earliest"), sieve)
        return Subscription(FileRecords(str(where), follow), sieve)
    if follow:
        raise _wrong("follow", "is for files only, a Kafka topic is always followed; leave it out")
    if isinstance(where, KafkaConnection):
        for name in sorted(connection):
            raise _wrong(name, "is given beside a KafkaConnection, which has it already; set it there")
    else:
        where = _connection(where, connection)
    from streamfuse.kafka.records import KafkaRecords
    from streamfuse.kafka.security import require_sound
    from streamfuse.kafka.tail_poller import Tail

    require_sound(where)
    begin = start if isinstance(start, str) else _nanoseconds(start)
    return Subscription(KafkaRecords(where, Tail(topic, group, begin, remember, read_committed)), sieve)


class Subscription:
    """Iterate over it: `async for prediction in subscription`. Does nothing until then.

    Close it with `async with`, or `aclose`. One that is simply left commits and ends by itself when nothing refers to it any more, or when
    the process ends. Belongs to one task at a time. Cancelling the wait for the next prediction loses none.
    """

    def __init__(self, records: Records, sieve: Sieve) -> None:
        self._records = records
        self._sieve = sieve
        self._record: Record | None = None
        self._is_open = False
        self._closed = False
        self._asking: anyio.CancelScope | None = None
        self._left = weakref.finalize(self, records.abandon)

    @property
    def record(self) -> Record | None:
        """The record of the prediction that came last, as it stands in the topic or the file: its bytes, headers and offset."""
        return self._record

    @property
    def repeats(self) -> int:
        """How many records were dropped because their window had come before, in the same or a later revision."""
        return self._sieve.repeats

    @property
    def invalid(self) -> int:
        """How many records were passed over because they are no predictions."""
        return self._sieve.invalid

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Prediction:
        """Says that the prediction before was processed, and waits for the next. Raises SourceError where waiting won't help."""
        if self._asking is not None:
            raise RuntimeError("expected one task to ask for the next prediction, found a second one; give each a subscription of its own")
        try:
            with anyio.CancelScope() as self._asking:
                if (prediction := await self._next()) is not None:
                    return prediction
        finally:
            self._asking = None
        raise StopAsyncIteration

    async def commit(self) -> None:
        """Says that all predictions so far were processed, the last one included; returns when the group's place after them is durable.

        Raises SourceError without a group.
        """
        await self._open()
        await self._records.commit()

    async def aclose(self) -> None:
        """Commits what was processed, leaves the group and ends, within seconds; the iteration ends too."""
        self._closed = True
        self._left.detach()
        if self._asking is not None:
            self._asking.cancel()
        await self._records.close()

    async def __aenter__(self) -> Self:
        """Waits for the broker and the topic. Raises SourceError where waiting won't help."""
        await self._open()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        await self.aclose()

    async def _next(self) -> Prediction | None:
        await self._open()
        while not self._closed and (taken := await self._records.next()) is not None:
            prediction = self._sieve.sift(*taken)
            if prediction is not None:
                self._record = taken[0]
                return prediction
        return None

    async def _open(self) -> None:
        if not self._is_open and not self._closed:
            await self._records.open()
            self._is_open = True


def _names_a_file(where: str) -> bool:
    return where == "-" or "/" in where or where.endswith(".jsonl")


def _connection(bootstrap: str, options: ConnectionOptions) -> KafkaConnection:
    try:
        return KafkaConnection.model_validate({"bootstrap": bootstrap, **options})
    except ValidationError as error:
        raise ConfigError(list(problems_of(error, KafkaConnection))) from None


def _nanoseconds(time: datetime) -> int:
    if time.tzinfo is None:
        raise _wrong("start", f"expected a time with its zone, found {time}; make it with tzinfo=, such as datetime.UTC")
    return (time - _EPOCH) // timedelta(microseconds=1) * 1000


def _wrong(option: str, message: str) -> ConfigError:
    return ConfigError([Problem(option, message)])
