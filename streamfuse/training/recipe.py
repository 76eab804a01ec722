"""A recipe: what is trained, on which rows and how, in one YAML file; every mistake is reported at once with its path."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from streamfuse.config import Duration, Settings, parse_duration
from streamfuse.errors import ConfigError, Problem
from streamfuse.loading import load_settings
from streamfuse.models.bundle import WindowShape
from streamfuse.models.crossmodal import DECODERS
from streamfuse.models.parts import ENCODERS, FUSIONS, HEADS, Registry, UnknownPart
from streamfuse.models.preprocess import PREPROCESSORS
from streamfuse.training.samples import DATA

Options = dict[str, Any]
"""`type` and the options of that part."""


class CrossModalRecipe(Settings):
    retrieval: Options | None = None
    """Options of a space in which the modalities of a row lie close together."""
    decoders: dict[str, Options] = Field({})
    """Stream -> what writes it from the others."""


class ModelRecipe(Settings):
    features: int = Field(64, gt=0)
    """Of each token, and of what the fusion makes of them."""
    inputs: dict[str, Options] = Field({})
    """Stream -> its preprocessing, where the data set leaves the choice."""
    encoders: dict[str, Options] = Field(min_length=1)
    """Stream -> its encoder. A stream of the data that has none here is not used."""
    fusion: Options = Field({"type": "late_transformer"})
    heads: dict[str, Options] = Field({})
    """Task -> its head, with its labels or targets, where it is not to be the data set's; tasks that are not named are not learned then.
    The first is the one whose answer a prediction carries as its label."""
    reconstruction: Options | None = None
    """Options of what fills in a missing modality from the others; nothing does where not given."""
    crossmodal: CrossModalRecipe | None = None
    """From one modality to another; nothing where not given."""
    window: WindowShape = WindowShape(size_ms=1000, hop_ms=1000)
    """What the rows are cut to, and so what is served best."""


# --- optimizers and schedules --------------------------------------------------------------------------------------------------------


class _Optimizer(Settings):
    rate: float = Field(gt=0)
    """The greatest learning rate; the schedule scales it."""
    weight_decay: float = Field(0.0, ge=0)
    """L2 on weights, not on biases and norms: in the gradient for `sgd`, `momentum` and `adam`, apart from it for `adamw`
    (Loshchilov and Hutter, ICLR 2019)."""


class Sgd(_Optimizer):
    type: Literal["sgd"]


class Momentum(_Optimizer):
    type: Literal["momentum"]
    momentum: float = Field(0.9, gt=0, lt=1)
    nesterov: bool = False


class Adam(_Optimizer):
    type: Literal["adam"]
    betas: tuple[float, float] = (0.9, 0.999)


class AdamW(_Optimizer):
    type: Literal["adamw"]
    rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)


Optimizer = Annotated[Sgd | Momentum | Adam | AdamW, Field(discriminator="type")]


class Constant(Settings):
    type: Literal["constant"]
    warm_up: float = Field(0.0, ge=0, lt=1)
    """Share of the steps over which the rate rises from 0."""


class Cosine(Settings):
    """SGDR without restarts (Loshchilov and Hutter, ICLR 2017)."""

    type: Literal["cosine"]
    warm_up: float = Field(0.0, ge=0, lt=1)
    final: float = Field(0.0, ge=0, le=1)
    """Share of the rate that is left at the end."""


class OneCycle(Settings):
    """Up by a cosine from 1/25 of the rate, then down to 1/250,000 of it (Smith and Topin, 2019)."""

    type: Literal["one_cycle"]
    warm_up: float = Field(0.3, gt=0, lt=1)


Schedule = Annotated[Constant | Cosine | OneCycle, Field(discriminator="type")]


# --- modes -----------------------------------------------------------------------------------------------------------------------------


class _Mode(Settings):
    freeze: list[str] = Field([])
    """Names of parameters that are left as they are; `*` stands for anything, as in `encoders.video.*`."""
    rates: dict[str, float] = Field({})
    """Such names -> the share of the learning rate that they get."""


class Joint(_Mode):
    """All at once."""

    type: Literal["joint"]


class Alternating(_Mode):
    """Encoders take turns, batch by batch, while fusion and heads always learn; or tasks do."""

    type: Literal["alternating"]
    by: Literal["modality", "task"] = "modality"


class UnimodalThenFuse(_Mode):
    """Each encoder alone with its auxiliary head, then all with the fusion."""

    type: Literal["unimodal_then_fuse"]
    epochs: int = Field(10, gt=0)
    """Of the first stage; `training.epochs` are those of the second."""
    frozen: bool = False
    """The encoders stay as they are in the second stage."""


class Transfer(_Mode):
    """From what was learned before, wherever names and shapes match."""

    type: Literal["transfer"]
    start: str
    """A bundle's folder or name, or a safetensors file."""
    part: str = ""
    """The part of the model whose weights alone they are, such as `encoders.video`."""
    rename: dict[str, str] = Field({})
    """What their names begin with -> what they begin with in the model, or in that part."""


