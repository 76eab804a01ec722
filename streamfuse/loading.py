"""Reads the config: YAML and environment in, a `Config` out, or every mistake at once with its path and its fix."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from streamfuse.config import Config, DeadLetterSettings, NoDeadLetterSettings, Settings, SinkSettings, SourceSettings
from streamfuse.errors import ConfigError, Problem

S = TypeVar("S", bound=Settings)

PREFIX = "STREAMFUSE_"
FOR_TESTS = {"STREAMFUSE_KAFKA_HOME", "STREAMFUSE_DATA", "STREAMFUSE_BENCH"}
"""Variables of the test suite and the training scripts; they are no settings."""
LITERAL = {"username", "password", "key_password"}
"""Settings that the environment gives as they are: a password may look like a number, a list or a comment to YAML."""


def load_config(path: Path, environ: Mapping[str, str]) -> Config:
    """The config of a file, with overrides from the environment. Raises ConfigError with every problem that was found."""
    return parse_config(_read(path), environ)


def parse_config(text: str, environ: Mapping[str, str]) -> Config:
    """The same for YAML text."""
    tree = _tree(text)
    problems = list(_override(tree, environ))
    try:
        config = Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError([*problems, *problems_of(error)]) from None
    problems += _contradictions(config)
    if problems:
        raise ConfigError(problems)
    return config


def load_sinks(path: Path | None, environ: Mapping[str, str]) -> Sequence[SinkSettings]:
    """The sinks alone, for who reads what a daemon publishes; the rest of the file may be missing.

    Without a file, the Kafka sink that the environment describes. Raises ConfigError with every problem that was found.
    """
    tree = {"sinks": [{"type": "kafka"}]} if path is None else _tree(_read(path))
    problems = list(_override(tree, environ))
    try:
        sinks = _Sinks.model_validate({"sinks": tree.get("sinks", [])}).sinks
    except ValidationError as error:
        raise ConfigError([*problems, *problems_of(error, _Sinks)]) from None
    if problems:
        raise ConfigError(problems)
    return sinks


def load_dead_letters(path: Path | None, environ: Mapping[str, str]) -> tuple[DeadLetterSettings, Sequence[SourceSettings]]:
    """The dead letters alone, and the sources that they come from; the rest of the file may be missing.

    Without a file, the Kafka topic that the environment describes. Raises ConfigError with every problem that was found.
    """
    tree = {"dead_letters": {"type": "kafka"}} if path is None else _tree(_read(path))
    problems = list(_override(tree, environ))
    try:
        found = _DeadLetters.model_validate({name: tree[name] for name in _DeadLetters.model_fields if name in tree})
    except ValidationError as error:
        raise ConfigError([*problems, *problems_of(error, _DeadLetters)]) from None
    if problems:
        raise ConfigError(problems)
    return found.dead_letters, found.sources


def load_settings(path: Path, root: type[S], changes: Mapping[str, str]) -> S:
    """Settings of another class, from a YAML file of its own, with `changes` such as `training.epochs` -> `3`.

    Raises ConfigError with every problem that was found.
    """
    tree = _tree(_read(path), root)
    problems = []
    for where, text in changes.items():
        value: object = text
        with suppress(yaml.YAMLError, ValueError):
            value = yaml.load(text, _Loader)  # noqa: S506  # a SafeLoader
        if not _put(tree, where.split("."), value):
            problems.append(Problem(where, "leads to no place in the file; correct it"))
    try:
        found = root.model_validate(tree)
    except ValidationError as error:
        raise ConfigError([*problems, *problems_of(error, root)]) from None
    if problems:
        raise ConfigError(problems)
    return found


def config_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of the config, for editors."""
    schema = Config.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "StreamFuse config", **schema}


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError([Problem(str(path), f"can't be read: {error.strerror}")]) from None
    except UnicodeDecodeError as error:
        raise ConfigError([Problem(str(path), f"expected UTF-8, found byte {error.object[error.start]:#x} at {error.start}")]) from None


def _tree(text: str, root: type[BaseModel] = Config) -> dict[str, Any]:
    try:
        tree = yaml.load(text, _Loader)  # noqa: S506  # a SafeLoader
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a tag such as !!int before what is none
        raise ConfigError([Problem("", f"expected YAML, found {_unlike_yaml(error)}")]) from None
    if not isinstance(tree, dict):
        first = next(name for name, field in root.model_fields.items() if field.is_required() and field.annotation is not str)
        raise ConfigError([Problem("", f"expected sections such as `{first}:`, found {_kind(tree)}")])
    return tree


