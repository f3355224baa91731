"""Uploads, on real files: they take threads, so these tests run on the real clock."""

from __future__ import annotations

import errno
import json
import os
import time
from urllib.parse import unquote

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from appliance.config import Limits, Network
from appliance.doors import uploads
from appliance.doors.uploads import NAMES_MAX
from appliance.jobs import decisions
from appliance.jobs import job as jobs
from appliance.keep import results
from appliance.web import bodies
from tests import fakes
from tests import lab as labs
from tests.lab import ASK, open_lab

UPLOAD = ("10.0.0.1", 3080)


async def running(lab):
    """A job that runs on box-1, at 10.0.0.5."""
    await lab.know()
    job = await lab.submit()
    await (await lab.ask()).rest()
    await lab.fetched_all(job)
    await lab.report(job, "job_state=running")
    return job


async def send(lab, method, path, body=b"", client="10.0.0.5", cookie=None, **headers):
    if cookie is not None:
        headers["cookie"] = f"JOBID={cookie}"
    return await fakes.fetch(
        lab.wire, method, path, headers, body, client=(client, 5000), server=UPLOAD
    )


def kept(lab, job):
    root = lab.config.paths.srv / job.result_root[1:]
    return {path: (root / path).read_bytes() for path, _, _ in results.listing(root)}


def parts(lab):
    return list(lab.config.paths.srv.rglob(results.PART + "*"))


async def test_what_the_box_puts_is_what_people_read(tmp_path):
    async with open_lab(labs.config(tmp_path)) as lab:
        job = await running(lab)
        put = await send(lab, "PUT", f"{job.result_root}/stdout", b"hello\n", cookie=job.id)
        listed = await lab.people.do("results", {"job": job.id}, "ann", None)
        read = await lab.people.do("read", {"job": job.id, "path": "stdout"}, "ann", None)

        assert 201 == put.status
        assert [("stdout", 6)] == [(f["path"], f["size"]) for f in listed["files"]]
        assert {"data": b"hello\n", "size": 6, "next": None} == read
        assert str(tmp_path / "srv") + job.result_root == listed["root"]


async def test_collections_double_slashes_and_parents_are_as_curl_sends_them(tmp_path):
    async with open_lab(labs.config(tmp_path)) as lab:
        job = await running(lab)
        root = job.result_root
        made = [
            await send(lab, "MKCOL", f"{root}/results/", cookie=job.id),
            await send(lab, "MKCOL", f"{root}/results//a/", cookie=job.id),
            await send(lab, "MKCOL", f"{root}/results//a/", cookie=job.id),
            await send(lab, "PUT", f"{root}/results//a/f", b"1", cookie=job.id),
            await send(lab, "PUT", f"{root}/deep/er/g%25", b"2", cookie=job.id),
            await send(lab, "PUT", f"{root}/empty", b"", cookie=job.id),
        ]

        assert [201] * 6 == [answer.status for answer in made]
        assert {"results/a/f": b"1", "deep/er/g%": b"2", "empty": b""} == kept(lab, job)


@pytest.mark.parametrize(
    ("path", "client", "cookie", "status"),
    [
        ("{root}/x", "10.0.0.5", None, 403),
        ("{root}/x", "10.0.0.5", "lab.99", 403),
        ("{root}/x", "10.0.0.66", "{id}", 403),
        ("/result/other/x", "10.0.0.5", "{id}", 403),
        ("{root}x/y", "10.0.0.5", "{id}", 403),
        ("{root}/../x", "10.0.0.5", "{id}", 400),
        ("{root}/%2e%2e/x", "10.0.0.5", "{id}", 400),
        ("{root}/..%2fx", "10.0.0.5", "{id}", 400),
        ("{root}/folder/", "10.0.0.5", "{id}", 400),
        ("{root}/a%00b", "10.0.0.5", "{id}", 400),
        ("{root}/.appliance-part-1", "10.0.0.5", "{id}", 400),
        ("{root}/.removed", "10.0.0.5", "{id}", 400),
        ("{root}/.removed-x", "10.0.0.5", "{id}", 400),
        ("{root}/%2eremoved/x", "10.0.0.5", "{id}", 400),
        ("{root}/.profile", "10.0.0.5", "{id}", 201),  # hidden by shells, not by us
        ("{root}/%ff", "10.0.0.5", "{id}", 400),  # no UTF-8: the journal cannot hold it
        ("{root}/" + "d/" * (NAMES_MAX + 1) + "x", "10.0.0.5", "{id}", 400),
        ("{root}/attempt-2/x", "10.0.0.5", "{id}", 400),  # it would be shown as attempt 2's
    ],
)
async def test_an_upload_fits_cookie_path_and_address_or_is_refused(
    tmp_path, path, client, cookie, status
):
    async with open_lab(labs.config(tmp_path)) as lab:
        job = await running(lab)
        words = {"root": job.result_root, "id": job.id}
        cookie = cookie and cookie.format(**words)
        answer = await send(lab, "PUT", path.format(**words), b"x", client, cookie)

        assert status == answer.status
        assert (status == 201) == bool(kept(lab, job))


