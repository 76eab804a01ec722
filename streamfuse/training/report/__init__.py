"""A comparison as three files: `results.json` for programs, `report.md` for a repository, `report.html` for people."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from streamfuse.training.compare import Comparison
from streamfuse.training.report.content import build_report
from streamfuse.training.report.markdown import to_markdown
from streamfuse.training.report.page import to_page

RESULTS, MARKDOWN, PAGE = "results.json", "report.md", "report.html"


def write_report(folder: Path, comparison: Comparison) -> None:
    """Makes the folder where it is missing, and replaces what it has of these files."""
    folder.mkdir(parents=True, exist_ok=True)
    report = build_report(comparison)
    results = {"in_short": list(report.short), **dataclasses.asdict(comparison)}
    (folder / RESULTS).write_text(json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    (folder / MARKDOWN).write_text(to_markdown(report), encoding="utf-8")
    (folder / PAGE).write_text(to_page(report), encoding="utf-8")
