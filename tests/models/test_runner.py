"""The runner turns windows into predictions, whatever is missing or damaged in them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from streamfuse.clock import SystemClock
from streamfuse.config import ModelSettings
from streamfuse.documents import prediction_from_json, prediction_to_json
from streamfuse.errors import BundleError
from streamfuse.interfaces import Runner
from streamfuse.models.bundle import save_bundle
from streamfuse.models.fusion_model import build
from streamfuse.models.runner import TorchRunner
from streamfuse.testing import ManualClock
from streamfuse.types import Absence, Encoded, Prediction, Window
from tests.models.making import LABELS, architecture, config, full_window, jpeg, packet, sound, window, write_bundle

pytestmark = pytest.mark.anyio


@pytest.fixture
def settings(tmp_path: Path) -> ModelSettings:
    return ModelSettings(bundle=str(write_bundle(tmp_path / "small")), device="cpu", max_batch=4)


async def predictions(runner: TorchRunner, *windows: Window) -> list[Prediction]:
    return await runner.predict(await runner.prepare(windows))


def scores_of(prediction: Prediction) -> list[float]:
    return [prediction.scores[label] for label in LABELS]


async def test_prediction_carries_what_went_in_and_who_made_it(settings: ModelSettings) -> None:
    async with TorchRunner(settings, ManualClock(now=77)) as runner:
        (made,) = await predictions(runner, full_window())
    assert made.id == full_window().id
    assert made.label == max(made.scores, key=lambda label: made.scores[label])
    assert sum(made.scores.values()) == pytest.approx(1)
    assert made.packets == {"video": 10, "audio": 25, "text": 1}
    assert made.absent == {}
    assert (made.model, made.digest, made.produced_at) == ("small", runner.bundle.digest, 77)
    assert made.texts == {}
    assert made.truth is None


async def test_runner_names_the_streams_that_it_reads(settings: ModelSettings) -> None:
    runner: Runner = TorchRunner(settings, ManualClock())
    assert runner.inputs == {"video": "image", "audio": "audio", "text": "text"}


async def test_windows_with_missing_streams_are_answered_as_if_they_were_alone(settings: ModelSettings) -> None:
    whole = full_window()
    some = [
        whole,
        window(*whole.packets["audio"], absent={"video": Absence.LATE, "text": Absence.GAP}),
        window(*whole.packets["video"], absent={"audio": Absence.IDLE}),
        window(absent={"audio": Absence.SHED}),
    ]
    async with TorchRunner(settings, ManualClock()) as runner:
        together = await predictions(runner, *some)
        alone = [(await predictions(runner, w))[0] for w in some]
    for one, other in zip(together, alone, strict=True):
        assert scores_of(one) == pytest.approx(scores_of(other), abs=1e-5)
    assert together[1].absent == {"video": "late", "text": "gap"}
    assert together[3].absent == {"audio": "shed", "video": "idle", "text": "idle"}


async def test_contributions_are_of_present_streams_and_add_up(settings: ModelSettings) -> None:
    nothing = window()
    async with TorchRunner(settings, ManualClock()) as runner:
        full, part, empty = await predictions(runner, full_window(), window(*full_window().packets["video"]), nothing)
    assert set(full.contributions) == {"video", "audio", "text"}
    assert set(part.contributions) == {"video"}
    assert empty.contributions == {}
    for made in (full, part):
        gained = made.scores[made.label] - empty.scores[made.label]
        assert sum(made.contributions.values()) == pytest.approx(gained, abs=1e-5)


async def test_without_explaining_scores_are_the_same_and_contributions_left_out(settings: ModelSettings) -> None:
    async with TorchRunner(settings, ManualClock()) as runner:
        (told,) = await predictions(runner, full_window())
    async with TorchRunner(settings.model_copy(update={"explain": False}), ManualClock()) as runner:
        (untold,) = await predictions(runner, full_window())
    assert scores_of(untold) == pytest.approx(scores_of(told), abs=1e-5)
    assert (untold.contributions, untold.weights) == ({}, {})
    assert sum(told.weights.values()) == pytest.approx(1)
    assert set(told.weights) == set(told.contributions)


async def test_a_model_of_several_tasks_tells_all_of_them(tmp_path: Path) -> None:
    heads = {
        "level": {"type": "regression", "targets": ["decibel", "pitch"], "mean": [40, 200], "scale": [10, 50]},
        "heard": {"type": "multilabel", "labels": ["voice", "music"]},
        "state": {"type": "classification", "labels": LABELS},
    }
    described = {**architecture(), "heads": heads}
    save_bundle(tmp_path / "several", config(architecture=described), build(described))
    async with TorchRunner(ModelSettings(bundle=str(tmp_path / "several"), device="cpu"), ManualClock()) as runner:
        (made,) = await predictions(runner, full_window())
    assert {task: list(said) for task, said in made.outputs.items()} == {
        "level": ["decibel", "pitch"],
        "heard": ["voice", "music"],
        "state": LABELS,
    }
    assert (made.kind, made.label, made.scores) == ("regression", "pitch", made.outputs["level"])
    assert sum(made.outputs["state"].values()) == pytest.approx(1)
    assert prediction_from_json(prediction_to_json(made)) == made


async def test_what_windows_share_is_encoded_once_and_counted(settings: ModelSettings) -> None:
    said = [packet("text", f"word {at}", at) for at in (100, 600, 1200)]
    async with TorchRunner(settings, ManualClock()) as runner:
        await predictions(runner, window(*said[:2]), window(*said[1:], start=500, end=1500))
        assert runner.embeddings() == {("text", "computed"): 3, ("text", "kept"): 0}  # new to the batch, and then shared within it
        await predictions(runner, window(*said[1:], start=500, end=1500))
        assert runner.embeddings() == {("text", "computed"): 3, ("text", "kept"): 2}


async def test_encoding_windows_anew_answers_the_same(settings: ModelSettings) -> None:
    some = [full_window(), full_window(500), window(*full_window(500).packets["text"], start=500, end=1500)]
    async with TorchRunner(settings, ManualClock()) as runner:
        shared = [(await predictions(runner, w))[0] for w in some]
    async with TorchRunner(settings.model_copy(update={"recompute": True}), ManualClock()) as runner:
        anew = [(await predictions(runner, w))[0] for w in some]
        assert runner.embeddings() == {}
    for one, other in zip(shared, anew, strict=True):
        assert scores_of(one) == pytest.approx(scores_of(other), abs=1e-5)
        assert one.contributions == pytest.approx(other.contributions, abs=1e-5)


async def test_undecodable_packet_counts_as_absent_and_is_reported_once(settings: ModelSettings) -> None:
    broken = packet("video", Encoded(jpeg().data[:100], "image/jpeg"), 600, 100)
    first, second = window(broken), window(broken, start=500, end=1500)
    async with TorchRunner(settings, ManualClock()) as runner:
        batch = await runner.prepare([first, second])
        later = await runner.prepare([second])
        made = await runner.predict(batch)
    assert [(p, "cut off" in sentence) for p, sentence in batch.undecodable] == [(broken, True)]
    assert later.undecodable == ()
    assert [m.absent["video"] for m in made] == ["undecodable", "undecodable"]
    assert [m.packets for m in made] == [{}, {}]


async def test_one_bad_frame_leaves_the_good_ones(settings: ModelSettings) -> None:
    broken = packet("video", Encoded(b"nothing", "image/jpeg"), 50, 100)
    async with TorchRunner(settings, ManualClock()) as runner:
        (made,) = await predictions(runner, window(packet("video", jpeg(), 0, 100), broken))
    assert made.packets == {"video": 1}
    assert "video" not in made.absent


async def test_packet_in_two_windows_is_decoded_once(settings: ModelSettings) -> None:
    frame, chunk = packet("video", jpeg(), 600, 100), packet("audio", sound(), 600, 40)
    async with TorchRunner(settings, ManualClock()) as runner:
        await runner.prepare([window(frame, chunk), window(frame, chunk, start=500, end=1500)])
        assert runner.packets_decoded == 2
        await runner.prepare([window(frame, chunk, start=250, end=1250)])
        assert runner.packets_decoded == 2


async def test_same_offset_of_another_room_is_another_packet(settings: ModelSettings) -> None:
    one, other = (packet("text", words, 5, key=words) for words in ("a", "b"))
    async with TorchRunner(settings, ManualClock()) as runner:
        await runner.prepare([window(one), window(other)])
        assert runner.packets_decoded == 2


async def test_truth_is_the_label_that_covers_most_of_the_window_and_the_model_does_not_see_it(
    settings: ModelSettings,
) -> None:
    truth = [packet("truth", Encoded(b"silence", "text/plain"), -500, 900), packet("truth", "other sound", 400, 900)]
    with_truth = window(*full_window().packets["audio"], *truth)
    async with TorchRunner(settings.model_copy(update={"truth": "truth"}), ManualClock()) as runner:
        told, untold = await predictions(runner, with_truth, window(*full_window().packets["audio"]))
    assert told.truth == "other sound"
    assert untold.truth is None
    assert scores_of(told) == pytest.approx(scores_of(untold), abs=1e-6)
    assert "truth" not in told.absent
    assert "truth" not in told.packets


async def test_truth_that_is_no_text_is_reported(settings: ModelSettings) -> None:
    broken = packet("truth", Encoded(b"\xff", "text/plain"), 0, 900)
    async with TorchRunner(settings.model_copy(update={"truth": "truth"}), ManualClock()) as runner:
        batch = await runner.prepare([window(broken)])
    assert [p for p, _ in batch.undecodable] == [broken]


async def test_texts_are_published_only_when_asked_for(settings: ModelSettings) -> None:
    said = window(packet("text", "hello", 0), packet("text", Encoded(b"there", "text/plain"), 300))
    async with TorchRunner(settings.model_copy(update={"publish_texts": True}), ManualClock()) as runner:
        (made,) = await predictions(runner, said)
    assert made.texts == {"text": "hello there"}


async def test_no_window_gives_no_prediction(settings: ModelSettings) -> None:
    async with TorchRunner(settings, ManualClock()) as runner:
        assert await predictions(runner) == []


async def test_stage_times_and_counts_grow(settings: ModelSettings) -> None:
    async with TorchRunner(settings, SystemClock()) as runner:
        assert set(runner.stage_seconds) == {"decode", "preprocess", "encode", "fuse"}
        await predictions(runner, full_window(), full_window(1000))
        assert all(seconds > 0 for seconds in runner.stage_seconds.values())
        assert runner.windows_done == 2


async def test_window_of_another_length_is_answered(settings: ModelSettings) -> None:
    long = dataclasses.replace(full_window(), end=60_000_000_000)
    short = window(packet("audio", sound(), 0, 40), end=10)
    async with TorchRunner(settings, ManualClock()) as runner:
        made = await predictions(runner, long, short)
    assert [sum(m.scores.values()) for m in made] == pytest.approx([1, 1])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_cuda_that_is_not_there_is_refused_with_what_to_change(settings: ModelSettings) -> None:
    with pytest.raises(BundleError, match=r"models\.device is cuda.*set models\.device to auto or cpu"):
        TorchRunner(settings.model_copy(update={"device": "cuda"}), ManualClock())


def test_bundle_that_is_not_there_is_refused(settings: ModelSettings) -> None:
    with pytest.raises(BundleError, match="no-such-bundle"):
        TorchRunner(settings.model_copy(update={"bundle": "no-such-bundle"}), ManualClock())


@pytest.mark.gpu
async def test_cuda_answers_as_the_cpu_does(settings: ModelSettings) -> None:
    async with TorchRunner(settings, ManualClock()) as runner:
        (cpu,) = await predictions(runner, full_window())
    async with TorchRunner(settings.model_copy(update={"device": "cuda"}), ManualClock()) as runner:
        (cuda,) = await predictions(runner, full_window())
    assert scores_of(cuda) == pytest.approx(scores_of(cpu), abs=0.02)