@pytest.mark.parametrize(
    ("card", "check", "status"),
    [
        ("52:54:00:00:00:02", True, 201),
        ("52:54:00:00:00:03", True, 403),  # another machine's
        ("52:54:00:00:00:02", False, 403),  # routed: the neighbour is a router
    ],
)
async def test_an_upload_may_come_from_another_card_of_the_box(tmp_path, card, check, status):
    chosen = attrs.evolve(labs.config(tmp_path), network=Network(check_neighbour=check))
    async with open_lab(chosen) as lab:
        lab.neighbours.cards.update({"10.0.0.5": labs.MAC, "10.0.0.6": card})
        await lab.know(mac=[labs.MAC, "52:54:00:00:00:02"])
        job = await lab.submit()
        await (await lab.ask()).rest()
        await lab.fetched_all(job)
        await lab.report(job, "job_state=running")
        answer = await send(lab, "PUT", f"{job.result_root}/x", b"x", "10.0.0.6", job.id)

        assert status == answer.status


async def test_a_tree_as_deep_as_it_may_be_is_listed(tmp_path):
    async with open_lab(labs.config(tmp_path)) as lab:
        job = await running(lab)
        room = NAMES_MAX - len(job.result_root[1:].split("/")) - 1
        path = "d/" * room + "x"
        put = await send(lab, "PUT", f"{job.result_root}/{path}", b"x", cookie=job.id)

        assert 201 == put.status
        assert {path: b"x"} == kept(lab, job)


async def test_a_part_of_a_file_is_not_taken_for_the_whole(tmp_path):
    async with open_lab(labs.config(tmp_path)) as lab:
        job = await running(lab)
        part = {"content-range": "bytes 5-9/10"}
        put = await send(lab, "PUT", f"{job.result_root}/a", b"12345", cookie=job.id, **part)

        assert 400 == put.status
        assert {} == kept(lab, job)


async def test_a_file_past_the_limit_is_413_its_part_gone_and_the_job_incomplete(tmp_path):
    limits = Limits(upload_file_bytes=10)
    async with open_lab(labs.config(tmp_path, limits=limits)) as lab:
        job = await running(lab)
        fits = await send(lab, "PUT", f"{job.result_root}/a", b"x" * 10, cookie=job.id)
        large = await send(lab, "PUT", f"{job.result_root}/b", b"x" * 11, cookie=job.id)
        chunked = {"transfer-encoding": "chunked"}
        liar = await send(lab, "PUT", f"{job.result_root}/c", b"x" * 11, cookie=job.id, **chunked)
        await lab.report(job, "job_state=finished")
        await lab.report(job, "", "lkp-post-run")
        state = lab.scheduler.store.job(job.id).state

        assert [201, 413, 413] == [fits.status, large.status, liar.status]
        assert {"a"} == kept(lab, job).keys()
        assert [] == parts(lab)
        assert ("incomplete", "b is larger than 10 bytes") == (state.health, state.reason)


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "lacks"),
    [
        ("PUT", "d/" * (NAMES_MAX + 1) + "x", {}, 400, "more than 100 names in one path"),
        ("MKCOL", "d/" * (NAMES_MAX + 1), {}, 400, "more than 100 names in one path"),
        ("PUT", "%ff", {}, 400, "the path is no UTF-8"),
        ("PUT", "a", {"content-range": "bytes 5-9/10"}, 400, "not as a range"),
        ("PUT", ".appliance-part-1", {}, 400, "no name begins with .appliance-part- or .removed"),
        ("MKCOL", ".removed-x", {}, 400, "no name begins with .appliance-part- or .removed"),
        ("PUT", "file/x", {}, 409, "file"),
        ("PUT", "folder", {}, 409, "folder"),
        ("MKCOL", "file/x/", {}, 409, "x"),
        ("POST", "x", {}, 400, "send the file in a form"),
    ],
)
async def test_whatever_upload_of_its_own_is_refused_the_job_is_no_success(
    tmp_path, method, path, headers, status, lacks
):
    async with open_lab(labs.config(tmp_path)) as lab:
        job = await running(lab)
        for good in ("file", "folder/x"):
            answer = await send(lab, "PUT", f"{job.result_root}/{good}", b"x", cookie=job.id)
            assert 201 == answer.status
        at = f"{job.result_root}/{path}"
        answer = await send(lab, method, at, b"x", cookie=job.id, **headers)
        await lab.report(job, "job_state=finished")
        await lab.report(job, "", "lkp-post-run")
        row = (await lab.people.do("show", {"job": job.id}, "ann", None))["job"]

        assert (status, "incomplete") == (answer.status, row["health"])
        assert lacks in row["lacking"]


