"""From one modality to another: a space in which the modalities of a row lie close together, and decoders that write one
modality from the others. An optional part of a fusion model, trained beside its tasks.

A decoder is an `nn.Module` registered with `DECODERS`, made with `features` and its own options. It reads memory, the tokens of the
other streams, `(batch, tokens, features)`, of which any may be masked out, and all of them. A new one is a new file in this folder.

- `loss(memory, wanted)` gives `(batch,)`; `wanted` is one item a row as the stream's preprocessing lays it out, `(batch, ...)`.
- `generate(memory)` gives `(batch, ...)`, one item a row, in the same form, though it may be of another size.
- `measures(generated, wanted)` gives how good that is, by name, `(batch,)` each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from streamfuse.models.batch import Modality
from streamfuse.models.crossmodal.retrieval import Retrieval
from streamfuse.models.fusions.blocks import WAVES, mark, vectors
from streamfuse.models.parts import Registry

DECODERS: Registry[nn.Module] = Registry("decoder", "streamfuse.decoders", "streamfuse.models.crossmodal")


class CrossModal(nn.Module):
    """`retrieval` are the options of the common space, `decoders` maps a stream that can be written to its decoder: `type` and options.

    Raises `ValueError` where there is nothing to go between or to learn, and `UnknownPart`.
    """

    def __init__(
        self,
        streams: Sequence[str],
        features: int,
        retrieval: Mapping[str, Any] | None = None,
        decoders: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__()
        written = decoders or {}
        if len(streams) < 2 or (retrieval is None and not written) or not set(written) <= set(streams):
            raise ValueError(
                f"expected two streams or more, and a retrieval or decoders of some of them, found streams {list(streams)}, "
                f"retrieval {retrieval} and decoders of {list(written)}"
            )
        self.streams, self.written = tuple(streams), tuple(written)
        self.learned = (*(() if retrieval is None else ("retrieval",)), *(f"generated {stream}" for stream in written))
        """Names of the losses."""
        self.retrieval = None if retrieval is None else Retrieval(streams, features, **retrieval)
        self.vectors, self.clock = vectors(streams if written else (), features), nn.Linear(WAVES, features) if written else None
        self.decoders = nn.ModuleDict({stream: DECODERS.make(options, features=features) for stream, options in written.items()})

    def losses(self, inputs: Mapping[str, Modality], tokens: Mapping[str, Modality]) -> dict[str, Tensor]:
        """`retrieval`, and `generated text` for a decoder of `text`, each `(batch,)`: 0 for rows that lack the stream or all others.

        `inputs` and `tokens` hold all streams. Of a stream with several items, the last one that is there is to be written.
        """
        found = {} if self.retrieval is None else {"retrieval": self.retrieval.loss(tokens)}
        for stream in self.written:
            memory = self.memory(stream, tokens)
            there = inputs[stream].present & memory.present
            loss: Tensor = self.decoders[stream].loss(memory, newest(inputs[stream]))  # type: ignore[operator]
            found[f"generated {stream}"] = loss * there
        return found

    @torch.no_grad()
    def generate(self, stream: str, tokens: Mapping[str, Modality]) -> Tensor:
        """One item of the stream for each row, `(batch, ...)`, from what the others say; what itself says is not looked at."""
        out: Tensor = self.decoders[stream].generate(self.memory(stream, tokens))  # type: ignore[operator]
        return out

    def memory(self, stream: str, tokens: Mapping[str, Modality]) -> Modality:
        """The tokens of all other streams, side by side, each with its stream and time told."""
        others = [other for other in self.streams if other != stream]
        clock = cast(nn.Linear, self.clock)
        return Modality(
            torch.cat([mark(tokens[other], self.vectors[other], clock) for other in others], 1),
            torch.cat([tokens[other].time for other in others], 1),
            torch.cat([tokens[other].mask for other in others], 1),
        )


def newest(items: Modality) -> Tensor:
    """Each row's last item that is there, `(batch, ...)`; its first where none is."""
    places = torch.arange(items.mask.shape[1], device=items.mask.device)
    last = (items.mask * places).argmax(1)
    return items.data[torch.arange(len(last), device=last.device), last]
