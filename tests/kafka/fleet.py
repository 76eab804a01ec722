"""Replicas under load: what feeds them, what starts and kills them, their group as its coordinator sees it, and a trial of all of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import kafka.errors
from kafka.admin import MemberToRemove

from streamfuse.codecs import encode_packet
from streamfuse.types import MILLISECOND, SECOND, Packet, WindowId
from tests.kafka.rooms import NOON, STREAMS, Place, Published, records
from tests.kafka.traffic import PATIENCE
from tests.kafka.verdict import certain, judge, predictions
from tests.kafka.warm import Warm
from tests.running import Running

CHUNK = 10  # seconds of event time that are made at a time
ROOMS = [f"room-{number}" for number in range(6)]
QUIET = 60.0  # seconds without any new prediction after which no more are expected


class Load:
    """Publishes what happens in these rooms, `speed` times as fast as it does, on a thread; use it with `with`, and `end` it inside.

    Waits for brokers that are away, however long, and keeps the order of each partition. Its client is librdkafka, which is not under test
    here, and which gets over what kafka-python's own producer would not (see test_kafka_python.py).
    """

    def __init__(self, place: Place, seed: int, rooms: Sequence[str], speed: float, **kinds: Any) -> None:
        """`kinds` as `records` takes them."""
        self.sent: list[Packet] = []
        self._place = place
        self._seed = seed
        self._rooms = rooms
        self._speed = speed
        self._kinds = kinds
        self._ending = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        self._ending.set()
        self._thread.join()

    def end(self) -> list[Packet]:
        """All packets that were published, in order, when all of them are acknowledged."""
        self._ending.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure
        return self.sent

    def _run(self) -> None:
        import confluent_kafka

        producer = confluent_kafka.Producer(
            {
                "bootstrap.servers": self._place.broker.bootstrap,
                "enable.idempotence": True,
                "partitioner": "murmur2_random",
                "linger.ms": 20,
                "message.timeout.ms": 0,  # tries for ever
                "log_level": 0,
            }
        )
        try:
            self._publish(producer)
            if left := producer.flush(PATIENCE):
                raise RuntimeError(f"expected the brokers to take all records within {PATIENCE} s, found {left} left")
        except BaseException as error:
            self._failure = error

    def _publish(self, producer: Any) -> None:
        began = time.monotonic()
        chunk = 0
        while True:
            for packet in records(self._seed * 1000 + chunk, self._rooms, chunk * CHUNK, CHUNK, **self._kinds):
                due = began + (packet.event_time - NOON) / SECOND / self._speed
                if self._ending.wait(max(0.0, due - time.monotonic())):
                    return
                key, value, headers, timestamp = encode_packet(packet)
                self.sent.append(packet)
                producer.produce(self._place.topics[packet.stream], value, key, headers=list(headers), timestamp=timestamp // MILLISECOND)
                producer.poll(0)
            chunk += 1


class Fleet:
    """Replicas of one daemon, each in its slot; use it with `with`, which leaves none behind."""

    def __init__(self, folder: Path, config: Callable[[int], Mapping[str, Any]], kind: type[Running] = Warm) -> None:
        """`config` gives that of a slot."""
        self.running: dict[int, Running] = {}
        self._folder = folder
        self._config = config
        self._kind = kind
        self._lives = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        for slot in list(self.running):
            self.kill(slot)

    @property
    def daemons(self) -> list[Running]:
        return list(self.running.values())

    def start(self, slot: int) -> Running:
        """Does not wait until it is ready."""
        assert slot not in self.running
        self._lives += 1
        self.running[slot] = self._kind(self._folder / f"{self._lives}", self._config(slot))
        return self.running[slot]

    def kill(self, slot: int) -> None:
        daemon = self.running.pop(slot)
        daemon.kill()
        daemon.__exit__(None, None, None)

    def stop(self, slot: int) -> tuple[int, str]:
        """In order, by SIGTERM; returns its exit code and what it said."""
        daemon = self.running.pop(slot)
        with daemon:
            return daemon.terminate()

    def ended(self, slot: int) -> tuple[int, str]:
        """Its exit code and what it said, when it has ended of itself."""
        daemon = self.running.pop(slot)
        with daemon:
            return daemon.ended()

    def dead(self) -> list[str]:
        """What those said that have ended of themselves."""
        return [f"slot {slot} ended with {d.process.poll()}: {d.said}" for slot, d in self.running.items() if d.process.poll() is not None]


class Group:
    """The group of a place; use it with `with`."""

    def __init__(self, place: Place) -> None:
        self._name = place.name
        self._context = place.broker.admin()

    def __enter__(self) -> Self:
        self._admin = self._context.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        self._context.__exit__(kind, error, trace)

    def look(self) -> tuple[str, dict[str, int]]:
        """Its state (`Stable`, `PreparingRebalance` ...), and with how many partitions each member goes. Nothing while nobody knows."""
        try:
            group = self._admin.describe_groups([self._name])[self._name]
        except kafka.errors.RetriableError as error:
            return type(error).__name__, {}
        members = {
            member["member_id"]: sum(len(topic["partitions"]) for topic in member["member_assignment"]["assigned_partitions"])
            if member["member_assignment"]
            else 0
            for member in group["members"]
        }
        return group["group_state"], members

    def forget(self, members: Iterable[str]) -> None:
        """Put them out, as the broker would do after 10 s of silence."""
        self._admin.remove_group_members(self._name, [MemberToRemove(member_id=member) for member in members])


def is_ready(daemon: Running) -> bool:
    try:
        return daemon.get("/readyz")[0] == 200
    except OSError:  # it does not serve yet
        return False


def members_wanted(replicas: int, partitions: int) -> list[int]:
    """How many partitions of all topics each member gets by the Range assignor."""
    return sorted((partitions // replicas + (number < partitions % replicas)) * len(STREAMS) for number in range(replicas))


class Trial:
    """Replicas under load in one place; what they publish is read as it comes and judged at the `end`. Use it with `with`."""

    def __init__(
        self,
        place: Place,
        folder: Path,
        *,
        config: Callable[[int], Mapping[str, Any]] | None = None,
        replicas: int = 1,
        speed: float = 2.0,
        seed: int = 1,
    ) -> None:
        """`config` gives that of a slot, where it is not the place's own."""
        self.violations: list[str] = ["the trial has not come to its end"]
        self.windows = 0
        self._place = place
        self._replicas = replicas
        self.published = Published(place)
        self.fleet = Fleet(folder, config or (lambda slot: place.config()))
        self.load = Load(place, seed, ROOMS, speed, late=0.03, twice=0.03)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for part in (self.published, self.fleet, self.load):
                stack.enter_context(part)
            for slot in range(self._replicas):
                self.fleet.start(slot)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        self._stack.close()

    def read_for(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.published.more(min(left, 0.2))
            assert self.fleet.dead() == []

    def until_more(self, count: int) -> None:
        """Returns when so many more predictions are there."""
        enough = len(self.published.all) + count
        deadline = time.monotonic() + PATIENCE
        while len(self.published.all) < enough:
            assert time.monotonic() < deadline, [daemon.said for daemon in self.fleet.daemons]
            self.read_for(0.2)

    def end(self) -> None:
        """Ends the load, lets the replicas work it off, stops them in order, and judges. No violations: nothing was lost or wrong."""
        sent = self.load.end()
        expected = predictions(self._place.windows(sent), self._place.config()["models"])
        self.windows = len(expected)
        read_on(self.published, certain(expected), self.fleet)
        violations = self.fleet.dead()
        for slot in sorted(self.fleet.running):
            code, said = self.fleet.stop(slot)
            if code:
                violations.append(f"slot {slot} was stopped and ended with {code}: {said}")
        self.published.to_the_end()
        self.violations = violations + judge(self.published.all, expected).violations(self._place.delivery)


class Trials:
    """Several places under the same faults at the same time; use it with `with`."""

    def __init__(self, places: Sequence[Place], folder: Path) -> None:
        self.all = [Trial(place, folder / place.name) for place in places]
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for trial in self.all:
                stack.enter_context(trial)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        self._stack.close()

    @property
    def violations(self) -> list[str]:
        return [violation for trial in self.all for violation in trial.violations]

    @property
    def published(self) -> list[int]:
        """How many predictions there are of each."""
        return [len(trial.published.all) for trial in self.all]

    def read_for(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            for trial in self.all:
                trial.read_for(min(left, 0.1))

    def until_more(self, count: int) -> None:
        """Returns when each has so many more predictions."""
        before = self.published
        for trial, had in zip(self.all, before, strict=True):
            trial.until_more(count - (len(trial.published.all) - had))

    def end(self) -> None:
        for trial in self.all:
            trial.end()


def read_on(published: Published, wanted: Iterable[WindowId], fleet: Fleet) -> None:
    """Returns when all of these are there, when none came for long, or when a replica has ended of itself."""
    left = set(wanted) - {prediction.id for prediction in published.all}
    quiet_since = time.monotonic()
    read = len(published.all)
    while left and time.monotonic() - quiet_since < QUIET and not fleet.dead():
        if published.more(0.2):
            left -= {prediction.id for prediction in published.all[read:]}
            read = len(published.all)
            quiet_since = time.monotonic()
    published.to_the_end()
