"""Exactly once, decided without a broker: what goes into a transaction, and what happens when it fails."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Self

import pytest

from streamfuse.codecs import prediction_from_json
from streamfuse.errors import SinkError
from streamfuse.kafka import client
from streamfuse.kafka.cursor import Commits
from streamfuse.kafka.exactly_once import ExactlyOnce, Offer
from streamfuse.kafka.transport import Committed, Outdated, Outgoing, Partition, Passing, Refused, TransportError
from streamfuse.metrics import Metrics
from streamfuse.testing import ManualClock, predict
from streamfuse.types import Cursor, Emitted, Item, Offsets, Packet, Position, Rest, Window

pytestmark = pytest.mark.anyio


class Broker:
    """What stands in the topics and in the group, and what the next transactions come to."""

    def __init__(self, *fates: TransportError | tuple[TransportError, bool]) -> None:
        self.fates = list(fates)
        self.published: list[tuple[str, int]] = []
        self.transactions: list[list[tuple[str, int]]] = []
        self.committed: dict[Partition, Committed] = {}
        self.memberships: list[object] = []
        self.meanwhile: Callable[[], None] | None = None
        self.opened = 0

    def open(self) -> None:
        self.opened += 1

    def close(self, timeout: float) -> None: ...

    def transact(self, records: Sequence[Outgoing], offsets: Mapping[Partition, Committed], group: str, membership: object) -> None:
        self.memberships.append(membership)
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        fate = self.fates.pop(0) if self.fates else None
        error, done = fate if isinstance(fate, tuple) else (fate, fate is None)
        if done:
            predictions = [prediction_from_json(outgoing.record.value or b"") for outgoing in records]
            self.transactions.append([(prediction.key, prediction.start) for prediction in predictions])
            self.published += self.transactions[-1]
            self.committed.update(offsets)
        if error is not None:
            raise error


class Member:
    """A source whose partitions can be revoked; partition `n` holds the key `n`."""

    name = "member"
    streams = frozenset({"text"})
    group = "group"
    behind = False

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.membership: object = 1
        self.lost: list[frozenset[str]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        return None

    async def commit(self, cursor: Cursor) -> None:
        raise AssertionError("offsets are committed by the transaction")

    def revoke(self, *keys: str) -> None:
        self.lost.append(frozenset(f"topic/{key}" for key in keys))
        self.membership = len(self.lost) + 1

    def revoked_since(self, revokes: int) -> frozenset[str]:
        return frozenset().union(*self.lost[revokes:])

    async def offer(self, cursor: Cursor) -> Offer:
        gone = self.revoked_since(0)
        marks = str(dict(cursor.watermarks))
        offsets = {
            Partition("topic", int(name.rpartition("/")[2])): Committed(offsets.needed, marks)
            for name, offsets in cursor.offsets.items()
            if name not in gone
        }
        return Offer(offsets, (), Commits())

    def settle(self, offer: Offer) -> None:
        assert all(self.broker.committed[partition] == committed for partition, committed in offer.offsets.items())

    async def committed(self, partitions: Iterable[Partition]) -> dict[Partition, Committed]:
        return {partition: self.broker.committed[partition] for partition in partitions if partition in self.broker.committed}

    async def batches(self) -> AsyncIterator[Sequence[Item]]:
        yield []


def window(key: str, at: int, *, cursor: bool = True, revokes: int = 0) -> Emitted:
    position = Position(f"topic/{key}", at)
    packet = Packet("text", key, at, 1, "word", position, at)
    after = Cursor({position.partition: Offsets(at + 1, at + 1)}, {key: at + 1}) if cursor else None
    return Emitted(Window(key, at, at + 1, {"text": (packet,)}, cursor=after), (revokes,))


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "FIRST_DELAY", 0.0)


def delivery(source: Member) -> ExactlyOnce:
    return ExactlyOnce(source, ["predictions"], lambda: source.broker, ManualClock(), Metrics())


async def publish(to: ExactlyOnce, *emitted: Emitted) -> None:
    await to.publish(emitted, [predict(one.window) for one in emitted])


async def test_nothing_is_published_before_the_commit_and_then_all_at_once() -> None:
    broker = Broker()
    async with delivery(Member(broker)) as exactly_once:
        await publish(exactly_once, window("1", 0), window("2", 0))
        await publish(exactly_once, window("1", 1))
        assert broker.published == []
        await exactly_once.commit()
    assert broker.transactions == [[("1", 0), ("2", 0), ("1", 1)]]
    assert {partition.number: committed.offset for partition, committed in broker.committed.items()} == {1: 2, 2: 1}


async def test_a_window_behind_which_there_is_no_cursor_waits_for_the_next_that_has_one() -> None:
    broker = Broker()
    async with delivery(Member(broker)) as exactly_once:
        await publish(exactly_once, window("1", 0), window("1", 1, cursor=False))
        await exactly_once.commit()
        assert broker.transactions == [[("1", 0)]]
        assert not exactly_once.pending
        await publish(exactly_once, window("1", 2))
        await exactly_once.commit()
    assert broker.transactions[1:] == [[("1", 1), ("1", 2)]]


async def test_windows_of_a_revoked_partition_are_not_published() -> None:
    broker = Broker()
    source = Member(broker)
    async with delivery(source) as exactly_once:
        await publish(exactly_once, window("1", 0), window("2", 0))
        source.revoke("1")
        await exactly_once.commit()
        assert broker.published == [("2", 0)]
        assert set(broker.committed) == {Partition("topic", 2)}
        await publish(exactly_once, window("1", 1))  # was on its way
        await exactly_once.commit()
    assert broker.published == [("2", 0)]


async def test_a_transaction_that_the_group_has_overtaken_is_tried_again_without_what_has_moved() -> None:
    broker = Broker(Outdated("generation 1 is over"))
    source = Member(broker)
    async with delivery(source) as exactly_once:
        await publish(exactly_once, window("1", 0), window("2", 0))
        broker.meanwhile = lambda: source.revoke("2")
        await exactly_once.commit()
    assert broker.transactions == [[("1", 0)]]
    assert broker.memberships == [1, 2]


async def test_a_transaction_of_unknown_end_that_was_committed_is_not_repeated() -> None:
    broker = Broker((Passing("connection lost"), True))
    async with delivery(Member(broker)) as exactly_once:
        await publish(exactly_once, window("1", 0))
        await exactly_once.commit()
        await publish(exactly_once, window("1", 1))
        await exactly_once.commit()
    assert broker.published == [("1", 0), ("1", 1)]
    assert broker.opened == 2  # the first producer may have left a transaction open


async def test_a_transaction_of_unknown_end_that_was_not_committed_is_repeated() -> None:
    broker = Broker((Passing("connection lost"), False), Passing("and again"))
    async with delivery(Member(broker)) as exactly_once:
        await publish(exactly_once, window("1", 0))
        await exactly_once.commit()
    assert broker.published == [("1", 0)]
    assert broker.opened == 3


async def test_a_refused_transaction_ends_the_run_with_its_cause() -> None:
    async with delivery(Member(Broker(Refused("not authorized", "grant it")))) as exactly_once:
        await publish(exactly_once, window("1", 0))
        with pytest.raises(SinkError, match="not authorized; grant it"):
            await exactly_once.commit()


async def test_the_rest_of_the_cursor_is_committed_at_the_end_unless_part_of_it_was_revoked() -> None:
    broker = Broker()
    source = Member(broker)
    rest = Cursor({"topic/1": Offsets(9, 9)}, {"1": 9})
    async with delivery(source) as exactly_once:
        await exactly_once.commit(Rest(rest, (0,)))
        assert broker.committed == {Partition("topic", 1): Committed(9, "{'1': 9}")}
        source.revoke("1")
        broker.committed.clear()
        await exactly_once.commit(Rest(rest, (0,)))
    assert broker.committed == {}
