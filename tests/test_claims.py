"""A UUID is a hint: whoever says another's gets nothing of it until an operator confirms it."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import trio
from click.testing import CliRunner
from structlog.testing import capture_logs

from appliance.cli import hosts
from appliance.errors import Refused
from appliance.jobs.box import BootLog, Box, Identity
from appliance.jobs.changes import Known, Seen
from appliance.jobs.store import Store
from appliance.keep.state import records
from tests import lab as labs
from tests.lab import open_lab
from tests.test_decisions import ADDRESS, MAC, NOW, facts

UUID = "4c4c4544-0042-3510-8051-b4c04f4a3132"
OTHER, ELSEWHERE = "52:54:00:00:00:66", "10.0.0.66"
STRANGER = "unknown-52-54-00-00-00-66"
CLAIMS = f"/boot.ipxe/mac/{OTHER.replace(':', '-')}?arch=x86_64&uuid={UUID}"


async def idle(lab, job):
    """The box has asked, as itself, and is off now."""
    await lab.know(uuid=UUID)
    await (await lab.ask(f"{labs.ASK}&uuid={UUID}")).hang_up()
    await trio.sleep(1)


async def seated(lab, job):
    """It waits."""
    await lab.know(uuid=UUID)
    await lab.ask(f"{labs.ASK}&uuid={UUID}")


async def at_work(lab, job):
    """It runs a job."""
    await lab.know(uuid=UUID)
    job.append(await lab.submit())
    await (await lab.ask(f"{labs.ASK}&uuid={UUID}")).rest()
    await lab.fetched_all(job[0])
    await lab.report(job[0], "job_state=running")


async def never_seen(lab, job):
    """It stands in a hosts file."""
    await lab.know(uuid=UUID)


@pytest.mark.parametrize("moment", [idle, seated, at_work, never_seen], ids=lambda m: m.__name__)
async def test_a_stranger_that_says_a_known_boxs_uuid_is_a_stranger(autojump_clock, moment):
    async with open_lab() as lab:
        held = []
        await moment(lab, held)
        before = lab.scheduler.store.box("box-1")
        was = (before.macs, before.address, before.job, len(before.boots))
        await lab.ask(CLAIMS, ELSEWHERE)
        waiting = await lab.submit(key="another0")
        await trio.sleep(60)
        await lab.ask(CLAIMS, ELSEWHERE)
        box = lab.scheduler.store.box("box-1")

        assert ["box-1", STRANGER] == list(lab.scheduler.store.boxes)
        assert was[:2] == (box.macs, box.address)
        assert [] == [one for one in held if "running" != lab.stage(one)]
        attempt = lab.scheduler.store.job(waiting.id).attempt
        assert attempt is None or attempt.address == "10.0.0.5"
        assert STRANGER in lab.scheduler.lobby


async def test_what_it_says_is_shown_and_logged_once(autojump_clock):
    async with open_lab() as lab:
        await lab.know(uuid=UUID)
        with capture_logs() as logs:
            for _ in range(3):
                await lab.ask(CLAIMS, ELSEWHERE)
        rows = {
            row["name"]: row for row in (await lab.people.do("hosts", {}, "ann", None))["hosts"]
        }
        shown = await lab.people.do("host-show", {"host": STRANGER}, "ann", None)

        assert ("box-1", None) == (rows[STRANGER]["says"], rows["box-1"]["says"])
        assert "box-1" == shown["host"]["says"]
        [said] = [row for row in logs if row["event"] == "says a known box's UUID"]
        assert ("warning", STRANGER, "box-1") == (said["log_level"], said["box"], said["says"])
        assert said["confirm"] == f"appliance host add box-1 --mac {MAC} --mac {OTHER}"


async def test_an_operator_confirms_it_where_it_sits_and_it_gets_the_boxs_jobs(autojump_clock):
    async with open_lab() as lab:
        await lab.know(uuid=UUID)
        await (await lab.ask(f"{labs.ASK}&uuid={UUID}")).hang_up()
        await trio.sleep(1)
        answer = await lab.ask(CLAIMS, ELSEWHERE)
        await lab.know(mac=[MAC, OTHER], uuid=UUID)
        job = await lab.submit()

        assert f"/{job.id}/" in (await answer.rest()).decode()
        await lab.fetched_all(job, ELSEWHERE)
        assert ["box-1"] == list(lab.scheduler.store.boxes)


async def test_its_own_mac_says_who_it_is_whatever_uuid_it_says(autojump_clock):
    async with open_lab() as lab:
        await lab.know(uuid=UUID)
        await lab.know("box-2", OTHER)
        await lab.ask(CLAIMS, ELSEWHERE)

        assert {"box-2"} == {seat.box for seat in lab.scheduler.lobby}
        with pytest.raises(Refused, match="belongs to box-2"):
            await lab.know(mac=[MAC, OTHER], uuid=UUID)


class Server:
    """Answers as the control socket would."""

    def __init__(self, answer):
        self.answer = answer

    def ask(self, verb, **arguments):
        return self.answer


@pytest.mark.parametrize("arguments", [[], ["--unknown"]])
async def test_the_list_says_who_it_says_it_is_and_how_to_agree(
    autojump_clock, monkeypatch, arguments
):
    async with open_lab() as lab:
        await lab.know(uuid=UUID)
        await lab.ask(CLAIMS, ELSEWHERE)
        answer = await lab.people.do("hosts", {}, "ann", None)
        one = await lab.people.do("host-show", {"host": STRANGER}, "ann", None)
    monkeypatch.setattr(hosts, "connect", lambda ctx: nullcontext(Server(answer)))
    listed = CliRunner().invoke(hosts.hosts, arguments)
    monkeypatch.setattr(hosts, "connect", lambda ctx: nullcontext(Server(one)))
    shown = CliRunner().invoke(hosts.show, [STRANGER])

    assert "says it is box-1 (UUID)" in listed.stdout
    assert f"appliance host add box-1 --mac {MAC} --mac {OTHER}\n" in listed.stderr
    assert "says it is box-1, by its UUID" in shown.stdout


def claimed():
    """The changes of a server that believed a UUID."""
    return [
        Known(facts(uuid=UUID), NOW),
        Seen("box-1", Identity(MAC, ADDRESS, uuid=UUID), NOW),
        Seen("box-1", Identity(OTHER, ELSEWHERE, uuid=UUID), NOW + 1),
    ]


def test_a_mac_that_an_earlier_version_took_for_the_boxs_is_nobodys_in_its_journal():
    store = Store()
    for change in records.load_changes(records.dump_changes(claimed()), "journal"):
        store.apply(change)

    assert (MAC,) == store.box("box-1").macs
    assert store.box_of(Identity(OTHER, "")) is None


def test_nor_in_its_snapshot():
    box = Box("box-1", (MAC, OTHER), facts(uuid=UUID), uuid=UUID, boots=[BootLog(NOW)])
    loading = records.Loading("snapshot")
    for payload in records.dump_image(records.StoreImage(0, "", 0, [], [box], 1)):
        loading.add(payload)
    store = loading.store()

    assert (MAC,) == store.box("box-1").macs
    assert store.box_of(Identity(OTHER, "")) is None
    assert "box-1" == store.box_of(Identity(MAC, "")).name
