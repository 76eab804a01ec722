"""The learning rate over a run: a pure function of the step, so that nothing of it needs to be kept."""

from __future__ import annotations

import math

from streamfuse.training.recipe import Schedule


def share(schedule: Schedule, step: int, steps: int) -> float:
    """Of the greatest learning rate, at `step` of `steps`, counted from 0."""
    done = step / max(steps - 1, 1)
    if schedule.type == "one_cycle":
        if done < schedule.warm_up:
            return _between(1 / 25, 1.0, done / schedule.warm_up)
        return _between(1.0, 1 / 250_000, (done - schedule.warm_up) / (1 - schedule.warm_up))
    rising = round(schedule.warm_up * steps)
    if step < rising:
        return (step + 1) / (rising + 1)
    if schedule.type == "constant":
        return 1.0
    return _between(1.0, schedule.final, (step - rising) / (steps - rising))


def _between(first: float, last: float, way: float) -> float:
    """Half a cosine from one to the other."""
    return last + (first - last) * (1 + math.cos(math.pi * way)) / 2
