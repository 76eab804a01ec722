"""The demo: the daemon as `streamfuse run` runs it, on its own config, with a view beside it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import anyio
from rich.console import Console
from rich.live import Live

from streamfuse.assembly import build
from streamfuse.codecs import prediction_from_json
from streamfuse.config import (
    Config,
    JsonlSinkSettings,
    MediaSourceSettings,
    SimulatorSourceSettings,
    SinkSettings,
    TopicsSinkSettings,
    TopicsSourceSettings,
)
from streamfuse.daemon import Daemon, stop_on_signal
from streamfuse.errors import ConfigError, Problem
from streamfuse.loading import parse_config
from streamfuse.logs import set_up_logs
from streamfuse.view import View

TOPIC = "predictions"


def demo(clip: str | None, *, rooms: int, seed: int, seconds: float | None, out: Path | None) -> int:
    """Run it and return the exit code. `clip` is a video file, None for simulated rooms; `seconds` of None goes on until it is stopped."""
    console = Console()
    config = demo_config(clip, rooms=rooms, seed=seed, seconds=seconds, out=out)
    live = console.is_terminal
    set_up_logs("error" if live else "warning", "text")
    with console.status("loading the model"):
        daemon = build(config)
    view = View(daemon, console)
    anyio.run(_show, daemon, view, live)
    view.summary()
    _next_steps(console, out)
    return 0


def demo_config(clip: str | None, *, rooms: int, seed: int, seconds: float | None, out: Path | None) -> Config:
    """The config that comes with the package (`config/demo.yaml`), with what was asked for on the command line."""
    config = parse_config(files("streamfuse").joinpath("demo.yaml").read_text("utf-8"), os.environ)
    sinks: list[SinkSettings] = [TopicsSinkSettings(type="topics", topic=TOPIC)]
    if out is not None:
        sinks.append(JsonlSinkSettings(type="jsonl", path=str(out)))
    web = config.web.model_copy(update={"port": config.web.port if "STREAMFUSE_WEB__PORT" in os.environ else 0})
    config = config.model_copy(update={"sinks": sinks, "web": web})
    if clip is None:
        simulator = config.feed[0]
        assert isinstance(simulator, SimulatorSourceSettings)
        changed = simulator.model_copy(update={"rooms": rooms, "seed": seed, "seconds": seconds})
        return config.model_copy(update={"feed": [changed]})
    if "://" not in clip and not Path(clip).is_file():
        raise ConfigError([Problem("clip", f"there is no file {clip}; name a video file")])
    return _without_truth(config).model_copy(update={"feed": [MediaSourceSettings(type="media", path=clip, loop=seconds is None)]})


def _without_truth(config: Config) -> Config:
    """A clip has no known truth."""
    source = config.sources[0]
    assert isinstance(source, TopicsSourceSettings)
    topics = {stream: topic for stream, topic in source.topics.items() if stream != config.models.truth}
    streams = {stream: policy for stream, policy in config.sync.streams.items() if stream in topics}
    return config.model_copy(
        update={
            "sources": [source.model_copy(update={"topics": topics})],
            "sync": config.sync.model_copy(update={"streams": streams}),
            "models": config.models.model_copy(update={"truth": None}),
        }
    )


async def _show(daemon: Daemon, view: View, live: bool) -> None:
    stop = anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(stop_on_signal, stop)
        with daemon.topics.subscribe(TOPIC) as predictions:

            async def watch() -> None:
                async for records in predictions:
                    for record in records:
                        prediction = prediction_from_json(record.value or b"")
                        view.take(prediction)
                        if not live:
                            print(view.line(prediction), flush=True)

            async with anyio.create_task_group() as watching:
                watching.start_soon(watch)
                if live:
                    with Live(view, console=view.console, refresh_per_second=8, screen=False, transient=True):
                        await daemon.run(stop)
                else:
                    await daemon.run(stop)
                daemon.topics.close(TOPIC)
        group.cancel_scope.cancel()


def _next_steps(console: Console, out: Path | None) -> None:
    program = _program()
    steps: Sequence[tuple[str, str]] = (
        (f"{program} demo my.mp4", "the same with a video file of yours"),
        (f"{program} demo --rooms 4 --forever", "four rooms, until Ctrl-C"),
        (f"{program} run config/demo.yaml", "the daemon without the view: predictions as JSON lines"),
        (f"{program} sim --bootstrap localhost:9092", "publish simulated rooms to Kafka"),
        (f"{program} run config/kafka.yaml", "and let the daemon read them from there"),
        (f"{program} subscribe --bootstrap localhost:9092", "and print its predictions"),
    )
    console.print("\n[bold]next[/]")
    if out is not None:
        console.print(f"  {program} subscribe {out}", highlight=False, soft_wrap=True)
    for command, what in steps:
        console.print(f"  {command:<58} [bright_black]{what}[/]", highlight=False, soft_wrap=True)


def _program() -> str:
    """How this program was started, so that the commands can be pasted."""
    name = Path(sys.argv[0])
    if name.name != "streamfuse":
        return "python -m streamfuse"
    if shutil.which("streamfuse") == str(name):
        return "streamfuse"
    return str(name.relative_to(Path.cwd()) if name.is_relative_to(Path.cwd()) else name)
