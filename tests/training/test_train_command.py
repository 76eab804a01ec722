"""`streamfuse train`: from a recipe to a bundle that a daemon serves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from streamfuse.cli import main
from streamfuse.config import ModelSettings
from streamfuse.models.bundle import digest, load_bundle
from streamfuse.models.runner import TorchRunner
from streamfuse.testing import ManualClock
from streamfuse.types import Encoded
from tests.models.making import packet, window
from tests.training.tiny import LABELS, recipe, write_arrays, write_recipe


def run(recipe_file: Path, out: Path, *options: str) -> int:
    return main(["train", str(recipe_file), "--out", str(out), *options])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run of two seeds left."""
    folder = tmp_path_factory.mktemp("finished")
    assert run(write_recipe(folder / "recipe"), folder / "out", "--seed", "0", "4") == 0
    return folder


def test_each_seed_has_a_bundle_and_a_history(finished: Path) -> None:
    assert sorted(path.name for path in (finished / "out").iterdir()) == ["data.json", "seed-0", "seed-4"]
    config = json.loads((finished / "out" / "seed-4" / "config.json").read_text())
    assert (config["training"]["seed"], config["training"]["recipe"]["name"]) == (4, "tiny")
    assert config["training"]["rows"] == {"train": 142, "validation": 29, "test": 29}
    assert config["training"]["data"].startswith("sha256:")
    assert {"streamfuse", "torch"} <= config["training"]["versions"].keys()
    assert config["metrics"]["validation"]["label.accuracy"] > 0.5
    history = [json.loads(line) for line in (finished / "out" / "seed-4" / "history.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in history] == [0, 1, 2]
    assert history[0].keys() == {"stage", "epoch", "loss", "parts", "validation", "rate", "seconds", "rows"}
    assert digest(finished / "out" / "seed-0") != digest(finished / "out" / "seed-4")


def test_same_seed_gives_the_same_bundle_byte_for_byte(finished: Path, tmp_path: Path) -> None:
    assert run(write_recipe(tmp_path / "recipe"), tmp_path / "out", "--set", "training.threads=0") == 0
    assert digest(tmp_path / "out" / "seed-0") == digest(finished / "out" / "seed-0")


@pytest.mark.anyio
async def test_bundle_serves_what_it_was_trained_for(finished: Path) -> None:
    settings = ModelSettings(bundle=str(finished / "out" / "seed-0"), device="cpu")
    async with TorchRunner(settings, ManualClock()) as runner:
        for number, label in enumerate(LABELS):
            row = json.dumps(np.eye(3)[number].tolist()).encode()
            seen = [packet(stream, Encoded(row, "application/json"), 999, offset=number) for stream in ("a", "b")]
            (made,) = await runner.predict(await runner.prepare([window(*seen)]))
            assert made.label == label
            assert set(made.contributions) == {"a", "b"}


def test_what_is_there_is_not_written_over(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(finished / "recipe" / "tiny.yaml", finished / "out") == 3
    assert "go on there with --resume, choose another --out" in capsys.readouterr().err


def test_resume_leaves_what_is_done(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = digest(finished / "out" / "seed-0")
    assert run(finished / "recipe" / "tiny.yaml", finished / "out", "--resume") == 0
    said = capsys.readouterr()
    assert "seed-0 is done" in said.err
    assert "bundle: " in said.out
    assert digest(finished / "out" / "seed-0") == before


def test_each_fold_is_a_run(tmp_path: Path) -> None:
    options = ["--set", "split.by=folds", "--set", "split.folds=3", "--set", "training.epochs=1"]
    assert run(write_recipe(tmp_path / "recipe"), tmp_path / "out", *options) == 0
    names = {path.name for path in (tmp_path / "out").iterdir()} - {"data.json"}
    assert names == {f"seed-0-fold-{fold}-of-3" for fold in (1, 2, 3)}


def test_transfer_starts_from_what_matches_and_says_what_did(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start = load_bundle(finished / "out" / "seed-0").model.state_dict()
    mode = {"type": "transfer", "start": str(finished / "out" / "seed-0"), "freeze": ["encoders.*"], "rates": {"fusion": 0.1}}
    other = write_recipe(tmp_path / "recipe", mode=mode, epochs=1)
    assert run(other, tmp_path / "out", "--set", "model.fusion.type=concatenation") == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "tensors loaded" in told
    assert "missing" in told
    assert "fusion.own" in told or "fusion:" in told
    ended = load_bundle(tmp_path / "out" / "seed-0").model.state_dict()
    assert all((ended[name] == start[name]).all() for name in ended if name.startswith("encoders."))


def test_regression_head_works_in_the_units_of_the_training_rows(tmp_path: Path) -> None:
    write_arrays(tmp_path)
    tree: dict[str, Any] = recipe(epochs=1)
    tree["data"]["targets"] = {"height": "height"}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tree))
    assert run(tmp_path / "tiny.yaml", tmp_path / "out") == 0
    head = json.loads((tmp_path / "out" / "seed-0" / "config.json").read_text())["architecture"]["heads"]["height"]
    assert head["type"] == "regression"
    assert head["mean"][0] == pytest.approx(1, abs=0.3)
    assert head["scale"][0] == pytest.approx(0.8, abs=0.2)


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ("model.encoders={c: {type: mlp, size: 3}}", 3, "model.encoders.c: expected a stream of the data"),
        ("data.path=none.npz", 9, "none.npz"),
        ("training.mode={type: transfer, start: nowhere}", 3, "training.mode.start"),
        ("training.mode={type: joint, freeze: [encoder]}", 3, "training.mode.freeze.0"),
        ("model.fusion={type: late_transformer, heads: 3}", 3, "model:"),
        ("training.early_stopping.metric=f2", 3, "training.early_stopping.metric"),
    ],
)
def test_mistake_is_told_with_its_path(change: str, code: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(write_recipe(tmp_path / "recipe"), tmp_path / "out", "--set", change) == code
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out" / "seed-0").exists()
