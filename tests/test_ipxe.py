"""Boot scripts.  Compass-CI's published example is the golden one, byte for byte."""

from __future__ import annotations

import itertools
import json
import re
import textwrap

import attrs
import pytest

from appliance.boot.script import boot_plan, ipxe
from appliance.config import Config, Defaults, Ports
from appliance.errors import BadRequest, Refused
from appliance.jobs import box
from appliance.jobs.changes import Job, Pinned
from appliance.jobs.documents import document

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

    assert SEED == ipxe.script(boot_plan.boot_of(Config(), job, facts, "172.168.131.113"))


def test_a_job_without_lkp_tests_has_the_runner_behind_its_job_cgz():
    fits = document.parse("script: echo hi", "x.yaml", Defaults())
    pinned = Pinned("/os/d/boot/vmlinuz", ("/os/d/i.img", "/os/d/m.cgz"), "/os/d", "6.1")
    job = Job("lab.1", 1, "x.yaml", fits, "ann", "", 0.0, pinned, "/result/x")
    script = ipxe.script(boot_plan.boot_of(Config(ports=Ports(scheduler=3001)), job, None, "h"))

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
    host = ipxe.HostWords(
        ("/dev/sda", "/dev/sdb"), "512M", kernel_params="BOOTIF=x a=b", comments=("nr_nic=2",)
    )
    script = ipxe.script(attrs.evolve(DEBIAN, host=host, custom_params="quiet"))

    assert script.startswith("#!ipxe\n\n# nr_nic=2\ninitrd ")
    assert " ro quiet BOOTIF=x a=b root=cifs:" in script
    assert script.endswith(" rootfs_disk=/dev/sda,/dev/sdb crashkernel=512M\nboot\n")


# As the field's own description of a local root has it; the rest is SEED's.
LOCAL = (
    SEED.replace("20.03-2021-05-18-15-08-52", "20.03-iso-2021-08-24-18-01-07")
    .replace("3584856", "3584978")
    .replace(
        " rootovl ro root=cifs://172.168.131.113/os/openeuler/aarch64/20.03-iso-2021-08-24-18-01-07"
        ",guest,ro,hard,vers=1.0,noacl,nouser_xattr,noserverino ",
        " local use_root_partition= save_root_partition= os_version=20.03-iso os_lv_size=10G"
        " os_partition= rw root=172.168.131.113:/os/openeuler/aarch64/"
        "20.03-iso-2021-08-24-18-01-07 ",
    )
)  # fmt: skip


def boot_of(text, pinned, facts=None, number=3584978):
    fits = document.parse(text + 'job2sh: {run_job: ["run_job() { :; }"]}\n', "x.yaml", Defaults())
    job = Job(f"crystal.{number}", number, "x.yaml", fits, "ann", "", 0.0, pinned, "/result/x")
    return boot_plan.boot_of(Config(), job, facts, "172.168.131.113")


def test_a_local_root_is_asked_for_with_the_words_of_2021():
    root = OPENEULER.replace("20.03-2021-05-18-15-08-52", "20.03-iso-2021-08-24-18-01-07")
    pinned = Pinned(
        f"{root}/boot/vmlinuz-{KERNEL}",
        (f"{root}/boot/initramfs.lkp-{KERNEL}.img", f"{root}/boot/modules-{KERNEL}.cgz"),
        root,
        KERNEL,
        (
            "/upload-files/lkp-tests/aarch64/v2021.09.23.cgz",
            "/upload-files/lkp-tests/9f/9f87e65401d649095bacdff019d378e6.cgz",
        ),
    )
    text = (
        "os: openeuler\nos_version: 20.03\narch: aarch64\nos_mount: local\n"
        "pkg_data: {lkp-tests: {tag: v2021.09.23, md5: 9f87e65401d649095bacdff019d378e6}}\n"
    )
    facts = box.facts("b", {"mac": "00:00:00:00:00:01", "rootfs_disk": ["/dev/vdb"]}, "q")

    assert LOCAL == ipxe.script(boot_of(text, pinned, facts))


def test_an_initramfs_has_its_programs_between_itself_and_the_job():
    pinned = Pinned(
        "/os/d/boot/vmlinuz-6.1",
        ("/initrd/osimage/d/current_1.cgz", "/os/d/modules-6.1.cgz", "/initrd/run-ipconfig.cgz"),
        "/os/d",
        "6.1",
        deps=("/initrd/deps/lkp_1.cgz",),
        pkgs=("/initrd/pkg/iperf_2.cgz",),
    )
    order = "current_1.cgz modules-6.1.cgz run-ipconfig.cgz lkp_1.cgz iperf_2.cgz job.cgz"
    script = ipxe.script(boot_of("os_mount: initramfs\n", pinned))
    over_nfs = ipxe.script(boot_of("os_mount: nfs\n", pinned))

    names = [line.rsplit("/", 1)[1] for line in script.splitlines() if line.startswith("initrd")]
    assert [*order.split(), "runner.cgz"] == names
    assert "initrd http://172.168.131.113:8800/initrd/deps/lkp_1.cgz\n" in script
    assert "iperf" not in over_nfs


def test_a_document_wins_over_its_hosts_file_in_what_is_said_to_who_makes_the_box():
    pinned = Pinned("/k", ("/i", "/m"), "/r", "6")
    about = {"mac": "00:00:00:00:00:01", "nr_nic": 2, "nr_disk": 1, "disk_size": "10G"}
    facts = box.facts("b", about, "q")
    said = ipxe.script(boot_of("disk_size: 20G\n", pinned, facts)).splitlines()[2:5]

    assert ["# nr_nic=2", "# nr_disk=1", "# disk_size=20G"] == said


