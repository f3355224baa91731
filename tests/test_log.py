"""What is logged, and how it reaches systemd's journal."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest
import structlog

from appliance import log as logs
from appliance import systemd
from appliance.log import Journal, Threshold
from tests.lab import ASK, open_lab


@pytest.fixture
def journal(tmp_path):
    """The other end of the journal's socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as there:
        there.bind(str(tmp_path / "socket"))
        there.settimeout(5)
        yield there


def fields(data):
    """A journal entry's fields, read by the rules of its protocol."""
    found = {}
    while data:
        line, _, rest = data.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            size = int.from_bytes(rest[:8], "little")
            value, rest = rest[8 : 8 + size], rest[8 + size + 1 :]
        found[name.decode()] = value.decode()
        data = rest
    return found


def test_an_event_is_one_entry_whose_keys_can_be_asked_for(journal):
    sock = logs.connect(Path(journal.getsockname()))

    with sock, pytest.raises(structlog.DropEvent):
        Journal(sock)(None, "warning", {"level": "warning", "event": "box parked", "job": "lab.1",
                                    "mac": "52:54:00:00:00:01", "why": "a\nb"})  # fmt: skip

    assert {
        "MESSAGE": 'event="box parked" job=lab.1 mac=52:54:00:00:00:01 why=a\\nb',
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "appliance",
        "EVENT": "box parked",
        "JOB": "lab.1",
        "MAC": "52:54:00:00:00:01",
        "WHY": "a\nb",
    } == fields(journal.recv(65536))


def test_no_key_can_forge_a_field_that_only_the_journal_may_write():
    assert b"UID=1\nA_B=x\n" == logs.datagram({"_uid": 1, "a=b": "x"})


def test_a_journal_that_is_gone_loses_no_line(journal, tmp_path):
    with logs.connect(tmp_path / "socket") as sock:
        journal.close()
        said = Journal(sock)(
            None, "error", {"level": "error", "event": "x", "exception": "Trace\n  back"}
        )

    assert "<3>event=x\n<3>Trace\n<3>  back" == said


def test_standard_error_is_the_journal_where_systemd_says_so(monkeypatch, tmp_path):
    with (tmp_path / "file").open("w") as file:
        found = os.fstat(file.fileno())
        monkeypatch.setattr(sys, "stderr", file)
        monkeypatch.delenv("JOURNAL_STREAM", raising=False)
        assert not systemd.reads(sys.stderr)
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
        assert systemd.reads(sys.stderr)
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino + 1}")
        assert not systemd.reads(sys.stderr)


def test_a_level_for_a_while_ends_by_itself():
    now = [100.0]
    threshold = Threshold(clock=lambda: now[0])
    assert (False, True) == (threshold.lets("debug"), threshold.lets("info"))

    threshold.set("debug", 600.0)
    now[0] += 599
    assert threshold.lets("debug")
    now[0] += 1
    assert ("info", False) == (threshold.now, threshold.lets("debug"))


def test_a_second_while_goes_back_to_what_held_before_the_first():
    now = [0.0]
    threshold = Threshold(clock=lambda: now[0])
    threshold.set("warning")
    threshold.set("debug", 10.0)
    threshold.set("info", 10.0)
    now[0] = 11.0

    assert "warning" == threshold.now


def test_a_level_for_good_stays():
    threshold = Threshold(clock=lambda: 1e12)
    threshold.set("error")

    assert ("error", False, True) == (
        threshold.now,
        threshold.lets("warning"),
        threshold.lets("error"),
    )


async def test_a_line_about_a_box_has_its_mac_and_its_job_and_the_other_way_round(autojump_clock):
    from appliance.jobs.shown import views

    async with open_lab() as lab:
        await lab.know()
        job = await lab.submit()
        await lab.ask(ASK)
        known = {"box": "box-1", "mac": "52:54:00:00:00:01"}

        about = {
            "job": views.subject(lab.scheduler.store, {"job": job.id}),
            "box": views.subject(lab.scheduler.store, {"box": "box-1"}),
            "client": views.subject(lab.scheduler.store, {"client": "10.0.0.5"}),
            "nobody": views.subject(lab.scheduler.store, {"client": "10.0.0.77", "job": "lab.9"}),
        }

    assert {
        "job": known,
        "box": known | {"job": job.id},
        "client": known | {"job": job.id},
        "nobody": {},
    } == about


def test_a_line_below_the_level_is_not_said_and_an_error_with_its_trace_is(monkeypatch):
    monkeypatch.setattr(logs, "threshold", Threshold(word="warning"))

    assert {"event": "x"} == logs._filter(None, "exception", {"event": "x"})
    with pytest.raises(structlog.DropEvent):
        logs._filter(None, "info", {"event": "x"})


def test_what_is_known_of_a_job_is_added_and_replaces_nothing(monkeypatch):
    monkeypatch.setattr(logs, "_about", [lambda event: {"box": "box-1", "mac": "m"}])

    assert {"job": "lab.1", "box": "mine", "mac": "m"} == logs._complete(
        None, "info", {"job": "lab.1", "box": "mine"}
    )
    assert {"event": "ready"} == logs._complete(None, "info", {"event": "ready"})
