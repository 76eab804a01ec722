"""Each item is encoded once, and what is kept changes no answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from streamfuse.models.batch import Items, Modality, collate
from streamfuse.models.embeddings import OVERHEAD, Embeddings, keeps
from streamfuse.models.fusion_model import State, build
from streamfuse.models.parts import Scope
from streamfuse.models.torch_engine import TorchEngine

FEATURES = 3
EMPTY = Items(np.zeros((4, 2), np.float32), np.zeros(4, np.float32), np.zeros(4, np.bool_))


class Alone(nn.Module):
    """A token an item."""

    scope: Scope = "item"

    def forward(self, items: Modality) -> Modality:
        data = torch.cat([items.data.square(), items.data.sum(2, keepdim=True)], 2)
        return Modality(data * items.mask[..., None], items.time, items.mask)


class Causal(nn.Module):
    """A token for each `stride` items: weighted sums over them and the `before` items in front of them, which are the state."""

    scope: Scope = "causal"

    def __init__(self, stride: int, before: int) -> None:
        super().__init__()
        self.stride, self.context = stride, before
        self.weight = torch.linspace(0.5, 1.5, before + stride)

    def begin(self, batch: int) -> State:
        return (torch.full((batch, self.context, 2), -1.0),)

    def step(self, items: Modality, state: State) -> tuple[Modality, State]:
        line = torch.cat([state[0], items.data * items.mask[..., None]], 1)  # (batch, context + items, 2)
        seen = line.unfold(1, self.context + self.stride, self.stride)  # (batch, tokens, 2, items of a token)
        data = torch.cat([(seen * self.weight).sum(3), seen[..., -1:].sum(2)], 2)
        mask = items.mask.unfold(1, self.stride, self.stride)
        time = items.time.unfold(1, self.stride, self.stride) * mask
        after = line[:, line.shape[1] - self.context :].clone()
        return Modality(data, time.sum(2) / mask.sum(2).clamp(min=1), mask.any(2)), (after,)


class Counting:
    """An engine that runs one encoder and counts the items that it is shown."""

    device = torch.device("cpu")

    def __init__(self, encoder: Alone | Causal) -> None:
        self.encoder = encoder
        self.items = self.calls = 0

    def encode(self, stream: str, items: Modality, state: State | None = None) -> tuple[Modality, State]:
        self.calls += 1
        self.items += items.mask.numel()
        if isinstance(self.encoder, Alone):
            return self.encoder(items), ()
        short = -items.mask.shape[1] % self.encoder.stride
        fill = [nn.functional.pad(part, (0, 0) * (part.dim() - 2) + (0, short)) for part in items]
        return self.encoder.step(Modality(*fill), self.encoder.begin(len(items.mask)) if state is None else state)

    def fuse(self, tokens: object, present: object = None) -> dict[str, Tensor]:
        raise NotImplementedError

    def weigh(self, tokens: object) -> Tensor | None:
        raise NotImplementedError


def bytes_for(tokens: int, encoder: Alone | Causal) -> int:
    each = 4 * FEATURES + OVERHEAD
    return tokens * (each if isinstance(encoder, Alone) else 2 * (4 * FEATURES + 8 * encoder.context + OVERHEAD * encoder.stride))


def embeddings(encoder: Alone | Causal, tokens: int = 1000) -> tuple[Embeddings, Counting]:
    engine = Counting(encoder)
    return Embeddings("s", engine, encoder, FEATURES, EMPTY, bytes_for(tokens, encoder)), engine


def window(at: Sequence[int], end: int, absent: Sequence[int] = (), keyed: bool = True) -> Items:
    """The items of these instants in a window that ends at `end`; an item is made of its instant alone."""
    data = np.array([[instant * 0.37 % 1, instant * 0.71 % 1] for instant in at], np.float32).reshape(-1, 2)
    time = np.array([instant - end for instant in at], np.float32)
    return Items(data, time, np.array([instant not in absent for instant in at], np.bool_), list(at) if keyed else None)


def anew(encoder: Alone | Causal, samples: Sequence[Items | None]) -> Modality:
    inputs = collate([{} if items is None else {"s": items} for items in samples], {"s": EMPTY})["s"]
    return Counting(encoder).encode("s", inputs)[0]


def assert_same(found: Modality, wanted: Modality) -> None:
    assert torch.equal(found.mask, wanted.mask)
    there = wanted.mask
    torch.testing.assert_close(found.data[there], wanted.data[there], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.time[there], wanted.time[there], atol=1e-5, rtol=1e-5)


ENCODERS = [Alone(), Causal(1, 3), Causal(2, 3), Causal(4, 8), Causal(3, 0)]


@st.composite
def batches(draw: st.DrawFn) -> list[list[Items | None]]:
    """Batches of overlapping windows of a few keys, with gaps, items that came late, silence and items without keys."""
    found: list[list[Items | None]] = []
    begin = dict.fromkeys(range(2), 0)
    lost = {key: draw(st.sets(st.integers(0, 40))) for key in begin}
    for _ in range(draw(st.integers(1, 8))):
        batch: list[Items | None] = []
        for _ in range(draw(st.integers(1, 4))):
            key = draw(st.sampled_from(sorted(begin)))
            begin[key] += draw(st.integers(0, 5))
            lost[key] -= draw(st.sets(st.sampled_from(sorted(lost[key])))) if lost[key] else set()
            start, size = begin[key], draw(st.integers(0, 14))
            own = [1000 * key + at for at in range(start, start + size)]
            items = window(own, own[-1] + 1 if own else 0, [1000 * key + at for at in lost[key]], keyed=draw(st.integers(0, 9)) > 0)
            batch.append(items if own else None)
        found.append(batch)
    return found


@pytest.mark.parametrize("encoder", ENCODERS, ids=["item", "1 of 3", "2 of 3", "4 of 8", "3 alone"])
@settings(deadline=None)
@given(batches=batches(), room=st.sampled_from([2, 7, 30, 1000]))
def test_what_is_kept_changes_no_answer(encoder: Alone | Causal, batches: list[list[Items | None]], room: int) -> None:
    kept, _ = embeddings(encoder, room)
    for batch in batches:
        assert_same(kept(batch), anew(encoder, batch))


def test_an_item_of_two_windows_is_encoded_once() -> None:
    kept, engine = embeddings(Alone())
    kept([window(range(8), 8), window(range(2, 10), 10)])
    assert (engine.items, engine.calls) == (10, 1)
    kept([window(range(4, 12), 12)])
    assert (engine.items, engine.calls) == (12, 2)
    assert (kept.computed, kept.kept) == (12, 6)


def test_a_late_item_is_the_only_one_that_is_encoded_for_the_revision() -> None:
    kept, engine = embeddings(Alone())
    kept([window([0, 1, 3, 4], 5)])
    kept([window([0, 1, 2, 3, 4], 5)])
    assert engine.items == 5


def test_a_causal_encoder_goes_on_from_its_state_and_begins_anew_at_each_window_start() -> None:
    kept, engine = embeddings(Causal(2, 4))
    kept([window(range(20), 20)])
    assert engine.items == 20
    kept([window(range(4, 24), 24)])
    # The first two tokens (4 items) now see less before them, the last two (4 items) are new; six are shared.
    assert engine.items == 20 + 4 + 4
    assert kept.kept == 6


def test_a_causal_encoder_whose_state_is_gone_begins_its_context_earlier() -> None:
    kept, engine = embeddings(Causal(2, 4))
    kept([window(range(20), 20)])
    kept._states.__init__(0)  # type: ignore[misc]
    assert_same(kept([window(range(24), 24)]), anew(Causal(2, 4), [window(range(24), 24)]))
    assert engine.items == 20 + 4 + 4


def test_items_without_keys_are_encoded_each_time() -> None:
    kept, engine = embeddings(Alone())
    for _ in range(2):
        kept([window(range(3), 3, keyed=False)])
    assert engine.items == 6


def test_what_is_not_there_is_not_encoded() -> None:
    kept, engine = embeddings(Alone())
    found = kept([None, window([1, 2], 3, absent=[1, 2])])
    assert engine.calls == 0
    assert not found.mask.any()
    assert found.data.shape == (2, 4, FEATURES)


def test_memory_stays_within_its_bound() -> None:
    kept, _ = embeddings(Alone(), 10)
    for start in range(0, 100, 5):
        kept([window(range(start, start + 8), start + 8)])
        assert len(kept._slots) <= 10
    assert len(kept._numbers._known) <= 10


def test_a_batch_that_needs_more_than_there_is_room_for_is_encoded_anew() -> None:
    kept, engine = embeddings(Alone(), 5)
    wide = [window(range(8), 8)]
    assert_same(kept(wide), anew(Alone(), wide))
    assert engine.calls == 1


def test_tokens_are_kept_of_encoders_with_a_bounded_view() -> None:
    endless = Causal(1, 1)
    endless.context = None  # type: ignore[assignment]
    windowed = Alone()
    windowed.scope = "window"
    assert [keeps(e) for e in (Alone(), Causal(1, 1), endless, windowed)] == [True, True, False, False]


REAL: dict[str, dict[str, Any]] = {
    "tcn": {"type": "tcn", "size": 2, "width": 8, "layers": 2},
    "causal_mel": {"type": "causal_mel", "block": 160, "width": 8, "bands": 8, "stride": 2, "layers": 1},
    "chunk_transformer": {"type": "chunk_transformer", "block": 160},
    "mlp": {"type": "mlp", "size": 2},
}


@pytest.mark.parametrize("name", REAL)
def test_our_encoders_say_the_same_kept_or_anew(name: str) -> None:
    torch.manual_seed(0)
    heads = {"state": {"type": "classification", "labels": ["a", "b"]}}
    model = build({"features": 8, "encoders": {"s": REAL[name]}, "fusion": {"type": "addition"}, "heads": heads}).eval()
    encoder = model.encoders["s"]
    stride = int(getattr(encoder, "stride", 1))
    draw = np.random.default_rng(0)
    shape, dtype = ((160,), np.int16) if "block" in REAL[name] else ((2,), np.float32)
    line = draw.normal(0, 1000, (60 * stride, *shape)).astype(dtype)
    there = draw.uniform(size=len(line)) > 0.1
    empty = Items(line[:stride] * 0, np.zeros(stride, np.float32), np.zeros(stride, np.bool_))
    engine = TorchEngine(model, torch.device("cpu"))
    kept = Embeddings("s", engine, encoder, 8, empty, 1 << 20)
    for start in range(0, 20 * stride, 2 * stride):
        if start == 10 * stride:
            there[start + 5 * stride] ^= True  # a late packet: the next windows differ in it
        own = slice(start, start + 30 * stride)
        keys = [(at, there[at]) for at in range(own.start, own.stop)]
        items = Items(line[own], np.linspace(-1, 0, len(keys), dtype=np.float32), there[own], keys)
        anew = engine.encode("s", collate([{"s": items}], {"s": empty})["s"])[0]
        assert_same(kept([items]), anew)
    assert kept.kept > kept.computed
