"""Machines that run virtual testboxes register them over the wire; files are on a real disk, so
these run on the real clock."""

from __future__ import annotations

import json

import attrs
import pytest
import trio
import yaml
from trio.testing import wait_all_tasks_blocked

from appliance.config import Network
from appliance.doors import providers
from appliance.errors import Refused
from appliance.scheduler import hosts_files
from tests import fakes
from tests.lab import SCHEDULER, config, open_lab

SERVER = SCHEDULER[0]
MAC, OTHER = "52-54-00-00-00-01", "52-54-00-00-00-02"
NAME = "vm-2p8g.rack-1"


async def put(lab, target, client=SERVER):
    return await fakes.fetch(lab.wire, "PUT", target, client=(client, 4000), server=SCHEDULER)


async def done(lab, target):
    answer = await put(lab, target)

    assert (200, b"Done") == (answer.status, answer.body)


async def refused(lab, target, word, status=403):
    answer = await put(lab, target)

    assert status == answer.status
    assert word in answer.body.decode()
    assert len(answer.body) < 200


def known(lab):
    return {name: box.facts for name, box in lab.scheduler.store.boxes.items() if box.known}


def file(tmp_path, name=NAME):
    return yaml.safe_load((tmp_path / "hosts" / f"{name}.yaml").read_text())


@pytest.mark.parametrize("prefix", ["", "/scheduler"])
async def test_a_box_that_its_provider_registers_is_handed_jobs(tmp_path, prefix):
    """What a script of 2021 does before it starts a virtual machine."""
    async with open_lab(config(tmp_path)) as lab:
        job = await lab.submit("script: x\nqueue: vm-2p8g.x86_64\n")
        await done(lab, f"{prefix}/set_host_mac?hostname={NAME}&mac={MAC}")
        await done(lab, f"{prefix}/set_host2queues?host={NAME}&queues=vm-2p8g~ann,vm-2p8g.x86_64")
        answer = await lab.ask(f"/boot.ipxe/mac/{MAC}")

        assert f"/{job.id}/" in (await answer.rest()).decode()
        assert {
            "mac": ["52:54:00:00:00:01"],
            "queues": ["vm-2p8g~ann", "vm-2p8g.x86_64"],
            "arch": "x86_64",
            "from_providers": ["mac", "queues", "arch"],
        } == file(tmp_path)
        assert (tmp_path / "state" / "dhcp-hosts" / NAME).exists()


async def test_queues_may_be_said_before_the_mac(tmp_path):
    async with open_lab(config(tmp_path)) as lab:
        await done(lab, f"/set_host2queues?host={NAME}&queues=a,b.aarch64,")
        assert {} == known(lab)
        await done(lab, f"/set_host_mac?hostname={NAME}&mac={MAC}")

        assert ("a", "b.aarch64") == known(lab)[NAME].queues
        assert "aarch64" == known(lab)[NAME].arch
        await done(lab, f"/del_host2queues?host={NAME}")
        assert ("default",) == known(lab)[NAME].queues


async def test_what_a_provider_registered_a_restart_finds(tmp_path):
    async with open_lab(config(tmp_path)) as lab:
        await done(lab, f"/set_host_mac?hostname={NAME}&mac={MAC}")
        kept, facts = lab.disk.after_kill(), known(lab)
    async with open_lab(config(tmp_path), kept) as lab:
        assert facts == known(lab)
    assert list(facts.values()) == hosts_files.read_all(tmp_path / "hosts", "default")[0]


async def test_a_mac_that_is_taken_back_is_a_strangers_again(tmp_path):
    async with open_lab(config(tmp_path)) as lab:
        await done(lab, f"/set_host_mac?hostname={NAME}&mac={MAC}")
        await done(lab, f"/set_host_mac?hostname={NAME}&mac={OTHER}")
        await done(lab, f"/del_host_mac?mac={MAC}")
        assert ("52:54:00:00:00:02",) == known(lab)[NAME].macs
        await done(lab, f"/del_host_mac?mac={OTHER}")
        await done(lab, f"/del_host_mac?mac={OTHER}")  # nobody's

        assert {} == known(lab)
        assert [] == list((tmp_path / "hosts").iterdir())
        assert [] == list((tmp_path / "state" / "dhcp-hosts").iterdir())


async def test_a_slot_that_gets_another_name_takes_its_mac_along(tmp_path):
    async with open_lab(config(tmp_path)) as lab:
        await done(lab, f"/set_host_mac?hostname={NAME}&mac={MAC}")
        await done(lab, f"/set_host_mac?hostname=vm-4p&mac={MAC}")

        assert ["vm-4p"] == list(known(lab))


