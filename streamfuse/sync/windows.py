"""Window shapes, as values: `Tumbling`, `Sliding`, `Session`, `Anchored`. Windows are half-open, `[start, end)`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

from streamfuse.sync.open_windows import Anchors, Grid, OpenWindows, Sessions


class Shape(Protocol):
    """A kind of window."""

    @property
    def primary(self) -> str | None:
        """The stream without which there is no window; None where any stream makes one."""
        ...

    @property
    def bounded(self) -> bool:
        """Whether a packet alone tells which windows it can belong to. If not, packets stay until windows close."""
        ...

    def open(self) -> OpenWindows: ...

    def allowance(self, stream: str) -> int:
        """How far behind a window's end this stream's watermark may be when the window closes."""
        ...


@dataclass(frozen=True, slots=True)
class Sliding:
    """Windows of `size` ns that start every `hop` ns, aligned to the epoch plus `offset`."""

    primary: ClassVar[None] = None
    bounded: ClassVar[bool] = True

    size: int
    hop: int
    offset: int = 0

    def __post_init__(self) -> None:
        if self.size <= 0 or self.hop <= 0:
            raise ValueError(f"size and hop must be positive, found {self.size} and {self.hop}")

    def open(self) -> OpenWindows:
        return Grid(self.size, self.hop, self.offset)

    def allowance(self, stream: str) -> int:
        return 0


@dataclass(frozen=True, slots=True)
class Tumbling:
    """Windows of `size` ns side by side, aligned to the epoch plus `offset`."""

    primary: ClassVar[None] = None
    bounded: ClassVar[bool] = True

    size: int
    offset: int = 0

    def __post_init__(self) -> None:
        if self.size <= 0:
            raise ValueError(f"size must be positive, found {self.size}")

    def open(self) -> OpenWindows:
        return Grid(self.size, self.size, self.offset)

    def allowance(self, stream: str) -> int:
        return 0


@dataclass(frozen=True, slots=True)
class Session:
    """A window as long as packets of any stream follow each other in less than `gap` ns; longer ones are cut every `max_size` ns."""

    primary: ClassVar[None] = None
    bounded: ClassVar[bool] = False

    gap: int
    max_size: int | None = None

    def __post_init__(self) -> None:
        if self.gap <= 0 or (self.max_size is not None and self.max_size <= 0):
            raise ValueError(f"gap and max_size must be positive, found {self.gap} and {self.max_size}")

    def open(self) -> OpenWindows:
        return Sessions(self.gap, self.max_size)

    def allowance(self, stream: str) -> int:
        return 0


@dataclass(frozen=True, slots=True)
class Anchored:
    """One window per packet of the `primary` stream, from `tolerance` ns before it to `tolerance` ns after it, both included.

    Of each other stream it takes the `nearest` packet (the distance to a packet with a duration is 0 inside it; of two equally near ones
    the earlier), or `all` packets.
    """

    bounded: ClassVar[bool] = True

    primary: str
    tolerance: int
    take: Literal["nearest", "all"] = "nearest"

    def __post_init__(self) -> None:
        if self.tolerance < 0:
            raise ValueError(f"tolerance must not be negative, found {self.tolerance}")

    def open(self) -> OpenWindows:
        return Anchors(self.primary, self.tolerance, self.take)

    def allowance(self, stream: str) -> int:
        # The primary only has to say that no earlier anchor comes; it need not reach the end of the window.
        return self.tolerance if stream == self.primary else 0
