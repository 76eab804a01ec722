"""Runs the parts: readiness, signals, an orderly exit."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import current_token

from streamfuse import pipeline
from streamfuse.allocator import keep_memory
from streamfuse.config import Config, TopicsSourceSettings
from streamfuse.errors import DrainTimeout
from streamfuse.feeder import feed, publish_to
from streamfuse.interfaces import Clock, Delivery, Runner, Sink, Source
from streamfuse.metrics import Metrics
from streamfuse.notify import notify
from streamfuse.sinks.dead_letters import DeadLetters
from streamfuse.sinks.jsonl import LossWriter
from streamfuse.sync import Synchronizer
from streamfuse.topic_uses import topic_uses
from streamfuse.topics import Topics
from streamfuse.types import SECOND, Loss
from streamfuse.web.server import serve

log = logging.getLogger(__name__)

BEAT = 1.0
STALLED = 15 * SECOND  # without a beat of the event loop for so long, the daemon is not alive


@dataclass
class Daemon:
    """Everything that runs, made but not started. `address` is where HTTP is served, once it is."""

    config: Config
    clock: Clock
    topics: Topics
    metrics: Metrics
    synchronizer: Synchronizer
    runner: Runner
    sources: list[Source]
    sinks: list[Sink]
    dead_letters: DeadLetters
    delivery: Delivery
    feeds: list[Source]
    is_ready: bool = False
    address: tuple[str, int] | None = None
    ready: anyio.Event = field(default_factory=anyio.Event)
    _beat: int = field(init=False)
    _told: set[tuple[str, str]] = field(default_factory=set)
    _losses: LossWriter | None = None

    def __post_init__(self) -> None:
        self._beat = self.clock.monotonic()

    async def run(self, stop: anyio.Event) -> None:
        """Runs until the input ends, or until `stop` is set and what was read is published and committed.

        Raises DrainTimeout where that takes longer than `pipeline.drain_timeout`, and whatever error ended a part.
        """
        with anyio.CancelScope() as starting_or_running:
            async with AsyncExitStack() as stack:
                beside = await stack.enter_async_context(anyio.create_task_group())
                stack.callback(beside.cancel_scope.cancel)
                beside.start_soon(self._keep_beating)
                beside.start_soon(self._give_up_starting, stop, starting_or_running)
                await self._start(stack)
                self._start_feeds(beside)
                stack.callback(self._set_ready, False)
                self._set_ready(True)
                await self._run_pipeline(stop)

    async def _start(self, stack: AsyncExitStack) -> None:
        """Open every part, HTTP first: whoever asks is told that it is alive and not ready, for as long as a broker lets it wait."""
        web = self.config.web
        self.metrics.read_on_the_loop(current_token())
        if web.enabled:
            self.address = stack.enter_context(serve(web, self.metrics.registry, self._alive, lambda: self.is_ready))
            log.info("serving /metrics, /livez and /readyz on http://%s:%d", *self.address)
        notify("STATUS=loading the model")
        await stack.enter_async_context(self.runner)
        notify("STATUS=opening sources and sinks")
        if self.config.losses is not None:
            self._losses = await stack.enter_async_context(LossWriter(self.config.losses))
        if self.config.topics.at_start == "create" and any(use.brokers for use in topic_uses(self.config)):
            from streamfuse.kafka.creation import create_topics  # a daemon without Kafka needs no Kafka

            await create_topics(self.config)
        await stack.enter_async_context(self.dead_letters)
        for sink in self.sinks:
            await stack.enter_async_context(sink)
        for source in self.sources:
            await stack.enter_async_context(source)
        await stack.enter_async_context(self.delivery)

    async def _give_up_starting(self, stop: anyio.Event, starting: anyio.CancelScope) -> None:
        """Stopped before it was ready, it has read nothing that would have to be worked off."""
        await stop.wait()
        if not self.ready.is_set():
            starting.cancel()

    async def _run_pipeline(self, stop: anyio.Event) -> None:
        parts = pipeline.Pipeline(
            self.sources,
            self.synchronizer,
            self.runner,
            self.delivery,
            self.clock,
            self.metrics,
            self._lost,
            self.config.pipeline.queue,
            self.config.models.max_batch,
            self.config.pipeline.interval,
        )
        timeout = self.config.pipeline.drain_timeout / SECOND

        async def limit(working: anyio.CancelScope) -> None:
            await stop.wait()
            log.info("stopping: what was read is worked off, for at most %g s", timeout)
            notify("STOPPING=1")
            self._set_ready(False)
            working.deadline = anyio.current_time() + timeout

        with anyio.CancelScope() as working:
            async with anyio.create_task_group() as group:
                group.start_soon(limit, working)
                await pipeline.run(parts, stop)
                group.cancel_scope.cancel()
        if working.cancelled_caught:
            raise DrainTimeout(
                f"expected to work off what was read within {timeout:g} s; what was not published stays uncommitted and comes again. "
                "Raise pipeline.drain_timeout if the model needs longer"
            )

    def _start_feeds(self, beside: TaskGroup) -> None:
        """Publish the feeds' packets to the in-process topics, and close those when all feeds have ended."""
        left = len(self.feeds)
        fed = {topic for s in self.config.sources if isinstance(s, TopicsSourceSettings) for topic in s.topics.values()}

        async def run_feed(source: Source) -> None:
            nonlocal left
            await feed(source, publish_to(self.topics), {})
            left -= 1
            if not left:
                self.topics.close(*fed)

        for source in self.feeds:
            beside.start_soon(run_feed, source)

    async def _lost(self, losses: Sequence[Loss]) -> None:
        """Tell the first loss of each stream and reason; write all of them where the config says.

        Returns when they are durable, so that no cursor passes a record before. Raises TooManyDeadLetters.
        """
        for loss in losses:
            if (loss.stream, loss.reason) not in self._told:
                self._told.add((loss.stream, loss.reason))
                log.warning("stream %s, key %.80r: a record is %s (further ones are counted only): %s", loss.stream, loss.key, *_why(loss))
        await self.dead_letters.take(losses)
        if self._losses is not None:
            await self._losses.write(losses)

    def _set_ready(self, is_ready: bool) -> None:
        self.is_ready = is_ready
        self.metrics.ready(is_ready)
        if is_ready:
            self.ready.set()
            notify("READY=1", "STATUS=running")
            log.info("ready")

    async def _keep_beating(self) -> None:
        while True:
            self._beat = self.clock.monotonic()
            self.dead_letters.look()
            await anyio.sleep(BEAT)

    def _alive(self) -> bool:
        return self.clock.monotonic() - self._beat < STALLED


def _why(loss: Loss) -> tuple[str, str]:
    return loss.reason.value, loss.detail


def serve_forever(daemon: Daemon) -> None:
    """Run the daemon as a process: SIGTERM or SIGINT stops it in order, a second one at once. Returns when it has ended."""
    collect_rarely()
    keep_memory()
    anyio.run(_until_signalled, daemon)


def collect_rarely() -> None:
    """Look for garbage in cycles less often: thousands of packets are alive at any time, and looking through them costs 2 us a packet."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


async def _until_signalled(daemon: Daemon) -> None:
    stop = anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(stop_on_signal, stop)
        await daemon.run(stop)
        group.cancel_scope.cancel()


async def stop_on_signal(stop: anyio.Event) -> None:
    """Set `stop` at the first SIGTERM or SIGINT. A second one ends the process at once: what is uncommitted comes again in the next run."""
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            if stop.is_set():
                print(
                    f"second {number.name}: ending at once; what is not committed comes again in the next run", file=sys.stderr, flush=True
                )
                os._exit(128 + number)
            log.info("%s: stopping in order; a second one ends at once", number.name)
            stop.set()
