"""Jobs over the network, on real files: they take threads, so on the real clock."""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import json
import random
import re
import threading
import tracemalloc
from contextlib import asynccontextmanager

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import wait_all_tasks_blocked

from appliance import json_text
from appliance.config import Account
from appliance.doors import submits
from appliance.jobs.documents import document
from appliance.keep.results import PART
from appliance.scheduler import accounts
from appliance.web import berths
from tests import fakes
from tests import lab as labs
from tests.lab import SCHEDULER, open_lab
from tests.loop import STALL_S, rounds

TOKEN = "a1b2c3d4-0000-4000-8000-c0ffee00beef"
ANN = {"my_email": "ann@example.org", "my_name": "Ann", "my_token": TOKEN}
BEN = {"my_email": "ben@example.org", "my_name": "Ben", "my_token": TOKEN[::-1]}
SEED = 20260101
# One of a matrix, as `submit` expands it: values are plain, job2sh was made by the client.
JOB = {
    **ANN,
    "suite": "borrow",
    "testbox": "box-1",
    "os": "debian",
    "os_version": "12",
    "arch": "x86_64",
    "runtime": "300",
    "pp": {"sleep": {"runtime": 3600}},
    "cluster": "cs-localhost",
    "submit_id": "22a9c4a0-0000-4000-8000-000000000000",
    "job2sh": {"run_job": ["run_job()", "{", "\ttrue", "}"], "define_files": []},
}


def account(said):
    return Account(said["my_email"], said["my_name"], accounts.hashed(said["my_token"]))


@asynccontextmanager
async def open_network(tmp_path, **changes):
    chosen = labs.config(tmp_path, accounts={"ann": account(ANN), "ben": account(BEN)}, **changes)
    async with open_lab(chosen) as lab:
        yield lab


async def post(lab, target, said, **headers):
    body = said if isinstance(said, bytes) else json.dumps(said).encode()
    answer = await fakes.fetch(
        lab.wire, "POST", target, headers, body, client=("10.0.0.9", 5000), server=SCHEDULER
    )
    return answer.status, json.loads(answer.body)


async def refused(lab, said, target="/submit_job"):
    status, shown = await post(lab, target, said)
    assert (202, "0", "submit") == (status, shown[0]["job_id"], shown[0]["job_state"])
    assert not lab.scheduler.store.jobs
    return shown[0]["message"]


async def test_a_job_of_lkps_own_submit_becomes_a_job(tmp_path):
    async with open_network(tmp_path) as lab:
        status, shown = await post(lab, "/submit_job", JOB)
        job = lab.scheduler.store.job(shown[0]["job_id"])
        body = await lab.scheduler.body(job)

        assert 200 == status
        assert [
            {
                "job_id": job.id,
                "message": "",
                "job_state": "submit",
                "result_root": "/srv" + job.result_root,
            }
        ] == shown
        assert ("ann", "borrow", "box-1", 300) == (
            job.submitter, job.document.suite, job.document.testbox, job.document.runtime,
        )  # fmt: skip
        assert JOB["job2sh"] == body.job2sh
        assert "3600" == str(body.fields["pp"]["sleep"]["runtime"])
        assert "12" == job.document.os_version


async def test_the_newer_prefix_is_answered_too(tmp_path):
    async with open_network(tmp_path) as lab:
        assert 200 == (await post(lab, "/scheduler/submit_job", JOB))[0]


async def test_without_accounts_the_network_submits_nothing_and_learns_how_it_could(tmp_path):
    async with open_lab(labs.config(tmp_path)) as lab:
        assert "appliance account" in await refused(lab, JOB)
        status, shown = await post(lab, "/cancel_jobs", {**ANN, "job_ids": []})
        assert 202 == status
        assert "appliance account" in shown["error_msg"]


