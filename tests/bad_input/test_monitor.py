"""Bad input on port 20001: handshakes, frames and queries, some of them right, most of them not."""

from __future__ import annotations

import contextlib
import json
import random

import pytest
import structlog
import trio

from appliance.doors import monitor
from tests.lab import open_lab

from .strangers import (
    BOX,
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
    value,
)

CASES = 300
MONITOR = ("10.0.0.1", 20001)
PATHS = ["/filter"] * 8 + ["/", "/filter/", "/FILTER", "/filter/../x", "/%66ilter", "/ws/boot.ipxe"]
KEYS = ["job_id", "job_state", "testbox", "log", "", "^job_", "(", "a" * 300, "\ud800", "(?i)x"]
WORDS = ["lab.1", "lab.[0-9]+", "(", "(?=a)", "(a*)*$", "\\", "x{1000}{1000}", None, True, 7, 1e400]
HEAD = [
    "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==",
]  # fmt: skip
WRONG = [
    "Upgrade: h2c", "Connection: close", "Sec-WebSocket-Version: 12", "Sec-WebSocket-Key: x",
    "Sec-WebSocket-Protocol: \t,", "Sec-WebSocket-Extensions: permessage-deflate; x=\"",
    "Content-Length: 9", "Origin: http://elsewhere", "Sec-WebSocket-Version: 13, 8",
]  # fmt: skip
# What a client may still be waited for: a query, and the goodbye.
PATIENCE_S = monitor.QUERY_S + monitor.CLOSE_S + 10


def said(rng):
    """A query, or the text of none."""
    drawn = rng.choice([WORDS, [value(rng)]])
    one = rng.choice(drawn)
    wanted = rng.choice(
        [one, [one, "lab.1"], {"x": one}, [], [[one]], [f"{n}" for n in range(300)]]
    )
    text = json.dumps({rng.choice(KEYS): wanted for _ in range(rng.randrange(3))})
    return rng.choice([text] * 5 + ["", "{}", "[]", "null", text[:-1], "[" * 9000, '{"a": NaN}'])


def frame(rng):
    """One frame, which says what it is and how long it is, or says it wrongly."""
    body = said(rng).encode(errors="surrogatepass")
    if rng.random() < 0.3:
        body = rng.choice([rng.randbytes(90), b"\xff\xfe", b"", b"\x03\xe8bye", b"\x00"])
    opcode = rng.choice([0x1] * 6 + [0x0, 0x2, 0x3, 0x8, 0x9, 0xA, 0xF])
    first = rng.choice([0x80] * 6 + [0x00, 0x70]) | opcode
    masked = 0x80 if rng.random() < 0.9 else 0
    sized = rng.choice([len(body)] * 8 + [len(body) + 5, 0, 2**40])
    if sized < 126:
        length = bytes([masked | sized])
    elif sized < 2**16:
        length = bytes([masked | 126]) + sized.to_bytes(2)
    else:
        length = bytes([masked | 127]) + sized.to_bytes(8)
    return bytes([first]) + length + (bytes(4) if masked else b"") + body


def pieces(rng):
    """A handshake and what follows it; `b""`: what was sent is answered first."""
    if rng.random() < 0.1:
        yield garbage(rng)
        return
    target = rng.choice(PATHS) + rng.choice(["", "", f"?{query(rng)}"])
    if rng.random() < 0.15:
        yield asked(rng, rng.choice(METHODS), target, (), rng.choice([b"", b"{}"]))
        return
    head = list(HEAD)
    if rng.random() < 0.2:
        head[rng.randrange(len(head))] = rng.choice(WRONG)
    if rng.random() < 0.1:
        head.append(rng.choice(WRONG))
    method = "GET" if rng.random() < 0.95 else rng.choice(METHODS)
    hello = f"{method} {target} HTTP/1.1\r\nhost: x\r\n" + "".join(f"{line}\r\n" for line in head)
    yield hello.encode() + (b"\r\n" if rng.random() < 0.95 else b"")
    if rng.random() < 0.8:
        yield b""
    for _ in range(rng.randrange(5)):
        yield frame(rng)
        if rng.random() < 0.5:
            yield b""
    if rng.random() < 0.1:
        yield rng.randbytes(rng.randrange(500))
    if rng.random() < 0.05:
        size = 2**20
        yield b"\x81\xff" + size.to_bytes(8) + bytes(4) + b"x" * size


def closed(answer):
    """(code, reason) of the last close frame in what came behind a handshake; None without one."""
    frames, found = answer.split(b"\r\n\r\n", 1)[1], None
    while len(frames) >= 2:
        opcode, size = frames[0] & 0xF, frames[1]
        body, frames = frames[2 : 2 + size], frames[2 + size :]
        if opcode == 0x8:
            found = int.from_bytes(body[:2]) if body else 1005, body[2:].decode()
    return found


async def test_whatever_watchers_send_changes_nothing_and_each_hears_why_it_ended(
    autojump_clock, tmp_path
):
    print(f"FUZZ_SEED={SEED}")
    rng, seen = random.Random(SEED), set()
    async with open_lab(config()) as lab:
        state = await at_work(lab)
        before, tasks = state(), len(lab.wire.nursery.child_tasks)
        for n in range(CASES * TIMES):
            client, sent = rng.choice([STRANGER, BOX]), list(pieces(rng))
            with structlog.testing.capture_logs() as lines:
                answer = await exchange(lab, client, sent, MONITOR)
                await trio.sleep(PATIENCE_S)
            try:
                if b" 101 " in answer.split(b"\r\n\r\n")[0]:
                    code, reason = closed(answer) or (None, "")
                    seen.add(code)
                    assert code != 1008 or reason
                    if code is not None:
                        assert [line for line in lines if client == line.get("client")], lines
                    answer = b""
                seen.add(check(lab, before, state(), answer, lines, client, b"".join(sent)))
                assert tasks == len(lab.wire.nursery.child_tasks)
                assert 0 == len(lab.scheduler.watchers)
            except AssertionError as error:
                error.add_note(f"FUZZ_SEED={SEED}, case {n} from {client}: {sent!r:.1500}")
                raise

    assert {0, 400, 404, 1008} <= seen


@pytest.mark.parametrize("version", ["13", "12"])
async def test_who_stalls_at_any_byte_is_not_waited_for(autojump_clock, version):
    """And keeps the connection: a handshake, then a query that is none, cut off anywhere."""
    hello = "GET /filter HTTP/1.1\r\nhost: x\r\n" + "".join(f"{line}\r\n" for line in HEAD)
    whole = hello.replace("Version: 13", f"Version: {version}").encode() + b"\r\n"
    query = b"\x81\x82\0\0\0\0[]"
    async with open_lab() as lab:
        before = len(lab.wire.nursery.child_tasks)
        for end in range(0, len(whole) + len(query), 7):
            stream = lab.wire.connect((STRANGER, 4000), MONITOR)
            await stream.send_all(whole[:end])
            await trio.sleep(1)
            with contextlib.suppress(trio.BrokenResourceError):  # it may have been refused
                await stream.send_all(query[: max(0, end - len(whole))])
            await trio.sleep(PATIENCE_S)

            assert before == len(lab.wire.nursery.child_tasks), end
            assert 0 == len(lab.scheduler.watchers)
