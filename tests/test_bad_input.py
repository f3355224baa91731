"""Bad input on port 3000: requests drawn from a grammar, some of them right, most of them not.

Two strangers try: one at an address of its own, who knows the names of everything, and one at
the address of a box that runs a job, with tokens and ids that are not its own.  Whatever they
send, they get a short answer in the shape of the door, a line in the log says who and why, and
the job and its box stay as they were.  FUZZ_SEED draws others.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
from urllib.parse import quote

import pytest
import structlog
import trio
import wsproto
from trio.testing import wait_all_tasks_blocked

from appliance.config import Config, Network
from tests import lab as labs
from tests.lab import HYPHENS, KEY, MAC, SCHEDULER, open_lab

SEED = int(os.environ.get("FUZZ_SEED", "4"))
CASES = 400
WEBSOCKETS = 150
STRANGER, BOX = "10.0.0.66", "10.0.0.5"
ANSWER_BYTES_MAX = 500  # with its headers: the longest says which reports there are
ARP = """IP address HW type Flags HW address Mask Device
10.0.0.66 0x1 0x2 52:54:00:00:00:66 * br0
10.0.0.5 0x1 0x2 52:54:00:00:00:01 * br0
"""

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
VERBS = [
    "lkp-wtmp", "lkp-jobfile-append-var", "set-job-stage", "lkp-post-run", "lkp-cluster-sync",
    "report_ssh_port", "report_ssh_info", "report-job-step", "still-wanted", "gpxelinux.cgi",
    "lkp-nothing", "..", "%2e%2e",
]  # fmt: skip
DOORS = ["renew_deadline", "get_deadline", "get_testbox", "heart-beat", "", "submit_job"]
PROVIDERS = ["set_host_mac", "del_host_mac", "set_host2queues", "register-host2redis"]
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


def target(rng, client):
    """A path of one of the doors.  At the box's own address, never what the box itself may say."""
    prefix = rng.choice(["", "", "/scheduler"])
    token = rng.choice(["/forged", "/" + "0" * 32, "/token", "/..", "/" + quote("é\0")])
    if client == STRANGER and rng.random() < 0.5:
        token = ""
    kind = rng.randrange(6)
    if kind == 0 and client == STRANGER:
        return f"{prefix}/boot.{rng.choice(['ipxe', 'grub', 'ipxe/..'])}/mac/{rng.choice(MACS)}"
    if kind == 1:
        return f"{prefix}/job_initrd_tmpfs/{rng.choice(IDS[1:])}/{rng.choice(['job.cgz', '..'])}"
    if kind == 2:
        return f"{prefix}/{rng.choice(PROVIDERS)}"
    if kind == 3 and client == STRANGER:
        return f"{prefix}/{rng.choice(DOORS)}"
    if client == BOX:
        return f"{prefix}/~lkp{token}/cgi-bin/{rng.choice([v for v in VERBS if 'gpx' not in v])}"
    return f"{prefix}/~{rng.choice(['lkp', 'a', ''])}{token}/cgi-bin/{rng.choice(VERBS)}"


def is_providers(path):
    return path.rsplit("/", 1)[-1] in PROVIDERS


def request(rng, client):
    """The bytes of a request, whole or not."""
    if rng.random() < 0.08:
        return rng.randbytes(rng.randrange(1, 3000))
    path = target(rng, client)
    asked = f"{path}?{query(rng)}" if rng.random() < 0.9 else path
    headers = ["host: x", "connection: close"]
    body = b""
    if rng.random() < 0.3:
        body = rng.choice([b"{}", b'{"job_id": "lab.1"}', b"[" * 5000, rng.randbytes(200), b"a=b"])
        length = rng.choice([len(body), len(body), 0, len(body) + 9, 2**40, -1, "x"])
        headers.append(f"content-length: {length}")
    if rng.random() < 0.1:
        headers.append(rng.choice(["transfer-encoding: chunked", "expect: 100-continue",
                                   "upgrade: websocket", "x: " + "y" * 20_000]))  # fmt: skip
    method = "PUT" if is_providers(path) and rng.random() < 0.6 else rng.choice(METHODS)
    head = f"{method} {asked} HTTP/1.1\r\n" + "".join(f"{h}\r\n" for h in headers)
    whole = head.encode() + b"\r\n" + body
    return whole[: rng.randrange(len(whole))] if rng.random() < 0.05 else whole


async def exchange(lab, client, pieces):
    """What comes back within a minute."""
    stream = lab.wire.connect((client, 4000), SCHEDULER)
    found = b""
    with contextlib.suppress(trio.BrokenResourceError):  # the door may be shut on us
        for piece in pieces:
            await stream.send_all(piece)
            if piece:
                await trio.lowlevel.checkpoint()
            else:
                await wait_all_tasks_blocked()
    with trio.move_on_after(60), contextlib.suppress(trio.BrokenResourceError):
        while data := await stream.receive_some():
            found += data
    await stream.aclose()
    await wait_all_tasks_blocked()
    return found


async def at_work(lab, tmp_path):
    """A job that runs on its box, with a file of the kernel's ARP table."""
    (tmp_path / "arp").write_text(ARP)
    paths = lab.wire.app._by_port[3000]
    boots = next(app for prefix, app in paths._by_prefix if prefix == "/boot.")
    boots._admission.arp_table = tmp_path / "arp"
    await lab.know(arch="x86_64")
    job = await lab.submit("script: x\nruntime: 30d\n")
    await (await lab.ask()).rest()
    await lab.fetched_all(job)
    await lab.report(job, "job_state=running")
    await trio.sleep(60)  # until the document is filed
    box = lab.scheduler.store.box("box-1")

    def state():
        job_now = lab.scheduler.store.job(job.id)
        return job_now, box.address, box.macs, box.facts, len(box.boots), tuple(box.boot.steps)

    return state


