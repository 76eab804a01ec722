"""What would spoil a result is told before training starts, each with what to change."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from streamfuse.cli import main
from streamfuse.errors import DataError, Problem
from streamfuse.models.batch import Items
from streamfuse.training.quality import Quality, examine
from streamfuse.training.samples import Rows
from streamfuse.training.splits import Split
from tests.training.made_rows import items, made_rows

LABELS = [0, 1] * 60


def split(train: int = 40, validation: int = 40, test: int = 40) -> list[Split]:
    ends = np.cumsum([train, validation, test])
    return [Split("", np.arange(ends[0]), np.arange(ends[0], ends[1]), np.arange(ends[1], ends[2]))]


def numbers(count: int = 120, size: int = 2) -> list[Items | None]:
    draw = np.random.default_rng(0)
    return [items(draw.standard_normal((1, size))) for _ in range(count)]


def found(samples: Rows, splits: Sequence[Split] | None = None) -> list[str]:
    return [f"{finding.severity} {finding}" for finding in examine(samples, splits or split()).findings]


def streams(**columns: list[Items | None]) -> Rows:
    return made_rows(LABELS, columns)


def test_good_data_has_no_findings() -> None:
    quality = examine(streams(x=numbers()), split())
    assert quality.findings == []
    quality.require()


def test_rows_streams_and_classes_are_counted() -> None:
    column = [None if row % 4 == 0 else one for row, one in enumerate(numbers())]
    quality = examine(streams(x=column, y=numbers()), split())
    assert quality.rows == {"train": 40, "validation": 40, "test": 40}
    assert (quality.streams["x"].present, quality.streams["y"].present) == (90, 120)
    assert quality.classes == {"label": {label: {"train": 20, "validation": 20, "test": 20} for label in ("no", "yes")}}


def test_nan_features_are_an_error_with_their_rows() -> None:
    column = numbers()
    column[7] = items([[np.nan, 1.0]])
    column[9] = items([[np.inf, 1.0]])
    assert found(streams(x=column)) == [
        "error x: holds NaN or infinite numbers in 2 rows (first: row 7); replace them, or leave the stream out of these rows"
    ]


def test_a_constant_modality_is_an_error() -> None:
    same: list[Items | None] = [items([[3.0, 4.0]]) for _ in range(120)]
    assert found(streams(x=numbers(), y=same)) == [
        "error y: is the same in all 120 rows that have it, so it can't tell them apart; take it out, or mend how it is made"
    ]


def test_constant_pictures_are_found_too() -> None:
    black: list[Items | None] = [items(np.zeros((1, 4, 4)), np.uint8) for _ in range(120)]
    assert "error y: is the same in all 120 rows" in found(streams(x=numbers(), y=black))[0]


def test_constant_features_are_told_by_number() -> None:
    column: list[Items | None] = [items([[float(row), 5.0, 0.0]]) for row in range(120)]
    assert found(streams(x=column)) == ["warning x: 2 of 3 features are the same in all rows (1, 2); take them out"]
    assert examine(streams(x=column), split()).streams["x"].constant == (1, 2)


def test_a_stream_that_no_row_has_is_an_error_and_a_rare_one_a_warning() -> None:
    rare: list[Items | None] = [one if row < 5 else None for row, one in enumerate(numbers())]
    assert found(streams(x=numbers(), y=rare)) == ["warning y: is in 5 of 120 rows only; a model learns little from it"]
    nothing = made_rows(LABELS, {"x": numbers(), "y": numbers()})
    never = Rows(nothing.inputs, nothing.empty, nothing.heads, nothing.targets, nothing.names, lambda row: {"x": nothing.read(row)["x"]})
    assert found(never) == ["error y: is in no row; correct where the data takes it from, or take it out of the recipe"]


def test_one_class_only_is_an_error() -> None:
    samples = made_rows([1] * 40 + [0, 1] * 40)
    assert found(samples)[0] == (
        "error label: has one class only among the rows to train on, 'yes'; add rows of another class, or mend the labels"
    )


def test_classes_that_only_others_have_or_nobody_are_told() -> None:
    samples = made_rows([0, 1] * 20 + [2] * 80, names=("a", "b", "c", "d"))
    assert found(samples) == [
        "warning label: 'c' can't be learned: no row to train on has it, but others do; divide them differently",
        "warning label: 'd' has no row at all; take it out of the labels, or add rows",
    ]


def test_unbalanced_classes_are_told() -> None:
    samples = made_rows([0] * 39 + [1] + [0, 1] * 40)
    assert found(samples) == ["warning label: 'no' has 39 rows to train on, 'yes' 1; judge by balanced accuracy or macro F1"]


def test_unknown_and_constant_targets_are_errors() -> None:
    assert "error label: is known of no row to train on" in found(made_rows([-1] * 120))[0]
    samples = made_rows(LABELS)
    heads = {"mood": {"type": "regression", "targets": ["mood"]}}
    twos = {"mood": np.full((120, 1), 2.0, np.float32)}
    same = Rows(samples.inputs, samples.empty, heads, twos, samples.names, samples.reader)
    assert "error mood: has one and the same value in all rows to train on" in found(same)[0]


def test_several_labels_are_counted_each() -> None:
    samples = made_rows(LABELS)
    marks = np.zeros((120, 2), np.float32)
    marks[::2, 0], marks[::3, 1] = 1, 1
    heads = {"tags": {"type": "multilabel", "labels": ["loud", "fast"]}}
    several = Rows(samples.inputs, samples.empty, heads, {"tags": marks}, samples.names, samples.reader)
    quality = examine(several, split())
    assert quality.classes["tags"]["loud"] == {"train": 20, "validation": 20, "test": 20}
    assert quality.findings == []


def test_the_same_content_in_two_parts_is_told() -> None:
    column = numbers()
    column[100], column[110], column[1] = column[3], column[4], column[2]
    assert found(streams(x=column)) == [
        "warning split: 2 rows (first: row 100) with the same content in train and test; "
        "take one of each pair out, or the result is too good"
    ]


def test_equal_items_at_other_times_are_not_the_same_content() -> None:
    column = numbers()
    one = column[3]
    assert one is not None
    column[100] = Items(one.data, one.time - 1, one.mask)
    assert found(streams(x=column)) == []


def test_streams_of_unequal_length_are_told_with_their_lengths() -> None:
    long: list[Items | None] = [items(np.random.default_rng(row).standard_normal((5, 1))) for row in range(120)]
    short: list[Items | None] = [items(np.random.default_rng(row).standard_normal((5 if row else 3, 1))) for row in range(120)]
    assert found(streams(x=long, y=short)) == [
        "warning data: 1 row (row 0) with streams of unequal length (x 4.00 s, y 2.00 s); cut them to one span with start and end"
    ]


def test_rows_without_any_stream_are_told() -> None:
    column = numbers()
    column[5] = None
    assert "warning data: 1 row (row 5) without any stream" in found(streams(x=column))[0]


def test_rows_that_cannot_be_read_are_errors_with_their_sentences() -> None:
    good = streams(x=numbers())

    def read(row: int) -> Mapping[str, Items]:
        if row in (3, 4):
            raise DataError([Problem("a.wav", "is damaged; repair it")])
        return good.read(row)

    broken = Rows(good.inputs, good.empty, good.heads, good.targets, good.names, read)
    assert found(broken) == ["error row 3: a.wav: is damaged; repair it", "error row 4: a.wav: is damaged; repair it"]


def test_small_and_missing_parts_are_told() -> None:
    assert found(streams(x=numbers()), split(100, 20, 0)) == [
        "warning split: 20 rows for validation: a result on so few says little; bring more data",
        "warning split: no rows for the test: nothing will say how good the model is on data it has not seen; set aside some",
    ]


def test_no_rows_are_an_error() -> None:
    assert "error data: expected rows, found none" in found(made_rows([], {}), split(0, 0, 0))[0]


def test_all_errors_are_raised_at_once_and_warnings_are_not() -> None:
    column = numbers()
    column[7] = items([[np.nan, 1.0]])
    same: list[Items | None] = [items([[3.0, 4.0]]) for _ in range(120)]
    with pytest.raises(DataError) as error:
        examine(streams(x=column, y=same), split(100, 20, 0)).require()
    assert [problem.path for problem in error.value.problems] == ["x", "y"]


def test_progress_is_told_row_by_row() -> None:
    told: list[tuple[int, int]] = []
    examine(made_rows([0, 1]), split(2, 0, 0), lambda done, of: told.append((done, of)))
    assert told == [(1, 2), (2, 2)]


def test_it_can_be_printed_and_kept_as_json() -> None:
    column = numbers()
    column[7] = items([[np.nan, 1.0]])
    quality: Quality = examine(streams(x=column), split())
    console = Console(width=160, file=io.StringIO())
    with console.capture() as printed:
        console.print(quality.table())
    text = printed.get()
    for word in ("train", "100%", "yes", "error  x: holds NaN"):
        assert word in text
    document: dict[str, Any] = json.loads(json.dumps(quality.document()))
    assert document["findings"][0]["severity"] == "error"
    assert document["rows"] == {"train": 40, "validation": 40, "test": 40}


def test_training_does_not_begin_on_data_with_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = ({"text": f"word {row}", "label": "yes", "group": f"g{row}"} for row in range(9))
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    assert main(["train", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "out")]) == DataError.exit_code
    assert "label: has one class only among the rows to train on, 'yes'" in capsys.readouterr().err
    assert not list(tmp_path.glob("out/*/*"))


RECIPE = """\
name: bad
data: {type: manifest, path: m.jsonl}
model:
  inputs: {text: {type: text_bytes}}
  encoders: {text: {type: byte_text}}
"""
