"""Draws small images: a convolutional decoder."""

from __future__ import annotations

import itertools

import torch.nn.functional as F
from torch import Tensor, nn

from streamfuse.models.batch import Modality, mean_token
from streamfuse.models.crossmodal import DECODERS

SMALLEST = 4


@DECODERS.register("image_cnn")
class ImageCnn(nn.Module):
    """From the mean of the memory's tokens to an image of `size` x `size`, doubled from 4 x 4 on by convolutions whose channels become
    pixels (Shi et al., "Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel CNN", CVPR 2016).

    It is made to give each pixel's mean, by cross entropy against the frame brought to that size (as the decoders of Kingma and Welling,
    ICLR 2014): what the memory leaves open is blurred, not drawn at random. It gives `(batch, size, size, channels)` uint8, without the
    last for `channels` of 1.
    """

    def __init__(self, features: int, size: int = 64, channels: int = 3, width: int = 16) -> None:
        super().__init__()
        doublings = (size // SMALLEST).bit_length() - 1
        if size <= SMALLEST or size != SMALLEST << doublings or channels not in (1, 3):
            raise ValueError(f"expected a size of 8, 16, 32, 64 ... and channels of 1 or 3, found {size} and {channels}")
        self.size, self.channels = size, channels
        widths = [min(width << i, 4 * width) for i in reversed(range(doublings))]  # from small and deep to large and flat
        self.begin = nn.Sequential(nn.LayerNorm(features), nn.Linear(features, widths[0] * SMALLEST**2), nn.GELU())
        self.layers = nn.Sequential(*(_Doubling(a, b) for a, b in itertools.pairwise(widths)))
        self.out = nn.Conv2d(widths[-1], 4 * channels, 3, padding=1)

    def loss(self, memory: Modality, wanted: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(self(memory), self._pixels(wanted), reduction="none").mean((1, 2, 3))

    def generate(self, memory: Modality) -> Tensor:
        drawn: Tensor = (self(memory).sigmoid() * 255).round().byte().permute(0, 2, 3, 1)
        return drawn[..., 0] if self.channels == 1 else drawn

    def measures(self, generated: Tensor, wanted: Tensor) -> dict[str, Tensor]:
        """Mean squared and mean absolute error of pixels from 0 to 1, against the frame brought to the same size."""
        off = (self._pixels(generated) - self._pixels(wanted)).double()
        return {"mse": off.square().mean((1, 2, 3)), "mae": off.abs().mean((1, 2, 3))}

    def forward(self, memory: Modality) -> Tensor:
        """Log odds, `(batch, channels, size, size)`."""
        small = self.begin(mean_token(memory)).unflatten(1, (-1, SMALLEST, SMALLEST))
        return F.pixel_shuffle(self.out(self.layers(small)), 2)

    def _pixels(self, frames: Tensor) -> Tensor:
        """As stored to `(batch, channels, size, size)` from 0 to 1."""
        planes = (frames if frames.ndim == 4 else frames[..., None]).permute(0, 3, 1, 2)
        if planes.shape[1] != self.channels:
            raise ValueError(f"expected frames of {self.channels} channels, found {planes.shape[1]}; set the decoder's channels to that")
        return F.adaptive_avg_pool2d(planes.float() / 255, self.size)


class _Doubling(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(inputs, 4 * outputs, 3, padding=1), nn.GroupNorm(1, outputs)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = F.gelu(self.norm(F.pixel_shuffle(self.conv(x), 2)))
        return out
