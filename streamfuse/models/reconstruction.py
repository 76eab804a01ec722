"""Cross-modal reconstruction: what a missing modality would have said, from what the others say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from streamfuse.models.batch import Modality, mean_token


class Reconstruction(nn.Module):
    """For each stream, two layers that predict its mean token from the mean tokens of the others, zeros where they are absent,
    and which of them are present.

    Raises `ValueError` for fewer than two streams. The idea of imagining the absent embedding is that of Ma et al., "SMIL: Multimodal
    Learning with Severely Missing Modality", AAAI 2021; here it is a plain regression.
    """

    def __init__(self, streams: Sequence[str], features: int, hidden: int = 128) -> None:
        super().__init__()
        if len(streams) < 2 or hidden < 1:
            raise ValueError(f"expected two streams or more and 1 hidden or more, found {list(streams)} and {hidden}")
        self.streams = tuple(streams)
        others = (len(self.streams) - 1) * (features + 1)
        self.predictors = nn.ModuleList(
            [nn.Sequential(nn.Linear(others, hidden), nn.GELU(), nn.Linear(hidden, features)) for _ in self.streams]
        )

    def forward(self, tokens: Mapping[str, Modality]) -> dict[str, Tensor]:
        """Each stream's mean token as the others tell it, `(batch, features)`; without meaning where no other is present."""
        said = [torch.cat([mean_token(tokens[s]), tokens[s].present[:, None].to(tokens[s].data.dtype)], 1) for s in self.streams]
        return {
            stream: predict(torch.cat([part for j, part in enumerate(said) if j != i], 1))
            for i, (stream, predict) in enumerate(zip(self.streams, self.predictors, strict=True))
        }

    def fill(self, tokens: Mapping[str, Modality]) -> dict[str, Modality]:
        """All streams' tokens, each with one more: the predicted one, there where the stream is absent and some other is present.

        Its time is the mean of those of all tokens that are there.
        """
        anything = torch.stack([tokens[s].present for s in self.streams], 1).any(1)
        mask = torch.cat([tokens[s].mask for s in self.streams], 1)
        time = torch.cat([tokens[s].time for s in self.streams], 1) * mask
        when = (time.sum(1) / mask.sum(1).clamp(min=1))[:, None]
        return {
            stream: Modality(
                torch.cat([tokens[stream].data, predicted.to(tokens[stream].data.dtype)[:, None]], 1),
                torch.cat([tokens[stream].time, when], 1),
                torch.cat([tokens[stream].mask, (anything & ~tokens[stream].present)[:, None]], 1),
            )
            for stream, predicted in self(tokens).items()
        }

    def loss(self, tokens: Mapping[str, Modality]) -> Tensor:
        """`(batch,)`: the mean squared error of the predicted tokens, the mean over the streams that are present beside another; 0
        where there is none. The real tokens are taken as they are: no gradient makes them easier to predict."""
        present = torch.stack([tokens[s].present for s in self.streams], 1)
        told = present & (present.sum(1, keepdim=True) > 1)  # (batch, streams)
        predicted = self(tokens)
        errors = [(predicted[s] - mean_token(tokens[s]).detach()).square().mean(1) for s in self.streams]
        return (torch.stack(errors, 1) * told).sum(1) / told.sum(1).clamp(min=1)
