"""The boot wait by WebSocket, through a real Hypercorn, in virtual time."""

from __future__ import annotations

import json

import pytest
import structlog
import trio
from trio.testing import wait_all_tasks_blocked

from appliance.doors.boot_wait_ws import MEMORY_S
from appliance.scheduler.lobby import TRIED_S
from tests import fakes
from tests import lab as labs
from tests.lab import HYPHENS, KEY, SCHEDULER, open_lab

OLD = f"/ws/boot.ipxe/mac/{HYPHENS}"
NEW = f"/ws/boot.ipxe?mac={HYPHENS}&hostname=box-1&left_mem=8&tbox_type=vm&is_remote=false"
REQUEST, RELEASE = {"type": "request_memory"}, {"type": "release_memory"}


def dial(lab, target=OLD, client="10.0.0.5"):
    return fakes.WebSocket(lab.wire, target, (client, 4000), SCHEDULER)


async def parked(lab, target=OLD, client="10.0.0.5"):
    """A WebSocket that waits."""
    socket = dial(lab, target, client)
    assert None is await socket.open()
    return socket


async def rest(socket):
    """All messages that are still to come, each with its moment."""
    found = []
    while (message := await socket.next()) is not None:
        found.append((trio.current_time(), message))
    return found


async def test_an_idle_box_is_told_after_half_an_hour_that_there_is_no_job(autojump_clock):
    async with open_lab() as lab:
        await lab.know(arch="x86_64")
        [(at, message)] = await rest(await parked(lab))

        assert (1800, "boot") == (at, message["type"])
        assert message["response"].startswith("#!ipxe\n        echo ...\n        echo No job now\n")
        await wait_all_tasks_blocked()
        assert 0 == len(lab.scheduler.lobby)


async def test_a_host_of_2021_is_asked_for_memory_and_then_handed_the_script(autojump_clock):
    async with open_lab() as lab:
        await lab.know(arch="x86_64")
        socket = await parked(lab)
        await trio.sleep(100)
        job = await lab.submit()
        asked = await socket.next()
        await trio.sleep(20)
        assert "offered" == lab.stage(job)
        await socket.say(asked)
        [(at, boot)] = await rest(socket)

        assert (REQUEST, 120, "boot") == (asked, at, boot["type"])
        assert boot["response"].startswith("#!ipxe\n\ninitrd http://10.0.0.1:8000/os/")
        assert boot["response"].endswith("\nboot\n")
        assert f"/job_initrd_tmpfs/{job.id}/job.cgz" in boot["response"]
        assert 1000 == socket.ended
        await lab.fetched_all(job)
        assert "boot" == lab.stage(job)


@pytest.mark.parametrize("prefix", ["", "/scheduler"])
async def test_a_newer_host_is_handed_the_script_at_once_and_told_to_close(autojump_clock, prefix):
    async with open_lab() as lab:
        await lab.know(arch="x86_64")
        socket = await parked(lab, prefix + NEW)
        job = await lab.submit()
        messages = [message for _, message in await rest(socket)]

        assert ["boot", "close"] == [message["type"] for message in messages]
        assert f"/{job.id}/" in messages[0]["response"]
        assert 0 == trio.current_time()


async def test_the_script_is_the_one_that_firmware_gets(autojump_clock):
    async with open_lab() as lab:
        await lab.know(arch="x86_64")
        shown = (await lab.people.do("host-preview", {"host": "box-1"}, "ann", None))["script"]
        await lab.submit()
        shown = (await lab.people.do("host-preview", {"host": "box-1"}, "ann", None))["script"]
        [(_, boot), _] = await rest(await parked(lab, NEW))

        assert shown.replace("SERVER", "10.0.0.1") == boot["response"]


async def test_a_host_without_memory_gives_the_job_back_for_another(autojump_clock):
    async with open_lab() as lab:
        await lab.know(arch="x86_64")
        socket = await parked(lab)
        job = await lab.submit()
        messages = await rest(socket)

        assert [(0, REQUEST), (MEMORY_S, RELEASE)] == messages[:2]
        assert "No job now" in messages[2][1]["response"]
        assert "submit" == lab.stage(job)
        assert {} == lab.scheduler.resting  # once is no habit
        again = await parked(lab, NEW)
        assert f"/{job.id}/" in (await again.next())["response"]