async def test_what_another_box_sends_with_a_jobs_cookie_is_not_held_against_the_job(tmp_path):
    async with open_lab(labs.config(tmp_path)) as lab:
        job = await running(lab)
        path = f"{job.result_root}/{'d/' * NAMES_MAX}x"
        answer = await send(lab, "PUT", path, b"x", "10.0.0.66", job.id)
        await lab.report(job, "job_state=finished")
        await lab.report(job, "", "lkp-post-run")
        row = (await lab.people.do("show", {"job": job.id}, "ann", None))["job"]

        assert (400, "success", None) == (answer.status, row["health"], row["lacking"])


@pytest.mark.parametrize("archived", [False, True])
async def test_a_result_refused_after_the_end_is_told_and_the_end_stands(tmp_path, archived):
    limits = Limits(upload_file_bytes=10, finished_in_memory=0 if archived else 1000)
    chosen = labs.config(tmp_path, limits=limits)
    async with open_lab(chosen) as lab:
        job = await running(lab)
        await lab.report(job, "", "lkp-post-run")
        with trio.fail_after(10):
            while archived and job.id in lab.scheduler.store.jobs:  # noqa: ASYNC110 - of a thread
                await trio.sleep(0.05)
        large = await send(lab, "PUT", f"{job.result_root}/b", b"x" * 11, cookie=job.id)
        assert 413 == large.status

        async def shown(lab):
            answer = await lab.people.do("show", {"job": job.id}, "ann", None)
            return answer["job"], [moment["what"] for moment in answer["history"]]

        row, history = await shown(lab)
        assert ("success", "b is larger than 10 bytes") == (row["health"], row["lacking"])
        assert "upload refused: b is larger than 10 bytes" == history[-1]
        disk = lab.disk.after_kill()
    async with open_lab(chosen, disk) as lab:
        assert (row, history) == await shown(lab)


@pytest.mark.parametrize(("cookie", "status"), [("lab.1", 413), ("lab.99", 403)])
async def test_what_is_left_of_a_refused_body_keeps_no_connection_open(tmp_path, cookie, status):
    """More than Hypercorn holds ready for its application: it waited with the rest for ever."""
    config = attrs.evolve(labs.config(tmp_path), limits=Limits(upload_file_bytes=1000))
    async with open_lab(config) as lab:
        job = await running(lab)
        await wait_all_tasks_blocked()
        tasks = trio.lowlevel.current_statistics().tasks_living
        answer = await send(
            lab, "PUT", f"{job.result_root}/big", b"x" * 5_000_000, cookie=cookie,
            **{"transfer-encoding": "chunked"},
        )  # fmt: skip
        with trio.fail_after(10):
            while trio.lowlevel.current_statistics().tasks_living > tasks:  # noqa: ASYNC110 - no event says so
                await trio.sleep(0.01)

        assert status == answer.status


async def test_results_past_the_attempts_quota_are_507(tmp_path):
    limits = Limits(upload_attempt_bytes=10)
    async with open_lab(labs.config(tmp_path, limits=limits)) as lab:
        job = await running(lab)
        first = await send(lab, "PUT", f"{job.result_root}/a", b"x" * 6, cookie=job.id)
        second = await send(lab, "PUT", f"{job.result_root}/b", b"x" * 6, cookie=job.id)

        assert [201, 507] == [first.status, second.status]
        assert {"a"} == kept(lab, job).keys()


async def test_a_file_that_is_sent_again_counts_once(tmp_path):
    limits = Limits(upload_attempt_bytes=10)
    async with open_lab(labs.config(tmp_path, limits=limits)) as lab:
        job = await running(lab)
        again = [
            await send(lab, "PUT", f"{job.result_root}/a", b"x" * size, cookie=job.id)
            for size in (4, 4, 4, 2)
        ]
        rest = await send(lab, "PUT", f"{job.result_root}/b", b"x" * 8, cookie=job.id)
        over = await send(lab, "PUT", f"{job.result_root}/c", b"x", cookie=job.id)

        assert [201] * 4 == [answer.status for answer in again]
        assert [201, 507] == [rest.status, over.status]


async def test_an_attempt_makes_so_many_files_and_folders_and_no_more(tmp_path):
    limits = Limits(upload_attempt_names=5)
    async with open_lab(labs.config(tmp_path, limits=limits)) as lab:
        job = await running(lab)
        counts = lab.wire.app._by_port[lab.config.ports.upload]._used
        again = [
            (await send(lab, "PUT", f"{job.result_root}/a/b", b"x", cookie=job.id)).status
            for _ in range(4)
        ]
        folder = [
            (await send(lab, "MKCOL", f"{job.result_root}/c/", cookie=job.id)).status
            for _ in range(4)
        ]
        counts.clear()  # counted anew, from the disk
        over = [
            (await send(lab, method, f"{job.result_root}/{path}", cookie=job.id)).status
            for method, path in [("PUT", "d/e/f/g"), ("MKCOL", "h/i/j/k/"), ("PUT", "l/m/n")]
        ]
        await lab.report(job, "job_state=finished")
        await lab.report(job, "", "lkp-post-run")

        assert ([201] * 4, [201] * 4) == (again, folder)
        assert [507, 507, 201] == over
        assert {"a/b", "l/m/n"} == kept(lab, job).keys()
        assert "incomplete" == lab.scheduler.store.job(job.id).state.health


