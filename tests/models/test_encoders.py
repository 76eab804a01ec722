"""Every encoder keeps what its scope promises, answers each sample as if it were alone, and exports.

What holds for encoders of one scope only is asked of those; a new encoder is held to all of it with one line in `CASES`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from streamfuse.models.batch import Modality
from streamfuse.models.bundle import BundleConfig, WindowShape, load_bundle, save_bundle
from streamfuse.models.fusion_model import State, build
from streamfuse.models.parts import ENCODERS

FEATURES = 12

Draw = Callable[[int, int, torch.Generator], Tensor]
"""Batch and items to data."""


def frames(*shape: int) -> Draw:
    return lambda batch, items, seed: torch.randint(1, 256, (batch, items, *shape), generator=seed, dtype=torch.uint8)


def sound(batch: int, items: int, seed: torch.Generator) -> Tensor:
    return torch.randint(-9999, 9999, (batch, items, 320), generator=seed, dtype=torch.int16)


def numbers(batch: int, items: int, seed: torch.Generator) -> Tensor:
    return torch.randn(batch, items, 5, generator=seed)


def pictures(batch: int, items: int, seed: torch.Generator) -> Tensor:
    return torch.randn(batch, items, 30, generator=seed)


def texts(below: int, dtype: torch.dtype) -> Draw:
    """Of every length, the empty text included."""

    def draw(batch: int, items: int, seed: torch.Generator) -> Tensor:
        ids = torch.randint(1, below, (batch, items, 16), generator=seed, dtype=dtype)
        ends = torch.randint(0, 17, (batch, items, 1), generator=seed)
        return ids * (torch.arange(16) < ends)

    return draw


CASES: dict[str, tuple[dict[str, Any], Draw]] = {
    "byte_text": ({"width": 8, "hidden": 8}, texts(256, torch.uint8)),
    "causal_mel": ({"width": 16}, sound),
    "chunk_transformer": ({"width": 16, "depth": 2}, sound),
    "cnn": ({"width": 0.5}, frames(40, 48, 3)),
    "face_motion": ({}, frames(48, 48)),
    "identity": ({"size": 5}, numbers),
    "log_mel": ({"channels": 8}, sound),
    "mlp": ({"size": 5}, numbers),
    "picture": ({"size": 30, "height": 5, "channels": 4}, pictures),
    "resnet18": ({"channels": 1}, frames(32, 40)),
    "resnet50": ({"norm": "frozen"}, frames(32, 40, 3)),
    "tcn": ({"size": 5}, numbers),
    "text_gru": ({"vocabulary": 300}, texts(300, torch.int32)),
    "text_lstm": ({"vocabulary": 256}, texts(256, torch.uint8)),
    "text_transformer": ({"vocabulary": 300, "width": 16}, texts(300, torch.int32)),
    "vit_tiny": ({"size": 32, "width": 24, "depth": 2}, frames(32, 32, 3)),
}
NAMES = sorted(CASES)


def of_scope(*scopes: str) -> list[str]:
    return [name for name in NAMES if make(name).scope in scopes]


def make(name: str) -> nn.Module:
    torch.manual_seed(0)
    return ENCODERS.make({"type": name, **CASES[name][0]}, features=FEATURES).eval()


def draw(name: str, batch: int = 1, items: int = 20, seed: int = 0) -> Modality:
    """Items that are all there, one every 0.1 s up to the window's end."""
    data = CASES[name][1](batch, items, torch.Generator().manual_seed(seed))
    time = (torch.arange(-items, 0) / 10).repeat(batch, 1)
    return Modality(data, time, torch.ones(batch, items, dtype=torch.bool))


def changed(items: Modality, name: str, which: Tensor | int, seed: int = 1) -> Modality:
    """Other data where `which`, `(batch, items)` bool or an item's number, says so."""
    if isinstance(which, int):
        which = (torch.arange(items.mask.shape[1]) == which).expand(items.mask.shape)
    other = draw(name, items.mask.shape[0], items.mask.shape[1], seed).data
    return items._replace(data=torch.where(which.reshape(*which.shape, *[1] * (other.ndim - 2)), other, items.data))


