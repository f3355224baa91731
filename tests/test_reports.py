"""What testboxes say of their jobs, on the wire of 2021 and after, through the real doors."""

from __future__ import annotations

import errno
import json

import pytest
import structlog
import trio
from trio.testing import wait_all_tasks_blocked

from appliance import json_text
from appliance.doors import reports
from tests import fakes
from tests import lab as labs
from tests.disks import MemoryDisk
from tests.fakes import Rounds
from tests.lab import SCHEDULER, open_lab

CGI = "/~lkp/cgi-bin"
OTHER = "10.0.0.9"  # an address that no box asked from
NOW = 1_800_000_000  # UTC when the lab opens: 2027-01-15 08:00


async def running(lab, text="script: echo hi\n"):
    """A job whose box has reported that it runs."""
    await lab.know()
    job = await lab.submit(text)
    await (await lab.ask()).rest()
    await lab.fetched_all(job)
    await lab.report(job, "job_state=running")
    return job


async def post(lab, target, body, client="10.0.0.5", **headers):
    return await fakes.fetch(
        lab.wire, "POST", target, headers, body, client=(client, 4000), server=labs.SCHEDULER
    )


def until(lab, job):
    return lab.scheduler.store.job(job.id).state.until - NOW


def said(lab, box="box-1"):
    return [(step.what, step.detail) for step in lab.scheduler.store.box(box).boot.steps]


VERBS = {
    "lkp-wtmp?tbox_name=box-1&tbox_state=running&mac=52-54-00-00-00-01&ip=10.0.0.5": "Done",
    "lkp-jobfile-append-var?job_file=/lkp/scheduled/job.yaml&loadavg=0.1 0.2&&": "Done",
    "set-job-stage?job_stage=on_fail&timeout=60": "Done",
    "report_ssh_port?tbox_name=box-1&ssh_port=21000": "Done",
    "report-job-step?job_step=1": "Done",
    "lkp-post-run?job_file=/lkp/scheduled/job.yaml": '"success"',
}


@pytest.mark.parametrize("prefix", ["", "/scheduler"])
async def test_an_event_is_logged_and_nothing_else(autojump_clock, prefix):
    async with open_lab() as lab:
        with structlog.testing.capture_logs() as logs:
            told = await post(lab, f"{prefix}/report_event", b'{"job_id": "lab.1", "x": "a\\nb"}')
            wrong = await post(lab, f"{prefix}/report_event", b"[]")

        assert (200, b"Done", 400) == (told.status, told.body, wrong.status)
        [event] = [entry for entry in logs if entry["event"] == "event reported"]
        assert '{"job_id": "lab.1", "x": "a\\nb"}' == event["said"]


@pytest.mark.parametrize("prefix", ["", "/scheduler"])
@pytest.mark.parametrize("user", ["lkp", "ann"])
async def test_every_report_has_the_body_that_clients_compare_with(autojump_clock, prefix, user):
    async with open_lab() as lab:
        job = await running(lab)
        for query, body in VERBS.items():
            asked = f"{prefix}/~{user}/cgi-bin/{query}&job_id={job.id}".replace(" ", "%20")
            answer = await lab.get(asked)

            assert (200, body) == (answer.status, answer.body.decode())
        assert "finish" == lab.stage(job)


async def test_what_stands_beneath_scheduler_is_what_stands_without_it(autojump_clock):
    async with open_lab() as lab:
        await lab.know(arch="x86_64")
        job = await lab.submit()
        answer = await lab.ask("/scheduler/boot.ipxe/mac/52-54-00-00-00-01")
        cgz = await lab.get(f"/scheduler/job_initrd_tmpfs/{job.id}/job.cgz")

        assert f"/{job.id}/" in (await answer.rest()).decode()
        assert 200 == cgz.status


@pytest.mark.parametrize(
    ("query", "stage", "seconds"),
    [
        ("job_stage=on_fail&timeout=60", "on_fail", 60),
        ("job_stage=on_fail", "on_fail", 3600),
        ("job_stage=on_fail&timeout=", "on_fail", 3600),
        ("job_stage=on_fail&timeout=0", "on_fail", 3600),
        ("job_stage=on_fail&timeout=99999999", "on_fail", 30 * 86400),
        ("job_stage=manual_check", "manual_check", 36000),
        ("job_stage=post_run", "post_run", 1800),
        ("job_stage=post_run&timeout=7.5", "post_run", 7.5),
    ],
)
async def test_a_stage_that_a_box_sets_lasts_as_long_as_it_says_or_as_is_usual(
    autojump_clock, query, stage, seconds
):
    async with open_lab() as lab:
        job = await running(lab)
        await lab.report(job, query, "set-job-stage")

        assert (stage, seconds) == (lab.stage(job), until(lab, job))


@pytest.mark.parametrize("word", ["submit", "boot", "finish", "offered"])
async def test_a_stage_that_is_not_the_boxs_to_say_moves_nothing(autojump_clock, word):
    async with open_lab() as lab:
        job = await running(lab)
        await lab.report(job, f"job_stage={word}&timeout=9", "set-job-stage")

        assert "running" == lab.stage(job)


