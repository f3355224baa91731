"""Jobs that run together: who waits for whom, first as plain values, then through the doors."""

from __future__ import annotations

import errno

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from appliance.errors import BadRequest
from appliance.jobs import cluster
from appliance.jobs.changes import Job, Node
from appliance.jobs.documents.document import Document
from appliance.jobs.job import Attempt, Finished, Queued, Running
from appliance.scheduler import intake
from appliance.scheduler.intake import Paper
from tests.disks import MemoryDisk
from tests.lab import KEY, PINNED, open_lab

SYNC = "/~lkp/{}/cgi-bin/lkp-cluster-sync?"
DOCUMENT = Document("s", "debian", "12", "x86_64", "cifs", "default", 60, cluster="cs-1")


def attempt(number=1):
    return Attempt(number, f"token{number}", "box-1", "10.0.0.5", 0.0)


def job(name="lab.1", state=None, node=None, document=DOCUMENT):
    running = Running(attempt(), 100.0)
    return Job(
        name, 1, "a.yaml", document, "ann", KEY, 0.0, PINNED, "/result/x",
        state=state or running, node=node,
    )  # fmt: skip


def over(health):
    return Finished(health, "", attempt())


NODES = {
    "has said nothing": job(),
    "asked for the start": job(node=Node(1, "start")),
    "is ready": job(node=Node(1, "ready", ready=True)),
    "runs its daemon, and is not ready": job(node=Node(1, "finish")),
    "is done with its work": job(node=Node(1, "finish", ready=True)),
    "gave up": job(node=Node(1, "abort", ready=True)),
    "waits for a box": job(state=Queued()),
    "runs again, and was ready before": job(
        state=Running(attempt(2), 9.0), node=Node(1, "finish", ready=True)
    ),
    "ended well without a word": job(state=over("success")),
    "failed without a word": job(state=over("failed")),
    "failed when it was ready": job(state=over("failed"), node=Node(1, "ready", ready=True)),
    "failed when it was done": job(state=over("failed"), node=Node(1, "finish", ready=True)),
    "was cancelled before it had a box": job(state=Finished("cancel", "", None)),
}
RETRY = cluster.RETRY
ANSWERS = {
    "has said nothing": (RETRY, RETRY, RETRY),
    "asked for the start": ("start", RETRY, RETRY),
    "is ready": ("start", "ready", RETRY),
    "runs its daemon, and is not ready": ("start", RETRY, "finish"),
    "is done with its work": ("start", "ready", "finish"),
    "gave up": ("abort", "abort", "abort"),
    "waits for a box": (RETRY, RETRY, RETRY),
    "runs again, and was ready before": (RETRY, RETRY, RETRY),
    "ended well without a word": ("start", "ready", "finish"),
    "failed without a word": ("abort", "abort", "abort"),
    "failed when it was ready": ("start", "ready", "abort"),
    "failed when it was done": ("start", "ready", "finish"),
    "was cancelled before it had a box": ("abort", "abort", "abort"),
}


@pytest.mark.parametrize("name", NODES)
def test_what_a_node_is_told_at_each_gate_when_another(name):
    done = job("lab.2", node=Node(1, "finish", ready=True))
    gates = ("start", "ready", "finish")

    assert ANSWERS[name] == tuple(cluster.answer([done, NODES[name]], gate) for gate in gates)
    assert ANSWERS[name] == tuple(cluster.answer([NODES[name], done], gate) for gate in gates)


def test_one_that_gave_up_is_heard_before_one_that_is_late():
    late, gone = NODES["has said nothing"], NODES["gave up"]

    assert "abort" == cluster.answer([late, gone], "ready") == cluster.answer([gone, late], "ready")


def test_a_daemon_that_runs_waits_for_nobody_until_it_is_ready():
    server = job()
    running = cluster.said(server, "finished", {})
    ready = cluster.said(attrs.evolve(server, node=running), "wait_ready", {})
    done = cluster.said(attrs.evolve(server, node=ready), "finished", {})

    assert None is cluster.gate("finished", running)
    assert Node(1, "ready", ready=True) == ready
    assert ("ready", "finish") == (
        cluster.gate("wait_ready", ready),
        cluster.gate("finished", done),
    )


def test_a_new_attempt_says_everything_anew():
    again = job(state=Running(attempt(2), 9.0), node=Node(1, "ready", ready=True, ip="10.0.0.5"))

    assert Node(2, "start") == cluster.said(again, "wait_start", {})


