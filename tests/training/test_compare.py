"""Which method is better by more than chance, on the same rows; and that nothing of the test chooses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from streamfuse.cli import main
from streamfuse.errors import DataError
from streamfuse.training.compare import Comparison, DataFacts, compare
from streamfuse.training.evaluate import Method, Run
from streamfuse.training.statistics import Sample, holm, mean_and_deviation, summarise
from streamfuse.training.statistics import compare as compare_pairs
from tests.training.examined import examined, sure_of

FACTS = DataFacts("made", "test")


def right(share: float, rows: int = 400, seeds: int = 3, seed: int = 0) -> NDArray[np.float64]:
    """Which rows were answered rightly, with this chance, `(seeds, rows)`."""
    return (np.random.default_rng(seed).random((seeds, rows)) < share).astype(np.float64)


# --- statistics ----------------------------------------------------------------------------------------------------------------------


def test_holms_correction_is_hand_checked() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_interval_of_many_rows_is_that_of_the_binomial() -> None:
    found = summarise(right(0.8, rows=1000, seeds=1), Sample(np.ones(1000)))
    assert found.mean is not None
    assert found.low is not None
    assert found.high is not None
    half = 1.96 * (found.mean * (1 - found.mean) / 1000) ** 0.5
    assert (found.mean - found.low, found.high - found.mean) == pytest.approx((half, half), rel=0.1)
    assert found.deviation is None
    assert found.drawn == "1000 rows of one seed"


def test_seeds_that_differ_widen_the_interval() -> None:
    same, differing = np.repeat([[1.0, 1.0, 0.0, 0.0] * 50], 4, 0), np.vstack([np.ones((2, 200)), np.zeros((2, 200))])
    narrow, wide = (summarise(own, Sample(np.ones(200))) for own in (same, differing))
    assert narrow.mean == wide.mean == 0.5
    assert narrow.low is not None
    assert wide.low is not None
    assert wide.low < narrow.low


def test_rows_of_many_groups_are_drawn_by_group() -> None:
    groups = [f"talker {i % 20}" for i in range(400)]
    numerators = np.repeat([[float(i % 20 < 10) for i in range(400)]], 2, 0)  # half of the talkers are never understood
    by_group, by_row = summarise(numerators, Sample(np.ones(400), groups)), summarise(numerators, Sample(np.ones(400)))
    assert by_group.drawn == "20 groups and 2 seeds"
    assert by_group.low is not None
    assert by_row.low is not None
    assert 0.5 - by_group.low > 3 * (0.5 - by_row.low)


def test_rows_that_are_not_known_do_not_count() -> None:
    known = np.array([1.0, 1.0, 0.0, 0.0])
    found = summarise(np.array([[1.0, 0.0, 0.0, 0.0]]), Sample(known))
    assert (found.mean, found.drawn) == (0.5, "2 rows of one seed")
    nothing = summarise(np.zeros((2, 4)), Sample(np.zeros(4)))
    assert (nothing.mean, nothing.low) == (None, None)


def test_a_method_is_not_better_than_itself() -> None:
    own = right(0.7)
    found = compare_pairs({"a": own, "b": own.copy()}, Sample(np.ones(400)))
    assert found[0].difference == 0
    assert not found[0].significant
    assert found[0].corrected == 1.0


def test_a_clear_difference_is_significant_and_has_its_sign() -> None:
    found = compare_pairs({"a": right(0.9), "b": right(0.6, seed=1), "c": right(0.6, seed=2)}, Sample(np.ones(400)))
    by_pair = {(one.first, one.second): one for one in found}
    assert by_pair["a", "b"].significant
    assert by_pair["a", "b"].low > 0.2
    assert not by_pair["b", "c"].significant
    assert by_pair["a", "b"].p == pytest.approx(2 / 10_001)
    assert by_pair["a", "b"].corrected == pytest.approx(3 * 2 / 10_001)


def test_a_difference_can_be_said_from_either_side() -> None:
    one = compare_pairs({"a": right(0.9), "b": right(0.6, seed=1)}, Sample(np.ones(400)))[0]
    other = one.towards("b")
    assert (other.first, other.difference, other.low) == ("b", -one.difference, -one.high)
    assert one.towards("a") is one


def test_chance_alone_is_rarely_called_significant() -> None:
    """Of 60 comparisons of methods that are equal, at 5 % about 3."""
    false = 0
    for seed in range(60):
        a, b = right(0.7, rows=150, seeds=3, seed=2 * seed), right(0.7, rows=150, seeds=3, seed=2 * seed + 1)
        false += compare_pairs({"a": a, "b": b}, Sample(np.ones(150)), draws=1000)[0].significant
    assert false <= 8


def test_the_same_is_drawn_every_time() -> None:
    assert summarise(right(0.7), Sample(np.ones(400))) == summarise(right(0.7), Sample(np.ones(400)))


def test_a_seed_without_a_value_is_left_out_of_the_mean() -> None:
    assert mean_and_deviation([0.5, None, 0.7]) == pytest.approx((0.6, 0.1 * 2**0.5))
    assert mean_and_deviation([None]) == (None, None)


# --- comparisons ---------------------------------------------------------------------------------------------------------------------


def method(name: str, test: list[int], held: list[int] | None) -> Method:
    """What it answers on rows whose truth is 0, 1, 0, 1."""
    truth = [0, 1, 0, 1]
    validation = None if held is None else examined(sure_of(held), truth)
    return Method(name, "gated", "weight 0", [Run(0, examined(sure_of(test), truth), validation)])


def made(*methods: Method) -> Comparison:
    return compare(methods, FACTS)


def test_validation_chooses_and_not_the_test() -> None:
    found = made(method("good on test", [0, 1, 0, 1], [1, 0, 1, 0]), method("good on validation", [1, 0, 1, 0], [0, 1, 0, 1]))
    assert found.chosen == "good on validation"
    assert [one.name for one in found.ranked("label")] == ["good on test", "good on validation"]


def test_without_a_validation_part_nothing_is_chosen() -> None:
    assert made(method("a", [0, 1, 0, 1], None), method("b", [1, 0, 1, 0], [0, 1, 0, 1])).chosen is None
    assert made(method("alone", [0, 1, 0, 1], None)).chosen == "alone"


def test_of_errors_the_least_is_the_best() -> None:
    truth = np.array([[1.0], [2.0]], np.float32)
    tests = {name: examined(truth + by, truth, kind="regression", names=("cm",)) for name, by in (("near", 0.1), ("far", 1.0))}
    near, far = (Method(name, "", "", [Run(0, test, test)]) for name, test in tests.items())
    found = made(far, near)
    assert found.chosen == "near"
    assert found.ranked("label")[0].name == "near"


def test_methods_that_answered_other_rows_are_not_compared() -> None:
    other = Method("other", "", "", [Run(0, examined(sure_of([0, 1]), [0, 1]))])
    with pytest.raises(DataError, match="expected the 4 test rows of a, found 2 rows, 2 of them others; give all the same data and split"):
        made(method("a", [0, 1, 0, 1], None), other)


def test_methods_with_other_labels_are_not_compared() -> None:
    other = Method("other", "", "", [Run(0, examined(sure_of([0, 1, 0, 1]), [0, 1, 0, 1], names=("x", "y", "z")))])
    with pytest.raises(DataError, match="expected the tasks label of a with the same labels"):
        made(method("a", [0, 1, 0, 1], None), other)


# --- the command ---------------------------------------------------------------------------------------------------------------------

RECIPE = """\
name: {name}
data: {{type: features, path: rows.npz}}
split: {{by: group, test: [one], validation: [two]}}
model:
  features: 8
  encoders:
    image: {{type: mlp, size: 4, hidden: 8}}
    audio: {{type: mlp, size: 3, hidden: 8}}
  fusion: {{type: {fusion}}}
