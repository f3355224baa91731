"""A job's life, from its submit to its end, through the real doors in virtual time."""

from __future__ import annotations

import errno
import gzip

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from appliance.config import Limits
from appliance.errors import BadDocument, Refused, Unknown
from appliance.jobs import decisions
from appliance.jobs.box import Identity
from appliance.jobs.changes import Quarantined
from appliance.jobs.job import Finished
from appliance.scheduler.outbox import HandOver
from tests import lab as labs
from tests.disks import MemoryDisk as Disk
from tests.lab import PINNED, open_lab


async def booted(lab, text="script: echo hi\n"):
    """A job whose box has everything of its script."""
    await lab.know()
    job = await lab.submit(text)
    await (await lab.ask()).rest()
    await lab.fetched_all(job)
    return job


def ending(lab, job):
    state = lab.scheduler.store.job(job.id).state
    assert isinstance(state, Finished), state
    return state.health, state.reason


async def test_a_job_that_runs_to_its_end_is_a_success(autojump_clock):
    async with open_lab() as lab:
        job = await booted(lab)
        assert "boot" == lab.stage(job)
        assert "Done" == await lab.report(job, "job_state=running")
        assert "running" == lab.stage(job)
        assert "Done" == await lab.report(job, "job_state=post_run")
        assert "Done" == await lab.report(job, "job_state=finished")
        assert '"success"' == await lab.report(job, "job_file=/x", "lkp-post-run")

        assert ("success", "") == ending(lab, job)
        history = [(m.stage, m.box) for m in lab.scheduler.store.job(job.id).history]
        stages = ["offered", "boot", "running", "post_run", "finish"]
        assert [("submit", None), *[(stage, "box-1") for stage in stages]] == history


async def test_queries_with_empty_arguments_and_raw_slashes_are_taken(autojump_clock):
    async with open_lab() as lab:
        job = await booted(lab)
        answer = await lab.get(
            f"/~lkp/cgi-bin/lkp-jobfile-append-var?job_file=/lkp/scheduled/job.yaml"
            f"&job_id={job.id}&job_state=running&&"
        )

        assert b"Done" == answer.body
        assert "running" == lab.stage(job)


async def test_an_offer_that_nobody_fetches_lapses_and_the_job_goes_to_the_next_box(autojump_clock):
    async with open_lab() as lab:
        await lab.know()
        job = await lab.submit()
        await (await lab.ask()).rest()
        await trio.sleep(179)
        assert "offered" == lab.stage(job)
        await trio.sleep(2)
        assert "submit" == lab.stage(job)

        await lab.know("box-2", "52:54:00:00:00:02")
        other = await lab.ask("/boot.ipxe/mac/52-54-00-00-00-02?arch=x86_64", "10.0.0.6")
        assert f"/{job.id}/" in (await other.rest()).decode()
        assert 2 == lab.scheduler.store.job(job.id).attempt.number


async def test_a_box_that_asks_again_before_it_was_told_lost_nothing(autojump_clock):
    """The disk of the images may take its time; the box was never told, so nothing is lost."""
    async with open_lab() as lab:
        looked = trio.Event()

        async def missing(pinned):
            await looked.wait()
            return []

        lab.images.missing = missing
        await lab.know()
        job = await lab.submit()
        await lab.ask()
        await wait_all_tasks_blocked()
        assert "offered" == lab.stage(job)
        again = await lab.ask()
        await wait_all_tasks_blocked()
        looked.set()

        assert f"/{job.id}/".encode() in await again.rest()
        assert {} == lab.scheduler.resting


async def test_a_box_that_lost_an_offer_backs_off_before_it_gets_it_again(autojump_clock):
    async with open_lab() as lab:
        await lab.know()
        job = await lab.submit()
        await (await lab.ask()).rest()
        again = await lab.ask()  # it failed in its script, and asks again at once
        began = trio.current_time()

        assert f"/{job.id}/" in (await again.rest()).decode()
        assert 30 <= trio.current_time() - began < 31


