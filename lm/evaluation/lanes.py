"""Passes of a model over many blocks: on a CPU a few side by side, elsewhere some started ahead of the results.

A CPU that shares out the products of one block among its cores lets them wait for each other at every operation,
and computes what lies between the products on one of them. Blocks know nothing of each other, so each core may have
its own; what a block gives does not depend on who computes it.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import jax
import numpy as np

from lm.startup import cores

T = TypeVar("T")

MOST = 9  # lanes: each holds the temporary arrays of a block
AHEAD = 2  # items that an accelerator is given before the host waits for one


def lanes() -> int:
    """Return how many blocks are computed at a time: on a CPU one more than cores may be used, at most `MOST`.

    While one lane is between two operations, the one more has work for its core.
    """
    if jax.default_backend() != "cpu":
        return 1
    return min(cores() + 1, MOST)


def numpy_arrays(made: Any) -> Any:
    """Return a tree of arrays as NumPy's, once they are computed."""
    return jax.tree.map(np.asarray, made)


def in_lanes(
    items: Iterable[T],
    function: Callable[[T], Any],
    count: int | None = None,
    fetch: Callable[[Any], Any] = numpy_arrays,
) -> Iterator[tuple[T, Any]]:
    """Yield each item with what a function makes of it, in the order of the items.

    As many items as there are lanes, and one more, are taken ahead of the one that is waited for, so that no lane
    waits for us; the memory does not grow with their number.

    Args:
        items: blocks; they are taken from it by the calling thread.
        function: calls jitted functions and returns their arrays; with several lanes it is called by several threads.
        count: lanes; by default those of `lanes`. 1 where arrays lie on several devices: threads that start programs
            on these in different orders would wait for each other forever.
        fetch: what becomes of the function's arrays, and waits for them: NumPy arrays by default.

    Raises:
        Exception: what the function raises, when its item's turn comes.
    """
    count = lanes() if count is None else count
    waiting: deque[tuple[T, Any]] = deque()
    if count == 1:
        for item in items:
            waiting.append((item, function(item)))
            if len(waiting) > AHEAD:
                done, made = waiting.popleft()
                yield done, fetch(made)
        for done, made in waiting:
            yield done, fetch(made)
        return

    def work(item: T) -> tuple[T, Any]:
        return item, fetch(function(item))

    pool = ThreadPoolExecutor(count, thread_name_prefix="lane")
    ahead: deque[Future[tuple[T, Any]]] = deque()
    try:
        for item in items:
            ahead.append(pool.submit(work, item))
            if len(ahead) > count + 1:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
