"""Turns settings into parts, made but not started."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast
from uuid import uuid4

from streamfuse.clock import SystemClock
from streamfuse.config import (
    AnchoredSettings,
    Config,
    DeadLetterSettings,
    KafkaConnection,
    KafkaSinkSettings,
    KafkaSourceSettings,
    SessionSettings,
    SinkSettings,
    SlidingSettings,
    SourceSettings,
    SyncSettings,
    TumblingSettings,
)
from streamfuse.daemon import Daemon
from streamfuse.delivery import AtLeastOnce
from streamfuse.errors import ConfigError, Problem, StreamFuseError
from streamfuse.interfaces import Clock, Delivery, Sink, Source
from streamfuse.kafka.security import require_sound
from streamfuse.loading import streams_of
from streamfuse.metrics import Metrics
from streamfuse.sinks.dead_letters import DeadLetters, LetterWriter
from streamfuse.sync import Anchored, ClockPolicy, Session, Sliding, StreamPolicy, Synchronizer, Tumbling
from streamfuse.sync.windows import Shape
from streamfuse.topics import Topics
from streamfuse.types import MILLISECOND, SECOND

if TYPE_CHECKING:
    from streamfuse.models.runner import TorchRunner

log = logging.getLogger(__name__)

T = TypeVar("T")
S = TypeVar("S")

# Imported when they are asked for, so that a daemon without Kafka needs no Kafka.
SOURCES = {
    "kafka": ("streamfuse.sources.kafka", "KafkaSource"),
    "media": ("streamfuse.sources.media", "MediaSource"),
    "jsonl": ("streamfuse.sources.jsonl", "JsonlSource"),
    "topics": ("streamfuse.sources.topics", "TopicsSource"),
    "simulator": ("streamfuse.sources.simulator", "SimulatorSource"),
}
SINKS = {
    "jsonl": ("streamfuse.sinks.jsonl", "JsonlSink"),
    "topics": ("streamfuse.sinks.topics", "TopicsSink"),
    "kafka": ("streamfuse.sinks.kafka", "KafkaSink"),
}


LETTERS = {
    "jsonl": ("streamfuse.sinks.dead_letters", "JsonlLetters"),
    "kafka": ("streamfuse.kafka.dead_letters", "KafkaLetters"),
}


def build(config: Config, *, clock: Clock | None = None, topics: Topics | None = None) -> Daemon:
    """Every part of the config. Raises ConfigError with the mistakes of all parts at once."""
    time = clock or SystemClock()
    hub = topics or Topics()
    problems: list[Problem] = []
    sources = _make("sources", config.sources, lambda s: make_source(s, time, hub), problems)
    feeds = _make("feed", config.feed, lambda s: make_source(s, time, hub), problems)
    sinks = _make("sinks", config.sinks, lambda s: make_sink(s, hub), problems)
    synchronizer = make_synchronizer(config.sync)
    runners = _make("models", [config.models], lambda s: _make_runner(config, time), problems, numbered=False)
    metrics = Metrics(time)
    deliveries: list[Delivery] = _make("", [config], lambda c: make_delivery(c, sources, sinks, time, metrics), problems, numbered=False)
    letters = _make("dead_letters", [config.dead_letters], make_letter_writer, problems, numbered=False)
    _note_clients(config, metrics, problems)
    if problems:
        raise ConfigError(problems)
    dead_letters = DeadLetters(config.dead_letters, letters[0], lambda: _received(config, synchronizer), time, metrics)
    runner = runners[0]
    metrics.watch(synchronizer)
    metrics.watch_embeddings(runner.embeddings)
    metrics.model(runner.bundle.config.name, runner.bundle.digest, str(runner.device))
    return Daemon(config, time, hub, metrics, synchronizer, runner, sources, sinks, dead_letters, deliveries[0], feeds)


def _note_clients(config: Config, metrics: Metrics, problems: list[Problem]) -> None:
    """Say which Kafka clients are in use, or why one can't be."""
    sections: dict[str, Sequence[object]] = {"sources": config.sources, "feed": config.feed, "sinks": config.sinks}
    parts = {f"{section}.{n}": settings for section, several in sections.items() for n, settings in enumerate(several)}
    noted: set[str] = set()
    for path, settings in {**parts, "dead_letters": config.dead_letters}.items():
        if not isinstance(settings, KafkaConnection) or settings.transport in noted:
            continue
        from streamfuse.kafka.clients import client_info
        from streamfuse.kafka.transport import Refused

        noted.add(settings.transport)
        try:
            info = client_info(settings)
        except Refused as error:
            problems.append(Problem(f"{path}.transport", str(error)))
        else:
            log.info("transport %s %s, crc32c %s", info.transport, info.version, info.crc32c)
            metrics.kafka_client(info.transport, info.version, info.crc32c)


def make_source(settings: SourceSettings, clock: Clock, topics: Topics) -> Source:
    _require_sound(settings)
    for path in _local_files(settings):
        if not path.exists():
            raise ConfigError([Problem("path", f"there is no {path}; correct the path, or make the file")])
    made = _class(SOURCES[settings.type])
    source: Source = made(settings, topics, clock) if settings.type == "topics" else made(settings, clock)
    return source


def make_sink(settings: SinkSettings, topics: Topics) -> Sink:
    _require_sound(settings)
    made = _class(SINKS[settings.type])
    sink: Sink = made(settings, topics) if settings.type == "topics" else made(settings)
    return sink


