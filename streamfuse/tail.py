"""`streamfuse subscribe`: prints predictions for people and pipes, from a Kafka topic or from a JSONL file."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from streamfuse.codecs import Record, format_time, parse_time
from streamfuse.config import KafkaSinkSettings, parse_duration
from streamfuse.errors import ConfigError, InvalidRecord, Problem
from streamfuse.loading import load_sinks
from streamfuse.logs import set_up_logs
from streamfuse.subscription import REMEMBER, Subscription, subscribe
from streamfuse.types import MILLISECOND, SECOND, Prediction

BOOTSTRAP = "STREAMFUSE_SINKS__0__BOOTSTRAP"


def tail(options: argparse.Namespace) -> int:
    """Print until the end of the input, `--count` predictions, SIGTERM or Ctrl-C. Raises SourceError where there is nothing to read from,
    ConfigError for a config that is wrong."""
    if problem := _misused(options):
        print(f"streamfuse subscribe: {problem}", file=sys.stderr)
        return 2
    remember = 0 if options.raw else REMEMBER
    if options.file is not None:
        where = options.file if options.file == "-" else Path(options.file)
        predictions = subscribe(where, key=options.key, remember=remember, on_invalid=_pass_over)
    else:
        sink = _sink(options)
        predictions = subscribe(
            sink,
            topic=sink.topic,
            key=options.key,
            group=options.group,
            start=_start(options),
            remember=remember,
            on_invalid=_pass_over,
        )
    set_up_logs("warning", "auto")
    with suppress(KeyboardInterrupt, asyncio.CancelledError):
        asyncio.run(_print(predictions, options))
    return 0


def pretty(p: Prediction) -> str:
    """One line: key, window, label with its probability, what was absent, how long after the window's end."""
    start = format_time(p.start)[11:23]
    after = (p.produced_at - p.end) / MILLISECOND
    late = f"  revision {p.revision}" if p.revision else ""
    absent = "  without " + ", ".join(f"{stream} ({reason})" for stream, reason in p.absent.items()) if p.absent else ""
    when = f"  +{after:.0f} ms" if 0 <= after < 3600_000 else ""
    return f"{p.key}  {start} +{(p.end - p.start) / SECOND:g} s  {p.label:<17} {p.scores[p.label]:4.0%}{when}{late}{absent}"


async def _print(predictions: Subscription, options: argparse.Namespace) -> None:
    if (printing := asyncio.current_task()) is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, printing.cancel)
    printed = 0
    async with predictions:
        async for prediction in predictions:
            print(_as_it_is(predictions.record) if options.json else pretty(prediction), flush=True)
            printed += 1
            if printed == options.count:
                if options.group is not None:
                    await predictions.commit()  # what was printed is processed, though nobody asks for the next
                break


def _as_it_is(record: Record | None) -> str:
    return (b"" if record is None or record.value is None else record.value).decode().strip()


def _pass_over(record: Record, error: InvalidRecord) -> None:
    print(f"not a prediction, passed over: {record.topic}, {record.offset}: {error}", file=sys.stderr)


def _misused(options: argparse.Namespace) -> str | None:
    if options.file is not None:
        kafkas = ("bootstrap", "config", "topic", "group", "since", "transport")
        given = [name for name in kafkas if getattr(options, name) is not None]
        return f"--{given[0]} is for Kafka, and {options.file} is a file; leave one of them out" if given else None
    if options.bootstrap is None and options.config is None and BOOTSTRAP not in os.environ:
        return f"name a file, or brokers with --bootstrap, --config or {BOOTSTRAP}"
    return None


def _sink(options: argparse.Namespace) -> KafkaSinkSettings:
    """How the daemon's sink publishes what is to be read here; options of the command line come first."""
    sink = next((sink for sink in load_sinks(options.config, os.environ) if sink.type == "kafka"), None)
    if sink is None:
        raise ConfigError(
            [Problem("sinks", f"expected a sink of type kafka, found none in {options.config}; add it, or give --bootstrap instead")]
        )
    given = {"bootstrap": options.bootstrap, "topic": options.topic, "transport": options.transport}
    return sink.model_copy(update={name: value for name, value in given.items() if value is not None})


def _start(options: argparse.Namespace) -> Literal["earliest", "latest"] | datetime:
    if options.since is None:
        return "earliest" if options.from_start else "latest"
    with suppress(ValueError):
        return datetime.now(UTC) - timedelta(microseconds=parse_duration(options.since) // 1000)
    try:
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=parse_time(options.since) // 1000)
    except InvalidRecord as error:
        raise ConfigError([Problem("--since", f"{error}; or how long ago, such as 10m")]) from None
