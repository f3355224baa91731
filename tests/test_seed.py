"""The users' own example, as a document handed to a lab whose files are laid out as theirs.

From the document to the script nothing is put together by the test: the image tree is read, the
hosts file is read, the store matches, and the box asks through the real door.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from urllib.parse import urlsplit

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from appliance.boot.images.pinning import ImageFolder
from appliance.scheduler import hosts_files
from tests import fakes
from tests import lab as labs
from tests.lab import KEY, open_lab
from tests.test_ipxe import KERNEL, LOCAL, SEED

SERVER = ("172.168.131.113", 3000)
BOX = ("172.168.131.200", 4000)
MAC = "00:0c:29:00:00:01"
NAME = "taishan200-2280-2s64p-256g--a108"
MD5 = "9f87e65401d649095bacdff019d378e6"
DOCUMENT = f"""\
suite: iperf
category: benchmark
testbox: taishan200-2280-2s64p-256g
os: openeuler
os_version: 20.03
os_arch: aarch64
os_mount: cifs
job2sh:
  run_job: ["run_job()", "{{", "\\ttrue", "}}"]
pkg_data:
  lkp-tests: {{tag: v2021.09.23, md5: {MD5}}}
"""


def put(path: Path, data: bytes = b"x") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


@pytest.fixture
def lab_of_2021(tmp_path, monkeypatch):
    """Their /srv, as far as the example names it, and their hosts file; threads are left out."""

    async def at_once(function, *args, **_):
        await trio.lowlevel.checkpoint()
        return function(*args)

    monkeypatch.setattr(trio.to_thread, "run_sync", at_once)
    folder = tmp_path / "srv/os/openeuler/aarch64"
    for snapshot in ("20.03-2021-05-18-15-08-52", "20.03-iso-2021-08-24-18-01-07"):
        for name in (f"vmlinuz-{KERNEL}", f"modules-{KERNEL}.cgz", f"initramfs.lkp-{KERNEL}.img"):
            put(folder / snapshot / "boot" / name)
        (folder / snapshot / "boot/vmlinuz").symlink_to(f"vmlinuz-{KERNEL}")
        (folder / snapshot / "initrd.lkp").symlink_to(f"./boot/initramfs.lkp-{KERNEL}.img")
    (folder / "20.03").symlink_to("20.03-2021")  # a chain, as people make them
    (folder / "20.03-2021").symlink_to("20.03-2021-05-18-15-08-52")
    (folder / "20.03-iso").symlink_to("20.03-iso-2021-08-24-18-01-07")
    put(tmp_path / "srv/upload-files/lkp-tests/aarch64/v2021.09.23.cgz")
    put(tmp_path / f"srv/upload-files/lkp-tests/{MD5[:2]}/{MD5}.cgz")
    put(
        tmp_path / f"hosts/{NAME}",
        b"model: TaiShan 200\nnr_node: 4\nnr_cpu: 128\nmemory:\nnr_hdd_partitions: 4\n"
        b"rootfs_disk:\n- /dev/vdb\narch: aarch64\nmac: " + MAC.encode() + b"\n",
    )
    return attrs.evolve(labs.config(tmp_path), lab="crystal")


# A virtual box's, from the field's own guide to iPXE; it breaks its kernel line for its readers.
INITRAMFS = """\
#!ipxe

