"""How late the event loop is, as the server itself sees it."""

from __future__ import annotations

import structlog
import trio

from appliance.jobs.shown.measures import Lateness
from appliance.scheduler import pulse


async def test_a_loop_that_does_its_work_in_time_is_not_late(autojump_clock):
    lateness = Lateness()
    with trio.move_on_after(10):
        await pulse.watch(lateness)

    assert 10 / pulse.PULSE_S - 1 <= sum(lateness.counts) <= 10 / pulse.PULSE_S
    assert lateness.worst < 1e-6


async def test_what_holds_the_loop_is_seen_for_as_long_as_it_holds_it(mock_clock):
    lateness = Lateness()
    async with trio.open_nursery() as nursery:
        with structlog.testing.capture_logs() as lines:
            nursery.start_soon(pulse.watch, lateness)
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(pulse.PULSE_S + 3.0)  # nobody could run meanwhile
            await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()

    assert 3.0 == round(lateness.worst, 6)
    assert [("the event loop stood still", 3.0)] == [(x["event"], x["seconds"]) for x in lines]
