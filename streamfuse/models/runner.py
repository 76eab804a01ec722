"""Turns windows into predictions with a bundle: decodes in a pool, computes on one thread that owns the device."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import cv2
import numpy as np
import torch
from torch import Tensor

from streamfuse.config import ModelSettings
from streamfuse.errors import BundleError, UndecodablePayload
from streamfuse.interfaces import Batch, Clock
from streamfuse.models.batch import Items, Modality, collate
from streamfuse.models.buckets import BucketedEngine
from streamfuse.models.bundle import Bundle, find_bundle, load_bundle
from streamfuse.models.cuda_engine import CudaEngine
from streamfuse.models.decode import decode
from streamfuse.models.embeddings import Embeddings, keeps
from streamfuse.models.engine import Engine
from streamfuse.models.onnx_engine import OnnxEngine
from streamfuse.models.preprocess import identity
from streamfuse.models.remember import OnceCache
from streamfuse.models.shapley import shapley
from streamfuse.models.torch_engine import TorchEngine
from streamfuse.models.truth import true_label, words
from streamfuse.types import Absence, Audio, Image, Packet, Prediction, Window

CACHE_BYTES = 256 * 1024 * 1024
"""Decoded packets that overlapping windows share; at 320 x 240 grey that is about 3,400 frames."""


@dataclass(frozen=True, slots=True, eq=False)
class PreparedBatch:
    """Windows made ready, between `prepare` and `predict`: `samples` has each window's items, `inputs` those of the streams that are
    encoded anew, as tensors. `absent` is each window's, with what proved undecodable."""

    windows: Sequence[Window]
    undecodable: Sequence[tuple[Packet, str]]
    samples: Sequence[Mapping[str, Items]]
    inputs: Mapping[str, Modality]
    absent: Sequence[Mapping[str, str]]
    packets: Sequence[Mapping[str, int]]
    texts: Sequence[Mapping[str, str]]
    truth: Sequence[str | None]


