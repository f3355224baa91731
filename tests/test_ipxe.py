"""Boot scripts.  The seed's own example is the golden one, byte for byte."""

from __future__ import annotations

import re
import textwrap

import attrs
import pytest

from appliance.boot import ipxe, plan
from appliance.config import Config, Defaults, Ports
from appliance.errors import BadRequest, Refused
from appliance.jobs import box, document
from appliance.jobs.changes import Job, Pinned

# The example of the users' own description of the path, quoted whole.
SEED = textwrap.dedent("""\
    #!ipxe

    initrd http://172.168.131.113:8000/os/openeuler/aarch64/20.03-2021-05-18-15-08-52/boot/initramfs.lkp-4.19.90-2003.4.0.0036.oe1.aarch64.img
    initrd http://172.168.131.113:8000/os/openeuler/aarch64/20.03-2021-05-18-15-08-52/boot/modules-4.19.90-2003.4.0.0036.oe1.aarch64.cgz
    initrd http://172.168.131.113:3000/job_initrd_tmpfs/crystal.3584856/job.cgz
    initrd http://172.168.131.113:8800/upload-files/lkp-tests/aarch64/v2021.09.23.cgz
    initrd http://172.168.131.113:8800/upload-files/lkp-tests/9f/9f87e65401d649095bacdff019d378e6.cgz
    kernel http://172.168.131.113:8000/os/openeuler/aarch64/20.03-2021-05-18-15-08-52/boot/vmlinuz-4.19.90-2003.4.0.0036.oe1.aarch64 user=lkp job=/lkp/scheduled/job.yaml ip=dhcp rootovl ro root=cifs://172.168.131.113/os/openeuler/aarch64/20.03-2021-05-18-15-08-52,guest,ro,hard,vers=1.0,noacl,nouser_xattr,noserverino  initrd=initramfs.lkp-4.19.90-2003.4.0.0036.oe1.aarch64.img  initrd=modules-4.19.90-2003.4.0.0036.oe1.aarch64.cgz  initrd=job.cgz  initrd=v2021.09.23.cgz  initrd=9f87e65401d649095bacdff019d378e6.cgz rootfs_disk=/dev/vdb crashkernel=auto
    boot
    """)  # noqa: E501 - the wire's own lines

OPENEULER = "/os/openeuler/aarch64/20.03-2021-05-18-15-08-52"
KERNEL = "4.19.90-2003.4.0.0036.oe1.aarch64"
DEBIAN = ipxe.Boot(
    "http://10.0.0.1:8000/os/debian/x86_64/12-x/boot/vmlinuz-6.1",
    ("http://10.0.0.1:8000/i.img", "http://10.0.0.1:8000/m.cgz"),
    "cifs",
    "x86_64",
    "10.0.0.1",
    "/os/debian/x86_64/12-x",
)


def test_the_seeds_example_comes_out_byte_for_byte():
    fits = document.parse(
        """
        suite: iperf
        os: openeuler
        os_version: "20.03"
        arch: aarch64
        os_mount: cifs
        testbox: taishan200-2280-2s64p-256g--a1
        job2sh: {run_job: ["run_job() { :; }"]}
        pkg_data: {lkp-tests: {tag: v2021.09.23, md5: 9f87e65401d649095bacdff019d378e6}}
        """,
        "iperf.yaml",
        Defaults(),
    )
    pinned = Pinned(
        f"{OPENEULER}/boot/vmlinuz-{KERNEL}",
        (f"{OPENEULER}/boot/initramfs.lkp-{KERNEL}.img", f"{OPENEULER}/boot/modules-{KERNEL}.cgz"),
        OPENEULER,
        KERNEL,
        (
            "/upload-files/lkp-tests/aarch64/v2021.09.23.cgz",
            "/upload-files/lkp-tests/9f/9f87e65401d649095bacdff019d378e6.cgz",
        ),
    )
    job = Job("crystal.3584856", 3584856, "iperf.yaml", fits, "ann", "", 0.0, pinned, "/result/x")
    facts = box.facts(
        "taishan200-2280-2s64p-256g--a1",
        {"mac": "00:00:00:00:00:01", "rootfs_disk": ["/dev/vdb"]},
        "default",
    )

    assert SEED == ipxe.script(plan.boot_of(Config(), job, facts, "172.168.131.113"))


def test_a_job_without_lkp_tests_has_the_runner_behind_its_job_cgz():
    fits = document.parse("script: echo hi", "x.yaml", Defaults())
    pinned = Pinned("/os/d/boot/vmlinuz", ("/os/d/i.img", "/os/d/m.cgz"), "/os/d", "6.1")
    job = Job("lab.1", 1, "x.yaml", fits, "ann", "", 0.0, pinned, "/result/x")
    script = ipxe.script(plan.boot_of(Config(ports=Ports(scheduler=3001)), job, None, "h"))

    names = [line.rsplit("/", 1)[1] for line in script.splitlines() if line.startswith("initrd")]
    assert ["i.img", "m.cgz", "job.cgz", "runner.cgz"] == names
    assert "initrd http://h:3001/runner.cgz\n" in script


