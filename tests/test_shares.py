"""The limit of open files in shares: who gets a place, who loses one, who finds none."""

from __future__ import annotations

import random
from contextlib import suppress
from functools import partial

import pytest

from appliance.web import shares
from appliance.web.shares import READS, WAITS, Callers, Full, Kind, Places, Shares, note

LIMITS = [64, 400, 1024, 4096, 20_000, 65_536, 1_048_576]


def nobody() -> None:
    raise AssertionError("nobody should be cut")


@pytest.mark.parametrize("limit", LIMITS)
def test_the_shares_are_not_more_than_there_is(limit):
    made = Shares.of(limit)
    there = made.control * READS + made.lab + made.others + shares.RESERVED

    assert there <= max(limit, shares.RESERVED + 16 * READS + shares.CONNECTIONS_MIN)
    assert made.others < made.lab
    for kind in Kind:
        assert READS <= made.most(kind) <= (made.others if kind is Kind.OTHER else made.lab)


def test_a_higher_limit_gives_no_more_memory_to_strangers_and_the_rest_to_the_lab():
    low, high = Shares.of(20_000), Shares.of(1_048_576)

    assert low.others == high.others == shares.OTHERS_MAX
    assert high.lab > 1_000_000
    assert Shares.of(4096).others < shares.OTHERS_MAX


def test_ten_thousand_parked_boxes_find_a_place_each_from_an_address_of_its_own():
    for limit in (20_000, 65_536):
        places = Places(Shares.of(limit))
        for number in range(10_000):
            places.enter(f"10.1.{number // 250}.{number % 250}", Kind.BOX, WAITS, nobody)


