"""Sound to tokens, without looking ahead: what was encoded once holds for every window that it stands in."""

from __future__ import annotations

from torch import nn

from streamfuse.models.batch import Modality
from streamfuse.models.encoders.causal import CausalStack, MelFrames, State, joined, whole
from streamfuse.models.parts import ENCODERS, Scope


@ENCODERS.register("causal_mel")
class CausalMel(nn.Module):
    """Blocks of sound to a token for every `stride` of them (100 ms for blocks of 20 ms): a causal depthwise net over log-mel frames.

    Half of its layers work on blocks, half on tokens. Fed in chunks it says what it says fed at once, to rounding (the explicit caches
    of continual inference; Hedegaard and Iosifidis, ECCV 2022). With three layers each it looks back 0.76 s.
    """

    scope: Scope = "causal"

    def __init__(
        self,
        features: int,
        rate: int = 16_000,
        block: int = 320,
        bands: int = 64,
        width: int = 96,
        stride: int = 5,
        layers: int = 3,
        kernel: int = 3,
    ) -> None:
        super().__init__()
        self.stride = stride
        self.mel = MelFrames(rate, block, bands)
        self.embed = nn.Linear(self.mel.outputs, width)
        self.blocks = CausalStack(width, kernel, (1,) * layers)
        self.join = nn.Linear(stride * width, width)
        self.tokens = CausalStack(width, kernel, (1,) * layers)
        self.project = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, features), nn.LayerNorm(features))
        self.context = self.mel.context + self.blocks.context + stride * self.tokens.context

    def forward(self, sound: Modality) -> Modality:
        return self.step(sound, self.begin(sound.mask.shape[0]))[0]

    def begin(self, batch: int) -> State:
        return (self.mel.begin(batch), *self.blocks.begin(batch), *self.tokens.begin(batch))

    def step(self, sound: Modality, state: State) -> tuple[Modality, State]:
        sound = whole(sound, self.stride)
        before, middle = state[0], 1 + len(self.blocks.layers)
        frames, samples = self.mel(sound.data, sound.mask, before)
        x, by_block = self.blocks(self.embed(frames), sound.mask, state[1:middle])
        time, mask = joined(sound, self.stride)
        x = self.join((x * sound.mask[..., None]).unflatten(1, (-1, self.stride)).flatten(2))
        x, by_token = self.tokens(x, mask, state[middle:])
        return Modality(self.project(x) * mask[..., None], time, mask), (samples, *by_block, *by_token)