async def test_a_box_that_holds_a_job_is_not_taken_back(tmp_path):
    async with open_lab(config(tmp_path)) as lab:
        await done(lab, f"/set_host_mac?hostname={NAME}&mac={MAC}")
        job = await lab.submit()
        await (await lab.ask(f"/boot.ipxe/mac/{MAC}?arch=x86_64")).rest()
        await refused(lab, f"/del_host_mac?mac={MAC}", f"holds {job.id}")

        assert [NAME] == list(known(lab))
        assert ["52:54:00:00:00:01"] == file(tmp_path)["mac"]


async def test_what_the_operator_wrote_is_not_changed_over_the_wire(tmp_path):
    (tmp_path / "hosts").mkdir()
    text = "mac: 52:54:00:00:00:01\nqueues: [rack]\narch: x86_64\n"
    (tmp_path / "hosts" / f"{NAME}.yaml").write_text(text)
    async with open_lab(config(tmp_path)) as lab:
        facts = hosts_files.read(tmp_path / "hosts" / f"{NAME}.yaml", "default")
        lab.scheduler.change(lab.scheduler.known(facts))
        await done(lab, f"/set_host_mac?hostname={NAME}&mac={MAC}")  # it says the same
        await refused(lab, f"/set_host_mac?hostname={NAME}&mac={OTHER}", "appliance host add")
        await refused(lab, f"/set_host_mac?hostname=other&mac={MAC}", "appliance host remove")
        await refused(lab, f"/set_host2queues?host={NAME}&queues=x", "the operator's")
        await refused(lab, f"/del_host_mac?mac={MAC}", "appliance host remove")
        await refused(lab, f"/del_host2queues?host={NAME}", "the operator's")

        assert {NAME: facts} == known(lab)
    assert yaml.safe_load(text)["queues"] == file(tmp_path)["queues"]


async def test_a_hosts_file_without_a_mac_is_completed_unless_it_names_disks(tmp_path):
    """lkp's own hosts files say nothing of MACs; whose disks are wiped, root alone says."""
    (tmp_path / "hosts").mkdir()
    (tmp_path / "hosts" / NAME).write_text("nr_cpu: 2\nmemory: 8g\n")
    (tmp_path / "hosts" / "hw-1").write_text("memory: 64g\nrootfs_disk: [/dev/sda]\n")
    async with open_lab(config(tmp_path)) as lab:
        await done(lab, f"/set_host_mac?hostname={NAME}&mac={MAC}")
        await refused(lab, f"/set_host_mac?hostname=hw-1&mac={OTHER}", "appliance host add hw-1")

        assert [(NAME, 8)] == [(name, facts.memory_gb) for name, facts in known(lab).items()]
        await done(lab, f"/del_host_mac?mac={MAC}")
        assert "nr_cpu: 2\nmemory: 8g\n" == (tmp_path / "hosts" / NAME).read_text()


@pytest.mark.parametrize("client", ["10.0.0.5", "10.9.0.1"])
@pytest.mark.parametrize(
    "target",
    [
        f"/set_host_mac?hostname={NAME}&mac={MAC}",
        f"/del_host_mac?mac={MAC}",
        f"/set_host2queues?host={NAME}&queues=a",
        f"/del_host2queues?host={NAME}",
        f"/register-host2redis?type=vm&hostname={NAME}",
    ],
)
async def test_a_testbox_registers_nothing_unless_the_operator_named_its_address(
    tmp_path, target, client
):
    network = Network(check_neighbour=False, providers=("10.9.0.0/24",))
    chosen = config(tmp_path)
    async with open_lab(attrs.evolve(chosen, network=network)) as lab:
        answer = await put(lab, target, client)

        assert (403 if client == "10.0.0.5" else 200) == answer.status
        assert client != "10.0.0.5" or b"may not register" in answer.body
        assert client != "10.0.0.5" or {} == known(lab)


@pytest.mark.parametrize(
    "target", ["/set_host_mac?hostname=a", "/set_host_mac?mac=x&&", "/set_host2queues?host=a",
               "/del_host_mac", "/del_host2queues?"],
)  # fmt: skip
async def test_a_word_that_is_missing_is_told_as_in_2021(tmp_path, target):
    async with open_lab(config(tmp_path)) as lab:
        answer = await put(lab, target)

        assert (200, b"No yet!") == (answer.status, answer.body)