async def test_a_count_that_was_forgotten_is_made_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(uploads, "USED_MAX", 1)
    limits = Limits(upload_attempt_bytes=10)
    async with open_lab(labs.config(tmp_path, limits=limits)) as lab:
        counts = lab.wire.app._by_port[lab.config.ports.upload]._used
        first = await running(lab)
        await send(lab, "PUT", f"{first.result_root}/a", b"x" * 6, cookie=first.id)
        counts["/result/another"] = uploads._Used(0, uploads=1)
        del counts[first.result_root]
        over = await send(lab, "PUT", f"{first.result_root}/b", b"x" * 6, cookie=first.id)
        counts["/result/third"] = uploads._Used(0)
        counts.pop(first.result_root)
        await send(lab, "PUT", f"{first.result_root}/c", b"x", cookie=first.id)

        assert 507 == over.status
        assert {"/result/another", first.result_root} == counts.keys()  # one is under way


async def test_uploads_side_by_side_share_one_quota(tmp_path):
    limits = Limits(upload_attempt_bytes=10)
    async with open_lab(labs.config(tmp_path, limits=limits)) as lab:
        job = await running(lab)
        statuses = []

        async def put(name):
            chunked = {"transfer-encoding": "chunked"}
            path = f"{job.result_root}/{name}"
            answer = await send(lab, "PUT", path, b"x" * 6, cookie=job.id, **chunked)
            statuses.append(answer.status)

        async with trio.open_nursery() as nursery:
            for name in "abc":
                nursery.start_soon(put, name)

        assert 1 == statuses.count(201)
        assert 2 == statuses.count(507)
        assert 1 == len(kept(lab, job))