def test_roles_and_addresses_become_lines_that_a_shell_exports():
    said = {
        "node_roles": "server  db",
        "ip": "10.0.0.5",
        "direct_macs": "52:54:00:00:00:01 52-54-00-00-00-02",
        "direct_ips": "192.168.222.1 192.168.222.2",
    }
    nodes = [job(node=cluster.said(job(), "write_state", said)), job("lab.2")]

    assert (
        "direct_server_ips=192.168.222.1 192.168.222.2\nserver=10.0.0.5\n"
        "direct_db_ips=192.168.222.1 192.168.222.2\ndb=10.0.0.5"
    ) == cluster.roles_ip(nodes)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("", {}),
        ("wait", {}),
        ("x" * 10_000, {}),
        ("write_state", {"node_roles": "a;reboot"}),
        ("write_state", {"node_roles": "a=b"}),
        ("write_state", {"node_roles": "$(x)"}),
        ("write_state", {"node_roles": "1a"}),
        ("write_state", {"node_roles": "a " * 17}),
        ("write_state", {"ip": "10.0.0.5;x"}),
        ("write_state", {"ip": "`id`"}),
        ("write_state", {"direct_ips": "10.0.0"}),
        ("write_state", {"direct_macs": "52:54"}),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_line(word, said):
    with pytest.raises(BadRequest) as caught:
        cluster.said(job(), word, said)

    assert len(str(caught.value)) < 200


def test_only_jobs_of_the_same_submit_with_the_same_cluster_run_together():
    alone = job("lab.3", document=attrs.evolve(DOCUMENT, cluster=None))
    other = job("lab.4", document=attrs.evolve(DOCUMENT, cluster="cs-2"))
    both = [job("lab.1"), job("lab.2")]

    assert both == cluster.members([*both, alone, other], both[0])
    assert [alone] == cluster.members([*both, alone, other], job("lab.3", document=alone.document))


async def two_nodes(lab, extra=""):
    """A server and a client, each on its box, both running."""
    text = "script: x\ncluster: cs-1\ntestbox: {}\n" + extra
    papers = [Paper(f"{name}.yaml", text.format(name)) for name in ("box-1", "box-2")]
    jobs = await intake.submit(lab.scheduler, papers, "ann", KEY)
    for n, one in enumerate(jobs, start=1):
        await lab.know(f"box-{n}", f"52:54:00:00:00:0{n}")
        await run(lab, one, n)
    return jobs


async def run(lab, one, n):
    client = f"10.0.0.{n}"
    await (await lab.ask(f"/boot.ipxe/mac/52-54-00-00-00-0{n}?arch=x86_64", client)).rest()
    await lab.fetched_all(one, client)
    await lab.report(one, "job_state=running")


async def sync(lab, one, query, answers=None, token=None):
    found = lab.scheduler.store.job(one.id).attempt
    answer = await lab.get(SYNC.format(token or found.token) + query, found.address)
    if answers is not None:
        answers.append((one.id, answer.body.decode(), trio.current_time()))
    return answer


async def test_a_server_and_its_client_meet_and_part(autojump_clock):
    """Word for word what the client of 2022 sends, a server's node and a client's."""
    answers = []
    async with open_lab() as lab:
        server, client = await two_nodes(lab)
        say = "state=write_state&node_roles=server&ip=10.0.0.1&direct_macs=&direct_ips="
        await sync(lab, server, "cluster=cs-1&node=box-1&state=finished")
        await sync(lab, server, f"cluster=cs-1&node=box-1&{say}")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sync, lab, server, "state=wait_ready", answers)
            await trio.sleep(100)
            assert [] == answers
            nursery.start_soon(sync, lab, client, "state=wait_ready", answers)
        told = await sync(lab, client, "state=roles_ip")
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sync, lab, server, "state=wait_finish", answers)
            await trio.sleep(500)
            await sync(lab, client, "state=finished", answers)

        assert [(client.id, "ready", 100.0), (server.id, "ready", 100.0)] == sorted(answers[:2])[
            ::-1
        ]
        assert b"direct_server_ips=\nserver=10.0.0.1" == told.body
        assert {(server.id, "finish", began + 500), (client.id, "finish", began + 500)} == {
            *answers[2:]
        }


@pytest.mark.parametrize("ends", ["says failed", "is cancelled", "reboots"])
async def test_who_waits_is_told_at_once_that_another_is_gone(autojump_clock, ends):
    answers = []
    async with open_lab() as lab:
        server, client = await two_nodes(lab)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sync, lab, server, "state=wait_ready", answers)
            await trio.sleep(50)
            if ends == "says failed":
                await sync(lab, client, "state=failed")
            elif ends == "is cancelled":
                await lab.scheduler.cancel(client.id, "ann")
            else:
                await lab.ask("/boot.ipxe/mac/52-54-00-00-00-02?arch=x86_64", "10.0.0.2")

        assert [(server.id, "abort", 50.0)] == answers


