"""A smaller model is kept only if it is faster and no worse; otherwise both figures are told and the original stays."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn

from streamfuse.cli import main
from streamfuse.models.batch import Modality
from streamfuse.models.bundle import BundleConfig, WindowShape, load_bundle, save_bundle
from streamfuse.models.encoders.images import Cnn
from streamfuse.models.fusion_model import FusionModel, State, build
from streamfuse.models.graphs import export_graphs
from streamfuse.models.int8 import quantise
from streamfuse.models.narrowing import chains, narrow, prune_units, prune_weights
from streamfuse.models.onnx_engine import OnnxEngine
from streamfuse.training.compress import Verdict, judge
from streamfuse.training.data import open_data

ROWS, SIZE, HIDDEN = 90, 512, 8192
ARCHITECTURE: dict[str, Any] = {
    "features": 16,
    "encoders": {"sensor": {"type": "mlp", "size": SIZE, "hidden": HIDDEN}},
    "fusion": {"type": "concatenation", "hidden": 16},
    "heads": {"state": {"type": "classification", "labels": ["a", "b", "c"]}},
}
INPUTS: dict[str, Any] = {"sensor": {"type": "features", "size": SIZE}}


@pytest.fixture
def model() -> FusionModel:
    """A model half of whose hidden units do nothing."""
    torch.manual_seed(0)
    made = build(ARCHITECTURE).eval().requires_grad_(False)
    for chain in chains(made).values():
        chain.last.weight[:, : chain.units // 2] = 0  # type: ignore[operator]
    return made


@pytest.fixture
def place(tmp_path: Path, model: FusionModel) -> Path:
    """A folder with the model's bundle and a recipe whose labels are what the model says, so that it is always right."""
    config = BundleConfig(name="small", format=2, inputs=INPUTS, architecture=ARCHITECTURE, window=WindowShape(size_ms=1000, hop_ms=500))
    save_bundle(tmp_path / "bundle", config, model)
    sensor = np.random.default_rng(0).normal(size=(ROWS, SIZE)).astype(np.float32)
    there = torch.ones(ROWS, 1, dtype=torch.bool)
    said = model({"sensor": Modality(torch.from_numpy(sensor)[:, None], torch.zeros(ROWS, 1), there)})["state"].argmax(1)
    parts = np.array(["train", "validation", "test"] * (ROWS // 3))
    np.savez(tmp_path / "rows.npz", sensor=sensor, label=np.array(["a", "b", "c"])[said.numpy()], part=parts)
    recipe = {
        "name": "r",
        "data": {"type": "features", "path": "rows.npz", "targets": {"state": "label"}},
        "model": {k: ARCHITECTURE[k] for k in ("encoders", "fusion")},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return tmp_path


def compress(place: Path, method: str, *more: str) -> int:
    given = ["--data", str(place / "recipe.yaml"), "--method", method, "--out", str(place / "new"), *more]
    return main(["compress", str(place / "bundle"), *given])


def test_units_that_do_nothing_are_taken_out_and_the_faster_model_is_kept(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compress(place, "structured") == 0
    out = capsys.readouterr().out
    assert "accepted: " in out
    assert "state 1 -> 1, loss 0.00 of at most 0.5" in out
    new = load_bundle(place / "new")
    assert [chain.units for name, chain in chains(new.model).items() if name.startswith("encoders.")] == [HIDDEN // 2]
    assert new.config.training["compressed"]["of"] == load_bundle(place / "bundle").digest


def test_zeros_make_nothing_faster_and_the_original_is_kept(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compress(place, "magnitude", "--share", "0.1", "--max-loss", "100") == 0
    out = capsys.readouterr().out
    assert "refused: " in out
    assert "not faster" in out
    assert "kept the original: " in out
    assert not (place / "new").exists()


def test_what_loses_too_much_is_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compress(place, "structured", "--share", "0.999") == 0
    assert "refused: " in capsys.readouterr().out
    assert not (place / "new").exists()


def test_a_folder_that_is_there_is_not_written_to(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "new").mkdir()
    assert compress(place, "structured") == 4
    assert "set --out" in capsys.readouterr().err


class Busy:
    """An engine that computes its model several times over."""

    device = torch.device("cpu")

    def __init__(self, model: FusionModel, times: int) -> None:
        self.model, self.times = model, times

    def encode(self, stream: str, items: Modality, state: State | None = None) -> tuple[Modality, State]:
        for _ in range(self.times):
            found = self.model.encode(stream, items)
        return found

    def fuse(self, tokens: Mapping[str, Modality], present: Tensor | None = None) -> dict[str, Tensor]:
        return {task: self.model.head(task).read(said) for task, said in self.model.fuse(tokens).items()}

    def weigh(self, tokens: Mapping[str, Modality]) -> Tensor | None:
        return None


@pytest.mark.parametrize(("before", "after", "faster"), [(6, 1, True), (1, 6, False), (3, 3, False)])
def test_faster_is_what_takes_less_time_in_most_rounds(place: Path, model: FusionModel, before: int, after: int, faster: bool) -> None:
    samples = open_data({"type": "features", "path": "rows.npz", "targets": {"state": "label"}}, place)
    verdict = judge(model, Busy(model, before), Busy(model, after), samples, range(30), 0.5, print)
    assert verdict.is_faster == faster
    assert verdict.loss == 0


def test_a_verdict_tells_both_figures() -> None:
    verdict = Verdict({"state": 0.9}, {"state": 0.88}, 2.0, (4.0, 2.0), 1.0, 0.5)
    assert str(verdict) == "refused: 4.00 -> 2.00 ms CPU a window (2.00x); state 0.9 -> 0.88, loss 2.00 of at most 0.5"


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_a_narrowed_cnn_is_one_that_was_made_narrower(norm: str) -> None:
    torch.manual_seed(0)
    frames = Modality(torch.randint(0, 255, (1, 2, 32, 32, 3)).to(torch.uint8), torch.zeros(1, 2), torch.ones(1, 2, dtype=torch.bool))
    pruned, same = Cnn(8, norm=norm).eval(), Cnn(8, norm=norm).eval()
    before = sum(p.numel() for p in pruned.parameters())
    left = prune_units(pruned, 0.5)
    assert len(left) > 5
    narrow(same, left)
    same.load_state_dict(pruned.state_dict())
    assert torch.equal(same(frames).data, pruned(frames).data)
    assert sum(p.numel() for p in pruned.parameters()) < 0.7 * before


def test_the_smallest_weights_become_zeros() -> None:
    layer = nn.Linear(4, 2)
    layer.weight.data = torch.tensor([[1.0, -2.0, 3.0, -4.0], [8.0, 7.0, -6.0, 5.0]])
    prune_weights(layer, 0.5)
    assert layer.weight.tolist() == [[0, 0, 0, 0], [8, 7, -6, 5]]


@pytest.mark.parametrize("units", [{"nowhere": 1}, {"0": 0}, {"0": 9}])
def test_a_bundle_that_is_narrowed_otherwise_than_it_can_be_is_refused(units: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="narrowed"):
        narrow(nn.Sequential(nn.Linear(2, 8), nn.GELU(), nn.Linear(8, 2)), units)


@pytest.mark.slow
def test_a_model_without_convolutions_stays_as_it_is_with_8_bits(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")
    assert compress(place, "int8") == 0
    out = capsys.readouterr().out
    assert "8 bits: no encoder has convolutions" in out
    assert "refused: " in out
    assert not (place / "new").exists()


@pytest.mark.slow
def test_an_encoder_with_8_bits_says_nearly_the_same(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    described = {**ARCHITECTURE, "encoders": {"video": {"type": "cnn", "width": 0.25, "norm": "batch"}}}
    inputs: dict[str, Any] = {"video": {"type": "frames", "height": 32, "width": 32}}
    config = BundleConfig(name="small", format=2, inputs=inputs, architecture=described, window=WindowShape(size_ms=1000, hop_ms=500))
    save_bundle(tmp_path, config, build(described))
    bundle = load_bundle(tmp_path)
    export_graphs(bundle, tmp_path, "onnx", print)
    exact = OnnxEngine(bundle.model, tmp_path, bundle.digest)
    batches = [
        Modality(torch.randint(0, 256, (1, 4, 32, 32, 3)).to(torch.uint8), torch.zeros(1, 4), torch.ones(1, 4, dtype=torch.bool))
        for _ in range(8)
    ]
    size = (tmp_path / "onnx" / "encoder-0.onnx").stat().st_size
    assert quantise(bundle.model, tmp_path, [{"video": items} for items in batches]) == ["video"]
    assert (tmp_path / "onnx" / "encoder-0.onnx").stat().st_size < size
    rough = OnnxEngine(bundle.model, tmp_path, bundle.digest)  # whose digests still fit
    wanted, found = (engine.encode("video", batches[0])[0].data for engine in (exact, rough))
    assert not torch.equal(wanted, found)
    assert (wanted - found).norm() < 0.1 * wanted.norm()
