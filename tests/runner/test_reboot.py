"""Back into PXE: the hardware watchdog, UEFI's BootNext, and a reboot that hangs."""

from __future__ import annotations

import pytest

from tests.runner.testbox import IMAGES, SHELLS

GLOBAL = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
OURS = "52540aaabb01"


def entry(description: str, path: str) -> bytes:
    """A Boot#### variable: attributes, the load option's own, length, name, device path."""
    device_path = bytes.fromhex(path + "7fff0400")
    name = description.encode("utf-16-le") + b"\0\0"
    return b"\7\0\0\0" + b"\1\0\0\0" + len(device_path).to_bytes(2, "little") + name + device_path


def card(mac: str) -> str:
    """PCI device, then MAC (37 bytes: the address padded to 32, the interface type), then IPv4."""
    return "02010c00d041030a00000000" + "01010600" + "0002" + "030b2500" + mac + "00" * 26 + "01"


DISK = "02010c00d041030a00000000" + "01010600" + "0101" + "031206000000"


def words(*numbers: int) -> bytes:
    return b"\7\0\0\0" + b"".join(number.to_bytes(2, "little") for number in numbers)


class Firmware:
    """The variables of a UEFI machine, as efivarfs shows them."""

    def __init__(self, box, current: int, order: tuple[int, ...], **entries: bytes) -> None:
        self.folder = box.root / "sys/firmware/efi/efivars"
        self.folder.mkdir(parents=True)
        (box.root / "sys/class/net/lo/address").write_text("52:54:0a:aa:bb:01\n")
        self.write("BootCurrent", words(current))
        self.write("BootOrder", words(*order))
        for name, value in entries.items():
            self.write(name, value)

    def write(self, name: str, value: bytes) -> None:
        (self.folder / f"{name}-{GLOBAL}").write_bytes(value)

    @property
    def next(self) -> bytes | None:
        path = self.folder / f"BootNext-{GLOBAL}"
        return path.read_bytes() if path.exists() else None


@pytest.mark.parametrize(("shell", "busybox", "client"), IMAGES)
def test_the_entry_that_this_boot_came_from_is_the_next(make_box, shell, busybox, client) -> None:
    box = make_box(shell=shell, busybox=busybox, client=client)
    firmware = Firmware(
        box,
        0x1A2B,
        (1, 2, 0x1A2B),
        Boot0001=entry("disk", DISK),
        Boot0002=entry("PXE", card(OURS)),
        Boot1A2B=entry("PXE of another card", card("020000000001")),
    )

    box.run()

    assert words(0x1A2B) == firmware.next
    assert "(Boot1A2B)" in box.console
    assert ["reboot "] == box.rebooted


def test_after_a_boot_from_disk_our_own_card_is_the_next(box) -> None:
    firmware = Firmware(
        box,
        1,
        (1, 2, 3),
        Boot0001=entry("disk", DISK),
        Boot0002=entry("another card", card("020000000001")),
        Boot0003=entry("ours", card(OURS)),
    )

    box.run()

    assert words(3) == firmware.next


def test_else_any_card_is_the_next(box) -> None:
    firmware = Firmware(
        box, 1, (1, 2), Boot0001=entry("disk", DISK), Boot0002=entry("x", card("020000000001"))
    )

    box.run()

    assert words(2) == firmware.next


def test_firmware_without_network_entries_is_left_alone(box) -> None:
    firmware = Firmware(box, 1, (1,), Boot0001=entry("disk", DISK))

    box.run()

    assert firmware.next is None
    assert "no entry that boots from the network" in box.console
    assert ["reboot "] == box.rebooted


def test_bytes_of_a_card_across_a_byte_border_are_no_card(box) -> None:
    # "03 0b 25 00" shifted by four bits
    firmware = Firmware(box, 1, (1,), Boot0001=entry("disk", "0401090030b2500052" + DISK))

    box.run()

    assert firmware.next is None


def test_efibootmgr_is_asked_where_there_is_one(box) -> None:
    firmware = Firmware(box, 2, (2,), Boot0002=entry("PXE", card(OURS)))
    box.fake("efibootmgr", f'echo "$*" >{box.root}/asked')

    box.run()

    assert "-q -n 0002\n" == (box.root / "asked").read_text()
    assert firmware.next is None


