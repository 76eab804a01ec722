"""Encodes each item of a stream once, and keeps its token for the windows that share it."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from streamfuse.models.batch import Items, Modality, collate
from streamfuse.models.engine import Engine
from streamfuse.models.fusion_model import State

Key = tuple[int, ...]
"""What a token depends on: the numbers of its items and of those before it."""

OVERHEAD = 1000
"""Bytes, about, that remembering an item costs beside its token."""

NOTHING = 0
"""The number of an item that is not there."""


def keeps(encoder: nn.Module) -> bool:
    """Whether tokens of this encoder can be shared by windows: they depend on a bounded number of items."""
    return encoder.scope == "item" or (encoder.scope == "causal" and getattr(encoder, "context", None) is not None)


class Embeddings:
    """One stream's tokens. Called with what each window has of the stream, it gives the tokens of all, `(batch, tokens, features)`,
    as encoding the windows anew would, and encodes only what it has not kept, for all windows at once.

    A token answers to the items that it depends on *within its window*: near the window's start they are fewer, so that a
    prediction depends on its window alone, whatever was seen before. Of a causal encoder the state behind each stretch is kept too,
    for the stretch that follows; where it is gone, encoding begins `context` items earlier. `most_bytes` bounds what is kept; the
    least recently used go first. Belongs to the device's thread.
    """

    def __init__(self, stream: str, engine: Engine, encoder: nn.Module, features: int, empty: Items, most_bytes: int) -> None:
        self._stream, self._engine, self._empty = stream, engine, empty
        self._is_causal = encoder.scope == "causal"
        self._context = int(getattr(encoder, "context", 0)) if self._is_causal else 0
        self._stride = int(getattr(encoder, "stride", 1)) if self._is_causal else 1
        for_tokens = most_bytes // 2 if self._is_causal else most_bytes
        slots = max(for_tokens // (4 * features + 8 * self._context + OVERHEAD * self._stride), 1)
        # Slot 0 is the token that is not there.
        self._data = torch.zeros(slots + 1, features, device=engine.device)
        self._offset = torch.zeros(slots + 1, device=engine.device)  # seconds from the token's first item to the token's time
        self._mask = torch.zeros(slots + 1, dtype=torch.bool, device=engine.device)
        self._free = list(range(slots, 0, -1))
        self._slots: OrderedDict[Key, int] = OrderedDict()
        self._states = _States(most_bytes - for_tokens)
        self._numbers = _Numbers(slots * self._stride)
        self.kept = 0
        """Tokens that were found."""
        self.computed = 0
        """Tokens that were encoded."""

    def __call__(self, samples: Sequence[Items | None]) -> Modality:
        keys = [[] if items is None else self._keys(items) for items in samples]
        needed = dict.fromkeys(key for row in keys for key in row if key)
        if len(needed) > len(self._data) - 1:  # more than there is room for
            self.computed += len(needed)
            present = [{} if items is None else {self._stream: items} for items in samples]
            return self._engine.encode(self._stream, collate(present, {self._stream: self._empty})[self._stream])[0]
        found = [key for key in needed if key in self._slots]
        for key in found:
            self._slots.move_to_end(key)
        self.kept += len(found)
        self.computed += len(needed) - len(found)
        stretches = list(self._missing(keys))
        for group in _alike(stretches):
            self._encode(group, samples, keys)
        return self._lay_out(samples, keys)

    def _keys(self, items: Items) -> list[Key]:
        """One a token, empty for a token that is not there."""
        told: Sequence[Hashable] = [object() for _ in items.mask] if items.keys is None else items.keys
        numbers = [self._numbers[key] if there else NOTHING for key, there in zip(told, items.mask.tolist(), strict=True)]
        numbers += [NOTHING] * (-len(numbers) % self._stride)
        keys = []
        for at in range(0, len(numbers), self._stride):
            own = numbers[at : at + self._stride]
            keys.append(tuple(numbers[max(at - self._context, 0) : at] + own) if any(own) else ())
        return keys

    def _missing(self, keys: Sequence[Sequence[Key]]) -> Iterator[_Stretch]:
        """What is to be encoded, each token once, as stretches that are as long as can be."""
        planned: set[Key] = set()
        for row, tokens in enumerate(keys):
            is_new = []
            for key in tokens:
                is_new.append(bool(key) and key not in self._slots and key not in planned)
                planned.add(key)
            start = 0
            for new, run in itertools.groupby(is_new):
                stop = start + len(list(run))
                if new and not self._is_causal:
                    yield from (_Stretch(row, at, at, at + 1, None) for at in range(start, stop))
                elif new:
                    state = self._states[tokens[start - 1]] if start and tokens[start - 1] else None
                    first = start if state is not None else max(start - -(-self._context // self._stride), 0)
                    yield _Stretch(row, first, start, stop, state)
                start = stop

    def _encode(self, group: Sequence[_Stretch], samples: Sequence[Items | None], keys: Sequence[Sequence[Key]]) -> None:
        """Stretches of one shape, in one call."""
        items = [self._cut(samples[s.row], s) for s in group]
        several = Modality(*(torch.from_numpy(np.stack(parts)) for parts in zip(*items, strict=True)))
        states = [s.state for s in group if s.state is not None]
        tokens, after = self._engine.encode(self._stream, several, tuple(map(torch.cat, zip(*states, strict=True))) if states else None)
        told = group[0].start - group[0].first
        slots = torch.tensor([[self._take_slot(keys[s.row][at]) for at in range(s.start, s.stop)] for s in group])
        begins = several.time[:, told * self._stride :: self._stride].to(self._engine.device)
        self._data[slots] = tokens.data[:, told:].float()
        self._offset[slots] = tokens.time[:, told:].float() - begins
        self._mask[slots] = tokens.mask[:, told:]
        if self._is_causal:
            for i, s in enumerate(group):
                self._states.keep(keys[s.row][s.stop - 1], tuple(part[i : i + 1].clone() for part in after))

    def _cut(self, items: Items | None, stretch: _Stretch) -> tuple[NDArray[np.generic], NDArray[np.float32], NDArray[np.bool_]]:
        """The items of a stretch, filled up behind the window's end to a whole token."""
        assert items is not None
        part = slice(stretch.first * self._stride, stretch.stop * self._stride)
        data, time, mask = items.data[part], items.time[part], items.mask[part]
        short = (stretch.stop - stretch.first) * self._stride - len(mask)
        if short:
            fill = np.zeros((short, *data.shape[1:]), data.dtype)
            data, time, mask = np.concatenate([data, fill]), np.pad(time, (0, short)), np.pad(mask, (0, short))
        return data, time, mask

    def _take_slot(self, key: Key) -> int:
        if not self._free:
            self._free.append(self._slots.popitem(last=False)[1])
        slot = self._slots[key] = self._free.pop()
        return slot

    def _lay_out(self, samples: Sequence[Items | None], keys: Sequence[Sequence[Key]]) -> Modality:
        count = max([-(-len(self._empty.mask) // self._stride), *(len(row) for row in keys)])
        index = np.zeros((len(samples), count), np.int64)
        begins = np.zeros((len(samples), count), np.float32)
        for row, (items, tokens) in enumerate(zip(samples, keys, strict=True)):
            if items is not None:
                index[row, : len(tokens)] = [self._slots[key] if key else 0 for key in tokens]
                begins[row, : len(tokens)] = items.time[:: self._stride]
        at = torch.from_numpy(index).to(self._engine.device)
        return Modality(self._data[at], torch.from_numpy(begins).to(self._engine.device) + self._offset[at], self._mask[at])


@dataclass(frozen=True, slots=True, eq=False)
class _Stretch:
    """Neighbouring tokens of a window that are encoded together: those from `start` to `stop` are wanted, those from `first` on only
    bring the encoder up to them."""

    row: int
    first: int
    start: int
    stop: int
    state: State | None


def _alike(stretches: Sequence[_Stretch]) -> list[list[_Stretch]]:
    groups: dict[Hashable, list[_Stretch]] = {}
    for s in stretches:
        groups.setdefault((s.stop - s.first, s.start - s.first, s.state is None), []).append(s)
    return list(groups.values())


class _Numbers:
    """A number for each key, another one for each; a key that was not asked for in a long time gets a new one."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: OrderedDict[Hashable, int] = OrderedDict()
        self._next = itertools.count(NOTHING + 1)

    def __getitem__(self, key: Hashable) -> int:
        number = self._known.get(key)
        if number is not None:
            self._known.move_to_end(key)
            return number
        if len(self._known) >= self._most:
            self._known.popitem(last=False)
        number = self._known[key] = next(self._next)
        return number


class _States:
    """States behind stretches, bounded by their bytes."""

    def __init__(self, most_bytes: int) -> None:
        self._most, self._bytes = most_bytes, 0
        self._kept: OrderedDict[Key, State] = OrderedDict()

    def __getitem__(self, key: Key) -> State | None:
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def keep(self, key: Key, state: State) -> None:
        self._bytes += _bytes(state) - _bytes(self._kept.pop(key, ()))
        self._kept[key] = state
        while self._bytes > self._most:
            self._bytes -= _bytes(self._kept.popitem(last=False)[1])


def _bytes(state: Sequence[Tensor]) -> int:
    return sum(part.nbytes for part in state)
