"""Berths for bodies: who waits for one, whose turn it is, and who loses his."""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from appliance.web import berths
from appliance.web.berths import Berths, NoRoom

MB = 2**20
LARGE = 9 * MB  # a package, as the kernel of one of 2021 is


def room():
    return Berths(most=20 * MB, each=11 * MB)


class Sender:
    """One body, from its head to its answer."""

    def __init__(self, berths, who, size, rate=100 * MB):
        self.berths, self.who, self.size, self.rate = berths, who, size, rate
        self.began = self.ended = self.why = None

    async def send(self):
        """Send at `rate` bytes a second; 0 is nothing at all."""
        try:
            async with self.berths.berth(self.who, self.size) as berth:
                self.began = trio.current_time()
                await self._arrive(berth)
                self.ended = trio.current_time()
        except NoRoom as error:
            self.why = str(error)

    async def _arrive(self, berth):
        sent, piece = 0, 2**15
        come = partial(trio.sleep, piece / self.rate if self.rate else 10**6)
        while sent < self.size:
            await berth.wait(come)
            berth.took(min(piece, self.size - sent))
            sent += piece
        berth.settle(self.size)


async def send_all(nursery, senders):
    for sender in senders:
        nursery.start_soon(sender.send)
        await wait_all_tasks_blocked()


async def test_large_bodies_that_come_at_once_wait_for_each_other_and_all_arrive(autojump_clock):
    made = room()
    one = [Sender(made, "10.0.0.1", LARGE) for _ in range(4)]
    others = [Sender(made, f"10.0.1.{n}", LARGE) for n in range(4)]
    async with trio.open_nursery() as nursery:
        await send_all(nursery, one + others)

    assert all(sender.ended for sender in one + others)
    assert (0, 0) == (made.taken, made.waiting)


async def test_of_all_that_is_set_aside_there_is_never_more_than_said(autojump_clock):
    made, most = room(), 0
    for n in range(20):
        made.prove(f"10.0.0.{n}")
    senders = [Sender(made, f"10.0.0.{n % 40}", (n % 10 + 1) * MB) for n in range(80)]
    async with trio.open_nursery() as nursery:
        await send_all(nursery, senders)
        while made.waiting:
            most = max(most, made.taken)
            await trio.sleep(0.01)

    assert 15 * MB < most <= 20 * MB
    assert all(sender.ended for sender in senders)


async def test_who_sends_nothing_loses_to_who_waits_and_is_told_so(autojump_clock):
    made = room()
    silent = [Sender(made, f"10.9.0.{n}", 10 * MB, rate=0) for n in range(5)]
    honest = Sender(made, "10.0.0.1", LARGE)
    async with trio.open_nursery() as nursery:
        await send_all(nursery, [*silent, honest])

    assert [berths.SLOW] * 5 == [sender.why for sender in silent]
    assert honest.ended < 10


async def test_who_brings_a_little_now_and_then_is_slow(autojump_clock):
    made = room()
    dripping = Sender(made, "10.9.0.1", 10 * MB, rate=2**15 / 0.9)
    honest = Sender(made, "10.0.0.1", LARGE)
    async with trio.open_nursery() as nursery:
        await send_all(nursery, [dripping, honest])

    assert berths.SLOW == dripping.why
    assert honest.ended < 5


async def test_one_address_does_not_have_all_the_room(autojump_clock):
    made = room()
    for who in ("10.0.0.1", "10.0.0.2"):
        made.prove(who)
    greedy = [Sender(made, "10.0.0.1", LARGE, rate=MB) for _ in range(2)]
    other = Sender(made, "10.0.0.2", LARGE)
    async with trio.open_nursery() as nursery:
        await send_all(nursery, [*greedy, other])

    assert other.began == greedy[0].began
    assert all(one.ended for one in greedy)


async def test_who_is_slow_keeps_his_berth_as_long_as_nobody_waits(autojump_clock):
    made = room()
    slow = Sender(made, "10.0.0.1", MB, rate=20_000)
    async with trio.open_nursery() as nursery:
        await send_all(nursery, [slow])

    assert slow.ended > 50


async def test_a_slow_small_one_is_in_nobodys_way_who_waits_for_a_large_one(autojump_clock):
    made = room()
    slow = Sender(made, "10.0.0.1", 60_000, rate=20_000)
    senders = [Sender(made, f"10.9.0.{n}", 10 * MB, rate=2 * MB) for n in range(3)]
    async with trio.open_nursery() as nursery:
        await send_all(nursery, [slow, *senders])

    assert slow.ended
    assert all(sender.ended for sender in senders)


async def test_the_time_that_a_body_waits_for_us_is_not_its_own(autojump_clock):
    made, told = room(), []

    async def busy_with_it():
        async with made.berth("10.0.0.1", 10 * MB) as berth:
            for _ in range(80):
                await berth.wait(trio.lowlevel.checkpoint)
                berth.took(2**17)
                await trio.sleep(0.5)  # we are slow: the loop is somebody else's
            told.append("arrived")

    other = Sender(made, "10.0.0.2", 10 * MB)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(busy_with_it)
        await wait_all_tasks_blocked()
        await send_all(nursery, [other])

    assert ["arrived"] == told
    assert other.ended > 40


