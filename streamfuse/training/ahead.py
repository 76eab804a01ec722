"""Work that is done by threads ahead of who wants it, in its order and within bounds."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def ahead(work: Iterable[T], do: Callable[[T], R], threads: int, most: int) -> Iterator[R]:
    """`do(item)` of each item in their order, at most `most` of them done or under way before they are taken.

    An exception is raised where its result would have come. Without threads, each is done when it is taken. Closing it waits
    for what is under way.
    """
    if threads == 0:
        yield from map(do, work)
        return
    items = iter(work)
    under_way: deque[Future[R]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="read") as pool:
        try:
            while True:
                while len(under_way) < most:
                    try:
                        under_way.append(pool.submit(do, next(items)))
                    except StopIteration:
                        break
                if not under_way:
                    return
                yield under_way.popleft().result()
        finally:
            for job in under_way:
                job.cancel()
