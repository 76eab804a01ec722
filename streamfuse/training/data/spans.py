"""Reads a stretch of a media file, as packets: what the media source would have given of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from streamfuse.config import MediaSourceSettings
from streamfuse.errors import SourceError
from streamfuse.sources.container import Container
from streamfuse.sources.tracks import Damaged, Decoded
from streamfuse.types import SECOND

FAR = 10 * SECOND
"""A stretch that begins later is looked up, instead of decoding all that is before it."""
LEAD = 3 * SECOND
"""So much before the stretch is decoded then, as a decoder needs what is before, and captions last."""


def read_span(path: Path, tracks: Mapping[str, str], start: int, end: int, audio_rate: int, max_width: int) -> dict[str, list[Decoded]]:
    """Stream -> what it has in `[start, end)`, ns from the file's first instant, in order; nothing for tracks that the file lacks.

    `tracks` is stream -> `video:0`, `audio:0` ...; each stream a track of its own. Raises SourceError for a file that can't be read, or is
    damaged there.
    """
    settings = MediaSourceSettings(type="media", path=str(path), streams=dict(tracks), audio_rate=audio_rate, max_width=max_width)
    looked_up = start > FAR
    found, first = _read(path, settings, start, end, looked_up)
    if looked_up and first > start:  # an index that leads too far
        found, _ = _read(path, settings, start, end, False)
    return found


def _read(path: Path, settings: MediaSourceSettings, start: int, end: int, looked_up: bool) -> tuple[dict[str, list[Decoded]], int]:
    """What is there, and the latest first instant of a stream of pictures or sound."""
    container = Container(str(path), settings)
    found: dict[str, list[Decoded]] = {}
    firsts: dict[str, int] = {}
    try:
        if looked_up:
            container.seek(container.zero + start - LEAD)
        for stream, what in container.read():
            at = None if what.at is None else what.at - container.zero
            if at is not None and at >= end + SECOND:  # streams may lie apart in the file by as much
                break
            if isinstance(what, Damaged):
                if at is None or start <= at < end:
                    raise SourceError(f"{what.detail}; repair the file, or leave this part of it out")
            elif at is not None:
                if not isinstance(what.payload, str):
                    firsts.setdefault(stream, at)
                if at < end and at + max(what.duration, 1) > start:
                    found.setdefault(stream, []).append(what._replace(at=at))
    finally:
        container.close()
    return found, max(firsts.values(), default=0)
