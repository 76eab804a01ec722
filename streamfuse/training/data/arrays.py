"""Reads arrays from .npz and .safetensors files. A pickle is refused without being opened."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from streamfuse.errors import DataError, Problem

Array = NDArray[Any]


def read_arrays(path: Path) -> dict[str, Array]:
    """All arrays of the file. Raises `DataError`."""
    try:
        with path.open("rb") as file:
            head = file.read(8)
    except OSError as error:
        raise _refused(path, f"expected a file of arrays that can be read, found: {error.strerror}; correct the path") from None
    if head[:1] == b"\x80":
        raise _refused(path, "is a pickle, which can run code when it is opened; it was not opened. Save it with numpy.savez")
    if path.suffix == ".safetensors":
        return _safetensors(path)
    if head[:4] != b"PK\x03\x04":
        what = "a single array (.npy)" if head[:6] == b"\x93NUMPY" else "something else"
        raise _refused(path, f"expected arrays as .npz, found {what}; save them with numpy.savez(path, name=array, ...)")
    return _npz(path)


def _npz(path: Path) -> dict[str, Array]:
    arrays: dict[str, Array] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            others = [name for name in archive.namelist() if not name.endswith(".npy")]
        if others:
            what = "is a pickle, which can run code when it is opened; it was not opened" if _pickled(others) else f"holds {others[0]!r}"
            raise _refused(path, f"{what}. Expected nothing but arrays; save them with numpy.savez")
        with np.load(path, allow_pickle=False) as file:
            for name in file.files:
                arrays[name] = _array(file, name, path)
    except (OSError, ValueError, EOFError, KeyError, NotImplementedError, RuntimeError, MemoryError, zipfile.BadZipFile) as error:
        raise _refused(path, f"expected whole arrays as .npz, found a damaged file ({_short(error)}); write it again") from None
    return arrays


def _array(file: Any, name: str, path: Path) -> Array:
    try:
        return np.asarray(file[name])
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise _refused(
            path,
            f"the array {name!r} holds Python objects, which only a pickle can carry; it was not opened. Save numbers or text: "
            "lists of unequal length as one padded array and their lengths",
        ) from None


def _safetensors(path: Path) -> dict[str, Array]:
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, MemoryError) as error:
        raise _refused(path, f"expected whole arrays as safetensors, found a damaged file ({_short(error)}); write it again") from None


def _pickled(names: list[str]) -> bool:
    return any(name.endswith((".pkl", ".pickle")) for name in names)


def _short(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]


def _refused(path: Path, message: str) -> DataError:
    return DataError([Problem(str(path), message)])
