"""Logging: one line an event, as JSON where a machine reads it and as text where a person does."""

from __future__ import annotations

import json
import logging
import sys
from typing import Literal

QUIET = 60.0  # seconds
CLIENTS = ("kafka.", "streamfuse.kafka.confluent")
MOST_ALIKE = 1000  # different messages that are counted


class JsonFormatter(logging.Formatter):
    """One JSON object a line: `time` (RFC 3339, UTC), `level`, `logger`, `message`, and `error` with the traceback where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": f"{self.formatTime(record, '%Y-%m-%dT%H:%M:%S')}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class FewRepeats(logging.Filter):
    """Passes the first, second, fourth, eighth ... of what a Kafka client says alike, and begins anew after a quiet minute: while a broker
    is away or a topic is missing it says the same ten times a second."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[tuple[str, object], tuple[int, float]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith(CLIENTS):
            return True
        alike = record.name, record.msg
        count, last = self._said.get(alike, (0, 0.0))
        count = count + 1 if record.created - last < QUIET else 1
        if len(self._said) >= MOST_ALIKE:
            self._said.clear()
        self._said[alike] = count, record.created
        return count & (count - 1) == 0


def set_up_logs(level: str, style: Literal["auto", "json", "text"]) -> None:
    """Log to standard error from `level` on. `auto` is text on a terminal and JSON elsewhere."""
    import time

    handler = logging.StreamHandler(sys.stderr)
    if style == "json" or (style == "auto" and not sys.stderr.isatty()):
        formatter: logging.Formatter = JsonFormatter()
    else:
        formatter = logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")
    formatter.converter = time.gmtime if isinstance(formatter, JsonFormatter) else time.localtime
    handler.setFormatter(formatter)
    handler.addFilter(FewRepeats())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("kafka").setLevel(logging.WARNING)
