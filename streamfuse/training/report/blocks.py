"""What a report is made of, before it is a page or a text: sections of paragraphs, tables and figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cell:
    """`value` sorts it, `heat` from 0 (bad) to 1 (good) colours it, `strong` marks it as the best of its kind."""

    text: str
    value: float | None = None
    heat: float | None = None
    strong: bool = False
    title: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """The first column is to the left, the others are figures."""

    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""


@dataclass(frozen=True, slots=True)
class Text:
    text: str


@dataclass(frozen=True, slots=True)
class Points:
    """Sentences, one below the other."""

    items: Sequence[str]


@dataclass(frozen=True, slots=True)
class Figure:
    title: str
    svg: str
    caption: str = ""


@dataclass(frozen=True, slots=True)
class Figures:
    """Side by side where there is room. `legend` names what the colours mean, in their order."""

    items: Sequence[Figure]
    legend: Sequence[str] = ()
    caption: str = ""


@dataclass(frozen=True, slots=True)
class Folded:
    """Not seen until it is asked for."""

    title: str
    blocks: Sequence[Text | Table | Figures | Points]


Block = Text | Table | Figures | Points | Folded


@dataclass(frozen=True, slots=True)
class Section:
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True, slots=True)
class Report:
    title: str
    facts: Sequence[str]
    """A line of short facts below the title."""
    short: Sequence[str]
    """The answers in plain words."""
    sections: Sequence[Section]
