"""Kills replicas with SIGKILL at random moments under load, and compares what was published with an uninterrupted run.

    python -m tests.kafka.campaign --kills 100 --seed 1 --delivery exactly_once

Needs STREAMFUSE_KAFKA_HOME. Ends with 1 where a prediction is lost, wrong or, with exactly once, twice; the folder with what every replica
said and with the broker's data is then kept. The seed fixes the load and the plan of the kills, not how the processes interleave.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.progress import Progress, TextColumn, TimeElapsedColumn

from tests.kafka.broker import Broker
from tests.kafka.fleet import ROOMS, Fleet, Group, Load, is_ready, members_wanted, read_on
from tests.kafka.rooms import PARTITIONS, Place, Published
from tests.kafka.traffic import PATIENCE
from tests.kafka.verdict import Verdict, certain, judge, predictions

WINDOWS = {
    "sliding": {"type": "sliding", "size": "1s", "hop": "500ms"},
    "session": {"type": "session", "gap": "500ms"},
}


@dataclass(frozen=True)
class Plan:
    """`speed` is that of the load, `early` the share of kills that do not wait until the group is at rest, `forget` the share after which
    the group is told of the death, where it would wait for the session to time out. `static` members keep their names, so that who comes
    back has its partitions at once."""

    kills: int = 100
    seed: int = 1
    delivery: str = "at_least_once"
    replicas: int = 2
    windows: str = "sliding"
    lateness: str = "0s"
    transport: str = "kafka-python"
    speed: float = 3.0
    early: float = 0.2
    forget: float = 0.9
    static: bool = False


@dataclass
class Outcome:
    """`violations` are sentences; without any, the campaign is passed."""

    verdict: Verdict
    violations: list[str]
    packets: int
    waited: int
    seconds: float


def run(plan: Plan, broker: Broker, name: str, folder: Path, tell: Callable[[str, int, int], None] = lambda *_: None) -> Outcome:
    """`tell` is told what goes on, the number of kills so far, and of predictions."""
    began = time.monotonic()
    place = Place.make(
        broker,
        name,
        delivery=plan.delivery,
        transport=plan.transport,
        windows=WINDOWS[plan.windows],
        allowed_lateness=plan.lateness,
    )
    with Published(place) as published, Group(place) as group, Fleet(folder, lambda slot: config_of(plan, place, slot)) as fleet:
        killer = _Killer(plan, published, group, fleet, tell)
        with Load(place, plan.seed, ROOMS, plan.speed, late=0.03, twice=0.03, pauses=plan.windows == "session") as load:
            killer.run()
            sent = load.end()
        tell("working off the rest", killer.kills, len(published.all))
        expected = predictions(place.windows(sent), place.config()["models"])
        read_on(published, certain(expected), fleet)
        violations = fleet.dead()
        for slot in sorted(fleet.running):
            code, said = fleet.stop(slot)
            if code:
                violations.append(f"slot {slot} was stopped and ended with {code}: {said}")
        published.to_the_end()
    verdict = judge(published.all, expected)
    return Outcome(verdict, violations + verdict.violations(plan.delivery), len(sent), killer.waited, time.monotonic() - began)


def config_of(plan: Plan, place: Place, slot: int) -> dict[str, Any]:
    config = place.config()
    if plan.static:
        config["sources"][0]["instance"] = f"replica-{slot}"
    return config


@dataclass
class _Killer:
    plan: Plan
    published: Published
    group: Group
    fleet: Fleet
    tell: Callable[[str, int, int], None]
    kills: int = 0
    waited: int = 0
    """How often the dead stayed in the group until their session timed out."""
    members: dict[int, str] = field(default_factory=dict)
    """Which of the group is in which slot, as far as it can be told."""
    gone: set[str] = field(default_factory=set)
    last: tuple[int, frozenset[str]] = -1, frozenset()
    """The slot of the last kill, and the members that there were."""

    def run(self) -> None:
        """Returns when all kills are done and the group is at rest."""
        dice = random.Random(self.plan.seed)
        for slot in range(self.plan.replicas):
            self.fleet.start(slot)
            self._settle(slot + 1)
        while self.kills < self.plan.kills:
            if dice.random() >= self.plan.early:
                self._settle(self.plan.replicas)
            self._read(dice.uniform(0, 2))
            self._kill(dice.randrange(self.plan.replicas), dice.random() < self.plan.forget)
        self._settle(self.plan.replicas)

    def _kill(self, slot: int, forget: bool) -> None:
        members = self._learn()
        self.fleet.kill(slot)
        self.kills += 1
        dead = self.members.pop(slot, None)
        self.last = slot, frozenset(members)
        self.gone |= {dead} if dead is not None else members.keys() - self.members.values()
        if not self.plan.static:  # else who comes back takes the place of the dead
            if forget and dead is not None:
                self.group.forget([dead])
            elif members.keys() - self.members.values():
                self.waited += 1
        self.fleet.start(slot)

    def _settle(self, replicas: int) -> None:
        """Returns when so many members share the partitions."""
        deadline = time.monotonic() + PATIENCE
        while True:
            members = self._learn()
            if sorted(members.values()) == members_wanted(replicas, PARTITIONS) and all(map(is_ready, self.fleet.daemons)):
                stayed = members.keys() & self.last[1]
                survivors = self.fleet.running.keys() - self.members.keys() - {self.last[0]}
                if len(stayed) == len(survivors) == 1:
                    self.members[survivors.pop()] = stayed.pop()
                return
            if self.fleet.dead() or time.monotonic() > deadline:
                raise RuntimeError(f"expected {replicas} replicas to share the partitions, found {self.group.look()}: {self.fleet.dead()}")
            self._read(0.2)

    def _learn(self) -> dict[str, int]:
        """The members of the group and how many partitions each has; notes which of them is in which slot, where that can be told."""
        _, members = self.group.look()
        self.members = {slot: member for slot, member in self.members.items() if member in members}
        new = members.keys() - self.members.values() - self.gone
        unknown = self.fleet.running.keys() - self.members.keys()
        if len(new) == len(unknown) == 1:
            self.members[unknown.pop()] = new.pop()
        return members

    def _read(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.published.more(min(left, 0.2))
        self.tell("killing", self.kills, len(self.published.all))


def main() -> int:
    plan, keep = _options()
    home = os.environ.get("STREAMFUSE_KAFKA_HOME")
    if home is None:
        print("STREAMFUSE_KAFKA_HOME is not set: point it at a Kafka distribution, or run `make kafka`", file=sys.stderr)
        return 2
    folder = Path(tempfile.mkdtemp(prefix="campaign-"))
    columns = (
        *Progress.get_default_columns()[:2],
        TextColumn("{task.completed:.0f}/{task.total:.0f} kills, {task.fields[published]} predictions"),
    )
    outcome = None
    try:
        with Broker(Path(home), folder) as broker, Progress(*columns, TimeElapsedColumn()) as progress:
            task = progress.add_task("starting", total=plan.kills, published=0)
            outcome = run(
                plan,
                broker,
                "campaign",
                folder / "replicas",
                lambda what, kills, published: progress.update(task, description=what, completed=kills, published=published),
            )
    finally:
        if keep or outcome is None or outcome.violations:
            print(f"what the replicas said, and the broker's data, are in {folder}")
        else:
            shutil.rmtree(folder)
    for violation in outcome.violations:
        print(violation)
    names = ", members keep their names" if plan.static else f" ({outcome.waited} dead waited out)"
    print(
        f"{plan.kills} kills of {plan.replicas} replicas in {outcome.seconds:.0f} s{names}, {plan.delivery}, {plan.windows},"
        f" lateness {plan.lateness}, {plan.transport}, seed {plan.seed}: {outcome.packets} packets, {outcome.verdict}:"
        f" {'FAILED' if outcome.violations else 'passed'}"
    )
    return 1 if outcome.violations else 0


def _options() -> tuple[Plan, bool]:
    parser = argparse.ArgumentParser(
        prog="python -m tests.kafka.campaign", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=Plan.kills)
    parser.add_argument("--seed", type=int, default=Plan.seed)
    parser.add_argument("--delivery", choices=["at_least_once", "exactly_once"], default=Plan.delivery)
    parser.add_argument("--replicas", type=int, default=Plan.replicas)
    parser.add_argument("--windows", choices=sorted(WINDOWS), default=Plan.windows)
    parser.add_argument("--lateness", default=Plan.lateness, help="allowed lateness, such as 1s")
    parser.add_argument("--transport", choices=["kafka-python", "confluent"], default=Plan.transport)
    parser.add_argument("--speed", type=float, default=Plan.speed, help="of the load, as a multiple of real time")
    parser.add_argument("--early", type=float, default=Plan.early, help="share of kills that do not wait until the group is at rest")
    parser.add_argument("--forget", type=float, default=Plan.forget, help="share of kills of which the group is told")
    parser.add_argument("--static", action="store_true", help="members keep their names over restarts")
    parser.add_argument("--keep", action="store_true", help="keep the folder in any case")
    options = vars(parser.parse_args())
    keep: bool = options.pop("keep")
    return Plan(**options), keep


if __name__ == "__main__":
    sys.exit(main())
