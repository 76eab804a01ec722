"""Replicas under load while they, their brokers or the network fail: no window is lost, and none is other than without the fault.

Each fault meets both deliveries at the same time, one by each client.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka.admin import ACL, ACLFilter, ACLOperation, ACLPermissionType, ResourcePattern, ResourceType

from tests.kafka.broker import Broker
from tests.kafka.campaign import Plan, run
from tests.kafka.cluster import Cluster
from tests.kafka.fleet import Trials
from tests.kafka.proxy import Proxy
from tests.kafka.rooms import WAYS, Brokers, Place
from tests.kafka.traffic import PATIENCE

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.slow,
    pytest.mark.usefixtures("closed_sockets"),
]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(Path(os.environ["STREAMFUSE_KAFKA_HOME"]), tmp_path) as cluster:
        yield cluster


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with Proxy() as proxy:
        yield proxy


def places(brokers: Brokers, name: str, **options: Any) -> list[Place]:
    return [Place.make(brokers, f"{name}-{delivery}", delivery=delivery, transport=transport, **options) for delivery, transport in WAYS]


@pytest.mark.parametrize(
    ("delivery", "transport", "windows", "kills"),
    [
        ("at_least_once", "confluent", "sliding", 3),
        ("exactly_once", "kafka-python", "sliding", 3),
        ("exactly_once", "confluent", "session", 2),
    ],
)
def test_kills(broker: Broker, unique: str, tmp_path: Path, delivery: str, transport: str, windows: str, kills: int) -> None:
    """`python -m tests.kafka.campaign` kills a hundred times."""
    plan = Plan(kills=kills, delivery=delivery, transport=transport, windows=windows, lateness="1s")
    outcome = run(plan, broker, unique, tmp_path)
    assert outcome.violations == []
    assert outcome.verdict.windows > 50


def test_a_bad_network(tmp_path: Path, proxy: Proxy) -> None:
    """Connections are cut, delayed, slowed down and silenced, over and over."""
    dice = random.Random(5)
    with Broker(Path(os.environ["STREAMFUSE_KAFKA_HOME"]), tmp_path, proxy=proxy.port) as broker:
        proxy.target = broker.behind
        through = places(broker, "bad", bootstrap=f"127.0.0.1:{proxy.port}", allowed_lateness="1s")
        with Trials(through, tmp_path / "replicas") as trials:
            cut = 0
            for _ in range(6):
                proxy.delay = dice.choice([0.0, 0.02, 0.2])
                proxy.rate = dice.choice([None, 200_000])
                trials.read_for(dice.uniform(0.5, 2))
                cut += proxy.cut()
            proxy.delay, proxy.rate = 0.0, None
            with proxy.silent():
                trials.read_for(3)
            trials.end()
    assert cut > 6
    assert trials.violations == []


def test_a_broker_that_is_killed_and_comes_back(own_broker: Broker, tmp_path: Path) -> None:
    with own_broker as broker, Trials(places(broker, "back"), tmp_path / "replicas") as trials:
        for _ in range(2):
            trials.until_more(50)
            broker.kill()
            trials.read_for(2)
            broker.start()
        trials.until_more(50)
        trials.end()
    assert trials.violations == []


def test_coordinator_and_leaders_that_move(cluster: Cluster, tmp_path: Path) -> None:
    moved = places(cluster, "moved")
    with Trials(moved, tmp_path / "replicas") as trials:
        for topic in ("__consumer_offsets", *(f"{place.name}.predictions" for place in moved)):
            trials.until_more(50)
            gone = cluster.leader(topic)
            cluster.brokers[gone].kill()
            cluster.until_moved(topic, gone)
            trials.until_more(50)
            cluster.brokers[gone].start()
            cluster.until_in_sync(topic, 3)
        trials.end()
    assert trials.violations == []


def test_a_topic_that_takes_no_records_for_a_while(cluster: Cluster, tmp_path: Path) -> None:
    """Predictions must be on both of two brokers, of which one is away; all else goes on with the two that are left."""
    refused = places(cluster, "refused", predictions_on=(1, 2))
    with Trials(refused, tmp_path / "replicas") as trials:
        trials.until_more(50)
        cluster.brokers[2].kill()
        for place in refused:
            cluster.until_in_sync(f"{place.name}.predictions", 1)
        trials.read_for(1)
        before = trials.published
        trials.read_for(6)
        assert trials.published == before  # else nothing was refused
        cluster.brokers[2].start()
        trials.until_more(50)
        trials.end()
    assert trials.violations == []


def test_a_right_that_is_taken_away(tmp_path: Path) -> None:
    """Waiting does not help: the replica ends and says what is missing, as often as it is started; with the right back it goes on."""
    authorizer = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found": "true",
    }
    with Broker(Path(os.environ["STREAMFUSE_KAFKA_HOME"]), tmp_path, authorizer) as broker:
        denied = places(broker, "denied")
        topics = [ResourcePattern(ResourceType.TOPIC, f"{place.name}.predictions") for place in denied]
        may = [ACL("User:*", "*", ACLOperation.ALL, ACLPermissionType.ALLOW, topic) for topic in topics]
        may_not = [ACL("User:*", "*", ACLOperation.WRITE, ACLPermissionType.DENY, topic) for topic in topics]
        with Trials(denied, tmp_path / "replicas") as trials, broker.admin() as admin:
            trials.until_more(50)
            admin.create_acls([*may, *may_not])
            for _ in range(2):
                for trial in trials.all:
                    code, said = trial.fleet.ended(0)
                    assert code == 6, said
                    assert "TopicAuthorizationFailed" in said or "grant" in said
                    trial.fleet.start(0)
            admin.delete_acls([ACLFilter("User:*", "*", ACLOperation.WRITE, ACLPermissionType.DENY, topic) for topic in topics])
            for trial, had in zip(trials.all, trials.published, strict=True):
                deadline = time.monotonic() + PATIENCE
                while len(trial.published.all) == had:
                    assert time.monotonic() < deadline, trial.fleet.dead()
                    if trial.fleet.dead():  # what was started before the right was back may find that it has none
                        trial.fleet.kill(0)
                        trial.fleet.start(0)
                    trial.published.more(0.2)
            trials.until_more(50)
            trials.end()
    assert trials.violations == []
