"""Work in turns: however many want theirs at once, one slice goes on in each round, fairly."""

from __future__ import annotations

import time
from functools import partial

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from appliance import turns
from appliance.turns import US, Pace, Slices, Turns, own_round, slices


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
    assert 1 == max(await crowd(20, partial(own_round, "10.0.0.9")))
    assert 1 == max(await crowd(20, own_round))


async def test_of_small_pieces_a_few_share_a_round_and_none_waits_for_ever():
    shares = turns.ROUND_BYTES // 512
    rounds = await crowd(100, lambda: turns.round_for("10.0.0.9", 512))

    assert 100 == sum(rounds)
    assert max(rounds) <= shares + 1
    # The first waits for the next round, the others share this one.
    assert [shares - 1, 1] == await crowd(shares, lambda: turns.round_for("10.0.0.9", 512))


async def test_a_piece_that_says_nothing_counts_too():
    assert max(await crowd(200, lambda: turns.round_for("10.0.0.9", 1))) <= (
        turns.ROUND_BYTES // turns.LEAST_BYTES + 1
    )


async def test_who_is_cancelled_as_the_first_of_a_round_keeps_no_room():
    with trio.move_on_after(0) as scope:
        scope.cancel()
        await turns.round_for("10.0.0.9", turns.SMALL_BYTES)

    assert scope.cancelled_caught
    few = turns.ROUND_BYTES // turns.SMALL_BYTES
    assert [few - 1, 1] == await crowd(few, lambda: turns.round_for("10.0.0.9", turns.SMALL_BYTES))


async def test_a_large_piece_has_a_round_of_its_own():
    assert 1 == max(await crowd(20, lambda: turns.round_for("10.0.0.9", turns.SMALL_BYTES + 1)))


async def ask(who, told):
    await own_round(who)
    told.append(who)


async def order_of(*asked):
    """In which order they have their slices, all of whom ask within one round."""
    told = []
    async with trio.open_nursery() as nursery:
        await own_round("first")  # it has this round's, and those that follow wait
        nursery.start_soon(own_round, "first")
        await trio.lowlevel.checkpoint()
        for who in asked:
            nursery.start_soon(ask, who, told)
    assert not slices()
    return told


async def test_each_address_has_its_slice_after_the_other_however_often_one_asks():
    told = await order_of(*["10.9.0.1"] * 50, *["10.9.0.2"] * 50, *["10.0.0.1"] * 3)

    assert 103 == len(told)
    assert max(place for place, who in enumerate(told) if who == "10.0.0.1") < 12


async def test_the_lab_has_every_second_slice_and_keeps_nobody_out():
    slices().is_lab = lambda who: who.startswith("10.0.")
    told = await order_of(
        *[f"10.9.0.{n}" for n in range(50)], *["10.0.0.1", US, "10.0.0.2"] * 10, "10.9.0.99"
    )
    lab = [place for place, who in enumerate(told) if not who.startswith("10.9.")]

    assert 30 == len(lab)
    assert max(lab) < 62
    assert {"10.0.0.1", "10.0.0.2", US} == {told[place] for place in lab[:3]}
    assert any(who.startswith("10.9.") for who in told[:4])


async def test_who_is_cancelled_while_he_waits_keeps_nobody_waiting():
    told = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(own_round, "10.0.0.1")
        async with trio.open_nursery() as gone:
            for _ in range(3):
                gone.start_soon(ask, "10.9.0.1", told)
            await trio.lowlevel.checkpoint()
            gone.cancel_scope.cancel()
        nursery.start_soon(ask, "10.0.0.2", told)
    with trio.CancelScope() as scope:
        scope.cancel()
        await own_round("10.0.0.3")
    with trio.fail_after(1):
        await ask("10.0.0.4", told)

    assert "10.0.0.2" in told
    assert "10.0.0.4" == told[-1]
    assert not slices()


async def test_a_turn_of_who_was_cancelled_in_the_same_round_goes_to_the_next():
    made, told = Slices(), []
    made._taken = True  # somebody has this round's

    async def later():
        await made.own_round("10.0.0.2")
        told.append("10.0.0.2")

    with trio.fail_after(1):
        async with trio.open_nursery() as nursery, trio.open_nursery() as gone:
            gone.start_soon(made.own_round, "10.9.0.1")
            await wait_all_tasks_blocked()
            nursery.start_soon(later)
            await wait_all_tasks_blocked()
            gone.cancel_scope.cancel()  # it has left, and does not know it yet
            made._pass_on()
        await made.own_round("10.0.0.3")

    assert ["10.0.0.2"] == told


def test_a_loop_begins_without_those_who_waited_in_another():
    async def leave():
        slices()._taken = True

    trio.run(leave)
    with pytest.raises(LookupError):
        trio.run(begin)


async def begin():
    with trio.fail_after(1):
        await own_round()
    raise LookupError


async def test_small_steps_share_a_round_as_far_as_a_slice_goes(monkeypatch):
    rounds, now = [], [100.0]
    monkeypatch.setattr(turns, "own_round", lambda who: noted(rounds, who))
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    pace = Pace("10.0.0.1")
    for _ in range(10):
        await pace.step()
        now[0] += turns.SLICE_S / 4

    assert ["10.0.0.1"] * 3 == rounds


async def noted(rounds, who):
    rounds.append(who)


async def test_of_an_address_whose_turn_was_cancelled_nothing_is_kept():
    made = Turns(1)
    with trio.CancelScope() as scope:
        scope.cancel()
        await made.begin("10.0.0.1")
    assert 0 == len(made)

    turn = await made.begin("10.0.0.1")
    for who in ("10.0.0.1", "10.0.0.2"):
        with trio.CancelScope() as scope:
            scope.cancel()
            await made.begin(who)
        assert 1 == len(made)
    async with trio.open_nursery() as nursery:
        for who in ("10.0.0.1", "10.0.0.2"):
            nursery.start_soon(made.begin, who)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert 1 == len(made)
    turn.give_back()
    assert 0 == len(made)


async def test_waiters_of_an_address_that_are_cancelled_as_its_turn_ends_leave_nothing():
    for back_first in (True, False):
        made = Turns(1)
        turn = await made.begin("10.0.0.1")
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(made.begin, "10.0.0.1")
            await wait_all_tasks_blocked()
            if back_first:
                turn.give_back()
            nursery.cancel_scope.cancel()
            turn.give_back()
        assert 0 == len(made)


async def test_a_turn_ends_with_its_block():
    made = Turns(1)
    with pytest.raises(ZeroDivisionError):
        async with made.turn("10.0.0.1"):
            raise ZeroDivisionError
    assert 0 == len(made)
    with trio.fail_after(1):
        await made.begin("10.0.0.2")
