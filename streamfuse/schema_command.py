"""`streamfuse schema`: prints the published schemas, and the AsyncAPI document of a config."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from streamfuse.asyncapi import EXAMPLE, document
from streamfuse.config import Config
from streamfuse.documents import prediction_schema
from streamfuse.header_schemas import packet_headers
from streamfuse.loading import config_schema, load_config


def _manifest_schema() -> dict[str, Any]:
    from streamfuse.training.data.table import manifest_schema  # imports torch

    return manifest_schema()


SCHEMAS: Mapping[str, Callable[[], dict[str, Any]]] = {
    "prediction": prediction_schema,
    "packet": packet_headers,
    "config": config_schema,
    "manifest": _manifest_schema,
}


def print_schema(what: str, config: Path | None, form: str | None) -> int:
    """JSON unless asked otherwise; AsyncAPI as YAML. Raises ConfigError where the config is wrong."""
    if what == "asyncapi":
        settings = Config.model_validate(EXAMPLE) if config is None else load_config(config, os.environ)
        print(render(document(settings), form or "yaml"), end="")
    else:
        print(render(SCHEMAS[what](), form or "json"), end="")
    return 0


def render(tree: Mapping[str, Any], form: str) -> str:
    """As text with a line end."""
    if form == "json":
        return json.dumps(tree, indent=2, ensure_ascii=False) + "\n"
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as such, and what stands twice twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)