def make_letter_writer(settings: DeadLetterSettings) -> LetterWriter | None:
    if settings.type == "none":
        return None
    _require_sound(settings)
    writer: LetterWriter = _class(LETTERS[settings.type])(settings)
    return writer


def _require_sound(settings: object) -> None:
    if isinstance(settings, KafkaConnection):
        require_sound(settings)


def make_delivery(config: Config, sources: Sequence[Source], sinks: Sequence[Sink], clock: Clock, metrics: Metrics) -> Delivery:
    """Raises ConfigError where exactly once is asked for and can't be had."""
    if config.pipeline.delivery == "at_least_once":
        return AtLeastOnce(sources, sinks, clock, metrics)
    (settings, *more), others = config.sources, [s for s in config.sinks if not isinstance(s, KafkaSinkSettings)]
    if more or not isinstance(settings, KafkaSourceSettings) or others:
        found = ", ".join([*(f"source {s.type}" for s in config.sources), *(f"sink {s.type}" for s in config.sinks)])
        message = f"exactly_once takes one source of type kafka and sinks of type kafka, found {found}; use at_least_once, or only those"
        raise ConfigError([Problem("pipeline.delivery", message)])
    elsewhere = [s for s in config.sinks if isinstance(s, KafkaSinkSettings) and s.bootstrap != settings.bootstrap]
    if elsewhere:
        message = (
            f"exactly_once takes sinks at the brokers of the source, {settings.bootstrap}, found {elsewhere[0].bootstrap}; a transaction"
            " can't span two clusters"
        )
        raise ConfigError([Problem("pipeline.delivery", message)])
    from streamfuse.kafka.clients import make_transactional_producer
    from streamfuse.kafka.exactly_once import ExactlyOnce, Member

    name = f"{settings.group}-{settings.instance or uuid4().hex}"
    (source,) = sources
    return ExactlyOnce(
        cast(Member, source),
        [sink.topic for sink in config.sinks if isinstance(sink, KafkaSinkSettings)],
        lambda: make_transactional_producer(settings, name, config.pipeline.transaction_timeout),
        clock,
        metrics,
    )


def make_synchronizer(settings: SyncSettings) -> Synchronizer:
    streams = {name: StreamPolicy(s.required, s.max_out_of_orderness, s.idle_timeout, s.lag) for name, s in settings.streams.items()}
    clock = ClockPolicy(settings.clock.step, settings.clock.confirm, settings.clock.max_error, settings.clock.policy)
    return Synchronizer(
        streams,
        make_shape(settings),
        max_hold=settings.max_hold,
        allowed_lateness=settings.allowed_lateness,
        forget_after=settings.forget_after,
        clock=clock,
        side_output=True,
    )


def make_shape(settings: SyncSettings) -> Shape:
    windows = settings.windows
    if isinstance(windows, SlidingSettings):
        return Sliding(windows.size, windows.hop, windows.offset)
    if isinstance(windows, SessionSettings):
        return Session(windows.gap, windows.max_size)
    if isinstance(windows, AnchoredSettings):
        return Anchored(windows.primary, windows.tolerance, windows.take)
    return Tumbling(windows.size, windows.offset)


def _received(config: Config, synchronizer: Synchronizer) -> int:
    """How many records have come from topics."""
    streams = {stream for source in config.sources if source.type in ("kafka", "topics") for stream in streams_of(source)}
    return sum(account.received for stream, account in synchronizer.ledger.accounts.items() if stream in streams)


def _make_runner(config: Config, clock: Clock) -> TorchRunner:
    from streamfuse.models.runner import TorchRunner

    runner = TorchRunner(config.models, clock)
    missing = sorted(set(runner.inputs) - set(config.sync.streams))
    if missing == sorted(runner.inputs):
        wanted = ", ".join(missing)
        raise ConfigError([Problem("bundle", f"the model reads {wanted}, and sync.streams has none of them; name the streams so")])
    learned, windows = runner.bundle.config.window, config.sync.windows
    if isinstance(windows, SlidingSettings | TumblingSettings) and windows.size != learned.size_ms * MILLISECOND:
        log.warning(
            "sync.windows has a size of %g s, and %s was trained on windows of %g s; on others it may be less right",
            windows.size / SECOND,
            runner.bundle.config.name,
            learned.size_ms / 1000,
        )
    return runner


def _make(section: str, all_settings: Iterable[S], make: Callable[[S], T], problems: list[Problem], numbered: bool = True) -> list[T]:
    """Make each part, and note what is wrong with those that can't be made."""
    made: list[T] = []
    for number, settings in enumerate(all_settings):
        path = f"{section}.{number}" if numbered else section
        try:
            made.append(make(settings))
        except ConfigError as error:
            problems += [Problem(f"{path}.{problem.path}".strip("."), problem.message) for problem in error.problems]
        except StreamFuseError as error:
            problems.append(Problem(path, str(error)))
    return made


def _class(where: tuple[str, str]) -> Any:
    module, name = where
    return getattr(import_module(module), name)


def _local_files(settings: Any) -> list[Path]:
    if settings.type not in ("media", "jsonl"):
        return []
    paths = [settings.path] if isinstance(settings.path, str) else settings.path
    return [Path(path) for path in paths if path != "-" and "://" not in path]
