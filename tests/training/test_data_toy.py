"""The toys need nothing but themselves, and need fusion: no stream alone tells the answer."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import yaml

import streamfuse
from streamfuse.errors import DataError
from streamfuse.training.data import open_data
from streamfuse.training.data.toy import SCENES, ToySettings, draw_scene
from streamfuse.training.quality import examine
from streamfuse.training.recipe import load_recipe
from streamfuse.training.splits import make_splits

HERE = Path(".")


def test_the_same_seed_makes_the_same_rows() -> None:
    one, again, other = (open_data({"type": "toy", "rows": 5, "seed": seed}, HERE).read(3)["video"].data for seed in (1, 1, 2))
    assert (one == again).all()
    assert not (one == other).all()


def test_scenes_have_rooms_and_are_sound_data() -> None:
    samples = open_data({"type": "toy", "rows": 400}, HERE)
    assert len(set(samples.groups)) == 8
    assert samples.heads["label"] == {"type": "classification", "labels": list(SCENES)}
    assert np.bincount(samples.targets["label"]).min() > 60
    splits = make_splits(samples, {"by": "group", "test": ["room 1"], "validation": ["room 2"]})
    assert examine(samples, splits).findings == []


def test_the_picture_tells_the_colour_and_the_tone_its_height_whatever_the_other() -> None:
    settings = ToySettings(noise=0)
    scenes = [draw_scene(settings, row) for row in range(200)]
    for scene in scenes:
        middle = scene.pixels.reshape(-1, 3).astype(int)
        is_blue = middle[:, 0].max() > middle[:, 2].max()
        spectrum = np.abs(np.fft.rfft(scene.samples.astype(np.float64)))
        is_high = spectrum.argmax() / 0.4 > 467
        assert scene.label == f"{'high' if is_high else 'low'} {'blue' if is_blue else 'red'}"


def test_parity_needs_all_streams() -> None:
    samples = open_data({"type": "toy", "kind": "xor", "rows": 2000, "streams": 3, "noise": 0}, HERE)
    rows = [samples.read(row) for row in range(2000)]
    bits = {stream: [bytes(row[stream].data) == bytes(rows[0][stream].data) for row in rows] for stream in samples.inputs}
    odd = samples.targets["label"] == 1
    for one, other in product(bits, bits):  # neither one stream nor two tell more than a coin
        for group in {(a, b) for a, b in zip(bits[one], bits[other], strict=True)}:
            chosen = [pair == group for pair in zip(bits[one], bits[other], strict=True)]
            assert odd[chosen].mean() == pytest.approx(0.5, abs=0.08)
    parity = np.sum([bits[stream] for stream in bits], 0) % 2 == 1
    assert (parity == odd).all() or (parity != odd).all()


def test_streams_can_be_chosen_and_others_are_told() -> None:
    assert set(open_data({"type": "toy", "rows": 3}, HERE, {"audio": {"type": "waveform"}}).read(0)) == {"audio"}
    for kind in ("scenes", "xor"):
        with pytest.raises(DataError, match=r"model.inputs.smell: expected a stream of the toy, .*, found 'smell'"):
            open_data({"type": "toy", "kind": kind, "rows": 3}, HERE, {"smell": {"type": "features", "size": 8}})
    with pytest.raises(DataError, match=r"data.kind: input should be 'scenes' or 'xor', found 'cats'"):
        open_data({"type": "toy", "kind": "cats"}, HERE)


def test_the_command_writes_a_manifest_with_its_files_and_a_recipe(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "streamfuse.training.data.toy", str(tmp_path / "toy"), "--rows", "4"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"streamfuse train {tmp_path / 'toy' / 'recipe.yaml'}" in ran.stdout
    recipe = yaml.safe_load((tmp_path / "toy" / "recipe.yaml").read_text())
    samples = open_data(recipe["data"], tmp_path / "toy", recipe["model"]["inputs"])
    load_recipe(tmp_path / "toy" / "recipe.yaml")
    assert len(samples.names) == 4
    assert {"video", "audio"} <= samples.read(0).keys()
    assert set(json.loads((tmp_path / "toy" / "manifest.jsonl").read_text().splitlines()[0])) >= {
        "name",
        "group",
        "video",
        "audio",
        "label",
    }


@pytest.mark.parametrize("name", ["toy.yaml", "xor.yaml"])
def test_the_recipes_fit_the_toys(name: str) -> None:
    path = Path(streamfuse.__file__).parents[1] / "config" / "recipes" / name
    recipe = load_recipe(path)
    samples = open_data(recipe.data, path.parent, recipe.model.inputs or None, recipe.model.heads or None)
    assert set(recipe.model.encoders) <= set(samples.inputs)
    assert examine(samples, make_splits(samples, recipe.split)).findings == []
