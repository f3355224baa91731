"""`appliance -H ssh://...` through OpenSSH's own client and server, on loopback."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.test_serve import MAC, Appliance, free_ports, hello

pytestmark = [pytest.mark.slow, pytest.mark.root]
PATIENCE_S = 20.0

_SERVER = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/person.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
SetEnv PATH={folder}/bin:/usr/bin:/bin APPLIANCE_CONFIG={config}
"""
_CLIENT = """\
IdentityFile {folder}/person
IdentitiesOnly yes
BatchMode yes
UserKnownHostsFile {folder}/known
GlobalKnownHostsFile none
StrictHostKeyChecking yes
"""


class Ssh:
    """An sshd for one person, and a laptop that knows it."""

    def __init__(self, folder: Path, config: Path) -> None:
        [self.port] = free_ports(1)
        self.folder = folder
        (folder / "bin").mkdir(parents=True)
        for key in ("host", "person"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)]
            subprocess.run(command, check=True)
        known = (folder / "host.pub").read_text()
        (folder / "known").write_text(f"[127.0.0.1]:{self.port} {known}")
        about = {"port": self.port, "folder": folder, "config": config}
        (folder / "sshd_config").write_text(_SERVER.format(**about))
        (folder / "ssh_config").write_text(_CLIENT.format(**about))
        # ssh takes its settings from the home of whoever it runs for, whatever HOME says.
        self._program("laptop/ssh", f'exec {shutil.which("ssh")} -F {folder}/ssh_config "$@"')
        # -P: it runs in root's home, where a checkout may be called `appliance` as well.
        self._program("bin/appliance", f'exec {sys.executable} -P -m appliance "$@"')

    def _program(self, name: str, line: str) -> None:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{line}\n")
        path.chmod(0o755)

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """The laptop's command line; it has no server and no configuration of its own."""
        environment = {**os.environ, "PATH": f"{self.folder}/laptop:{os.environ['PATH']}"}
        environment["APPLIANCE_CONFIG"] = str(self.folder / "there is none")
        command = [sys.executable, "-m", "appliance", "-H", f"ssh://root@127.0.0.1:{self.port}"]
        return subprocess.run(
            [*command, *words], env=environment, capture_output=True, text=True, timeout=60
        )


@pytest.fixture
def laptop(tmp_path):
    ssh = Ssh(tmp_path / "ssh", tmp_path / "appliance.toml")
    Path("/run/sshd").mkdir(exist_ok=True)  # sshd insists; its package makes it at boot
    sshd = subprocess.Popen(
        [str(shutil.which("sshd", path="/usr/sbin:/usr/bin")), "-D", "-e",
         "-f", str(ssh.folder / "sshd_config")],
        stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert sshd.stderr is not None
        deadline = time.monotonic() + PATIENCE_S
        while b"Server listening" not in (line := sshd.stderr.readline()):
            assert line, "sshd ended"
            assert time.monotonic() < deadline
        yield ssh
    finally:
        sshd.kill()
        sshd.communicate()


@pytest.fixture
def server(tmp_path):
    appliance = Appliance(tmp_path)
    appliance.start()
    yield appliance
    assert 0 == appliance.stop()


def test_a_laptop_submits_follows_and_reads_results_over_ssh(server, laptop, tmp_path):
    added = laptop.run("host", "add", "box-1", "--mac", MAC)
    submitted = laptop.run("submit", hello(tmp_path))
    shown = laptop.run("show", "lab.1")
    cancelled = laptop.run("cancel", "lab.1")
    waited = laptop.run("submit", "--wait", str(tmp_path / "none.yaml"))

    assert 0 == added.returncode, added.stderr
    assert (0, "lab.1  ") == (submitted.returncode, submitted.stdout[:7]), submitted.stderr
    assert "root" in shown.stdout  # who asks is whoever ssh lets in
    assert 0 == cancelled.returncode, cancelled.stderr
    assert 2 == waited.returncode
    assert "Traceback" not in waited.stderr


def test_what_ssh_has_to_say_reaches_the_person(server, laptop):
    (laptop.folder / "person.pub").write_text("")
    refused = laptop.run("jobs")

    assert 5 == refused.returncode
    assert "Permission denied" in refused.stderr
    assert "Traceback" not in refused.stderr
