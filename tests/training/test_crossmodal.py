"""What a model is worth between modalities, and that training and the command line reach it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray

from streamfuse.cli import main
from streamfuse.models.batch import Items
from streamfuse.models.fusion_model import build
from streamfuse.training.crossmodal import Crossed, cross, nearest, retrieval
from streamfuse.training.metrics import recall_at
from streamfuse.training.recipe import TrainingRecipe
from streamfuse.training.samples import Rows
from streamfuse.training.train import EpochEnd, Job, Record, train
from tests.training.made_rows import items, made_rows

TEXTS = ([5, 6, 7, 0], [8, 9, 0, 0])
RECIPE = Path("config/recipes/toy-crossmodal.yaml")


def rows(count: int = 24) -> Rows:
    """Numbers that tell the label, and its word; every fourth row has no word."""
    labels = [row % 2 for row in range(count)]
    draw = np.random.default_rng(0)
    x = [items([[label + draw.normal(0, 0.1), 1.0]]) for label in labels]
    text: list[Items | None] = [None if row % 4 == 3 else items([TEXTS[label]], np.int32) for row, label in enumerate(labels)]
    return made_rows(labels, {"x": x, "text": text})


def architecture() -> dict[str, Any]:
    return {
        "features": 8,
        "encoders": {
            "x": {"type": "mlp", "size": 2, "hidden": 16},
            "text": {"type": "text_gru", "vocabulary": 10, "width": 4, "hidden": 4},
        },
        "fusion": {"type": "addition"},
        "heads": {"label": {"type": "classification", "labels": ["no", "yes"]}},
        "crossmodal": {
            "retrieval": {"size": 4},
            "decoders": {"text": {"type": "text_transformer", "vocabulary": 10, "length": 4, "width": 16, "heads": 2}},
        },
    }


def trained(**settings: Any) -> tuple[Any, Sequence[Record]]:
    torch.manual_seed(0)
    model = build(architecture())
    told = {"epochs": 12, "batch": 8, "optimizer": {"type": "adamw", "rate": 0.02}, "threads": 0, "early_stopping": None, **settings}
    history: Sequence[Record] = ()
    for event in train(model, rows(), rows(8), Job(TrainingRecipe.model_validate(told), 0)):
        if isinstance(event, EpochEnd):
            history = event.history
    return model, history


# --- recall ------------------------------------------------------------------------------------------------------------------------------


def test_recall_at_k_by_hand() -> None:
    similarity = np.array([[0.9, 0.8, 0.1], [0.7, 0.2, 0.1], [0.3, 0.2, 0.1]])
    assert [recall_at(similarity, k).value for k in (1, 2, 3)] == pytest.approx([1 / 3, 2 / 3, 1])


def test_any_of_several_correct_candidates_will_do() -> None:
    similarity = np.array([[0.9, 0.8, 0.7], [0.9, 0.9, 0.9]])
    correct = np.array([[False, True, True], [True, True, False]])
    assert [recall_at(similarity, k, correct).value for k in (1, 2)] == [0.0, 1.0]  # a tie with a wrong one counts against


def test_query_without_a_correct_candidate_is_left_out_and_told() -> None:
    found = recall_at(np.array([[0.9, 0.1], [0.9, 0.1]]), 1, np.array([[True, False], [False, False]]))
    assert found.value == 1.0
    assert found.note == "1 queries have no correct candidate"


def places(*angles: float) -> NDArray[np.float32]:
    return np.array([[math.cos(math.radians(a)), math.sin(math.radians(a))] for a in angles], np.float32)


def crossed(**streams: NDArray[np.float32]) -> Crossed:
    count = len(next(iter(streams.values())))
    present = {stream: np.ones(count, np.bool_) for stream in streams}
    return Crossed([f"row {i}" for i in range(count)], present, streams, {}, [])


def test_each_pair_of_streams_is_looked_up_in_both_directions() -> None:
    made = crossed(a=places(0, 30, 90), b=places(5, 80, 85))
    there, back = retrieval(made)
    assert (there.query, there.gallery, back.query, back.gallery) == ("a", "b", "b", "a")
    assert there.recall[1] == pytest.approx(2 / 3)  # 30 lies closer to 5 than to 80
    assert back.recall[1] == pytest.approx(2 / 3)  # 80 lies closer to 90 than to 30
    assert there.recall[5] == 1.0


def test_rows_that_lack_either_stream_are_no_queries_and_no_candidates() -> None:
    made = crossed(a=places(0, 30, 90), b=places(5, 6, 85))
    made.present["a"][1] = False
    (there, _) = retrieval(made)
    assert there.queries == 2
    assert there.recall[1] == 1.0


def test_by_value_any_row_of_the_same_value_is_a_find() -> None:
    made = crossed(a=places(0, 30, 90), b=places(5, 80, 85))
    assert retrieval(made, np.array([0, 0, 1]))[0].recall[1] == 1.0


def test_chance_is_the_share_of_orders_that_begin_with_a_find() -> None:
    values = np.array([0, 0, 0, 1, 1, 2])
    (there, _) = retrieval(crossed(a=places(*range(6)), b=places(*range(6))), values)
    picks = list(combinations(range(6), 5))
    wanted = np.mean([np.mean([any(values[i] == value for i in pick) for pick in picks]) for value in values])
    assert there.chance[5] == pytest.approx(wanted)
    assert there.chance[1] == pytest.approx((3 * 3 + 2 * 2 + 1) / 36)
    assert there.chance[10] == 1.0


def test_nearest_are_in_order_and_no_more_than_there_are() -> None:
    assert nearest(places(0, 90), places(80, 10, 40), 2).tolist() == [[1, 2], [0, 2]]
    assert nearest(places(0), places(80, 10), 10).tolist() == [[1, 0]]


# --- training ----------------------------------------------------------------------------------------------------------------------------


def test_training_learns_to_find_and_to_write() -> None:
    model, history = trained()
    assert history[-1]["parts"]["generated text"] < history[0]["parts"]["generated text"] / 2
    assert history[-1]["parts"]["retrieval"] < history[0]["parts"]["retrieval"]
    made = cross(model.eval(), rows(8), range(8))
    (written,) = made.written
    assert written.given == ("x",)
    assert written.rows.tolist() == [0, 1, 2, 4, 5, 6]  # those that have a word
    assert written.measures["exact"].mean() == 1.0
    assert [found.recall[1] for found in retrieval(made, np.array([row % 2 for row in range(8)]))] == [1.0, 1.0]


def test_validation_loss_counts_them_by_their_weight() -> None:
    for weight in (0.0, 2.0):
        _, history = trained(epochs=1, crossmodal=weight, tasks={"fixed": {"label": 0.0}})
        found = history[0]["validation"]
        assert found["loss"] == pytest.approx(weight * (found["retrieval"] + found["generated text"]))
        assert ("retrieval" in history[0]["parts"]) == (weight > 0)


def test_without_a_weight_nothing_between_modalities_is_learned() -> None:
    model, _ = trained(epochs=1, crossmodal=0.0)
    torch.manual_seed(0)
    before = build(architecture()).state_dict()
    own = {name: tensor for name, tensor in model.state_dict().items() if name.startswith("crossmodal.")}
    assert all(torch.equal(tensor, before[name]) for name, tensor in own.items())


# --- the command line --------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A bundle of the shipped recipe, made small, and the recipe."""
    folder = tmp_path_factory.mktemp("toy")
    small = yaml.safe_load(RECIPE.read_text())
    small["data"]["rows"] = 60
    small["training"]["epochs"] = 1
    small["model"]["crossmodal"]["retrieval"] = {"size": 16}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(small, sort_keys=False))
    assert main(["train", str(folder / "recipe.yaml"), "--out", str(folder / "runs")]) == 0
    return folder / "runs" / "seed-0", folder / "recipe.yaml"


