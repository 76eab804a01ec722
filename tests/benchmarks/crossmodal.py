"""From one modality to another, on digits: spoken, drawn and spelled.

    python -m tests.benchmarks.crossmodal [--seeds N] [--part validation] [--out DIR]

A row is an image of a digit (MNIST, 64 x 64), the same digit spoken (FSDD) and its English word, spelled in bytes. One small model,
trained by the recipe below, finds each modality by each other one, spells what it sees or hears, and draws what it reads or hears. The
test is a speaker and images that training never met. Settings were written down before it was looked at, and not tuned; whoever tunes
them does it on another speaker (`--part validation`, which trains on the two that are left). Clips are brought to one loudness, as the
speakers differ tenfold, and in training spoken up to a quarter faster or slower (Ko et al., Interspeech 2015).

It is small, and so is the task: pairs are drawn by digit, so that a match is any item of the same digit; the words are ten; and the
drawing is the mean of what a word leaves open, which is blurred. Beside it stands what that could reach: the training images' mean of
the right digit.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean, pstdev

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from streamfuse.models.batch import Items
from streamfuse.models.bundle import load_bundle
from streamfuse.models.crossmodal.image_cnn import ImageCnn
from streamfuse.models.crossmodal.text_transformer import TextTransformer
from streamfuse.models.preprocess import PREPROCESSORS
from streamfuse.models.tokenizer import Tokenizer
from streamfuse.training.crossmodal import COUNTS, cross, retrieval
from streamfuse.training.distributed import Workers
from streamfuse.training.recipe import Recipe
from streamfuse.training.runs import Prepared, carry_out, prepare, runs
from streamfuse.training.samples import DATA, Rows
from tests.benchmarks.measure import table

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SIZE, RATE, BLOCK, LENGTH, IDS = 64, 8000, 160, 8, 259
ROWS = {"train": 5000, "validation": 500, "test": 500}
INPUTS = {
    "image": {"type": "frames", "height": SIZE, "width": SIZE, "colour": False, "fps": 1, "seconds": 0},
    "audio": {"type": "waveform", "rate": RATE, "block_ms": 20, "seconds": 0.5},
    "text": {"type": "tokens", "length": LENGTH, "most": 1},
}
RECIPE = {
    "name": "digits-crossmodal",
    "model": {
        "features": 64,
        "encoders": {
            "image": {"type": "cnn", "channels": 1, "width": 0.25},
            "audio": {"type": "causal_mel", "rate": RATE, "block": BLOCK, "bands": 40, "width": 64},
            "text": {"type": "text_gru", "vocabulary": IDS, "width": 32, "hidden": 48},
        },
        "fusion": {"type": "addition"},
        "crossmodal": {
            "retrieval": {"size": 32},
            "decoders": {
                "text": {"type": "text_transformer", "vocabulary": IDS, "length": LENGTH},
                "image": {"type": "image_cnn", "size": SIZE, "channels": 1},
            },
        },
    },
    "training": {
        "epochs": 4,
        "batch": 64,
        "optimizer": {"type": "adamw", "rate": 2e-3},
        "schedule": {"type": "one_cycle"},
        "early_stopping": None,
        "noise": {"audio": 0.3, "image": 0.3},
        "threads": 0,
        "device": "cpu",
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.crossmodal", description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--part", choices=["validation", "test"], default="test")
    parser.add_argument("--out", type=Path, default=None, help="keep the bundles here")
    options = parser.parse_args()
    folder = os.environ.get("STREAMFUSE_DATA")
    if not folder:
        raise SystemExit("set STREAMFUSE_DATA to the folder that has digits/")
    torch.set_num_threads(1)
    begun = time.process_time()
    recipe = {**RECIPE, "data": {"type": "digits", "tested": options.part}}
    prepared = prepare(Recipe.model_validate(recipe), Path(folder) / "digits")
    asked = prepared.splits[0].parts[options.part]
    with tempfile.TemporaryDirectory() as temporary:
        out = options.out or Path(temporary)
        scores = []
        for seed in range(options.first, options.first + options.seeds):
            figures, chances = measure(prepared, asked, seed, out)
            scores.append(figures)
            print(f"seed {seed}: {', '.join(f'{aim} {value:.3f}' for aim, value in figures.items())}", flush=True)
    seconds = (time.process_time() - begun) / options.seeds
    beside = baselines(prepared, asked)
    rows = []
    for aim in scores[0]:
        values = [own[aim] for own in scores]
        told = [f"{value:.3f}" for value in beside.get(aim, ())] or [f"{chances[aim]:.3f}" if aim in chances else "", "", ""]
        rows.append([*aim.split(" | "), f"{fmean(values):.3f} ± {pstdev(values):.3f}", *told])
    table(
        f"Digits: {len(asked)} rows of the {options.part} part, {options.seeds} seeds, {seconds:.0f} s of CPU each",
        ["", "measure", "model", "without looking", "nearest neighbour", "digit told"],
        rows,
    )


@DATA.register("digits")
def digits(folder: Path, inputs: object, heads: object, tested: str) -> Rows:
    """Rows of three modalities with their digit; the part that is tested shares no image and no speaker with training."""
    with np.load(folder / "images_train.npz") as file:
        images, drawn = file["image"], file["digit"].astype(np.int64)
    with np.load(folder / "speech_train.npz") as file:
        clips = np.split(file["samples"].astype(np.float32), np.cumsum(file["lengths"])[:-1])
        spoken, speaker = file["digit"].astype(np.int64), file["speaker"]
    speakers = sorted(set(speaker.tolist()))
    of_part = {"train": speakers[: 3 if tested == "test" else 2], "validation": speakers[2:3], "test": speakers[3:]}
    draw = np.random.default_rng(0)
    of_images = dict(zip(ROWS, np.split(draw.permutation(len(images)), [50_000, 55_000]), strict=True))  # they are in order of digit
    pairs: list[tuple[int, int]] = []
    for part, count in ROWS.items():
        own = {digit: np.flatnonzero((spoken == digit) & np.isin(speaker, of_part[part])) for digit in range(10)}
        pairs += [(int(image), int(draw.choice(own[int(drawn[image])]))) for image in of_images[part][:count]]
    truth = np.array([drawn[image] for image, _ in pairs])
    speed = np.exp(draw.uniform(-0.22, 0.22, len(pairs))) * (np.arange(len(pairs)) < ROWS["train"])
    empty = {stream: PREPROCESSORS.make(options).empty() for stream, options in INPUTS.items()}

    def read(row: int) -> Mapping[str, Items]:
        image, clip = pairs[row]
        frame = cv2.resize(images[image], (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
        ids = Tokenizer().encode(WORDS[truth[row]])
        sound = _spoken(clips[clip], float(speed[row]) or 1.0)
        blocks = len(sound)
        time = (np.arange(-blocks, 0, dtype=np.float32) + 0.5) * np.float32(BLOCK / RATE)
        return {
            "image": _one(np.asarray(frame, np.uint8)),
            "audio": Items(sound, time, np.ones(blocks, np.bool_)),
            "text": _one(np.array(ids + [0] * (LENGTH - len(ids)), np.int32)),
        }

    return Rows(
        inputs=INPUTS,
        empty=empty,
        heads={"digit": {"type": "classification", "labels": list(WORDS)}},
        targets={"digit": truth},
        names=[f"image {image}, clip {clip}" for image, clip in pairs],
        reader=read,
        parts=[part for part, count in ROWS.items() for _ in range(count)],
    )


def measure(prepared: Prepared, asked: NDArray[np.int64], seed: int, out: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Trains a bundle, loads it again, and says how good it is: `what | measure` -> figure, and what chance would come to."""
    (run,) = runs(prepared, out, [seed])
    for _ in carry_out(prepared, run, torch.device("cpu"), Workers()):
        pass
    crossed = cross(load_bundle(run.folder).model, prepared.samples, asked.tolist())
    truth = prepared.samples.targets["digit"][asked]
    pairs = retrieval(crossed, truth)
    found = {f"{one.query} finds {one.gallery} | recall@{k}": one.recall[k] for one in pairs for k in COUNTS}
    chances = {f"{one.query} finds {one.gallery} | recall@{k}": one.chance[k] for one in pairs for k in COUNTS}
    for one in crossed.written:
        found |= {f"{' and '.join(one.given)} to {one.stream} | {name}": float(each.mean()) for name, each in one.measures.items()}
    return found, chances


