"""What a Kafka commit carries: enough to resume exactly, within the 4,096 bytes that Kafka gives, and nothing of partitions that went."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamfuse.errors import InvalidRecord
from streamfuse.kafka.cursor import Commit, Gained, KafkaCursor
from streamfuse.kafka.metadata import MAX_BYTES, CommitMetadata, decode_metadata, encode_metadata, encode_reference
from streamfuse.kafka.transport import Committed, Partition
from streamfuse.kafka.watermark_log import WatermarkLog
from streamfuse.types import SECOND, Cursor, Offsets

NOON = 1_777_636_800 * SECOND
VIDEO, TEXT, OTHER = Partition("video", 0), Partition("text", 0), Partition("video", 1)

watermarks = st.dictionaries(st.text(max_size=20), st.integers(-(2**62), 2**62), max_size=30)


def committed(commit: Commit) -> tuple[int, CommitMetadata | None]:
    return commit.committed.offset, decode_metadata(commit.committed.metadata)


def fresh(*partitions: Partition) -> KafkaCursor:
    cursor = KafkaCursor("source")
    cursor.gain({partition: Gained(1, None) for partition in partitions})
    return cursor


# --- the metadata ---


@given(st.integers(0, 2**63 - 1), watermarks)
def test_any_metadata_survives(seen: int, marks: dict[str, int]) -> None:
    text, without = encode_metadata(seen, marks)
    assert (decode_metadata(text), without) == (CommitMetadata(seen, marks), 0)


@given(st.integers(0, 3000), st.integers(1, 60))
def test_metadata_always_fits(count: int, length: int) -> None:
    marks = {f"{n:x}".rjust(length, "k"): NOON + n * 123_456_789 for n in range(count)}
    text, without = encode_metadata(7, marks)
    kept = decode_metadata(text)
    assert kept is not None
    assert len(text.encode()) <= MAX_BYTES
    assert kept.watermarks == dict(list(marks.items())[: len(marks) - without])


def test_hundreds_of_keys_fit() -> None:
    assert encode_metadata(7, {f"room-{n}": NOON + n * 500_000_000 for n in range(400)})[1] == 0


def test_expendable_watermarks_go_first() -> None:
    marks = {f"room-{n * 7919:x}": NOON + n * 123_456_789 for n in range(1000)}
    needed = list(marks)[500:600]
    text, without = encode_metadata(7, marks, [key for key in marks if key not in needed])
    kept = decode_metadata(text)
    assert kept is not None
    assert without > 0
    assert set(needed) <= set(kept.watermarks)


def test_no_metadata_is_somebody_elses_commit() -> None:
    assert decode_metadata("") is None


@given(
    st.one_of(
        st.text(min_size=1, max_size=50), st.text(max_size=50).map("~{}".format), st.sampled_from(["[]", "{}", '{"v":1,"s":"x","w":[]}'])
    )
)
def test_metadata_of_somebody_else_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(InvalidRecord, match="expected commit metadata of StreamFuse"):
        decode_metadata(text)


# --- the cursor ---


def test_a_commit_is_the_offset_needed_with_what_was_seen_and_closed() -> None:
    cursor = fresh(VIDEO)
    cursor.note(VIDEO, "room", 8)
    commits = cursor.commits(Cursor({"video/0": Offsets(4, 9)}, {"room": NOON}))
    assert {partition: committed(commit) for partition, commit in commits.offsets.items()} == {
        VIDEO: (4, CommitMetadata(9, {"room": NOON}))
    }


def test_a_commit_comes_back_as_the_cursor_that_it_was() -> None:
    cursor = fresh(VIDEO, TEXT)
    cursor.note(VIDEO, "room", 8)
    whole = Cursor({"video/0": Offsets(4, 9), "text/0": Offsets(1, 1)}, {"room": NOON})
    commits = cursor.commits(whole)
    again = KafkaCursor("source")
    assert again.gain({partition: Gained(2, commit.committed) for partition, commit in commits.offsets.items()}) == whole


def test_watermarks_go_with_every_topic_of_their_partition_number() -> None:
    cursor = fresh(VIDEO, TEXT, OTHER)
    for partition in (VIDEO, TEXT, OTHER):
        cursor.note(partition, f"room-{partition.number}", 0)
    cursor.commits(Cursor({"video/0": Offsets(1, 1), "text/0": Offsets(1, 1), "video/1": Offsets(1, 1)}, {"room-0": 1, "room-1": 2}))
    commits = cursor.commits(Cursor({"video/0": Offsets(2, 2)}, {"room-0": 3}))
    assert {partition: committed(commit) for partition, commit in commits.offsets.items()} == {
        VIDEO: (2, CommitMetadata(2, {"room-0": 3})),
        TEXT: (1, CommitMetadata(1, {"room-0": 3})),
    }


def test_the_newest_of_two_committed_watermarks_holds() -> None:
    old, _ = encode_metadata(1, {"room": NOON - 1})
    new, _ = encode_metadata(1, {"room": NOON})
    cursor = KafkaCursor("source")
    gained = {VIDEO: Gained(1, Committed(0, new)), TEXT: Gained(1, Committed(0, old))}
    assert cursor.gain(gained).watermarks == {"room": NOON}


def test_a_forgotten_key_leaves_the_commit() -> None:
    cursor = fresh(VIDEO)
    cursor.note(VIDEO, "room", 0)
    cursor.commits(Cursor({"video/0": Offsets(1, 1)}, {"room": NOON}))
    commits = cursor.commits(Cursor({}, {"room": None}))
    assert committed(commits.offsets[VIDEO]) == (1, CommitMetadata(1, {}))


def test_a_partition_that_went_is_not_committed() -> None:
    cursor = fresh(VIDEO, OTHER)
    cursor.lose([VIDEO])
    commits = cursor.commits(Cursor({"video/0": Offsets(1, 1), "video/1": Offsets(2, 2)}, {}))
    assert set(commits.offsets) == {OTHER}


def test_keys_of_a_partition_that_went_are_forgotten() -> None:
    cursor = fresh(VIDEO, OTHER)
    cursor.note(VIDEO, "room", 0)
    cursor.lose([VIDEO])
    commits = cursor.commits(Cursor({"video/1": Offsets(1, 1)}, {}))
    assert committed(commits.offsets[OTHER]) == (1, CommitMetadata(1, {}))


def test_another_tools_commit_gives_its_offset_alone() -> None:
    cursor = KafkaCursor("source")
    assert cursor.gain({VIDEO: Gained(1, Committed(5, "by hand"))}) == Cursor({"video/0": Offsets(5, 5)}, {})


def test_keys_beyond_the_room_are_counted_and_told_once_with_the_fix(caplog: pytest.LogCaptureFixture) -> None:
    cursor = fresh(VIDEO)
    marks: dict[str, int | None] = {f"room-{n * 7919:x}": NOON + n * 123_456_789 for n in range(1000)}
    for n, key in enumerate(marks):
        cursor.note(VIDEO, key, n)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            commits = cursor.commits(Cursor({"video/0": Offsets(900, 1000)}, marks))
            cursor.settle(commits)
            (commit,) = commits.offsets.values()
    _, metadata = committed(commit)
    assert metadata is not None
    assert {f"room-{n * 7919:x}" for n in range(900, 1000)} <= set(metadata.watermarks)
    assert cursor.forgotten_watermarks == 2 * (1000 - len(metadata.watermarks))
    assert caplog.text.count("create watermarks_topic") == 1


# --- the topic of watermarks ---


def test_watermarks_that_are_too_many_go_to_their_topic_and_come_back_by_the_version_of_the_commit() -> None:
    marks: dict[str, int | None] = {f"room-{n * 7919:x}": NOON + n * 123_456_789 for n in range(1000)}
    cursor = KafkaCursor("source", has_log=True)
    cursor.gain({VIDEO: Gained(1, None), TEXT: Gained(1, None)})
    for n, key in enumerate(marks):
        cursor.note(VIDEO, key, n)
    whole = Cursor({"video/0": Offsets(900, 1000), "text/0": Offsets(5, 6)}, marks)
    commits = cursor.commits(whole)
    records = [record for _, record in commits.records]
    cursor.settle(commits)
    later = cursor.commits(Cursor({"video/0": Offsets(950, 1001)}, {"room-0": NOON + SECOND}))
    assert [record.key for _, record in later.records] == [b"kroom-0", b"v"]
    for written, made in ((records, commits), (records + [record for _, record in later.records], later)):
        log = WatermarkLog(written, made.versions[0])
        again = KafkaCursor("source", has_log=True)
        resumed = again.gain({partition: Gained(2, commit.committed, log) for partition, commit in made.offsets.items()})
        if made is commits:
            assert resumed == whole
        else:
            assert resumed.watermarks == {**marks, "room-0": NOON + SECOND}
    # one that was written, and whose commit did not come about, does not hold
    log = WatermarkLog(records + [record for _, record in later.records], commits.versions[0])
    assert log.watermarks() == marks


def test_what_is_once_in_the_topic_stays_there() -> None:
    cursor = KafkaCursor("source", has_log=True)
    log = WatermarkLog(WatermarkLog().write({"room": NOON})[1], 1)
    cursor.gain({VIDEO: Gained(1, Committed(5, encode_reference(6, 1)), log)})
    commits = cursor.commits(Cursor({"video/0": Offsets(6, 7)}, {"room": NOON + 1}))
    assert committed(commits.offsets[VIDEO]) == (6, CommitMetadata(7, {}, 2))
    assert [number for number, _ in commits.records] == [0, 0]
