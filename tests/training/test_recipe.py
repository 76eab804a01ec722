"""A recipe is one value, and everything that is wrong with it is told at once, with its path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from streamfuse.errors import ConfigError
from streamfuse.training.recipe import load_recipe
from tests.training.tiny import recipe

RECIPES = sorted((Path(__file__).parents[2] / "config" / "recipes").glob("*.yaml"))


def problems(folder: Path, tree: Any, **changes: str) -> dict[str, str]:
    (folder / "recipe.yaml").write_text(yaml.safe_dump(tree))
    with pytest.raises(ConfigError) as caught:
        load_recipe(folder / "recipe.yaml", changes)
    return {problem.path: problem.message for problem in caught.value.problems}


def test_defaults_are_those_that_keep_a_fusion_from_leaning_on_one_modality(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({**recipe(), "training": {}}))
    made = load_recipe(tmp_path / "recipe.yaml").training
    assert (made.modality_dropout, made.auxiliary) == (0.3, 0.3)
    assert (made.optimizer.type, made.schedule.type, made.mode.type) == ("adamw", "cosine", "joint")
    assert made.deterministic


def test_changes_from_outside_win(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe()))
    changes = {"training.epochs": "7", "training.optimizer.rate": "1e-4", "model.fusion.type": "concatenation", "data.path": "other.npz"}
    made = load_recipe(tmp_path / "recipe.yaml", changes)
    assert (made.training.epochs, made.training.optimizer.rate) == (7, 1e-4)
    assert made.model.fusion == {"type": "concatenation"}
    assert made.data["path"] == "other.npz"


def test_all_mistakes_of_the_tree_are_told_at_once(tmp_path: Path) -> None:
    training = {"epoch": 3, "batch": 0, "optimizer": {"type": "adamv"}, "schedule": {"type": "cosine", "warm": 0.1}, "seeds": [1, 1]}
    found = problems(tmp_path, {"data": {"type": "features"}, "model": {"encoders": {}}, "training": training})
    assert "did you mean `epochs`" in found["training.epoch"]
    assert "did you mean `adam`" in found["training.optimizer.type"]
    assert "did you mean `warm_up`" in found["training.schedule.warm"]
    assert {"name", "model.encoders", "training.batch"} <= found.keys()


def test_all_parts_that_do_not_exist_are_told_at_once(tmp_path: Path) -> None:
    tree = recipe(
        noise={"c": 0.5, "a": 2.0}, mode={"type": "alternating", "by": "task"}, tasks={"type": "uncertainty", "fixed": {"q": 1.0}}
    )
    tree["data"] = {"path": "rows.npz"}
    tree["model"]["encoders"] = {"a": {"type": "magic"}, "b": {"type": "mlp", "hiden": 3}}
    tree["model"]["fusion"] = {"type": "late_transformer", "wings": 2}
    tree["model"]["inputs"] = {"a": {"type": "magic"}}
    tree["model"]["heads"] = {"label": {"type": "magic"}}
    found = problems(tmp_path, tree)
    assert "picks the data set" in found["data.type"]
    assert "mlp" in found["model.encoders.a.type"]
    assert "it has size, hidden" in found["model.encoders.b.hiden"]
    assert "layers" in found["model.fusion.wings"]
    assert {"model.inputs.a.type", "model.heads.label.type", "training.noise.a", "training.noise.c", "training.tasks.type"} <= found.keys()
    assert "label" in found["training.tasks.fixed.q"]


def test_change_that_leads_nowhere_is_told(tmp_path: Path) -> None:
    assert "leads to no place" in problems(tmp_path, recipe(), **{"training.epochs.3": "1"})["training.epochs.3"]


@pytest.mark.parametrize("text", ["- a list", "name: [", "a: 1\na: 2"])
def test_what_is_no_recipe_is_told(text: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(ConfigError, match="expected"):
        load_recipe(tmp_path / "recipe.yaml")


def test_recipe_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: can't be read"):
        load_recipe(tmp_path / "none.yaml")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_that_come_with_it_are_right(path: Path) -> None:
    assert load_recipe(path).name == path.stem
