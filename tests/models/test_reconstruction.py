"""An absent modality's embedding is predicted from the others, and stands in for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from streamfuse.models.batch import Modality
from streamfuse.models.fusion_model import FusionModel
from streamfuse.models.heads import Classification
from streamfuse.models.parts import FUSIONS
from streamfuse.models.reconstruction import Reconstruction
from tests.models.test_fusions import FEATURES, STREAMS, SUBSETS, WIDTH, Encoder, assert_same, batch, encoded, of_each_subset, sample


def model(fusion: str = "addition", streams: tuple[str, ...] = STREAMS) -> FusionModel:
    torch.manual_seed(0)
    made = FUSIONS.make({"type": fusion}, streams=streams, features=FEATURES)
    heads = {"task": Classification(FEATURES, ["no", "yes"])}
    return FusionModel({s: Encoder() for s in streams}, made, heads, {}, FEATURES, Reconstruction(streams, FEATURES, 64)).eval()


@pytest.mark.parametrize("fusion", FUSIONS.names())
def test_with_each_fusion_any_subset_gives_the_same_alone_and_in_a_batch(fusion: str) -> None:
    made = model(fusion)
    together = made(of_each_subset())["task"]
    alone = torch.cat([made(batch(sample(seed, *subset)))["task"] for seed, subset in enumerate(SUBSETS)])
    assert bool(torch.isfinite(together).all())
    assert_same(together, alone)


def test_predicted_token_stands_where_a_stream_is_absent_and_another_is_present() -> None:
    made = model()
    tokens = made.complete(encoded(made, of_each_subset()))
    assert made.reconstruction is not None
    filled = made.reconstruction.fill(tokens)
    predicted = made.reconstruction(tokens)
    for stream in STREAMS:
        put = [bool(subset) and stream not in subset for subset in SUBSETS]
        assert filled[stream].mask[:, -1].tolist() == put
        assert torch.equal(filled[stream].data[:, -1], predicted[stream])
        assert torch.equal(filled[stream].data[:, :-1], tokens[stream].data)
        assert torch.equal(filled[stream].mask[:, :-1], tokens[stream].mask)


def test_prediction_of_a_stream_does_not_look_at_it() -> None:
    made = model()
    assert made.reconstruction is not None
    whole, other = sample(0, *STREAMS), sample(1, *STREAMS)
    first, second = (made.reconstruction(encoded(made, batch(items)))["audio"] for items in (whole, {**whole, "audio": other["audio"]}))
    assert torch.equal(first, second)


def test_loss_is_that_of_the_streams_that_are_present_beside_another() -> None:
    made = model()
    tokens = made.complete(encoded(made, of_each_subset()))
    assert made.reconstruction is not None
    predicted = made.reconstruction(tokens)
    audio_and_text = SUBSETS.index(("audio", "text"))
    errors = []
    for stream in ("audio", "text"):
        part = tokens[stream]
        mean = part.data[audio_and_text][part.mask[audio_and_text]].mean(0)
        errors.append(F.mse_loss(predicted[stream][audio_and_text], mean))
    loss = made.reconstruction_loss(tokens)
    assert_same(loss[audio_and_text], torch.stack(errors).mean())
    assert loss[: 1 + len(STREAMS)].tolist() == [0, 0, 0, 0]  # nothing, or one alone


def test_loss_does_not_make_what_is_predicted_easier() -> None:
    made = model(streams=("video", "audio"))
    tokens = encoded(made, {s: part for s, part in batch(sample(0, *STREAMS)).items() if s != "text"})
    data = {s: part.data.detach().requires_grad_() for s, part in tokens.items()}
    video_from_audio = cast(nn.Sequential, cast(Reconstruction, made.reconstruction).predictors[0])
    nn.init.zeros_(cast(nn.Linear, video_from_audio[2]).weight)  # so that audio tells nothing, and is only predicted
    made.reconstruction_loss({s: part._replace(data=data[s]) for s, part in tokens.items()}).sum().backward()  # type: ignore[no-untyped-call]
    video, audio = data["video"].grad, data["audio"].grad
    assert video is not None
    assert bool(video.any())
    assert audio is not None
    assert not bool(audio.any())


def test_model_without_reconstruction_has_no_loss_of_it() -> None:
    made = model()
    made.reconstruction = None
    assert made.reconstruction_loss(encoded(made, of_each_subset())).tolist() == [0.0] * len(SUBSETS)


def test_reconstructed_stream_has_no_weight() -> None:
    made = model("attention")
    weights = made.weights(encoded(made, batch(sample(0, "video"))))
    assert_same(weights, torch.tensor([[1.0, 0.0, 0.0]]))


def toy(count: int, draw: torch.Generator) -> tuple[dict[str, Modality], Tensor]:
    """Stream b is the product of two of a's numbers, in its own clothes; whether it is above 0 is asked."""
    a = torch.rand(count, WIDTH, generator=draw) * 2 - 1
    product = a[:, :1] * a[:, 1:2]
    b = torch.cat([product * 3, product.sign(), torch.ones(count, WIDTH - 2)], 1)
    there = torch.ones(count, 1, dtype=torch.bool)
    streams = {s: Modality(x[:, None], torch.zeros(count, 1), there) for s, x in (("a", a), ("b", b))}
    return streams, (product[:, 0] > 0).long()


def accuracy(made: FusionModel, inputs: Mapping[str, Modality], labels: Tensor) -> float:
    with torch.inference_mode():
        return float((made(inputs)["task"].argmax(1) == labels).float().mean())


def test_without_b_the_model_answers_nearly_as_with_it_where_b_is_a_function_of_a() -> None:
    # Trained with everything present: nothing but the reconstruction tells the model what to do without b.
    made, draw = model("addition", ("a", "b")).train(), torch.Generator().manual_seed(1)
    optimizer = torch.optim.AdamW(made.parameters(), 5e-3)
    for _ in range(400):
        inputs, labels = toy(128, draw)
        tokens = encoded(made, inputs)
        loss = made.head("task").loss(made.fuse(tokens)["task"], labels).mean() + made.reconstruction_loss(tokens).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    made.eval()
    inputs, labels = toy(1000, draw)
    both, without = accuracy(made, inputs, labels), accuracy(made, {"a": inputs["a"]}, labels)
    made.reconstruction = None
    unaided = accuracy(made, {"a": inputs["a"]}, labels)
    print(f"both {both:.3f}, b reconstructed {without:.3f}, b left out {unaided:.3f}")
    assert both > 0.97
    assert without > both - 0.05
    assert unaided < 0.7
