"""Whoever may not read is told so in one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

import streamfuse
from streamfuse.errors import SourceError
from tests.kafka.secure import PASSWORD, SecureBroker
from tests.kafka.test_subscribe import make_topic, prediction, publish, take
from tests.kafka.traffic import PATIENCE

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.anyio]


@pytest.fixture(scope="module")
def secure(secure_broker: SecureBroker) -> SecureBroker:
    """Its user `reader` may read the topic `predictions`, in a group that begins with `readers`."""
    for topic in ("predictions", "private"):
        make_topic(secure_broker, topic)
        publish(secure_broker, topic, [prediction(0)])
    secure_broker.set_password("reader")
    secure_broker.allow("reader", "topic", "predictions", ["read"])
    secure_broker.allow("reader", "group", "readers", ["read"], prefixed=True)
    return secure_broker


@pytest.fixture(params=["kafka-python", "confluent"])
def options(request: pytest.FixtureRequest, secure: SecureBroker) -> dict[str, Any]:
    return {
        "security": "sasl_ssl",
        "ca_file": secure.certificates.ca,
        "username": "reader",
        "password": PASSWORD,
        "transport": request.param,
        "start": "earliest",
    }


async def test_who_may_read_reads_with_a_group_and_without(secure: SecureBroker, options: dict[str, Any]) -> None:
    for group in (None, f"readers-{options['transport']}"):
        async with streamfuse.subscribe(secure.secure, group=group, **options) as predictions:
            assert await take(predictions, 1) == [prediction(0)]


async def test_a_password_can_come_from_a_file(secure: SecureBroker, options: dict[str, Any], tmp_path: Path) -> None:
    del options["password"]
    file = tmp_path / "password"
    file.write_text(f"{PASSWORD}\n")
    async with streamfuse.subscribe(secure.secure, password_file=file, **options) as predictions:
        assert await take(predictions, 1) == [prediction(0)]


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({"password": "mistyped"}, "password"),
        ({"ca_file": None}, "certificate"),
        ({"topic": "private"}, "private"),
        ({"group": "others"}, "others"),
    ],
    ids=["password", "authority", "topic", "group"],
)
async def test_who_may_not_is_told_why(secure: SecureBroker, options: dict[str, Any], changed: dict[str, Any], found: str) -> None:
    predictions = streamfuse.subscribe(secure.secure, **(options | changed))
    with pytest.raises(SourceError, match=found) as refused, anyio.fail_after(PATIENCE):
        await anext(predictions)
    said = str(refused.value)
    assert "\n" not in said
    assert "mistyped" not in said
    assert PASSWORD not in said
    await predictions.aclose()
