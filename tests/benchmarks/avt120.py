"""AVT-120: how fast, how right and how soon frames and sound are paired, beside Bytewax and ROS.

    STREAMFUSE_BENCH=folder-with-avt120.py python -m tests.benchmarks.avt120 [--workload PATH] [--rounds N]

Speeds are medians of CPU time in one run, the systems taken in turn; ratios tell more than figures. Holds are in simulated time, free of
machine noise. Bytewax: `pip install bytewax`. ROS: Debian's package `python3-message-filters`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import inf
from pathlib import Path

from streamfuse import SECOND, Tumbling
from tests.benchmarks.measure import Run, cpu_seconds, table
from tests.benchmarks.subjects import Bytewax, Ros, StreamFuse
from tests.benchmarks.workload import Record, Subject, Workload, read_ahead


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.avt120", description=__doc__.split("\n")[0])
    parser.add_argument("--workload", type=Path, help="avt120.py, where STREAMFUSE_BENCH does not name its folder")
    parser.add_argument("--rounds", type=int, default=7, help="how often each speed is measured")
    options = parser.parse_args()
    workload = Workload(options.workload)

    two, three = workload.records("video", "audio"), workload.records()
    live = available(
        {
            "StreamFuse": lambda: StreamFuse("video", "audio", metrics=True),
            "Bytewax, hop 100 ms": lambda: Bytewax(live=True, batch=1, hop=0.100),
            "Bytewax, hop 20 ms": lambda: Bytewax(live=True, batch=1, hop=0.020),
            "ROS": lambda: Ros("video", "audio"),
        }
    )
    backlog = available(
        {
            "StreamFuse": lambda: StreamFuse("video", "audio", live=False, metrics=True, batch=100),
            "Bytewax, hop 100 ms": lambda: Bytewax(live=False, batch=100, hop=0.100),
            "Bytewax, hop 20 ms": lambda: Bytewax(live=False, batch=100, hop=0.020),
        }
    )
    collect = available(
        {
            "StreamFuse": lambda: StreamFuse("video", "audio", live=False, metrics=True, batch=100, windows=Tumbling(SECOND)),
            "StreamFuse, one by one": lambda: StreamFuse("video", "audio", live=False, metrics=True, windows=Tumbling(SECOND)),
            "Bytewax": lambda: Bytewax(live=False, batch=100, hop=1.0, pair=False),
            "Bytewax, one by one": lambda: Bytewax(live=False, batch=1, hop=1.0, pair=False),
        }
    )
    with_text = available(
        {
            "StreamFuse": lambda: StreamFuse("video", "audio", "text"),
            "ROS": lambda: Ros("video", "audio", "text"),
        }
    )

    quality(workload, "Pairs: video with its nearest sound, packet by packet as they arrive", live, two)
    quality(workload, "Text required as well (once a second on average)", with_text, three)
    quality(workload, "Sound dead from 40 s on", live, workload.records("video", "audio", gap=("audio", 40.0, inf)))
    reading_order(workload, two)
    speed("Speed, packet by packet as they arrive", live, two, options.rounds)
    speed("Speed from a backlog, in batches of 100", backlog, two, options.rounds)
    speed("Speed of collecting windows of 1 s from a backlog, in batches of 100, without pairing", collect, two, options.rounds)


def available(subjects: Mapping[str, Callable[[], Subject]]) -> dict[str, Subject]:
    """Those whose packages are installed; the others are named."""
    found: dict[str, Subject] = {}
    for name, build in subjects.items():
        try:
            found[name] = build()
        except ImportError as error:
            print(f"{name}: left out, {error}")
    return found


def quality(workload: Workload, title: str, subjects: Mapping[str, Subject], records: Sequence[Record]) -> None:
    rows = []
    for name, subject in subjects.items():
        s = workload.score(subject.run(subject.prepare(records)), records)
        held = [f"{s[figure] * 1000:.0f} ms" for figure in ("held_p50", "held_p99", "held_max")]
        rows.append([name, f"{s['coverage']:.2%}", f"{s['right']:.2%}", *held])
    table(title, ["", "answered", "true nearest", "hold p50", "p99", "max"], rows)


def reading_order(workload: Workload, records: Sequence[Record]) -> None:
    """Packets that are late, without any allowed lateness, in order of arrival and with one topic read 5 s ahead of the other."""
    subjects = available(
        {
            "StreamFuse": lambda: StreamFuse("video", "audio", live=False, max_hold=None, allowed_lateness=0),
            "Bytewax, hop 100 ms": lambda: Bytewax(live=False, batch=100, hop=0.100),
        }
    )
    orders = [records, read_ahead(records, "video", 5.0), read_ahead(records, "audio", 5.0)]
    rows = []
    for name, subject in subjects.items():
        even, video, audio = (sum(subject.run(subject.prepare(order)).late.values()) for order in orders)
        rows.append([name, f"{even}", f"{video - even:+d}", f"{audio - even:+d}"])
    table("Late packets, and how many more when a topic is read 5 s ahead", ["", "even", "video ahead", "audio ahead"], rows)


def speed(title: str, subjects: Mapping[str, Subject], records: Sequence[Record], rounds: int) -> None:
    taken = cpu_seconds({name: partial(prepared, subject, records) for name, subject in subjects.items()}, rounds)
    ours = taken["StreamFuse"]
    rows = [[name, f"{len(records) / t:,.0f}", f"{t / ours:.2f}x"] for name, t in taken.items()]
    table(title, ["", "packets per CPU second", "StreamFuse, times as fast"], rows)


def prepared(subject: Subject, records: Sequence[Record]) -> Run:
    return partial(subject.run, subject.prepare(records))


if __name__ == "__main__":
    main()
