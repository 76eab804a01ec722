"""A storm of rebalances; `python -m tests.kafka.storm` makes longer ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kafka import storm
from tests.kafka.broker import Broker
from tests.kafka.rooms import Place

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


@pytest.mark.parametrize(("delivery", "transport"), [("at_least_once", "confluent"), ("exactly_once", "kafka-python")])
def test_replicas_that_join_and_leave_every_few_seconds(broker: Broker, unique: str, tmp_path: Path, delivery: str, transport: str) -> None:
    outcome = storm.run(broker, Place.make(broker, unique, delivery=delivery, transport=transport), tmp_path, 25, seed=1)
    assert outcome.violations == []
    assert outcome.joins + outcome.leaves > 5
    assert outcome.checked > 10
    assert outcome.looks > 20
