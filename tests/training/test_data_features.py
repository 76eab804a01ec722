"""Arrays of features become rows, alone or within their recording; whatever does not fit is told at once."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from streamfuse.errors import DataError
from streamfuse.training.data import open_data
from streamfuse.training.samples import Samples, make_batch

RECORDINGS: dict[str, Any] = {
    "x": np.arange(10, dtype=np.float32)[:, None],
    "label": np.array([0, 1] * 5),
    "recording": np.array([1, 0, 1, 0, 1, 0, 1, 0, 2, 1]),
    "position": np.array([3, 0, 1, 1, 0, 2, 2, 5, 0, 4]),
}


def opened(folder: Path, arrays: dict[str, Any], heads: Any = None, inputs: Any = None, **options: Any) -> Samples:
    np.savez(folder / "x.npz", **arrays)
    return open_data({"type": "features", "path": "x.npz", **options}, folder, inputs, heads)


def sentence(folder: Path, arrays: dict[str, Any], heads: Any = None, inputs: Any = None, **options: Any) -> str:
    with pytest.raises(DataError) as error:
        opened(folder, arrays, heads, inputs, **options)
    return str(error.value)


def simple(count: int = 4, **more: Any) -> dict[str, Any]:
    x = np.arange(count * 2, dtype=np.float32).reshape(count, 2)
    return {"x": x, "y": np.ones((count, 3, 1), np.float32), "label": np.arange(count) % 2, **more}


# --- what the arrays are ----------------------------------------------------------------------------------------------------------------


def test_float_arrays_are_streams_and_label_is_the_target(tmp_path: Path) -> None:
    samples = opened(tmp_path, simple())
    assert {stream: items.data.shape for stream, items in samples.read(1).items()} == {"x": (1, 2), "y": (3, 1)}
    assert samples.inputs == {"x": {"type": "features", "size": 2, "most": 1}, "y": {"type": "features", "size": 1, "most": 3}}
    assert samples.heads == {"label": {"type": "classification", "labels": ["0", "1"]}}
    assert samples.targets["label"].tolist() == [0, 1, 0, 1]
    assert samples.names[2] == "x 2"
    assert not samples.groups
    assert not samples.parts


def test_rows_become_batches(tmp_path: Path) -> None:
    batch = make_batch(opened(tmp_path, simple()), [1, 3])
    assert batch.inputs["x"].data.tolist() == [[[2, 3]], [[6, 7]]]
    assert batch.targets["label"].tolist() == [1, 1]


def test_lengths_masks_and_times_stand_beside_their_array(tmp_path: Path) -> None:
    samples = opened(
        tmp_path,
        simple(y_length=np.array([3, 1, 0, 2]), y_mask=np.array([[1, 0, 1]] * 4), y_time=np.array([[-0.3, -0.2, -0.1]] * 4)),
    )
    assert samples.read(0)["y"].mask.tolist() == [True, False, True]
    assert samples.read(1)["y"].mask.tolist() == [True, False, False]
    assert "y" not in samples.read(2)
    assert samples.read(3)["y"].time == pytest.approx([-0.3, -0.2, -0.1])


def test_an_item_that_is_all_nan_is_absent_and_one_that_is_so_in_part_is_left_to_the_data_report(tmp_path: Path) -> None:
    arrays = simple()
    arrays["x"][1], arrays["x"][2, 0] = np.nan, np.nan
    samples = opened(tmp_path, arrays)
    assert "x" not in samples.read(1)
    assert np.isnan(samples.read(2)["x"].data).tolist() == [[True, False]]


def test_arrays_can_be_named_and_streams_chosen(tmp_path: Path) -> None:
    samples = opened(
        tmp_path,
        simple(mood=np.array([0.5, 1, 2, np.nan]), who=np.array(["a", "b", "a", "b"])),
        streams={"video": "y"}, targets={"valence": "mood"}, group="who",
    )  # fmt: skip
    assert set(samples.inputs) == {"video"}
    assert samples.heads == {"valence": {"type": "regression", "targets": ["valence"]}}
    assert samples.targets["valence"].ravel() == pytest.approx([0.5, 1, 2, np.nan], nan_ok=True)
    assert list(samples.groups) == ["a", "b", "a", "b"]


def test_inputs_of_a_model_choose_the_streams(tmp_path: Path) -> None:
    assert set(opened(tmp_path, simple(), inputs={"x": {"type": "features", "size": 2}}).inputs) == {"x"}


def test_numbers_of_classes_get_their_names(tmp_path: Path) -> None:
    samples = opened(tmp_path, simple(), tasks={"label": {"labels": ["negative", "positive"]}})
    assert samples.heads["label"]["labels"] == ["negative", "positive"]
    assert samples.targets["label"].tolist() == [0, 1, 0, 1]


def test_marks_are_several_labels(tmp_path: Path) -> None:
    marks = np.array([[1, 0], [0, 0], [1, 1], [0, 1]])
    samples = opened(tmp_path, simple(label=marks), tasks={"label": {"labels": ["loud", "fast"]}})
    assert samples.heads["label"] == {"type": "multilabel", "labels": ["loud", "fast"]}
    assert samples.targets["label"].tolist() == marks.tolist()


def test_one_part_for_all_rows_or_an_array_of_them(tmp_path: Path) -> None:
    assert list(opened(tmp_path, simple(), part="test").parts) == ["test"] * 4
    assert list(opened(tmp_path, simple(part=np.array(["train", "test"] * 2))).parts) == ["train", "test"] * 2


def test_safetensors_are_read_too(tmp_path: Path) -> None:
    save_file({"x": np.ones((2, 3), np.float32), "label": np.array([0, 1])}, tmp_path / "x.safetensors")
    samples = open_data({"type": "features", "path": "x.safetensors"}, tmp_path)
    assert samples.read(0)["x"].data.tolist() == [[1, 1, 1]]


def test_steps_without_times_are_spread_over_the_last_second(tmp_path: Path) -> None:
    assert opened(tmp_path, simple()).read(0)["y"].time == pytest.approx([-2 / 3, -1 / 3, 0])


# --- recordings -------------------------------------------------------------------------------------------------------------------------


def context(folder: Path, kind: str, **options: Any) -> Samples:
    return opened(folder, RECORDINGS, group="recording", position="position", context=kind, **options)


def test_causal_context_is_the_recording_up_to_the_row_in_order_of_position(tmp_path: Path) -> None:
    samples = context(tmp_path, "causal")
    items = samples.read(6)["x"]  # recording 1 at position 2
    assert items.data.ravel().tolist() == [4, 2, 6]
    assert items.time.tolist() == [-2, -1, 0]
    assert samples.read(8)["x"].data.ravel().tolist() == [8]
    assert samples.names[6] == "1, 2"


def test_whole_context_looks_ahead_and_the_row_stands_at_zero(tmp_path: Path) -> None:
    items = context(tmp_path, "whole").read(5)["x"]  # recording 0, positions 0, 1, 2 and 5
    assert items.data.ravel().tolist() == [1, 3, 5, 7]
    assert items.time.tolist() == [-2, -1, 0, 3]


def test_context_of_a_long_recording_is_bounded(tmp_path: Path) -> None:
    assert context(tmp_path, "causal", context_items=2).read(9)["x"].data.ravel().tolist() == [0, 9]
    assert context(tmp_path, "whole", context_items=3).read(6)["x"].data.ravel().tolist() == [2, 6, 0]
    assert context(tmp_path, "whole", context_items=3).inputs["x"]["most"] == 3


def test_context_needs_recordings_and_places(tmp_path: Path) -> None:
    assert "name the arrays in data.group and data.position" in sentence(tmp_path, simple(), context="causal")
    twice = {**RECORDINGS, "position": np.zeros(10)}
    said = sentence(tmp_path, twice, group="recording", position="position", context="whole")
    assert "expected each row of a recording at its own position, found two at one in 0, 1" in said


@pytest.mark.data
def test_utterances_of_mosi_stand_in_their_recordings(recordings: Path) -> None:
    each = {"type": "features", "group": "recording", "position": "position", "context": "whole"}
    sets = [{**each, "path": "train.npz", "part": "train"}, {**each, "path": "test.npz", "part": "test"}]
    samples = open_data({"type": "joined", "sets": sets}, recordings / "mosi")
    assert (len(samples.names), len(set(samples.groups)), set(samples.parts)) == (2199, 93, {"train", "test"})
    assert (samples.targets["label"] == -1).sum() == 752
    for row in range(0, 2199, 40):
        times = samples.read(row)["text"].time
        assert 0 in times
        assert (np.diff(times) > 0).all()


# --- what does not fit ------------------------------------------------------------------------------------------------------------------


def test_arrays_of_unequal_length_are_told_with_their_lengths(tmp_path: Path) -> None:
    said = sentence(tmp_path, simple(x=np.zeros((3, 2), np.float32)))
    assert "expected arrays with equally many rows, found label 4, x 3, y 4; cut them to the same rows" in said


def test_a_label_outside_the_list_is_told_with_its_row(tmp_path: Path) -> None:
    said = sentence(tmp_path, simple(label=np.array(["yes", "no", "yess", "no"])), tasks={"label": {"labels": ["yes", "no"]}})
    assert said == "x 2: label: expected one of yes, no, found 'yess'; did you mean 'yes'? Otherwise add it to data.tasks.label.labels"


def test_a_class_number_beyond_the_labels_is_told(tmp_path: Path) -> None:
    assert "expected one of a, b, found '3'" in sentence(
        tmp_path, simple(label=np.array([0, 1, 3, 1])), tasks={"label": {"labels": ["a", "b"]}}
    )


def test_labels_of_a_model_are_kept_in_its_order(tmp_path: Path) -> None:
    heads = {"label": {"type": "classification", "labels": ["yes", "no"]}}
    samples = opened(tmp_path, simple(label=np.array(["no", "no", "yes", "no"])), heads)
    assert samples.targets["label"].tolist() == [1, 1, 0, 1]


def test_targets_that_a_model_wants_and_the_file_lacks_are_unknown(tmp_path: Path) -> None:
    arrays = simple()
    del arrays["label"]
    heads = {"label": {"type": "classification", "labels": ["yes", "no"]}, "mood": {"type": "regression", "targets": ["mood"]}}
    samples = opened(tmp_path, arrays, heads)
    assert samples.targets["label"].tolist() == [-1] * 4
    assert np.isnan(samples.targets["mood"]).all()


def test_a_file_without_targets_is_told_what_to_set(tmp_path: Path) -> None:
    arrays = simple()
    del arrays["label"]
    assert "expected an array `label`, found x, y; name those with the targets in data.targets" in sentence(tmp_path, arrays)


def test_every_name_that_is_not_there_is_told_at_once(tmp_path: Path) -> None:
    said = sentence(tmp_path, simple(), streams={"video": "v"}, targets={"label": "l"}, group="g")
    for where, name in (("data.streams.video", "v"), ("data.targets.label", "l"), ("data.group", "g")):
        assert f"{where}: expected an array of x.npz, found {name!r}; it has x, y, label" in said


@pytest.mark.parametrize(
    ("arrays", "found"),
    [
        (simple(y_length=np.array([1, 2, 3, 9])), "expected y_length from 0 to 3, the steps of y, found up to 9"),
        (simple(y_mask=np.ones((4, 2))), "expected y_mask as (4, 3) beside y (4, 3, 1), found (4, 2)"),
        (simple(x=np.zeros((0, 2), np.float32), y=np.zeros((0, 1), np.float32), label=np.zeros(0, int)), "expected rows, found none"),
    ],
)
def test_what_stands_beside_an_array_must_fit(tmp_path: Path, arrays: dict[str, Any], found: str) -> None:
    assert found in sentence(tmp_path, arrays)


def test_an_array_of_another_shape_is_refused(tmp_path: Path) -> None:
    assert "expected label as numbers (rows, size) or (rows, steps, size), found (4,) int64" in sentence(
        tmp_path, simple(), streams=["label"]
    )


def test_features_of_another_size_than_the_model_reads_are_refused(tmp_path: Path) -> None:
    said = sentence(tmp_path, simple(), inputs={"x": {"type": "features", "size": 5}})
    assert said.startswith("model.inputs.x: expected features of size 2")


def test_options_that_are_none_are_told_with_their_path(tmp_path: Path) -> None:
    assert "data.grup: is no setting; did you mean `group`?" in sentence(tmp_path, simple(), grup="x")


# --- files that are none ------------------------------------------------------------------------------------------------------------------


class Explosive:
    """Says so if it is ever unpickled."""

    def __reduce__(self) -> Any:
        return pytest.fail, ("the pickle was opened",)


def written(folder: Path, data: bytes) -> str:
    (folder / "x.npz").write_bytes(data)
    with pytest.raises(DataError) as error:
        open_data({"type": "features", "path": "x.npz"}, folder)
    return str(error.value)


def test_a_pickle_in_place_of_arrays_is_refused_and_never_opened(tmp_path: Path) -> None:
    assert "is a pickle, which can run code when it is opened; it was not opened. Save it with numpy.savez" in written(
        tmp_path, pickle.dumps({"x": Explosive()})
    )


def test_a_torch_file_is_a_pickle_too(tmp_path: Path) -> None:
    import torch

    torch.save({"x": Explosive()}, tmp_path / "x.npz")
    assert "is a pickle" in written(tmp_path, (tmp_path / "x.npz").read_bytes())


def test_an_array_of_objects_is_refused_and_never_opened(tmp_path: Path) -> None:
    held = io.BytesIO()
    np.savez(held, x=np.array([Explosive(), [1]], dtype=object), label=np.arange(2))
    assert "the array 'x' holds Python objects, which only a pickle can carry; it was not opened" in written(tmp_path, held.getvalue())


@pytest.mark.parametrize("data", [b"", b"hello", b"PK\x03\x04 but no more", b"\x93NUMPY\x01\x00"])
def test_what_is_no_file_of_arrays_is_refused(tmp_path: Path, data: bytes) -> None:
    assert "npz" in written(tmp_path, data)


def test_a_file_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    held = io.BytesIO()
    np.savez_compressed(held, **simple())
    whole = held.getvalue()
    for end in range(0, len(whole) - 1, 37):
        assert "npz" in written(tmp_path, whole[:end])


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file or directory; correct the path"):
        open_data({"type": "features", "path": "none.npz"}, tmp_path)


# --- several files ------------------------------------------------------------------------------------------------------------------------


def test_joined_sets_are_one_and_later_ones_may_lack_their_targets(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **simple(3, name=np.array(["a", "b", "c"])))
    rest = simple(2)
    del rest["label"]
    np.savez(tmp_path / "b.npz", **rest)
    sets = [{"type": "features", "path": "a.npz", "part": "train"}, {"type": "features", "path": "b.npz", "part": "test"}]
    samples = open_data({"type": "joined", "sets": sets}, tmp_path)
    assert samples.targets["label"].tolist() == [0, 1, 0, -1, -1]
    assert list(samples.parts) == ["train"] * 3 + ["test"] * 2
    assert list(samples.names) == ["a", "b", "c", "b 0", "b 1"]
    assert [samples.read(row)["x"].data[0, 0] for row in range(5)] == [0, 2, 4, 0, 2]


def test_mistakes_in_joined_sets_are_told_with_their_place(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **simple())
    np.savez(tmp_path / "b.npz", **simple(x=np.zeros((4, 7), np.float32)))
    one, other = ({"type": "features", "path": f"{name}.npz"} for name in "ab")
    with pytest.raises(DataError, match=r"data.sets.1: expected x with items of \(2,\), as in the first set, found \(7,\)"):
        open_data({"type": "joined", "sets": [one, other]}, tmp_path)
    with pytest.raises(DataError, match=r"data.sets.0: .*none.npz: expected a file"):
        open_data({"type": "joined", "sets": [{**one, "path": "none.npz"}]}, tmp_path)


def test_an_unknown_kind_of_data_is_told_with_those_that_are_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected a data set that is known here \(.*features.*\), found 'tables'"):
        open_data({"type": "tables"}, tmp_path)
