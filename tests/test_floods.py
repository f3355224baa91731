"""Lines that strangers cause: the first are said, no count is lost, and memory has an end."""

from __future__ import annotations

import io
import logging
import random
import re

import pytest
import structlog
from trio.testing import wait_all_tasks_blocked

from appliance import floods
from appliance import log as logs
from appliance.floods import MORE, PERIOD_S, Floods, Group
from appliance.jobs.shown import views
from appliance.web import sending
from tests.lab import open_lab


def line(event="upload refused", client="10.0.0.9", **fields):
    return {"event": event, "client": client, **fields}


def test_of_a_flood_the_first_lines_are_said_and_at_the_end_how_many_more_there_were():
    made = Floods()
    said = [made.takes(line(why=f"{n}"), "warning", n / 1000) for n in range(430)]

    assert [True] * 3 + [False] * 427 == said
    assert [] == made.over(PERIOD_S - 1)
    assert [
        ("warning", {"client": "10.0.0.9", "event": "upload refused", MORE: 427,
                     "why": "and 427 more like this within 60 s"})
    ] == made.over(PERIOD_S)  # fmt: skip
    assert [] == made.over(2 * PERIOD_S)
    assert 0 == len(made)
    assert made.takes(line(), "warning", PERIOD_S)


@pytest.mark.parametrize(
    "other",
    [
        (line(client="10.0.0.10"), "warning"),
        (line(event="no path"), "warning"),
        (line(status=507), "warning"),
        (line(), "error"),
        (line(exc_info=ValueError("x")), "warning"),
        (line(exc_info=(None, TypeError("x"), None)), "warning"),
    ],
)
def test_what_is_of_another_kind_is_said(other):
    made = Floods()
    for _ in range(100):
        made.takes(line(), "warning", 0.0)

    assert made.takes(*other, 0.0)


def test_what_a_stranger_writes_does_not_make_a_kind_of_its_own():
    made = Floods()
    said = [made.takes(line(why=f"{n}", path=f"/{n}", mac=f"{n}"), "warning", 0.0)
            for n in range(100)]  # fmt: skip

    assert 3 == sum(said)


@pytest.mark.parametrize("level", ["info", "warning", "error"])
def test_what_nobody_outside_causes_is_always_said(level):
    made = Floods()

    assert all(
        made.takes({"event": "script handed over", "job": "lab.1"}, level, 0.0) for _ in range(999)
    )
    assert all(made.takes(line(), "debug", 0.0) for _ in range(999))  # somebody asked for it


def test_a_period_that_nobody_has_asked_about_yet_hides_no_first_line():
    made = Floods()
    for _ in range(10):
        made.takes(line(), "warning", 0.0)

    assert made.takes(line(), "warning", PERIOD_S + 1)
    assert [7] == [fields[MORE] for _, fields in made.over(3 * PERIOD_S)]


def test_ten_thousand_addresses_take_no_more_memory_than_three_hundred():
    made, said = Floods(), 0
    for number in range(10_000):
        said += made.takes(line(client=f"10.1.{number // 250}.{number % 250}"), "warning", 0.0)
    more = made.over(PERIOD_S)

    assert floods.KINDS_MAX[Group.STRANGER] + 3 == said
    assert [("warning", floods.OTHERS, 10_000 - said)] == [
        (level, fields["client"], fields[MORE]) for level, fields in more
    ]


BOX = line(client="10.0.0.5")
LAB = {
    "a testbox": BOX,
    "a testbox, by another key": {"event": "job.cgz refused", "address": "10.0.0.5"},
    "a user": {"event": "control connection refused", "user": "ann"},
    "the server": {"event": "a request failed", "exc_info": ValueError("x")},
    "a library": {"event": "x", "logger": "hypercorn", "exc_info": KeyError("x")},
}


@pytest.mark.parametrize("name", LAB)
def test_no_crowd_of_strangers_hides_the_first_lines_about_the_lab(name):
    """Two hundred and fifty addresses did it, with four kinds each."""
    made = Floods()
    made.is_known = {"10.0.0.5"}.__contains__
    for number in range(5000):
        stranger = {"client": f"10.1.{number // 250}.{number % 250}"}
        made.takes(line("no HTTP", **stranger), "error", 0.0)
        made.takes({**LAB[name], "address": "", **stranger}, "error", 0.0)
    most = floods.SHOWN["error"] if "logger" not in LAB[name] else floods.LIBRARY_SHOWN
    said = [made.takes(LAB[name], "error", 0.0) for _ in range(10)]

    assert [True] * most + [False] * (10 - most) == said
    assert [10 - most] == [
        fields[MORE]
        for _, fields in made.over(PERIOD_S)
        if not str(fields.get("client", "")).startswith(("10.1.", floods.OTHERS))
    ]


