"""Iterators that block, on threads of their own: bridged to asynchronous batches, or read ahead of their time."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from dataclasses import dataclass
from queue import SimpleQueue
from types import TracebackType
from typing import Self, TypeVar

import anyio
import anyio.to_thread

from streamfuse.config import WhenFull
from streamfuse.types import SECOND, Item, Loss, Outcome, Packet

T = TypeVar("T")

LOSSES_PER_ITEM = 64
"""`drop_oldest` keeps what is left of a shed packet (its `Loss`) until it is taken: at most this many times the bound."""


class Stop:
    """Tells the iterator on the thread that nobody wants more."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def __bool__(self) -> bool:
        return self._event.is_set()

    def set(self) -> None:
        self._event.set()

    def wait(self, duration: int) -> bool:
        """Block for `duration` ns, or until the stop, at once. True where it is time to stop."""
        return self._event.wait(duration / SECOND) if duration > 0 else self._event.is_set()


class Bridge:
    """Runs `read(stop)` on a thread and hands its items over, in order, at most `bound` of them waiting.

    With `block` the thread waits while the bound is reached. With `drop_oldest` the oldest packet gives way and becomes
    a `Loss` with reason `shed`, in its place in the order. An exception of the iterator is raised by `batches` after
    all items that came before it. Used as `async with`: leaving sets the `Stop` and joins the thread; an iterator waits
    by `stop.wait` and looks at `stop` between two reads, so that this does not take longer than one read.
    """

    def __init__(self, read: Callable[[Stop], Iterator[Item]], *, name: str, bound: int, when_full: WhenFull) -> None:
        if bound < 1:
            raise ValueError(f"expected a bound of at least 1, found {bound}")
        self._read = read
        self._name = name
        self._bound = bound
        self._drops = when_full == "drop_oldest"
        self._stop = Stop()
        self._changed = threading.Condition()
        self._items: deque[Item] = deque()
        self._shed: deque[Item] = deque()  # came before everything in _items
        self._ended = False
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        self._stop.set()
        with self._changed:
            self._changed.notify_all()
        thread = self._thread
        if thread is not None:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(thread.join)

    async def batches(self) -> AsyncGenerator[list[Item], None]:
        """All that waits, whenever something does, until the iterator ends. Called once."""
        if self._thread is not None:
            raise RuntimeError("batches() was called before; a bridge is crossed once")
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()
        while True:
            batch, ended = self._take()
            if batch:
                yield batch
            elif ended:
                break
            else:
                await self._ready.wait()
        if self._error is not None:
            raise self._error

    def _take(self) -> tuple[list[Item], bool]:
        with self._changed:
            self._ready.clear()
            batch = [*self._shed, *self._items]
            self._shed.clear()
            self._items.clear()
            self._changed.notify_all()
            return batch, self._ended

    def _run(self) -> None:
        items: Iterator[Item] | None = None
        try:
            items = self._read(self._stop)
            for item in items:
                if not self._put(item):
                    break
        except BaseException as error:  # carried over to the reader, whatever it is
            self._error = error
        finally:
            if items is not None and hasattr(items, "close"):
                items.close()
            with self._changed:
                self._ended = True
            self._wake()

    def _put(self, item: Item) -> bool:
        """False where nobody wants it any more."""
        with self._changed:
            if self._drops and len(self._items) >= self._bound:
                self._shed.append(_shed(self._items.popleft()))
            while not self._stop and self._full():
                self._changed.wait()
            if self._stop:
                return False
            waiting = bool(self._items)
            self._items.append(item)
        if not waiting:
            self._wake()
        return True

    def _full(self) -> bool:
        if self._drops:
            return len(self._shed) >= LOSSES_PER_ITEM * self._bound
        return len(self._items) >= self._bound

    def _wake(self) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(self._ready.set)
        except RuntimeError:
            if not self._loop.is_closed():  # a closed loop has nobody left to wake
                raise


def ahead(items: Iterator[T], bound: int) -> Generator[T, None, None]:
    """The same items, up to `bound` of them made before they are asked for, on a thread that ends with this iterator."""
    made: SimpleQueue[T | _End] = SimpleQueue()
    free = threading.Semaphore(bound)
    left = threading.Event()

    def make() -> None:
        end = _End(None)
        try:
            for item in items:
                free.acquire()
                if left.is_set():
                    return
                made.put(item)
        except BaseException as error:  # carried over to the reader, whatever it is
            end = _End(error)
        made.put(end)

    thread = threading.Thread(target=make, name="ahead", daemon=True)
    thread.start()
    try:
        while not isinstance(item := made.get(), _End):
            free.release()
            yield item
        if item.error is not None:
            raise item.error
    finally:
        left.set()
        free.release()
        thread.join()


@dataclass(frozen=True, slots=True)
class _End:
    error: BaseException | None


def _shed(item: Item) -> Item:
    if not isinstance(item, Packet):
        return item  # a Loss or a Resume is small, and must be heard
    return Loss(
        stream=item.stream,
        key=item.key,
        reason=Outcome.SHED,
        detail=(
            "expected the reader to keep up, found the queue full; the oldest packet gave way: use a faster device or "
            "a smaller rate, or when_full: block where the input can wait"
        ),
        position=item.position,
        event_time=item.event_time,
    )
