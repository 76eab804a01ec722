"""Everything that the package reads at run time is installed with it."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_file_of_the_package_is_installed() -> None:
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["streamfuse"]
    package = ROOT / "streamfuse"
    installed = {path for pattern in patterns for path in package.glob(pattern)}
    there = {p for p in package.rglob("*") if p.is_file() and p.suffix != ".py" and "__pycache__" not in p.parts}
    assert there - installed == set()


def test_every_folder_of_the_package_is_installed() -> None:
    lacking = {p.parent for p in (ROOT / "streamfuse").rglob("*.py") if not (p.parent / "__init__.py").is_file()}
    assert lacking == set()