async def test_memory_that_comes_for_a_cancelled_job_boots_nothing(autojump_clock):
    async with open_lab() as lab:
        await lab.know(arch="x86_64")
        socket = await parked(lab)
        job = await lab.submit()
        await socket.next()
        await lab.scheduler.cancel(job.id, "ann")
        await socket.say(REQUEST)
        messages = [message for _, message in await rest(socket)]

        assert RELEASE == messages[0]
        assert "No job now" in messages[1]["response"]


@pytest.mark.parametrize("target", [OLD, NEW])
async def test_a_host_that_hangs_up_leaves_no_seat(autojump_clock, target):
    async with open_lab() as lab:
        await lab.know(arch="x86_64")
        socket = await parked(lab, target)
        await wait_all_tasks_blocked()
        assert 1 == len(lab.scheduler.lobby)
        await socket.hang_up()
        await wait_all_tasks_blocked()

        assert 0 == len(lab.scheduler.lobby)


@pytest.mark.parametrize("target", [OLD, NEW])
async def test_a_job_for_a_host_that_hung_up_goes_back_to_its_queue_at_once(autojump_clock, target):
    async with open_lab() as lab:
        await lab.know(arch="x86_64")
        socket = await parked(lab, target)
        await socket.hang_up()  # which the server has not read yet
        job = await lab.submit()
        await wait_all_tasks_blocked()

        assert "submit" == lab.stage(job)
        assert 0 == trio.current_time()


@pytest.mark.parametrize("target", [OLD, NEW])
async def test_whenever_a_host_hangs_up_its_job_is_offered_only_if_it_was_told(
    autojump_clock, target
):
    seen = set()
    for n in range(40):
        async with open_lab() as lab:
            await lab.know(arch="x86_64")
            socket = await parked(lab, target)
            with structlog.testing.capture_logs() as lines:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(lab.submit)
                    for _ in range(n):
                        await trio.lowlevel.checkpoint()
                    await socket.hang_up()
                await wait_all_tasks_blocked()
            left = next(line for line in lines if line["event"] == "box left the lobby")
            [job] = lab.scheduler.store.jobs.values()
            seen.add((left["why"], left["told"], lab.stage(job)))

            assert ("offered" if left["told"] else "submit") == lab.stage(job)
            assert 0 == trio.current_time()

    assert {("hung up", False, "submit"), ("a job", False, "submit")} <= seen


async def test_a_host_that_hangs_up_instead_of_finding_memory_gives_the_job_back(autojump_clock):
    async with open_lab() as lab:
        await lab.know(arch="x86_64")
        before = len(lab.wire.nursery.child_tasks)
        socket = await parked(lab)
        job = await lab.submit()
        assert REQUEST == await socket.next()
        await socket.hang_up()
        await wait_all_tasks_blocked()

        assert "submit" == lab.stage(job)
        assert before == len(lab.wire.nursery.child_tasks)
        assert 0 == trio.current_time()


async def gives_up_after(lab, way, seconds):
    """A host that finds no memory for so long; whether there was a job at once."""
    began = trio.current_time()
    socket = await parked(lab)
    while (message := await socket.next()) is not None and message != REQUEST:
        pass
    waited = trio.current_time() - began
    if way == "says nothing":
        await rest(socket)
    elif way == "hangs up":
        await trio.sleep(seconds)
        await socket.hang_up()
        await wait_all_tasks_blocked()
    else:
        await trio.sleep(seconds)  # and asks again, the next time round
    return waited


@pytest.mark.parametrize("way", ["says nothing", "hangs up", "asks again"])
async def test_a_host_that_looked_for_memory_in_vain_is_not_blamed(autojump_clock, way):
    """It never took the job: it may ask for it as often as it likes."""
    async with open_lab() as lab:
        await lab.know(arch="x86_64")
        job = await lab.submit()
        waits = [await gives_up_after(lab, way, TRIED_S) for _ in range(6)]

        assert [0] * 6 == waits
        assert 0 == lab.scheduler.store.box("box-1").misses
        assert () == lab.scheduler.store.box("box-1").lost
        socket = await parked(lab)
        await socket.say(await socket.next())
        assert f"/{job.id}/" in (await socket.next())["response"]


