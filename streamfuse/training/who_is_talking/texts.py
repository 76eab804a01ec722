"""Captions for training: sentences of several kinds, descriptions of sounds, and chat that has nothing to do with it."""

from __future__ import annotations

import numpy as np

Draw = np.random.Generator

_COMMON = """
the of and to a in is you that it he was for on are with as i his they be at one have this from or had by but some what there we
can out other were all your when up use word how said an each she which do their time if will way about many then them would write
like so these her long make thing see him two has look more day could go come did my sound no most number who over know water than
call first people may down side been now find any new work part take get place made live where after back little only round man
year came show every good me give our under name very through just form much great think say help low line before turn cause same
mean differ move right boy old too does tell sentence set three want air well also play small end put home read hand port large
spell add even land here must big high such follow act why ask men change went light kind off need house picture try us again
animal point mother world near build self earth father science space star light telescope mission data launch orbit team music
today tomorrow meeting agree
"""
_WORDS = _COMMON.split()
_GRID = (
    ("bin", "lay", "place", "set"),
    ("blue", "green", "red", "white"),
    ("at", "by", "in", "with"),
    tuple("abcdefghijklmnopqrstuvxyz"),
    ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    ("again", "now", "please", "soon"),
)
_SOUNDS = (
    "music", "soft music", "music playing", "upbeat music", "applause", "laughter", "engine noise", "traffic", "wind", "rain",
    "phone rings", "knocking", "beeping", "birds chirping", "door closes", "crowd cheering", "static", "alarm", "footsteps",
)  # fmt: skip
_ONSETS = ("b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z", "sh", "ch", "tr", "st")
_SYLLABLES = [onset + vowel for onset in _ONSETS for vowel in ("a", "e", "i", "o", "u", "ai", "ou", "en")]


def caption(draw: Draw) -> str:
    """What somebody may be saying, as a caption would have it."""
    kind = draw.random()
    if kind < 0.2:
        words = [str(draw.choice(part)) for part in _GRID]
    elif kind < 0.75:
        words = [str(w) for w in draw.choice(_WORDS, int(draw.integers(2, 16)))]
    elif kind < 0.95:  # words of no language, so that it is not these words that count
        words = ["".join(draw.choice(_SYLLABLES, int(draw.integers(1, 4)))) for _ in range(int(draw.integers(2, 12)))]
    else:
        first = int(draw.choice([0x4E00, 0x0430, 0x3042]))
        words = ["".join(chr(first + int(i)) for i in draw.integers(0, 30, int(draw.integers(2, 8)))) for _ in range(3)]
    text = " ".join(words)
    if draw.random() < 0.6:
        text = text.capitalize() + str(draw.choice([".", "?", "!", "...", ","]))
    if draw.random() < 0.1:
        text = f"{draw.choice(['- ', '>> ', 'ANNA: ', 'Speaker 2: '])}{text}"
    return text.upper() if draw.random() < 0.08 else text


def sound_caption(draw: Draw) -> str:
    """The description of a sound, as captions mark it."""
    if draw.random() < 0.15:
        return str(draw.choice(["\u266a", "\u266a\u266a", "\u266a \u266a \u266a"]))
    text = str(draw.choice(_SOUNDS))
    text = text.upper() if draw.random() < 0.3 else text.capitalize() if draw.random() < 0.3 else text
    left, right = (("[", "]"), ("(", ")"), ("*", "*"))[int(draw.integers(3))]
    return f"{left}{text}{right}"
