"""Sentences to be spoken in a simulated room."""

from __future__ import annotations

import numpy as np

_WHO = [
    "we",
    "they",
    "you",
    "the team",
    "my neighbour",
    "the driver",
    "our guest",
    "the crew",
    "the pilot",
    "everybody",
    "the doctor",
    "a friend",
]
_DOES = [
    "moved",
    "opened",
    "followed",
    "painted",
    "carried",
    "found",
    "repaired",
    "measured",
    "watched",
    "remembered",
    "prepared",
    "delivered",
]
_WHAT = [
    "the window",
    "a yellow boat",
    "the old bridge",
    "seven boxes",
    "the small garden",
    "a new engine",
    "the morning paper",
    "some warm bread",
    "the signal",
]
_WHERE = [
    "near the river",
    "at home",
    "in the evening",
    "before lunch",
    "under the moon",
    "without a sound",
    "last summer",
    "on the way to town",
]
_ALONE = [
    "good morning",
    "what do you mean",
    "let me show you",
    "I am not so sure",
    "please come over here",
    "that is all for now",
    "are you ready",
]


def sentence(draw: np.random.Generator) -> str:
    """A few words that could be said, in lower case, without punctuation."""
    if draw.random() < 0.25:
        return _ALONE[draw.integers(len(_ALONE))]
    parts = [_WHO, _DOES, _WHAT] + ([_WHERE] if draw.random() < 0.7 else [])
    return " ".join(part[draw.integers(len(part))] for part in parts)
