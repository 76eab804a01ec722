"""Parts are found by name: ours, and those of installed packages."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from streamfuse.models.parts import ENCODERS, FUSIONS, Registry, UnknownPart


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that brings an encoder, one that can't be imported, and one that takes a name of ours."""
    (tmp_path / "plug.py").write_text("from torch import nn\n\nclass Plug(nn.Identity):\n    scope = 'item'\n")
    info = tmp_path / "plug-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plug\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[streamfuse.encoders]\nplug = plug:Plug\nbroken = plug:Missing\n[streamfuse.fusions]\nlate_transformer = plug:Plug\n"
    )
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("installed")
def test_part_of_an_installed_package_is_known() -> None:
    assert "plug" in ENCODERS.names()
    assert isinstance(ENCODERS.make({"type": "plug"}), nn.Identity)


@pytest.mark.usefixtures("installed")
def test_installed_part_that_can_not_be_imported_is_named() -> None:
    with pytest.raises(UnknownPart, match="'broken' of plug:Missing can't be imported"):
        ENCODERS.make({"type": "broken"})


@pytest.mark.usefixtures("installed")
def test_ours_comes_before_an_installed_part_of_its_name() -> None:
    assert FUSIONS["late_transformer"].__module__ == "streamfuse.models.fusions.late_transformer"


def test_two_of_one_name_are_refused() -> None:
    parts: Registry[nn.Module] = Registry("part", "streamfuse.nothing", "streamfuse.models")
    parts.register("same")(nn.Identity)
    with pytest.raises(ValueError, match="'same' twice"):
        parts.register("same")(nn.ReLU)
