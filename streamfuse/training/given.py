"""The data that a bundle is judged on: a recipe's, a data section's, or a file's, divided so that no row was trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from streamfuse.errors import DataError, Problem
from streamfuse.models.bundle import BundleConfig
from streamfuse.training.data import open_data
from streamfuse.training.quality import Quality, examine
from streamfuse.training.runs import fingerprint
from streamfuse.training.samples import Samples
from streamfuse.training.splits import Split, make_splits

FILES = {".jsonl": "manifest", ".csv": "manifest", ".npz": "features", ".safetensors": "features"}


Tell = Callable[[int, int], None]
"""How many rows were looked through, of how many."""


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """`is_own`: the bundle was trained on this very data, and the split is its own. `remarks` say how far a judgement on it is to be
    trusted."""

    name: str
    samples: Samples
    split: Split
    quality: Quality
    is_own: bool
    remarks: tuple[str, ...] = ()


def open_given(path: Path, config: BundleConfig, tell: Tell = lambda done, of: None) -> Given:
    """The data of a YAML file (a recipe, or the `data` section of one, with or without `split`), of a manifest (.jsonl, .csv) or of
    arrays (.npz, .safetensors), prepared as the bundle has it.

    Where the bundle was trained on this very data, its own split is taken. Every row is read once, to look through it. Raises
    `DataError`.
    """
    data, split = _described(path)
    return divide(str(data.get("path", path.stem)), prepared(data, path.parent, config), split, config, tell)


def divide(name: str, samples: Samples, split: Mapping[str, Any], config: BundleConfig, tell: Tell = lambda done, of: None) -> Given:
    """The same for data that is open, with `split` where the bundle was not trained on it."""
    wanted, remarks = _split(samples, split)
    quality = examine(samples, [wanted], tell)
    if config.training.get("data") == fingerprint(samples, quality):
        own = own_split(samples, config)
        if any(own.parts[part].tolist() != wanted.parts[part].tolist() for part in own.parts):
            quality = examine(samples, [own], tell)
        return Given(name, samples, own, quality, True)
    if "data" in config.training:
        remark = "This is not the data that the bundle was trained on, as a whole. Rows that stand in both would flatter it."
    else:
        remark = "The bundle does not say which rows it was trained on. If some of them stand here, they flatter it."
    return Given(name, samples, wanted, quality, False, (remark, *remarks))


def prepared(data: Mapping[str, Any], folder: Path, config: BundleConfig) -> Samples:
    """A data set with the streams and the labels of a bundle."""
    return open_data(data, folder, config.inputs, config.architecture["heads"])


def own_split(samples: Samples, config: BundleConfig) -> Split:
    """The one that the bundle was trained with, on the data that it was trained on."""
    splits = make_splits(samples, config.training["recipe"]["split"])
    return next((one for one in splits if one.name == config.training["split"]), splits[0])


def _split(samples: Samples, split: Mapping[str, Any]) -> tuple[Split, tuple[str, ...]]:
    """The first that is described, and a remark; rows that are all to be judged need no others."""
    none = np.zeros(0, np.int64)
    if not split and not any(samples.parts):
        return Split("", none, none, np.arange(len(samples.names))), ("The data says no parts: all of its rows are judged.",)
    if not split and set(samples.parts) <= {"test", "validation"}:
        parts = np.asarray(samples.parts)
        return Split("", none, np.flatnonzero(parts == "validation"), np.flatnonzero(parts == "test")), ()
    return make_splits(samples, split)[0], ()


def _described(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    if path.suffix in FILES:
        return {"type": FILES[path.suffix], "path": path.name}, {}
    if path.suffix not in (".yaml", ".yml"):
        raise _unlike(path, f"a file that ends with {path.suffix or 'nothing'}")
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise _unlike(path, str(error.strerror)) from None
    except (yaml.YAMLError, ValueError) as error:
        raise _unlike(path, f"something else ({str(error).splitlines()[0]})") from None
    if isinstance(tree, dict) and isinstance(tree.get("data"), dict):
        return tree["data"], tree.get("split") or {}
    if isinstance(tree, dict) and "type" in tree:
        return tree, {}
    raise _unlike(path, "neither `data` nor `type` in it")


def _unlike(path: Path, found: str) -> DataError:
    expected = f"a recipe or its data section (.yaml), a manifest (.jsonl, .csv) or arrays ({', '.join(list(FILES)[2:])})"
    return DataError([Problem(str(path), f"expected {expected}, found {found}")])
