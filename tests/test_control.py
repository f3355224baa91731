"""The command line's door: whatever is lost on the way, the same key finds the same job."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import socket
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import cbor2
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from appliance.control import server
from appliance.errors import BadImage, Refused
from appliance.web.shares import Callers
from tests import lab as labs
from tests.disks import Killed, MemoryDisk
from tests.lab import KEY, open_lab
from tests.loop import STALL_S, rounds

PAPER = {"name": "job.yaml", "text": "script: echo hi\n", "defaults": {}, "overrides": {}}
SUBMIT = cbor2.dumps({"verb": "submit", "documents": [PAPER], "key": KEY})
HELLO = cbor2.dumps({"appliance": 1})


@asynccontextmanager
async def open_door(tmp_path, disk=None):
    """A lab with the real control door, on a socket of its own."""
    async with open_lab(labs.config(tmp_path), disk) as lab, trio.open_nursery() as nursery:
        await nursery.start(server.serve, lab.scheduler, lab.people)
        yield lab
        nursery.cancel_scope.cancel()


async def connect(lab):
    return await trio.open_unix_socket(str(lab.config.paths.control_socket))


def items(data):
    """The items of a CBOR sequence, as far as they are whole."""
    file, found = io.BytesIO(data), []
    with contextlib.suppress(cbor2.CBORDecodeEOF):
        while file.tell() < len(data):
            found.append(cbor2.CBORDecoder(file).decode())
    return found


async def ask(lab, message):
    """The answer to one question on a connection of its own."""
    async with await connect(lab) as stream:
        await stream.send_all(
            HELLO + (message if isinstance(message, bytes) else cbor2.dumps(message))
        )
        data = b""
        while len(items(data)) < 2:
            data += await stream.receive_some(65536)
    return items(data)[1]


def ids(answer):
    return [job["id"] for job in answer["result"]["jobs"]]


@pytest.mark.parametrize("sent", [0, 1, len(SUBMIT) // 2, len(SUBMIT) - 1, len(SUBMIT)])
async def test_a_question_that_was_cut_off_is_asked_again(autojump_clock, tmp_path, sent):
    async with open_door(tmp_path) as lab:
        async with await connect(lab) as stream:
            greeting = items(await stream.receive_some())[0]
            assert {"appliance", "version", "lab", "pid"} == greeting.keys()
            await stream.send_all(HELLO + SUBMIT[:sent])
        await trio.sleep(1)
        taken = len(lab.scheduler.store.jobs)

        assert taken == (1 if sent == len(SUBMIT) else 0)
        assert ["lab.1"] == ids(await ask(lab, SUBMIT))
        assert ["lab.1"] == list(lab.scheduler.store.jobs)


async def test_an_answer_lost_after_any_byte_is_found_again(autojump_clock, tmp_path):
    async with open_door(tmp_path) as lab:
        whole = len(cbor2.dumps(await ask(lab, SUBMIT)))
        for n in range(whole):
            key = f"key{n:010}"
            message = cbor2.dumps({"verb": "submit", "documents": [PAPER], "key": key})
            async with await connect(lab) as stream:
                await stream.send_all(HELLO + message)
                data = await stream.receive_some(65536)
                while len(items(data)) < 1:
                    data += await stream.receive_some(65536)
                if n:
                    await stream.receive_some(n)

            assert [f"lab.{n + 2}"] == ids(await ask(lab, message))
        assert whole + 1 == len(lab.scheduler.store.jobs)


async def killed_at(tmp_path, number, seed):
    """(the disk, the answer or None) of a submit whose server is killed at that system call."""
    disk, answers = MemoryDisk(seed), []
    try:
        async with open_door(tmp_path, disk) as lab:
            disk.calls.kill_at(number)
            answers.append(await ask(lab, SUBMIT))
            if disk.calls.untouched:
                return None, answers[0]
            lab.scheduler.change([])
            await trio.sleep(1)
    except* Killed:
        pass
    return disk, (answers or [None])[0]


@pytest.mark.slow
async def test_a_server_killed_at_any_system_call_of_a_submit_has_the_job_once(
    autojump_clock, tmp_path
):
    for seed in range(20):
        number = 0
        while True:
            number += 1
            disk, answer = await killed_at(tmp_path, number, seed)
            if disk is None:
                break
            async with open_door(tmp_path, disk.after_kill()) as lab:
                before = list(lab.scheduler.store.jobs)
                again = ids(await ask(lab, SUBMIT))

                assert ["lab.1"] == list(lab.scheduler.store.jobs) == again
                assert answer is None or before == again, "acknowledged, and gone"
        assert number > 2


async def test_a_submit_is_refused_at_once_while_the_disk_refuses_and_taken_when_it_is_well(
    autojump_clock, tmp_path
):
    disk = MemoryDisk()
    async with open_door(tmp_path, disk) as lab:
        disk.calls.broken = errno.EROFS
        lab.scheduler.change(lab.scheduler.known(labs.boxes.facts("b", {"mac": [labs.MAC]}, "x")))
        await wait_all_tasks_blocked()
        refused = await ask(lab, SUBMIT)
        status = await ask(lab, {"verb": "status"})
        disk.calls.broken = None
        await trio.sleep(3)

        assert "disk-trouble" == refused["error"]["kind"]
        assert (
            "the state cannot be written: Read-only file system. Nothing was taken: submit again"
            " when there is room, and see `appliance status`"
        ) == refused["error"]["message"]
        assert ["the state cannot be written: Read-only file system"] == status["result"]["gate"]
        assert ["lab.1"] == ids(await ask(lab, SUBMIT))
        assert [] == (await ask(lab, {"verb": "status"}))["result"]["gate"]


async def test_who_waits_on_a_stuck_submit_is_told_that_it_is_not_known(autojump_clock, tmp_path):
    disk = MemoryDisk()
    async with open_door(tmp_path, disk) as lab:
        disk.calls.broken = errno.EIO
        began = trio.current_time()
        first = await ask(lab, SUBMIT)
        waited = trio.current_time() - began
        second = await ask(lab, SUBMIT)  # the same key: still not known, and no second job
        disk.calls.broken = None
        await trio.sleep(3)

        assert lab.config.waits.answer == pytest.approx(waited)
        for answer in (first, second):
            assert "unknown" == answer["error"]["kind"]
            assert "may be done yet: the state cannot be written" in answer["error"]["message"]
        assert ["lab.1"] == ids(await ask(lab, SUBMIT))
        assert ["lab.1"] == list(lab.scheduler.store.jobs)


async def test_a_person_who_cancels_on_a_stuck_disk_is_told_too(autojump_clock, tmp_path):
    disk = MemoryDisk()
    async with open_door(tmp_path, disk) as lab:
        job = await lab.submit(user="root")
        disk.calls.broken = errno.EIO
        answer = await ask(lab, {"verb": "cancel", "job": job.id})

        assert "unknown" == answer["error"]["kind"]
        disk.calls.broken = None


WORST = {
    "empty lists": b"\x9a\x00\x80\x00\x00" + b"\x80" * 8 * 2**20,
    "as many empty lists as are taken": b"\x99\xc3\x00" + b"\x80" * 0xC300,
    "a decimal": cbor2.dumps(cbor2.CBORTag(4, [-1, cbor2.CBORTag(2, b"\xff" * 150_000)])),
    "a text that is said to be long": b"\x7a\x01\xe0\x00\x00" + b"x" * 30 * 2**20,
    "texts": b"\x8b" + (b"\x7a\x00\x10\x00\x00" + b"x" * 2**20) * 11,
    "messages": b"\x80" * 20_000,
    "documents": cbor2.dumps({"verb": "submit", "key": KEY,
                              "documents": [{"text": "&a [" + "[]," * 400}] * 9000}),
    "words": cbor2.dumps({"verb": "submit", "key": KEY, "documents": [
        {"text": "script: x", "overrides": {f"k{n}": "[]" for n in range(20_000)}}]}),
}  # fmt: skip


def resident():
    """Bytes of memory that we have."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
