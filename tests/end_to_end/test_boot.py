"""A real box: UEFI firmware, iPXE, a Debian kernel and rootfs; see scenes.py for what is played."""

import hashlib
import os
import re

import pytest

from . import scenes

pytestmark = [
    pytest.mark.root,
    pytest.mark.image,
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces and taps need root"),
    pytest.mark.skipif(not scenes.IMAGES.exists(), reason="no image: make image"),
]
# What the kernel says it was given.  UEFI iPXE puts the image's name in front, and iPXE makes one
# blank of several.  Debian's kernels do not understand `crashkernel=auto`.
CRASHKERNEL = r"crashkernel=4G-8G:128M,8G-16G:256M,16G-:512M"
CIFS = (
    r"vmlinuz-\S+ user=lkp job=/lkp/scheduled/job\.yaml ip=dhcp rootovl ro"
    r" root=cifs://172\.28\.0\.1/os/debian/x86_64/12-[0-9-]+,"
    r"guest,ro,hard,vers=1\.0,noacl,nouser_xattr,noserverino"
    r" console=tty0 console=ttyS0,115200"
    r" initrd=initramfs\.lkp-\S+\.img initrd=modules-\S+\.cgz initrd=job\.cgz"
    r" initrd=runner\.cgz rootfs_disk= " + CRASHKERNEL
)
NFS = (
    r"vmlinuz-\S+ user=lkp job=/lkp/scheduled/job\.yaml ip=dhcp rootovl ro"
    r" root=172\.28\.0\.1:/os/debian/x86_64/12-[0-9-]+"
    r" console=tty0 console=ttyS0,115200"
    r" initrd=initramfs\.lkp-\S+\.img initrd=modules-\S+\.cgz initrd=job\.cgz"
    r" initrd=runner\.cgz rootfs_disk= " + CRASHKERNEL
)
# arm64 has no console on its line: firmware names it (SPCR).  BIOS iPXE names no image.
INITRAMFS = (
    r"%suser=lkp job=/lkp/scheduled/job\.yaml ip=dhcp rootovl ro"
    r" rdinit=/sbin/init prompt_ramdisk=0%s"
    r" initrd=tiny\.cgz initrd=modules-\S+\.cgz initrd=run-ipconfig\.cgz initrd=job\.cgz"
    r" initrd=runner\.cgz rootfs_disk= " + CRASHKERNEL
)
CONSOLES = " console=tty0 console=ttyS0,115200"
KERNEL_LINES = {  # by scene
    "ran": CIFS,
    "nfs": NFS,
    "initramfs": INITRAMFS % (r"vmlinuz-\S+ ", CONSOLES),
    "bios": INITRAMFS % ("", CONSOLES),
    "arm64": INITRAMFS % (r"vmlinuz-\S+-arm64 ", ""),
}
BANNER = r"^iPXE \S+ -- Open Source Network Boot Firmware"


def kernel_line(seen):
    line = seen.serial[seen.index(r"Command line: |command line: ", seen.index("Linux version"))]
    return re.sub(" +", " ", re.split(r"[Cc]ommand line: ", line)[1])


@pytest.fixture
def ran(played):
    """A job runs, from power-on to results."""
    return played.ran


@pytest.fixture
def gone(played):
    """Files are gone after dispatch."""
    return played.gone


@pytest.fixture
def nfs(played):
    """A job runs, from power-on to results, and its root filesystem comes by NFS."""
    return played.nfs


@pytest.fixture
def initramfs(played):
    """A job runs in what its initrds unpacked to."""
    return played.initramfs


@pytest.fixture
def bios(played):
    """A job runs on a box with legacy BIOS, whose card's ROM is iPXE."""
    return played.bios


@pytest.fixture
def http(played):
    """A job runs on a box whose UEFI boots by HTTP."""
    return played.http


@pytest.fixture
def arm64(played):
    """A job runs on a box with UEFI for arm64."""
    return played.arm64


def test_the_firmware_loaded_ipxe_by_tftp(ran):
    firmware = ran.index("Start PXE over IPv4")
    named = ran.index("NBP filename is ipxe/bin-x86_64-efi/snp.efi", firmware)
    loaded = ran.index("NBP file downloaded successfully", named)

    assert ran.index(BANNER, loaded)
    assert any(re.search(r"sent \S+/ipxe/bin-x86_64-efi/snp.efi to", line) for line in ran.dnsmasq)


def test_ipxe_chained_to_the_server(ran):
    script = ran.index(r"tftp://172\.28\.0\.1/boot\.ipxe\.\.\. ok")

    assert ran.index(r"http://172\.28\.0\.1:3000/boot\.ipxe/mac/52-54-00-a1-00-01\.+ ok", script)


def test_it_was_parked_through_a_rechain_before_its_job_came(ran):
    first = ran.index(r":3000/boot\.ipxe/mac/\S+ ok")
    rechain = ran.index("No job now", first)
    second = ran.index(r":3000/boot\.ipxe/mac/\S+ ok", rechain)

    assert second < ran.index(r"/job_initrd_tmpfs/lab\.1/job\.cgz\.+ ok", second)