async def test_bytes_that_move_renew_the_lease(autojump_clock):
    async with open_lab() as lab:
        await lab.know()
        job = await lab.submit()
        await (await lab.ask()).rest()
        for _ in range(5):
            await trio.sleep(170)
            lab.fetches.moved("10.0.0.5", PINNED.kernel, 1)
        assert "offered" == lab.stage(job)
        await trio.sleep(181)

        assert "submit" == lab.stage(job)


async def test_a_second_boot_lost_with_everything_fetched_is_boot_failed(autojump_clock):
    async with open_lab() as lab:
        job = await booted(lab)
        await trio.sleep(601)
        assert "submit" == lab.stage(job)
        again = await lab.ask()
        await again.rest()
        await lab.fetched_all(job)
        await trio.sleep(601)

        assert "boot_failed" == ending(lab, job)[0]


async def test_a_box_that_lost_a_boot_gets_it_again_only_if_there_is_no_other(autojump_clock):
    async with open_lab() as lab:
        job = await booted(lab)
        await lab.know("box-2", "52:54:00:00:00:02", arch="x86_64")
        await (await lab.ask("/boot.ipxe/mac/52-54-00-00-00-02", "10.0.0.6")).hang_up()
        await trio.sleep(601)
        first = await lab.ask()
        second = await lab.ask("/boot.ipxe/mac/52-54-00-00-00-02", "10.0.0.6")
        assert f"/{job.id}/" in (await second.rest()).decode()
        await lab.fetched_all(job, "10.0.0.6")
        await lab.report(job, "job_state=running")

        assert "No job now" in (await first.rest()).decode()


async def test_a_box_that_asks_while_its_job_runs_has_lost_it(autojump_clock):
    async with open_lab() as lab:
        job = await booted(lab)
        await lab.report(job, "job_state=running")
        await lab.ask()

        assert ("abnormal", "its testbox rebooted") == ending(lab, job)


async def test_a_job_with_retry_runs_again_after_its_box_was_lost(autojump_clock):
    async with open_lab() as lab:
        job = await booted(lab, "script: x\nretry: true\n")
        await lab.report(job, "job_state=running")
        again = await lab.ask()

        assert f"/{job.id}/" in (await again.rest()).decode()


async def test_a_job_may_restart_its_own_box_as_often_as_it_says(autojump_clock):
    async with open_lab() as lab:
        job = await booted(lab, "script: x\nreboots: 1\n")
        await lab.report(job, "job_state=running")
        again = await lab.ask()
        assert f"/{job.id}/" in (await again.rest()).decode()
        assert 1 == lab.scheduler.store.job(job.id).attempt.number
        await lab.fetched_all(job)
        await lab.report(job, "job_state=running")
        await lab.ask()

        assert "abnormal" == ending(lab, job)[0]


async def test_a_running_job_ends_at_its_deadline(autojump_clock):
    async with open_lab() as lab:
        job = await booted(lab, "script: x\ntimeout: 100\n")
        await lab.report(job, "job_state=running")
        await trio.sleep(99)
        assert "running" == lab.stage(job)
        await trio.sleep(2)

        assert "timeout" == ending(lab, job)[0]


async def test_what_a_verdict_says_stands_even_if_the_box_is_lost_then(autojump_clock):
    async with open_lab() as lab:
        job = await booted(lab)
        await lab.report(job, "job_state=running")
        await lab.report(job, "job_state=failed")
        await lab.ask()

        assert "failed" == ending(lab, job)[0]


async def test_the_first_verdict_wins(autojump_clock):
    async with open_lab() as lab:
        job = await booted(lab)
        await lab.report(job, "job_state=running")
        await lab.report(job, "job_state=OOM")
        await lab.report(job, "job_state=finished")
        await lab.report(job, "", "lkp-post-run")

        assert "OOM" == ending(lab, job)[0]


async def test_a_late_report_moves_nothing_and_is_kept(autojump_clock):
    async with open_lab() as lab:
        job = await booted(lab)
        await lab.report(job, "job_state=running")
        await lab.report(job, "", "lkp-post-run")
        assert "Done" == await lab.report(job, "job_state=running")

        assert ("success", "") == ending(lab, job)
        shown = await lab.people.do("host-show", {"host": "box-1"}, "root", None)
        steps = [step["detail"] for step in shown["boots"][-1]["steps"]]
        assert "late: job_state=running (attempt 1 is over)" == steps[-1]


