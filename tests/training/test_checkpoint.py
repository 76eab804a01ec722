"""A run that is killed goes on to the weights that it would have come to, and a checkpoint is whole or not there."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from streamfuse.cli import main
from streamfuse.errors import ConfigError
from streamfuse.models.bundle import digest
from streamfuse.training.checkpoint import Checkpoint, named, read, write
from streamfuse.training.train import EpochEnd, Finished, Job, train
from tests.training.tiny import model, samples, settings, trained, write_recipe

PATIENCE = 120  # seconds that a test waits for what must come
EVERY_STEP = {"checkpoint_every": "0s"}


def test_checkpoint_is_read_as_it_was_written(tmp_path: Path) -> None:
    tensors = named("a", {"b.c": torch.arange(6).reshape(2, 3)}) | named("d", {"e": torch.ones((), dtype=torch.float64)})
    write(tmp_path / "one", Checkpoint(tensors, {"step": 3, "history": [{"loss": 0.5}]}))
    write(tmp_path / "one", Checkpoint(tensors, {"step": 4, "history": [{"loss": 0.5}]}))
    found = read(tmp_path / "one")
    assert found is not None
    assert found.facts == {"step": 4, "history": [{"loss": 0.5}]}
    assert torch.equal(found.part("a")["b.c"], torch.arange(6).reshape(2, 3))
    assert found.part("d")["e"].dtype == torch.float64
    assert list(tmp_path.iterdir()) == [tmp_path / "one"]


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert read(tmp_path / "one") is None


@pytest.mark.parametrize("content", [b"", b"\x80\x04K\x01.", b"{}" * 40])
def test_file_that_is_no_checkpoint_is_told_and_not_opened_further(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(content)
    with pytest.raises(ConfigError, match=r"expected a checkpoint.*remove it"):
        read(tmp_path / "one")


@pytest.mark.parametrize(
    "training",
    [
        {"optimizer": {"type": "momentum", "rate": 0.05}, "dropout": 0.2, "noise": {"a": 0.3}},
        {"mode": {"type": "unimodal_then_fuse", "epochs": 2}, "early_stopping": {"patience": 2}},
        {"tasks": {"type": "uncertainty"}, "epoch_rows": 130},
    ],
    ids=["noise", "stages", "weights"],
)
def test_run_that_goes_on_from_any_step_ends_where_it_would_have(training: dict[str, object], tmp_path: Path) -> None:
    rows, validation = samples(tmp_path / "rows"), samples(tmp_path / "validation", rows=60, seed=1)
    wanted = settings(**training, **EVERY_STEP, threads=0, epochs=2)
    whole = model()
    kept, history = trained(whole, rows, validation, wanted)
    for stop in (3, 9):
        path = tmp_path / f"checkpoint-{stop}"
        events = train(model(), rows, validation, Job(wanted, 0, checkpoint=path))
        for number, event in enumerate(events):  # noqa: B007
            if number == stop:
                break
        events.close()  # type: ignore[attr-defined]
        resumed = model(seed=5)
        ends = [e for e in train(resumed, rows, validation, Job(wanted, 0, checkpoint=path, resume=True)) if isinstance(e, Finished)]
        assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True))
        assert ends[0].kept["validation"] == kept["validation"]
        assert [record["loss"] for record in ends[0].history] == [record["loss"] for record in history]


def test_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    rows, path = samples(tmp_path / "rows"), tmp_path / "checkpoint"
    for event in train(model(), rows, rows, Job(settings(), 0, checkpoint=path, identity="one")):
        if isinstance(event, EpochEnd):
            break
    with pytest.raises(ConfigError, match="belongs to another recipe"):
        trained(model(), rows, rows, settings(), checkpoint=path, resume=True, identity="other")


@pytest.mark.slow
def test_run_that_is_killed_and_resumed_gives_the_same_bundle(tmp_path: Path) -> None:
    training = {"epochs": 20, "early_stopping": None, "dropout": 0.1, **EVERY_STEP}
    recipe = write_recipe(tmp_path / "recipe", **training)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert main(["train", str(recipe), "--out", str(whole)]) == 0
    command = [sys.executable, "-m", "streamfuse", "train", str(recipe), "--out", str(killed)]
    with (tmp_path / "said").open("w") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())})
        try:
            until_epoch(killed / "seed-0" / "checkpoint.safetensors", 2, process)
        finally:
            process.kill()
            process.wait()
    assert not (killed / "seed-0" / "config.json").exists()
    assert main(["train", str(recipe), "--out", str(killed), "--resume"]) == 0
    assert digest(killed / "seed-0") == digest(whole / "seed-0")
    assert sorted(path.name for path in (killed / "seed-0").iterdir()) == ["config.json", "history.jsonl", "model.safetensors"]
    assert main(["train", str(recipe), "--out", str(killed), "--resume"]) == 0


def until_epoch(path: Path, epoch: int, process: subprocess.Popen[bytes]) -> None:
    """Waits until the run in the other process has come so far, by its checkpoint."""
    deadline = time.monotonic() + PATIENCE
    while (found := read(path)) is None or found.facts["epoch"] < epoch:
        assert time.monotonic() < deadline
        try:
            process.wait(0.02)
        except subprocess.TimeoutExpired:
            continue
        raise AssertionError(f"expected it to run on, found that it ended with {process.returncode}")
