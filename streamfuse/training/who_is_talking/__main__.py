"""Trains the bundle `who-is-talking`: python -m streamfuse.training.who_is_talking --out DIR [--data DIR].

First once for each of the four talkers without them, to see how it does on somebody new; then with all of them.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from streamfuse.models.bundle import FORMAT, BundleConfig, WindowShape, save_bundle
from streamfuse.models.fusion_model import FusionModel, build
from streamfuse.simulation.timeline import LABELS
from streamfuse.training.who_is_talking.dataset import (
    EMPTY,
    FACE,
    OFF_SCREEN,
    ON_SCREEN,
    Pools,
    Sample,
    batches,
    draw_sample,
    room_sample,
)
from streamfuse.training.who_is_talking.loop import Recipe, predict, train
from streamfuse.training.who_is_talking.pictures import Clip, mistaken, speaking, still
from streamfuse.training.who_is_talking.recordings import RATE, Talker, Voice, read_talkers, read_voices
from streamfuse.training.who_is_talking.rooms import RoomWindow, room_windows
from streamfuse.training.who_is_talking.voices import Samples, as_heard, other_windows, silent_windows, voice_windows

NAME = "who-is-talking"
ARCHITECTURE: dict[str, Any] = {
    "features": 48,
    "encoders": {
        "video": {"type": "face_motion", "size": FACE.size, "grid": 6},
        "audio": {"type": "log_mel", "rate": RATE, "block": 320, "bands": 40, "channels": 16},
        "text": {"type": "byte_text", "width": 16, "hidden": 32},
    },
    "fusion": {"type": "late_transformer", "layers": 2, "heads": 4},
    "heads": {"state": {"type": "classification", "labels": list(LABELS)}},
}
INPUTS: dict[str, dict[str, Any]] = {
    "video": {"type": "face_crops", "size": FACE.size, "fps": 16, "detect_every_ms": 250, "width": 320},
    "audio": {"type": "waveform", "rate": RATE, "block_ms": 20},
    "text": {"type": "text_bytes", "length": 128, "most": 4},
}
TRAINING_DATA = {
    "GRID corpus, 4 talkers (Cooke et al. 2006)": "free for research use",
    "AMI meeting corpus, 10 clips of 30 s": "CC BY 4.0",
    "Free Spoken Digit Dataset, 4 speakers": "CC BY-SA 4.0",
    "A speech of 11 s (J. F. Kennedy, 1961)": "public domain",
    "Rooms of streamfuse.simulation, sounds and captions of streamfuse.training": "Apache-2.0",
}
HELD_OUT_ROOMS = range(100_000, 100_040)
"""Seeds of simulated rooms that are never trained on."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """All pools, with whose they are: `clips` a talker, `voices` a group."""

    clips: Mapping[str, tuple[list[Clip], list[Samples], list[Clip]]]
    mistaken: list[Clip]
    voices: Mapping[str, list[Samples]]
    others: list[Samples]
    silences: list[Samples]
    rooms: list[RoomWindow]
    held_rooms: list[RoomWindow]


def main() -> None:
    """The command."""
    options = _options()
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(1)
    recipe = Recipe(steps=options.steps, seed=options.seed)
    with _progress() as progress:
        material = prepare(options.data, options.scale, options.seed, progress)
        metrics: dict[str, Any] = {}
        if options.folds:
            folds = {}
            for number, talker in enumerate(material.clips):
                model = _fit(material, number, recipe, progress, f"without {talker}")
                folds[talker] = _judge(model, material, number)
                _save(options.out / f"without-{talker}", model, recipe, {"left_out": talker, **folds[talker]})
            metrics["leave_one_talker_out"] = {"mean": _mean(list(folds.values())), **folds}
        model = _fit(material, None, recipe, progress, "all talkers")
        metrics["simulated_rooms_held_out"] = _subsets(model, [room_sample(w) for w in material.held_rooms])
        print(_save(options.out / NAME, model, recipe, metrics))
    _print(metrics)


def prepare(data: Path, scale: float, seed: int, progress: Progress) -> Material:
    """Everything that windows are drawn from; `scale` times the usual amount of it."""
    draw = np.random.default_rng(seed)
    talkers, recorded = read_talkers(data), read_voices(data)

    def many(what: str, count: int, made: Iterator[T]) -> list[T]:
        task = progress.add_task(what, total=count, loss="")
        rows = []
        for row in made:
            rows.append(row)
            progress.advance(task)
        return rows

    def count(usual: int) -> int:
        return max(round(usual * scale), 8)

    def faces(talker: Talker) -> Iterator[Clip]:
        for kind, n in ((speaking, count(450)), (still, count(600))):
            yield from (kind(talker, FACE, draw) for _ in range(n))

    clips: dict[str, tuple[list[Clip], list[Samples], list[Clip]]] = {}
    for talker in talkers:
        made = many(f"faces of {talker.name}", count(450) + count(600), faces(talker))
        found = [c for c in made if c.items.data.any()]
        seen = [c for c in found if c.speaks]
        own = many(f"voice of {talker.name}", len(seen), (_own_sound(talker, c, draw) for c in seen))
        clips[talker.name] = seen, own, [c for c in found if not c.speaks]
    groups = _groups(recorded)
    rooms, held = range(count(120)), HELD_OUT_ROOMS[: count(40)]
    return Material(
        clips=clips,
        mistaken=many("mistaken faces", count(500), (mistaken(FACE, draw) for _ in range(count(500)))),
        voices={name: many(f"voices of {name}", count(700), voice_windows(voices, count(700), draw)) for name, voices in groups.items()},
        others=many("other sounds", count(5000), other_windows(count(5000), draw)),
        silences=many("silences", count(1500), silent_windows(count(1500), draw)),
        rooms=many("simulated rooms", len(rooms) * 14, room_windows(rooms, 14, FACE, draw)),
        held_rooms=many("held-out rooms", len(held) * 10, room_windows(held, 10, FACE, draw)),
    )


def split(material: Material, fold: int | None) -> tuple[Pools, Pools]:
    """Pools to train on and to test on. A fold leaves out one talker, every fourth voice and a tenth of the rest."""
    talkers, groups = list(material.clips), list(material.voices)
    left_talkers = [] if fold is None else [talkers[fold]]
    left_groups = [] if fold is None else groups[fold::4]

    def pools(talkers: Sequence[str], groups: Sequence[str], tenth: bool) -> Pools:
        part = (lambda rows: rows[::10]) if tenth else (lambda rows: [r for i, r in enumerate(rows) if i % 10])
        return Pools(
            speaking=[c for t in talkers for c in material.clips[t][0]],
            own=[s for t in talkers for s in material.clips[t][1]],
            still=[c for t in talkers for c in material.clips[t][2]],
            mistaken=part(material.mistaken),
            voices=[s for g in groups for s in material.voices[g]],
            others=part(material.others),
            silences=part(material.silences),
            rooms=[] if tenth else material.rooms,
        )

    train_pools = pools([t for t in talkers if t not in left_talkers], [g for g in groups if g not in left_groups], tenth=False)
    return train_pools, pools(left_talkers, left_groups, tenth=True)


def _fit(material: Material, fold: int | None, recipe: Recipe, progress: Progress, what: str) -> FusionModel:
    torch.manual_seed(recipe.seed)
    model = build(ARCHITECTURE)
    draw = np.random.default_rng([recipe.seed, 1])
    task = progress.add_task(f"train {what}", total=recipe.steps, loss="")
    recent: list[float] = []

    def report(step: int, loss: float) -> None:
        recent.append(loss)
        progress.update(task, advance=1, loss=f"loss {sum(recent[-50:]) / len(recent[-50:]):.3f}")

    train(model, batches(split(material, fold)[0], recipe.steps, recipe.batch, draw), recipe, report)
    return model


def _judge(model: FusionModel, material: Material, fold: int) -> dict[str, Any]:
    draw = np.random.default_rng(99)
    pools = split(material, fold)[1]
    return _subsets(model, [draw_sample(pools, draw) for _ in range(1500)])


def _subsets(model: FusionModel, samples: Sequence[Sample]) -> dict[str, Any]:
    truth = torch.tensor([s.label for s in samples])
    answers = predict(model, samples)
    result: dict[str, Any] = {"windows": len(samples), "accuracy": _share(answers == truth)}
    for label, name in enumerate(LABELS):
        result[f"recall of {name}"] = _share(answers[truth == label] == label)
    voiced = (truth == OFF_SCREEN) | (truth == ON_SCREEN)
    faces = torch.tensor([("video" in s.items and bool(s.items["video"].data.any())) for s in samples])
    result["on or off screen, with a face"] = _share(answers[voiced & faces] == truth[voiced & faces])
    for stream in EMPTY:
        result[f"without {stream}"] = _share(predict(model, samples, (stream,)) == truth)
    for stream in EMPTY:
        hidden = [s for s in EMPTY if s != stream]
        result[f"{stream} alone"] = _share(predict(model, samples, hidden) == truth)
    return result


def _own_sound(talker: Talker, clip: Clip, draw: np.random.Generator) -> Samples:
    start = max(round((clip.begins + draw.uniform(-0.05, 0.05)) * RATE), 0)
    return as_heard(talker.sound[start:][: round(1.2 * RATE)], draw)


def _groups(voices: Sequence[Voice]) -> dict[str, list[Voice]]:
    """Eight groups of voices: pairs of meetings, and each speaker of digits with or without the speech."""
    meetings = [v for v in voices if v.group.startswith("ami") and sum(e - s for s, e in v.spoken) > 3]
    rest = [v for v in voices if not v.group.startswith("ami")]
    named: dict[str, list[Voice]] = {}
    for i in range(4):
        named[f"meetings {i}"] = meetings[i::4]
    for i in range(4):
        named[f"speakers {i}"] = rest[i::4]
    return named


def _save(folder: Path, model: FusionModel, recipe: Recipe, metrics: Mapping[str, Any]) -> str:
    config = BundleConfig(
        name=NAME,
        format=FORMAT,
        inputs=INPUTS,
        architecture=ARCHITECTURE,
        window=WindowShape(size_ms=1000, hop_ms=500),
        metrics=dict(metrics),
        training={"command": "python -m streamfuse.training.who_is_talking", "data": TRAINING_DATA, **asdict(recipe)},
    )
    return save_bundle(folder, config, model)


def _mean(results: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {key: round(sum(r[key] for r in results) / len(results), 4) for key in results[0]}


def _share(right: torch.Tensor) -> float:
    return round(float(right.float().mean()), 4) if len(right) else float("nan")


def _print(metrics: Mapping[str, Any]) -> None:
    for part, values in metrics.items():
        print(part)
        for key, value in values.items():
            print(f"  {key}: {value}")


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description:<24}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[loss]}"),
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m streamfuse.training.who_is_talking", description=__doc__)
    data = os.environ.get("STREAMFUSE_DATA")
    parser.add_argument("--out", type=Path, required=True, help="where to write the bundles")
    parser.add_argument("--data", type=Path, default=data, required=data is None, help="the recordings ($STREAMFUSE_DATA)")
    parser.add_argument("--steps", type=int, default=Recipe().steps)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scale", type=float, default=1.0, help="amount of material against the usual")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-folds", dest="folds", action="store_false", help="only the model with all talkers")
    return parser.parse_args()


if __name__ == "__main__":
    main()
