"""The real process on real sockets: what only they can show."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import wsproto

from appliance import systemd
from appliance.jobs.store import Store
from appliance.keep.repair import export as exports

MAC = "52-54-00-00-00-01"
KVER = "6.1.0-1-amd64"


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in socks:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in socks]


def make_image(srv: Path) -> Path:
    """The names of an image; nothing in them boots."""
    snapshot = srv / "os/debian/x86_64/12-2026-01-01-00-00-00"
    (snapshot / "boot").mkdir(parents=True)
    for name in (f"vmlinuz-{KVER}", f"initramfs.lkp-{KVER}.img", f"modules-{KVER}.cgz"):
        (snapshot / "boot" / name).write_bytes(b"x" * 1000)
    (snapshot / "boot/vmlinuz").symlink_to(f"vmlinuz-{KVER}")
    (snapshot / "initrd.lkp").symlink_to(f"boot/initramfs.lkp-{KVER}.img")
    (srv / "os/debian/x86_64/12").symlink_to(snapshot.name)
    return snapshot


class Appliance:
    """A server process and its command line."""

    def __init__(self, tmp: Path, listen: str = "127.0.0.1") -> None:
        self.tmp = tmp
        names = ("scheduler", "os", "initrd", "upload", "results", "monitor")
        self.ports = dict(zip(names, free_ports(len(names)), strict=True))
        make_image(tmp / "srv")
        ports = "\n".join(f"{name} = {port}" for name, port in self.ports.items())
        self.config = tmp / "appliance.toml"
        self.config.write_text(
            f'[network]\nlisten = "{listen}"\n[ports]\n{ports}\n[paths]\nsrv = "{tmp}/srv"\n'
            f'state = "{tmp}/state"\nrun = "{tmp}/run"\nhosts = "{tmp}/hosts"\n'
        )
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *before: str) -> None:
        """Returns once the server says that it is ready, as systemd would hear it.

        `before`: a program that starts it, with arguments.
        """
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
            path = self.tmp / "notify"
            path.unlink(missing_ok=True)
            ready.bind(str(path))
            ready.settimeout(20)
            with (self.tmp / "log").open("ab") as log:
                command = [sys.executable, "-m", "appliance", "--config", str(self.config)]
                self.process = subprocess.Popen(
                    [*before, *command, "serve"],
                    env={**os.environ, "NOTIFY_SOCKET": str(path)},
                    stderr=log,
                )
            assert b"READY=1" == ready.recv(100)

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "appliance", "--config", str(self.config), *words],
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    def ask(self, mac: str = MAC) -> socket.socket:
        box = socket.create_connection(("127.0.0.1", self.ports["scheduler"]), 10)
        box.sendall(f"GET /boot.ipxe/mac/{mac}?arch=x86_64 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        return box


def rest(box: socket.socket) -> str:
    text = b""
    with box:
        while data := box.recv(65536):
            text += data
    return text.decode()


@pytest.fixture
def server(tmp_path):
    appliance = Appliance(tmp_path)
    appliance.start()
    yield appliance
    assert appliance.process is not None
    if appliance.process.poll() is None:
        assert 0 == appliance.stop(), (tmp_path / "log").read_text()
    assert "Traceback" not in (tmp_path / "log").read_text()


def hello(tmp: Path) -> str:
    path = tmp / "hello.yaml"
    path.write_text("script: |\n  echo hello\n")
    return str(path)


def test_a_start_and_a_stop_write_down_what_the_kernels_clock_says(server):
    began = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert [] == json.loads(server.run("status", "--json").stdout)["wrong"]
    server.stop()
    stopped = time.clock_gettime(time.CLOCK_BOOTTIME)
    clock = json.loads(server.run("state", "export").stdout)["clock"]

    assert systemd.boot() == clock["boot"] != ""
    assert began < clock["uptime"] < stopped
    assert clock["at"] == clock["moment"]


def test_a_parked_box_gets_the_job_that_a_person_submits(server, tmp_path):
    server.run("host", "add", "box-1", "--mac", MAC)
    box = server.ask()
    submitted = server.run("submit", hello(tmp_path), "priority=3").stdout
    script = rest(box)
    rows = json.loads(server.run("jobs", "--json").stdout)

    assert submitted.startswith(f"lab.1  {tmp_path}/srv/result/hello/")
    assert "/job_initrd_tmpfs/lab.1/job.cgz" in script
    assert [("lab.1", "offered", "box-1")] == [(r["id"], r["stage"], r["box"]) for r in rows]
    assert "lab.1" in server.run("show", "lab.1").stdout
    assert "offered" in server.run("hosts").stdout
    assert "script   lab.1" in server.run("host", "show", "box-1").stdout


def test_a_stop_sends_parked_boxes_back_and_a_start_finds_all_jobs(server, tmp_path):
    for _ in range(3):
        server.run("submit", hello(tmp_path), "arch=aarch64", "os=debian", check=False)
        server.run("submit", hello(tmp_path))
    box = server.ask()
    assert 0 == server.stop()
    assert "No job now" in rest(box)
    assert not (tmp_path / "run/control.sock").exists()
    server.start()

    rows = json.loads(server.run("jobs", "--json").stdout)
    assert ["lab.3", "lab.2", "lab.1"] == [row["id"] for row in rows]
    assert "lab.4" in server.run("submit", hello(tmp_path)).stdout


def test_a_kill_loses_no_acknowledged_job(server, tmp_path):
    ids = [server.run("submit", hello(tmp_path)).stdout.split()[0] for _ in range(5)]
    server.process.kill()
    server.process.wait()
    server.start()
    rows = json.loads(server.run("jobs", "--json").stdout)

    assert ids == [row["id"] for row in reversed(rows)]


def test_a_new_state_gives_no_id_of_which_there_are_results(tmp_path):
    """The state was lost, or the results are another installation's."""
    appliance = Appliance(tmp_path)
    (tmp_path / "srv/result/hello/2026-11-25/default/debian-12-x86_64/lab.41").mkdir(parents=True)
    appliance.start()
    try:
        ids = [appliance.run("submit", hello(tmp_path)).stdout.split()[0]]
        appliance.process.kill()
        appliance.process.wait()
        appliance.start()
        ids.append(appliance.run("submit", hello(tmp_path)).stdout.split()[0])
    finally:
        appliance.stop()

    assert ["lab.42", "lab.43"] == ids


