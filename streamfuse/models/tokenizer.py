"""Byte-pair encoding over UTF-8, learned from the texts at hand: any text of any language goes in and comes out the same.

After Sennrich, Haddow and Birch (ACL 2016), on bytes as GPT-2 does it (Radford et al., 2019), so that no character is unknown. Merges
do not reach over words; a word takes its leading space along, and Chinese, which has none, goes by what lies between punctuation.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache
from heapq import heapify, heappop, heappush
from itertools import pairwise

PADDING, BEGIN, END = 0, 1, 2
BYTES = 3
"""The id of byte 0; those of the other bytes follow."""
FIRST_MERGE = BYTES + 256
VOCABULARY = 2048
"""How many ids there are unless set: enough for short texts of one domain, and Chinese stays near one token a word."""

Pair = tuple[int, int]

_WORD = re.compile(r" ?[^\W\d_]+| ?\d+| ?(?:[^\w\s]|_)+|\s+")
_LONGEST = 64
"""Characters of a word. A longer one is cut, as the cost of merging grows with the square."""


class Tokenizer:
    """Texts to ids and back. `merges[i]` are the two ids that become id `FIRST_MERGE + i`; earlier ones go first.

    Raises `ValueError` where a merge is of ids that are not there before it.
    """

    def __init__(self, merges: Sequence[Pair] = ()) -> None:
        self.merges = tuple(merges)
        self._pieces = [b"", b"", b"", *(bytes([byte]) for byte in range(256))]
        for pair in self.merges:
            if not all(BYTES <= part < len(self._pieces) for part in pair):
                raise ValueError(f"expected a merge of two ids from {BYTES} to {len(self._pieces) - 1}, found {pair}; restore the merges")
            self._pieces.append(self._pieces[pair[0]] + self._pieces[pair[1]])
        self._rank = {pair: FIRST_MERGE + i for i, pair in reversed(list(enumerate(self.merges)))}
        self._of_word = lru_cache(maxsize=16_384)(self._merge)

    @property
    def size(self) -> int:
        """How many ids there are."""
        return len(self._pieces)

    def encode(self, text: str) -> list[int]:
        """Lone surrogates, which are no characters, become `?`."""
        return [piece for word in _words(text) for piece in self._of_word(word)]

    def decode(self, ids: Iterable[int]) -> str:
        """The text; what is cut within a character becomes U+FFFD. Padding, begin and end are nothing."""
        return b"".join(self._pieces[i] for i in ids).decode("utf-8", "replace")

    def written(self) -> str:
        """The merges as one line of text, `107-108 259-100`."""
        return " ".join(f"{a}-{b}" for a, b in self.merges)

    @staticmethod
    def read(merges: str) -> Tokenizer:
        """From what `written` gives. Raises `ValueError`."""
        found = [re.fullmatch(r"(\d{1,9})-(\d{1,9})", pair, re.ASCII) for pair in merges.split()]
        if not all(found):
            raise ValueError(f"expected merges as pairs of ids such as 107-108, found {merges.split()[found.index(None)][:40]!r}")
        return Tokenizer([(int(pair[1]), int(pair[2])) for pair in found if pair])

    def _merge(self, word: str) -> tuple[int, ...]:
        ids = [BYTES + byte for byte in word.encode("utf-8", "replace")]
        while len(ids) > 1:
            best = min(pairwise(ids), key=lambda pair: self._rank.get(pair, len(self._pieces)))
            if best not in self._rank:
                break
            ids = _merged(ids, best, self._rank[best])
        return tuple(ids)


def learn(texts: Iterable[str], size: int = VOCABULARY) -> Tokenizer:
    """A tokenizer of at most `size` ids whose merges are the pairs most frequent in these texts; fewer where no pair comes twice.

    The same texts, in whatever order, give the same tokenizer: of pairs equally frequent the one with the smaller ids goes first.
    Raises `ValueError` for a size below that of the bytes alone.
    """
    if size < FIRST_MERGE:
        raise ValueError(f"expected a vocabulary of at least {FIRST_MERGE}, as each byte is in it, found {size}")
    counts = Counter(word for text in texts for word in _words(text))
    words = [[BYTES + byte for byte in word.encode("utf-8", "replace")] for word in counts]
    often = list(counts.values())
    pairs: Counter[Pair] = Counter()
    where: defaultdict[Pair, set[int]] = defaultdict(set)
    for i, ids in enumerate(words):
        _count(ids, i, often[i], pairs, where)
    merges: list[Pair] = []
    queue = [(-count, pair) for pair, count in pairs.items()]
    heapify(queue)
    while queue and len(merges) < size - FIRST_MERGE:
        count, best = heappop(queue)
        if pairs.get(best, 0) != -count:
            continue  # it has changed since it was queued, and was queued again
        if count > -2:
            break
        merges.append(best)
        changed: set[Pair] = set()
        for i in sorted(where.pop(best)):
            changed.update(_count(words[i], i, -often[i], pairs, where))
            words[i] = _merged(words[i], best, FIRST_MERGE + len(merges) - 1)
            changed.update(_count(words[i], i, often[i], pairs, where))
        for pair in changed & pairs.keys():
            heappush(queue, (-pairs[pair], pair))
    return Tokenizer(merges)


def _count(ids: Sequence[int], word: int, often: int, pairs: Counter[Pair], where: defaultdict[Pair, set[int]]) -> list[Pair]:
    """Adds a word's pairs to the counts, or with a negative `often` takes them off, and gives them."""
    own = list(pairwise(ids))
    for pair in own:
        pairs[pair] += often
        if often > 0:
            where[pair].add(word)
        elif not pairs[pair]:
            del pairs[pair]
    return own


def _merged(ids: Sequence[int], pair: Pair, merged: int) -> list[int]:
    out: list[int] = []
    for i in ids:
        if out and (out[-1], i) == pair:
            out[-1] = merged
        else:
            out.append(i)
    return out


def _words(text: str) -> Iterable[str]:
    for word in _WORD.findall(text):
        for at in range(0, len(word), _LONGEST):
            yield word[at : at + _LONGEST]