@pytest.mark.parametrize("form", WORST)
async def test_the_worst_messages_stop_no_loop_and_fill_no_memory(tmp_path, form):
    """Eight of them at once; each is answered with what is wrong."""
    answers = []

    async def send(lab):
        async with await connect(lab) as stream, trio.open_nursery() as nursery:

            async def read():
                data = b""
                with contextlib.suppress(trio.BrokenResourceError):
                    while more := await stream.receive_some(65536):
                        data = (data + more)[:2000]
                answers.append(items(data)[1])

            nursery.start_soon(read)
            with contextlib.suppress(trio.BrokenResourceError):
                await stream.send_all(HELLO)
                await stream.send_all(WORST[form])  # eight copies would be this process's, too
                await stream.send_eof()

    async with open_door(tmp_path) as lab:
        before = resident()
        with rounds() as seen:
            async with trio.open_nursery() as nursery:
                for _ in range(8):
                    nursery.start_soon(send, lab)
        after = resident()

    assert 8 == len(answers)
    assert all(answer["error"]["message"] for answer in answers)
    assert after - before < 64 * 2**20
    assert seen.longest < STALL_S


async def test_a_slow_message_gives_way_to_a_quick_one_where_there_is_no_room_for_both(
    autojump_clock, tmp_path, monkeypatch
):
    large = {**PAPER, "text": "script: x\n#" + "x" * 200_000}
    message = cbor2.dumps({"verb": "submit", "documents": [large], "key": KEY})
    monkeypatch.setattr(server, "GATHERED_BYTES_MAX", 300_000)
    async with open_door(tmp_path) as lab, await connect(lab) as slow, await connect(lab) as idle:
        await slow.send_all(HELLO + message[:-1000])
        await idle.send_all(HELLO)
        await trio.sleep(10)
        assert ["lab.1"] == ids(await ask(lab, message))
        told = b""
        while len(items(told)) < 2:
            told += await slow.receive_some(65536)
        assert "send it again" in items(told)[1]["error"]["message"]
        await idle.send_all(cbor2.dumps({"verb": "status"}))
        await idle.receive_some(65536)
        assert b"result" in await idle.receive_some(65536)


