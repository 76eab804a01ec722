"""FLAC and Opus in Ogg become samples; what is damaged, cut off or something else is refused with a sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from streamfuse.config import ModelSettings
from streamfuse.errors import UndecodablePayload
from streamfuse.lengths import SAMPLE_BYTES, sound_length
from streamfuse.models import sound_files
from streamfuse.models.decode import SAMPLES, decode
from streamfuse.models.runner import TorchRunner
from streamfuse.models.sound_files import decode_sound_file
from streamfuse.testing import ManualClock
from streamfuse.types import MILLISECOND, Absence, Audio, Encoded
from tests.models.making import packet, window, write_bundle
from tests.models.sounds import encoded, flac, opus, tone

FILES = {"audio/flac": flac, "audio/ogg": opus}


def refusal(data: bytes, media_type: str) -> str:
    with pytest.raises(UndecodablePayload) as caught:
        decode_sound_file(data, media_type)
    return str(caught.value)


@pytest.mark.parametrize("channels", [1, 2])
def test_flac_comes_back_sample_by_sample(channels: int) -> None:
    sound = tone(500, channels=channels)
    audio = decode_sound_file(flac(sound), "audio/flac")
    assert audio.rate == 16_000
    assert np.array_equal(audio.samples, sound)


@pytest.mark.parametrize("media_type", ["audio/ogg", "audio/opus"])
def test_opus_comes_back_at_its_own_rate_with_the_tone_that_went_in(media_type: str) -> None:
    audio = decode_sound_file(opus(tone(500)), media_type)
    spectrum = np.abs(np.fft.rfft(audio.samples[:24_000, 0]))
    assert audio.rate == 48_000
    assert np.argmax(spectrum) * 2 == 440  # Hz, of half a second


@pytest.mark.parametrize("media_type", FILES)
def test_a_packet_of_a_sound_file_lasts_as_long_as_it_says(media_type: str) -> None:
    out = decode(packet("audio", Encoded(FILES[media_type](tone(40)), media_type), duration=40), "audio", max_pixels=1)
    assert isinstance(out, Audio)
    assert len(out.samples) == 40 * out.rate // 1000


def test_a_sound_file_that_is_much_longer_than_its_packet_is_refused() -> None:
    with pytest.raises(UndecodablePayload, match="last 500 ms, but the packet's duration is 40 ms"):
        decode(packet("audio", Encoded(flac(tone(500)), "audio/flac"), duration=40), "audio", max_pixels=1)


@pytest.mark.parametrize(("media_type", "most"), [("audio/flac", 500), ("audio/ogg", 510)])
def test_the_length_stands_in_the_bytes(media_type: str, most: int) -> None:
    assert 500 * MILLISECOND <= sound_length(FILES[media_type](tone(500))) <= most * MILLISECOND


@pytest.mark.parametrize("data", [b"", b"fLaC", b"OggS", b"OggS" + b"\0" * 30 + b"OpusHead"])
def test_bytes_that_say_nothing_of_their_length_have_none(data: bytes) -> None:
    assert sound_length(data) == 0


@pytest.mark.parametrize("media_type", FILES)
def test_a_file_that_is_cut_off_is_refused(media_type: str) -> None:
    data = FILES[media_type](tone(500))
    assert "cut off" in (said := refusal(data[: -len(data) // 8], media_type)) or "damaged" in said


@pytest.mark.parametrize("media_type", ["audio/flac", "audio/ogg"])
def test_a_changed_byte_of_sound_is_found_by_its_checksum(media_type: str) -> None:
    data = bytearray(FILES[media_type](tone(500)))
    data[-200] ^= 0x40
    assert "damaged" in (said := refusal(bytes(data), media_type)) or "cut off" in said


@pytest.mark.parametrize("data", [b"", b"fLaC", b"OggS" + bytes(300), b"no sound at all" * 20])
@pytest.mark.parametrize("media_type", FILES)
def test_what_is_no_sound_is_refused(data: bytes, media_type: str) -> None:
    assert media_type in refusal(data, media_type)


def test_a_file_of_another_format_is_refused() -> None:
    assert "expected sound in the audio/flac, found none" in refusal(opus(tone(100)), "audio/flac")


def test_another_codec_in_ogg_is_refused() -> None:
    assert "expected opus in audio/ogg, found vorbis" in refusal(encoded(tone(100, channels=2), "vorbis", "ogg"), "audio/ogg")


def test_more_sound_than_a_packet_may_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sound_files, "MAX_SAMPLES", 1000)
    assert "at most 1000 samples" in refusal(flac(tone(500)), "audio/flac")


def test_a_file_of_two_sounds_is_refused() -> None:
    assert "found 2 tracks" in refusal(encoded(tone(100), "libopus", "ogg", tracks=2), "audio/ogg")


@pytest.mark.anyio
async def test_a_model_hears_flac_as_it_hears_pcm(tmp_path: Path) -> None:
    settings = ModelSettings(bundle=str(write_bundle(tmp_path / "small")), device="cpu")
    chunks = [tone(40) + np.int16(at) for at in range(25)]
    payloads = [
        [Encoded(chunk.tobytes(), "audio/pcm", 16_000, 1) for chunk in chunks],
        [Encoded(flac(chunk), "audio/flac") for chunk in chunks],
        [Encoded(opus(chunk), "audio/ogg") for chunk in chunks],
    ]
    windows = [
        window(*(packet("audio", payload, 40 * at, 40) for at, payload in enumerate(some)), absent={"video": Absence.IDLE})
        for some in payloads
    ]
    async with TorchRunner(settings, ManualClock()) as runner:
        batch = await runner.prepare(windows)
        made = await runner.predict(batch)
    assert not batch.undecodable
    assert made[1].scores == pytest.approx(made[0].scores, abs=1e-6)
    assert [one.packets["audio"] for one in made] == [25, 25, 25]


# --- PCM ---


@pytest.mark.parametrize(
    ("encoding", "data"),
    [("s16le", b"\x00\x40\x00\xc0"), ("s16be", b"\x40\x00\xc0\x00"), ("f32le", b"\x00\x00\x00\x3f\x00\x00\x00\xbf")],
)
def test_pcm_is_read_as_its_encoding_says(encoding: str, data: bytes) -> None:
    out = decode(packet("audio", Encoded(data, "audio/pcm", 8000, 1, encoding)), "audio", max_pixels=1)
    assert isinstance(out, Audio)
    assert out.samples[:, 0].tolist() == [16384, -16384]


def test_floats_beyond_full_scale_are_clipped() -> None:
    data = np.array([2.0, -3e38, 1.0], "<f4").tobytes()
    out = decode(packet("audio", Encoded(data, "audio/pcm", 8000, 1, "f32le")), "audio", max_pixels=1)
    assert isinstance(out, Audio)
    assert out.samples[:, 0].tolist() == [32767, -32768, 32767]


def test_floats_that_are_no_numbers_are_refused() -> None:
    data = np.array([0.0, np.nan], "<f4").tobytes()
    with pytest.raises(UndecodablePayload, match="some that are no number"):
        decode(packet("audio", Encoded(data, "audio/pcm", 8000, 1, "f32le")), "audio", max_pixels=1)


def test_the_wire_and_the_decoder_know_the_same_encodings() -> None:
    assert {name: np.dtype(kind).itemsize for name, kind in SAMPLES.items()} == SAMPLE_BYTES
