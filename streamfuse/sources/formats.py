"""What the config says of records that don't say it themselves, as the decoder takes it."""

from __future__ import annotations

from collections.abc import Mapping

from streamfuse.codecs import Format
from streamfuse.config import FormatSettings


def formats_of(settings: Mapping[str, FormatSettings]) -> dict[str, Format]:
    """By stream."""
    return {stream: Format(f.media_type, f.samplerate, f.channels, f.encoding, f.duration) for stream, f in settings.items()}