def test_its_root_is_the_cifs_share_under_an_overlay(ran):
    assert ran.index("Linux version") < ran.index(
        r"CIFS: Attempting to mount \\\\172\.28\.0\.1\\os"
    )
    mounts = dict(line.split()[1:3] for line in ran.stdout.splitlines() if " / " in line)
    assert {"/": "overlay"} == mounts
    assert re.search(r"^//172\.28\.0\.1/os\S* \S+ cifs \S*\bvers=1\.0", ran.stdout, re.MULTILINE)


@pytest.mark.parametrize("kind", KERNEL_LINES)
def test_the_kernel_has_the_line_of_each_kind(played, kind):
    assert re.fullmatch(KERNEL_LINES[kind], kernel_line(getattr(played, kind)))


def test_the_rootfs_arrives_as_it_is_on_disk(ran):
    assert "-rwsr-xr-x root /usr/bin/su" in ran.stdout
    assert "-rw-r----- root /etc/shadow" in ran.stdout


def test_the_job_ran_and_succeeded(ran):
    (row,) = ran.jobs

    told = [row[key] for key in ("id", "health", "box", "attempt")]
    assert ["lab.1", "success", "box", 1] == told
    assert "lab.1 runs on box" in ran.stdout.splitlines()
    assert ran.index("lab.1 runs on box")


def test_the_results_are_what_the_box_uploaded(ran):
    """The sum is the one that the box wrote on its serial line before it uploaded anything."""
    on_serial = re.search(r"sum ([0-9a-f]{64})", ran.serial[ran.index(r"\bsum [0-9a-f]{64}")])[1]

    fetched = (ran.results / "random").read_bytes()
    assert 3_000_000 == len(fetched)
    assert on_serial == hashlib.sha256(fetched).hexdigest()
    assert f"sum {on_serial}" in ran.stdout
    kept = {p.name: p.read_bytes() for p in ran.uploaded.iterdir() if p.is_file()}
    assert kept == {p.name: p.read_bytes() for p in ran.results.iterdir() if p.is_file()}


def test_the_box_comes_back_to_the_lobby_by_itself(ran):
    ran_at = ran.index("lab.1 runs on box")
    firmware = ran.index("Start PXE over IPv4", ran_at)

    assert ran.index("No job now", firmware)
    assert ("parked", None) == (ran.host["state"], ran.host["job"])


def test_a_missing_initrd_ends_the_job_and_not_the_box(gone):
    job = gone.jobs[0]

    assert ("lab.1", "incomplete") == (job["id"], job["health"])
    assert re.search(r"modules-\S+\.cgz is gone", job["reason"])
    failed = gone.index(r"modules-\S+\.cgz\.+ .*No such file|modules-\S+\.cgz\.+ .*Not found")
    assert gone.index("asking again", failed)
    assert not any("/job_initrd_tmpfs/lab.1/job.cgz" in line for line in gone.serial)


def test_a_missing_kernel_is_found_after_the_jobs_own_files_were_loaded(gone):
    job = gone.jobs[1]
    assert ("lab.2", "incomplete") == (job["id"], job["health"])
    loaded = gone.index(r"/job_initrd_tmpfs/lab\.2/job\.cgz\.+ ok")

    assert gone.index("asking again", loaded)


def test_the_next_job_boots_with_nothing_of_the_earlier_ones(gone):
    job = gone.jobs[2]

    # With an earlier job.cgz still loaded, the first boot runs that one, and this is a second.
    assert ("lab.3", "success", 1) == (job["id"], job["health"], job["attempt"])
    assert "id: lab.3" in gone.stdout.splitlines()
    assert "clean" in gone.stdout.splitlines()
    assert "leaked" not in gone.stdout


def test_the_firmware_was_asked_once_only_until_a_job_booted(gone):
    """The box came back through iPXE's loop, without a reset and without its local disk."""
    booted = gone.index("Linux version")

    assert 1 == sum("Start PXE over IPv4" in line for line in gone.serial[:booted])


def test_an_nfs_root_is_mounted_under_an_overlay(nfs):
    mounted = nfs.index(r"appliance: root: 172\.28\.0\.1:/os/debian/x86_64/12-\S+ \(nfs,\)")

    assert nfs.index("Linux version") < mounted < nfs.index("appliance: /lkp is in the root")
    assert not any("CIFS:" in line for line in nfs.serial)
    mounts = {line.split()[1]: line.split() for line in nfs.stdout.splitlines() if " /" in line}
    assert "overlay" == mounts["/"][2]
    (source, _, kind, options, *_) = mounts["/run/rootfs/image"]
    assert re.match(r"172\.28\.0\.1:/os/debian/x86_64/12-", source)
    assert "nfs4" == kind
    assert {"ro", "vers=4.2"} <= set(options.split(","))


