"""The systemd unit is valid, stops in order, and spares what torch needs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from streamfuse.config import PipelineSettings, parse_duration
from streamfuse.errors import BundleError, ConfigError, TooManyDeadLetters

UNIT = Path(__file__).parents[2] / "systemd" / "streamfuse.service"


def service() -> dict[str, list[str]]:
    """The keys of [Service], each with all its values."""
    values: dict[str, list[str]] = {}
    section = ""
    for line in UNIT.read_text().splitlines():
        if line.startswith("["):
            section = line
        elif section == "[Service]" and "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            values.setdefault(key, []).append(value)
    return values


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze (Debian: systemd)")
def test_systemd_accepts_every_line(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    (program,) = (value.split()[0] for value in service()["ExecStart"])
    unit.write_text(UNIT.read_text().replace(program, shutil.which("true") or "/bin/true"))  # verify wants a program that exists
    ran = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=yes", unit],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")


def test_systemd_waits_longer_than_the_daemon_drains() -> None:
    (stop,) = service()["TimeoutStopSec"]
    assert parse_duration(stop) > PipelineSettings().drain_timeout


def test_what_a_restart_cannot_mend_is_not_restarted() -> None:
    (codes,) = service()["RestartPreventExitStatus"]
    assert {int(code) for code in codes.split()} == {ConfigError.exit_code, BundleError.exit_code, TooManyDeadLetters.exit_code}


def test_nothing_is_set_that_breaks_torch() -> None:
    settings = service()
    assert "MemoryDenyWriteExecute" not in settings
    assert "ProcSubset" not in settings
    assert not any("@resources" in value for value in settings["SystemCallFilter"])
