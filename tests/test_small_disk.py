"""The real process on real file systems that are small, full, or broken: root mounts them."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.test_serve import MAC, Appliance, hello, rest

SPACE = """
[space]
reserve = 100000
warn = 600000
low = 300000
journal = 100000
[waits]
answer = 1
"""
WITHIN_S = 20.0  # the watch looks every 5 s


def appliance(folder: Path) -> Appliance:
    found = Appliance(folder)
    with found.config.open("a") as config:
        config.write(SPACE)
    return found


def mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True, capture_output=True)


@pytest.fixture
def tiny(tmp_path):
    """A state folder of 1 MiB."""
    state = tmp_path / "state"
    state.mkdir()
    mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", str(state))
    yield from _running(tmp_path, state)


@pytest.fixture
def ext4(tmp_path):
    """A state folder on an ext4 of its own."""
    image, state = tmp_path / "image", tmp_path / "state"
    image.write_bytes(bytes(8 * 2**20))
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True, capture_output=True)
    state.mkdir()
    mount("-o", "loop", str(image), str(state))
    yield from _running(tmp_path, state)


def _running(folder: Path, state: Path):
    found = appliance(folder)
    try:
        found.start()
        yield found
    finally:
        if found.process is not None:
            found.process.kill()
            found.process.wait()
        subprocess.run(["umount", "-l", str(state)], check=False)


def fill(path: Path) -> None:
    """Until there is no room left."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


def until(true, what):
    deadline = time.monotonic() + WITHIN_S
    while not true():
        assert time.monotonic() < deadline, f"not within {WITHIN_S:.0f} s: {what}"
        time.sleep(0.3)  # the world's clock is what this test is about


def lines(server: Appliance, words: str) -> int:
    return sum(words in line for line in (server.tmp / "log").read_text().splitlines())


def jobs(server: Appliance) -> list[str]:
    return [row["id"] for row in reversed(json.loads(server.run("jobs", "--json").stdout))]


@pytest.mark.root
def test_a_full_file_system_takes_no_jobs_keeps_what_runs_and_opens_again(tiny, tmp_path):
    tiny.run("submit", hello(tmp_path))
    filler = tmp_path / "state/filler"
    fill(filler)
    tiny.run("host", "add", "box-1", "--mac", MAC)  # fits into what was set aside
    script = rest(tiny.ask())
    until(lambda: tiny.run("submit", hello(tmp_path), check=False).returncode == 4, "refused")
    refused = tiny.run("submit", hello(tmp_path), check=False).stderr

    assert "/job_initrd_tmpfs/lab.1/job.cgz" in script
    assert "Nothing was taken: submit again when there is room" in refused
    assert "no new jobs are taken: " in tiny.run("status").stdout
    filler.unlink()
    until(lambda: tiny.run("submit", hello(tmp_path), check=False).returncode == 0, "taken again")
    before = jobs(tiny)
    assert 1 == lines(tiny, "new jobs are taken again")
    tiny.process.kill()
    tiny.process.wait()
    tiny.start()

    assert before == jobs(tiny)
    assert "Traceback" not in (tmp_path / "log").read_text()


@pytest.mark.root
def test_a_server_starts_on_a_full_file_system_with_what_was_set_aside(tiny, tmp_path):
    tiny.run("submit", hello(tmp_path))
    fill(tmp_path / "state/filler")
    tiny.process.kill()
    tiny.process.wait()
    tiny.start()

    assert ["lab.1"] == jobs(tiny)
    assert 4 == tiny.run("submit", hello(tmp_path), check=False).returncode


@pytest.mark.root
def test_a_file_system_that_went_read_only_refuses_jobs_and_forgets_nothing(ext4, tmp_path):
    ext4.run("submit", hello(tmp_path))
    mount("-o", "remount,abort", str(tmp_path / "state"))
    ext4.run("host", "add", "box-1", "--mac", MAC, check=False)  # told that it is not known
    refused = ext4.run("submit", hello(tmp_path), check=False)

    assert 4 == refused.returncode
    assert "the state cannot be written: Read-only file system" in refused.stderr
    assert ["lab.1"] == jobs(ext4)
    ext4.process.kill()
    ext4.process.wait()
    checked = ext4.run("state", "check")
    assert "1 job (1 submit)" in checked.stdout
    started = ext4.run("serve", check=False)
    assert 4 == started.returncode
    assert "Read-only file system" in started.stderr
    assert "Traceback" not in started.stderr + (tmp_path / "log").read_text()


# A disk whose syncs fail, inside the real process.
FAILING = """
import errno, os, sys, threading
from appliance import cli
from appliance.keep.state.disk import FileCalls

sync, state, key = FileCalls.sync, sys.argv.pop(1), sys.argv.pop(1).encode()

def fails(self, name):
    if name is not None and key in open(os.path.join(state, name), "rb").read():
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    sync(self, name)

FileCalls.sync = fails
cli.main()
"""


@pytest.mark.slow
def test_a_failed_sync_stops_the_process_and_a_restart_finds_what_was_told(tmp_path):
    server = appliance(tmp_path)
    server.start()
    server.run("submit", hello(tmp_path))
    assert 0 == server.stop()
    failing = subprocess.Popen(
        [
            sys.executable,
            "-c",
            FAILING,
            str(tmp_path / "state"),
            "0123456789abcdef",
            "--config",
            str(server.config),
            "serve",
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    until((tmp_path / "run/control.sock").exists, "started")
    lost = server.run("submit", "--key", "0123456789abcdef", hello(tmp_path), check=False)
    _, said = failing.communicate(timeout=30)

    assert 4 == failing.returncode
    last = said.splitlines()[-1]
    assert last.startswith("appliance: journal-")
    assert last.endswith("a sync of the state failed: Input/output error")
    assert "Traceback" not in said
    assert 6 == lost.returncode
    assert "the server went away\nIt is not known whether the jobs were taken." in lost.stderr
    assert "say the same again with --key 0123456789abcdef" in lost.stderr
    server.start()
    again = server.run("submit", "--key", "0123456789abcdef", hello(tmp_path)).stdout

    assert again.startswith("lab.2")
    assert ["lab.1", "lab.2"] == jobs(server)
    assert 4 == server.run("state", "check", check=False).returncode
    assert f"pid {server.process.pid}" in server.run("state", "export", check=False).stderr
    server.stop()
