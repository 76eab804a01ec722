"""Dead letters hold the original, come before any commit, and stop the daemon where they are too many."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from streamfuse.assembly import build
from streamfuse.codecs import RecordDecoder, WireRecord, encode_packet
from streamfuse.config import Config, DeadLetterLimit, DeadLetterSettings, JsonlDeadLetterSettings
from streamfuse.dead_letters import (
    DeadLetter,
    letter_from_json,
    letter_from_record,
    letter_of,
    letter_to_json,
    letter_to_record,
    replayed,
    without_value,
)
from streamfuse.delivery import AtLeastOnce
from streamfuse.errors import InvalidRecord, TooManyDeadLetters
from streamfuse.metrics import Metrics
from streamfuse.pipeline import Pipeline, run
from streamfuse.share import Share, ShareLimit
from streamfuse.sinks.dead_letters import DeadLetters, JsonlLetters
from streamfuse.sync import StreamPolicy, Synchronizer, Tumbling
from streamfuse.testing import ManualClock, MemoryBatch, MemoryRunner, MemorySink, MemorySource
from streamfuse.topics import Topics
from streamfuse.types import MILLISECOND, SECOND, Encoded, Loss, Outcome, Packet, Position, Record, Stage, Window
from tests import test_bad_input
from tests.kafka.fuzz import in_memory

NOON = 1_777_636_800 * SECOND
JPEG = b"\xff\xd8\xff\xe0 not much of a picture"

names = st.text(max_size=20) | st.sampled_from(["ce_id", "streamfuse_dl_headers", "streamfuse_dl_topic", "streamfuse_dl_replays"])
anything = st.none() | st.binary(max_size=40)
any_record = st.builds(
    Record,
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=20),
    st.integers(0, 2**31 - 1),
    st.integers(0, 2**63 - 1),
    anything,
    anything,
    st.lists(st.tuples(names, anything), max_size=6).map(tuple),
    st.integers(0, 2**41).map(lambda ms: ms * MILLISECOND),
)
sentences = st.text(st.characters(codec="utf-8"), min_size=1, max_size=80)


def record(offset: int = 5, value: bytes | None = JPEG) -> Record:
    return Record("video", 0, offset, b"room", value, (("ce_id", b"7"), ("ce_id", None), ("", b"\xff")), NOON)


def refused(offset: int = 5, reason: Outcome = Outcome.UNDECODABLE, stage: Stage = Stage.DECODE) -> Loss:
    one = record(offset)
    return Loss("video", "room", reason, "expected a JPEG, found noise; send one", one.position, NOON, record=one, stage=stage)


def letter() -> DeadLetter:
    made = letter_of(refused(), NOON)
    assert made is not None
    return made


# --- what stands in one ------------------------------------------------------------------------------------------------------------------


@given(any_record, sentences, st.sampled_from(Stage), st.sampled_from([Outcome.UNDECODABLE, Outcome.QUARANTINED]))
def test_the_original_comes_back_as_it_was_from_a_topic_and_from_a_file(one: Record, error: str, stage: Stage, reason: Outcome) -> None:
    made = letter_of(Loss("video", "room", reason, error, one.position, None, record=one, stage=stage), NOON)
    assert made is not None
    wire = letter_to_record(made)
    value = b"" if one.key is None and one.value is None else one.value  # kafka-python writes no record with neither
    assert (wire.key, wire.value, wire.headers[: len(one.headers)]) == (one.key, value, one.headers)
    assert letter_from_record(Record("dead-letters", 3, 9, *wire)) == made
    emptied = wire._replace(headers=tuple((name, value or b"") for name, value in wire.headers))
    assert letter_from_record(Record("dead-letters", 3, 9, *emptied)) == made, "kafka-python writes no null"
    assert letter_from_json(letter_to_json(made)) == made


def test_its_headers_say_why_and_where_from() -> None:
    wire = letter_to_record(letter())
    assert wire.timestamp == NOON
    assert {name: (value or b"").decode() for name, value in wire.headers[3:]} == {
        "streamfuse_dl_headers": "3",
        "streamfuse_dl_nulls": "1",
        "streamfuse_dl_error": "expected a JPEG, found noise; send one",
        "streamfuse_dl_stage": "decode",
        "streamfuse_dl_reason": "undecodable",
        "streamfuse_dl_stream": "video",
        "streamfuse_dl_topic": "video",
        "streamfuse_dl_partition": "0",
        "streamfuse_dl_offset": "5",
        "streamfuse_dl_timestamp": str(NOON // MILLISECOND),
        "streamfuse_dl_time": "2026-05-01T12:00:00.000000000Z",
    }


@pytest.mark.parametrize("reason", [Outcome.LATE, Outcome.DUPLICATE, Outcome.SHED])
def test_what_was_fine_is_no_dead_letter(reason: Outcome) -> None:
    assert letter_of(refused(reason=reason), NOON) is None


def test_what_never_stood_in_a_topic_is_no_dead_letter() -> None:
    assert letter_of(Loss("video", "room", Outcome.UNDECODABLE, "expected a JPEG"), NOON) is None


def test_a_letter_without_its_value_says_how_much_is_missing() -> None:
    small = without_value(letter())
    assert (small.record.value, small.omitted) == (None, len(JPEG))
    assert letter_from_record(Record("dead-letters", 0, 0, *letter_to_record(small))) == small
    assert letter_from_json(letter_to_json(small)) == small


@pytest.mark.parametrize(
    ("headers", "sentence"),
    [
        ((), "without the header streamfuse_dl_headers"),
        ((("streamfuse_dl_headers", b"4"),), "expected 0 in the header streamfuse_dl_headers, found '4'"),
        ((("streamfuse_dl_headers", None),), "streamfuse_dl_headers as a whole number"),
        ((("streamfuse_dl_headers", b"0"),), "streamfuse_dl_topic as text, found None"),
        ((("streamfuse_dl_headers", b"0"), ("streamfuse_dl_topic", b"a"), ("streamfuse_dl_partition", b"x")), "found 'x'"),
    ],
)
def test_a_record_that_is_none_is_told_with_what_is_wrong(headers: tuple[tuple[str, bytes | None], ...], sentence: str) -> None:
    with pytest.raises(InvalidRecord) as found:
        letter_from_record(Record("video", 0, 0, None, b"", headers, NOON))
    assert sentence in str(found.value)


@given(st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda inner: st.dictionaries(st.text(max_size=9), inner, max_size=4)))
def test_a_line_that_is_none_is_told(document: object) -> None:
    with pytest.raises(InvalidRecord):
        letter_from_json(json.dumps(document))


@pytest.mark.parametrize("field", json.loads(letter_to_json(letter())))
@pytest.mark.parametrize("value", [{}, [[1, 2]], "\ud800", True])
def test_a_line_with_a_field_of_another_type_is_told_or_read(field: str, value: object) -> None:
    document = json.loads(letter_to_json(letter())) | {field: value}
    try:
        letter_from_json(json.dumps(document))
    except InvalidRecord:
        return
    assert isinstance(value, str)


@given(any_record)
def test_a_replay_is_the_record_as_it_was_and_counts_itself(one: Record) -> None:
    clean = one._replace(headers=tuple(header for header in one.headers if header[0] != "streamfuse_dl_replays"))
    first = replayed(DeadLetter(clean, "video", "decode", "undecodable", "why", NOON))
    value = b"" if one.key is None and one.value is None else one.value
    assert first == WireRecord(one.key, value, (*clean.headers, ("streamfuse_dl_replays", b"1")), one.timestamp)
    again = replayed(DeadLetter(one._replace(headers=first.headers), "video", "decode", "undecodable", "why", NOON))
    assert again.headers == (*clean.headers, ("streamfuse_dl_replays", b"2"))


# --- too many of them --------------------------------------------------------------------------------------------------------------------

MINUTE = 60 * SECOND


def test_one_bad_record_of_three_says_nothing() -> None:
    assert ShareLimit(0.05, MINUTE, 100).note(0, 3, 1) is None


def test_more_than_the_share_is_told_with_both_numbers() -> None:
    limit = ShareLimit(0.05, MINUTE, 100)
    assert limit.note(0, 100, 5) is None
    assert limit.note(SECOND, 200, 11) == Share(11, 200)


def test_what_is_older_than_the_time_that_is_looked_back_on_counts_no_more() -> None:
    limit = ShareLimit(0.5, MINUTE, 100)
    assert limit.note(0, 100, 50) is None
    assert limit.note(MINUTE, 1000, 60) is None
    assert limit.note(2 * MINUTE + SECOND, 1100, 130) == Share(70, 100), "of the last minute alone; of all it would be 12 %"


def test_good_records_of_an_hour_ago_do_not_outweigh_bad_ones_of_now() -> None:
    limit = ShareLimit(0.05, MINUTE, 100)
    for second in range(3600):
        assert limit.note(second * SECOND, 100 * second, 0) is None
    assert limit.note(3600 * SECOND, 360_100, 400) == Share(400, 360_100 - 354_000)


def test_a_share_of_one_switches_it_off() -> None:
    assert ShareLimit(1, MINUTE, 1).note(0, 100, 200) is None


steps = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 300), st.integers(0, 300)), min_size=1, max_size=200)


@given(steps, st.floats(0.01, 0.99), st.integers(60, 600), st.integers(1, 500))
def test_it_counts_the_time_that_is_looked_back_on_and_at_most_a_60th_and_a_look_more(
    steps: list[tuple[int, int, int]], most: float, over: int, least: int
) -> None:
    limit = ShareLimit(most, over, least)
    now = received = refused_ = 0
    looks: list[tuple[int, Share]] = []
    for passed, more, bad in steps:
        now, received, refused_ = now + passed, received + more, refused_ + min(more, bad)
        found = limit.note(now, received, refused_)
        looks.append((now, Share(refused_, received)))
        old = [totals for at, totals in looks if at <= now - over]
        starts = [totals for at, totals in looks if now - over - over // 60 <= at <= now - over]
        if not old or not starts:
            starts = [*starts, old[-1]] if old else [Share(0, 0)]
        counts = [Share(refused_ - before.refused, received - before.received) for before in starts]
        verdicts = [count.received >= least and count.refused > most * count.received for count in counts]
        assert found is None or found in counts
        assert not all(verdicts) or found is not None
        assert any(verdicts) or found is None


@given(st.lists(st.integers(0, 10), max_size=500), st.integers(60, 600))
def test_its_memory_is_bounded(passed: list[int], over: int) -> None:
    limit = ShareLimit(0.05, over, 100)
    now = 0
    for more in passed:
        now += more
        limit.note(now, now, 0)
        assert len(limit._samples) <= 64


class Kept:
    """Keeps what is written, after `gate` is open."""

    def __init__(self) -> None:
        self.letters: list[DeadLetter] = []
        self.gate = anyio.Event()
        self.gate.set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        return None

    async def write(self, letters: Sequence[DeadLetter]) -> None:
        await self.gate.wait()
        self.letters += letters


def desk(kept: Kept | None, received: int, **limit: float) -> tuple[DeadLetters, Metrics]:
    metrics = Metrics()
    settings = DeadLetterLimit.model_validate({"max_share": 0.05, **limit})
    return DeadLetters(settings, kept, lambda: received, ManualClock(NOON), metrics), metrics


@pytest.mark.anyio
async def test_letters_are_written_in_order_and_counted_and_other_losses_are_passed_over() -> None:
    kept = Kept()
    letters, metrics = desk(kept, received=1000)
    async with letters:
        await letters.take([refused(1), refused(2, Outcome.LATE), refused(3, Outcome.QUARANTINED, Stage.SYNCHRONIZE)])
    assert [(one.record.offset, one.stage, one.reason) for one in kept.letters] == [
        (1, "decode", "undecodable"),
        (3, "synchronize", "quarantined"),
    ]
    labels = {"stream": "video", "stage": "synchronize", "reason": "quarantined"}
    assert metrics.registry.get_sample_value("streamfuse_dead_letters_total", labels) == 1


@pytest.mark.anyio
@pytest.mark.parametrize("written", [True, False])
async def test_too_many_stop_it_before_they_are_written_with_or_without_a_place_for_them(written: bool) -> None:
    kept = Kept()
    letters, _ = desk(kept if written else None, received=100)
    async with letters:
        await letters.take([refused(offset) for offset in range(5)])
        with pytest.raises(TooManyDeadLetters) as found:
            await letters.take([refused(5)])
    assert len(kept.letters) == (5 if written else 0)
    assert found.value.exit_code == 8
    assert "at most 0.05 of the records" in str(found.value)
    assert "found 6 of 100, the last one undecodable: expected a JPEG" in str(found.value)
    assert "raise dead_letters.max_share (1 switches the limit off)" in str(found.value)


@pytest.mark.anyio
async def test_a_max_share_of_one_lets_all_of_them_pass() -> None:
    kept = Kept()
    letters, _ = desk(kept, received=100, max_share=1.0)
    async with letters:
        await letters.take([refused(offset) for offset in range(100)])
    assert len(kept.letters) == 100


@pytest.mark.anyio
async def test_tasks_that_write_to_a_file_at_the_same_time_leave_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "dead.jsonl"
    async with JsonlLetters(JsonlDeadLetterSettings(type="jsonl", path=str(path))) as writer, anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(writer.write, [letter()] * 20)
    assert [letter_from_json(line) for line in path.read_text().splitlines()] == [letter()] * 400


# --- before any commit -------------------------------------------------------------------------------------------------------------------


def packet(stream: str, second: float, offset: int) -> Packet:
    time = int(second * SECOND)
    origin = Record(stream, 0, offset, b"a", JPEG, (), time)
    return Packet(stream, "a", time, 0, f"{stream} {offset}", origin.position, time, original=origin)


class Choosy(MemoryRunner):
    """Finds the pictures undecodable."""

    async def prepare(self, windows: Sequence[Window]) -> MemoryBatch:
        return MemoryBatch(windows, [(one, "noise") for window in windows for one in window.packets.get("video", ())])


@pytest.mark.anyio
@pytest.mark.parametrize("stage", Stage)
async def test_no_prediction_and_no_commit_passes_a_record_before_its_letter_is_durable(stage: Stage) -> None:
    kept = Kept()
    kept.gate = anyio.Event()
    letters, metrics = desk(kept, received=100, max_share=1)
    bad: Packet | Loss = packet("video", 0.5, 1)
    if stage is Stage.DECODE:
        bad = Loss("video", "a", Outcome.UNDECODABLE, "noise", Position("video/0", 1), SECOND // 2, record=record(1))
    elif stage is Stage.SYNCHRONIZE:
        bad = Packet("video", "a", 10**18, 0, "1970", Position("video/0", 1), SECOND // 2, original=record(1))
    end = 5
    items = [packet("video", 0.1, 0), bad, packet("audio", 0.1, 0)]
    items += [packet(stream, second, second + 1) for second in range(1, end) for stream in ("video", "audio")]
    source, sink, clock = MemorySource([items]), MemorySink(), ManualClock()
    policies = {stream: StreamPolicy() for stream in ("video", "audio")}
    synchronizer = Synchronizer(policies, Tumbling(SECOND), side_output=True)
    runner = Choosy() if stage is Stage.PREPARE else MemoryRunner()
    parts = Pipeline([source], synchronizer, runner, AtLeastOnce([source], [sink], clock, metrics), clock, metrics, letters.take)
    async with anyio.create_task_group() as group:
        group.start_soon(run, parts, anyio.Event())
        for _ in range(200):
            await anyio.lowlevel.checkpoint()
        assert (sink.published, source.committed) == ([], None)
        kept.gate.set()
    assert source.committed is not None
    assert source.committed.offsets["video/0"].needed == end + 1
    assert len(sink.published) == end
    expected = {Position("video/0", offset) for offset in range(end + 1)} if stage is Stage.PREPARE else {Position("video/0", 1)}
    assert {one.record.position for one in kept.letters} == expected
    assert {one.stage for one in kept.letters} == {stage}


@pytest.mark.anyio
async def test_waiting_for_the_dead_letters_makes_no_stream_idle() -> None:
    clock, metrics = ManualClock(), Metrics()

    async def slow(losses: Sequence[Loss]) -> None:
        clock.advance(60 * SECOND)

    bad = Loss("video", "a", Outcome.UNDECODABLE, "noise", Position("video/0", 1), SECOND // 2, record=record(1))
    batches: list[list[Packet | Loss]] = [
        [packet("video", 0.1, 0), packet("audio", 0.1, 0)],
        [packet("audio", 1.5, 1), bad],
        [packet("video", 1.6, 2)],
    ]
    source, sink = MemorySource(batches), MemorySink()
    policies = {stream: StreamPolicy(idle_timeout=SECOND) for stream in ("video", "audio")}
    synchronizer = Synchronizer(policies, Tumbling(SECOND), max_hold=SECOND, side_output=True)
    await run(
        Pipeline([source], synchronizer, MemoryRunner(), AtLeastOnce([source], [sink], clock, metrics), clock, metrics, slow), anyio.Event()
    )
    assert [(p.end // SECOND, p.absent) for p in sink.published] == [(1, {}), (2, {})]
    assert synchronizer.ledger.accounts["video"].late == 0


# --- the whole daemon --------------------------------------------------------------------------------------------------------------------


async def run_daemon(folder: Path, bad: Sequence[test_bad_input.Bad], **dead_letters: object) -> dict[Position, test_bad_input.Bad]:
    """The daemon of `test_bad_input`, with dead letters. Returns where the bad records stood."""
    topics = Topics()
    letters = TypeAdapter[DeadLetterSettings](DeadLetterSettings).validate_python(dead_letters)
    config = test_bad_input.daemon(folder, topics).config.model_copy(update={"dead_letters": letters})
    made = build(config, clock=ManualClock(test_bad_input.START), topics=topics)
    stood = {}
    for tenth in range(40):
        if tenth % 10 == 0:
            await topics.publish("text", *test_bad_input.record("text", tenth / 10))
        for stream in ("audio", "video"):
            await topics.publish(stream, *test_bad_input.record(stream, tenth / 10))
        if tenth == 15:
            for one in bad:
                stood[Position(f"{one.stream}/0", await topics.publish(one.stream, *one.wire))] = one
    topics.close("video", "audio", "text")
    await made.run(anyio.Event())
    return stood


def own_id(number: int, bad: test_bad_input.Bad) -> test_bad_input.Bad:
    """Some of the cases go by one id, so that together they would be duplicates."""
    if bad.outcome == "duplicate" or "ce_id" not in dict(bad.wire.headers):
        return bad
    return bad._replace(wire=test_bad_input.changed(bad.wire, ce_id=f"bad {number}"))


@pytest.mark.anyio
async def test_every_refused_record_has_its_letter_with_the_original_bytes(tmp_path: Path) -> None:
    path = tmp_path / "dead.jsonl"
    cases = [own_id(number, bad) for number, bad in enumerate(test_bad_input.CASES.values())]
    stood = await run_daemon(tmp_path, cases, type="jsonl", path=str(path), max_share=1)
    letters = {one.record.position: one for one in map(letter_from_json, path.read_text().splitlines())}
    refusals = {where: bad for where, bad in stood.items() if bad.outcome in ("undecodable", "quarantined")}
    assert letters.keys() == refusals.keys()
    for where, bad in refusals.items():
        one = letters[where]
        assert (one.record.key, one.record.value, one.record.headers) == (bad.wire.key, bad.wire.value, bad.wire.headers)
        assert one.reason == bad.outcome
        assert all(word in one.error for word in bad.words)
    assert {one.stage for one in letters.values()} == {"decode", "synchronize", "prepare"}


@pytest.mark.anyio
async def test_a_daemon_with_too_many_bad_records_ends_with_an_error_that_says_so(tmp_path: Path) -> None:
    bad = [test_bad_input.CASES["no id"]] * 20
    with pytest.RaisesGroup(TooManyDeadLetters, flatten_subgroups=True):
        await run_daemon(tmp_path, bad, type="none", max_share=0.1)


def test_the_limit_is_on_where_nothing_is_said() -> None:
    settings = Config.model_validate({"sources": [{"type": "topics"}]}).dead_letters
    assert (settings.type, settings.max_share, settings.over, settings.min_records) == ("none", 0.05, MINUTE, 100)


# --- mutated records ---------------------------------------------------------------------------------------------------------------------


def test_a_decoded_packet_keeps_its_record_and_says_nothing_of_it() -> None:
    wire = encode_packet(Packet("video", "room", NOON, 0, Encoded(JPEG, "image/jpeg"), Position("video/0", 0), NOON, "cam#1"))
    one = RecordDecoder({"video": "video"}, 1000).decode(Record("video", 0, 0, *wire))
    assert isinstance(one, Packet)
    assert one.original == Record("video", 0, 0, *wire)
    assert "original" not in repr(one)


@pytest.mark.parametrize(
    ("policy", "windows"),
    [
        ("reanchor", {"type": "sliding", "size": "1s", "hop": "500ms"}),
        ("quarantine", {"type": "session", "gap": "1s"}),
        ("trust", {"type": "anchored", "primary": "video", "tolerance": "100ms"}),
    ],
)
def test_mutated_records_crash_nothing_and_each_refused_one_has_its_letter(policy: str, windows: dict[str, str]) -> None:
    verdict = in_memory(2_000, 7, clock={"policy": policy}, windows=windows)
    assert sum(verdict.outcomes.values()) == 2_000
    assert {stage for stage, _ in verdict.letters} == {"decode", "synchronize", "prepare"}


@pytest.mark.slow
def test_a_hundred_thousand_mutated_records_crash_nothing_and_each_refused_one_has_its_letter() -> None:
    verdict = in_memory(100_000, int(os.environ.get("FUZZ_SEED", "2026")))
    assert sum(verdict.outcomes.values()) == 100_000
