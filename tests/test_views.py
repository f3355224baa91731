"""What people and programs are shown."""

from __future__ import annotations

import json

import attrs
import cbor2
import pytest

from appliance.jobs import decisions
from appliance.jobs import job as jobs
from appliance.jobs.box import Identity
from appliance.jobs.changes import Known, Moved, Seen
from appliance.jobs.documents.document import Body
from appliance.jobs.shown import views
from appliance.scheduler.lobby import Lobby
from tests import rich
from tests.test_decisions import ADDRESS, MAC, NOW, WAITS, a_job, a_store, facts, make, offered


def test_a_queued_jobs_row():
    assert {
        "id": "lab.1",
        "name": "job.yaml",
        "suite": "job",
        "submitter": "ann",
        "submitted": NOW,
        "stage": "submit",
        "health": None,
        "reason": None,
        "box": None,
        "attempt": 0,
        "queue": "default",
        "os": "debian 12",
        "arch": "x86_64",
        "result_root": "/srv/result/1",
        "finished": None,
        "lacking": None,
    } == views.job_row(a_job())


def test_a_finished_jobs_row_says_how_and_where():
    store = a_store()
    offered(store)
    store.apply(Moved("lab.1", jobs.Fail("incomplete", "gone"), NOW + 5))
    row = views.job_row(store.job("lab.1"))

    assert ("finish", "incomplete", "gone", "box-1", 1, NOW + 5) == tuple(
        row[key] for key in ("stage", "health", "reason", "box", "attempt", "finished")
    )


def test_a_verdict_is_shown_before_the_end():
    store = a_store()
    offered(store)
    make(store, decisions.reported(store.job("lab.1"), "failed", NOW, WAITS))

    assert "failed" == views.job_row(store.job("lab.1"))["health"]


def shown_document(job):
    return views.document_row(job, job.document.body or Body())


def test_a_document_is_shown_without_its_secrets():
    shown = shown_document(a_job(text="script: x\nsecrets: {TOKEN: s3cret, A: s3cret}\n"))

    assert ["A", "TOKEN"] == shown["secrets"]
    assert "s3cret" not in repr(shown)
    assert not {"testbox", "tags", "job2sh"} & shown.keys()


def doing(store, lobby=None, now=NOW):
    return views.host_row(store, lobby or Lobby(), store.box("box-1"), now)["state"]


async def test_what_a_box_does_right_now(autojump_clock):
    store, lobby = a_store(), Lobby()
    said = [doing(store)]
    seat = lobby.sit("box-1", NOW, "10.0.0.1")
    said.append(doing(store, lobby))
    store.box("box-1").backoff_until = NOW + 5
    said.append(doing(store, lobby))
    lobby.leave(seat)
    job = offered(store)
    said.append(doing(store))
    make(store, decisions.fetched_job(store, job, NOW, WAITS))
    said.append(doing(store))
    make(store, decisions.reported(store.job("lab.1"), "running", NOW, WAITS))
    said.append(doing(store))
    make(store, decisions.reported(store.job("lab.1"), "post_run", NOW, WAITS))
    said.append(doing(store))
    store.apply(decisions.step(store.box("box-1"), NOW, "report", job=store.job("lab.1")))
    make(store, decisions.closed(store, store.job("lab.1"), None, NOW, WAITS))
    said.append(doing(store))

    words = "away parked backing-off offered booting running post_run returning"
    assert words == " ".join(said)


def test_a_boxs_row():
    store = a_store()
    store.apply(Known(facts(queues=["q"], uuid="01234567-89ab-cdef-0123-456789abcdef"), NOW))
    store.apply(Seen("box-1", Identity(MAC, ADDRESS, serial="S1", product="P1"), NOW))

    assert {
        "name": "box-1",
        "known": True,
        "macs": [MAC],
        "arch": "x86_64",
        "address": ADDRESS,
        "state": "away",
        "since": NOW,
        "job": None,
        "queues": ["box-1", "q"],
        "uuid": "01234567-89ab-cdef-0123-456789abcdef",
        "says": None,
        "serial": "S1",
        "product": "P1",
        "kept": "",
        "ipxe": None,
    } == views.host_row(store, Lobby(), store.box("box-1"), NOW)


def test_a_boot_is_shown_step_by_step():
    store = a_store()
    job = offered(store)
    store.apply(decisions.step(store.box("box-1"), NOW + 1, "file", "/x", 9, 0.5, job))

    assert [
        {
            "began": NOW,
            "job": "lab.1",
            "attempt": 1,
            "steps": [{"at": NOW + 1, "what": "file", "detail": "/x", "bytes": 9, "seconds": 0.5}],
            "ended": None,
        }
    ] == views.boot_rows(store.box("box-1"))


@pytest.mark.parametrize("seed", range(10))
def test_everything_shown_can_be_sent_and_printed(seed):
    store, _ = rich.grow(seed, 150)
    for job in store.jobs.values():
        for shown in (views.job_row(job), shown_document(job)):
            json.dumps(shown)
            cbor2.dumps(shown)
        json.dumps([views.moment_row(moment) for moment in job.history])
        assert attrs.asdict(job.history[0]) == views.moment_row(job.history[0])
    for box in store.boxes.values():
        json.dumps([views.host_row(store, Lobby(), box, NOW), views.boot_rows(box)])
