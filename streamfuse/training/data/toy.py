"""Small data sets that are made, not fetched: to try training in a minute, and to see how a manifest looks.

`python -m streamfuse.training.data.toy FOLDER` writes the scenes as a manifest, with pictures, sounds and a recipe.
"""

from __future__ import annotations

import argparse
import json
import wave
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from streamfuse.config import Settings
from streamfuse.errors import DataError, Problem
from streamfuse.models.batch import Items
from streamfuse.models.preprocess.features import Features
from streamfuse.training.data import Heads, Inputs, checked
from streamfuse.training.data.layout import Layout
from streamfuse.training.data.targets import encode
from streamfuse.training.samples import DATA, Rows
from streamfuse.types import MILLISECOND, Audio, Image, Packet, Payload, Position

SCENE_INPUTS: Mapping[str, Mapping[str, Any]] = {
    "video": {"type": "frames", "height": 32, "width": 32, "fps": 2, "seconds": 0},
    "audio": {"type": "waveform", "seconds": 0.4},
    "text": {"type": "text_bytes", "length": 32, "most": 1},
}
SCENES = ("low red", "high red", "low blue", "high blue")
SECONDS, RATE, SIZE = 0.4, 16_000, 32
XOR_SIZE = 8


class ToySettings(Settings):
    kind: Literal["scenes", "xor"] = "scenes"
    """`scenes`: a picture tells the colour, a tone its height, and now and then words tell one of them; nothing tells both. `xor`: each of
    `streams` streams of numbers holds a bit, and only all together the answer, whether their sum is odd."""
    rows: int = Field(600, gt=0)
    seed: int = Field(0, ge=0)
    noise: float = Field(1.0, ge=0)
    """Times the usual."""
    streams: int = Field(2, gt=0, le=8)
    """Of `xor`."""


@DATA.register("toy")
def toy(folder: Path, inputs: Inputs | None, heads: Heads | None, **options: Any) -> Rows:
    """Rows that depend on the settings alone."""
    settings = checked(ToySettings, options)
    return _scenes(settings, inputs, heads) if settings.kind == "scenes" else _xor(settings, inputs, heads)


# --- scenes ----------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """What one row is made of. Rooms differ in light, pitch and language, and so are groups."""

    room: str
    label: str
    pixels: NDArray[np.uint8]  # (SIZE, SIZE, 3) BGR
    samples: NDArray[np.int16]
    text: str | None


def draw_scene(settings: ToySettings, row: int) -> Scene:
    """The row's scene; the same for the same settings."""
    draw = np.random.default_rng([settings.seed, row])
    room, kind = int(draw.integers(8)), int(draw.integers(4))
    is_high, is_blue = kind % 2 == 1, kind >= 2
    pixels = np.full((SIZE, SIZE, 3), 30 + 8 * room, np.uint8)
    x, y, radius = (int(value) for value in (*draw.integers(8, SIZE - 8, 2), draw.integers(5, 9)))
    cv2.circle(pixels, (x, y), radius, (170, 90, 90) if is_blue else (90, 90, 170), -1)
    grain = draw.standard_normal(pixels.shape) * 30 * settings.noise
    hertz = (660 if is_high else 330) * 2 ** ((room - 3.5) / 24 + draw.uniform(-0.1, 0.1))
    time = np.arange(round(SECONDS * RATE)) / RATE
    tone = np.sin(2 * np.pi * (hertz * time + draw.random())) * 3000 + draw.standard_normal(len(time)) * 3000 * settings.noise
    return Scene(
        f"room {room + 1}",
        SCENES[kind],
        np.clip(pixels + grain, 0, 255).astype(np.uint8),
        np.clip(np.rint(tone), -32768, 32767).astype(np.int16),
        _words(draw, is_high, is_blue, room % 2 == 1) if draw.random() < 0.5 else None,
    )


def _words(draw: np.random.Generator, is_high: bool, is_blue: bool, in_chinese: bool) -> str:
    if draw.random() < 0.5:
        return ("高音" if is_high else "低音") if in_chinese else ("a high tone" if is_high else "a low tone")
    return ("蓝色" if is_blue else "红色") if in_chinese else ("a blue one" if is_blue else "a red one")


