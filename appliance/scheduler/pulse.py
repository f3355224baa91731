"""How late the event loop is: a task that sleeps a little, and looks how late it woke.

One process serves everybody, so whatever holds the loop, or Python's interpreter lock in a thread,
keeps every testbox and every person waiting.  What this task sees is what they feel.
"""

from __future__ import annotations

from typing import Final, NoReturn

import structlog
import trio

from appliance.jobs.shown.measures import Lateness

# Between two looks.  A stall that begins within it is seen as that much shorter; fifty looks a
# second cost an idle server a few thousandths of a core.
PULSE_S: Final = 0.02
# From here on a stall has a line in the log: a person who presses Enter notices it.
NOTABLE_S: Final = 1.0

log = structlog.get_logger()


async def watch(lateness: Lateness) -> NoReturn:
    """Note how late each look is, for as long as the server runs."""
    while True:
        due = trio.current_time() + PULSE_S
        await trio.sleep_until(due)
        late = trio.current_time() - due
        lateness.observe(late)
        if late >= NOTABLE_S:
            log.warning("the event loop stood still", seconds=round(late, 1))