@pytest.mark.parametrize("way", ["hangs up", "asks again"])
async def test_a_host_that_does_not_look_for_memory_rests_like_any_other(autojump_clock, way):
    async with open_lab() as lab:
        await lab.know(arch="x86_64")
        for n in range(20):
            await lab.submit(key=f"{KEY}{n:03}")
        with trio.move_on_after(1000):
            while True:
                await gives_up_after(lab, way, 1)

        given = sum(len(job.attempts) for job in lab.scheduler.store.jobs.values())
        assert 2 <= given <= 7  # at 0, 0, 30, 90, 210, 450 and 930 s (test_misses)


async def test_one_box_has_one_seat_in_whichever_way_it_asks(autojump_clock):
    async with open_lab() as lab:
        await lab.know()
        socket = await parked(lab, NEW)
        answer = await lab.ask()
        job = await lab.submit()

        assert [] == await rest(socket)
        assert f"/{job.id}/" in (await answer.rest()).decode()


async def test_a_stop_sends_hosts_back_too(autojump_clock):
    async with open_lab() as lab:
        await lab.know(arch="x86_64")
        old, new = await parked(lab), await parked(lab, NEW.replace("00-01", "00-02"), "10.0.0.6")
        lab.scheduler.lobby.dismiss()
        messages = [await rest(old), await rest(new)]

        assert [["boot"], ["boot", "close"]] == [[m["type"] for _, m in ms] for ms in messages]
        assert all("No job now" in ms[0][1]["response"] for ms in messages)
        assert 0 == trio.current_time()


async def test_a_job_on_the_tick_of_the_deadline_is_never_lost(autojump_clock):
    """It is handed over, or stays in its queue; by one scope, as over HTTP."""
    for _ in range(20):
        async with open_lab() as lab:
            await lab.know(arch="x86_64")
            socket = await parked(lab, NEW)
            await trio.sleep_until(trio.current_time() + 1800)
            job = await lab.submit()
            boot = await socket.next()
            await wait_all_tasks_blocked()

            handed = f"/{job.id}/" in boot["response"]
            assert ("offered" if handed else "submit") == lab.stage(job)


@pytest.mark.parametrize(
    ("target", "status", "word"),
    [
        ("/ws/boot.ipxe/mac/52-54", 400, "six pairs of hex digits"),
        ("/ws/boot.ipxe", 400, "six pairs of hex digits"),
        ("/ws/boot.ipxe?hostname=nobody", 400, "six pairs of hex digits"),
        ("/ws/boot.grub/mac/" + HYPHENS, 404, "ask for /ws/boot.ipxe/mac/<mac>"),
        ("/ws/" + "x" * 10_000, 404, "ask for /ws/boot.ipxe/mac/<mac>"),
    ],
)
async def test_a_question_that_makes_no_sense_is_refused_in_the_handshake(
    autojump_clock, target, status, word
):
    async with open_lab() as lab:
        answer = await dial(lab, target).open()

        assert status == answer.status
        assert word in answer.body.decode()
        assert {} == lab.scheduler.store.boxes


@pytest.mark.parametrize("port", [3000, 3080])
async def test_where_no_websocket_is_none_is_made(autojump_clock, port):
    async with open_lab() as lab:
        socket = fakes.WebSocket(lab.wire, "/nothing", ("10.0.0.5", 4000), ("10.0.0.1", port))

        assert 403 == (await socket.open()).status


NOISE = {
    "words of its own": [{"type": "release_memory"}, {"type": 5}, [], None, "x", 7],
    "no text": [b"\xff\x00" * 100],
    "no JSON": ["{", "", "\0", "request_memory"],
    "an abyss": ["[" * 4_000],
    "a deep nest": [json.loads("[" * 500 + "]" * 500)],
    "many": [{"n": n} for n in range(100)],
}


