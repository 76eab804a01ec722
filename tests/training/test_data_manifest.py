"""A manifest's rows are what serving would make of the same media; whatever is wrong is told at once, with its line."""

from __future__ import annotations

import json
import pickle
import struct
import wave
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from streamfuse.cli import main
from streamfuse.errors import DataError
from streamfuse.models.batch import Items
from streamfuse.training.data import open_data
from streamfuse.training.data.table import read_table
from streamfuse.training.data.toy import SCENE_INPUTS, ToySettings, write_scenes
from streamfuse.training.samples import Samples
from tests.sources.clips import Clip, grey, write

INPUTS: dict[str, dict[str, Any]] = {
    "video": {"type": "frames", "height": 16, "width": 16, "fps": 25, "colour": False},
    "audio": {"type": "waveform"},
    "text": {"type": "text_bytes", "length": 16},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "clip.mkv", Clip())
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(np.arange(8000, dtype="<i2").tobytes())
    cv2.imwrite(str(tmp_path / "p.png"), np.full((20, 30, 3), 77, np.uint8))
    return tmp_path


def opened(folder: Path, rows: Sequence[Mapping[str, Any]], inputs: Any = None, heads: Any = None, **options: Any) -> Samples:
    (folder / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return open_data({"type": "manifest", "path": "m.jsonl", **options}, folder, inputs or INPUTS, heads)


def read(folder: Path, row: Mapping[str, Any], **options: Any) -> Mapping[str, Items]:
    return opened(folder, [{"label": "x", **row}], **options).read(0)


def sentence(folder: Path, rows: Sequence[Mapping[str, Any]], **options: Any) -> str:
    with pytest.raises(DataError) as error:
        read_all(opened(folder, rows, **options))
    return str(error.value)


def read_all(samples: Samples) -> None:
    for row in range(len(samples.names)):
        samples.read(row)


def words(items: Items) -> list[str]:
    return [bytes(text).rstrip(b"\0").decode() for text in np.asarray(items.data, np.uint8)]


# --- what a row is --------------------------------------------------------------------------------------------------------------------


def test_a_span_of_a_file_gives_all_of_its_streams(folder: Path) -> None:
    items = read(folder, {"media": "clip.mkv", "start": 1.0, "end": 2.0})
    frames = items["video"]
    assert len(frames.mask) == 25
    assert np.asarray(frames.data, int)[0, 8, 8] == grey(25)
    assert frames.time[[0, -1]] == pytest.approx([-1, -0.04])
    loud = np.flatnonzero(np.abs(np.asarray(items["audio"].data, np.int32).ravel()) > 3000) / 16_000
    assert (loud.min(), loud.max()) == (pytest.approx(0.5, abs=0.002), pytest.approx(0.51, abs=0.002))
    assert items["audio"].mask.all()
    assert words(items["text"]) == ["good bye"]
    assert items["text"].time == pytest.approx([-0.8])


def test_a_row_without_a_span_is_the_whole_file(folder: Path) -> None:
    items = read(folder, {"media": "clip.mkv"})
    assert len(items["video"].mask) == 50
    assert len(items["audio"].mask) == 100
    assert words(items["text"]) == ["hello you", "good bye"]


def test_a_stream_may_have_a_file_of_its_own_words_or_nothing(folder: Path) -> None:
    items = read(folder, {"media": "clip.mkv", "start": 0, "end": 0.5, "audio": "a.wav", "text": "hi", "video": None})
    assert set(items) == {"audio", "text"}
    assert np.asarray(items["audio"].data).ravel()[-8000:].tolist() == list(range(8000))
    assert words(items["text"]) == ["hi"]


def test_a_span_of_a_streams_own_file_is_moved_to_the_row(folder: Path) -> None:
    items = read(folder, {"start": 1, "end": 2, "media": "clip.mkv", "text": None, "audio": {"media": "a.wav", "start": 0.25, "end": 0.5}})
    there = items["audio"].mask
    assert there.tolist() == [True] * 12 + [True] + [False] * 37  # 0.25 s from the row's start on
    assert np.asarray(items["audio"].data).ravel()[:3].tolist() == [4000, 4001, 4002]
    assert len(items["video"].mask) == 25


def test_a_picture_stands_where_the_row_says(folder: Path) -> None:
    items = read(folder, {"end": 2, "video": {"media": "p.png", "at": 0.5}, "audio": "a.wav", "text": None})
    assert (items["video"].data == 77).all()
    assert items["video"].time == pytest.approx([-1.5])


def test_texts_may_be_timed_or_in_a_file_and_chinese(folder: Path) -> None:
    (folder / "t.txt").write_text("你好", encoding="utf-8")
    timed = [{"text": "one", "at": 0.25}, {"text": "two", "at": 0.5, "duration": 0.2}]
    items = read(folder, {"audio": "a.wav", "end": 1, "text": {"text": timed}, "video": None})
    assert words(items["text"]) == ["one", "two"]
    assert items["text"].time == pytest.approx([-0.75, -0.5])
    assert words(read(folder, {"audio": "a.wav", "text": {"media": "t.txt"}, "video": None})["text"]) == ["你好"]


def test_numbers_stand_in_the_row_or_in_an_array(folder: Path) -> None:
    np.save(folder / "v.npy", np.array([3.0, 4.0], np.float32))
    inputs = {"x": {"type": "features", "size": 2}}
    samples = opened(folder, [{"x": {"values": [1, 2.5]}, "label": "a"}, {"x": "v.npy", "label": "b"}], inputs)
    assert [samples.read(row)["x"].data.tolist() for row in (0, 1)] == [[[1, 2.5]], [[3, 4]]]


def test_two_streams_may_be_made_of_one_track(folder: Path) -> None:
    inputs = {"wide": {"type": "frames", "height": 8, "width": 32}, "high": {"type": "frames", "height": 32, "width": 8}}
    items = read(folder, {"media": "clip.mkv", "end": 1}, inputs=inputs)
    assert {stream: one.data.shape[1:] for stream, one in items.items()} == {"wide": (8, 32, 3), "high": (32, 8, 3)}


def test_a_track_that_the_file_lacks_is_absent(folder: Path) -> None:
    assert set(read(folder, {"media": "a.wav"})) == {"audio"}


def test_a_late_stretch_of_a_long_file_is_looked_up_and_is_the_same(folder: Path) -> None:
    write(folder / "long.mkv", Clip(frames=500, sound=20_000, captions=(), clicks=(15_500,)))
    items = read(folder, {"media": "long.mkv", "start": 15, "end": 16})
    whole = read(folder, {"media": "long.mkv"})["video"]  # its last 10 s
    assert (items["video"].data == whole.data[125:150]).all()
    loud = np.flatnonzero(np.abs(np.asarray(items["audio"].data, np.int32).ravel()) > 3000) / 16_000
    assert (loud.min(), loud.max()) == (pytest.approx(0.5, abs=0.002), pytest.approx(0.51, abs=0.002))


def test_rows_of_a_manifest_equal_windows_that_the_synchronizer_cuts_of_the_same_file(folder: Path) -> None:
    lines = [{"text": "on", "event_time": 0, "duration": "1s"}, {"text": "off", "event_time": 1_000_000_000, "duration": "1s"}]
    (folder / "truth.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    served = open_data(
        {
            "type": "recording",
            "sources": [{"type": "media", "path": "clip.mkv"}, {"type": "jsonl", "path": "truth.jsonl", "stream": "truth", "key": "clip"}],
            "sync": {
                "windows": {"type": "tumbling", "size": "1s"},
                "streams": {"video": {}, "audio": {}, "text": {"required": False}, "truth": {}},
            },
        },
        folder,
        INPUTS,
    )
    trained = opened(folder, [{"media": "clip.mkv", "start": at, "end": at + 1, "label": "on"} for at in (0, 1)])
    for row in (0, 1):
        one, other = served.read(row), trained.read(row)
        assert one.keys() == other.keys() == {"video", "audio", "text"}
        for stream, mine in one.items():
            assert (mine.data == other[stream].data).all()
            assert (mine.mask == other[stream].mask).all()
            assert mine.time == pytest.approx(other[stream].time, abs=1e-6)


def test_tokens_are_learned_from_rows_that_are_not_judged_on(folder: Path) -> None:
    rows = [{"text": "banana " * 9, "label": "a", "part": "train"}, {"text": "kiwi " * 9, "label": "b", "part": "test"}]
    inputs = {"text": {"type": "tokens", "vocabulary": 300}}
    learned = opened(folder, rows, inputs).inputs["text"]
    assert set(learned) == {"type", "merges", "vocabulary"}
    assert learned == opened(folder, rows[:1], inputs).inputs["text"] != opened(folder, rows[1:], inputs).inputs["text"]


# --- columns --------------------------------------------------------------------------------------------------------------------------


def test_labels_numbers_and_further_tasks(folder: Path) -> None:
    rows: list[dict[str, Any]] = [
        {
            "text": "a",
            "label": "yes",
            "labels": ["x", "y"],
            "value": 0.5,
            "targets": {"age": 3, "mood": 0.1},
            "group": "anna",
            "name": "r1",
        },
        {"text": "b", "label": "no", "labels": [], "value": None, "targets": {"age": 10}, "group": 7, "part": "test"},
    ]
    samples = opened(folder, rows, {"text": INPUTS["text"]}, part="train")
    assert samples.heads == {
        "age": {"type": "classification", "labels": ["3", "10"]},
        "mood": {"type": "regression", "targets": ["mood"]},
        "label": {"type": "classification", "labels": ["no", "yes"]},
        "labels": {"type": "multilabel", "labels": ["x", "y"]},
        "value": {"type": "regression", "targets": ["value"]},
    }
    assert samples.targets["label"].tolist() == [1, 0]
    assert samples.targets["labels"].tolist() == [[1, 1], [0, 0]]
    assert samples.targets["value"].ravel() == pytest.approx([0.5, np.nan], nan_ok=True)
    assert list(samples.groups) == ["anna", "7"]
    assert list(samples.parts) == ["train", "test"]
    assert list(samples.names) == ["r1", "m.jsonl, line 2"]


def test_tasks_can_say_what_numbers_mean(folder: Path) -> None:
    rows: list[dict[str, Any]] = [{"text": "a", "targets": {"stars": 3}}, {"text": "b", "targets": {"stars": 1}}]
    text = {"text": INPUTS["text"]}
    assert opened(folder, rows, text, tasks={"stars": {"type": "regression"}}).targets["stars"].tolist() == [[3], [1]]
    ordinal = opened(folder, rows, text, tasks={"stars": {"type": "ordinal", "labels": ["1", "2", "3"]}})
    assert (ordinal.heads["stars"]["type"], ordinal.targets["stars"].tolist()) == ("ordinal", [2, 0])
    assert "ordinal labels have an order" in sentence(folder, rows, inputs=text, tasks={"stars": {"type": "ordinal"}})


def test_csv_says_the_same_as_json_also_with_a_byte_order_mark_and_semicolons(folder: Path) -> None:
    row = {
        "name": "r",
        "audio": {"plain": "a.wav", "start": 0.1, "end": 0.4},
        "text": "hello, you",
        "labels": ["a", "b"],
        "targets": {"age": "3"},
    }
    (folder / "m.jsonl").write_text(json.dumps(row))
    table = "name;audio;audio.start;audio.end;text;labels;target.age;group\r\nr;a.wav;0.1;0.4;hello, you;a|b;3;\r\n"
    (folder / "m.csv").write_bytes(b"\xef\xbb\xbf" + table.encode())
    assert [one for _, one in read_table(folder / "m.csv")] == [one for _, one in read_table(folder / "m.jsonl")]
    (folder / "m.csv").write_text('name,audio,audio.start,audio.end,text,labels,target.age\nr,a.wav,0.1,0.4,"hello, you",a|b,3\n')
    assert [one for _, one in read_table(folder / "m.csv")] == [one for _, one in read_table(folder / "m.jsonl")]


def test_the_schema_allows_the_example_and_refuses_what_reading_refuses(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "manifest"]) == 0
    schema = Draft202012Validator(json.loads(capsys.readouterr().out))
    row = {"name": "r", "media": "a.mp4", "start": 3, "label": "yes", "text": "hi", "camera": {"media": "b.mp4", "track": "video:1"}}
    assert schema.is_valid(row)
    for wrong in ({"part": "dev"}, {"start": -1}, {"camera": {"mdia": "x"}}, {"label": 0.5}, {"camera": {"track": "video"}}):
        assert not schema.is_valid({**row, **wrong})
        (folder / "m.jsonl").write_text(json.dumps({**row, **wrong}))
        with pytest.raises(DataError):
            read_table(folder / "m.jsonl")


