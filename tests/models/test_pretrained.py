"""What was learned before is taken over where it fits, and it is told where it does not."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from streamfuse.errors import BundleError
from streamfuse.models.pretrained import load_weights, matching, shares
from tests.models.making import model


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """The text encoder's weights of another model, alone, with one tensor more and one of another shape."""
    tensors = {name: torch.full_like(tensor, 2) for name, tensor in model(seed=1).encoders["text"].state_dict().items()}
    path = tmp_path / "text.safetensors"
    save_file({**tensors, "fc.weight": torch.zeros(3), "project.bias": torch.zeros(5)}, path)
    return path


def refusal(loaded: nn.Module, path: Path, part: str = "", rename: dict[str, str] | None = None) -> str:
    with pytest.raises(BundleError) as caught:
        load_weights(loaded, path, part, rename)
    return str(caught.value)


def test_whole_model_is_taken_over(tmp_path: Path) -> None:
    learned, fresh = model(seed=1), model(seed=2)
    save_file(learned.state_dict(), tmp_path / "all.safetensors")
    report = load_weights(fresh, tmp_path / "all.safetensors")
    assert list(report.matched) == sorted(learned.state_dict())
    assert (report.missing, report.unused, report.reshaped) == ({}, {}, {})
    assert all(torch.equal(tensor, learned.state_dict()[name]) for name, tensor in fresh.state_dict().items())


def test_report_tells_what_matched_and_what_did_not(weights: Path) -> None:
    report = load_weights(model(), weights, "encoders.text")
    assert report.matched["encoders.text.embed.weight"] == (256, 8)
    assert report.unused == {"fc.weight": (3,)}
    assert report.reshaped == {"encoders.text.project.bias": ((16,), (5,))}
    assert report.missing == {}


def test_rest_of_the_model_stays_as_it_was(weights: Path) -> None:
    before, after = model().state_dict(), model()
    load_weights(after, weights, "encoders.text")
    changed = [name for name, tensor in after.state_dict().items() if not torch.equal(tensor, before[name])]
    assert changed
    assert all(name.startswith("encoders.text.") and name != "encoders.text.project.bias" for name in changed)


def test_table_names_counts_and_modules(weights: Path) -> None:
    said = load_weights(model(), weights, "encoders.text").table()
    assert "6 tensors loaded with 2,664 numbers, 0 missing from the file, 1 of another shape, 1 unused" in said
    assert "unused    fc: weight" in said
    assert "encoders.text.project.bias: [16] in the model, [5] in the file" in said


def test_beginnings_of_names_are_renamed_the_longest_first(tmp_path: Path) -> None:
    save_file({"module.net.weight": torch.ones(2, 2), "module.bias": torch.ones(2)}, tmp_path / "w.safetensors")
    loaded = nn.Linear(2, 2)
    assert list(load_weights(loaded, tmp_path / "w.safetensors", rename={"module.": "", "module.net.": ""}).matched) == ["bias", "weight"]


def test_two_names_that_become_one_are_refused(tmp_path: Path) -> None:
    save_file({"a.bias": torch.ones(2), "bias": torch.ones(2)}, tmp_path / "w.safetensors")
    assert "have one name" in refusal(nn.Linear(2, 2), tmp_path / "w.safetensors", rename={"a.": ""})


def test_half_precision_becomes_the_models_own(tmp_path: Path) -> None:
    save_file({"bias": torch.ones(2, dtype=torch.float16)}, tmp_path / "w.safetensors")
    loaded = nn.Linear(2, 2)
    load_weights(loaded, tmp_path / "w.safetensors")
    assert loaded.bias.dtype == torch.float32
    assert loaded.bias.tolist() == [1, 1]


def test_file_of_which_nothing_fits_is_refused_with_names_of_both(tmp_path: Path) -> None:
    save_file({"foreign.thing": torch.ones(2)}, tmp_path / "w.safetensors")
    said = refusal(nn.Linear(2, 2), tmp_path / "w.safetensors")
    assert "foreign.thing" in said
    assert "weight" in said


def test_part_that_is_not_there_is_refused_with_those_that_are(weights: Path) -> None:
    assert "encoders.audio, encoders.text, encoders.video" in refusal(model(), weights, "encoders.smell")


@pytest.mark.parametrize("name", ["weights.pt", "weights.bin", "weights.pth", "weights.safetensors"])
def test_pickle_is_refused_and_never_opened_whatever_its_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(pickle.dumps({"weight": [1.0]}))
    assert "is a pickle" in refusal(nn.Linear(2, 2), tmp_path / name)
    torch.save({"weight": torch.zeros(2, 2)}, tmp_path / name)
    assert "is a pickle" in refusal(nn.Linear(2, 2), tmp_path / name)


def test_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert "none.safetensors" in refusal(nn.Linear(2, 2), tmp_path / "none.safetensors")


def test_values_that_are_not_finite_are_refused_and_change_nothing(tmp_path: Path) -> None:
    save_file({"bias": torch.full((2,), torch.nan), "weight": torch.ones(2, 2)}, tmp_path / "w.safetensors")
    loaded = nn.Linear(2, 2)
    before = loaded.weight.clone()
    assert "not finite in bias" in refusal(loaded, tmp_path / "w.safetensors")
    assert torch.equal(loaded.weight, before)


@pytest.mark.parametrize("pattern", ["encoders.text", "encoders.text.*", "encoders.text.p*"])
def test_pattern_stands_for_names_below_it_or_as_its_star_says(pattern: str) -> None:
    start = pattern.rstrip("*").removesuffix(".")
    made = model()
    wanted = [name for name, _ in made.named_parameters() if name.startswith(start)]
    assert matching(made, pattern) == wanted != []


def test_part_learns_with_its_share_of_the_rate_and_the_longest_pattern_counts() -> None:
    found = shares(model(), {"encoders.video": 0.1, "encoders": 0.5})
    assert found["encoders.video.project.weight"] == 0.1
    assert found["encoders.text.project.weight"] == 0.5
    assert "fusion.own" not in found


def test_misspelt_pattern_is_refused_with_what_there_is() -> None:
    with pytest.raises(ValueError, match=r"'encoders\.vidoe'.*encoders\.video"):
        shares(model(), {"encoders.vidoe": 0.1})