async def test_a_report_of_an_older_attempt_does_not_move_the_newer_one(autojump_clock):
    async with open_lab() as lab:
        job = await booted(lab)
        old = lab.scheduler.store.job(job.id).attempt.token
        await trio.sleep(601)
        await (await lab.ask()).rest()
        answer = await lab.get(
            f"/~lkp/{old}/cgi-bin/lkp-jobfile-append-var?job_id={job.id}&job_state=running"
        )

        assert b"Done" == answer.body
        assert "offered" == lab.stage(job)


async def test_a_late_report_leaves_its_attempt_free_to_hand_over_its_results(autojump_clock):
    """A client reports before it uploads, and its box has not asked since."""
    async with open_lab() as lab:
        job = await booted(lab)
        await lab.know("box-2", "52:54:00:00:00:02")
        old = lab.scheduler.store.job(job.id).attempt
        await trio.sleep(601)
        other = await lab.ask("/boot.ipxe/mac/52-54-00-00-00-02?arch=x86_64", "10.0.0.6")
        assert f"/{job.id}/" in (await other.rest()).decode()
        await lab.get(
            f"/~lkp/{old.token}/cgi-bin/lkp-jobfile-append-var?job_id={job.id}&job_state=post_run"
        )
        await lab.get(f"/~lkp/{old.token}/cgi-bin/lkp-jobfile-append-var?job_id={job.id}&loadavg=1")
        moved = lab.scheduler.store.job(job.id)

        assert ("offered", 2, "box-2") == (lab.stage(job), moved.attempt.number, moved.attempt.box)
        assert decisions.may_upload(lab.scheduler.store, moved, old)
        assert decisions.may_upload(lab.scheduler.store, moved, moved.attempt)


async def test_a_late_report_is_kept_in_the_boot_under_way_which_stays_what_it_is(autojump_clock):
    async with open_lab() as lab:
        first = await booted(lab)
        await lab.report(first, "", "lkp-post-run")
        second = await lab.submit(key="another0")
        await (await lab.ask()).rest()
        await lab.report(first, "job_state=failed")
        await lab.report(first, "loadavg=1")
        shown = await lab.people.do("host-show", {"host": "box-1"}, "root", None)
        boot = shown["boots"][-1]

        assert (second.id, 1) == (boot["job"], boot["attempt"])
        steps = [step["detail"] for step in boot["steps"]]
        assert ["late: job_state=failed (attempt 1 is over)", "loadavg=1"] == steps[-2:]


async def test_a_report_from_elsewhere_without_a_token_moves_nothing(autojump_clock):
    async with open_lab() as lab:
        job = await booted(lab)
        query = f"job_id={job.id}&job_state=running"
        await lab.get(f"/~lkp/cgi-bin/lkp-jobfile-append-var?{query}", "10.0.0.66")

        assert "boot" == lab.stage(job)


@pytest.mark.parametrize("state", ["a b", "x" * 61, "%0a", "<b>"])
async def test_a_verdict_that_is_no_word_is_refused(autojump_clock, state):
    async with open_lab() as lab:
        job = await booted(lab)
        target = f"/~lkp/cgi-bin/lkp-jobfile-append-var?job_id={job.id}&job_state="
        answer = await lab.get(target + state.replace(" ", "%20"))

        assert 400 == answer.status
        assert "boot" == lab.stage(job)


async def test_the_runner_learns_that_its_job_was_cancelled_by_asking(autojump_clock):
    async with open_lab() as lab:
        job = await booted(lab)
        await lab.report(job, "job_state=running")
        assert "yes" == await lab.report(job, "", "still-wanted")
        await lab.people.do("cancel", {"job": job.id}, "ann", None)

        assert "no" == await lab.report(job, "", "still-wanted")
        assert ("cancel", "cancelled by ann") == ending(lab, job)


