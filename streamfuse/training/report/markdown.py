"""A report as Markdown: the words and the tables; figures are for the page."""

from __future__ import annotations

from collections.abc import Iterator

from streamfuse.training.report.blocks import Block, Figures, Folded, Points, Report, Table, Text


def to_markdown(report: Report) -> str:
    lines = [f"# {_text(report.title)}", "", " · ".join(map(_text, report.facts)), "", *(f"- {_text(one)}" for one in report.short), ""]
    for section in report.sections:
        lines += [f"## {_text(section.title)}", ""]
        for block in section.blocks:
            lines += _lines(block)
    return "\n".join(lines).rstrip() + "\n"


def _lines(block: Block) -> Iterator[str]:
    match block:
        case Text():
            yield from (_text(block.text), "")
        case Points():
            yield from (*(f"- {_text(one)}" for one in block.items), "")
        case Table():
            yield f"| {' | '.join(map(_text, block.header))} |"
            yield f"|{'|'.join(['---', *['---:'] * (len(block.header) - 1)])}|"
            for row in block.rows:
                yield f"| {' | '.join(f'**{_text(cell.text)}**' if cell.strong else _text(cell.text) for cell in row)} |"
            yield from ("", *([_text(block.caption), ""] if block.caption else []))
        case Folded():
            yield from (f"### {_text(block.title)}", "")
            for inner in block.blocks:
                yield from _lines(inner)
        case Figures():
            return


def _text(text: str) -> str:
    """Names come from recipes and data: they must not become markup."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("\n", " ")
