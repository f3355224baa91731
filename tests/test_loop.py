"""The meter of the loop's rounds: many small steps in one round are as bad as one long step."""

from __future__ import annotations

import time

import trio
from trio.testing import wait_all_tasks_blocked

from tests.loop import rounds

STEPS, STEP_S = 20, 0.005


async def _work(together):
    await together.wait()
    until = time.thread_time() + STEP_S
    while time.thread_time() < until:
        pass


async def test_twenty_steps_in_a_round_are_twenty_times_one():
    together = trio.Event()
    with rounds() as seen:
        async with trio.open_nursery() as nursery:
            for _ in range(STEPS):
                nursery.start_soon(_work, together)
            await wait_all_tasks_blocked()
            together.set()

    assert seen.longest >= STEPS * STEP_S
