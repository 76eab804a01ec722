"""The log tells an event once, whatever a library makes of it."""

from __future__ import annotations

import logging

import pytest

from streamfuse.logs import FewRepeats


def record(name: str, second: float, words: str = "Topic %s not found") -> logging.LogRecord:
    return logging.makeLogRecord({"name": name, "msg": words, "args": ("video",), "created": second})


@pytest.mark.parametrize("logger", ["kafka.cluster", "streamfuse.kafka.confluent"])
def test_of_what_a_kafka_client_repeats_fewer_and_fewer_are_passed(logger: str) -> None:
    few = FewRepeats()
    assert [n for n in range(1, 101) if few.filter(record(logger, n / 10))] == [1, 2, 4, 8, 16, 32, 64]


def test_after_a_quiet_minute_it_is_told_again() -> None:
    few = FewRepeats()
    assert [few.filter(record("kafka.cluster", second)) for second in (0, 1, 2, 70)] == [True, True, False, True]


def test_messages_are_counted_apart() -> None:
    few = FewRepeats()
    assert [few.filter(record("kafka.cluster", n, f"message {n}")) for n in range(9)] == [True] * 9


def test_our_own_messages_all_pass() -> None:
    few = FewRepeats()
    assert all(few.filter(record("streamfuse.daemon", n)) for n in range(9))
