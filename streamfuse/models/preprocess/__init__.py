"""Lays a window's decoded packets on the window's time axis, one array a modality, by recipes that a bundle names.

A new recipe is a new file in this folder, registered with `PREPROCESSORS`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol, TypeVar

from streamfuse.models.batch import Items
from streamfuse.models.decode import Decoded
from streamfuse.models.parts import Registry
from streamfuse.types import Packet

T = TypeVar("T")
Remember = Callable[[Packet, str, Callable[[], T]], T]
"""Called with a packet, a word for what is computed from it, and how; computes it once for all windows that the
packet stands in."""


class Preprocessor(Protocol):
    """Prepares one stream. It has no state: what it makes of a window depends on the window alone."""

    modality: str
    """What it reads: `image`, `audio`, `text` or `features`."""

    min_width: int
    """Images may be scaled down to this width while they are decoded; 0 where that is no matter."""

    def reduce(self, decoded: Decoded) -> Any:
        """What to keep of a decoded packet, made once and shared by all windows that it stands in. Raises `UndecodablePayload` where
        it is not what this stream's packets are."""
        ...

    def prepare(self, start: int, end: int, packets: Sequence[tuple[Packet, Any]], remember: Remember[Any]) -> Items:
        """The stream's part of the window `[start, end)`; `packets` are in order of event time, each with its reduced
        payload. Its items have `keys` (made with `identity`) where overlapping windows get the same items."""
        ...

    def empty(self) -> Items:
        """Nothing of this stream, in the usual shape."""
        ...


PREPROCESSORS: Registry[Preprocessor] = Registry("preprocessing", "streamfuse.preprocessors", "streamfuse.models.preprocess")


def compute(packet: Packet, word: str, make: Callable[[], T]) -> T:
    """A `Remember` that remembers nothing."""
    return make()


def identity(packet: Packet) -> Hashable:
    """Equal for the same packet, in whichever windows it stands."""
    return packet.stream, packet.key, packet.position, packet.event_time


def first_of_each(times: Sequence[int], spacing: int) -> list[int]:
    """Indices of the first time in each stretch of `spacing`, counted from the epoch and not from the window."""
    chosen: list[int] = []
    last: int | None = None
    for i, time in enumerate(times):
        if time // spacing != last:
            last = time // spacing
            chosen.append(i)
    return chosen
