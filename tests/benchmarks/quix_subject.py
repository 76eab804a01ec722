"""Quix Streams doing what our daemon does: a tumbling window per room over three topics, our model on its contents, the prediction out.

Run by `python -m tests.benchmarks.kafka_quix`, in a process of its own, with Quix Streams on the path. As an application of Quix Streams
would be written, in its fastest setting: the payloads go into its state as the bytes that they are.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import marshal
import sys
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from streamfuse.clock import SystemClock
from streamfuse.codecs import RecordDecoder, prediction_to_json
from streamfuse.config import ModelSettings
from streamfuse.models.runner import TorchRunner
from streamfuse.types import MILLISECOND, Absence, Packet, Record, Window

Kept = dict[str, Any]  # a record as it is kept in the state: what it takes to make a packet of it later


def main(
    bootstrap: str, topics: Mapping[str, str], out: str, group: str, size: int, grace: int, models: Mapping[str, Any], state: str
) -> None:
    """`size` of the windows and `grace` are in ns."""
    quix: Any = importlib.import_module("quixstreams")
    options: Any = importlib.import_module("quixstreams.state.rocksdb").RocksDBOptions
    aggregations: Any = importlib.import_module("quixstreams.dataframe.windows.aggregations")
    app = quix.Application(
        broker_address=bootstrap,
        consumer_group=group,
        auto_offset_reset="earliest",
        commit_interval=1.0,
        state_dir=state,
        rocksdb_options=options(dumps=marshal.dumps, loads=marshal.loads),
        loglevel="WARNING",
        consumer_poll_timeout=0.1,
    )
    model = Model(dict(topics), models)
    frames = []
    for topic in topics.values():
        given = app.topic(topic, key_deserializer="str", value_deserializer="bytes", timestamp_extractor=event_time_of)
        frames.append(app.dataframe(given).apply(keep(topic), metadata=True))
    every = frames[0]
    for frame in frames[1:]:
        every = every.concat(frame)
    windows = every.tumbling_window(size // MILLISECOND, grace_ms=grace // MILLISECOND).agg(value=aggregations.Collect()).final()
    predictions = windows.apply(lambda window, key, timestamp, headers: model.predict(key, window), metadata=True)
    predictions.to_topic(app.topic(out, key_serializer="str", value_serializer="bytes"))
    with model:
        app.run()


def event_time_of(value: Any, headers: Any, timestamp: float, timestamp_type: Any) -> int:
    """ms, of the CloudEvents header; the record's own timestamp is when it was sent."""
    for name, content in headers or ():
        if name == "ce_time":
            return int(importlib.import_module("datetime").datetime.fromisoformat(content.decode()).timestamp() * 1000)
    return int(timestamp)


def keep(topic: str) -> Any:
    def kept(value: bytes, key: str, timestamp: int, headers: Any) -> Kept:
        return {"topic": topic, "key": key, "value": value, "headers": [list(header) for header in headers or ()], "timestamp": timestamp}

    return kept


class Model:
    """Our runner, one window at a time; use it with `with`."""

    def __init__(self, topics: Mapping[str, str], models: Mapping[str, Any]) -> None:
        self._decoder = RecordDecoder(topics, 2**24)
        self._loop = asyncio.new_event_loop()
        self._runner = TorchRunner(ModelSettings.model_validate(models), SystemClock())

    def __enter__(self) -> None:
        self._loop.run_until_complete(self._runner.__aenter__())

    def __exit__(self, *_: object) -> None:
        self._loop.run_until_complete(self._runner.__aexit__(None, None, None))
        self._loop.close()

    def predict(self, key: str, window: Mapping[str, Any]) -> bytes:
        packets: dict[str, list[Packet]] = defaultdict(list)
        for number, kept in enumerate(window["value"]):
            headers = tuple((name, value) for name, value in kept["headers"])
            record = Record(kept["topic"], 0, number, kept["key"].encode(), kept["value"], headers, kept["timestamp"] * MILLISECOND)
            packet = self._decoder.decode(record)
            if isinstance(packet, Packet):
                packets[packet.stream].append(packet)
        made = Window(
            key,
            window["start"] * MILLISECOND,
            window["end"] * MILLISECOND,
            {stream: tuple(sorted(of, key=lambda packet: packet.event_time)) for stream, of in packets.items()},
            {stream: Absence.GAP for stream in self._runner.inputs if stream not in packets},
        )
        return prediction_to_json(self._loop.run_until_complete(self._predict(made))).encode()

    async def _predict(self, window: Window) -> Any:
        (prediction,) = await self._runner.predict(await self._runner.prepare([window]))
        return prediction


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