def test_a_second_server_on_the_same_state_is_refused_with_the_pid_of_the_first(server):
    second = server.run("serve", check=False)

    assert 4 == second.returncode
    assert f"in use by another server, pid {server.process.pid}" in second.stderr


def test_a_lock_file_removed_by_hand_lets_no_second_server_in(server, tmp_path):
    """Not on another control socket and other ports, nor a repair or an import."""
    server.run("submit", hello(tmp_path))
    for path in (tmp_path / "state").iterdir():
        if path.name == "lock":
            path.unlink()
    other = tmp_path / "other"
    other.mkdir()
    second = Appliance(other)
    second.config.write_text(
        second.config.read_text().replace(f"{other}/state", f"{tmp_path}/state")
    )
    export = tmp_path / "export.json"
    export.write_text(exports.dump(Store()))
    for words in (
        ["serve"],
        ["state", "check"],
        ["state", "repair", "--yes"],
        ["state", "import", str(export)],
    ):
        ended = second.run(*words, check=False)

        assert 4 == ended.returncode
        assert f"in use by another server, pid {server.process.pid}" in ended.stderr
    assert "lab.2" in server.run("submit", hello(tmp_path)).stdout


def test_the_files_of_a_script_are_there(server, tmp_path):
    server.run("host", "add", "box-1", "--mac", MAC)
    server.run("submit", hello(tmp_path))
    script = rest(server.ask())
    urls = [
        line.split()[1] for line in script.splitlines() if line.startswith(("initrd", "kernel"))
    ]
    for url in urls:
        done = subprocess.run(["curl", "-sSf", "-o", "/dev/null", url], capture_output=True)
        assert 0 == done.returncode, (url, done.stderr)

    assert 5 == len(urls)
    deadline = time.monotonic() + 10
    while "stage        boot" not in (shown := server.run("show", "lab.1").stdout):
        assert time.monotonic() < deadline, shown


