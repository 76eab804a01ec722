"""The command line. Heavy imports stand inside the commands, so that `--help` is there at once."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from streamfuse.errors import ConfigError, StreamFuseError

EXIT_CODES = """\
exit codes:
  0    done                                  5    a source can't be read
  1    an unexpected error                   6    a sink can't be written (disk full, topic refused)
  2    wrong use of the command line         7    stopping took longer than pipeline.drain_timeout
  3    the config or its topics are wrong    8    more dead letters than dead_letters.max_share
  4    the model bundle is not usable        9    a data set is not usable
  130, 143   ended at once by a second SIGINT, SIGTERM
"""

EXAMPLES = """\
start here:
  streamfuse demo                       watch a simulated room for 20 s
  streamfuse demo my.mp4                the same with a video file of yours
  streamfuse check config/kafka.yaml    say what is wrong with a config, all at once
  streamfuse run config/kafka.yaml      run the daemon
  streamfuse subscribe --bootstrap localhost:9092 --topic predictions
  streamfuse train config/recipes/toy.yaml    train a model of your own
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help()
        return 0
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except ConfigError as error:
        count = len(error.problems)
        print(f"{count} problem{'s' if count > 1 else ''} in the config:", file=sys.stderr)
        for problem in error.problems:
            print(f"  {problem}", file=sys.stderr)
        return error.exit_code
    except StreamFuseError as error:
        print(f"streamfuse: {error}", file=sys.stderr)
        return error.exit_code
    except BaseExceptionGroup as group:
        return _report_group(group)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `streamfuse subscribe | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _report_group(group: BaseExceptionGroup[BaseException]) -> int:
    """The parts of the daemon run side by side, so that their errors come as a group: tell ours, and let the unexpected be seen whole."""
    ours, rest = group.split(StreamFuseError)
    if rest is not None:
        raise group
    assert ours is not None
    leaves = _leaves(ours)
    for error in leaves:
        print(f"streamfuse: {error}", file=sys.stderr)
    return max(error.exit_code for error in leaves)


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[StreamFuseError]:
    found: list[StreamFuseError] = []
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            found += _leaves(error)
        elif isinstance(error, StreamFuseError):
            found.append(error)
    return found


# --- commands ----------------------------------------------------------------------------------------------------------------------------


def _demo(options: argparse.Namespace) -> int:
    from streamfuse.demo import demo

    return demo(options.clip, rooms=options.rooms, seed=options.seed, seconds=None if options.forever else options.seconds, out=options.out)


def _run(options: argparse.Namespace) -> int:
    from streamfuse.assembly import build
    from streamfuse.daemon import serve_forever
    from streamfuse.loading import load_config
    from streamfuse.logs import set_up_logs

    config = load_config(options.config, os.environ)
    set_up_logs(config.log.level, config.log.format)
    serve_forever(build(config))
    return 0


def _check(options: argparse.Namespace) -> int:
    from streamfuse.assembly import build
    from streamfuse.loading import load_config

    daemon = build(load_config(options.config, os.environ))
    print(f"{options.config} is fine: {len(daemon.sources)} sources, {len(daemon.sinks)} sinks, {len(daemon.config.sync.streams)} streams")
    return 0


def _schema(options: argparse.Namespace) -> int:
    from streamfuse.schema_command import print_schema

    if options.config is not None and options.what != "asyncapi":
        print(f"streamfuse schema: {options.what} is the same for every config; leave {options.config} out", file=sys.stderr)
        return 2
    return print_schema(options.what, options.config, options.format)


def _topics_check(options: argparse.Namespace) -> int:
    from streamfuse.topics_command import check

    return check(options.config)


def _topics_create(options: argparse.Namespace) -> int:
    from streamfuse.topics_command import create

    return create(options.config, options.partitions, options.replication, options.retention, options.dry_run)


def _sim(options: argparse.Namespace) -> int:
    from streamfuse.simulate import simulate

    return simulate(options)


def _subscribe(options: argparse.Namespace) -> int:
    from streamfuse.tail import tail

    return tail(options)


def _dlq_show(options: argparse.Namespace) -> int:
    from streamfuse.dlq import show

    return show(options)


def _dlq_replay(options: argparse.Namespace) -> int:
    from streamfuse.dlq import replay

    return replay(options)


def _train(options: argparse.Namespace) -> int:
    from streamfuse.train_command import train

    return train(options)


def _evaluate(options: argparse.Namespace) -> int:
    from streamfuse.evaluate_command import evaluate

    return evaluate(options)


def _compare(options: argparse.Namespace) -> int:
    from streamfuse.compare_command import compare

    return compare(options)


def _crossmodal(options: argparse.Namespace) -> int:
    from streamfuse.crossmodal_command import crossmodal

    return crossmodal(options)


def _export(options: argparse.Namespace) -> int:
    from streamfuse.export_command import export

    return export(options.bundle, options.to, options.out)


def _compress(options: argparse.Namespace) -> int:
    from streamfuse.compress_command import compress

    return compress(options)


def _version(options: argparse.Namespace) -> int:
    from importlib.metadata import version

    print(f"streamfuse {version('streamfuse')} (Python {sys.version.split()[0]})")
    if options.verbose:
        for package in ("torch", "kafka-python", "av", "opencv-python-headless", "prometheus-client", "pydantic"):
            print(f"  {package} {version(package)}")
    return 0


# --- arguments ---------------------------------------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="streamfuse",
        description="Aligns live video, sound and text by event time, and runs a fusion model on the aligned windows.",
        epilog=f"{EXAMPLES}\n{EXIT_CODES}",
        formatter_class=raw,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")

    demo = commands.add_parser("demo", help="watch it work: a simulated room, or a video file", description=_demo_help, formatter_class=raw)
    demo.add_argument("clip", nargs="?", help="a video file with sound (and captions) to use instead of the simulator")
    demo.add_argument("--rooms", type=_positive, default=1, help="simulated rooms at the same time (default 1)")
    demo.add_argument("--seed", type=int, default=7, help="what the simulator makes its rooms from (default 7)")
    length = demo.add_mutually_exclusive_group()
    length.add_argument("--seconds", type=_positive_number, default=20.0, help="how long the simulator runs (default 20)")
    length.add_argument("--forever", action="store_true", help="until Ctrl-C")
    demo.add_argument("--out", type=Path, default=None, help="also write the predictions to this file, one JSON object a line")
    demo.set_defaults(run=_demo)

    run = commands.add_parser("run", help="run the daemon", description=_run_help, epilog=EXIT_CODES, formatter_class=raw)
    run.add_argument("config", type=Path, help="a YAML file; see config/ for examples")
    run.set_defaults(run=_run)

    check = commands.add_parser("check", help="say what is wrong with a config", description=_check_help, formatter_class=raw)
    check.add_argument("config", type=Path, help="a YAML file")
    check.set_defaults(run=_check)

    schema = commands.add_parser("schema", help="print the schemas of what goes in and out", description=_schema_help, formatter_class=raw)
    schema.add_argument("what", choices=["prediction", "packet", "asyncapi", "config", "manifest"])
    schema.add_argument("config", type=Path, nargs="?", help="asyncapi: the config whose topics are wanted (default: an example)")
    schema.add_argument("--format", choices=["json", "yaml"], default=None, help="default: asyncapi as yaml, the others as json")
    schema.set_defaults(run=_schema)

    topics = commands.add_parser("topics", help="compare Kafka's topics with those that a config needs", description=_topics_help)
    deeds = topics.add_subparsers(dest="action", metavar="ACTION", title="actions", required=True)
    compare = deeds.add_parser("check", help="say what is missing or does not fit", description=_topics_check_help, formatter_class=raw)
    compare.add_argument("config", type=Path, help="a YAML file")
    compare.set_defaults(run=_topics_check)
    create = deeds.add_parser("create", help="create what is missing", description=_topics_create_help, formatter_class=raw)
    create.add_argument("config", type=Path, help="a YAML file")
    create.add_argument("--partitions", type=_positive, default=None, help="of new topics (default: topics.partitions, or the brokers')")
    create.add_argument("--replication", type=_positive, default=None, help="replicas of each partition (default: the brokers')")
    create.add_argument("--retention", default=None, metavar="DURATION", help="how long new topics keep records, such as 7d")
    create.add_argument("--dry-run", action="store_true", help="only say what would be created")
    create.set_defaults(run=_topics_create)

    export = commands.add_parser("export", help="write a bundle's model as graphs", description=_export_help, formatter_class=raw)
    export.add_argument("bundle", help="a bundle's folder, or the name of one that comes with the package")
    export.add_argument(
        "--to", choices=["onnx", "torch"], default="onnx", help="for ONNX Runtime, or as torch.export has it (default onnx)"
    )
    export.add_argument("--out", type=Path, default=None, metavar="DIR", help="leave the bundle alone and write a copy of it there")
    export.set_defaults(run=_export)

    compress = commands.add_parser(
        "compress", help="make a model smaller, if that makes it faster and no worse", description=_compress_help, formatter_class=raw
    )
    compress.add_argument("bundle", help="a bundle's folder, or the name of one that comes with the package")
    compress.add_argument("--data", required=True, metavar="RECIPE", help="the recipe that says where the data is and how it is split")
    compress.add_argument("--method", choices=["magnitude", "structured", "int8"], required=True)
    compress.add_argument("--share", type=_share, default=0.5, help="of weights, or of channels, that pruning takes (default 0.5)")
    compress.add_argument(
        "--max-loss", type=float, default=0.5, metavar="POINTS", help="points of accuracy, or percent of an error (default 0.5)"
    )
    compress.add_argument("--out", type=Path, default=None, metavar="DIR", help="where the new bundle goes (default BUNDLE-METHOD)")
    compress.set_defaults(run=_compress)

    sim = commands.add_parser("sim", help="publish simulated rooms, or a video file, to Kafka", description=_sim_help, formatter_class=raw)
    sim.add_argument("--bootstrap", default="localhost:9092", help="brokers, host:port (default localhost:9092)")
    sim.add_argument(
        "--topics", default="video=video,audio=audio,text=text", help="stream=topic, comma separated; `truth=...` is one of them"
    )
    sim.add_argument("--clip", default=None, help="publish this video file instead of simulated rooms")
    sim.add_argument("--key", default=None, help="the key of the clip's records (default: the file's name)")
    sim.add_argument("--rooms", type=_positive, default=1)
    sim.add_argument("--seed", type=int, default=7)
    sim.add_argument("--seconds", type=_positive_number, default=None, help="how long (default: until Ctrl-C)")
    sim.add_argument("--pace", choices=["realtime", "full"], default="realtime")
    sim.add_argument("--faults", default=None, metavar="YAML", help="what to break, e.g. '{drop: 0.05, corrupt: 0.01, very_late: 0.005}'")
    sim.set_defaults(run=_sim)

    subscribe = commands.add_parser("subscribe", help="tail predictions", description=_subscribe_help, formatter_class=raw)
    subscribe.add_argument("file", nargs="?", help="a JSONL file of predictions; `-` for standard input")
    subscribe.add_argument("--bootstrap", default=None, help="brokers, host:port, to read a Kafka topic instead")
    subscribe.add_argument("--config", type=Path, default=None, help="a daemon's YAML file: brokers, topic and security of its Kafka sink")
    subscribe.add_argument("--topic", default=None, help="the topic of predictions (default: as --config says, or `predictions`)")
    subscribe.add_argument("--key", default=None, help="only this key")
    subscribe.add_argument("--group", default=None, help="resume where this group stopped; its members share the topic's partitions")
    begin = subscribe.add_mutually_exclusive_group()
    begin.add_argument("--from-start", action="store_true", help="begin with the oldest prediction, not the next (a group: if it is new)")
    begin.add_argument("--since", default=None, metavar="WHEN", help="the same with those published since: 10m, 2h, 2026-05-01T12:00:00Z")
    subscribe.add_argument("--raw", action="store_true", help="every record: repeats and revisions that are out of date, too")
    subscribe.add_argument("--json", action="store_true", help="the records as they are, one JSON object a line")
    subscribe.add_argument("--count", type=_positive, default=None, help="end after so many")
    subscribe.add_argument("--transport", choices=["kafka-python", "confluent"], default=None, help="which Kafka client reads")
    subscribe.set_defaults(run=_subscribe)

    dlq = commands.add_parser("dlq", help="look at dead letters, and publish them again", description=_dlq_help, formatter_class=raw)
    actions = dlq.add_subparsers(dest="action", metavar="ACTION", title="actions", required=True)
    letters = argparse.ArgumentParser(add_help=False)
    letters.add_argument("config", type=Path, nargs="?", help="the daemon's YAML file: where its dead letters are, and how to connect")
    letters.add_argument("--bootstrap", default=None, help="brokers, host:port, instead of a config or in place of what it says")
    letters.add_argument("--topic", default=None, help="the topic of the dead letters (default: as the config says, or `dead-letters`)")
    which = letters.add_argument_group("which letters")
    which.add_argument("--from", dest="of", default=None, metavar="TOPIC", help="only those whose record stood in this topic")
    which.add_argument("--key", default=None, help="only those of this key")
    which.add_argument(
        "--reason", choices=["undecodable", "quarantined"], default=None, help="only those with a bad payload, or description"
    )
    which.add_argument("--stage", choices=["decode", "synchronize", "prepare"], default=None, help="only those that were found there")
    which.add_argument("--since", default=None, metavar="WHEN", help="only those found since: 10m, 2h, 2026-05-01T12:00:00Z")

    look = actions.add_parser("show", help="list them", parents=[letters], description=_dlq_show_help, formatter_class=raw)
    number = look.add_mutually_exclusive_group()
    number.add_argument("--newest", type=_positive, default=20, metavar="N", help="the newest N, newest last (default 20)")
    number.add_argument("--oldest", type=_positive, default=None, metavar="N", help="the oldest N, oldest first")
    number.add_argument("--all", action="store_true", help="all, in order within each partition")
    number.add_argument("--count", action="store_true", help="only how many, by topic, stage and reason")
    look.add_argument("--json", action="store_true", help="one JSON object a line, key, value and headers in base64")
    look.add_argument("--save", type=Path, default=None, metavar="DIR", help="also write the original values to files in this folder")
    look.set_defaults(run=_dlq_show)

    replay = actions.add_parser("replay", help="publish them again", parents=[letters], description=_dlq_replay_help, formatter_class=raw)
    replay.add_argument("--dry-run", action="store_true", help="say what would be published, and publish nothing")
    replay.add_argument("--again", action="store_true", help="also those that were replayed before")
    replay.add_argument("--group", default=None, help="remembers what was replayed (default: streamfuse-dlq-TOPIC)")
    replay.set_defaults(run=_dlq_replay)

    train = commands.add_parser("train", help="train models by a recipe", description=_train_help, epilog=EXIT_CODES, formatter_class=raw)
    train.add_argument("recipe", type=Path, help="a YAML file; see config/recipes/ for examples")
    train.add_argument("--out", type=Path, default=None, metavar="DIR", help="where the bundles go (default out/NAME)")
    train.add_argument("--seed", type=int, nargs="+", default=None, metavar="N", help="these seeds instead of the recipe's")
    train.add_argument("--resume", action="store_true", help="go on where it was killed; what is done stays")
    train.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="change the recipe, such as training.epochs=3")
    train.set_defaults(run=_train)

    parts = ["test", "validation", "train"]
    evaluate = commands.add_parser("evaluate", help="say what a model is worth", description=_evaluate_help, formatter_class=raw)
    evaluate.add_argument("bundle", help="a run's or a bundle's folder, or the name of one that comes with the package")
    evaluate.add_argument("data", type=Path, help="a recipe or its data section (.yaml), a manifest (.jsonl, .csv) or arrays (.npz)")
    evaluate.add_argument("--out", type=Path, default=None, metavar="DIR", help="where the report goes (default out/NAME-report)")
    evaluate.add_argument("--part", choices=parts, default="test", help="which rows to judge on (default test)")
    evaluate.set_defaults(run=_evaluate)

    across = commands.add_parser(
        "crossmodal", help="find and write one modality by another", description=_crossmodal_help, formatter_class=raw
    )
    across.add_argument("bundle", help="a run's or a bundle's folder")
    across.add_argument("data", type=Path, help="as for `streamfuse evaluate`")
    across.add_argument("--out", type=Path, default=None, metavar="DIR", help="where the files go (default out/NAME-crossmodal)")
    across.add_argument("--part", choices=parts, default="test", help="of which rows (default test)")
    across.add_argument("--match", default=None, metavar="TASK", help="a row is found where one with the same label is (default: itself)")
    across.set_defaults(run=_crossmodal)

    versus = commands.add_parser("compare", help="compare models on the same rows", description=_compare_help, formatter_class=raw)
    versus.add_argument("subjects", type=Path, nargs="+", metavar="RECIPE|RUNS", help="recipes, or folders of runs that were trained")
    versus.add_argument("--out", type=Path, default=None, metavar="DIR", help="where the report goes (default out/comparison)")
    versus.add_argument("--runs", type=Path, default=Path("out"), metavar="DIR", help="where recipes' runs are, or go (default out)")
    versus.add_argument("--seed", type=int, nargs="+", default=None, metavar="N", help="these seeds instead of the recipes'")
    versus.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="change all recipes, such as training.epochs=3")
    versus.add_argument("--data", type=Path, default=None, metavar="DATA", help="what to judge folders on (default: their recipe's)")
    versus.add_argument("--part", choices=parts, default="test", help="which rows to judge on (default test)")
    versus.set_defaults(run=_compare)

    version = commands.add_parser("version", help="print the version")
    version.add_argument("-v", "--verbose", action="store_true", help="with those of the packages it stands on")
    version.set_defaults(run=_version)
    return parser


_demo_help = """\
Runs the whole daemon in this process: video, sound and text go through in-process topics, are aligned by event time,
and the model says who is talking. On a terminal it shows the streams and the predictions live; elsewhere, plain lines.
Ends after 20 s with a summary: predictions, accuracy against the truth (a clip has none), latency, the ledger.
"""
_run_help = """\
Runs the daemon until the input ends or it is told to stop. SIGTERM and SIGINT stop it in order: what was read is worked off,
published and committed; a second one ends it at once, and the next run repeats what was not committed. Serves /metrics, /livez
and /readyz on 127.0.0.1:9464 (web.port), and tells systemd when it is ready.
"""
_check_help = """\
Makes every part of the config without starting it, and prints every mistake with its path and its fix. Exit code 3 if there is one.
"""
_schema_help = """\
  prediction   JSON Schema of a prediction, as it stands in a record's value or in a line of a JSONL file
  packet       JSON Schema of the headers of a packet's record (CloudEvents 1.0 in Kafka's binary mode)
  asyncapi     AsyncAPI 3.0: all topics of a config, with both of these
  config       JSON Schema of the config, for editors
  manifest     JSON Schema of a line of a manifest, what `streamfuse train` reads rows from
"""
_topics_help = "Compares the topics at the brokers with those that a config reads and writes."
_topics_check_help = """\
Prints a table of the topics that the config reads and writes, as they are, and below it every mistake with the command that mends it.
Exit code 3 if there is one, 5 where the brokers can't be asked.
"""
_topics_create_help = """\
Creates the topics that are missing, those of a source with equal numbers of partitions. Changes none that are there: what does not fit
is told, with exit code 3; nothing is created where the topics of a source differ in their partitions already.
"""
_sim_help = """\
Publishes simulated rooms (or a video file) to Kafka in the wire format, at the pace they would have, so that a daemon has
something to read: a talker who is drawn and speaks, voices off screen, music, silence, captions.
"""
_subscribe_help = """\
Prints predictions as they come, each window's latest revision once: from a Kafka topic, or from a JSONL file.
What a daemon's config says of its Kafka sink (security, user, certificates) is used with --config; the environment can say it too,
as for the daemon: STREAMFUSE_SINKS__0__SECURITY, STREAMFUSE_SINKS__0__PASSWORD ...
"""
_dlq_help = """\
Records that the daemon could not use are kept as dead letters (`dead_letters:` in its config): the original key, value and headers,
and beside them why, and where the record stood. `show` lists them, `replay` publishes them again once the cause is mended.
"""
_dlq_show_help = """\
Lists dead letters, from a Kafka topic or from a JSONL file.

  streamfuse dlq show config.yaml                              the newest 20
  streamfuse dlq show config.yaml --count --since 1h           how many in the last hour, by topic, stage and reason
  streamfuse dlq show --bootstrap localhost:9092 --stage decode --all --json
  streamfuse dlq show config.yaml --from video --save bad/     the payloads as files, to look at them

Without a config, the environment says how to connect: STREAMFUSE_DEAD_LETTERS__SECURITY, STREAMFUSE_DEAD_LETTERS__PASSWORD ...
"""
_dlq_replay_help = """\
Publishes the original records again, as they were: to their topic and partition, with their key, value, headers and timestamp, and one
header more, `streamfuse_dl_replays`, which counts. Where the daemon's config is given, they go to the brokers of the source that reads
their topic; otherwise to those of the dead letters. Topics are never created.

  streamfuse dlq replay config.yaml --dry-run                  what would be published
  streamfuse dlq replay config.yaml --from video --since 2h    the last two hours' letters of one topic

A consumer group remembers what was replayed, so that the next replay goes on where this one stopped; a crash repeats at most the last
500 records. A record whose windows are closed by then is late, not a prediction (sync.allowed_lateness), and one that is still of no
use becomes a dead letter again. With kafka-python a header without a value comes back with an empty one.
"""
_train_help = """\
Trains what a recipe describes: one model for each seed, and each fold where its split says so.

  streamfuse train config/recipes/toy.yaml                      a minute on a laptop, nothing to download
  streamfuse train mine.yaml --seed 1 2 3 --set training.epochs=50
  streamfuse train mine.yaml --resume                           after a kill, or Ctrl-C: to the same weights
  torchrun --nproc-per-node 2 -m streamfuse train mine.yaml     two processes share each batch

A recipe says in YAML which rows there are (`data`), which are trained on, stopped by and tested (`split`), what the model is made of
(`model`: an encoder for each stream, a fusion, heads) and how it learns (`training`). What is wrong with it is told all at once; what the
data looks like is told before it starts. The rows of the test are not looked at: `streamfuse evaluate` does that.

Each model gets a folder, DIR/seed-N: its bundle (config.json, model.safetensors), which `models.bundle` of a daemon's config serves, and
history.jsonl, a line an epoch. The same recipe, seed and data on one machine give the same bundle.
"""


_evaluate_help = """\
Judges a bundle on data that it was not trained on and writes results.json, report.md and report.html, a page that needs nothing else:
scores with intervals, what happens when a modality is missing or noisy, which modality carries the answer, calibration, errors, costs.

  streamfuse evaluate out/digits/seed-0 digits.yaml
  streamfuse evaluate who-is-talking meetings.jsonl --out report
"""
_crossmodal_help = """\
For a bundle whose recipe has model.crossmodal. Says how well each modality is found by each other one, and how good is what its decoders
write from the others, and writes: figures.json, each row's place in the common space (places.npz), its nearest neighbours
(neighbours.jsonl), written texts (STREAM.jsonl) and images (STREAM.png, the true ones in the first line).

  streamfuse train config/recipes/toy-crossmodal.yaml
  streamfuse crossmodal out/toy-crossmodal/seed-0 config/recipes/toy-crossmodal.yaml
"""
_compare_help = """\
Trains what is not trained yet, each recipe with each of its seeds, judges all on the same rows and writes one report: which method works,
and whether the difference is more than chance. The method to put live is chosen by the validation part, not by the test.

  streamfuse compare late.yaml gated.yaml addition.yaml --seed 0 1 2 3 4
  streamfuse compare out/late out/gated --out report
"""
_export_help = """\
Writes each encoder and the fusion with its heads as a graph beside the bundle's other files, and compares each with the model on
random inputs of several sizes. The daemon computes with them by `models: {engine: onnx}`; graphs of another version of the bundle are
refused. Needs `pip install 'streamfuse[onnx]'` for ONNX.
"""
_compress_help = """\
Makes a smaller model by one method and keeps it only if it is measurably faster and loses no more of its metric on the data than
--max-loss; otherwise says both figures and keeps the original.

  magnitude    the smallest weights become zeros
  structured   whole hidden units are taken out
  int8         weights and activations as 8-bit integers, calibrated on the data (ONNX; needs `pip install 'streamfuse[onnx]'`)
"""


def _share(text: str) -> float:
    number = float(text)
    if not 0 < number < 1:
        raise argparse.ArgumentTypeError("expected a number between 0 and 1")
    return number


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("expected a number from 1 on")
    return number


def _positive_number(text: str) -> float:
    number = float(text)
    if not 0 < number < 1e9:
        raise argparse.ArgumentTypeError("expected a number of seconds above 0")
    return number


if __name__ == "__main__":
    sys.exit(main())
