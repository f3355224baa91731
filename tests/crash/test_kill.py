"""After `kill -9` at any moment the disk knows all that anybody was told.

CRASH_ROUNDS=1000 kills more often than `make test` does; CRASH_SEED repeats the draws of a run
(not its timing, which is the machine's).
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import trio

from appliance.jobs.job import Booting, Held, Offered, PostRun, Running
from appliance.jobs.store import Store
from appliance.keep.repair import rescue
from appliance.keep.state import journal as journals
from appliance.keep.state import replay
from tests.crash.load import Box, Told, World, operator, submitter
from tests.disks import MemoryDisk
from tests.test_serve import Appliance

ROUNDS = int(os.environ.get("CRASH_ROUNDS", "200"))
SEED = int(os.environ.get("CRASH_SEED", "0")) or random.SystemRandom().randrange(1, 2**32)
CHAPTER = 20  # kills on one state folder: jobs gather, and a start takes longer and longer
SUBMITTERS = 6
BOXES = 20
PAUSE_S = 0.1  # at most, between two submits of one person
LIFE_S = 0.3  # of a server after it said that it is ready, at most; a slow machine gives it more
# Of one chapter and the next: in the first jobs come far, in the second snapshots are written all
# the time, and kills come meanwhile.
JOURNAL_BYTES = (30_000, 1_000)
# Boxes that lost a boot are back soon.
MORE_CONFIG = """
[space]
journal = {journal}
[waits]
backoff_first = 0.02
backoff_max = 0.05
[limits]
boots_in_flight = 1000
finished_in_memory = 3
"""


class Starter:
    """Starts servers (starter.py)."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.starter"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def say(self, **wanted: object) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(wanted), file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())

    def close(self) -> None:
        with self._process:
            assert self._process.stdin is not None
            self._process.stdin.close()