def test_mistakes_in_a_document_are_all_named_at_once_and_nothing_is_stored(server, tmp_path):
    bad = tmp_path / "bad.yaml"
    bad.write_text("suite: a b\nos_mount: floppy\nos: plan9\npriority: high\n")
    done = server.run("submit", str(bad), check=False)

    assert 2 == done.returncode
    assert 5 == len(done.stderr.splitlines()), done.stderr
    for words in (
        "line 1: suite",
        "line 2: os_mount",
        "line 3: os: there is no image plan9",
        "line 4: priority",
        "script: nothing to run",
    ):
        assert words in done.stderr
    assert [] == json.loads(server.run("jobs", "--json").stdout)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("show", "lab.99"), 3, "no job lab.99"),
        (("host", "show", "nobody"), 3, "no testbox nobody"),
        (("host", "add", "x", "--mac", "12"), 2, "six pairs of hex digits"),
        (("submit", "/nonexistent.yaml"), 2, "no such file"),
        (("jobs", "--since", "yesterday"), 2, "write 90s, 30m, 12h or 7d"),
        (("nonsense",), 2, "No such command"),
        (("show", "caf\udce9"), 2, "is no UTF-8"),  # as a shell in another locale hands it over
        (("jobs", "--limit", "-1"), 2, "--limit"),
        (("submit", "/nonexistent.yaml", "note=" + "x" * 300), 2, "no such file"),
    ],
)
def test_a_wrong_command_is_one_line_and_an_exit_code(server, words, code, message):
    done = server.run(*words, check=False)

    assert code == done.returncode
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_results_that_cannot_be_written_here_are_one_line_and_an_exit_code(server, tmp_path):
    server.run("submit", hello(tmp_path))
    row = json.loads(server.run("show", "lab.1", "--json").stdout)["job"]
    root = Path(row["result_root"])
    root.mkdir(parents=True)
    (root / "stdout").write_text("hello")
    taken = hello(tmp_path)
    done = server.run("results", "lab.1", "fetch", "--to", taken, check=False)

    assert 4 == done.returncode
    assert taken in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_server_a_client_says_so(tmp_path):
    appliance = Appliance(tmp_path)
    done = appliance.run("jobs", check=False)

    assert 5 == done.returncode
    assert "is `appliance serve` running?" in done.stderr


