"""Features that were computed elsewhere come a row a packet, as .npy or as a JSON list."""

from __future__ import annotations

import io
import json
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamfuse.errors import UndecodablePayload
from streamfuse.models.decode import Decoded, decode
from streamfuse.models.preprocess import compute
from streamfuse.models.preprocess.features import Features
from streamfuse.types import MILLISECOND, Encoded, Packet, Payload
from tests.models.making import jpeg, packet


def npy(value: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, value, allow_pickle=True)
    return file.getvalue()


def decoded(payload: Payload) -> Decoded:
    return decode(packet("sensor", payload), "features", max_pixels=0)


def row(payload: Payload) -> list[float]:
    return [float(number) for number in np.asarray(decoded(payload))]


@pytest.mark.parametrize("dtype", ["<f4", "<f8", ">f4", "<f2", "<i4", "|u1"])
def test_npy_row_of_any_number_type_is_read(dtype: str) -> None:
    assert row(Encoded(npy(np.array([1, 2, 3], dtype)), "application/x-npy")) == [1, 2, 3]


@pytest.mark.parametrize(
    "payload", [Encoded(b"[1, -2.5, 3e1]", "application/json"), Encoded(b"[1, -2.5, 30]", "text/plain"), "[1, -2.5, 30]"]
)
def test_json_list_is_read_also_where_it_comes_as_text(payload: Payload) -> None:
    assert row(payload) == [1, -2.5, 30]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "[1, NaN]",
        "[1, 1e400]",
        "[1, 1e39]",
        '{"a": 1}',
        "[[1, 2]]",
        '[1, "x"]',
        "[1, null]",
        "[true]",
        "5",
        "[" * 100_000,
        "1" * 5000,
    ],
)
def test_json_that_is_no_row_of_finite_numbers_is_refused(text: str) -> None:
    with pytest.raises(UndecodablePayload, match=r"^expected"):
        decoded(Encoded(text.encode(), "application/json"))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x93NUMPY",
        npy(np.zeros(4, np.float32))[:-1],
        npy(np.zeros(4, np.float32)) + b"x",
        npy(np.zeros((2, 2))),
        npy(np.array("text")),
        npy(np.array([1 + 2j])),
        npy(np.array([np.nan])),
        npy(np.array([1e300])),
        npy(np.zeros(1)).replace(b"(1,)", b"(99999999999,)"),
    ],
)
def test_npy_that_is_no_row_of_finite_numbers_is_refused(data: bytes) -> None:
    with pytest.raises(UndecodablePayload, match=r"^expected"):
        decoded(Encoded(data, "application/x-npy"))


class Bomb:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return pytest.fail, ("the pickle was opened",)


def test_npy_with_a_pickle_is_refused_and_never_opened() -> None:
    with pytest.raises(UndecodablePayload, match="array of object"):
        decoded(Encoded(npy(np.array([Bomb()])), "application/x-npy"))


@pytest.mark.filterwarnings("ignore:Reading `.npy` or `.npz` file")
@given(st.binary(max_size=80), st.integers(0, 128))
def test_damaged_npy_is_refused_or_read_but_never_breaks(noise: bytes, at: int) -> None:
    good = npy(np.arange(4, dtype=np.float32))
    with suppress(UndecodablePayload):
        found = row(Encoded(good[:at] + noise + good[at + len(noise) :], "application/x-npy"))
        assert np.isfinite(found).all()


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), max_size=20))
def test_both_forms_give_the_same_row(values: list[float]) -> None:
    array = np.array(values, np.float32)
    assert row(Encoded(npy(array), "application/x-npy")) == row(Encoded(json.dumps(values).encode(), "application/json")) == array.tolist()


def test_image_in_a_stream_of_features_is_refused_with_what_is_accepted() -> None:
    with pytest.raises(UndecodablePayload, match=r"reads stream 'sensor' as features.*application/x-npy, application/json"):
        decode(packet("sensor", jpeg()), "features", max_pixels=50_000_000)


def test_a_packet_is_a_row_and_the_last_ones_count() -> None:
    part = Features(size=2, most=2)
    texts = ["[9, 9]", "[1, 2.5]", "[-3e1, 4]"]
    rows: list[tuple[Packet, object]] = [(packet("x", text, at, 0), part.reduce(decoded(text))) for at, text in enumerate(texts)]
    items = part.prepare(0, 10 * MILLISECOND, rows, compute)
    assert np.asarray(items.data).tolist() == [[1, 2.5], [-30, 4]]
    assert items.time == pytest.approx([-0.009, -0.008])
    assert items.mask.all()
    assert items.keys is not None
    assert len(set(items.keys)) == 2


def test_row_of_another_length_is_refused() -> None:
    with pytest.raises(UndecodablePayload, match="expected a row of 2 numbers, found 3"):
        Features(size=2).reduce(decoded("[1, 2, 3]"))


def test_nothing_of_it_has_the_usual_shape() -> None:
    assert Features(size=3, most=4).empty().data.shape == (4, 3)


@pytest.mark.parametrize(("size", "most"), [(0, 1), (1, 0)])
def test_rows_of_nothing_are_refused(size: int, most: int) -> None:
    with pytest.raises(ValueError, match="at least one row"):
        Features(size, most)
