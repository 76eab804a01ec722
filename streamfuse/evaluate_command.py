"""`streamfuse evaluate`: what a bundle is worth on data that it was not trained on, as a report."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from streamfuse.models.bundle import Bundle, find_bundle, load_bundle
from streamfuse.models.runner import pick_device
from streamfuse.training.compare import Comparison, compare
from streamfuse.training.cost import measure_cost
from streamfuse.training.evaluate import Method
from streamfuse.training.given import open_given
from streamfuse.training.judge import batches_to_time, evaluation_settings, facts, fit_noise, history_of, judge, looking
from streamfuse.training.report import PAGE, write_report


def evaluate(options: argparse.Namespace) -> int:
    """Writes the report, prints its answers and gives 0. Raises BundleError, ConfigError and DataError."""
    bundle = load_bundle(options.bundle)
    comparison = evaluate_bundle(bundle, find_bundle(options.bundle), options.data, options.part)
    out = options.out or Path("out") / f"{bundle.config.name}-report"
    write_report(out, comparison)
    tell(comparison, out)
    return 0


def evaluate_bundle(bundle: Bundle, folder: Path, data: Path, which: str = "test") -> Comparison:
    """A comparison of one method with one seed."""
    with looking() as look:
        given = open_given(data, bundle.config, look)
    recipe = _recipe(bundle)
    settings = evaluation_settings(recipe.get("evaluation", {}))
    model, name = bundle.model, bundle.config.name
    inputs = batches_to_time(given.samples, given.split.parts[which].tolist(), model.streams) if len(given.split.parts[which]) else {}
    cost = measure_cost({name: model}, {name: inputs})[name] if inputs else None
    noise = fit_noise(given.samples, given.split, which, model.streams, settings)
    model.to(pick_device("auto"))
    run = judge(
        model,
        given.samples,
        given.split,
        which,
        settings,
        seed=int(bundle.config.training.get("seed", 0)),
        noise=noise,
        history=history_of(folder),
        title=f"asking {name}",
    )
    about = facts(given.name, which, given.split, run.test.groups, given.quality, given.remarks)
    return compare([Method(name, fusion_of(bundle), missing_of(bundle), [run], cost)], about)


def fusion_of(bundle: Bundle) -> str:
    return str(bundle.config.architecture["fusion"]["type"])


def missing_of(bundle: Bundle) -> str:
    return str(getattr(bundle.model.fusion, "missing", "as its fusion does"))


def tell(comparison: Comparison, out: Path) -> None:
    """The report's first paragraph, and where the rest is."""
    from streamfuse.training.report.words import in_short

    for sentence in in_short(comparison):
        print(sentence)
    print(f"\nthe whole report: {out / PAGE}")


def _recipe(bundle: Bundle) -> Mapping[str, Any]:
    recipe = bundle.config.training.get("recipe", {})
    return recipe if isinstance(recipe, dict) else {}
