"""Batches in few sizes answer like the whole batch, and buffers are not filled anew while a copy of them is on its way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from streamfuse.models.batch import Modality
from streamfuse.models.buckets import BucketedEngine, buckets, in_buckets
from streamfuse.models.fusion_model import FusionModel, State, build
from streamfuse.models.torch_engine import TorchEngine
from streamfuse.models.uploads import Uploads, _Ring
from tests.models.making import LABELS

CPU = torch.device("cpu")


class Noting:
    """An engine that notes how large the batches are that it sees."""

    device = CPU

    def __init__(self, model: FusionModel) -> None:
        self.engine = TorchEngine(model, CPU)
        self.sizes: list[int] = []

    def encode(self, stream: str, items: Modality, state: State | None = None) -> tuple[Modality, State]:
        self.sizes.append(len(items.mask))
        return self.engine.encode(stream, items, state)

    def fuse(self, tokens: Mapping[str, Modality], present: Tensor | None = None) -> dict[str, Tensor]:
        self.sizes.append(len(tokens["a"].mask))
        return self.engine.fuse(tokens, present)

    def weigh(self, tokens: Mapping[str, Modality]) -> Tensor | None:
        return self.engine.weigh(tokens)


@pytest.fixture
def engine() -> Noting:
    torch.manual_seed(0)
    described: dict[str, Any] = {
        "features": 8,
        "encoders": {"a": {"type": "mlp", "size": 4}, "b": {"type": "tcn", "size": 4, "width": 8, "layers": 2}},
        "fusion": {"type": "late_transformer", "layers": 1, "heads": 2},
        "heads": {"state": {"type": "classification", "labels": LABELS}},
    }
    return Noting(build(described).eval())


def items(batch: int, count: int = 3) -> Modality:
    return Modality(torch.randn(batch, count, 4), torch.rand(batch, count) - 1, torch.rand(batch, count) > 0.3)


@given(count=st.integers(1, 200), most=st.integers(1, 70))
def test_every_row_is_in_one_bucket_that_is_no_more_than_twice_as_large(count: int, most: int) -> None:
    found = list(in_buckets(count, most))
    assert [row for rows, _ in found for row in range(rows.start, rows.stop)] == list(range(count))
    assert all(size in buckets(most) and (size + 1) // 2 <= rows.stop - rows.start <= size for rows, size in found)


def test_sizes_are_powers_of_two_and_the_greatest() -> None:
    assert buckets(1) == [1]
    assert buckets(8) == [1, 2, 4, 8]
    assert buckets(12) == [1, 2, 4, 8, 12]


@pytest.mark.parametrize("batch", [1, 3, 4, 11])
def test_answers_do_not_depend_on_the_buckets(engine: Noting, batch: int) -> None:
    whole, parts = engine.engine, BucketedEngine(engine, ("a", "b"), 4)
    inputs = {"a": items(batch), "b": items(batch)}
    tokens, expected = ({s: e.encode(s, inputs[s])[0] for s in inputs} for e in (parts, whole))
    for stream, found in tokens.items():
        torch.testing.assert_close(found, expected[stream], atol=1e-5, rtol=1e-5)
    present = torch.rand(batch, 2) > 0.4
    for shown in (None, present):
        torch.testing.assert_close(parts.fuse(tokens, shown), whole.fuse(expected, shown), atol=1e-5, rtol=1e-5)
    assert set(engine.sizes) <= {1, 2, 4}


def test_states_go_through_buckets(engine: Noting) -> None:
    whole, parts = engine.engine, BucketedEngine(engine, ("a", "b"), 4)
    first, second = items(5), items(5)
    state, expected = parts.encode("b", first)[1], whole.encode("b", first)[1]
    torch.testing.assert_close(parts.encode("b", second, state), whole.encode("b", second, expected), atol=1e-5, rtol=1e-5)


class Copy:
    """A copy that is on its way until somebody waits for it."""

    def __init__(self) -> None:
        self.waited = False

    def synchronize(self) -> None:
        self.waited = True


@settings(deadline=None)
@given(st.lists(st.lists(st.tuples(st.sampled_from(["uint8", "int16", "float32", "bool"]), st.integers(0, 9)), min_size=1), min_size=1))
def test_a_staged_batch_stays_until_its_copy_is_done(batches: list[list[tuple[str, int]]]) -> None:
    ring = _Ring(pinned=False)
    on_way: list[tuple[list[Tensor], list[Tensor], Copy]] = []
    for shapes in batches:
        tensors = [torch.randint(0, 2, (count, 3)).to(getattr(torch, dtype)) for dtype, count in shapes]
        staged = ring.stage(tensors)
        copy = Copy()
        ring.sent(copy)
        on_way = [*on_way[-1:], (tensors, staged, copy)]
        for wanted, found, _ in on_way:  # this one and the one before
            assert all(torch.equal(a, b) for a, b in zip(wanted, found, strict=True))


def test_a_buffer_whose_copy_is_on_its_way_is_waited_for() -> None:
    ring, copies = _Ring(pinned=False), [Copy() for _ in range(3)]
    for number, copy in enumerate(copies):
        ring.stage([torch.ones(4)])
        ring.sent(copy)
        assert [c.waited for c in copies] == [number == 2, False, False]


def test_on_the_cpu_nothing_is_copied() -> None:
    tensor = torch.ones(3)
    assert Uploads(CPU)([tensor])[0] is tensor


@pytest.mark.gpu
def test_compiled_graphs_answer_as_the_cpu_does(engine: Noting) -> None:
    from streamfuse.models.cuda_engine import CudaEngine

    batches = [{"a": items(n), "b": items(n)} for n in (1, 3, 6, 3)]
    expected = [engine.engine.fuse({s: engine.engine.encode(s, part)[0] for s, part in inputs.items()}) for inputs in batches]
    device = torch.device("cuda")
    cuda = BucketedEngine(CudaEngine(engine.engine._model.to(device), device), ("a", "b"), 4)
    for inputs, wanted in zip(batches, expected, strict=True):
        found = cuda.fuse({s: cuda.encode(s, part)[0] for s, part in inputs.items()})
        torch.testing.assert_close(found["state"].cpu(), wanted["state"], atol=0.02, rtol=0.02)
