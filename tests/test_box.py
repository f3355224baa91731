"""Who a testbox is: what it says of itself, and what its hosts file may say."""

from __future__ import annotations

import pytest

from appliance.errors import BadRequest
from appliance.jobs import box as boxes
from appliance.jobs.box import Facts, Identity

MAC = "52:54:00:12:34:ab"
UUID = "01234567-89ab-cdef-0123-456789abcdef"


@pytest.mark.parametrize("written", [MAC, MAC.upper(), MAC.replace(":", "-"), "5254001234AB"])
def test_a_mac_has_one_form(written):
    assert MAC == boxes.normal_mac(written)


@pytest.mark.parametrize(
    "written",
    ["", "52:54:00:12:34", MAC + ":00", "52:54-00:12:34:ab", "52 54", MAC + "\n", "gg" * 6],
)
def test_what_is_no_mac_is_refused(written):
    with pytest.raises(BadRequest, match="is no MAC address"):
        boxes.normal_mac(written)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (UUID, UUID),
        (f" {UUID.upper()} ", UUID),
        ("00000000-0000-0000-0000-000000000000", None),
        ("FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF", None),
        ("03000200-0400-0500-0006-000700080009", None),
        ("Not Settable", None),
        (UUID + "0", None),
        ("", None),
        (None, None),
    ],
)
def test_a_uuid_that_many_boards_share_identifies_nobody(written, read):
    assert read == boxes.usable_uuid(written)


def test_what_a_box_says_of_itself_is_cut_and_cleaned():
    query = {"arch": "arm64", "uuid": UUID, "serial": "S\n1\x1b[31m", "product": "p" * 500}

    assert Identity(MAC, "10.0.0.5", "aarch64", UUID, "S1[31m", "p" * 80) == (
        boxes.identity(MAC.upper(), "10.0.0.5", query)
    )


@pytest.mark.parametrize("arch", ["", "i386", "X86_64", "riscv64", "x86_64 "])
def test_an_arch_we_do_not_boot_is_unknown(arch):
    assert boxes.identity(MAC, "10.0.0.5", {"arch": arch}).arch is None


def facts(**fields):
    return boxes.facts("box-1", {"mac": MAC, **fields}, "default")


def test_a_hosts_file_needs_a_mac_and_nothing_else():
    assert Facts("box-1", (MAC,), queues=("default",)) == facts()
    with pytest.raises(BadRequest, match="box-1: mac: must name at least one"):
        boxes.facts("box-1", {}, "default")


def test_a_mac_that_is_written_twice_is_one():
    written = {"mac": ["52:54:00:12:34:56", "52-54-00-12-34-57", "525400123456"]}

    assert ("52:54:00:12:34:56", "52:54:00:12:34:57") == boxes.facts("b", written, "q").macs


def test_a_name_that_is_kept_for_strangers_is_refused_with_that_reason():
    with pytest.raises(BadRequest, match=r"unknown-\.\.\. are boxes"):
        boxes.facts("unknown-1", {"mac": "52:54:00:12:34:56"}, "q")


def test_a_whole_hosts_file():
    assert Facts(
        "vm-2p8g--a1",
        (MAC, "52:54:00:00:00:02"),
        "aarch64",
        UUID,
        ("q1", "q2"),
        ("ssd",),
        64,
        ("/dev/sda", "/dev/sdb"),
        "256M",
        ("ttyAMA0", "tty0"),
        "BOOTIF=01 quiet",
        2,
    ) == boxes.facts(
        "vm-2p8g--a1",
        {
            "mac": [MAC, "52-54-00-00-00-02"],
            "arch": "aarch64",
            "uuid": UUID,
            "queues": ["q1", "q2"],
            "tags": "ssd",
            "memory": "64G",
            "rootfs_disk": ["/dev/sda", "/dev/sdb"],
            "crashkernel": "256M",
            "console": ["ttyAMA0", "tty0"],
            "kernel_params": "BOOTIF=01  quiet",
            "nr_nic": 2,
            "model_name": "lkp's own keys are of no concern",
        },
        "default",
    )