def _unlike_yaml(error: yaml.YAMLError | ValueError) -> str:
    """Without the line itself, which YAML would quote: it may hold a password."""
    if not isinstance(error, yaml.MarkedYAMLError):
        return "a character or a value that YAML does not allow"
    mark = error.problem_mark or error.context_mark
    where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    if isinstance(error, _Twice):
        return f"{error.problem}, which stands twice{where}; remove one"
    if isinstance(error, yaml.composer.ComposerError | yaml.constructor.ConstructorError):
        return f"an alias (*) or a tag (!) that is none{where}; put the text in quotes"
    return " ".join(part for part in (error.context, error.problem) if part) + where


class _Twice(yaml.constructor.ConstructorError):
    """A key stands twice."""


class _Sinks(Settings):
    sinks: list[SinkSettings]


class _DeadLetters(Settings):
    dead_letters: DeadLetterSettings = NoDeadLetterSettings()
    sources: Sequence[SourceSettings] = ()


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice: YAML's own rule is that the last one wins, silently. Leaves instants as they are written, in ns."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def _mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen = set()
    for key, _ in node.value:
        name = loader.construct_object(key)
        if name in seen:
            raise _Twice(None, None, f"the key {name!r}", key.start_mark)
        seen.add(name)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


# --- environment -------------------------------------------------------------------------------------------------------------------------


def _override(tree: dict[str, Any], environ: Mapping[str, str]) -> Iterator[Problem]:
    """STREAMFUSE_SYNC__MAX_HOLD=1s sets sync.max_hold; a number is a place in a list."""
    for variable in sorted(environ):
        if not variable.startswith(PREFIX) or variable in FOR_TESTS:
            continue
        path = variable.removeprefix(PREFIX).lower().split("__")
        if path[0] not in Config.model_fields:
            near = difflib.get_close_matches(path[0], Config.model_fields, 1)
            advice = f"did you mean {PREFIX}{near[0].upper()}...?" if near else f"sections are {', '.join(Config.model_fields)}"
            yield Problem(variable, f"is no setting; {advice} Unset it, or correct it")
            continue
        value: object = environ[variable]
        if path[-1] not in LITERAL:
            with suppress(yaml.YAMLError, ValueError):
                value = yaml.load(environ[variable], _Loader)  # noqa: S506  # a SafeLoader
        if not _put(tree, path, value):
            yield Problem(
                variable, "leads to no place in the config: a list needs an index that exists, as in STREAMFUSE_SOURCES__0__GROUP"
            )


def _put(tree: Any, path: Sequence[str], value: object) -> bool:
    *way, last = path
    for name in way:
        if isinstance(tree, dict):
            tree = tree.setdefault(_spelled(tree, name), {})
        elif isinstance(tree, list) and name.isdigit() and int(name) < len(tree):
            tree = tree[int(name)]
        else:
            return False
    if isinstance(tree, dict):
        tree[_spelled(tree, last)] = value
    elif isinstance(tree, list) and last.isdigit() and int(last) < len(tree):
        tree[int(last)] = value
    else:
        return False
    return True


def _spelled(tree: Mapping[Any, Any], name: str) -> str:
    """The key as it is written in the file: the environment knows capitals only."""
    return next((str(key) for key in tree if str(key).lower() == name), name)


# --- what pydantic found, as sentences ---------------------------------------------------------------------------------------------------


def problems_of(error: ValidationError, root: type[BaseModel] = Config) -> Iterator[Problem]:
    """What pydantic found wrong with settings of the class `root`, as sentences."""
    for found in error.errors(include_url=False):
        path, model = _follow(found["loc"], root)
        kind = found["type"]
        given = found["input"]
        if kind == "extra_forbidden":
            name = str(found["loc"][-1])
            near = difflib.get_close_matches(name, model or (), 1, cutoff=0.5)
            advice = f"did you mean `{near[0]}`?" if near else f"it has {', '.join(model or ())}"
            message = f"is no setting; {advice}"
        elif kind == "missing":
            message = "is needed, and missing"
        elif kind == "union_tag_invalid":
            tags = str(found.get("ctx", {}).get("expected_tags", ""))
            tag = str(found.get("ctx", {}).get("tag", ""))
            near = difflib.get_close_matches(tag, [t.strip("' ") for t in tags.split(",")], 1)
            path = f"{path}.type"
            message = f"expected one of {tags}, found {tag!r}" + (f"; did you mean `{near[0]}`?" if near else "")
        elif kind == "union_tag_not_found":
            path = f"{path}.type"
            message = "is needed: it picks the kind"
        elif kind == "value_error":
            message = str(found["msg"]).removeprefix("Value error, ")
        elif kind == "string_type" and isinstance(given, int | float) and _secret(path):
            message = "expected text, found a number; put it in quotes"
        else:
            shown = "" if _secret(path) or isinstance(given, dict | list) else f", found {given!r}"
            message = f"{_lower(str(found['msg']))}{shown}"
        yield Problem(path, message)


