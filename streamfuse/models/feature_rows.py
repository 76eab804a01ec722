"""Rows of numbers as they come over the wire: NumPy's .npy format (NEP 1), or a JSON list (RFC 8259)."""

from __future__ import annotations

import io
import json
from tokenize import TokenError  # of NumPy's reading of headers

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from streamfuse.errors import UndecodablePayload

FEATURE_TYPES = ("application/x-npy", "application/json")


def decode_row(data: bytes | str, media_type: str) -> NDArray[np.float32]:
    """One row, `(size,)`, all finite in float32. An array of objects, which is a pickle, is refused and not opened. Raises
    `UndecodablePayload`."""
    try:
        with np.errstate(over="ignore"):  # a number too great becomes infinity, which is refused below
            row = _from_npy(data) if isinstance(data, bytes) and media_type == "application/x-npy" else _from_json(data)
    except (ValueError, TypeError, RecursionError, OverflowError, SyntaxError, TokenError) as error:
        raise UndecodablePayload(f"expected a row of numbers as {media_type}, found something else ({_short(error)}); convert it") from None
    if not np.isfinite(row).all():
        raise UndecodablePayload("expected finite numbers, found NaN or one beyond float32 in the row; leave the packet out, or fill it in")
    return row


def _from_npy(data: bytes) -> NDArray[np.float32]:
    file = io.BytesIO(data)
    version = npy.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"format {version[0]}.{version[1]}, not 1.0 or 2.0")
    shape, _, dtype = (npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0)(file)
    if dtype.kind not in "fiu" or len(shape) != 1:
        raise ValueError(f"an array of {dtype} with the shape {shape}, not numbers in one row")
    # Held against what came before anything is made of that size.
    found = len(data) - file.tell()
    if found != shape[0] * dtype.itemsize:
        raise ValueError(f"{found} bytes, not {shape[0]} times {dtype.itemsize}")
    return np.frombuffer(data, dtype, offset=file.tell()).astype(np.float32)


def _from_json(data: bytes | str) -> NDArray[np.float32]:
    found = json.loads(data)
    if not isinstance(found, list) or not all(type(number) in (int, float) for number in found):
        raise ValueError("not a list of numbers")
    return np.array(found, np.float64).astype(np.float32)


def _short(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:120]
