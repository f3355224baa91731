"""Trees as strangers make them: deeper than Python's walks go, and with traps in them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from appliance.fs import trees

DEEP = 5000  # beyond Python's recursion, a process's descriptors, and the longest path


def deep(root, levels, name="d"):
    """So many folders in each other, and a file in the last."""
    root.mkdir(exist_ok=True)
    here = os.open(root, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("last", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)
    return root


@pytest.mark.parametrize("name", ["d", "long-" * 50])
def test_a_tree_is_removed_however_deep_it_is(tmp_path, name):
    root = deep(tmp_path / "tree", DEEP if name == "d" else 500, name)
    (root / "d").mkdir(exist_ok=True)
    (root / "d/file").write_text("x")
    (root / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").write_text("x")
    (root / "d/out").symlink_to("../../outside")
    trees.remove(root)

    assert ["outside"] == os.listdir(tmp_path)
    assert ["file"] == os.listdir(tmp_path / "outside")


def test_a_removal_that_was_killed_is_gone_on_with(tmp_path, monkeypatch):
    root = deep(tmp_path / "tree", 50)
    real, calls = os.rmdir, []

    def killed(*args, **more):
        calls.append(args)
        if len(calls) == 20:
            raise KeyboardInterrupt
        real(*args, **more)

    monkeypatch.setattr(os, "rmdir", killed)
    with pytest.raises(KeyboardInterrupt):
        trees.remove(root)
    assert root.exists()
    trees.remove(root)
    assert not root.exists()


def test_a_link_in_the_place_of_the_tree_is_not_followed(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").write_text("x")
    (tmp_path / "tree").symlink_to("outside")

    with pytest.raises(NotADirectoryError):
        trees.remove(tmp_path / "tree")
    assert (tmp_path / "outside/file").exists()


def test_a_walk_ends_where_it_is_too_deep_and_says_where(tmp_path):
    root = deep(tmp_path / "tree", DEEP)
    (root / "flat").mkdir()

    folders = list(trees.walk(root))
    assert trees.DEPTH_MAX == max(folder.depth for folder in folders)
    assert {"d", "flat"} == {entry.name for entry in folders[0].entries}
    assert "d/d/d/..." == trees.too_deep(root)
    trees.remove(root)


def test_as_deep_as_allowed_is_not_too_deep(tmp_path):
    assert trees.too_deep(deep(tmp_path / "tree", trees.DEPTH_MAX)) is None
    assert trees.too_deep(deep(tmp_path / "other", trees.DEPTH_MAX + 1))
    assert trees.too_deep(deep(tmp_path / "long", 30, "x" * 200)).endswith("/...")


def test_a_loop_of_links_is_no_loop_for_a_walk(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/b").symlink_to("..")

    assert [str(tmp_path), str(tmp_path / "a")] == [each.path for each in trees.walk(tmp_path)]


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="it mounts")
@pytest.mark.parametrize("how", ["-t tmpfs tmpfs", "--bind {outside}"])
def test_what_is_mounted_in_a_tree_is_named_and_stays(tmp_path, how):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").write_text("x")
    (tmp_path / "tree/a b/c").mkdir(parents=True)
    words = how.format(outside=tmp_path / "outside")
    program = (
        "from pathlib import Path; from appliance.fs import trees; import sys\n"
        "root = Path(sys.argv[1])\n"
        "print(trees.mounts_in(root))\n"
        "try: trees.remove(root)\n"
        "except OSError as error: print(error.errno)\n"
    )
    script = f'mount {words} "{tmp_path}/tree/a b/c" && exec "$0" -c "$1" "{tmp_path}/tree"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, sys.executable, program],
        capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert f"['{tmp_path}/tree/a b/c']\n16\n" == done.stdout
    assert ["file"] == os.listdir(tmp_path / "outside")
