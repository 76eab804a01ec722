"""What we ask of a Kafka client: the seam behind which kafka-python and confluent-kafka are exchangeable.

A client of ours blocks, knows nothing of asyncio and decides nothing. What waiting cures is raised as `Passing`, what it does not cure as
`Refused` with the cause and the fix; no error of a client's own leaves this package.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from streamfuse.codecs import Record, WireRecord


class TransportError(Exception):
    """Raised by a client; the message says what the broker or the network said."""


class Passing(TransportError):
    """The broker is away, or the group is in motion: trying again cures it."""


class Outdated(Passing):
    """The group has moved on without us: what was asked was not done, and the next poll tells what is ours now."""


class Refused(TransportError):
    """Waiting won't help. `cause` is what was found, `fix` what to change."""

    def __init__(self, cause: str, fix: str = "check the brokers' logs") -> None:
        super().__init__(f"{cause}; {fix}")
        self.cause = cause
        self.fix = fix


class TooLarge(Refused):
    """The record is greater than its topic takes."""


class Partition(NamedTuple):
    topic: str
    number: int

    @property
    def name(self) -> str:
        """As positions and cursors name it."""
        return f"{self.topic}/{self.number}"


class Committed(NamedTuple):
    """What a group has committed for a partition: the next offset to read, and a text of up to 4,095 bytes.

    The text comes back as it was where one of our clients has committed it; of what others have, nothing is certain but the offset.
    """

    offset: int
    metadata: str


class Rebalance(NamedTuple):
    """The group has shared out its partitions anew; `assigned` are all that are ours now.

    `unbroken`: those that were ours before and still are have been nobody else's in between. `membership` is what a transaction shows the
    broker to prove that we are a member of this very generation; taken when the assignment came, so that an older one is found out.
    """

    assigned: frozenset[Partition]
    unbroken: bool
    membership: object


@dataclass(frozen=True, slots=True)
class Polled:
    """What one poll brought: first the rebalances, in order; then records, in the order of their offsets within a partition."""

    rebalances: Sequence[Rebalance] = ()
    records: Mapping[Partition, Sequence[Record]] = field(default_factory=dict)