async def test_ssh_info_is_kept_with_the_boot(autojump_clock):
    async with open_lab() as lab:
        job = await running(lab)
        body = {"tbox_name": "box-1", "job_id": job.id, "ssh_port": "21001", "message": "hi"}
        form = "application/x-www-form-urlencoded"  # what `curl -d` says of its JSON
        done = await post(
            lab, f"{CGI}/report_ssh_info", json.dumps(body).encode(), **{"content-type": form}
        )
        failed = {"tbox_name": "box-1", "job_id": job.id, "ssh_port": "", "message": "no sshd"}
        await post(lab, f"{CGI}/report_ssh_info", json.dumps(failed).encode())

        assert (200, b"Done") == (done.status, done.body)
        assert [("ssh", "ssh_port=21001 hi"), ("ssh", "no sshd")] == said(lab)[-2:]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"[" * 8000, b'"x"', b"\xff\xfe", b'{"job_id": "lab.1", "ssh_port": "0"}'],
)
async def test_ssh_info_that_makes_no_sense_moves_nothing(autojump_clock, body):
    async with open_lab() as lab:
        job = await running(lab)
        before = said(lab)
        answer = await post(lab, f"{CGI}/report_ssh_info", body)

        assert answer.status in ((200, 400) if body == b"" else (400,))
        assert len(answer.body) < 100
        assert before == said(lab) or body == b""
        assert "running" == lab.stage(job)


async def test_a_report_that_never_ends_is_told_so(autojump_clock):
    async with open_lab() as lab:
        await lab.know()
        stream = lab.wire.connect(("10.0.0.5", 4000), labs.SCHEDULER)
        head = f"POST {CGI}/report_ssh_info HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{{"
        await stream.send_all(head.encode())
        answer = bytes(await stream.receive_some())

        assert b" 400 " in answer.split(b"\r\n")[0]
        assert 30 == trio.current_time()


async def test_a_body_that_is_too_long_is_refused_before_it_is_read(autojump_clock):
    async with open_lab() as lab:
        answer = await post(lab, f"{CGI}/report_ssh_info", b" " * 2**17)

        assert (413, b"request entity too large\n") == (answer.status, answer.body)


async def test_renewing_gives_the_box_the_new_deadline_in_words_that_date_reads(autojump_clock):
    async with open_lab() as lab:
        job = await running(lab)
        await lab.report(job, "job_stage=manual_check&timeout=3600", "set-job-stage")
        answer = await lab.get(f"/renew_deadline?job_id={job.id}&time=3600")
        asked = await lab.get("/get_deadline?testbox=box-1")

        assert (200, b"2027-01-15T10:00:00+0000") == (answer.status, answer.body)
        assert answer.body == asked.body
        assert 7200 == until(lab, job)


@pytest.mark.parametrize(
    "asked",
    ["/renew_deadline?time=60", *[f"{CGI}/{verb}" for verb in VERBS]],
    ids=lambda asked: asked.split("?")[0],
)
async def test_nothing_is_answered_before_the_disk_knows_it(autojump_clock, asked):
    disk = MemoryDisk()
    async with open_lab(disk=disk) as lab:
        job = await running(lab)
        began = trio.current_time()
        disk.calls.fail_at(1, errno.ENOSPC)  # it is tried again every two seconds
        answer = await lab.get(f"{asked}&job_id={job.id}".replace(" ", "%20"))

        assert 200 == answer.status
        assert 2 <= trio.current_time() - began < 3


async def test_a_renewal_outlives_a_server_that_is_killed(autojump_clock):
    disk = MemoryDisk()
    async with open_lab(disk=disk) as lab:
        job = await running(lab)
        await lab.get(f"/renew_deadline?job_id={job.id}&time=3600")
        renewed, kept = until(lab, job), disk.after_kill()
    async with open_lab(disk=kept) as lab:
        assert renewed == until(lab, job)


@pytest.mark.parametrize(
    ("query", "client", "status", "why"),
    [
        ("job_id={}&time=60", OTHER, 403, "The testbox does not match the job"),
        ("job_id=lab.999&time=60", "10.0.0.5", 403, "The testbox does not match the job"),
        ("job_id={}&time=soon", "10.0.0.5", 400, "wanted: job_id=<job>, time=<seconds>"),
        ("job_id={}&time=-5", "10.0.0.5", 400, "wanted: job_id=<job>, time=<seconds>"),
        ("job_id={}", "10.0.0.5", 400, "wanted: job_id=<job>, time=<seconds>"),
        ("time=60", "10.0.0.5", 400, "wanted: job_id=<job>, time=<seconds>"),
        ("job_id={}&time=2592001", "10.0.0.5", 403, "nobody borrows for longer than 30 days"),
    ],
)
async def test_a_renewal_that_is_not_the_boxs_changes_nothing(
    autojump_clock, query, client, status, why
):
    async with open_lab() as lab:
        job = await running(lab)
        before = until(lab, job)
        answer = await lab.get(f"/renew_deadline?{query.format(job.id)}", client)

        assert (status, f"{why}\n") == (answer.status, answer.body.decode())
        assert before == until(lab, job)


