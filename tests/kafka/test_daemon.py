"""Daemons as processes on a real broker: killed, stopped, started before it, and side by side."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from streamfuse.types import Packet, Prediction, Window, WindowId
from tests.kafka.broker import Broker
from tests.kafka.rooms import Place, Published, contents, records, repeats
from tests.running import Running

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

ROOMS = [f"room-{number}" for number in range(6)]
KILLS = 3
STOPS = 2


@pytest.mark.parametrize(("allowed_lateness", "client"), [("0s", "kafka-python"), ("1s", "kafka-python"), ("1s", "confluent")])
def test_kills_lose_no_window_and_repeats_are_the_same(
    broker: Broker, unique: str, tmp_path: Path, allowed_lateness: str, client: str
) -> None:
    place = Place.make(broker, unique, transport=client, allowed_lateness=allowed_lateness)
    dice = random.Random(KILLS)
    sent: list[Packet] = []
    with Published(place) as published:
        for life in range(KILLS):
            sent += place.publish(records(life, ROOMS, 10 * life, 10, late=0.03, twice=0.03))
            with Running(tmp_path / str(life), place.config()) as daemon:
                published.until_more(dice.randrange(1, 100), daemon)
                daemon.kill()
                place.forget_the_dead()
        sent += place.publish(records(KILLS, ROOMS, 10 * KILLS, 10, late=0.03, twice=0.03))
        run_to_the_end(place, sent, published, tmp_path / "last")
    windows = place.windows(sent)
    assert_complete(published.all, windows)
    repeated = [same for same in repeats(published.all) if same[0].id in certain(windows)]
    assert repeated  # else no kill was worth its name
    assert [same for same in repeated if len({(p.label, str(contents(p))) for p in same}) > 1] == []


def test_sigterm_drains_and_the_next_run_goes_on_without_a_repeat(broker: Broker, unique: str, tmp_path: Path, transport: str) -> None:
    place = Place.make(broker, unique, transport=transport, allowed_lateness="1s")
    sent: list[Packet] = []
    with Published(place) as published:
        for life in range(STOPS):
            sent += place.publish(records(life, ROOMS, 10 * life, 10, late=0.03, twice=0.03))
            with Running(tmp_path / str(life), place.config()) as daemon:
                published.until_more(1 + 50 * life, daemon)
                assert daemon.terminate()[0] == 0, daemon.said
            published.to_the_end()
        sent += place.publish(records(STOPS, ROOMS, 10 * STOPS, 10, late=0.03, twice=0.03))
        run_to_the_end(place, sent, published, tmp_path / "last")
    assert_complete(published.all, place.windows(sent))
    assert repeats(published.all) == []


def test_two_replicas_share_the_rooms_and_publish_each_window_once(broker: Broker, unique: str, tmp_path: Path) -> None:
    place = Place.make(broker, unique)
    sent = records(2, ROOMS, 0, 20)
    expected = {window.id: window for window in place.windows(sent)}
    with (
        Published(place) as published,
        Running(tmp_path / "one", place.config()) as one,
        Running(tmp_path / "other", place.config()) as other,
    ):
        for daemon in (one, other):
            daemon.notified("READY=1")
        one.until(lambda: place.shares() == [3, 3])
        place.publish(sent)
        published.until_there(expected, one, other)
        by_replica = [daemon.total("streamfuse_windows_total") for daemon in (one, other)]
        for daemon in (one, other):
            assert daemon.terminate()[0] == 0, daemon.said
        published.to_the_end()
    assert {p.id: contents(p) for p in published.all} == {id: contents(window) for id, window in expected.items()}
    assert len(published.all) == len(expected) == sum(by_replica)
    assert min(by_replica) > 0


def test_a_daemon_started_before_its_broker_lives_waits_and_goes_on(own_broker: Broker, tmp_path: Path) -> None:
    with own_broker as broker:
        place = Place.make(broker, "early")
        sent = records(3, ROOMS, 0, 5)
        place.publish(sent)
        broker.kill()
        with Running(tmp_path / "daemon", place.config()) as daemon:
            daemon.notified("STATUS=opening sources and sinks")
            daemon.until(lambda: "attempt 2 failed" in daemon.said)
            assert daemon.get("/livez") == (200, "alive\n")
            assert daemon.get("/readyz")[0] == 503
            broker.start()
            daemon.notified("READY=1")
            assert daemon.get("/readyz") == (200, "ready\n")
            with Published(place) as published:
                published.until_there([window.id for window in place.windows(sent)], daemon)


def test_a_daemon_that_waits_for_its_broker_can_be_stopped(own_broker: Broker, tmp_path: Path) -> None:
    with Running(tmp_path / "daemon", Place(own_broker, "absent", {}).config()) as daemon:
        daemon.notified("STATUS=opening sources and sinks")
        daemon.until(lambda: "attempt 1 failed" in daemon.said)
        started = time.monotonic()
        assert daemon.terminate()[0] == 0, daemon.said
        assert time.monotonic() - started < 5


def test_a_stop_during_an_outage_says_so_and_loses_nothing(own_broker: Broker, tmp_path: Path, transport: str) -> None:
    with own_broker as broker:
        place = Place.make(broker, "outage", transport=transport)
        sent = place.publish(records(4, ROOMS, 0, 20))
        with Running(tmp_path / "first", {**place.config(), "pipeline": {"drain_timeout": "1s"}}) as daemon:
            with Published(place) as published:
                published.until_more(1, daemon)
            broker.kill()
            code, said = daemon.terminate()
            assert code == 7, said
            assert "raise pipeline.drain_timeout" in said.lower()
            assert "ExceptionGroup" not in said
            assert "ignored" not in said
        broker.start()
        with Published(place) as published:
            run_to_the_end(place, sent, published, tmp_path / "next")
    assert_complete(published.all, place.windows(sent))


def run_to_the_end(place: Place, sent: Sequence[Packet], published: Published, folder: Path) -> None:
    with Running(folder, place.config()) as daemon:
        published.until_there(certain(place.windows(sent)), daemon)
        assert daemon.terminate()[0] == 0, daemon.said
    published.to_the_end()


def assert_complete(predictions: Sequence[Prediction], windows: Sequence[Window]) -> None:
    """Every window of an uninterrupted run is there with what it holds, and no other."""
    expected = {window.id: contents(window) for window in windows}
    found = {prediction.id: contents(prediction) for prediction in predictions}
    assert {id for id in found if not id.revision} == {id for id in expected if not id.revision}
    assert {id: found.get(id) for id in certain(windows)} == {id: expected[id] for id in certain(windows)}


def certain(windows: Sequence[Window]) -> set[WindowId]:
    """The first and the last revision of each window. Which lie between depends on how late packets interleave with the window's end."""
    last = {window.id[:3]: window.id for window in windows}
    return {window.id for window in windows if not window.revision} | set(last.values())