# --- what is wrong --------------------------------------------------------------------------------------------------------------------


def test_files_that_are_missing_are_told_all_at_once_with_their_lines(folder: Path) -> None:
    said = sentence(folder, [{"media": "clip.mkv", "label": "x"}, {"media": "gone.mp4", "label": "x"}, {"audio": "b.wav", "label": "x"}])
    assert f"m.jsonl, line 2: video: there is no file {folder / 'gone.mp4'}; correct the path" in said
    assert f"m.jsonl, line 3: audio: there is no file {folder / 'b.wav'}" in said
    assert len(said.splitlines()) == 2


def test_of_many_problems_the_first_are_told_and_the_rest_counted(folder: Path) -> None:
    said = sentence(folder, [{"media": f"{number}.mp4", "label": "x"} for number in range(50)]).splitlines()
    assert len(said) == 21
    assert said[-1].endswith("and 30 more problems")


def test_an_address_is_no_file(folder: Path) -> None:
    assert "expected a file, found an address" in sentence(folder, [{"media": "https://a/b.mp4", "label": "x"}])


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ({"start": 2, "end": 1}, "expected an end after the start 2 s, found 1 s"),
        ({"audio": {"media": "a.wav", "start": 1, "end": 1}}, "audio: expected an end after the start, found 1 s to 1 s"),
        ({"end": 100}, "video: the row lasts 100 s, more than data.max_seconds = 60; cut it into shorter rows, or raise it"),
        ({"part": "dev"}, "part: input should be 'train', 'validation' or 'test', found 'dev'"),
        ({"label": 1.5}, "label: expected a label as text or a whole number, found 1.5; put it in quotes, or use `value` for numbers"),
        ({"audio": {"mdia": "a.wav"}}, "audio: expected media, track, start, end, at, text, values, found 'mdia'; correct the name"),
        ({"audio": {"media": "a.wav", "text": "x"}}, "expected one of media, text and values, found media and text"),
        ({"audio": 5}, "audio: expected a path, words or an object, found 5"),
        ({"value": "much"}, "value: expected a finite number or a list of them, found 'much'"),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_is_told_with_its_line(folder: Path, row: dict[str, Any], found: str) -> None:
    said = sentence(folder, [{"media": "clip.mkv", "label": "x"}, {"media": "clip.mkv", "label": "x", **row}])
    assert said.startswith("m.jsonl, line 2: ")
    assert found in said


