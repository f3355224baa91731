"""doctor/: what follows from facts.  Nothing is looked at here."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import attrs
import pytest

from appliance.config import Config, Network, Space, Waits
from appliance.doctor import (
    boot_files,
    boxes,
    dhcp,
    facts,
    findings,
    host,
    machine,
    ports,
    provider_cards,
    reach,
    wire,
)
from appliance.doctor.dhcp import Asked, Offer
from appliance.doctor.ports import Listener, Owner, Wanted

OURS = "10.0.0.1"
MAC = bytes.fromhex("525400000001")
UEFI = next(asked for asked in wire.EXPECTED if asked.arch == 7 and not asked.ipxe)
SNP = wire.EXPECTED[UEFI]
GIB = 2**30


def offer(server=OURS, address="10.0.0.20", file=SNP, lease_s=604800):
    return Offer(1, server, "52:54:00:00:00:fe", address, file, server, lease_s)


def levels(found):
    return [finding.level for finding in found]


def complete(finding):
    """What is wrong says what it means and how to mend it."""
    return finding.level in ("ok", "skipped") or bool(finding.means and finding.mend)


# ---- packets


def test_a_discover_reads_as_a_box_would_have_sent_it():
    frame = dhcp.frame(MAC, dhcp.discover(MAC, 0x01020304, Asked("x", 7)))

    assert b"\xff" * 6 + MAC + b"\x08\x00" == frame[:14]
    assert b"\0\0\0\0" + b"\xff" * 4 == frame[26:34]  # from 0.0.0.0 to everybody
    assert b"\x00\x44\x00\x43" == frame[34:38]  # ports 68, 67
    payload = frame[42:]
    assert b"\x01\x01\x06\x00\x01\x02\x03\x04" == payload[:8]
    assert b"\x80\x00" == payload[10:12]  # answer to everybody
    assert MAC == payload[28:34]
    assert b"\x35\x01\x01" in payload  # DISCOVER
    assert b"\x3c\x20PXEClient:Arch:00007:UNDI:003016" in payload
    assert b"\x5d\x02\x00\x07" in payload
    assert b"\xaf" not in payload[240:]
    assert b"\xaf\x03\x01\x01\x01" in dhcp.discover(MAC, 1, Asked("x", 7, ipxe=True))


def test_the_header_checksum_of_a_discover_is_right():
    head = dhcp.frame(MAC, b"payload")[14:34]

    total = sum(int.from_bytes(head[n : n + 2]) for n in range(0, 20, 2))
    assert 0xFFFF == (total & 0xFFFF) + (total >> 16)


def reply(options=b"", file=b"", kind=2, following=b"\0" * 4):
    head = b"\x02\x01\x06\x00" + (7).to_bytes(4) + b"\0" * 8 + bytes([10, 0, 0, 20]) + following
    head += b"\0" * 4 + MAC.ljust(16, b"\0") + b"\0" * 64 + file.ljust(128, b"\0")
    return head + b"\x63\x82\x53\x63" + bytes([53, 1, kind]) + options + b"\xff"


def test_an_offer_says_who_offers_what():
    found = dhcp.offer_in(
        reply(b"\x36\x04\x0a\x00\x00\x05\x33\x04\x00\x00\x0e\x10\x00\x00", b"undionly.kpxe"),
        "10.0.0.6",
    )

    assert Offer(7, "10.0.0.5", "", "10.0.0.20", "undionly.kpxe", "10.0.0.6", 3600) == found


def test_an_option_names_the_file_before_the_header_does():
    found = dhcp.offer_in(reply(b"\x43\x05a.efi", b"b.efi", following=b"\x0a\0\0\x09"), "10.0.0.6")

    assert ("10.0.0.6", "a.efi", "10.0.0.9") == (found.server, found.file, found.next_server)


def test_options_go_on_where_the_file_would_stand():
    found = dhcp.offer_in(reply(b"\x34\x01\x01", b"\x36\x04\x0a\x00\x00\x07\xff"), "10.0.0.6")

    assert ("10.0.0.7", "") == (found.server, found.file)


@pytest.mark.parametrize("kind", [1, 5, 6])
def test_other_messages_are_no_offers(kind):
    assert dhcp.offer_in(reply(kind=kind), "10.0.0.6") is None


def test_whatever_is_cut_off_is_no_offer_or_a_shorter_one_and_never_an_error():
    whole = b"\xff" * 6 + MAC + b"\x08\x00" + b"\x45" + b"\0" * 8 + b"\x11" + b"\0" * 2
    whole += bytes([10, 0, 0, 5]) + b"\xff" * 4 + b"\x00\x43\x00\x44\0\0\0\0"
    whole += reply(b"\x36\x04\x0a\x00\x00\x05")

    assert "10.0.0.5" == dhcp.offer(whole).server
    for size in range(len(whole)):
        dhcp.offer(whole[:size])


# ---- who leases addresses, what a box boots


def test_ours_alone_is_well():
    found = wire.servers("eth1", [(UEFI, offer())], [OURS], proxy=False)

    assert ["ok"] == levels(found)
    assert OURS in found[0].found


def test_each_other_server_is_named_with_what_it_offers():
    heard = [(UEFI, offer()), (UEFI, offer("10.0.0.7", file="")), (UEFI, offer("10.0.0.8"))]
    found = wire.servers("eth1", heard, [OURS], proxy=False)

    assert ["error", "error"] == levels(found)
    assert all(map(complete, found))
    assert "10.0.0.7 (52:54:00:00:00:fe) offers 10.0.0.20 for 604800 s" == found[0].found
    assert found[1].found.startswith("10.0.0.8 ")


def test_in_proxy_mode_another_server_is_wanted_without_a_boot_file():
    plain, booting = offer("10.0.0.7", file=""), offer("10.0.0.7")

    assert ["ok"] == levels(wire.servers("eth1", [(UEFI, plain)], [OURS], proxy=True))
    assert ["error"] == levels(wire.servers("eth1", [(UEFI, booting)], [OURS], proxy=True))
    (nobody,) = wire.servers("eth1", [], [OURS], proxy=True)
    assert "warning" == nobody.level
    assert "nobody leases" in nobody.found


def test_every_firmware_must_be_told_its_own_file():
    heard = [(asked, offer(file=file)) for asked, file in wire.EXPECTED.items()]
    firsts = [wire.First(file, 512) for file in wire.EXPECTED.values()]

    assert {"ok"} == {*levels(wire.boots(heard, [OURS], firsts, "eth1", set()))}
    wrong = [(asked, offer(file="pxelinux.0")) for asked in wire.EXPECTED]
    judged = wire.boots(wrong, [OURS], firsts, "eth1", {"x86_64", "aarch64"})
    assert ["warning", "error", "error", "error"] == levels(judged)  # nobody says of BIOS
    elsewhere = [(asked, offer("10.0.0.7", file=file)) for asked, file in wire.EXPECTED.items()]
    nothing = wire.boots(elsewhere, [OURS], firsts, "eth1", set())
    assert {"our dnsmasq offers nothing"} == {finding.found for finding in nothing}


def test_a_file_that_is_offered_and_not_given_is_an_error():
    heard = [(UEFI, offer())]
    found = wire.boots(heard, [OURS], [wire.First(SNP, 0, "not found")], "eth1", {"x86_64"})

    uefi = next(finding for finding in found if "UEFI x86-64" in finding.looked_at)
    assert ("error", True) == (uefi.level, "not found" in uefi.found)


# ---- ports

TCP6 = """\
  sl  local_address                         remote_address                        st tx
   0: 00000000000000000000000000000000:0BB8 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 7
   1: 0000000000000000FFFF00000100000A:1F40 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 8
   2: 0000000000000000FFFF00000100000A:1F40 0000000000000000FFFF00000200000A:0050 01 0:0 0:0 0 0 0 9
