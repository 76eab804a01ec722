"""Reads files of tensors, safetensors only: a pickle can run code when it is opened, so it is refused by its first bytes."""

from __future__ import annotations

from pathlib import Path

import safetensors
from safetensors.torch import load_file
from torch import Tensor

from streamfuse.errors import BundleError


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Name -> tensor, on the CPU. Raises `BundleError` with a sentence."""
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise BundleError(
            f"expected a safetensors file at {path}, found none that can be read ({error.strerror}); correct the path"
        ) from None
    # torch.save's archive, and a bare pickle from protocol 2 on. Safetensors may begin with the same byte: with the length of their
    # header, which is a JSON object.
    if head[:4] == b"PK\x03\x04" or (head[:1] == b"\x80" and head[8:] != b"{"):
        raise BundleError(f"{path} is a pickle, which can run code when it is opened; it was not opened. Save it as safetensors")
    try:
        return load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise BundleError(f"expected safetensors in {path}, found something else ({error}); restore the file") from None
