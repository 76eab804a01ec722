"""Encoders of frames: each frame to one token, by itself.

Frames come as they are stored, `(batch, frames, height, width, 3)` uint8 in RGB order or `(batch, frames, height, width)` grey, so
that few bytes go to the device and an exported model needs no preparation; they are scaled and normalised here.

`norm` is `group` unless set: group normalisation (Wu and He, ECCV 2018) treats each frame alone, in training too, so that neither
padding nor the size of the batch nor the number of processes changes what is learned. When served it costs more CPU time than `batch`:
about 5 % in ResNet-18, 10 to 40 % in the small net. `batch` is usual batch normalisation, whose statistics count padding in training;
`frozen` keeps them as they were loaded, as published weights want it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from streamfuse.models.batch import Modality
from streamfuse.models.encoders.blocks import Block
from streamfuse.models.parts import ENCODERS, Scope


@ENCODERS.register("cnn")
class Cnn(nn.Module):
    """A small net of inverted residuals (MobileNetV2; Sandler et al., CVPR 2018): 0.9 million parameters and 0.12 GFLOP for a frame of
    112 x 112, which is the size that it is made for. `width` scales its channels. Takes frames from 32 x 32 up."""

    scope: Scope = "item"

    def __init__(self, features: int, channels: int = 3, width: float = 1.0, norm: str = "group") -> None:
        super().__init__()
        make = norm_layer(norm)
        plan = [(1, 16, 1, 1), (4, 24, 2, 2), (6, 40, 2, 2), (6, 80, 3, 2), (6, 128, 3, 1)]  # expansion, channels, blocks, stride

        def scaled(count: int) -> int:
            return max(8, round(count * width / 8) * 8)

        inner = scaled(16)
        layers: list[nn.Module] = [nn.Conv2d(channels, inner, 3, 2, 1, bias=False), make(inner), nn.ReLU6(inplace=True)]
        for expansion, count, blocks, stride in plan:
            for i in range(blocks):
                layers.append(_InvertedResidual(inner, scaled(count), expansion, stride if i == 0 else 1, make))
                inner = scaled(count)
        last = scaled(512)
        layers += [nn.Conv2d(inner, last, 1, bias=False), make(last), nn.ReLU6(inplace=True)]
        self.pixels = Pixels(channels)
        self.layers = nn.Sequential(*layers)
        self.project = nn.Sequential(nn.Linear(last, features), nn.LayerNorm(features))
        _initialise(self.layers)

    def forward(self, frames: Modality) -> Modality:
        return _tokens(frames, self.project(self.layers(self.pixels(frames.data)).mean((2, 3))))


class ResNet(nn.Module):
    """Deep residual learning (He et al., CVPR 2016). Tensors are named and shaped as torchvision's, without its `fc`."""

    scope: Scope = "item"

    def __init__(self, features: int, block: type[_Basic] | type[_Bottleneck], layers: Sequence[int], channels: int, norm: str) -> None:
        super().__init__()
        make = norm_layer(norm)
        self.pixels = Pixels(channels)
        self.conv1, self.bn1 = nn.Conv2d(channels, 64, 7, 2, 3, bias=False), make(64)
        inner, stages = 64, []
        for number, (count, width) in enumerate(zip(layers, (64, 128, 256, 512), strict=True), 1):
            stage = [block(inner, width, 1 if number == 1 else 2, make)]
            inner = width * block.expansion
            stage += [block(inner, width, 1, make) for _ in range(count - 1)]
            stages.append(nn.Sequential(*stage))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.project = nn.Sequential(nn.Linear(inner, features), nn.LayerNorm(features))
        _initialise(self)

    def forward(self, frames: Modality) -> Modality:
        x = F.relu(self.bn1(self.conv1(self.pixels(frames.data))))
        x = F.max_pool2d(x, 3, 2, 1)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
        return _tokens(frames, self.project(x.mean((2, 3))))


@ENCODERS.register("resnet18")
def resnet18(features: int, channels: int = 3, norm: str = "group") -> ResNet:
    """For published weights set `norm: frozen`."""
    return ResNet(features, _Basic, (2, 2, 2, 2), channels, norm)


@ENCODERS.register("resnet50")
def resnet50(features: int, channels: int = 3, norm: str = "group") -> ResNet:
    """For published weights set `norm: frozen`. Strides stand in the 3 x 3 convolutions, as in torchvision's."""
    return ResNet(features, _Bottleneck, (3, 4, 6, 3), channels, norm)