@pytest.mark.parametrize("field", ["suite", "testbox", "my_email", "my_name", "my_token"])
async def test_a_field_that_is_missing_is_named(tmp_path, field):
    async with open_network(tmp_path) as lab:
        said = {name: value for name, value in JOB.items() if name != field}

        assert f"Missing required job key: '{field}'." in await refused(lab, said)


@pytest.mark.parametrize(
    "wrong",
    [
        {"my_token": "x"},
        {"my_token": BEN["my_token"]},
        {"my_token": "\ud800"},
        {"my_name": "Ben"},
        {"my_email": "carl@example.org"},
        {"my_email": "ben@example.org"},
        {"my_account": "ben"},
        {"my_account": ["ann"]},
    ],
)
async def test_all_of_an_account_must_fit(tmp_path, wrong):
    async with open_network(tmp_path) as lab:
        message = await refused(lab, JOB | wrong)

        assert message.startswith("Failed to verify the account.\n")


async def test_every_mistake_of_a_document_is_named(tmp_path):
    async with open_network(tmp_path) as lab:
        message = await refused(lab, JOB | {"runtime": "soon", "os_mount": "floppy"})

        assert "runtime" in message
        assert "os_mount" in message


async def test_a_named_submit_said_twice_is_one_job(tmp_path):
    async with open_network(tmp_path) as lab:
        name = {"idempotency-key": "0123456789abcdef"}
        twice = [await post(lab, "/submit_job", JOB, **name) for _ in range(2)]
        other = await post(lab, "/submit_job", JOB)

        assert twice[0] == twice[1]
        assert twice[0] != other
        assert 2 == len(lab.scheduler.store.jobs)


async def test_no_secret_of_a_submit_is_shown_logged_or_told(tmp_path):
    secret = "hunter2-hunter2"
    said = JOB | {"secrets": {"password": secret}}
    with capture_logs() as logs:
        async with open_network(tmp_path) as lab:
            await lab.know()
            answers = [
                await post(lab, "/submit_job", said),
                await post(lab, "/submit_job", said | {"runtime": "soon"}),
                await post(lab, "/submit_job", said | {"my_name": "x"}),
                await post(lab, "/submit_job", said | {"secrets": {"a b": secret}}),
                await post(lab, "/submit_job", said | {"secrets": {"a": [secret]}}),
            ]
            job = answers[0][1][0]["job_id"]
            shown = await lab.people.do("show", {"job": job}, "root", None)
            body = await lab.scheduler.body(lab.scheduler.store.job(job))
            await (await lab.ask()).rest()
            cgz = (await lab.get(f"/job_initrd_tmpfs/{job}/job.cgz")).body

    archive = gzip.decompress(cgz)
    assert {"my_email": "ann@example.org", "password": secret} == body.secrets
    assert ["my_email", "password"] == shown["document"]["secrets"]
    everything = repr((answers, shown, logs))
    assert secret not in everything
    assert TOKEN not in everything + repr(lab.config)
    assert 1 == archive.count(secret.encode())  # in secrets.yaml alone
    assert 0 == archive.count(TOKEN.encode())


def package(data, **wrong):
    fits = {
        "tag": "v2021.09.23",
        "md5": hashlib.md5(data).hexdigest(),
        "content": base64.encodebytes(data).decode(),
    }
    return {"pkg_data": {"lkp-tests": fits | wrong}}


def uploaded(tmp_path):
    root = tmp_path / "srv/upload-files"
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


async def test_a_package_is_kept_by_its_md5_and_not_sent_again(tmp_path):
    data = random.Random(SEED).randbytes(100_000)
    md5 = hashlib.md5(data).hexdigest()
    async with open_network(tmp_path) as lab:
        first = await post(lab, "/submit_job", JOB | package(data))
        again = await post(lab, "/submit_job", JOB | package(data, content=None))
        job = lab.scheduler.store.job(first[1][0]["job_id"])

        assert [200, 200] == [first[0], again[0]]
        assert {f"lkp-tests/{md5[:2]}/{md5}.cgz": data} == uploaded(tmp_path)
        assert [("lkp-tests", "v2021.09.23", md5)] == [
            (p.repo, p.tag, p.md5) for p in job.document.packages
        ]


