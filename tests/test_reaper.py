"""What is due ends, whatever the wall clock did between two runs."""

from __future__ import annotations

import trio

from appliance.jobs import decisions
from appliance.jobs.changes import Missed
from tests.lab import KEY, open_lab

DAY_S = 86400.0


async def test_a_clock_set_back_between_two_runs_makes_no_back_off_longer(autojump_clock):
    async with open_lab() as lab:
        await lab.know()
        # As the next run sees it: its clock is a day behind the one that wrote this.
        until = lab.scheduler.clock.now() + DAY_S + 30
        await lab.scheduler.durable(lab.scheduler.change([Missed("box-1", until)]))

    async with open_lab(disk=lab.disk) as lab:
        await lab.know()
        answer = await lab.ask()
        began = trio.current_time()
        job = await lab.submit()

        assert f"/{job.id}/" in (await answer.rest()).decode()
        assert trio.current_time() - began <= lab.config.waits.backoff_max + 1


async def test_a_wake_up_looks_at_what_is_due_and_not_at_all_there_is(autojump_clock, monkeypatch):
    async with open_lab() as lab:
        for n in range(20):
            mac = f"52:54:00:00:01:{n:02x}"
            await lab.know(f"box-{n}", mac)
            asked = f"/boot.ipxe/mac/{mac.replace(':', '-')}?arch=x86_64"
            await lab.ask(asked, f"10.0.1.{n + 1}")
            await lab.submit(key=f"{KEY}{n:02}")
            await trio.sleep(1)
        looked = []
        monkeypatch.setattr(decisions, "deadline", _counted(decisions.deadline, looked))
        await trio.sleep(lab.config.waits.offer_lease - 20 + 0.5)  # the first of them is over

        assert 1 <= len(set(looked)) <= 2, looked


def _counted(deadline, looked):
    def count(job, heard, waits):
        looked.append(job.id)
        return deadline(job, heard, waits)

    return count
