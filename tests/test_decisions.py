"""What follows from what happens, where the doors' tests do not reach."""

from __future__ import annotations

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from appliance.config import Defaults, Waits
from appliance.errors import BadRequest, Refused
from appliance.jobs import box as boxes
from appliance.jobs import decisions, restart, served
from appliance.jobs import job as jobs
from appliance.jobs.box import Identity
from appliance.jobs.changes import (
    HISTORY_MAX,
    Clocked,
    Job,
    Known,
    Moved,
    Seen,
    Submitted,
    marked,
    moved,
)  # fmt: skip
from appliance.jobs.documents import document
from appliance.jobs.job import Attempt, Booting, Finished, Held, Offered, PostRun, Running
from appliance.jobs.store import Store
from tests.lab import PINNED, MemoryDisk, open_lab

MAC, ADDRESS = "52:54:00:00:00:01", "10.0.0.5"
WAITS = Waits()
NOW = 10_000.0


def a_document(text="script: x\n"):
    return document.parse(text, "job.yaml", Defaults())


def a_job(number=1, text="script: x\n", **changes):
    root = f"/result/{number}"
    return Job(
        f"lab.{number}", number, "job.yaml", a_document(text), "ann", f"key{number:06}", NOW,
        PINNED, root, **changes,
    )  # fmt: skip


def facts(name="box-1", mac=MAC, **fields):
    return boxes.facts(name, {"mac": [mac], "arch": "x86_64", **fields}, "default")


def a_store(*, job_text="script: x\n"):
    """One known box that has asked, and one queued job."""
    store = Store()
    for change in (
        Known(facts(), NOW),
        Seen("box-1", Identity(MAC, ADDRESS), NOW),
        Submitted(a_job(text=job_text)),
    ):
        store.apply(change)
    return store


def offered(store, job="lab.1", box="box-1", now=NOW):
    for change in decisions.offers(store, [(box, job)], now, WAITS, lambda: f"token-{now}"):
        store.apply(change)
    return store.job(job)


def make(store, changes):
    for change in changes:
        store.apply(change)


def test_an_offer_carries_what_its_fence_needs():
    job = offered(a_store())

    assert Attempt(1, "token-10000.0", "box-1", ADDRESS, NOW) == job.attempt
    assert NOW + WAITS.offer_lease == job.state.until


def test_a_box_that_lost_boots_rests_longer_each_time_up_to_the_most():
    store, rests, now = a_store(), [], NOW
    for _ in range(7):
        offered(store, now=now)
        make(store, decisions.asked(store, Identity(MAC, ADDRESS), now, WAITS, 10))
        rests.append(store.box("box-1").backoff_until - now)
        now += 5000

    assert [30, 60, 120, 240, 480, 600, 600] == rests


def test_a_box_rests_no_longer_than_the_most_after_a_thousand_lost_boots():
    store = a_store()
    store.box("box-1").misses = 5000
    offered(store)
    make(store, decisions.asked(store, Identity(MAC, ADDRESS), NOW, WAITS, 10))

    assert NOW + WAITS.backoff_max == store.box("box-1").backoff_until


def test_a_box_that_ends_a_job_is_forgiven():
    store = a_store()
    offered(store)
    make(store, decisions.asked(store, Identity(MAC, ADDRESS), NOW, WAITS, 10))
    offered(store)
    make(store, decisions.fetched_job(store, store.job("lab.1"), NOW, WAITS))
    job = store.job("lab.1")
    files = served.own_paths(job)
    make(store, [decisions.step(store.box("box-1"), NOW, "file", path, job=job) for path in files])
    make(store, decisions.loaded(store, store.job("lab.1"), NOW, WAITS))
    make(store, decisions.reported(store.job("lab.1"), "running", NOW, WAITS))
    assert 1 == store.box("box-1").misses
    make(store, decisions.closed(store, store.job("lab.1"), "failed", NOW, WAITS))

    assert (0, 0.0) == (store.box("box-1").misses, store.box("box-1").backoff_until)


