"""Both Kafka clients fulfil the contract, on a real broker."""

from __future__ import annotations

import sys
from importlib.util import find_spec

import pytest

from streamfuse.config import KafkaConnection
from streamfuse.kafka.clients import client_info
from streamfuse.kafka.transport import Refused
from tests.kafka.transport_contract import ConsumerContract, ProducerContract, TransactionContract

needs_confluent = pytest.mark.skipif(not find_spec("confluent_kafka"), reason="needs confluent-kafka: pip install 'streamfuse[fast]'")


@pytest.mark.kafka
class TestKafkaPythonConsumer(ConsumerContract):
    transport = "kafka-python"


@pytest.mark.kafka
class TestKafkaPythonProducer(ProducerContract):
    transport = "kafka-python"


@pytest.mark.kafka
class TestKafkaPythonTransactions(TransactionContract):
    transport = "kafka-python"


@needs_confluent
@pytest.mark.kafka
class TestConfluentConsumer(ConsumerContract):
    transport = "confluent"


@needs_confluent
@pytest.mark.kafka
class TestConfluentProducer(ProducerContract):
    transport = "confluent"


@needs_confluent
@pytest.mark.kafka
class TestConfluentTransactions(TransactionContract):
    transport = "confluent"


def test_a_client_that_is_not_installed_is_refused_with_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    monkeypatch.delitem(sys.modules, "streamfuse.kafka.confluent", raising=False)
    with pytest.raises(Refused, match=r"expected the package confluent-kafka, found none; pip install 'streamfuse\[fast\]'"):
        client_info(KafkaConnection(transport="confluent"))