class Server:
    """One state folder, and the lives of its server."""

    def __init__(self, folder: Path, starter: Starter, journal: int) -> None:
        self.folder, self.starter = folder, starter
        self.appliance = Appliance(folder)
        with self.appliance.config.open("a") as config:
            config.write(MORE_CONFIG.format(journal=journal))
        (folder / "hosts").mkdir()
        for number in range(BOXES):
            text = f"mac: [{mac(number)}]\narch: x86_64\n"
            (folder / f"hosts/box-{number}.yaml").write_text(text)

    def start(self) -> int:
        """Its pid, once it is ready."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
            path = self.folder / "notify"
            path.unlink(missing_ok=True)
            ready.bind(str(path))
            ready.settimeout(60)
            config = str(self.appliance.config)
            pid = self.starter.say(
                arguments=["--config", config, "serve"],
                notify=str(path),
                log=str(self.folder / "log"),
            )
            try:
                assert b"READY=1" == ready.recv(100)
            except TimeoutError:
                raise AssertionError((self.folder / "log").read_text()[-2000:]) from None
        return pid

    def kill(self, pid: int) -> None:
        """Returns when it is gone."""
        os.kill(pid, signal.SIGKILL)
        status = self.starter.say()
        log = (self.folder / "log").read_text()
        assert signal.SIGKILL == os.WTERMSIG(status), log[-2000:]
        assert "Traceback" not in log, log[-4000:]

    def files(self) -> dict[str, bytes]:
        """What lies on the disk."""
        folder = self.folder / "state"
        return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def mac(number: int) -> str:
    return f"02-00-00-00-00-{number:02x}"


class Checker:
    """Compares the disk with what was told, after each kill."""

    def __init__(self, told: Told) -> None:
        self.told = told
        self.owners: dict[str, tuple[str, str]] = {}  # job id -> submitter, key: for ever
        self.tokens: dict[str, tuple[str, int]] = {}  # token -> job, attempt
        self.counter = 0
        self.sometimes: Counter[str] = Counter()

    async def check(self, files: dict[str, bytes], folder: Path) -> None:
        self._note(files)
        disk = MemoryDisk()
        disk.files = files
        store, _ = await journals.restore(disk)
        store.check()
        self.sometimes["jobs were archived"] += store.archived > 0
        self.sometimes["documents were filed"] += any(
            job.document.body is None for job in store.jobs.values()
        )
        store = rescue.whole(folder, store)  # with all that lies in the archive
        self._check_jobs(store)
        self._check_boxes(store)

    def _note(self, files: dict[str, bytes]) -> None:
        there = replay.files_among(files)
        self.sometimes["a snapshot was being written"] += any(".new" in name for name in files)
        self.sometimes["journals waited for their snapshot"] += len(there.journals) > 1

    def _check_jobs(self, store: Store) -> None:
        ids = Counter(name for several in self.told.jobs.values() for name in several)
        assert not [name for name, count in ids.items() if count > 1], "an id was given twice"
        by_key: dict[str, list[str]] = {}
        for job in store.jobs.values():
            by_key.setdefault(job.key, []).append(job.id)
        for key, told in self.told.jobs.items():
            assert told == by_key.get(key), f"{key}: told {told}, kept {by_key.get(key)}"
        self.sometimes["a job was kept and its answer lost"] += len(by_key) > len(self.told.jobs)
        for name, owner in self.owners.items():
            assert name in store.jobs, f"{name} was on the disk, and is gone"
            job = store.jobs[name]
            assert owner == (job.submitter, job.key), f"{name} is another job now"
        self.owners = {job.id: (job.submitter, job.key) for job in store.jobs.values()}
        assert self.counter <= store.counter
        assert max((job.number for job in store.jobs.values()), default=0) <= store.counter
        self.counter = store.counter

    def _check_boxes(self, store: Store) -> None:
        for name, box in self.told.scripts:
            boxes = {attempt.box for attempt in store.jobs[name].attempts}
            assert box in boxes, f"{box} was told to boot {name}; the disk knows {boxes}"
        for name, box, token in self.told.fetched:
            fits = [(a.box, a.number) for a in store.jobs[name].attempts if a.token == token]
            assert [box] == [who for who, _ in fits], f"{box} fetched {name} as {token}: {fits}"
            attempt = (name, fits[0][1])
            assert attempt == self.tokens.setdefault(token, attempt)
        for name, token, word in self.told.reports:
            state = store.jobs[name].state
            attempt = store.jobs[name].attempt
            if attempt is not None and attempt.token == token:
                behind = BEHIND[word]
                assert not isinstance(state, behind), f"{name} said {word}, and is {state}"


# What a job cannot be any more once its report was answered.
BEHIND = {
    "running": Offered | Booting,
    "post_run": Offered | Booting | Running,
    "finished": Offered | Booting | Running,
    "close": Offered | Booting | Running | PostRun | Held,
}


@pytest.mark.slow
async def test_kill_9_under_load_loses_nothing_that_was_told(tmp_path):
    print(f"CRASH_SEED={SEED} CRASH_ROUNDS={ROUNDS}")
    rng = random.Random(SEED)
    sometimes: Counter[str] = Counter()
    starter = Starter()
    began, starting = time.monotonic(), 0.0
    try:
        for chapter in range(-(-ROUNDS // CHAPTER)):
            rounds = min(CHAPTER, ROUNDS - chapter * CHAPTER)
            folder = tmp_path / str(chapter)
            folder.mkdir()
            server = Server(folder, starter, JOURNAL_BYTES[chapter % len(JOURNAL_BYTES)])
            seen, took = await play(server, rounds, rng)
            sometimes += seen
            starting += took
    except BaseException as error:
        error.add_note(f"CRASH_SEED={SEED}")
        raise
    finally:
        starter.close()
    took = time.monotonic() - began
    print(f"{ROUNDS} kills in {took:.0f} s, of which {starting:.0f} s to start; {dict(sometimes)}")
    for what in EXPECTED if ROUNDS >= 100 else ():
        assert sometimes[what], f"never happened: {what}"


EXPECTED = (
    "a job was kept and its answer lost",
    "journals waited for their snapshot",  # which was under way; its file is there only in part
    "a submit was asked again",
    "a parked box lost its server",
    "a box lost power",
    "a box fetched a job",
    "a box finished a job",
)


async def play(server: Server, rounds: int, rng: random.Random) -> tuple[Counter[str], float]:
    """One chapter: (what happened, seconds spent in starts)."""
    told = Told()
    world = World(
        server.appliance.tmp / "run/control.sock", server.appliance.ports["scheduler"], told
    )
    checker, starting = Checker(told), 0.0
    async with trio.open_nursery() as nursery:
        for number in range(SUBMITTERS):
            child = random.Random(rng.random())
            nursery.start_soon(submitter, world, f"person{number}", child, PAUSE_S)
        for number in range(BOXES):
            child = random.Random(rng.random())
            box = Box(world, f"box-{number}", mac(number), f"127.0.1.{number + 1}", child)
            nursery.start_soon(box.live)
        nursery.start_soon(operator, world)
        for _ in range(rounds):
            began = time.monotonic()
            pid = await trio.to_thread.run_sync(server.start)
            took = time.monotonic() - began
            starting += took
            await trio.sleep(rng.uniform(0, max(LIFE_S, took)))
            await trio.to_thread.run_sync(server.kill, pid)
            await checker.check(server.files(), server.folder / "state")
        nursery.cancel_scope.cancel()
    told.sometimes["a box fetched a job"] += len(told.fetched)
    told.sometimes["a box finished a job"] += sum(word == "close" for *_, word in told.reports)
    told.sometimes["a job was acknowledged"] += len(told.jobs)
    return told.sometimes + checker.sometimes, starting
