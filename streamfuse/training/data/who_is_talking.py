"""Windows of who-is-talking: drawn from recordings and simulated rooms, with a truth that is known by construction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from streamfuse.config import Settings
from streamfuse.errors import DataError, Problem
from streamfuse.simulation.timeline import LABELS
from streamfuse.training.data import Heads, Inputs, checked
from streamfuse.training.samples import DATA, Rows

INPUTS: dict[str, dict[str, Any]] = {
    "video": {"type": "face_crops", "size": 48, "fps": 16, "detect_every_ms": 250, "width": 320},
    "audio": {"type": "waveform", "rate": 16_000, "block_ms": 20},
    "text": {"type": "text_bytes", "length": 128, "most": 4},
}
HEADS = {"state": {"type": "classification", "labels": list(LABELS)}}
JUDGED = 1500
"""Windows of a talker who is left out."""


class WhoIsTalkingSettings(Settings):
    path: str
    """The folder of recordings: clips, speech, ami, digits."""
    rows: int = Field(28_800, gt=0)
    """Windows to train on."""
    scale: float = Field(1.0, gt=0)
    """Amount of material that they are drawn from, against the usual."""
    seed: int = Field(0, ge=0)
    left_out: int | None = Field(None, ge=0, lt=4)
    """The number of the talker who is tested on, with every fourth voice and a tenth of the rest, and not trained on. Nobody is where not
    given."""


@DATA.register("who_is_talking")
def who_is_talking(folder: Path, inputs: Inputs | None, heads: Heads | None, **options: Any) -> Rows:
    """Windows that depend on the settings and the recordings alone, each drawn when it is read. Those of simulated rooms that are never
    trained on are the validation part, and those of a talker who is left out the test. Raises `DataError`.
    """
    settings = checked(WhoIsTalkingSettings, options)
    data = folder / settings.path
    if not (data / "clips").is_dir():
        raise DataError([Problem("data.path", f"expected a folder of recordings with clips/ in it, found {data}; correct it")])
    if unknown := sorted({*(inputs or ())} - {*INPUTS}):
        raise DataError([Problem("model.inputs", f"expected streams of {', '.join(INPUTS)}, found {unknown[0]!r}; leave it out")])
    # Not before it is wanted: the simulator and its painter are slow to import.
    from streamfuse.training.who_is_talking.dataset import EMPTY, Sample, draw_sample, room_sample
    from streamfuse.training.who_is_talking.material import prepare, split

    material = prepare(data, settings.scale, settings.seed)
    trained, left = split(material, settings.left_out)
    held = [room_sample(window) for window in material.held_rooms]
    tested = 0 if settings.left_out is None else max(round(JUDGED * min(settings.scale, 1)), 1)

    def drawn(row: int) -> Sample:
        if settings.rows <= row < settings.rows + len(held):
            return held[row - settings.rows]
        return draw_sample(trained if row < settings.rows else left, np.random.default_rng([settings.seed, 1, row]))

    count = settings.rows + len(held) + tested
    labels = [drawn(row).label for row in range(count)]
    return Rows(
        inputs=INPUTS,
        empty=EMPTY,
        heads=HEADS,
        targets={"state": np.asarray(labels, np.int64)},
        names=[f"window {row}" for row in range(count)],
        reader=lambda row: drawn(row).items,
        parts=["train"] * settings.rows + ["validation"] * len(held) + ["test"] * tested,
    )