def _follow(where: tuple[int | str, ...], root: type[BaseModel]) -> tuple[str, list[str] | None]:
    """The path as it is written in the file (without pydantic's union tags), and the names that its parent knows."""
    path: list[str] = []
    kinds: list[Any] = [root]
    names: list[str] | None = None
    for step in where:
        models = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        tagged = [m for m in models if len(models) > 1 and _tag(m) == step]
        if tagged:
            kinds = [tagged[0]]
            continue
        path.append(str(step))
        names = sorted({name for model in models for name in model.model_fields}) if models else None
        inner: list[Any] = []
        for kind in kinds:
            if kind in models:
                field = kind.model_fields.get(step)
                inner += _alternatives(field.annotation) if field is not None else []
            else:
                inner += [a for argument in typing.get_args(kind)[-1:] for a in _alternatives(argument)]
        kinds = inner
    return ".".join(path), names


def _alternatives(annotation: Any) -> list[Any]:
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _alternatives(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return [a for argument in typing.get_args(annotation) for a in _alternatives(argument)]
    return [annotation]


def _tag(model: type[BaseModel]) -> str | None:
    field = model.model_fields.get("type")
    return typing.get_args(field.annotation)[0] if field is not None else None


def _secret(path: str) -> bool:
    return "password" in path or "token" in path


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _kind(value: object) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"


# --- settings that don't go together -----------------------------------------------------------------------------------------------------


def _contradictions(config: Config) -> Iterator[Problem]:
    known = config.sync.streams
    given: set[str] = set()
    for number, source in enumerate(config.sources):
        streams = streams_of(source)
        given |= streams
        for stream in sorted(streams - set(known)):
            near = difflib.get_close_matches(stream, known, 1)
            advice = f"did you mean `{near[0]}`, or" if near else "add"
            yield Problem(
                f"sources.{number}", f"gives the stream `{stream}`, which sync.streams does not have; {advice} sync.streams.{stream}?"
            )
        yield from _contradictory_formats(f"sources.{number}", source)
    for stream in sorted(set(known) - given):
        yield Problem(f"sync.streams.{stream}", "no source gives this stream; remove it, or add a source")
    if not any(policy.required for policy in known.values()):
        yield Problem("sync.streams", "at least one stream must be required: without one, no watermark ever closes a window")
    windows = config.sync.windows
    if windows.type == "anchored" and not (windows.primary in known and known[windows.primary].required):
        yield Problem("sync.windows.primary", f"expected a required stream of sync.streams, found {windows.primary!r}")
    if config.models.truth is not None and config.models.truth not in known:
        yield Problem("models.truth", f"expected a stream of sync.streams, found {config.models.truth!r}")
    if config.feed and not any(source.type == "topics" for source in config.sources):
        yield Problem("feed", "is published to in-process topics, but no source of type `topics` reads them")

    letters = config.dead_letters
    if letters.type == "kafka":
        for number, source in enumerate(config.sources):
            if source.type == "kafka" and source.bootstrap == letters.bootstrap and letters.topic in source.topics.values():
                yield Problem("dead_letters.topic", f"expected a topic of its own, found {letters.topic}, which sources.{number} reads")


def _contradictory_formats(path: str, source: Any) -> Iterator[Problem]:
    for stream, wanted in getattr(source, "formats", {}).items():
        where = f"{path}.formats.{stream}"
        if stream not in source.topics:
            yield Problem(where, f"expected a stream of {path}.topics, found `{stream}`; they are {', '.join(sorted(source.topics))}")
        elif wanted.media_type in ("audio/pcm", "audio/l16") and None in (wanted.samplerate, wanted.channels):
            yield Problem(where, f"{wanted.media_type} does not tell its rate by itself; set samplerate and channels")
        elif wanted.media_type == "audio/l16" and wanted.encoding not in (None, "s16be"):
            yield Problem(f"{where}.encoding", f"audio/l16 is s16be, found {wanted.encoding}; set media_type: audio/pcm")
        elif wanted.media_type is None and (wanted.samplerate or wanted.channels or wanted.encoding):
            yield Problem(f"{where}.media_type", "is needed where sound is described; set audio/pcm, audio/flac or audio/ogg")


def streams_of(source: Any) -> set[str]:
    """The streams that a source's settings promise."""
    if source.type in ("kafka", "topics"):
        return set(source.topics)
    if source.type == "media":
        return set(source.streams)
    if source.type == "jsonl":
        return {source.stream, *source.streams}
    return {"video", "audio", "text"} | ({"truth"} if source.truth else set())
