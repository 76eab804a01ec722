"""Encoders of who-is-talking: they compare the items of a window with each other, so that a token depends on all of them.

What is masked out never changes what is not: padding is set to zero before each operation that looks at neighbours, and
normalisation works on each position alone.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from streamfuse.models.batch import Modality
from streamfuse.models.parts import ENCODERS, Scope


@ENCODERS.register("face_motion")
class FaceMotion(nn.Module):
    """Steadied face crops to one token a frame, from where and how much the face moves, not from what it looks like.

    A mouth that moves is told by its motion against that of the eyes and cheeks, which holds for faces that were never
    seen. Motion is the mean absolute difference to the frame before over the mean slope of the picture there, so about
    the pixels that an edge moved (normal flow; Horn and Schunck, AI 1981): otherwise noise and tremble would be greatest
    where the contrast is, at painted lips. It is taken in `grid x grid` cells, per frame, and as the mean and greatest over the
    window; likewise how far each cell's brightness departs from its mean (a mouth that opens darkens).
    """

    scope: Scope = "window"
    blur: Tensor

    def __init__(self, features: int, size: int = 48, grid: int = 6, longest_gap: float = 0.6) -> None:
        super().__init__()
        self.cell, self.longest_gap = size // (2 * grid), longest_gap
        cells = grid * grid
        line = torch.tensor([0.25, 0.5, 0.25])
        self.register_buffer("blur", (line[:, None] * line)[None, None])
        self.project = nn.Linear(5 * cells + 2, features)
        self.mix = TimeMix(features)
        self.norm = nn.LayerNorm(features)

    def forward(self, faces: Modality) -> Modality:
        pixels, time, mask = faces
        seen = mask & (pixels.amax((2, 3)) > 0)  # (batch, frames)
        weight = seen.float()[:, :, None]
        x = self._smooth(pixels.float() / 255)  # (batch, frames, size / 2, size / 2)
        # Each frame's light is taken off, and the face's contrast divided out.
        x = x - x.mean((2, 3), keepdim=True)
        spread = _mean_over(x.square().mean((2, 3))[..., None], weight).sqrt()  # (batch, 1, 1)
        x = x / (spread[..., None] + 0.02)
        slope = _cells(_slope(_mean_over(x.flatten(2), weight).reshape(x.shape[0], 1, *x.shape[2:])), self.cell) + 0.1

        follows = seen[:, 1:] & seen[:, :-1] & ((time[:, 1:] - time[:, :-1]) < self.longest_gap)
        moved = _cells((x[:, 1:] - x[:, :-1]).abs(), self.cell) / slope * follows[..., None]
        moved = F.pad(moved, (0, 0, 1, 0))  # (batch, frames, cells)
        paired = F.pad(follows, (1, 0)).float()[..., None]
        any_pair = paired.amax(1, keepdim=True)  # (batch, 1, 1)
        level = _cells(x, self.cell)
        departure = (level - _mean_over(level, weight)) / slope * weight
        swing = _mean_over(departure.square(), weight).sqrt()
        over_window = [_log(_mean_over(moved, paired)), _log(moved.amax(1, keepdim=True)), _log(swing)]
        features = torch.cat(
            [_log(moved) * paired, departure, *((part * any_pair).expand_as(moved) for part in over_window), weight, paired],
            -1,
        )
        return Modality(self.norm(self.mix(self.project(features), mask)), time, mask)

    def _smooth(self, x: Tensor) -> Tensor:
        # A camera's noise is as fine as its pixels, a mouth is not.
        x = F.avg_pool2d(x, 2)
        batch, frames, height, width = x.shape
        x = F.pad(x.reshape(batch * frames, 1, height, width), (1, 1, 1, 1), mode="replicate")
        return F.conv2d(x, self.blur).reshape(batch, frames, height, width)


@ENCODERS.register("log_mel")
class LogMel(nn.Module):
    """Sound to tokens of `8 * block` (160 ms for blocks of 20 ms) by a small convolutional net over a log-mel
    spectrogram.

    The loudness goes in twice, once as it is (silence is a matter of level) and once with the window's mean taken off
    (a voice is not). Mel scale as in Stevens, Volkmann and Newman 1937 in O'Shaughnessy's form, triangles of equal
    height.
    """

    scope: Scope = "window"
    mel: Tensor
    taper: Tensor

    def __init__(self, features: int, rate: int = 16_000, block: int = 320, bands: int = 40, channels: int = 24) -> None:
        super().__init__()
        self.block, self.width = block, 1 << math.ceil(math.log2(block * 1.5))
        self.register_buffer("mel", mel_matrix(rate, self.width, bands))
        self.register_buffer("taper", torch.hann_window(self.width))
        self.layers = nn.ModuleList([_Conv2d(2, channels), _Conv2d(channels, channels * 2), _Conv2d(channels * 2, channels * 2)])
        self.project = nn.Linear(channels * 2 * (bands // 8), features)
        self.norm = nn.LayerNorm(features)

    def forward(self, sound: Modality) -> Modality:
        samples, time, mask = sound
        x = self.spectrogram(samples, mask)  # (batch, bands, blocks)
        mean = _mean_over(x.mean(1)[..., None], mask.float()[..., None])  # (batch, 1, 1)
        x = torch.stack([(x + 4) / 4, x - mean], 1) * mask[:, None, None]  # (batch, 2, bands, blocks)
        short = (-mask.shape[1]) % 8
        x, mask, time = F.pad(x, (0, short)), F.pad(mask, (0, short)), F.pad(time, (0, short))
        for layer in self.layers:
            there = mask.to(time.dtype)
            time = _pairs(time * there).sum(2) / _pairs(there).sum(2).clamp(min=1)
            mask = _pairs(mask).any(2)
            x = layer(x) * mask[:, None, None]
        tokens = self.project(x.flatten(1, 2).transpose(1, 2))
        return Modality(self.norm(tokens), time, mask)

    def spectrogram(self, samples: Tensor, mask: Tensor) -> Tensor:
        """`(batch, blocks, block)` int16 as the natural log of mel energies, `(batch, bands, blocks)`, one frame a
        block."""
        wave = (samples.float() / 32768 * mask[..., None]).flatten(1)
        wave = F.pad(wave, ((self.width - self.block) // 2, self.width - self.block - (self.width - self.block) // 2))
        frames = wave.unfold(1, self.width, self.block) * self.taper  # (batch, blocks, width)
        power = torch.fft.rfft(frames).abs().square() / self.taper.square().sum()
        return torch.log(power @ self.mel + 1e-8).transpose(1, 2)


class TimeMix(nn.Module):
    """Two residual convolutions over neighbouring items."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv1d(features, features, 3, padding=1) for _ in range(2)])
        self.norms = nn.ModuleList([nn.LayerNorm(features) for _ in range(2)])

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        there = mask[..., None]
        for conv, norm in zip(self.layers, self.norms, strict=True):
            x = x + F.gelu(conv((norm(x) * there).transpose(1, 2)).transpose(1, 2))
        return x * there


