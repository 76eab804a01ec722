"""The settings tree: a YAML file and the environment in, one frozen value out, every mistake reported at once with its path.

One section per package of the code. `type:` picks the class. Durations are written as `500ms`, `2s`, `1m` and are ns inside.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    SecretStr,
    WithJsonSchema,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

_UNITS = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000, "m": 60_000_000_000, "h": 3_600_000_000_000, "d": 86_400_000_000_000}
_DURATION = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(ns|us|ms|s|m|h|d)\s*$")


def parse_duration(value: object) -> int:
    """`500ms` -> 500_000_000. Raises ValueError with the accepted form for anything else, bare numbers included."""
    if isinstance(value, str) and (found := _DURATION.match(value)):
        return round(float(found[1]) * _UNITS[found[2]])
    if value == 0 and not isinstance(value, bool):
        return 0
    raise ValueError(f"expected a duration with its unit, such as 500ms, 2s or 1m, found {value!r}")


Duration = Annotated[
    int,
    BeforeValidator(parse_duration),
    WithJsonSchema({"type": "string", "pattern": _DURATION.pattern, "examples": ["500ms", "2s"]}),
]


class Settings(BaseModel):
    """A frozen part of the tree. Unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


# --- sources -----------------------------------------------------------------------------------------------------------------------

Pace = Literal["realtime", "full"]
WhenFull = Literal["block", "drop_oldest"]


class FormatSettings(Settings):
    """What the records of a stream are, where their headers don't say: for producers that know nothing of CloudEvents."""

    media_type: str | None = Field(None, pattern=r"^[a-z0-9][a-z0-9!#$&^_.+-]*/[a-z0-9][a-z0-9!#$&^_.+-]*$")
    """Such as `image/jpeg`, `audio/pcm`, `text/plain`; guessed from the first bytes where not given. What follows holds for it alone."""
    samplerate: int | None = Field(None, ge=1, le=1_000_000)
    """Of sound, in Hz."""
    channels: int | None = Field(None, ge=1, le=64)
    encoding: Literal["s16le", "s16be", "f32le"] | None = None
    """Of PCM; `s16le` where not given."""
    duration: Duration | None = Field(None, le=parse_duration("1h"))
    """What a record covers from its event time on. PCM, FLAC and Opus say it themselves: a text or a picture is an instant without it."""


class KafkaConnection(Settings):
    bootstrap: str = "localhost:9092"
    """Brokers, `host:port`, comma separated."""
    security: Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"] = "plaintext"
    """`ssl` and `sasl_ssl` are TLS 1.2 or newer, with the broker's certificate and host name verified; `sasl_...` log in by password."""
    ca_file: Path | None = None
    """The certificates of the authorities that sign the brokers' (PEM); those that this system trusts where not given."""
    certificate_file: Path | None = None
    """Our own certificate (PEM), for brokers that ask for one."""
    key_file: Path | None = None
    """The key of that certificate (PEM)."""
    key_password: SecretStr | None = None
    """Of a key that has one. Better given by the environment or by `key_password_file`."""
    key_password_file: Path | None = None
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    username: str | None = None
    password: SecretStr | None = None
    """Better given as STREAMFUSE_SOURCES__0__PASSWORD or by `password_file`."""
    password_file: Path | None = None
    connect_timeout: Duration = parse_duration("10s")
    transport: Literal["kafka-python", "confluent"] = "kafka-python"
    """The client library; `confluent` needs `pip install 'streamfuse[fast]'`."""


class KafkaSourceSettings(KafkaConnection):
    type: Literal["kafka"]
    topics: dict[str, str]
    """Stream -> topic. All topics need the same number of partitions."""
    formats: dict[str, FormatSettings] = {}
    """Stream -> what its records are, where their headers don't say."""
    group: str = "streamfuse"
    instance: str | None = Field(None, pattern=r"^[A-Za-z0-9._-]{1,249}$")
    """A name that this replica alone has, and keeps over restarts: it gets its partitions back without a rebalance, if it is back within
    `session_timeout`."""
    session_timeout: Duration = parse_duration("10s")
    """After a crash, the partitions stay with the dead for this long."""
    start: Literal["earliest", "latest"] | str = "latest"
    """Where a partition begins for which the group has committed nothing: `earliest`, `latest` or the first record of an instant on
    (RFC 3339, by the records' timestamps)."""
    buffer_bytes: int = Field(64 * 1024 * 1024, gt=0)
    """Fetched but not yet processed; a partition with more than its share of it is paused."""
    patience: Duration = parse_duration("10s")
    """For how long a partition that has more, but brings none, may hold back those that are ahead of it in event time."""
    watermarks_topic: str | None = None
    """Where the watermarks stand of keys too many for Kafka's commit metadata, `<group>-watermarks` where not given. It is created,
    compacted, when it is needed."""
    max_record_bytes: int = Field(16 * 1024 * 1024, gt=0)
    """Greater records are refused before they are decoded."""


