"""Batches computed side by side, each by one thread, and handed on in their order.

On the CPU this is how a run uses its cores: every thread takes a batch through all stages, so that nothing between the
kernels has to be made parallel. A GPU has one lane, and its own parallelism within it.
"""

import collections
import contextlib
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextlib.contextmanager
def in_lanes(items: Generator[Item, None, None], work: Callable[[Item], Result], lanes: int) -> Iterator[Iterator[Result]]:
    """Within it, `work(item)` of every item, in the order of the items, `lanes` of them at a time.

    `items` is asked for another while at most `lanes` (none with one lane) are worked on or wait; so with
    `held_by(lanes)` items valid at a time none is lost. With one lane the work is done by the caller's thread. The first
    error is raised in its item's place; what waits behind it is not begun, what has begun is waited for, also where the
    `with` is left early, and `items` is closed.
    """
    with contextlib.closing(items), contextlib.closing(_results(items, work, lanes)) as results:
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


def held_by(lanes: int) -> int:
    """Items in use at a time, the one just taken among them."""
    return lanes + (lanes > 1)


def _results(
    items: Generator[Item, None, None], work: Callable[[Item], Result], lanes: int
) -> Generator[Result, None, None]:
    if lanes == 1:
        for item in items:
            yield work(item)
        return
    waiting: collections.deque[Future[Result]] = collections.deque()
    pool = ThreadPoolExecutor(lanes, thread_name_prefix="lane")
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > lanes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