def test_a_label_outside_the_list_is_told_with_its_line(folder: Path) -> None:
    heads = {"label": {"type": "classification", "labels": ["yes", "no"]}}
    assert sentence(folder, [{"media": "clip.mkv", "label": "noo"}], heads=heads) == (
        "m.jsonl, line 1: label: expected one of yes, no, found 'noo'; did you mean 'no'? Otherwise add it to data.tasks.label.labels"
    )


def test_a_wrong_column_is_told_with_the_one_that_was_meant(folder: Path) -> None:
    (folder / "m.csv").write_text("vidoe,audio,lable\nclip.mkv,a.wav,x\n")
    with pytest.raises(DataError) as error:
        open_data({"type": "manifest", "path": "m.csv"}, folder, {"video": INPUTS["video"], "audio": INPUTS["audio"]})
    said = str(error.value)
    assert "expected a column 'video' for the stream of that name, found audio, lable, vidoe" in said
    assert "the column 'vidoe' is no stream of the recipe and no field; did you mean 'video'?" in said
    assert "the column 'lable' is no stream of the recipe and no field; did you mean 'label'?" in said
    assert "expected label, labels, value or targets in the rows" in said


def test_a_stream_that_this_recipe_does_not_use_is_left_alone(folder: Path) -> None:
    assert set(read(folder, {"audio": "a.wav", "thermal": "t.mp4"}, inputs={"audio": INPUTS["audio"]})) == {"audio"}


