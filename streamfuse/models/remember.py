"""Computes each thing once, however many threads ask for it, and forgets the oldest beyond a bound."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any


class OnceCache:
    """Values by key, bounded by their bytes; the least recently used go first. Safe to share between threads.

    `get` blocks while another thread computes the same key. An error is remembered like a value and raised again.
    """

    def __init__(self, most_bytes: int, size: Callable[[Any], int]) -> None:
        self._most, self._size = most_bytes, size
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, tuple[Future[Any], int]] = OrderedDict()
        self._bytes = 0
        self.computed = 0
        """How many values were computed, errors included."""

    def get(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                future, mine = self._kept[key][0], False
            else:
                future, mine = Future(), True
                self._kept[key] = future, 0
                self.computed += 1
        if mine:
            size = 0
            try:
                value = compute()
                size = self._size(value)
                future.set_result(value)
            except BaseException as error:  # whoever waits for it must not wait for ever
                future.set_exception(error)
            self._account(key, future, size)
        return future.result()

    def _account(self, key: Hashable, future: Future[Any], size: int) -> None:
        with self._lock:
            if key in self._kept and self._kept[key][0] is future:
                self._kept[key] = future, size + 256
                self._bytes += size + 256
            while self._bytes > self._most and len(self._kept) > 1:
                oldest, (_, bytes_) = next(iter(self._kept.items()))
                del self._kept[oldest]
                self._bytes -= bytes_
