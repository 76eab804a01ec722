"""Noise grows with its level, leaves nothing at level 1, and is the same for a row in whatever batch it stands."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from streamfuse.models.batch import Items
from streamfuse.training.noise import Noise
from streamfuse.training.samples import Rows, make_batch
from tests.training.made_rows import made_rows

DRAW = np.random.default_rng(0)
COUNT = 200


def column(data: NDArray[Any]) -> list[Items]:
    shape = data.shape[1]
    return [Items(one, np.linspace(-1, 0, shape, dtype=np.float32), np.ones(shape, np.bool_)) for one in data]


def one_stream(data: NDArray[Any], kind: str) -> Rows:
    samples = made_rows([0, 1] * (COUNT // 2), {"x": column(data)})
    return Rows(**{**{name: getattr(samples, name) for name in Rows.__slots__}, "inputs": {"x": {"type": kind}}})


def sound() -> Rows:
    waves = np.sin(np.arange(8 * 160) / 7 * DRAW.uniform(0.5, 2, (COUNT, 1))) * 8000
    return one_stream(waves.astype(np.int16).reshape(COUNT, 8, 160), "waveform")


def pictures() -> Rows:
    return one_stream(DRAW.integers(0, 256, (COUNT, 3, 8, 8), dtype=np.uint8), "face_crops")


def texts() -> Rows:
    data = np.zeros((COUNT, 2, 32), np.uint8)
    data[:, :, :20] = DRAW.integers(ord("a"), ord("z") + 1, (COUNT, 2, 20))
    return one_stream(data, "text_bytes")


def features() -> Rows:
    scale = np.array([0.01, 1, 100], np.float32)
    return one_stream((DRAW.standard_normal((COUNT, 4, 3)) * scale + 5 * scale).astype(np.float32), "text_bytes")


def likeness(samples: Rows, level: float) -> float:
    """Correlation of what is there before and after; over all rows."""
    batch = make_batch(samples, range(COUNT))
    noisy = Noise(samples, range(COUNT)).disturb(batch, {"x": level}, seed=1)
    before, after = (np.asarray(b.inputs["x"].data, np.float64).reshape(-1, b.inputs["x"].data.shape[-1]) for b in (batch, noisy))
    usual = before.mean(0), before.std(0) + 1e-9
    return float(np.corrcoef(((before - usual[0]) / usual[1]).ravel(), ((after - usual[0]) / usual[1]).ravel())[0, 1])


@pytest.mark.parametrize("make", [sound, pictures, features])
def test_less_is_left_at_each_level_and_nothing_at_one(make: Any) -> None:
    samples = make()
    left = [likeness(samples, level) for level in (0, 0.1, 0.5, 0.9, 1)]
    assert left[0] == pytest.approx(1)
    assert left[1] > 0.98
    assert left[2] == pytest.approx(1 / np.sqrt(2), abs=0.05)  # signal and noise are equally strong
    assert 0 < left[3] < 0.2
    assert abs(left[4]) < 0.05


def test_noise_on_features_is_in_units_of_each_feature() -> None:
    samples = features()
    noisy = Noise(samples, range(COUNT)).disturb(make_batch(samples, range(COUNT)), {"x": 1.0}, seed=1).inputs["x"].data.numpy()
    assert noisy.std((0, 1)) == pytest.approx([0.01, 1, 100], rel=0.1)
    assert noisy.mean((0, 1)) == pytest.approx([0.05, 5, 500], rel=0.1)


def test_text_is_garbled_and_shortened_as_its_level_says() -> None:
    samples = texts()
    batch = make_batch(samples, range(COUNT))
    noise = Noise(samples, range(COUNT))
    lengths = [float((noise.disturb(batch, {"x": level}, seed=1).inputs["x"].data > 0).sum()) / COUNT / 2 for level in (0.0, 0.4, 1.0)]
    assert lengths == pytest.approx([20, 16, 10], abs=0.3)
    noisy = noise.disturb(batch, {"x": 1.0}, seed=1).inputs["x"].data.numpy()
    assert set(np.unique(noisy)) <= {0, *range(ord("a"), ord("z") + 1)}
    for text in noisy.reshape(-1, 32):
        assert not text[np.argmin(text > 0) :].any()  # padding stays at the end
    assert (noisy[..., 0] == batch.inputs["x"].data.numpy()[..., 0]).mean() < 0.08


def test_dropping_takes_items_away_with_the_probability_of_the_level() -> None:
    samples = sound()
    batch = make_batch(samples, range(COUNT))
    noise = Noise(samples, range(COUNT))
    shares = [float(noise.disturb(batch, {"x": level}, seed=1, way="drop").inputs["x"].mask.float().mean()) for level in (0.0, 0.3, 1.0)]
    assert shares == pytest.approx([1, 0.7, 0], abs=0.05)


def test_level_zero_changes_nothing() -> None:
    samples = texts()
    batch = make_batch(samples, [3, 4])
    assert (Noise(samples, range(COUNT)).disturb(batch, {"x": 0.0}, seed=1).inputs["x"].data == batch.inputs["x"].data).all()


def test_a_row_gets_the_same_noise_in_whatever_batch_it_stands() -> None:
    samples = sound()
    noise = Noise(samples, range(COUNT))
    alone = noise.disturb(make_batch(samples, [7]), {"x": 0.5}, seed=3).inputs["x"].data[0]
    among = noise.disturb(make_batch(samples, [2, 7, 5]), {"x": 0.5}, seed=3).inputs["x"].data[1]
    other = noise.disturb(make_batch(samples, [7]), {"x": 0.5}, seed=4).inputs["x"].data[0]
    assert (alone == among).all()
    assert not (alone == other).all()


def test_each_row_may_have_a_level_of_its_own() -> None:
    samples = sound()
    batch = make_batch(samples, [0, 1])
    noisy = Noise(samples, range(COUNT)).disturb(batch, {"x": [0.0, 1.0]}, seed=1)
    assert (noisy.inputs["x"].data[0] == batch.inputs["x"].data[0]).all()
    assert not (noisy.inputs["x"].data[1] == batch.inputs["x"].data[1]).all()


def test_what_is_absent_stays_absent_and_other_streams_stay_as_they_are() -> None:
    there = column(np.ones((4, 2, 3), np.float32))
    samples = made_rows([0, 1, 0, 1], {"x": [*there[:3], None], "y": there})
    noisy = Noise(samples, range(4)).disturb(make_batch(samples, range(4)), {"x": 1.0}, seed=1)
    assert noisy.inputs["x"].mask.any(1).tolist() == [True, True, True, False]
    assert not noisy.inputs["x"].data[3].any()
    assert (noisy.inputs["y"].data == 1).all()


def test_a_level_beyond_one_is_refused() -> None:
    samples = sound()
    with pytest.raises(ValueError, match=r"from 0 to 1, found 1\.5"):
        Noise(samples, range(COUNT)).disturb(make_batch(samples, [0]), {"x": 1.5}, seed=1)
