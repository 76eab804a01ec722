"""A bundle's model as graphs that other programs run: one an encoder, and one for the fusion with its heads.

They stand in a folder of the bundle, `onnx` or `torch`, with a `graphs.json` that says which bundle they were made of (its digest) and
what each file's SHA-256 is: graphs of another bundle, or damaged ones, are refused. Batch and number of items are open in all of them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from streamfuse.errors import BundleError
from streamfuse.models.batch import Items, Modality
from streamfuse.models.bundle import Bundle
from streamfuse.models.fusion_model import FusionModel

Target = Literal["onnx", "torch"]
MANIFEST = "graphs.json"
FUSION = "fusion"
TOLERANCE = 1e-3
"""The greatest difference to the model that a graph may have, in units of the greatest number that it gives, or of 1."""

Run = Callable[[Sequence[Tensor]], Sequence[Tensor]]
"""Runs a graph, its inputs and outputs in their order."""


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """A part of a model as a module of plain tensors. `example(batch, count)` makes inputs of that size; `counts` are those to check,
    the least possible one last, which what torch exports may refuse."""

    name: str
    module: nn.Module
    inputs: Sequence[str]
    outputs: Sequence[str]
    example: Callable[[int, int], tuple[Tensor, ...]]
    counts: Sequence[int]


def pieces(model: FusionModel, empty: Mapping[str, Items]) -> list[Piece]:
    """All parts, in the order `encoder-0`, `encoder-1`, ... of the model's streams, then `fusion`."""
    found = [_encoder(model, stream, number, empty[stream]) for number, stream in enumerate(model.streams)]
    tokens = [f"{part}-{number}" for number in range(len(model.streams)) for part in ("data", "time", "mask")]

    def example(batch: int, count: int) -> tuple[Tensor, ...]:
        parts: list[Tensor] = []
        for number in range(len(model.streams)):
            parts += _like(Items(torch.zeros(1, model.features).numpy(), _NO_TIME, _NO_MASK), batch, count + number)
        return (*parts, torch.rand(batch, len(model.streams)) > 0.3)

    found.append(
        Piece(FUSION, flat_fusion(model), [*tokens, "present"], [f"task-{n}" for n in range(len(model.tasks))], example, [9, 2, 1])
    )
    return found


