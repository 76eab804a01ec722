"""`streamfuse crossmodal`: what a bundle finds and writes from one modality to another, with figures and what it made."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from streamfuse.errors import BundleError, DataError, Problem
from streamfuse.models.bundle import load_bundle
from streamfuse.models.preprocess import Preprocessor
from streamfuse.training.crossmodal import COUNTS, Crossed, Found, Written, cross, nearest, retrieval
from streamfuse.training.given import open_given

NEAREST = 10
"""Neighbours of each row that are written."""
SHOWN = 12
"""Rows of images that are drawn side by side."""


def crossmodal(options: argparse.Namespace) -> int:
    """Writes the files, prints the figures and gives 0. Raises BundleError, DataError and what reading the data raises."""
    bundle = load_bundle(options.bundle)
    if bundle.model.crossmodal is None:
        message = f"the bundle {bundle.config.name} has nothing that goes between modalities; train it with model.crossmodal in its recipe"
        raise BundleError(message)
    given = open_given(options.data, bundle.config)
    rows = given.split.parts[options.part].tolist()
    if not rows:
        raise DataError([Problem("split", f"expected rows in the part {options.part}, found none; choose another with --part")])
    known = given.samples.targets
    if options.match is not None and (options.match not in known or known[options.match].ndim != 1):
        classes = ", ".join(task for task, target in known.items() if target.ndim == 1) or "none"
        raise DataError([Problem("--match", f"expected a task with one label a row, found {options.match!r}; there are {classes}")])
    crossed = cross(bundle.model, given.samples, rows)
    found = retrieval(crossed, None if options.match is None else known[options.match][rows])
    out = options.out or Path("out") / f"{bundle.config.name}-crossmodal"
    out.mkdir(parents=True, exist_ok=True)
    _write(out, crossed, found, bundle.preprocessors)
    _tell(found, crossed, options.match)
    print(f"\nwhat was found and written is in {out}")
    return 0


def _write(out: Path, crossed: Crossed, found: Sequence[Found], preprocessors: Any) -> None:
    figures = {
        "retrieval": [
            {"query": f.query, "gallery": f.gallery, "queries": f.queries, "recall": f.recall, "chance": f.chance} for f in found
        ],
        "written": [{"stream": w.stream, "given": w.given, "rows": len(w.rows), **_means(w)} for w in crossed.written],
    }
    (out / "figures.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    if crossed.places:
        arrays = {stream: np.where(crossed.present[stream][:, None], places, np.nan) for stream, places in crossed.places.items()}
        np.savez(out / "places.npz", **arrays, name=np.array(crossed.names))  # type: ignore[arg-type]
        (out / "neighbours.jsonl").write_text("".join(_neighbours(crossed, found)), encoding="utf-8")
    for stream in dict.fromkeys(one.stream for one in crossed.written):
        own = [one for one in crossed.written if one.stream == stream]
        if preprocessors[stream].modality == "text":
            (out / f"{stream}.jsonl").write_text("".join(_texts(crossed, own, preprocessors[stream])), encoding="utf-8")
        elif preprocessors[stream].modality == "image":
            (out / f"{stream}.png").write_bytes(cv2.imencode(".png", _sheet(crossed, own))[1].tobytes())


def _neighbours(crossed: Crossed, found: Sequence[Found]) -> list[str]:
    lines = []
    for one in found:
        rows, others = (np.flatnonzero(crossed.present[stream]) for stream in (one.query, one.gallery))
        close = nearest(crossed.places[one.query][rows], crossed.places[one.gallery][others], NEAREST)
        for row, places in zip(rows, close, strict=True):
            names = [crossed.names[int(others[place])] for place in places]
            lines.append(_line({"row": crossed.names[int(row)], "query": one.query, "gallery": one.gallery, "nearest": names}))
    return lines


def _texts(crossed: Crossed, written: Sequence[Written], preprocessor: Preprocessor) -> list[str]:
    """With words where the preprocessing can give them, otherwise with the numbers that it lays texts out as."""
    read = getattr(preprocessor, "words", lambda ids: ids.tolist())
    return [
        _line({"row": crossed.names[row], "given": one.given, "wrote": read(items), "really": read(crossed.wanted[one.stream][row])})
        for one in written
        for row, items in zip(one.rows, one.items, strict=True)
    ]


def _sheet(crossed: Crossed, written: Sequence[Written]) -> NDArray[np.uint8]:
    """The first rows that were drawn in every way, side by side: as they really are, then a line for each way."""
    rows = sorted(set.intersection(*(set(one.rows.tolist()) for one in written)))[:SHOWN]
    size = written[0].items.shape[1:3]
    lines = [[crossed.wanted[written[0].stream][row] for row in rows]]
    lines += [[one.items[int(np.searchsorted(one.rows, row))] for row in rows] for one in written]
    pictures = [np.concatenate([_picture(frame, size) for frame in line] or [np.zeros((*size, 3), np.uint8)], 1) for line in lines]
    return np.concatenate(pictures)


def _picture(frame: NDArray[Any], size: tuple[int, int]) -> NDArray[np.uint8]:
    """As OpenCV has pictures: blue first."""
    coloured = cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR if frame.ndim == 2 else cv2.COLOR_RGB2BGR)
    return np.asarray(cv2.resize(coloured, size[::-1], interpolation=cv2.INTER_AREA), np.uint8)


def _means(written: Written) -> dict[str, float]:
    return {name: float(each.mean()) for name, each in written.measures.items()} if len(written.rows) else {}


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


def _tell(found: Sequence[Found], crossed: Crossed, match: str | None) -> None:
    console = Console(highlight=False)
    if found:
        what = "its own row" if match is None else f"a row with the same {match}"
        table = Table(title=f"found: {what} (in brackets: by chance)", box=None, title_justify="left")
        for head in ("by", "is found", "rows", *(f"recall@{k}" for k in COUNTS)):
            table.add_column(head, justify="left" if head in ("by", "is found") else "right")
        for one in found:
            table.add_row(one.query, one.gallery, str(one.queries), *(f"{one.recall[k]:.3f} ({one.chance[k]:.3f})" for k in COUNTS))
        console.print(table)
    for stream in dict.fromkeys(one.stream for one in crossed.written):
        own = [one for one in crossed.written if one.stream == stream]
        table = Table(title=f"{stream}, written", box=None, title_justify="left")
        for head in ("from", "rows", *own[0].measures):
            table.add_column(head, justify="left" if head == "from" else "right")
        for each in own:
            table.add_row(" and ".join(each.given), str(len(each.rows)), *(f"{value:.4f}" for value in _means(each).values()))
        console.print(table)
