"""The room for the state: a reserve is set aside, and free space is watched.

    free        more than `warn`    all is well
                less                one line in the log
                less than `low`     the gate is shut for new jobs; jobs taken before go on

When the disk is full the reserve is released (journal.py), and the gate stays shut until the
reserve can be set aside again.  The gate opens by itself once somebody has made room.
"""

from __future__ import annotations

from typing import Final, NoReturn

import structlog
import trio

from appliance.config import Space
from appliance.keep.state.disk import RESERVE, Disk
from appliance.keep.state.gate import Gate

# The journal itself notices a full disk; this check only has to be quicker than the operator's
# next try.
CHECK_S: Final = 5.0
# The gate opens when this much more than `low` is free: else it would flap around `low`.
SLACK: Final = 1 / 8
WHO: Final = "space"  # our name at the gate

log = structlog.get_logger()


class Room:
    """Watches the room for the state, and works the gate."""

    def __init__(self, disk: Disk, gate: Gate, space: Space) -> None:
        self._disk, self._gate, self._space = disk, gate, space
        self._scarce = False
        self._trouble = ""  # the last warning, which is not repeated every few seconds

    async def set_aside(self) -> None:
        """Takes the reserve at the start, even if the rest is scarce; then looks once."""
        await self._reserve()
        await self.look()

    async def look(self) -> None:
        """Looks once: warns, shuts or opens the gate."""
        try:
            free = await self._disk.free()
            held = RESERVE in await self._disk.names()
        except OSError as error:
            self._say(f"cannot see how much room the state has: {error.strerror}")
            return
        shut, low = self._gate.is_shut_by(WHO), self._space.low
        if free < low or (shut and free < low * (1 + SLACK)):
            self._shut(free)
            return
        if not held and free >= low * (1 + SLACK) + self._space.reserve:
            held = await self._reserve()
        if shut and held:
            self._gate.open(WHO)
            log.warning("new jobs are taken again", free=size(free))
        self._note(free)

    def _shut(self, free: int) -> None:
        if not self._gate.is_shut_by(WHO):
            log.error(
                "no new jobs are taken: no room", free=size(free), needs=size(self._space.low)
            )
        why = f"only {size(free)} are free where the state lies, and {size(self._space.low)} needed"
        self._gate.shut(WHO, why)
        self._scarce = True

    def _note(self, free: int) -> None:
        scarce = free < self._space.warn
        if scarce and not self._scarce:
            log.warning(
                "room for the state gets scarce", free=size(free), low=size(self._space.low)
            )
        self._scarce = scarce

    async def _reserve(self) -> bool:
        try:
            await self._disk.reserve(self._space.reserve)
        except OSError as error:
            self._say(
                f"no {size(self._space.reserve)} are set aside for the state: {error.strerror}"
            )
            return False
        self._trouble = ""
        return True

    def _say(self, trouble: str) -> None:
        if trouble != self._trouble:
            log.warning(trouble)
        self._trouble = trouble


async def watch(
    disk: Disk,
    gate: Gate,
    space: Space,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> NoReturn:
    """Watches the room until cancelled."""
    room = Room(disk, gate, space)
    await room.set_aside()
    task_status.started()
    while True:
        await trio.sleep(CHECK_S)
        await room.look()


def size(count: int) -> str:
    """Returns a number of bytes as text for people."""
    return f"{count / 2**20:.1f} MiB"
