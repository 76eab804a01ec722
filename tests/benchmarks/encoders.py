"""Encoders: how large each is, what an item costs, and what it saves to carry a state from chunk to chunk.

    python -m tests.benchmarks.encoders [--rounds N] [--features N]

CPU time on one thread, medians, all encoders in turn; an item is a frame, 100 ms of sound, a text of 32 tokens or a row of 64 numbers.
Floating-point operations are counted by torch: a multiplication with its addition is two, and Fourier transforms, recurrent layers
and normalisation are left out. Ratios tell more than figures.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from streamfuse.models.batch import Modality
from streamfuse.models.parts import ENCODERS
from tests.benchmarks.measure import Run, cpu_seconds, table

SEED = torch.Generator().manual_seed(0)
HF = {
    "model_type": "bert",
    "vocab_size": 8192,
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
}
"""As large as MiniLM-L6."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.encoders", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=15, help="how often each encoder is measured")
    parser.add_argument("--features", type=int, default=128, help="numbers of a token")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with torch.inference_mode():
        each_item(options.features, options.rounds)
        norms(options.features, options.rounds)
        chunks(options.features, options.rounds)


def each_item(features: int, rounds: int) -> None:
    """Eight items at a time, one sample: as serving encodes what is new."""
    subjects = {name: (make(features, **given), draw, unit) for name, given, draw, unit in SUBJECTS if there(given["type"])}
    taken = cpu_seconds({name: timed(encoder, draw(8 * unit)) for name, (encoder, draw, unit) in subjects.items()}, rounds)
    rows = []
    for name, (encoder, draw, unit) in subjects.items():
        flops = counted(encoder, draw(8 * unit)) / 8
        seconds = taken[name] / 8
        size = sum(p.numel() for p in encoder.parameters())
        rows.append([name, f"{size / 1e6:.2f} M", f"{flops / 1e6:,.2f}", f"{seconds * 1e3:.2f} ms", f"{flops / seconds / 1e9:.1f}"])
    table("Each encoder", ["", "parameters", "MFLOP per item", "CPU per item", "GFLOP/s"], rows)


def norms(features: int, rounds: int) -> None:
    draw = frames(112)
    for name in ("cnn", "resnet18"):
        encoders = {norm: make(features, type=name, norm=norm) for norm in ("batch", "group")}
        taken = cpu_seconds({norm: timed(encoder, draw(8)) for norm, encoder in encoders.items()}, rounds)
        rows = [[norm, f"{seconds / 8 * 1e3:.2f} ms", f"{seconds / taken['batch']:.2f}x"] for norm, seconds in taken.items()]
        table(f"Normalisation of {name} at 112 x 112", ["", "CPU per frame", "of batch"], rows)


def chunks(features: int, rounds: int) -> None:
    """A window of 2 s that hops by 0.2 s: everything again, or what is new with the state carried. At best that is a tenth."""
    rows = []
    for name, given, draw in (("causal_mel", {}, sound), ("chunk_transformer", {}, sound), ("tcn", {"size": 64}, numbers)):
        encoder: Any = make(features, type=name, **given)
        for streams in (1, 16):
            window, hop = (several(draw(count), streams) for count in (100, 10))  # 50 blocks or rows a second
            whole, state = encoder.step(window, encoder.begin(streams))
            step = partial(encoder.step, hop, state)
            taken = cpu_seconds({"whole": timed(encoder, window), "hop": lambda step=step: step}, rounds)  # type: ignore[misc]
            costs = [f"{taken[kind] / streams * 1e3:.2f} ms" for kind in ("whole", "hop")]
            flops = counted(encoder, window) / counted(encoder, hop)
            differ = float((in_chunks(encoder, window, 10) - whole.data).abs().max())
            rows.append([f"{name}, {streams} at a time", *costs, f"{taken['whole'] / taken['hop']:.1f}x", f"{flops:.1f}x", f"{differ:.0e}"])
    header = ["", "2 s again", "0.2 s with state", "saving in CPU time", "in operations", "greatest difference"]
    table("Causal encoders, windows of 2 s that hop by 0.2 s, CPU time a window", header, rows)


