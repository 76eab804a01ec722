"""The transformers library, for models and tokenizers that lie in a local folder; it is the optional extra `hf`.

Nothing is ever asked of the network, code that comes with a model is not run, and weights are read from safetensors only.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

FROM_ELSEWHERE = (
    "attn_implementation",
    "_attn_implementation",
    "experts_implementation",
    "_experts_implementation",
    "auto_map",
    "quantization_config",
)
"""Entries of a model's config that can name code to be fetched."""

BROKEN = (OSError, ValueError, TypeError, RuntimeError, ImportError, KeyError, AttributeError)
"""What the library raises for files that are not what they should be."""


def load_model(folder: str) -> tuple[nn.Module, dict[str, Any]]:
    """A model with its weights, and its config as JSON has it. Raises `ValueError`."""
    path = existing(folder)
    if not list(path.glob("*.safetensors")):
        raise ValueError(
            f"expected weights as *.safetensors in {path}, found none; pickles such as pytorch_model.bin are not opened, convert them"
        )
    transformers = _library()
    try:
        model, told = transformers.AutoModel.from_pretrained(
            path, local_files_only=True, use_safetensors=True, trust_remote_code=False, dtype=torch.float32, output_loading_info=True
        )
    except BROKEN as error:
        raise ValueError(f"expected a model of transformers in {path}, found one that can't be loaded: {_first_line(error)}") from None
    _finish(model)
    missing = sorted(set(told["missing_keys"]) & set(model.state_dict()))
    if missing:
        raise ValueError(f"expected all weights of the model in {path}, found no {', '.join(missing[:3])}; take a folder with all of them")
    config = json.loads(model.config.to_json_string(use_diff=False))
    return model, {key: value for key, value in config.items() if key != "_name_or_path"}


def make_model(config: Mapping[str, Any]) -> nn.Module:
    """A model without its weights. Raises `ValueError`."""
    transformers = _library()
    options = {key: value for key, value in config.items() if key not in (*FROM_ELSEWHERE, "model_type")}
    try:
        made = transformers.AutoConfig.for_model(str(config.get("model_type")), **options)
        model: nn.Module = transformers.AutoModel.from_config(made, trust_remote_code=False).float()
    except BROKEN as error:
        raise ValueError(f"expected the config of a model of transformers, found one that can't be made: {_first_line(error)}") from None
    _finish(model)
    return model


def load_tokenizer(folder: str) -> Any:
    """A `tokenizers.Tokenizer` without padding. Raises `ValueError`."""
    path = existing(folder)
    transformers = _library()
    try:
        found = transformers.AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except BROKEN as error:
        raise ValueError(f"expected a tokenizer of transformers in {path}, found one that can't be loaded: {_first_line(error)}") from None
    if not getattr(found, "is_fast", False):
        raise ValueError(
            f"expected a tokenizer in {path} that can be written as tokenizer.json, found {type(found).__name__}; save it as a fast one"
        )
    return found.backend_tokenizer


def read_tokenizer(written: Mapping[str, Any]) -> Any:
    """A `tokenizers.Tokenizer` from what its tokenizer.json holds. Raises `ValueError`."""
    _library()
    try:
        return importlib.import_module("tokenizers").Tokenizer.from_str(json.dumps(written))
    except Exception as error:  # the library raises nothing more exact
        raise ValueError(f"expected what a tokenizer.json holds, found something else: {_first_line(error)}") from None


def existing(folder: str) -> Path:
    """What is no folder would be taken for the name of a model in the network."""
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise ValueError(
            f"expected the folder of a model of transformers, found none at {path}; download one there first, nothing is fetched"
        )
    return path


def _finish(model: Any) -> None:
    if getattr(model, "pooler", None) is not None:  # it makes one vector its own way, which we do not ask for
        model.pooler = None
    # A bundle is put together without memory first, so that whatever is not in the state dict would stay without any.
    for module in model.modules():
        for name, buffer in list(module.named_buffers(recurse=False)):
            module.register_buffer(name, buffer.contiguous() if buffer.device.type == "meta" else buffer.clone(), persistent=True)


def _library() -> Any:
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        transformers = importlib.import_module("transformers")
    except ImportError:
        raise ValueError("transformers is not installed; install it with pip install 'streamfuse[hf]'") from None
    transformers.utils.logging.disable_progress_bar()
    return transformers


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
