"""The worst input at every door: nobody keeps the others waiting, and nobody fills the memory.

The real process in a network of its own; strangers and a testbox are other machines there, each
with several addresses.  How late its loop was, the server says itself.  A machine that is busy
with other things makes any loop late, so an attack that goes over the bound is played again against
a new server: what the server does itself, it does each time.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from appliance.control.verb import VERBS
from appliance.scheduler import accounts
from appliance.web.asgi import Paths
from lab.namespace import BRIDGE, SERVER, namespace, signal_program
from tests.lab import open_lab
from tests.machines import machine
from tests.test_serve import Appliance, make_image

from . import largest, worst
from .worst import ACCOUNT, BOX, FOLDER, GROUP, NAMES, STRANGER

STALL_S = 0.1
MEMORY_BYTES = 64 * 2**20
# What the allocator keeps of three hundred attacks one after the other, here and there a page.
KEPT_BYTES = 2 * MEMORY_BYTES
AGAIN = 2  # more tries of an attack that went over
AGAIN_MAX = 10  # attacks: where more go over, it is not the machine
MAC = "52:54:00:00:00:05"
MACS = {BOX: MAC, STRANGER: "52:54:00:00:00:66"}
NETS = {BOX: 5, STRANGER: 100}  # the last part of the first address
ADDRESSES = 20
PORTS = ("scheduler", "os", "initrd", "upload", "results", "monitor")
HERE, PLAYER = Path(__file__).parents[2], "tests.bad_input.player"
READY_S = 30
STOP_S = 90  # transfers that nobody reads any more get a minute


async def doors() -> set[str]:
    """Every door of the program, by what it answers."""
    found = set()
    async with open_lab() as lab:
        assert {*lab.wire.app._by_port} == {getattr(lab.config.ports, name) for name in PORTS}
        for name in PORTS:
            app = lab.wire.app._by_port[getattr(lab.config.ports, name)]
            if not isinstance(app, Paths):
                found.add(name)
                continue
            found |= {f"{name} {prefix}" for prefix, _ in app._by_prefix}
            found |= {f"{name} {end}" for end in app._by_end}
            found |= {f"{name} ws {prefix}" for prefix in app._sockets}
            if (small := getattr(app._other, "url_map", None)) is None:
                found.add(name)
                continue
            rules = {rule.rule for rule in small.iter_rules()}
            found |= {f"{name} {_short(rule)}" for rule in rules}
        found |= {f"control {verb}" for verb in VERBS}
    return found | {"control"}


def _short(rule: str) -> str:
    return "/<verb>" if rule.startswith("/<any(") else rule


async def test_each_door_of_the_program_is_attacked_here():
    work = worst.Work("lab.1", "t", "/result/x", "/os/x")
    attacks = [*worst.strangers(), *worst.box(work), *worst.control(), *worst.verbs(list(VERBS))]
    attacks += [*largest.strangers(), *largest.papers()]
    names = [attack.name for attack in attacks]

    assert await doors() == {attack.door for attack in attacks}
    assert [] == [name for name in set(names) if names.count(name) > 1]


class Lab(Appliance):
    """A server in a namespace, and the machines around it."""

    def __init__(self, tmp: Path, srv: Path) -> None:
        tmp.mkdir()
        super().__init__(tmp, SERVER)
        network = f'address = "{SERVER}"\ninterface = "{BRIDGE}"\nnetmask = "255.255.255.0"\n'
        network += 'dhcp_range = ["172.28.0.2", "172.28.0.250"]\n'
        text = self.config.read_text().replace("[network]\n", f"[network]\n{network}")
        token = accounts.hashed(ACCOUNT["my_token"])
        account = {**ACCOUNT, "my_token": token}
        lines = [f'{key} = "{value}"\n' for key, value in account.items()]
        self.config.write_text(text.replace(f"{tmp}/srv", str(srv)) + "[accounts.ann]\n"
                               + "".join(lines))  # fmt: skip
        self.log = tmp / "log"
        self.control = tmp / "run/control.sock"

    @asynccontextmanager
    async def serving(self, inside):
        """The process, from when its control socket answers; it stops well when it is told."""
        command = [sys.executable, "-m", "appliance", "--config", str(self.config), "serve"]
        with self.log.open("ab") as log:
            process = await inside.start(command, stdout=log, stderr=log)
        with trio.fail_after(READY_S):
            while not self.control.exists():  # another process makes it
                assert process.poll() is None, self.log.read_text()
                await trio.sleep(0.05)
        yield
        signal_program(process, signal.SIGTERM)
        with trio.fail_after(STOP_S):
            ended = await process.wait()
        assert 0 == ended, self.log.read_text()[-3000:]
        assert "Traceback" not in self.log.read_text()

    async def played(self, inside, who, verbs, only):
        """What the player `who` printed."""
        first = NETS.get(who, 0)
        words = {
            "server": SERVER, "ports": self.ports, "control": str(self.control), "who": who,
            "only": only, "mac": MACS[BOX], "verbs": verbs,
            "addresses": [f"172.28.0.{first + n}" for n in range(ADDRESSES)],
        }  # fmt: skip
        command = ["env", f"PYTHONPATH={HERE}", sys.executable, "-m", PLAYER, json.dumps(words)]
        if who != GROUP:
            numbers = range(first + 1, first + ADDRESSES)
            more = "".join(f"ip address add 172.28.0.{n}/24 dev {who};" for n in numbers)
            inner = ["sh", "-c", f'{more} exec "$@"', "player", *command]
            command = machine(who, MACS[who], f"172.28.0.{first}/24", inner)
        out, errors = self.tmp / "out", self.tmp / "errors"
        with out.open("wb") as stdout, errors.open("wb") as stderr:
            process = await inside.start(command, stdout=stdout, stderr=stderr)
            status = await process.wait()
        rows = [json.loads(line) for line in out.read_text().splitlines()]
        assert 0 == status, (rows[-1:], errors.read_text()[-3000:], self.log.read_text()[-3000:])
        return rows


async def measured(tmp, srv, who, verbs, only=()):
    """{attack: (seconds late, bytes more)} of a new server, and what it kept of all of them.

    Seconds late: 0 where it was no new record.
    """
    async with namespace(0) as inside:
        lab = Lab(tmp, srv)
        async with lab.serving(inside):
            rows = await lab.played(inside, who, verbs, only)
    base, found, record = rows[0]["now"], {}, 0.0
    for row in rows:
        if "late" in row:
            found[row["name"]] = (row["late"] if row["late"] > record else 0.0, row["more"])
            record = max(record, row["late"])
    return found, rows[-1]["now"] - base


def over(found):
    """The attacks that cost more than they may."""
    return sorted(n for n, (late, more) in found.items() if late > STALL_S or more > MEMORY_BYTES)


@pytest.fixture(scope="module")
def srv(tmp_path_factory):
    made = tmp_path_factory.mktemp("stall") / "srv"
    make_image(made)
    folder = made / FOLDER.strip("/")
    folder.mkdir(parents=True)
    for n in range(NAMES):
        os.mknod(folder / f"{n:05}-{'x' * 60}")
    return made


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.parametrize("who", [STRANGER, BOX, GROUP])
async def test_the_worst_input_stalls_nobody_and_fills_no_memory(who, srv, tmp_path):
    verbs = list(VERBS)
    found, kept = await measured(tmp_path / "0", srv, who, verbs)
    for name, (late, more) in sorted(found.items(), key=lambda item: -item[1][0])[:20]:
        print(f"{late * 1000:6.0f} ms {more / 2**20:6.1f} MiB  {name}")
    bad, names = over(found), list(found)
    for n in range(1, AGAIN + 1):
        if 0 < len(bad) <= AGAIN_MAX:
            # Behind a record of the loop's, a lesser one is not seen: those are played again, too.
            late = [names.index(name) for name in bad if found[name][0] > STALL_S]
            names = [*bad, *names[min(late, default=len(names)) :]]
            found, _ = await measured(tmp_path / f"{n}", srv, who, verbs, names)
            print({name: found[name] for name in over(found)})
            bad, names = over(found), list(found)

    assert [] == bad
    assert kept < KEPT_BYTES
