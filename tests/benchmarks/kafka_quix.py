"""Beside Quix Streams: the same tumbling windows over the same live topics, the same model, the same broker; latency and CPU.

    python -m tests.benchmarks.kafka_quix [--rounds N] [--rooms N] [--seconds N] [--quix FOLDER]

Needs STREAMFUSE_KAFKA_HOME, and Quix Streams in FOLDER (`make bench` puts it there; by hand: pip install --target FOLDER quixstreams). Each
runs in a process of its own, by turns. Latency is from the end of a window (event time) until a reader has its prediction; both wait 100 ms
for what is out of order. CPU is that of the whole process, start-up left out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from streamfuse.types import MILLISECOND, SECOND
from tests.benchmarks.kafka_setup import Live, Measured, one_broker, transports
from tests.benchmarks.measure import table
from tests.kafka.broker import Broker
from tests.running import Running

SIZE = SECOND
GRACE = 100 * MILLISECOND
MODELS = {"device": "cpu"}
QUIX = "Quix Streams"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.kafka_quix", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--rooms", type=int, default=8)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--quix", type=Path, default=Path(sys.prefix) / "quix", metavar="FOLDER")
    options = parser.parse_args()
    subjects = [f"StreamFuse, {transport}" for transport in transports()]
    if (options.quix / "quixstreams").is_dir():
        subjects.append(QUIX)
    else:
        print(f"there is no Quix Streams in {options.quix}: without it; pip install --target {options.quix} quixstreams")
    found: dict[str, list[Measured]] = {subject: [] for subject in subjects}
    with one_broker() as broker:
        for number in range(options.rounds):
            for subject in subjects:
                name = f"{number}-{subjects.index(subject)}"
                with (
                    Live(broker, name, options.rooms, options.seconds) as live,
                    running(subject, broker, live, options.quix) as process,
                ):
                    found[subject].append(live.measure(process))
    report(found, options.rooms)


@contextmanager
def running(subject: str, broker: Broker, live: Live, quix: Path) -> Iterator[int]:
    """Its process id."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        if subject == QUIX:
            with quix_streams(broker, live, quix, folder) as process:
                yield process.pid
        else:
            with Running(Path(folder) / "daemon", config(broker, live, subject.partition(", ")[2])) as daemon:
                yield daemon.process.pid


@contextmanager
def quix_streams(broker: Broker, live: Live, quix: Path, folder: str) -> Iterator[subprocess.Popen[bytes]]:
    asked = {
        "bootstrap": broker.bootstrap,
        "topics": live.topics,
        "out": live.predictions,
        "group": live.name,
        "size": SIZE,
        "grace": GRACE,
    }
    told = json.dumps({**asked, "models": MODELS, "state": f"{folder}/state"})
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(quix), os.getcwd()]), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-m", "tests.benchmarks.quix_subject", told], env=environ)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def config(broker: Broker, live: Live, transport: str) -> dict[str, Any]:
    kafka = {"type": "kafka", "bootstrap": broker.bootstrap, "transport": transport}
    patient = {"max_out_of_orderness": "100ms"}
    return {
        "sources": [{**kafka, "topics": live.topics, "group": live.name, "start": "earliest"}],
        "sync": {
            "windows": {"type": "tumbling", "size": "1s"},
            "streams": {"video": patient, "audio": patient, "text": {**patient, "required": False}},
            "max_hold": None,  # Quix Streams has none
        },
        "models": MODELS,
        "sinks": [{**kafka, "topic": live.predictions}],
    }


def report(found: dict[str, list[Measured]], rooms: int) -> None:
    base = found[QUIX] if QUIX in found else next(iter(found.values()))
    base_p50, base_cpu = median(one.p50 for one in base), median(one.cpu_a_window for one in base)
    rows = []
    for subject, rounds in found.items():
        p50, p99, cpu, share = (median(getattr(one, name) for one in rounds) for name in ("p50", "p99", "cpu_a_window", "cpu_share"))
        whole = sum(one.whole for one in rounds) / sum(one.windows for one in rounds)
        rows.append(
            [
                subject,
                str(sum(one.windows for one in rounds)),
                f"{whole:.1%}",
                f"{p50 * 1000:.0f} ms",
                f"{p99 * 1000:.0f} ms",
                f"{p50 / base_p50:.2f}",
                f"{cpu * 1000:.1f} ms",
                f"{share:.0%}",
                f"{cpu / base_cpu:.2f}",
            ]
        )
    header = ["", "windows", "whole", "p50", "p99", "p50 ratio", "CPU a window", "of a core", "CPU ratio"]
    table(f"tumbling windows of 1 s, {rooms} rooms live, {Live.RATE * rooms} records a second", header, rows)


if __name__ == "__main__":
    main()
