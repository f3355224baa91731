"""Bad input on the ports that only give files: 8000, 8800 and 20007, through the server they have.

Real sockets on loopback, since it sends with sendfile.
"""

from __future__ import annotations

import contextlib
import random
import socket
from contextlib import asynccontextmanager

import structlog
import trio

from appliance.doors.index import Index
from appliance.web import file_server
from appliance.web.asgi import Doors
from appliance.web.files import Files, Unwatched

from .strangers import ANSWER_BYTES_MAX, METHODS, SEED, TIMES, asked, garbage, is_honest

CASES = 300
SECRET = b"of nobody's business"
ROOTS = ["os", "initrd", "result", "upload-files"]
NAMES = [
    "debian/vmlinuz", "debian//./vmlinuz", "debian/..%2f..%2fsecret", "../secret", "%2e%2e/secret",
    "out", "out/secret", "loop", "debian", "debian/", "", "%", "%00", "%0d%0a", "\\..\\secret",
    "\xff", "a/" * 5000 + "b", "x" * 300, "fifo", "debian/vmlinuz/", "${id}", "debian/vmlinuz%00.x",
]  # fmt: skip
RANGES = ["0-0", "0-", "-1", "5-2", "99999-", "0-1,3-4", "x", "-", "0-" + "9" * 40, "--1", "-0"]


def request(rng):
    if rng.random() < 0.08:
        return garbage(rng)
    root = rng.choice([*ROOTS * 3, "secret", "..", ".", "OS"])
    path = f"/{root}/{rng.choice([*NAMES, *['debian/vmlinuz'] * len(NAMES)])}"
    path = rng.choice([path] * 8 + [path[1:], "//" + path, path + "?" + "q" * 99, "*", "http://x/"])
    headers = []
    if rng.random() < 0.4:
        headers.append(f"range: bytes={rng.choice(RANGES)}")
    if rng.random() < 0.3:
        headers.append(rng.choice(["if-none-match: *", 'if-range: "x"', "if-range: \x01",
                                   "if-modified-since: Thu, 99 Foo 9999 99:99:99 GMT",
                                   'if-none-match: W/"' + "x" * 5000]))  # fmt: skip
    return asked(rng, rng.choice(METHODS), path, headers, rng.choice([b"", b"", b"body"]))


@asynccontextmanager
async def doors(srv):
    """Every folder of files on one port, and what a person reads of results on another."""
    socks = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    ports = [sock.getsockname()[1] for sock in socks]
    files = Files({f"/{name}": srv / name for name in ROOTS}, Unwatched())
    app = Doors({ports[0]: files, ports[1]: Index("/result", srv / "result", files)})
    closing = trio.Event()
    async with trio.open_nursery() as nursery:
        serve = file_server.serve
        await nursery.start(lambda task_status: serve(
            app, socks, stop=closing.wait, patience=1, task_status=task_status
        ))  # fmt: skip
        yield ports
        closing.set()


async def exchange(port, sent, *, ends=True):
    """What comes back; who `ends` has hung up by then, and may get less of a file."""
    found = b""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        with contextlib.suppress(trio.BrokenResourceError):
            await stream.send_all(sent)
            if ends:
                await stream.send_eof()
            while data := await stream.receive_some():
                found += data
    return found


def tree(srv):
    for root in ROOTS:
        (srv / root / "debian").mkdir(parents=True)
        (srv / root / "debian/vmlinuz").write_bytes(b"kernel" * 100)
        (srv / root / "out").symlink_to("..")
        (srv / root / "loop").symlink_to("loop")
    (srv / "secret").write_bytes(SECRET)


async def test_whatever_is_asked_no_file_but_the_labs_comes_and_each_answer_is_short(tmp_path):
    print(f"FUZZ_SEED={SEED}")
    rng, seen = random.Random(SEED), set()
    tree(tmp_path)
    with trio.fail_after(60):
        async with doors(tmp_path) as ports:
            for n in range(CASES * TIMES):
                port, sent = rng.choice(ports), request(rng)
                with structlog.testing.capture_logs() as lines:
                    answer = await exchange(port, sent)
                try:
                    head, _, body = answer.partition(b"\r\n\r\n")
                    status = int(head.split(b" ")[1]) if head else 0
                    assert SECRET not in answer
                    assert status < 500
                    assert status in (0, 200, 206) or len(answer) < ANSWER_BYTES_MAX
                    assert not [line for line in lines if line["log_level"] == "error"]
                    if status >= 400 and is_honest(sent) and not sent.startswith(b"HEAD "):
                        assert body
                    if status == 400:
                        assert [line for line in lines if "127.0.0.1" == line["client"]], lines
                    assert all(len(str(line)) < 20_000 for line in lines)
                    seen.add(status)
                except AssertionError as error:
                    error.add_note(f"FUZZ_SEED={SEED}, case {n}: {sent[:600]!r}\n{answer[:600]!r}")
                    raise
            asked = b"GET /os/debian/vmlinuz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            whole = await exchange(ports[0], asked, ends=False)

    assert whole.endswith(b"kernel" * 100)
    assert {200, 400, 404, 405} <= seen