async def test_a_submit_is_as_atomic_as_its_documents_are_many(autojump_clock, tmp_path):
    message = cbor2.dumps({"verb": "submit", "documents": [PAPER, PAPER], "key": KEY})
    async with open_door(tmp_path) as lab:
        assert ["lab.1", "lab.2"] == ids(await ask(lab, message))
        assert ["lab.1", "lab.2"] == ids(await ask(lab, message))


async def test_a_hosts_file_that_cannot_be_written_is_named_and_no_box_is_known(tmp_path):
    (tmp_path / "hosts").write_text("in the way")
    async with open_door(tmp_path) as lab:
        answer = await ask(lab, {"verb": "host-add", "name": "box-1", "macs": [labs.MAC]})

        assert "no-space" == answer["error"]["kind"]
        assert f"{tmp_path}/hosts: a file has the name of a folder" == answer["error"]["message"]
        assert {} == lab.scheduler.store.boxes


async def test_a_lease_file_that_cannot_be_written_keeps_no_box_away(tmp_path):
    (tmp_path / "state").write_text("in the way")
    async with open_door(tmp_path) as lab:
        answer = await ask(lab, {"verb": "host-add", "name": "box-1", "macs": [labs.MAC]})

        assert "box-1" == answer["result"]["host"]["name"]


async def test_a_socket_that_somebody_answers_is_left_to_him(tmp_path):
    async with open_door(tmp_path) as lab:
        other = server.serve(lab.scheduler, lab.people)
        with pytest.raises(Refused, match="another server answers"), trio.fail_after(5):
            await other

        assert "result" in await ask(lab, {"verb": "jobs"})


async def test_a_socket_that_nobody_answers_is_made_anew(tmp_path):
    run = labs.config(tmp_path).paths.run
    run.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(run / "control.sock"))
    async with open_door(tmp_path) as lab:
        assert "result" in await ask(lab, {"verb": "jobs"})