async def test_only_its_submitter_or_root_cancels_a_job(autojump_clock):
    async with open_lab() as lab:
        job = await lab.submit()
        with pytest.raises(Refused, match="only ann or root"):
            await lab.people.do("cancel", {"job": job.id}, "bob", None)
        await lab.people.do("cancel", {"job": job.id}, "root", None)
        with pytest.raises(Refused, match="is over already: cancel"):
            await lab.people.do("cancel", {"job": job.id}, "root", None)


async def test_a_job_whose_image_vanished_fails_with_that_reason_and_the_box_gets_the_next(
    autojump_clock,
):
    async with open_lab() as lab:
        await lab.know()
        answer = await lab.ask()
        lab.images.gone = [PINNED.kernel]
        job = await lab.submit()
        await wait_all_tasks_blocked()
        assert ("incomplete", f"its image is gone: {PINNED.kernel}") == ending(lab, job)
        lab.images.gone = []
        following = await lab.submit(key="another0")

        assert f"/{following.id}/" in (await answer.rest()).decode()


async def test_a_hand_over_whose_job_was_archived_while_the_disk_was_stuck_is_let_go(
    autojump_clock,
):
    async with open_lab() as lab:
        await lab.know()
        answer = await lab.ask()
        lab.scheduler.outbox.offer(HandOver("box", "lab.99", number=1, position=0))
        await wait_all_tasks_blocked()
        following = await lab.submit()

        assert f"/{following.id}/" in (await answer.rest()).decode()


async def test_a_file_of_the_script_that_is_gone_ends_the_job_not_the_box(autojump_clock):
    async with open_lab() as lab:
        await lab.know()
        job = await lab.submit()
        await (await lab.ask()).rest()
        lab.fetches.missing("10.0.0.5", PINNED.initrds[1], labs.SCHEDULER[0])

        assert ("incomplete", f"{PINNED.initrds[1]} is gone (404)") == ending(lab, job)
        following = await lab.submit(key="another0")
        began = trio.current_time()
        assert f"/{following.id}/" in (await (await lab.ask()).rest()).decode()
        assert began == trio.current_time()


async def test_job_cgz_is_its_boxs_alone_and_can_be_fetched_again(autojump_clock):
    async with open_lab() as lab:
        await lab.know()
        job = await lab.submit("script: echo hi\nsecrets: {pass: word}\n")
        await (await lab.ask()).rest()
        path = f"/job_initrd_tmpfs/{job.id}/job.cgz"
        first = await lab.get(path)
        again = await lab.get(path)

        assert 200 == first.status
        assert first.body == again.body
        assert 403 == (await lab.get(path, "10.0.0.66")).status
        assert 404 == (await lab.get("/job_initrd_tmpfs/lab.99/job.cgz")).status
        assert 404 == (await lab.get(f"/job_initrd_tmpfs/{job.id}/../x/job.cgz")).status
        archive = gzip.decompress(first.body)
        assert b"pass: word" in archive
        assert 1 == archive.count(b"word")


async def test_job_cgz_does_not_go_out_when_its_attempt_ended_while_the_disk_was_stuck(
    autojump_clock,
):
    async with open_lab() as lab:
        await lab.know()
        job = await lab.submit()
        await (await lab.ask()).rest()
        answers = []

        async def fetch():
            answers.append(await lab.get(f"/job_initrd_tmpfs/{job.id}/job.cgz"))

        lab.disk.calls.broken = errno.EIO
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fetch)
            await trio.sleep(lab.config.waits.offer_lease + 10)
            assert "submit" == lab.stage(job)
            lab.disk.calls.broken = None

        assert [404] == [answer.status for answer in answers]


async def test_job_cgz_is_gone_when_the_attempt_is_over(autojump_clock):
    async with open_lab() as lab:
        job = await booted(lab)
        await lab.people.do("cancel", {"job": job.id}, "ann", None)

        assert 404 == (await lab.get(f"/job_initrd_tmpfs/{job.id}/job.cgz")).status


