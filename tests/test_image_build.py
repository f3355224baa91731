"""boot/images/image_build, image_import, snapshot: whole or not at all, and nothing left mounted.

mmdebstrap and dracut are stood in for by scripts where the question is what happens around them.
"""

import contextlib
import fcntl
import io
import os
import re
import signal
import socket
import stat
import struct
import subprocess
import sys
import tarfile
import termios
import time
from pathlib import Path

import pytest

from appliance.boot.images import (
    apt_sources,
    emulation,
    image_build,
    image_import,
    sandbox,
    snapshot,
    special_files,
)
from appliance.errors import BadImage
from appliance.fs import trees
from tests.test_trees import deep

root = pytest.mark.root
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
PATIENCE_S = 20.0


def tools(place: Path, **scripts: str) -> str:
    """A PATH on which these programs come first, and a mirror that has all it is asked for."""
    place.mkdir(exist_ok=True)
    for name, script in {"apt-helper": ":", **scripts}.items():
        (place / name).write_text(f"#!/bin/sh\n{script}\n")
        (place / name).chmod(0o755)
    return f"{place}:{os.environ['PATH']}:/usr/sbin:/sbin"


def left(srv: Path) -> list[str]:
    return sorted(str(path.relative_to(srv)) for path in srv.rglob("*"))


def mounts_in(srv: Path) -> list[str]:
    return [line for line in Path("/proc/mounts").read_text().splitlines() if str(srv) in line]


BUILD = ("appliance", "image", "build", "debian", "12", "x86_64",
         "--mirror", "http://mirror.test/debian", "--srv")  # fmt: skip
MAKE_IMAGE = ("lab.cached_image",)


def building(srv: Path, path: str, command: tuple[str, ...] = BUILD) -> subprocess.Popen[bytes]:
    """`appliance image build`, whose mmdebstrap has mounted something and goes on for ever."""
    program = subprocess.Popen(
        # Under nohup it would take no notice of a closed terminal, as whoever says nohup wants.
        ["/usr/bin/env", "--default-signal=HUP", sys.executable, "-m", *command, str(srv)],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        env={"PATH": path, "TMPDIR": str(srv.parent)},
    )  # fmt: skip
    assert program.stderr is not None
    said = []
    for line in program.stderr:
        said.append(line)
        if b"MOUNTED" in line:
            return program
    raise AssertionError(b"".join(said).decode())


SLOW = """\
for place; do case $place in */.building-*) break;; esac; done
touch "${TMPDIR:?}/gpghome"
mkdir -p "$place/proc" && touch "$place/file" && mount -t tmpfs tmpfs "$place/proc"
echo MOUNTED; sleep 600"""


@root
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="builds are native")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("command", [BUILD, MAKE_IMAGE])
def test_an_interrupted_build_leaves_nothing(
    tmp_path: Path, number: signal.Signals, command: tuple[str, ...]
) -> None:
    srv = tmp_path / "srv"
    srv.mkdir()
    program = building(srv, tools(tmp_path / "bin", mmdebstrap=SLOW), command)

    program.send_signal(number)
    _, said = program.communicate(timeout=PATIENCE_S)

    assert program.returncode == 128 + number
    assert b"Traceback" not in said
    assert [] == [name for name in left(srv) if name != "lock"]  # that of `make image`
    assert mounts_in(srv) == []
    assert list(tmp_path.glob("appliance-*")) == []  # the temporary files of its programs


TALKS = """\
echo "I: a long line, coloured \033[31mred\033[0m, $(printf 'x%.0s' $(seq 200))"
sleep 0.5; exit 25"""


@root
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="builds are native")
def test_a_person_at_a_terminal_sees_the_time_beside_the_newest_line(tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    program = subprocess.Popen(
        [sys.executable, "-m", *BUILD, str(tmp_path / "srv")],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=theirs,
        env={"PATH": tools(tmp_path / "bin", mmdebstrap=TALKS), "TERM": "xterm"},
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # EIO: the other end is closed
        while data := os.read(ours, 4096):
            shown += data
    os.close(ours)

    assert 2 == program.wait(PATIENCE_S)
    drawn = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode().partition("appliance: ")[0])
    lines = [line for line in drawn.splitlines() if "a long line" in line]
    assert lines
    for line in lines:
        assert re.fullmatch(r"\S 0:00:0\d I: a long line, coloured .*…", line.strip())
        assert len(line.strip()) <= 60


@root
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="builds are native")
def test_what_a_killed_build_left_is_swept_by_the_next(tmp_path: Path) -> None:
    srv = tmp_path / "srv"
    program = building(srv, tools(tmp_path / "bin", mmdebstrap=SLOW))
    program.kill()
    program.communicate(timeout=PATIENCE_S)
    assert mounts_in(srv) == []  # its namespace is gone with it
    place = srv / "os/debian/x86_64"
    assert list(place.glob(".building-*"))

    end = time.monotonic() + PATIENCE_S
    while list(place.glob(".building-*")) and time.monotonic() < end:
        snapshot.sweep(place)  # once the last of its programs has let go of the lock

    assert list(place.glob(".building-*")) == []
    assert list(tmp_path.glob("appliance-*")) == []  # the temporary files of its programs


