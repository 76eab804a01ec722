"""Turns a packet's payload into pixels, samples, words or numbers, and refuses what is not what it says it is.

Everything here trusts nothing that came over the wire: an image's size is read from its header before a decoder sees
it, a truncated file is refused instead of half decoded, and sound must last as long as its packet says.
"""

from __future__ import annotations

from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from streamfuse.errors import UndecodablePayload
from streamfuse.models.feature_rows import FEATURE_TYPES, decode_row
from streamfuse.models.sound_files import FORMATS, decode_sound_file
from streamfuse.types import MILLISECOND, SECOND, Audio, Encoded, Image, Packet, Payload

try:
    import simplejpeg
except ImportError:  # the `fast` extra; OpenCV does the same at about twice the cost
    simplejpeg = None

IMAGE_TYPES = ("image/jpeg", "image/png")
PCM_TYPES = ("audio/pcm", "audio/l16")
AUDIO_TYPES = (*PCM_TYPES, *FORMATS)
TEXT_TYPES = ("text/plain",)
RATES = (1_000, 384_000)
"""Sample rates that sound can have, in Hz."""
SAMPLES = {"s16le": "<i2", "s16be": ">i2", "f32le": "<f4"}
"""Encodings of PCM, as NumPy names them."""
PADDING = 80 * MILLISECOND
"""So much may stand behind the end of a sound in a file: Opus comes in whole frames, of up to 60 ms."""

Decoded = Image | Audio | str | NDArray[np.float32]


def decode(packet: Packet, modality: str, *, max_pixels: int, min_width: int = 0) -> Decoded:
    """The packet's payload as an `Image`, `Audio`, words, or a row of numbers for the modality `features`; payloads that are decoded
    already come back as they are. A row may also come as a text that is a JSON list.

    An image wider than `min_width` may come back smaller, but never narrower than that. Raises `UndecodablePayload`
    with a sentence.
    """
    payload = packet.payload
    decoded: Decoded = _decode_encoded(payload, max_pixels, min_width) if isinstance(payload, Encoded) else payload
    if modality == "features" and isinstance(decoded, str):
        decoded = decode_row(decoded, "application/json")
    expected = {"image": Image, "audio": Audio, "text": str, "features": np.ndarray}[modality]
    if not isinstance(decoded, expected):
        raise UndecodablePayload(
            f"the model reads stream {packet.stream!r} as {modality}, but the packet is {_kind(payload)}; "
            f"send one of {', '.join(_accepted(modality))}"
        )
    if isinstance(decoded, Audio):
        if isinstance(payload, Encoded) and _media_type(payload) in FORMATS:
            decoded = _without_padding(decoded, packet.duration)
        _check_length(decoded, packet)
    elif isinstance(decoded, Image):
        _check_pixels(decoded, max_pixels)
    return decoded


def decode_image(data: bytes, media_type: str, *, max_pixels: int, min_width: int = 0) -> Image:
    """JPEG (ITU-T T.81) or PNG (RFC 2083) bytes as BGR pixels, scaled down while decoding where that keeps
    `min_width`."""
    if media_type == "image/jpeg":
        width, height = jpeg_size(data)
    elif media_type == "image/png":
        width, height = png_size(data)
    else:
        raise UndecodablePayload(f"expected an image as {' or '.join(IMAGE_TYPES)}, found {media_type!r}; convert it")
    if width * height > max_pixels:
        raise UndecodablePayload(
            f"the image's header says {width} x {height} pixels, more than models.max_pixels = {max_pixels}; "
            "send smaller images, or raise it if that much memory is there"
        )
    if media_type == "image/jpeg":
        return Image(_jpeg_pixels(data, width, min_width))
    return Image(_opencv_pixels(data, cv2.IMREAD_COLOR, "PNG"))