def baselines(prepared: Prepared, asked: NDArray[np.int64]) -> dict[str, tuple[float, float, float]]:
    """`what | measure` -> without looking, by the nearest training row, and with the digit told."""
    trained = prepared.splits[0].train
    samples, truth = prepared.samples, prepared.samples.targets["digit"]
    found: dict[str, tuple[float, float, float]] = {}
    words = np.stack([samples.read(int(np.flatnonzero(truth == digit)[0]))["text"].data[0] for digit in range(10)])
    text, image = TextTransformer(8, IDS, LENGTH), ImageCnn(8, SIZE, 1)
    usual = np.bincount(truth[trained]).argmax()
    for given, seen in (("image", _pixels), ("audio", _spectrum)):
        known, asking = (np.stack([seen(samples.read(int(row))[given].data) for row in rows]) for rows in (trained, asked))
        closest = truth[trained][((asking**2).sum(1)[:, None] - 2 * asking @ known.T + (known**2).sum(1)).argmin(1)]
        guesses = [text.measures(_tensor(words[guess]), _tensor(words[truth[asked]])) for guess in (np.full(len(asked), usual), closest)]
        for name in guesses[0]:
            found[f"{given} to text | {name}"] = (float(guesses[0][name].mean()), float(guesses[1][name].mean()), 1.0)
    frames = np.stack([samples.read(int(row))["image"].data[0] for row in trained])
    means = np.stack([frames[truth[trained] == digit].mean(0) for digit in range(10)]).astype(np.uint8)
    draw = np.random.default_rng(0)
    alike = np.array([draw.choice(np.flatnonzero(truth[trained] == digit)) for digit in truth[asked]])
    wanted = _tensor(np.stack([samples.read(int(row))["image"].data[0] for row in asked]))
    drawn = (np.broadcast_to(frames.mean(0).astype(np.uint8), wanted.shape), frames[alike], means[truth[asked]])
    measured = [image.measures(_tensor(each), wanted) for each in drawn]
    for name in measured[0]:
        without, near, told = (float(each[name].mean()) for each in measured)
        found[f"text to image | {name}"] = found[f"audio to image | {name}"] = (without, near, told)
    return found