def export_graphs(bundle: Bundle, folder: Path, to: Target, tell: Callable[[str], None]) -> dict[str, float]:
    """Writes all graphs of a bundle into its `folder` / `to`, compares each with the model on random inputs of several sizes, and gives
    each one's greatest difference. `tell` is called with a line for each.

    Raises `BundleError` where a part can't be exported, or a graph does not say what the model says.
    """
    place = folder / to
    place.mkdir(parents=True, exist_ok=True)
    (place / MANIFEST).unlink(missing_ok=True)
    files: dict[str, str] = {}
    differences: dict[str, float] = {}
    empty = {stream: part.empty() for stream, part in bundle.preprocessors.items()}
    for piece in pieces(bundle.model, empty):
        path = place / f"{piece.name}.{'onnx' if to == 'onnx' else 'pt2'}"
        with torch.inference_mode(), _quiet():
            run = _write(piece, path, to)
            differences[piece.name] = largest = _compare(piece, run, piece.counts if to == "onnx" else piece.counts[:2])
        if not largest <= TOLERANCE:
            path.unlink()
            raise BundleError(f"expected the graph {path} to say what the model says, found a difference of {largest:.3g}; it was not kept")
        files[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
        tell(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB, differs from the model by at most {largest:.2g}")
    manifest = {"digest": bundle.digest, "torch": torch.__version__, "files": files, "differences": differences}
    (place / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return differences


def graph_files(folder: Path, digest: str, to: Target) -> dict[str, Path]:
    """Name of each piece -> its file, made of the bundle with this digest. Raises `BundleError` with what to do."""
    advice = f"make them with: streamfuse export {folder} --to {to}"
    path = folder / to / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
        of, files = manifest["digest"], dict(manifest["files"])
    except OSError:
        raise BundleError(f"expected graphs in {folder / to}, found none; {advice}") from None
    except (ValueError, KeyError, TypeError):
        raise BundleError(f"expected {path} to say what the graphs are, found something else; {advice}") from None
    if of != digest:
        raise BundleError(f"the graphs in {folder / to} were made of {of}, the bundle is {digest} now; {advice}")
    found: dict[str, Path] = {}
    for name, wanted in files.items():
        graph = folder / to / Path(name).name
        if not graph.is_file() or hashlib.sha256(graph.read_bytes()).hexdigest() != wanted:
            raise BundleError(f"expected {graph} as it was exported, found {'another file' if graph.is_file() else 'none'}; {advice}")
        found[graph.stem] = graph
    return found


def require_onnx(what: str) -> Any:
    """The module `onnxruntime`. Raises `BundleError` that names the extra where a library is missing."""
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise BundleError(f"{what} needs {error.name}; install it with: pip install 'streamfuse[onnx]'") from None
    return onnxruntime


def open_session(path: Path, threads: int = 1) -> Any:
    """An `onnxruntime.InferenceSession` on the CPU."""
    runtime = require_onnx(f"reading {path.name}")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def session_runner(path: Path, threads: int = 1) -> Run:
    session = open_session(path, threads)
    names = [given.name for given in session.get_inputs()]

    def run(inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        feed = {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)}
        return [torch.from_numpy(made) for made in session.run(None, feed)]

    return run


def flat_encoder(model: FusionModel, stream: str) -> nn.Module:
    """An encoder that takes and gives plain tensors: data, time and mask, and a causal one its state behind them."""
    encoder = model.encoders[stream]
    return _Step(encoder) if model.scope(stream) == "causal" else _Encoder(encoder)


def flat_fusion(model: FusionModel) -> nn.Module:
    """The fusion and the heads, from each stream's data, time and mask in turn and `present`, to what each task's head reads."""
    return _Fusion(model)


# --- the pieces ------------------------------------------------------------------------------------------------------------------------

_NO_TIME, _NO_MASK = torch.zeros(1).numpy(), torch.zeros(1, dtype=torch.bool).numpy()


class _Encoder(nn.Module):
    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, data: Tensor, time: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.encoder(Modality(data, time, mask)))


class _Step(_Encoder):
    """A causal encoder, from one state to the next."""

    def forward(self, data: Tensor, time: Tensor, mask: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        tokens, after = self.encoder.step(Modality(data, time, mask), state)  # type: ignore[operator]
        return (*tokens, *after)


class _Fusion(nn.Module):
    def __init__(self, model: FusionModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, *parts: Tensor) -> tuple[Tensor, ...]:
        tokens = {stream: Modality(*parts[3 * n : 3 * n + 3]) for n, stream in enumerate(self.model.streams)}
        return tuple(self.model.head(task).read(found) for task, found in self.model.fuse(tokens, parts[-1]).items())


def _encoder(model: FusionModel, stream: str, number: int, empty: Items) -> Piece:
    encoder, is_causal = model.encoders[stream], model.scope(stream) == "causal"
    stride = int(getattr(encoder, "stride", 1)) if is_causal else 1
    usual = -(-len(empty.mask) // stride) * stride
    states = encoder.begin(1) if is_causal else ()  # type: ignore[operator]
    state = [f"state-{n}" for n in range(len(states))]

    def example(batch: int, count: int) -> tuple[Tensor, ...]:
        begun = encoder.begin(batch) if is_causal else ()  # type: ignore[operator]
        return (*_like(empty, batch, count), *(part.clone() for part in begun))

    module = flat_encoder(model, stream)
    counts = [usual, usual + 3 * stride, *([stride] if model.scope(stream) != "window" else [])]
    inputs, outputs = ["data", "time", "mask", *state], ["tokens", "times", "masks", *(f"next-{name}" for name in state)]
    return Piece(f"encoder-{number}", module, inputs, outputs, example, counts)


def _like(empty: Items, batch: int, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Random items of this shape and type, the times ascending to the window's end, some of them masked out."""
    like = torch.from_numpy(empty.data)
    shape = (batch, count, *like.shape[1:])
    if like.dtype == torch.uint8:
        data = torch.randint(0, 256, shape).to(torch.uint8)
    elif like.dtype == torch.int16:
        data = (torch.randn(shape) * 3000).clamp(-32768, 32767).to(torch.int16)
    else:
        data = torch.randn(shape) if like.is_floating_point() else torch.randint(0, 100, shape).to(like.dtype)
    return data, torch.rand(batch, count).sort(1).values - 1, torch.rand(batch, count) > 0.2


# --- writing and comparing -------------------------------------------------------------------------------------------------------------


def _write(piece: Piece, path: Path, to: Target) -> Run:
    """Exports a piece and gives what runs it."""
    module = piece.module.eval()
    inputs = piece.example(3, max(piece.counts[0], 2))
    auto = torch.export.Dim.AUTO
    shapes = [{0: auto} if name == "present" or name.startswith("state") else {0: auto, 1: auto} for name in piece.inputs]
    names = ("data", "time", "mask")
    by_name: dict[str, Any] = dict(zip(names, shapes, strict=False)) if isinstance(piece.module, _Encoder) else {"parts": tuple(shapes)}
    if isinstance(piece.module, _Step):
        by_name["state"] = tuple(shapes[3:])
    try:
        program = torch.export.export(module, inputs, dynamic_shapes=by_name)
        if to == "onnx":
            require_onnx("exporting to ONNX")
            from onnxscript.optimizer import fold_constants

            # Not all of the exporter's optimisations: one takes an added 1e-8 for nothing. ONNX Runtime has its own, which need
            # constants to be there as such.
            made = torch.onnx.export(
                program, dynamo=True, verbose=False, optimize=False, input_names=list(piece.inputs), output_names=list(piece.outputs)
            )
            assert made is not None
            fold_constants(made.model)
            made.save(str(path))
            return session_runner(path)
        torch.export.save(program, path)
        run = program.module()
    except BundleError:
        raise
    except Exception as error:
        first = str(error).strip().split("\n")[0]
        raise BundleError(
            f"{piece.name} can't be exported: {type(error).__name__}: {first}; it must not branch on data, nor read sizes as plain numbers"
        ) from None
    return lambda given: list(run(*given))


def _compare(piece: Piece, run: Run, counts: Sequence[int]) -> float:
    """The greatest difference between a piece and its graph, over batches of 1 to 5 of each count."""
    torch.manual_seed(0)
    largest = 0.0
    for count in counts:
        for batch in (1, 2, 5):
            inputs = piece.example(batch, count)
            for wanted, found in zip(piece.module(*inputs), run(inputs), strict=True):
                if wanted.shape != found.shape:
                    raise BundleError(f"{piece.name}: expected {list(wanted.shape)} from its graph, found {list(found.shape)}")
                gap = (wanted.double() - found.double()).abs().max() / wanted.double().abs().max().clamp(min=1)
                largest = max(largest, float(gap.nan_to_num(nan=float("inf"))))
    return largest


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter tells its developers much that is of no use here."""
    loud = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [log.level for log in loud]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for log in loud:
            log.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for log, level in zip(loud, levels, strict=True):
                log.setLevel(level)
