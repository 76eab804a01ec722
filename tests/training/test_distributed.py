"""Processes that share the work come to the weights that one comes to alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from streamfuse.cli import main
from streamfuse.errors import ConfigError
from streamfuse.training.distributed import workers
from tests.training.tiny import write_recipe


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_cuda_that_is_not_there_is_refused_with_what_to_change() -> None:
    with pytest.raises(ConfigError, match=r"training\.device: is cuda.*set auto or cpu"), workers("cuda"):
        pass


@pytest.mark.slow
def test_two_processes_train_as_one_does(tmp_path: Path) -> None:
    # Not Adam: what attention adds to all keys alike has no gradient but rounding, and Adam would make a step of that.
    optimizer = {"type": "momentum", "rate": 0.05}
    training = {"epochs": 3, "noise": {"a": 0.2}, "tasks": {"type": "uncertainty"}, "optimizer": optimizer}
    recipe = write_recipe(tmp_path / "recipe", **training)
    assert main(["train", str(recipe), "--out", str(tmp_path / "one")]) == 0
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "streamfuse"]
    ran = subprocess.run(
        [*launch, "train", str(recipe), "--out", str(tmp_path / "two")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    one, two = (load_file(tmp_path / name / "seed-0" / "model.safetensors") for name in ("one", "two"))
    torch.testing.assert_close(two, one, atol=1e-5, rtol=1e-4)
    histories = [
        [json.loads(line) for line in (tmp_path / name / "seed-0" / "history.jsonl").read_text().splitlines()] for name in ("one", "two")
    ]
    for first, second in zip(*histories, strict=True):
        assert second["loss"] == pytest.approx(first["loss"], rel=1e-4)
        assert second["validation"] == pytest.approx(first["validation"], abs=0.02)
    assert ran.stderr.count("joint epoch 3") == 1, "one process shows"
    assert json.loads((tmp_path / "two" / "seed-0" / "config.json").read_text())["training"]["processes"] == 2
