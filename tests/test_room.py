"""Room for what is being sent: who gets it, and who gives way to whom."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from appliance.web.room import NoRoom, Room


async def never():
    await trio.sleep_forever()


async def hold(room, who, size, told):
    """A sender that has sent `size` bytes, and sends no more."""
    try:
        with room.place(who) as place:
            place.hold(size)
            await place.wait(never)
    except NoRoom:
        told.append(who)


async def test_what_fits_is_held_and_given_back():
    room = Room(100, 60)
    with room.place("ann") as first, room.place("ben") as second:
        first.hold(60)
        second.hold(40)
        assert 100 == room.taken
        second.hold(10)
        first.hold(60)
        assert 70 == room.taken
    assert 0 == room.taken


async def test_the_one_that_held_most_for_longest_gives_way(nursery, autojump_clock):
    told, room = [], Room(100, 100, small=5)
    nursery.start_soon(hold, room, "a little for long", 5, told)
    await trio.sleep(10)
    nursery.start_soon(hold, room, "much for long", 50, told)
    await trio.sleep(10)
    nursery.start_soon(hold, room, "much", 40, told)
    await trio.sleep(1)
    with room.place("quick") as place:
        place.hold(50)
        await wait_all_tasks_blocked()
        assert ["much for long"] == told
        assert 95 == room.taken
        place.hold(60)
        await wait_all_tasks_blocked()
        assert ["much for long", "much"] == told
        place.hold(95)
        assert 2 == len(told)  # the small one is not in the way
        with pytest.raises(NoRoom, match="send it again"):
            place.hold(101)
    nursery.cancel_scope.cancel()


async def test_a_small_one_gives_way_where_there_is_no_other(nursery, autojump_clock):
    told, room = [], Room(100, 100, small=50)
    nursery.start_soon(hold, room, "for long", 50, told)
    await trio.sleep(10)
    nursery.start_soon(hold, room, "small", 50, told)
    await trio.sleep(1)
    with room.place("new") as place:
        place.hold(50)
        await wait_all_tasks_blocked()
        assert ["for long"] == told
    nursery.cancel_scope.cancel()


async def test_what_has_arrived_gives_way_to_nobody(nursery, autojump_clock):
    room = Room(100, 100)
    with room.place("ann") as arrived, room.place("ben") as later:
        arrived.hold(80)
        arrived.arrives = False
        await trio.sleep(10)
        later.hold(20)
        await trio.sleep(10)
        with pytest.raises(NoRoom):
            later.hold(21)
        arrived.hold(80)


async def test_of_one_sender_only_his_own_give_way(nursery, autojump_clock):
    told, room = [], Room(100, 60)
    nursery.start_soon(hold, room, "ben", 40, told)
    await trio.sleep(10)
    nursery.start_soon(hold, room, "ann", 50, told)
    await trio.sleep(1)
    with room.place("ann") as place:
        place.hold(60)
        await wait_all_tasks_blocked()
        assert ["ann"] == told
        assert 100 == room.taken
        with pytest.raises(NoRoom):
            place.hold(61)
    nursery.cancel_scope.cancel()


async def test_who_gave_way_while_it_did_not_wait_learns_it_at_its_next_step(autojump_clock):
    room = Room(100, 100)
    with room.place("ann") as slow, room.place("ben") as quick:
        slow.hold(90)
        await trio.sleep(1)
        quick.hold(50)
        with pytest.raises(NoRoom):
            slow.hold(91)
        with pytest.raises(NoRoom):
            await slow.wait(trio.lowlevel.checkpoint)
        assert 50 == room.taken


async def test_an_empty_place_is_as_old_as_its_message(autojump_clock):
    """A connection that asks once a day is no slow one."""
    room = Room(100, 100)
    with room.place("old") as old, room.place("slow") as slow, room.place("new") as new:
        await trio.sleep(1000)
        slow.hold(40)
        await trio.sleep(1)
        old.hold(45)
        new.hold(40)
        old.hold(46)
        assert 86 == room.taken
        with pytest.raises(NoRoom):
            slow.hold(41)


async def test_one_that_holds_nothing_is_not_asked_for_room_for_ever(autojump_clock):
    """A question without its body, and a room that is full of what has arrived."""
    room = Room(100, 100)
    with room.place("a") as whole, room.place("a"), room.place("a") as late:
        whole.hold(100)
        whole.arrives = False
        with pytest.raises(NoRoom):
            late.hold(1)


class Counted(dict):
    """Places, and how often somebody went through all of them."""

    looks = 0

    def __iter__(self):
        self.looks += 1
        return super().__iter__()


async def test_bytes_for_which_there_is_room_cost_no_look_at_the_others():
    room = Room(10**6, 10**6)
    room._places = places = Counted()
    with room.place("a") as one, room.place("b") as other:
        for size in range(1, 100):
            one.hold(size)
            other.hold(size)
        assert 198 == room.taken
        other.hold(0)
        assert 0 == places.looks
    assert 0 == room.taken