def test_command_writes_what_was_found_and_made(toy: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle, recipe = toy
    assert main(["crossmodal", str(bundle), str(recipe), "--part", "train", "--match", "label", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "recall@10" in said
    assert "token_accuracy" in said
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert len(figures["retrieval"]) == 6
    assert {(one["stream"], tuple(one["given"])) for one in figures["written"]} == {
        ("text", ("video",)), ("text", ("audio",)), ("text", ("video", "audio")),
        ("video", ("audio",)), ("video", ("text",)), ("video", ("audio", "text")),
    }  # fmt: skip
    with np.load(tmp_path / "places.npz") as arrays:
        count = len(arrays["name"])
        there = ~np.isnan(arrays["text"]).any(1)
        assert arrays["video"].shape == (count, 16)
        assert 0 < there.sum() < count
        assert np.linalg.norm(arrays["text"][there], axis=1) == pytest.approx(1)
    texts = [json.loads(line) for line in (tmp_path / "text.jsonl").read_text().splitlines()]
    assert any("音" in text["really"] or "色" in text["really"] for text in texts)
    neighbours = [json.loads(line) for line in (tmp_path / "neighbours.jsonl").read_text().splitlines()]
    assert all(len(one["nearest"]) == 10 for one in neighbours)
    sheet = cv2.imread(str(tmp_path / "video.png"))
    assert sheet is not None
    assert sheet.shape == (4 * 32, 12 * 32, 3)  # the truth, and three ways to draw it


def test_decoder_takes_from_its_streams_preprocessing_what_the_recipe_leaves_out(toy: tuple[Path, Path]) -> None:
    described = json.loads((toy[0] / "config.json").read_text())
    assert described["inputs"]["text"]["length"] == described["architecture"]["crossmodal"]["decoders"]["text"]["length"] == 32


def test_recipe_with_a_decoder_that_can_not_be_is_refused(toy: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    for change, message in (
        ("decoders.text.depht=3", "model.crossmodal.decoders.text.depht: is no option of 'text_transformer'"),
        ("decoders.text.type=text_rnn", "expected a decoder that is known here (image_cnn, text_transformer), found 'text_rnn'"),
        ("decoders.smell.type=image_cnn", "decoders of ['text', 'video', 'smell']"),
        ("search=3", "model.crossmodal.search"),
    ):
        assert main(["train", str(toy[1]), "--out", str(toy[0] / "refused"), "--set", f"model.crossmodal.{change}"]) == 3
        assert message in capsys.readouterr().err


def test_command_says_what_is_wrong(toy: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle, recipe = toy
    assert main(["crossmodal", "who-is-talking", str(recipe)]) == 4
    assert "has nothing that goes between modalities; train it with model.crossmodal" in capsys.readouterr().err
    assert main(["crossmodal", str(bundle), str(recipe), "--match", "colour", "--out", str(tmp_path)]) == 9
    assert "expected a task with one label a row, found 'colour'; there are label" in capsys.readouterr().err