def test_a_port_that_is_taken_is_named(tmp_path):
    appliance = Appliance(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", appliance.ports["os"]))
        taken.listen()
        done = appliance.run("serve", check=False)

    assert 2 == done.returncode
    assert f"cannot listen on 127.0.0.1 port {appliance.ports['os']}" in done.stderr


def test_a_client_that_stopped_reading_does_not_hold_up_a_stop(tmp_path):
    appliance = Appliance(tmp_path)
    with appliance.config.open("a") as config:
        config.write("[waits]\nshutdown_transfers = 1\n")
    large = tmp_path / "srv/os/large"
    large.write_bytes(bytes(50 * 2**20))
    appliance.start()
    with socket.create_connection(("127.0.0.1", appliance.ports["os"])) as reader:
        reader.sendall(b"GET /os/large HTTP/1.1\r\nHost: x\r\n\r\n")
        assert reader.recv(100).startswith(b"HTTP/1.1 200")
        assert 0 == appliance.stop()
    assert "cut transfers that did not end" in (tmp_path / "log").read_text()


def test_damaged_state_is_refused_by_name_without_a_traceback(server, tmp_path):
    server.run("submit", hello(tmp_path))
    assert 0 == server.stop()
    snapshot = max((tmp_path / "state").glob("snapshot-*"))
    data = bytearray(snapshot.read_bytes())
    data[len(data) // 2] ^= 1
    snapshot.write_bytes(data)
    done = server.run("serve", check=False)

    assert 4 == done.returncode
    assert f"{snapshot.name}: damaged at byte" in done.stderr
    assert "Traceback" not in done.stderr


def test_random_bytes_on_every_door_harm_nobody(server, tmp_path):
    for port in server.ports.values():
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.sendall(os.urandom(4096))
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(tmp_path / "run/control.sock"))
        sock.sendall(b"\xff" * 4096)
    assert "lab.1" in server.run("submit", hello(tmp_path)).stdout


def test_a_laptop_submits_over_ssh(server, tmp_path):
    """With an ssh that goes nowhere: what it is told, and what comes through it."""
    said = tmp_path / "said"
    ssh = tmp_path / "bin/ssh"
    ssh.parent.mkdir()
    ssh.write_text(
        f'#!/bin/sh\necho "$*" >>{said}\n'
        'while [ "$1" != appliance ]; do shift; done\nshift\n'
        f'exec {sys.executable} -m appliance --config {server.config} "$@"\n'
    )
    ssh.chmod(0o755)
    laptop = {**os.environ, "PATH": f"{ssh.parent}:{os.environ['PATH']}"}
    laptop["APPLIANCE_CONFIG"] = str(tmp_path / "there is none")

    def run(*words):
        command = [sys.executable, "-m", "appliance", *words]
        return subprocess.run(command, env=laptop, capture_output=True, text=True, timeout=30)

    done = run("-H", "ssh://ann@lab:2222", "submit", hello(tmp_path))
    shown = run("-H", "ssh://lab", "jobs")
    trick = run("-H", "ssh://-oProxyCommand=x", "jobs")
    server.stop()
    gone = run("-H", "ssh://lab", "jobs")

    assert (0, "lab.1  ") == (done.returncode, done.stdout[:7]), done.stderr
    assert "lab.1" in shown.stdout
    assert [
        "-T -p 2222 -- ann@lab appliance control-proxy",
        *["-T -- lab appliance control-proxy"] * 2,
    ] == said.read_text().splitlines()
    assert (2, "") == (trick.returncode, trick.stdout)
    assert 5 == gone.returncode


def test_a_monitor_on_a_real_socket_hears_of_a_submit(server, tmp_path):
    client = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
    with socket.create_connection(("127.0.0.1", server.ports["monitor"]), 10) as sock:

        def event():
            while not (found := list(client.events())):
                client.receive_data(sock.recv(65536) or None)
            return found[0]

        sock.sendall(client.send(wsproto.events.Request(host="x", target="/filter")))
        assert isinstance(event(), wsproto.events.AcceptConnection)
        query = json.dumps({"job_id": ["lab.2"], "job_state": "submit"})
        sock.sendall(client.send(wsproto.events.Message(data=query)))
        sock.sendall(client.send(wsproto.events.Ping()))
        assert isinstance(event(), wsproto.events.Pong)  # so the query is there, too
        server.run("submit", hello(tmp_path))
        server.run("submit", hello(tmp_path))
        message = json.loads(event().data)
        server.stop()
        ended = event()

    assert ("lab.2", "submit") == (message["job_id"], json.loads(message["log"])["job_state"])
    assert (1001, "the server stops") == (ended.code, ended.reason)


def test_a_box_is_held_reserved_and_let_go(server):
    server.run("host", "add", "box-1", "--mac", MAC)
    held = server.run("host", "hold", "box-1", "--for", "ann", "--until", "4h").stdout
    server.run("host", "release", "box-1")
    reserved = server.run("host", "reserve", "box-1", "--for", "ann", "--until", "2d").stdout
    server.run("host", "release", "box-1")
    wrong = server.run("host", "hold", "box-1", "--until", "soon", check=False)

    assert held.startswith("box-1 is held by root (for ann)")
    assert reserved.startswith("box-1 is reserved for ann by root")
    assert 2 == wrong.returncode
    assert "'soon' is no moment: write 12h" in wrong.stderr