async def test_a_full_disk_is_507_and_the_job_cannot_end_as_success(tmp_path, monkeypatch):
    async with open_lab(labs.config(tmp_path)) as lab:
        job = await running(lab)

        def full(descriptor, data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patch:
            patch.setattr("appliance.keep.results.os.write", full)
            answer = await send(lab, "PUT", f"{job.result_root}/a", b"x", cookie=job.id)
        await lab.report(job, "job_state=finished")
        await lab.report(job, "", "lkp-post-run")

        assert 507 == answer.status
        assert [] == parts(lab)
        assert {} == kept(lab, job)
        assert "incomplete" == lab.scheduler.store.job(job.id).state.health


@pytest.mark.parametrize("method", ["PUT", "MKCOL"])
@pytest.mark.parametrize("trouble", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
async def test_a_disk_that_takes_no_results_is_507_and_no_success(
    tmp_path, monkeypatch, method, trouble
):
    async with open_lab(labs.config(tmp_path)) as lab:
        job = await running(lab)

        def refuse(folder, mode=0o777):
            raise OSError(trouble, os.strerror(trouble))

        with monkeypatch.context() as patch:
            patch.setattr("appliance.keep.results.Path.mkdir", refuse)
            path = f"{job.result_root}/a" + ("/" if method == "MKCOL" else "")
            answer = await send(lab, method, path, cookie=job.id)
        await lab.report(job, "job_state=finished")
        await lab.report(job, "", "lkp-post-run")
        state = lab.scheduler.store.job(job.id).state

        assert 507 == answer.status
        assert "incomplete" == state.health
        assert os.strerror(trouble) in state.reason


async def test_an_upload_that_breaks_off_leaves_nothing(tmp_path):
    async with open_lab(labs.config(tmp_path)) as lab:
        job = await running(lab)
        stream = lab.wire.connect(("10.0.0.5", 5000), UPLOAD)
        head = f"PUT {job.result_root}/a HTTP/1.1\r\nHost: x\r\nCookie: JOBID={job.id}\r\n"
        await stream.send_all(head.encode() + b"Content-Length: 100\r\n\r\nhalf")
        for _ in range(1000):  # threads make the folders, and the disk may be slow
            if parts(lab):
                break
            await wait_all_tasks_blocked(0.01)
        assert parts(lab)
        await stream.aclose()
        await wait_all_tasks_blocked()
        for _ in range(1000):
            if not parts(lab):
                break
            await wait_all_tasks_blocked(0.01)

        assert [] == parts(lab)
        assert {} == kept(lab, job)


async def test_results_may_come_until_the_box_asks_again_and_not_after(tmp_path):
    async with open_lab(labs.config(tmp_path)) as lab:
        job = await running(lab)
        await lab.report(job, "", "lkp-post-run")
        late = await send(lab, "PUT", f"{job.result_root}/late", b"x", cookie=job.id)
        await lab.ask()
        later = await send(lab, "PUT", f"{job.result_root}/later", b"x", cookie=job.id)

        assert [201, 403] == [late.status, later.status]


async def test_each_attempt_uploads_to_its_own_place_however_late(tmp_path):
    """Its box was given up on, and is alive; another has the job by now."""
    async with open_lab(labs.config(tmp_path)) as lab:
        await lab.know()
        await lab.know("box-2", "52:54:00:00:00:02")
        job = await lab.submit("script: x\n")
        await (await lab.ask()).rest()
        await lab.fetched_all(job)
        await send(lab, "PUT", f"{job.result_root}/log", b"one", cookie=job.id)
        scheduler, lapse = lab.scheduler, jobs.Lapse("nothing heard")
        now, waits = scheduler.clock.now(), scheduler.config.waits
        held = scheduler.store.job(job.id)
        await scheduler.durable(
            scheduler.change(decisions.lost(scheduler.store, held, lapse, now, waits))
        )
        other = ASK.replace("00-01", "00-02")
        await (await lab.ask(other, "10.0.0.6")).rest()
        root = f"{job.result_root}/attempt-2"
        old = await send(lab, "PUT", f"{job.result_root}/more", b"late", cookie=job.id)
        new = await send(lab, "PUT", f"{root}/log", b"two", "10.0.0.6", job.id)
        taken = [
            await send(lab, "PUT", f"{job.result_root}/log", b"forged", "10.0.0.6", job.id),
            await send(lab, "PUT", f"{root}/log", b"forged", cookie=job.id),
        ]
        shown = await lab.people.do("host-show", {"host": "box-1"}, "root", None)

        assert [201, 201] == [old.status, new.status]
        assert [403, 403] == [answer.status for answer in taken]
        assert {"log": b"one", "more": b"late", "attempt-2/log": b"two"} == kept(lab, job)
        assert "offered" == lab.stage(job)
        steps = [step["detail"] for step in shown["boots"][-1]["steps"]]
        assert "late: more (of attempt 1)" == steps[-1]


@pytest.mark.parametrize("method", ["PUT", "MKCOL", "POST"])
async def test_a_box_that_is_given_the_job_again_does_not_write_into_its_first_attempt(
    tmp_path, method
):
    """What it runs now is another run, and may want to look better than it did."""
    async with open_lab(labs.config(tmp_path)) as lab:
        await lab.know()
        job = await lab.submit("script: x\nretry: true\n")
        await (await lab.ask()).rest()
        await lab.fetched_all(job)
        await lab.report(job, "job_state=running")
        await send(lab, "PUT", f"{job.result_root}/log", b"one", cookie=job.id)
        await (await lab.ask()).rest()
        body, kind = (form("log", b"forged"), FORM) if method == "POST" else (b"forged", {})
        old = await send(lab, method, f"{job.result_root}/log", body, cookie=job.id, **kind)
        path = f"{job.result_root}/attempt-2/log"
        new = await send(lab, "PUT", path, b"two", cookie=job.id)

        assert [403, 201] == [old.status, new.status]
        assert b"attempt 1 of lab.1 is over" in old.body
        assert {"log": b"one", "attempt-2/log": b"two"} == kept(lab, job)


async def test_an_upload_that_was_under_way_when_its_box_asked_again_is_kept(tmp_path):
    async with open_lab(labs.config(tmp_path)) as lab:
        job = await running(lab)
        stream = lab.wire.connect(("10.0.0.5", 5000), UPLOAD)
        head = f"PUT {job.result_root}/a HTTP/1.1\r\nHost: x\r\nCookie: JOBID={job.id}\r\n"
        await stream.send_all(head.encode() + b"Content-Length: 6\r\n\r\nhalf")
        while not parts(lab):
            await wait_all_tasks_blocked(0.01)
        await (await lab.ask()).hang_up()
        await stream.send_all(b"ed")
        with trio.fail_after(5):
            told = await stream.receive_some(1000)

        assert told.startswith(b"HTTP/1.1 201 ")
        assert {"a": b"halfed"} == kept(lab, job)


async def test_a_host_sends_the_console_of_an_attempt_whose_box_has_the_job_again(tmp_path):
    """It runs them, and says which was which."""
    async with open_lab(labs.config(tmp_path)) as lab:
        await lab.know()
        job = await lab.submit("script: x\nretry: true\n")
        await (await lab.ask()).rest()
        await lab.fetched_all(job)
        await lab.report(job, "job_state=running")
        await (await lab.ask()).rest()
        body = form("dmesg", b"one")
        sent = await send(lab, "POST", f"{job.result_root}/x", body, "10.0.0.1", job.id, **FORM)

        assert 200 == sent.status
        assert {"dmesg": b"one"} == kept(lab, job)


NAMES = [  # below the job's result root, in which attempts have theirs
    "attempt-2/stdout", "attempt-2", "attempt-3", "attempt-1/x", "attempt-02/x", "attempt-2./x",
    "Attempt-2/x", "ATTEMPT-99/x", "attempt%2d2/x", "%61ttempt-2/x", "./attempt-2/x",
    "//attempt-2//x", "attempt-2%20/x", "attempt-%EF%BC%92/x", "",
]  # fmt: skip


def as_sent(method, root, name):
    """A request that would make `name`, or something below it, in `root`."""
    if method == "PUT":
        return "PUT", f"{root}/{name}" if name else root, b"forged", {}
    name = name or "attempt-2"
    if method == "MKCOL":
        return "MKCOL", f"{root}/{name}/", b"", {}
    if method == "POST":
        return "POST", f"{root}/{name}/x", form("stdout", b"forged"), FORM
    named = unquote(name.strip("./").split("/")[0])
    return "POST", f"{root}/x", form(named, b"forged"), FORM


@pytest.mark.parametrize("method", ["PUT", "MKCOL", "POST", "POST by its form"])
@pytest.mark.parametrize("name", NAMES)
async def test_no_attempt_uses_the_name_of_another(tmp_path, method, name):
    """It would be shown as the other's, or stand in its way; what it costs is its own verdict."""
    async with open_lab(labs.config(tmp_path)) as lab:
        await lab.know()
        job = await lab.submit("script: x\nretry: true\n")
        await (await lab.ask()).rest()
        await lab.fetched_all(job)
        await lab.report(job, "job_state=running")
        verb, path, body, headers = as_sent(method, job.result_root, name)
        forged = await send(lab, verb, path, body, cookie=job.id, **headers)

        assert 400 == forged.status
        assert not (tmp_path / "srv").exists()
        assert lab.scheduler.store.job(job.id).attempt.refused is not None
        await (await lab.ask()).rest()  # the box restarts
        own = [
            await send(lab, "PUT", f"{job.result_root}/attempt-2/{below}", b"2", cookie=job.id)
            for below in ("stdout", "attempt-3/x", "attempt-3/attempt-1")  # in there, all are free
        ]
        assert [201] * 3 == [answer.status for answer in own]
        assert {"attempt-2"} == {path.split("/")[0] for path in kept(lab, job)}
        assert lab.scheduler.store.job(job.id).attempt.refused is None


@pytest.mark.parametrize(
    "name", ["attempt-2.log", "attempts", "my-attempt-2", "attempt-x", "a/attempt-2"]
)
async def test_other_names_are_anybodys(tmp_path, name):
    async with open_lab(labs.config(tmp_path)) as lab:
        job = await running(lab)
        answer = await send(lab, "PUT", f"{job.result_root}/{name}", b"x", cookie=job.id)

        assert 201 == answer.status
        assert {name: b"x"} == kept(lab, job)


@pytest.mark.parametrize("kind", ["file", "dangling link", "link to a file"])
async def test_what_stands_in_an_attempts_way_since_long_is_moved(tmp_path, kind):
    """An older server let a box call a file so, or a person did."""
    async with open_lab(labs.config(tmp_path)) as lab:
        await lab.know()
        job = await lab.submit("script: x\nretry: true\n")
        await (await lab.ask()).rest()
        await lab.fetched_all(job)
        await lab.report(job, "job_state=running")
        await send(lab, "PUT", f"{job.result_root}/stdout", b"one", cookie=job.id)
        place = tmp_path / "srv" / job.result_root[1:] / "attempt-2"
        if kind == "file":
            place.write_bytes(b"old")
        else:
            place.symlink_to("nowhere" if kind == "dangling link" else "stdout")
        await (await lab.ask()).rest()
        own = await send(lab, "PUT", f"{job.result_root}/attempt-2/stdout", b"two", cookie=job.id)

        assert 201 == own.status
        assert b"two" == kept(lab, job)["attempt-2/stdout"]
        assert b"one" == kept(lab, job)["stdout"]
        moved = [path.name for path in place.parent.glob("attempt-2.file-*")]
        assert 1 == len(moved)
        assert lab.scheduler.store.job(job.id).attempt.refused is None


async def test_no_jobs_results_lie_in_anothers(tmp_path):
    """The parameters of a job are a folder's name above its own."""
    async with open_lab(labs.config(tmp_path)) as lab:
        first = await lab.submit("suite: s\nscript: x\n")
        text = f"suite: s\nscript: x\npp: {{a: {{b: {first.id}}}}}\n"
        second = await lab.submit(text, key="another0")
        third = await lab.submit("suite: s\nscript: x\npp: {a: {b: 1.5}}\n", key="another1")

        assert not second.result_root.startswith(first.result_root + "/")
        assert "/lab-1/" in second.result_root
        assert "/1.5/" in third.result_root


async def test_the_job_of_today_does_not_write_into_the_results_of_yesterdays(tmp_path):
    async with open_lab(labs.config(tmp_path)) as lab:
        first = await running(lab)
        await lab.report(first, "", "lkp-post-run")
        second = await lab.submit(key="another0")
        await (await lab.ask()).rest()
        late = await send(lab, "PUT", f"{first.result_root}/log", b"forged", cookie=first.id)
        own = await send(lab, "PUT", f"{second.result_root}/log", b"two", cookie=second.id)

        assert [403, 201] == [late.status, own.status]
        assert {} == kept(lab, first)


@pytest.mark.parametrize("method", ["PUT", "MKCOL", "POST"])
async def test_nothing_is_uploaded_through_a_link_that_leads_out(tmp_path, method):
    """People with a shell make such links: a suite that was moved to another disk, say."""
    (tmp_path / "outside").mkdir()
    async with open_lab(labs.config(tmp_path)) as lab:
        job = await running(lab)
        root = tmp_path / "srv" / job.result_root[1:]
        root.mkdir(parents=True)
        (root / "out").symlink_to(tmp_path / "outside")
        (root / "real").mkdir()
        (root / "in").symlink_to("real")
        places = [f"{job.result_root}/{name}/x" for name in ("out", "in")]
        body, headers = (form("x", b"data"), FORM) if method == "POST" else (b"data", {})
        out, inside = [
            await send(lab, method, place, body, cookie=job.id, **headers) for place in places
        ]

        assert 400 == out.status
        assert b"a link on the way leads out" in out.body
        assert inside.status in (200, 201)
        assert [] == list((tmp_path / "outside").iterdir())


async def test_a_link_that_leads_to_itself_is_no_folder(tmp_path):
    async with open_lab(labs.config(tmp_path)) as lab:
        job = await running(lab)
        root = tmp_path / "srv" / job.result_root[1:]
        root.mkdir(parents=True)
        (root / "loop").symlink_to("loop")
        put = await send(lab, "PUT", f"{job.result_root}/loop/x", b"x", cookie=job.id)

        assert 409 == put.status
        assert [] == parts(lab)


async def test_results_may_lie_on_another_disk(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "srv").mkdir()
    (tmp_path / "srv/result").symlink_to(tmp_path / "disk")
    async with open_lab(labs.config(tmp_path)) as lab:
        job = await running(lab)
        put = await send(lab, "PUT", f"{job.result_root}/stdout", b"hello\n", cookie=job.id)

        assert 201 == put.status
        assert {"stdout": b"hello\n"} == kept(lab, job)


async def test_a_file_where_a_folder_should_be_is_409(tmp_path):
    async with open_lab(labs.config(tmp_path)) as lab:
        job = await running(lab)
        await send(lab, "PUT", f"{job.result_root}/a", b"x", cookie=job.id)
        below = await send(lab, "PUT", f"{job.result_root}/a/b", b"x", cookie=job.id)
        folder = await send(lab, "MKCOL", f"{job.result_root}/a/", cookie=job.id)

        assert [409, 409] == [below.status, folder.status]
        assert {"a": b"x"} == kept(lab, job)


@pytest.mark.parametrize("path", ["../../secret", "/etc/passwd", "", "nothing", "link"])
async def test_people_read_nothing_outside_the_results(tmp_path, path):
    async with open_lab(labs.config(tmp_path)) as lab:
        job = await running(lab)
        await send(lab, "PUT", f"{job.result_root}/a", b"x", cookie=job.id)
        (tmp_path / "secret").write_text("secret")
        (tmp_path / "srv" / job.result_root[1:] / "link").symlink_to(tmp_path / "secret")

        with pytest.raises(Exception, match="no result"):
            await lab.people.do("read", {"job": job.id, "path": path}, "ann", None)


def form(name, data, boundary="x-y", field="file"):
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n'
    return head.encode() + b"\r\n" + data + f"\r\n--{boundary}--\r\n".encode()


FORM = {"content-type": "multipart/form-data; boundary=x-y"}


async def test_a_form_brings_a_file_under_its_own_name_beside_the_name_in_the_path(tmp_path):
    async with open_lab(labs.config(tmp_path)) as lab:
        job = await running(lab)
        root = job.result_root
        answers = [
            await send(lab, "POST", root + path, form(name, data), cookie=job.id, **FORM)
            for path, name, data in [
                ("/dmesg", "dmesg", b"a\r\n--x-"),
                ("/log/x", "y", b"z" * 3_000_000),
                ("/", "top", b""),
            ]
        ]
        shown = [json.loads(answer.body) for answer in answers]

        assert [200] * 3 == [answer.status for answer in answers]
        assert [(0, "success")] * 3 == [(said["status"], said["msg"]) for said in shown]
        assert {"dmesg": b"a\r\n--x-", "log/y": b"z" * 3_000_000, "top": b""} == kept(lab, job)


@pytest.mark.parametrize(
    ("path", "name", "client", "cookie", "status"),
    [
        ("{root}", "x", "10.0.0.5", "{id}", 403),  # it would lie beside the result root
        ("{root}/x", "../x", "10.0.0.5", "{id}", 400),
        ("{root}/x", "..", "10.0.0.5", "{id}", 400),
        ("{root}/x", "", "10.0.0.5", "{id}", 400),
        ("{root}/x", "a/b", "10.0.0.5", "{id}", 400),
        ("{root}/x", ".appliance-part-9", "10.0.0.5", "{id}", 400),
        ("{root}/x", ".removed", "10.0.0.5", "{id}", 400),
        ("{root}/x", "n" * 256, "10.0.0.5", "{id}", 400),
        ("{root}/x", "x", "10.0.0.66", "{id}", 403),
        ("{root}/x", "x", "10.0.0.5", "lab.99", 403),
        ("/result/x", "x", "10.0.0.1", "{id}", 403),
        ("{root}/x", "x", "10.0.0.1", "{id}", 200),  # the lab server runs virtual boxes
    ],
)
async def test_a_form_fits_like_any_upload_or_is_refused(
    tmp_path, path, name, client, cookie, status
):
    async with open_lab(labs.config(tmp_path)) as lab:
        job = await running(lab)
        words = {"root": job.result_root, "id": job.id}
        answer = await send(
            lab, "POST", path.format(**words), form(name, b"x"), client, cookie.format(**words),
            **FORM,
        )  # fmt: skip

        assert status == answer.status
        assert (status == 200) == bool(kept(lab, job))


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (FORM["content-type"], b""),
        (FORM["content-type"], b"no form at all"),
        (FORM["content-type"], b"--x-y--\r\n"),
        (FORM["content-type"], form("x", b"cut off")[:-8]),
        (FORM["content-type"], b"--x-y\r\n" + b"A: b\r\n" * 20_000),
        (FORM["content-type"], b"z" * 200_000),
        ("multipart/form-data", form("x", b"y")),
        ("application/json", b"{}"),
    ],
)
async def test_what_is_no_form_leaves_nothing(tmp_path, kind, body):
    async with open_lab(labs.config(tmp_path)) as lab:
        job = await running(lab)
        target = f"{job.result_root}/x"
        answer = await send(lab, "POST", target, body, cookie=job.id, **{"content-type": kind})

        assert 400 == answer.status
        assert {} == kept(lab, job)
        assert [] == parts(lab)