async def test_boxes_beyond_those_that_may_load_at_once_keep_their_seats(autojump_clock):
    async with open_lab(labs.config(limits=Limits(boots_in_flight=1))) as lab:
        await lab.know()
        await lab.know("box-2", "52:54:00:00:00:02")
        first = await lab.submit()
        second = await lab.submit(key="another0")
        await (await lab.ask()).rest()
        waiting = await lab.ask("/boot.ipxe/mac/52-54-00-00-00-02?arch=x86_64", "10.0.0.6")
        assert "submit" == lab.stage(second)
        await trio.sleep(20)
        await lab.fetched_all(first)

        assert f"/{second.id}/" in (await waiting.rest()).decode()
        assert 20 == round(trio.current_time())


async def test_the_same_key_finds_the_same_job(autojump_clock):
    async with open_lab() as lab:
        first = await lab.submit()
        again = await lab.submit()

        assert first.id == again.id
        assert 1 == len(lab.scheduler.store.jobs)
        assert first.id != (await lab.submit(user="bob")).id


async def test_a_document_without_an_image_names_those_there_are(autojump_clock):
    async with open_lab() as lab:
        with pytest.raises(BadDocument, match="no image plan9; there is: debian 12 x86_64"):
            await lab.submit("script: x\nos: plan9\n")
        assert {} == lab.scheduler.store.jobs


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("os: plan9\narch: sparc\n", {"os", "arch"}),
        ("os: plan9\nos_arch: sparc\n", {"os", "os_arch"}),
        ("os: a b\n", {"os"}),
        ("os: plan9\nos_version: a b\nruntime: never\n", {"os", "os_version", "runtime"}),
    ],
)
async def test_an_image_that_is_not_there_is_named_beside_the_other_mistakes(
    autojump_clock, text, fields
):
    async with open_lab() as lab:
        with pytest.raises(BadDocument) as caught:
            await lab.submit(f"script: x\n{text}")

        assert sorted(fields) == sorted(problem.field for problem in caught.value.problems)


async def test_a_kernel_line_that_cannot_fit_is_refused_at_submit(autojump_clock):
    async with open_lab() as lab:
        with pytest.raises(BadDocument, match=r"kernel line would be \d+ bytes, \d+ too many"):
            await lab.submit(f"script: x\nkernel_custom_params: {'a' * 1500}\n")
        await lab.submit(f"script: x\nkernel_custom_params: {'a' * 1000}\n")


async def test_a_host_that_makes_the_line_too_long_ends_the_job_with_that_reason(autojump_clock):
    async with open_lab() as lab:
        await lab.know(kernel_params="b" * 1800)
        job = await lab.submit()
        await lab.ask()
        await wait_all_tasks_blocked()

        assert "more than kernels take (2047)" in ending(lab, job)[1]


async def test_a_restart_finds_all_jobs_again(autojump_clock):
    disk = labs.MemoryDisk()
    async with open_lab(disk=disk) as lab:
        running = await booted(lab)
        await lab.report(running, "job_state=running")
        queued = await lab.submit(key="another0")
    async with open_lab(disk=disk) as lab:
        assert "running" == lab.stage(running)
        assert "submit" == lab.stage(queued)
        assert lab.scheduler.store.counter == 2
        await lab.report(running, "", "lkp-post-run")
        await lab.know()
        answer = await lab.ask()
        assert f"/{queued.id}/" in (await answer.rest()).decode()


async def test_an_idle_boxs_rounds_do_not_push_its_real_boots_out(autojump_clock):
    async with open_lab() as lab:
        job = await booted(lab)
        await lab.report(job, "", "lkp-post-run")
        for _ in range(15):
            await (await lab.ask()).rest()
        shown = await lab.people.do("host-show", {"host": "box-1"}, "root", None)

        assert [job.id, None] == [boot["job"] for boot in shown["boots"]]


async def test_wait_tells_what_happens_and_returns_at_the_end(autojump_clock):
    async with open_lab() as lab:
        job = await booted(lab)
        seen = []

        async def event(what):
            seen.append(what["stage"])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(lab.people.do, "wait", {"job": job.id}, "ann", event)
            await trio.sleep(5)
            assert ["submit", "offered", "boot"] == seen
            await lab.report(job, "job_state=running")
            await lab.report(job, "job_health=success", "lkp-post-run")

        assert ["submit", "offered", "boot", "running", "finish"] == seen


