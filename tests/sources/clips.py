"""Writes small media files whose every instant is known: frames that carry their number, a tone with marks, captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.audio.stream import AudioStream
from av.subtitles.stream import SubtitleStream
from av.video.stream import VideoStream
from numpy.typing import NDArray

FPS = 25
RATE = 48_000
WIDTH, HEIGHT = 96, 64
_STYLES = (
    b"[Script Info]\nScriptType: v4.00+\n\n[V4+ Styles]\nFormat: Name, Fontname, Fontsize\nStyle: Default,Arial,16\n\n"
    b"[Events]\nFormat: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\n"
)


@dataclass(frozen=True)
class Clip:
    """What to write. Times in ms. Frame `n` is all of `grey(n)`; sound is silent but for clicks of 10 ms."""

    frames: int = 50
    sound: int = 2000
    clicks: Sequence[int] = (500, 1500)
    captions: Sequence[tuple[int, int, str]] = ((200, 500, "hello <i>you</i>"), (1200, 600, "good bye"))
    gap: tuple[int, int] | None = None
    """Sound stops at the first and goes on at the second."""
    offset: int = 0
    """Added to every time."""
    size: tuple[int, int] = (WIDTH, HEIGHT)
    video: str = "mpeg4"
    audio: str = "pcm_s16le"
    text: str = "subrip"
    options: dict[str, str] = field(default_factory=dict)
    bright_top: bool = False
    """The upper half of each frame is white."""


def grey(number: int) -> int:
    return 40 + 3 * number % 150


def write(path: Path, clip: Clip) -> Path:
    """Write the clip; the name's ending picks the format."""
    millisecond = Fraction(1, 1000)
    with av.open(str(path), "w", options=clip.options) as out:
        video = audio = text = None
        if clip.frames:
            video = cast(VideoStream, out.add_stream(clip.video, rate=FPS))
            video.width, video.height = clip.size
            video.pix_fmt = "yuv420p"
            video.codec_context.time_base = video.time_base = Fraction(1, FPS * 1000)
            video.codec_context.gop_size = 5
        if clip.sound:
            audio = cast(AudioStream, out.add_stream(clip.audio, rate=RATE))
            audio.layout = "mono"
        if clip.captions:
            text = cast(SubtitleStream, out.add_stream(clip.text))
            text.codec_context.subtitle_header = _STYLES
            text.codec_context.time_base = text.time_base = millisecond
        todo: list[tuple[float, int]] = [(n * 1000 / FPS, 0) for n in range(clip.frames)]
        todo += [(at, 1) for at in range(0, clip.sound, 20) if not (clip.gap and clip.gap[0] <= at < clip.gap[1])]
        todo += [(at, 2) for at, _, _ in clip.captions]
        said = iter(clip.captions)
        for at, kind in sorted(todo):
            if kind == 0 and video:
                number = round(at * FPS / 1000)
                pixels = np.full((clip.size[1], clip.size[0], 3), grey(number), np.uint8)
                if clip.bright_top:
                    pixels[: clip.size[1] // 2] = 255
                frame = av.VideoFrame.from_ndarray(pixels, format="bgr24")
                frame.pts, frame.time_base = number * 1000 + clip.offset * FPS, Fraction(1, FPS * 1000)
                out.mux(video.encode(frame))
            elif kind == 1 and audio:
                sound = av.AudioFrame.from_ndarray(_sound(int(at), clip.clicks), format="s16", layout="mono")
                sound.sample_rate, sound.time_base = RATE, Fraction(1, RATE)
                sound.pts = (int(at) + clip.offset) * RATE // 1000
                out.mux(audio.encode(sound))
            elif text:
                start, length, words = next(said)
                raw = words.encode()
                packet = av.Packet(raw if clip.text == "subrip" else len(raw).to_bytes(2, "big") + raw)
                packet.stream, packet.time_base = text, millisecond
                packet.pts = packet.dts = start + clip.offset
                packet.duration = length
                out.mux(packet)
        if video:
            out.mux(video.encode(None))
        if audio:
            out.mux(audio.encode(None))
    return path


def _sound(start: int, clicks: Sequence[int]) -> NDArray[np.int16]:
    at = start + np.arange(RATE // 50) * 1000 / RATE
    loud = np.zeros(len(at), bool)
    for click in clicks:
        loud |= (at >= click) & (at < click + 10)
    return np.where(loud, 12_000, 0).astype(np.int16).reshape(1, -1)