def assert_same(one: Modality, other: Modality) -> None:
    """Equal wherever there is a token."""
    assert torch.equal(one.mask, other.mask)
    there = one.mask[..., None]
    torch.testing.assert_close(one.data * there, other.data * there, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(one.time * one.mask, other.time * one.mask)


def moved(one: Modality, other: Modality) -> list[int]:
    """Which tokens of the first sample differ."""
    return torch.nonzero((one.data[0] - other.data[0]).abs().amax(1) > 1e-6)[:, 0].tolist()


def cut(items: Modality, start: int, stop: int) -> Modality:
    return Modality(*(part[:, start:stop] for part in items))


def test_every_encoder_of_ours_is_held_to_it() -> None:
    assert {name for name in ENCODERS.names() if ENCODERS[name].__module__.startswith("streamfuse.")} - {"hf"} == set(CASES)


@pytest.mark.parametrize("name", NAMES)
class TestEachEncoder:
    @torch.no_grad()
    def test_any_number_of_items_gives_finite_tokens(self, name: str) -> None:
        encoder = make(name)
        for items in (1, 2, 3, 8, 50):
            tokens = encoder(draw(name, 2, items))
            assert tokens.data.shape == (2, tokens.mask.shape[1], FEATURES)
            assert tokens.time.shape == tokens.mask.shape
            assert bool(torch.isfinite(tokens.data).all() & torch.isfinite(tokens.time).all() & tokens.mask.all())

    @torch.no_grad()
    def test_nothing_present_gives_finite_absent_tokens(self, name: str) -> None:
        items = draw(name)
        tokens = make(name)(Modality(torch.zeros_like(items.data), torch.zeros_like(items.time), torch.zeros_like(items.mask)))
        assert bool(torch.isfinite(tokens.data).all() & ~tokens.mask.any())

    @torch.no_grad()
    @pytest.mark.parametrize("seed", range(3))
    def test_what_is_masked_out_never_matters(self, name: str, seed: int) -> None:
        encoder, items = make(name), draw(name, 2)
        items = items._replace(mask=torch.rand(items.mask.shape, generator=torch.Generator().manual_seed(seed)) < 0.6)
        assert_same(encoder(items), encoder(changed(items, name, ~items.mask)))

    @torch.no_grad()
    def test_sample_is_encoded_the_same_alone_and_in_a_longer_batch(self, name: str) -> None:
        encoder, together = make(name), draw(name, 3)
        together.mask[1, 10:] = False
        alone = encoder(cut(Modality(*(part[1:2] for part in together)), 0, 10))
        tokens = alone.mask.shape[1]
        assert_same(alone, cut(Modality(*(part[1:2] for part in encoder(together))), 0, tokens))

    @torch.no_grad()
    def test_what_a_token_says_does_not_depend_on_when_the_window_ends(self, name: str) -> None:
        encoder, items = make(name), draw(name)
        later = encoder(items._replace(time=items.time - 3))
        assert_same(encoder(items), later._replace(time=later.time + 3))

    def test_gradients_reach_every_parameter(self, name: str) -> None:
        encoder = make(name).train()
        tokens = encoder(draw(name, 4))
        (tokens.data * torch.randn(tokens.data.shape, generator=torch.Generator().manual_seed(0))).sum().backward()
        assert [parameter for parameter, p in encoder.named_parameters() if p.grad is None or not bool(p.grad.any())] == []

    @pytest.mark.filterwarnings("ignore:The tensor attributes:UserWarning")  # recurrent layers keep their weights in a list too
    def test_exported_for_any_batch_it_says_the_same(self, name: str) -> None:
        encoder = make(name)
        exported = _export(lambda data, time, mask: encoder(Modality(data, time, mask)), encoder, tuple(draw(name, 2)))
        for batch in (1, 5):
            items = draw(name, batch, seed=batch)
            assert_same(Modality(*exported(*items)), encoder(items))

    @torch.no_grad()
    def test_bundle_brings_it_back_as_it_was(self, name: str, tmp_path: Path) -> None:
        architecture = {
            "features": FEATURES,
            "encoders": {"stream": {"type": name, **CASES[name][0]}},
            "fusion": {"type": "late_transformer"},
            "heads": {"state": {"type": "classification", "labels": ["a", "b"]}},
        }
        shape = WindowShape(size_ms=1000, hop_ms=500)
        config = BundleConfig(name="b", format=2, inputs={"stream": {"type": "text_bytes"}}, architecture=architecture, window=shape)
        saved = build(architecture).eval()
        save_bundle(tmp_path, config, saved)
        items = {"stream": draw(name)}
        torch.testing.assert_close(load_bundle(tmp_path).model(items), saved(items))


@torch.no_grad()
@pytest.mark.parametrize("name", of_scope("item"))
def test_token_of_an_item_depends_on_that_item_alone(name: str) -> None:
    encoder, items = make(name), draw(name)
    whole = encoder(items)
    assert torch.equal(whole.mask, items.mask)
    assert torch.equal(whole.time, items.time)
    assert [moved(whole, encoder(changed(items, name, i))) for i in (0, 7, 19)] == [[0], [7], [19]]


@pytest.mark.parametrize("name", of_scope("causal"))
class TestEachCausalEncoder:
    @torch.no_grad()
    def test_token_depends_on_items_before_it_no_further_back_than_its_context(self, name: str) -> None:
        encoder = make(name)
        stride, context = encoder.stride, encoder.context
        assert isinstance(stride, int)
        assert isinstance(context, int)
        length = -(-(context + 10) // stride) * 2 * stride
        items = draw(name, 1, length)
        whole = encoder(items)
        for item in (0, 1, length // 3, length // 2):
            first, *others = moved(whole, encoder(changed(items, name, item)))
            assert first == item // stride
            assert all(token * stride - context <= item for token in others)

    @torch.no_grad()
    @pytest.mark.parametrize("seed", range(5))
    def test_fed_in_chunks_it_says_what_it_says_fed_at_once(self, name: str, seed: int) -> None:
        encoder, chance = make(name), random.Random(seed)
        stride = encoder.stride
        assert isinstance(stride, int)
        items = draw(name, 2, 24 * stride, seed)
        items = items._replace(mask=torch.rand(items.mask.shape, generator=torch.Generator().manual_seed(seed)) < 0.9)
        cuts = [0, *sorted(chance.sample(range(1, 24), chance.randint(1, 20))), 24]
        state: State = encoder.begin(2)  # type: ignore[operator]
        parts = []
        for start, stop in pairwise(cuts):
            tokens, state = encoder.step(cut(items, start * stride, stop * stride), state)  # type: ignore[operator]
            parts.append(tokens)
        assert_same(Modality(*(torch.cat(fields, 1) for fields in zip(*parts, strict=True))), encoder(items))

    @torch.no_grad()
    def test_items_that_are_absent_at_first_are_as_if_it_began_later(self, name: str) -> None:
        encoder = make(name)
        stride = encoder.stride
        assert isinstance(stride, int)
        items = draw(name, 2, 8 * stride)
        items.mask[:, : 3 * stride] = False
        assert_same(cut(encoder(items), 3, 8), encoder(cut(items, 3 * stride, 8 * stride)))

    @torch.no_grad()
    def test_its_step_exports_too(self, name: str) -> None:
        encoder = make(name)
        stride = encoder.stride
        assert isinstance(stride, int)

        def step(data: Tensor, time: Tensor, mask: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
            tokens, after = encoder.step(Modality(data, time, mask), state)  # type: ignore[operator]
            return (*tokens, *after)

        items, begun = draw(name, 2, 2 * stride), encoder.begin(2)  # type: ignore[operator]
        exported = _export(step, encoder, (*items, *begun))
        first = exported(*items, *begun)
        torch.testing.assert_close(first, step(*items, *begun), atol=1e-5, rtol=1e-5)
        more = draw(name, 2, 2 * stride, seed=1)
        torch.testing.assert_close(exported(*more, *first[3:]), step(*more, *first[3:]), atol=1e-5, rtol=1e-5)


def _export(call: Callable[..., Any], encoder: nn.Module, example: tuple[Tensor, ...]) -> Callable[..., Any]:
    class Called(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(self, *tensors: Tensor) -> Any:
            return call(*tensors)

    batch = torch.export.Dim("batch", max=64)
    shapes = {"tensors": tuple({0: batch} for _ in example)}
    with torch.no_grad():
        module = torch.export.export(Called(), example, dynamic_shapes=shapes, strict=False).module()

    @torch.no_grad()
    def run(*tensors: Tensor) -> Any:
        return module(*tensors)

    return run
