"""How long the loop was at one thing: what a stranger chooses must not make it long."""

from __future__ import annotations

import gc
import time

import trio


def steps(longest: list[float]) -> trio.abc.Instrument:
    """Keeps in `longest[0]` the most seconds of the processor that one step of one task took.

    Of the loop's own thread: a machine that is busy with other things makes no step longer.  Nor
    does Python's look for garbage, which goes through all that other tests have left.
    """

    class Watch(trio.abc.Instrument):
        began = float("inf")  # it may be added within a step
        looking = spent = 0.0  # for garbage, within the step

        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            self.spent = 0.0
            self.began = time.thread_time()

        def after_task_step(self, task: trio.lowlevel.Task) -> None:
            longest[0] = max(longest[0], time.thread_time() - self.began - self.spent)

        def look(self, phase: str, info: dict[str, int]) -> None:
            if phase == "start":
                self.looking = time.thread_time()
            else:
                self.spent += time.thread_time() - self.looking

    watch = Watch()
    gc.callbacks[:] = [each for each in gc.callbacks if getattr(each, "__name__", "") != "look"]
    gc.callbacks.append(watch.look)
    return watch