async def test_a_uuid_that_a_box_says_of_itself_makes_it_no_other_box(autojump_clock):
    victim = "4c4c4544-0042-3510-8051-b4c04f4a3132"
    async with open_lab() as lab:
        await lab.know()
        job = await lab.submit()
        await (await lab.ask(f"{labs.ASK}&uuid={victim}")).rest()
        await lab.fetched_all(job)
        await lab.ask(f"/boot.ipxe/mac/52-54-00-00-00-66?arch=x86_64&uuid={victim}", "10.0.0.66")

        assert "boot" == lab.stage(job)
        assert ["box-1", "unknown-52-54-00-00-00-66"] == list(lab.scheduler.store.boxes)


async def unknown(lab):
    with pytest.raises(Unknown):
        await lab.submit()


async def test_a_repeat_of_a_submit_waits_for_the_disk_as_the_first_did(autojump_clock):
    """Found by the simulation: it was acknowledged at once, and a kill then lost the job."""
    disk = Disk()
    async with open_lab(disk=disk) as lab, trio.open_nursery() as nursery:
        await lab.know()
        disk.calls.broken = errno.EIO
        nursery.start_soon(unknown, lab)
        await wait_all_tasks_blocked()
        await unknown(lab)
        disk.calls.broken = None

        assert trio.current_time() > 1
        assert "lab.1" == (await lab.submit()).id


# ---- found by a review


async def asks(lab, number):
    """The box with this number asks."""
    return await lab.ask(f"/boot.ipxe/mac/52-54-00-00-00-0{number}?arch=x86_64", f"10.0.0.{number}")


@pytest.mark.parametrize("how", ["held", "reserved", "quarantined", "removed"])
async def test_a_job_waits_for_no_other_box_that_would_not_get_it(autojump_clock, how):
    async with open_lab() as lab:
        scheduler = lab.scheduler
        job = await booted(lab)
        await lab.know("box-2", "52:54:00:00:00:02")
        other = await asks(lab, 2)
        await trio.sleep(700)  # box-1 lost its boot; box-2 is there, and gets the job
        assert b"job.cgz" in await other.rest()
        now = scheduler.clock.now()
        other = await asks(lab, 2)  # it lost power at once: nobody's fault, the job goes back
        if how == "removed":
            await scheduler.unregister(scheduler.store.box("box-2"), "root")
        elif how == "quarantined":
            await scheduler.durable(
                scheduler.change([Quarantined("box-2", "3 boots lost", "", now)])
            )
        else:
            user = "bob" if how == "reserved" else None
            await scheduler.reserve(scheduler.store.box("box-2"), user, now + 86400, "root", "")
        waiting = await lab.ask()
        await trio.sleep(60)

        assert b"job.cgz" in await waiting.rest()
        assert "box-1" == scheduler.store.job(job.id).attempt.box


async def test_a_waiting_box_gets_the_job_that_avoids_it_as_soon_as_no_other_would(autojump_clock):
    async with open_lab() as lab:
        scheduler = lab.scheduler
        await booted(lab)
        await lab.know("box-2", "52:54:00:00:00:02")
        await trio.sleep(500)
        await asks(lab, 2)  # it backs off, after this
        await trio.sleep(1)
        scheduler.resting["box-2"] = scheduler.clock.now() + 10_000
        await trio.sleep(300)  # box-1 lost its boot
        waiting = await lab.ask()
        await trio.sleep(100)
        began = trio.current_time()
        await scheduler.unregister(scheduler.store.box("box-2"), "root")

        assert b"job.cgz" in await waiting.rest()
        assert began == trio.current_time()


async def test_a_job_with_retry_that_crashes_its_box_lets_others_run(autojump_clock):
    async with open_lab() as lab:
        await lab.know()
        bad = await lab.submit("script: x\nretry: true\n", "ann", "thefirst")
        good = await lab.submit(user="bob", key="another1")
        ran = []
        for _ in range(4):
            await (await lab.ask()).rest()
            [job] = lab.scheduler.store.active()
            ran.append(job.id)
            await lab.fetched_all(job)
            await lab.report(job, "job_state=running")
            if job.id == good.id:
                await lab.report(job, "", "lkp-post-run")

        assert [bad.id, good.id, bad.id, bad.id] == ran