@pytest.mark.parametrize(
    ("target", "word"),
    [
        (f"/set_host_mac?hostname=../x&mac={MAC}", "no testbox name"),
        (f"/set_host_mac?hostname=/etc/x&mac={MAC}", "no testbox name"),
        (f"/set_host_mac?hostname=unknown-1&mac={MAC}", "no testbox name"),
        (f"/set_host_mac?hostname={NAME}&mac=1", "six pairs"),
        ("/set_host2queues?host=..&queues=a", "no testbox name"),
        (f"/set_host2queues?host={NAME}&queues=a%20b", "without blanks"),
        ("/del_host_mac?mac=" + "f" * 3000, "six pairs"),
        ("/register-host2redis?type=vm&hostname=a/b", "no testbox name"),
        ("/register-host2redis?type=x&hostname=a", "must be one of"),
    ],
)
async def test_what_makes_no_sense_writes_nothing(tmp_path, target, word):
    async with open_lab(config(tmp_path)) as lab:
        answer = await put(lab, target)

        assert 400 == answer.status
        assert word in answer.body.decode()
        assert len(answer.body) < 150
        assert [] == list(tmp_path.rglob("*"))


async def test_a_provider_is_there_as_long_as_it_beats(autojump_clock):
    beat = "/heart-beat?type=vm&hostname=rack-1&is_remote=false"
    async with open_lab() as lab:
        codes = [json.loads((await lab.get(beat)).body)]
        await done(lab, "/register-host2redis?type=vm&arch=x86_64&max_mem=8&hostname=rack-1&&")
        for pause in (30, 59, 59, 61):
            await trio.sleep(pause)
            codes.append(json.loads((await lab.get(beat)).body))

    assert [1001, 1000, 1000, 1000, 1001] == [code["status_code"] for code in codes]


def test_a_box_has_so_many_macs_and_no_more():
    fields = {}
    for n in range(providers.MACS_MAX):
        fields = providers.with_mac(NAME, fields, f"52:54:00:00:00:{n:02x}")

    assert providers.MACS_MAX == len(fields["mac"])
    with pytest.raises(Refused, match="16 MAC addresses already"):
        providers.with_mac(NAME, fields, "52:54:00:00:01:00")


async def test_a_name_that_leads_out_of_the_folder_reads_nothing_there(tmp_path):
    (tmp_path / "hosts").mkdir()
    (tmp_path / "x.yaml").write_text("mac: [torn")
    async with open_lab(config(tmp_path)) as lab:
        await refused(lab, f"/set_host_mac?hostname=../x&mac={MAC}", "no testbox name", 400)


@pytest.mark.parametrize(
    ("queues", "text", "gets"),
    [
        (
            "vm-1p1g.aarch64",
            "testbox: vm-1p1g\narch: aarch64",
            True,
        ),  # it is none itself, but serves them
        ("vm-1p1g.aarch64", "queue: vm-1p1g.aarch64\narch: aarch64", True),
        ("vm-1p1g.aarch64,vm-1p1g~ann", "queue: vm-1p1g~ann\narch: aarch64", True),
        ("vm-1p1g.aarch64", "testbox: vm-2p8g\narch: aarch64", True),  # its own group
        ("vm-1p1g.aarch64", "queue: vm-2p8g.aarch64\narch: aarch64", True),
        ("vm-1p1g.aarch64", "testbox: vm-1p1g\narch: x86_64", False),
        (
            "rack.aarch64",
            "queue: rack\narch: aarch64",
            False,
        ),  # of machines, the whole name is the queue's
    ],
)
async def test_a_virtual_box_serves_the_queues_of_its_provider(autojump_clock, queues, text, gets):
    async with open_lab() as lab:
        await lab.know("vm-2p8g.rack-7-1", arch="aarch64", queues=queues.split(","))
        job = await lab.submit(f"{text}\nscript: x\n")
        box = await lab.ask("/boot.ipxe/mac/52-54-00-00-00-01")
        await wait_all_tasks_blocked()

        assert gets == (lab.stage(job) == "offered")
        await box.hang_up()


async def test_what_a_person_wrote_in_a_hosts_file_outlives_what_a_provider_registers(tmp_path):
    (tmp_path / "hosts").mkdir()
    there = tmp_path / "hosts" / f"{NAME}.yaml"
    there.write_text("# ann's; do not touch\nfrom_providers: [mac, queues]\nmemory: 2G  # enough\n")
    async with open_lab(config(tmp_path)) as lab:
        await done(lab, f"/set_host_mac?hostname={NAME}&mac={MAC}")
        await done(lab, f"/set_host_mac?hostname={NAME}&mac={OTHER}")
        await done(lab, f"/del_host_mac?mac={MAC}")

    text = there.read_text()
    assert text.startswith("# ann's; do not touch\nfrom_providers: [mac, queues")
    assert "memory: 2G  # enough\n" in text
    assert ["52:54:00:00:00:02"] == yaml.safe_load(text)["mac"]