initrd http://172.168.131.2:8800/initrd/osimage/openeuler/aarch64/20.03/20210609.0.cgz
initrd http://172.168.131.2:8000/os/openeuler/aarch64/20.03-2021-05-18-15-08-52/boot/modules-4.19.90-2003.4.0.0036.oe1.aarch64.cgz
initrd http://172.168.131.2:8800/initrd/deps/initramfs/debian/aarch64/sid/run-ipconfig_20200904.cgz
initrd http://172.168.131.2:8800/initrd/deps/initramfs/openeuler/aarch64/20.03/lkp/lkp_20211026.cgz
initrd http://172.168.131.2:8800/initrd/deps/initramfs/openeuler/aarch64/20.03/md/md_20201104.cgz
initrd http://172.168.131.2:8800/initrd/deps/initramfs/openeuler/aarch64/20.03/fs/fs_20210412.cgz
initrd http://172.168.131.2:8800/initrd/deps/initramfs/openeuler/aarch64/20.03/openeuler_docker/openeuler_docker_20211115.cgz
initrd http://172.168.131.2:8800/initrd/pkg/initramfs/openeuler/aarch64/20.03/openeuler_docker/1.0-1.cgz
initrd http://172.168.131.2:3000/job_initrd_tmpfs/z9.13138976/job.cgz
initrd http://172.168.131.2:8800/upload-files/lkp-tests/aarch64/v2021.09.23.cgz
initrd http://172.168.131.2:8800/upload-files/lkp-tests/9f/9f87e65401d649095bacdff019d378e6.cgz
kernel http://172.168.131.2:8000/os/openeuler/aarch64/20.03-2021-05-18-15-08-52/boot/vmlinuz-4.19.90-2003.4.0.0036.oe1.aarch64 user=lkp job=/lkp/scheduled/job.yaml ip=dhcp rootovl ro rdinit=/sbin/init prompt_ramdisk=0  initrd=20210609.0.cgz  initrd=modules-4.19.90-2003.4.0.0036.oe1.aarch64.cgz  initrd=run-ipconfig_20200904.cgz  initrd=lkp_20211026.cgz  initrd=md_20201104.cgz  initrd=fs_20210412.cgz  initrd=openeuler_docker_20211115.cgz  initrd=1.0-1.cgz  initrd=job.cgz  initrd=v2021.09.23.cgz  initrd=9f87e65401d649095bacdff019d378e6.cgz rootfs_disk=/dev/vdb crashkernel=256M
boot
"""  # noqa: E501 - the wire's own lines
# Links, and what they stand for, below /srv/initrd.
LINKS = {
    "osimage/openeuler/aarch64/20.03/current": "osimage/openeuler/aarch64/20.03/20210609.0.cgz",
    "osimage/openeuler/aarch64/20.03/run-ipconfig.cgz":
        "deps/initramfs/debian/aarch64/sid/run-ipconfig_20200904.cgz",
    **{
        f"deps/initramfs/openeuler/aarch64/20.03/{program}/{program}.cgz":
        f"deps/initramfs/openeuler/aarch64/20.03/{program}/{program}_{day}.cgz"
        for program, day in (
            ("lkp", 20211026), ("md", 20201104), ("fs", 20210412), ("openeuler_docker", 20211115)
        )
    },
    "pkg/initramfs/openeuler/aarch64/20.03/openeuler_docker/latest.cgz":
        "pkg/initramfs/openeuler/aarch64/20.03/openeuler_docker/1.0-1.cgz",
}  # fmt: skip


async def submit(lab, text, number):
    """By the local socket's verb; the lab has had `number` - 1 jobs before."""
    lab.scheduler.images = ImageFolder(lab.config.paths.srv)
    lab.scheduler.store.counter = number - 1
    documents = [{"name": "iperf.yaml", "text": text}]
    told = await lab.people.do("submit", {"documents": documents, "key": KEY}, "ann", None)
    return told["jobs"][0]["id"]


async def boot(lab, server=SERVER):
    """What the box is told, once its hosts file has been read as at a start."""
    facts, _ = hosts_files.read_all(lab.config.paths.hosts, "default")
    await lab.scheduler.durable(
        lab.scheduler.change([change for one in facts for change in lab.scheduler.known(one)])
    )
    target = f"/boot.ipxe/mac/{MAC.replace(':', '-')}"
    answer = await fakes.begin(lab.wire, "GET", target, client=BOX, server=server)
    return (await answer.rest()).decode()


async def test_the_example_comes_out_byte_for_byte(autojump_clock, lab_of_2021):
    async with open_lab(lab_of_2021) as lab:
        assert "crystal.3584856" == await submit(lab, DOCUMENT, 3584856)
        assert SEED == await boot(lab)


async def test_a_box_that_was_parked_first_gets_the_same_behind_its_comment_lines(
    autojump_clock, lab_of_2021
):
    async with open_lab(lab_of_2021) as lab:
        told = []

        async def ask():
            told.append(await boot(lab))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.sleep(100)
            await submit(lab, DOCUMENT, 3584856)

        head, *rest = SEED.split("\n", 1)
        assert f"{head}\n" + "# no job yet\n" * 3 + rest[0] == told[0]


