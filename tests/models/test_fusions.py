"""The contract of fusions: each takes any subset of modalities in any order, and answers each sample as if it were alone."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from streamfuse.models.batch import Items, Modality, collate
from streamfuse.models.fusion_model import FusionModel
from streamfuse.models.heads import Classification
from streamfuse.models.parts import FUSIONS, Scope, UnknownPart

FEATURES, WIDTH = 16, 5
STREAMS = ("video", "audio", "text")
SUBSETS = [subset for n in range(4) for subset in itertools.combinations(STREAMS, n)]
EMPTY = {s: Items(np.zeros((0, WIDTH), np.float32), np.zeros(0, np.float32), np.zeros(0, np.bool_)) for s in STREAMS}

each_fusion = pytest.mark.parametrize("fusion", FUSIONS.names())
each_weighing = pytest.mark.parametrize("fusion", ["attention", "gated", "late_transformer", "product_of_experts"])


class Encoder(nn.Module):
    """Each item to one token."""

    scope: Scope = "item"

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(WIDTH, FEATURES), nn.LayerNorm(FEATURES))

    def forward(self, items: Modality) -> Modality:
        return items._replace(data=self.layers(items.data) * items.mask[..., None])


def model(fusion: str, streams: Sequence[str] = STREAMS, **options: Any) -> FusionModel:
    torch.manual_seed(0)
    made = FUSIONS.make({"type": fusion, **options}, streams=tuple(streams), features=FEATURES)
    heads = {"task": Classification(FEATURES, ["a", "b", "c"])}
    return FusionModel({s: Encoder() for s in streams}, made, heads, {}, FEATURES).eval()


def sample(seed: int, *streams: str, items: int = 4) -> dict[str, Items]:
    """Some items of each stream, fewer of each further one."""
    draw = np.random.default_rng(seed)
    counts = {s: max(items - i, 1) for i, s in enumerate(STREAMS)}
    whole = {
        s: Items(
            draw.normal(size=(count, WIDTH)).astype(np.float32),
            np.sort(draw.uniform(-1, 0, count)).astype(np.float32),
            np.ones(count, np.bool_),
        )
        for s, count in counts.items()
    }
    return {s: whole[s] for s in streams}


def batch(*samples: Mapping[str, Items]) -> dict[str, Modality]:
    return collate(samples, EMPTY)


def of_each_subset() -> dict[str, Modality]:
    """A sample for each subset, the one with nothing first and the whole last."""
    return batch(*(sample(seed, *subset) for seed, subset in enumerate(SUBSETS)))


def encoded(made: FusionModel, inputs: Mapping[str, Modality]) -> dict[str, Modality]:
    return {s: made.encode(s, inputs[s])[0] for s in inputs}


def assert_same(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@each_fusion
class TestEachFusion:
    def test_any_subset_gives_a_finite_answer(self, fusion: str) -> None:
        answers = model(fusion)(of_each_subset())["task"]
        assert answers.shape == (len(SUBSETS), 3)
        assert bool(torch.isfinite(answers).all())

    def test_any_subset_gives_a_finite_answer_in_bfloat16(self, fusion: str) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            assert bool(torch.isfinite(model(fusion)(of_each_subset())["task"]).all())

    def test_each_present_stream_changes_the_answer(self, fusion: str) -> None:
        made, whole = model(fusion), sample(0, *STREAMS)
        for stream in STREAMS:
            other = {**whole, stream: sample(1, stream)[stream]}
            assert float((made(batch(whole))["task"] - made(batch(other))["task"]).detach().abs().max()) > 1e-4

    def test_order_of_the_mapping_does_not_matter(self, fusion: str) -> None:
        inputs = of_each_subset()
        backwards = {s: inputs[s] for s in reversed(STREAMS)}
        assert torch.equal(model(fusion)(inputs)["task"], model(fusion)(backwards)["task"])

    def test_sample_is_answered_the_same_alone_and_in_a_batch(self, fusion: str) -> None:
        made = model(fusion)
        samples = [sample(0, *STREAMS, items=9), *(sample(seed, *subset) for seed, subset in enumerate(SUBSETS))]
        together = made(batch(*samples))["task"]
        assert_same(together, torch.cat([made(batch(s))["task"] for s in samples]))

    def test_padding_does_not_matter_whatever_stands_in_it(self, fusion: str) -> None:
        made = model(fusion)
        tokens = encoded(made, of_each_subset())
        rubbish = {
            s: Modality(
                torch.cat([torch.where(part.mask[..., None], part.data, 9.0), torch.full((len(SUBSETS), 2, FEATURES), -7.0)], 1),
                torch.cat([torch.where(part.mask, part.time, 3.0), torch.full((len(SUBSETS), 2), -5.0)], 1),
                torch.cat([part.mask, torch.zeros(len(SUBSETS), 2, dtype=torch.bool)], 1),
            )
            for s, part in tokens.items()
        }
        assert_same(made.fuse(rubbish), made.fuse(tokens))

    def test_stream_left_out_is_a_stream_masked_out(self, fusion: str) -> None:
        made, inputs = model(fusion), of_each_subset()
        for stream in STREAMS:
            masked = {**inputs, stream: inputs[stream]._replace(mask=torch.zeros_like(inputs[stream].mask))}
            assert_same(made(masked), made({s: part for s, part in inputs.items() if s != stream}))

    def test_hiding_a_stream_is_leaving_it_out(self, fusion: str) -> None:
        made = model(fusion)
        tokens = encoded(made, batch(sample(0, *STREAMS)))
        hidden = made.fuse(tokens, torch.tensor([[True, False, True]]))
        assert_same(hidden, made(batch(sample(0, "video", "text"))))

    def test_encode_and_fuse_answer_as_forward(self, fusion: str) -> None:
        made, inputs = model(fusion), of_each_subset()
        assert_same(made.fuse(encoded(made, inputs)), made(inputs))

    def test_tokens_of_items_encoded_one_by_one_answer_as_forward(self, fusion: str) -> None:
        made, inputs = model(fusion), batch(sample(0, *STREAMS), sample(1, *STREAMS))
        cached = {}
        for stream, part in inputs.items():
            one_by_one = [Modality(*(field[:, at : at + 1] for field in part)) for at in range(part.mask.shape[1])]
            tokens = [made.encode(stream, item)[0] for item in one_by_one]
            cached[stream] = Modality(*(torch.cat(fields, 1) for fields in zip(*tokens, strict=True)))
        assert_same(made.fuse(cached), made(inputs))

    def test_gradients_reach_every_parameter_and_are_numbers_also_with_nothing_present(self, fusion: str) -> None:
        made = model(fusion).train()
        weight = torch.linspace(1, 2, 3 * len(SUBSETS)).reshape(-1, 3)
        (made(of_each_subset())["task"] * weight).sum().backward()
        gradients = {name: p.grad for name, p in made.named_parameters()}
        assert [name for name, grad in gradients.items() if grad is None or not bool(grad.any())] == []
        assert [name for name, grad in gradients.items() if grad is not None and not bool(torch.isfinite(grad).all())] == []

    def test_many_more_tokens_than_usual_are_taken(self, fusion: str) -> None:
        assert bool(torch.isfinite(model(fusion)(batch(sample(0, *STREAMS, items=300)))["task"]).all())

    @pytest.mark.parametrize("count", [1, 2, 4, 6])
    def test_one_to_six_streams_are_taken(self, fusion: str, count: int) -> None:
        streams = tuple("abcdef"[:count])
        made = model(fusion, streams)
        answer = made({s: batch(sample(i, "video"), {})["video"] for i, s in enumerate(streams)})["task"]
        assert bool(torch.isfinite(answer).all())
        assert not torch.allclose(answer[0], answer[1])

    def test_it_says_its_paper_and_what_it_does_where_a_modality_is_missing(self, fusion: str) -> None:
        made = FUSIONS[fusion]
        assert cast(Any, made).missing
        assert re.search(r'"[^"]+",\s.+ (19|20)\d\d', made.__doc__ or "", re.DOTALL)  # a title, where, and when
        assert re.search(r"absent\s+modality", made.__doc__ or "")

    def test_exported_it_answers_the_same_for_any_batch(self, fusion: str) -> None:
        made = model(fusion)
        exported = _exported(fusion).module()
        for samples in ([sample(0, *STREAMS)], [sample(seed, *subset) for seed, subset in enumerate(SUBSETS)]):
            arguments = _laid_out(made, samples)
            assert_same(exported(*arguments), made.fuse(*arguments))

    @pytest.mark.slow
    @pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning")  # torch, of itself
    def test_in_onnx_it_answers_the_same_for_any_batch(self, fusion: str) -> None:
        pytest.importorskip("onnx", reason="needs the extra [onnx]")
        pytest.importorskip("onnxscript", reason="needs the extra [onnx]")
        onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra [onnx]")
        made = model(fusion)
        program = torch.onnx.export(_exported(fusion), dynamo=True, verbose=False)
        assert program is not None
        session = onnxruntime.InferenceSession(program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
        names = [entry.name for entry in session.get_inputs()]
        for samples in ([sample(0, *STREAMS)], [sample(seed, *subset) for seed, subset in enumerate(SUBSETS)]):
            arguments = _laid_out(made, samples)
            tokens, present = arguments
            values = [field.detach().numpy() for s in STREAMS for field in tokens[s]] + [present.numpy()]
            (answer,) = session.run(None, dict(zip(names, values, strict=True)))
            assert_same(torch.from_numpy(answer), made.fuse(*arguments)["task"])


class _Fuse(nn.Module):
    def __init__(self, made: FusionModel) -> None:
        super().__init__()
        self.made = made

    def forward(self, tokens: dict[str, Modality], present: Tensor) -> dict[str, Tensor]:
        return self.made.fuse(tokens, present)


def _laid_out(made: FusionModel, samples: Sequence[Mapping[str, Items]]) -> tuple[dict[str, Modality], Tensor]:
    """Tokens of four items, three and two, and a stream hidden in the first sample."""
    present = torch.ones(len(samples), len(STREAMS), dtype=torch.bool)
    present[0, 1] = False
    usual = sample(0, *STREAMS)
    return {s: Modality(*(f.detach() for f in p)) for s, p in encoded(made, collate(samples, usual)).items()}, present


@functools.cache
def _exported(fusion: str) -> torch.export.ExportedProgram:
    made = model(fusion)
    size = torch.export.Dim("batch", max=4096)
    example = _laid_out(made, [sample(seed, *STREAMS) for seed in range(2)])
    shapes = {"tokens": {s: Modality({0: size}, {0: size}, {0: size}) for s in STREAMS}, "present": {0: size}}  # type: ignore[arg-type]
    return torch.export.export(_Fuse(made), example, dynamic_shapes=shapes)


@each_weighing
class TestEachWeighing:
    def test_weights_sum_to_one_over_the_streams_that_are_present(self, fusion: str) -> None:
        made = model(fusion)
        weights = made.weights(encoded(made, of_each_subset()))
        assert weights is not None
        present = torch.tensor([[stream in subset for stream in STREAMS] for subset in SUBSETS])
        assert_same(weights.sum(1), present.any(1).float())
        assert torch.equal(weights > 0, present)

    def test_weights_depend_on_what_is_said(self, fusion: str) -> None:
        made = model(fusion)
        weights = made.weights(encoded(made, batch(sample(0, *STREAMS), sample(1, *STREAMS))))
        assert weights is not None
        assert not torch.allclose(weights[0], weights[1])

    def test_hidden_stream_weighs_nothing(self, fusion: str) -> None:
        made = model(fusion)
        weights = made.weights(encoded(made, batch(sample(0, *STREAMS))), torch.tensor([[True, False, True]]))
        assert weights is not None
        assert float(weights[0, 1].detach()) == 0


def test_other_fusions_have_no_weights() -> None:
    weighing = [name for name in FUSIONS.names() if model(name).weights(encoded(model(name), of_each_subset())) is not None]
    assert weighing == ["attention", "gated", "late_transformer", "product_of_experts"]


def test_precise_expert_outweighs_a_vague_one() -> None:
    made = model("product_of_experts", ("a", "b"))
    said = Modality(torch.zeros(1, 1, FEATURES), torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool))
    for expert, precision in zip(cast(nn.ModuleList, made.fusion.experts), (3.0, 1.0), strict=True):
        bias = torch.cat([torch.full((FEATURES,), precision), torch.full((FEATURES,), precision).expm1().log()])
        cast(nn.Linear, expert).bias = nn.Parameter(bias)  # says its precision; softplus is undone
    tokens = {"a": said, "b": said}
    assert_same(made.weights(tokens), torch.tensor([[0.75, 0.25]]))
    assert_same(made.fusion(tokens), torch.full((1, FEATURES), (3 * 3 + 1 * 1) / (3 + 1 + 1)))


def test_addition_is_the_mean_of_the_present() -> None:
    made = model("addition", ("a", "b", "c"))
    tokens = {
        s: Modality(torch.full((1, 1, FEATURES), value), torch.zeros(1, 1), torch.tensor([[there]]))
        for s, value, there in (("a", 1.0, True), ("b", 5.0, False), ("c", 2.0, True))
    }
    assert_same(made.fusion(tokens), torch.full((1, FEATURES), 1.5))


def test_products_of_the_others_stay_where_a_modality_is_absent() -> None:
    # With b absent, tensor fusion of a, b and c sees what tensor fusion of a and c does: the other products are zeros.
    made = cast(Any, model("tensor", STREAMS, size=2).fusion)
    tokens = encoded(model("tensor"), batch(sample(0, "video", "text")))
    seen = []
    made.layers[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    made(tokens)
    products = seen[0].reshape(3, 3, 3)  # video, audio, text; the 1 comes last
    assert not bool(products[:, :2].any())
    assert_same(products[:, 2], products[:, 2, 2:] * products[2, 2])


@pytest.mark.parametrize(("encoder", "cells"), [("gru", 16), ("conv", 16), ("gru", 1)])
def test_early_concatenation_knows_what_came_when(encoder: str, cells: int) -> None:
    made = model("early_concatenation", ("video",), encoder=encoder, cells=cells)
    early = sample(0, "video", items=1)
    early["video"].time[:] = -1.9
    late = Items(early["video"].data, np.full(1, -0.1, np.float32), early["video"].mask)
    same = torch.allclose(made(batch(early))["task"], made(batch({"video": late}))["task"], atol=1e-5)
    assert same == (cells == 1)


def test_early_concatenation_takes_what_is_older_than_its_grid_to_the_first_cell() -> None:
    made = cast(Any, model("early_concatenation", ("video",), span=1.0, cells=2).fusion)
    data = torch.tensor([[1.0], [3.0], [5.0]]).expand(1, 3, FEATURES)
    grid = made._on_grid(Modality(data, torch.tensor([[-7.0, -0.6, 0.0]]), torch.ones(1, 3, dtype=torch.bool)))
    assert grid[0, :, 0].tolist() == [2.0, 5.0]


@pytest.mark.parametrize(
    ("fusion", "options", "said"),
    [
        ("tensor", {"size": 300}, "low_rank"),
        ("tensor", {"size": 0}, "size of 1 or more"),
        ("low_rank", {"rank": 0}, "rank of 1 or more"),
        ("multiplicative", {"size": 0}, "size of 1 or more"),
        ("bottleneck", {"layers": 1}, "2 layers"),
        ("late_transformer", {"heads": 3}, "multiple of heads"),
        ("late_transformer", {"layers": 0}, "1 layer"),
        ("cross_modal", {"layers": 0}, "1 layer"),
        ("perceiver", {"blocks": 0}, "1 block"),
        ("perceiver", {"heads": 0}, "multiple of heads"),
        ("early_concatenation", {"cells": 0}, "1 cell or more"),
        ("early_concatenation", {"span": 0}, "span above 0 s"),
        ("early_concatenation", {"encoder": "lstm"}, "gru or conv"),
    ],
)
def test_absurd_options_are_refused_with_a_sentence(fusion: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UnknownPart, match=said):
        model(fusion, **options)
