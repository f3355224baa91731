"""Whatever those who watch ask for, and however few of them read, the lab goes on."""

from __future__ import annotations

import contextlib
import json
import tracemalloc

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from appliance.control import lab_verbs
from appliance.doors import monitor
from appliance.errors import BadRequest, Refused
from appliance.jobs import decisions
from appliance.scheduler import queries, watching
from appliance.scheduler.queries import News, Query
from appliance.scheduler.watching import Group, Pacing
from tests import fakes
from tests.lab import KEY, open_lab
from tests.loop import STALL_S, rounds

MONITOR = ("10.0.0.1", 20001)
NAME = "a" * 255  # the longest that a file can have
ADDRESSES = [f"10.0.0.{n}" for n in range(60, 64)]
HEAVY = ".{1,40}a.{1,40}"  # some 740 instructions
WORST = {  # of the watcher of that number: RE2 keeps what it has compiled for another
    "as in the attack": lambda w: {"message": [f".{{1,100}}a.{{1,100}}{w}-{n}" for n in range(99)]},
    "slow to refuse": lambda w: {"message": r"\pL" * 40 + str(w)},
    "as large as it may be": lambda w: {"message": [f"{HEAVY}{w}"]},
    "many": lambda w: {"message": [f"[a-z].{w}-{n}" for n in range(25)]},
    "keys": lambda w: {f"{w}-{n}.*x": 1 for n in range(25)},
    "words": lambda w: {"message": [f"{w}-{n}" for n in range(99)]},
}


def told(lab, job, name):
    """A file of that name has come."""
    box = lab.scheduler.store.box("box-1")
    at = lab.scheduler.clock.now()
    lab.scheduler.change([decisions.step(box, at, "result", name, 1, job=job)])


async def running(lab):
    await lab.know()
    job = await lab.submit()
    await (await lab.ask()).rest()
    return lab.scheduler.store.job(job.id)


async def opened(lab, client):
    """One who watches; None for one that was refused."""
    socket = fakes.WebSocket(lab.wire, "/filter", (client, 5000), MONITOR)
    return socket if await socket.open() is None else None


async def watch(lab, query, client):
    """The same, once it has said what it wants."""
    socket = await opened(lab, client)
    if socket is not None:
        await socket.say(query)
    return socket


@pytest.mark.slow
@pytest.mark.parametrize("name", WORST)
async def test_two_hundred_who_watch_do_not_stop_the_loop(autojump_clock, name):
    """They did for 14 s, for each file with a long name that a box uploaded."""
    async with open_lab() as lab:
        job = await running(lab)
        sockets = [await opened(lab, ADDRESSES[n % 4]) for n in range(watching.WATCHERS_MAX)]
        honest = await watch(lab, {"job_id": [job.id]}, "10.0.0.1")
        with rounds() as seen:
            async with trio.open_nursery() as all_at_once:
                for number, socket in enumerate(sockets):
                    all_at_once.start_soon(socket.say, WORST[name](number))
            await trio.sleep(5)
            for n in range(100):
                told(lab, job, f"{n}{NAME}"[:255])
            heard = [(await honest.next())["message"] for _ in range(100)]

        assert [f"uploaded {n}aaaaa"[:15] for n in range(100)] == [text[:15] for text in heard]
        assert seen.longest < STALL_S


async def test_a_change_looks_at_nobody_who_watches(autojump_clock, monkeypatch):
    looked = []
    async with open_lab() as lab:
        job = await running(lab)
        for _ in range(3):
            await watch(lab, {}, "10.0.0.9")
        await wait_all_tasks_blocked()
        monkeypatch.setattr(Query, "fits", lambda self, item: looked.append(item))
        told(lab, job, NAME)
        assert [] == looked
        await trio.sleep(1)

        assert 3 == len(looked)


@pytest.mark.parametrize(
    "query",
    [
        {"x": ".{1,100}a.{1,100}N"},
        {"x": "x{1000}y{1000}"},
        {"x": [HEAVY + "1", HEAVY + "2"]},
        {"x": HEAVY + "1", "y": HEAVY + "2"},
        {HEAVY + "1": "y", HEAVY + "2": "z"},
    ],
)
def test_expressions_that_compile_to_too_much_are_refused_with_what_makes_them_large(query):
    with pytest.raises(BadRequest, match="1000 instructions at most; repeat less"):
        Query(query)


