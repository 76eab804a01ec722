"""Imports go one way, and what is cheap stays cheap to import."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "streamfuse"

LAYERS = (  # each part imports its own layer and those above it, never one below
    ("types", "errors", "durable", "ledger", "logs", "notify", "share", "allocator"),
    ("interfaces", "clock", "config", "loading", "topic_uses"),
    ("sync", "models", "codecs", "headers", "lengths", "documents", "metrics", "topics", "simulation", "delivery"),
    ("dead_letters", "kafka", "header_schemas", "asyncapi"),
    ("sources", "sinks", "feeder", "web", "sieve"),
    ("pipeline",),
    ("daemon",),
    ("assembly", "view"),
    (
        "demo",
        "simulate",
        "training",
        "records",
        "subscription",
        "tail",
        "dlq",
        "schema_command",
        "topics_command",
        "train_command",
        "evaluate_command",
        "crossmodal_command",
        "compare_command",
        "export_command",
        "compress_command",
    ),
    ("cli", "testing", "streamfuse"),  # what people start or import; `streamfuse` is the package's own `__init__`
    ("__main__",),
)
LAYER = {part: number for number, parts in enumerate(LAYERS) for part in parts}
HEAVY = {"anyio", "asyncio", "av", "confluent_kafka", "cv2", "kafka", "numpy", "prometheus_client", "pydantic", "torch"}

MODULES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))


def part_of(dotted: str) -> str:
    """The part that a module belongs to: `streamfuse.sync.windows` is `sync`."""
    names = dotted.split(".")
    return names[1] if len(names) > 1 else names[0]


def dotted_name(module: Path) -> str:
    return ".".join(("streamfuse", *module.with_suffix("").parts)).removesuffix(".__init__")


def exists(dotted: str) -> bool:
    path = PACKAGE.joinpath(*dotted.split(".")[1:])
    return path.with_suffix(".py").is_file() or path.is_dir()


def imports_of(module: Path) -> Iterator[str]:
    """Every module of ours that this one imports: at the top, inside functions and for type checking only."""
    here = dotted_name(module)
    package = here if module.name == "__init__.py" else here.rpartition(".")[0]
    for node in ast.walk(ast.parse((PACKAGE / module).read_text())):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join((*package.split(".")[: len(package.split(".")) - node.level + 1], base)).rstrip(".")
            # `from package import name` imports the module `package.name` where there is one
            found = [f"{base}.{alias.name}" if exists(f"{base}.{alias.name}") else base for alias in node.names]
        else:
            continue
        yield from (name for name in found if name.split(".")[0] == "streamfuse")


def test_every_part_has_a_place() -> None:
    assert {part_of(dotted_name(module)) for module in MODULES} <= LAYER.keys()


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_a_module_imports_no_later_layer(module: Path) -> None:
    own = LAYER.get(part_of(dotted_name(module)), len(LAYERS))
    assert [name for name in imports_of(module) if LAYER.get(part_of(name), own) > own] == []


def test_no_two_parts_import_each_other() -> None:
    graph: dict[str, set[str]] = {}
    for module in MODULES:
        part = part_of(dotted_name(module))
        graph.setdefault(part, set()).update(other for other in map(part_of, imports_of(module)) if other != part)
    TopologicalSorter(graph).prepare()  # raises CycleError with the cycle


def test_the_synchronizer_imports_nothing_but_types_and_the_ledger() -> None:
    modules = [module for module in MODULES if module.parts[0] == "sync"]
    assert {part_of(name) for module in modules for name in imports_of(module)} <= {"sync", "types", "ledger"}


def loaded_by(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after this code."""
    ending = "\nfinally:\n    import sys\n    print('loaded:', *{name.split('.')[0] for name in sys.modules})"
    program = "try:\n    " + code.replace("\n", "\n    ") + ending
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    return set(ran.stdout.rpartition("loaded:")[2].split())


def test_the_synchronizer_alone_needs_the_standard_library_only() -> None:
    assert loaded_by("from streamfuse import Synchronizer") & HEAVY == set()


def test_help_loads_nothing_heavy() -> None:
    code = "import sys; sys.argv = ['streamfuse', '--help']\nfrom streamfuse.cli import main; main()"
    assert loaded_by(code) & HEAVY == set()
