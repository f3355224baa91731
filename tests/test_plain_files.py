"""fs/plain_files: files are read for what they are."""

from __future__ import annotations

import os
import socket
import tracemalloc

import pytest

from appliance.fs import plain_files


@pytest.fixture
def target(tmp_path):
    (tmp_path / "target").write_bytes(b"somebody's")
    return tmp_path / "target"


def make(kind, path, target):
    match kind:
        case "a symlink":
            path.symlink_to(target)
        case "a folder":
            path.mkdir()
        case "a pipe":
            os.mkfifo(path)
        case "a socket":
            with socket.socket(socket.AF_UNIX) as sock:
                sock.bind(str(path))


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY | os.O_CREAT, os.O_RDWR | os.O_CREAT])
@pytest.mark.parametrize("kind", ["a symlink", "a folder", "a pipe", "a socket"])
def test_what_is_no_plain_file_is_named_at_once(tmp_path, target, kind, flags):
    make(kind, tmp_path / "file", target)
    with pytest.raises(OSError, match=f"is {kind}, where a plain file belongs") as error:
        plain_files.open_(tmp_path / "file", flags)

    assert kind == plain_files.kind(tmp_path / "file")
    assert str(tmp_path / "file") == error.value.filename
    assert b"somebody's" == target.read_bytes()


def test_a_link_is_followed_only_where_that_is_said(tmp_path, target):
    (tmp_path / "file").symlink_to(target)
    assert b"somebody's" == plain_files.read(tmp_path / "file", follow=True)
    (tmp_path / "pipe").symlink_to(tmp_path / "fifo")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="is a pipe"):
        plain_files.read(tmp_path / "pipe", follow=True)


def test_a_file_is_read_up_to_a_size(target):
    assert b"somebody's" == plain_files.read(target, 10)
    with pytest.raises(OSError, match="is larger than 9 bytes"):
        plain_files.read(target, 9)


def test_a_file_of_holes_that_no_memory_holds_is_an_error_with_words(tmp_path):
    """`state check` ended with a trace where the owner of the state had made one."""
    with (tmp_path / "file").open("wb") as file:
        file.truncate(2**42)
    with pytest.raises(OSError, match="larger than the memory"):
        plain_files.read(tmp_path / "file")


def test_a_file_that_is_too_large_is_not_read_at_all(tmp_path):
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(2**40)
    tracemalloc.start()
    with pytest.raises(OSError, match="is larger than 268435456 bytes"):
        plain_files.read(tmp_path / "sparse", 2**28)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
