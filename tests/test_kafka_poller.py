"""The polling thread: whoever waits for it may go away, and it ends in order all the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from streamfuse.kafka.poller import Poller
from streamfuse.kafka.transport import Consumer, Partition, Polled


class SilentConsumer:
    """Has no partitions and brings nothing."""

    def __init__(self) -> None:
        self.closed = False

    def subscribe(self, topics: Sequence[str]) -> None: ...

    def poll(self, timeout: float) -> Polled:
        return Polled()

    def lagging(self, partitions: Iterable[Partition]) -> frozenset[Partition]:
        return frozenset()

    def pause(self, partitions: Iterable[Partition]) -> None: ...

    def resume(self, partitions: Iterable[Partition]) -> None: ...

    def counts(self, topics: Iterable[str]) -> Mapping[str, int]:
        return dict.fromkeys(topics, 1)

    def close(self) -> None:
        self.closed = True


def test_a_commit_that_nobody_waits_for_any_more_stops_nothing() -> None:
    failures: list[BaseException] = []
    consumer = SilentConsumer()

    def ignore(*_: Any) -> Any: ...

    poller = Poller(cast(Consumer, consumer), ["text"], "latest", 1000, "source", ignore, ignore, failures.append)
    commit = poller.commit({})
    question = poller.ask(lambda one: one.counts(["text"]))
    for future in (commit, question):
        future.cancel()  # as the daemon does when another part has failed
    poller.start()
    assert question.result(60) == {"text": 1}
    assert commit.result(60) is None
    poller.stop()
    assert (failures, consumer.closed) == ([], True)
