"""Sound as files, encoded by FFmpeg."""

from __future__ import annotations

import io
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray


def tone(milliseconds: int, rate: int = 16_000, channels: int = 1) -> NDArray[np.int16]:
    """440 Hz, and an octave higher in each further channel: `(samples, channels)`."""
    time = np.arange(milliseconds * rate // 1000) / rate
    waves = [np.sin(2 * np.pi * 440 * 2**channel * time) for channel in range(channels)]
    return (np.stack(waves, 1) * 8000).astype(np.int16)


def encoded(samples: NDArray[np.int16], codec: str, container: str, rate: int = 16_000, tracks: int = 1) -> bytes:
    layout = {1: "mono", 2: "stereo"}[samples.shape[1]]
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        streams: list[Any] = [out.add_stream(codec, rate=rate, options={"strict": "experimental"}) for _ in range(tracks)]
        for stream in streams:
            stream.layout = layout
        out.start_encoding()
        for stream in streams:
            frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout=layout)
            frame.sample_rate = rate
            for converted in av.AudioResampler(format=stream.format.name).resample(frame):
                out.mux(stream.encode(converted))
            out.mux(stream.encode(None))
    return file.getvalue()


def flac(samples: NDArray[np.int16], rate: int = 16_000) -> bytes:
    return encoded(samples, "flac", "flac", rate)


def opus(samples: NDArray[np.int16], rate: int = 16_000) -> bytes:
    return encoded(samples, "libopus", "ogg", rate)
