"""Cross-modal transformer: every modality is read anew in the light of each other one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from streamfuse.models.batch import Modality, mean_token
from streamfuse.models.fusions.blocks import WAVES, CrossLayer, Layer, mark, vectors
from streamfuse.models.parts import FUSIONS


@FUSIONS.register("cross_modal")
class CrossModalTransformer(nn.Module):
    """For each ordered pair of modalities, `layers` layers in which the tokens of the one look at those of the other; then, for each
    modality, one layer over what its tokens saw, and their mean. The means side by side, with flags of presence, give the answer.

    Tsai et al., "Multimodal Transformer for Unaligned Multimodal Language Sequences", ACL 2019; what a modality's tokens saw in the
    others is brought back to `features` before its own layer, and the mean is taken for the last token. Whoever looks at an absent
    modality sees a learned token instead; an absent modality's own mean is zeros. The cost grows with the square of the number
    of modalities.
    """

    missing = "a learned token is seen instead; its own mean is zeros, with a flag that says so"

    def __init__(self, streams: Sequence[str], features: int, layers: int = 1, heads: int = 4) -> None:
        super().__init__()
        if layers < 1:
            raise ValueError(f"expected 1 layer or more, found {layers}")
        self.streams, self.features = tuple(streams), features
        self.modality = vectors(self.streams, features)
        self.clock = nn.Linear(WAVES, features)
        others = len(self.streams) - 1
        self.looks = nn.ModuleList(
            [
                nn.ModuleList([nn.ModuleList([CrossLayer(features, heads) for _ in range(layers)]) for _ in range(others)])
                for _ in self.streams
            ]
        )
        self.joins = nn.ModuleList([nn.Linear(max(others, 1) * features, features) for _ in self.streams])
        self.layers = nn.ModuleList([Layer(features, heads) for _ in self.streams])
        self.nothing = vectors(self.streams, features)
        self.answer = nn.Sequential(nn.Linear(len(self.streams) * (features + 1), features), nn.GELU())

    def forward(self, tokens: Mapping[str, Modality]) -> Tensor:
        parts = [tokens[s] for s in self.streams]
        marked = [mark(part, self.modality[s], self.clock) for s, part in zip(self.streams, parts, strict=True)]
        means = []
        for i, part in enumerate(parts):
            others = [j for j in range(len(parts)) if j != i]
            saw = []
            for j, pair in zip(others, cast(nn.ModuleList, self.looks[i]), strict=True):
                x = marked[i]
                for look in cast(nn.ModuleList, pair):
                    x = look(x, marked[j], parts[j].mask)
                saw.append(x)
            x = self.joins[i](torch.cat(saw or [marked[i]], 2))
            # Something is there to be looked at also where this stream is absent; without it attention would be NaN.
            x = torch.cat([self.nothing[self.streams[i]].expand(x.shape[0], 1, -1), x], 1)
            x = self.layers[i](x, F.pad(part.mask, (1, 0), value=True))[:, 1:]
            means.append(mean_token(part._replace(data=x)))
        present = torch.stack([part.present for part in parts], 1)
        out: Tensor = self.answer(torch.cat([*means, present.to(means[0].dtype)], 1))
        return out