def test_ten_thousand_virtual_boxes_find_a_place_from_their_providers_address():
    places = Places(Shares.of(20_000))
    for _ in range(10_000):
        places.enter("10.0.0.2", Kind.HOST, WAITS, nobody)


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("cost", [WAITS, READS])
def test_an_address_has_its_part_and_no_more_until_it_gives_something_back(kind, cost):
    made = Shares.of(4096)
    places = Places(made)
    held = [places.enter("10.0.0.9", kind, cost, nobody) for _ in range(made.most(kind) // cost)]
    with pytest.raises(Full, match=r"10\.0\.0\.9 has as many connections open as one address may"):
        places.enter("10.0.0.9", kind, READS, nobody)
    places.enter("10.0.0.10", kind, cost, nobody)
    for place in held:
        places.leave(place)
    assert places.enter("10.0.0.9", kind, READS, nobody)


def test_an_address_that_has_its_part_loses_what_asks_for_nothing_and_first_the_oldest():
    made = Shares.of(4096)
    places, cut = Places(made), []
    held = [
        places.enter("10.0.0.9", Kind.OTHER, READS, lambda n=n: cut.append(n))
        for n in range(made.most(Kind.OTHER) // READS)
    ]
    for number in (7, 3, 5):
        note(held[number], idle=True)
    note(held[3], idle=False)
    for _ in range(2):
        places.enter("10.0.0.9", Kind.OTHER, READS, nobody)

    assert [7, 5] == cut
    with pytest.raises(Full):
        places.enter("10.0.0.9", Kind.OTHER, READS, nobody)


def test_for_one_that_reads_a_file_two_that_wait_make_room():
    places, cut = Places(Shares(control=16, lab=32, others=16)), []
    for number in range(4):
        note(places.enter("10.0.0.9", Kind.OTHER, WAITS, lambda n=number: cut.append(n)), idle=True)
    places.enter("10.0.0.9", Kind.OTHER, READS, nobody)

    assert [0, 1] == cut
    assert (0, 4) == places.used


def full_of_strangers(limit=4096):
    """Places of which strangers hold all that they may; who was cut, by address."""
    made = Shares.of(limit)
    places, cut, held = Places(made), [], []
    most = made.most(Kind.OTHER) // READS
    for number in range(made.others // READS):
        who = f"10.9.0.{number // most}"
        held.append(places.enter(who, Kind.OTHER, READS, lambda n=number: cut.append(n)))
    return places, cut, held, most


def test_strangers_who_hold_all_that_they_may_take_nothing_from_the_lab():
    places, cut, _, _ = full_of_strangers()
    for number in range(100):
        places.enter(f"10.0.0.{number}", Kind.BOX, READS, nobody)
        places.enter("10.0.1.1", Kind.HOST, WAITS, nobody)

    assert [] == cut


def test_a_newcomer_gets_the_newest_place_of_the_greediest_or_the_one_that_asks_for_nothing():
    places, cut, held, most = full_of_strangers()
    note(held[1], idle=True)
    first = places.enter("10.0.0.1", Kind.OTHER, READS, nobody)
    second = places.enter("10.0.0.2", Kind.OTHER, READS, nobody)

    assert [1] == cut[:1]
    assert cut[1] % most == most - 1 or cut[1] == len(held) - 1
    assert 2 == places.leaving
    for place in (held[cut[0]], held[cut[1]], first, second):
        places.leave(place)
    assert 0 == places.leaving


def test_who_has_as_much_as_the_greediest_takes_nothing_from_anybody():
    made = Shares.of(4096)
    places = Places(made)
    for number in range(made.others // READS):
        places.enter(f"10.9.{number // 250}.{number % 250}", Kind.OTHER, READS, nobody)
    with pytest.raises(Full, match="too many connections are open"):
        places.enter("10.0.0.1", Kind.OTHER, READS, nobody)
    places.enter("10.0.0.1", Kind.BOX, READS, nobody)


@pytest.mark.parametrize("crowd", [WAITS, READS])
def test_an_upload_from_an_address_that_nobody_knows_is_cut_by_no_crowd(crowd):
    """It holds two descriptors: among newcomers that hold one each, it would be the greediest."""
    made, cut = Shares.of(4096), []
    places = Places(made)
    upload = places.enter("10.0.0.1", Kind.OTHER, READS, partial(cut.append, "the upload"))
    with suppress(Full):
        for number in range(2 * made.others):
            who = f"10.9.{number // 250}.{number % 250}"
            places.enter(who, Kind.OTHER, crowd, partial(cut.append, number))

    assert [] == cut
    places.leave(upload)


def test_no_more_are_cut_than_the_reserve_has_room_for():
    places, cut, held, _ = full_of_strangers(65_536)
    for number in range(shares.LEAVING_MAX):
        places.enter(f"10.0.0.{number}", Kind.OTHER, READS, nobody)
    with pytest.raises(Full, match="too many connections are being closed"):
        places.enter("10.0.1.1", Kind.OTHER, READS, nobody)
    places.leave(held[cut[0]])
    assert places.enter("10.0.1.1", Kind.OTHER, READS, nobody)
    assert 2 * shares.LEAVING_MAX + 16 <= 48  # of the reserve, with those who are turned away


def test_strangers_who_do_not_go_keep_nobody_of_the_lab_out():
    made = Shares.of(4096)
    places, cut, _, _ = full_of_strangers(4096)
    for number in range(shares.LEAVING_MAX):
        places.enter(f"10.0.0.{number}", Kind.OTHER, READS, nobody)
    assert shares.LEAVING_MAX == len(cut) == places.leaving
    gone: list[int] = []
    for number in range(made.most(Kind.BOX) // WAITS):
        place = places.enter("10.1.0.1", Kind.BOX, WAITS, lambda n=number: gone.append(n))
        note(place, idle=True)

    assert places.enter("10.1.0.1", Kind.BOX, WAITS, nobody)
    assert [0] == gone


@pytest.mark.parametrize("seed", range(20))
def test_whoever_comes_and_goes_the_sums_are_right(seed):
    """A model beside it: lists."""
    rng = random.Random(seed)
    made = Shares.of(400)
    places, here, cut = Places(made), [], []
    for _ in range(2000):
        action = rng.random()
        if action < 0.6:
            drawn = [("o", 9, Kind.OTHER), ("b", 20, Kind.BOX), ("h", 1, Kind.HOST)]
            letter, several, kind = rng.choice(drawn)
            who = f"{letter}{rng.randrange(several)}"
            mine: list[shares.Place] = []
            try:
                place = places.enter(
                    who, kind, rng.choice([WAITS, READS]), lambda mine=mine: cut.append(mine[0])
                )
            except Full:
                continue
            mine.append(place)
            here.append(place)
        elif here and action < 0.8:
            places.leave(here.pop(rng.randrange(len(here))))
        elif here:
            note(rng.choice(here), idle=rng.random() < 0.5)
        standing = [place for place in here if place not in cut]
        lab = sum(place.cost for place in standing if not place.who.startswith("o"))
        others = sum(place.cost for place in standing if place.who.startswith("o"))

        assert (lab, others) == places.used
        assert lab <= made.lab
        assert others <= made.others
        leaving = [place.who for place in here if place not in standing]
        strangers = sum(who.startswith("o") for who in leaving)
        assert places.leaving == len(leaving)
        assert max(strangers, len(leaving) - strangers) <= shares.LEAVING_MAX
        for who in {place.who for place in standing}:
            kind = {"o": Kind.OTHER, "b": Kind.BOX, "h": Kind.HOST}[who[0]]
            assert sum(p.cost for p in standing if p.who == who) <= made.most(kind)


def test_a_user_has_half_of_the_control_socket_and_root_always_finds_a_place():
    callers = Callers(16)
    for _ in range(8):
        callers.enter("ann")
    with pytest.raises(Full, match="ann has 8 connections to the control socket open"):
        callers.enter("ann")
    for _ in range(4):
        callers.enter("bob")
    with pytest.raises(Full, match="12 connections to the control socket are open"):
        callers.enter("eve")
    for _ in range(4):
        callers.enter("root")
    with pytest.raises(Full):
        callers.enter("root")
    callers.leave("ann")
    callers.enter("root")