async def test_a_node_that_waits_for_long_is_told_to_ask_again_before_its_client_gives_up(
    autojump_clock,
):
    answers = []
    async with open_lab() as lab:
        server, _ = await two_nodes(lab, "runtime: 1d\n")
        await sync(lab, server, "state=wait_ready", answers)

        assert [(server.id, "retry", 1500.0)] == answers


async def test_a_node_that_runs_again_is_waited_for(autojump_clock):
    answers = []
    async with open_lab() as lab:
        server, client = await two_nodes(lab, "retry: true\n")
        await sync(lab, client, "state=finished")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sync, lab, server, "state=wait_ready", answers)
            await trio.sleep(50)
            old = lab.scheduler.store.job(client.id).attempt.token
            await run(lab, client, 2)  # it rebooted, and gets the job again
            late = await sync(lab, client, "state=wait_ready", token=old)
            await trio.sleep(10)
            assert (b"abort", []) == (late.body, answers)
            await sync(lab, client, "state=wait_ready")

        assert ["ready"] == [word for _, word, _ in answers]


async def test_a_restart_finds_how_far_each_node_was(autojump_clock):
    disk = MemoryDisk()
    async with open_lab(disk=disk) as lab:
        server, client = await two_nodes(lab)
        say = "state=write_state&node_roles=server&ip=10.0.0.1"
        await sync(lab, server, say)
        with trio.move_on_after(5):
            await sync(lab, server, "state=wait_ready")
        kept = disk.after_kill()
    async with open_lab(disk=kept) as lab:
        word = await sync(lab, client, "state=wait_ready")
        told = await sync(lab, client, "state=roles_ip")

        assert b"ready" == word.body
        assert b"direct_server_ips=\nserver=10.0.0.1" == told.body


async def test_no_node_is_told_what_the_disk_does_not_know(autojump_clock):
    answers, disk = [], MemoryDisk()
    async with open_lab(disk=disk) as lab:
        server, client = await two_nodes(lab)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sync, lab, server, "state=wait_ready", answers)
            await trio.sleep(50)
            disk.calls.fail_at(1, errno.ENOSPC)  # it is tried again every two seconds
            nursery.start_soon(sync, lab, client, "state=wait_ready", answers)
            await trio.sleep(50)
            disk.calls.fail_at(1, errno.ENOSPC)
            said = await sync(lab, client, "state=write_state&node_roles=a")

        assert [("ready", 52.0)] * 2 == [(word, at) for _, word, at in answers]
        assert b'"roles": "a"' in said.body
        assert 102.0 == trio.current_time()


async def test_a_node_is_told_of_anothers_roles_once_the_disk_knows_them(autojump_clock):
    async with open_lab() as lab:
        server, client = await two_nodes(lab)
        await sync(lab, client, "state=roles_ip")  # what it says the next time is nothing new
        append, told = lab.disk.append, []

        async def slow(name, data):
            await trio.sleep(1)
            await append(name, data)

        async def ask():
            told.append((await sync(lab, client, "state=roles_ip")).body)

        lab.disk.append = slow
        async with trio.open_nursery() as nursery:
            say = "state=write_state&node_roles=server&ip=10.0.0.1"
            nursery.start_soon(sync, lab, server, say)
            await trio.sleep(0.5)
            nursery.start_soon(ask)
            await trio.sleep(0.4)
            assert [] == told

        assert [b"direct_server_ips=\nserver=10.0.0.1"] == told


async def test_a_node_that_hangs_up_leaves_nobody_waiting(autojump_clock):
    async with open_lab() as lab:
        server, _ = await two_nodes(lab)
        before = len(lab.wire.nursery.child_tasks)
        with trio.move_on_after(5):
            await sync(lab, server, "state=wait_ready")
        await wait_all_tasks_blocked()

        assert before == len(lab.wire.nursery.child_tasks)


async def test_a_box_that_holds_no_such_job_is_told_to_give_up_and_changes_nothing(autojump_clock):
    async with open_lab() as lab:
        server, _ = await two_nodes(lab)
        for target, client in [
            (SYNC.format("forged") + "state=abort", "10.0.0.1"),
            (f"/~lkp/cgi-bin/lkp-cluster-sync?job_id={server.id}&state=abort", "10.0.0.9"),
            ("/~lkp/cgi-bin/lkp-cluster-sync?job_id=lab.99&state=abort", "10.0.0.1"),
        ]:
            answer = await lab.get(target, client)

            assert (200, b"abort") == (answer.status, answer.body)
        assert None is lab.scheduler.store.job(server.id).node


async def test_a_job_alone_waits_for_nobody(autojump_clock):
    async with open_lab() as lab:
        await lab.know("box-1", "52:54:00:00:00:01")
        one = await lab.submit("script: x\ncluster: cs-localhost\n")
        await run(lab, one, 1)
        answer = await sync(lab, one, "state=wait_ready")

        assert b"ready" == answer.body
