"""How long sound lasts, read from its bytes without decoding it."""

from __future__ import annotations

from streamfuse.types import SECOND

SAMPLE_BYTES = {"s16le": 2, "s16be": 2, "f32le": 4}
"""Sample formats of PCM -> bytes per sample."""

_OPUS_RATE = 48_000  # RFC 7845: granule positions count at 48 kHz, whatever was recorded


def sound_length(data: bytes) -> int:
    """What a FLAC or Ogg Opus file says itself of its length, in ns; 0 where it does not say or is neither."""
    if data.startswith(b"fLaC"):
        return _flac_length(data)
    if data.startswith(b"OggS"):
        return _opus_length(data)
    return 0


def _flac_length(data: bytes) -> int:
    """From STREAMINFO (RFC 9639, section 8.2): 20 bits of sample rate, 3 of channels, 5 of sample size, 36 of total samples."""
    described = int.from_bytes(data[18:26], "big")
    rate, total = described >> 44, described & (1 << 36) - 1
    return total * SECOND // rate if len(data) >= 26 and rate else 0


def _opus_length(data: bytes) -> int:
    """From the last page's granule position, less what the decoder skips at the beginning (RFC 7845, section 4)."""
    head, last = data.find(b"OpusHead", 0, 512), data.rfind(b"OggS")
    if head < 0 or len(data) < last + 14:
        return 0
    skipped = int.from_bytes(data[head + 10 : head + 12], "little")
    end = int.from_bytes(data[last + 6 : last + 14], "little", signed=True)
    return max(end - skipped, 0) * SECOND // _OPUS_RATE