@pytest.mark.parametrize("name", NOISE)
async def test_what_a_parked_host_says_unasked_changes_nothing(autojump_clock, name):
    async with open_lab() as lab:
        await lab.know(arch="x86_64")
        socket = await parked(lab)
        for message in NOISE[name]:
            await socket.say(message)
        job = await lab.submit()
        assert REQUEST == await socket.next()
        for message in NOISE[name]:
            await socket.say(message)
        await wait_all_tasks_blocked()
        await socket.say(REQUEST)

        assert f"/{job.id}/" in (await socket.next())["response"]


async def test_boxes_that_one_host_runs_load_side_by_side(autojump_clock):
    """Both ask from the host's address, and the host fetches for both."""
    async with open_lab() as lab:
        running = []
        for n in (1, 2):
            await lab.know(f"vm-{n}", f"52:54:00:00:00:0{n}", arch="x86_64")
            job = await lab.submit(f"script: x\ntestbox: vm-{n}\n", key=KEY[n:] + "x" * n)
            socket = await parked(lab, NEW.replace("00-01", f"00-0{n}"))
            assert f"/{job.id}/" in (await socket.next())["response"]
            running.append(job)
        for job in running:
            await lab.fetched_all(job)
        await trio.sleep(500)  # longer than the lease of an offer; less than a boot may take

        assert ["boot", "boot"] == [lab.stage(job) for job in running]
        for job in running:
            await lab.report(job, "job_state=running")
        assert ["running", "running"] == [lab.stage(job) for job in running]


CONTAINER = "dc-8g.rack-7-1"
OLD_CONTAINER = f"/ws/boot.container/hostname/{CONTAINER}"
NEW_CONTAINER = "/ws/boot.container?hostname=rack-7-1&left_mem=8&tbox_type=dc&is_remote=false"
HOST = "127.0.0.1"  # the lab server itself runs them


async def test_a_container_is_told_its_image_and_its_initrds(autojump_clock, tmp_path):
    async with open_lab(labs.config(tmp_path)) as lab:
        said = f"/set_host2queues?host={CONTAINER}&queues=dc-8g.x86_64"
        put = await fakes.fetch(lab.wire, "PUT", said, client=(HOST, 1), server=SCHEDULER)
        job = await lab.submit("testbox: dc-8g\nscript: x\ndocker_image: debian:12\n")
        other = await lab.submit("queue: dc-8g.x86_64\nscript: x\n", key=KEY[::-1])
        socket = await parked(lab, OLD_CONTAINER, HOST)
        await socket.say(await socket.next())
        [(_, boot)] = await rest(socket)
        told = json.loads(boot["response"])

        assert b"Done" == put.body
        assert (job.id, "debian:12") == (told["job_id"], told["docker_image"])
        urls = json.loads(told["initrds"])
        assert [f"http://10.0.0.1:3000/job_initrd_tmpfs/{job.id}/job.cgz",
                "http://10.0.0.1:3000/runner.cgz"] == urls  # fmt: skip
        for url in urls:
            assert 200 == (await lab.get(url.removeprefix("http://10.0.0.1:3000"), HOST)).status
        assert ("boot", "submit") == (lab.stage(job), lab.stage(other))  # that one wants a machine


async def test_an_idle_container_is_told_so_in_its_own_words(autojump_clock, tmp_path):
    async with open_lab(labs.config(tmp_path)) as lab:
        [(at, boot)] = await rest(await parked(lab, OLD_CONTAINER, HOST))

        assert (1800, {"job_id": "0"}) == (at, json.loads(boot["response"]))


async def test_a_newer_provider_says_its_own_name(autojump_clock, tmp_path):
    async with open_lab(labs.config(tmp_path)) as lab:
        await lab.know("dc-rack-7-1", [], arch="x86_64", queues=["dc-8g"])
        job = await lab.submit("testbox: dc-8g\nscript: x\n")
        messages = [message for _, message in await rest(await parked(lab, NEW_CONTAINER, HOST))]

        assert ["boot", "close"] == [message["type"] for message in messages]
        assert job.id == json.loads(messages[0]["response"])["job_id"]


async def test_a_container_without_a_name_is_refused(autojump_clock):
    async with open_lab() as lab:
        for target in (
            "/ws/boot.container",
            "/ws/boot.container/hostname/",
            "/ws/boot.container/x",
        ):
            refused = await dial(lab, target, HOST).open()
            assert refused.status in (400, 404)