async def test_an_upload_that_stalls_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(bodies, "STALL_S", 0.05)
    async with open_lab(labs.config(tmp_path)) as lab:
        job = await running(lab)
        stream = lab.wire.connect(("10.0.0.5", 5000), UPLOAD)
        head = f"PUT {job.result_root}/a HTTP/1.1\r\nHost: x\r\nCookie: JOBID={job.id}\r\n"
        await stream.send_all(head.encode() + b"Content-Length: 100\r\n\r\nhalf")
        with trio.fail_after(5):
            told = await stream.receive_some(1000)

        assert told.startswith(b"HTTP/1.1 408 ")
        assert [] == parts(lab)
        assert {} == kept(lab, job)


async def test_a_host_of_virtual_boxes_sends_forms_and_puts_nothing(tmp_path):
    async with open_lab(labs.config(tmp_path)) as lab:
        job = await running(lab)
        put = await send(lab, "PUT", f"{job.result_root}/x", b"x", "10.0.0.1", job.id)

        assert 403 == put.status


async def test_a_form_that_never_comes_to_its_file_is_refused_before_its_end(tmp_path):
    async with open_lab(labs.config(tmp_path)) as lab:
        job = await running(lab)
        stream = lab.wire.connect(("10.0.0.5", 5000), UPLOAD)
        head = f"POST {job.result_root}/a HTTP/1.1\r\nHost: x\r\nCookie: JOBID={job.id}\r\n"
        head += f"Content-Type: {FORM['content-type']}\r\nContent-Length: 10000000\r\n\r\n"
        await stream.send_all(head.encode() + b"--x-y\r\n" + b"A: b\r\n" * 20_000)
        with trio.fail_after(5):
            told = await stream.receive_some(1000)

        assert told.startswith(b"HTTP/1.1 400 ")


