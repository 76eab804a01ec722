"""A set of offsets that fits into what Kafka keeps with a committed one: all up to there, and some after it."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable

from streamfuse.errors import InvalidRecord
from streamfuse.kafka.transport import Committed

MAX_METADATA = 4095
_VERSION = "s1:"


class OffsetSet:
    """Holds every offset below `first`, and those that were added after it."""

    def __init__(self, first: int = 0, later: Iterable[int] = ()) -> None:
        self.first = first
        self._later = set(later)
        self._advance()

    def __contains__(self, offset: int) -> bool:
        return offset < self.first or offset in self._later

    def add(self, offset: int) -> None:
        if offset >= self.first:
            self._later.add(offset)
            self._advance()

    def add_below(self, offset: int) -> None:
        """All offsets below this one."""
        self.first = max(self.first, offset)
        self._later = {one for one in self._later if one >= self.first}
        self._advance()

    def copy(self) -> OffsetSet:
        return OffsetSet(self.first, self._later)

    def to_commit(self) -> Committed | None:
        """None where the offsets after the first gap are too scattered to fit into `MAX_METADATA`."""
        if not self._later:
            return Committed(self.first, "")
        bitmap = bytearray((max(self._later) - self.first) // 8 + 1)
        for offset in self._later:
            at, bit = divmod(offset - self.first, 8)
            bitmap[at] |= 1 << bit
        text = _VERSION + base64.b85encode(zlib.compress(bytes(bitmap), 9)).decode()
        return Committed(self.first, text) if len(text) <= MAX_METADATA else None

    @classmethod
    def from_commit(cls, committed: Committed) -> OffsetSet:
        """Raises InvalidRecord for a commit that is not of ours."""
        if not committed.metadata:
            return cls(committed.offset)
        try:
            if not committed.metadata.startswith(_VERSION):
                raise ValueError("another version")
            bitmap = zlib.decompress(base64.b85decode(committed.metadata.removeprefix(_VERSION)))
        except (ValueError, zlib.error) as error:
            raise InvalidRecord(f"expected a set of offsets, found {committed.metadata[:40]!r} ({error}); name another group") from None
        return cls(
            committed.offset, (committed.offset + 8 * at + bit for at, byte in enumerate(bitmap) for bit in range(8) if byte & 1 << bit)
        )

    def _advance(self) -> None:
        while self.first in self._later:
            self._later.remove(self.first)
            self.first += 1
