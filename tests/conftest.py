"""What every test may rely on: asyncio under anyio, and a clear word where a test needs what this machine lacks."""

from __future__ import annotations

import logging
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest


def pytest_configure() -> None:
    # What a shell puts into the background ignores SIGINT, and so would all programs that a test starts and interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def recordings() -> Path:
    """The folder of recordings that `data` tests read."""
    return Path(os.environ["STREAMFUSE_DATA"])


@pytest.fixture(autouse=True)
def logs_of_its_own() -> Iterator[None]:
    """Commands that run in this process set up its logs."""
    root, kafka = logging.getLogger(), logging.getLogger("kafka")
    level, kafka_level, handlers = root.level, kafka.level, root.handlers[:]
    yield
    root.setLevel(level)
    kafka.setLevel(kafka_level)
    root.handlers[:] = handlers


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what can't run here, with the reason and what to do about it."""
    lacking = {"kafka": _kafka_lacks(), "data": _data_lacks()}
    if any(item.get_closest_marker("gpu") for item in items):
        lacking["gpu"] = _gpu_lacks()  # imports torch, so only where it matters
    for item in items:
        for marker, reason in lacking.items():
            if reason and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


def _kafka_lacks() -> str | None:
    home = os.environ.get("STREAMFUSE_KAFKA_HOME")
    if not home:
        return "needs a real Apache Kafka: run `make kafka`, or point STREAMFUSE_KAFKA_HOME at a distribution"
    if not (Path(home) / "bin" / "kafka-server-start.sh").is_file():
        return f"STREAMFUSE_KAFKA_HOME is {home}, which has no bin/kafka-server-start.sh; point it at a distribution"
    if shutil.which("java") is None:
        return "Apache Kafka needs Java 17 or later, and there is no `java` here (Debian: openjdk-17-jre-headless)"
    return None


def _data_lacks() -> str | None:
    folder = os.environ.get("STREAMFUSE_DATA")
    if not folder:
        return "needs recordings: set STREAMFUSE_DATA to their folder"
    if not Path(folder).is_dir():
        return f"STREAMFUSE_DATA is {folder}, which is not a folder"
    return None


def _gpu_lacks() -> str | None:
    import torch

    return None if torch.cuda.is_available() else "needs a CUDA device, and torch finds none"
