"""Models of the transformers library come from a local folder, and a bundle brings them along whole."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from streamfuse.models.batch import Modality
from streamfuse.models.bundle import BundleConfig, WindowShape, load_bundle, save_bundle
from streamfuse.models.fusion_model import FusionModel, build
from streamfuse.models.parts import ENCODERS, UnknownPart
from streamfuse.models.preprocess import PREPROCESSORS
from streamfuse.models.preprocess.hf_tokens import HfTokens

transformers = pytest.importorskip("transformers", reason="needs the extra hf")

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "who", "is", "talk", "##ing", "?", "谁", "在", "说", "话"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT with random weights, and its tokenizer."""
    where = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=32,
    )
    transformers.BertModel(config).save_pretrained(where)
    (where / "vocab.txt").write_text("\n".join(WORDS), encoding="utf-8")
    transformers.BertTokenizerFast(vocab=str(where / "vocab.txt")).save_pretrained(where)
    return where


def texts(folder: Path, *rows: str) -> Modality:
    """Each row a sample with one text."""
    data = torch.from_numpy(np.stack([HfTokens(str(folder), length=12).reduce(row) for row in rows]))[:, None]
    return Modality(data, torch.zeros(len(rows), 1), torch.ones(len(rows), 1, dtype=torch.bool))


def encoder(folder: Path) -> torch.nn.Module:
    torch.manual_seed(0)
    return ENCODERS.make({"type": "hf", "folder": str(folder)}, features=8).eval()


def refusal(kind: Any, **options: Any) -> str:
    with pytest.raises(UnknownPart) as caught:
        kind.make(options, **({"features": 8} if kind is ENCODERS else {}))
    return str(caught.value)


def test_ids_are_those_of_its_tokenizer_plus_one(folder: Path) -> None:
    ids = HfTokens(str(folder), length=12).reduce("Who is talking? 谁在说话")
    told = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)("Who is talking? 谁在说话").input_ids
    assert ids[ids > 0].tolist() == [i + 1 for i in told][:12]
    assert told[0] == WORDS.index("[CLS]")


def test_long_text_keeps_the_token_at_its_end(folder: Path) -> None:
    assert HfTokens(str(folder), length=6).reduce("who is talking who is talking")[-1] == WORDS.index("[SEP]") + 1


@torch.no_grad()
def test_token_is_the_mean_over_the_last_layer_of_the_pretrained_model(folder: Path) -> None:
    made, rows = encoder(folder), texts(folder, "who is talking?")
    inputs = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)("who is talking?", return_tensors="pt")
    theirs = transformers.AutoModel.from_pretrained(folder, local_files_only=True).eval()(**inputs).last_hidden_state.mean(1)
    torch.testing.assert_close(made(rows).data[:, 0], made.project(theirs), atol=1e-5, rtol=1e-5)  # type: ignore[operator]


@torch.no_grad()
def test_text_is_encoded_the_same_alone_and_beside_others(folder: Path) -> None:
    made = encoder(folder)
    together = made(texts(folder, "who", "is talking? 谁在说话", ""))
    torch.testing.assert_close(together.data[:1], made(texts(folder, "who")).data, atol=1e-5, rtol=1e-5)
    rows = texts(folder, "who", "is")
    absent = rows._replace(data=torch.zeros_like(rows.data), mask=torch.zeros_like(rows.mask))
    assert bool(torch.isfinite(made(absent).data).all())
    assert not made(absent).mask.any()


def test_gradients_reach_every_parameter(folder: Path) -> None:
    made = encoder(folder).train()
    (made(texts(folder, "who is", "谁在说话?")).data * torch.randn(2, 1, 8)).sum().backward()
    never = {"model.embeddings.token_type_embeddings.weight"}  # all tokens are of type 0: only one row of two learns
    assert {name for name, p in made.named_parameters() if p.grad is None or not bool(p.grad.any())} <= never