async def test_a_package_that_is_not_here_is_asked_for(tmp_path):
    async with open_network(tmp_path) as lab:
        status, shown = await post(lab, "/submit_job", JOB | package(b"x", content=""))

        assert (202, "RETRY_UPLOAD") == (status, shown[0]["errcode"])
        assert '["lkp-tests"]' == shown[0]["message"]
        assert not lab.scheduler.store.jobs


async def test_a_wrong_file_under_a_right_name_is_not_trusted(tmp_path):
    md5 = hashlib.md5(b"right").hexdigest()
    path = tmp_path / f"srv/upload-files/lkp-tests/{md5[:2]}/{md5}.cgz"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"wrong")
    async with open_network(tmp_path) as lab:
        asked = await post(lab, "/submit_job", JOB | package(b"right", content=""))
        sent = await post(lab, "/submit_job", JOB | package(b"right"))

        assert [202, 200] == [asked[0], sent[0]]
        assert b"right" == path.read_bytes()


@pytest.mark.parametrize(
    "wrong",
    [
        {"md5": "0" * 32},
        {"md5": "../../../../etc/x"},
        {"md5": hashlib.md5(b"x").hexdigest() + "\n"},
        {"md5": int("1" * 32)},
        {"md5": None},
        {"tag": "../v1"},
        {"tag": ".."},
        {"content": "%%%"},
        {"content": "é"},
    ],
)
async def test_a_package_that_is_not_what_it_says_is_not_kept(tmp_path, wrong):
    async with open_network(tmp_path) as lab:
        message = await refused(lab, JOB | package(b"x", **wrong))

        assert "pkg" in message
        assert {} == uploaded(tmp_path)
        assert not list(tmp_path.rglob(PART + "*"))


@pytest.mark.parametrize("repo", ["..", "../x", "a/b", "", "/etc", "a\x00b"])
async def test_a_repository_is_one_word(tmp_path, repo):
    async with open_network(tmp_path) as lab:
        [fits] = package(b"x")["pkg_data"].values()

        assert "pkg_data" in await refused(lab, JOB | {"pkg_data": {repo: fits}})
        assert {} == uploaded(tmp_path)


CLUSTER = {"nodes": {"rack-7": {"roles": ["server"]}, "rack-8": {"roles": ["client"]}}}
FOR_TWO = JOB | {"cluster": "two", "if role server": {}, "if role client": {}}


async def test_a_job_for_several_machines_becomes_one_for_each(tmp_path):
    async with open_network(tmp_path) as lab:
        status, shown = await post(lab, "/submit_job", FOR_TWO | {"cluster_spec": CLUSTER})
        jobs = [lab.scheduler.store.job(row["job_id"]) for row in shown]
        bodies = [await lab.scheduler.body(job) for job in jobs]

        assert 200 == status
        assert [("rack-7", "two"), ("rack-8", "two")] == [
            (job.document.queue, job.document.cluster) for job in jobs
        ]
        assert ["server", "client"] == [body.fields["node_roles"] for body in bodies]
        assert all("" == row["message"] for row in shown)


async def test_a_cluster_can_be_the_operators(tmp_path):
    (tmp_path / "cluster").mkdir()
    (tmp_path / "cluster/two").write_text(json.dumps(CLUSTER))
    async with open_network(tmp_path) as lab:
        assert 2 == len((await post(lab, "/submit_job", FOR_TWO))[1])
    for name in ("three", "../two", "..", ["two"]):
        async with open_network(tmp_path) as lab:
            assert "can't get cluster info" in await refused(lab, FOR_TWO | {"cluster": name})


