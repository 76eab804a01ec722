"""`streamfuse sim`: simulated rooms, or a video file, published to Kafka at their own pace."""

from __future__ import annotations

import argparse
import sys
from contextlib import AsyncExitStack

import anyio
import yaml
from pydantic import TypeAdapter, ValidationError

from streamfuse.clock import SystemClock
from streamfuse.config import Faults, KafkaConnection, MediaSourceSettings, SimulatorSourceSettings
from streamfuse.daemon import stop_on_signal
from streamfuse.errors import ConfigError, Problem
from streamfuse.feeder import Fed, KafkaPublisher, feed
from streamfuse.interfaces import Source
from streamfuse.loading import problems_of
from streamfuse.logs import set_up_logs


def simulate(options: argparse.Namespace) -> int:
    """Publish until the end of the input or Ctrl-C, and say how much it was."""
    set_up_logs("warning", "auto")
    topics = _topics(options.topics)
    source = _source(options, topics)
    fed = Fed()
    print(f"publishing to {options.bootstrap}: {', '.join(f'{s} -> {t}' for s, t in topics.items())}", file=sys.stderr)
    anyio.run(_publish, source, KafkaConnection(bootstrap=options.bootstrap), topics, fed)
    published = ", ".join(f"{count} {stream}" for stream, count in sorted(fed.published.items()))
    print(f"published {published or 'nothing'}", file=sys.stderr)
    return 0


async def _publish(source: Source, connection: KafkaConnection, topics: dict[str, str], fed: Fed) -> None:
    stop = anyio.Event()

    async def cancel_on_stop(scope: anyio.CancelScope) -> None:
        await stop.wait()
        scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(stop_on_signal, stop)
        async with AsyncExitStack() as stack:
            with anyio.CancelScope() as connecting:
                group.start_soon(cancel_on_stop, connecting)
                publish = await stack.enter_async_context(KafkaPublisher(connection, topics))
            if not connecting.cancelled_caught:
                with anyio.CancelScope() as feeding:
                    group.start_soon(cancel_on_stop, feeding)
                    await feed(source, publish, topics, fed)
        group.cancel_scope.cancel()


def _source(options: argparse.Namespace, topics: dict[str, str]) -> Source:
    if options.clip is not None:
        from streamfuse.sources.media import MediaSource

        return MediaSource(MediaSourceSettings(type="media", path=options.clip, key=options.key, pace=options.pace), SystemClock())
    from streamfuse.sources.simulator import SimulatorSource

    settings = SimulatorSourceSettings(
        type="simulator",
        rooms=options.rooms,
        seed=options.seed,
        seconds=options.seconds,
        pace=options.pace,
        truth="truth" in topics,
        faults=_faults(options.faults),
    )
    return SimulatorSource(settings, SystemClock())


def _topics(text: str) -> dict[str, str]:
    pairs = [pair.partition("=") for pair in text.split(",")]
    wrong = [stream for stream, _, topic in pairs if not topic]
    if wrong:
        raise ConfigError([Problem("--topics", f"expected stream=topic, comma separated, found {wrong[0]!r}")])
    return {stream.strip(): topic.strip() for stream, _, topic in pairs}


def _faults(text: str | None) -> Faults:
    if text is None:
        return Faults()
    try:
        return TypeAdapter(Faults).validate_python(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise ConfigError([Problem("--faults", f"expected YAML: {' '.join(str(error).split())}")]) from None
    except ValidationError as error:
        found = problems_of(error, Faults)
        raise ConfigError([Problem(f"--faults {problem.path}", problem.message) for problem in found]) from None