@root
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="builds are native")
def test_a_full_disk_is_said_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = 'echo "E: No space left on device"; exit 25'
    monkeypatch.setenv("PATH", tools(tmp_path / "bin", mmdebstrap=full))
    srv = tmp_path / "srv"
    srv.mkdir()

    with pytest.raises(BadImage, match="No space left on device"):
        image_build.build(srv, "12", "x86_64", lambda line: None, "http://mirror.test/debian")

    assert left(srv) == []


class Bootstrap:
    """What is run instead of the programs that fill a root filesystem; it keeps what was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *programs: str) -> None:
        self.asked: list[tuple[str, ...]] = []
        self.root = Path()
        sandbox = image_build.sandbox
        monkeypatch.setattr(sandbox, "program", lambda name, more="": name in programs or None)
        monkeypatch.setattr(sandbox, "run", self.run)
        monkeypatch.setattr(sandbox, "run_inside", self.run_inside)
        monkeypatch.setattr(image_build.apt_sources, "sources", lambda *words: self.sources)
        monkeypatch.setattr(image_build.rootfs, "finish", self.finish)

    sources = (
        apt_sources.Source("http://m.test/debian", "bookworm", "main", None),
        apt_sources.Source("http://m.test/debian-security", "bookworm-security", "main", None),
    )

    def run(self, argv, say, *, keep=(), environment=None):  # type: ignore[no-untyped-def]
        self.asked.append(tuple(argv))
        self.root = next(Path(word) for word in argv if "/.building-" in word)
        wanted = self.root / "usr/lib/systemd/system/multi-user.target.wants"
        wanted.mkdir(parents=True)
        for name in ("dbus.service", "systemd-user-sessions.service"):
            (wanted / name).symlink_to(f"../{name}")
        for folder in ("etc/apt/apt.conf.d", "etc/dpkg/dpkg.cfg.d", "etc/systemd/system",
                       "var/cache/apt/archives", "var/lib/apt/lists"):  # fmt: skip
            (self.root / folder).mkdir(parents=True)

    def run_inside(self, root, argv, say, *, keep=(), environment=None):  # type: ignore[no-untyped-def]
        self.asked.append(tuple(argv))
        self.lines = (root / "etc/apt/sources.list").read_text().splitlines()

    def finish(self, root, say, lock):  # type: ignore[no-untyped-def]
        units = root / "etc/systemd/system"
        wanted = root / "usr/lib/systemd/system/multi-user.target.wants"
        self.wanted = {path.name for path in wanted.iterdir()}
        self.masked = {path.name for path in units.iterdir() if os.readlink(path) == "/dev/null"}


@root
def test_debootstrap_does_it_where_mmdebstrap_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in = Bootstrap(monkeypatch, "debootstrap")
    image_build.build(tmp_path, "12", os.uname().machine, lambda line: None)

    (unpack, (shell, *_, script, _, place)) = stand_in.asked
    assert "debootstrap" == unpack[0]
    assert ("bookworm", str(stand_in.root), "http://m.test/debian") == unpack[-3:]
    assert [source.line for source in stand_in.sources] == stand_in.lines
    assert ("sh", "/") == (shell, place)
    for word in ("dist-upgrade", "dracut-network", "linux-image-", "firmware-realtek"):
        assert word in script


@root
def test_mmdebstrap_is_taken_where_there_are_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in = Bootstrap(monkeypatch, "debootstrap", "mmdebstrap")
    image_build.build(tmp_path, "12", os.uname().machine, lambda line: None)

    ((program, *_, first, second),) = stand_in.asked
    assert "mmdebstrap" == program
    assert tuple(source.line for source in stand_in.sources) == (first, second)


@root
def test_with_neither_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Bootstrap(monkeypatch)
    with pytest.raises(BadImage, match="mmdebstrap is not installed, nor is debootstrap"):
        image_build.build(tmp_path, "12", os.uname().machine, lambda line: None)

    assert [] == left(tmp_path)


@root
def test_no_module_is_loaded_by_name_before_the_job_may_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what requires such a service is masked with it: else it would fail."""
    stand_in = Bootstrap(monkeypatch, "mmdebstrap")
    image_build.build(tmp_path, "12", os.uname().machine, lambda line: None)

    for name in ("configfs", "dm_mod", "drm", "efi_pstore", "fuse", "loop"):
        assert f"modprobe@{name}.service" in stand_in.masked
    assert {"sys-kernel-config.mount", "sys-fs-fuse-connections.mount"} <= stand_in.masked


