"""Media files come with the exact times of their tracks, merged, and go on where the last run stopped."""

from __future__ import annotations

import struct
import threading
from collections.abc import Sequence
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import numpy as np
import pytest

from streamfuse.clock import SystemClock
from streamfuse.config import MediaSourceSettings
from streamfuse.errors import SourceError
from streamfuse.interfaces import Clock, Source
from streamfuse.sources.media import MediaSource
from streamfuse.sources.tracks import plain
from streamfuse.testing import ManualClock
from streamfuse.types import MILLISECOND, SECOND, Audio, Image, Item, Loss, Outcome, Packet
from tests.sources.clips import FPS, Clip, grey, write
from tests.sources.contract import PATIENCE, SourceContract, commit, cursor_after, positions, read, reading

EVERYTHING = 10**9
NOON = 1_777_636_800 * SECOND


def source(path: Path | Sequence[Path] | str, clock: Clock | None = None, **settings: Any) -> MediaSource:
    paths = str(path) if isinstance(path, Path | str) else [str(p) for p in path]
    asked = MediaSourceSettings.model_validate({"type": "media", "path": paths, "pace": "full", "start": "file", **settings})
    return MediaSource(asked, clock or ManualClock(NOON))


def packets(said: Sequence[Item], stream: str) -> list[Packet]:
    return [item for item in said if isinstance(item, Packet) and item.stream == stream]


async def everything(path: Path | Sequence[Path] | str, **settings: Any) -> list[Item]:
    return await read(source(path, **settings), EVERYTHING)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("clips") / "clip.mkv", Clip())


class MediaFile:
    records, ends, resumes = 50 + 50 + 2, True, True

    def __init__(self, path: Path, state: Path, clock: Clock | None = None, **settings: Any) -> None:
        self._path, self._state, self._clock, self._settings = path, state, clock, settings

    def source(self) -> Source:
        return source(self._path, self._clock, state=str(self._state), **self._settings)


class TestMediaSource(SourceContract):
    @pytest.fixture
    def place(self, clip: Path, tmp_path: Path) -> MediaFile:
        return MediaFile(clip, tmp_path / "state.json")