def in_chunks(encoder: Any, items: Modality, size: int) -> Tensor:
    tokens, state = [], encoder.begin(items.mask.shape[0])
    for at in range(0, items.mask.shape[1], size):
        part, state = encoder.step(Modality(*(field[:, at : at + size] for field in items)), state)
        tokens.append(part.data)
    return torch.cat(tokens, 1)


def several(items: Modality, streams: int) -> Modality:
    return Modality(*(field.repeat(streams, *[1] * (field.ndim - 1)) for field in items))


def make(features: int, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    return ENCODERS.make(options, features=features).eval()


def there(name: str) -> bool:
    try:
        make(8, type=name, **({"config": HF} if name == "hf" else {}))
    except ValueError as error:
        if "is not installed" in str(error):
            print(f"left out: {name}, as transformers is not installed")
            return False
    return True


def timed(encoder: nn.Module, items: Modality) -> Callable[[], Run]:
    encoder(items)
    return lambda: partial(encoder, items)


def counted(encoder: nn.Module, items: Modality) -> int:
    with FlopCounterMode(display=False) as counter:
        encoder(items)
    return int(counter.get_total_flops())


def laid_out(data: Tensor) -> Modality:
    count = data.shape[1]
    return Modality(data, torch.linspace(-1, 0, count)[None], torch.ones(1, count, dtype=torch.bool))


def frames(size: int) -> Callable[[int], Modality]:
    return lambda count: laid_out(torch.randint(0, 256, (1, count, size, size, 3), generator=SEED, dtype=torch.uint8))


def grey(count: int) -> Modality:
    return laid_out(torch.randint(1, 256, (1, count, 48, 48), generator=SEED, dtype=torch.uint8))


def sound(count: int) -> Modality:
    return laid_out(torch.randint(-9999, 9999, (1, count, 320), generator=SEED, dtype=torch.int16))


def texts(count: int) -> Modality:
    return laid_out(torch.randint(1, 256, (1, count, 32), generator=SEED, dtype=torch.int32))


def numbers(count: int) -> Modality:
    return laid_out(torch.randn(1, count, 64, generator=SEED))


SUBJECTS: tuple[tuple[str, dict[str, Any], Callable[[int], Modality], int], ...] = (
    ("cnn, 112 x 112", {"type": "cnn"}, frames(112), 1),
    ("resnet18, 112 x 112", {"type": "resnet18"}, frames(112), 1),
    ("resnet50, 112 x 112", {"type": "resnet50"}, frames(112), 1),
    ("vit_tiny, 112 x 112", {"type": "vit_tiny", "size": 112}, frames(112), 1),
    ("face_motion, 48 x 48", {"type": "face_motion"}, grey, 1),
    ("log_mel", {"type": "log_mel"}, sound, 5),
    ("causal_mel", {"type": "causal_mel"}, sound, 5),
    ("chunk_transformer", {"type": "chunk_transformer"}, sound, 5),
    ("byte_text", {"type": "byte_text"}, texts, 1),
    ("text_lstm", {"type": "text_lstm"}, texts, 1),
    ("text_gru", {"type": "text_gru"}, texts, 1),
    ("text_transformer", {"type": "text_transformer"}, texts, 1),
    ("hf, as MiniLM-L6", {"type": "hf", "config": HF}, texts, 1),
    ("identity", {"type": "identity", "size": 64}, numbers, 1),
    ("mlp", {"type": "mlp", "size": 64}, numbers, 1),
    ("tcn", {"type": "tcn", "size": 64}, numbers, 1),
)
"""Name, options, items, and how many of them make one item of the table."""


if __name__ == "__main__":
    main()
