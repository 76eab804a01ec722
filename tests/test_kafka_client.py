"""The options of Kafka clients, and the patience with a broker that is away."""

from __future__ import annotations

import logging
import re
from importlib.metadata import version
from pathlib import Path

import pytest
from pydantic import SecretStr

from streamfuse.assembly import build
from streamfuse.config import KafkaConnection
from streamfuse.errors import ConfigError
from streamfuse.kafka.client import Patience
from streamfuse.kafka.clients import client_info
from streamfuse.kafka.kafka_python import connection_options
from streamfuse.kafka.transport import Refused
from streamfuse.loading import parse_config

DAEMON = """
sources: [{type: simulator, truth: false}]
sinks: [{type: kafka}]
"""


def test_a_plain_connection_needs_no_more_than_its_brokers() -> None:
    options = connection_options(KafkaConnection(bootstrap="one:9092,two:9093"))
    assert options["bootstrap_servers"] == ["one:9092", "two:9093"]
    assert options["security_protocol"] == "PLAINTEXT"
    assert "sasl_mechanism" not in options


def test_certificates_and_credentials_are_passed_on() -> None:
    settings = KafkaConnection(
        security="sasl_ssl",
        ca_file=Path("ca.pem"),
        certificate_file=Path("own.pem"),
        key_file=Path("own.key"),
        username="room",
        password=SecretStr("secret"),
    )
    options = connection_options(settings)
    assert {name: value for name, value in options.items() if name.startswith(("s", "ss"))} == {
        "security_protocol": "SASL_SSL",
        "ssl_cafile": "ca.pem",
        "ssl_certfile": "own.pem",
        "ssl_keyfile": "own.key",
        "ssl_password": "",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "room",
        "sasl_plain_password": "secret",
    }


def test_certificates_and_credentials_are_passed_on_to_librdkafka_too() -> None:
    confluent = pytest.importorskip("streamfuse.kafka.confluent", reason="needs confluent-kafka: pip install 'streamfuse[fast]'")
    settings = KafkaConnection(
        bootstrap="one:9092,two:9093",
        security="sasl_ssl",
        ca_file=Path("ca.pem"),
        certificate_file=Path("own.pem"),
        key_file=Path("own.key"),
        key_password=SecretStr("open"),
        username="room",
        password=SecretStr("secret"),
    )
    options = confluent.connection_options(settings)
    assert options["bootstrap.servers"] == "one:9092,two:9093"
    assert {name: value for name, value in options.items() if name.startswith(("ssl", "sasl", "security"))} == {
        "security.protocol": "SASL_SSL",
        "ssl.ca.location": "ca.pem",
        "ssl.certificate.location": "own.pem",
        "ssl.key.location": "own.key",
        "ssl.key.password": "open",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "room",
        "sasl.password": "secret",
    }


def test_the_password_may_stand_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("secret \n")
    options = connection_options(KafkaConnection(security="sasl_ssl", username="room", password_file=file))
    assert options["sasl_plain_password"] == "secret "


def test_a_missing_password_file_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="password_file: expected a file that can be read"):
        connection_options(KafkaConnection(security="sasl_ssl", username="room", password_file=Path("nowhere")))


def test_a_password_is_never_printed() -> None:
    assert "secret" not in repr(KafkaConnection(password=SecretStr("secret")))


def test_the_client_says_what_it_is() -> None:
    info = client_info(KafkaConnection())
    assert (info.transport, info.version, info.crc32c) == ("kafka-python", version("kafka-python"), "native")


def test_librdkafka_says_what_it_is() -> None:
    pytest.importorskip("confluent_kafka", reason="needs confluent-kafka: pip install 'streamfuse[fast]'")
    info = client_info(KafkaConnection(transport="confluent"))
    assert (info.transport, info.crc32c) == ("confluent", "native")
    assert re.fullmatch(re.escape(version("confluent-kafka")) + r" \(librdkafka \d+\.\d+\.\d+\)", info.version)


def test_slow_checksums_are_refused_with_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kafka.record.util.crc32c_c", None)
    with pytest.raises(Refused, match=r"expected the package crc32c, found none.*pip install 'kafka-python\[crc32c\]'"):
        client_info(KafkaConnection())


def test_the_clients_in_use_are_logged_and_exported(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "streamfuse.assembly"):
        daemon = build(parse_config(DAEMON, {}))
    told = {"transport": "kafka-python", "version": version("kafka-python"), "crc32c": "native"}
    assert daemon.metrics.registry.get_sample_value("streamfuse_kafka_client_info", told) == 1
    assert f"transport kafka-python {version('kafka-python')}, crc32c native" in caplog.text


def test_a_client_that_cannot_be_used_is_told_with_its_place_in_the_config(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kafka.record.util.crc32c_c", None)
    with pytest.raises(ConfigError, match=r"sinks\.0\.transport: expected the package crc32c, found none"):
        build(parse_config(DAEMON, {}))


def test_patience_waits_longer_from_attempt_to_attempt_but_never_long() -> None:
    patience = Patience("it connects")
    delays = [patience.delay("refused") for _ in range(8)]
    assert delays == [0.25, 0.5, 1.0, 2.0, 4.0, 5.0, 5.0, 5.0]


def test_patience_tells_ever_more_rarely_why(caplog: pytest.LogCaptureFixture) -> None:
    patience = Patience("it connects")
    for _ in range(100):
        patience.delay("refused")
    assert [record.getMessage().split()[3] for record in caplog.records] == ["1", "2", "4", "8", "16", "32", "64"]


def test_patience_tells_at_once_when_the_cause_changes(caplog: pytest.LogCaptureFixture) -> None:
    patience = Patience("it connects")
    for cause in ("refused", "refused", "refused", "wrong password"):
        patience.delay(cause)
    assert "attempt 4 failed, trying on: wrong password" in caplog.text


def test_patience_begins_anew_after_success(caplog: pytest.LogCaptureFixture) -> None:
    patience = Patience("it connects")
    with caplog.at_level(logging.INFO):
        patience.delay("refused")
        patience.over()
    assert "it connects: succeeded after 2 attempts" in caplog.text
    assert patience.delay("refused") == 0.25