@ENCODERS.register("vit_tiny")
class VitTiny(nn.Module):
    """A vision transformer (Dosovitskiy et al., ICLR 2021; its smallest form: DeiT, Touvron et al., ICML 2021) over patches of
    16 x 16 of frames of `size` x `size`. Tensors are named and shaped as timm's vit_tiny_patch16, without its `head`; its weights are
    for a size of 224."""

    scope: Scope = "item"

    def __init__(self, features: int, size: int = 224, channels: int = 3, width: int = 192, depth: int = 12, heads: int = 3) -> None:
        super().__init__()
        if size % 16 or size <= 0:
            raise ValueError(f"expected a size of frames that is a multiple of 16, found {size}")
        self.size = size
        self.pixels = Pixels(channels, plain=True)
        self.cls_token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.pos_embed = nn.Parameter(torch.randn(1, (size // 16) ** 2 + 1, width) * 0.02)
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(channels, width, 16, 16)})
        self.blocks = nn.ModuleList([Block(width, heads) for _ in range(depth)])
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.project = nn.Sequential(nn.Linear(width, features), nn.LayerNorm(features))

    def forward(self, frames: Modality) -> Modality:
        x = self.pixels(frames.data)
        if x.shape[2] != self.size or x.shape[3] != self.size:
            raise ValueError(f"expected frames of {self.size} x {self.size}, found {x.shape[2]} x {x.shape[3]}; set the same size for both")
        x = self.patch_embed["proj"](x).flatten(2).transpose(1, 2)  # (batch * frames, patches, width)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], 1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return _tokens(frames, self.project(self.norm(x)[:, 0]))


class Pixels(nn.Module):
    """Frames of uint8 to `(batch * frames, channels, height, width)` around zero, by the mean and deviation of ImageNet, or with
    `plain` by 0.5 and 0.5, as the published vision transformers have it."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, channels: int, plain: bool = False) -> None:
        super().__init__()
        if channels not in (1, 3):
            raise ValueError(f"expected frames of 1 channel (grey) or 3 (colour), found {channels}")
        self.channels = channels
        mean, deviation = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]) if channels == 3 else ([0.449], [0.226])
        self.register_buffer("mean", torch.tensor([0.5] * channels if plain else mean)[:, None, None])
        self.register_buffer("deviation", torch.tensor([0.5] * channels if plain else deviation)[:, None, None])

    def forward(self, frames: Tensor) -> Tensor:
        x = frames if frames.ndim == 5 else frames[..., None]
        if x.shape[-1] != self.channels:
            raise ValueError(f"expected frames of {self.channels} channels, found {x.shape[-1]}; set the encoder's channels to that")
        x = x.flatten(0, 1).permute(0, 3, 1, 2).float() / 255
        return (x - self.mean) / self.deviation


class FrozenBatchNorm(nn.BatchNorm2d):
    """Batch normalisation by the statistics that were loaded, in training too."""

    def forward(self, input: Tensor) -> Tensor:
        return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


def norm_layer(norm: str) -> Callable[[int], nn.Module]:
    """What makes a normalisation for so many channels. Raises `ValueError`."""
    kinds: dict[str, Callable[[int], nn.Module]] = {
        "group": lambda channels: nn.GroupNorm(math.gcd(channels, max(channels // 8, 1)), channels),
        "batch": nn.BatchNorm2d,
        "frozen": FrozenBatchNorm,
    }
    if norm not in kinds:
        raise ValueError(f"expected a norm of {', '.join(kinds)}, found {norm!r}")
    return kinds[norm]


class _InvertedResidual(nn.Module):
    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int, make: Callable[[int], nn.Module]) -> None:
        super().__init__()
        inner = inputs * expansion
        layers: list[nn.Module] = []
        if expansion > 1:
            layers += [nn.Conv2d(inputs, inner, 1, bias=False), make(inner), nn.ReLU6(inplace=True)]
        layers += [nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False), make(inner), nn.ReLU6(inplace=True)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(inner, outputs, 1, bias=False), make(outputs))
        self.is_residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return x + out if self.is_residual else out


class _Basic(nn.Module):
    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int, make: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False), make(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), make(width)
        self.downsample = _shortcut(inputs, width, stride, make)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.downsample(x))


class _Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int, make: Callable[[int], nn.Module]) -> None:
        super().__init__()
        outputs = width * self.expansion
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), make(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), make(width)
        self.conv3, self.bn3 = nn.Conv2d(width, outputs, 1, bias=False), make(outputs)
        self.downsample = _shortcut(inputs, outputs, stride, make)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        return F.relu(self.bn3(self.conv3(out)) + self.downsample(x))


def _shortcut(inputs: int, outputs: int, stride: int, make: Callable[[int], nn.Module]) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), make(outputs))


def _initialise(layers: nn.Module) -> None:
    for module in layers.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _tokens(frames: Modality, tokens: Tensor) -> Modality:
    return frames._replace(data=tokens.reshape(*frames.mask.shape, tokens.shape[1]) * frames.mask[..., None])