def config():
    return Config(paths=labs.config().paths, network=Network())


def check(lab, before, now, answer, lines, client):
    """What every stranger gets, and changes."""
    answer = re.sub(rb"\AHTTP/1.1 100 .*?\r\n\r\n", b"", answer, flags=re.DOTALL)
    head = answer.partition(b"\r\n\r\n")[0]
    status = int(head.split(b" ")[1]) if head else 0

    assert before == now
    assert [name for name in lab.scheduler.store.boxes if not name.startswith("unknown-")] == [
        "box-1"
    ]
    assert status < 500 or status == 503
    assert status in (0, 200) or len(answer) < ANSWER_BYTES_MAX, answer[:1000]
    assert b"Traceback" not in answer
    if status in (400, 403, 503) and b"text/plain" in head:
        said = [line for line in lines if client in (line.get("client"), line.get("address"))]
        assert said, (answer, lines)
        assert all("why" in line for line in said if line["log_level"] == "warning")
        assert all(len(str(line)) < 2000 for line in lines)
    assert [] == [repr(error) for error in lab.wire.crashes]
    lab.check()
    return status


async def test_whatever_strangers_send_changes_nothing_and_is_answered_shortly(
    autojump_clock, tmp_path
):
    print(f"FUZZ_SEED={SEED}")
    rng, seen = random.Random(SEED), set()
    async with open_lab(config()) as lab:
        state = await at_work(lab, tmp_path)
        before = state()
        for n in range(CASES):
            client = rng.choice([STRANGER, BOX])
            data = request(rng, client)
            with structlog.testing.capture_logs() as lines:
                answer = await exchange(lab, client, [data])
            try:
                seen.add(check(lab, before, state(), answer, lines, client))
            except AssertionError as error:
                error.add_note(f"FUZZ_SEED={SEED}, case {n} from {client}: {data[:600]!r}")
                raise

    assert {200, 400, 403, 404, 405} <= seen


def frames(rng):
    """A handshake and what follows it, piece by piece."""
    path = rng.choice(["/ws/boot.ipxe/mac/52-54-00-00-00-66", f"/ws/boot.ipxe/mac/{HYPHENS}",
                       "/ws/boot.ipxe", "/ws/boot.grub", "/scheduler/ws/boot.ipxe"])  # fmt: skip
    client = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
    asked = f"{path}?{query(rng)}"
    hello = client.send(wsproto.events.Request(host="x", target=asked))
    if rng.random() < 0.2:
        hello = hello.replace(b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Version: 1")
    yield hello
    if rng.random() < 0.7:
        yield b""  # until it is answered
    for _ in range(rng.randrange(12)):
        opcode = rng.choice([0x0, 0x1, 0x2, 0x8, 0x9, 0xA, 0x3, 0xF])
        final, masked = rng.choice([0x80, 0x80, 0x00, 0x70]), rng.choice([0x80, 0x80, 0x80, 0])
        body = rng.choice([b"", b'{"type": "request_memory"}', rng.randbytes(100), b"\x03\xe8bye"])
        sized = rng.choice([len(body), len(body), len(body), 126, 127])
        yield bytes([final | opcode, masked | sized]) + bytes(4 if masked else 0) + body
    if rng.random() < 0.2:
        yield rng.randbytes(rng.randrange(500))
    if rng.random() < 0.1:
        size = 2**20
        yield b"\x81\xff" + size.to_bytes(8, "big") + bytes(4) + b"x" * size


async def test_whatever_strangers_send_by_websocket_changes_nothing(autojump_clock, tmp_path):
    print(f"FUZZ_SEED={SEED}")
    rng, seen = random.Random(SEED), set()
    async with open_lab(config()) as lab:
        state = await at_work(lab, tmp_path)
        before, tasks = state(), len(lab.wire.nursery.child_tasks)
        for n in range(WEBSOCKETS):
            pieces = list(frames(rng))
            with structlog.testing.capture_logs() as lines:
                answer = await exchange(lab, STRANGER, pieces)
                await trio.sleep(2 * lab.wire.config.keep_alive_timeout)  # what 431 leaves behind
            head = answer.split(b"\r\n\r\n")[0]
            try:
                if b" 101 " in head:
                    answer = b""  # frames
                    seen.add(101)
                seen.add(check(lab, before, state(), answer, lines, STRANGER))
                assert tasks == len(lab.wire.nursery.child_tasks)
                assert 0 == len(lab.scheduler.lobby)
            except AssertionError as error:
                error.add_note(f"FUZZ_SEED={SEED}, case {n}: {pieces!r:.2000}")
                raise

    assert {101, 400, 404, 503} <= seen


@pytest.mark.parametrize("client", [STRANGER, BOX])
async def test_a_job_that_is_not_the_boxs_is_not_its_to_fetch(autojump_clock, tmp_path, client):
    async with open_lab(config()) as lab:
        await at_work(lab, tmp_path)
        other = await lab.submit("script: secret\n", key=KEY[::-1])
        with structlog.testing.capture_logs() as lines:
            answers = [
                await lab.get(f"/job_initrd_tmpfs/{job}/job.cgz", client)
                for job in (["lab.1"] if client == STRANGER else []) + [other.id]
            ]

        assert {403, 404} >= {answer.status for answer in answers}
        assert client == BOX or ["10.0.0.66"] == [line.get("address") for line in lines]
