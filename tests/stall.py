"""How long the loop was at one thing: what a stranger chooses must not make it long."""

from __future__ import annotations

import gc
import time

import trio


def steps(longest: list[float]) -> trio.abc.Instrument:
    """Keeps in `longest[0]` the most seconds of the processor that one step of one task took.

    Of the loop's own thread: a machine that is busy with other things makes no step longer.  Nor
    does what other tests left: Python does not look through it for garbage any more.
    """
    gc.collect()
    gc.freeze()

    class Watch(trio.abc.Instrument):
        began = float("inf")  # it may be added within a step

        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            self.began = time.thread_time()

        def after_task_step(self, task: trio.lowlevel.Task) -> None:
            longest[0] = max(longest[0], time.thread_time() - self.began)

    return Watch()
