"""Speaks through espeak-ng, where it is installed."""

from __future__ import annotations

import io
import shutil
import subprocess
import wave

import numpy as np
from numpy.typing import NDArray

_VOICES = ("en", "en-us", "en-gb-scotland", "en-gb-x-rp")


def find() -> str | None:
    """Where the program is, None where it is not installed."""
    return shutil.which("espeak-ng")


def speak(program: str, words: str, rate: int, pitch: float, tract: float, pace: float) -> NDArray[np.float32]:
    """The words as sound of one channel at `rate` Hz, peak 0.5; arguments as in `voice.speak`. Raises OSError."""
    variant = "f3" if pitch > 160 else "m3"
    voice = f"{_VOICES[int(tract * 100) % len(_VOICES)]}+{variant}"
    height = int(np.clip(50 + (pitch - (200 if pitch > 160 else 115)) * 0.6, 0, 99))
    command = [program, "-v", voice, "-p", str(height), "-s", str(round(165 * pace)), "--stdout", "--", words]
    done = subprocess.run(command, capture_output=True, timeout=30, check=False)
    if done.returncode or len(done.stdout) <= 44:
        raise OSError(f"expected sound from {program}, found exit code {done.returncode}: {done.stderr.decode(errors='replace').strip()}")
    with wave.open(io.BytesIO(done.stdout)) as heard:
        found, samples = heard.getframerate(), np.frombuffer(done.stdout, "<i2", offset=44)
    sound = samples.astype(np.float32) / 32768
    at = np.arange(int(len(sound) * rate / found)) * (found / rate)
    if rate < found:  # nothing above the new half rate may fold back
        width = max(1, round(found / rate))
        sound = np.convolve(sound, np.full(width, 1 / width, np.float32), mode="same")
    changed = np.interp(at, np.arange(len(sound)), sound)
    peak = float(np.abs(changed).max(initial=1e-6))
    return np.asarray(changed * (0.5 / peak), np.float32)