def _scenes(settings: ToySettings, inputs: Inputs | None, heads: Heads | None) -> Rows:
    chosen = {stream: {**SCENE_INPUTS.get(stream, {}), **given} for stream, given in (inputs or SCENE_INPUTS).items()}
    problems = [
        Problem(f"model.inputs.{stream}", f"expected a stream of the toy, {', '.join(SCENE_INPUTS)}, found {stream!r}; correct the name")
        for stream in chosen.keys() - SCENE_INPUTS.keys()
    ]
    if problems:
        raise DataError(problems)
    layout = Layout(chosen)
    scenes = [draw_scene(settings, row) for row in range(settings.rows)]
    known = {"label": {"labels": list(SCENES)}}
    made_heads, targets = encode(
        {"label": [scene.label for scene in scenes]}, len(scenes), known, heads, lambda row: f"scene {row}", problems
    )
    if problems:
        raise DataError(problems)
    end = round(SECONDS * 1000) * MILLISECOND

    def read(row: int) -> dict[str, Items]:
        scene = scenes[row]
        payloads: Mapping[str, Payload | None] = {
            "video": Image(scene.pixels),
            "audio": Audio(scene.samples[:, None], RATE),
            "text": scene.text,
        }
        packets = {
            stream: [Packet(stream, "", 0, end if stream == "audio" else 0, payload, Position("", -1), 0)]
            for stream, payload in payloads.items()
            if payload is not None and stream in chosen
        }
        return layout.prepare(0, end, {stream: [(one, layout.reduce(one)) for one in few] for stream, few in packets.items()})

    names = [f"scene {row}" for row in range(settings.rows)]
    return Rows(chosen, layout.empty, made_heads, targets, names, read, [scene.room for scene in scenes])


def write_scenes(folder: Path, settings: ToySettings) -> Path:
    """The same rows as files, with `manifest.jsonl` and `recipe.yaml`; gives the path of the recipe."""
    for part in ("pictures", "sounds"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    lines = []
    for row in range(settings.rows):
        scene = draw_scene(settings, row)
        picture, sound = f"pictures/{row:04}.png", f"sounds/{row:04}.wav"
        cv2.imwrite(str(folder / picture), scene.pixels)
        with wave.open(str(folder / sound), "wb") as file:
            file.setparams((1, 2, RATE, 0, "NONE", ""))
            file.writeframes(scene.samples.astype("<i2").tobytes())
        line = {"name": f"scene {row}", "group": scene.room, "video": picture, "audio": sound, "label": scene.label}
        lines.append(json.dumps({**line, **({"text": scene.text} if scene.text else {})}, ensure_ascii=False))
    (folder / "manifest.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE.replace("@INPUTS", json.dumps(SCENE_INPUTS)), encoding="utf-8")
    return recipe


RECIPE = """\
name: scenes
data: {type: manifest, path: manifest.jsonl}
split: {by: group, test: [room 1, room 2], validation: [room 3]}
model:
  features: 32
  window: {size_ms: 400, hop_ms: 400}
  inputs: @INPUTS
  encoders:
    video: {type: cnn, width: 0.5}
    audio: {type: log_mel, channels: 8}
    text: {type: byte_text}
  fusion: {type: late_transformer, layers: 1}
training: {epochs: 12, optimizer: {type: adamw, rate: 0.003}}
"""


# --- parity ----------------------------------------------------------------------------------------------------------------------------


def _xor(settings: ToySettings, inputs: Inputs | None, heads: Heads | None) -> Rows:
    draw = np.random.default_rng(settings.seed)
    streams = [f"x{number + 1}" for number in range(settings.streams)]
    bits = draw.integers(0, 2, (settings.rows, settings.streams))
    patterns = draw.standard_normal((settings.streams, 2, XOR_SIZE))
    noise = draw.standard_normal((settings.streams, settings.rows, XOR_SIZE)) * 0.3 * settings.noise
    data = {s: (patterns[i][bits[:, i]] + noise[i]).astype(np.float32) for i, s in enumerate(streams)}
    problems = [
        Problem(f"model.inputs.{stream}", f"expected a stream of the toy, {', '.join(streams)}, found {stream!r}; correct the name")
        for stream in (inputs or {}).keys() - data.keys()
    ]
    values = {"label": [["even", "odd"][number % 2] for number in bits.sum(1)]}
    made_heads, targets = encode(values, settings.rows, {"label": {"labels": ["even", "odd"]}}, heads, lambda row: f"row {row}", problems)
    if problems:
        raise DataError(problems)
    chosen = [stream for stream in streams if not inputs or stream in inputs]
    return Rows(
        inputs={stream: {"type": "features", "size": XOR_SIZE, "most": 1} for stream in chosen},
        empty={stream: Features(XOR_SIZE).empty() for stream in chosen},
        heads=made_heads,
        targets=targets,
        names=[f"row {row}" for row in range(settings.rows)],
        reader=partial(_xor_row, {stream: data[stream] for stream in chosen}),
    )


def _xor_row(data: Mapping[str, NDArray[np.float32]], row: int) -> dict[str, Items]:
    return {stream: Items(rows[row : row + 1], np.zeros(1, np.float32), np.ones(1, np.bool_)) for stream, rows in data.items()}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m streamfuse.training.data.toy", description=__doc__)
    parser.add_argument("folder", type=Path, help="where to write the manifest, its files and a recipe")
    parser.add_argument("--rows", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    recipe = write_scenes(options.folder, ToySettings(rows=options.rows, seed=options.seed))
    print(f"{options.rows} scenes in {options.folder}; to train on them:  streamfuse train {recipe}")


if __name__ == "__main__":
    main()
