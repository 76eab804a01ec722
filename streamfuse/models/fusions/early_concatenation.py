"""Early concatenation: all modalities on one time grid, side by side, and one encoder over the grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from streamfuse.models.batch import Modality
from streamfuse.models.parts import FUSIONS


@FUSIONS.register("early_concatenation")
class EarlyConcatenation(nn.Module):
    """The `span` seconds before the window's end in `cells` cells: in each, every modality's mean token and a flag that says whether it
    had one, side by side, through a recurrent (`gru`) or a convolutional (`conv`) encoder.

    The early fusion of Baltrušaitis, Ahuja and Morency, "Multimodal Machine Learning: A Survey and Taxonomy", TPAMI 2019, and the EF-LSTM
    of Tsai et al., ACL 2019, with a GRU (Cho et al., EMNLP 2014). Older tokens count to the first cell. An absent modality is
    zeros in all cells, with flags that say so.
    """

    missing = "zeros in every cell, and flags that say so"

    def __init__(
        self, streams: Sequence[str], features: int, span: float = 2.0, cells: int = 16, encoder: Literal["gru", "conv"] = "gru"
    ) -> None:
        super().__init__()
        if span <= 0 or cells < 1:
            raise ValueError(f"expected a span above 0 s and 1 cell or more, found {span} s and {cells} cells")
        if encoder not in ("gru", "conv"):
            raise ValueError(f"expected the encoder gru or conv, found {encoder!r}")
        self.streams, self.features = tuple(streams), features
        self.span, self.cells = span, cells
        inputs = len(self.streams) * (features + 1)
        self.encoder = _Recurrent(inputs, features) if encoder == "gru" else _Convolutions(inputs, features)

    def forward(self, tokens: Mapping[str, Modality]) -> Tensor:
        out: Tensor = self.encoder(torch.cat([self._on_grid(tokens[s]) for s in self.streams], 2))
        return out

    def _on_grid(self, part: Modality) -> Tensor:
        """`(batch, cells, features + 1)`: the mean of the tokens in each cell, and whether there are any."""
        cell = ((part.time + self.span) * (self.cells / self.span)).floor().clamp(0, self.cells - 1)
        inside = cell[:, None] == torch.arange(self.cells, device=cell.device)[:, None]  # (batch, cells, tokens)
        weight = (inside & part.mask[:, None]).to(part.data.dtype)
        count = weight.sum(2, keepdim=True)
        return torch.cat([weight @ part.data / count.clamp(min=1), count.clamp(max=1)], 2)


class _Recurrent(nn.Module):
    """What a recurrent cell holds after the last of the cells. It is stepped here: torch's own loop does not export cleanly."""

    def __init__(self, inputs: int, features: int) -> None:
        super().__init__()
        self.cell = nn.GRUCell(inputs, features)

    def forward(self, grid: Tensor) -> Tensor:
        held = grid.new_zeros(grid.shape[0], self.cell.hidden_size)
        for seen in grid.unbind(1):
            held = self.cell(seen, held)
        return held


class _Convolutions(nn.Module):
    """Two convolutions over neighbouring cells, and the mean over all."""

    def __init__(self, inputs: int, features: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv1d(size, features, 3, padding=1) for size in (inputs, features))

    def forward(self, grid: Tensor) -> Tensor:
        return F.gelu(self.second(F.gelu(self.first(grid.transpose(1, 2))))).mean(2)
