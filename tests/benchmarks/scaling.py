"""Scaling: the cost of a packet and the memory held, as keys grow and as windows overlap.

    python -m tests.benchmarks.scaling [--rounds N] [--packets N]

Each key has two streams of 20 packets a second each; keys take turns, spread over 12 partitions. Times are medians of CPU time in one run,
the settings taken in turn, of a synchronizer that has been running for some windows; ratios tell more than figures.
"""

from __future__ import annotations

import argparse
import tracemalloc
from collections.abc import Callable

from streamfuse import MILLISECOND, SECOND, Packet, Position, Sliding, StreamPolicy, Synchronizer
from tests.benchmarks.measure import Run, cpu_seconds, table

EPOCH = 1_790_000_000 * SECOND
TICK = 50 * MILLISECOND  # one packet of each stream
STREAMS = ("video", "audio")
PARTITIONS = 12


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.scaling", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="how often each setting is measured")
    parser.add_argument("--packets", type=int, default=100_000, help="packets in each measurement")
    options = parser.parse_args()

    by_keys: dict[str, Callable[[], Load]] = {
        f"{keys:,} keys" if keys > 1 else "1 key": lambda keys=keys: Load(keys, overlap=1)  # type: ignore[misc]
        for keys in (1, 100, 10_000)
    }
    by_overlap: dict[str, Callable[[], Load]] = {
        f"each packet in {overlap}": lambda overlap=overlap: Load(100, overlap)  # type: ignore[misc]
        for overlap in (1, 2, 8)
    }
    report("As keys grow (windows of 200 ms)", by_keys, options.packets, options.rounds)
    report("As windows overlap (100 keys, windows of 200 ms)", by_overlap, options.packets, options.rounds)


class Load:
    """A synchronizer and the packets that come to it, as event time goes on."""

    def __init__(self, keys: int, overlap: int) -> None:
        self.keys = [f"room-{number}" for number in range(keys)]
        self._rows = -(-keys // PARTITIONS)  # records that a partition gets in a tick, at most
        size = 200 * MILLISECOND
        policy = StreamPolicy(max_out_of_orderness=TICK, idle_timeout=SECOND)
        self.sync = Synchronizer(dict.fromkeys(STREAMS, policy), Sliding(size, size // overlap), max_hold=SECOND)
        self.ticks = 0
        self.windows = 0

    def stretch(self, packets: int) -> list[list[Packet]]:
        """The next packets, tick by tick."""
        count = max(1, packets // (len(self.keys) * len(STREAMS)))
        made = [self._tick(self.ticks + number) for number in range(count)]
        self.ticks += count
        return made

    def _tick(self, number: int) -> list[Packet]:
        at = EPOCH + number * TICK
        packets = []
        for index, key in enumerate(self.keys):
            row, partition = divmod(index, PARTITIONS)
            for stream in STREAMS:
                position = Position(f"{stream}-{partition}", number * self._rows + row)
                packets.append(Packet(stream, key, at, TICK, "payload", position, at + TICK))
        return packets

    def run(self, ticks: list[list[Packet]]) -> None:
        push = self.sync.push
        for packets in ticks:
            for packet in packets:
                self.windows += len(push(packet))
            self.windows += len(self.sync.elapse(TICK))


def report(title: str, loads: dict[str, Callable[[], Load]], packets: int, rounds: int) -> None:
    running = {name: build() for name, build in loads.items()}
    for load in running.values():
        load.run(load.stretch(20 * len(load.keys) * len(STREAMS)))  # some windows, so that every key is open
    taken = cpu_seconds({name: timed(load, packets) for name, load in running.items()}, rounds)
    first = next(iter(taken.values()))
    rows = []
    for name, seconds in taken.items():
        load = running[name]
        memory, held = memory_of(loads[name], packets)
        windows = load.windows / (load.ticks * len(load.keys) * len(STREAMS))
        rows.append(
            [
                name,
                f"{seconds / packets * 1e6:.1f} us",
                f"{seconds / first:.2f}x",
                f"{windows:.2f}",
                f"{held:,}",
                f"{memory / 1e6:.1f} MB",
                f"{memory / held / 1e3:.1f} kB",
            ]
        )
    header = ["", "CPU per packet", "of the first", "windows per packet", "packets held", "peak memory", "per packet held"]
    table(title, header, rows)


def timed(load: Load, packets: int) -> Callable[[], Run]:
    def prepare() -> Run:
        ticks = load.stretch(packets)
        return lambda: load.run(ticks)

    return prepare


def memory_of(build: Callable[[], Load], packets: int) -> tuple[int, int]:
    """The peak of what a synchronizer holds, in bytes (packets included), and the most packets that it held."""
    tracemalloc.start()
    try:
        load = build()
        held = 0
        for _ in range(max(12, packets // (len(load.keys) * len(STREAMS)))):
            load.run(load.stretch(1))
            held = max(held, sum(load.sync.buffered().values())) if load.ticks % 4 == 0 else held
        return tracemalloc.get_traced_memory()[1], held
    finally:
        tracemalloc.stop()


if __name__ == "__main__":
    main()