class MediaSourceSettings(Settings):
    type: Literal["media"]
    path: str | list[str]
    """A file, several files, or a URL that FFmpeg opens (`rtsp://...`, `http://...`). Several files are several keys, at the same time."""
    key: str | None = None
    """The key of its packets; the file's stem where not given."""
    format: str | None = None
    """FFmpeg's input format, where the path does not tell it (`v4l2` for /dev/video0)."""
    streams: dict[str, str] = {"video": "video:0", "audio": "audio:0", "text": "subtitle:0"}
    """Stream -> track, as `video:N`, `audio:N` or `subtitle:N`. A track that the file lacks is an absent stream, not an error."""
    pace: Pace = "realtime"
    start: Literal["now", "file"] | str = "now"
    """Event time of the file's first instant: `now`, `file` (its own timestamps, from 1970 on) or an ISO 8601 instant."""
    loop: bool = False
    audio_rate: int = Field(16_000, gt=0)
    audio_chunk: Duration = parse_duration("40ms")
    max_width: int = Field(640, gt=0)
    """Wider frames are scaled down while they are decoded."""
    when_full: WhenFull = "block"
    state: Path | None = None
    """Where to keep the cursor, so that the next run goes on where this one stopped."""


class JsonlSourceSettings(Settings):
    type: Literal["jsonl"]
    path: str
    """A file, or `-` for standard input. An object a line: `text`, `event_time` (ISO 8601 or ns), optional `key`, `stream`, `duration`,
    `id`."""
    stream: str = "text"
    """The stream of lines that name none."""
    streams: list[str] = []
    """Further streams that a line may name."""
    key: str = "default"
    """The key of lines that name none."""
    max_line_bytes: int = Field(1024 * 1024, gt=0)
    """Longer lines are passed over without being held in memory."""
    follow: bool = False
    """Wait for new lines at the end of the file."""
    state: Path | None = None


class TopicsSourceSettings(Settings):
    type: Literal["topics"]
    topics: dict[str, str] = {"video": "video", "audio": "audio", "text": "text"}
    """Stream -> in-process topic."""
    formats: dict[str, FormatSettings] = {}
    """Stream -> what its records are, where their headers don't say."""
    max_record_bytes: int = Field(16 * 1024 * 1024, gt=0)


class Faults(Settings):
    """What the simulator breaks on the way. Delays are log-normal with this median and sigma."""

    delay: dict[str, Duration] = {"video": parse_duration("60ms"), "audio": parse_duration("25ms"), "text": parse_duration("120ms")}
    delay_sigma: float = Field(0.35, ge=0)
    drop: float = Field(0.0, ge=0, le=1)
    duplicate: float = Field(0.0, ge=0, le=1)
    reorder: float = Field(0.0, ge=0, le=1)
    corrupt: float = Field(0.0, ge=0, le=1)
    very_late: float = Field(0.0, ge=0, le=1)
    """Share of records that come a further 0.5-2 s late."""
    drift_ppm: dict[str, float] = {}
    """Stream -> clock drift."""
    step: dict[str, list[tuple[Duration, float]]] = {}
    """Stream -> clock steps, as [at, seconds]."""
    silent: dict[str, list[tuple[Duration, Duration]]] = {}
    """Stream -> stretches without any packet, as [from, to]."""
    burst: Duration = 0
    """Records are held back and released together, this often."""


class SimulatorSourceSettings(Settings):
    type: Literal["simulator"]
    rooms: int = Field(1, gt=0, le=1000)
    seed: int = 7
    seconds: float | None = Field(None, gt=0)
    """How long it lasts; for ever where not given."""
    pace: Pace = "realtime"
    start: Literal["now", "file"] | str = "now"
    width: int = Field(320, ge=64)
    height: int = Field(240, ge=64)
    fps: float = Field(15.0, gt=0)
    audio_rate: int = Field(16_000, gt=0)
    audio_chunk: Duration = parse_duration("40ms")
    espeak: bool = True
    """Speak with espeak-ng where it is installed; a formant synthesizer of our own otherwise."""
    truth: bool = True
    """Also yield the stream `truth`: the label of each stretch, as text packets."""
    faults: Faults = Faults()
    when_full: WhenFull = "block"


SourceSettings = Annotated[
    KafkaSourceSettings | MediaSourceSettings | JsonlSourceSettings | TopicsSourceSettings | SimulatorSourceSettings,
    Field(discriminator="type"),
]