Mode = Annotated[Joint | Alternating | UnimodalThenFuse | Transfer, Field(discriminator="type")]


# --- all of it -------------------------------------------------------------------------------------------------------------------------


class TaskWeights(Settings):
    """How the losses of several tasks are added."""

    type: Literal["fixed", "uncertainty"] = "fixed"
    """`uncertainty` learns them (Kendall, Gal and Cipolla, CVPR 2018). Tasks that take turns: `mode: {type: alternating, by: task}`."""
    fixed: dict[str, Annotated[float, Field(ge=0)]] = Field({})
    """Task -> weight; 1 where not given."""


class EarlyStopping(Settings):
    """On the validation part. What was best by the metric is kept, also where the last epoch is reached."""

    metric: str = "loss"
    """`loss`, or a metric of the first task, or `task.metric`."""
    patience: int = Field(10, gt=0)
    """Epochs without a better one, then it ends."""


class TrainingRecipe(Settings):
    seeds: list[int] = Field([0], min_length=1)
    epochs: int = Field(30, gt=0)
    epoch_rows: int | None = Field(None, gt=0)
    """Rows of an epoch, where it is not to be a pass over all of them."""
    batch: int = Field(64, gt=0)
    """Rows of a step, over all processes."""
    optimizer: Optimizer = AdamW(type="adamw")
    schedule: Schedule = Cosine(type="cosine", warm_up=0.05)
    mode: Mode = Joint(type="joint")
    tasks: TaskWeights = TaskWeights()
    early_stopping: EarlyStopping | None = EarlyStopping()
    """`null`: all epochs, and the last state is kept."""
    modality_dropout: float = Field(0.3, ge=0, lt=1)
    """How often a row is shown without a modality that it has, each drawn for itself; nothing is hidden from a model of one."""
    auxiliary: float = Field(0.3, ge=0)
    """Weight of each modality's own answer in the loss."""
    reconstruction: float = Field(0.3, ge=0)
    """Weight of the loss of an architecture that reconstructs a modality from the others."""
    crossmodal: float = Field(1.0, ge=0)
    """Weight of each loss of an architecture that goes between modalities."""
    noise: dict[str, float] = Field({})
    """Stream -> greatest level of the noise, 0 to 1, that a row is shown with; each row draws its own."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of each token's features that is hidden from the fusion and the auxiliary heads (Srivastava et al., JMLR 2014)."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    l1: float = Field(0.0, ge=0)
    """On the weights that `weight_decay` shrinks too."""
    clip: float | None = Field(1.0, gt=0)
    """Greatest norm of the gradient; `null`: as it is."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the forward pass: `auto` is bfloat16 on a GPU and float32 on the CPU. Weights are float32 always."""
    deterministic: bool = True
    """The same seed on one machine gives the same bundle, byte for byte."""
    threads: int = Field(2, ge=0, le=64)
    """That read rows ahead of the step; 0 reads them between the steps."""
    ahead: int = Field(4, gt=0)
    """Batches that are ready or in the making before they are wanted."""
    checkpoint_every: Duration = parse_duration("60s")
    """At least this long between two checkpoints within an epoch, where one process trains; each epoch ends with one."""

    @model_validator(mode="after")
    def _differ(self) -> TrainingRecipe:
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"expected seeds that differ, found {self.seeds}")
        return self