training: {{epochs: 1, seeds: [0, 1], threads: 0}}
evaluation: {{levels: [0.5, 1.0]}}
"""


@pytest.fixture
def recipes(tmp_path: Path) -> list[Path]:
    random = np.random.default_rng(0)
    np.savez(
        tmp_path / "rows.npz",
        image=random.normal(size=(60, 4)).astype(np.float32),
        audio=random.normal(size=(60, 3)).astype(np.float32),
        label=np.array(["a", "b"])[random.integers(0, 2, 60)],
        group=np.array(["one", "two", "three"])[np.arange(60) % 3],
    )
    paths = []
    for fusion in ("gated", "addition"):
        paths.append(tmp_path / f"{fusion}.yaml")
        paths[-1].write_text(RECIPE.format(name=fusion, fusion=fusion))
    return paths


def results(folder: Path) -> dict[str, dict[str, object]]:
    """Of each method, by name."""
    return {one["name"]: one for one in json.loads((folder / "results.json").read_text())["methods"]}


def test_compare_trains_what_is_not_trained_yet_and_judges_all(
    recipes: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["compare", *map(str, recipes), "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "report")]
    assert main(command) == 0
    assert "comes first of 2 methods" in capsys.readouterr().out
    first = results(tmp_path / "report")
    assert first["gated"]["seeds"] == [0, 1]
    bundles = sorted((tmp_path / "runs").glob("*/*/model.safetensors"))
    assert len(bundles) == 4
    written = [path.stat().st_mtime_ns for path in bundles]

    assert main(command) == 0  # nothing is trained again
    assert [path.stat().st_mtime_ns for path in bundles] == written
    folders = [str(tmp_path / "runs" / name) for name in first]
    data = ["--data", str(recipes[0])]
    assert main(["compare", *folders, *data, "--out", str(tmp_path / "again")]) == 0  # from what was trained, without the recipes
    tasks = [{name: one["tasks"] for name, one in found.items()} for found in (first, results(tmp_path / "again"))]
    assert tasks[0] == tasks[1]


def test_a_run_of_another_recipe_of_this_name_is_not_taken_for_this_one(
    recipes: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["compare", str(recipes[0]), "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "report"), "--seed", "0"]
    assert main(command) == 0
    assert main([*command, "--set", "training.epochs=2"]) == 3
    assert "was trained by another recipe of this name; remove it" in capsys.readouterr().err


def test_a_bundle_is_judged_on_the_rows_that_its_own_split_held_out(recipes: list[Path], tmp_path: Path) -> None:
    runs = ["--runs", str(tmp_path / "runs"), "--seed", "0"]
    assert main(["compare", str(recipes[0]), *runs, "--out", str(tmp_path / "report")]) == 0
    other = tmp_path / "other.yaml"  # would judge on rows that it was trained on
    other.write_text(recipes[0].read_text().replace("test: [one], validation: [two]", "test: [three], validation: [two]"))
    bundle = tmp_path / "runs" / "gated" / "seed-0"
    assert main(["evaluate", str(bundle), str(other), "--out", str(tmp_path / "single")]) == 0
    found = json.loads((tmp_path / "single" / "results.json").read_text())
    assert found["data"]["groups"] == ["one"]
    assert found["data"]["remarks"] == []


def test_two_recipes_of_one_name_are_refused(recipes: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = ["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "report"), "--seed", "0"]
    assert main(["compare", str(recipes[0]), str(recipes[0]), *runs]) == 3
    assert "is the name of two of them" in capsys.readouterr().err


def test_a_folder_without_runs_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(tmp_path)]) == 3
    assert "expected a run or the runs of one recipe, found none" in capsys.readouterr().err
