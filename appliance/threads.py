"""Work in a thread that leaves nothing behind when it fails.

What `trio.to_thread.run_sync` raises refers to itself, by way of the frames that it came through.
Such a circle lives until Python looks for garbage, which it seldom does here (run.py), and with it
all that those frames held: the text of a stranger's document, half of which was read.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import trio

from appliance.errors import ApplianceError

T = TypeVar("T")


async def run(work: Callable[[], T], *, limiter: trio.CapacityLimiter | None = None) -> T:
    """What `work` returns, or raises, without the frames in which it was raised.

    For work that fails by what strangers sent; what fails by a fault of ours keeps its frames.
    """
    done = await trio.to_thread.run_sync(partial(_caught, work), limiter=limiter)
    if not isinstance(done, _Failed):
        return done
    try:
        raise done.error
    finally:
        del done  # this frame is in the error's traceback


class _Failed:
    """Stands for what was raised."""

    def __init__(self, error: Exception) -> None:
        self.error = error


def _caught(work: Callable[[], T]) -> T | _Failed:
    try:
        return work()
    except ApplianceError as error:
        cause = error.__cause__
        if cause is not None:
            cause.__traceback__ = None
        return _Failed(error.with_traceback(None))
