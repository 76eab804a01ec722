"""Every error that StreamFuse raises on purpose.

    StreamFuseError              exit code 1
    ├── ConfigError              3   the config is wrong; carries every problem at once
    ├── BundleError              4   a model bundle is missing, damaged or not for this version
    ├── SourceError              5   a source can't be read and waiting won't help
    ├── SinkError                6   a sink can't take predictions and waiting won't help (a full disk, a refused topic)
    ├── DrainTimeout             7   the orderly stop took longer than `drain_timeout`
    ├── TooManyDeadLetters       8   a greater share of the records is of no use than `dead_letters.max_share`
    ├── DataError                9   a data set can't be trained on or evaluated; carries every problem at once
    └── RecordError                  one record can't be used; it never ends the process
        ├── InvalidRecord            its description is wrong: headers, event time -> quarantined
        └── UndecodablePayload       its payload is not what it says it is, text that is not UTF-8 included -> undecodable

A message is a sentence: what was expected, what was found, what to change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class StreamFuseError(Exception):
    exit_code = 1


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a config: where it stands (`sources.0.rate`), what is wrong, and what to change."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class ConfigError(StreamFuseError):
    """Carries all `problems` of a config, not only the first."""

    exit_code = 3

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(p) for p in self.problems))


class BundleError(StreamFuseError):
    exit_code = 4


class SourceError(StreamFuseError):
    exit_code = 5


class SinkError(StreamFuseError):
    exit_code = 6


class DrainTimeout(StreamFuseError):
    exit_code = 7


class TooManyDeadLetters(StreamFuseError):
    exit_code = 8


class DataError(StreamFuseError):
    """Carries all `problems` of a data set, not only the first."""

    exit_code = 9

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(p) for p in self.problems))


class RecordError(StreamFuseError):
    """One record can't be used. It is counted, reported with its reason and skipped."""


class InvalidRecord(RecordError):
    """The record's description is not believable."""


class UndecodablePayload(RecordError):
    """The record's payload is not what it says it is."""
