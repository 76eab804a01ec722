"""A daemon in a process of its own, as a service manager would run it: its config, notifications, HTTP, signals and end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from prometheus_client.parser import text_string_to_metric_families

PATIENCE = 60  # seconds that a test waits for what must come


class Process(Protocol):
    """What we use of `subprocess.Popen`."""

    @property
    def pid(self) -> int: ...

    @property
    def returncode(self) -> int | None: ...

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...

    def send_signal(self, number: int, /) -> None: ...

    def kill(self) -> None: ...


class Running:
    """Starts `streamfuse run` with this config, in a folder of its own; use it with `with`, which leaves nothing behind."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self._error = folder / "stderr"
        config_file = folder / "config.yaml"
        config_file.write_text(json.dumps({**config, "web": {"port": self.port}}))
        self._notifications = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sockets = tempfile.TemporaryDirectory(prefix="notify-")  # a socket's path has to be short
        notify = Path(self._sockets.name) / "notify"
        self._notifications.bind(str(notify))
        self._notifications.settimeout(PATIENCE)
        self.process: Process = self._launch(config_file, notify, self._error)

    def _launch(self, config_file: Path, notify: Path, error: Path) -> Process:
        environ = {**os.environ, "NOTIFY_SOCKET": str(notify), "OMP_NUM_THREADS": "1"}
        with error.open("w") as file:  # a file: a pipe that nobody reads would stop it
            return subprocess.Popen([sys.executable, "-m", "streamfuse", "run", str(config_file)], env=environ, stderr=file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        self._notifications.close()
        self._sockets.cleanup()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    @property
    def said(self) -> str:
        """What stands on its standard error so far."""
        return self._error.read_text()

    def notified(self, state: str) -> None:
        """Returns when the service manager has been told so."""
        while state not in self._notifications.recv(4096).decode().split("\n"):
            pass

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refused:
            return refused.code, refused.read().decode()

    def metric(self, name: str, **labels: str) -> float:
        """The first sample with this name and these labels."""
        return next(iter(self._samples(name, labels)), float("nan"))

    def total(self, name: str, **labels: str) -> float:
        """The sum of all samples with this name and these labels."""
        return sum(self._samples(name, labels))

    def until(self, holds: Callable[[], bool]) -> None:
        """Ask until it holds; the daemon is another process, so there is nothing else to wait on."""
        deadline = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < deadline, self.said
            try:
                self.process.wait(0.05)
            except subprocess.TimeoutExpired:
                continue
            raise AssertionError(f"expected it to run on, found that it ended with {self.process.returncode}: {self.said}")

    def terminate(self) -> tuple[int, str]:
        self.process.send_signal(signal.SIGTERM)
        return self.ended()

    def kill(self) -> None:
        """As the power would go: SIGKILL."""
        self.process.kill()
        self.process.wait()

    def ended(self) -> tuple[int, str]:
        """Its exit code and what it said, when it has ended."""
        return self.process.wait(PATIENCE), self.said

    def _samples(self, name: str, labels: Mapping[str, str]) -> Sequence[float]:
        families = text_string_to_metric_families(self.get("/metrics")[1])
        return [float(s.value) for family in families for s in family.samples if s.name == name and labels.items() <= s.labels.items()]


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port