@pytest.mark.parametrize(
    ("wanted", "text", "finds"),
    [
        ("box-1", "on box-1.", True),
        ("", "anything", True),
        ("a b", "a  b", False),
        ("é", "café", True),
        ("caf.$", "café", True),
        ("^b", "ab", False),
        ("(?i)BOX", "a box", True),
        ("z$", "a" * 5000 + "z", False),  # what is that far behind is not looked at
        ("x", "\ud800x", True),
    ],
)
def test_words_and_expressions_find_what_they_found(wanted, text, finds):
    assert finds == Query({"message": wanted}).fits(News({"message": text}))


async def test_all_who_watch_have_so_many_expressions_together_and_words_are_always_taken(
    autojump_clock, monkeypatch
):
    monkeypatch.setattr(watching, "PROGRAMS_MAX", 1600)
    async with open_lab() as lab:
        all_of_them = [await watch(lab, {"x": HEAVY + str(n)}, "10.0.0.9") for n in range(3)]
        await wait_all_tasks_blocked()
        assert 2 == len(lab.scheduler.watchers)
        assert None is await all_of_them[2].next()
        assert "too many expressions together" in all_of_them[2].reason
        await watch(lab, {"job_state": ["submit", "download"]}, "10.0.0.9")
        await watch(lab, {"x": HEAVY + "3"}, "127.0.0.1")
        await wait_all_tasks_blocked()
        assert 4 == len(lab.scheduler.watchers)
        await all_of_them[0].say({"x": HEAVY + "4"})  # in the place of its own
        await all_of_them[1].hang_up()
        await wait_all_tasks_blocked()
        await watch(lab, {"x": HEAVY + "5"}, "10.0.0.9")
        await wait_all_tasks_blocked()

        assert 4 == len(lab.scheduler.watchers)


async def hear(lab, user, seen):
    """The news that `user` is shown by `appliance watch`, into `seen`."""

    async def event(what):
        seen.append([json.loads(news) if isinstance(news, str) else news for news in what["news"]])

    await lab.people.do("watch", {}, user, event)


async def test_strangers_keep_nobody_on_the_server_from_watching(autojump_clock):
    seen = []
    async with open_lab() as lab, trio.open_nursery() as nursery:
        for n in range(watching.WATCHERS_MAX):
            assert await watch(lab, {}, ADDRESSES[n % len(ADDRESSES)])
        assert None is await watch(lab, {}, "10.0.0.99")
        nursery.start_soon(hear, lab, "ann", seen)
        for address in ("127.0.0.1", "::1", MONITOR[0]):
            assert await watch(lab, {}, address)
        await trio.sleep(1)
        assert 1 == len(seen)
        there = len(lab.scheduler.watchers)
        nursery.cancel_scope.cancel()

        assert watching.WATCHERS_MAX + 4 == there


async def test_websockets_on_the_server_itself_keep_no_command_line_from_watching(autojump_clock):
    """Anybody with a shell can open as many as there may be, from any address of 127.0.0.0/8."""
    seen = []
    async with open_lab() as lab, trio.open_nursery() as nursery:
        for n in range(100):
            assert await watch(lab, {}, f"127.0.{n}.1")
        assert None is await watch(lab, {}, "127.0.0.1")
        nursery.start_soon(hear, lab, "ann", seen)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()

        assert 1 == len(seen)


async def test_no_user_keeps_another_from_watching_and_root_always_finds_a_place(autojump_clock):
    seen = {user: [] for user in ("ann", "bob", "cyd", "root")}
    async with open_lab() as lab, trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(hear, lab, "ann", seen["ann"])
        await trio.sleep(1)
        with pytest.raises(Refused, match="50 watch as ann already"):
            await lab.people.do("watch", {}, "ann", None)
        for _ in range(46):
            nursery.start_soon(hear, lab, "bob", seen["bob"])
        await trio.sleep(1)
        with pytest.raises(Refused, match="96 watch by the command line already"):
            await lab.people.do("watch", {}, "cyd", None)
        for _ in range(4):
            nursery.start_soon(hear, lab, "root", seen["root"])
        await trio.sleep(1)
        with pytest.raises(Refused, match="100 watch by the command line already"):
            await lab.people.do("watch", {}, "root", None)
        nursery.cancel_scope.cancel()

        assert [50, 46, 0, 4] == [len(shown) for shown in seen.values()]


