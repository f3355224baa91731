"""boot/images/chroot_paths: a path in a root filesystem lies in it, whatever its links say.

The real chroot is asked too, where we may: it is what the walk claims to be.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys

import pytest

from appliance.boot.images import chroot_paths
from appliance.errors import BadImage

SEEDS = 20


@pytest.fixture
def host(tmp_path):
    """A folder that is not the root filesystem's."""
    (tmp_path / "host").mkdir()
    (tmp_path / "host/file").write_text("the host's own")
    return tmp_path / "host"


@pytest.fixture
def root(tmp_path, host):
    made = tmp_path / "root"
    (made / "usr/lib").mkdir(parents=True)
    (made / "usr/lib/file").write_text("inside")
    return made


@pytest.mark.parametrize(("target", "path"), [
    ("/usr/lib", "link/file"), ("usr/lib", "link/file"), ("/usr/lib/file", "link"),
    ("../../../usr/lib", "link/file"), ("usr/./lib//", "link/file"),
    ("/usr/lib/../lib/file", "link"),
])  # fmt: skip
def test_a_link_is_followed_inside(root, target, path):
    (root / "link").symlink_to(target)

    assert root / "usr/lib/file" == chroot_paths.resolve(root, path)
    assert b"inside" == chroot_paths.read(root, path)


@pytest.mark.parametrize("path", ["../host/file", "usr/../../host/file", "/../../host/file"])
def test_dots_stop_at_the_top(root, path):
    assert root / "host/file" == chroot_paths.resolve(root, path)
    with pytest.raises(BadImage, match="cannot be read"):
        chroot_paths.read(root, path)


def test_an_absolute_link_to_the_hosts_file_is_not_the_hosts_file(root, host):
    (root / "link").symlink_to(host / "file")

    assert not chroot_paths.has(root, "link")
    with pytest.raises(BadImage, match="cannot be read"):
        chroot_paths.read(root, "link")


@pytest.mark.parametrize("target", ["link", "/link", "usr/../link", "/link/x"])
def test_a_link_to_itself_is_said(root, target):
    (root / "link").symlink_to(target)

    with pytest.raises(BadImage, match="leads to itself"):
        chroot_paths.resolve(root, "link/file")


def test_what_is_written_or_removed_replaces_the_link_and_spares_its_target(root, host):
    for name in ("one", "two", "three"):
        (root / name).symlink_to(host / "file")

    chroot_paths.write(root, "one", b"ours")
    chroot_paths.link(root, "two", "one")
    chroot_paths.remove(root, "three")

    assert "the host's own" == (host / "file").read_text()
    assert (b"ours", "one") == ((root / "one").read_bytes(), os.readlink(root / "two"))
    assert not os.path.lexists(root / "three")


def test_a_folder_behind_a_link_is_not_removed(root, host):
    (root / "link").symlink_to(host)
    chroot_paths.remove(root, "link")

    assert (host / "file").exists()


def test_a_pipe_is_no_file_and_is_not_waited_for(root):
    os.mkfifo(root / "pipe")

    with pytest.raises(BadImage, match="is no file"):
        chroot_paths.read(root, "pipe")


def tangled(root, host, rng):
    """Folders, files and links at random, many of which lead out."""
    places = [root]
    names = "abc"
    for number in range(30):
        place = rng.choice(places) / rng.choice(names)
        if os.path.lexists(place):
            continue
        kind = rng.choice(("folder", "file", "link", "link"))
        if kind == "folder":
            place.mkdir()
            places.append(place)
        elif kind == "file":
            place.write_text(f"file {number}")
        else:
            words = [rng.choice(("..", ".", "", *names)) for _ in range(rng.randint(1, 4))]
            start = rng.choice(("", "/", f"{host}/", "../../"))
            place.symlink_to(start + "/".join(words) or ".")


# Run as root in a child, which is the one that never comes back out.
CHROOTED = """\
import json, os, sys
root, wanted = json.load(sys.stdin)
os.chroot(root)
os.chdir("/")
found = []
for name in wanted:
    try:
        with open("/" + name, "rb") as file:
            found.append(file.read().decode())
    except OSError:
        found.append(None)
print(json.dumps(found))
"""


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="chroot needs root")
@pytest.mark.parametrize("seed", range(SEEDS))
def test_it_reads_what_a_chroot_reads(root, host, seed):
    """Against the kernel, over random trees: the same bytes, or nothing in both."""
    rng = random.Random(seed)
    tangled(root, host, rng)
    wanted = [
        "/".join(rng.choice(("..", *"abc")) for _ in range(rng.randint(1, 5))) for _ in range(200)
    ]
    wanted.append("usr/lib/file")
    said = subprocess.run(
        [sys.executable, "-I", "-c", CHROOTED],
        input=json.dumps([str(root), wanted]), capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip

    for name, kernel in zip(wanted, json.loads(said), strict=True):
        try:
            ours = chroot_paths.read(root, name).decode()
        except BadImage:
            ours = None
        # `file/..` is a folder for the walk and an error for the kernel; nothing else may differ.
        assert kernel == ours or (kernel is None and ours in files(root)), (
            seed, name, kernel, ours,
        )  # fmt: skip
    assert "inside" == json.loads(said)[-1]


def files(root):
    """What the files of this root hold: nothing else may ever be read."""
    return {
        path.read_text() for path in root.rglob("*") if path.is_file() and not path.is_symlink()
    }
