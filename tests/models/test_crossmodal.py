"""Finding one modality by another, and writing one from the others."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from streamfuse.errors import BundleError
from streamfuse.models.batch import Items, Modality, collate
from streamfuse.models.bundle import BundleConfig, WindowShape, load_bundle, save_bundle
from streamfuse.models.crossmodal import CrossModal, newest
from streamfuse.models.crossmodal.image_cnn import ImageCnn
from streamfuse.models.crossmodal.retrieval import Retrieval, info_nce
from streamfuse.models.crossmodal.text_transformer import TextTransformer
from streamfuse.models.fusion_model import FusionModel, build
from streamfuse.models.parts import UnknownPart
from streamfuse.models.preprocess.text_bytes import TextBytes
from streamfuse.models.preprocess.tokens import Tokens
from streamfuse.models.tokenizer import Tokenizer

FEATURES, LENGTH, IDS = 16, 12, 259
STREAMS = ("image", "audio", "text")
INPUTS: dict[str, dict[str, Any]] = {
    "image": {"type": "frames", "height": 32, "width": 32, "colour": False, "seconds": 0},
    "audio": {"type": "features", "size": 4, "most": 3},
    "text": {"type": "tokens", "length": LENGTH, "most": 2},
}
CROSSMODAL: dict[str, Any] = {
    "retrieval": {"size": 8},
    "decoders": {
        "text": {"type": "text_transformer", "vocabulary": IDS, "length": LENGTH, "width": 16, "heads": 2},
        "image": {"type": "image_cnn", "size": 16, "channels": 1, "width": 4},
    },
}


def architecture(**changes: Any) -> dict[str, Any]:
    return {
        "features": FEATURES,
        "encoders": {
            "image": {"type": "cnn", "channels": 1, "width": 0.25},
            "audio": {"type": "mlp", "size": 4},
            "text": {"type": "text_gru", "vocabulary": IDS, "width": 8, "hidden": 8},
        },
        "fusion": {"type": "addition"},
        "heads": {"digit": {"type": "classification", "labels": ["one", "two"]}},
        "crossmodal": CROSSMODAL,
        **changes,
    }


def model() -> FusionModel:
    torch.manual_seed(0)
    return build(architecture()).eval()


def part(made: FusionModel) -> CrossModal:
    assert made.crossmodal is not None
    return made.crossmodal


def ids(text: str, length: int = LENGTH) -> np.ndarray[Any, np.dtype[np.int32]]:
    return Tokens(length=length).reduce(text)


def items(data: Any) -> Items:
    return Items(np.asarray(data), np.arange(1 - len(data), 1, dtype=np.float32), np.ones(len(data), np.bool_))


def sample(seed: int, *streams: str, text: str = "one") -> dict[str, Items]:
    draw = np.random.default_rng(seed)
    whole = {
        "image": items(draw.integers(0, 255, (1, 32, 32), np.uint8)),
        "audio": items(draw.normal(size=(2, 4)).astype(np.float32)),
        "text": items([ids(text)]),
    }
    return {stream: whole[stream] for stream in streams}


def batch(*samples: Mapping[str, Items]) -> dict[str, Modality]:
    empty = {s: Items(i.data[:0], i.time[:0], i.mask[:0]) for s, i in sample(0, *STREAMS).items()}
    empty = {
        s: Items(np.zeros((2, *e.data.shape[1:]), e.data.dtype), np.zeros(2, np.float32), np.zeros(2, np.bool_)) for s, e in empty.items()
    }
    return collate(samples, empty)


def encoded(made: FusionModel, inputs: Mapping[str, Modality]) -> dict[str, Modality]:
    return {stream: made.encode(stream, inputs[stream])[0] for stream in made.streams}


def losses(made: FusionModel, *samples: Mapping[str, Items]) -> dict[str, Tensor]:
    inputs = batch(*samples)
    return part(made).losses(inputs, encoded(made, inputs))


def memory(count: int, tokens: int = 3, seed: int = 0) -> Modality:
    data = torch.randn(count, tokens, FEATURES, generator=torch.Generator().manual_seed(seed))
    return Modality(data, torch.zeros(count, tokens), torch.ones(count, tokens, dtype=torch.bool))


def text_decoder(**options: Any) -> TextTransformer:
    torch.manual_seed(0)
    return TextTransformer(FEATURES, **{"vocabulary": IDS, "length": LENGTH, "width": 16, "heads": 2, **options}).eval()


# --- retrieval ---------------------------------------------------------------------------------------------------------------------------


def test_info_nce_is_the_surprise_at_the_own_partner_in_both_directions() -> None:
    a, b = torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    there = torch.tensor([True, True])
    # similarities [[1, 1], [0, 0]]: rows say ln 2 each, columns say -ln(e / (e + 1)) and -ln(1 / (e + 1))
    wanted = [(math.log(2) + math.log(1 + math.e) - 1) / 2, (math.log(2) + math.log(1 + math.e)) / 2]
    assert info_nce(a, b, there, torch.tensor(1.0)).tolist() == pytest.approx(wanted)


def test_temperature_sharpens_info_nce() -> None:
    found = info_nce(torch.eye(2), torch.eye(2), torch.tensor([True, True]), torch.tensor(2.0))
    assert found.tolist() == pytest.approx([math.log(1 + math.exp(-2))] * 2)


def test_row_without_a_partner_is_no_counterexample_and_has_no_loss() -> None:
    points = torch.nn.functional.normalize(torch.randn(3, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    others = torch.nn.functional.normalize(torch.randn(3, 4, generator=torch.Generator().manual_seed(1)), dim=1)
    scale = torch.tensor(5.0)
    found = info_nce(points, others, torch.tensor([True, True, False]), scale)
    assert found[2] == 0
    assert found[:2].tolist() == pytest.approx(info_nce(points[:2], others[:2], torch.tensor([True, True]), scale).tolist())


@torch.no_grad()
def test_retrieval_counts_the_pairs_that_a_row_has() -> None:
    torch.manual_seed(0)
    retrieval = Retrieval(STREAMS, FEATURES, 8)
    tokens = {stream: memory(4, seed=i) for i, stream in enumerate(STREAMS)}
    tokens["text"].mask[:2] = False
    tokens["audio"].mask[0] = False
    places, scale = retrieval(tokens), retrieval.log_scale.exp()
    image_audio = info_nce(places["image"], places["audio"], torch.tensor([False, True, True, True]), scale)
    others = [info_nce(places[a], places["text"], torch.tensor([False, False, True, True]), scale) for a in ("image", "audio")]
    found = retrieval.loss(tokens)
    assert found[0] == 0  # an image alone
    assert float(found[1]) == pytest.approx(float(image_audio[1]))
    assert float(found[2]) == pytest.approx(float(image_audio[2] + others[0][2] + others[1][2]) / 3)


def test_places_lie_on_the_unit_sphere() -> None:
    torch.manual_seed(0)
    places = Retrieval(STREAMS, FEATURES, 8)({stream: memory(3) for stream in STREAMS})
    for each in places.values():
        assert each.norm(dim=1).tolist() == pytest.approx([1, 1, 1])


def test_temperature_is_learned_and_never_falls_below_a_hundredth() -> None:
    retrieval = Retrieval(("a", "b"), FEATURES, 8)
    tokens = {"a": memory(3), "b": memory(3, seed=1)}
    retrieval.loss(tokens).sum().backward()  # type: ignore[no-untyped-call]
    assert retrieval.log_scale.grad is not None
    assert retrieval.log_scale.grad != 0
    with torch.no_grad():
        warm = retrieval.loss(tokens)
        retrieval.log_scale.fill_(math.log(100.0))
        coldest = retrieval.loss(tokens)
        retrieval.log_scale.fill_(50.0)
    assert torch.equal(retrieval.loss(tokens), coldest)
    assert not torch.equal(warm, coldest)


# --- texts -------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunks", [[1] * LENGTH, [3, 1, 1, 4, 3], [LENGTH]])
def test_fed_id_by_id_a_decoder_says_what_it_says_fed_at_once(chunks: list[int]) -> None:
    decoder, remembered = text_decoder(depth=3), memory(4)
    remembered.mask[1, 1:] = False
    written = torch.randint(0, IDS, (4, LENGTH), generator=torch.Generator().manual_seed(1))
    whole, _ = decoder.step(written, decoder.begin(remembered))
    state, found = decoder.begin(remembered), []
    for chunk in torch.split(written, chunks, 1):
        logits, state = decoder.step(chunk, state)
        found.append(logits)
    assert torch.allclose(torch.cat(found, 1), whole, atol=1e-5)


def test_greedy_writing_is_the_likeliest_id_of_the_whole_text_so_far() -> None:
    decoder, remembered = text_decoder(), memory(3)
    generated = decoder.generate(remembered)
    begun = torch.nn.functional.pad(generated, (1, 0))[:, :-1]
    logits, _ = decoder.step(begun, decoder.begin(remembered))
    going = torch.nn.functional.pad((generated > 0).cumprod(1), (1, 0), value=1)[:, :-1].bool()
    assert torch.equal(logits.argmax(2)[going], generated[going])
    assert not bool(generated[~going].any())


def test_an_id_does_not_look_at_those_behind_it() -> None:
    decoder = text_decoder()
    one = torch.randint(3, IDS, (1, LENGTH), generator=torch.Generator().manual_seed(0))
    other = one.clone()
    other[0, 5:] = 7
    first, second = (decoder.step(text, decoder.begin(memory(1)))[0] for text in (one, other))
    assert torch.equal(first[:, :5], second[:, :5])
    assert not torch.equal(first[:, 5:], second[:, 5:])


def test_loss_of_a_text_is_the_mean_over_its_ids_and_its_end() -> None:
    decoder = text_decoder()
    torch.nn.init.zeros_(decoder.out.weight)
    torch.nn.init.zeros_(decoder.out.bias)
    with torch.no_grad():
        decoder.out.bias[0] = 2.0  # so the end is likelier than each other id
    end = math.log(IDS - 1 + math.exp(2)) - 2
    wanted = torch.from_numpy(np.stack([ids("one"), ids(""), ids("三")]))
    assert (wanted > 0).sum(1).tolist() == [3, 0, 3]
    found = decoder.loss(memory(3), wanted)
    assert found.tolist() == pytest.approx([(end + 3 * (end + 2)) / 4, end, (end + 3 * (end + 2)) / 4])


def test_measures_of_texts() -> None:
    wanted = torch.tensor([[5, 6, 7, 0], [5, 6, 7, 0], [5, 6, 0, 0], [0, 0, 0, 0], [5, 6, 7, 8]])
    generated = torch.tensor([[5, 6, 7, 0, 0], [5, 9, 7, 0, 0], [5, 6, 7, 0, 0], [0, 0, 0, 0, 0], [5, 6, 7, 8, 9]])
    found = text_decoder().measures(generated, wanted)
    assert found["exact"].tolist() == [1, 0, 0, 1, 0]
    assert found["token_accuracy"].tolist() == pytest.approx([1, 3 / 4, 2 / 3, 1, 4 / 5])


def test_words_in_any_script_and_none_at_all_are_learned_and_written() -> None:
    decoder, remembered = text_decoder(width=32).train(), memory(4)
    texts = ["three", "三", "drei!", ""]
    wanted = torch.from_numpy(np.stack([ids(text) for text in texts]))
    optimizer = torch.optim.Adam(decoder.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        decoder.loss(remembered, wanted).mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    generated = decoder.eval().generate(remembered)
    assert [Tokenizer().decode(row) for row in generated.tolist()] == texts
    assert decoder.measures(generated, wanted)["exact"].tolist() == [1, 1, 1, 1]


def test_text_beyond_the_greatest_length_is_refused() -> None:
    decoder = text_decoder(length=3)
    assert decoder.loss(memory(1), torch.tensor([[5, 6, 7]])).isfinite().all()
    with pytest.raises(ValueError, match="at most 3 ids, found 4; set the decoder's length"):
        decoder.loss(memory(1), torch.tensor([[5, 6, 7, 8]]))


@pytest.mark.parametrize("preprocessor", [Tokens(length=8), TextBytes(length=8)])
@pytest.mark.parametrize("text", ["three", "三", ""])
def test_what_was_laid_out_is_read_again(preprocessor: Tokens | TextBytes, text: str) -> None:
    assert preprocessor.words(preprocessor.reduce(text)) == text


def test_ids_that_a_preprocessing_does_not_know_are_no_words() -> None:
    assert Tokens().words(np.array([3 + ord("a"), 2000, 0])) == "a"
    assert TextBytes().words(np.array([ord("a"), 2000, 0])) == "a"


# --- images ------------------------------------------------------------------------------------------------------------------------------


def test_images_have_the_size_and_channels_that_were_asked_for() -> None:
    for size, channels, shape in ((64, 3, (2, 64, 64, 3)), (8, 1, (2, 8, 8))):
        drawn = ImageCnn(FEATURES, size, channels).generate(memory(2))
        assert drawn.shape == shape
        assert drawn.dtype == torch.uint8


def test_loss_of_an_image_is_cross_entropy_against_the_frame_in_its_size() -> None:
    decoder = ImageCnn(FEATURES, 8, 1)
    torch.nn.init.zeros_(decoder.out.weight)
    torch.nn.init.constant_(cast(Tensor, decoder.out.bias), 1.0)
    frames = torch.zeros(2, 16, 16, dtype=torch.uint8)
    frames[1, :, ::2] = 255  # every other column: halves when it is brought to half the size
    log_odds = math.log(1 + math.exp(1))
    assert decoder.loss(memory(2), frames).tolist() == pytest.approx([log_odds, log_odds - 0.5])


def test_measures_of_images() -> None:
    wanted = torch.zeros(1, 16, 16, dtype=torch.uint8)
    wanted[0, :8] = 255
    found = ImageCnn(FEATURES, 8, 1).measures(torch.full((1, 8, 8), 51, dtype=torch.uint8), wanted)  # 0.2 everywhere
    assert found["mse"].tolist() == pytest.approx([(0.8**2 + 0.2**2) / 2])
    assert found["mae"].tolist() == pytest.approx([0.5])


def test_frames_with_other_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="frames of 1 channels, found 3; set the decoder's channels"):
        ImageCnn(FEATURES, 8, 1).loss(memory(1), torch.zeros(1, 8, 8, 3, dtype=torch.uint8))


# --- together ----------------------------------------------------------------------------------------------------------------------------


def test_what_is_written_does_not_look_at_the_stream_itself() -> None:
    made = model()
    one, other = sample(0, *STREAMS), sample(1, *STREAMS, text="two")
    for stream in part(made).written:
        first, second = (part(made).generate(stream, encoded(made, batch(each))) for each in (one, {**one, stream: other[stream]}))
        assert torch.equal(first, second)


def test_losses_are_those_of_rows_that_have_the_stream_beside_another() -> None:
    found = losses(model(), sample(0, *STREAMS), sample(1, "image", "audio"), sample(2, "text"), sample(3, "text", "image"), {})
    assert [value > 0 for value in found["generated text"].tolist()] == [True, False, False, True, False]
    assert [value > 0 for value in found["generated image"].tolist()] == [True, True, False, True, False]
    assert [value > 0 for value in found["retrieval"].tolist()] == [True, True, False, True, False]


@torch.no_grad()
def test_in_any_batch_the_same_is_written_at_the_same_loss() -> None:
    made = model()
    samples = [sample(0, *STREAMS, text="three"), sample(1, "image", "text", text=""), sample(2, "audio", "text", text="三")]
    together = losses(made, *samples)
    for i, each in enumerate(samples):
        alone = losses(made, each)
        for name in ("generated text", "generated image"):
            assert float(alone[name][0]) == pytest.approx(float(together[name][i]), abs=1e-5)
        for stream in part(made).written:
            whole = part(made).generate(stream, encoded(made, batch(*samples)))
            assert torch.equal(part(made).generate(stream, encoded(made, batch(each)))[0], whole[i])


def test_gradients_reach_every_encoder_and_every_parameter_between_modalities() -> None:
    made = model().train()
    found = losses(made, sample(0, *STREAMS), sample(1, *STREAMS))
    torch.stack(list(found.values())).sum().backward()  # type: ignore[no-untyped-call]
    for name, parameter in made.named_parameters():
        if name.startswith(("encoders.", "crossmodal.")):
            assert parameter.grad is not None, name
            assert bool(parameter.grad.any()), name


def test_of_several_items_the_last_that_is_there_is_to_be_written() -> None:
    data = torch.arange(6).reshape(2, 3, 1)
    mask = torch.tensor([[True, True, False], [False, False, False]])
    assert newest(Modality(data, torch.zeros(2, 3), mask)).tolist() == [[1], [3]]


def test_answers_to_tasks_are_the_same_with_and_without() -> None:
    made, inputs = model(), batch(sample(0, *STREAMS))
    torch.manual_seed(0)
    plain = build(architecture(crossmodal=None)).eval()
    plain.load_state_dict({name: tensor for name, tensor in made.state_dict().items() if not name.startswith("crossmodal.")})
    assert torch.equal(made(inputs)["digit"], plain(inputs)["digit"])


def config() -> BundleConfig:
    return BundleConfig(name="small", format=2, inputs=INPUTS, architecture=architecture(), window=WindowShape(size_ms=1000, hop_ms=1000))


def test_bundle_writes_what_its_model_wrote(tmp_path: Path) -> None:
    made, inputs = model(), batch(sample(0, *STREAMS), sample(1, "audio"))
    save_bundle(tmp_path, config(), made)
    again = load_bundle(tmp_path).model
    for stream in part(made).written:
        assert torch.equal(part(made).generate(stream, encoded(made, inputs)), part(again).generate(stream, encoded(again, inputs)))


def test_bundle_whose_texts_have_more_ids_than_their_decoder_is_refused(tmp_path: Path) -> None:
    few = architecture()
    few["crossmodal"] = {"decoders": {"text": {"type": "text_transformer", "vocabulary": 200}}}
    save_bundle(tmp_path, config().model_copy(update={"architecture": few}), build(few))
    with pytest.raises(BundleError, match="text has 259 token ids, its decoder 200; set the decoder's vocabulary to 259"):
        load_bundle(tmp_path)


def test_bundle_without_the_tensors_of_a_decoder_is_refused(tmp_path: Path) -> None:
    without = build(architecture(crossmodal={"retrieval": {"size": 8}}))
    save_bundle(tmp_path, config(), without)
    with pytest.raises(BundleError, match=r"tensor crossmodal\.\S+ .* is missing"):
        load_bundle(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "a retrieval or decoders of some of them"),
        ({"decoders": {"smell": {"type": "image_cnn"}}}, "decoders of .'smell'."),
        (
            {"decoders": {"image": {"type": "image_gan"}}},
            "expected a decoder that is known here .image_cnn, text_transformer., found 'image_gan'",
        ),
        (
            {"decoders": {"image": {"type": "image_cnn", "size": 60}}},
            "expected a size of 8, 16, 32, 64 ... and channels of 1 or 3, found 60",
        ),
        ({"decoders": {"text": {"type": "text_transformer", "width": 10}}}, "a width that 4 heads divide, found 10"),
        ({"retrieval": {"temperature": 0}}, "a temperature from 0.01 up"),
        ({"search": {}}, "search"),
    ],
)
def test_architecture_that_can_not_be_is_refused_with_a_sentence(options: Mapping[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UnknownPart, match=message):
        build(architecture(crossmodal=options))
    save_bundle(tmp_path, config(), model())
    described = json.loads((tmp_path / "config.json").read_text())
    described["architecture"]["crossmodal"] = options
    (tmp_path / "config.json").write_text(json.dumps(described))
    with pytest.raises(BundleError, match=message):
        load_bundle(tmp_path)
