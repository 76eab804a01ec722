"""Drawings as SVG: their colours are those of the page, light or dark, and their size is that of a phone, so that they scale up and
never down."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

WIDTH, HEIGHT = 336, 232
WIDE = 720
LEFT, RIGHT, TOP, BOTTOM = 56, 17, 10, 38
COLOURS = 10
"""So many are told apart; what comes after them is drawn again with dashes."""

Point = tuple[float, float]


def text(x: float, y: float, content: str, anchor: str = "middle", kind: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{_class(kind)}>{escape(content)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def box(x: float, y: float, width: float, height: float, kind: str = "", style: str = "", title: str = "") -> str:
    tip = f"<title>{escape(title)}</title>" if title else ""
    look = f' style="{style}"' if style else ""
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{max(height, 0):.1f}"{_class(kind)}{look}>{tip}</rect>'


def dot(x: float, y: float, radius: float, number: int, kind: str = "dot", title: str = "") -> str:
    tip = f"<title>{escape(title)}</title>" if title else ""
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" class="{kind} {colour(number)}">{tip}</circle>'


def path(points: Iterable[Point], number: int, title: str = "", kind: str = "line") -> str:
    d = " ".join(f"{'M' if i == 0 else 'L'}{x:.1f} {y:.1f}" for i, (x, y) in enumerate(points))
    tip = f"<title>{escape(title)}</title>" if title else ""
    return f'<path d="{d}" class="{kind} {colour(number)}">{tip}</path>'


def colour(number: int) -> str:
    """The class of the n-th colour."""
    return f"c{number % COLOURS}" + (" dashed" if number // COLOURS % 2 else "")


def drawing(parts: Iterable[str], label: str, width: float = WIDTH, height: float = HEIGHT) -> str:
    broad = ' class="broad"' if width > WIDTH else ""
    return f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(label, quote=True)}"{broad}>{"".join(parts)}</svg>'


class Axes:
    """Maps values to the drawing, and draws the axes with round numbers on them."""

    def __init__(
        self,
        x: tuple[float, float],
        y: tuple[float, float],
        x_label: str,
        y_label: str,
        percent_y: bool = False,
        percent_x: bool = False,
        whole_x: bool = False,
    ) -> None:
        self.x, self.y = _widened(x), _widened(y)
        self.x_label, self.y_label = x_label, y_label
        self.percent_x, self.percent_y, self.whole_x = percent_x, percent_y, whole_x

    def at(self, x: float, y: float) -> Point:
        (x0, x1), (y0, y1) = self.x, self.y
        across = LEFT + (x - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT)
        up = HEIGHT - BOTTOM - (y - y0) / (y1 - y0) * (HEIGHT - TOP - BOTTOM)
        return across, min(max(up, 0), HEIGHT)

    def drawn(self) -> list[str]:
        parts = []
        for value in ticks(*self.y):
            _, at = self.at(self.x[0], value)
            parts += [line(LEFT, at, WIDTH - RIGHT, at, "grid"), text(LEFT - 6, at + 3.5, _number(value, self.percent_y), "end", "tick")]
        for value in (value for value in ticks(*self.x) if not self.whole_x or value == round(value)):
            at, _ = self.at(value, self.y[0])
            parts.append(text(at, HEIGHT - BOTTOM + 14, _number(value, self.percent_x), kind="tick"))
        parts.append(line(LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT, HEIGHT - BOTTOM, "axis"))
        parts.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, self.x_label, kind="label"))
        middle = (TOP + HEIGHT - BOTTOM) / 2
        parts.append(
            f'<text transform="translate(10 {middle:.0f}) rotate(-90)" text-anchor="middle" class="label">{escape(self.y_label)}</text>'
        )
        return parts

    def line(self, x: Sequence[float], y: Sequence[float], number: int, title: str = "", kind: str = "line") -> str:
        return path((self.at(a, b) for a, b in zip(x, y, strict=True)), number, title, kind)

    def band(self, x: Sequence[float], low: Sequence[float], high: Sequence[float], number: int) -> str:
        there = [self.at(a, b) for a, b in zip(x, high, strict=True)]
        back = [self.at(a, b) for a, b in zip(reversed(x), reversed(low), strict=True)]
        d = "M" + " L".join(f"{a:.1f} {b:.1f}" for a, b in [*there, *back]) + "Z"
        return f'<path d="{d}" class="band {colour(number)}"/>'


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers from `low` to `high`, at most about `most`."""
    raw = (high - low) / most
    size = 10 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 12) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _widened(span: tuple[float, float]) -> tuple[float, float]:
    low, high = span
    return (low, high) if high - low > 1e-9 else (low - 0.5, high + 0.5)


def _number(value: float, percent: bool) -> str:
    return f"{100 * value:.3g} %" if percent else f"{value:.4g}"


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""
