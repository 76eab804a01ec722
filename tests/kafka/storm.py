"""Replicas join and leave every few seconds under load, in order or by SIGKILL; nothing is lost, and no window comes from a stale owner.

    python -m tests.kafka.storm --seconds 120 --seed 1 --delivery exactly_once

Needs STREAMFUSE_KAFKA_HOME. Ends with 1 where a prediction is lost, wrong or, with exactly once, twice; where within one generation of the
group two producers published for one key; or where a replica that was serving did not say that it is alive.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
import urllib.error
from dataclasses import dataclass, field
from pathlib import Path

from tests.kafka.broker import Broker
from tests.kafka.fleet import Fleet, Trial
from tests.kafka.log import generations, stale, written
from tests.kafka.rooms import Place
from tests.running import Running

MOST = 3  # replicas at a time
SPEED = 6.0  # of the load: so fast that work is under way when a partition goes


@dataclass
class Outcome:
    """`violations` are sentences. `checked` is in how many stretches of one key and one generation the owner was looked at."""

    violations: list[str]
    windows: int = 0
    joins: int = 0
    leaves: int = 0
    generations: int = 0
    checked: int = 0
    looks: int = 0

    def __str__(self) -> str:
        return (
            f"{self.joins} joins, {self.leaves} leaves, {self.generations} generations, {self.windows} windows,"
            f" owners checked {self.checked} times, liveness {self.looks} times"
        )


def run(broker: Broker, place: Place, folder: Path, seconds: float, seed: int) -> Outcome:
    config = place.config()
    config["sources"][0]["session_timeout"] = "3s"  # else the group mostly waits for the dead
    outcome = Outcome([])
    with Trial(place, folder, config=lambda slot: config, speed=SPEED) as trial:
        liveness = _Liveness(trial.fleet)
        _storm(trial, liveness, outcome, random.Random(seed), time.monotonic() + seconds)
        trial.end()
    begun = generations(broker.data, place.name)
    owners = stale(written(broker.data, f"{place.name}.predictions"), begun)
    outcome.windows, outcome.generations, outcome.checked, outcome.looks = trial.windows, len(begun), owners.checked, liveness.looks
    outcome.violations = [*trial.violations, *(f"stale owner: {found}" for found in owners.found), *liveness.violations]
    return outcome


def _storm(trial: Trial, liveness: _Liveness, outcome: Outcome, dice: random.Random, until: float) -> None:
    fleet = trial.fleet
    slots = 0
    while time.monotonic() < until:
        running = sorted(fleet.running)
        if len(running) == 1 or (len(running) < MOST and dice.random() < 0.5):
            slots += 1
            fleet.start(slots)
            outcome.joins += 1
        else:
            slot = dice.choice(running)
            outcome.leaves += 1
            if dice.random() < 0.5:
                fleet.kill(slot)
            else:
                code, said = fleet.stop(slot)
                if code:
                    outcome.violations.append(f"a replica was stopped and ended with {code}: {said}")
        change = min(until, time.monotonic() + dice.uniform(1, 5))
        while time.monotonic() < change:
            trial.read_for(0.3)
            liveness.look()


@dataclass
class _Liveness:
    """Asks each replica, from its first answer on, whether it is alive."""

    fleet: Fleet
    looks: int = 0
    violations: list[str] = field(default_factory=list)
    _serving: set[int] = field(default_factory=set)

    def look(self) -> None:
        for slot, daemon in self.fleet.running.items():
            answer = _alive(daemon)
            if answer == "200 alive":
                self._serving.add(slot)
                self.looks += 1
            elif slot in self._serving:
                self.violations.append(f"replica {slot} was asked whether it is alive and answered {answer}")


def _alive(daemon: Running) -> str:
    try:
        code, text = daemon.get("/livez")
    except (urllib.error.URLError, OSError) as error:
        return str(error)
    return f"{code} {text.strip()}"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.kafka.storm", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--delivery", choices=["at_least_once", "exactly_once"], default="at_least_once")
    parser.add_argument("--transport", choices=["kafka-python", "confluent"], default="kafka-python")
    options = parser.parse_args()
    home = os.environ.get("STREAMFUSE_KAFKA_HOME")
    if home is None:
        print("STREAMFUSE_KAFKA_HOME is not set: point it at a Kafka distribution, or run `make kafka`", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="storm-") as folder, Broker(Path(home), Path(folder)) as broker:
        place = Place.make(broker, "storm", delivery=options.delivery, transport=options.transport)
        outcome = run(broker, place, Path(folder) / "replicas", options.seconds, options.seed)
    for violation in outcome.violations:
        print(violation)
    print(
        f"{options.seconds:.0f} s, {options.delivery}, {options.transport}, seed {options.seed}: {outcome}:"
        f" {'FAILED' if outcome.violations else 'passed'}"
    )
    return 1 if outcome.violations else 0


if __name__ == "__main__":
    sys.exit(main())
