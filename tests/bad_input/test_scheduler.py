"""Bad input on port 3000: requests drawn from a grammar, some of them right, most of them not."""

from __future__ import annotations

import random
from urllib.parse import quote

import pytest
import structlog
import trio
import wsproto

from tests.lab import HYPHENS, KEY, open_lab

from .strangers import (
    BOX,
    IDS,
    MACS,
    METHODS,
    SEED,
    STRANGER,
    TIMES,
    asked,
    at_work,
    check,
    config,
    exchange,
    garbage,
    query,
)

CASES = 400
WEBSOCKETS = 150
VERBS = [
    "lkp-wtmp", "lkp-jobfile-append-var", "set-job-stage", "lkp-post-run", "lkp-cluster-sync",
    "report_ssh_port", "report_ssh_info", "report-job-step", "still-wanted", "gpxelinux.cgi",
    "lkp-nothing", "..", "%2e%2e",
]  # fmt: skip
DOORS = ["renew_deadline", "get_deadline", "get_testbox", "heart-beat", "", "submit_job"]
PROVIDERS = ["set_host_mac", "del_host_mac", "set_host2queues", "register-host2redis"]


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
        return garbage(rng)
    path = target(rng, client)
    aimed = f"{path}?{query(rng)}" if rng.random() < 0.9 else path
    body = b""
    if rng.random() < 0.3:
        body = rng.choice([b"{}", b'{"job_id": "lab.1"}', b"[" * 5000, rng.randbytes(200), b"a=b"])
    method = "PUT" if is_providers(path) and rng.random() < 0.6 else rng.choice(METHODS)
    return asked(rng, method, aimed, (), body)


async def test_whatever_strangers_send_changes_nothing_and_is_answered_shortly(
    autojump_clock, tmp_path
):
    print(f"FUZZ_SEED={SEED}")
    rng, seen = random.Random(SEED), set()
    async with open_lab(config()) as lab:
        state = await at_work(lab)
        before = state()
        for n in range(CASES * TIMES):
            client = rng.choice([STRANGER, BOX])
            data = request(rng, client)
            with structlog.testing.capture_logs() as lines:
                answer = await exchange(lab, client, [data])
            try:
                seen.add(check(lab, before, state(), answer, lines, client, data))
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
        state = await at_work(lab)
        before, tasks = state(), len(lab.wire.nursery.child_tasks)
        for n in range(WEBSOCKETS * TIMES):
            pieces = list(frames(rng))
            with structlog.testing.capture_logs() as lines:
                answer = await exchange(lab, STRANGER, pieces)
                await trio.sleep(2 * lab.wire.config.keep_alive_timeout)  # what 431 leaves behind
            head = answer.split(b"\r\n\r\n")[0]
            try:
                if b" 101 " in head:
                    answer = b""  # frames
                    seen.add(101)
                seen.add(check(lab, before, state(), answer, lines, STRANGER, b""))
                assert tasks == len(lab.wire.nursery.child_tasks)
                assert 0 == len(lab.scheduler.lobby)
            except AssertionError as error:
                error.add_note(f"FUZZ_SEED={SEED}, case {n}: {pieces!r:.2000}")
                raise

    assert {101, 400, 404, 503} <= seen


@pytest.mark.parametrize("client", [STRANGER, BOX])
async def test_a_job_that_is_not_the_boxs_is_not_its_to_fetch(autojump_clock, tmp_path, client):
    async with open_lab(config()) as lab:
        await at_work(lab)
        other = await lab.submit("script: secret\n", key=KEY[::-1])
        with structlog.testing.capture_logs() as lines:
            answers = [
                await lab.get(f"/job_initrd_tmpfs/{job}/job.cgz", client)
                for job in (["lab.1"] if client == STRANGER else []) + [other.id]
            ]

        assert {403, 404} >= {answer.status for answer in answers}
        assert client == BOX or ["10.0.0.66"] == [line.get("address") for line in lines]
