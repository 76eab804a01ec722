"""A recipe that reads texts: the tokenizer is learned, told to the encoder, and served from the bundle."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

from streamfuse.cli import main
from streamfuse.config import ModelSettings
from streamfuse.models.bundle import load_bundle
from streamfuse.models.preprocess.tokens import Tokens
from streamfuse.models.runner import TorchRunner
from streamfuse.testing import ManualClock
from tests.models.making import packet, window

FRUIT, TOOLS = ("苹果很甜", "香蕉和梨", "a ripe pear", "sweet cherries"), ("锤子很重", "扳手和锯", "a blunt saw", "heavy hammers")
PARTS = ("train", "train", "train", "validation")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    rows = [
        {"text": f"{text} {again}", "label": label, "part": part}
        for label, texts in (("fruit", FRUIT), ("tools", TOOLS))
        for again in ("", "!", "?")
        for text, part in zip(texts, PARTS, strict=True)
    ]
    (folder / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return train(folder)


def train(folder: Path, **mode: object) -> Path:
    """The bundle of a run in this mode."""
    recipe = {
        "name": "texts",
        "data": {"type": "manifest", "path": "rows.jsonl"},
        "model": {
            "features": 8,
            "inputs": {"text": {"type": "tokens", "vocabulary": 290, "length": 20}},
            "encoders": {"text": {"type": "text_gru", "width": 8, "hidden": 8}},
            "fusion": {"type": "concatenation"},
        },
        "training": {"epochs": 2, "batch": 6, "device": "cpu", "modality_dropout": 0.0, **({"mode": mode} if mode else {})},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, allow_unicode=True), encoding="utf-8")
    out = folder / f"out-{mode.get('type', 'joint')}"
    assert main(["train", str(folder / "recipe.yaml"), "--out", str(out)]) == 0
    return out / "seed-0"


def test_encoder_knows_as_many_ids_as_the_tokenizer_has(bundle: Path) -> None:
    loaded = load_bundle(bundle)
    tokens = loaded.preprocessors["text"]
    assert isinstance(tokens, Tokens)
    assert loaded.model.encoders["text"].vocabulary == tokens.vocabulary == 290
    assert tokens.tokenizer.decode(tokens.reduce("苹果很甜")) == "苹果很甜"


@pytest.mark.anyio
async def test_words_never_seen_are_served_too(bundle: Path) -> None:
    async with TorchRunner(ModelSettings(bundle=str(bundle), device="cpu"), ManualClock()) as runner:
        (made,) = await runner.predict(await runner.prepare([window(packet("text", "🍐 größer als ein Hammer", 500))]))
        assert made.label in ("fruit", "tools")


def test_encoder_learned_elsewhere_is_taken_over_and_stays_as_it_is(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = bundle.parents[1]
    learned = {f"net.{name}": torch.full_like(t, 0.25) for name, t in load_bundle(bundle).model.encoders["text"].state_dict().items()}
    save_file(learned, folder / "gru.safetensors")
    mode = {"start": "gru.safetensors", "part": "encoders.text", "rename": {"net.": ""}, "freeze": ["encoders.text"]}
    encoder = load_bundle(train(folder, type="transfer", **mode)).model.encoders["text"]
    assert all(bool((tensor == 0.25).all()) for tensor in encoder.state_dict().values())
    said = capsys.readouterr()
    assert f"{len(learned)} tensors loaded" in said.out + said.err