async def test_a_small_one_does_not_wait_for_large_ones(autojump_clock):
    made = room()
    large = [Sender(made, f"10.9.0.{n}", 10 * MB, rate=MB) for n in range(100)]
    small = Sender(made, "10.9.0.1", 5000)
    async with trio.open_nursery() as nursery:
        await send_all(nursery, [*large, small])
        await trio.sleep(1)
        assert small.ended
        nursery.cancel_scope.cancel()


async def test_strangers_however_quick_leave_half_to_those_who_used_an_account(autojump_clock):
    made = room()
    made.prove("10.0.0.1")
    async with trio.open_nursery() as nursery:
        await send_all(nursery, [Sender(made, f"10.9.0.{n}", 10 * MB, rate=MB) for n in range(100)])
        known = [Sender(made, "10.0.0.1", LARGE) for _ in range(3)]
        await send_all(nursery, known)
        await trio.sleep(5)
        assert all(sender.ended for sender in known)
        nursery.cancel_scope.cancel()


async def test_an_address_that_asks_often_waits_for_itself(autojump_clock):
    made = room()
    greedy = [Sender(made, "10.9.0.1", 10 * MB, rate=5 * MB) for _ in range(20)]
    honest = Sender(made, "10.0.0.1", LARGE)
    async with trio.open_nursery() as nursery:
        await send_all(nursery, [*greedy, honest])

    assert honest.ended
    # One had its berth, and one was the first to wait.
    assert 2 == sum(one.began is not None and one.began < honest.began for one in greedy)


async def test_nobody_smaller_comes_before_whose_turn_it_is(autojump_clock):
    made = room()
    first = Sender(made, "10.0.0.1", 6 * MB, rate=MB)
    large = Sender(made, "10.0.0.2", 10 * MB)
    smaller = Sender(made, "10.0.0.3", 2 * MB)
    async with trio.open_nursery() as nursery:
        await send_all(nursery, [first, large, smaller])

    assert first.ended <= large.began < smaller.began


async def test_who_waits_for_too_long_is_told(autojump_clock):
    made = room()
    senders = [Sender(made, f"10.9.0.{n}", 10 * MB, rate=200_000) for n in range(2)]
    async with trio.open_nursery() as nursery:
        await send_all(nursery, senders)

    assert (None, berths.LATE) == (senders[0].why, senders[1].why)


async def test_a_full_line_has_a_place_for_who_has_fewer_in_it(autojump_clock):
    made = room()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(made.berth("10.0.0.1", 10 * MB))
        greedy = [Sender(made, "10.9.0.1", 10 * MB) for _ in range(berths.WAITING_MAX)]
        async with trio.open_nursery() as nursery:
            await send_all(nursery, greedy)
            assert berths.WAITING_MAX == made.waiting
            with pytest.raises(NoRoom, match="too many others"):
                await stack.enter_async_context(made.berth("10.9.0.1", 10 * MB))
            await send_all(nursery, [Sender(made, "10.0.0.2", LARGE)])
            assert berths.WAITING_MAX == made.waiting
            assert [berths.CROWD] == [sender.why for sender in greedy if sender.why]
            nursery.cancel_scope.cancel()
        assert 0 == made.waiting


async def test_who_hangs_up_while_he_waits_waits_no_more(autojump_clock):
    made = room()
    async with made.berth("10.0.0.1", 10 * MB):
        with trio.move_on_after(1):
            async with made.berth("10.0.0.2", 10 * MB):
                raise AssertionError("there was no room")
        assert (10 * MB, 0) == (made.taken, made.waiting)
    assert 0 == made.taken


async def test_who_goes_unserved_lets_those_behind_him_in(autojump_clock):
    made, came = room(), []

    async def small():
        async with made.berth("10.0.0.3", MB):
            came.append(trio.current_time())

    async with trio.open_nursery() as nursery, made.berth("10.0.0.1", 6 * MB):
        began = trio.current_time()
        with trio.move_on_after(1):
            nursery.start_soon(later, small)
            async with made.berth("10.0.0.2", 10 * MB):
                raise AssertionError("there was no room")
        await trio.sleep(30)

    assert [1] == [round(at - began) for at in came]


async def later(what):
    await trio.sleep(0.5)
    await what()


async def test_what_was_not_sent_of_what_was_said_is_given_back(autojump_clock):
    made = room()
    async with made.berth("10.0.0.1", 10 * MB) as berth:
        berth.settle(5000)
        async with made.berth("10.0.0.2", LARGE):
            assert LARGE + 5000 == made.taken


async def test_of_known_addresses_the_latest_are_remembered(autojump_clock, monkeypatch):
    monkeypatch.setattr(berths, "KNOWN_MAX", 2)
    made = room()
    for who in ("10.0.0.1", "10.0.0.2", "10.0.0.1", "10.0.0.3"):
        made.prove(who)
    async with made.berth("10.9.0.1", 10 * MB):
        async with made.berth("10.0.0.1", 10 * MB):
            pass
        with trio.move_on_after(1):
            async with made.berth("10.0.0.2", 10 * MB):
                raise AssertionError("it is a stranger again")


async def test_four_thousand_slow_bodies_hold_few_berths():
    made = room()
    async with trio.open_nursery() as nursery:
        senders = [Sender(made, f"10.9.{n // 250}.{n % 250}", 10_000, rate=0) for n in range(4000)]
        for sender in senders:
            nursery.start_soon(sender.send)
        await wait_all_tasks_blocked()

        assert 104 == sum(sender.began is not None for sender in senders)
        assert berths.WAITING_MAX == made.waiting
        assert 104 * 10_000 == made.taken
        nursery.cancel_scope.cancel()