class Consumer(Protocol):
    """A member of a group (`subscribe`), or a reader of partitions that it names itself (`assign`).

    Belongs to the thread that polls. Calls other than `poll` return within a few
    seconds or raise Passing.
    """

    def subscribe(self, topics: Sequence[str]) -> None:
        """Join the group; the assignment comes with a later `poll`. Range assignor: partition n of all topics goes to one member.

        A partition begins where the group has committed, unless `seek` sends it elsewhere before the `poll` after the one that told of it.
        """
        ...

    def assign(self, offsets: Mapping[Partition, int]) -> None:
        """Read these partitions from these offsets on, outside any group."""
        ...

    def poll(self, timeout: float) -> Polled:
        """Waits up to `timeout` seconds for records, and no longer than until a rebalance. Nothing else keeps the membership alive for
        longer than minutes.

        Partitions that a rebalance has brought, and that are not `unbroken`, have no records in the same poll.
        """
        ...

    def lagging(self, partitions: Iterable[Partition]) -> frozenset[Partition]:
        """Those of which records may be there that no poll has brought yet: the position is behind the end as last heard, or nothing was
        heard lately, as the partition is paused or its broker is away. Does not block.

        What an open transaction has written is not there yet for a consumer that reads committed records only.
        """
        ...

    def seek(self, partition: Partition, offset: int) -> None:
        """The next record of the partition is the one at this offset, or the first after it. Like `pause` and `resume`, passes over what is
        not ours any more."""
        ...

    def pause(self, partitions: Iterable[Partition]) -> None:
        """Bring no records of these; a partition that a rebalance brings is not paused."""
        ...

    def resume(self, partitions: Iterable[Partition]) -> None: ...

    def committed(self, partitions: Iterable[Partition]) -> dict[Partition, Committed]:
        """What the group has committed; without those for which it has nothing. Waits out a transaction that is just being committed."""
        ...

    def commit(self, offsets: Mapping[Partition, Committed]) -> None:
        """Returns when it is durable. Raises Outdated where the group has moved on."""
        ...

    def counts(self, topics: Iterable[str]) -> dict[str, int]:
        """Topic -> number of partitions; 0 where there is no such topic."""
        ...

    def begins(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """The oldest offset of each."""
        ...

    def ends(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """The next offset of each; of a consumer that reads committed records only, the end of those."""
        ...

    def since(self, partitions: Iterable[Partition], time: int) -> dict[Partition, int]:
        """The first offset of each whose record's timestamp is at `time` (ns UTC) or later; the end where there is none."""
        ...

    def close(self) -> None:
        """Leave the group (a static member stays) and end; returns within seconds."""
        ...


class Producer(Protocol):
    """Idempotent, acknowledged by all replicas, in order within a partition. May be used from any thread.

    What is not acknowledged is repeated for as long as it takes.
    """

    @property
    def trouble(self) -> str:
        """What the client has last complained of; empty where it has not."""
        ...

    def count(self, topic: str) -> int:
        """The topic's number of partitions, 0 where there is none. Raises Passing where the broker does not answer."""
        ...

    def send(self, topic: str, record: WireRecord, done: Callable[[TransportError | None], None], partition: int | None = None) -> None:
        """Hands the record over; `done` is called later, on any thread, with None when it is durable.

        Without `partition` the key decides (murmur2, as Kafka's own client does it). Raises Passing where there is no room for it now, and
        Refused where it can't be sent at all: its topic does not exist, or it is too large.
        """
        ...

    def close(self, timeout: float) -> None:
        """Wait up to `timeout` seconds for what is on its way, and end."""
        ...


class Outgoing(NamedTuple):
    topic: str
    record: WireRecord
    partition: int | None = None


class TransactionalProducer(Protocol):
    """Makes several records and a group's offsets durable together, or none of them. Belongs to one thread at a time."""

    def open(self) -> None:
        """End what an earlier producer with our transactional id has left open: commit what it had begun to commit, abort the rest."""
        ...

    def transact(self, records: Sequence[Outgoing], offsets: Mapping[Partition, Committed], group: str, membership: object) -> None:
        """One transaction, from begin to commit; returns when it is durable.

        Raises Outdated where the group has moved on, and nothing was done; Passing where it may or may not have been done: `close` this
        producer, make another, `open` it, and see by `Consumer.committed` whether it was. So it is too where another producer with our
        transactional id has been opened, or the broker has given up on the transaction, which nobody can tell apart. Raises Refused where
        waiting won't help; nothing was done. Blocks for no longer than about the transaction's timeout.
        """
        ...

    def close(self, timeout: float) -> None: ...


@dataclass(frozen=True, slots=True)
class ClientInfo:
    """Which client this is, for logs and metrics."""

    transport: str
    version: str
    crc32c: str
    """`native` where checksums cost nothing worth telling."""


@dataclass(frozen=True, slots=True)
class TopicDescription:
    """A topic as it is. `replication` is that of the partition with the fewest replicas; `configs` is None where we may not read it."""

    partitions: int
    replication: int
    configs: Mapping[str, str] | None

    def config(self, name: str, otherwise: str) -> str:
        return otherwise if self.configs is None else self.configs.get(name, otherwise)

    def number(self, name: str) -> int | None:
        text = self.config(name, "")
        return int(text) if text.removeprefix("-").isdigit() else None


class NewTopic(NamedTuple):
    """A topic to be; the brokers' defaults hold for what is None and for all other configs."""

    name: str
    partitions: int | None
    replication: int | None
    configs: Mapping[str, str]


class Admin(Protocol):
    """Looks at topics and makes new ones. Its calls return within seconds or raise Passing; they raise Refused where a right is missing."""

    def describe(self, topics: Iterable[str]) -> dict[str, TopicDescription]:
        """Those of them that are there."""
        ...

    def create(self, topics: Sequence[NewTopic]) -> None:
        """Returns when they can be described. Passes over those that are there already."""
        ...

    def close(self) -> None: ...