async def test_a_result_whose_name_is_no_utf_8_harms_nobody(tmp_path):
    async with open_door(tmp_path) as lab:
        job = await lab.submit()
        root = os.fsencode(lab.config.paths.srv / job.result_root[1:])
        os.makedirs(root)
        os.mknod(root + b"/caf\xe9")  # put there by hand
        listed = await ask(lab, {"verb": "results", "job": job.id})
        after = await ask(lab, {"verb": "jobs"})

        assert ["caf\ufffd"] == [file["path"] for file in listed["result"]["files"]]
        assert "result" in after


async def test_a_refusal_in_words_that_are_no_utf_8_harms_nobody(tmp_path, monkeypatch):
    """A file of such a name may stand anywhere in a tree that people fill."""

    async def pin(images, document):
        raise BadImage("there are: caf\udce9", "os")

    monkeypatch.setattr(labs.FakeImages, "pin", pin)
    async with open_door(tmp_path) as lab:
        refused = await ask(lab, SUBMIT)
        after = await ask(lab, {"verb": "jobs"})

        assert ["there are: caf?"] == [p["message"] for p in refused["error"]["problems"]]
        assert "result" in after


@pytest.mark.parametrize("verb", ["wait", "drain"])
async def test_who_hangs_up_is_waited_for_no_longer(autojump_clock, tmp_path, monkeypatch, verb):
    monkeypatch.setattr(server, "_peer", lambda stream: "root")
    async with open_door(tmp_path) as lab:
        await lab.know()
        await lab.ask()
        job = await lab.submit()
        await trio.sleep(1)
        tasks = trio.lowlevel.current_statistics().tasks_living
        message = cbor2.dumps({"verb": verb, **LONGEST[verb], **named(verb, job)})
        async with await connect(lab) as stream:
            await stream.send_all(HELLO + message)
            while len(items(await stream.receive_some(65536))) < 1:
                pass
            await wait_all_tasks_blocked()
            assert tasks < trio.lowlevel.current_statistics().tasks_living
        await wait_all_tasks_blocked()

        assert tasks == trio.lowlevel.current_statistics().tasks_living
        assert bool(lab.scheduler.store.drained) is (verb == "drain")  # which was decided


# What the verbs that wait take to wait for long, but for a job's name.
LONGEST = {"wait": {}, "drain": {"wait": True}, "watch": {}}


def named(verb, job):
    return {"job": job.id} if verb == "wait" else {}


async def opened(lab, message):
    """One who has said that and waits, and the number of tasks before."""
    await wait_all_tasks_blocked()
    tasks = trio.lowlevel.current_statistics().tasks_living
    stream = await connect(lab)
    await stream.send_all(HELLO + message)
    await wait_all_tasks_blocked()
    assert tasks < trio.lowlevel.current_statistics().tasks_living
    return stream, tasks


@pytest.mark.parametrize("verb", ["wait", "watch"])
@pytest.mark.parametrize("ends", ["hangs up", "says no more"])
async def test_who_has_asked_for_more_and_hangs_up_is_waited_for_no_longer(
    autojump_clock, tmp_path, verb, ends
):
    """What waits to be read hides the end from whoever waits for something to read."""
    more = cbor2.dumps({"verb": "status"}) * 3
    async with open_door(tmp_path) as lab:
        job = await lab.submit()
        message = cbor2.dumps({"verb": verb, "job": job.id})
        stream, tasks = await opened(lab, message)
        await stream.send_all(more)  # behind what the server has read
        await trio.sleep(60)
        assert tasks < trio.lowlevel.current_statistics().tasks_living
        await (stream.aclose() if ends == "hangs up" else stream.send_eof())
        await trio.sleep(5)

        assert tasks == trio.lowlevel.current_statistics().tasks_living
        assert 0 == len(lab.scheduler.watchers)
        await stream.aclose()


