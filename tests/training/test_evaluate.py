"""What a report says of one model: from answers that are known, and of models that are small."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from streamfuse.cli import main
from streamfuse.errors import DataError
from streamfuse.models.bundle import FORMAT, BundleConfig, WindowShape, save_bundle
from streamfuse.models.fusion_model import FusionModel
from streamfuse.training.cost import count_flops, count_parameters, measure_cost
from streamfuse.training.crossings import Crossing, crossings, mean_crossings
from streamfuse.training.evaluate import Method, Run, evaluate
from streamfuse.training.examine import Examination, examine, join
from streamfuse.training.given import open_given
from streamfuse.training.judge import batches_to_time, evaluation_settings, judge
from streamfuse.training.noise import Noise
from streamfuse.training.robustness import curves
from streamfuse.training.samples import answers, make_batch
from streamfuse.training.splits import Split
from streamfuse.training.subsets import contributions, shapley_values, subset_table
from tests.training.examined import HEADS, LABELS, SIZES, examined, small_model, small_rows, sure_of

ROWS = list(range(20))


def encoded(model: FusionModel) -> Counter[str]:
    """Counts the calls of each encoder from now on."""
    calls: Counter[str] = Counter()

    def counting(stream: str) -> Any:
        def hook(*_: Any) -> None:
            calls[stream] += 1

        return hook

    for stream in model.streams:
        model.encoders[stream].register_forward_hook(counting(stream))
    return calls


def one(test: Examination, validation: Examination | None = None) -> Method:
    return Method("m", "gated", "weight 0", [Run(0, test, validation)])


# --- the pass ------------------------------------------------------------------------------------------------------------------------


def test_each_row_is_encoded_once_for_all_subsets() -> None:
    model = small_model()
    calls = encoded(model)
    examine(model, small_rows(), ROWS, size=10)
    assert calls == {"image": 2, "audio": 2}


def test_only_the_stream_under_noise_is_encoded_again() -> None:
    model, rows = small_model(), small_rows()
    noise = Noise(rows, ROWS)
    calls = encoded(model)
    examine(model, rows, ROWS, noise=noise, levels=(0.5, 1.0), size=20)
    assert calls == {"image": 3, "audio": 3}


@pytest.mark.parametrize("shown", [(), ("image",), ("audio",), ("image", "audio")])
def test_a_subset_is_answered_as_if_the_others_had_never_been_there(shown: tuple[str, ...]) -> None:
    model, rows = small_model(), small_rows(missing=True)
    found = examine(model, rows, ROWS, size=7)
    wanted = answers(model, make_batch(rows, ROWS), shown)["label"].numpy()
    assert found.answers["label"][found.number(shown)] == pytest.approx(wanted, abs=1e-6)


def test_noise_is_answered_as_if_the_rows_had_come_with_it() -> None:
    model, rows = small_model(), small_rows()
    noise = Noise(rows, ROWS)
    found = examine(model, rows, ROWS, noise=noise, levels=(0.5,), size=7)
    wanted = answers(model, noise.disturb(make_batch(rows, ROWS), {"audio": 0.5}, seed=0))["label"].numpy()
    assert found.noised["audio"]["label"][0] == pytest.approx(wanted, abs=1e-6)


def test_what_a_row_lacks_is_told() -> None:
    found = examine(small_model(), small_rows(6, missing=True), range(6))
    assert found.present[:, 1].tolist() == [False, True, True, False, True, True]


def test_folds_are_put_together_row_by_row() -> None:
    model, rows = small_model(), small_rows()
    whole = examine(model, rows, ROWS)
    both = join([examine(model, rows, ROWS[:8]), examine(model, rows, ROWS[8:])])
    assert both.names == whole.names
    assert both.answers["label"] == pytest.approx(whole.answers["label"], abs=1e-6)


def test_no_rows_are_no_reason_to_fail() -> None:
    found = evaluate(one(examine(small_model(), small_rows(), [])))
    assert found.tasks["label"].summary.mean is None
    assert found.tasks["label"].scores["accuracy"].note == "no row has a known target"


# --- what is made of it --------------------------------------------------------------------------------------------------------------


def test_shapley_values_add_up_to_the_answer_less_that_with_nothing() -> None:
    found = examine(small_model(), small_rows(missing=True), ROWS)
    values = shapley_values(found, "label")
    said, nothing = found.said("label"), found.answers["label"][0]
    greatest = said.argmax(1)
    rows = np.arange(len(said))
    assert values.sum(1) == pytest.approx((said - nothing)[rows, greatest], abs=1e-6)
    assert values[::3, 1] == pytest.approx(0, abs=1e-6)  # without sound, sound says nothing


def test_contributions_are_hand_checked() -> None:
    subsets = {"": [[0.5, 0.5]], "image": [[0.6, 0.4]], "audio": [[0.5, 0.5]]}
    found = contributions([examined([[0.9, 0.1]], [0], names=("a", "b"), subsets=subsets)], "label")
    assert [one.size for one in found] == pytest.approx([0.25, 0.15])
    assert [one.part for one in found] == pytest.approx([0.625, 0.375])


def test_the_subset_table_is_over_the_rows_that_have_every_stream() -> None:
    present = [[True, True], [True, True], [True, False]]
    test = examined(sure_of([0, 1, 2]), [0, 1, 0], subsets={"image": sure_of([0, 2, 0])}, present=present)
    found = {one.shown: one for one in subset_table([test], "label")}
    assert found["image", "audio"].mean == 1.0
    assert found["image",].mean == 0.5
    assert {one.rows for one in found.values()} == {2}


def test_where_no_row_has_every_stream_each_subset_has_its_own_rows() -> None:
    test = examined(sure_of([0, 1]), [0, 1], subsets={"image": sure_of([0, 0])}, present=[[True, False], [False, True]])
    found = {one.shown: one for one in subset_table([test], "label")}
    assert (found["image",].mean, found["image",].rows) == (1.0, 1)
    assert (found["image", "audio"].mean, found["image", "audio"].rows) == (None, 0)


def test_the_area_of_a_robustness_curve_is_hand_checked() -> None:
    noised = [sure_of([0, 1, 0, 0]), sure_of([0, 0, 0, 0])]  # 3 of 4 right at 0.5, 2 of 4 at 1
    test = examined(sure_of([0, 1, 0, 1]), [0, 1, 0, 1], noised=noised)
    found = curves([test], "label")[0]
    assert found.means == pytest.approx((1.0, 0.75, 0.5))
    assert found.area == pytest.approx(0.75)
    assert found.at(1.0) == 0.5


def test_means_and_deviations_are_over_seeds() -> None:
    runs = [Run(0, examined(sure_of([0, 1]), [0, 1])), Run(1, examined(sure_of([0, 0]), [0, 1]))]
    found = evaluate(Method("m", "gated", "", runs)).tasks["label"]
    assert found.scores["accuracy"].mean == 0.75
    assert found.scores["accuracy"].deviation == pytest.approx(0.5 / 2**0.5)
    assert found.confusion == ((2, 0, 0), (1, 1, 0), (0, 0, 0))


def test_temperature_is_the_validations_whatever_the_test_holds() -> None:
    random = np.random.default_rng(1)
    truth = random.integers(0, 3, 300)
    said = sure_of(np.where(random.random(300) < 0.6, truth, (truth + 1) % 3).tolist(), of=0.98)
    held = examined(said, truth)
    right, wrong = examined(said, said.argmax(1)), examined(said, (said.argmax(1) + 1) % 3)
    temperatures = [evaluate(one(test, held)).tasks["label"].calibration for test in (right, wrong)]
    assert temperatures[0] is not None
    assert temperatures[1] is not None
    assert temperatures[0].temperature == temperatures[1].temperature
    assert temperatures[0].temperature is not None
    assert temperatures[0].temperature > 2


def test_thresholds_are_the_validations() -> None:
    said = np.array([[0.1, 0.9], [0.3, 0.6], [0.2, 0.7], [0.4, 0.8]], np.float32)
    held = examined(said, np.array([[0, 1], [1, 0], [0, 0], [1, 1]], np.float32), kind="multilabel", names=("a", "b"))
    test = examined(said, np.array([[1, 0], [0, 1], [1, 1], [0, 0]], np.float32), kind="multilabel", names=("a", "b"))
    assert evaluate(one(test, held)).tasks["label"].thresholds == pytest.approx((0.3, 0.8))
    assert evaluate(one(test)).tasks["label"].thresholds is None


def test_every_kind_of_task_is_told_of_in_json() -> None:
    heads: dict[str, dict[str, Any]] = {
        "label": dict(HEADS["label"]),
        "tags": {"type": "multilabel", "labels": ["x", "y"]},
        "height": {"type": "regression", "targets": ["cm"]},
        "grade": {"type": "ordinal", "labels": ["low", "middle", "high"]},
    }
    random = np.random.default_rng(0)
    tags, height = (random.random((20, 2)) < 0.5).astype(np.float32), random.normal(size=(20, 1)).astype(np.float32)
    tags[3, 0] = height[4] = np.nan
    targets: dict[str, NDArray[Any]] = {
        "label": random.integers(-1, 3, 20),
        "tags": tags,
        "height": height,
        "grade": random.integers(-1, 3, 20),
    }
    model, rows = small_model(heads), small_rows(targets=targets, missing=True)
    test = examine(model, rows, ROWS[:14], noise=Noise(rows, ROWS), levels=(1.0,))
    found = evaluate(one(test, examine(model, rows, ROWS[14:], subsets=False)))
    assert set(found.tasks) == set(heads)
    assert found.tasks["height"].estimates
    assert [weight.stream for weight in found.weights] == list(SIZES)


def test_what_is_found_between_modalities_is_told_with_what_chance_would_find() -> None:
    model = small_model(crossmodal={"retrieval": {"size": 8}})
    found = {(one.what, one.measure): one for one in crossings(model, small_rows(), ROWS)}
    assert set(found) == {(f"{a} found by {b}", f"recall@{k}") for a, b in (("image", "audio"), ("audio", "image")) for k in (1, 5, 10)}
    assert found["audio found by image", "recall@5"].chance == pytest.approx(5 / 20)
    assert found["audio found by image", "recall@1"].value <= found["audio found by image", "recall@10"].value
    assert crossings(small_model(), small_rows(), ROWS) == []


def test_what_is_between_modalities_is_the_mean_over_seeds() -> None:
    seeds = [[Crossing("a found by b", "recall@1", value, 20)] for value in (0.25, 0.75)]
    assert list(mean_crossings(seeds)) == [Crossing("a found by b", "recall@1", 0.5, 20)]


# --- cost ----------------------------------------------------------------------------------------------------------------------------


def test_parameters_are_counted_by_part() -> None:
    found = count_parameters(small_model())
    assert found["encoder audio"] == (3 * 8 + 8) + (8 * 8 + 8) + 2 * 8  # two layers and a norm
    assert found["heads"] == 8 * 3 + 3 + 2 * 8


def test_operations_of_a_linear_layer_are_two_for_each_weight_and_row() -> None:
    model, rows = small_model(fusion="addition"), small_rows()
    encoders = 2 * 2 * (4 * 8 + 8 * 8) + 2 * 2 * (3 * 8 + 8 * 8)  # two items of each stream
    assert count_flops(model, make_batch(rows, ROWS[:4]).inputs) == encoders + 2 * 8 * 3


def test_operations_of_attention_and_of_an_lstm_are_counted() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(4, 4, batch_first=True)

        def forward(self, inputs: Any) -> torch.Tensor:
            x: torch.Tensor = inputs["image"].data
            x = torch.nn.functional.scaled_dot_product_attention(x, x, x)
            return self.lstm(x)[0]  # type: ignore[no-any-return]

    inputs = make_batch(small_rows(), [0]).inputs
    attention = 2 * (2 * 2 * 4) * 2  # queries by keys, weights by values
    lstm = 2 * 2 * (16 * 4 + 16 * 4)  # two steps, four gates of what comes in and of the state
    assert count_flops(Both(), inputs) == attention + lstm  # type: ignore[arg-type]


def test_models_take_turns_and_each_has_both_batches() -> None:
    models = {"one": small_model(), "two": small_model(fusion="addition")}
    inputs = {name: batches_to_time(small_rows(), ROWS, model.streams) for name, model in models.items()}
    found = measure_cost(models, inputs, rounds=3)
    assert [latency.size for latency in found["one"].latency] == [1, 32]
    assert all(latency.rounds == 3 and 0 < latency.median <= latency.p90 for cost in found.values() for latency in cost.latency)


# --- rows and commands ---------------------------------------------------------------------------------------------------------------


def test_a_part_without_rows_is_a_sentence() -> None:
    none = np.zeros(0, np.int64)
    with pytest.raises(DataError, match="expected rows in the test part, found none; there are rows for train"):
        judge(small_model(), small_rows(), Split("", np.arange(20), none, none), "test", evaluation_settings({}), seed=0, noise=None)


def write_arrays(folder: Path, count: int = 60, parts: bool = True) -> Path:
    random = np.random.default_rng(0)
    arrays: dict[str, Any] = {stream: random.normal(size=(count, size)).astype(np.float32) for stream, size in SIZES.items()}
    arrays["label"] = np.array(LABELS)[random.integers(0, 3, count)]
    if parts:
        arrays["part"] = np.array([("train", "train", "validation", "test")[i % 4] for i in range(count)])
    np.savez(folder / "rows.npz", **arrays)
    return folder / "rows.npz"


def write_bundle(folder: Path) -> BundleConfig:
    encoders = {stream: {"type": "mlp", "size": size, "hidden": 8} for stream, size in SIZES.items()}
    config = BundleConfig(
        name="small",
        format=FORMAT,
        inputs={stream: {"type": "features", "size": size} for stream, size in SIZES.items()},
        architecture={"features": 8, "encoders": encoders, "fusion": {"type": "gated"}, "heads": {"label": dict(HEADS["label"])}},
        window=WindowShape(size_ms=1000, hop_ms=1000),
    )
    save_bundle(folder, config, small_model())
    return config


def test_evaluate_writes_a_report_of_the_test_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_arrays(tmp_path)
    config = write_bundle(tmp_path / "bundle")
    assert main(["evaluate", str(tmp_path / "bundle"), str(data), "--out", str(tmp_path / "report")]) == 0
    assert "small reaches accuracy" in capsys.readouterr().out
    given = open_given(data, config)
    batch = make_batch(given.samples, given.split.test.tolist())
    right = answers(small_model(), batch)["label"].argmax(1) == batch.targets["label"]
    results = json.loads((tmp_path / "report" / "results.json").read_text())
    assert results["methods"][0]["tasks"]["label"]["scores"]["accuracy"]["mean"] == pytest.approx(float(right.float().mean()))
    assert results["data"]["parts"] == {"train": 30, "validation": 15, "test": 15}
    assert (tmp_path / "report" / "report.html").is_file()
    assert (tmp_path / "report" / "report.md").is_file()


def test_data_without_parts_is_judged_whole_and_the_doubt_is_told(tmp_path: Path) -> None:
    config = write_bundle(tmp_path / "bundle")
    given = open_given(write_arrays(tmp_path, parts=False), config)
    assert len(given.split.test) == 60
    assert given.remarks[0].startswith("The bundle does not say which rows it was trained on")


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("data.txt", "", "found a file that ends with .txt"),
        ("data.yaml", "name: x", "found neither `data` nor `type` in it"),
        ("data.yaml", "{", "found something else"),
        ("missing.yaml", None, "found No such file"),
    ],
)
def test_what_is_no_data_is_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: str | None, told: str
) -> None:
    write_bundle(tmp_path / "bundle")
    if content is not None:
        (tmp_path / name).write_text(content)
    assert main(["evaluate", str(tmp_path / "bundle"), str(tmp_path / name)]) == 9
    assert told in capsys.readouterr().err


def test_without_scikit_learn_it_says_how_to_get_it() -> None:
    code = "import sys; sys.modules['sklearn'] = None; from streamfuse.cli import main; sys.exit(main(['evaluate', 'a', 'b.yaml']))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (1, "streamfuse: training and evaluation need scikit-learn; pip install 'streamfuse[train]'\n")