async def test_each_cancels_own_jobs_alone(tmp_path):
    async with open_network(tmp_path) as lab:
        job = (await post(lab, "/submit_job", JOB))[1][0]["job_id"]
        asked = {"job_ids": [job, "lab.99"]}
        of_ben = await post(lab, "/cancel_jobs", BEN | asked)
        of_ann = await post(lab, "/cancel_jobs", ANN | asked)
        again = await post(lab, "/cancel_jobs", ANN | asked)
        stranger = await post(lab, "/cancel_jobs", ANN | {"my_token": "x"} | asked)
        no_list = await post(lab, "/cancel_jobs", ANN | {"job_ids": job})

        said = [[row["result"] for row in told[1]["results"]] for told in (of_ben, of_ann, again)]
        assert [["forbidden", "failed"], ["success", "failed"], ["unsupported", "failed"]] == said
        assert [200, 200, 200, 202, 202] == [
            told[0] for told in (of_ben, of_ann, again, stranger, no_list)
        ]
        assert "error_msg" in stranger[1]
        assert "job_ids" in no_list[1]["error_msg"]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'"x"', b"\xff", b'{"a": NaN}', b"[" * 100_000, b'{"a":' * 50_000],
)
async def test_what_is_no_job_is_refused(tmp_path, body):
    async with open_network(tmp_path) as lab:
        assert "body" in await refused(lab, body)


async def test_a_body_past_the_limit_is_refused_before_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(submits, "BODY_BYTES_MAX", 2000)
    fits = json.dumps(JOB).encode()
    async with open_network(tmp_path) as lab:
        assert 200 == (await post(lab, "/submit_job", fits + b" " * (2000 - len(fits))))[0]
        over = await post(lab, "/submit_job", fits + b" " * (2001 - len(fits)))
        stream = lab.wire.connect(("10.0.0.9", 5000), SCHEDULER)
        head = b"POST /submit_job HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n"
        await stream.send_all(head)  # and not a byte of it
        with trio.fail_after(5):
            liar = await stream.receive_some(1000)

        assert 202 == over[0]
        assert "larger than 2000" in over[1][0]["message"]
        assert liar.startswith(b"HTTP/1.1 202 ")


async def begin(lab, address, body, length):
    """A client that sends `body`, and has said that it is longer."""
    stream = lab.wire.connect((address, 5000), SCHEDULER)
    head = f"POST /submit_job HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"
    await stream.send_all(head.encode() + body)
    await wait_all_tasks_blocked()
    return stream


async def told(stream):
    """Why a job was not taken."""
    answer = b""
    with trio.fail_after(5):
        while data := await stream.receive_some(4096):
            answer += data
    assert answer.startswith(b"HTTP/1.1 202 ")
    return json.loads(answer.partition(b"\r\n\r\n")[2])[0]["message"]


async def test_slow_bodies_keep_no_quick_one_waiting(tmp_path):
    async with open_network(tmp_path) as lab:
        slow = [await begin(lab, f"10.0.1.{n}", b'{"a":', 10**6) for n in range(50)]
        slow += [await begin(lab, "10.0.0.9", b"{", 10**6) for _ in range(50)]
        with trio.fail_after(5):
            assert 200 == (await post(lab, "/submit_job", JOB))[0]
        for stream in slow:
            await stream.aclose()


async def test_a_slow_body_loses_its_room_to_one_that_waits_for_it(tmp_path, monkeypatch):
    monkeypatch.setattr(berths, "PIECE_S", 0.2)
    async with open_network(tmp_path) as lab:
        slow = await begin(lab, "10.0.1.1", b'{"a": "' + b"x" * 190, 10**7)
        little = await begin(lab, "10.0.1.2", b"{", 1000)
        assert 200 == (await post(lab, "/submit_job", large_job(9 * 2**20)))[0]
        assert "send it again" in await told(slow)
        await little.send_all(b"}" + b" " * 998)
        assert "Missing required" in await told(little)  # nobody waited for what it had


