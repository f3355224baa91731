"""Work in rounds: however many want to go on at once, a few of them do in each round."""

from __future__ import annotations

import trio
from trio.testing import wait_all_tasks_blocked

from appliance.turns import ONE_SLICE, Rounds


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


async def test_of_a_crowd_a_few_go_on_in_each_round():
    rounds = Rounds(7)
    found = await crowd(100, rounds.turn)

    assert 100 == sum(found)
    assert 7 == max(found)
    assert 100 // 7 <= len(found) <= 100 // 7 + 3


async def test_who_is_alone_does_not_wait_for_a_round():
    rounds = Rounds(7)
    statistics = trio.lowlevel.current_statistics
    before = statistics().run_sync_soon_queue_size
    for _ in range(7):
        await rounds.turn()

    assert before + 1 == statistics().run_sync_soon_queue_size  # one end of a round, and no other


async def test_a_place_that_was_given_up_is_nobodys_loss():
    rounds = Rounds(1)
    went = []

    async def one(number):
        await rounds.turn()
        went.append(number)

    await rounds.turn()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one, 1)
            await trio.lowlevel.checkpoint()
            scope.cancel()
    async with trio.open_nursery() as nursery:
        for number in (2, 3):
            nursery.start_soon(one, number)

    assert {2, 3} == set(went) - {1}


def test_a_loop_that_ended_within_a_round_keeps_nobody_waiting_in_the_next():
    rounds = Rounds(1)
    for _ in range(3):
        trio.run(rounds.turn)


async def test_of_slices_there_is_one_in_each_round():
    async def go_on():
        async with ONE_SLICE:
            pass

    assert 1 == max(await crowd(20, go_on))
