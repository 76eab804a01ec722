"""Replicas under load while they, their brokers or the network fail: no window is lost, and none is other than without the fault."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka.admin import ACL, ACLFilter, ACLOperation, ACLPermissionType, ResourcePattern, ResourceType

from tests.kafka.broker import Broker
from tests.kafka.campaign import Plan, run
from tests.kafka.cluster import Cluster
from tests.kafka.fleet import Trial
from tests.kafka.proxy import Proxy
from tests.kafka.rooms import DELIVERIES, Place

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.slow,
    pytest.mark.usefixtures("closed_sockets"),
    pytest.mark.parametrize("delivery", DELIVERIES),
]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(Path(os.environ["STREAMFUSE_KAFKA_HOME"]), tmp_path) as cluster:
        yield cluster


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with Proxy() as proxy:
        yield proxy


@pytest.mark.parametrize(("windows", "lateness", "kills"), [("sliding", "1s", 3), ("session", "1s", 2)])
def test_kills(broker: Broker, unique: str, tmp_path: Path, delivery: str, windows: str, lateness: str, kills: int) -> None:
    """`python -m tests.kafka.campaign` kills a hundred times."""
    outcome = run(Plan(kills=kills, delivery=delivery, windows=windows, lateness=lateness), broker, unique, tmp_path)
    assert outcome.violations == []
    assert outcome.verdict.windows > 50


def test_a_bad_network(tmp_path: Path, proxy: Proxy, delivery: str) -> None:
    """Connections are cut, delayed, slowed down and silenced, over and over."""
    dice = random.Random(5)
    with Broker(Path(os.environ["STREAMFUSE_KAFKA_HOME"]), tmp_path, proxy=proxy.port) as broker:
        proxy.target = broker.behind
        place = Place.make(broker, "bad", bootstrap=f"127.0.0.1:{proxy.port}", delivery=delivery, allowed_lateness="1s")
        with Trial(place, tmp_path / "replicas") as trial:
            cut = 0
            for _ in range(6):
                proxy.delay = dice.choice([0.0, 0.02, 0.2])
                proxy.rate = dice.choice([None, 200_000])
                trial.read_for(dice.uniform(0.5, 2))
                cut += proxy.cut()
            proxy.delay, proxy.rate = 0.0, None
            with proxy.silent():
                trial.read_for(3)
            trial.end()
    assert cut > 6
    assert trial.violations == []


def test_a_broker_that_is_killed_and_comes_back(own_broker: Broker, tmp_path: Path, delivery: str) -> None:
    with own_broker as broker:
        place = Place.make(broker, "back", delivery=delivery)
        with Trial(place, tmp_path / "replicas") as trial:
            for _ in range(2):
                trial.until_more(50)
                broker.kill()
                trial.read_for(2)
                broker.start()
            trial.until_more(50)
            trial.end()
    assert trial.violations == []


def test_coordinator_and_leaders_that_move(cluster: Cluster, tmp_path: Path, delivery: str) -> None:
    place = Place.make(cluster, "moved", delivery=delivery)
    with Trial(place, tmp_path / "replicas") as trial:
        for topic in ("__consumer_offsets", f"{place.name}.predictions"):
            trial.until_more(50)
            gone = cluster.leader(topic)
            cluster.brokers[gone].kill()
            cluster.until_moved(topic, gone)
            trial.until_more(50)
            cluster.brokers[gone].start()
            cluster.until_in_sync(topic, 3)
        trial.end()
    assert trial.violations == []


def test_a_topic_that_takes_no_records_for_a_while(cluster: Cluster, tmp_path: Path, delivery: str) -> None:
    """Predictions must be on both of two brokers, of which one is away; all else goes on with the two that are left."""
    place = Place.make(cluster, "refused", delivery=delivery, predictions_on=(1, 2))
    with Trial(place, tmp_path / "replicas") as trial:
        trial.until_more(50)
        cluster.brokers[2].kill()
        cluster.until_in_sync(f"{place.name}.predictions", 1)
        trial.read_for(1)
        before = len(trial.published.all)
        trial.read_for(6)
        assert len(trial.published.all) == before  # else nothing was refused
        cluster.brokers[2].start()
        trial.until_more(50)
        trial.end()
    assert trial.violations == []


def test_a_right_that_is_taken_away(tmp_path: Path, delivery: str) -> None:
    """Waiting does not help: the replica ends and says what is missing, as often as it is started; with the right back it goes on."""
    authorizer = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found": "true",
    }
    with Broker(Path(os.environ["STREAMFUSE_KAFKA_HOME"]), tmp_path, authorizer) as broker:
        place = Place.make(broker, "denied", delivery=delivery)
        topic = ResourcePattern(ResourceType.TOPIC, f"{place.name}.predictions")
        may = ACL("User:*", "*", ACLOperation.ALL, ACLPermissionType.ALLOW, topic)
        may_not = ACL("User:*", "*", ACLOperation.WRITE, ACLPermissionType.DENY, topic)
        with Trial(place, tmp_path / "replicas") as trial, broker.admin() as admin:
            trial.until_more(50)
            admin.create_acls([may, may_not])
            for _ in range(2):
                code, said = trial.fleet.ended(0)
                assert code == 6, said
                assert "TopicAuthorizationFailed" in said or "grant" in said
                trial.fleet.start(0)
            admin.delete_acls([ACLFilter("User:*", "*", ACLOperation.WRITE, ACLPermissionType.DENY, topic)])
            while trial.fleet.dead():  # what was started before the right was back may find that it has none
                trial.fleet.kill(0)
                trial.fleet.start(0)
            trial.until_more(50)
            trial.end()
    assert trial.violations == []
