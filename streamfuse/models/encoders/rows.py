"""Encoders of rows of numbers: features that were computed elsewhere, and sensors."""

from __future__ import annotations

from torch import Tensor, nn

from streamfuse.models.batch import Modality
from streamfuse.models.encoders.causal import CausalStack, State
from streamfuse.models.parts import ENCODERS, Scope


@ENCODERS.register("identity")
class Identity(nn.Module):
    """Rows of `size` numbers as they are, or brought to `features` by one linear layer where they have another size."""

    scope: Scope = "item"

    def __init__(self, features: int, size: int) -> None:
        super().__init__()
        self.project = nn.Identity() if size == features else nn.Linear(size, features)

    def forward(self, rows: Modality) -> Modality:
        return rows._replace(data=self.project(rows.data.float()) * rows.mask[..., None])


@ENCODERS.register("mlp")
class Mlp(nn.Module):
    """Rows of `size` numbers through two layers, each row by itself."""

    scope: Scope = "item"

    def __init__(self, features: int, size: int, hidden: int = 128, dropout: float = 0.0) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(size, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, features), nn.LayerNorm(features)
        )

    def forward(self, rows: Modality) -> Modality:
        return rows._replace(data=self.layers(rows.data.float()) * rows.mask[..., None])


@ENCODERS.register("tcn")
class Tcn(nn.Module):
    """Rows of `size` numbers to one token each, from it and those before: dilated causal convolutions (Bai, Kolter and Koltun, 2018).

    Its reach doubles with each layer: 30 rows with four layers of kernel 3.
    """

    scope: Scope = "causal"
    stride = 1

    def __init__(self, features: int, size: int, width: int = 64, layers: int = 4, kernel: int = 3) -> None:
        super().__init__()
        self.embed = nn.Linear(size, width)
        self.stack = CausalStack(width, kernel, tuple(2**i for i in range(layers)))
        self.project = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, features), nn.LayerNorm(features))
        self.context = self.stack.context

    def forward(self, rows: Modality) -> Modality:
        return self.step(rows, self.begin(rows.mask.shape[0]))[0]

    def begin(self, batch: int) -> State:
        return self.stack.begin(batch)

    def step(self, rows: Modality, state: State) -> tuple[Modality, State]:
        x: Tensor
        x, after = self.stack(self.embed(rows.data.float()), rows.mask, state)
        return rows._replace(data=self.project(x) * rows.mask[..., None]), after
