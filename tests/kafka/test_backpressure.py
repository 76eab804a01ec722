"""A model that is slow: what waits in Kafka meanwhile is neither idle nor late, and the replica stays in its group."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self

import anyio
import anyio.to_thread
import pytest

from streamfuse.assembly import build
from streamfuse.config import Config
from streamfuse.daemon import Daemon
from streamfuse.interfaces import Batch, Runner
from streamfuse.sources.kafka import KafkaSource
from streamfuse.types import Prediction, Window
from tests.kafka.broker import Broker
from tests.kafka.fleet import Group
from tests.kafka.rooms import Place, Published, contents, records
from tests.kafka.traffic import PATIENCE

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.anyio]

ROOMS = [f"room-{number}" for number in range(6)]


class Slow:
    """A runner that takes `seconds` longer for each batch from `first` to `last`."""

    def __init__(self, runner: Runner, seconds: float, first: int, last: int) -> None:
        self.batches = 0
        self.inputs = runner.inputs
        self._runner = runner
        self._seconds = seconds
        self._slow = range(first, last + 1)

    async def __aenter__(self) -> Self:
        await self._runner.__aenter__()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        await self._runner.__aexit__(kind, error, trace)

    async def prepare(self, windows: Sequence[Window]) -> Batch:
        return await self._runner.prepare(windows)

    async def predict(self, batch: Batch) -> list[Prediction]:
        self.batches += 1
        if self.batches in self._slow:
            await anyio.to_thread.run_sync(time.sleep, self._seconds)
        return await self._runner.predict(batch)


@asynccontextmanager
async def running(config: Mapping[str, Any], seconds: float, first: int, last: int) -> AsyncIterator[tuple[Daemon, KafkaSource, Slow]]:
    """A daemon in this process, whose model is slow."""
    daemon = build(Config.model_validate({**config, "web": {"enabled": False}}))
    slow = Slow(daemon.runner, seconds, first, last)
    daemon.runner = slow
    (source,) = daemon.sources
    assert isinstance(source, KafkaSource)
    stop = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(daemon.run, stop)
        try:
            yield daemon, source, slow
        finally:
            stop.set()


async def test_what_waits_behind_our_own_backpressure_is_neither_idle_nor_late(broker: Broker, unique: str) -> None:
    """Each slow batch takes longer than the idle timeout and the hold together."""
    patient = {"max_out_of_orderness": "300ms", "idle_timeout": "1s"}
    streams = dict.fromkeys(("video", "audio", "text"), patient)
    place = Place.make(broker, unique, streams=streams, max_hold="500ms")
    sent = place.publish(records(1, ROOMS, 0, 30))
    expected = {window.id: contents(window) for window in place.windows(sent)}
    config = place.config()
    config["sources"][0]["buffer_bytes"] = 20_000
    config["pipeline"]["queue"] = 2
    paused_for = longest = 0.0
    with Published(place) as published:
        async with running(config, 2.5, 3, 8) as (daemon, source, _):
            with anyio.fail_after(PATIENCE):
                while len({p.id for p in published.all} & expected.keys()) < len(expected):
                    began = time.monotonic()
                    await anyio.to_thread.run_sync(published.more, 0.1)
                    paused_for = paused_for + time.monotonic() - began if source.paused else 0.0
                    longest = max(longest, paused_for)
            late = [account.late for account in daemon.synchronizer.ledger.accounts.values()]
    assert longest > 1.5  # of pausing without a break: longer than a stream may be silent, and a window may wait after that
    assert late == [0, 0, 0]
    assert {p.id: contents(p) for p in published.all if p.id in expected} == expected


async def test_a_model_that_is_slow_for_longer_than_any_timeout_of_the_group_stays_in_it(
    broker: Broker, unique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten minutes on the scale of Kafka's own timeouts: here a member may be silent for 3 s, and busy between two polls for 4 s."""
    monkeypatch.setitem(kafka_defaults(), "max_poll_interval_ms", 4_000)
    place = Place.make(broker, unique)
    sent = place.publish(records(1, ROOMS, 0, 20))
    expected = {window.id: contents(window) for window in place.windows(sent)}
    config = place.config()
    config["sources"][0] |= {"buffer_bytes": 20_000, "session_timeout": "3s"}
    config["pipeline"]["queue"] = 2
    with Published(place) as published, Group(place) as group:
        async with running(config, 12, 2, 2) as (_, _, slow):
            with anyio.fail_after(PATIENCE):
                while slow.batches < 2:
                    await anyio.to_thread.run_sync(published.more, 0.1)
                before = await anyio.to_thread.run_sync(group.look)
                began = time.monotonic()
                while slow.batches == 2:
                    assert await anyio.to_thread.run_sync(group.look) == before
                took = time.monotonic() - began
                while len(published.all) < len(expected):
                    await anyio.to_thread.run_sync(published.more, 0.1)
    assert took > 10
    assert len(before[1]) == 1
    assert len(published.all) == len(expected)  # it was never out, so nothing came again
    assert {p.id: contents(p) for p in published.all} == expected


def kafka_defaults() -> dict[str, Any]:
    from kafka import KafkaConsumer

    defaults: dict[str, Any] = KafkaConsumer.DEFAULT_CONFIG
    return defaults
