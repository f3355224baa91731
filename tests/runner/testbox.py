"""A testbox without hardware: a scratch root, a bin directory, and the server of `server.py`.

The scripts are the real ones and so is the wire.  Programs that would touch this machine (reboot,
modprobe, dmesg...) are not within the runner's reach: its PATH is a directory of chosen links,
and everything it writes lies below the scratch root.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
import pytest

from appliance.boot import runner
from tests.runner.server import Server

SCRIPTS = Path(runner.__file__).parent
SHELLS = ("dash", "busybox ash", "bash --posix")
IMAGES = [  # shell, whether its tools are busybox's, HTTP client: Debian, Alpine, CentOS
    pytest.param("dash", False, "curl", id="dash"),
    pytest.param("busybox ash", True, "nc", id="busybox"),
    pytest.param("bash --posix", False, "wget", id="bash"),
]
CLIENTS = ("curl", "wget", "python3", "perl", "nc")
TOOLS = """
    cat chmod cut date dash dd dirname env false find grep head id ip kill ln ls mkdir mkfifo mv od
    printf ps readlink rm rmdir sed seq setsid sh sleep sort stat tail tee timeout touch tr true
    wc yes
"""
PATIENCE_S = 20.0  # a runner that takes longer hangs

JOB_SH = """\
#!/bin/sh

export_top_env()
{{
\texport id=lab.1
\texport job='/lkp/scheduled/job.yaml'
\texport testbox='box 1'
\texport result_root='/result/hello/box/lab.1'
\texport LKP_SERVER=127.0.0.1
\texport SCHED_HOST=127.0.0.1
\texport RESULT_WEBDAV_PORT={port}
\texport HTTP_PREFIX='http://127.0.0.1:{port}/~lkp/tok'
\texport runtime={runtime}
\texport http_proxy=http://127.0.0.1:9
\texport PATH_OF_JOB=1

\t[ -n "$LKP_SRC" ] ||
\texport LKP_SRC=/lkp/${{user:-lkp}}/src
}}

run_job()
{{
\texport_top_env
{script}
}}

"$@"
"""


def dead(pid: int | str) -> bool:
    """Ended; whether somebody has waited for it is not the runner's affair."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return stat.rpartition(") ")[2].startswith("Z")