def test_targets_that_a_model_wants_and_no_row_tells_are_unknown(folder: Path) -> None:
    heads = {"label": {"type": "classification", "labels": ["yes", "no"]}, "mood": {"type": "regression", "targets": ["mood"]}}
    samples = opened(folder, [{"audio": "a.wav"}, {"audio": "a.wav"}], {"audio": INPUTS["audio"]}, heads)
    assert samples.targets["label"].tolist() == [-1, -1]
    assert np.isnan(samples.targets["mood"]).tolist() == [[True], [True]]


def test_inputs_are_needed(folder: Path) -> None:
    (folder / "m.jsonl").write_text('{"label": "x"}')
    with pytest.raises(DataError, match=r"model.inputs: is needed with a manifest"):
        open_data({"type": "manifest", "path": "m.jsonl"}, folder)
    with pytest.raises(DataError, match=r"model.inputs.x: expected a preprocessing that is known here"):
        open_data({"type": "manifest", "path": "m.jsonl"}, folder, {"x": {"type": "none"}})


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "expected rows, found none; is it the wrong file?"),
        (b"\xef\xbb\xbf\n\n", "expected rows, found none"),
        (b"name,label\n", "expected rows, found none"),
        (b'[{"label": "x"}]', "write one object a line, without a list around them"),
        (b'{"label": "x"', 'expected one JSON object, found \'{"label": "x"\''),
        (b'{"value": NaN}', "NaN is not JSON; leave out what is unknown"),
        (b'{"label": "x", "label": "y"}', "a field stands in it twice"),
        (b'{"label": "\\ud800"}', "surrogates not allowed"),
        (b'{"label": "caf\xe9"}', "expected UTF-8, found the byte 0xe9"),
        ('{"label": "x"}'.encode("utf-16"), "expected UTF-8, found UTF-16; save it as UTF-8"),
        (pickle.dumps({"label": "x"}), "is a pickle, which can run code when it is opened; it was not opened"),
    ],
)
def test_a_file_that_is_no_manifest_is_refused(tmp_path: Path, content: bytes, found: str) -> None:
    name = "m.csv" if content.startswith(b"name") else "m.jsonl"
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as error:
        read_table(tmp_path / name)
    assert found in str(error.value)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("a,b,a\n1,2,3\n", "found 'a' twice; give each column a name of its own"),
        ("label\nx,y\n", "m.csv, line 2: expected 1 columns, found 2; put texts that hold a comma in quotes"),
        ('label\n"x\n', "expected CSV, found"),
        (",,\n1,2,3\n", "expected the names of the columns, found none"),
    ],
)
def test_csv_that_is_none_is_told(tmp_path: Path, content: str, found: str) -> None:
    (tmp_path / "m.csv").write_text(content)
    with pytest.raises(DataError) as error:
        read_table(tmp_path / "m.csv")
    assert found in str(error.value)