@root
def test_the_bus_starts_when_somebody_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = Bootstrap(monkeypatch, "mmdebstrap")
    image_build.build(tmp_path, "12", os.uname().machine, lambda line: None)

    assert {"systemd-user-sessions.service"} == stand_in.wanted
    assert "dbus.socket" not in stand_in.masked


def test_a_build_under_way_is_not_swept(tmp_path: Path) -> None:
    with snapshot.new(tmp_path, "debian", "x86_64", "12") as making:
        (making.root / "file").write_text("here")
        snapshot.sweep(making.root.parents[1])

        assert (making.root / "file").exists()


MAKES_MANY = """\
import sys
from pathlib import Path
from appliance.boot.images import snapshot
for _ in range(100):
    with snapshot.new(Path(sys.argv[1]), "debian", "x86_64", "12") as making:
        (making.root / "file").touch()
        assert (making.root / "file").exists()
"""


@pytest.mark.slow
def test_makers_who_begin_and_end_at_the_same_moment_do_not_meet(tmp_path: Path) -> None:
    makers = [
        subprocess.Popen([sys.executable, "-c", MAKES_MANY, str(tmp_path)], stderr=subprocess.PIPE)
        for _ in range(3)
    ]

    said = [maker.communicate()[1] for maker in makers]
    assert [b""] * 3 == said
    assert [0] * 3 == [maker.returncode for maker in makers]
    assert list(tmp_path.rglob(".building-*")) == []


def test_the_versions_symlink_moves_to_the_new_snapshot(tmp_path: Path) -> None:
    for moment in (0.0, 86400.0):
        with snapshot.new(tmp_path, "debian", "x86_64", "12") as making:
            made = making.publish(moment)

    place = tmp_path / "os/debian/x86_64"
    assert made.name == "12-1970-01-02-00-00-00"
    assert os.readlink(place / "12") == made.name
    assert sorted(path.name for path in place.iterdir()) == [
        "12", "12-1970-01-01-00-00-00", "12-1970-01-02-00-00-00",
    ]  # fmt: skip


def test_another_architecture_is_refused_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emulation, "BINFMT", tmp_path / "none")
    other = "aarch64" if os.uname().machine != "aarch64" else "x86_64"

    with pytest.raises(BadImage, match="binfmt_misc; or build the image on such a machine"):
        image_build.build(tmp_path, "12", other, lambda line: None)


def test_what_mmdebstrap_wants_for_another_architecture_is_named_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emulation, "lacks", lambda arch: None)
    monkeypatch.setattr(sandbox, "program", lambda name: None if name == "arch-test" else name)
    other = "aarch64" if os.uname().machine != "aarch64" else "x86_64"

    with pytest.raises(BadImage, match="arch-test is not installed"):
        image_build.build(tmp_path, "12", other, lambda line: None)
    assert [] == left(tmp_path)


def imported(srv: Path, source: Path) -> Path:
    return image_import.import_(srv, source, "ours", "1", os.uname().machine, lambda line: None)


@root
def test_an_import_names_all_that_is_missing_at_once(tmp_path: Path) -> None:
    source = tmp_path / "rootfs"
    (source / "etc").mkdir(parents=True)
    srv = tmp_path / "srv"
    srv.mkdir()

    with pytest.raises(BadImage) as caught:
        imported(srv, source)

    for word in ("usr/", "boot/vmlinuz-", "dracut", "dhclient", "mount.cifs"):
        assert word in str(caught.value)
    assert left(srv) == []


