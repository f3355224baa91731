"""systemd.py, and the doors that systemd holds: sockets that outlive the process."""

import contextlib
import os
import signal
import socket
import subprocess
import sys

import attrs
import pytest
import trio

from appliance import systemd
from appliance.config import Config, Network, Paths, Ports
from appliance.errors import BadConfig
from appliance.web import listen

from .test_serve import Appliance, free_ports, rest

FIRST = 200  # descriptors that nothing else has


@pytest.fixture
def heard(tmp_path, monkeypatch):
    """What the server says to systemd."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(str(tmp_path / "notify"))
        ear.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))

        def all_so_far():
            words = []
            with contextlib.suppress(BlockingIOError):
                while True:
                    words.append(ear.recv(100).decode())
            return words

        yield all_so_far


async def test_the_event_loop_says_twice_in_each_watchdog_time_that_it_lives(
    heard, monkeypatch, nursery, autojump_clock
):
    monkeypatch.setenv("WATCHDOG_USEC", "60000000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    nursery.start_soon(systemd.stay_alive)
    await trio.sleep(121)

    assert ["WATCHDOG=1"] * 5 == heard()  # at 0, 30, 60, 90 and 120 s


async def test_without_a_watchdog_nobody_says_anything(heard, monkeypatch):
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    await systemd.stay_alive()

    assert [] == heard()


@pytest.mark.parametrize(
    ("environ", "period"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "3000000"}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "77"}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "78"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_a_watchdog_is_the_one_of_this_process(environ, period):
    assert period == systemd.watchdog_s(environ, 77)


def held(*ports: int) -> dict[str, str]:
    """Sockets as systemd leaves them to process 77, from FIRST on."""
    for number, port in enumerate(ports):
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", port))
            sock.listen()
            os.dup2(sock.fileno(), FIRST + number)
    return {"LISTEN_PID": "77", "LISTEN_FDS": str(len(ports)), "LISTEN_FDNAMES": "a:b"}


def test_the_boot_is_what_the_kernel_says_or_else_systemd(tmp_path, monkeypatch):
    """%b of a unit has no dashes; without either nobody knows."""
    monkeypatch.setattr(systemd, "BOOT_ID", tmp_path / "boot_id")
    monkeypatch.delenv("APPLIANCE_BOOT", raising=False)
    said = [systemd.boot()]
    monkeypatch.setenv("APPLIANCE_BOOT", "0123456789abcdef0123456789abcdef")
    said.append(systemd.boot())
    (tmp_path / "boot_id").write_text("01234567-89ab-cdef-0123-456789abcdee\n")
    said.append(systemd.boot())

    assert ["", "0123456789abcdef0123456789abcdef", "0123456789abcdef0123456789abcdee"] == said


def test_sockets_are_taken_once_and_their_words_go_from_the_environment():
    environ = held(0, 0) | {"HOME": "/root"}
    taken = systemd.take(environ, 77, FIRST)
    with contextlib.ExitStack() as stack:
        for sock in taken:
            stack.enter_context(sock)

        assert [FIRST, FIRST + 1] == [sock.fileno() for sock in taken]
        assert not any(sock.get_inheritable() for sock in taken)
        assert {"HOME": "/root"} == environ
        assert [] == systemd.take(environ, 77, FIRST)


def test_those_of_another_process_are_not_ours():
    assert [] == systemd.take({"LISTEN_PID": "78", "LISTEN_FDS": "1"}, 77, FIRST)
    assert [] == systemd.take({"LISTEN_PID": "77", "LISTEN_FDS": "one"}, 77, FIRST)


def config_of(ports, tmp_path):
    names = ("scheduler", "os", "initrd", "upload", "results", "monitor")
    return Config(
        network=Network(listen="127.0.0.1"),
        ports=Ports(**dict(zip(names, ports, strict=True))),
        paths=Paths(run=tmp_path),
    )


OPTIONS = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
)


def test_a_door_is_the_socket_that_was_passed_with_our_options_or_one_of_our_own(tmp_path):
    ports = free_ports(6)
    passed = systemd.take(held(ports[1], ports[0]), 77, FIRST)
    doors = listen.sockets(config_of(ports, tmp_path), passed)
    with contextlib.ExitStack() as stack:
        for sock in doors:
            stack.enter_context(sock)

        assert ports == [sock.getsockname()[1] for sock in doors]
        assert doors[:2] == passed[::-1]
        assert [1, listen.KEEPALIVE_IDLE_S, 25_000] == [
            doors[0].getsockopt(*option) for option in OPTIONS
        ]
        assert 0 == doors[1].getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def test_a_passed_socket_that_is_nobodys_door_is_named(tmp_path, capsys):
    *ports, elsewhere = free_ports(7)
    with socket.socket() as stale:
        stale.bind(("127.0.0.1", elsewhere))
        for sock in listen.sockets(config_of(ports, tmp_path), [stale]):
            sock.close()

    assert str(elsewhere) in capsys.readouterr().out


def test_a_port_that_somebody_else_has_is_named(tmp_path):
    ports = free_ports(6)
    with socket.socket() as other:
        other.bind(("127.0.0.1", ports[3]))
        with pytest.raises(BadConfig, match=f"port {ports[3]}"):
            listen.sockets(config_of(ports, tmp_path))


def test_the_control_socket_is_the_one_at_its_path(tmp_path):
    config = config_of(free_ports(6), tmp_path)
    with socket.socket(socket.AF_UNIX) as door, socket.socket(socket.AF_UNIX) as other:
        door.bind(str(config.paths.control_socket))
        other.bind(str(tmp_path / "other"))

        assert door is listen.control(config, [other, door])
        assert listen.control(config, [other]) is None
        elsewhere = attrs.evolve(config, paths=Paths(run=tmp_path / "run"))
        assert listen.control(elsewhere, [other, door]) is None


class Activated(Appliance):
    """A server whose sockets somebody holds, as systemd does."""

    def __init__(self, tmp):
        super().__init__(tmp)
        (tmp / "run").mkdir()
        self.held = [socket.socket(socket.AF_UNIX)]
        self.held[0].bind(str(tmp / "run/control.sock"))
        for port in self.ports.values():
            self.held.append(socket.socket())
            self.held[-1].bind(("127.0.0.1", port))
        for sock in self.held:
            sock.listen()

    def start(self):
        for number, sock in enumerate(self.held):
            os.dup2(sock.fileno(), FIRST + number, inheritable=True)
        numbers = range(len(self.held))
        moved = " ".join(f"{systemd.FIRST + n}<&{FIRST + n} {FIRST + n}<&-" for n in numbers)
        command = [sys.executable, "-m", "appliance", "--config", str(self.config), "serve"]
        with (self.tmp / "log").open("ab") as log:
            self.process = subprocess.Popen(
                ["bash", "-c", f'LISTEN_PID=$$ exec "$@" {moved}', "bash", *command],
                pass_fds=[FIRST + n for n in numbers],
                env={**os.environ, "LISTEN_FDS": str(len(self.held)), "WATCHDOG_USEC": "60000000"},
                stderr=log,
            )
        for number in numbers:
            os.close(FIRST + number)


@pytest.mark.slow
def test_no_connection_is_refused_while_the_server_is_gone(tmp_path):
    server = Activated(tmp_path)
    try:
        early = server.ask()  # nobody is there yet
        server.start()
        assert early.recv(7) == b"HTTP/1."
        server.process.send_signal(signal.SIGTERM)
        assert "No job now" in rest(early)
        assert 0 == server.process.wait(30)
        between = server.ask()
        server.start()
        assert between.recv(7) == b"HTTP/1."
        assert "1 parked" in server.run("status").stdout
        assert 0 == server.stop()
        between.close()
    finally:
        server.process.kill()
        for sock in server.held:
            sock.close()
    assert (tmp_path / "run/control.sock").exists()  # whoever made it takes it away