def test_a_boot_never_takes_longer_in_all_than_the_most():
    store = a_store()
    job = offered(store)
    late = NOW + WAITS.boot_max - 5
    make(store, decisions.fetched_job(store, job, late, WAITS))
    assert NOW + WAITS.boot_max == store.job("lab.1").state.until

    moved = {"box-1": late}
    assert NOW + WAITS.boot_max == decisions.deadline(store.job("lab.1"), moved, WAITS)


def test_bytes_of_an_earlier_attempt_renew_nothing():
    job = offered(a_store())

    assert job.state.until == decisions.deadline(job, {"box-1": NOW - 1}, WAITS)
    assert job.state.until < decisions.deadline(job, {"box-1": NOW + 100}, WAITS)


def test_only_attempts_whose_time_is_up_are_due():
    store = a_store()
    offered(store)
    until = NOW + WAITS.offer_lease

    assert [] == decisions.due(store, ["lab.1"], {}, until - 0.5, WAITS)
    assert ["Moved", "Missed"] == [
        type(change).__name__ for change in decisions.due(store, ["lab.1"], {}, until, WAITS)
    ]


ONE = Attempt(1, "t", "box-1", ADDRESS, NOW)


@pytest.mark.parametrize("word", ["submit", "boot", "finish"])
def test_a_stage_that_the_server_sets_is_no_verdict(word):
    store = a_store()
    offered(store)

    assert [] == decisions.reported(store.job("lab.1"), word, NOW, WAITS)


@pytest.mark.parametrize(
    ("state", "after"),
    [
        (Offered(ONE, 0.0), NOW + WAITS.offer_lease),
        (Booting(ONE, 0.0), NOW + WAITS.offer_lease),
        (Booting(ONE, 0.0, loaded=True), NOW + WAITS.boot),
        (Running(ONE, NOW + 60), NOW + 60),
        (Running(ONE, NOW + 10**9), NOW + 3600 + 450 + 60),
        (PostRun(ONE, NOW + 60), NOW + 60),
        (PostRun(ONE, NOW + 10**9), NOW + WAITS.post_run),
        (Held(ONE, NOW + 60, "renew"), NOW + 60),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_restart_leaves_the_smaller_of_what_was_left_and_the_stage(state, after):
    assert after == restart.rearmed(a_job(state=state), NOW, WAITS)


def test_a_restart_moves_only_deadlines_that_change():
    store = a_store()
    offered(store)

    [_] = restart.restarted(store, Clocked(NOW, "", 0.0), WAITS)
    [_, moved] = restart.restarted(store, Clocked(NOW + 50, "", 0.0), WAITS)
    assert jobs.Renew(NOW + 50 + WAITS.offer_lease, began=NOW + 50) == moved.event


@pytest.mark.parametrize("state", [Running, PostRun, Held])
def test_a_restart_leaves_what_was_granted(state):
    granted = state(ONE, NOW + 10**9, **({"word": "renew"} if state is Held else {}), length=77.0)

    assert NOW + 77.0 == restart.rearmed(a_job(state=granted), NOW, WAITS)
    short = attrs.evolve(granted, until=NOW + 65)
    assert NOW + 65 == restart.rearmed(a_job(state=short), NOW, WAITS)


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -float("inf"), -60.0, 0.0])
def test_a_job_is_renewed_by_a_number_of_seconds_or_not_at_all(seconds):
    with pytest.raises(BadRequest, match="seconds: must be"):
        decisions.renewed(a_job(state=Running(ONE, NOW + 60)), seconds, NOW)


def test_nobody_borrows_a_box_for_ever():
    with pytest.raises(Refused, match="30 days"):
        decisions.renewed(a_job(state=Running(ONE, NOW + 60)), 30 * 86400.0, NOW)


def test_only_a_running_job_gets_more_time():
    with pytest.raises(Refused, match="Only running job can renew, your job stage is: submit"):
        decisions.renewed(a_job(), 60, NOW)

    [moved] = decisions.renewed(a_job(state=Running(ONE, NOW + 100)), 60, NOW)
    assert jobs.Renew(NOW + 160, length=160) == moved.event


def test_a_job_that_is_over_cannot_be_cancelled_and_says_how_it_ended():
    with pytest.raises(Refused, match=r"lab\.1 is over already: failed"):
        decisions.cancelled(a_job(state=Finished("failed", "", ONE)), "ann", NOW)


