"""Daemons that are there in a second: forked from a process that has imported everything, as a pool of spares would be.

Each is a process of its own, of which SIGKILL leaves as little as of any other; what it saves are 2 s of CPU for the imports.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
from pathlib import Path

from tests.running import Running

PRELOADED = [
    "__main__",
    "streamfuse.assembly",
    "streamfuse.cli",
    "streamfuse.models.runner",
    "streamfuse.sinks.kafka",
    "streamfuse.sources.kafka",
]

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(PRELOADED)


class Forked:
    """A child of the fork server, with as much of `subprocess.Popen` as we use."""

    def __init__(self, config_file: Path, notify: Path, error: Path) -> None:
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # before the fork server starts
        self._process = _context.Process(target=_run, args=(str(config_file), str(notify), str(error)), daemon=True)
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("streamfuse run", timeout or 0)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self._process.exitcode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Warm(Running):
    """As `Running`, and sooner."""

    def _launch(self, config_file: Path, notify: Path, error: Path) -> Forked:
        return Forked(config_file, notify, error)


def _run(config_file: str, notify: str, error: str) -> None:
    """The child: what `streamfuse run` does, its standard error in a file."""
    import sys

    from streamfuse.cli import main

    os.setsid()  # an interrupt from the keyboard is for us, who stop it in order
    os.environ["NOTIFY_SOCKET"] = notify
    with open(error, "w") as said:
        os.dup2(said.fileno(), 2)
    sys.exit(main(["run", config_file]))
