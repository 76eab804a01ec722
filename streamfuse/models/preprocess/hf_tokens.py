"""Text as the ids of a tokenizer of the transformers library."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamfuse.models.batch import Items
from streamfuse.models.decode import Decoded
from streamfuse.models.hugging_face import load_tokenizer, read_tokenizer
from streamfuse.models.preprocess import PREPROCESSORS, Remember
from streamfuse.models.preprocess.last_rows import last_rows, no_rows
from streamfuse.types import Packet


@PREPROCESSORS.register("hf_tokens")
class HfTokens:
    """Text as ids plus one, with the tokens that its model wants at both ends: `(texts, length)` int32, cut or filled with zeros; of more
    than `most` texts the last ones count.

    A recipe names the `folder` of a pretrained model; a bundle has the `tokenizer` itself, as tokenizer.json holds it. Needs the extra
    `hf`.
    """

    modality = "text"
    min_width = 0

    def __init__(self, folder: str | None = None, tokenizer: Mapping[str, Any] | None = None, length: int = 64, most: int = 4) -> None:
        if folder is not None:
            self._tokenizer = load_tokenizer(folder)
        elif tokenizer is not None:
            self._tokenizer = read_tokenizer(tokenizer)
        else:
            raise ValueError("expected the folder of a tokenizer, found none; set folder")
        self._empty = no_rows(most, length, np.int32)
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(length)
        self.length = length
        self.vocabulary = self._tokenizer.get_vocab_size() + 1
        self.packed = {"type": "hf_tokens", "tokenizer": json.loads(self._tokenizer.to_str()), "length": length, "most": most}

    def reduce(self, decoded: Decoded) -> NDArray[np.int32]:
        assert isinstance(decoded, str)
        row = np.zeros(self.length, np.int32)
        ids = self._tokenizer.encode(decoded.strip()).ids
        row[: len(ids)] = np.array(ids, np.int32) + 1
        return row

    def prepare(self, start: int, end: int, packets: Sequence[tuple[Packet, Any]], remember: Remember[Any]) -> Items:
        return last_rows(start, end, packets, self._empty)

    def empty(self) -> Items:
        return self._empty
