"""Features that were computed elsewhere come as text, a row a packet."""

from __future__ import annotations

import numpy as np
import pytest

from streamfuse.errors import UndecodablePayload
from streamfuse.models.preprocess import compute
from streamfuse.models.preprocess.features import Features
from streamfuse.types import MILLISECOND, Packet
from tests.models.making import packet


def test_a_packet_is_a_row_and_the_last_ones_count() -> None:
    part = Features(size=2, most=2)
    texts = ["[9, 9]", "[1, 2.5]", "[-3e1, 4]"]
    rows: list[tuple[Packet, object]] = [(packet("x", text, at, 0), part.reduce(text)) for at, text in enumerate(texts)]
    items = part.prepare(0, 10 * MILLISECOND, rows, compute)
    assert np.asarray(items.data).tolist() == [[1, 2.5], [-30, 4]]
    assert items.time == pytest.approx([-0.009, -0.008])
    assert items.mask.all()


@pytest.mark.parametrize(
    "text", ["", "hello", "[1]", "[1, 2, 3]", "[1, NaN]", "[1, 1e400]", '{"a": 1}', "[[1, 2]]", '[1, "x"]', "[1, null]", "5"]
)
def test_what_is_no_row_is_undecodable(text: str) -> None:
    with pytest.raises(UndecodablePayload, match="expected a JSON list of 2 finite numbers, found"):
        Features(size=2).reduce(text)


def test_nothing_of_it_has_the_usual_shape() -> None:
    assert Features(size=3, most=4).empty().data.shape == (4, 3)