class TestMediaSourceInRealTime(SourceContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> MediaFile:
        short = write(tmp_path / "short.mkv", Clip(frames=5, sound=200, captions=[(40, 100, "short")]))
        place = MediaFile(short, tmp_path / "state.json", SystemClock(), pace="realtime", start="now")
        place.records = 5 + 5 + 1
        return place


@pytest.mark.anyio
async def test_frames_have_the_times_of_the_file(clip: Path) -> None:
    frames = packets(await everything(clip), "video")
    assert [p.event_time for p in frames] == [n * SECOND // FPS for n in range(50)]
    assert {p.duration for p in frames} == {SECOND // FPS}


@pytest.mark.anyio
async def test_frames_are_bgr_pictures(clip: Path) -> None:
    frames = packets(await everything(clip), "video")
    for number, packet in enumerate(frames):
        assert isinstance(packet.payload, Image)
        assert packet.payload.pixels.shape == (64, 96, 3)
        assert packet.payload.pixels.dtype == np.uint8
        assert abs(float(packet.payload.pixels.mean()) - grey(number)) < 8


@pytest.mark.anyio
async def test_sound_is_cut_into_chunks_without_gaps(clip: Path) -> None:
    chunks = packets(await everything(clip), "audio")
    assert [p.event_time for p in chunks] == [n * 40 * MILLISECOND for n in range(50)]
    assert {p.duration for p in chunks} == {40 * MILLISECOND}
    for packet in chunks:
        assert isinstance(packet.payload, Audio)
        assert (packet.payload.samples.shape, packet.payload.rate) == ((640, 1), 16_000)


@pytest.mark.anyio
async def test_a_click_is_heard_when_it_was_made(clip: Path) -> None:
    chunks = packets(await everything(clip), "audio")
    sound = np.concatenate([p.payload.samples[:, 0] for p in chunks if isinstance(p.payload, Audio)])
    loud = np.flatnonzero(np.abs(sound) > 6000)
    starts = loud[np.insert(np.diff(loud) > 1000, 0, True)] / 16_000
    assert starts == pytest.approx([0.5, 1.5], abs=0.001)


@pytest.mark.anyio
async def test_captions_are_plain_text_with_their_length(clip: Path) -> None:
    captions = packets(await everything(clip), "text")
    assert [(p.event_time, p.duration, p.payload) for p in captions] == [
        (200 * MILLISECOND, 500 * MILLISECOND, "hello you"),
        (1200 * MILLISECOND, 600 * MILLISECOND, "good bye"),
    ]


@pytest.mark.anyio
async def test_a_caption_ends_with_its_file(tmp_path: Path) -> None:
    path = write(tmp_path / "clip.mp4", Clip(audio="aac", text="mov_text", captions=[(1900, 5000, "to be continued")]))
    caption = packets(await everything(path), "text")[0]
    assert caption.event_time == 1900 * MILLISECOND
    assert abs(caption.end - 2 * SECOND) < 50 * MILLISECOND


@pytest.mark.anyio
async def test_tracks_are_merged_by_event_time(clip: Path) -> None:
    times = [p.event_time for p in await everything(clip) if isinstance(p, Packet)]
    assert times == sorted(times)


@pytest.mark.anyio
async def test_a_recording_arrived_when_it_happened(clip: Path) -> None:
    assert all(p.arrival_time == p.event_time for p in await everything(clip) if isinstance(p, Packet))


@pytest.mark.anyio
@pytest.mark.parametrize(("start", "first"), [("now", NOON), ("2026-05-01T12:00:00Z", NOON), ("file", 0)])
async def test_the_first_instant_is_where_start_says(clip: Path, start: str, first: int) -> None:
    said = await everything(clip, start=start)
    assert min(p.event_time for p in said if isinstance(p, Packet)) == first


@pytest.mark.anyio
async def test_the_offset_of_a_file_is_kept_only_with_its_own_times(tmp_path: Path) -> None:
    late = write(tmp_path / "late.mkv", Clip(offset=100_000))
    own = packets(await everything(late), "video")[0].event_time
    counted = packets(await everything(late, start="now"), "video")[0].event_time
    assert (own, counted) == (100 * SECOND, NOON)


@pytest.mark.anyio
async def test_a_track_that_begins_later_stays_later(tmp_path: Path) -> None:
    path = write(tmp_path / "late.mkv", Clip(sound=1000, gap=(0, 400), clicks=[]))
    assert packets(await everything(path, start="now"), "audio")[0].event_time == NOON + 400 * MILLISECOND


@pytest.mark.anyio
async def test_a_gap_in_the_sound_stays_a_gap(tmp_path: Path) -> None:
    path = write(tmp_path / "gap.mkv", Clip(gap=(700, 1300)))
    chunks = packets(await everything(path), "audio")
    before = [p for p in chunks if p.event_time < SECOND]
    after = [p for p in chunks if p.event_time >= SECOND]
    assert before[-1].end == 700 * MILLISECOND
    assert after[0].event_time == 1300 * MILLISECOND


@pytest.mark.anyio
async def test_wide_frames_are_scaled_down(tmp_path: Path) -> None:
    path = write(tmp_path / "wide.mkv", Clip(frames=3, sound=0, captions=[], size=(640, 360)))
    payload = packets(await everything(path, max_width=320), "video")[0].payload
    assert isinstance(payload, Image)
    assert payload.pixels.shape == (180, 320, 3)


@pytest.mark.anyio
async def test_mp4_with_h264_and_aac_and_mov_text_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "clip.mp4", Clip(video="libx264", audio="aac", text="mov_text"))
    said = await everything(path)
    assert len(packets(said, "video")) == 50
    assert [p.payload for p in packets(said, "text")] == ["hello you", "good bye"]
    sound = packets(said, "audio")
    assert abs(sound[-1].end - 2 * SECOND) < 50 * MILLISECOND


@pytest.mark.anyio
@pytest.mark.parametrize("ending", ["mkv", "mp4", "ts"])
async def test_frames_that_are_stored_out_of_order_are_shown_in_order(tmp_path: Path, ending: str) -> None:
    path = write(tmp_path / f"clip.{ending}", Clip(video="libx264", audio="aac", captions=[]))  # with B-frames
    frames = packets(await everything(path, start="now"), "video")
    assert [p.event_time - frames[0].event_time for p in frames] == [n * 40 * MILLISECOND for n in range(50)]
    assert all(isinstance(p.payload, Image) and abs(p.payload.pixels.mean() - grey(n)) < 8 for n, p in enumerate(frames))


@pytest.mark.anyio
async def test_a_transport_stream_keeps_its_tracks_together(tmp_path: Path) -> None:
    path = write(tmp_path / "clip.ts", Clip(video="libx264", audio="aac", captions=[]))
    said = await everything(path, start="now")
    frames, chunks = packets(said, "video"), packets(said, "audio")
    assert len(frames) == 50
    assert min(frames[0].event_time, chunks[0].event_time) == NOON
    assert abs(frames[0].event_time - chunks[0].event_time) < 50 * MILLISECOND


@pytest.mark.anyio
async def test_a_track_that_the_file_lacks_is_an_absent_stream(tmp_path: Path) -> None:
    path = write(tmp_path / "mute.mkv", Clip(sound=0, captions=[]))
    assert {p.stream for p in await everything(path) if isinstance(p, Packet)} == {"video"}


@pytest.mark.anyio
async def test_a_track_can_be_picked_by_its_number(clip: Path) -> None:
    assert {p.stream for p in await everything(clip, streams={"ear": "audio:0"}) if isinstance(p, Packet)} == {"ear"}


@pytest.mark.anyio
async def test_several_files_play_at_the_same_time_under_their_names(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{name}.mkv", Clip(frames=10, sound=400, captions=[])) for name in ("one", "two")]
    said = await everything(paths, start="now")
    times = [p.event_time for p in said if isinstance(p, Packet)]
    assert {p.key for p in said if isinstance(p, Packet)} == {"one", "two"}
    assert times == sorted(times)


@pytest.mark.anyio
async def test_a_loop_goes_on_in_time_and_in_offsets(tmp_path: Path) -> None:
    path = write(tmp_path / "loop.mkv", Clip(frames=5, sound=200, captions=[(40, 100, "again")]))
    frames = packets(await read(source(path, loop=True), 40), "video")
    assert [p.event_time for p in frames[:12]] == [n * 40 * MILLISECOND for n in range(12)]
    assert [p.position.offset for p in frames[:12]] == list(range(12))


@pytest.mark.anyio
async def test_a_loop_resumes_in_the_round_where_it_stopped(tmp_path: Path) -> None:
    path, state = write(tmp_path / "loop.mkv", Clip(frames=5, sound=0, captions=[])), tmp_path / "state.json"
    state.write_text(
        f'{{"schema": 1, "source": "media {path}", "start": 0, "offsets": {{"{path}/video": [1003, 1003]}}, "watermarks": {{}}}}'
    )
    first = packets(await read(source(path, loop=True, state=str(state)), 1), "video")[0]
    assert (first.position.offset, first.event_time) == (1003, 1003 * 40 * MILLISECOND)


@pytest.mark.anyio
async def test_a_resumed_run_keeps_the_event_times_of_the_first(tmp_path: Path, clip: Path) -> None:
    state = str(tmp_path / "state.json")
    whole = await everything(clip, start="now")
    await commit(source(clip, start="now", state=state), cursor_after(whole, positions(whole)[:10]))
    clock = ManualClock(NOON + 3600 * SECOND)
    settings = MediaSourceSettings(type="media", path=str(clip), pace="full", start="now", state=Path(state))
    said = await read(MediaSource(settings, clock), EVERYTHING)
    assert next(p for p in said if isinstance(p, Packet)).event_time < NOON + SECOND


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("content", "word"), [(None, "nothing at"), (b"", "FFmpeg can open"), (b"this is no film" * 100, "FFmpeg can open")]
)
async def test_what_is_no_media_file_is_refused_with_a_sentence(tmp_path: Path, content: bytes | None, word: str) -> None:
    path = tmp_path / "clip.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SourceError, match=word):
        await everything(path)


@pytest.mark.anyio
async def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="name the files in it"):
        await everything(tmp_path)


@pytest.mark.anyio
async def test_a_file_without_any_wanted_track_is_refused(clip: Path) -> None:
    with pytest.raises(SourceError, match="expected at least one of audio:5"):
        await everything(clip, streams={"audio": "audio:5"})


@pytest.mark.anyio
async def test_a_wrong_track_name_is_refused(clip: Path) -> None:
    with pytest.raises(SourceError, match=r"streams\.audio"):
        await everything(clip, streams={"audio": "sound"})


@pytest.mark.anyio
async def test_two_files_of_one_name_are_refused(tmp_path: Path, clip: Path) -> None:
    with pytest.raises(SourceError, match="key of its own"):
        await everything([clip, clip])


@pytest.mark.anyio
async def test_two_files_of_one_name_have_keys_when_one_is_given(clip: Path) -> None:
    said = await everything([clip, clip], key="room")
    assert {p.key for p in said if isinstance(p, Packet)} == {"room-1", "room-2"}
    assert len({p.position for p in said if isinstance(p, Packet)}) == 2 * 102


@pytest.mark.anyio
async def test_damage_in_the_middle_is_told_and_the_rest_goes_on(tmp_path: Path) -> None:
    path = write(tmp_path / "clip.mkv", Clip(frames=100, sound=4000, video="libx264", audio="flac", captions=[], size=(320, 240)))
    data = bytearray(path.read_bytes())
    for part in (0.4, 0.6):
        at = int(len(data) * part)
        data[at : at + 60] = np.random.default_rng(5).bytes(60)
    path.write_bytes(data)
    said = await everything(path)
    losses = [item for item in said if isinstance(item, Loss)]
    assert losses
    assert all(loss.reason is Outcome.UNDECODABLE and loss.position is not None and str(path) in loss.detail for loss in losses)
    assert packets(said, "video")[-1].event_time == 99 * 40 * MILLISECOND
    assert len(packets(said, "video")) > 50


@pytest.mark.anyio
async def test_a_file_that_was_cut_short_gives_what_is_there(tmp_path: Path) -> None:
    path = write(tmp_path / "clip.mkv", Clip())
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    said = await everything(path)
    assert 5 < len(packets(said, "video")) < 50


@pytest.mark.anyio
async def test_a_live_input_is_opened_again_when_it_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamfuse.sources.media.FIRST_WAIT", 1)
    clock = ManualClock(NOON)
    settings = MediaSourceSettings.model_validate(
        {"type": "media", "path": "anullsrc=duration=0.2:sample_rate=16000", "format": "lavfi", "streams": {"audio": "audio:0"}}
    )
    try:
        said = await read(MediaSource(settings, clock), 20)
    except SourceError as error:
        pytest.skip(f"this FFmpeg makes no sound of its own: {error}")
    offsets = [p.position.offset for p in packets(said, "audio")]
    assert offsets == list(range(len(offsets)))
    assert packets(said, "audio")[0].event_time == NOON


@pytest.mark.anyio
async def test_a_file_behind_an_address_is_read_like_any_file(tmp_path: Path, clip: Path) -> None:
    handler = partial(SimpleHTTPRequestHandler, directory=str(clip.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            said = await everything(f"http://127.0.0.1:{server.server_port}/{clip.name}", start="now")
        finally:
            server.shutdown()
    assert len(positions(said)) == MediaFile.records
    assert {p.key for p in said if isinstance(p, Packet)} == {"clip"}


@pytest.mark.anyio
async def test_an_address_where_nothing_answers_is_refused() -> None:
    with pytest.raises(SourceError, match="FFmpeg can open"):
        await everything("http://127.0.0.1:9/clip.mp4")


@pytest.mark.anyio
async def test_state_for_a_live_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="take `state` away"):
        await everything("anullsrc", format="lavfi", streams={"audio": "audio:0"}, state=str(tmp_path / "state"))


@pytest.mark.anyio
async def test_an_instant_for_a_live_input_is_refused() -> None:
    with pytest.raises(SourceError, match="happens now"):
        await everything("anullsrc", format="lavfi", streams={"audio": "audio:0"}, start="2026-05-01T12:00:00Z")


@pytest.mark.anyio
async def test_a_live_input_among_others_is_refused() -> None:
    inputs = [Path("anullsrc"), Path("anullsrc=r=8000")]
    with pytest.raises(SourceError, match="give each its own source"):
        await everything(inputs, format="lavfi", streams={"audio": "audio:0"})


@pytest.mark.anyio
async def test_pictures_of_a_phone_that_was_held_upright_stand_upright(tmp_path: Path) -> None:
    path = write(tmp_path / "phone.mp4", Clip(frames=3, sound=0, captions=[], bright_top=True))
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 44  # ISO 14496-12, 8.3.2
    data[matrix : matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 64 << 16, 0, 1 << 30)  # 90 degrees clockwise
    path.write_bytes(data)
    payload = packets(await everything(path), "video")[0].payload
    assert isinstance(payload, Image)
    assert payload.pixels.shape == (96, 64, 3)
    left, right = payload.pixels[:, :24].mean(), payload.pixels[:, 40:].mean()
    assert left < 80 < 200 < right


@pytest.mark.anyio
async def test_in_real_time_a_frame_waits_until_it_is_due(clip: Path) -> None:
    with anyio.fail_after(PATIENCE):
        async with reading(source(clip, pace="realtime")) as batches:  # with a clock that stands still
            said = await anext(batches)
    assert {p.event_time for p in said if isinstance(p, Packet)} == {0}


@pytest.mark.anyio
async def test_a_slow_reader_is_told_what_was_shed(clip: Path) -> None:
    slow = source(clip, when_full="drop_oldest")
    said: list[Item] = []
    with anyio.fail_after(PATIENCE):
        async with slow:
            batches = slow.batches()
            said.extend(await anext(batches))
            assert slow._bridge._thread is not None
            await anyio.to_thread.run_sync(slow._bridge._thread.join)
            async for batch in batches:
                said.extend(batch)
    assert {item.reason for item in said if isinstance(item, Loss)} == {Outcome.SHED}
    assert positions(said) == positions(await everything(clip))


@pytest.mark.parametrize(
    ("markup", "words"),
    [
        (rb"{\i1}one{\i0}\Ntwo", "one two"),
        ("<font color='red'>red</font> and <b>bold</b>", "red and bold"),
        ("1 < 2 and 3 > 2", "1 < 2 and 3 > 2"),
        ("<y and z>", "<y and z>"),
        (b"\xff", "\ufffd"),
        ("", ""),
    ],
)
def test_captions_lose_their_tags_and_nothing_else(markup: bytes | str, words: str) -> None:
    assert plain(markup) == words


@pytest.mark.data
@pytest.mark.anyio
async def test_the_captions_of_the_nasa_clip_have_their_exact_times(recordings: Path) -> None:
    captions = packets(await everything(recordings / "clips" / "nasa_13013.mp4"), "text")
    assert [(p.event_time, p.duration) for p in captions] == [
        (210_000_000, 4_050_000_000),
        (4_260_000_000, 4_090_000_000),
        (8_350_000_000, 4_120_000_000),
        (12_470_000_000, 586_000_000),  # the file says 4.1 s, and ends at 13.056 s
    ]
    assert captions[1].payload == "space telescope in one of the largest cleanrooms in the world"


@pytest.mark.data
@pytest.mark.anyio
@pytest.mark.parametrize(("track", "frames", "rate"), [("video:0", 325, 25.0), ("video:1", 390, 30000 / 1001)])
async def test_the_frames_of_the_nasa_clip_have_their_exact_times(recordings: Path, track: str, frames: int, rate: float) -> None:
    said = await everything(recordings / "clips" / "nasa_13013.mp4", streams={"video": track})
    times = [p.event_time for p in packets(said, "video")]
    assert len(times) == frames
    assert max(abs(t - n / rate * SECOND) for n, t in enumerate(times)) <= 1


@pytest.mark.data
@pytest.mark.anyio
async def test_the_sound_of_the_nasa_clip_is_whole(recordings: Path) -> None:
    chunks = packets(await everything(recordings / "clips" / "nasa_13013.mp4"), "audio")
    assert chunks[0].event_time == 0
    assert all(a.end == b.event_time for a, b in pairwise(chunks))
    assert chunks[-1].end == pytest.approx(13_056_000_000, abs=20_000_000)


@pytest.mark.data
@pytest.mark.anyio
async def test_all_tracks_of_the_recordings_come_in_the_order_of_time(recordings: Path) -> None:
    for path in sorted((recordings / "clips").iterdir()):
        times = [p.event_time for p in await everything(path) if isinstance(p, Packet)]
        assert times == sorted(times), path.name
