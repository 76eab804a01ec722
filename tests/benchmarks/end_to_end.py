"""End to end: clips go in wire format through in-process topics, and through Kafka, into the daemon and out again as predictions.

    python -m tests.benchmarks.end_to_end [--rounds N] [--rooms N]

Needs STREAMFUSE_DATA for the clips (simulated rooms where it is not set) and STREAMFUSE_KAFKA_HOME for Kafka (left out where it is not).
Prints, for each way, the latency from the end of a window (event time) until its prediction is durable, and where the CPU time went by the
threads of the process; the two ways in turn, in one run. The readers and encoders of the clips are in the same process and counted apart.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import anyio

from streamfuse.assembly import build, make_source
from streamfuse.clock import SystemClock
from streamfuse.config import Config, KafkaConnection
from streamfuse.daemon import Daemon
from streamfuse.feeder import KafkaPublisher, Publish, feed, publish_to
from streamfuse.interfaces import Sink, Source
from streamfuse.models.runner import TorchRunner
from streamfuse.topics import Topics
from streamfuse.types import SECOND, Prediction
from tests.benchmarks.measure import table
from tests.kafka.broker import Broker

STREAMS = {"video": "video", "audio": "audio", "text": "text"}
TICK = os.sysconf("SC_CLK_TCK")


class Timed:
    """A sink that notes when its predictions were durable."""

    def __init__(self, sink: Sink) -> None:
        self.name = sink.name
        self._sink = sink
        self._clock = SystemClock()
        self.latencies: list[float] = []

    async def __aenter__(self) -> Self:
        await self._sink.__aenter__()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        await self._sink.__aexit__(kind, error, trace)

    async def publish(self, predictions: Sequence[Prediction]) -> None:
        await self._sink.publish(predictions)
        now = self._clock.now()
        self.latencies += [(now - p.end) / SECOND for p in predictions]


def config(sources: list[dict[str, Any]], sinks: list[dict[str, Any]]) -> Config:
    return Config.model_validate(
        {
            "sources": sources,
            "sinks": sinks,
            "sync": {
                "max_hold": "500ms",
                "streams": {
                    "video": {"max_out_of_orderness": "50ms"},
                    "audio": {"max_out_of_orderness": "50ms"},
                    "text": {"required": False},
                },
            },
            "web": {"enabled": False},
        }
    )


def feeds(rooms: int) -> list[Source]:
    """What goes in, at real pace: the clips, or simulated rooms without network delays."""
    clock, topics = SystemClock(), Topics()
    folder = os.environ.get("STREAMFUSE_DATA")
    if folder is None:
        delays = dict.fromkeys(STREAMS, "0ms")
        made = {"type": "simulator", "rooms": rooms, "seconds": 12, "truth": False, "faults": {"delay": delays}}
        settings: list[Any] = config([made], [{"type": "topics"}]).sources
    else:
        clips = sorted((Path(folder) / "clips").glob("*"))
        of = [{"type": "media", "path": str(clips[n % len(clips)]), "key": f"room-{n}"} for n in range(rooms)]
        settings = config(of, [{"type": "topics"}]).sources
    return [make_source(one, clock, topics) for one in settings]


@asynccontextmanager
async def through_topics() -> AsyncIterator[tuple[Daemon, Publish]]:
    topics = Topics()
    daemon = build(config([{"type": "topics", "topics": STREAMS}], [{"type": "topics", "topic": "predictions"}]), topics=topics)
    yield daemon, publish_to(topics)


@asynccontextmanager
async def through_kafka(broker: Broker, number: int) -> AsyncIterator[tuple[Daemon, Publish]]:
    names = {stream: f"{topic}-{number}" for stream, topic in STREAMS.items()}
    for name in (*names.values(), f"predictions-{number}"):
        broker.create_topic(name, 1)
    source = {"type": "kafka", "bootstrap": broker.bootstrap, "topics": names, "group": f"bench-{number}", "start": "earliest"}
    sink = {"type": "kafka", "bootstrap": broker.bootstrap, "topic": f"predictions-{number}"}
    async with KafkaPublisher(KafkaConnection(bootstrap=broker.bootstrap), names) as publish:

        async def renamed(topic: str, record: Any) -> None:
            await publish(names[topic], record)

        yield build(config([source], [sink])), renamed


async def measure(daemon: Daemon, publish: Publish, rooms: int) -> tuple[list[float], Counter[str], float]:
    """Latencies in s, CPU seconds by kind of thread, and wall seconds."""
    sink = Timed(daemon.sinks[0])
    daemon.sinks[0] = sink
    stop = anyio.Event()
    sources = feeds(rooms)
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(anyio.create_task_group())
        running.start_soon(daemon.run, stop)
        await daemon.ready.wait()
        before, began = _cpu_by_thread(), daemon.clock.monotonic()
        async with anyio.create_task_group() as feeding:
            for source in sources:
                feeding.start_soon(feed, source, publish, STREAMS)
        await anyio.sleep(1.5)  # the last windows close by their hold
        spent = _cpu_by_thread()
        spent.subtract(before)
        wall = (daemon.clock.monotonic() - began) / SECOND
        stop.set()
    assert not any(daemon.synchronizer.unaccounted().values())
    return sorted(sink.latencies), spent, wall


def _cpu_by_thread() -> Counter[str]:
    """CPU seconds so far by what a thread does. The rest are threads that torch, OpenCV and FFmpeg made."""
    known: Counter[str] = Counter()
    names = {thread.native_id: thread.name for thread in threading.enumerate()}
    for task in Path("/proc/self/task").iterdir():
        try:
            fields = (task / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        known[_role(names.get(int(task.name), ""))] += (int(fields[11]) + int(fields[12])) / TICK  # type: ignore[assignment]
    return known


def _role(name: str) -> str:
    if name.startswith("decode"):
        return "decode, preprocess"
    if name.startswith("device"):
        return "model"
    if name == "MainThread":
        return "event loop: hand-over, synchronizer, sinks"
    if "kafka" in name.lower() or "poll" in name.lower():
        return "Kafka client"
    return "feeding: read, encode"


def percentile(ordered: Sequence[float], share: float) -> float:
    return ordered[int(share * (len(ordered) - 1))]


async def run(rounds: int, rooms: int) -> None:
    home = os.environ.get("STREAMFUSE_KAFKA_HOME")
    latencies: dict[str, list[float]] = {}
    spent: dict[str, Counter[str]] = {}
    runners: dict[str, Counter[str]] = {}
    walls: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        broker = Broker(Path(home), Path(folder)) if home else None
        if broker is None:
            print("STREAMFUSE_KAFKA_HOME is not set: without Kafka")
        else:
            broker.start()
        try:
            for number in range(rounds):
                ways: dict[str, Any] = {"in-process topics": through_topics()}
                if broker is not None:
                    ways["Kafka"] = through_kafka(broker, number)
                for name, way in ways.items():
                    async with way as (daemon, publish):
                        found, cpu, wall = await measure(daemon, publish, rooms)
                        assert isinstance(daemon.runner, TorchRunner)
                        runners.setdefault(name, Counter()).update(daemon.runner.stage_seconds)
                    latencies.setdefault(name, []).extend(found)
                    spent.setdefault(name, Counter()).update(cpu)
                    walls[name] += wall  # type: ignore[assignment]
        finally:
            if broker is not None:
                broker.kill()
    report(latencies, spent, runners, walls)


def report(
    latencies: dict[str, list[float]], spent: dict[str, Counter[str]], runners: dict[str, Counter[str]], walls: Counter[str]
) -> None:
    rows = []
    base = percentile(sorted(latencies["in-process topics"]), 0.5)
    for name, found in latencies.items():
        ordered = sorted(found)
        p50, p99 = percentile(ordered, 0.5), percentile(ordered, 0.99)
        rows.append([name, str(len(ordered)), f"{p50 * 1000:.0f} ms", f"{p99 * 1000:.0f} ms", f"{p50 / base:.2f}"])
    table("from the end of a window until its prediction is durable", ["through", "windows", "p50", "p99", "p50 ratio"], rows)
    for name, threads in spent.items():
        total = sum(seconds for role, seconds in threads.items() if not role.startswith("feeding"))
        windows = len(latencies[name])
        rows = [
            [role, f"{seconds * 1000 / windows:.1f} ms", f"{seconds / total:.0%}" if not role.startswith("feeding") else "apart"]
            for role, seconds in sorted(threads.items(), key=lambda found: -found[1])
        ]
        rows.append(["all but feeding", f"{total * 1000 / windows:.1f} ms", f"{total / walls[name]:.0%} of a core"])
        table(f"CPU by thread, through {name}", ["thread", "CPU a window", "share"], rows)
        stages = ", ".join(f"{stage} {seconds * 1000 / windows:.1f} ms" for stage, seconds in runners[name].items())
        print(f"  of these in the runner (wall): {stages}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--rooms", type=int, default=5, help="how many clips or rooms at the same time (default 5)")
    options = parser.parse_args()
    anyio.run(run, options.rounds, options.rooms)


if __name__ == "__main__":
    main()
