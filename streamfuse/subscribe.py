"""Tails predictions for people and pipes: from a Kafka topic, or from a JSONL file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from streamfuse.codecs import format_time, prediction_from_json
from streamfuse.errors import InvalidRecord, SourceError
from streamfuse.types import MILLISECOND, SECOND, Prediction

if TYPE_CHECKING:
    from kafka import KafkaConsumer


def subscribe(options: argparse.Namespace) -> int:
    """Print until the end of the input, `--count` predictions, or Ctrl-C. Raises SourceError where there is nothing to read from."""
    if (options.file is None) == (options.bootstrap is None):
        print("streamfuse subscribe: name a file, or brokers with --bootstrap", file=sys.stderr)
        return 2
    lines = _from_file(options.file) if options.file is not None else _from_kafka(options.bootstrap, options.topic, options.from_start)
    printed = 0
    for text in lines:
        try:
            prediction = prediction_from_json(text)
        except InvalidRecord as error:
            print(f"not a prediction, passed over: {error}", file=sys.stderr)
            continue
        if options.key is not None and prediction.key != options.key:
            continue
        print(text.decode().strip() if options.json else pretty(prediction), flush=True)
        printed += 1
        if printed == options.count:
            break
    return 0


def pretty(p: Prediction) -> str:
    """One line: key, window, label with its probability, what was absent, how long after the window's end."""
    start = format_time(p.start)[11:23]
    after = (p.produced_at - p.end) / MILLISECOND
    late = f"  revision {p.revision}" if p.revision else ""
    absent = "  without " + ", ".join(f"{stream} ({reason})" for stream, reason in p.absent.items()) if p.absent else ""
    when = f"  +{after:.0f} ms" if 0 <= after < 3600_000 else ""
    return f"{p.key}  {start} +{(p.end - p.start) / SECOND:g} s  {p.label:<17} {p.scores[p.label]:4.0%}{when}{late}{absent}"


def _from_file(name: str) -> Iterator[bytes]:
    if name == "-":
        yield from (line for line in sys.stdin.buffer if line.strip())
        return
    try:
        with Path(name).open("rb") as lines:
            yield from (line for line in lines if line.strip())
    except OSError as error:
        raise SourceError(f"can't read {name}: {error.strerror}") from None


def _from_kafka(bootstrap: str, topic: str, from_start: bool) -> Iterator[bytes]:
    from kafka import KafkaConsumer
    from kafka.errors import KafkaError

    try:
        consumer: KafkaConsumer = KafkaConsumer(
            topic,
            bootstrap_servers=bootstrap.split(","),
            auto_offset_reset="earliest" if from_start else "latest",
            enable_auto_commit=False,
            group_id=None,
            bootstrap_timeout_ms=10_000,
        )
    except KafkaError as error:
        raise SourceError(f"expected a Kafka broker at {bootstrap}: {error}; start it, or correct --bootstrap") from None
    try:
        if topic not in consumer.topics():
            print(f"there is no topic {topic} at {bootstrap} yet; waiting for it. Correct --topic if it is another", file=sys.stderr)
        while True:
            for records in consumer.poll(timeout_ms=500).values():
                yield from (record.value for record in records if record.value)
    except KeyboardInterrupt:
        return
    finally:
        consumer.close()