"""


def test_only_sockets_that_listen_are_read_with_their_addresses():
    assert [("::", 3000), ("10.0.0.1", 8000)] == [
        (one.address, one.port) for one in ports.listeners("tcp", TCP6)
    ]


def has(name="nginx", ours=False, address="0.0.0.0", port=3000, protocol="tcp", pid=4):
    return Listener(protocol, address, port, "1", (Owner(pid, name, ours),))


PORT = Wanted("tcp", 3000, "appliance", "ports.scheduler")


@pytest.mark.parametrize(
    ("there", "running", "level", "said"),
    [
        ([], False, "ok", "free"),
        ([], True, "error", "nobody listens"),
        ([has()], False, "error", "nginx (pid 4) has it"),
        ([has(address="::")], True, "error", "nginx (pid 4) has it"),
        ([has(address=OURS)], False, "error", "nginx (pid 4) has it"),
        ([has(address="127.0.0.1")], False, "ok", "free"),
        ([has(port=3001)], False, "ok", "free"),
        ([has(protocol="udp")], False, "ok", "free"),
        ([has("appliance", ours=True)], True, "ok", "appliance (pid 4)"),
        ([attrs.evolve(has(), owners=())], False, "skipped", "root is needed"),
    ],
)
def test_whoever_has_a_port_is_named(there, running, level, said):
    found = ports.judge(PORT, there, [OURS], running=running)

    assert level == found.level
    assert said in found.found
    assert complete(found)


def test_a_dnsmasq_of_somebody_elses_beside_ours_is_no_fault():
    port = Wanted("udp", 67, "dnsmasq", "")
    theirs, ours = has("dnsmasq", port=67, protocol="udp"), has("dnsmasq", True, OURS, 67, "udp", 5)

    assert "ok" == ports.judge(port, [theirs, ours], [OURS], running=True).level
    assert "error" == ports.judge(port, [theirs], [OURS], running=False).level


def test_a_door_that_is_not_needed_may_be_shut():
    nfs = Wanted("tcp", 2049, "ganesha.nfsd", "ports.nfs", needed=False)

    assert "ok" == ports.judge(nfs, [], [OURS], running=True).level


# ---- the machine


@pytest.mark.parametrize(
    ("boxes_known", "level"), [(0, "ok"), (511, "ok"), (512, "warning"), (1024, "error")]
)
def test_the_arp_table_must_hold_all_boxes(boxes_known, level):
    found = machine.neighbours((128, 512, 1024), boxes_known)

    assert level == found.level
    assert complete(found)


def test_open_files_must_do_for_every_seat():
    assert "ok" == machine.open_files(20000, "the server", 100, Config()).level
    assert "ok" == machine.open_files(2100, "the server", 100, Config()).level
    assert "warning" == machine.open_files(2099, "the server", 100, Config()).level


CONF = "tftp-max=10000\ndhcp-lease-max=40000\ndhcp-range=10.0.0.10,10.0.0.99,255.255.255.0,168h\n"


def test_what_dnsmasq_may_open_bounds_its_transfers():
    assert "ok" == machine.transfers(CONF, 20000).level
    assert "warning" == machine.transfers(CONF, 1024).level
    assert "warning" == machine.transfers("", None).level  # its own 50


def test_leases_must_do_for_two_cards_in_each_box():
    assert "ok" == machine.leases(CONF, 20000).level
    assert "warning" == machine.leases(CONF, 20001).level
    assert "warning" == machine.leases("", 501).level  # its own 1000


def test_a_lease_is_read_from_the_range():
    assert 604800.0 == machine.lease_of(CONF)
    assert 300.0 == machine.lease_of("dhcp-range=set:a,10.0.0.1,10.0.0.9,5m")
    assert machine.lease_of("dhcp-range=10.0.0.0,proxy\n") is None


@pytest.mark.parametrize(
    ("seconds", "longest", "level"),
    [
        (604800, 3600, "ok"),
        (3600, 3600, "warning"),
        (7200, 100000, "warning"),
        (None, 1, "skipped"),
    ],
)
def test_a_lease_must_outlast_the_longest_job(seconds, longest, level):
    found = machine.lease(seconds, longest, Waits(), proxy=False)

    assert level == found.level
    assert complete(found)


def test_a_lease_must_outlast_two_waits():
    waits = attrs.evolve(Waits(), park=7200.0, boot_max=1.0, post_run=1.0)

    assert "warning" == machine.lease(14000.0, 60, waits, proxy=True).level
    assert "ok" == machine.lease(14400.0, 60, waits, proxy=True).level


@pytest.mark.parametrize(
    ("free", "upload", "inodes", "level"),
    [
        (100 * GIB, 10 * GIB, 1000, "ok"),
        (GIB, None, 1000, "warning"),
        (Space().low - 1, None, 1000, "error"),
        (5 * GIB, 10 * GIB, 1000, "warning"),
        (5 * GIB, None, 19, "warning"),
    ],
)
def test_a_disk_needs_head_room(free, upload, inodes, level):
    (found,) = machine.disk(machine.Room("/srv", free, 200 * GIB, inodes, 1000), Space(), upload)

    assert level == found.level
    assert complete(found)


# ---- files


def tftp(**trouble):
    return [
        boot_files.TftpFile(name, 1000, trouble.get(word, ""))
        for word, name in (
            ("bios", "undionly.kpxe"),
            ("x86", "ipxe/bin-x86_64-efi/snp.efi"),
            ("arm", "ipxe/bin-arm64-efi/snp.efi"),
        )
    ]


def test_ipxe_is_missed_where_a_box_needs_it():
    gone = {"x86": "is missing", "arm": "is missing", "bios": "is missing"}

    assert ["ok"] * 3 == levels(boot_files.ipxe(tftp(), {"aarch64"}))
    assert ["warning", "error", "warning"] == levels(boot_files.ipxe(tftp(**gone), set()))
    assert ["warning", "warning", "error"] == levels(boot_files.ipxe(tftp(**gone), {"aarch64"}))
    assert all(map(complete, boot_files.ipxe(tftp(**gone), set())))


def test_a_boot_ipxe_of_another_configuration_is_told():
    file = boot_files.TftpFile("boot.ipxe", 900)

    assert "ok" == boot_files.boot_ipxe(file, current=True).level
    assert "warning" == boot_files.boot_ipxe(file, current=False).level
    missing = attrs.evolve(file, trouble="is missing")
    assert "error" == boot_files.boot_ipxe(missing, current=False).level


def test_testparm_says_zero_and_complains_all_the_same():
    good = boot_files.Checked("smbd", "/run/smb.conf", 0, "Loaded services file OK.\n")

    assert "ok" == boot_files.configuration(good).level
    left_out = attrs.evolve(good, said='Unknown parameter encountered: "wyde links"\n')
    found = boot_files.configuration(left_out)
    assert ("error", True) == (found.level, "wyde links" in found.found)
    assert "error" == boot_files.configuration(attrs.evolve(good, status=1)).level
    assert "skipped" == boot_files.configuration(attrs.evolve(good, trouble="not there")).level


def test_an_image_that_does_not_boot_is_told_with_why():
    good = boot_files.ImageState("debian/x86_64/12", "6.1", ())

    assert ["warning"] == levels(boot_files.images([], "/srv"))
    assert ["ok"] == levels(boot_files.images([good], "/srv"))
    (found,) = boot_files.images(
        [attrs.evolve(good, problems=("x is not readable by others",))], "/srv"
    )
    assert ("error", True) == (found.level, "chmod" in found.mend)


def test_programs_of_images_that_make_others_root_are_looked_at():
    assert "ok" == boot_files.rights("/srv/os", nosuid=True, entered=True).level
    assert "ok" == boot_files.rights("/srv/os", nosuid=False, entered=False).level
    found = boot_files.rights("/srv/os", nosuid=False, entered=True)
    assert ("warning", True) == (found.level, "mount -o remount,bind,nosuid" in found.mend)


# ---- doors, boxes


def test_a_door_that_is_shut_is_an_error_where_boxes_need_it():
    shut = reach.Knock("os", OURS, 8000, "Connection refused")

    assert "ok" == reach.reach(attrs.evolve(shut, trouble="")).level
    assert "error" == reach.reach(shut).level
    assert "ok" == reach.reach(attrs.evolve(shut, needed=False)).level


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("1.0.0+git-20190125.36a4c85-5.1", "13th"),
        ("1.21.1+git-20220113", "770th"),
        ("1.20", "770th"),
        ("2.0.0+ (g1234)", "120 s"),
        ("2.1", "120 s"),
    ],
)
def test_what_is_known_of_an_ipxe_goes_by_its_version(version, said):
    assert said in boxes.known_of(version)


@pytest.mark.parametrize("version", ["", "g1234", "0.9.7"])
def test_nothing_is_known_of_other_ones(version):
    assert "" == boxes.known_of(version)


def test_boxes_of_one_version_are_told_together():
    rows = [{"name": f"box-{n}", "ipxe": "1.21.1"} for n in range(7)]
    rows += [{"name": "vm-1", "ipxe": None}, {"name": "old", "ipxe": ""}]

    unknown, known = boxes.parked(rows, Waits())
    assert ("warning", "old") == (unknown.level, unknown.found)
    assert known.found.startswith("box-0, box-1, box-2, box-3, box-4 and 2 more; ")


def test_a_silent_wait_and_an_ipxe_that_bears_none_are_an_error():
    rows = [{"name": "box-1", "ipxe": "2.0.0"}]

    assert ["ok"] == levels(boxes.parked(rows, Waits()))
    assert ["error"] == levels(boxes.parked(rows, attrs.evolve(Waits(), drip=120.0)))


def test_levels_are_counted():
    found = [findings.ok("a", "b"), findings.skipped("a", "b"), findings.ok("c", "d")]

    assert {"error": 0, "warning": 0, "skipped": 1, "ok": 2} == findings.counts(found)


def test_the_ports_are_those_of_the_configuration():
    moved = Config(network=Network(), ports=attrs.evolve(Config().ports, os=8001))

    assert {3000, 8001, 8800, 3080, 20007, 20001, 67, 69, 445, 2049} == {
        each.port for each in ports.wanted(moved)
    }


def test_a_process_may_call_itself_what_it_likes():
    """Any local user's, whose name was no UTF-8, ended `doctor` with a trace."""
    code = (
        "import ctypes; ctypes.CDLL(None).prctl(15, b'\\xff\\xfe', 0, 0, 0);"
        " print(flush=True); input()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        other.stdout.readline()
        assert "\ufffd\ufffd" == facts._called(str(other.pid))
        facts._confs(Config())
        other.stdin.close()


def test_a_folder_that_is_open_to_the_servers_group_alone_is_closed_to_others_only():
    """As an install leaves /srv/os."""
    with tempfile.TemporaryDirectory(dir="/tmp") as made:  # whose parents everybody may enter
        outer = Path(made) / "os"
        inner = outer / "boot"
        inner.mkdir(parents=True)
        Path(made).chmod(0o755)
        outer.chmod(0o750)
        gid = outer.stat().st_gid

        assert outer == host.closed(inner)
        assert outer == host.closed(inner, gid + 1)
        assert None is host.closed(inner, gid)
        outer.chmod(0o705)
        assert outer == host.closed(inner, gid)


# ---- providers


@pytest.mark.parametrize(
    ("entry", "card", "routed", "level", "said"),
    [
        ("10.0.0.9", None, False, "warning", 'providers = ["10.0.0.9 MAC"]'),
        ("10.0.0.9", "52:54:00:00:00:09", False, "warning", '"10.0.0.9 52:54:00:00:00:09"'),
        ("10.0.0.0/24", None, False, "warning", "one entry for each machine"),
        ("10.0.0.9", "52:54:00:00:00:01", False, "error", "the testbox box-1's"),
        ("10.0.0.9", None, True, "ok", "behind a router"),
        ("10.0.0.9 52:54:00:00:00:09", None, False, "ok", "by its card"),
        ("10.0.0.9 52:54:00:00:00:09", "52:54:00:00:00:09", False, "ok", "by its card"),
        ("10.0.0.9 52:54:00:00:00:01", "52:54:00:00:00:01", False, "ok", "by its card"),
        ("10.0.0.9 52:54:00:00:00:09", "52:54:00:00:00:08", False, "error", "00:08 has its"),
        ("10.0.0.9 52:54:00:00:00:09", None, True, "error", 'providers = ["10.0.0.9"]'),
    ],
)
def test_a_provider_that_anybody_can_be_is_told_with_what_to_write(
    entry, card, routed, level, said
):
    owners = {"52:54:00:00:00:01": "box-1"}
    found = provider_cards.judge(entry, card, owners, routed=routed)

    assert level == found.level
    assert said in f"{found.found} {found.mend}"
    assert complete(found)


# ---- the clock


@pytest.mark.parametrize(
    ("ahead", "synchronised", "level", "said"),
    [
        (0.0, True, ["ok"], "is kept right"),
        (-86400.0, True, ["ok"], "is kept right"),  # nothing was written since yesterday
        (59.0, True, ["ok"], "is kept right"),
        (86400.0, True, ["error"], "the clock went back by 1 days: the state has newer records"),
        (0.0, False, ["warning"], "nothing keeps it right"),
        (7200.0, False, ["error", "warning"], "the clock went back by 2 hours"),
        (0.0, None, ["skipped"], "does not say"),
        (None, True, ["skipped"], "cannot be seen"),
        (None, None, ["skipped", "skipped"], "cannot be seen"),
    ],
)
def test_a_clock_that_may_be_wrong_is_told(ahead, synchronised, level, said):
    found = machine.clock(ahead, synchronised=synchronised)

    assert level == levels(found)
    assert said in found[0].found
    assert all(complete(finding) for finding in found)


def test_the_clock_is_compared_with_the_newest_file_of_the_state(tmp_path):
    for name, moment in (("snapshot-000001", 1000.0), ("journal-000001", time.time() + 5000)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (moment, moment))

    assert host._ahead(tmp_path) == pytest.approx(5000, abs=60)
    assert 0 == host._ahead(tmp_path / "none")


def test_what_the_kernel_says_of_its_clock_is_what_timedatectl_reads_too():
    """STA_UNSYNC and a return value of TIME_ERROR say the same, in the same answer."""
    room = ctypes.create_string_buffer(host.TIMEX_BYTES)
    said = ctypes.CDLL(None).adjtimex(room)

    assert host._synchronised() == (None if said < 0 else said != 5)
