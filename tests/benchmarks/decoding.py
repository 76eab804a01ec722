"""Decoding: what it costs to make a packet of a record, CPU microseconds each, by what is said in its headers and by its size.

    python -m tests.benchmarks.decoding [--rounds N] [--records N]

Records of 20 keys in 12 partitions, 25 a second of event time and key, their headers as fresh objects, as a client hands them over.
`events` are ours (twelve headers of CloudEvents), `plain` those of a producer that says nothing but key and timestamp. Medians over the
rounds, sizes and kinds taken in turn.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from streamfuse import MILLISECOND, SECOND, Packet, Position
from streamfuse.codecs import Record, RecordDecoder, encode_packet
from streamfuse.types import Encoded, Payload
from tests.benchmarks.measure import Run, cpu_seconds, table

NOON = 1_777_636_800 * SECOND
EVERY = 40 * MILLISECOND
KEYS, PARTITIONS = 20, 12
SIZES = (1_000, 10_000, 50_000)
MEDIA: dict[str, Callable[[int], Payload]] = {
    "video": lambda size: Encoded(b"\xff\xd8\xff" + bytes(size - 3), "image/jpeg"),
    "audio": lambda size: Encoded(bytes(size), "audio/pcm", 16_000, 1),
    "text": lambda size: "word " * (size // 5),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.decoding", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=31, help="how often each kind is measured")
    parser.add_argument("--records", type=int, default=500, help="records in each measurement: what a poll brings")
    options = parser.parse_args()

    kinds = [(f"{stream}, events", stream, True) for stream in MEDIA] + [
        (f"{stream}, plain", stream, False) for stream in ("video", "text")
    ]
    subjects: dict[str, Callable[[], Run]] = {
        f"{kind} {size}": lambda stream=stream, event=event, size=size: load(stream, event, size, options.records)  # type: ignore[misc]
        for kind, stream, event in kinds
        for size in SIZES
    }
    taken = cpu_seconds(subjects, options.rounds)
    rows = [[kind, *(f"{taken[f'{kind} {size}'] / options.records * 1e6:.2f}" for size in SIZES)] for kind, _, _ in kinds]
    table("CPU us per record", ["", *(f"{size // 1000} KB" for size in SIZES)], rows)


def load(stream: str, event: bool, size: int, count: int) -> Run:
    payload = MEDIA[stream](size)
    records = [record(stream, number, payload, event) for number in range(count)]
    decoder = RecordDecoder({name: name for name in MEDIA}, 1_000_000)

    def run() -> None:
        for one in records:
            if not isinstance(decoder.decode(one), Packet):
                raise RuntimeError(f"expected packets, found {decoder.decode(one)}")

    return run


def record(stream: str, number: int, payload: Payload, event: bool) -> Record:
    at, key = NOON + number // KEYS * EVERY, number % KEYS
    name = f"cameras/{key}#{number}"
    wire = encode_packet(Packet(stream, f"room-{key}", at, EVERY, payload, Position(f"{stream}/0", number), at + EVERY, name))
    headers = tuple((name.encode().decode(), value) for name, value in wire.headers) if event else ()
    return Record(stream, key % PARTITIONS, number, wire.key, wire.value, headers, wire.timestamp)


if __name__ == "__main__":
    main()