# --- sync --------------------------------------------------------------------------------------------------------------------------


class TumblingSettings(Settings):
    type: Literal["tumbling"]
    size: Duration = Field(gt=0)
    offset: Duration = 0


class SlidingSettings(Settings):
    type: Literal["sliding"]
    size: Duration = Field(gt=0)
    hop: Duration = Field(gt=0)
    offset: Duration = 0


class SessionSettings(Settings):
    type: Literal["session"]
    gap: Duration = Field(gt=0)
    max_size: Duration | None = Field(None, gt=0)
    """A longer session is cut here, so that one that never pauses can't grow for ever."""


class AnchoredSettings(Settings):
    type: Literal["anchored"]
    primary: str
    """One window per packet of this stream."""
    tolerance: Duration = Field(gt=0)
    take: Literal["nearest", "all"] = "nearest"


WindowSettings = Annotated[TumblingSettings | SlidingSettings | SessionSettings | AnchoredSettings, Field(discriminator="type")]


class StreamSettings(Settings):
    required: bool = True
    """Windows wait for a required stream (until it is idle or the hold ends); an optional one joins if it is there in time."""
    max_out_of_orderness: Duration = parse_duration("100ms")
    idle_timeout: Duration | None = parse_duration("2s")
    lag: Duration = 0
    """A constant by which this stream's event times are too late; it is taken off."""


class ClockSettings(Settings):
    step: Duration = Field(parse_duration("1s"), gt=0)
    """A greater change of (arrival time - event time) that lasts is a step of the producer's clock."""
    confirm: Duration = Field(parse_duration("500ms"), gt=0)
    """How long it must last."""
    max_error: Duration = Field(parse_duration("1d"), gt=0)
    """An event time further than this from the arrival time is not believed: the packet is quarantined."""
    policy: Literal["reanchor", "quarantine", "trust"] = "reanchor"


class SyncSettings(Settings):
    windows: WindowSettings = SlidingSettings(type="sliding", size="1s", hop="500ms")
    streams: dict[str, StreamSettings] = {"video": StreamSettings(), "audio": StreamSettings(), "text": StreamSettings(required=False)}
    max_hold: Duration | None = parse_duration("500ms")
    """How long a window may wait for input after its end."""
    allowed_lateness: Duration = 0
    """How long a closed window may still be revised."""
    forget_after: Duration = parse_duration("1h")
    """A key that was silent for this long is forgotten."""
    clock: ClockSettings = ClockSettings()


# --- models, sinks, web, pipeline --------------------------------------------------------------------------------------------------