@pytest.mark.parametrize(
    ("system", "memory", "word"),
    [
        ("openeuler", None, "auto"),
        ("centos", "8G", "auto"),
        ("openeuler", "16G", "256M"),
        ("debian", None, "4G-8G:128M,8G-16G:256M,16G-:512M"),
        ("debian", "8G", "128M"),
        ("debian", "9G", "256M"),
        ("ubuntu", "17G", "512M"),
    ],
)
def test_memory_for_a_crash_kernel_is_a_word_that_the_os_understands(system, memory, word):
    facts = box.facts("b", {"mac": "00:00:00:00:00:01", "memory": memory}, "q")
    pinned = Pinned("/k", ("/i", "/m"), "/r", "6")
    for known in (facts, None) if memory is None else (facts,):
        script = ipxe.script(boot_of(f"os: {system}\n", pinned, known))
        assert script.endswith(f" crashkernel={word}\nboot\n")


def test_a_crash_kernel_of_ones_own_stands_alone():
    arguments = ipxe.kernel_arguments(attrs.evolve(DEBIAN, custom_params="crashkernel=1G quiet"))

    assert ["crashkernel=1G"] == [word for word in arguments.split() if word.startswith("crash")]


def test_a_container_gets_a_map_instead():
    pinned = Pinned("", (), "", "", deps=("/initrd/deps/x.cgz",))
    fits = document.parse("testbox: dc-8g\nscript: x", "x.yaml", Defaults())
    job = Job("lab.7", 7, "x.yaml", fits, "ann", "", 0.0, pinned, "/result/x")
    told = json.loads(boot_plan.container(Config(), job, "10.0.0.1"))

    assert {"job_id": "lab.7", "docker_image": "centos:7"} == {
        key: told[key] for key in ("job_id", "docker_image")
    }
    assert [
        "http://10.0.0.1:3000/job_initrd_tmpfs/lab.7/job.cgz",
        "http://10.0.0.1:3000/runner.cgz",
    ] == json.loads(told["initrds"])
    assert {(3000, "/job_initrd_tmpfs/lab.7/job.cgz"), (3000, "/runner.cgz")} == {
        (file.port, file.path) for file in boot_plan.files_of(Config(), job)
    }


def test_a_kernel_line_of_2047_bytes_fits_and_one_more_does_not():
    length = ipxe.kernel_line_length(DEBIAN.kernel, ipxe.kernel_arguments(DEBIAN))
    room = 2047 - length - 1  # the blank before the parameter
    fits = attrs.evolve(DEBIAN, custom_params="a" * room)
    line = re.search(r"kernel \S+/(\S+ .*)\n", ipxe.script(fits))[1]

    assert 2047 == len(f"{line}")
    with pytest.raises(Refused, match="2048 bytes with its image's name, 1 more"):
        ipxe.script(attrs.evolve(DEBIAN, custom_params="a" * (room + 1)))


@pytest.mark.parametrize(
    "word",
    ["a\nchain http://evil", "a\x00", "${net0/mac}", "ü", "#a", "#", "||", "&&", ";", "a\\", "\\"],
)
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
        ("2147483647", 1800),
        ("-1", None),  # for ever
        ("0", None),
        ("", None),
        ("0x15180", None),
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


def read(script):
    """The commands of a script, as src/core/exec.c and src/image/script.c of iPXE read them."""
    text = script.replace("\r\n", "\n").replace("\\\n", "")
    for line in text.split("\n"):
        words = line.split()
        end = next((n for n, word in enumerate(words) if word[0] == "#"), len(words))
        command = []
        for word in [*words[:end], ";"]:
            if word in ("||", "&&", ";"):
                if command:
                    yield command
                command = []
            else:
                command.append(word)


PIECES = ["#", "||", "&&", ";", "\\", "${", "}", "$", "{", '"', "'", "a", "=", "-", "%", "`", "--"]


def test_whatever_words_are_let_through_ipxe_reads_all_of_them_and_nothing_else():
    """Every field that can hold a word of somebody else's, with all that means something."""
    taken = 0
    for size in (1, 2, 3):
        for parts in itertools.product(PIECES, repeat=size):
            word = "".join(parts)
            host = ipxe.HostWords(("/dev/" + word,), word, (word,), f"quiet {word}", (word,))
            boot = attrs.evolve(DEBIAN, custom_params=f"{word} last", host=host)
            try:
                script = ipxe.script(boot)
            except BadRequest:
                continue
            taken += 1
            *initrds, kernel, start = read(script)
            assert [["initrd", url] for url in boot.initrds] == initrds
            assert ["boot"] == start
            assert ["kernel", boot.kernel, *ipxe.kernel_arguments(boot).split()] == kernel
            assert 2 == kernel.count(word)
            assert f"console={word}" in kernel
    assert taken > 500


@pytest.mark.parametrize("url", ["http://10.0.0.1/a#b", "#", "http://10.0.0.1/a\\"])
def test_an_address_holds_no_fragment_which_ipxe_would_not_ask_for(url):
    for boot in (attrs.evolve(DEBIAN, kernel=url), attrs.evolve(DEBIAN, initrds=(url,))):
        with pytest.raises(BadRequest, match="cannot stand in a boot script"):
            ipxe.script(boot)
