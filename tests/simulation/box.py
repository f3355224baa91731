"""A testbox: power, POST, iPXE's loop, a boot, a job, its reports, and the reboot.

iPXE's rules are those of docs/firmware.md#chaining: a connection that breaks sends it round its
loop, which begins with imgfree; what it fetched before is gone.
"""

from __future__ import annotations

import contextlib
import random
from typing import TYPE_CHECKING, Any, Final

import trio

from tests.lab import PINNED
from tests.simulation.determinism import sleep
from tests.simulation.network import job_in

if TYPE_CHECKING:
    from tests.simulation.lab import World

POST_S: Final = (20.0, 120.0)
SLOW_POST_S: Final = (600.0, 900.0)
RETRY_S: Final = 5.0  # boot.ipxe's loop
FICKLE_S: Final = 600.0  # that a box does nothing but ask
REPORT_RETRY_S: Final = 30.0
REPORT_TRIES: Final = 20  # ten minutes, as our runner does
WANTED_S: Final = 300.0
PANICKED_S: Final = (30.0, 7200.0)  # until somebody or a watchdog resets it


class Box:
    """One of them; `life` is its task."""

    def __init__(self, world: World, number: int, rng: random.Random) -> None:
        self.world, self.rng = world, rng
        self.name, self.mac = f"box-{number}", f"52:54:00:00:{number // 256:02x}:{number % 256:02x}"
        self.address = f"10.0.{number // 250}.{number % 250 + 1}"
        self.line: Any = None
        self.waiting = False
        self.left = 0.0  # when it stopped waiting
        self.says_token = True  # else only its address tells which attempt reports
        self.restarted: set[str] = set()  # tokens of attempts that have restarted us
        self._power = trio.CancelScope()

    def chance(self, probability: float) -> bool:
        """Whether it happens this time."""
        return self.rng.random() < probability

    async def life(self) -> None:
        """Power on, and again after each cut, unless it stays off for good."""
        await sleep(self.rng.uniform(0, 60))
        while True:
            with trio.CancelScope() as self._power:
                while True:
                    await self._boots()
            if self.chance(self.world.weather.stays_off) and self.world.may_spare(self):
                return
            await sleep(self.rng.uniform(5, 900))

    def cut_power(self) -> None:
        """No FIN, no goodbye."""
        self._power.cancel()

    async def _boots(self) -> None:
        """From POST to the next reboot."""
        slow = self.chance(self.world.weather.slow_post)
        await sleep(self.rng.uniform(*(SLOW_POST_S if slow else POST_S)))
        if self.chance(self.world.weather.fickle):
            await self._only_asks()
        while True:
            try:
                script = await self._asks()
                job = job_in(script)
                if job is None:
                    self.world.sometimes["re-chain"] += 1
                    continue
                token = await self._loads(job)
            except (ConnectionError, LookupError):
                await sleep(RETRY_S)
                continue
            await self._runs(job, token)
            return

    async def _only_asks(self) -> None:
        """It asks, and is gone before it has been told anything, again and again."""
        self.world.sometimes["a box only asked"] += 1
        ends = trio.current_time() + FICKLE_S
        while trio.current_time() < ends:
            with contextlib.suppress(ConnectionError), trio.move_on_after(self.rng.random()):
                await self._asks()
            await sleep(RETRY_S)

    async def _asks(self) -> str:
        server = self.world.server
        if server is None:
            raise ConnectionRefusedError
        self.waiting = True
        try:
            return await self.world.net.ask(server, self)
        finally:
            self.waiting, self.left = False, trio.current_time()

    async def _loads(self, job: str) -> str:
        """All files of the script; the token of the attempt.  ConnectionError: it gave up."""
        weather, token = self.world.weather, ""
        for path in [*PINNED.initrds, "job.cgz", "/runner.cgz", PINNED.kernel]:
            await sleep(self.rng.uniform(0.5, 15))
            if self.chance(weather.fetch_stalls):
                await sleep(250)
            if self.chance(weather.fetch_breaks):
                self.world.sometimes["a fetch broke"] += 1
                raise ConnectionResetError
            server = self.world.server
            if server is None:
                raise ConnectionRefusedError
            for _ in range(2 if self.chance(weather.refetches) else 1):
                if path == "job.cgz":
                    token = await self._fetches_job(job)
                    path_done = f"/job_initrd_tmpfs/{job}/job.cgz"
                else:
                    path_done = path
                ports = self.world.config.ports
                door = ports.os if path_done.startswith("/os/") else ports.scheduler
                server.fetches.at(door).moved(self.address, path_done, 1000)
                server.fetches.at(door).done(self.address, path_done, 1000, 1.0)
        return token

    async def _fetches_job(self, job: str) -> str:
        server = self.world.server
        if server is None:
            raise ConnectionRefusedError
        try:
            token: str = await self.world.net.job_cgz(server, self, job)
        except Exception as error:
            if isinstance(error, AssertionError | ConnectionError):
                raise
            self.world.sometimes["job.cgz refused"] += 1
            raise LookupError(job) from error
        found = await server.scheduler.attempt_with(token)  # it may be over already
        assert found is not None
        self.world.oracle.handed(job, found[1].number, self.name, token)
        return token

    async def _runs(self, job: str, token: str) -> None:
        weather, oracle = self.world.weather, self.world.oracle
        number = oracle.number_of(job, token)
        if self.chance(weather.boot_panics):
            self.world.sometimes["a boot panicked"] += 1
            await sleep(self.rng.uniform(*PANICKED_S))
            return
        self.says_token = not self.chance(weather.no_prefix)
        slow = self.chance(weather.slow_boot)
        await sleep(self.rng.uniform(*((700, 1500) if slow else (20, 90))))
        await self._reports(job, token, "lkp-wtmp", tbox_state="boot")
        await self._reports(job, token, "lkp-jobfile-append-var", job_state="running")
        if not await self._works(job, token):
            return
        await self._reports(job, token, "lkp-jobfile-append-var", job_state="post_run")
        if self.chance(weather.upload_refused):
            self.world.refuse_upload(job, number)
        health = self.rng.choice(["finished", "finished", "failed"])
        oracle.verdicts[job, number].add("success" if health == "finished" else health)
        await self._reports(job, token, "lkp-jobfile-append-var", job_state=health)
        if not self.chance(weather.never_closes):
            await self._reports(job, token, "lkp-post-run")

    async def _works(self, job: str, token: str) -> bool:
        """Whether it got to its end."""
        weather = self.world.weather
        left = self.rng.uniform(*self.world.size.job_s)
        if self.chance(weather.overruns):
            left += 8000
        panics = self.chance(weather.run_panics)
        restarts = job in self.world.restarting and token not in self.restarted
        while left > 0:
            await sleep(min(WANTED_S, left))
            left -= WANTED_S
            if not self.chance(weather.ignores_wanted) and not await self._is_wanted(job, token):
                self.world.sometimes["not wanted any more"] += 1
                return False
            if panics and self.chance(0.5):
                self.world.sometimes["a run panicked"] += 1
                await sleep(self.rng.uniform(*PANICKED_S))
                return False
            if restarts:
                self.restarted.add(token)
                self.world.sometimes["a job restarted its box"] += 1
                return False
        return True

    async def _is_wanted(self, job: str, token: str) -> bool:
        server = self.world.server
        if server is None:
            return True
        try:
            wanted = await self.world.net.report(
                server, self, "still-wanted", {"job_id": job}, token if self.says_token else ""
            )
        except ConnectionError:
            return True
        return bool(wanted)

    async def _reports(self, job: str, token: str, verb: str, **query: str) -> None:
        """Until it is answered, for ten minutes; the weather may repeat it, then and much later."""
        weather = self.world.weather
        words = {"job_id": job, **query}
        times = 2 if self.chance(weather.told_twice) else 1
        for _ in range(times):
            await self._report(verb, words, token, fenced=self.says_token)
        if self.chance(weather.told_late) and self.says_token:
            self.world.later(self.rng.uniform(1, 7200), self._report, verb, words, token)

    async def _report(
        self, verb: str, words: dict[str, str], token: str, *, fenced: bool = True
    ) -> None:
        self.world.sometimes["a report without its token"] += not fenced
        for _ in range(REPORT_TRIES):
            server = self.world.server
            try:
                if server is None:
                    raise ConnectionRefusedError
                await self.world.net.report(server, self, verb, words, token if fenced else "")
                oracle, job = self.world.oracle, words["job_id"]
                oracle.answered(_event_of(verb, words), job, oracle.number_of(job, token))
            except ConnectionError:
                await sleep(REPORT_RETRY_S)
            else:
                return
        self.world.sometimes["a report was given up"] += 1


def _event_of(verb: str, words: dict[str, str]) -> str:
    """The move that a report makes, if it makes one."""
    if verb == "lkp-post-run":
        return "Close"
    states = {"running": "Begin", "post_run": "Wrap", "finished": "Verdict", "failed": "Verdict"}
    return states.get(words.get("job_state", ""), "")
