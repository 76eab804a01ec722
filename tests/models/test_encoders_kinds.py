"""What is true of encoders of one kind: of frames, of sound, of texts."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from streamfuse.models.batch import Modality
from streamfuse.models.encoders.causal import CausalLayer, MelFrames
from streamfuse.models.parts import ENCODERS, UnknownPart
from streamfuse.models.pretrained import load_weights


def make(name: str, **options: object) -> nn.Module:
    torch.manual_seed(0)
    return ENCODERS.make({"type": name, **options}, features=8).eval()


def items(data: Tensor) -> Modality:
    return Modality(data, torch.zeros(data.shape[:2]), torch.ones(data.shape[:2], dtype=torch.bool))


def frames(count: int, *shape: int, seed: int = 0) -> Modality:
    return items(torch.randint(0, 256, (1, count, *shape), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8))


def own(encoder: nn.Module) -> dict[str, Tensor]:
    """Its tensors but for those that published weights don't have."""
    return {name: t for name, t in encoder.state_dict().items() if not name.startswith(("pixels.", "project."))}


# --- frames ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "tensors", "numbers"),
    [
        # As published: 11,689,512, 25,557,032 and 5,717,416 parameters, less a last layer for 1000 classes.
        ("resnet18", {"norm": "frozen"}, 122 - 2, 11_689_512 - 513_000),
        ("resnet50", {"norm": "frozen"}, 320 - 2, 25_557_032 - 2_049_000),
        ("vit_tiny", {}, 152 - 2, 5_717_416 - 193_000),
    ],
)
def test_tensors_are_as_many_as_the_published_ones(name: str, options: dict[str, str], tensors: int, numbers: int) -> None:
    with torch.device("meta"):
        encoder = make(name, **options)
    assert len(own(encoder)) == tensors
    assert sum(p.numel() for n, p in encoder.named_parameters() if not n.startswith("project.")) == numbers


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        (
            "resnet18",
            {
                "conv1.weight": (64, 3, 7, 7),
                "bn1.running_var": (64,),
                "layer2.0.downsample.0.weight": (128, 64, 1, 1),
                "layer4.1.bn2.bias": (512,),
            },
        ),
        ("resnet50", {"layer1.0.downsample.1.running_mean": (256,), "layer3.5.conv3.weight": (1024, 256, 1, 1)}),
        (
            "vit_tiny",
            {
                "cls_token": (1, 1, 192),
                "pos_embed": (1, 197, 192),
                "patch_embed.proj.weight": (192, 3, 16, 16),
                "blocks.11.attn.qkv.weight": (576, 192),
                "blocks.0.mlp.fc1.bias": (768,),
                "norm.weight": (192,),
            },
        ),
    ],
)
def test_tensors_are_named_as_the_published_ones(name: str, shapes: dict[str, tuple[int, ...]]) -> None:
    with torch.device("meta"):
        found = own(make(name, **({} if name == "vit_tiny" else {"norm": "frozen"})))
    assert {tensor: tuple(found[tensor].shape) for tensor in shapes} == shapes


def test_published_weights_are_taken_over_but_for_their_last_layer(tmp_path: Path) -> None:
    published = {name: torch.randn(t.shape).to(t.dtype) for name, t in own(make("resnet18", norm="frozen")).items()}
    save_file({**published, "fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}, tmp_path / "resnet18.safetensors")
    report = load_weights(make("resnet18", norm="frozen"), tmp_path / "resnet18.safetensors")
    assert report.matched.keys() == published.keys()
    assert report.unused.keys() == {"fc.weight", "fc.bias"}
    assert {name.split(".")[0] for name in report.missing} == {"pixels", "project"}


def test_small_net_is_small() -> None:
    with torch.device("meta"):
        encoder, pixels = ENCODERS.make({"type": "cnn"}, features=128), torch.zeros(1, 1, 112, 112, 3)
        with FlopCounterMode(display=False) as counter:
            encoder(items(pixels))
    assert sum(p.numel() for p in encoder.parameters()) == pytest.approx(0.9e6, rel=0.05)
    assert counter.get_total_flops() == pytest.approx(0.12e9, rel=0.05)


@pytest.mark.parametrize("name", ["cnn", "resnet18"])
def test_frame_does_not_depend_on_its_batch_in_training_either(name: str) -> None:
    encoder = make(name).train()
    both = frames(2, 32, 32, 3)
    alone = Modality(*(part[:, :1] for part in both))
    torch.testing.assert_close(encoder(both).data[:, :1], encoder(alone).data, atol=1e-5, rtol=1e-5)


def test_frozen_statistics_stay_as_they_were_loaded() -> None:
    encoder = make("resnet18", norm="frozen").train()
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    encoder(frames(2, 32, 32, 3))
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())


def test_batch_statistics_are_learned() -> None:
    encoder = make("cnn", norm="batch").train()
    before = encoder.state_dict()["layers.1.running_mean"].clone()
    encoder(frames(2, 32, 32, 3))
    assert not torch.equal(encoder.state_dict()["layers.1.running_mean"], before)


def test_unknown_norm_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownPart, match="group, batch, frozen, found 'layer'"):
        make("cnn", norm="layer")