class ModelSettings(Settings):
    bundle: str = "who-is-talking"
    """A folder with a bundle, or the name of one that comes with the package."""
    engine: Literal["torch", "onnx"] = "torch"
    """`onnx` computes on the CPU with ONNX Runtime, mostly faster: `pip install 'streamfuse[onnx]'`, then `streamfuse export`."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    compile: bool = False
    """On CUDA: compile the model, and capture it as a CUDA graph for each size of batch (1, 2, 4, ...). Faster for small models, but the
    first batch of each size waits for it."""
    max_batch: int = Field(32, gt=0)
    decode_threads: int = Field(2, gt=0)
    cpu_threads: int = Field(1, gt=0)
    """Threads of one forward pass on the CPU. A small model loses more by waiting for them than it gains."""
    recompute: bool = False
    """Encode every window anew rather than share the tokens of frames, chunks and texts that stand in several. For comparison."""
    embedding_bytes: int = Field(64 * 1024 * 1024, gt=0)
    """For the tokens that are kept of a stream, on the device; the least recently used go first."""
    explain: bool = True
    """Tell what each stream contributes to a prediction. It takes one fusion for every subset of the streams."""
    truth: str | None = None
    """A text stream that carries the true label: it is not shown to the model and stands in each prediction."""
    publish_texts: bool = False
    """Put the words of the text streams into the predictions."""
    max_pixels: int = Field(50_000_000, gt=0)
    """Greater images are refused before they are decoded."""


class JsonlSinkSettings(Settings):
    type: Literal["jsonl"]
    path: str = "-"
    """A file (appended to), or `-` for standard output."""


class TopicsSinkSettings(Settings):
    type: Literal["topics"]
    topic: str = "predictions"


class KafkaSinkSettings(KafkaConnection):
    type: Literal["kafka"]
    topic: str = "predictions"


SinkSettings = Annotated[JsonlSinkSettings | TopicsSinkSettings | KafkaSinkSettings, Field(discriminator="type")]


# --- dead letters ------------------------------------------------------------------------------------------------------------------------


class DeadLetterLimit(Settings):
    """Which share of the records may be of no use before the daemon stops, so that it does not drain a topic into the dead letters."""

    max_share: float = Field(0.05, gt=0, le=1)
    """Of the records received from topics. 1 switches the limit off. It holds with `type: none` too."""
    over: Duration = Field(parse_duration("1m"), gt=0)
    """The time that is looked back on."""
    min_records: int = Field(100, gt=0)
    """With fewer records than this in that time, nothing can be said of their share."""


class KafkaDeadLetterSettings(KafkaConnection, DeadLetterLimit):
    type: Literal["kafka"]
    topic: str = "dead-letters"
    """Needs a greater max.message.bytes than the topics that are read: a letter is its record with some 500 bytes more."""


class JsonlDeadLetterSettings(DeadLetterLimit):
    type: Literal["jsonl"]
    path: str = "dead-letters.jsonl"
    """A file (appended to); each letter is a line of JSON, its key, value and headers in base64."""


class NoDeadLetterSettings(DeadLetterLimit):
    type: Literal["none"] = "none"


DeadLetterSettings = Annotated[KafkaDeadLetterSettings | JsonlDeadLetterSettings | NoDeadLetterSettings, Field(discriminator="type")]


# --- topics ------------------------------------------------------------------------------------------------------------------------------


class TopicsSettings(Settings):
    """What to do about Kafka topics that are missing. `topics: create` is short for `topics: {at_start: create}`."""

    at_start: Literal["wait", "create"] = "wait"
    """`wait`: not ready until somebody has created them. `create`: the daemon does, with equal numbers of partitions; it changes none that
    are there."""
    partitions: int | None = Field(None, gt=0)
    """Of topics that are created: as many as those have that they must equal, or the brokers' default, where not given."""
    replication: int | None = Field(None, gt=0)
    """The brokers' default where not given."""
    retention: Duration | None = Field(None, gt=0)
    """For how long the topics that are created keep their records; the brokers' default where not given."""

    @model_validator(mode="before")
    @classmethod
    def _spell_out(cls, given: object) -> object:
        return {"at_start": given} if isinstance(given, str) else given

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        spelled_out = handler.resolve_ref_schema(handler(core))
        return {"anyOf": [{"enum": ["wait", "create"]}, spelled_out]}


# --- web, pipeline, logs -----------------------------------------------------------------------------------------------------------------


class WebSettings(Settings):
    enabled: bool = True
    host: str = "127.0.0.1"
    port: int = Field(9464, ge=0, le=65535)
    """0 picks a free one."""


class PipelineSettings(Settings):
    queue: int = Field(64, gt=0)
    """Bound of each channel between two stages."""
    delivery: Literal["at_least_once", "exactly_once"] = "at_least_once"
    """`at_least_once`: a crash repeats the predictions since the last commit, with the same identities. `exactly_once`: predictions and
    offsets in one transaction a `commit_interval`; for one Kafka source and Kafka sinks at the same brokers, to readers of committed
    records (`isolation.level=read_committed`)."""
    commit_interval: Duration | None = None
    """1s where not given; 100ms with `exactly_once`, as predictions wait for it."""
    transaction_timeout: Duration = parse_duration("30s")
    """With `exactly_once`: after so long the broker gives up on a transaction whose replica has died; readers wait for it until then."""
    drain_timeout: Duration = parse_duration("10s")

    @property
    def interval(self) -> int:
        """ns between two commits."""
        if self.commit_interval is not None:
            return self.commit_interval
        return parse_duration("100ms" if self.delivery == "exactly_once" else "1s")


class LogSettings(Settings):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "text"] = "auto"
    """`auto`: text on a terminal, JSON elsewhere."""


class Config(Settings):
    """The whole tree."""

    sources: list[SourceSettings] = Field(min_length=1)
    feed: list[SourceSettings] = []
    """Sources whose packets are published to the in-process topics first, for demos and tests."""
    sync: SyncSettings = SyncSettings()
    models: ModelSettings = ModelSettings()
    sinks: list[SinkSettings] = Field([JsonlSinkSettings(type="jsonl")], min_length=1)
    losses: JsonlSinkSettings | None = None
    """Where late, duplicate, quarantined, undecodable and shed records are told, one JSON object a line."""
    dead_letters: DeadLetterSettings = NoDeadLetterSettings()
    """Where quarantined and undecodable records of topics are kept as they were, with the reason."""
    topics: TopicsSettings = TopicsSettings()
    web: WebSettings = WebSettings()
    pipeline: PipelineSettings = PipelineSettings()
    log: LogSettings = LogSettings()