async def test_time_that_was_granted_is_granted_after_a_restart_too(autojump_clock):
    disk = Disk()
    async with open_lab(disk=disk) as lab:
        job = await booted(lab, "script: x\ntimeout: 3600\n")
        await lab.report(job, "job_state=running")
        await lab.scheduler.renew(job.id, 12 * 3600)
    async with open_lab(disk=disk, restarted=True) as lab:
        await trio.sleep(12.9 * 3600)
        assert "running" == lab.stage(job)
        await trio.sleep(0.2 * 3600)
        assert "timeout" == ending(lab, job)[0]


@pytest.mark.parametrize("jump", [86400.0, -86400.0])
async def test_bytes_renew_a_lease_whatever_the_wall_did_between_two_runs(autojump_clock, jump):
    disk = Disk()
    async with open_lab(disk=disk) as lab:
        await lab.know()
        job = await lab.submit()
        await (await lab.ask()).rest()
        await lab.get(f"/job_initrd_tmpfs/{job.id}/job.cgz")
    async with open_lab(disk=disk, restarted=True, wall=jump) as lab:
        for _ in range(60):
            await trio.sleep(10)
            lab.fetches.moved("10.0.0.5", PINNED.kernel, 100)
        assert "boot" == lab.stage(job)
        assert 1 == len(lab.scheduler.store.job(job.id).attempts)


async def test_a_box_that_had_files_before_a_restart_need_not_fetch_them_again(autojump_clock):
    disk = Disk()
    async with open_lab(disk=disk) as lab:
        await lab.know()
        job = await lab.submit()
        await (await lab.ask()).rest()
        await lab.get(f"/job_initrd_tmpfs/{job.id}/job.cgz")
        await lab.get("/runner.cgz")
        for path in [PINNED.kernel, PINNED.initrds[0]]:
            lab.fetches.done("10.0.0.5", path, 1000, 1.0)
        await trio.sleep(1)
    async with open_lab(disk=disk, restarted=True) as lab:
        lab.fetches.done("10.0.0.5", PINNED.initrds[1], 1000, 1.0)
        await trio.sleep(lab.config.waits.boot - 1)
        assert "boot" == lab.stage(job)


async def test_what_the_disk_does_not_know_is_told_to_nobody(autojump_clock):
    async with open_lab() as lab:
        job = await booted(lab)
        await lab.report(job, "job_state=running")
        token = lab.scheduler.store.job(job.id).attempt.token
        lab.disk.calls.broken = errno.EROFS
        for _ in range(2):  # the second is refused, but not told so
            with pytest.raises(Unknown):
                await lab.scheduler.cancel(job.id, "ann")
        asked = []

        async def ask():
            answer = await lab.get(f"/~lkp/{token}/cgi-bin/still-wanted?job_id={job.id}")
            asked.append((answer.body, trio.current_time()))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.sleep(100)
            assert [] == asked
            lab.disk.calls.broken = None
            mended = trio.current_time()
        [(body, at)] = asked
        assert b"no" == body
        assert at >= mended


async def test_a_job_of_a_box_that_has_another_name_now_is_archived_and_reported_on(autojump_clock):
    small = labs.config(limits=Limits(finished_in_memory=1))
    async with open_lab(small) as lab:
        scheduler = lab.scheduler
        job = await booted(lab)
        await lab.report(job, "job_state=running")
        await lab.report(job, "", "lkp-post-run")
        waiting = await lab.ask()
        await scheduler.unregister(scheduler.store.box("box-1"), "root")
        await lab.know("box-2")
        assert "Done" == await lab.report(job, "job_state=failed")
        second = await lab.submit(key="another1")

        assert b"job.cgz" in await waiting.rest()  # it is the same machine, where it sat
        await scheduler.cancel(second.id, "ann")
        await trio.sleep(10)
        assert 1 == scheduler.store.archived
        assert ["box-1", "box-2"] == sorted(scheduler.store.boxes)
        disk = lab.disk.after_kill()
    async with open_lab(small, disk) as lab:
        assert "box-2" == lab.scheduler.store.box_of(Identity(labs.MAC, "")).name
        lab.check()
