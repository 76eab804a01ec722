"""Text as the ids of a tokenizer that comes with the bundle."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamfuse.models.batch import Items
from streamfuse.models.decode import Decoded
from streamfuse.models.preprocess import PREPROCESSORS, Remember
from streamfuse.models.preprocess.last_rows import last_rows, no_rows
from streamfuse.models.tokenizer import VOCABULARY, Tokenizer, learn
from streamfuse.types import Packet


@PREPROCESSORS.register("tokens")
class Tokens:
    """Text as token ids: `(texts, length)` int32, cut or filled with zeros; of more than `most` texts the last ones count.

    `merges` are the tokenizer (see `streamfuse.models.tokenizer`); they stand among the stream's options in the bundle's config, so
    that the bundle's digest covers them and no further file is needed. `fitted` learns them; without any, text goes byte by byte.
    `vocabulary` bounds how many ids there are.
    """

    modality = "text"
    min_width = 0

    def __init__(self, merges: str = "", vocabulary: int = VOCABULARY, length: int = 64, most: int = 4) -> None:
        self.tokenizer = Tokenizer.read(merges)
        if self.tokenizer.size > vocabulary:
            raise ValueError(f"expected at most {vocabulary} ids, found merges for {self.tokenizer.size}; set vocabulary to that")
        self.vocabulary = self.tokenizer.size
        self.length = length
        self._empty = no_rows(most, length, np.int32)

    def reduce(self, decoded: Decoded) -> NDArray[np.int32]:
        assert isinstance(decoded, str)
        ids = self.tokenizer.encode(decoded.strip())[: self.length]
        return np.array(ids + [0] * (self.length - len(ids)), np.int32)

    def words(self, row: NDArray[np.integer]) -> str:
        """What such a row says; ids that the tokenizer does not have say nothing."""
        return self.tokenizer.decode(id for id in row.tolist() if id < self.vocabulary)

    def prepare(self, start: int, end: int, packets: Sequence[tuple[Packet, Any]], remember: Remember[Any]) -> Items:
        return last_rows(start, end, packets, self._empty)

    def empty(self) -> Items:
        return self._empty


def fitted(options: Mapping[str, Any], texts: Iterable[str]) -> dict[str, Any]:
    """A recipe's options for `tokens` with merges learned from these texts (the training ones), where they have none, and the
    `vocabulary` that it came to. Raises `ValueError`."""
    if "merges" in options:
        return dict(options)
    learned = learn((text.strip() for text in texts), options.get("vocabulary", VOCABULARY))
    return {**options, "merges": learned.written(), "vocabulary": learned.size}
