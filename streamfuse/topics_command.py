"""`streamfuse topics`: compares the topics that are there with those that a config needs, and creates what is missing."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

from streamfuse.config import Config, KafkaConnection, parse_duration
from streamfuse.errors import ConfigError, Problem, SourceError
from streamfuse.kafka.clients import make_admin
from streamfuse.kafka.topics import Cluster, Finding, clusters, create_missing, judge, look, planned, table, told, with_flags
from streamfuse.kafka.transport import Admin, NewTopic, Passing, Refused
from streamfuse.loading import load_config
from streamfuse.logs import set_up_logs
from streamfuse.types import SECOND

T = TypeVar("T")

WRONG = 3
BETWEEN_TRIES = 0.25


def check(path: Path) -> int:
    """Returns the exit code. Raises ConfigError, and SourceError where the brokers can't be asked."""
    findings: list[Finding] = []
    for cluster in _clusters(path):
        with _admin(cluster.brokers) as admin:
            there = _ask(cluster.brokers, partial(look, admin, cluster))
        print(f"Kafka at {cluster.brokers.bootstrap}")
        _print_table(table(cluster, there))
        findings += judge(cluster, there)
    return _tell(findings, path)


def create(path: Path, partitions: int | None, replication: int | None, retention: str | None, dry_run: bool) -> int:
    """Like `check`."""
    try:
        length = None if retention is None else parse_duration(retention)
    except ValueError as error:
        raise ConfigError([Problem("--retention", str(error))]) from None
    config = load_config(path, os.environ)
    settings = with_flags(config.topics, partitions, replication, length)
    findings: list[Finding] = []
    for cluster in _clusters(path, config):
        with _admin(cluster.brokers) as admin:
            there = _ask(cluster.brokers, partial(look, admin, cluster))
            if dry_run:
                for topic in planned(cluster, settings, there):
                    print(f"would create {told(topic)}")
                findings += (finding for finding in judge(cluster, there) if finding.topic in there)
            else:
                findings += _ask(cluster.brokers, partial(create_missing, admin, cluster, settings, _tell_created))
        if present := [wanted.name for wanted in cluster.topics if wanted.name in there]:
            print(f"there before: {', '.join(present)}")
    return _tell(findings, path)


def _tell_created(topic: NewTopic) -> None:
    print(f"created {told(topic)}", flush=True)


def _clusters(path: Path, config: Config | None = None) -> list[Cluster]:
    set_up_logs("error", "auto")  # what the clients warn of is told in our own words
    found = clusters(config or load_config(path, os.environ))
    if not found:
        print(f"{path} reads and writes no Kafka topic")
    return found


@contextmanager
def _admin(brokers: KafkaConnection) -> Iterator[Admin]:
    admin = _ask(brokers, lambda: make_admin(brokers))
    try:
        yield admin
    finally:
        admin.close()


def _ask(brokers: KafkaConnection, ask: Callable[[], T]) -> T:
    """Tries again for as long as `connect_timeout` where the brokers are not there."""
    deadline = time.monotonic() + brokers.connect_timeout / SECOND
    while True:
        try:
            return ask()
        except Passing as error:
            if time.monotonic() > deadline:
                raise SourceError(f"expected brokers at {brokers.bootstrap}, found: {error}; start them, or correct bootstrap") from error
            time.sleep(BETWEEN_TRIES)
        except Refused as error:
            raise SourceError(f"Kafka at {brokers.bootstrap}: {error}") from error


def _print_table(lines: Iterable[tuple[str, ...]]) -> None:
    rows = list(lines)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _tell(findings: Iterable[Finding], path: Path) -> int:
    mistakes = [finding for finding in findings if finding.is_mistake]
    notes = [finding for finding in findings if not finding.is_mistake]
    for note in notes:
        print(f"note: {_with_config(note, path)}")
    if not mistakes:
        print("the topics fit")
        return 0
    print(f"{len(mistakes)} mistake{'s' if len(mistakes) > 1 else ''}:", file=sys.stderr)
    for mistake in mistakes:
        print(f"  {_with_config(mistake, path)}", file=sys.stderr)
    return WRONG


def _with_config(finding: Finding, path: Path) -> str:
    return str(finding).replace("`streamfuse topics create`", f"`streamfuse topics create {path}`")