async def test_so_does_that_of_an_initramfs_with_all_that_its_programs_need(
    autojump_clock, lab_of_2021, tmp_path
):
    for link, target in LINKS.items():
        put(tmp_path / "srv/initrd" / target)
        (tmp_path / "srv/initrd" / link).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "srv/initrd" / link).symlink_to(tmp_path / "srv/initrd" / target)
    put(tmp_path / "hosts/vm-2p16g", b"nr_cpu: 2\nmemory: 16g\nrootfs_disk:\n- /dev/vdb\n")
    (tmp_path / f"hosts/{NAME}").rename(tmp_path / "hosts/vm-2p16g.z9-1")
    about = f"mac: {MAC}\narch: aarch64\n".encode()
    put(tmp_path / "hosts/vm-2p16g.z9-1", about)
    text = DOCUMENT.replace("cifs", "initramfs").replace("taishan200-2280-2s64p-256g", "vm-2p16g")
    async with open_lab(attrs.evolve(lab_of_2021, lab="z9")) as lab:
        programs = "pp: {md: {}, fs: {fs: ext4}, openeuler_docker-1: {}}\n"
        assert "z9.13138976" == await submit(lab, text + programs, 13138976)

        assert INITRAMFS == await boot(lab, ("172.168.131.2", 3000))


async def test_so_does_the_one_of_a_local_root_and_its_boot_has_an_hour(
    autojump_clock, lab_of_2021
):
    async with open_lab(lab_of_2021) as lab:
        local = DOCUMENT.replace("cifs", "local")
        job = await submit(lab, local, 3584978)
        told = await boot(lab)
        began = lab.scheduler.clock.now()
        get = f"/job_initrd_tmpfs/{job}/job.cgz"
        await fakes.fetch(lab.wire, "GET", get, client=BOX, server=SERVER)
        await wait_all_tasks_blocked()  # the box has its last byte before the server notes it
        for line in told.splitlines():
            if line.startswith(("initrd ", "kernel ")) and "job.cgz" not in line.split()[1]:
                url = urlsplit(line.split()[1])
                lab.fetches.fetches.at(url.port).done(BOX[0], url.path, 1000, 1.0)
        await wait_all_tasks_blocked()  # the door notes that job.cgz is whole after its last byte

        assert LOCAL == told
        assert lab.scheduler.store.job(job).state.loaded
        assert 3600 == lab.scheduler.store.job(job).state.until - began


@pytest.mark.parametrize(
    "gone",
    [
        f"os/openeuler/aarch64/20.03-2021-05-18-15-08-52/boot/modules-{KERNEL}.cgz",
        f"upload-files/lkp-tests/{MD5[:2]}/{MD5}.cgz",
    ],
)
async def test_a_snapshot_that_went_between_submit_and_boot_ends_the_job_with_its_name(
    autojump_clock, lab_of_2021, gone
):
    async with open_lab(lab_of_2021) as lab:
        job = await submit(lab, DOCUMENT, 3584856)
        (lab.config.paths.srv / gone).unlink()
        told = await boot(lab)
        state = lab.scheduler.store.job(job).state

        assert "No job now" in told
        assert "incomplete" == state.health
        assert f"its image is gone: /{gone}" == state.reason


async def test_a_newer_snapshot_is_not_for_a_job_that_was_submitted_before(
    autojump_clock, lab_of_2021
):
    async with open_lab(lab_of_2021) as lab:
        await submit(lab, DOCUMENT, 3584856)
        version = lab.config.paths.srv / "os/openeuler/aarch64/20.03"
        version.unlink()
        version.symlink_to("20.03-iso-2021-08-24-18-01-07")

        assert SEED == await boot(lab)


async def test_a_document_chooses_among_its_boxs_disks_and_names_no_others(
    autojump_clock, lab_of_2021
):
    async with open_lab(lab_of_2021) as lab:
        own = "rootfs_disk: [/dev/sda, /dev/vdb]\nrootfs_partition: LABEL=HOME\n"
        job = await submit(lab, DOCUMENT + own, 3584856)
        told = await boot(lab)
        get = f"/job_initrd_tmpfs/{job}/job.cgz"
        packed = gzip.decompress(
            (await fakes.fetch(lab.wire, "GET", get, client=BOX, server=SERVER)).body
        )

        assert SEED == told
        assert b"\texport rootfs_disk='/dev/vdb'\n" in packed
        assert b"/dev/sda" not in packed
        assert b"LABEL=HOME" not in packed
        assert b"\texport lab='crystal'\n" in packed
