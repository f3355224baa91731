"""What is due ends, whatever the wall clock did between two runs."""

from __future__ import annotations

import trio

from appliance.jobs.changes import Missed
from tests.lab import open_lab

DAY_S = 86400.0


async def test_a_clock_set_back_between_two_runs_makes_no_back_off_longer(autojump_clock):
    async with open_lab() as lab:
        await lab.know()
        # As the next run sees it: its clock is a day behind the one that wrote this.
        until = lab.scheduler.clock.now() + DAY_S + 30
        await lab.scheduler.keep([Missed("box-1", until)])

    async with open_lab(disk=lab.disk) as lab:
        await lab.know()
        answer = await lab.ask()
        began = trio.current_time()
        job = await lab.submit()

        assert f"/{job.id}/" in (await answer.rest()).decode()
        assert trio.current_time() - began <= lab.config.waits.backoff_max + 1