@pytest.mark.parametrize("verb", ["wait", "drain", "watch"])
async def test_who_waits_holds_no_more_than_a_job_is_named_with(
    autojump_clock, tmp_path, monkeypatch, verb
):
    """It may wait for days, and the memory of messages is all callers'."""
    monkeypatch.setattr(server, "_peer", lambda stream: "root")
    async with open_door(tmp_path) as lab:
        job = await lab.submit()
        said = {"verb": verb, **LONGEST[verb], **named(verb, job)}
        long = {**said, "x" * server.WAITING_BYTES_MAX: None}  # null says nothing, and is read
        answer = await ask(lab, long)
        assert {
            "kind": "bad-request",
            "message": f"{verb}: more is said than it needs",
        } == answer["error"]
        assert not lab.scheduler.store.drained

        async with await connect(lab) as stream:
            short = {**said, "x" * (server.WAITING_BYTES_MAX // 2): None}
            await stream.send_all(HELLO + cbor2.dumps(short))
            await wait_all_tasks_blocked()
            assert b"error" not in await stream.receive_some(2**16)
            assert bool(lab.scheduler.store.drained) is (verb == "drain")


async def test_a_crowd_of_callers_is_told_as_far_as_few_are_told_at_once(
    autojump_clock, tmp_path, monkeypatch
):
    """Each has a file open while it is told; the others find the door shut."""
    monkeypatch.setattr(server, "_peer", lambda stream: "ann")

    async def heard(stream):
        data = b""
        with contextlib.suppress(trio.BrokenResourceError):
            while more := await stream.receive_some():
                data += more
        return items(data)[1:]  # behind the greeting

    config = labs.config(tmp_path)
    async with open_lab(config) as lab, trio.open_nursery() as nursery:
        await nursery.start(partial(server.serve, callers=Callers(0)), lab.scheduler, lab.people)
        crowd = [await connect(lab) for _ in range(3 * server.TOLD_MAX)]
        answers = [await heard(stream) for stream in crowd]  # and nobody hangs up
        await trio.sleep(2 * server.LINGER_S)
        later = await connect(lab)
        again = await heard(later)
        nursery.cancel_scope.cancel()
    for stream in (*crowd, later):
        await stream.aclose()

    told = [answer for answer in answers if answer]
    assert server.TOLD_MAX == len(told)
    assert all("ann has 0 connections" in answer[0]["error"]["message"] for answer in told)
    assert again == told[0]


async def test_what_is_asked_while_another_verb_waits_is_answered_after_it(
    autojump_clock, tmp_path
):
    async with open_door(tmp_path) as lab:
        job = await lab.submit()
        async with await connect(lab) as stream:
            await stream.send_all(HELLO + cbor2.dumps({"verb": "wait", "job": job.id}))
            await stream.send_all(cbor2.dumps({"verb": "status"}))
            await trio.sleep(1)
            await lab.people.do("cancel", {"job": job.id}, "ann", None)
            data = b""
            while sum("result" in item for item in items(data)) < 2:
                data += await stream.receive_some(65536)

        last, status = items(data)[-2:]
        assert "finish" == last["result"]["job"]["stage"]
        assert "lab" in status["result"]


async def test_a_key_that_comes_with_other_documents_is_answered_with_a_warning(
    autojump_clock, tmp_path
):
    async with open_door(tmp_path) as lab:
        first = await ask(lab, SUBMIT)
        other = {**PAPER, "text": "script: echo other\n"}
        second = await ask(lab, {"verb": "submit", "documents": [other], "key": KEY})

        assert ids(first) == ids(second)
        assert not any("made these jobs before" in text for text in first["result"]["warnings"])
        assert any("was not looked at" in text for text in second["result"]["warnings"])


@pytest.mark.parametrize("name", ["documents", "key"])
async def test_an_argument_that_is_none_is_missing(autojump_clock, tmp_path, name):
    async with open_door(tmp_path) as lab:
        right = {"verb": "submit", "documents": [PAPER], "key": KEY}
        without = {key: value for key, value in right.items() if key != name}
        answers = [await ask(lab, question) for question in (without, right | {name: None})]

    assert [{"kind": "bad-request", "message": f"submit: '{name}' is missing"}] * 2 == [
        answer["error"] for answer in answers
    ]
