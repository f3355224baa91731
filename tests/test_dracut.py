"""boot/dracut: the module's scripts, one by one, in the machine's own /bin/sh."""

import subprocess
from pathlib import Path

import pytest

MODULE = Path(__file__).parent.parent / "appliance/boot/dracut/90appliance"
SEED = (
    "cifs://172.168.131.113/os/openeuler/aarch64/20.03-2021-05-18-15-08-52,"
    "guest,ro,hard,vers=1.0,noacl,nouser_xattr,noserverino"
)


def sh(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", "-eu", "-c", script],
        capture_output=True, text=True, check=False, timeout=20,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"} | environment,
    )  # fmt: skip


def parsed(root: str, place: Path) -> dict[str, str] | None:
    """What parse.sh notes of root=, run with its paths turned to `place`; None: not its affair."""
    text = (MODULE / "parse.sh").read_text()
    text = text.replace(". /lib/appliance-lib.sh", f"APPLIANCE={place}").replace(
        "/proc/sys/kernel/panic", f"{place}/panic"
    )
    done = sh(f'root=$ROOT rootok="" netroot=""; {text}\necho "$root:$rootok"', ROOT=root)
    assert done.returncode == 0, done.stderr
    assert (place / "panic").read_text() == "10\n"
    if done.stdout != "appliance:1\n":
        assert done.stdout == f"{root}:\n"
        return None
    return {
        file.name: file.read_text().removesuffix("\n")
        for file in place.iterdir()
        if file.name != "panic"
    }


@pytest.mark.parametrize(
    ("root", "expected"),
    [
        (
            SEED,
            {
                "type": "cifs",
                "source": "//172.168.131.113/os/openeuler/aarch64/20.03-2021-05-18-15-08-52",
                "options": "guest,ro,hard,vers=1.0,noacl,nouser_xattr,noserverino",
            },
        ),
        ("cifs://srv/os/x", {"type": "cifs", "source": "//srv/os/x", "options": ""}),
        (
            "cifs://me:p@srv/os/x,ro",
            {"type": "cifs", "source": "//srv/os/x", "options": "ro", "user": "me:p"},
        ),
        ("10.0.0.1:/os/x", {"type": "nfs", "source": "10.0.0.1:/os/x", "options": ""}),
        (
            "10.0.0.1:/os/x,vers=4.2,hard",
            {"type": "nfs", "source": "10.0.0.1:/os/x", "options": "vers=4.2,hard"},
        ),
        (
            "nfs:srv:/os/x:ro,vers=4.2",
            {"type": "nfs", "source": "srv:/os/x", "options": "ro,vers=4.2"},
        ),
        ("nfs4:srv:/os/x", {"type": "nfs", "source": "srv:/os/x", "options": ""}),
        ("[fd00::1]:/os/x,hard", {"type": "nfs", "source": "[fd00::1]:/os/x", "options": "hard"}),
        ("/dev/sda1", None),
        ("UUID=1234", None),
        ("live:/dev/sr0", None),
    ],
)
def test_root_is_taken_apart(root: str, expected: dict[str, str] | None, tmp_path: Path) -> None:
    assert parsed(root, tmp_path) == expected


def test_copying_goes_through_the_links_of_the_new_root(tmp_path: Path) -> None:
    new, addon = tmp_path / "new", tmp_path / "addon"
    for folder in (new / "usr/lib/systemd", new / "etc/rc.d/init.d", addon / "lib/systemd/system"):
        folder.mkdir(parents=True)
    (new / "lib").symlink_to("usr/lib")
    (new / "etc/init.d").symlink_to("rc.d/init.d")
    (new / "etc/old").symlink_to("/etc/passwd")
    (addon / "etc/init.d").mkdir(parents=True)
    (addon / "etc/init.d/start").write_text("start")
    (addon / "etc/old").write_text("new")
    (addon / "lib/systemd/system/x.service").write_text("unit")
    (addon / "lib/systemd/system/on").symlink_to("../x.service")
    (addon / ".hidden").write_text("seen")

    script = (MODULE / "copy.sh").read_text().replace('"/$2"', '"$2"')
    done = sh(f"set -- {addon} {new}; set +u; {script}")

    assert done.returncode == 0, done.stderr
    assert (new / "lib").is_symlink()
    assert (new / "usr/lib/systemd/system/x.service").read_text() == "unit"
    assert (new / "usr/lib/systemd/system/on").readlink() == Path("../x.service")
    assert (new / "etc/rc.d/init.d/start").read_text() == "start"
    assert not (new / "etc/old").is_symlink()  # the file behind it belongs to somebody else
    assert (new / "etc/old").read_text() == "new"
    assert (new / ".hidden").read_text() == "seen"