async def put_with(lab, job, cookie):
    return await fakes.fetch(
        lab.wire, "PUT", f"{job.result_root}/a", {"cookie": cookie}, b"x",
        client=("10.0.0.5", 5000), server=UPLOAD,
    )  # fmt: skip


@pytest.mark.parametrize(
    "said",
    ["JOBID={}", "a=b; JOBID={}", "JOBID={}; a=b", 'JOBID="{}"', "JOBID = {} ;",
     "a;b=;=c;JOBID={}"],
)  # fmt: skip
async def test_the_cookie_is_found_among_others(tmp_path, said):
    async with open_lab(labs.config(tmp_path)) as lab:
        job = await running(lab)

        assert 201 == (await put_with(lab, job, said.format(job.id))).status


@pytest.mark.parametrize("said", ["\\", "\\1", '"', ";", "=", "a=b;", "JOBID"])
async def test_the_longest_cookie_takes_no_time(tmp_path, said):
    """http.cookies takes a third of a second for as many backslashes."""
    cookie = said * (15_900 // len(said))
    async with open_lab(labs.config(tmp_path)) as lab:
        job = await running(lab)
        for value in (f'JOBID="{cookie}"', cookie):
            began = time.process_time()
            assert (await put_with(lab, job, value)).status in (403, 404)
            assert time.process_time() - began < 0.1
