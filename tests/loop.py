"""How long the loop was held: each of its rounds, in time of this thread's own.

Another program that has the processor meanwhile does not count, so that a test which asks for less
than 100 ms holds on a busy machine.
"""

from __future__ import annotations

import gc
import time
from contextlib import contextmanager

import trio

from appliance.run import GC_THRESHOLDS

STALL_S = 0.1  # nobody waits longer for his turn


class Rounds(trio.abc.Instrument):
    """The longest round so far."""

    def __init__(self):
        self._began = time.thread_time()
        self.longest = 0.0  # seconds

    def after_io_wait(self, timeout):
        self._began = time.thread_time()

    def before_io_wait(self, timeout):
        self.longest = max(self.longest, time.thread_time() - self._began)


@contextmanager
def rounds():
    """Watches the loop from now on, with Python's garbage collector as the server sets it."""
    before = gc.get_threshold()
    gc.set_threshold(*GC_THRESHOLDS)
    gc.collect()
    gc.freeze()  # what other tests left is not looked through
    found = Rounds()
    trio.lowlevel.add_instrument(found)
    try:
        yield found
    finally:
        trio.lowlevel.remove_instrument(found)
        gc.unfreeze()
        gc.set_threshold(*before)
