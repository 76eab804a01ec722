"""A storm of rebalances; `python -m tests.kafka.storm` makes longer ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kafka import storm
from tests.kafka.broker import Broker
from tests.kafka.rooms import DELIVERIES, Place

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


@pytest.mark.parametrize("delivery", DELIVERIES)
def test_replicas_that_join_and_leave_every_few_seconds(broker: Broker, unique: str, tmp_path: Path, delivery: str) -> None:
    outcome = storm.run(broker, Place.make(broker, unique, delivery=delivery), tmp_path, 30, seed=1)
    assert outcome.violations == []
    assert outcome.joins + outcome.leaves > 5
    assert outcome.checked > 10
    assert outcome.looks > 20
