"""A whole boot on real firmware, against the least there can be: a fixed script that dnsmasq gives
by TFTP, and nginx for its files.

Kernel, initramfs, modules, root filesystem (by the same smbd) and box are the same.  The clock runs
from power-on until dracut has the root under its overlay and /lkp in it; what comes then (systemd,
the job) never asks us for anything.
"""

from __future__ import annotations

import re
import statistics
import tempfile
import time
from pathlib import Path
from typing import Final

import attrs
import trio

from appliance.boot import runner
from appliance.boot.script import cgz
from appliance.config import Config
from appliance.errors import ApplianceError
from bench import process
from bench.table import Row
from lab.lab import Lab, lab
from lab.namespace import SERVER
from lab.qemu import Box

IMAGES: Final = Path(__file__).parents[1] / ".cache/srv/os"
RUNS: Final = 3
RATIO: Final = 1.05
_PORT: Final = 8080
_ROOT_IS_THERE: Final = "appliance: /lkp is in the root"
_JOB: Final = "testbox: box\nscript: echo hello\n"
_HOST: Final = "http://" + re.escape(SERVER)


def rows() -> list[Row]:
    """The one row.  Needs root, and the image that `make image` builds."""
    if not IMAGES.exists():
        raise SystemExit("no image to boot: run `make image` first")
    with tempfile.TemporaryDirectory() as keep:
        ours, fixed = trio.run(_measure, Path(keep))
    mine, peer = statistics.median(ours), statistics.median(fixed)
    return [
        Row(
            "power-on until the root is there (UEFI, CIFS)",
            f"{mine:.1f} s",
            f"fixed script, dnsmasq and nginx: {peer:.1f} s",
            f"{mine / peer:.3f}",
            f"at most {RATIO}",
            mine / peer <= RATIO,
        )
    ]


async def _measure(keep: Path) -> tuple[list[float], list[float]]:
    async with lab(IMAGES, keep, change=_patient_with_power_cuts) as made:
        box = made.box("box")
        await made.run("host", "add", "box", "--mac", box.mac, "--arch", "x86_64")
        peer = await _Peer.make(made)
        ours, fixed = [], []
        for run in range(RUNS):
            for ours_now in (True, False) if run % 2 else (False, True):
                if ours_now:
                    ours.append(await _boot_with_a_job(made, box))
                else:
                    with peer:
                        fixed.append(await _boot(made, box))
    return ours, fixed


def _patient_with_power_cuts(config: Config) -> Config:
    """We pull the plug each time; no box is to rest for it."""
    return attrs.evolve(config, waits=attrs.evolve(config.waits, backoff_first=0.001))


async def _boot_with_a_job(made: Lab, box: Box) -> float:
    """The job waits already, so nothing of this is the wait for one."""
    job = await _submit(made)
    seconds = await _boot(made, box)
    await made.run("cancel", job)
    return seconds


async def _submit(made: Lab) -> str:
    document = made.keep / "job.yaml"
    document.write_text(_JOB)
    return (await made.run("submit", str(document))).split()[0]


async def _boot(made: Lab, box: Box) -> float:
    seen = len(box.lines)
    began = time.perf_counter()
    await made.power_on(box)
    await box.line(_ROOT_IS_THERE, after=seen)
    seconds = time.perf_counter() - began
    await box.power_off()
    return seconds


@attrs.define
class _Peer:
    """While entered, boot.ipxe is the fixed script."""

    boot_ipxe: Path
    script: str
    ours: str

    @classmethod
    async def make(cls, made: Lab) -> _Peer:
        """The script of a job of ours, with all its files behind nginx."""
        folder, srv = made.keep / "nginx", made.config.paths.srv
        folder.mkdir()
        command = process.nginx_command(folder, srv, SERVER, _PORT)
        await made.start("nginx", command, _PORT)
        job = await _submit(made)
        script = await made.run("host", "preview", "box", "--job", job)
        await made.run("cancel", job)
        (srv / "job.cgz").write_bytes(cgz.pack([cgz.Entry("lkp/scheduled/job.sh", b"", 0o100775)]))
        (srv / "runner.cgz").write_bytes(runner.archive())
        script = script[script.index("#!ipxe") :]
        script = re.sub(rf"{_HOST}:3000/job_initrd_tmpfs/[^/]+/", f"http://{SERVER}:3000/", script)
        script = re.sub(rf"{_HOST}:(3000|8000|8800)/", f"http://{SERVER}:{_PORT}/", script)
        if f":{_PORT}/os/" not in script or f":{_PORT}/job.cgz" not in script:
            raise ApplianceError(f"no script to serve from nginx:\n{script}")
        boot_ipxe = made.config.paths.tftp / "boot.ipxe"
        return cls(boot_ipxe, script, boot_ipxe.read_text())

    def __enter__(self) -> None:
        self.boot_ipxe.write_text(self.script)

    def __exit__(self, *error: object) -> None:
        self.boot_ipxe.write_text(self.ours)
