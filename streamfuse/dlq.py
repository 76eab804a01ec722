"""`streamfuse dlq`: looks at dead letters, and publishes their originals again."""

from __future__ import annotations

import argparse
import heapq
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from streamfuse.clock import SystemClock
from streamfuse.codecs import format_time, parse_time
from streamfuse.config import DeadLetterSettings, KafkaConnection, KafkaDeadLetterSettings, KafkaSourceSettings, parse_duration
from streamfuse.dead_letters import DeadLetter, letter_from_json, letter_to_json
from streamfuse.errors import ConfigError, InvalidRecord, Problem, SinkError, SourceError
from streamfuse.kafka.letters import LetterTopic, Originals, Place
from streamfuse.kafka.offset_set import OffsetSet
from streamfuse.loading import load_dead_letters
from streamfuse.logs import set_up_logs

NEWEST = 20
CHUNK_RECORDS = 500
CHUNK_BYTES = 16 * 1024 * 1024
ENDINGS = {"image/jpeg": "jpg", "image/png": "png", "audio/pcm": "pcm", "audio/l16": "l16", "audio/ogg": "ogg", "audio/flac": "flac"}
_SECTION = "STREAMFUSE_DEAD_LETTERS__"

Memory = Mapping[int, OffsetSet]
"""Per partition of the dead letters, which of them were replayed."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which letters are wanted. `since` in ns UTC."""

    topic: str | None
    key: str | None
    reason: str | None
    stage: str | None
    since: int | None

    def __call__(self, letter: DeadLetter) -> bool:
        return (
            (self.topic is None or letter.record.topic == self.topic)
            and (self.key is None or _text(letter.record.key) == self.key)
            and (self.reason is None or letter.reason == self.reason)
            and (self.stage is None or letter.stage == self.stage)
            and (self.since is None or letter.time >= self.since)
        )


def show(options: argparse.Namespace) -> int:
    """Raises SourceError where they can't be read, ConfigError for settings that are wrong."""
    set_up_logs("warning", "auto")
    settings, _ = _settings(options)
    wanted = _filter(options)
    found: Iterator[DeadLetter] = (letter for letter in _letters(settings, wanted.since) if wanted(letter))
    if options.count:
        _print_counts(Counter((x.record.topic, x.stage, x.reason) for x in found), options.json)
        return 0
    if options.oldest is not None:
        found = iter(heapq.nsmallest(options.oldest, found, key=lambda letter: letter.time))
    elif not options.all:
        found = reversed(heapq.nlargest(options.newest, found, key=lambda letter: letter.time))
    for letter in found:
        print(letter_to_json(letter) if options.json else pretty(letter), flush=True)
        if options.save is not None:
            _save(letter, options.save)
    return 0


def replay(options: argparse.Namespace) -> int:
    """Raises SinkError where originals can't be published; what was published before is remembered by then."""
    set_up_logs("warning", "auto")
    settings, sources = _settings(options)
    if not isinstance(settings, KafkaDeadLetterSettings):
        message = f"expected kafka, found {settings.type}; only what stood in a Kafka topic can be published there again"
        raise ConfigError([Problem("dead_letters.type", message)])
    by_topic: dict[str, KafkaConnection] = {topic: source for source in reversed(sources) for topic in source.topics.values()}
    wanted = _filter(options)
    with LetterTopic(settings, options.group or f"streamfuse-dlq-{settings.topic}") as letters:
        memory = letters.replayed()
        plan = _plan(letters.letters(wanted.since), wanted, memory, options.again)
        if not options.dry_run and plan.letters:
            with Originals(lambda topic: by_topic.get(topic, settings)) as originals:
                for topic, partition in sorted(plan.furthest.items()):
                    originals.require(topic, partition)
                with _progress(sum(plan.letters.values())) as advance:
                    grown: Memory = memory
                    for chunk in _chosen(letters.letters(wanted.since), wanted, memory, options.again):
                        grown = _with(grown, chunk)
                        originals.publish([letter for _, letter in chunk])
                        letters.remember(grown)
                        advance(len(chunk))
    plan.tell(options.dry_run)
    return 0


