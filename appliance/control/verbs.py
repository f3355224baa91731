"""Runs the verbs of the control socket.

A verb is a class in one of the modules `*_verbs`, all of which this module imports.
"""

from __future__ import annotations

from typing import Any, Final

import attrs

from appliance.control import backup_verbs, host_verbs, job_verbs, lab_verbs, result_verbs
from appliance.control.backup_verbs import Copies
from appliance.control.retention import Retention
from appliance.control.screen import Disks, Screen, disks
from appliance.control.verb import VERBS, Answer, Asked, Event, request
from appliance.errors import BadRequest, NotFound, Refused
from appliance.scheduler.scheduler import Scheduler

MODULES: Final = (job_verbs, host_verbs, lab_verbs, result_verbs, backup_verbs)


@attrs.frozen
class Lab:
    """What verbs work with."""

    scheduler: Scheduler
    screen: Screen
    retention: Retention
    copies: Copies


class Verbs:
    """Runs verbs on one scheduler."""

    def __init__(self, scheduler: Scheduler, disks: Disks = disks) -> None:
        self._scheduler = scheduler
        screen = Screen(scheduler, disks)
        self._lab = Lab(scheduler, screen, Retention(scheduler), Copies(scheduler))

    async def do(self, name: str, arguments: dict[str, Any], user: str, event: Event) -> Answer:
        """Runs one verb.  Raises the errors of appliance.errors."""
        if name not in VERBS:
            raise BadRequest(f"no verb {name[:40]!r}; known: {', '.join(VERBS)}")
        work = request(name, arguments)
        try:
            answer = await work.do(Asked(self._lab, user, event))
        except (NotFound, Refused):  # such an error tells of jobs and boxes, too
            await self._scheduler.caught_up()
            raise
        if not VERBS[name].kept:
            # The answer was read in memory, which may be ahead of the disk: wait for the disk.
            await self._scheduler.caught_up()
        return answer