@pytest.mark.parametrize("where", ["the command line", "a websocket"])
async def test_strangers_keep_nobody_on_the_server_waiting_for_news(autojump_clock, where):
    """What strangers want looked through takes them ten seconds."""
    seen, count = [], 200
    async with open_lab() as lab, trio.open_nursery() as nursery:
        job = await running(lab)
        for n in range(26):
            await watch(lab, {"message": [f"{HEAVY}{n}"]}, ADDRESSES[n % 4])
        if where == "the command line":
            nursery.start_soon(hear, lab, "ann", seen)
        else:
            local = await watch(lab, {"message": "uploaded"}, "127.0.0.1")
        await trio.sleep(1)
        for n in range(count):
            told(lab, job, f"{n}-{NAME}"[:255])
        await trio.sleep(0.5)
        if where == "the command line":
            assert count == sum(len(news) for news in seen)
        else:
            with trio.fail_after(0.5):
                assert all([await local.next() for _ in range(count)])
        strangers = [one for one in lab.scheduler.watchers if one.who in ADDRESSES]
        behind = [one for one in strangers if lab.scheduler.watchers.has_more(one)]
        nursery.cancel_scope.cancel()

        assert behind


async def test_queries_take_a_part_of_the_loops_time_and_delay_no_news(autojump_clock, monkeypatch):
    """Each takes 12 ms to read, which is nothing, but not a hundred of them in a row."""
    read = []

    def slow(said):
        autojump_clock.jump(0.012)
        read.append(trio.current_time())
        return Query(said)

    async with open_lab() as lab:
        job = await running(lab)
        honest = await watch(lab, {"message": "uploaded"}, "10.0.0.9")
        sockets = [await watch(lab, {}, ADDRESSES[n % 4]) for n in range(20)]
        await trio.sleep(1)
        monkeypatch.setattr(monitor, "Query", slow)
        began = trio.current_time()
        for socket in sockets * 5:
            await socket.say({})
        await trio.sleep(0.5)
        before = trio.current_time()
        told(lab, job, NAME)
        await honest.next()
        heard = trio.current_time() - before
        await trio.sleep(20)

        assert 100 == len(read)
        assert 8 * 0.012 == pytest.approx((read[-1] - began) / 100, rel=0.02)
        assert heard < 0.2


async def test_one_address_has_its_share_of_the_places(autojump_clock):
    async with open_lab() as lab:
        for _ in range(watching.ADDRESS_WATCHERS_MAX):
            assert await watch(lab, {}, "10.0.0.60")
        more = fakes.WebSocket(lab.wire, "/filter", ("10.0.0.60", 5000), MONITOR)
        refused = await more.open()
        assert (503, b"50 watch from 10.0.0.60 already\n") == (refused.status, refused.body)

        assert await watch(lab, {}, "10.0.0.61")


async def test_news_are_kept_up_to_so_many_bytes_and_for_nobody_not_at_all(
    autojump_clock, monkeypatch
):
    monkeypatch.setattr(watching, "UNREAD_BYTES_MAX", 100_000)
    async with open_lab() as lab:
        job = await running(lab)
        watchers = lab.scheduler.watchers
        told(lab, job, NAME)
        assert 0 == len(watchers._news)
        watcher = watchers.join(Group.NETWORK, "10.0.0.9")
        watcher.ask(Query({"job_id": "none"}))
        for _ in range(100):
            told(lab, job, NAME)
        assert 10 < len(watchers._news) <= 40
        assert [] == await watcher.read()
        assert watching.BEHIND == watcher.ended
        watchers.leave(watcher)

        assert (0, 0) == (len(watchers._news), watchers._bytes)


