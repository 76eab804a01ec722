"""Decodes sound that comes as a file in itself: FLAC (RFC 9639), Opus in Ogg (RFC 7845)."""

from __future__ import annotations

import io
from typing import Any, cast

import av
import numpy as np
from numpy.typing import NDArray

from streamfuse.errors import UndecodablePayload
from streamfuse.lengths import sound_length
from streamfuse.types import MILLISECOND, SECOND, Audio

FORMATS = {"audio/flac": "flac", "audio/ogg": "ogg", "audio/opus": "ogg"}
"""Media type -> the format that it is read as; no other is tried, whatever the bytes look like."""
CODECS = {"flac": ("flac",), "ogg": ("opus", "libopus")}
MAX_CHANNELS = 8
MAX_SAMPLES = 64 * 1024 * 1024
"""Over all channels, decoded: a megabyte of FLAC can hold days of silence."""
STRICT = {"err_detect": "crccheck+explode"}
CUT_OFF = 5 * MILLISECOND
"""A file that holds so much less than it says was cut off on the way."""


def decode_sound_file(data: bytes, media_type: str) -> Audio:
    """The whole file as 16-bit samples at its own rate. Raises `UndecodablePayload` with a sentence."""
    name = FORMATS[media_type]
    chunks: list[NDArray[np.int16]] = []
    try:
        with av.open(io.BytesIO(data), format=name, options=STRICT) as container:
            rate = _decode(container, name, media_type, chunks)
    except (av.error.FFmpegError, ValueError) as error:
        raise UndecodablePayload(f"expected a whole {media_type}, found one that does not decode ({error}); the sound is damaged") from None
    if not chunks:
        raise UndecodablePayload(f"expected sound in the {media_type}, found none; it is cut off or damaged")
    samples = np.concatenate(chunks)
    said, lasts = sound_length(data), len(samples) * SECOND // rate
    if said > lasts + CUT_OFF:
        raise UndecodablePayload(
            f"expected {said / MILLISECOND:g} ms of sound, as the {media_type} says, found {lasts / MILLISECOND:g} ms; it is cut off"
        )
    return Audio(samples, rate)


def _decode(container: Any, name: str, media_type: str, chunks: list[NDArray[np.int16]]) -> int:
    """Adds what it decodes to the chunks, each `(samples, channels)`; gives the rate."""
    if len(container.streams) != 1 or not container.streams.audio:
        raise UndecodablePayload(f"expected {media_type} with one track of sound, found {len(container.streams)} tracks; send sound alone")
    stream = container.streams.audio[0]
    context = stream.codec_context
    codec = "none" if context is None else context.name
    if not codec.startswith(CODECS[name]):
        raise UndecodablePayload(f"expected {CODECS[name][0]} in {media_type}, found {codec}; convert the sound")
    context.options = STRICT
    context.thread_count = 1
    left, rate, channels = MAX_SAMPLES, 0, 0
    resampler = av.AudioResampler(format="s16")  # keeps rate and layout: it changes the sample format only
    for frame in container.decode(stream):
        rate, channels = rate or frame.sample_rate, channels or frame.layout.nb_channels
        if (frame.sample_rate, frame.layout.nb_channels) != (rate, channels):
            raise UndecodablePayload(
                f"expected one rate and one number of channels throughout the {media_type}, found a change; send one file each"
            )
        if channels > MAX_CHANNELS:  # of more, PyAV reads planes that are not there
            raise UndecodablePayload(f"expected at most {MAX_CHANNELS} channels in {media_type}, found {channels}; mix them down")
        left -= frame.samples * channels
        if left < 0:
            raise UndecodablePayload(f"expected at most {MAX_SAMPLES} samples in a packet, found more; send shorter packets")
        for converted in resampler.resample(frame):
            chunks.append(cast(NDArray[np.int16], converted.to_ndarray().reshape(-1, channels)))
    return rate or 1