def pretty(letter: DeadLetter) -> str:
    """One line: when, where from, key, stage, reason, size, and the sentence."""
    record = letter.record
    size = f"{letter.omitted:,} bytes, left out" if letter.omitted is not None else _size(record.value)
    again = f", replayed {letter.replays}x" if letter.replays else ""
    where = f"{record.topic}/{record.partition}@{record.offset}"
    line = (
        f"{format_time(letter.time)[:19]}Z  {where}  key {_text(record.key)}  {letter.stage} {letter.reason}  {size}{again}  {letter.error}"
    )
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in line)


# --- what is wanted ----------------------------------------------------------------------------------------------------------------------


def _settings(options: argparse.Namespace) -> tuple[DeadLetterSettings, Sequence[KafkaSourceSettings]]:
    """Of the config, the environment and the command line, the later before the earlier."""
    environ = dict(os.environ)
    for name in ("bootstrap", "topic"):
        if getattr(options, name) is not None:
            environ[_SECTION + name.upper()] = json.dumps(getattr(options, name))
    if options.config is None and _SECTION + "BOOTSTRAP" not in environ:
        message = f"name a config, or brokers with --bootstrap or {_SECTION}BOOTSTRAP"
        raise ConfigError([Problem("dead_letters", message)])
    settings, sources = load_dead_letters(options.config, environ)
    if settings.type == "none":
        raise ConfigError([Problem("dead_letters", f"expected type kafka or jsonl, found none in {options.config}; nothing is kept there")])
    return settings, [source for source in sources if isinstance(source, KafkaSourceSettings)]


def _filter(options: argparse.Namespace) -> Filter:
    return Filter(options.of, options.key, options.reason, options.stage, None if options.since is None else _instant(options.since))


def _instant(text: str) -> int:
    with suppress(ValueError):
        return SystemClock().now() - parse_duration(text)
    try:
        return parse_time(text)
    except InvalidRecord as error:
        raise ConfigError([Problem("--since", f"{error}; or how long ago, such as 10m")]) from None


# --- reading -----------------------------------------------------------------------------------------------------------------------------


def _letters(settings: DeadLetterSettings, since: int | None) -> Iterator[DeadLetter]:
    """Those of a topic in order within a partition, those of a file in order. What is none is told and passed over."""
    if isinstance(settings, KafkaDeadLetterSettings):
        with LetterTopic(settings) as letters:
            for place, letter in letters.letters(since):
                if isinstance(letter, DeadLetter):
                    yield letter
                else:
                    _tell(f"{settings.topic}/{place.partition} at offset {place.offset}", letter)
    elif settings.type == "jsonl":
        try:
            with Path(settings.path).open("rb") as lines:
                for number, line in enumerate(lines, 1):
                    try:
                        yield letter_from_json(line)
                    except InvalidRecord as error:
                        _tell(f"{settings.path}, line {number}", error)
        except OSError as error:
            raise SourceError(f"can't read {settings.path}: {error.strerror}; correct dead_letters.path") from None


def _tell(where: str, error: InvalidRecord) -> None:
    print(f"passed over {where}: {error}", file=sys.stderr)


def _print_counts(counts: Counter[tuple[str, str, str]], as_json: bool) -> None:
    total = sum(counts.values())
    if as_json:
        groups = [{"topic": t, "stage": s, "reason": r, "letters": number} for (t, s, r), number in sorted(counts.items())]
        print(json.dumps({"letters": total, "by": groups}))
        return
    for (topic, stage, reason), number in sorted(counts.items()):
        print(f"{number:>9,}  {topic}  {stage} {reason}")
    print(f"{total:>9,}  in all")