async def test_only_a_job_that_runs_can_be_renewed(autojump_clock):
    async with open_lab() as lab:
        job = await running(lab)
        await lab.report(job, "job_state=post_run")
        answer = await lab.get(f"/renew_deadline?job_id={job.id}&time=60")

        assert 403 == answer.status
        assert b"Only running job can renew, your job stage is: post_run\n" == answer.body


async def test_a_box_without_a_job_has_no_deadline(autojump_clock):
    async with open_lab() as lab:
        await lab.know()
        answers = [await lab.get(f"/get_deadline?testbox={name}") for name in ("box-1", "none", "")]

        assert [(200, b"no deadline")] * 3 == [(a.status, a.body) for a in answers]


async def test_get_testbox_tells_what_is_known_of_it(autojump_clock):
    async with open_lab() as lab:
        job = await running(lab)
        answer = await lab.get("/get_testbox?testbox=box-1")
        nobody = await lab.get("/get_testbox?testbox=" + "x" * 1000)
        told = json.loads(answer.body)

        assert ("box-1", "running", job.id) == (told["testbox"], told["state"], told["job_id"])
        assert ("52-54-00-00-00-01", "10.0.0.5") == (told["mac"], told["ip"])
        assert 404 == nobody.status
        assert len(nobody.body) < 120


async def test_reports_of_a_job_that_is_not_the_boxs_move_nothing(autojump_clock):
    """Neither by address, nor with a token that is another job's, nor with a forged one."""
    async with open_lab() as lab:
        job = await running(lab)
        token = lab.scheduler.store.job(job.id).attempt.token
        state, before = lab.scheduler.store.job(job.id), said(lab)
        for verb, body in VERBS.items():
            for fence, of, client in [
                ("", job.id, OTHER),
                ("", "lab.7", "10.0.0.5"),
                (f"/{token}", "lab.7", "10.0.0.5"),
                (f"/{token[:-1]}", job.id, "10.0.0.5"),
            ]:
                asked = f"/~lkp{fence}/cgi-bin/{verb}&job_id={of}".replace(" ", "%20")
                answer = await lab.get(asked, client)

                assert (200, body) == (answer.status, answer.body.decode())
        await wait_all_tasks_blocked()

        assert state is lab.scheduler.store.job(job.id)
        assert before == said(lab)


async def test_a_report_that_nobody_knows_is_told_which_there_are(autojump_clock):
    async with open_lab() as lab:
        answer = await lab.get(f"{CGI}/lkp-reboot")

        assert 404 == answer.status
        assert b"lkp-jobfile-append-var, lkp-post-run, " in answer.body


@pytest.mark.parametrize("target", ["/~lkp", "/nothing", "/~lkp/a/b/cgi-bin/lkp-wtmp"])
async def test_what_is_not_there_is_404_in_one_line(autojump_clock, target):
    async with open_lab() as lab:
        answer = await lab.get(target)

        assert (404, b"not found\n") == (answer.status, answer.body)


async def test_a_body_of_many_values_is_refused_before_they_are_made(autojump_clock):
    async with open_lab() as lab:
        for body, status in ((b'{"a": [' + b"[]," * 450 + b"0]}", 200),
                             (b'{"a": [' + b"[]," * 550 + b"0]}", 400),
                             (b'{"a": ' + b"[" * 40 + b"]" * 40 + b"}", 400)):  # fmt: skip
            answer = await fakes.fetch(
                lab.wire, "POST", "/report_event", {}, body, server=SCHEDULER
            )
            assert status == answer.status


async def test_of_bodies_that_end_at_once_one_is_read_in_a_round(autojump_clock, monkeypatch):
    """Each takes a fraction of a millisecond; two hundred took half a second."""
    rounds = Rounds()
    load = json_text.load

    def noted(*args):
        rounds.note()
        return load(*args)

    monkeypatch.setattr(json_text, "load", noted)
    body = b"[" + b"," * (reports.BODY_BYTES_MAX - 2) + b"]"
    async with open_lab() as lab:
        streams = [lab.wire.connect((OTHER, 4000 + n), SCHEDULER) for n in range(20)]
        head = b"POST /report_event HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body)
        for stream in streams:
            await stream.send_all(head + body[:-1])
        await wait_all_tasks_blocked()
        trio.lowlevel.add_instrument(rounds)
        async with trio.open_nursery() as nursery:
            for stream in streams:
                nursery.start_soon(stream.send_all, body[-1:])
        await wait_all_tasks_blocked()
        trio.lowlevel.remove_instrument(rounds)

    assert 20 == len(rounds.seen) == len(set(rounds.seen))


async def test_a_body_is_as_long_as_it_may_be_and_no_longer(autojump_clock):
    async with open_lab() as lab:
        for more, status in ((0, 200), (1, 413)):
            body = json.dumps({"job_id": "lab.1", "x": ""}).encode()
            body = body.replace(b'""', b'"%s"' % (b"x" * (2**13 - len(body) + more)))
            assert 2**13 + more == len(body)
            assert status == (await post(lab, "/report_event", body)).status
