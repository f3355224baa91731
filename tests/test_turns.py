"""Work in slices: however many want theirs at once, one of them goes on in each round."""

from __future__ import annotations

import trio
from trio.testing import wait_all_tasks_blocked

from appliance.turns import ONE_SLICE


class Counter(trio.abc.Instrument):
    """How many went on in each round."""

    def __init__(self):
        self.rounds, self.now = [], 0

    def before_io_wait(self, timeout):
        if self.now:
            self.rounds.append(self.now)
        self.now = 0


async def crowd(number, go_on):
    counter, began = Counter(), trio.Event()

    async def one():
        await began.wait()
        await go_on()
        counter.now += 1

    async with trio.open_nursery() as nursery:
        for _ in range(number):
            nursery.start_soon(one)
        await wait_all_tasks_blocked()
        trio.lowlevel.add_instrument(counter)
        began.set()
    trio.lowlevel.remove_instrument(counter)
    return [*counter.rounds, counter.now] if counter.now else counter.rounds


async def test_of_slices_there_is_one_in_each_round():
    async def go_on():
        async with ONE_SLICE:
            pass

    assert 1 == max(await crowd(20, go_on))
