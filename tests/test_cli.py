"""The command line as a person uses it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from streamfuse.cli import main
from streamfuse.codecs import prediction_to_json
from streamfuse.testing import predict
from streamfuse.types import SECOND, Window

WINDOWS = [Window(key, n * SECOND, (n + 1) * SECOND, {}, {}) for n in range(3) for key in ("a", "b")]


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    path = tmp_path / "predictions.jsonl"
    path.write_text("".join(f"{prediction_to_json(predict(w, w.end + 5_000_000))}\n" for w in WINDOWS))
    return path


def test_without_a_command_it_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    out = capsys.readouterr().out
    assert "streamfuse demo" in out
    assert "exit codes:" in out


@pytest.mark.parametrize("command", ["demo", "run", "check", "export", "compress", "sim", "subscribe", "version"])
def test_each_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main([command, "--help"])
    assert left.value.code == 0
    assert len(capsys.readouterr().out.splitlines()) > 3


def test_check_tells_every_mistake_and_exits_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("{sources: [{type: jsonl, pth: a}], sync: {max_hold: 5, streams: {text: {}}}}")
    assert main(["check", str(path)]) == 3
    err = capsys.readouterr().err
    assert "3 problems in the config:" in err
    assert "sources.0.pth" in err
    assert "sources.0.path" in err
    assert "sync.max_hold" in err


def test_check_makes_every_part_and_tells_what_can_not_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(
        "{sources: [{type: jsonl, path: /nowhere/a.jsonl}, {type: media, path: /nowhere/b.mp4}], models: {bundle: /nowhere/bundle}}"
    )
    assert main(["check", str(path)]) == 3
    err = capsys.readouterr().err
    assert "sources.0.path: there is no /nowhere/a.jsonl" in err
    assert "sources.1.path: there is no /nowhere/b.mp4" in err
    assert "models: " in err


def test_check_passes_the_demo(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(Path(__file__).parents[1] / "config" / "demo.yaml")]) == 0
    assert "is fine" in capsys.readouterr().out


def test_check_warns_of_windows_of_another_size_than_the_model_learned_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "long.yaml"
    path.write_text("{sources: [{type: simulator, truth: false}], sync: {windows: {type: tumbling, size: 3s}}}")
    assert main(["check", str(path)]) == 0
    assert "sync.windows has a size of 3 s, and who-is-talking was trained on windows of 1 s" in caplog.text


def test_subscribe_prints_a_file(predictions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["subscribe", str(predictions), "--key", "a", "--count", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("a ") and "+5 ms" in line for line in lines)


def test_subscribe_as_json_gives_the_records_as_they_are(predictions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["subscribe", str(predictions), "--json"]) == 0
    assert capsys.readouterr().out == predictions.read_text()


def test_subscribe_passes_over_what_is_no_prediction(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mixed.jsonl"
    path.write_text(f"not json\n{prediction_to_json(predict(WINDOWS[0]))}\n")
    assert main(["subscribe", str(path)]) == 0
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 1
    assert "passed over" in captured.err


def test_subscribe_to_a_missing_file_exits_5(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["subscribe", "/nowhere/predictions.jsonl"]) == 5
    assert "can't read" in capsys.readouterr().err


def test_subscribe_prints_a_repeat_only_where_it_is_asked_to(predictions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predictions.write_text(2 * predictions.read_text())
    assert main(["subscribe", str(predictions)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(WINDOWS)
    assert main(["subscribe", str(predictions), "--raw"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2 * len(WINDOWS)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name a file, or brokers with --bootstrap"),
        (["out.jsonl", "--group", "g"], "--group is for Kafka, and out.jsonl is a file"),
    ],
)
def test_subscribe_says_how_it_is_used(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["subscribe", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_subscribe_tells_what_is_wrong_with_the_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config.yaml"
    for sinks, said in (
        ("[{type: jsonl}]", "expected a sink of type kafka, found none"),
        ("[{type: kafka, bootstrp: b}]", "did you mean `bootstrap`?"),
    ):
        config.write_text(f"sinks: {sinks}")
        assert main(["subscribe", "--config", str(config)]) == 3
        assert said in capsys.readouterr().err
    assert main(["subscribe", "--bootstrap", "localhost:9092", "--since", "yesterday"]) == 3
    assert "--since: expected an RFC 3339 time" in capsys.readouterr().err


def test_version_says_what_it_stands_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version", "-v"]) == 0
    assert "kafka-python" in capsys.readouterr().out


def test_a_wrong_fault_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sim", "--faults", "{dorp: 0.5}"]) == 3
    assert "did you mean `drop`?" in capsys.readouterr().err


def test_a_closed_pipe_is_no_error(predictions: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", f'"{sys.executable}" -m streamfuse subscribe "{predictions}" | head -n 1'], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