def decode_audio(data: bytes, media_type: str, rate: int | None, channels: int | None, encoding: str | None = None) -> Audio:
    """PCM as 16-bit samples: `audio/l16` in network byte order (RFC 2586), `audio/pcm` little-endian, or as `encoding` says; or a
    sound file, which says itself what it is."""
    if media_type in FORMATS:
        return decode_sound_file(data, media_type)
    if media_type not in PCM_TYPES:
        raise UndecodablePayload(f"expected sound as {' or '.join(AUDIO_TYPES)}, found {media_type!r}; convert it to 16-bit PCM")
    if rate is None or not RATES[0] <= rate <= RATES[1]:
        raise UndecodablePayload(f"expected a sample rate from {RATES[0]} to {RATES[1]} Hz with PCM, found {rate}; send it")
    channels = 1 if channels is None else channels
    if not 1 <= channels <= 64:
        raise UndecodablePayload(f"expected 1 to 64 channels, found {channels}; correct the packet's description")
    kind = SAMPLES.get(encoding or ("s16be" if media_type == "audio/l16" else "s16le"))
    if kind is None:
        raise UndecodablePayload(f"expected sound encoded as {' or '.join(SAMPLES)}, found {encoding!r}; convert it")
    sample = np.dtype(kind).itemsize
    if len(data) % (sample * channels):
        raise UndecodablePayload(
            f"expected whole {8 * sample}-bit samples of {channels} channel(s), so a multiple of {sample * channels} bytes, "
            f"found {len(data)}; is it of another width, or cut off?"
        )
    samples = np.frombuffer(data, dtype=kind)
    return Audio((_from_float(samples) if kind == "<f4" else samples.astype(np.int16)).reshape(-1, channels), rate)


def decode_text(data: bytes) -> str:
    """UTF-8 (RFC 3629) bytes as words."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UndecodablePayload(
            f"expected text in UTF-8, found byte 0x{data[error.start]:02x} at {error.start}, which is not; convert the text"
        ) from None


def jpeg_size(data: bytes) -> tuple[int, int]:
    """Width and height from a JPEG's frame header; refuses data that does not begin or end as a JPEG does."""
    if not data.startswith(b"\xff\xd8"):
        raise UndecodablePayload(f"expected a JPEG, which begins with ff d8, found {data[:2].hex(' ') or 'nothing'}; is it another format?")
    at = 2
    while at + 9 <= len(data):
        if data[at] != 0xFF:
            raise UndecodablePayload(f"expected a JPEG marker at byte {at}, found 0x{data[at]:02x}; the image is damaged")
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:  # markers without a segment
            at += 2
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = int.from_bytes(data[at + 5 : at + 7], "big"), int.from_bytes(data[at + 7 : at + 9], "big")
            if not width or not height:
                raise UndecodablePayload(
                    f"expected an image with pixels, found {width} x {height} in the JPEG's header; the image is damaged"
                )
            return width, height
        elif marker in (0xD9, 0xDA):
            break
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    raise UndecodablePayload(f"expected a JPEG with a frame header, found none in its {len(data)} bytes; it is cut off or damaged")


