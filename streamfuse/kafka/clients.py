"""Makes the Kafka clients that the config asks for; each client library is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal, TypeVar

import anyio
import anyio.to_thread

from streamfuse.config import KafkaConnection
from streamfuse.kafka.client import Patience
from streamfuse.kafka.examination import examine
from streamfuse.kafka.transport import Admin, ClientInfo, Consumer, Passing, Producer, Refused, TransactionalProducer
from streamfuse.types import SECOND

T = TypeVar("T")

MODULES = {"kafka-python": "streamfuse.kafka.kafka_python", "confluent": "streamfuse.kafka.confluent"}
ADMINS = {"kafka-python": "streamfuse.kafka.kafka_python_admin", "confluent": "streamfuse.kafka.confluent_admin"}
MAX_RECORD_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Reading:
    """How a consumer reads.

    `group` is the group that it is a member of, or whose commits it reads; `instance` its name there, by which it gets its partitions back
    after a restart (static membership). `start` is where a partition begins without a commit, or with one to records that are no longer
    there. `session_timeout` (ns) is for how long a silent member keeps its partitions. `fetch_bytes` bounds one fetch.
    """

    group: str | None = None
    instance: str | None = None
    start: Literal["earliest", "latest"] = "latest"
    read_committed: bool = True
    session_timeout: int = 10 * SECOND
    fetch_bytes: int = 50 * 1024 * 1024


def make_consumer(settings: KafkaConnection, reading: Reading) -> Consumer:
    """Blocks for a few times `connect_timeout` at most. Raises Passing where the broker is away, Refused where waiting won't help."""
    examine(settings)
    consumer: Consumer = _module(settings).make_consumer(settings, reading)
    return consumer


def make_producer(settings: KafkaConnection, max_record_bytes: int = MAX_RECORD_BYTES) -> Producer:
    """Like `make_consumer`."""
    examine(settings)
    producer: Producer = _module(settings).make_producer(settings, max_record_bytes)
    return producer


def make_transactional_producer(
    settings: KafkaConnection, transactional_id: str, timeout: int, max_record_bytes: int = MAX_RECORD_BYTES
) -> TransactionalProducer:
    """Like `make_consumer`. The broker aborts a transaction that is open for longer than `timeout` (ns)."""
    examine(settings)
    producer: TransactionalProducer = _module(settings).make_transactional_producer(settings, transactional_id, timeout, max_record_bytes)
    return producer


def make_admin(settings: KafkaConnection) -> Admin:
    """Like `make_consumer`."""
    examine(settings)
    admin: Admin = import_module(ADMINS[settings.transport]).make_admin(settings)
    return admin


def client_info(settings: KafkaConnection) -> ClientInfo:
    """Raises Refused where the client can't be used here."""
    info: ClientInfo = _module(settings).client_info()
    return info


async def connect(make: Callable[[], T], settings: KafkaConnection, what: str) -> T:
    """Makes a client as soon as a broker takes it; waits for that as long as it takes, and says so in the log.

    A cancellation is heeded within a few times `connect_timeout`. Raises Refused where waiting won't help.
    """
    patience = Patience(f"{what} connects to {settings.bootstrap}")
    while True:
        try:
            client = await anyio.to_thread.run_sync(make)
        except Passing as error:
            await anyio.sleep(patience.delay(str(error)))
        else:
            patience.over()
            return client


def _module(settings: KafkaConnection) -> Any:
    try:
        return import_module(MODULES[settings.transport])
    except ModuleNotFoundError as error:
        package = (error.name or "").replace("_", "-")
        raise Refused(f"expected the package {package}, found none", "pip install 'streamfuse[fast]'") from error
