"""What an operator decides: boxes quarantined, held, reserved and released; the lab drained."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from appliance.errors import BadRequest, Refused
from appliance.jobs import decisions, operator
from appliance.jobs.changes import Known
from appliance.jobs.suspicion import LOST_MAX
from tests.lab import MAC, config, open_lab
from tests.test_decisions import NOW, WAITS, a_store, facts, make, offered

HOUR = 3600.0
SOON = 1500.0  # before the box is sent to ask again


async def nothing(event):
    await trio.lowlevel.checkpoint()


async def do(lab, verb, user="root", **arguments):
    return await lab.people.do(verb, arguments, user, nothing)


async def state(lab, box="box-1"):
    rows = (await do(lab, "hosts"))["hosts"]
    return next(row["state"] for row in rows if row["name"] == box)


def now(lab):
    return lab.scheduler.clock.now()


async def test_a_box_that_loses_three_boots_is_given_no_more_until_it_is_released(autojump_clock):
    async with open_lab() as lab:
        await lab.know()
        for _ in range(LOST_MAX):
            job = await lab.submit(key=f"key{now(lab):.0f}aaaa"[:20].replace(".", ""))
            await (await lab.ask()).rest()
            await trio.sleep(200)  # the offer lapses
            await do(lab, "cancel", job=job.id)
            await trio.sleep(1000)  # it has rested
        await lab.submit(key="another1")
        parked = await lab.ask()
        await wait_all_tasks_blocked()
        assert "quarantined" == await state(lab)

        await do(lab, "host-release", host="box-1")
        assert b"job.cgz" in await parked.rest()
        assert "offered" == await state(lab)


async def test_a_held_box_gets_no_job_until_its_time_is_up_also_after_a_restart(autojump_clock):
    async with open_lab() as lab:
        await lab.know()
        until = now(lab) + SOON
        row = (await do(lab, "host-reserve", host="box-1", until=until, why="for ann"))["host"]
        assert "held by root (for ann)" == row["kept"]
        disk = lab.disk
    async with open_lab(disk=disk) as lab:
        await lab.submit()
        parked = await lab.ask()
        await trio.sleep(until - now(lab) - 1)
        assert "held" == await state(lab)
        await trio.sleep(2)

        assert b"job.cgz" in await parked.rest()


async def test_a_reserved_box_takes_the_jobs_of_its_person_only(autojump_clock):
    async with open_lab() as lab:
        await lab.know()
        until = now(lab) + HOUR
        await do(lab, "host-reserve", host="box-1", until=until, **{"for": "bob"})
        await lab.submit(user="ann", key="annskey1")
        parked = await lab.ask()
        await trio.sleep(10)
        assert "parked" == await state(lab)
        job = await lab.submit(user="bob", key="bobskey1")

        assert f"/{job.id}/".encode() in await parked.rest()


async def test_a_box_is_held_while_it_runs_and_the_job_goes_on(autojump_clock):
    async with open_lab() as lab:
        await lab.know()
        job = await lab.submit()
        await (await lab.ask()).rest()
        await lab.fetched_all(job)
        await do(lab, "host-reserve", host="box-1", until=now(lab) + HOUR)
        await lab.report(job, "job_state=running")
        await lab.report(job, "job_state=finished")
        await lab.report(job, "", "lkp-post-run")

        assert "finish" == lab.stage(job)


async def test_a_drained_lab_gives_out_nothing_until_it_is_resumed_also_after_a_restart(
    autojump_clock,
):
    async with open_lab() as lab:
        await lab.know()
        await do(lab, "drain")
        await lab.submit()
        parked = await lab.ask()
        await trio.sleep(10)
        assert "parked" == await state(lab)
        assert "root" == (await do(lab, "status"))["drained"]
        disk = lab.disk
    async with open_lab(disk=disk) as lab:
        parked = await lab.ask()
        await trio.sleep(10)
        assert "parked" == await state(lab)
        await do(lab, "resume")

        assert b"job.cgz" in await parked.rest()


async def test_a_box_is_held_for_so_long_by_the_servers_clock(autojump_clock):
    async with open_lab(wall=-86400.0) as lab:  # whoever asks has another clock
        await lab.know()
        await do(lab, "host-reserve", host="box-1", seconds=3600)
        reservation = lab.scheduler.store.box("box-1").reservation

        assert now(lab) + 3600 == reservation.until


async def test_a_drain_that_waits_is_told_when_somebody_resumes(autojump_clock, nursery):
    async with open_lab() as lab:
        await lab.know()
        job = await lab.submit()
        await (await lab.ask()).rest()
        await lab.fetched_all(job)
        told = []

        async def drain():
            with pytest.raises(Refused, match="somebody resumed"):
                await do(lab, "drain", wait=True)
            told.append(trio.current_time())

        nursery.start_soon(drain)
        await trio.sleep(1)
        await do(lab, "resume")
        await lab.report(job, "job_state=running")
        await trio.sleep(1)
        assert 1 == len(told)


async def test_a_drain_can_wait_for_the_jobs_that_run(autojump_clock, nursery):
    async with open_lab() as lab:
        await lab.know()
        job = await lab.submit()
        await (await lab.ask()).rest()
        await lab.fetched_all(job)
        done = []

        async def drain():
            done.append(await do(lab, "drain", wait=True))

        nursery.start_soon(drain)
        await lab.report(job, "job_state=running")
        await trio.sleep(60)
        assert [] == done
        await lab.report(job, "job_state=finished")
        await lab.report(job, "", "lkp-post-run")
        await wait_all_tasks_blocked()

        assert [{"jobs": []}] == done


async def test_a_running_job_is_given_more_time(autojump_clock):
    async with open_lab() as lab:
        await lab.know()
        job = await lab.submit("script: x\ntimeout: 10m\n")
        await (await lab.ask()).rest()
        await lab.fetched_all(job)
        with pytest.raises(Refused, match="Only running job can renew"):
            await do(lab, "renew", job=job.id, seconds=600.0)
        await lab.report(job, "job_state=running")
        await do(lab, "renew", "ann", job=job.id, seconds=600.0)
        await trio.sleep(1100)
        assert "running" == lab.stage(job)
        await trio.sleep(110)

        assert "finish" == lab.stage(job)


@pytest.mark.parametrize(
    ("verb", "more"),
    [
        ("host-reserve", {"host": "box-1", "until": 0.0}),
        ("host-release", {"host": "box-1"}),
        ("host-remove", {"host": "box-1"}),
        ("drain", {}),
        ("resume", {}),
        ("renew", {"job": "lab.1", "seconds": 1.0}),
    ],
)
async def test_only_root_decides_and_a_submitter_of_their_own_jobs(autojump_clock, verb, more):
    async with open_lab() as lab:
        await lab.know()
        await lab.submit(user="ann")
        with pytest.raises(Refused, match="root"):
            await do(lab, verb, "bob", **more)


def test_what_makes_no_sense_is_refused_with_what_would():
    store = a_store()
    box = store.box("box-1")
    for until in (NOW, NOW - 1, NOW + operator.RESERVED_MAX_S + 1, float("nan"), float("inf")):
        with pytest.raises(BadRequest, match="within 30 days"):
            operator.reserved(box, None, until, "root", "", NOW)
    with pytest.raises(Refused, match="neither quarantined"):
        operator.released(box, "root", NOW)
    with pytest.raises(Refused, match="nobody drains"):
        operator.resumed(store, NOW)
    for change in operator.reserved(box, "ann", NOW + 9, "root", "", NOW):
        store.apply(change)
    with pytest.raises(Refused, match="box-1 is reserved for ann by root: `host release box-1`"):
        operator.reserved(box, "bob", NOW + 9, "root", "", NOW)
    assert operator.reserved(box, "ann", NOW + 99, "root", "", NOW)  # longer


def test_a_reservation_of_an_unknown_box_is_refused():
    store = a_store()
    store.box("box-1").facts = None
    with pytest.raises(Refused, match="host add"):
        operator.reserved(store.box("box-1"), None, NOW + 9, "root", "", NOW)


def test_the_deadlines_of_a_document_win_over_those_of_its_host_and_of_the_lab():
    store = a_store(job_text="script: x\ndeadlines: {post_run: 5m}\n")
    store.apply(Known(facts(deadlines={"post_run": "2h", "boot": "20m"}), NOW))
    offered(store)
    make(store, decisions.fetched_job(store, store.job("lab.1"), NOW, WAITS))
    make(store, decisions.loaded(store, store.job("lab.1"), NOW, WAITS))
    assert NOW + 1200 == decisions.deadline(store.job("lab.1"), {}, WAITS)
    make(store, decisions.reported(store.job("lab.1"), "post_run", NOW, WAITS))

    assert NOW + 300 == decisions.deadline(store.job("lab.1"), {}, WAITS)


async def test_a_box_is_given_an_ipxe_of_its_own_and_keeps_it_when_something_else_is_said(
    open_path,
):
    lab_config = config(open_path)
    (lab_config.paths.tftp / "ipxe").mkdir(parents=True)
    (lab_config.paths.tftp / "ipxe/mine.efi").write_text("mine")
    link = lab_config.paths.tftp / MAC.replace(":", "-")
    async with open_lab(lab_config) as lab:  # files are written in a thread: real time
        await do(lab, "host-add", name="box-1", macs=[MAC], ipxe="mine.efi")
        await do(lab, "host-add", name="box-1", macs=[MAC], arch="x86_64")
        given = (link / "undionly.kpxe").read_text()
        facts = lab.scheduler.store.boxes["box-1"].facts
        await do(lab, "host-remove", host="box-1")

    assert "mine" == given
    assert ("mine.efi", "x86_64") == (facts.ipxe, facts.arch)
    assert not link.is_symlink()


async def test_who_submits_to_a_drained_lab_is_told_why_the_job_waits(autojump_clock):
    async with open_lab() as lab:
        await lab.know()
        await lab.ask()
        await do(lab, "drain")
        papers = [{"name": "job.yaml", "text": "script: x\n"}]
        told = await do(lab, "submit", documents=papers, key="k" * 16)
        await do(lab, "resume")
        again = await do(lab, "submit", documents=papers, key="l" * 16)

        assert ["lab.1 waits: root has drained the lab, until it is resumed"] == told["warnings"]
        assert [] == again["warnings"]


async def test_a_box_loses_no_mac_unless_that_was_said(tmp_path):
    other, third = "52:54:00:00:00:02", "52:54:00:00:00:03"
    async with open_lab(config(tmp_path)) as lab:  # files are written in a thread: real time
        file = lab.config.paths.hosts / "box-1.yaml"
        await do(lab, "host-add", name="box-1", macs=[MAC])
        await do(lab, "host-add", name="box-1", arch="x86_64")
        await do(lab, "host-add", name="box-1", macs=[other, MAC])
        with pytest.raises(Refused, match=f"box-1 has {other}, {MAC} already, and .* --replace"):
            await do(lab, "host-add", name="box-1", macs=[third])
        with pytest.raises(BadRequest, match=f"line 2: box-1 has {other} already"):
            await do(lab, "host-add", list=f"name,mac\nbox-1,{MAC}\n")
        assert (other, MAC) == lab.scheduler.store.boxes["box-1"].facts.macs
        assert other in file.read_text()

        answer = await do(lab, "host-add", name="box-1", macs=[third], replace=True)
        assert [other, MAC] == answer["replaced"]
        assert (third,) == lab.scheduler.store.boxes["box-1"].facts.macs
        assert "replace" not in file.read_text()
        row = await do(lab, "host-add", list=f"name,mac\nbox-1,{MAC}\n", replace=True)
        assert [MAC] == row["hosts"][0]["macs"]


async def test_a_mac_that_a_hosts_file_got_since_the_start_is_not_lost_either(tmp_path):
    async with open_lab(config(tmp_path)) as lab:
        (tmp_path / "hosts").mkdir()
        (tmp_path / "hosts/box-1").write_text("mac: 52-54-00-00-00-02\nmemory: 64G\n")
        with pytest.raises(Refused, match="box-1 has 52:54:00:00:00:02 already"):
            await do(lab, "host-add", name="box-1", macs=[MAC])
        await do(lab, "host-add", name="box-1", macs=[MAC, "52:54:00:00:00:02"])

        assert 64 == lab.scheduler.store.boxes["box-1"].facts.memory_gb


async def test_an_ipxe_that_is_not_there_is_refused_before_anything_is_written(tmp_path):
    async with open_lab(config(tmp_path)) as lab:
        with pytest.raises(BadRequest, match=r"box-1: ipxe: .*/ipxe/none\.efi: No such file"):
            await do(lab, "host-add", name="box-1", macs=[MAC], ipxe="none.efi")

        assert {} == lab.scheduler.store.boxes
        assert [] == list(tmp_path.rglob("box-1*"))


async def test_a_removed_box_is_unknown_where_it_sits_and_also_after_a_restart(tmp_path):
    async with open_lab(config(tmp_path)) as lab:  # files are removed in a thread: real time
        await do(lab, "host-add", name="box-1", macs=[MAC], arch="x86_64")
        assert 2 == len(list(tmp_path.rglob("box-1*")))
        parked = await lab.ask()
        await do(lab, "host-reserve", host="box-1", until=now(lab) + SOON)
        await do(lab, "host-remove", host="box-1")
        job = await lab.submit()
        lab.scheduler.lobby.dismiss()
        assert b"No job now" in await parked.rest()
        assert "submit" == lab.stage(job)
        assert [] == list(tmp_path.rglob("box-1*"))
        with pytest.raises(Refused, match="unknown already"):
            await do(lab, "host-remove", host="box-1")
        disk = lab.disk.after_kill()
    async with open_lab(config(tmp_path), disk) as lab:
        assert [("box-1", False)] == [
            (row["name"], row["known"]) for row in (await do(lab, "hosts"))["hosts"]
        ]
        await lab.know()
        assert b"job.cgz" in await (await lab.ask()).rest()


async def test_a_box_that_holds_a_job_is_not_removed(autojump_clock):
    async with open_lab() as lab:
        await lab.know()
        job = await lab.submit()
        await (await lab.ask()).rest()
        with pytest.raises(Refused, match=f"holds {job.id}"):
            await do(lab, "host-remove", host="box-1")
