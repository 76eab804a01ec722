"""What stands in a topic of predictions, beside what an uninterrupted run would have put there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import anyio

from streamfuse.clock import SystemClock
from streamfuse.config import ModelSettings
from streamfuse.models.runner import TorchRunner
from streamfuse.types import Prediction, Window, WindowId

CLOSE = 1e-3  # scores of one window differ in the last digits with the batch that it was computed in


@dataclass(frozen=True)
class Verdict:
    """`windows` is how many an uninterrupted run makes, first and last revisions; the others are violations, or ids that came again."""

    windows: int
    lost: Sequence[WindowId]
    wrong: Sequence[str]
    repeated: Mapping[WindowId, int]
    different: Sequence[WindowId]

    def violations(self, delivery: str) -> list[str]:
        """What this delivery does not allow, as sentences."""
        found = []
        if self.lost:
            found.append(f"{len(self.lost)} lost, such as {self.lost[0]}")
        if self.wrong:
            found.append(f"{len(self.wrong)} wrong: {self.wrong[0]}")
        if self.different:
            found.append(f"{len(self.different)} came again and differed, such as {self.different[0]}")
        if self.repeated and delivery == "exactly_once":
            found.append(f"{len(self.repeated)} came twice, such as {next(iter(self.repeated))}")
        return found

    def __str__(self) -> str:
        return (
            f"{self.windows} windows: {len(self.lost)} lost, {len(self.wrong)} wrong, {len(self.repeated)} repeated"
            f" ({len(self.different)} of them differently)"
        )


def judge(found: Iterable[Prediction], expected: Sequence[Prediction]) -> Verdict:
    """`expected` is what an uninterrupted run predicts, in its order."""
    held = certain(expected)
    last = {p.id[:3]: p for p in expected}
    counts: Counter[WindowId] = Counter()
    seen: dict[WindowId, Prediction] = {}
    wrong: list[str] = []
    different: dict[WindowId, None] = {}
    for prediction in found:
        id = prediction.id
        counts[id] += 1
        if id[:3] not in last or id.revision > last[id[:3]].revision:
            wrong.append(f"{id} was not to come")
        elif id in held and (why := difference(prediction, held[id])):
            wrong.append(f"{id} {why}")
        if id in held and difference(prediction, seen.setdefault(id, prediction)):
            different[id] = None
    return Verdict(
        len(held),
        [id for id in held if id not in counts],
        wrong,
        {id: count for id, count in counts.items() if count > 1},
        list(different),
    )


def certain(expected: Sequence[Prediction]) -> dict[WindowId, Prediction]:
    """The first and the last revision of each window. What lies between depends on how late packets interleave with the window's end."""
    last = {p.id[:3]: p for p in expected}
    return {p.id: p for p in (*(p for p in expected if not p.revision), *last.values())}


def difference(one: Prediction, other: Prediction) -> str:
    """What tells them apart, apart from when they were made; empty where nothing does."""
    for name in ("packets", "absent"):
        a, b = dict(getattr(one, name)), dict(getattr(other, name))
        if a != b:
            return f"has {name} {a}, not {b}"
    for name in ("scores", "contributions"):
        a, b = dict(getattr(one, name)), dict(getattr(other, name))
        if a.keys() != b.keys() or any(abs(a[of] - b[of]) > CLOSE for of in a):
            return f"has {name} {a}, not {b}"
    return ""


def predictions(windows: Sequence[Window], models: Mapping[str, object]) -> list[Prediction]:
    """What the model says about them, computed here and now."""

    async def predict() -> list[Prediction]:
        made: list[Prediction] = []
        async with TorchRunner(ModelSettings.model_validate(models), SystemClock()) as runner:
            for begin in range(0, len(windows), 16):
                made += await runner.predict(await runner.prepare(windows[begin : begin + 16]))
        return made

    return anyio.run(predict)
