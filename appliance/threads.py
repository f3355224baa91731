"""Runs work in a thread, without a reference cycle when the work fails.

An exception from `trio.to_thread.run_sync` refers to itself through the frames of its traceback.
Such a cycle lives until Python collects garbage, which is rare here (run.py), and keeps everything
in those frames in memory, such as the text of a stranger's half-read document.
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
    """Runs `work` in a thread; returns its result or raises its error.

    Drops the traceback of an expected error (ApplianceError, OSError); a bug keeps its traceback.
    """
    done = await trio.to_thread.run_sync(partial(_caught, work, *args), limiter=limiter)
    if not isinstance(done, _Failed):
        return done
    try:
        raise done.error
    finally:
        del done, work, args  # this frame is in the error's traceback


class _Failed:
    """Carries an expected error out of the thread."""

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
