"""A bundle: a folder with `model.safetensors` and `config.json`, all that is needed to run a model, and no code.

The digest is the SHA-256 over both files. Loading reads numbers and names only: a pickle is refused without being
opened, the architecture is put together from parts that this version knows, and every tensor must be there with its
shape.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, ValidationError
from safetensors.torch import save
from torch import Tensor, nn

from streamfuse.config import Settings
from streamfuse.errors import BundleError
from streamfuse.models.fusion_model import FusionModel, build
from streamfuse.models.parts import UnknownPart
from streamfuse.models.preprocess import PREPROCESSORS, Preprocessor
from streamfuse.models.tensors import read_tensors

FORMAT = 2
"""The format that this version reads and writes."""

TENSORS, CONFIG = "model.safetensors", "config.json"
PACKAGED = Path(__file__).parent.parent / "bundles"


class WindowShape(Settings):
    """The windows that the model was trained on, in ms."""

    size_ms: int = Field(gt=0)
    hop_ms: int = Field(gt=0)


class BundleConfig(Settings):
    """What `config.json` holds."""

    name: str
    format: int
    inputs: dict[str, dict[str, Any]] = Field(min_length=1)
    """Stream -> its preprocessing: `type` and options."""
    architecture: dict[str, Any]
    """`features`, `encoders` (stream -> `type` and options), `fusion` (`type` and options), `heads` (task -> `type` and options).
    The first task is the one whose answer a prediction carries as its label."""
    window: WindowShape
    metrics: dict[str, Any] = Field(default_factory=dict)
    training: dict[str, Any] = Field(default_factory=dict)
    """What it was trained on, under which licences, and how."""


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """A loaded bundle; `model` is in evaluation mode on the CPU."""

    config: BundleConfig
    model: FusionModel
    preprocessors: Mapping[str, Preprocessor]
    digest: str

    @property
    def inputs(self) -> dict[str, str]:
        """Stream -> modality."""
        return {stream: part.modality for stream, part in self.preprocessors.items()}

    @property
    def labels(self) -> tuple[str, ...]:
        """What the first task's head gives: its labels, or what it estimates."""
        return self.model.head(self.model.tasks[0]).names


def load_bundle(bundle: str | Path) -> Bundle:
    """A folder's bundle, or the one of this name that comes with the package. Raises `BundleError`."""
    folder = find_bundle(bundle)
    config_bytes = _read(folder, CONFIG)
    tensors_path = folder / TENSORS
    if not tensors_path.is_file():
        raise BundleError(f"expected {TENSORS} in the bundle {folder}, found {_names(folder)}; {_advice(folder)}")
    config = _parse(config_bytes, folder)
    model, preprocessors = _assemble(config, folder)
    model.load_state_dict(_tensors(tensors_path, model), assign=True)
    return Bundle(config, model.eval().requires_grad_(False), preprocessors, digest(folder))