@dataclass(slots=True)
class _Prepared:
    items: dict[str, Items] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    packets: dict[str, int] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    truth: str | None = None
    failed: list[tuple[Packet, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Answers:
    """What a model says of a batch: `(batch, names)` per task, and of the first task each stream's Shapley value and weight,
    `(batch, streams)`, where they are asked for and there."""

    outputs: Mapping[str, Tensor]
    shares: Tensor | None = None
    weights: Tensor | None = None


@dataclass(frozen=True, slots=True)
class _Refused:
    """Stands in the cache for a packet that proved undecodable."""

    sentence: str


class TorchRunner:
    """Fulfils `interfaces.Runner`. Nothing here blocks the event loop.

    The bundle is loaded when it is made, so that a config can be checked without starting anything; entering moves it
    to the device and warms it up. `stage_seconds` sums the time spent in `decode`, `preprocess` (both over all threads
    of the pool), `encode` and `fuse`; `windows_done` and `packets_decoded` count. Raises `BundleError` where the bundle
    is not usable or the device that was asked for is not there.
    """

    def __init__(self, settings: ModelSettings, clock: Clock) -> None:
        self.settings = settings
        self.bundle: Bundle = load_bundle(settings.bundle)
        self.device = pick_device("cpu" if settings.engine == "onnx" and settings.device == "auto" else settings.device)
        self.stage_seconds: dict[str, float] = dict.fromkeys(("decode", "preprocess", "encode", "fuse"), 0.0)
        self.windows_done = 0
        self.packets_decoded = 0
        self._clock = clock
        self._lock = threading.Lock()
        self._empty = {stream: part.empty() for stream, part in self.bundle.preprocessors.items()}
        self._engine = make_engine(settings, self.bundle, self.device)
        self._embeddings = {} if settings.recompute else self._keepers()
        self._cache = OnceCache(CACHE_BYTES, _size)
        self._reported: OrderedDict[Hashable, None] = OrderedDict()
        self._stack: AsyncExitStack | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._device_thread: ThreadPoolExecutor | None = None

    @property
    def inputs(self) -> Mapping[str, str]:
        return self.bundle.inputs

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            self._pool = ThreadPoolExecutor(self.settings.decode_threads, thread_name_prefix="decode")
            stack.callback(self._pool.shutdown, wait=True, cancel_futures=True)
            self._device_thread = ThreadPoolExecutor(1, thread_name_prefix="device")
            stack.callback(self._device_thread.shutdown, wait=True, cancel_futures=True)
            await self._on_device(self._warm_up)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        if self._stack is not None:
            await self._stack.aclose()

    async def prepare(self, windows: Sequence[Window]) -> PreparedBatch:
        """Decodes and lays out each window on the pool; a packet that stands in several windows is decoded once."""
        assert self._pool is not None, "the runner was not entered"
        loop = asyncio.get_running_loop()
        jobs = [loop.run_in_executor(self._pool, self._prepare, window) for window in windows]
        prepared = [await job for job in jobs]
        samples = [p.items for p in prepared]
        anew = {stream: empty for stream, empty in self._empty.items() if stream not in self._embeddings}
        return PreparedBatch(
            windows=tuple(windows),
            undecodable=tuple(self._news(prepared)),
            samples=samples,
            inputs=await loop.run_in_executor(self._pool, collate, samples, anew),
            absent=[p.absent for p in prepared],
            packets=[p.packets for p in prepared],
            texts=[p.texts for p in prepared],
            truth=[p.truth for p in prepared],
        )

    async def predict(self, batch: Batch) -> list[Prediction]:
        """One prediction a window, in their order."""
        assert isinstance(batch, PreparedBatch), "a batch of another runner"
        if not batch.windows:
            return []
        answers = await self._on_device(lambda: self._infer(batch.samples, batch.inputs))
        self.windows_done += len(batch.windows)
        now = self._clock.now()
        return [self._prediction(batch, i, now, answers) for i in range(len(batch.windows))]

    def embeddings(self) -> Mapping[tuple[str, str], int]:
        """How many tokens of each stream were `computed`, and how many found `kept` from the windows before."""
        return {(s, what): count for s, of in self._embeddings.items() for what, count in (("computed", of.computed), ("kept", of.kept))}

    # --- on the pool -------------------------------------------------------------------------------------------------

    def _prepare(self, window: Window) -> _Prepared:
        out = _Prepared(absent={stream: str(reason) for stream, reason in window.absent.items()})
        for stream, preprocessor in self.bundle.preprocessors.items():
            packets = window.packets.get(stream, ())
            good: list[tuple[Packet, Any]] = []
            with self._timed("decode"):
                for packet in packets:
                    kept = self._decoded(packet, stream)
                    if isinstance(kept, _Refused):
                        out.failed.append((packet, kept.sentence))
                    else:
                        good.append((packet, kept))
            if good:
                with self._timed("preprocess"):
                    out.items[stream] = preprocessor.prepare(window.start, window.end, good, self._remember)
                out.packets[stream] = len(good)
                if preprocessor.modality == "text" and self.settings.publish_texts:
                    out.texts[stream] = " ".join(words(packet) for packet, _ in good)
            else:
                # A window that the synchronizer knows nothing of this stream for: it was never there.
                out.absent[stream] = Absence.UNDECODABLE if packets else out.absent.get(stream, Absence.IDLE)
        if self.settings.truth is not None:
            out.absent.pop(self.settings.truth, None)
            out.truth = true_label(window, self.settings.truth, out.failed)
        return out

    def _decoded(self, packet: Packet, stream: str) -> Any:
        part = self.bundle.preprocessors[stream]

        def make() -> Any:
            with self._lock:
                self.packets_decoded += 1
            try:
                return part.reduce(decode(packet, part.modality, max_pixels=self.settings.max_pixels, min_width=part.min_width))
            except UndecodablePayload as error:
                return _Refused(str(error))  # not the error itself: it would keep the payload alive

        return self._remember(packet, "decoded", make)

    def _remember(self, packet: Packet, word: str, make: Callable[[], Any]) -> Any:
        return self._cache.get((word, identity(packet)), make)

    def _news(self, prepared: Sequence[_Prepared]) -> Iterator[tuple[Packet, str]]:
        """What was found undecodable and not yet reported: a packet stands in several windows."""
        for packet, sentence in itertools.chain.from_iterable(p.failed for p in prepared):
            who = identity(packet)
            if who not in self._reported:
                self._reported[who] = None
                if len(self._reported) > 10_000:
                    self._reported.popitem(last=False)
                yield packet, sentence

    # --- on the device's thread --------------------------------------------------------------------------------------

    async def _on_device(self, work: Callable[[], Any]) -> Any:
        assert self._device_thread is not None, "the runner was not entered"
        return await asyncio.get_running_loop().run_in_executor(self._device_thread, work)

    def _keepers(self) -> dict[str, Embeddings]:
        model, most = self.bundle.model, self.settings.embedding_bytes
        encoders = {stream: model.encoders[stream] for stream in model.streams}
        return {s: Embeddings(s, self._engine, e, model.features, self._empty[s], most) for s, e in encoders.items() if keeps(e)}

    def _warm_up(self) -> None:
        # One thread a library: a model this small loses more by waiting for the others than it gains.
        cv2.setNumThreads(1)
        if self.device.type == "cpu":
            torch.set_num_threads(self.settings.cpu_threads)
        for count in (1, self.settings.max_batch):
            inputs = collate([self._empty] * count, self._empty)
            self._answer({stream: self._engine.encode(stream, items)[0] for stream, items in inputs.items()})

    def _infer(self, samples: Sequence[Mapping[str, Items]], inputs: Mapping[str, Modality]) -> _Answers:
        tokens: dict[str, Modality] = {}
        with self._timed("encode"):
            for stream in self.bundle.model.streams:
                kept = self._embeddings.get(stream)
                if kept is None:
                    tokens[stream] = self._engine.encode(stream, inputs[stream])[0]
                else:
                    tokens[stream] = kept([sample.get(stream) for sample in samples])
        with self._timed("fuse"):
            return self._answer(tokens)

    def _answer(self, tokens: Mapping[str, Modality]) -> _Answers:
        """On the CPU, whatever the device. With `explain` all subsets of the streams are fused, the whole among them."""
        engine, model = self._engine, self.bundle.model
        with torch.inference_mode():
            if not self.settings.explain:
                return _Answers({task: found.cpu() for task, found in engine.fuse(tokens).items()})
            fused: dict[str, Tensor] = {}

            def first(tokens: Mapping[str, Modality], present: Tensor) -> Tensor:
                fused.update(engine.fuse(tokens, present))
                return fused[model.tasks[0]]

            whole, shares = shapley(first, tokens, model.streams)
            weights = engine.weigh(tokens)
            outputs = {task: found[-len(whole) :].cpu() for task, found in fused.items()}  # the last subset is the whole
            return _Answers(outputs, shares.cpu(), None if weights is None else weights.cpu())

    # --- results -----------------------------------------------------------------------------------------------------

    def _prediction(self, batch: PreparedBatch, i: int, now: int, answers: _Answers) -> Prediction:
        window, model = batch.windows[i], self.bundle.model
        present = batch.packets[i]
        said = {task: dict(zip(model.head(task).names, found[i].tolist(), strict=True)) for task, found in answers.outputs.items()}
        scores = said[model.tasks[0]]

        def of_present(each: Tensor | None) -> dict[str, float]:
            return {} if each is None else {s: v for s, v in zip(model.streams, each[i].tolist(), strict=True) if s in present}

        return Prediction(
            key=window.key,
            start=window.start,
            end=window.end,
            revision=window.revision,
            label=max(scores, key=lambda name: scores[name]),
            scores=scores,
            absent=batch.absent[i],
            contributions=of_present(answers.shares),
            packets=present,
            model=self.bundle.config.name,
            digest=self.bundle.digest,
            produced_at=now,
            texts=batch.texts[i],
            truth=batch.truth[i],
            kind=model.head(model.tasks[0]).kind,
            weights=of_present(answers.weights),
            outputs=said if len(said) > 1 else {},
        )

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        begun = self._clock.monotonic()
        try:
            yield
        finally:
            with self._lock:
                self.stage_seconds[stage] += (self._clock.monotonic() - begun) / 1e9


def make_engine(settings: ModelSettings, bundle: Bundle, device: torch.device) -> Engine:
    """Raises `BundleError` where the engine that was asked for can't run this bundle here."""
    if settings.engine == "torch" and settings.compile and device.type == "cuda":
        return BucketedEngine(CudaEngine(bundle.model.to(device), device), bundle.model.streams, settings.max_batch)
    if settings.engine == "torch":
        return TorchEngine(bundle.model, device)
    if device.type != "cpu":
        raise BundleError("models.engine is onnx, which computes on the CPU, and models.device is cuda; set models.device to cpu")
    return OnnxEngine(bundle.model, find_bundle(settings.bundle), bundle.digest, settings.cpu_threads)


def pick_device(wanted: str) -> torch.device:
    """`cpu`, `cuda`, or for `auto` the best that is there. Raises `BundleError` for a `cuda` that is not there."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise BundleError(
            f"models.device is cuda, but torch {torch.__version__} finds no CUDA device here; "
            "set models.device to auto or cpu, or install a CUDA build of torch and the driver"
        )
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def _size(value: Any) -> int:
    if isinstance(value, np.ndarray):
        return value.nbytes
    if isinstance(value, Image):
        return value.pixels.nbytes
    return value.samples.nbytes if isinstance(value, Audio) else 64
