"""Training learns what is there to be learned, in every mode, and nothing of the test's rows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from streamfuse.errors import ConfigError, DataError, Problem
from streamfuse.models.batch import Items
from streamfuse.models.fusion_model import FusionModel
from streamfuse.training.distributed import Workers
from streamfuse.training.objective import Objective
from streamfuse.training.recipe import Constant, Cosine, OneCycle
from streamfuse.training.rows import Epoch, part, shares
from streamfuse.training.samples import Rows, Samples, make_batch
from streamfuse.training.schedules import share as rate_share
from streamfuse.training.train import Job, Step, train
from tests.training.tiny import HEADS, model, samples, settings, trained

TWO_TASKS = {**HEADS, "height": {"type": "regression", "targets": ["height"]}}


@pytest.fixture
def rows(tmp_path: Path) -> Samples:
    return samples(tmp_path / "train")


@pytest.fixture
def validation(tmp_path: Path) -> Samples:
    return samples(tmp_path / "validation", rows=90, seed=1)


def weights(made: FusionModel) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in made.state_dict().items()}


def changed(made: FusionModel, before: Mapping[str, Tensor]) -> set[str]:
    return {name for name, tensor in made.state_dict().items() if not torch.equal(tensor, before[name])}


MODES: dict[str, dict[str, Any]] = {
    "joint": {"type": "joint"},
    "alternating": {"type": "alternating", "by": "modality"},
    "by task": {"type": "alternating", "by": "task"},
    "fused later": {"type": "unimodal_then_fuse", "epochs": 2},
    "fused later, frozen": {"type": "unimodal_then_fuse", "epochs": 4, "frozen": True},
}


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_each_mode_learns(mode: dict[str, Any], rows: Samples, validation: Samples) -> None:
    made = model()
    before = weights(made)
    kept, history = trained(made, rows, validation, settings(mode=mode, epochs=6))
    assert kept["validation"]["label.accuracy"] > 0.7
    assert len(history) == 6 + mode.get("epochs", 0)
    assert changed(made, before) == set(before)


@pytest.mark.parametrize(
    ("optimizer", "schedule"),
    [
        ({"type": "sgd", "rate": 0.3}, "constant"),
        ({"type": "momentum", "rate": 0.05, "nesterov": True}, "cosine"),
        ({"type": "adam", "rate": 0.01, "weight_decay": 1e-4}, "one_cycle"),
    ],
    ids=["sgd", "momentum", "adam"],
)
def test_each_optimizer_and_schedule_learns(optimizer: dict[str, Any], schedule: str, rows: Samples, validation: Samples) -> None:
    kept, _ = trained(model(), rows, validation, settings(optimizer=optimizer, schedule={"type": schedule}, epochs=6))
    assert kept["validation"]["label.accuracy"] > 0.7


@pytest.mark.parametrize(
    "extra",
    [{"dropout": 0.2}, {"l1": 1e-4}, {"label_smoothing": 0.1}, {"clip": None}, {"noise": {"a": 0.4}}, {"threads": 0}, {"epoch_rows": 150}],
    ids=str,
)
def test_regularised_training_learns(extra: dict[str, Any], rows: Samples, validation: Samples) -> None:
    kept, _ = trained(model(), rows, validation, settings(**extra, epochs=6))
    assert kept["validation"]["label.accuracy"] > 0.7


def test_same_seed_learns_the_same_and_another_seed_does_not(rows: Samples, validation: Samples) -> None:
    made = [model() for _ in range(3)]
    for one, (seed, threads) in zip(made, [(0, 0), (0, 3), (1, 0)], strict=True):
        trained(one, rows, validation, settings(dropout=0.1, noise={"b": 0.3}, threads=threads), seed=seed)
    assert changed(made[0], made[1].state_dict()) == set()
    assert "fusion.norm.weight" in changed(made[0], made[2].state_dict())


def test_part_has_no_way_to_other_rows(rows: Samples) -> None:
    asked = []

    def read(row: int) -> Mapping[str, Items]:
        asked.append(row)
        return rows.read(row)

    own = part(Rows(rows.inputs, rows.empty, rows.heads, rows.targets, rows.names, read), [5, 3, 8], ("a",))
    assert own.names == [rows.names[row] for row in (5, 3, 8)]
    assert own.targets["label"].tolist() == rows.targets["label"][[5, 3, 8]].tolist()
    assert set(own.empty) == {"a"}
    own.read(1)
    with pytest.raises(IndexError):
        own.read(3)
    assert asked == [3]


def test_alternating_modalities_rest_in_turn(rows: Samples, validation: Samples) -> None:
    made = model()
    moved = []
    before = weights(made)
    for event in train(made, rows, validation, Job(settings(mode={"type": "alternating"}, epochs=1), 0)):
        if isinstance(event, Step):
            moved.append({name.split(".")[1] for name in changed(made, before) if name.startswith(("encoders.", "auxiliary."))})
            before = weights(made)
    assert moved[:4] == [{"a"}, {"b"}, {"a"}, {"b"}]


def test_alternating_tasks_rest_in_turn(tmp_path: Path) -> None:
    both = samples(tmp_path / "both", targets={"label": "label", "height": "height"})
    made = model(TWO_TASKS)
    moved = []
    before = weights(made)
    for event in train(made, both, both, Job(settings(mode={"type": "alternating", "by": "task"}, epochs=1), 0)):
        if isinstance(event, Step):
            moved.append({name.split(".")[1] for name in changed(made, before) if name.startswith("heads.")})
            before = weights(made)
    assert moved[:3] == [{"label"}, {"height"}, {"label"}]


def test_frozen_encoders_stay_as_they_were_when_alone(rows: Samples, validation: Samples) -> None:
    made = model()
    after_first: dict[str, Tensor] = {}
    for event in train(made, rows, validation, Job(settings(mode=MODES["fused later, frozen"]), 0)):
        if isinstance(event, Step) and event.stage == "fuse" and not after_first:
            after_first = weights(made)
    assert after_first
    assert not [name for name in changed(made, after_first) if name.startswith("encoders.")]


def test_frozen_parameters_stay_and_slow_ones_move_less(rows: Samples, validation: Samples) -> None:
    mode = {"type": "joint", "freeze": ["encoders.a"], "rates": {"encoders.b": 0.01}}
    slow, usual = model(), model()
    before = weights(slow)
    trained(slow, rows, validation, settings(mode=mode, epochs=1))
    trained(usual, rows, validation, settings(epochs=1))
    assert not [name for name in changed(slow, before) if name.startswith("encoders.a.")]
    name = "encoders.b.layers.0.weight"
    assert 0 < float((slow.state_dict()[name] - before[name]).norm()) < 0.1 * float((usual.state_dict()[name] - before[name]).norm())


def test_pattern_that_names_nothing_is_refused(rows: Samples, validation: Samples) -> None:
    mode = {"type": "joint", "freeze": ["encoders.c"], "rates": {"encoder.b": 0.1}}
    with pytest.raises(ConfigError, match=r"training\.mode\.freeze\.0.*encoders\.c"):
        trained(model(), rows, validation, settings(mode=mode))


def test_task_weights_are_as_in_the_paper_or_as_given(tmp_path: Path) -> None:
    both = samples(tmp_path / "both", targets={"label": "label", "height": "height"})
    made = model(TWO_TASKS)
    objective = Objective(made, settings(tasks={"type": "uncertainty"}, auxiliary=0.0))
    inputs, targets = (batch := make_batch(both, range(4))).inputs, batch.targets
    share = torch.full((4,), 0.25)
    fixed = Objective(made, settings(tasks={"fixed": {"height": 0.0}}, auxiliary=0.0))
    with torch.no_grad():
        total, parts = objective(made, inputs, targets, share, made.tasks)
        assert float(total) == pytest.approx(float(parts["label"]) + float(parts["height"]) / 2, rel=1e-5)
        objective.log_variances["label"].fill_(math.log(2))
        total, _ = objective(made, inputs, targets, share, made.tasks)
        wanted = float(parts["label"]) / 2 + math.log(2) / 2 + float(parts["height"]) / 2
        assert float(total) == pytest.approx(wanted, rel=1e-5)
        total, parts = fixed(made, inputs, targets, share, made.tasks)
        assert float(total) == pytest.approx(float(parts["label"]), rel=1e-5)


def test_several_tasks_learn_with_learned_weights(tmp_path: Path) -> None:
    both = samples(tmp_path / "both", targets={"label": "label", "height": "height"})
    kept, _ = trained(model(TWO_TASKS), both, both, settings(tasks={"type": "uncertainty"}, epochs=6))
    assert kept["validation"]["label.accuracy"] > 0.7
    assert kept["validation"]["height.mae"] < 0.6


def test_early_stopping_ends_it_and_keeps_the_best(rows: Samples, validation: Samples) -> None:
    wanted = settings(epochs=30, early_stopping={"metric": "accuracy", "patience": 2}, optimizer={"type": "adamw", "rate": 0.05})
    made = model()
    kept, history = trained(made, rows, validation, wanted)
    accuracies = [record["validation"]["label.accuracy"] for record in history]
    assert len(history) < 30
    assert len(history) == accuracies.index(max(accuracies)) + 3
    assert kept["epoch"] == accuracies.index(max(accuracies))


def test_without_early_stopping_the_last_state_is_kept(rows: Samples, validation: Samples) -> None:
    kept, history = trained(model(), rows, validation, settings(early_stopping=None, epochs=4))
    assert kept["epoch"] == 3
    assert len(history) == 4


def test_unknown_metric_is_refused_with_the_known_ones(rows: Samples, validation: Samples) -> None:
    with pytest.raises(ConfigError, match=r"early_stopping\.metric.*f1_macro.*found 'F1'"):
        trained(model(), rows, validation, settings(early_stopping={"metric": "F1"}))


def test_loss_that_is_not_finite_is_told(rows: Samples, validation: Samples) -> None:
    wild = settings(optimizer={"type": "sgd", "rate": 1e30}, clip=None, schedule={"type": "constant"}, epochs=5)
    with pytest.raises(ConfigError, match="not a finite number in step"):
        trained(model(), rows, validation, wild)


def test_row_that_can_not_be_read_ends_it_with_its_sentence(rows: Samples, validation: Samples) -> None:
    def read(row: int) -> Mapping[str, Items]:
        if row == 7:
            raise DataError([Problem("row 7", "is gone")])
        return rows.read(row)

    broken = Rows(rows.inputs, rows.empty, rows.heads, rows.targets, rows.names, read)
    with pytest.raises(DataError, match="row 7: is gone"):
        trained(model(), broken, validation, settings())


def test_missing_streams_and_targets_are_trained_around(rows: Samples, validation: Samples) -> None:
    def read(row: int) -> Mapping[str, Items]:
        have = rows.read(row)
        return {stream: items for number, (stream, items) in enumerate(have.items()) if row % 3 != number}

    target = np.where(np.arange(len(rows.names)) % 5 == 0, -1, rows.targets["label"])
    sparse = Rows(rows.inputs, rows.empty, rows.heads, {"label": target}, rows.names, read)
    kept, _ = trained(model(), sparse, replace_targets(validation), settings(epochs=6))
    assert kept["validation"]["label.accuracy"] > 0.7


def replace_targets(rows: Samples) -> Samples:
    assert isinstance(rows, Rows)
    return replace(rows, targets={"label": np.where(np.arange(len(rows.names)) == 0, -1, rows.targets["label"])})


def test_what_is_hidden_is_a_share_and_depends_on_the_seed_and_the_epoch_alone() -> None:
    epoch = Epoch(1000, 64, (0, 0), 3)
    draws = epoch.draws(2)
    assert (draws < 0.3).mean() == pytest.approx(0.3, abs=0.03)
    assert np.array_equal(draws, Epoch(1000, 8, (0, 0), 3).draws(2))
    assert not np.array_equal(draws, Epoch(1000, 64, (0, 0), 4).draws(2))


@pytest.mark.parametrize(("rows", "length"), [(10, None), (10, 4), (10, 25), (7, 7)])
def test_epochs_pass_over_all_rows_before_any_comes_again(rows: int, length: int | None) -> None:
    seen = np.concatenate([Epoch(rows, 4, (1,), number, length).order() for number in range(10)])
    assert len(seen) == 10 * (length or rows)
    for at in range(0, len(seen) - rows, rows):
        assert sorted(seen[at : at + rows]) == list(range(rows))


@pytest.mark.parametrize("world", [1, 2, 3])
def test_processes_share_each_step_whole(world: int) -> None:
    epoch = Epoch(65, 32, (0,), 0)
    shared = [list(shares(epoch, Workers(rank, world), 0)) for rank in range(world)]
    assert [len(steps) for steps in shared] == [3] * world
    for step in range(3):
        counted = [place for steps in shared for place, weight in zip(steps[step].places, steps[step].weights, strict=True) if weight]
        assert len(set(counted)) == len(counted) in (21, 22)
        assert sum(float(steps[step].weights.sum()) for steps in shared) == pytest.approx(1)


def test_process_without_a_row_steps_with_the_others() -> None:
    (step,) = shares(Epoch(1, 32, (0,), 0), Workers(1, 2), 0)
    assert step.weights.tolist() == [0]


@pytest.mark.parametrize(
    "schedule", [Constant(type="constant", warm_up=0.1), Cosine(type="cosine", warm_up=0.1), OneCycle(type="one_cycle")]
)
def test_schedules_rise_to_the_rate_and_never_leave_it_behind(schedule: Constant | Cosine | OneCycle) -> None:
    shown = [rate_share(schedule, step, 100) for step in range(100)]
    assert max(shown) == pytest.approx(1, abs=0.01)
    assert 0 < shown[0] < 0.2
    assert all(0 < value <= 1 for value in shown)
    assert shown[-1] == 1.0 if schedule.type == "constant" else shown[-1] < 0.01


def test_one_cycle_is_torchs() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=50, pct_start=0.3)
    rates = []
    for _ in range(50):
        rates.append(reference.get_last_lr()[0])
        optimizer.step()
        if len(rates) < 50:
            reference.step()
    ours = [rate_share(OneCycle(type="one_cycle", warm_up=0.3), step, 50) for step in range(50)]
    assert ours[0] == pytest.approx(rates[0])
    assert ours[-1] == pytest.approx(rates[-1])
    assert ours == pytest.approx(rates, abs=0.05)


@pytest.mark.gpu
def test_gpu_trains_in_bfloat16(rows: Samples, validation: Samples) -> None:
    kept, _ = trained(model(), rows, validation, settings(epochs=6), device=torch.device("cuda"))
    assert kept["validation"]["label.accuracy"] > 0.7