@root
@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_folders_too_deep_in_each_other_are_refused_and_nothing_of_them_stays(
    tmp_path: Path, kind: str
) -> None:
    source, srv = tmp_path / "rootfs", tmp_path / "srv"
    (source / "etc").mkdir(parents=True)
    srv.mkdir()
    deep(source / "usr", 1100)
    if kind == "tar":
        subprocess.run(["tar", "-cf", tmp_path / "x.tar", "-C", source, "."], check=True)
    for _ in range(2):  # the second finds nothing of the first in its way
        with pytest.raises(BadImage, match=r"'usr/d/d/\.\.\.' has more than 200 folders in each"):
            imported(srv, source if kind == "folder" else tmp_path / "x.tar")
        assert left(srv) == []
    trees.remove(source)


@root
def test_what_a_killed_import_left_is_removed_by_the_next_however_deep(tmp_path: Path) -> None:
    place = tmp_path / "srv/os/ours" / os.uname().machine
    place.mkdir(parents=True)
    deep(place / ".building-1", 1100)
    (tmp_path / "rootfs/etc").mkdir(parents=True)

    with pytest.raises(BadImage, match="lacks usr/"):
        imported(tmp_path / "srv", tmp_path / "rootfs")
    assert [] == list(place.iterdir())


@root
def test_devices_pipes_and_sockets_are_left_out_by_name(tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / "var").mkdir()
    os.mkfifo(tmp_path / "var/pi\npe")
    os.mknod(tmp_path / "var/disk", stat.S_IFBLK | 0o666, os.makedev(7, 0))
    os.mknod(tmp_path / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "sock"))
    (tmp_path / "su").write_text("x")
    (tmp_path / "su").chmod(0o4755)
    (tmp_path / "link").symlink_to("/dev/null")
    special_files.strip(tmp_path, said.append)

    assert ["link", "su", "var"] == sorted(os.listdir(tmp_path))
    assert [] == os.listdir(tmp_path / "var")
    assert [
        "left out: 'null' (device)", "left out: 'sock' (socket)", "left out: 'var/disk' (device)",
        r"left out: 'var/pi\npe' (pipe)",
        "1 programs give rights to whoever runs them: `appliance doctor` looks at it",
    ] == said  # fmt: skip
    assert 0o4755 == stat.S_IMODE((tmp_path / "su").stat().st_mode)


def archive(file: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(file, "w") as tar:
        for member, data in members:
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return file


def member(name: str, target: str = "", kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, target, 0o644
    return info


@root
@pytest.mark.parametrize(
    "members",
    [
        [(member("../escaped"), b"x")],
        [(member("etc/../../escaped"), b"x")],
        [(member("out", "{outside}", tarfile.SYMTYPE), b""), (member("out/escaped"), b"x")],
        [(member("out", "../..", tarfile.SYMTYPE), b""), (member("out/escaped"), b"x")],
        [(member("{outside}/escaped"), b"x")],
    ],
    ids=["dotdot", "dotdot-inside", "absolute-link", "relative-link", "absolute"],
)
def test_no_file_of_an_archive_lands_outside(
    tmp_path: Path, members: list[tuple[tarfile.TarInfo, bytes]]
) -> None:
    outside, srv = tmp_path / "outside", tmp_path / "srv"
    outside.mkdir()
    srv.mkdir()
    for info, _ in members:
        info.name = info.name.replace("{outside}", str(outside))
        info.linkname = info.linkname.replace("{outside}", str(outside))

    with pytest.raises(BadImage):
        imported(srv, archive(tmp_path / "bad.tar", *members))

    assert list(tmp_path.rglob("escaped")) == []
    assert left(srv) == []


@root
@pytest.mark.parametrize("target", ["{outside}/secret", "../../../../../outside/secret"])
def test_no_hard_link_of_an_archive_reaches_a_file_outside(tmp_path: Path, target: str) -> None:
    """Through one, a box's root filesystem would hold the server's file, and change it."""
    srv = tmp_path / "srv"
    (tmp_path / "outside").mkdir()
    srv.mkdir()
    secret = tmp_path / "outside/secret"
    secret.write_text("the server's own")
    link = member("secret", target.replace("{outside}", str(secret.parent)), tarfile.LNKTYPE)

    with pytest.raises(BadImage):
        imported(srv, archive(tmp_path / "bad.tar", (link, b"")))

    assert secret.stat().st_nlink == 1
    assert left(srv) == []
