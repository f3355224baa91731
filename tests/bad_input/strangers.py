"""Who sends bad input, what words it is made of, and what it may change: nothing.

Two strangers try: one at an address of its own, who knows the names of everything, and one at
the address of a box that runs a job, with tokens and ids that are not its own.  Whatever they
send, they get a short answer in the shape of the door, a line in the log says who and why, and
the job and its box stay as they were.

Everything is drawn from one seed, which each test prints; FUZZ_SEED chooses another, FUZZ_TIMES
makes the tests that many times as long.
"""

from __future__ import annotations

import contextlib
import os
import re
from urllib.parse import quote

import trio
from trio.testing import wait_all_tasks_blocked

from appliance.config import Config, Network
from tests import lab as labs
from tests.lab import HYPHENS, MAC, SCHEDULER

SEED = int(os.environ.get("FUZZ_SEED", "4"))
TIMES = int(os.environ.get("FUZZ_TIMES", "1"))
STRANGER, BOX = "10.0.0.66", "10.0.0.5"
LOGGED = {400, 403, 408, 409, 413, 431, 503, 507}  # 404 and 405 are anybody's slip of the pen
ANSWER_BYTES_MAX = 500  # with its headers: the longest says which reports there are
HERE_S = 0.1  # on the real clock, an answer to what is whole is there
CARDS = {STRANGER: "52:54:00:00:00:66", BOX: MAC}

IDS = ["lab.1", "lab.2", "lab.99999999999999999999", "", "../lab.1", "lab.1/", "lab.1%00", "$(id)"]
MACS = [HYPHENS, MAC, HYPHENS.upper(), "52-54-00-00-00", "zz", "..", "%0a", "${mac}", ""]
NAMES = ["box-1", "box-2", "../../etc/passwd", "-", "unknown-1", "a b", "'; reboot #", "é"]
WORDS = ["running", "finished", "post_run", "manual_check", "abort", "wait_ready", "x;y", "\n", "0"]
NUMBERS = ["60", "-1", "0", "1e9", "99999999", "nan", "9" * 50, "0x10", "٣"]
KEYS = [
    "job_id", "job_state", "job_stage", "job_health", "timeout", "time", "testbox", "tbox_name",
    "hostname", "mac", "host", "queues", "type", "state", "node_roles", "ip", "direct_macs",
    "ssh_port", "message", "job_file", "arch", "uuid", "", "a" * 300,
]  # fmt: skip
HOSTS = ["", "a b", "x:99999", "[::1", "${x}", "x, y", "é", "x" * 3000, "127.0.0.1:3000\tx"]
METHODS = ["GET"] * 8 + ["POST", "PUT", "HEAD", "DELETE", "PROPFIND", "get"]


def value(rng):
    drawn = rng.choice([IDS, MACS, NAMES, WORDS, NUMBERS])
    text = rng.choice(drawn)
    if rng.random() < 0.1:
        text = text * rng.choice([10, 1000])
    return text


def query(rng):
    pairs = [
        f"{rng.choice(KEYS)}={quote(value(rng), safe='%/:=')}" for _ in range(rng.randrange(6))
    ]
    return "&".join(pairs) + rng.choice(["", "&&", "&", "&=", "&a"])


def asked(rng, method, target, headers=(), body=b""):
    """The bytes of a request, whole or not, of a client that may lie about its body's length."""
    host = "x" if rng.random() < 0.93 else rng.choice(HOSTS)
    head = [f"host: {host}", "connection: close", *headers]
    if body or rng.random() < 0.05:
        length = rng.choice([len(body)] * 6 + [0, len(body) + 9, 2**40, -1, "x", "1, 2"])
        head.append(f"content-length: {length}")
    if rng.random() < 0.1:
        head.append(rng.choice(["transfer-encoding: chunked", "expect: 100-continue",
                                "upgrade: websocket", "upgrade: h2c", "expect: x",
                                "x: " + "y" * 20_000]))  # fmt: skip
    version = "HTTP/1.1" if rng.random() < 0.97 else rng.choice(["HTTP/2.0", "HTTP/1.0", "x"])
    text = f"{method} {target} {version}\r\n" + "".join(f"{line}\r\n" for line in head)
    whole = text.encode() + b"\r\n" + body
    return whole[: rng.randrange(len(whole))] if rng.random() < 0.05 else whole


def garbage(rng):
    """What is no request at all."""
    begun = rng.choice([b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET ", b"\x16\x03\x01", b"\0"])
    return begun + rng.randbytes(rng.randrange(1, 3000))


async def exchange(lab, client, pieces, server=SCHEDULER, *, ends=False):
    """What comes back within a minute; `ends`: the client waits for that no longer than HERE_S."""
    stream = lab.wire.connect((client, 4000), server)
    found = b""
    with contextlib.suppress(trio.BrokenResourceError):  # the door may be shut on us
        for piece in pieces:
            await stream.send_all(piece)
            if piece:
                await trio.lowlevel.checkpoint()
            else:
                await wait_all_tasks_blocked()
    for patience in (HERE_S, 60) if ends else (60,):
        with trio.move_on_after(patience), contextlib.suppress(trio.BrokenResourceError):
            while data := await stream.receive_some():
                found += data
        await stream.send_stream.aclose()
    await stream.aclose()
    await wait_all_tasks_blocked()
    return found


async def at_work(lab, patience=60):
    """A job that runs on its box, and the kernel knows whose card is where."""
    lab.neighbours.cards.update(CARDS)
    await lab.know(arch="x86_64")
    job = await lab.submit("script: x\nruntime: 30d\n")
    await (await lab.ask()).rest()
    await lab.fetched_all(job)
    await lab.report(job, "job_state=running")
    await trio.sleep(patience)  # until the document is filed
    box = lab.scheduler.store.box("box-1")

    def state():
        job_now = lab.scheduler.store.job(job.id)
        return job_now, box.address, box.macs, box.facts, len(box.boots), tuple(box.boot.steps)

    return state


def config(*where):
    return Config(paths=labs.config(*where).paths, network=Network())


def is_honest(sent):
    """Whether a request is whole, and as long as it says: its answer may be read to the end."""
    head, _, body = sent.partition(b"\r\n\r\n")
    said = re.search(rb"\r\ncontent-length: (.*?)(\r|$)", head)
    length = int(said[1]) if said and said[1].isdigit() else 0
    return b"\r\n\r\n" in sent and b"\r\ntransfer-encoding" not in head and length == len(body)


def check(lab, before, now, answer, lines, client, sent):
    """What every stranger gets, and changes."""
    answer = re.sub(rb"\AHTTP/1.1 100 .*?\r\n\r\n", b"", answer, flags=re.DOTALL)
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head.split(b" ")[1]) if head else 0

    assert before == now
    assert [name for name in lab.scheduler.store.boxes if not name.startswith("unknown-")] == [
        "box-1"
    ]
    assert status < 500 or status == 503
    assert status in (0, 200) or len(answer) < ANSWER_BYTES_MAX, answer[:1000]
    assert b"Traceback" not in answer
    if status >= 400:
        assert body or sent.startswith(b"HEAD ") or not is_honest(sent), answer
    if status in LOGGED:
        said = [line for line in lines if client in (line.get("client"), line.get("address"))]
        assert said, (answer, lines)
        assert all("why" in line for line in said if line["log_level"] == "warning")
        assert all(len(str(line)) < 2000 for line in lines)
    assert [] == [repr(error) for error in lab.wire.crashes]
    lab.check()
    return status
