"""The appliance and nginx as child processes: started on free ports, stopped by their own id."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import attrs

START_S: Final = 30.0  # a loaded machine; both are up within a second on an idle one

# nginx as Debian ships it, but for logs and the temporary folders: a worker per core, sendfile.
_NGINX: Final = """\
{user}
worker_processes auto;
daemon off;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
    sendfile on;
    tcp_nopush on;
    access_log off;
    default_type application/octet-stream;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{ listen {address}:{port}; root {root}; }}
}}
"""

# Every box that gets a job counts as loading for a while; in most benchmarks none ever loads
# anything, and so as many as there are may.
_APPLIANCE: Final = """\
lab = "bench"

[network]
listen = "127.0.0.1"

[ports]
scheduler = {ports[0]}
os = {ports[1]}
initrd = {ports[2]}
upload = {ports[3]}
results = {ports[4]}
monitor = {ports[5]}

[paths]
srv = "{folder}/srv"
state = "{folder}/state"
run = "{folder}/run"
hosts = "{folder}/hosts"
tftp = "{folder}/tftp"

[limits]
boots_in_flight = {boots}
"""

IMAGE: Final = "os/debian/x86_64/12-2026-01-01-00-00-00"
KERNEL: Final = "6.1.0-1-amd64"


@attrs.frozen
class Appliance:
    """A running `appliance serve`."""

    pid: int
    ports: tuple[int, ...]  # scheduler, os, initrd, upload, results, monitor
    control: Path
    srv: Path
    start_s: float  # from its exec until its doors were open

    def resident_bytes(self) -> int:
        """What it holds in memory now, from /proc."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no VmRSS")


@contextlib.contextmanager
def appliance(folder: Path, more: str = "", boots: int = 10**6) -> Iterator[Appliance]:
    """`appliance serve` with everything of its own below `folder`, and an image of tiny files.

    `more` is added to its configuration; `boots` may load at once.
    """
    ports = _free_ports(6)
    for name in ("srv", "state", "run", "hosts", "tftp"):
        (folder / name).mkdir(exist_ok=True)
    if not (folder / "srv/os").exists():
        _image(folder / "srv")
    configuration = folder / "appliance.toml"
    configuration.write_text(_APPLIANCE.format(ports=ports, folder=folder, boots=boots) + more)
    command = [sys.executable, "-m", "appliance", "serve", "--config", str(configuration)]
    began = time.monotonic()
    with _running(command, folder / "appliance.log") as process:
        control = folder / "run/control.sock"
        _until(lambda: control.exists() and _answers(ports[1]), process, folder / "appliance.log")
        start_s = time.monotonic() - began
        yield Appliance(process.pid, tuple(ports), control, folder / "srv", start_s)


@contextlib.contextmanager
def nginx(folder: Path, root: Path) -> Iterator[int]:
    """nginx that serves `root`; yields its port."""
    [port] = _free_ports(1)
    with _running(nginx_command(folder, root, "127.0.0.1", port), folder / "nginx.log") as process:
        _until(lambda: _answers(port), process, folder / "nginx.log")
        yield port


def nginx_command(folder: Path, root: Path, address: str, port: int) -> list[str]:
    """How nginx is started to serve `root`; its configuration and its own files are in `folder`."""
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    user = "user root;" if os.geteuid() == 0 else ""  # else its workers may not read our folder
    configuration = folder / "nginx.conf"
    configuration.write_text(
        _NGINX.format(user=user, folder=folder, address=address, port=port, root=root)
    )
    return [program, "-c", str(configuration)]


def _image(srv: Path) -> None:
    boot = srv / IMAGE / "boot"
    boot.mkdir(parents=True)
    for name in (f"vmlinuz-{KERNEL}", f"initramfs.lkp-{KERNEL}.img", f"modules-{KERNEL}.cgz"):
        (boot / name).write_bytes(b"tiny")
    (boot / "vmlinuz").symlink_to(f"vmlinuz-{KERNEL}")
    (boot.parent / "initrd.lkp").symlink_to(f"boot/initramfs.lkp-{KERNEL}.img")
    (srv / "os/debian/x86_64/12").symlink_to(Path(IMAGE).name)


@contextlib.contextmanager
def running(command: list[str], log: Path, ready: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Any other program, once `ready()`; stopped at the end."""
    with _running(command, log) as process:
        _until(ready, process, log)
        yield process


@contextlib.contextmanager
def _running(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, env=_environment()
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:  # thousands of boxes to dismiss, on a busy machine
                process.kill()
                process.wait()


def _environment() -> dict[str, Any]:
    return {name: value for name, value in os.environ.items() if name != "NOTIFY_SOCKET"}


def _free_ports(n: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def _until(ready: Any, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"{process.args!r} did not start:\n{log.read_text()}")
        time.sleep(0.02)
