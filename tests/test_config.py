"""The config: examples load, every mistake is told at once with its fix, secrets stay hidden."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from streamfuse.config import Config, KafkaSourceSettings, parse_duration
from streamfuse.errors import ConfigError
from streamfuse.loading import config_schema, load_config, parse_config

EXAMPLES = sorted((Path(__file__).parents[1] / "config").glob("*.yaml"))
SMALL = """
sources: [{type: simulator, truth: false}]
"""


def problems(text: str, **environ: str) -> dict[str, str]:
    with pytest.raises(ConfigError) as found:
        parse_config(text, environ)
    return {problem.path: problem.message for problem in found.value.problems}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_loads(path: Path) -> None:
    assert load_config(path, {}).sources


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_fits_the_schema(path: Path) -> None:
    jsonschema.validate(yaml.safe_load(path.read_text()), config_schema())


def test_there_are_examples() -> None:
    assert {path.name for path in EXAMPLES} >= {"demo.yaml", "kafka.yaml", "devices.yaml"}


def test_five_mistakes_are_told_at_once() -> None:
    found = problems(
        """
        sources:
          - {type: kafak, topics: {video: video}}
          - {type: media, pth: clip.mp4, path: clip.mp4, pace: quick}
        sync: {max_hold: 500, widows: {type: tumbling, size: 1s}}
        """
    )
    assert set(found) == {"sources.0.type", "sources.1.pth", "sources.1.pace", "sync.max_hold", "sync.widows"}
    assert "did you mean `kafka`?" in found["sources.0.type"]
    assert "did you mean `path`?" in found["sources.1.pth"]
    assert "'quick'" in found["sources.1.pace"]
    assert "such as 500ms" in found["sync.max_hold"]
    assert "did you mean `windows`?" in found["sync.widows"]


def test_dead_letters_that_the_daemon_itself_would_read_are_refused() -> None:
    found = problems(
        """
        sources: [{type: kafka, topics: {text: text}}]
        sync: {streams: {text: {}}}
        dead_letters: {type: kafka, topic: text}
        """
    )
    assert found == {"dead_letters.topic": "expected a topic of its own, found text, which sources.0 reads"}


@pytest.mark.parametrize("source", ["kafka", "topics"])
def test_formats_that_cannot_hold_are_told(source: str) -> None:
    found = problems(
        f"""
        sources:
          - type: {source}
            topics: {{a: a, b: b, c: c, d: d}}
            formats:
              a: {{media_type: audio/pcm, samplerate: 16000}}
              b: {{media_type: audio/l16, samplerate: 16000, channels: 1, encoding: s16le}}
              c: {{channels: 2}}
              d: {{duration: 2s}}
              e: {{media_type: image/jpeg}}
        sync: {{streams: {{a: {{}}, b: {{}}, c: {{}}, d: {{}}}}}}
        """
    )
    assert found == {
        "sources.0.formats.a": "audio/pcm does not tell its rate by itself; set samplerate and channels",
        "sources.0.formats.b.encoding": "audio/l16 is s16be, found s16le; set media_type: audio/pcm",
        "sources.0.formats.c.media_type": "is needed where sound is described; set audio/pcm, audio/flac or audio/ogg",
        "sources.0.formats.e": "expected a stream of sources.0.topics, found `e`; they are a, b, c, d",
    }


def test_a_format_of_no_media_type_is_told() -> None:
    found = problems(
        "{sources: [{type: topics, topics: {a: a}, formats: {a: {media_type: JPEG, duration: 2h}}}], sync: {streams: {a: {}}}}"
    )
    assert set(found) == {"sources.0.formats.a.media_type", "sources.0.formats.a.duration"}


def test_a_stream_without_a_policy_is_told_with_the_nearest_name() -> None:
    found = problems("{sources: [{type: jsonl, path: a, stream: txt}], sync: {streams: {text: {}}}}")
    assert "did you mean `text`" in found["sources.0"]
    assert "no source gives this stream" in found["sync.streams.text"]


def test_a_primary_that_is_no_stream_is_told() -> None:
    found = problems(SMALL + "sync: {windows: {type: anchored, primary: camera, tolerance: 20ms}}")
    assert found == {"sync.windows.primary": "expected a required stream of sync.streams, found 'camera'"}


def test_a_key_that_stands_twice_is_refused() -> None:
    assert "stands twice" in problems("sources: []\nsources: []")[""]


def test_an_instant_stays_as_it_is_written() -> None:
    text = "{sources: [{type: kafka, topics: {text: a}, start: 2026-05-01T12:00:00.000000001Z}], sync: {streams: {text: {}}}}"
    (source,) = parse_config(text, {}).sources
    assert isinstance(source, KafkaSourceSettings)
    assert source.start == "2026-05-01T12:00:00.000000001Z"
    (source,) = parse_config(text, {"STREAMFUSE_SOURCES__0__START": "2026-05-02T12:00:00Z"}).sources
    assert isinstance(source, KafkaSourceSettings)
    assert source.start == "2026-05-02T12:00:00Z"


def test_what_is_not_yaml_is_told_with_its_place() -> None:
    assert "line 1" in problems("sources: [")[""]


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can't be read"):
        load_config(tmp_path / "none.yaml", {})


def test_the_environment_overrides() -> None:
    config = parse_config(SMALL, {"STREAMFUSE_SYNC__MAX_HOLD": "2s", "STREAMFUSE_SOURCES__0__SEED": "9", "HOME": "/"})
    assert config.sync.max_hold == 2_000_000_000
    assert config.sources[0].model_dump()["seed"] == 9


def test_an_unknown_variable_is_refused_with_the_nearest_section() -> None:
    assert "did you mean STREAMFUSE_SYNC" in problems(SMALL, STREAMFUSE_SNYC__MAX_HOLD="2s")["STREAMFUSE_SNYC__MAX_HOLD"]


def test_a_variable_that_leads_nowhere_is_refused() -> None:
    assert "needs an index" in problems(SMALL, STREAMFUSE_SOURCES__5__SEED="1")["STREAMFUSE_SOURCES__5__SEED"]


def test_an_unknown_setting_in_a_variable_is_refused() -> None:
    assert "did you mean `max_hold`" in problems(SMALL, STREAMFUSE_SYNC__MAX_HOLDS="1s")["sync.max_holds"]


def test_a_password_never_shows() -> None:
    secret = "hunter2-hunter2"
    text = "{sources: [{type: kafka, topics: {video: v}, password: PASSWORD}], sync: {streams: {video: {}}}}"
    config = parse_config(text, {"STREAMFUSE_SOURCES__0__PASSWORD": secret})
    source = config.sources[0]
    assert isinstance(source, KafkaSourceSettings)
    assert source.password is not None
    assert source.password.get_secret_value() == secret
    assert secret not in repr(config) + str(config) + config.model_dump_json()
    found = problems(text.replace("password: PASSWORD", "password: {a: hunter2-hunter2}"))
    assert secret not in str(found)


@pytest.mark.parametrize("password", ["12345", "#hush", "yes", "a: b", "[", " spaces ", "null"])
def test_the_environment_gives_a_password_as_it_is(password: str) -> None:
    text = "{sources: [{type: kafka, topics: {video: v}}], sync: {streams: {video: {}}}}"
    source = parse_config(text, {"STREAMFUSE_SOURCES__0__PASSWORD": password, "STREAMFUSE_SOURCES__0__USERNAME": "007"}).sources[0]
    assert isinstance(source, KafkaSourceSettings)
    assert source.password is not None
    assert (source.username, source.password.get_secret_value()) == ("007", password)


@pytest.mark.parametrize("password", ['"hunter2', "[hunter2", "hunter2: x", "*hunter2", "!hunter2", "!!int hunter2", "hunter2\x07"])
def test_a_password_that_is_no_yaml_is_told_without_it(password: str) -> None:
    found = problems(f"sources:\n  - password: {password}\n")[""]
    assert "expected YAML, found" in found
    assert "hunter2" not in found


def test_a_password_that_yaml_takes_for_a_number_is_told_what_to_do() -> None:
    text = "{sources: [{type: kafka, topics: {video: v}, password: 4711}], sync: {streams: {video: {}}}}"
    assert problems(text)["sources.0.password"] == "expected text, found a number; put it in quotes"


def test_the_tree_is_frozen() -> None:
    config = parse_config(SMALL, {})
    with pytest.raises(ValueError, match="frozen"):
        config.sync.max_hold = 1  # type: ignore[misc]


def test_the_schema_is_json() -> None:
    schema = json.loads(json.dumps(config_schema()))
    jsonschema.Draft202012Validator.check_schema(schema)
    assert set(schema["properties"]) == set(Config.model_fields)


@pytest.mark.parametrize(("text", "ns"), [("500ms", 500_000_000), ("2s", 2_000_000_000), ("1.5 m", 90_000_000_000), (0, 0)])
def test_durations_are_written_with_their_unit(text: object, ns: int) -> None:
    assert parse_duration(text) == ns


@pytest.mark.parametrize("text", ["500", 500, "2 parsecs", "-1s", None, True])
def test_what_is_no_duration_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="expected a duration with its unit"):
        parse_duration(text)