def test_a_manifest_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file or directory; correct the path"):
        read_table(tmp_path / "none.jsonl")


# --- media that are wrong -------------------------------------------------------------------------------------------------------------


def test_a_huge_picture_is_refused_by_its_header(folder: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    size = chunk(b"IHDR", struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0))
    (folder / "huge.png").write_bytes(b"\x89PNG\r\n\x1a\n" + size + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    said = sentence(folder, [{"video": "huge.png", "audio": "a.wav", "text": "x", "label": "x"}])
    assert said.startswith("m.jsonl, line 1: the image's header says 100000 x 100000 pixels")


def test_a_damaged_picture_and_a_file_that_is_no_media_are_told_with_their_line(folder: Path) -> None:
    (folder / "half.png").write_bytes((folder / "p.png").read_bytes()[:-20])
    assert "m.jsonl, line 1: expected a PNG to end with IEND" in sentence(
        folder, [{"video": "half.png", "label": "x", "audio": None, "text": ""}]
    )
    (folder / "no.wav").write_bytes(b"hello")
    said = sentence(folder, [{"audio": "no.wav", "label": "x", "video": None, "text": "x"}])
    assert "m.jsonl, line 1: expected media that FFmpeg can open" in said


def test_a_long_file_without_a_span_is_refused(folder: Path) -> None:
    said = sentence(folder, [{"media": "clip.mkv", "label": "x"}], max_seconds=1)
    assert said == "m.jsonl, line 1: clip.mkv goes on for more than data.max_seconds = 1; give the row a start and an end"


def test_rows_are_decoded_once_and_no_more_is_kept_than_allowed(folder: Path) -> None:
    rows: list[dict[str, Any]] = [{"audio": "a.wav", "label": "x"}] * 2
    kept = opened(folder, rows, {"audio": INPUTS["audio"]})
    first = kept.read(0)["audio"].data
    assert kept.read(0)["audio"].data is first
    small = opened(folder, rows, {"audio": INPUTS["audio"]}, cache_bytes=10)
    first = small.read(0)["audio"].data
    small.read(1)
    assert small.read(0)["audio"].data is not first


# --- whatever comes -------------------------------------------------------------------------------------------------------------------

NAMES = st.sampled_from(["name", "group", "part", "media", "start", "end", "label", "labels", "value", "targets", "audio", "text", "x"])
SIMPLE = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["a.wav", "clip.mkv", "train"])
VALUES = st.recursive(
    SIMPLE,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.sampled_from(["at", "track", "values"]), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.dictionaries(NAMES, VALUES, max_size=5), max_size=3))
