"""What each stream contributes to an answer: exact Shapley values over all subsets of the streams."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from streamfuse.models.batch import Modality


def shapley(
    fuse: Callable[[Mapping[str, Modality], Tensor], Tensor], tokens: Mapping[str, Modality], streams: Sequence[str]
) -> tuple[Tensor, Tensor]:
    """What `fuse` gives, `(batch, names)`, and exact Shapley values on the greatest of it, `(batch, streams)`.

    `fuse` takes tokens and which streams to show, and gives probabilities or estimates. All `2^streams` subsets are fused in
    one pass (Shapley 1953). The values of a sample add up to its answer less that with nothing present; an absent stream's
    is 0.
    """
    count = len(streams)
    batch = len(tokens[streams[0]].mask)
    subsets = list(itertools.product((False, True), repeat=count))  # in the order of their binary number
    shown = torch.tensor(subsets, device=tokens[streams[0]].mask.device)  # (subsets, streams)
    repeated = {s: Modality(*(part.repeat(len(subsets), *[1] * (part.dim() - 1)) for part in tokens[s])) for s in streams}
    answers = fuse(repeated, shown.repeat_interleave(batch, 0)).reshape(len(subsets), batch, -1)  # (subsets, batch, names)
    whole = answers[-1]
    value = answers.gather(2, whole.argmax(1)[None, :, None].expand(len(subsets), -1, 1))[..., 0]
    shares = torch.zeros(batch, count, device=value.device)
    for i in range(count):
        for number, subset in enumerate(subsets):
            if not subset[i]:
                size = sum(subset)
                weight = math.factorial(size) * math.factorial(count - size - 1) / math.factorial(count)
                shares[:, i] += weight * (value[number + (1 << (count - 1 - i))] - value[number])
    return whole, shares
