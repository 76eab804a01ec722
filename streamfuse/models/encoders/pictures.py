"""An encoder of small pictures that come as rows of numbers."""

from __future__ import annotations

import math

from torch import Tensor, nn

from streamfuse.models.batch import Modality
from streamfuse.models.parts import ENCODERS, Scope


@ENCODERS.register("picture")
class Picture(nn.Module):
    """Rows of `size` numbers about zero as pictures of one channel, `height` lines each (square where not given), to one token each: two
    strided convolutions, normalised in groups, and a layer on what is left, place by place (after LeNet-5; LeCun et al., Proc. IEEE
    1998). For pictures of some 16 to 64 pixels a side; for frames of a camera there is `cnn`.
    """

    scope: Scope = "item"

    def __init__(self, features: int, size: int, height: int | None = None, channels: int = 16, dropout: float = 0.0) -> None:
        super().__init__()
        height = math.isqrt(size) if height is None else height
        if height < 1 or size % height:
            raise ValueError(f"expected a size of whole lines, found {size} numbers and {height} lines; set height")
        self.shape = (1, height, size // height)
        lines, columns = (-(-side // 4) for side in self.shape[1:])
        self.layers = nn.Sequential(
            nn.Conv2d(1, channels, 5, 2, 2),
            nn.GroupNorm(math.gcd(2, channels), channels),
            nn.GELU(),
            nn.Conv2d(channels, 2 * channels, 3, 2, 1),
            nn.GroupNorm(math.gcd(4, 2 * channels), 2 * channels),
            nn.GELU(),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(2 * channels * lines * columns, features),
            nn.LayerNorm(features),
        )

    def forward(self, pictures: Modality) -> Modality:
        tokens: Tensor = self.layers(pictures.data.float().reshape(-1, *self.shape))
        # The batch by its mask: an exported model has a batch of any size.
        return pictures._replace(data=tokens.reshape(*pictures.mask.shape, -1) * pictures.mask[..., None])