def _pixels(frames: NDArray[np.generic]) -> NDArray[np.float32]:
    small = cv2.resize(np.asarray(frames[0]), (28, 28), interpolation=cv2.INTER_AREA)
    return (small.ravel() / 255).astype(np.float32)


def _spectrum(blocks: NDArray[np.generic]) -> NDArray[np.float32]:
    """Twelve stretches of equal length, the mean log power of 20 bands each."""
    power = np.log(np.abs(np.fft.rfft(blocks.astype(np.float32), axis=1))[:, 1:] ** 2 + 1e3)
    bands = power.reshape(len(power), 20, -1).mean(2)
    return np.stack([stretch.mean(0) for stretch in np.array_split(np.repeat(bands, 12, 0), 12)]).ravel().astype(np.float32)


def _tensor(array: NDArray[np.generic]) -> Tensor:
    return torch.from_numpy(np.array(array))


def _spoken(clip: NDArray[np.float32], speed: float) -> NDArray[np.int16]:
    """A clip as blocks, so much faster and at one loudness, without what is longer than 0.8 s."""
    places = np.arange(0, len(clip) - 1, speed)[: int(0.8 * RATE)]
    samples = np.interp(places, np.arange(len(clip)), clip)
    samples = np.pad(samples * (3000 / max(float(np.sqrt((samples**2).mean())), 1.0)), (0, -len(samples) % BLOCK))
    return np.asarray(np.clip(samples, -32768, 32767).reshape(-1, BLOCK), np.int16)


def _one(data: NDArray[np.generic]) -> Items:
    return Items(data[None], np.zeros(1, np.float32), np.ones(1, np.bool_))


if __name__ == "__main__":
    main()
