"""Of the records of a topic, lets through the predictions that are news: each window's latest revision, once."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable

from streamfuse.codecs import Record, partition_name, prediction_from_json
from streamfuse.errors import InvalidRecord
from streamfuse.types import Prediction, WindowId

log = logging.getLogger(__name__)


class Sieve:
    """`repeats` and `invalid` count what it kept back. With `remember=0` it lets repeats through.

    What is no prediction goes to `on_invalid`, or to the log: the first, the second, the fourth, the eighth ...
    """

    def __init__(
        self, key: str | None = None, remember: int = 0, on_invalid: Callable[[Record, InvalidRecord], None] | None = None
    ) -> None:
        self.repeats = 0
        self.invalid = 0
        self._key = key
        self._key_bytes = None if key is None else key.encode(errors="replace")
        self._latest = Latest(remember) if remember else None
        self._on_invalid = on_invalid or self._tell

    def sift(self, record: Record, known: bool = False) -> Prediction | None:
        """The record's prediction, if it is one that is news. A `known` record came before, and is only noted."""
        if self._key_bytes is not None and record.key is not None and record.key != self._key_bytes:
            return None
        try:
            if record.value is None:
                raise InvalidRecord("expected a prediction, found a null value")
            prediction = prediction_from_json(record.value)
        except InvalidRecord as error:
            if not known:
                self.invalid += 1
                self._on_invalid(record, error)
            return None
        if self._key is not None and prediction.key != self._key:
            return None
        is_news = self._latest is None or self._latest.is_news(prediction.id)
        if known:
            return None
        self.repeats += not is_news
        return prediction if is_news else None

    def _tell(self, record: Record, error: InvalidRecord) -> None:
        if self.invalid & (self.invalid - 1) == 0:
            where = partition_name(record.topic, record.partition)
            log.warning("%s at offset %d is no prediction, passed over (%d so far): %s", where, record.offset, self.invalid, error)


class Latest:
    """Which windows came, and in which revision: of the last `remember` that came."""

    def __init__(self, remember: int) -> None:
        self._remember = remember
        self._revisions: OrderedDict[tuple[str, int, int], int] = OrderedDict()

    def is_news(self, window: WindowId) -> bool:
        """Whether it is a window that did not come before, or a later revision of it; from now on it came."""
        key, start, end, revision = window
        identity = (key, start, end)
        before = self._revisions.get(identity, -1)
        self._revisions[identity] = max(before, revision)
        self._revisions.move_to_end(identity)
        if len(self._revisions) > self._remember:
            self._revisions.popitem(last=False)
        return revision > before