def test_what_cannot_boot_ends_before_it_runs_and_not_after():
    assert 1 == len(decisions.failed(a_job(), "incomplete", "gone", NOW))
    assert [] == decisions.failed(a_job(state=Running(ONE, NOW)), "incomplete", "gone", NOW)


def test_an_upload_is_refused_once_and_only_for_the_attempt_under_way():
    job = a_job(state=Running(ONE, NOW), attempts=(ONE,))
    [change] = decisions.refused_upload(job, 1, "quota", NOW)
    refused = moved(job, change)

    assert "quota" == refused.attempt.refused
    assert [] == decisions.refused_upload(refused, 1, "quota", NOW)
    assert [] == decisions.refused_upload(job, 2, "quota", NOW)


def test_an_upload_refused_after_the_end_changes_the_results_and_not_the_end():
    job = a_job(state=jobs.Finished("success", "", ONE), attempts=(ONE,))
    [change] = decisions.refused_upload(job, 1, "quota", NOW)
    lacking = marked(job, change)

    assert job.state == lacking.state
    assert "quota" == lacking.attempts[0].refused
    assert ("finish", "upload refused: quota", 1) == (
        lacking.history[-1].stage, lacking.history[-1].what, lacking.history[-1].attempt
    )  # fmt: skip
    assert [] == decisions.refused_upload(lacking, 1, "quota", NOW)


def test_what_was_not_delivered_goes_back_only_while_it_is_that_offer():
    store = a_store()
    offered(store)

    assert [] == decisions.undelivered(store, "lab.1", 2, NOW, WAITS)
    assert [] == decisions.undelivered(store, "lab.9", 1, NOW, WAITS)
    make(store, decisions.undelivered(store, "lab.1", 1, NOW, WAITS))
    assert "submit" == jobs.stage(store.job("lab.1").state)
    assert NOW == store.box("box-1").backoff_until  # once is no habit


def test_the_last_unknown_box_is_taken_and_one_more_is_refused():
    store = a_store()
    who = [Identity(f"52:54:00:00:01:0{n}", f"10.0.1.{n}") for n in range(4)]
    for one in who[:3]:
        make(store, decisions.asked(store, one, NOW, WAITS, 3))
    with pytest.raises(Refused, match="3 unknown boxes"):
        decisions.asked(store, who[3], NOW, WAITS, 3)

    assert decisions.asked(store, who[0], NOW, WAITS, 3)  # one of them, again
    assert decisions.asked(store, Identity(MAC, ADDRESS), NOW, WAITS, 0)


def test_a_mac_of_another_known_box_is_refused():
    with pytest.raises(Refused, match="box-2: 52:54:00:00:00:01 belongs to box-1 already"):
        decisions.registered(a_store(), facts("box-2"), NOW)

    assert decisions.registered(a_store(), facts("box-1", queues=["q"]), NOW)


PP = [
    ("", ""),
    ("pp: {iperf: {runtime: 20, cs: localhost}}", "/localhost-20"),
    ("pp: {iperf: 20}", "/20"),
    ("pp: {a: {b: ../../etc}}", "/-..-etc"),
    ("pp: {a: {b: '..'}}", ""),
    ("pp: text", ""),
    ("pp: {a: }", ""),
]


@pytest.mark.parametrize(("text", "part"), PP)
def test_the_result_root_is_made_of_plain_names(text, part):
    root = decisions.result_root(a_document(f"script: x\n{text}\n"), "lab.1", 1_767_225_600.0)

    assert f"/result/job/2026-01-01/default/debian-12-x86_64{part}/lab.1" == root


@pytest.mark.parametrize(
    "value",
    ["'/../../x'", "'" + "." * 300 + "'", "'" + "-/" * 300 + "'", "[1, 2]", "'ü ö'", "{a: b}"],
)
def test_no_parameter_leaves_its_folder(value):
    text = f"script: x\npp: {{a: {{b: {value}, c: {value}}}, d: {value}}}\n"
    parts = decisions.result_root(a_document(text), "lab.1", NOW).split("/")[1:]

    assert "lab.1" == parts[-1]
    assert len(parts) <= 7
    assert all(part and part not in (".", "..") and len(part) <= 255 for part in parts)