def _save(letter: DeadLetter, folder: Path) -> None:
    """The original value as a file. Names come from the wire: nothing of them leads out of the folder."""
    record = letter.record
    if record.value is None:
        return
    declared = next((value for name, value in reversed(record.headers) if name.lower() == "content-type"), None) or b""
    kind = declared.decode(errors="replace").partition(";")[0].strip().lower()
    ending = "txt" if kind.startswith("text/") else ENDINGS.get(kind, "bin")
    name = re.sub(r"[^A-Za-z0-9._-]", "_", f"{record.topic}-{record.partition}-{record.offset}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.{ending}").write_bytes(record.value)
    except OSError as error:
        raise SinkError(f"expected to write to {folder}, found: {error.strerror}; choose another folder with --save") from None


# --- replaying ---------------------------------------------------------------------------------------------------------------------------

Chosen = tuple[Place, DeadLetter]


@dataclass(slots=True)
class _Plan:
    """What is to be published again: how many letters of each topic, and the furthest partition of each."""

    letters: Counter[str] = field(default_factory=Counter)
    furthest: dict[str, int] = field(default_factory=dict)
    before: int = 0
    valueless: list[DeadLetter] = field(default_factory=list)

    def tell(self, dry: bool) -> None:
        topics = ", ".join(f"{number:,} to {topic}" for topic, number in sorted(self.letters.items()))
        print(f"{'would replay' if dry else 'replayed'} {sum(self.letters.values()):,} records" + (f": {topics}" if topics else ""))
        if self.before:
            print(f"{self.before:,} were replayed before; --again repeats them")
        for letter in self.valueless:
            record = letter.record
            where = f"{record.topic}/{record.partition}@{record.offset}"
            print(f"left out {where}: its {letter.omitted:,} bytes did not fit into the dead letters; they may still stand there")


def _plan(letters: Iterable[tuple[Place, DeadLetter | InvalidRecord]], wanted: Filter, memory: Memory, again: bool) -> _Plan:
    plan = _Plan()
    for place, letter in letters:
        if isinstance(letter, InvalidRecord):
            _tell(f"partition {place.partition} at offset {place.offset}", letter)
        elif not wanted(letter):
            continue
        elif place.offset in memory[place.partition] and not again:
            plan.before += 1
        elif letter.omitted is not None:
            plan.valueless.append(letter)
        else:
            topic, partition = letter.record.topic, letter.record.partition
            plan.letters[topic] += 1
            plan.furthest[topic] = max(partition, plan.furthest.get(topic, 0))
    return plan


def _chosen(
    letters: Iterable[tuple[Place, DeadLetter | InvalidRecord]], wanted: Filter, memory: Memory, again: bool
) -> Iterator[list[Chosen]]:
    """The letters of the plan, in chunks that are published and remembered together."""
    chunk: list[Chosen] = []
    size = 0
    for place, letter in letters:
        if isinstance(letter, InvalidRecord) or not wanted(letter) or letter.omitted is not None:
            continue
        if again or place.offset not in memory[place.partition]:
            chunk.append((place, letter))
            size += letter.record.size
            if len(chunk) >= CHUNK_RECORDS or size >= CHUNK_BYTES:
                yield chunk
                chunk, size = [], 0
    if chunk:
        yield chunk


def _with(memory: Memory, chunk: Sequence[Chosen]) -> Memory:
    """What is to be remembered when the chunk has been published. Raises SinkError where that does not fit."""
    grown = dict(memory)
    for number in {place.partition for place, _ in chunk}:
        held = grown[number] = memory[number].copy()
        for place, _ in chunk:
            if place.partition == number:
                held.add(place.offset)
        if held.to_commit() is None:
            raise SinkError(
                f"expected the list of replayed letters to fit into a commit, found those of partition {number} too scattered; replay the"
                " older ones first, with fewer filters"
            )
    return grown


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, nothing elsewhere."""
    console = Console(stderr=True)
    columns = (TextColumn("replaying"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("replaying", total=total)
        yield lambda count: progress.advance(task, count)


# --- for people --------------------------------------------------------------------------------------------------------------------------


def _text(key: bytes | None) -> str:
    return "(none)" if key is None else key.decode(errors="backslashreplace")


def _size(value: bytes | None) -> str:
    return "no value" if value is None else f"{len(value):,} bytes"