def test_an_efibootmgr_that_fails_is_done_without(box) -> None:
    firmware = Firmware(box, 2, (2,), Boot0002=entry("PXE", card(OURS)), BootNext=words(9))
    box.fake("efibootmgr", "exit 1")
    box.fake("chattr", f'echo "$*" >{box.root}/chattr')

    box.run()

    assert words(2) == firmware.next
    assert f"-i {firmware.folder}/BootNext-{GLOBAL}\n" == (box.root / "chattr").read_text()


def test_efivarfs_is_mounted_where_it_is_not(box) -> None:
    (box.root / "sys/firmware/efi/efivars").mkdir(parents=True)
    box.fake("mount", f'echo "$*" >{box.root}/mounted')

    box.run()

    assert (
        f"-t efivarfs efivarfs {box.root}/sys/firmware/efi/efivars\n"
        == (box.root / "mounted").read_text()
    )


def test_systemd_is_asked_for_the_reboot(box) -> None:
    box.systemd()

    box.run()

    assert "systemctl --no-block reboot" == box.rebooted[0]


def test_a_reboot_that_hangs_is_forced_and_then_forced_harder(box) -> None:
    box.systemd()
    box.run()
    trigger = box.root / "proc/sysrq-trigger"
    box.until(trigger.exists)

    assert ["systemctl --no-block reboot", "reboot -f"] == box.rebooted
    box.until(lambda: trigger.read_text() == "b\n")
    assert "1\n" == (box.root / "proc/sys/kernel/sysrq").read_text()


def test_a_watchdog_is_armed_and_fed_to_the_end(box) -> None:
    device = box.root / "dev/watchdog0"
    device.touch()
    identity = box.root / "sys/class/watchdog/watchdog0/identity"
    identity.parent.mkdir(parents=True)
    identity.write_text("i6300ESB timer\n")
    box.fake("wdctl", f'echo "$2" >{identity.parent}/timeout')

    box.run("\tsleep 1")

    assert 10 < len(device.read_text())
    assert {"."} == set(device.read_text())  # never the magic V
    assert "armed: i6300ESB timer, 120 s" in box.console
    assert not (box.root / "modprobed").exists()


def test_the_job_does_not_inherit_the_watchdog(box, server) -> None:
    (box.root / "dev/watchdog0").touch()

    box.run("\treadlink /proc/$$/fd/* 2>/dev/null | grep watchdog; ls -l /proc/$$/fd >&2")

    assert b"" == server.files["stdout"]
    assert b"2 -> " in server.files["stderr"]


def test_the_usual_watchdogs_are_looked_for(box) -> None:
    box.run()

    assert [
        "-q iTCO_wdt heartbeat=120",
        "-q sp5100_tco heartbeat=120",
        "-q i6300esb heartbeat=120",
        "-q ipmi_watchdog timeout=120",
    ] == (box.root / "modprobed").read_text().splitlines()
    assert "watchdog" not in box.console


def test_the_search_ends_with_the_first_that_is_there(box) -> None:
    box.fake(
        "modprobe",
        f'echo "$2" >>{box.root}/modprobed; [ $2 != sp5100_tco ] || : >{box.root}/dev/watchdog0',
    )

    box.run()

    assert "iTCO_wdt\nsp5100_tco\n" == (box.root / "modprobed").read_text()
    assert "the hardware watchdog is armed" in box.console


def test_a_watchdog_in_software_hangs_with_the_kernel_and_is_not_armed(box) -> None:
    device = box.root / "dev/watchdog0"
    device.touch()
    identity = box.root / "sys/class/watchdog/watchdog0/identity"
    identity.parent.mkdir(parents=True)
    identity.write_text("Software Watchdog\n")

    box.run()

    assert "" == device.read_text()


@pytest.mark.parametrize("shell", SHELLS)
def test_a_watchdog_that_systemd_feeds_is_left_to_it(make_box, server, shell) -> None:
    box = make_box(shell=shell)
    (box.root / "dev/watchdog0").mkdir()  # cannot be opened, as one that is busy

    box.run()

    assert "belongs to somebody else" in box.console
    assert ["running", "post_run", "finished"] == server.states