@torch.no_grad()
def test_exported_for_any_batch_it_says_the_same(folder: Path) -> None:
    made = encoder(folder)

    class Called(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.made = made

        def forward(self, data: Tensor, time: Tensor, mask: Tensor) -> Tensor:
            out: Tensor = self.made(Modality(data, time, mask)).data
            return out

    batch = torch.export.Dim("batch", max=64)
    rows = texts(folder, "who", "is talking")
    exported = torch.export.export(Called(), tuple(rows), dynamic_shapes=({0: batch},) * 3, strict=False).module()
    for other in (texts(folder, "who is"), texts(folder, "", "who", "谁在说话?")):
        torch.testing.assert_close(exported(*other), made(other).data, atol=1e-5, rtol=1e-5)


def architecture(**options: Any) -> dict[str, Any]:
    return {
        "features": 8,
        "encoders": {"text": {"type": "hf", **options}},
        "fusion": {"type": "late_transformer"},
        "heads": {"state": {"type": "classification", "labels": ["a", "b"]}},
    }


def save(folder: Path, into: Path) -> FusionModel:
    torch.manual_seed(0)
    model = build(architecture(folder=str(folder))).eval()
    config = BundleConfig(
        name="b",
        format=2,
        inputs={"text": {"type": "hf_tokens", "folder": str(folder), "length": 12}},
        architecture=architecture(folder=str(folder)),
        window=WindowShape(size_ms=1000, hop_ms=500),
    )
    save_bundle(into, config, model)
    return model


@torch.no_grad()
def test_bundle_needs_the_folder_no_more(folder: Path, tmp_path: Path) -> None:
    rows = texts(folder, "who is talking?", "谁在说话")
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    saved = save(copy, tmp_path / "bundle")
    shutil.rmtree(copy)
    loaded = load_bundle(tmp_path / "bundle")
    assert str(copy) not in (tmp_path / "bundle" / "config.json").read_text()
    torch.testing.assert_close(loaded.model({"text": rows}), saved({"text": rows}))
    assert loaded.preprocessors["text"].reduce("who is").tolist() == HfTokens(str(folder), length=12).reduce("who is").tolist()


def test_same_model_gives_the_same_digest(folder: Path, tmp_path: Path) -> None:
    save(folder, tmp_path / "one")
    save(folder, tmp_path / "two")
    assert load_bundle(tmp_path / "one").digest == load_bundle(tmp_path / "two").digest


def test_name_of_a_model_in_the_network_is_refused() -> None:
    for kind, name in ((ENCODERS, "hf"), (PREPROCESSORS, "hf_tokens")):
        assert "nothing is fetched" in refusal(kind, type=name, folder="bert-base-uncased")


def test_folder_with_pickles_only_is_refused_and_none_is_opened(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    assert "pickles such as pytorch_model.bin are not opened" in refusal(ENCODERS, type="hf", folder=str(copy))


def test_weights_of_another_model_are_refused(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    told = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**told, "num_hidden_layers": 3}))
    assert "found no encoder.layer.2" in refusal(ENCODERS, type="hf", folder=str(copy))


def test_folder_that_holds_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    (tmp_path / "config.json").write_text("{}")
    assert "expected a model of transformers" in refusal(ENCODERS, type="hf", folder=str(tmp_path))
    assert "expected a tokenizer of transformers" in refusal(PREPROCESSORS, type="hf_tokens", folder=str(tmp_path))


def test_model_that_is_not_known_is_refused() -> None:
    assert "magic" in refusal(ENCODERS, type="hf", config={"model_type": "magic"})
    assert "set folder" in refusal(ENCODERS, type="hf")


def test_damaged_tokenizer_is_refused() -> None:
    assert "expected what a tokenizer.json holds" in refusal(PREPROCESSORS, type="hf_tokens", tokenizer={"model": 3})


def test_without_transformers_the_extra_is_named(folder: Path) -> None:
    code = (
        "import sys; sys.modules['transformers'] = None\n"
        "from streamfuse.models.parts import ENCODERS\n"
        f"try:\n    ENCODERS.make({{'type': 'hf', 'folder': {str(folder)!r}}}, features=8)\n"
        "except ValueError as error:\n    print(error)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'streamfuse[hf]'" in ran.stdout
