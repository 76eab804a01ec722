"""A recipe that reads texts: the tokenizer is learned, told to the encoder, and served from the bundle."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

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
    recipe = {
        "name": "texts",
        "data": {"type": "manifest", "path": "rows.jsonl"},
        "model": {
            "features": 8,
            "inputs": {"text": {"type": "tokens", "vocabulary": 290, "length": 20}},
            "encoders": {"text": {"type": "text_gru", "width": 8, "hidden": 8}},
            "fusion": {"type": "concatenation"},
        },
        "training": {"epochs": 2, "batch": 6, "device": "cpu", "modality_dropout": 0.0},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, allow_unicode=True), encoding="utf-8")
    assert main(["train", str(folder / "recipe.yaml"), "--out", str(folder / "out")]) == 0
    return folder / "out" / "seed-0"


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
