"""What the README shows works as it is written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from streamfuse.cli import main

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_the_synchronizers_example_gives_its_window() -> None:
    found = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert found is not None
    names: dict[str, Any] = {}
    exec(found[1], names)
    (window,) = names["windows"]
    assert [packet.payload for packet in window.packets["camera"]] == ["frame 1"]
    assert window.absent == {"lidar": "idle"}


def test_the_first_commands_are_the_two() -> None:
    commands = re.findall(r"^\$ (\S+ \S+)", README, re.MULTILINE)
    assert commands[:2] == ["make demo", "make test"]


def test_every_command_that_it_names_exists() -> None:
    for command in set(re.findall(r"^\$ streamfuse (\w+)", README, re.MULTILINE)):
        with pytest.raises(SystemExit) as left:
            main([command, "--help"])
        assert left.value.code == 0