@attrs.define
class Testbox:
    """One machine, from power-on to its reboot."""

    __test__ = False
    root: Path
    server: Server
    shell: str = "dash"
    client: str = "curl"
    busybox: bool = False
    settings: dict[str, str] = attrs.field(factory=dict)
    process: Any = None

    def __attrs_post_init__(self) -> None:
        for folder in ("lkp/scheduled", "run", "tmp", "dev", "proc/sys/kernel", "sbin"):
            (self.root / folder).mkdir(parents=True)
        (self.root / "sys/class/net/lo").mkdir(parents=True)
        (self.root / "sys/class/net/lo/address").write_text("52:54:00:AA:bb:01\n")
        (self.root / "proc/loadavg").write_text("0.10 0.20 0.30 1/99 1234\n")
        (self.root / "proc/uptime").write_text("63.99 12.00\n")
        (self.root / "bin").mkdir()
        for tool in TOOLS.split():
            self.link(tool)
        if self.client == "nc":
            self.link("nc", "busybox")
        elif self.client == "python3":
            (self.root / "bin/python3").symlink_to(sys.executable)
        elif self.client:
            self.link(self.client)
        self.fake("dmesg", "echo '[0.0] Linux version 6.1'")
        self.fake("modprobe", f'echo "$*" >>{self.root}/modprobed')
        self.fake("reboot", f'echo "reboot $*" >>{self.root}/rebooted', "sbin")

    def link(self, tool: str, target: str = "") -> None:
        """Makes a program reachable; a busybox box has only busybox's, so far as it has it."""
        applets = subprocess.run(["busybox", "--list"], capture_output=True, check=True).stdout
        if self.busybox and tool in applets.decode().split():
            target = "busybox"
        found = shutil.which(target or tool)
        assert found is not None, f"this machine has no {target or tool}"
        (self.root / "bin" / tool).symlink_to(found)

    def fake(self, tool: str, script: str, folder: str = "bin") -> None:
        """A program that the test wrote."""
        path = self.root / folder / tool
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def systemd(self) -> None:
        """A box whose init is systemd, and not about to stop."""
        (self.root / "run/systemd/system").mkdir(parents=True)
        (self.root / "run/state").write_text("running\n")
        self.fake(
            "systemctl",
            f'[ "$1" = is-system-running ] && exec cat {self.root}/run/state\n'
            f'echo "systemctl $*" >>{self.root}/rebooted',
            "usr/bin",
        )

    def schedule(self, script: str, **fields: Any) -> None:
        """The job whose run_job is `script`."""
        path = self.root / "lkp/scheduled/job.sh"
        fields.setdefault("runtime", 3600)
        path.write_text(JOB_SH.format(port=self.server.port, script=script, **fields))
        path.chmod(0o775)

    def power_on(self) -> None:
        """Starts the runner, as the box's init would."""
        short = {
            "RUNNER_TICK": "0.05",
            "RUNNER_NETWORK_FOR": "5",
            "RUNNER_POLL": "0",
            "RUNNER_SILENCE": "5",
            "RUNNER_RETRY_FOR": "10",
            "RUNNER_RETRY_PAUSE": "0.05",
            "RUNNER_GRACE": "1",
            "RUNNER_DRAIN": "1",
            "RUNNER_CONSOLE_FOR": "5",
            "RUNNER_REBOOT_FOR": "0.1",
            "RUNNER_SLACK_MIN": "0",
        }
        shell, *words = self.shell.split()
        found = shutil.which(shell)
        assert found is not None, f"this machine has no {shell}"
        self.process = subprocess.Popen(
            [found, *words, str(SCRIPTS / "runner.sh")],
            env={
                "PATH": str(self.root / "bin"),
                "RUNNER_ROOT": str(self.root),
                **short,
                **self.settings,
            },
            start_new_session=True,
            stdin=subprocess.DEVNULL,
        )

    def run(self, script: str = "\techo hello", **fields: Any) -> None:
        """A whole boot, with the job's run_job, until the reboot was asked for."""
        self.schedule(script, **fields)
        self.power_on()
        self.wait()

    def run_without_reboot(self, script: str) -> None:
        """A boot that somebody else ends."""
        self.schedule(script)
        self.power_on()
        assert 0 == self.process.wait(PATIENCE_S)

    def wait(self) -> None:
        """Until the runner has ended and has asked for the reboot."""
        assert 0 == self.process.wait(PATIENCE_S)
        self.until(lambda: self.rebooted)

    def until(self, true: Callable[[], object]) -> None:
        """Waits for the other processes: no clock of theirs can be turned."""
        end = time.monotonic() + PATIENCE_S
        while not true():
            assert time.monotonic() < end, f"in vain; its log:\n{self.log}\n{self.server.reports}"
            time.sleep(0.01)

    def kill(self) -> None:
        """Everything that a test left behind: what it started names the scratch root."""
        mark = f"RUNNER_ROOT={self.root}".encode()
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if mark in (folder / "environ").read_bytes().split(b"\0"):
                    os.kill(int(folder.name), signal.SIGKILL)
        if self.process is not None:
            self.process.wait()

    def state(self, name: str) -> Path:
        """A file in the runner's own directory."""
        return self.root / "run/lkp-runner-boot" / name

    @property
    def rebooted(self) -> list[str]:
        """How the reboot was asked for."""
        path = self.root / "rebooted"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def console(self) -> str:
        """What a person saw."""
        path = self.root / "dev/console"
        return path.read_text() if path.exists() else ""

    @property
    def log(self) -> str:
        """The runner's own log."""
        path = self.state("files/runner.log")
        return path.read_text() if path.exists() else ""
