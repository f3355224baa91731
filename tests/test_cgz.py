"""cpio archives, held against GNU cpio."""

from __future__ import annotations

import gzip
import subprocess

import pytest

from appliance.boot.script import cgz

JOB = [
    cgz.Entry("lkp/scheduled/job.yaml", b"suite: hello\n", 0o100664),
    cgz.Entry("lkp/scheduled/job.sh", b"#!/bin/sh\n", 0o100775),
]


def listing(archive: bytes) -> list[tuple[str, str, int]]:
    """What GNU cpio says: (mode, path, size)."""
    out = subprocess.run(
        ["cpio", "-tvn", "--quiet"], input=gzip.decompress(archive), capture_output=True, check=True
    ).stdout.decode()
    rows = [line.split(maxsplit=8) for line in out.splitlines()]
    return [(row[0], row[8], int(row[4])) for row in rows]


def test_gnu_cpio_lists_the_job_with_its_modes() -> None:
    assert [
        ("drwxr-xr-x", "lkp", 0),
        ("drwxr-xr-x", "lkp/scheduled", 0),
        ("-rwxrwxr-x", "lkp/scheduled/job.sh", 10),
        ("-rw-rw-r--", "lkp/scheduled/job.yaml", 13),
    ] == listing(cgz.pack(JOB))


def test_equal_entries_give_equal_bytes_in_any_order() -> None:
    assert cgz.pack(JOB) == cgz.pack(reversed(JOB))


def test_gnu_cpio_gets_back_what_was_put_in(tmp_path) -> None:
    entries = [*JOB, cgz.Entry("etc/link", b"../lkp", 0o120777), cgz.Entry("odd", bytes(4097))]

    subprocess.run(
        ["cpio", "-id", "--quiet"],
        input=gzip.decompress(cgz.pack(entries)),
        cwd=tmp_path,
        check=True,
    )

    assert b"suite: hello\n" == (tmp_path / "lkp/scheduled/job.yaml").read_bytes()
    assert bytes(4097) == (tmp_path / "odd").read_bytes()
    assert "../lkp" == str((tmp_path / "etc/link").readlink())


@pytest.mark.parametrize("path", ["../etc/passwd", "/etc/passwd", "a//b", "a/./b", "", "a\0b"])
def test_a_path_that_is_not_plain_and_relative_is_refused(path) -> None:
    with pytest.raises(ValueError, match="not a plain relative path"):
        cgz.pack([cgz.Entry(path)])


def test_one_path_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        cgz.pack([JOB[0], JOB[0]])
