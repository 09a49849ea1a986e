"""Batches computed side by side, each by one thread, and handed on in their order.

On the CPU this is how a run uses its cores: every thread takes a batch through all stages, so that nothing between the
kernels has to be made parallel. A GPU has one thread, and its own parallelism within it.
"""

import collections
import contextlib
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextlib.contextmanager
def in_threads(
    items: Generator[Item, None, None], work: Callable[[Item], Result], threads: int
) -> Iterator[Iterator[Result]]:
    """Within it, `work(item)` of every item, in the order of the items, `threads` of them at a time.

    `items` is asked for another while at most `threads` (none with one thread) are worked on or wait; so with
    `held_by(threads)` items valid at a time none is lost. With one thread the work is done by the caller's thread. The first
    error is raised in its item's place; what waits behind it is not begun, what has begun is waited for, also where the
    `with` is left early, and `items` is closed.
    """
    with contextlib.closing(items), contextlib.closing(_results(items, work, threads)) as results:
        yield results


def trailing(items: Iterable[Item], by: int) -> Iterator[Item]:
    """The same items, each handed on once `by` more have been taken. An error comes after the items taken before it."""
    held: collections.deque[Item] = collections.deque()
    try:
        for item in items:
            held.append(item)
            if len(held) > by:
                yield held.popleft()
    except Exception:
        yield from held
        raise
    yield from held


def held_by(threads: int) -> int:
    """Items in use at a time, the one just taken among them."""
    return threads + (threads > 1)


def _results(
    items: Generator[Item, None, None], work: Callable[[Item], Result], threads: int
) -> Generator[Result, None, None]:
    if threads == 1:
        for item in items:
            yield work(item)
        return
    waiting: collections.deque[Future[Result]] = collections.deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="thread")
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