def test_the_second_attempt_uploads_beside_the_first():
    job = a_job()

    assert ["/result/1", "/result/1/attempt-2"] == [
        decisions.attempt_root(job, number) for number in (1, 2)
    ]


def test_an_attempt_may_upload_after_its_end_until_its_box_asks_again():
    store = a_store()
    job = offered(store)
    assert decisions.may_upload(store, job, job.attempt)

    box = store.box("box-1")
    store.apply(decisions.step(box, NOW, "script", job=job))
    store.apply(Moved("lab.1", jobs.Cancel("ann"), NOW))
    assert decisions.may_upload(store, store.job("lab.1"), job.attempt)

    store.apply(Seen("box-1", Identity(MAC, ADDRESS), NOW))
    assert not decisions.may_upload(store, store.job("lab.1"), job.attempt)


async def test_a_box_restarted_after_hours_of_running_boots_like_any_other(autojump_clock):
    async with open_lab() as lab:
        await lab.know()
        job = await lab.submit("script: x\nreboots: 1\ntimeout: 10h\n")
        await (await lab.ask()).rest()
        await lab.fetched_all(job)
        await lab.report(job, "job_state=running")
        await trio.sleep(2 * 3600)
        await (await lab.ask()).rest()
        assert 200 == (await lab.get(f"/job_initrd_tmpfs/{job.id}/job.cgz")).status
        for _ in range(4):  # the kernel is large and the link slow
            await trio.sleep(170)
            lab.fetches.moved(ADDRESS, PINNED.kernel, 1)

        assert "boot" == lab.stage(job)
        assert 1 == lab.scheduler.store.job(job.id).attempt.number


async def test_a_restarted_box_has_not_loaded_what_it_fetched_before(autojump_clock):
    async with open_lab() as lab:
        await lab.know()
        job = await lab.submit("script: x\nreboots: 1\n")
        await (await lab.ask()).rest()
        await lab.fetched_all(job)
        await wait_all_tasks_blocked()
        assert lab.scheduler.store.job(job.id).state.loaded
        await lab.report(job, "job_state=running")
        await (await lab.ask()).rest()
        assert 200 == (await lab.get(f"/job_initrd_tmpfs/{job.id}/job.cgz")).status
        await wait_all_tasks_blocked()
        lab.fetches.done(ADDRESS, PINNED.kernel, 1000, 1.0)

        assert not lab.scheduler.store.job(job.id).state.loaded


class SlowDisk(MemoryDisk):
    """Each append takes a second."""

    async def append(self, name, data):
        await trio.sleep(1)
        await super().append(name, data)


async def test_a_report_overtaken_by_its_box_does_not_move_the_next_attempt(autojump_clock):
    async with open_lab(disk=SlowDisk()) as lab:
        await lab.know()
        job = await lab.submit("script: x\nretry: true\n")
        await (await lab.ask()).rest()
        await lab.fetched_all(job)
        await lab.report(job, "job_state=running")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lab.report, job, "loadavg=1&job_state=failed")
            await wait_all_tasks_blocked()
            answer = await lab.ask()  # while the first half of the report becomes durable
            await answer.rest()

        assert "offered" == lab.stage(job)
        assert (2, None) == (
            lab.scheduler.store.job(job.id).attempt.number,
            lab.scheduler.store.job(job.id).attempt.health,
        )


@pytest.mark.slow
async def test_whoever_waits_for_a_long_lived_job_hears_of_its_end(autojump_clock):
    told = []

    async def tell(event):
        told.append(event["what"])

    async with open_lab() as lab:
        job = await lab.submit()
        waiting = trio.Event()

        async def wait():
            await lab.people.do("wait", {"job": job.id}, "ann", tell)
            waiting.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await lab.know()
            for n in range(HISTORY_MAX):
                await (await lab.ask()).rest()
                if n % 7 == 0:
                    await trio.sleep(1)
            await lab.scheduler.cancel(job.id, "ann")
            with trio.fail_after(60):
                await waiting.wait()

        assert "cancelled by ann" == told[-1]
        assert len(told) > HISTORY_MAX
        assert HISTORY_MAX == len(lab.scheduler.store.job(job.id).history)