def test_the_lab_and_the_server_have_an_end_too():
    made = Floods()
    made.is_known = lambda address: True
    for number in range(30_000):
        made.takes(line(client=f"{number}"), "warning", 0.0)
        made.takes({"event": "x", "status": number, "exc_info": ValueError()}, "error", 0.0)

    assert len(made) <= sum(floods.KINDS_MAX.values())
    made.over(PERIOD_S)
    assert 0 == len(made)
    assert [True] * 9 == [made.takes(line(client=f"{n}"), "warning", PERIOD_S) for n in range(9)]


def test_a_machine_that_nobody_knows_and_that_asks_without_end_is_folded_by_its_name():
    """What is said of it has no address: `box parked`, `box left the lobby`."""
    made = Floods()
    said = [made.takes({"event": "box parked", "box": "unknown-a"}, "info", 0.0) for _ in range(99)]

    assert floods.SHOWN["info"] == sum(said)
    assert made.takes({"event": "box parked", "box": "box-1"}, "info", 0.0)
    assert [("unknown-a", 69)] == [(f["box"], f[MORE]) for _, f in made.over(PERIOD_S)]


async def test_the_lab_is_known_boxes_and_who_is_on_the_server(autojump_clock):
    async with open_lab() as lab:
        await lab.know()
        await lab.ask()
        await lab.ask("/boot.ipxe/mac/52-54-00-00-00-77", client="10.0.0.77")  # nobody's yet
        await wait_all_tasks_blocked()
        found = {
            client: views.is_of_the_lab(lab.scheduler.store, "10.0.0.1", client)
            for client in (
                "10.0.0.5", "10.0.0.1", "127.0.0.9", "::1", "the command line of ann",
                *lab.scheduler.store.boxes, "10.0.0.77", "10.0.0.78", "fe80::1", "unknown-gone",
            )
        }  # fmt: skip

    assert [True] * 6 + [False] * 5 == list(found.values())


@pytest.mark.parametrize("seed", range(10))
def test_every_line_is_said_or_counted(seed):
    rng, made, said, more, now = random.Random(seed), Floods(), 0, 0, 0.0
    for _ in range(5000):
        now += rng.random()
        said += made.takes(line(client=str(rng.randrange(20))), "warning", now)
        if rng.random() < 0.1:
            more += sum(fields[MORE] for _, fields in made.over(now))
    more += sum(fields[MORE] for _, fields in made.over(now + PERIOD_S))

    assert 5000 == said + more


@pytest.fixture
def written(monkeypatch):
    """What is written to standard error, with the log set up as the server's."""
    file = io.StringIO()
    root, before = logging.getLogger(), structlog.get_config()
    handlers = root.handlers[:]
    monkeypatch.setattr("sys.stderr", file)
    monkeypatch.setattr(logs, "_floods", Floods())
    monkeypatch.setattr(logs, "_about", [])
    logs.begin(verbose=False)
    structlog.configure(cache_logger_on_first_use=False)
    yield file
    structlog.configure(**before)
    root.handlers[:] = handlers


def test_an_accept_that_finds_no_descriptor_is_one_line_and_a_number(written):
    words = "accept returned %s (%s); retrying in %s seconds"
    for _ in range(430):
        try:
            raise OSError(24, "Too many open files")
        except OSError:
            logging.getLogger("trio.serve_listeners").error(
                words, "EMFILE", "Too many open files", 0.1, exc_info=True
            )
    logs.tell_floods(all_of_them=True)
    text = written.getvalue()

    assert 2 == text.count("\n")
    assert "EMFILE" in text.splitlines()[0]
    assert "logger=trio.serve_listeners" in text
    assert 'more=429 why="and 429 more like this within 60 s"' in text
    assert "level=error" in text.splitlines()[1]


def test_a_request_that_fails_is_told_with_its_trace_and_three_times(written):
    log = structlog.get_logger()
    for kind in (ValueError, KeyError):
        for _ in range(50):
            try:
                raise kind("x")
            except Exception:
                log.exception("a request failed")
    logs.tell_floods(all_of_them=True)
    text = written.getvalue()

    assert 6 == text.count("Traceback")
    assert ["47", "47"] == re.findall(r"more=(\d+)", text)


def test_a_client_that_is_cut_time_and_again_is_told_of_three_times_and_counted(written):
    """The lines are counted here alone: nothing else remembers whom it has told of."""
    for _ in range(100):
        sending.tell("10.0.0.66", 300)
        sending.tell("10.0.0.67", 300)
    logs.tell_floods(all_of_them=True)
    text = written.getvalue()

    assert ["10.0.0.66", "10.0.0.67"] * 4 == re.findall(r"client=(\S+)", text)
    assert ["97", "97"] == re.findall(r"more=(\d+)", text)
