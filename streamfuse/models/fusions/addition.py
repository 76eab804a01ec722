"""Element-wise addition of what the modalities say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from streamfuse.models.batch import Modality
from streamfuse.models.fusions.pooling import mean_of_present, pool
from streamfuse.models.parts import FUSIONS


@FUSIONS.register("addition")
class Addition(nn.Module):
    """The mean over the modalities of each one's mean token, without parameters.

    The simplest fusion of Baltrušaitis, Ahuja and Morency, "Multimodal Machine Learning: A Survey and Taxonomy", TPAMI 2019. An
    absent modality is left out of the mean, so that the answer keeps its scale; with nothing present it is zeros. What depends
    on two modalities together it can't tell.
    """

    missing = "left out of the mean"

    def __init__(self, streams: Sequence[str], features: int) -> None:
        super().__init__()
        self.streams, self.features = tuple(streams), features

    def forward(self, tokens: Mapping[str, Modality]) -> Tensor:
        return mean_of_present(*pool(tokens, self.streams))
