"""Measures how late the event loop is: a task sleeps briefly and checks how late it woke.

One process serves everybody, so anything that holds the loop, or Python's interpreter lock in a
thread, delays every testbox and every person by what this task measures.
"""

from __future__ import annotations

from typing import Final, NoReturn

import structlog
import trio

from appliance.jobs.shown.measures import Lateness

# Between two looks.  A stall that begins between two looks is measured shorter by up to this; fifty
# looks a second cost an idle server a few thousandths of a core.
PULSE_S: Final = 0.02
# A stall of this length is logged: a person who presses Enter notices it.
NOTABLE_S: Final = 1.0

log = structlog.get_logger()


async def watch(lateness: Lateness) -> NoReturn:
    """Notes how late each look is, for as long as the server runs."""
    while True:
        due = trio.current_time() + PULSE_S
        await trio.sleep_until(due)
        late = trio.current_time() - due
        lateness.observe(late)
        if late >= NOTABLE_S:
            log.warning("the event loop stood still", seconds=round(late, 1))