@pytest.mark.parametrize(
    ("os_mount", "words"),
    [
        ("cifs", "rootovl ro root=cifs://10.0.0.1/os/debian/x86_64/12-x,guest,ro,hard,vers=1.0,"
                 "noacl,nouser_xattr,noserverino console=tty0 console=ttyS0,115200  initrd=i.img"),
        ("nfs", "rootovl ro root=10.0.0.1:/os/debian/x86_64/12-x console=tty0"),
        ("initramfs", "rootovl ro rdinit=/sbin/init prompt_ramdisk=0 console=tty0"),
    ],
)  # fmt: skip
def test_each_os_mount_has_its_own_root(os_mount, words):
    assert words in ipxe.kernel_arguments(attrs.evolve(DEBIAN, os_mount=os_mount))


def test_arm64_has_no_console_unless_its_host_says_so():
    arm = attrs.evolve(DEBIAN, arch="aarch64")
    spoken = attrs.evolve(arm, host=ipxe.HostWords(console=("ttyAMA0",)))
    silent = attrs.evolve(DEBIAN, host=ipxe.HostWords(console=()))

    assert "console=" not in ipxe.kernel_arguments(arm)
    assert "console=ttyAMA0 " in ipxe.kernel_arguments(spoken)
    assert "console=" not in ipxe.kernel_arguments(silent)


def test_what_the_host_adds_stands_in_its_places():
    host = ipxe.HostWords(("/dev/sda", "/dev/sdb"), "512M", kernel_params="BOOTIF=x a=b", nr_nic=2)
    script = ipxe.script(attrs.evolve(DEBIAN, host=host, custom_params="quiet"))

    assert script.startswith("#!ipxe\n\n# nr_nic=2\ninitrd ")
    assert " ro quiet BOOTIF=x a=b root=cifs:" in script
    assert script.endswith(" rootfs_disk=/dev/sda,/dev/sdb crashkernel=512M\nboot\n")


def test_a_kernel_line_of_2047_bytes_fits_and_one_more_does_not():
    length = ipxe.kernel_line_length(DEBIAN.kernel, ipxe.kernel_arguments(DEBIAN))
    room = 2047 - length - 1  # the blank before the parameter
    fits = attrs.evolve(DEBIAN, custom_params="a" * room)
    line = re.search(r"kernel \S+/(\S+ .*)\n", ipxe.script(fits))[1]

    assert 2047 == len(f"{line}")
    with pytest.raises(Refused, match="2048 bytes with its image's name, 1 more"):
        ipxe.script(attrs.evolve(DEBIAN, custom_params="a" * (room + 1)))


@pytest.mark.parametrize("word", ["a\nchain http://evil", "a\x00", "${net0/mac}", "ü"])
def test_no_word_breaks_out_of_its_line(word):
    with pytest.raises(BadRequest, match="cannot stand in a boot script"):
        ipxe.script(attrs.evolve(DEBIAN, host=ipxe.HostWords(crashkernel=word)))


def test_two_initrds_of_one_name_are_refused():
    twice = attrs.evolve(DEBIAN, initrds=("http://a/1/m.cgz", "http://a/2/m.cgz"))

    with pytest.raises(Refused, match=r"two initrds are called m\.cgz"):
        ipxe.script(twice)


@pytest.mark.parametrize(
    ("lease", "waits"),
    [
        ("604800", 1800),
        ("3600", 1800),
        ("3599", 1799.5),
        ("120", 60),
        ("60", 30),
        ("59", 30),  # it would only ever ask
        ("1", 30),
        ("4294967294", 1800),
        ("4294967295", None),  # for ever
        ("0", None),
        ("", None),
        ("-1", None),
        ("1e9", None),
        ("99999999999999999999", None),
    ],
)
def test_a_box_waits_half_an_hour_or_half_its_lease(lease, waits):
    said = ipxe.lease_of({"lease": lease})

    assert (said is None) == (waits is None)
    assert (waits or 1800) == ipxe.patience(1800, said)


def test_nobody_waits_longer_than_the_lab_lets_them():
    assert 3 == ipxe.patience(3, 120)
    assert 1800 == ipxe.patience(1800, ipxe.lease_of({}))


@pytest.mark.parametrize("query", ["x" * 513, "a b", "a\nb", "${x}", '"'])
def test_a_query_that_is_not_plain_is_not_repeated(query):
    assert ipxe.rechain("10.0.0.1:3000", query).endswith("/boot.ipxe/mac/${mac:hexhyp}\n")
