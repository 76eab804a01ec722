"""All that windows are drawn from, by whose it is, so that a talker can be left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from rich.console import Console
from rich.progress import track

from streamfuse.training.who_is_talking.dataset import FACE, Pools
from streamfuse.training.who_is_talking.pictures import Clip, mistaken, speaking, still
from streamfuse.training.who_is_talking.recordings import RATE, Talker, Voice, read_talkers, read_voices
from streamfuse.training.who_is_talking.rooms import RoomWindow, room_windows
from streamfuse.training.who_is_talking.voices import Samples, as_heard, other_windows, silent_windows, voice_windows

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


def prepare(data: Path, scale: float, seed: int) -> Material:
    """Everything that windows are drawn from; `scale` times the usual amount of it. On a terminal it shows how far it is."""
    console = Console(stderr=True)
    draw = np.random.default_rng(seed)
    talkers, recorded = read_talkers(data), read_voices(data)

    def many(what: str, count: int, made: Iterator[T]) -> list[T]:
        return list(track(made, what, count, console=console, transient=True, disable=not console.is_terminal))

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
