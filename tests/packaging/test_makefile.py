"""The commands explain themselves, and fail with one sentence."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).parents[2] / "Makefile"

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


def make(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run make as if it were typed in an empty folder that has our Makefile."""
    return subprocess.run(
        ["make", "-C", folder, "-f", MAKEFILE, *arguments],
        env={key: value for key, value in os.environ.items() if not key.startswith("MAKE")} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def kafka(tmp_path: Path) -> Path:
    """An archive with the layout of an Apache Kafka release."""
    version = next(re.finditer(r"^KAFKA_VERSION := (.+)$", MAKEFILE.read_text(), re.MULTILINE))[1]
    (tmp_path / "content" / "bin").mkdir(parents=True)
    archive = tmp_path / "kafka.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "content", f"kafka_2.13-{version}")
    return archive


def test_make_alone_lists_the_commands(tmp_path: Path) -> None:
    ran = make(tmp_path)
    assert ran.returncode == 0
    for command in ("demo", "test", "lint", "bench", "kafka", "clean"):
        assert f"  make {command} " in ran.stdout


def test_python_that_is_too_old_is_named(tmp_path: Path) -> None:
    ran = make(tmp_path, ".venv/bin/pip", "PYTHON=")
    assert ran.returncode != 0
    assert "StreamFuse needs Python 3.11 or newer, found Python" in ran.stderr


def test_kafka_with_the_right_checksum_is_unpacked(tmp_path: Path, kafka: Path) -> None:
    checksum = hashlib.sha512(kafka.read_bytes()).hexdigest()
    ran = make(tmp_path, "kafka", f"KAFKA_URL={kafka.as_uri()}", f"KAFKA_SHA512={checksum}")
    assert ran.returncode == 0, ran.stderr
    assert list(tmp_path.glob(".kafka/kafka_*/bin"))


def test_kafka_with_a_wrong_checksum_is_refused_and_removed(tmp_path: Path, kafka: Path) -> None:
    ran = make(tmp_path, "kafka", f"KAFKA_URL={kafka.as_uri()}")
    assert ran.returncode != 0
    assert "its SHA-512 differs" in ran.stderr
    assert list((tmp_path / ".kafka").iterdir()) == []
