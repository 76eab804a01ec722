"""A report as one page that needs nothing else: no network, no fonts, and a script of a few lines that sorts tables."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from streamfuse.training.report.blocks import Block, Cell, Figure, Figures, Folded, Points, Report, Table, Text
from streamfuse.training.report.svg import colour

LIGHT = ("#2a6fbb", "#d4621a", "#2e8b4f", "#a83d9b", "#b58900", "#128a94", "#c3324b", "#6b5bd0", "#76520e", "#5d6b7a")
DARK = ("#6aa9f0", "#f0924f", "#66c084", "#d882cc", "#dcb73e", "#4fc3cc", "#ef7488", "#a698f5", "#c99d52", "#a3b1c0")

STYLE = """
:root{color-scheme:light dark;--paper:#fbfaf8;--card:#fff;--ink:#1d232b;--soft:#5b6672;--line:#e2e0da;--grid:#eceae5;--accent:#2a6fbb;
--good:#2e8b4f;--bad:#d4621a;%LIGHT%}
@media(prefers-color-scheme:dark){:root{--paper:#14171b;--card:#1b1f25;--ink:#e6e8eb;--soft:#98a3af;--line:#2e343c;--grid:#272c33;
--accent:#6aa9f0;--good:#57b37a;--bad:#e0874a;%DARK%}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif;
-webkit-text-size-adjust:100%}
main{max-width:1080px;margin:0 auto;padding:40px 20px 80px}
h1{font-size:clamp(1.55rem,4.5vw,2.2rem);line-height:1.2;letter-spacing:-.015em;margin:0 0 6px;overflow-wrap:anywhere}
h2{font-size:1.3rem;letter-spacing:-.01em;margin:0 0 14px;overflow-wrap:anywhere}
section{margin-top:52px;scroll-margin-top:12px}
.facts{color:var(--soft);margin:0 0 26px}
.facts span:not(:last-child)::after{content:" · ";white-space:pre}
.short{background:var(--card);border:1px solid var(--line);border-left:4px solid var(--accent);border-radius:10px;padding:18px 22px 18px;
font-size:1.04rem}
.short p{margin:0 0 .6em;max-width:86ch;overflow-wrap:anywhere}
.short p:first-child{font-weight:600}
.short p:last-child{margin:0}
nav{margin:20px 0 0;display:flex;flex-wrap:wrap;gap:6px 8px;font-size:.86rem}
nav a{color:var(--soft);text-decoration:none;border:1px solid var(--line);border-radius:99px;padding:3px 11px}
nav a:hover{color:var(--ink);border-color:var(--soft)}
p,ul{max-width:80ch}
ul{padding-left:1.15em}
li{margin:.3em 0}
.wide{overflow-x:auto;width:fit-content;max-width:100%;margin:14px 0 6px;border:1px solid var(--line);
border-radius:10px;background:var(--card)}
table{border-collapse:collapse;width:100%;font-size:.89rem;font-variant-numeric:tabular-nums}
th,td{padding:7px 12px;text-align:right;white-space:nowrap;border-bottom:1px solid var(--grid)}
th{font-weight:600;color:var(--soft);vertical-align:bottom;white-space:normal;min-width:76px;line-height:1.25}
th:first-child,td:first-child{text-align:left;position:sticky;left:0;background:var(--card);z-index:1}
.words{text-align:left}td.words{white-space:normal;min-width:150px}
tbody tr:last-child td{border-bottom:0}
tbody tr:hover td{background:color-mix(in srgb,var(--accent) 7%,var(--card))}
td.heat,tbody tr:hover td.heat{background:color-mix(in oklab,color-mix(in oklab,var(--good) var(--h),var(--bad)) 34%,var(--card))}
td b{font-weight:700}
th button{all:unset;cursor:pointer}
th button:focus-visible{outline:2px solid var(--accent);outline-offset:3px;border-radius:3px}
th[aria-sort=ascending] button::after{content:" ↑"}
th[aria-sort=descending] button::after{content:" ↓"}
.caption{color:var(--soft);font-size:.86rem;margin:8px 0 0;max-width:88ch}
.figures{display:grid;gap:18px;grid-template-columns:repeat(auto-fit,minmax(min(100%,310px),1fr));margin-top:12px}
.figures.one{grid-template-columns:minmax(0,500px)}.figures.one:has(svg.broad){grid-template-columns:minmax(0,900px)}
.figures.two{grid-template-columns:repeat(auto-fit,minmax(min(100%,400px),1fr))}
figure{margin:0;background:var(--card);border:1px solid var(--line);border-radius:10px;padding:14px 12px 10px;min-width:0;overflow-x:auto}
figure h3{font-size:.95rem;margin:0 0 6px 4px;overflow-wrap:anywhere}
figure svg{display:block;width:100%;max-width:470px;margin:0 auto;height:auto}
figure svg.broad{max-width:900px;min-width:560px}
figcaption{color:var(--soft);font-size:.83rem;margin:6px 4px 0}
.legend{display:flex;flex-wrap:wrap;gap:4px 16px;font-size:.86rem;margin:10px 0 0;padding:0;list-style:none;max-width:none}
.legend li{display:flex;align-items:center;gap:7px;margin:0}
.legend i{width:16px;height:0;border-top:4px solid var(--c);border-radius:2px}
.legend i.dashed{border-top-style:dotted}
details{margin-top:12px}
summary{cursor:pointer;color:var(--soft);font-size:.92rem}
summary:hover{color:var(--ink)}
footer{margin-top:56px;color:var(--soft);font-size:.83rem}
svg text{font:11px system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;fill:var(--ink);font-variant-numeric:tabular-nums}
svg .tick,svg .label{fill:var(--soft);font-size:10.5px}
svg .label{font-size:11px}
svg .name{font-size:11.5px}
svg .inside{fill:#fff;font-weight:600;paint-order:stroke;stroke:rgba(0,0,0,.35);stroke-width:2px}
.grid{stroke:var(--grid)}.axis{stroke:var(--soft);stroke-width:1}
.line{fill:none;stroke:var(--c);stroke-width:2;stroke-linejoin:round;stroke-linecap:round}
.line.thin{stroke-width:1.4;opacity:.85}
.line.dashed{stroke-dasharray:5 4}
.line:hover{stroke-width:3.5}
.chance{fill:none;stroke:var(--soft);stroke-width:1;stroke-dasharray:2 4}
.band{fill:var(--c);opacity:.15}
.dot{fill:var(--c)}.seed{fill:var(--c);opacity:.75}.cloud{fill:var(--c);opacity:.4}
.interval,.whisker{stroke:var(--c);stroke-width:2}.whisker{stroke-width:1.5}
.bar{fill:var(--c);opacity:.85}.bar.soft{opacity:.45}
.median{stroke:var(--ink);stroke-width:2}
.cell{fill:color-mix(in oklab,var(--t) var(--h),var(--grid))}.cell.right{--t:var(--good)}.cell.wrong{--t:var(--bad)}
.count{pointer-events:none}
@media print{body{background:#fff}section{break-inside:avoid}nav{display:none}}
"""

SCRIPT = """
for(const th of document.querySelectorAll("th")){const b=th.querySelector("button");if(!b)continue;b.onclick=()=>{
const t=th.closest("table"),i=th.cellIndex,up=th.getAttribute("aria-sort")=="descending",s=up?1:-1;
for(const o of t.tHead.rows[0].cells)o.removeAttribute("aria-sort");th.setAttribute("aria-sort",up?"ascending":"descending");
const k=r=>r.cells[i].dataset.v??null,rows=[...t.tBodies[0].rows];
rows.sort((a,b)=>{const x=k(a),y=k(b);if(x===null&&y===null)return s*a.cells[i].textContent.localeCompare(b.cells[i].textContent);
if(x===null)return 1;if(y===null)return -1;return s*(x-y)});t.tBodies[0].append(...rows)}}
"""


def to_page(report: Report) -> str:
    colours = {
        "%LIGHT%": "".join(f"--c{i}:{value};" for i, value in enumerate(LIGHT)),
        "%DARK%": "".join(f"--c{i}:{value};" for i, value in enumerate(DARK)),
    }
    style = STYLE
    for name, value in colours.items():
        style = style.replace(name, value)
    style += "".join(f".c{i}{{--c:var(--c{i})}}" for i in range(len(LIGHT)))
    nav = "".join(f'<a href="#s{i}">{escape(section.title)}</a>' for i, section in enumerate(report.sections))
    body = "".join(
        f'<section id="s{i}"><h2>{escape(section.title)}</h2>{"".join("".join(_block(block)) for block in section.blocks)}</section>'
        for i, section in enumerate(report.sections)
    )
    facts = "".join(f"<span>{escape(fact)}</span>" for fact in report.facts)
    short = "".join(f"<p>{escape(one)}</p>" for one in report.short)
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(report.title)}</title><style>{style}</style><main><header><h1>{escape(report.title)}</h1>"
        f'<p class="facts">{facts}</p><div class="short">{short}</div><nav>{nav}</nav></header>{body}'
        "<footer>Made by StreamFuse. Click a column's head to sort by it.</footer></main>"
        f"<script>{SCRIPT}</script></html>\n"
    )


def _block(block: Block) -> Iterator[str]:
    match block:
        case Text():
            yield f"<p>{escape(block.text)}</p>"
        case Points():
            yield f"<ul>{''.join(f'<li>{escape(one)}</li>' for one in block.items)}</ul>"
        case Table():
            words = [any(_is_words(row[i]) for row in block.rows) for i in range(len(block.header))]
            kinds = [' class="words"' if own else "" for own in words]
            head = "".join(f"<th{kind}><button>{escape(name)}</button></th>" for kind, name in zip(kinds, block.header, strict=True))
            body = "".join(f"<tr>{''.join(map(_cell, row, kinds))}</tr>" for row in block.rows)
            yield f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
            yield from _caption(block.caption)
        case Figures():
            if block.legend:
                chips = (f'<li><i class="{colour(i)}"></i>{escape(name)}</li>' for i, name in enumerate(block.legend))
                yield f'<ul class="legend">{"".join(chips)}</ul>'
            kind = {1: " one", 2: " two", 4: " two"}.get(len(block.items), "")
            yield f'<div class="figures{kind}">{"".join(map(_figure, block.items))}</div>'
            yield from _caption(block.caption)
        case Folded():
            inner = "".join("".join(_block(one)) for one in block.blocks)
            yield f"<details><summary>{escape(block.title)}</summary>{inner}</details>"


def _is_words(cell: Cell) -> bool:
    return cell.value is None and len(cell.text) > 24


def _cell(cell: Cell, kind: str) -> str:
    inside = f"<b>{escape(cell.text)}</b>" if cell.strong else escape(cell.text)
    value = "" if cell.value is None else f' data-v="{cell.value:.9g}"'
    title = f' title="{escape(cell.title, quote=True)}"' if cell.title else ""
    if cell.heat is not None:
        return f'<td class="heat" style="--h:{100 * cell.heat:.0f}%"{value}{title}>{inside}</td>'
    return f"<td{kind}{value}{title}>{inside}</td>"


def _figure(figure: Figure) -> str:
    title = f"<h3>{escape(figure.title)}</h3>" if figure.title else ""
    caption = f"<figcaption>{escape(figure.caption)}</figcaption>" if figure.caption else ""
    return f"<figure>{title}{figure.svg}{caption}</figure>"


def _caption(text: str) -> Iterator[str]:
    if text:
        yield f'<p class="caption">{escape(text)}</p>'
