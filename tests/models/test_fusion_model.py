"""A model with real encoders takes any subset of modalities in any order, and answers each sample as if it were alone."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from streamfuse.models.batch import Items, Modality, collate
from streamfuse.models.fusion_model import build
from streamfuse.models.parts import UnknownPart
from streamfuse.models.preprocess.face_crops import FaceCrops
from streamfuse.models.preprocess.text_bytes import TextBytes
from streamfuse.models.preprocess.waveform import Waveform
from tests.models.making import ENCODERS, LABELS, architecture, model

EMPTY = {"video": FaceCrops().empty(), "audio": Waveform().empty(), "text": TextBytes().empty()}
STREAMS = tuple(EMPTY)
SUBSETS = [subset for n in range(4) for subset in itertools.combinations(STREAMS, n)]


def sample(seed: int, frames: int = 17, blocks: int = 50, texts: int = 4) -> dict[str, Items]:
    draw = np.random.default_rng(seed)

    def items(data: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> Items:
        count = len(data)
        return Items(data, np.sort(draw.uniform(-1, 0, count)).astype(np.float32), np.ones(count, np.bool_))

    letters = draw.integers(97, 123, (texts, 128))
    letters[:, 40:] = 0
    return {
        "video": items(draw.integers(1, 255, (frames, 48, 48)).astype(np.uint8)),
        "audio": items(draw.integers(-9999, 9999, (blocks, 320)).astype(np.int16)),
        "text": items(letters.astype(np.uint8)),
    }


def batch(*samples: dict[str, Items]) -> dict[str, Modality]:
    return collate(samples, EMPTY)


@pytest.mark.parametrize("subset", SUBSETS, ids="+".join)
def test_any_subset_gives_finite_logits(subset: tuple[str, ...]) -> None:
    whole = sample(0)
    logits = model()(batch({s: whole[s] for s in subset}))["state"]
    assert logits.shape == (1, len(LABELS))
    assert bool(torch.isfinite(logits).all())


def test_order_of_the_mapping_does_not_matter() -> None:
    inputs = batch(sample(0))
    backwards = {s: inputs[s] for s in reversed(STREAMS)}
    assert torch.equal(model()(inputs)["state"], model()(backwards)["state"])


def test_sample_is_answered_the_same_alone_and_in_a_batch() -> None:
    samples = [sample(0), sample(1, frames=30, blocks=83, texts=1), {"audio": sample(2)["audio"]}, {}]
    together = model()(batch(*samples))["state"]
    alone = torch.cat([model()(batch(s))["state"] for s in samples])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_stream_left_out_is_a_stream_masked_out() -> None:
    inputs = batch(sample(0))
    masked = {**inputs, "video": inputs["video"]._replace(mask=torch.zeros_like(inputs["video"].mask))}
    left_out = {s: inputs[s] for s in ("audio", "text")}
    torch.testing.assert_close(model()(masked), model()(left_out), atol=1e-5, rtol=1e-5)


def test_encode_and_fuse_answer_as_forward() -> None:
    made, inputs = model(), batch(sample(0), {"text": sample(1)["text"]})
    tokens = {s: made.encode(s, inputs[s])[0] for s in STREAMS}
    torch.testing.assert_close(made.fuse(tokens), made(inputs), atol=1e-5, rtol=1e-5)


def test_present_hides_streams_like_the_mask() -> None:
    made, inputs = model(), batch(sample(0))
    tokens = {s: made.encode(s, inputs[s])[0] for s in STREAMS}
    hidden = made.fuse(tokens, torch.tensor([[True, False, True]]))
    torch.testing.assert_close(hidden, made(batch({s: sample(0)[s] for s in ("video", "text")})), atol=1e-5, rtol=1e-5)


def test_gradients_reach_every_parameter_of_heads_of_each_stream_too() -> None:
    made, inputs = model().train(), batch(sample(0), sample(1))
    tokens = {s: made.encode(s, inputs[s])[0] for s in STREAMS}
    parts = [made.fuse(tokens)["state"], *(alone["state"] for alone in made.alone(tokens).values())]
    torch.stack([part.square().sum() for part in parts]).sum().backward()  # type: ignore[no-untyped-call]
    untouched = [name for name, p in made.named_parameters() if p.grad is None or not bool(p.grad.any())]
    assert untouched == []


def test_text_behind_its_end_does_not_count() -> None:
    one = sample(0, texts=1)
    longer = {**one, "text": Items(np.pad(one["text"].data, ((0, 0), (0, 60))), one["text"].time, one["text"].mask)}
    short, long = (model().encode("text", collate([s], {"text": s["text"]})["text"])[0].data for s in (one, longer))
    torch.testing.assert_close(short, long, atol=1e-5, rtol=1e-5)


def test_brightness_of_the_whole_picture_does_not_count() -> None:
    whole = sample(0)
    pixels = np.asarray(whole["video"].data, np.uint8) // 2
    dark = Items(pixels, whole["video"].time, whole["video"].mask)
    bright = Items(pixels + np.uint8(100), dark.time, dark.mask)
    first, second = (model().encode("video", batch({"video": v})["video"])[0].data for v in (dark, bright))
    torch.testing.assert_close(first, second, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"fusion": {"type": "magic"}}, "concatenation"),
        ({"fusion": {"type": "late_transformer", "wings": 2}}, "wings"),
        ({"encoders": {"video": {"type": "magic"}}}, "face_motion"),
        ({"encoders": {"video.left": ENCODERS["video"]}}, "other names"),
        ({"reconstruction": {"wings": 2}}, "wings"),
        ({"reconstruction": {}, "encoders": {"video": ENCODERS["video"]}}, "two streams or more"),
    ],
)
def test_unknown_part_is_refused_with_the_known_ones(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(UnknownPart, match=said):
        build({**architecture(), **wrong})


def test_parts_may_be_fewer_than_the_default() -> None:
    made = build({**architecture("concatenation"), "encoders": {"audio": ENCODERS["audio"]}})
    assert made({"audio": batch(sample(0))["audio"]})["state"].shape == (1, len(LABELS))