class Recipe(Settings):
    name: str = Field(pattern=r"^[A-Za-z0-9._-]{1,100}$")
    sources: dict[str, str] = Field({})
    """What the data was made of -> under which licence it may be used; told in the bundle."""
    data: Options
    """The data set: `type` and its options."""
    split: Options = Field({})
    """Which rows are trained on, which decide when to stop, and which are for the test alone."""
    model: ModelRecipe
    training: TrainingRecipe = TrainingRecipe()
    evaluation: Options = Field({})
    """For `streamfuse evaluate` and `streamfuse compare`."""


def load_recipe(path: Path, changes: Mapping[str, str] | None = None) -> Recipe:
    """The recipe of a file, with `changes` such as `training.epochs` -> `3`. Raises ConfigError with every problem that was found."""
    recipe = load_settings(path, Recipe, changes or {})
    problems = list(_problems(recipe))
    if problems:
        raise ConfigError(problems)
    return recipe


def _problems(recipe: Recipe) -> Iterator[Problem]:
    model, training = recipe.model, recipe.training
    yield from _unknown("data", DATA, recipe.data, "folder", "inputs", "heads")
    yield from _unknown("model.fusion", FUSIONS, model.fusion, "streams", "features")
    for stream, options in model.inputs.items():
        yield from _unknown(f"model.inputs.{stream}", PREPROCESSORS, options)
    for stream, options in model.encoders.items():
        yield from _unknown(f"model.encoders.{stream}", ENCODERS, options, "features")
    for stream, options in model.crossmodal.decoders.items() if model.crossmodal else ():
        yield from _unknown(f"model.crossmodal.decoders.{stream}", DECODERS, options, "features")
    for task, options in model.heads.items():
        yield from _unknown(f"model.heads.{task}", HEADS, options, "features", "normalised")
    for stream in sorted(set(training.noise) - set(model.encoders)):
        yield Problem(
            f"training.noise.{stream}", f"expected a stream of model.encoders, found {stream!r}; they are {_list(model.encoders)}"
        )
    for stream, level in training.noise.items():
        if not 0 <= level <= 1:
            yield Problem(f"training.noise.{stream}", f"expected a level from 0 to 1, found {level}")
    for task in sorted(set(training.tasks.fixed) - set(model.heads)) if model.heads else ():
        yield Problem(f"training.tasks.fixed.{task}", f"expected a task of model.heads, found {task!r}: {_list(model.heads)}")
    for path, rate in training.mode.rates.items():
        if rate < 0:
            yield Problem(f"training.mode.rates.{path}", f"expected a share of the learning rate from 0 on, found {rate}")
    if training.mode.type == "alternating" and training.mode.by == "task" and training.tasks.type == "uncertainty":
        yield Problem("training.tasks.type", "weights are not learned where tasks take turns; remove it, or set training.mode.by: modality")
    if training.mode.type == "unimodal_then_fuse" and len(model.encoders) < 2:
        yield Problem("training.mode.type", "unimodal_then_fuse needs two encoders or more, found one; set joint")


def _unknown(path: str, registry: Registry[Any], options: Options, *given: str) -> Iterator[Problem]:
    """A part that does not exist, or an option that it does not take; nothing is made."""
    if not isinstance(options.get("type"), str):
        yield Problem(f"{path}.type", f"is needed: it picks the {registry.kind}; there are {_list(registry.names())}")
        return
    try:
        known = inspect.signature(registry[options["type"]]).parameters
    except UnknownPart as error:
        yield Problem(f"{path}.type", str(error))
        return
    except ValueError:  # an extension type without a signature
        return
    if any(part.kind is inspect.Parameter.VAR_KEYWORD for part in known.values()):
        return
    for name in options.keys() - known.keys() - {"type"}:
        own = [part for part in known if part not in given]
        yield Problem(f"{path}.{name}", f"is no option of {options['type']!r}; it has {_list(own) or 'none'}")


def _list(names: Any) -> str:
    return ", ".join(names)
