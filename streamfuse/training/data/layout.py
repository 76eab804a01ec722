"""Lays packets out as a model reads them: decoded, reduced and prepared by the very parts that serving uses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from streamfuse.errors import DataError, Problem
from streamfuse.models.batch import Items
from streamfuse.models.decode import decode
from streamfuse.models.parts import UnknownPart
from streamfuse.models.preprocess import PREPROCESSORS, Preprocessor, compute
from streamfuse.models.preprocess.tokens import fitted
from streamfuse.training.data import Inputs
from streamfuse.types import Packet

MAX_PIXELS = 50_000_000
"""As `models.max_pixels` of a daemon."""

Remember = Callable[[Packet, str, Callable[[], Any]], Any]


class Layout:
    """The preprocessing of all streams. It has no state, and may be used by several threads at once."""

    def __init__(self, inputs: Inputs, max_pixels: int = MAX_PIXELS) -> None:
        """Raises `DataError` where one of them can't be made."""
        self.parts: dict[str, Preprocessor] = {}
        self._max_pixels = max_pixels
        problems = []
        for stream, options in inputs.items():
            try:
                self.parts[stream] = PREPROCESSORS.make(options)
            except UnknownPart as error:
                problems.append(Problem(f"model.inputs.{stream}", str(error)))
        if problems:
            raise DataError(problems)

    @property
    def empty(self) -> dict[str, Items]:
        return {stream: part.empty() for stream, part in self.parts.items()}

    def prepare(
        self, start: int, end: int, packets: Mapping[str, Sequence[tuple[Packet, Any]]], remember: Remember = compute
    ) -> dict[str, Items]:
        """What the window `[start, end)` has of each stream, from packets with what `reduce` made of them, in order of event time.

        Without keys: those of packets that come from different rows could be the same.
        """
        made = {stream: self.parts[stream].prepare(start, end, given, remember) for stream, given in packets.items() if given}
        return {stream: replace(items, keys=None) for stream, items in made.items() if items.mask.any()}

    def reduce(self, packet: Packet, remember: Remember = compute) -> Any:
        """What to keep of a packet. Raises `UndecodablePayload`."""
        part = self.parts[packet.stream]

        def make() -> Any:
            return part.reduce(decode(packet, part.modality, max_pixels=self._max_pixels, min_width=part.min_width))

        return remember(packet, "decoded", make)


def with_tokens(inputs: Inputs, texts: Callable[[str], Iterable[str]]) -> dict[str, dict[str, Any]]:
    """The same preprocessing, where streams read as `tokens` without merges have them learned from `texts` of that stream."""
    learned = {}
    for stream, options in inputs.items():
        is_new = options.get("type") == "tokens" and "merges" not in options
        learned[stream] = fitted(options, texts(stream)) if is_new else dict(options)
    return learned