async def test_news_that_all_have_looked_at_are_let_go(autojump_clock, monkeypatch):
    async with open_lab() as lab:
        job = await running(lab)
        await watch(lab, {"job_id": "none"}, "10.0.0.9")
        await opened(lab, "10.0.0.9")  # it has not said yet
        late = await watch(lab, {"message": "uploaded"}, "10.0.0.8")
        await wait_all_tasks_blocked()
        for n in range(1000):
            told(lab, job, f"{n}-")
        for n in range(1000):
            assert f"uploaded {n}-" == (await late.next())["message"]

        assert len(lab.scheduler.watchers._news) < watching.TRIM


def test_news_are_as_large_as_is_counted():
    """With all that is made of them while they are looked at."""
    tracemalloc.start()
    try:
        message = {"level": "INFO", "time": "t" * 24, "job_id": "lab.1", "job_stage": "running"}
        items = [News(message | {"testbox": "b", "message": f"{n}" * 50}) for n in range(1000)]
        for item in items:
            item.words("message")
            item.words("testbox")
            item.words("job_id")
            assert item.text
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert held < sum(item.size for item in items)


async def test_what_happened_before_a_stop_is_heard(autojump_clock):
    async with open_lab() as lab:
        socket = await watch(lab, {}, "10.0.0.9")
        await wait_all_tasks_blocked()
        await lab.submit()
        lab.scheduler.watchers.dismiss()
        lab.scheduler.watchers.tell({"message": "behind it"})

        assert "submit" == (await socket.next())["job_state"]
        assert None is await socket.next()
        assert 1001 == socket.ended


async def test_a_screen_that_nobody_reads_gathers_only_so_much(autojump_clock, monkeypatch):
    """`appliance watch` behind a terminal that was stopped."""
    monkeypatch.setattr(lab_verbs, "NEWS_MAX", 5)
    monkeypatch.setattr(watching, "UNREAD_BYTES_MAX", 40_000)
    shown, reads = [], trio.Event()

    async def event(what):
        shown.append(len(what["news"]))
        if len(shown) > 1:
            await reads.wait()

    async with open_lab() as lab, trio.open_nursery() as nursery:
        ended = []

        async def watch_it():
            ended.append(await lab.people.do("watch", {}, "ann", event))

        nursery.start_soon(watch_it)
        await trio.sleep(1)
        for n in range(60):
            await lab.submit(key=f"{KEY}{n}")
            await trio.sleep(0.5)
        reads.set()
        await trio.sleep(60)

        assert [{"ended": watching.BEHIND}] == ended
        assert sum(shown) < 20


async def test_whoever_reads_hears_all_and_in_order_though_others_are_slow(autojump_clock):
    async with open_lab() as lab:
        job = await running(lab)
        for n in range(26):
            await watch(lab, {"message": [HEAVY + "N"]}, ADDRESSES[n % 4])
        honest = await watch(lab, {"message": "uploaded"}, "10.0.0.9")
        await wait_all_tasks_blocked()
        for n in range(200):
            told(lab, job, f"{n}-{NAME}"[:255])
        heard = [(await honest.next())["message"] for _ in range(200)]

        assert [f"uploaded {n}-" for n in range(200)] == [m[: m.index("-") + 1] for m in heard]


@pytest.mark.parametrize("text", [".{1,40}a.{1,40}N", "(a?){30}a{30}", "((a|b)*c|(a|ab)*c)*x"])
def test_an_expressions_work_is_counted_before_it_is_done(text):
    query = Query({"message": text})
    item = News({"message": "é" * 4000})

    assert query.program * queries.TEXT_BYTES_MAX <= query.work(item)
    assert query.work(News({"message": "a"})) < query.work(item)
    assert json.loads(item.text)["message"] == "é" * 4000
    with contextlib.suppress(BadRequest):
        assert Query({"message": [text] * 2}).program == query.program  # said twice, and kept once


async def test_a_query_that_is_cut_costs_the_next_one_its_pause_all_the_same(autojump_clock):
    turns = Pacing()
    with trio.move_on_after(1):
        async with turns.query():
            await trio.sleep(2)
    began = trio.current_time()
    async with turns.query():
        assert watching.QUERY_PAUSE == round(trio.current_time() - began)
