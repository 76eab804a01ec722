"""Scale-out: a backlog worked off by one, two and four replicas, and what a record costs them.

    python -m tests.benchmarks.kafka_replicas [--rounds N] [--seconds N] [--transport NAME]

Needs STREAMFUSE_KAFKA_HOME. The replicas share four partitions before the backlog comes; CPU is that of all replicas together, from then on
until the last prediction is there. With fewer cores than replicas the throughput can't grow; what a record costs should not either.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from statistics import median

from kafka import KafkaConsumer, TopicPartition

from streamfuse.codecs import encode_packet
from tests.benchmarks.kafka_setup import cpu_of, one_broker, produce_all, until_shared
from tests.benchmarks.measure import table
from tests.kafka.broker import Broker
from tests.kafka.fleet import Fleet
from tests.kafka.rooms import Place, records

REPLICAS = (1, 2, 4)
PARTITIONS = 4
ROOMS = [f"room-{number}" for number in range(16)]
TIMEOUT = 180.0


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.kafka_replicas", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seconds", type=int, default=60, help="of event time in the backlog of 16 rooms")
    parser.add_argument("--transport", choices=["kafka-python", "confluent"], default="kafka-python")
    options = parser.parse_args()
    found: dict[int, list[tuple[float, float]]] = {replicas: [] for replicas in REPLICAS}
    with one_broker() as broker:
        for number in range(options.rounds):
            for replicas in REPLICAS:
                found[replicas].append(worked_off(broker, f"{replicas}-{number}", replicas, options.seconds, options.transport))
    rows = []
    base_rate, base_cpu = (median(one[column] for one in found[1]) for column in range(2))
    for replicas, rounds in found.items():
        rate, cpu = (median(one[column] for one in rounds) for column in range(2))
        rows.append([str(replicas), f"{rate:.0f}", f"{rate / base_rate:.2f}", f"{cpu * 1e3:.2f} ms", f"{cpu / base_cpu:.2f}"])
    title = f"records of {len(ROOMS)} rooms, {PARTITIONS} partitions, {os.cpu_count()} cores, {options.transport}"
    table(title, ["replicas", "records/s", "ratio", "CPU a record", "ratio"], rows)


def worked_off(broker: Broker, name: str, replicas: int, seconds: int, transport: str) -> tuple[float, float]:
    """Records a second, and CPU seconds a record."""
    place = Place.make(broker, f"bench-{name}", transport=transport, partitions=PARTITIONS)
    backlog = records(1, ROOMS, 0, seconds)
    wanted = len(place.windows(backlog))
    consumer = KafkaConsumer(bootstrap_servers=broker.bootstrap, auto_offset_reset="earliest", metrics_enabled=False)
    consumer.assign([TopicPartition(f"{place.name}.predictions", 0)])
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, Fleet(Path(folder), lambda _: place.config()) as fleet:
        for slot in range(replicas):
            fleet.start(slot)
        until_shared(broker.bootstrap, place.name, replicas)
        processes = [daemon.process.pid for daemon in fleet.daemons]
        cpu, began = sum(map(cpu_of, processes)), time.monotonic()
        produce_all(broker.bootstrap, ((place.topics[p.stream], encode_packet(p)) for p in backlog))
        count = 0
        while count < wanted:
            if time.monotonic() > began + TIMEOUT or fleet.dead():
                raise RuntimeError(f"expected {wanted} predictions, found {count}: {fleet.dead()}")
            count += sum(map(len, consumer.poll(50).values()))
        took, spent = time.monotonic() - began, sum(map(cpu_of, processes)) - cpu
    consumer.close()
    return len(backlog) / took, spent / len(backlog)


if __name__ == "__main__":
    main()