class _Conv2d(nn.Module):
    """A convolution over bands and time, then halved in both by averaging. Normalised over the channels of each
    position alone."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm = nn.LayerNorm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        x = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return F.avg_pool2d(F.gelu(x), 2)


def mel_matrix(rate: int, width: int, bands: int, lowest: float = 60.0) -> Tensor:
    """`(width // 2 + 1, bands)`: the weight of each bin of a Fourier transform in each triangular mel band."""

    def mel(hz: float) -> float:
        return 2595 * math.log10(1 + hz / 700)

    edges = torch.linspace(mel(lowest), mel(rate / 2), bands + 2)
    hz = 700 * (10 ** (edges / 2595) - 1)
    bins = torch.linspace(0, rate / 2, width // 2 + 1)[:, None]
    rising = (bins - hz[:-2]) / (hz[1:-1] - hz[:-2])
    falling = (hz[2:] - bins) / (hz[2:] - hz[1:-1])
    return torch.minimum(rising, falling).clamp(min=0)


def _pairs(x: Tensor) -> Tensor:
    return x.reshape(x.shape[0], -1, 2)  # (batch, items / 2, 2)


def _cells(x: Tensor, cell: int) -> Tensor:
    # As a batch of frames: there may be none, between the frames of a window that has one.
    cells = F.avg_pool2d(x.flatten(0, 1)[:, None], cell)
    return cells.reshape(*x.shape[:2], cells.shape[2] * cells.shape[3])  # (batch, frames, cells)


def _slope(x: Tensor) -> Tensor:
    """Length of the gradient of `(batch, 1, height, width)`."""
    right = x[..., 1:-1, 2:] - x[..., 1:-1, :-2]
    down = x[..., 2:, 1:-1] - x[..., :-2, 1:-1]
    return F.pad((right.square() + down.square() + 1e-8).sqrt() / 2, (1, 1, 1, 1), mode="replicate")


def _log(x: Tensor) -> Tensor:
    return torch.log(x + 0.01) + 2


def _mean_over(x: Tensor, weight: Tensor) -> Tensor:
    """Mean over items, `(batch, 1, features)`, of those with weight; 0 where there are none."""
    return (x * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp(min=1)