def png_size(data: bytes) -> tuple[int, int]:
    """Width and height from a PNG's header; refuses data that does not begin as a PNG does or lacks its end."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n") or data[12:16] != b"IHDR" or len(data) < 33:
        raise UndecodablePayload(f"expected a PNG with its header, found {data[:8].hex(' ') or 'nothing'}; is it another format?")
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    if not width or not height:
        raise UndecodablePayload(f"expected an image with pixels, found {width} x {height} in the PNG's header; the image is damaged")
    return width, height


def _decode_encoded(payload: Encoded, max_pixels: int, min_width: int) -> Decoded:
    media_type = _media_type(payload)
    if media_type.startswith("image/"):
        return decode_image(payload.data, media_type, max_pixels=max_pixels, min_width=min_width)
    if media_type.startswith("audio/"):
        return decode_audio(payload.data, media_type, payload.rate, payload.channels, payload.encoding)
    if media_type in TEXT_TYPES:
        return decode_text(payload.data)
    if media_type in FEATURE_TYPES:
        return decode_row(payload.data, media_type)
    known = ", ".join((*IMAGE_TYPES, *AUDIO_TYPES, *TEXT_TYPES, *FEATURE_TYPES))
    raise UndecodablePayload(f"expected one of {known}, found {payload.media_type!r}; convert the payload")


def _media_type(payload: Encoded) -> str:
    return payload.media_type.split(";")[0].strip().lower()


def _jpeg_pixels(data: bytes, width: int, min_width: int) -> NDArray[np.uint8]:
    # libjpeg fills what is missing with grey and says so only on stderr; a camera's half frame would look like a
    # motion.
    if b"\xff\xd9" not in data[-64:]:
        raise UndecodablePayload(f"expected a JPEG to end with ff d9, found {data[-2:].hex(' ')} after {len(data)} bytes; it is cut off")
    if simplejpeg is not None:
        try:
            pixels = simplejpeg.decode_jpeg(data, "BGR", min_width=min_width or width, min_height=1, min_factor=1, strict=True)
        except ValueError as error:
            raise UndecodablePayload(f"expected a whole JPEG, found one that does not decode ({error}); the image is damaged") from None
        return cast(NDArray[np.uint8], pixels)
    flag = cv2.IMREAD_COLOR
    for factor, reduced in (
        (8, cv2.IMREAD_REDUCED_COLOR_8),
        (4, cv2.IMREAD_REDUCED_COLOR_4),
        (2, cv2.IMREAD_REDUCED_COLOR_2),
    ):
        if min_width and width // factor >= min_width:
            flag = reduced
            break
    return _opencv_pixels(data, flag, "JPEG")


def _opencv_pixels(data: bytes, flag: int, name: str) -> NDArray[np.uint8]:
    if name == "PNG" and b"IEND" not in data[-16:]:
        raise UndecodablePayload(f"expected a PNG to end with IEND, found none after {len(data)} bytes; it is cut off")
    try:
        pixels: Any = cv2.imdecode(np.frombuffer(data, np.uint8), flag | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise UndecodablePayload(f"expected a whole {name}, found one that does not decode ({error.err}); the image is damaged") from None
    if pixels is None:
        raise UndecodablePayload(f"expected a whole {name}, found one that does not decode; the image is damaged")
    return cast(NDArray[np.uint8], pixels)


def _from_float(samples: NDArray[np.float32]) -> NDArray[np.int16]:
    if not np.isfinite(samples).all():
        raise UndecodablePayload("expected samples from -1 to 1 in f32le, found some that are no number; is the sound encoded otherwise?")
    whole = np.clip(samples, -1, 1)  # first: times 32768, the greatest floats are none any more
    return np.clip(np.rint(whole * 32768), -32768, 32767).astype(np.int16)


def _without_padding(audio: Audio, duration: int) -> Audio:
    whole = -(-duration * audio.rate // SECOND)
    too_long = duration > 0 and 0 < len(audio.samples) - whole <= PADDING * audio.rate // SECOND
    return Audio(audio.samples[:whole], audio.rate) if too_long else audio


def _check_pixels(image: Image, max_pixels: int) -> None:
    pixels = image.pixels
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or not pixels.size:
        raise UndecodablePayload(
            f"expected pixels as (height, width, 3) uint8 in BGR order, found {pixels.shape} {pixels.dtype}; convert them"
        )
    if pixels.shape[0] * pixels.shape[1] > max_pixels:
        raise UndecodablePayload(
            f"the image has {pixels.shape[1]} x {pixels.shape[0]} pixels, more than models.max_pixels = {max_pixels}; send smaller images"
        )


def _check_length(audio: Audio, packet: Packet) -> None:
    # A wrong rate or width decodes without complaint; that it lasts longer or shorter than the packet gives it away.
    lasts = len(audio.samples) * SECOND // audio.rate
    if packet.duration and abs(lasts - packet.duration) > max(packet.duration // 10, 5 * MILLISECOND):
        raise UndecodablePayload(
            f"{len(audio.samples)} samples at {audio.rate} Hz last {lasts / MILLISECOND:g} ms, but the packet's "
            f"duration is "
            f"{packet.duration / MILLISECOND:g} ms; its rate or its sample width (16 bit) is not what it says"
        )


def _kind(payload: Payload) -> str:
    return repr(payload.media_type) if isinstance(payload, Encoded) else type(payload).__name__


def _accepted(modality: str) -> tuple[str, ...]:
    return {"image": IMAGE_TYPES, "audio": AUDIO_TYPES, "text": TEXT_TYPES, "features": FEATURE_TYPES}[modality]