def large_job(size):
    """A job with a package of so many bytes, as base64."""
    data = random.Random(SEED).randbytes(size * 3 // 4)
    content = base64.b64encode(data).decode()
    package = {"tag": "v1", "md5": hashlib.md5(data).hexdigest(), "content": content}
    return json.dumps(JOB | {"pkg_data": {"lkp-tests": package}}).encode()


@pytest.mark.slow
async def test_large_packages_that_are_sent_at_once_all_become_jobs(tmp_path):
    body, answers = large_job(9 * 2**20), []

    async def send(number):
        answers.append(await post(lab, "/submit_job", body, idempotency_key=f"number-{number}"))

    async with open_network(tmp_path) as lab:
        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(send, number)
        assert [200] * 3 == [status for status, _ in answers], answers
        assert 3 == len(lab.scheduler.store.jobs)


async def test_who_used_an_account_finds_room_whatever_strangers_send(tmp_path, monkeypatch):
    monkeypatch.setattr(berths, "ROOM_S", 0.5)
    async with open_network(tmp_path) as lab:
        assert 200 == (await post(lab, "/submit_job", JOB))[0]
        strangers = [await begin(lab, f"10.0.1.{n}", b"{", 10**7) for n in range(3)]
        assert 200 == (await post(lab, "/submit_job", large_job(2**20)))[0]
        for stream in strangers:
            await stream.aclose()


async def test_a_body_that_does_not_say_its_length_has_room_for_the_longest(tmp_path, monkeypatch):
    monkeypatch.setattr(berths, "ROOM_S", 0.2)
    async with open_network(tmp_path) as lab:
        stream = lab.wire.connect(("10.0.1.1", 5000), SCHEDULER)
        await stream.send_all(
            b"POST /submit_job HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"
        )
        await wait_all_tasks_blocked()
        other = await begin(lab, "10.0.1.2", b"{", 10**5)
        assert "no room within" in await told(other)
        await stream.send_all(b"1\r\n}\r\n0\r\n\r\n")
        assert "Missing required" in await told(stream)


async def test_a_body_that_has_arrived_keeps_its_room_and_others_wait(tmp_path, monkeypatch):
    body, read, value = large_job(2**20), threading.Event(), json_text.Reader.value
    monkeypatch.setattr(submits, "GATHERED_BYTES_MAX", 2 * len(body) + 100)
    monkeypatch.setattr(berths, "PIECE_S", 0.1)

    def slowly(reader):
        assert read.wait(10)
        return value(reader)

    monkeypatch.setattr(json_text.Reader, "value", slowly)
    async with open_network(tmp_path) as lab:
        first = await begin(lab, "10.0.1.1", b"", len(body))
        later = await begin(lab, "10.0.1.2", b"", len(body))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(first.send_all, body)
            nursery.start_soon(later.send_all, body)
            await trio.sleep(0.5)
            read.set()
            for stream in (first, later):
                with trio.fail_after(5):
                    assert (await stream.receive_some(4096)).startswith(b"HTTP/1.1 200 ")


async def test_one_address_has_its_share_of_the_room_and_others_theirs(tmp_path, monkeypatch):
    monkeypatch.setattr(submits, "ADDRESS_BYTES_MAX", 10**5 + 5000)
    monkeypatch.setattr(berths, "ROOM_S", 0.2)
    async with open_network(tmp_path) as lab:
        first = await begin(lab, "10.0.1.1", b"{", 10**5)
        second = await begin(lab, "10.0.1.1", b"{", 10**5)
        other = await begin(lab, "10.0.1.2", b"{", 10**5)
        assert "no room within" in await told(second)
        await other.send_all(b"}" + b" " * (10**5 - 2))
        assert "Missing required" in await told(other)
        await first.aclose()


WORST = {
    "maps": lambda n: b'{"a": [' + b'{"":0},' * ((n - 20) // 7),
    "lists": lambda n: b'{"a": ' + b"[[],[]," * ((n - 20) // 7),
    "strings": lambda n: b'{"a": [' + b'"",' * ((n - 20) // 3),
    "names": lambda n: b"{" + b"".join(b'"%x":0,' % i for i in range(n // 10)),
    "a name that is long": lambda n: b'{"' + b"x" * (n - 7) + b'":0}',
    "a text": lambda n: b'{"a":"' + b"x" * (n - 8) + b'"}',
    "a text of escapes": lambda n: b'{"a":"' + b"\\n" * ((n - 8) // 2) + b'"}',
    "wide texts": lambda n: b'{"a":["\xf0\x9f\x90\xa7' + b'x" ,"' * ((n - 20) // 5) + b'"]}',
    "wide text": lambda n: b'{"a":"\xf0\x9f\x90\xa7' + b"x" * (n - 20) + b'"}',
    "an escape of a wide one": lambda n: b'{"a":"\\ud83d\\udc27' + b"x" * (n - 30) + b'"}',
    "a token": lambda n: json.dumps(JOB | {"my_token": "x" * (n - 2000)}).encode(),
    "roles": lambda n: json.dumps(JOB | {"if role " + "a " * (n // 2 - 2000): 1}).encode(),
    "a number": lambda n: b'{"a":' + b"1" * (n - 6) + b"}",
    "blanks": lambda n: b"{" + b" " * (n - 2) + b"}",
    "quotes": lambda n: b'"' * n,
}


async def storm(lab, body):
    """What is answered to eight of a body, whole, at once, from addresses of their own."""
    answers = []

    async def send(number):
        # What is sent is read at once: else it would wait in memory that is the wire's.
        stream = lab.wire.connect((f"10.0.1.{number}", 5000), SCHEDULER, lockstep=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(deliver, stream, body)
            answers.append((await stream.receive_some(4096))[:13])
            nursery.cancel_scope.cancel()
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(send, number)
    return answers


async def deliver(stream, body):
    head = b"POST /submit_job HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    with contextlib.suppress(trio.BrokenResourceError):
        await stream.send_all(head)
        for at in range(0, len(body), 2**18):
            await stream.send_all(body[at : at + 2**18])


def worst(form):
    body = WORST[form](submits.BODY_BYTES_MAX)
    assert submits.BODY_BYTES_MAX * 0.9 < len(body) <= submits.BODY_BYTES_MAX
    return body


@pytest.mark.slow
@pytest.mark.parametrize("form", WORST)
async def test_eight_of_the_worst_bodies_fill_no_memory(tmp_path, form):
    async with open_network(tmp_path) as lab:
        body = worst(form)
        await post(lab, "/submit_job", JOB)
        tracemalloc.start()
        answers = await storm(lab, body)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()

        assert [b"HTTP/1.1 202 "] * 8 == answers
        assert 1 == len(lab.scheduler.store.jobs)
    assert peak < 64 * 2**20


@pytest.mark.slow
@pytest.mark.parametrize("form", WORST)
async def test_eight_of_the_worst_bodies_stop_no_loop(tmp_path, form):
    async with open_network(tmp_path) as lab:
        body = worst(form)
        await post(lab, "/submit_job", JOB)
        with rounds() as seen:
            answers = await storm(lab, body)

        assert [b"HTTP/1.1 202 "] * 8 == answers
    assert seen.longest < STALL_S


HUNDRED = {"nodes": {f"n{n}": {"roles": ["a"]} for n in range(100)}}


@pytest.mark.parametrize(
    "changed",
    [
        {"a": [[]] * 300_000},
        {"a": ["x" * 1000] * 2000},
        {"a": [[]] * 12_000},
        {"cluster_spec": HUNDRED, "a": [[]] * 600},
        {"cluster_spec": HUNDRED, **{f"k{n}": 1 for n in range(300)}},
        {"script": "x" * 2**20},
    ],
)  # fmt: skip
async def test_what_is_too_large_for_its_nodes_is_refused_before_it_is_written_as_yaml(
    tmp_path, monkeypatch, changed
):
    five = {"nodes": {f"n{n}": {"roles": ["server"]} for n in range(5)}}
    said = JOB | {"cluster": "five", "cluster_spec": five} | changed

    def dump(fields):
        raise AssertionError("it was written")

    monkeypatch.setattr(document, "dump", dump)
    async with open_network(tmp_path) as lab:
        with trio.fail_after(5):
            message = await refused(lab, said)

    assert re.search(r"larger than|more than|fields in all", message)


async def test_the_answer_to_a_bad_job_is_short_whatever_is_wrong(tmp_path):
    long = "x" * 50_000
    async with open_network(tmp_path) as lab:
        for changed in (
            {"pkg_data": {long: {}}},
            {"pkg_data": {str(n): {} for n in range(200)}},
            {"job2sh": {"run_job": [], long: 5}},
            {f"{long}\0": 1},
            {f"k{n}": "\0" for n in range(1000)},
            {"suite": long, "os": long, "testbox": long},
            {"cluster": "c", "cluster_spec": {"nodes": {"a": {"roles": ["b"]}}},
             "if role " + "c " * 450: {}},
            {"cluster": "c", "cluster_spec": {"nodes": {long: {"roles": "b"}}}},
        ):  # fmt: skip
            assert len(await refused(lab, JOB | changed)) < 10_000


async def test_a_package_with_every_kind_of_line_end_is_kept(tmp_path):
    data = random.Random(SEED).randbytes(100_000)
    lines = base64.encodebytes(data).decode()
    async with open_network(tmp_path) as lab:
        for text in (lines, lines.replace("\n", "\r\n"), lines.replace("\n", ""), f" {lines}\t"):
            assert 200 == (await post(lab, "/submit_job", JOB | package(data, content=text)))[0]
        escaped = json.dumps(JOB | package(data)).replace("/", "\\/").encode()
        assert 200 == (await post(lab, "/submit_job", escaped))[0]
        assert [data] == list(uploaded(tmp_path).values())


async def test_a_body_that_stalls_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(submits, "BODY_S", 0.05)
    async with open_network(tmp_path) as lab:
        stream = lab.wire.connect(("10.0.0.9", 5000), SCHEDULER)
        await stream.send_all(b"POST /submit_job HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
        with trio.fail_after(5):
            told = await stream.receive_some(1000)
            told += await stream.receive_some(1000)

        assert told.startswith(b"HTTP/1.1 202 ")
        assert b"did not arrive" in told


async def test_whatever_a_field_holds_the_answer_is_whole_and_nothing_leaves_its_root(tmp_path):
    """A fuzz of the door, of its grammar: one field or two of a good job become something else."""
    dice = random.Random(SEED)
    print("seed", SEED)
    values = [
        "../../x",
        "$(touch /x)", "'; reboot; '", "a\nb", "\x00", "\ud800", "é", "", " ", "x" * 999,
        0, -1, 1e308, True, None, [], [[]], {}, {"": {}}, {"..": "../x"}, [None], "2" * 400, "*a",
        "<<", "!!python/object", "%YAML", {"a": {"b": [{"c": "../d"}]}}, "${id}", "lab.1",
    ]  # fmt: skip
    names = [*JOB, "pkg_data", "secrets", "script", "tags", "priority", "deadlines", "tbox_group",
             "kernel_uri", "kernel_custom_params", "rootfs_disk", "..", "a b"]  # fmt: skip
    good = package(b"x")
    async with open_network(tmp_path) as lab:
        for _ in range(300):
            changed = {
                name: dice.choice(values) for name in dice.sample(names, dice.choice((1, 2)))
            }
            status, shown = await post(lab, "/submit_job", JOB | good | changed)
            taken = status == 200

            assert status in (200, 202), changed
            assert taken == (shown[0]["job_id"] != "0"), changed
            assert taken == (shown[0]["message"] == ""), changed
            if taken:
                assert ".." not in shown[0]["result_root"].split("/"), changed
        files = {path.relative_to(tmp_path).parts[:3] for path in tmp_path.rglob("*.cgz")}

        assert {("srv", "upload-files", "lkp-tests")} == files