def test_frames_of_other_channels_or_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="frames of 3 channels, found 1"):
        make("cnn")(frames(1, 32, 32))
    with pytest.raises(ValueError, match="frames of 32 x 32, found 48 x 32"):
        make("vit_tiny", size=32, depth=1)(frames(1, 48, 32, 3))


# --- sound -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rate", "block", "bands"), [(8_000, 160, 40), (16_000, 320, 64), (44_100, 882, 64), (48_000, 960, 80)])
def test_every_mel_band_hears_something(rate: int, block: int, bands: int) -> None:
    mel = MelFrames(rate, block, bands).mel
    assert bool((mel.sum(0) > 0).all())


@pytest.mark.parametrize("hz", [200, 1000, 5000])
def test_tone_is_loudest_in_the_band_that_it_lies_in(hz: int) -> None:
    part = MelFrames(16_000, 320, 64)
    wave = (torch.sin(2 * math.pi * hz * torch.arange(3200) / 16_000) * 9999).to(torch.int16).reshape(1, 10, 320)
    logs, _ = part(wave, torch.ones(1, 10, dtype=torch.bool), part.begin(1))
    band = int(logs[0, 5, :64].argmax())
    edges = 700 * (10 ** (torch.linspace(2595 * math.log10(1 + 60 / 700), 2595 * math.log10(1 + 8000 / 700), 66) / 2595) - 1)
    assert edges[band] <= hz <= edges[band + 2]


def test_frames_look_at_nothing_after_their_block() -> None:
    part = MelFrames(16_000, 320, 64)
    wave = torch.randint(-99, 99, (1, 10, 320), generator=torch.Generator().manual_seed(0), dtype=torch.int16)
    other = wave.clone()
    other[:, 6] += 100
    mask = torch.ones(1, 10, dtype=torch.bool)
    one, two = (part(w, mask, part.begin(1))[0] for w in (wave, other))
    differ = torch.nonzero((one - two).abs().amax((0, 2)) > 0)[:, 0].tolist()
    assert differ == [6, 7, 8]  # a frame reaches 352 samples back before its own block
    assert part.context == 2


def test_blocks_of_another_rate_are_refused() -> None:
    with pytest.raises(ValueError, match="blocks of 320 samples, found 160"):
        make("causal_mel")(items(torch.zeros(1, 5, 160, dtype=torch.int16)))
    with pytest.raises(UnknownPart, match="multiple of 160 samples at 16000 Hz, found 100"):
        make("causal_mel", block=100)


def test_causal_layer_is_checked_by_hand() -> None:
    layer = CausalLayer(1, kernel=2)
    with torch.no_grad():
        layer.norm.weight.fill_(0)
        layer.norm.bias.fill_(1)  # each position that is there is a 1 to the convolution
        layer.weight.copy_(torch.tensor([[10.0], [1.0]]))
        layer.mix = nn.Sequential(nn.Identity())
    mask = torch.tensor([[True, True, False, True]])
    out, carried = layer(torch.zeros(1, 4, 1), mask, layer.begin(1))
    assert out.flatten().tolist() == [1, 11, 10, 1]
    assert carried.flatten().tolist() == [1]


# --- texts -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["text_lstm", "text_gru", "text_transformer"])
def test_padding_behind_a_text_does_not_matter(name: str) -> None:
    encoder = make(name, vocabulary=50)
    text = torch.tensor([[[5, 6, 7, 0]]])
    longer = torch.tensor([[[5, 6, 7, 0, 0, 0, 0, 0, 0]]])
    torch.testing.assert_close(encoder(items(text)).data, encoder(items(longer)).data, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["text_lstm", "text_gru", "text_transformer"])
def test_order_of_the_words_matters(name: str) -> None:
    encoder = make(name, vocabulary=50)
    one, two = (encoder(items(torch.tensor([[text]]))).data for text in ([5, 6, 7, 8], [8, 7, 6, 5]))
    assert (one - two).abs().max() > 1e-3


def test_text_that_is_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 4 tokens, found 5"):
        make("text_transformer", length=4)(items(torch.ones(1, 1, 5, dtype=torch.long)))