@pytest.mark.parametrize("name", ["", "a/b", "..", "-x", "a b", "ä", "a\n", "x" * 65, "unknown-x"])
def test_what_is_no_testbox_name_is_refused(name):
    with pytest.raises(BadRequest, match="is no testbox name"):
        boxes.facts(name, {"mac": MAC}, "default")


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"mac": "x"}, "is no MAC"),
        ({"mac": {"eth0": MAC}}, "is no MAC"),
        ({"mac": []}, "mac: must name"),
        ({"arch": "arm64"}, "arch: 'arm64' must be one of aarch64, x86_64"),
        ({"uuid": "zz"}, "uuid: 'zz' is no UUID"),
        ({"queues": "two words"}, "queues: 'two words' must be printable"),
        ({"tags": ["a\nb"]}, "tags: "),
        ({"rootfs_disk": ["/dev/sd a"]}, "rootfs_disk: "),
        ({"console": ["${net0/mac}"]}, "console: "),
        ({"crashkernel": "256M boot"}, "crashkernel: "),
        ({"kernel_params": "a ${b} c"}, "kernel_params: '${b}' must not be: iPXE"),
        ({"kernel_params": "a || reboot"}, "kernel_params: '||' must not be: iPXE"),
        ({"kernel_params": "müll"}, "kernel_params: "),
        ({"kernel_params": "a #b"}, "kernel_params: '#b' must not be: iPXE"),
        ({"kernel_params": "a b\\"}, r"kernel_params: 'b\\' must not be: iPXE"),
    ],
)
def test_a_value_that_does_not_fit_names_box_and_key(fields, word):
    with pytest.raises(BadRequest) as caught:
        facts(**fields)

    assert word in str(caught.value)


def test_a_host_adds_words_to_its_kernel_lines_by_any_of_the_fields_names():
    said = {
        "boot_params": {"bp1_memmap": "1G$2G", "quiet": None},
        "bp_trace_clock": "x86-tsc",
        "kernel_custom_params": "a=b  c",
        "kernel_params": "BOOTIF=01",
    }
    with pytest.raises(BadRequest, match="boot_params: "):  # iPXE would expand it
        facts(**said)
    said["boot_params"]["bp1_memmap"] = "1G@2G"

    words = "memmap=1G@2G quiet trace_clock=x86-tsc a=b c BOOTIF=01"
    assert words == facts(**said).kernel_params


def test_a_container_has_a_mac_made_of_its_name():
    one, other = (boxes.facts(f"dc-8g.{n}", {}, "q").macs[0] for n in ("a-1", "a-2"))

    assert one != other
    assert one.startswith("02:")
    assert (one,) == boxes.facts("dc-8g.a-1", {}, "q").macs
    assert "dc-rack-7-3" == boxes.container_name("rack-7-3")
    with pytest.raises(BadRequest, match="no testbox name"):
        boxes.container_name("../x")


@pytest.mark.parametrize("value", ["²", "9" * 5000, "", None, "two", "-1"])
def test_a_number_of_nics_that_is_none_is_as_if_absent(value):
    assert facts(nr_nic=value).nr_nic is None


@pytest.mark.parametrize(
    ("memory", "crash"),
    [
        (None, "auto"),
        ("8G", "auto"),
        ("9g", "256M"),
        ("16", "256M"),
        ("17G", "512M"),
        ("?", "auto"),
    ],
)
def test_memory_for_a_crash_kernel_follows_the_hosts_memory(memory, crash):
    assert crash == facts(**({"memory": memory} if memory else {})).crash_memory("openeuler")
    assert "1G" == facts(memory=memory or "", crashkernel="1G").crash_memory("debian")


@pytest.mark.parametrize(
    ("name", "served"),
    [
        ("box-1", ("box-1", "default")),
        ("vm-2p8g--a1", ("vm-2p8g--a1", "vm-2p8g", "default")),
        ("vm-2p8g.a1", ("vm-2p8g.a1", "vm-2p8g", "default")),
        ("default", ("default",)),
    ],
)
def test_a_box_works_for_its_own_name_then_its_group_then_its_queues(name, served):
    assert served == boxes.facts(name, {"mac": MAC}, "default").served
