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


async def run(
    work: Callable[..., T], *args: object, limiter: trio.CapacityLimiter | None = None
) -> T:
    """What `work` returns, or raises: without the frames in which it was raised, where the world
    is to blame (ApplianceError, OSError); a fault of ours keeps its frames.
    """
    done = await trio.to_thread.run_sync(partial(_caught, work, *args), limiter=limiter)
    if not isinstance(done, _Failed):
        return done
    try:
        raise done.error
    finally:
        del done, work, args  # this frame is in the error's traceback


class _Failed:
    """Stands for what was raised."""

    def __init__(self, error: Exception) -> None:
        self.error = error


def _caught(work: Callable[..., T], *args: object) -> T | _Failed:
    try:
        return work(*args)
    except (ApplianceError, OSError) as error:
        one: BaseException | None = error
        while one is not None:
            one.__traceback__ = None
            one = one.__cause__ or one.__context__
        return _Failed(error)