def save_bundle(folder: Path, config: BundleConfig, model: FusionModel) -> str:
    """Writes a bundle and gives its digest. The same model and config give the same bytes.

    A part that was made from a folder elsewhere has `packed`, the options that make it again from the bundle alone; they take the place
    of its own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = _packed(config, model)
    # Clones, as some parts have a tensor under two names, which the format does not allow.
    tensors = {name: tensor.cpu().clone(memory_format=torch.contiguous_format) for name, tensor in sorted(model.state_dict().items())}
    (folder / TENSORS).write_bytes(save(tensors))
    (folder / CONFIG).write_text(json.dumps(config.model_dump(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return digest(folder)


def digest(folder: Path) -> str:
    """`sha256:...` over the config's bytes and the tensors' bytes, each led by its length."""
    total = hashlib.sha256()
    for name in (CONFIG, TENSORS):
        raw = _read(folder, name)
        total.update(struct.pack("<Q", len(raw)))
        total.update(raw)
    return f"sha256:{total.hexdigest()}"


def find_bundle(bundle: str | Path) -> Path:
    """The folder of a bundle given as a path, or as the name of one that comes with the package."""
    if not str(bundle):
        raise BundleError("expected a bundle's folder or name, found nothing; set models.bundle")
    for folder in (Path(bundle).expanduser(), PACKAGED / str(bundle)):
        if folder.is_dir():
            return folder
    raise BundleError(
        f"expected a bundle's folder or one of the names {', '.join(packaged_bundles()) or '(none)'}, "
        f"found {str(bundle)!r}; set models.bundle to either"
    )


def packaged_bundles() -> list[str]:
    """Names of the bundles that come with the package."""
    return sorted(path.parent.name for path in PACKAGED.glob(f"*/{CONFIG}"))


def _packed(config: BundleConfig, model: FusionModel) -> BundleConfig:
    encoders = {stream: getattr(model.encoders[stream], "packed", options) for stream, options in config.architecture["encoders"].items()}
    inputs = {
        stream: getattr(PREPROCESSORS.make(options), "packed", options) if "folder" in options else options
        for stream, options in config.inputs.items()
    }
    return config.model_copy(update={"inputs": inputs, "architecture": {**config.architecture, "encoders": encoders}})


def _parse(raw: bytes, folder: Path) -> BundleConfig:
    where = folder / CONFIG
    try:
        value = json.loads(raw)
    except ValueError as error:
        raise BundleError(f"expected JSON in {where}, found something else ({error}); restore the file") from None
    found = value.get("format") if isinstance(value, dict) else None
    if isinstance(found, int) and found != FORMAT:
        advice = "install a newer streamfuse" if found > FORMAT else "train it again with this version"
        raise BundleError(f"{where} has format {found}, this version reads format {FORMAT}; {advice}")
    try:
        return BundleConfig.model_validate(value)
    except ValidationError as error:
        mistakes = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise BundleError(f"{where} is not a bundle's config: {mistakes}; correct these entries") from None


def _assemble(config: BundleConfig, folder: Path) -> tuple[FusionModel, dict[str, Preprocessor]]:
    where = folder / CONFIG
    try:
        preprocessors = {stream: PREPROCESSORS.make(options) for stream, options in config.inputs.items()}
    except UnknownPart as error:
        raise BundleError(f"{where}: inputs: {error}; install a newer streamfuse, or the package that brings it") from None
    try:
        # Without memory first: an absurd size in the config is found against the tensors, not by the allocator.
        with torch.device("meta"):
            model = build(config.architecture)
    except UnknownPart as error:
        raise BundleError(f"{where}: architecture: {error}; install a newer streamfuse or correct it") from None
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        raise BundleError(f"{where}: architecture can't be put together: {error!r}; correct it") from None
    if set(model.streams) != set(preprocessors):
        raise BundleError(
            f"{where}: architecture.encoders has {sorted(model.streams)}, inputs has {sorted(preprocessors)}; each stream needs both"
        )
    for stream, part in preprocessors.items():
        ids = getattr(part, "vocabulary", 0)
        decoders = model.crossmodal.decoders if model.crossmodal is not None else nn.ModuleDict()
        for kind, parts in (("encoder", model.encoders), ("decoder", decoders)):
            known = getattr(parts[stream], "vocabulary", math.inf) if stream in parts else math.inf
            if ids > known:
                raise BundleError(f"{where}: inputs.{stream} has {ids} token ids, its {kind} {known}; set the {kind}'s vocabulary to {ids}")
    return model, preprocessors


def _tensors(path: Path, model: FusionModel) -> dict[str, Tensor]:
    found = read_tensors(path)
    wanted = model.state_dict()
    problems = [f"tensor {name} {list(wanted[name].shape)} is missing" for name in sorted(wanted.keys() - found.keys())]
    problems += [f"tensor {name} {list(found[name].shape)} is not in the architecture" for name in sorted(found.keys() - wanted.keys())]
    for name in sorted(wanted.keys() & found.keys()):
        if wanted[name].shape != found[name].shape:
            problems.append(f"tensor {name} should be {list(wanted[name].shape)}, is {list(found[name].shape)}")
        elif wanted[name].dtype != found[name].dtype:
            problems.append(f"tensor {name} should be {wanted[name].dtype}, is {found[name].dtype}")
        elif not bool(torch.isfinite(found[name]).all()):
            problems.append(f"tensor {name} has values that are not finite")
    if problems:
        more = f" and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise BundleError(f"{path} does not fit its config's architecture: {'; '.join(problems[:8])}{more}; export the bundle again")
    return found


def _read(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError:
        raise BundleError(f"expected {name} in the bundle {folder}, found {_names(folder)}; {_advice(folder)}") from None


def _names(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir())
    return ", ".join(names[:8]) if names else "nothing"


def _advice(folder: Path) -> str:
    pickles = [path.name for path in folder.iterdir() if path.suffix in {".pt", ".pth", ".bin", ".pkl", ".ckpt"}]
    if pickles:
        return f"{pickles[0]} looks like a pickle, which can run code, and is not opened: save it as safetensors"
    return "point models.bundle at a whole bundle"