def test_a_job_runs_on_an_nfs_root_and_its_results_arrive(nfs):
    (row,) = nfs.jobs

    assert ("lab.1", "success", 1) == (row["id"], row["health"], row["attempt"])
    assert nfs.index("lab.1 runs on box")
    on_serial = re.search(r"sum ([0-9a-f]{64})", nfs.serial[nfs.index(r"\bsum [0-9a-f]{64}")])[1]
    assert on_serial == hashlib.sha256((nfs.uploaded / "random").read_bytes()).hexdigest()


def test_a_box_with_two_cards_keeps_to_the_one_that_ipxe_booted_from(nfs):
    """The other is the first on the bus, and DHCP answers it too: in the job it comes up."""
    answers = re.findall(r"DHCPACK\S* (\S+) 52:54:00:a1:00:01", "\n".join(nfs.dnsmasq))
    (asked_from,) = set(answers)
    network = nfs.serial[nfs.index(r"appliance: network: ")]

    assert f"enp0s2 has {asked_from}/" in network
    assert re.search(r"^spare \d+: enp0s1 +inet 172\.28\.0\.\d+/24", nfs.stdout, re.MULTILINE)


def test_an_nfs_root_arrives_as_it_is_on_disk(nfs):
    assert "-rwsr-xr-x root /usr/bin/su" in nfs.stdout
    assert "-rw-r----- root /etc/shadow" in nfs.stdout


def test_the_nfs_server_lets_nobody_write(nfs):
    assert "refused" in nfs.stdout.splitlines()
    assert "written" not in nfs.stdout.splitlines()


def test_an_initramfs_is_the_root_and_nothing_is_mounted_over_it(initramfs):
    said = initramfs.serial[initramfs.index("tiny init: ")]

    assert "rdinit=/sbin/init prompt_ramdisk=0" in said
    assert not re.search(r"\broot=", said)
    mounts = {line.split()[1]: line.split()[2] for line in initramfs.stdout.splitlines()
              if " /" in line}  # fmt: skip
    assert mounts["/"] in ("rootfs", "tmpfs", "ramfs")
    assert not {"overlay", "cifs", "nfs4"} & set(mounts.values())
    assert not any("appliance: root:" in line for line in initramfs.serial)


def test_a_job_runs_in_an_initramfs_and_its_results_arrive(initramfs):
    (row,) = initramfs.jobs

    assert ("lab.1", "success", 1) == (row["id"], row["health"], row["attempt"])
    line = initramfs.serial[initramfs.index(r"\bsum [0-9a-f]{64}", initramfs.index("lab.1 runs"))]
    data = (initramfs.uploaded / "random").read_bytes()
    assert re.search(r"sum ([0-9a-f]{64})", line)[1] == hashlib.sha256(data).hexdigest()


def test_firmware_that_boots_by_http_loads_ipxe_from_our_door_and_runs_a_job(http):
    firmware = http.index(r"Start HTTP Boot over IPv4")
    url = r"http://172\.28\.0\.1:8800/ipxe/bin-x86_64-efi/snp\.efi"
    loaded = http.index(BANNER, http.index(url, firmware))
    rechain = http.index("No job now", loaded)
    (row,) = http.jobs

    assert not any("Start PXE" in line for line in http.serial)
    assert not any("/snp.efi to" in line for line in http.dnsmasq)
    assert http.index("tiny init: ", rechain)
    assert ("lab.1", "success", 1) == (row["id"], row["health"], row["attempt"])


def test_an_arm64_box_is_parked_through_a_rechain_and_runs_its_job(arm64):
    loaded = arm64.index(BANNER)
    parked = arm64.index(r":3000/boot\.ipxe/mac/\S+ ok", loaded)
    rechain = arm64.index("No job now", parked)
    arm64.index("tiny init: ", rechain)
    (row,) = arm64.jobs

    assert any("sent " in line and "/ipxe/bin-arm64-efi/snp.efi" in line for line in arm64.dnsmasq)
    assert ("lab.1", "success", 1) == (row["id"], row["health"], row["attempt"])
    assert "lab.1 runs on box, aarch64" in arm64.stdout.splitlines()
    data = (arm64.uploaded / "random").read_bytes()
    assert f"sum {hashlib.sha256(data).hexdigest()}  -" in arm64.stdout.splitlines()


def test_a_bios_box_is_parked_through_a_rechain_and_runs_its_job(bios):
    rom = bios.index(r"^SeaBIOS|SeaBIOS \(version")
    parked = bios.index(r":3000/boot\.ipxe/mac/\S+ ok", rom)
    rechain = bios.index("No job now", parked)
    said = bios.serial[bios.index("tiny init: ", rechain)]
    (row,) = bios.jobs

    assert not any("UEFI" in line or "Start PXE" in line for line in bios.serial)
    assert "rdinit=/sbin/init prompt_ramdisk=0" in said
    assert "console=tty0 console=ttyS0,115200" in said
    assert ("lab.1", "success", 1) == (row["id"], row["health"], row["attempt"])
    assert "lab.1 runs on box, x86_64" in bios.stdout.splitlines()
