"""A bad network: forwards a port to another, and cuts, delays, slows down or silences what goes through it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Self

CHUNK = 64 * 1024
IN_FLIGHT = 64  # chunks on the way in one direction; who sends more waits, as behind a full window
START_TIMEOUT = 10.0


class Proxy:
    """Listens on `port` of loopback and forwards to `target`, once that is set; use it with `with`.

    `delay` is in seconds, each way. `rate` is in bytes a second, of each connection, each way; None is as fast as it goes.
    """

    def __init__(self) -> None:
        self.port = 0
        self.target = 0
        self.delay = 0.0
        self.rate: float | None = None
        self.connections = 0
        """How many were ever made."""
        self._links: set[_Link] = set()
        self._loop: asyncio.AbstractEventLoop
        self._flowing: asyncio.Event
        self._listening = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="proxy", daemon=True)
        self._closing: asyncio.Event

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._listening.wait(START_TIMEOUT)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        self._call(self._closing.set)
        self._thread.join()

    def cut(self) -> int:
        """Resets all connections, and tells how many. New ones are taken as before."""
        links = list(self._links)
        for link in links:
            self._call(link.cut)
        return len(links)

    @contextmanager
    def silent(self) -> Iterator[None]:
        """For the time of the block nothing goes through, and no connection ends; afterwards all of it comes."""
        self._call(self._flowing.clear)
        try:
            yield
        finally:
            self._call(self._flowing.set)

    def _call(self, function: Callable[[], object]) -> None:
        self._loop.call_soon_threadsafe(function)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._closing, self._flowing = asyncio.Event(), asyncio.Event()
        self._flowing.set()
        server = await asyncio.start_server(self._forward, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._listening.set()
        async with server:
            await self._closing.wait()
            server.close()
            for link in list(self._links):
                link.cut()
            while self._links:
                await asyncio.sleep(0)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()  # as the broker would refuse it
            return
        link = _Link((writer, back))
        self._links.add(link)
        try:
            async with asyncio.TaskGroup() as ways:
                for one, other in ((reader, back), (there, writer)):
                    on_the_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(IN_FLIGHT)
                    ways.create_task(self._take(one, on_the_way))
                    ways.create_task(self._give(on_the_way, other))
        except* (OSError, asyncio.IncompleteReadError, _Over):
            pass
        finally:
            link.cut()
            self._links.discard(link)

    async def _take(self, reader: asyncio.StreamReader, on_the_way: asyncio.Queue[tuple[float, bytes]]) -> None:
        while True:
            data = await reader.read(CHUNK)
            await on_the_way.put((self._loop.time() + self.delay, data))
            if not data:
                return

    async def _give(self, on_the_way: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        while True:
            due, data = await on_the_way.get()
            if not data:
                writer.close()
                await writer.wait_closed()  # what is still on its way comes first
                raise _Over  # one side has closed: so do both
            await asyncio.sleep(max(0.0, due - self._loop.time()))
            await self._flowing.wait()
            writer.write(data)
            await writer.drain()
            if self.rate is not None:
                await asyncio.sleep(len(data) / self.rate)


class _Link:
    """Both ends of one connection."""

    def __init__(self, writers: tuple[asyncio.StreamWriter, asyncio.StreamWriter]) -> None:
        self._writers = writers

    def cut(self) -> None:
        for writer in self._writers:
            with suppress(OSError):
                writer.transport.abort()


class _Over(Exception):
    pass
