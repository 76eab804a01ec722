"""Rows are divided by group, by class as far as that goes, and the same way each time."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamfuse.errors import DataError
from streamfuse.training.splits import Split, make_splits
from tests.training.made_rows import made_rows

TALKERS = ["anna"] * 6 + ["bert"] * 6 + ["carl"] * 6 + ["dora"] * 6


def rows_of(split: Split) -> list[list[int]]:
    return [part.tolist() for part in split.parts.values()]


def groups_of(split: Split, groups: Sequence[str]) -> list[set[str]]:
    return [{groups[row] for row in part} for part in split.parts.values()]


def sentence(split: dict[str, Any], **columns: Any) -> str:
    with pytest.raises(DataError) as error:
        make_splits(made_rows([0, 1] * 12, **columns), split)
    return str(error.value)


def test_the_parts_of_the_data_are_taken_as_they_are() -> None:
    (split,) = make_splits(made_rows([0, 1, 0, 1], parts=["test", "train", "validation", "train"]), {})
    assert rows_of(split) == [[1, 3], [2], [0]]


def test_data_without_a_validation_part_gives_some_of_its_training_part() -> None:
    (split,) = make_splits(made_rows([0, 1] * 12, parts=["train"] * 20 + ["test"] * 4), {"validation": 0.2})
    train, validation, test = rows_of(split)
    assert (len(train), len(validation), test) == (16, 4, [20, 21, 22, 23])
    assert sorted(train + validation) == list(range(20))


def test_shares_keep_the_balance_of_the_classes() -> None:
    (split,) = make_splits(made_rows([0] * 80 + [1] * 20), {"by": "share", "validation": 0.2, "test": 0.2})
    assert [len(part) for part in rows_of(split)] == [60, 20, 20]
    assert [sum(row >= 80 for row in part) for part in rows_of(split)] == [12, 4, 4]


def test_the_same_seed_divides_the_same_way_and_another_one_does_not() -> None:
    samples = made_rows([0, 1] * 30)
    one, again, other = (rows_of(make_splits(samples, {"by": "share", "seed": seed})[0]) for seed in (1, 1, 2))
    assert one == again != other


def test_each_fold_is_the_test_once() -> None:
    splits = make_splits(made_rows([0, 1] * 12), {"by": "folds", "folds": 4})
    assert sorted(row for split in splits for row in split.test.tolist()) == list(range(24))
    assert [split.name for split in splits] == ["fold 1 of 4", "fold 2 of 4", "fold 3 of 4", "fold 4 of 4"]
    for split in splits:
        assert sorted(chain(*rows_of(split))) == list(range(24))


def test_folds_and_shares_keep_groups_whole() -> None:
    samples = made_rows([0, 1] * 12, groups=TALKERS)
    for split in (*make_splits(samples, {"by": "folds", "folds": 4}), *make_splits(samples, {"by": "share"})):
        train, validation, test = groups_of(split, TALKERS)
        assert not train & validation
        assert not train & test
        assert not validation & test
        assert train | validation | test == set(TALKERS)


def test_each_group_is_left_out_once() -> None:
    splits = make_splits(made_rows([0, 1] * 12, groups=TALKERS), {"by": "group"})
    assert [groups_of(split, TALKERS)[2] for split in splits] == [{"anna"}, {"bert"}, {"carl"}, {"dora"}]
    assert splits[1].name == "without bert"
    assert all(len(split.validation) for split in splits)


def test_named_groups_are_held_out() -> None:
    (split,) = make_splits(made_rows([0, 1] * 12, groups=TALKERS), {"by": "group", "test": ["carl"], "validation": ["anna"]})
    assert groups_of(split, TALKERS) == [{"bert", "dora"}, {"anna"}, {"carl"}]


def test_a_row_without_a_group_stands_for_itself() -> None:
    (split,) = make_splits(made_rows([0, 1] * 12, groups=["anna", *[""] * 23]), {"by": "share"})
    assert all(rows_of(split))


def test_a_group_in_train_and_test_is_refused() -> None:
    parts = ["train"] * 5 + ["test"] + ["train"] * 6 + ["validation"] * 12
    assert sentence({}, groups=TALKERS, parts=parts) == (
        "split: the group 'anna' is in both train and test, so the model would be judged on what it knows by heart; "
        "put all rows of a group into one part, or leave the part out and set split.by: share"
    )


def test_a_group_in_validation_and_test_is_refused() -> None:
    assert "'anna' is in both validation and test" in sentence({"by": "group", "test": ["anna"], "validation": ["anna"]}, groups=TALKERS)


def test_a_group_that_is_not_there_is_told_with_those_that_are() -> None:
    assert sentence({"by": "group", "test": ["emil"]}, groups=TALKERS) == (
        "split.test: expected groups of the data, found 'emil'; they are anna, bert, carl, dora"
    )


def test_groups_are_needed_to_leave_one_out() -> None:
    assert "the rows have no groups; give each row one" in sentence({"by": "group"})


def test_more_folds_than_groups_are_refused() -> None:
    assert "expected at least 5 groups to divide, found 4" in sentence({"by": "folds"}, groups=TALKERS)


def test_an_unknown_part_is_refused() -> None:
    assert "expected train, validation, test as the part of each row, found 'dev'" in sentence({}, parts=["dev"] * 24)


def test_settings_that_are_none_are_told_with_their_path() -> None:
    assert sentence({"by": "luck"}) == "split.by: expected one of part, share, folds, group, found 'luck'"
    assert "split.folds" in sentence({"by": "folds", "folds": 1})
    assert "split.shares: is no setting" in sentence({"by": "share", "shares": 2})
    assert "expected shares that leave rows to train on" in sentence({"by": "share", "validation": 0.5, "test": 0.5})


def test_no_rows_are_refused() -> None:
    with pytest.raises(DataError, match="expected rows, found none"):
        make_splits(made_rows([], streams={}), {})


def test_rare_classes_and_rows_of_unknown_class_are_divided_too() -> None:
    (split,) = make_splits(made_rows([0] * 20 + [1, -1]), {"by": "share"})
    assert sorted(chain(*rows_of(split))) == list(range(22))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 7), st.integers(-1, 3)), min_size=1, max_size=60),
    st.sampled_from([{"by": "share"}, {"by": "share", "validation": 0.6, "test": 0.3}, {"by": "folds", "folds": 3}, {"by": "group"}]),
    st.booleans(),
)
def test_whatever_the_groups_and_classes_no_row_is_lost_and_no_group_divided(
    made: list[tuple[int, int]], split: dict[str, Any], grouped: bool
) -> None:
    groups = [f"g{group}" for group, _ in made] if grouped else []
    try:
        splits = make_splits(made_rows([label for _, label in made], groups=groups), split)
    except DataError:
        return
    for each in splits:
        parts = rows_of(each)
        assert sorted(chain(*parts)) == np.arange(len(made)).tolist()
        if grouped:
            owners = [{groups[row] for row in part} for part in parts]
            assert sum(map(len, owners)) == len(set.union(*owners))
