"""lab/namespace and lab/lab: nothing of a lab outlives it, and labs don't see each other."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import attrs
import pytest
import trio

from appliance import config as configuration
from appliance.config import Config, Network, Paths, Waits
from lab.lab import toml
from lab.namespace import SERVER, Overlay, namespace, signal_program

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


async def said(inside, *command: str) -> str:
    process = await inside.start(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return b"".join([bytes(chunk) async for chunk in process.stdout]).decode()


def test_a_labs_configuration_file_says_what_the_lab_was_given():
    given = Config(
        lab="lab-2",
        network=Network(interface="lab0", dhcp_range=("10.0.0.1", "10.0.0.2"), router="10.0.0.3"),
        paths=Paths(srv=Path('/x/y "z"')),
        waits=attrs.evolve(Waits(), park=2.5),
    )

    assert given == configuration.parse(toml(given), "lab.toml")
    assert Config() == configuration.parse(toml(Config()), "lab.toml")


@needs_root
@pytest.mark.root
async def test_two_labs_have_the_same_addresses_and_do_not_meet():
    async with namespace(2) as one, namespace(1) as other:
        for inside, taps in ((one, 2), (other, 1)):
            links = await said(inside, "ip", "-brief", "address")
            assert f"{SERVER}/24" in links
            assert taps == links.count("tap")
        await one.start(
            ["busybox", "nc", "-l", "-p", "3000"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        with trio.fail_after(10):
            while not one.listening(3000):  # noqa: ASYNC110
                await trio.sleep(0.02)
        assert not other.listening(3000)


@needs_root
@pytest.mark.root
async def test_what_is_changed_in_an_overlay_is_forgotten(tmp_path):
    lower, merged = tmp_path / "lower", tmp_path / "merged"
    lower.mkdir()
    (lower / "kernel").write_text("as built")

    async with namespace(0, [Overlay(lower, merged)]) as inside:
        assert "as built" == await said(inside, "cat", str(merged / "kernel"))
        inside.path(merged / "kernel").unlink()
        assert "No such file" in await said(inside, "cat", str(merged / "kernel"))

    assert "as built" == (lower / "kernel").read_text()
    assert [] == list(merged.iterdir())


@needs_root
@pytest.mark.root
async def test_a_programs_exit_status_and_signals_pass_through():
    async with namespace(0) as inside:
        process = await inside.start(
            ["sh", "-c", 'trap "exit 7" TERM; echo ready; while :; do sleep 0.05; done'],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert b"ready\n" == bytes(await process.stdout.receive_some())
        signal_program(process, signal.SIGTERM)

        assert 7 == await process.wait()


OWNER = """
import subprocess, sys, trio
from pathlib import Path
from lab.namespace import namespace

async def main():
    async with namespace(1, scratch=Path(sys.argv[1])) as inside:
        await inside.start(["sleep", "1000"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not (children := Path(f"/proc/{inside._started[0].pid}/task/"
                                    f"{inside._started[0].pid}/children").read_text().split()):
            await trio.sleep(0.01)
        print(f"{inside.holder} {children[0]} .", flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


@needs_root
@pytest.mark.root
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
async def test_however_its_owner_ends_nothing_is_left(how, tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (scratch / "socket").touch()
    process = await trio.lowlevel.open_process(
        [sys.executable, "-c", OWNER, str(scratch)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    async with process.stdout:
        told = b""
        while b"." not in told:
            told += await process.stdout.receive_some()
    pids = [int(word) for word in told.split()[:2]]
    dead = [pid for pid in pids if not alive(pid)]

    process.send_signal(how)
    await process.wait()
    assert [] == dead

    with trio.fail_after(10):
        while scratch.exists() or any(map(alive, pids)):  # noqa: ASYNC110
            await trio.sleep(0.02)
