"""The HTTP side: what it answers, and what it says when it can't listen."""

from __future__ import annotations

import urllib.error
import urllib.request

import pytest

from streamfuse.config import WebSettings
from streamfuse.errors import ConfigError
from streamfuse.metrics import Metrics
from streamfuse.web.server import serve


def get(address: tuple[str, int], path: str, method: str = "GET") -> tuple[int, str]:
    try:
        with urllib.request.urlopen(urllib.request.Request(f"http://{address[0]}:{address[1]}{path}", method=method), timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.read().decode()


def test_it_answers_health_and_metrics_and_nothing_else() -> None:
    is_ready = False
    with serve(WebSettings(port=0), Metrics().registry, lambda: True, lambda: is_ready) as address:
        assert address[0] == "127.0.0.1"
        assert get(address, "/livez") == (200, "alive\n")
        assert get(address, "/readyz") == (503, "not ready\n")
        is_ready = True
        assert get(address, "/readyz") == (200, "ready\n")
        status, text = get(address, "/metrics")
        assert status == 200
        assert "streamfuse_ready" in text
        assert get(address, "/anything")[0] == 404
        assert get(address, "/metrics", "POST")[0] == 405


def test_a_daemon_that_hangs_is_not_alive() -> None:
    with serve(WebSettings(port=0), Metrics().registry, lambda: False, lambda: True) as address:
        assert get(address, "/livez") == (503, "not alive\n")


def test_a_port_that_is_taken_is_told_with_the_fix() -> None:
    registry = Metrics().registry
    with (
        serve(WebSettings(port=0), registry, lambda: True, lambda: True) as (_, port),
        pytest.raises(ConfigError, match=r"set web\.port to a free one"),
        serve(WebSettings(port=port), registry, lambda: True, lambda: True),
    ):
        pass


def test_an_address_of_another_machine_is_told_with_the_fix() -> None:
    with (
        pytest.raises(ConfigError, match=r"set web\.host to an address of this machine"),
        serve(WebSettings(host="192.0.2.1", port=0), Metrics().registry, lambda: True, lambda: True),
    ):
        pass
