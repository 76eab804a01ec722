"""Payloads that are what they say decode; all others are refused with a sentence."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from streamfuse.errors import UndecodablePayload
from streamfuse.models import decode as decoding
from streamfuse.models.decode import Decoded, decode
from streamfuse.types import Audio, Encoded, Image, Packet
from tests.models.making import jpeg, packet, png, sound

LIMIT = 50_000_000


def decoded(p: Packet, modality: str, min_width: int = 0) -> Decoded:
    return decode(p, modality, max_pixels=LIMIT, min_width=min_width)


def refusal(p: Packet, modality: str) -> str:
    with pytest.raises(UndecodablePayload) as caught:
        decoded(p, modality)
    return str(caught.value)


def image(data: bytes, media_type: str = "image/jpeg") -> Packet:
    return packet("video", Encoded(data, media_type))


def huge_jpeg() -> bytes:
    """A whole small JPEG whose header was changed to say 30,000 x 30,000."""
    data = bytearray(jpeg().data)
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", 30_000, 30_000)
    return bytes(data)


def huge_png() -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header)) + b"\0\0\0\0IEND\xaeB`\x82"


def test_jpeg_becomes_bgr_pixels() -> None:
    blue = np.zeros((64, 80, 3), np.uint8)
    blue[..., 0] = 255
    out = decoded(packet("video", jpeg(blue)), "image")
    assert isinstance(out, Image)
    assert out.pixels.shape == (64, 80, 3)
    assert out.pixels[32, 40, 0] > 240 > 20 > out.pixels[32, 40, 2]


def test_png_keeps_every_pixel() -> None:
    out = decoded(packet("video", png()), "image")
    assert isinstance(out, Image)
    assert (out.pixels == np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)).all()


@pytest.mark.parametrize("fast", [True, False])
def test_jpeg_is_scaled_while_it_is_decoded_but_never_below_the_width_asked_for(fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not fast:
        monkeypatch.setattr(decoding, "simplejpeg", None)
    out = decoded(packet("video", jpeg(np.zeros((480, 640, 3), np.uint8))), "image", min_width=300)
    assert isinstance(out, Image)
    assert 300 <= out.pixels.shape[1] <= 320


@pytest.mark.parametrize("fast", [True, False])
def test_truncated_jpeg_is_refused(fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not fast:
        monkeypatch.setattr(decoding, "simplejpeg", None)
    data = jpeg().data
    assert "cut off" in refusal(image(data[: len(data) * 2 // 3]), "image")


def test_jpeg_with_damage_in_the_middle_is_refused() -> None:
    pytest.importorskip("simplejpeg", reason="OpenCV repairs it in silence; only the `fast` extra notices")
    data = bytearray(jpeg().data)
    middle = len(data) // 2
    data[middle : middle + 40] = b"\xff\xd9" * 20
    assert "damaged" in refusal(image(bytes(data)), "image")


def test_bytes_that_are_no_jpeg_are_refused() -> None:
    assert "begins with ff d8" in refusal(image(b"not an image at all"), "image")


def test_empty_payload_is_refused() -> None:
    assert "found nothing" in refusal(image(b""), "image")


@pytest.mark.parametrize(("data", "media_type"), [(huge_jpeg(), "image/jpeg"), (huge_png(), "image/png")])
def test_image_of_30000_by_30000_is_refused_before_it_is_decoded(data: bytes, media_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def decodes(*_: object, **__: object) -> None:
        raise AssertionError("a decoder saw it")

    monkeypatch.setattr(cv2, "imdecode", decodes)
    monkeypatch.setattr(decoding, "simplejpeg", SimpleNamespace(decode_jpeg=decodes))
    tracemalloc.start()
    try:
        assert "30000 x 30000" in refusal(image(data, media_type), "image")
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_decoded_image_is_held_to_the_same_limit() -> None:
    frame = packet("video", Image(np.zeros((100, 100, 3), np.uint8)))
    with pytest.raises(UndecodablePayload, match=r"models\.max_pixels"):
        decode(frame, "image", max_pixels=5000)


def test_truncated_png_is_refused() -> None:
    assert "cut off" in refusal(image(png().data[:-20], "image/png"), "image")


def test_unknown_image_type_is_refused_with_the_known_ones() -> None:
    assert "image/jpeg or image/png" in refusal(image(b"GIF89a", "image/gif"), "image")


def test_l16_is_read_in_network_byte_order() -> None:
    out = decoded(packet("audio", Encoded(b"\x01\x00\xff\xff", "audio/L16", 8000, 1)), "audio")
    assert isinstance(out, Audio)
    assert out.samples[:, 0].tolist() == [256, -1]


def test_pcm_is_read_little_endian() -> None:
    out = decoded(packet("audio", Encoded(b"\x01\x00\xff\xff", "audio/pcm", 8000, 2)), "audio")
    assert isinstance(out, Audio)
    assert out.samples.tolist() == [[1, -1]]


def test_odd_number_of_bytes_is_refused() -> None:
    assert "multiple of 2 bytes, found 3" in refusal(packet("audio", Encoded(b"abc", "audio/pcm", 8000, 1)), "audio")


@pytest.mark.parametrize("rate", [None, 0, -5, 10**9])
def test_absurd_rate_is_refused(rate: int | None) -> None:
    assert "sample rate" in refusal(packet("audio", Encoded(b"\0\0", "audio/pcm", rate, 1)), "audio")


def test_rate_that_does_not_fit_the_duration_is_refused() -> None:
    chunk = sound(40, 16_000)
    wrong = packet("audio", Encoded(chunk.data, chunk.media_type, 44_100, 1), duration=40)
    assert "14.5125 ms, but the packet's duration is 40 ms" in refusal(wrong, "audio")


def test_samples_of_another_width_are_refused() -> None:
    bytes_24 = packet("audio", Encoded(bytes(3 * 640), "audio/pcm", 16_000, 1), duration=40)
    assert "sample width (16 bit)" in refusal(bytes_24, "audio")


def test_text_that_is_not_utf8_is_refused_with_the_byte() -> None:
    assert "byte 0xff at 2" in refusal(packet("text", Encoded(b"ab\xff", "text/plain")), "text")


def test_text_becomes_words() -> None:
    assert decoded(packet("text", Encoded("grüß dich".encode(), "text/plain; charset=utf-8")), "text") == "grüß dich"


def test_payload_of_another_modality_is_refused() -> None:
    assert "as image, but the packet is 'text/plain'" in refusal(packet("video", Encoded(b"hi", "text/plain")), "image")


def test_payload_without_a_known_type_is_refused() -> None:
    assert "application/zip" in refusal(packet("video", Encoded(b"PK", "application/zip")), "image")
