"""Exported graphs say what the model says, and the daemon computes with them; graphs that are not the bundle's are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from streamfuse.cli import main
from streamfuse.config import ModelSettings
from streamfuse.errors import BundleError
from streamfuse.models.bundle import BundleConfig, WindowShape, load_bundle, save_bundle
from streamfuse.models.fusion_model import build
from streamfuse.models.graphs import MANIFEST, TOLERANCE, export_graphs, graph_files
from streamfuse.models.runner import TorchRunner
from streamfuse.testing import ManualClock
from streamfuse.types import Prediction, Window
from tests.models.making import packet, sound, window

pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.slow

ARCHITECTURE: dict[str, Any] = {
    "features": 8,
    "encoders": {
        "audio": {"type": "causal_mel", "width": 8, "bands": 8, "stride": 5, "layers": 1},
        "text": {"type": "byte_text", "width": 4, "hidden": 4},
    },
    "fusion": {"type": "late_transformer", "layers": 1, "heads": 2},
    "heads": {
        "mood": {"type": "classification", "labels": ["calm", "loud", "other"]},
        "level": {"type": "regression", "targets": ["decibel"], "mean": [40.0], "scale": [10.0]},
    },
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a causal and an item encoder and two tasks, exported."""
    folder = tmp_path_factory.mktemp("bundles") / "small"
    torch.manual_seed(0)
    inputs: dict[str, dict[str, Any]] = {"audio": {"type": "waveform"}, "text": {"type": "text_bytes"}}
    config = BundleConfig(name="small", format=2, inputs=inputs, architecture=ARCHITECTURE, window=WindowShape(size_ms=1000, hop_ms=100))
    save_bundle(folder, config, build(ARCHITECTURE))
    assert main(["export", str(folder)]) == 0
    return folder


def windows() -> list[Window]:
    """Six windows of 1 s, every 100 ms, of sound with words."""
    chunks = [packet("audio", sound(100), at, 100) for at in range(0, 1600, 100)]
    said = [packet("text", f"word {at}", at) for at in (150, 700, 1300)]
    found = []
    for start in range(0, 600, 100):
        inside = [p for p in (*chunks, *said) if start <= p.event_time // 1_000_000 < start + 1000]
        found.append(window(*inside, start=start, end=start + 1000))
    return found


async def answers(folder: Path, **settings: Any) -> list[Prediction]:
    """One window at a time, as they come."""
    async with TorchRunner(ModelSettings(bundle=str(folder), device="cpu", **settings), ManualClock()) as runner:
        return [(await runner.predict(await runner.prepare([w])))[0] for w in windows()]


def numbers(predictions: list[Prediction]) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array(
        [[*p.scores.values(), *p.contributions.values(), *p.weights.values(), p.outputs["level"]["decibel"]] for p in predictions]
    )


@pytest.mark.anyio
async def test_onnx_answers_as_torch_does_cached_or_not(bundle: Path) -> None:
    expected = numbers(await answers(bundle, recompute=True))
    assert np.ptp(expected, 0).max() > 1e-3  # the windows differ
    for settings in ({}, {"engine": "onnx"}, {"engine": "onnx", "recompute": True}):
        np.testing.assert_allclose(numbers(await answers(bundle, **settings)), expected, atol=2e-5, rtol=1e-5)


def test_differences_are_told_and_small(bundle: Path) -> None:
    told = json.loads((bundle / "onnx" / MANIFEST).read_text())
    assert set(told["differences"]) == {"encoder-0", "encoder-1", "fusion"}
    assert max(told["differences"].values()) < TOLERANCE / 10


def test_graphs_of_another_version_of_the_bundle_are_refused(bundle: Path, tmp_path: Path) -> None:
    stale = shutil.copytree(bundle, tmp_path / "stale")
    config = json.loads((stale / "config.json").read_text())
    (stale / "config.json").write_text(json.dumps({**config, "name": "other"}))
    with pytest.raises(BundleError, match=r"were made of sha256.*make them with: streamfuse export"):
        TorchRunner(ModelSettings(bundle=str(stale), engine="onnx"), ManualClock())


def test_a_graph_that_was_changed_is_refused(bundle: Path, tmp_path: Path) -> None:
    changed = shutil.copytree(bundle, tmp_path / "changed")
    graph = changed / "onnx" / "fusion.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"\0")
    with pytest.raises(BundleError, match=r"expected .*fusion.onnx as it was exported, found another file"):
        graph_files(changed, load_bundle(changed).digest, "onnx")


def test_a_bundle_without_graphs_says_how_to_make_them(bundle: Path, tmp_path: Path) -> None:
    bare = shutil.copytree(bundle, tmp_path / "bare", ignore=shutil.ignore_patterns("onnx"))
    with pytest.raises(BundleError, match=r"found none; make them with: streamfuse export .* --to onnx"):
        TorchRunner(ModelSettings(bundle=str(bare), engine="onnx"), ManualClock())


def test_onnx_on_cuda_is_refused(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(BundleError, match=r"set models\.device to cpu"):
        TorchRunner(ModelSettings(bundle=str(bundle), engine="onnx", device="cuda"), ManualClock())


def test_a_missing_library_is_named_with_its_extra(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(BundleError, match=r"needs onnxruntime; install it with: pip install 'streamfuse\[onnx\]'"):
        TorchRunner(ModelSettings(bundle=str(bundle), engine="onnx"), ManualClock())


def test_export_for_torch_leaves_the_bundle_alone_when_asked_to(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(bundle), "--to", "torch", "--out", str(tmp_path / "copy")]) == 0
    assert set(graph_files(tmp_path / "copy", load_bundle(bundle).digest, "torch")) == {"encoder-0", "encoder-1", "fusion"}
    assert not (bundle / "torch").exists()
    assert "differs from the model by at most" in capsys.readouterr().out


def test_a_graph_that_says_something_else_is_not_kept(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamfuse.models.graphs.TOLERANCE", -1.0)
    with pytest.raises(BundleError, match="found a difference of"):
        export_graphs(load_bundle(bundle), tmp_path, "torch", print)
    assert list((tmp_path / "torch").iterdir()) == []