def test_a_folder_of_the_new_root_is_not_replaced_by_a_link(tmp_path: Path) -> None:
    """LKP's addon has /etc/rc2.d -> rc.d/rc2.d; Debian's /etc/rc2.d is a folder."""
    new, addon = tmp_path / "new", tmp_path / "addon"
    (new / "etc/rc2.d").mkdir(parents=True)
    (new / "etc/rc2.d/S01own").write_text("own")
    (addon / "etc/rc.d/rc2.d").mkdir(parents=True)
    (addon / "etc/rc.d/rc2.d/S77theirs").write_text("theirs")
    (addon / "etc/rc2.d").symlink_to("rc.d/rc2.d")

    script = (MODULE / "copy.sh").read_text().replace('"/$2"', '"$2"')
    done = sh(f"set -- {addon} {new}; set +u; {script}")

    assert (0, "") == (done.returncode, done.stderr)
    assert (new / "etc/rc2.d/S01own").read_text() == "own"
    assert (new / "etc/rc.d/rc2.d/S77theirs").read_text() == "theirs"


def test_a_lease_is_written_down_and_never_executed(tmp_path: Path) -> None:
    script = (MODULE / "dhcp.sh").read_text().replace("/run/appliance", str(tmp_path))
    bad = f"x$(touch {tmp_path}/owned)`touch {tmp_path}/owned`"
    done = sh(
        f"set +u; {script}",
        reason="BOUND", interface="eth0", new_ip_address="10.0.0.9",
        new_subnet_mask="255.255.255.0", new_routers="10.0.0.1 10.0.0.2", new_host_name=bad,
        new_dhcp_lease_time="120",
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    lease = (tmp_path / "eth0.lease").read_text().splitlines()
    assert "gateway=10.0.0.1" in lease
    assert "seconds=120" in lease
    assert f"hostname={bad}" in lease
    assert not (tmp_path / "owned").exists()


def test_no_lease_is_noted_before_there_is_one(tmp_path: Path) -> None:
    script = (MODULE / "dhcp.sh").read_text().replace("/run/appliance", str(tmp_path))
    sh(f"set +u; {script}", reason="PREINIT", interface="eth0")

    assert list(tmp_path.iterdir()) == []


def kept(seconds: str, place: Path, *, works: bool = True) -> list[str]:
    """What lease.sh calls, and what it says, for a lease of so many seconds on eth0."""
    appliance, tools = place / "appliance", place / "tools"
    appliance.mkdir()
    (appliance / "card").write_text("eth0\n")
    (appliance / "eth0.lease").write_text(f"address=10.0.0.9\nseconds={seconds}\n")
    (appliance / "eth0.leases").write_text("lease {}\n")
    tools.mkdir()
    for name in ("chroot", "mount", "umount"):
        status = 0 if works or name != "chroot" else 127
        (tools / name).write_text(f'#!/bin/sh\necho "{name} $*" >>{place}/calls\nexit {status}\n')
        (tools / name).chmod(0o755)
    script = (MODULE / "lease.sh").read_text()
    script = script.replace(
        ". /lib/appliance-lib.sh", f'APPLIANCE={appliance}; say() {{ echo "$*" >>{place}/calls; }}'
    )
    done = sh(script, NEWROOT=f"{place}/new", PATH=f"{tools}:/usr/bin:/bin")
    assert done.returncode == 0, done.stderr
    calls = place / "calls"
    return calls.read_text().splitlines() if calls.exists() else []


def test_a_lease_that_ends_is_renewed_from_the_new_root(tmp_path: Path) -> None:
    proc, client, away = kept("120", tmp_path)

    new = tmp_path / "new"
    assert [f"mount --bind /proc {new}/proc", f"umount -l {new}/proc"] == [proc, away]
    assert client.startswith(f"chroot {new} dhclient -4 -nw -q -sf /bin/true ")
    assert client.endswith(" eth0")
    place = client.split(" -lf ")[1].split()[0]
    assert (new / place[1:]).read_text() == "lease {}\n"


@pytest.mark.parametrize("seconds", ["4294967295", "", "12x"])
def test_a_lease_without_an_end_needs_no_client(seconds: str, tmp_path: Path) -> None:
    assert kept(seconds, tmp_path) == []


def test_a_root_without_a_client_says_what_that_means(tmp_path: Path) -> None:
    said = kept("120", tmp_path, works=False)

    assert "no DHCP client in the root: eth0 may lose its address after 120 s" in said


@pytest.mark.parametrize("script", sorted(MODULE.glob("*.sh")), ids=lambda path: path.name)
def test_the_scripts_are_whole(script: Path) -> None:
    shell = "bash" if script.name == "module-setup.sh" else "sh"

    assert subprocess.run([shell, "-n", script], check=False).returncode == 0


def test_a_second_card_that_comes_up_later_does_not_answer_for_the_first(tmp_path: Path) -> None:
    text = (MODULE / "root.sh").read_text()
    function = text[text.index("quiet_others() {") : text.index("configure() {")]
    done = sh(
        f"ARP={tmp_path} APPLIANCE={tmp_path}/none; cards() {{ :; }}; {function} quiet_others e0"
    )

    assert "1\n" == (tmp_path / "arp_ignore").read_text(), done.stderr
    assert "2\n" == (tmp_path / "arp_announce").read_text()


def chosen(
    place: Path, asked_from: str, leases: dict[str, str], cards: str, waited_s: int = 0
) -> str:
    """The card that root.sh takes; empty while it waits for another lease."""
    for card, address in leases.items():
        (place / f"{card}.lease").write_text(f"address={address}\nmask=255.255.255.0\n")
    text = (MODULE / "root.sh").read_text()
    functions = text[text.index("choose() {") : text.index("find_network() {")]
    done = sh(
        f"""set +eu; APPLIANCE={place} ASKED_FROM={asked_from} RIGHT_CARD_S=30 first_at=1000
        say() {{ :; }}; now() {{ echo {1000 + waited_s}; }}; cards() {{ echo {cards}; }}
        {functions}
        choose && echo "$card" """
    )
    assert done.stderr == ""
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("asked_from", "leases", "waited_s", "expected"),
    [
        ("10.0.0.9", {"eth0": "10.0.0.5", "eth1": "10.0.0.9"}, 0, "eth1"),
        ("10.0.0.5", {"eth0": "10.0.0.5", "eth1": "10.0.0.9"}, 0, "eth0"),
        ("10.0.0.5", {"eth0": "10.0.0.50", "eth1": "10.0.0.5"}, 0, "eth1"),
        ("10.0.0.9", {"eth1": "10.0.0.9"}, 0, "eth1"),  # the other has no cable
        ("10.0.0.9", {"eth0": "10.0.0.5"}, 29, ""),  # the right one may still come
        ("10.0.0.9", {"eth0": "10.0.0.5"}, 30, "eth0"),
        ("10.0.0.9", {"eth0": "10.0.0.5", "eth1": "10.0.0.6"}, 0, "eth0"),  # nobody else to ask
        ("", {"eth1": "10.0.0.9"}, 0, "eth1"),  # a plain boot of the image: the first lease
        ("", {}, 99, ""),
        ("10.0.0.9", {}, 99, ""),
    ],
)
def test_the_card_that_ipxe_booted_from_is_the_one_with_its_address(
    asked_from: str, leases: dict[str, str], waited_s: int, expected: str, tmp_path: Path
) -> None:
    assert expected == chosen(tmp_path, asked_from, leases, "eth0 eth1", waited_s)


def test_a_box_with_one_card_never_waits_for_another(tmp_path: Path) -> None:
    assert "eth0" == chosen(tmp_path, "10.0.0.9", {"eth0": "10.0.0.5"}, "eth0")