def test_any_json_is_read_or_refused_with_a_sentence(folder: Path, rows: list[dict[str, Any]]) -> None:
    with suppress(DataError):
        read_all(opened(folder, rows, max_seconds=3))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=60) | st.text(alphabet='{}[]":,;\n\ta0.\\u|', max_size=60).map(str.encode), st.sampled_from(["csv", "jsonl", "txt"])
)
def test_any_bytes_are_read_or_refused_with_a_sentence(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"m.{suffix}"
    path.write_bytes(content)
    with suppress(DataError):
        read_table(path)


# --- the toy as a manifest ------------------------------------------------------------------------------------------------------------


def test_the_toy_written_as_a_manifest_has_the_same_rows(tmp_path: Path) -> None:
    toy = {"kind": "scenes", "rows": 24, "seed": 3}
    made = open_data({"type": "toy", **toy}, tmp_path)
    write_scenes(tmp_path, ToySettings.model_validate(toy))
    written = open_data({"type": "manifest", "path": "manifest.jsonl"}, tmp_path, SCENE_INPUTS)
    labels = written.heads["label"]["labels"]
    for row in range(24):
        assert made.heads["label"]["labels"][made.targets["label"][row]] == labels[written.targets["label"][row]]
        one, other = made.read(row), written.read(row)
        assert one.keys() == other.keys()
        for stream, items in one.items():
            assert (items.data == other[stream].data).all()
            assert items.time == pytest.approx(other[stream].time)
            assert (items.mask == other[stream].mask).all()
    assert list(made.groups) == list(written.groups)
