"""A bundle loads as it was saved; a damaged or foreign one is refused with a sentence, and never runs code."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from streamfuse.errors import BundleError
from streamfuse.models.bundle import load_bundle, packaged_bundles
from tests.models.making import config, model, write_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "small")


def refusal(folder: Path | str) -> str:
    with pytest.raises(BundleError) as caught:
        load_bundle(folder)
    return str(caught.value)


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def change_tensors(folder: Path, **changes: torch.Tensor | None) -> None:
    path = folder / "model.safetensors"
    tensors = {**load_file(path), **changes}
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, path)


def test_loaded_model_answers_as_the_saved_one(bundle: Path) -> None:
    loaded, saved = load_bundle(bundle), model()
    wanted = saved.state_dict()
    assert loaded.config == config()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in loaded.model.state_dict().items())


def test_same_model_gives_the_same_digest(bundle: Path, tmp_path: Path) -> None:
    assert load_bundle(bundle).digest == load_bundle(write_bundle(tmp_path / "again")).digest


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_digest_changes_with_either_file(bundle: Path, name: str) -> None:
    before = load_bundle(bundle).digest
    if name == "config.json":
        change_config(bundle, name="other")
    else:
        change_tensors(bundle, **{"heads.state.linear.bias": torch.ones(4)})
    assert load_bundle(bundle).digest != before


def test_missing_tensor_is_named_with_its_shape(bundle: Path) -> None:
    change_tensors(bundle, **{"heads.state.linear.bias": None})
    assert "tensor heads.state.linear.bias [4] is missing" in refusal(bundle)


def test_extra_tensor_is_named(bundle: Path) -> None:
    change_tensors(bundle, surprise=torch.zeros(2, 3))
    assert "tensor surprise [2, 3] is not in the architecture" in refusal(bundle)


def test_tensor_of_wrong_shape_is_named_with_both_shapes(bundle: Path) -> None:
    change_tensors(bundle, **{"heads.state.linear.bias": torch.zeros(7)})
    assert "tensor heads.state.linear.bias should be [4], is [7]" in refusal(bundle)


def test_tensor_with_nan_is_refused(bundle: Path) -> None:
    change_tensors(bundle, **{"heads.state.linear.bias": torch.full((4,), torch.nan)})
    assert "not finite" in refusal(bundle)


def test_tensors_whose_header_has_a_length_like_a_pickles_first_byte_are_read(bundle: Path) -> None:
    path = bundle / "model.safetensors"
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    longer = length + (0x80 - length) % 256  # filled up with spaces, as the format allows
    path.write_bytes(longer.to_bytes(8, "little") + raw[8 : 8 + length].ljust(longer) + raw[8 + length :])
    assert path.read_bytes()[:1] == b"\x80"
    assert load_bundle(bundle).labels


def test_damaged_tensors_are_refused(bundle: Path) -> None:
    path = bundle / "model.safetensors"
    path.write_bytes(path.read_bytes()[:500])
    assert "expected safetensors" in refusal(bundle)


class Bomb:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, ("exploded",)


def test_pickle_in_place_of_the_tensors_is_refused_and_never_opened(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (bundle / "model.safetensors").write_bytes(pickle.dumps(Bomb()))
    assert "is a pickle" in refusal(bundle)
    torch.save({"weight": torch.zeros(1)}, bundle / "model.safetensors")
    assert "is a pickle" in refusal(bundle)
    assert not (tmp_path / "exploded").exists()


def test_folder_with_only_a_pickle_says_that_it_is_not_opened(bundle: Path) -> None:
    (bundle / "model.safetensors").rename(bundle / "model.pt")
    assert "model.pt looks like a pickle" in refusal(bundle)


def test_newer_format_is_refused_with_both_versions(bundle: Path) -> None:
    change_config(bundle, format=3, something_new=True)
    assert "has format 3, this version reads format 2" in refusal(bundle)


def test_older_format_is_refused(bundle: Path) -> None:
    change_config(bundle, format=1)
    assert "has format 1, this version reads format 2; train it again" in refusal(bundle)


def test_config_that_is_not_json_is_refused(bundle: Path) -> None:
    (bundle / "config.json").write_text("{")
    assert "expected JSON" in refusal(bundle)


def test_every_mistake_in_a_config_is_named(bundle: Path) -> None:
    change_config(bundle, labels=[], window={"size_ms": 0, "hop_ms": 1})
    said = refusal(bundle)
    assert "labels" in said
    assert "window.size_ms" in said


def test_unknown_encoder_is_named_with_the_known_ones(bundle: Path) -> None:
    change_config(bundle, architecture={"features": 4, "encoders": {"video": {"type": "magic"}}, "fusion": {}, "heads": {}})
    said = refusal(bundle)
    assert "'magic'" in said
    assert "face_motion" in said


def test_unknown_preprocessing_is_named_with_the_known_ones(bundle: Path) -> None:
    change_config(bundle, inputs={"video": {"type": "magic"}})
    assert "face_crops" in refusal(bundle)


def test_options_that_a_part_does_not_take_are_named(bundle: Path) -> None:
    change_config(bundle, inputs={"video": {"type": "face_crops", "wings": 2}})
    assert "wings" in refusal(bundle)


def test_more_token_ids_than_the_encoder_knows_are_refused(bundle: Path) -> None:
    value = json.loads((bundle / "config.json").read_text())["architecture"]
    value["encoders"]["text"] = {"type": "text_gru", "vocabulary": 100}
    change_config(bundle, architecture=value)
    assert "inputs.text has 256 token ids, its encoder 100; set the encoder's vocabulary to 256" in refusal(bundle)


def test_absurd_size_is_found_without_that_much_memory(bundle: Path) -> None:
    value = json.loads((bundle / "config.json").read_text())["architecture"]
    change_config(bundle, architecture={**value, "features": 1_000_000})
    assert "should be" in refusal(bundle)


def test_unknown_name_is_refused_with_the_known_ones() -> None:
    said = refusal("no-such-bundle")
    assert "'no-such-bundle'" in said
    assert all(name in said for name in packaged_bundles())


def test_empty_folder_is_refused(tmp_path: Path) -> None:
    assert "expected config.json" in refusal(tmp_path)


def test_packaged_bundles_load_and_are_small() -> None:
    for name in packaged_bundles():
        loaded = load_bundle(name)
        assert sum(p.numel() * p.element_size() for p in loaded.model.parameters()) <= 2_000_000
        assert loaded.config.training["data"]


@pytest.mark.parametrize("stream", ["video", "audio"])
def test_default_bundle_is_clearly_worse_on_unknown_talkers_without(stream: str) -> None:
    told = load_bundle("who-is-talking").config.metrics["leave_one_talker_out"]["mean"]
    assert told["accuracy"] >= 0.9
    assert told[f"without {stream}"] <= told["accuracy"] - 0.15
