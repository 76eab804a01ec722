"""One broker for all tests of a session, and topics of their own for each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.kafka.broker import Broker

_numbers = count()


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """Shared: leave it running as you found it."""
    with Broker(Path(os.environ["STREAMFUSE_KAFKA_HOME"]), tmp_path_factory.mktemp("kafka")) as broker:
        yield broker


@pytest.fixture
def own_broker(tmp_path: Path) -> Broker:
    """One that this test may start, stop and kill."""
    return Broker(Path(os.environ["STREAMFUSE_KAFKA_HOME"]), tmp_path)


@pytest.fixture
def unique() -> str:
    """A name for this test's topics and groups."""
    return f"t{next(_numbers)}"
