"""What causal encoders are built of: layers that look back only, and carry what they looked at from step to step."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from streamfuse.models.batch import Modality
from streamfuse.models.encoders.windowed import mel_matrix

State = tuple[Tensor, ...]


class CausalLayer(nn.Module):
    """A residual layer: a depthwise convolution over each position and those before it, then two layers at each position.

    What is masked out is zero to the convolution, exactly like what was before the beginning. Normalised at each position alone.
    """

    def __init__(self, width: int, kernel: int, dilation: int = 1) -> None:
        super().__init__()
        if kernel < 2:
            raise ValueError(f"expected a kernel of at least 2 positions, found {kernel}")
        self.context = (kernel - 1) * dilation
        """How many positions before its own an answer depends on."""
        self.dilation = dilation
        self.norm = nn.LayerNorm(width)
        # Summed up by hand: a few positions cost a convolution of the library several times as much.
        self.weight = nn.Parameter(torch.empty(kernel, width).uniform_(-1, 1) / kernel**0.5)
        self.bias = nn.Parameter(torch.zeros(width))
        self.mix = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def begin(self, batch: int) -> Tensor:
        return self.weight.new_zeros(batch, self.context, self.weight.shape[1])

    def forward(self, x: Tensor, mask: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """`(batch, positions, width)` and what to carry on, `(batch, context, width)`."""
        line = torch.cat([before, self.norm(x) * mask[..., None]], 1)
        count = x.shape[1]
        seen: Tensor = self.bias
        for i, weight in enumerate(self.weight.unbind()):
            seen = seen + line[:, i * self.dilation : i * self.dilation + count] * weight
        return x + self.mix(seen), line[:, count:]


class CausalStack(nn.Module):
    """Causal layers one after another."""

    def __init__(self, width: int, kernel: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.layers = nn.ModuleList([CausalLayer(width, kernel, dilation) for dilation in dilations])
        self.context = sum((kernel - 1) * dilation for dilation in dilations)

    def begin(self, batch: int) -> State:
        return tuple(layer.begin(batch) for layer in self.layers)  # type: ignore[operator]

    def forward(self, x: Tensor, mask: Tensor, state: State) -> tuple[Tensor, State]:
        after = []
        for layer, before in zip(self.layers, state, strict=True):
            x, carried = layer(x, mask, before)
            after.append(carried)
        return x, tuple(after)


class MelFrames(nn.Module):
    """Blocks of samples to log-mel frames every 10 ms, each over 25 ms or a little more that end with it: nothing is looked ahead
    and nothing normalised over the window. Mel scale as in `mel_matrix`."""

    mel: Tensor
    taper: Tensor

    def __init__(self, rate: int, block: int, bands: int) -> None:
        super().__init__()
        self.hop, self.block, self.width = rate // 100, block, 1 << (rate // 40 - 1).bit_length()
        if block % self.hop:
            raise ValueError(f"expected a block of whole 10 ms, so a multiple of {self.hop} samples at {rate} Hz, found {block}")
        self.outputs = bands * (block // self.hop)
        """Numbers of a block."""
        self.context = -(-(self.width - self.hop) // block)
        """How many blocks before its own a block's frames depend on."""
        self.register_buffer("mel", mel_matrix(rate, self.width, bands))
        self.register_buffer("taper", torch.hann_window(self.width))

    def begin(self, batch: int) -> Tensor:
        return self.taper.new_zeros(batch, self.width - self.hop)

    def forward(self, samples: Tensor, mask: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """`(batch, blocks, block)` int16 to `(batch, blocks, outputs)` about zero, and the samples to carry on."""
        if samples.shape[2] != self.block:
            raise ValueError(f"expected blocks of {self.block} samples, found {samples.shape[2]}; set the encoder's rate and block to that")
        wave = (samples.float() / 32768 * mask[..., None]).flatten(1)
        line = torch.cat([before, wave], 1)
        frames = line.unfold(1, self.width, self.hop) * self.taper  # (batch, frames, width)
        power = torch.view_as_real(torch.fft.rfft(frames)).square().sum(-1) / self.taper.square().sum()
        logs = (torch.log(power @ self.mel + 1e-8) + 8) / 4
        return logs.reshape(*samples.shape[:2], self.outputs), line[:, -before.shape[1] :]


def whole(items: Modality, stride: int) -> Modality:
    """Filled up at the end with absent items, so that they come in multiples of `stride`: for the end of a training window."""
    short = -items.mask.shape[1] % stride
    # Joined rather than padded: ONNX Runtime pads no int16.
    return Modality(*(torch.cat([part, part.new_zeros(part.shape[0], short, *part.shape[2:])], 1) for part in items))


def joined(items: Modality, stride: int) -> tuple[Tensor, Tensor]:
    """Time and mask, `(batch, tokens)`, of tokens of `stride` items each: the mean time of the items that are there."""
    shape = items.mask.shape[0], items.mask.shape[1] // stride, stride
    time, mask = items.time.reshape(shape), items.mask.reshape(shape)
    there = mask.to(time.dtype)
    return (time * there).sum(2) / there.sum(2).clamp(min=1), mask.any(2)
