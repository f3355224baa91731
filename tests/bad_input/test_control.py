"""Bad input on the control socket: bytes that are no CBOR, CBOR that is no request, and requests
whose arguments are anything.

Who connects is root here, so that no verb is refused for the user alone.
"""

from __future__ import annotations

import contextlib
import io
import random
from datetime import UTC, datetime

import cbor2
import pytest
import structlog
import trio

from appliance.scheduler import hosts_files
from tests.test_control import HELLO, PAPER, connect, ids, items, open_door

from .strangers import IDS, MACS, NAMES, NUMBERS, SEED, TIMES, WORDS

CASES = 300
JOB = {"job": "lab.1"}
BOX = {"host": "box-1"}
# What is right; one argument or two become something else.
RIGHT = {
    "submit": {"documents": [PAPER], "key": "k" * 16},
    "jobs": {"limit": 3, "user": "ann", "health": ["success"], "state": ["finish"], "since": 1.0},
    "host-add": {
        "name": "box-2", "macs": ["52:54:00:00:00:02"], "arch": "x86_64", "uuid": None,
        "queues": ["fast"], "tags": ["big"], "console": ["ttyS0"], "kernel_params": "quiet",
        "ipxe": None, "list": None, "replace": True, "memory": "64G", "nr_nic": "2",
        "rootfs_disk": ["/dev/sda"], "disk_size": None, "mac": None,
    },
    "host-file": BOX, "host-edit": BOX | {"text": "mac: x", "before": ""}, "images-used": {},
    "log-level": {"level": "info", "seconds": None},
    "host-preview": BOX | JOB, "host-reserve": BOX | {"for": "ann", "seconds": 60.0, "why": "x"},
    "host-release": BOX, "host-remove": BOX, "host-show": BOX, "hosts": {},
    "show": JOB, "cancel": JOB, "results": JOB, "read": JOB | {"path": "stdout", "offset": 0},
    "renew": JOB | {"seconds": 60.0}, "status": {}, "drain": {}, "resume": {},
    "results-keep": JOB | {"on": True}, "results-gc": {"older": 60.0, "dry_run": True},
    "no-such": {}, "": {},
}  # fmt: skip
# Heads that promise more than there is, tags that make decoders work, and the end of nothing.
TRICKS = [
    b"\x5b\x7f\xff\xff\xff\xff\xff\xff\xff", b"\x9b\x00\x00\x00\x7f\xff\xff\xff\xff", b"\xff",
    b"\xbb\xff\xff\xff\xff\xff\xff\xff\xff", b"\x9a\x40\x00\x00\x00", b"\x7f" * 5000, b"\x1c",
    b"\xc1\xfb\x7f\xf0\x00\x00\x00\x00\x00\x00", b"\xc2\x5a\x00\x01\x00\x00", b"\xd8\x1c" * 3000,
    b"\xc5\x82\x1b\x00\x00\x00\xff\xff\xff\xff\xff\x01", b"\xd8\x1d\x00", b"\x81" * 100_000,
    b"\xd9\x01\x02\x81\x81\x01", b"\xa1\x81\x01\x01", b"\xd8\x23\x63(a+", b"\xd8\x24\x61x",
    b"\xc4\x82\x1b\x00\x00\x00\xff\xff\xff\xff\xff\x01", b"\xd8\x1e\x82\x01\x00", b"\xf8\x01",
    b"\xc0\x61x", b"\xd9\xd9\xf7" * 1000, b"\xa1\xc1\x00\x00", b"\x62\xff\xff", b"\xd8\x25\x41x",
    b"\xd8\x1c\x81\xd8\x1d\x00", b"\xa1\x64verb\xd8\x1c\x81\xd8\x1d\x00",
]  # fmt: skip


def value(rng, depth=0):
    """Anything that CBOR can say."""
    plain = [
        *IDS, *MACS, *NAMES, *NUMBERS, *WORDS, 0, -1, 2**70, -(2**63), 1e308, float("nan"),
        float("inf"), True, None, b"", b"\xff", "box-1", "lab.1", "a" * 3000, "\0", "4h",
    ]  # fmt: skip
    if depth < 2 and rng.random() < 0.3:
        parts = [value(rng, depth + 1) for _ in range(rng.randrange(4))]
        return parts if rng.random() < 0.5 else {str(part)[:20]: part for part in parts}
    return rng.choice(plain)


def request(rng):
    """The bytes of one or more requests."""
    kind = rng.random()
    if kind < 0.1:
        return rng.randbytes(rng.randrange(1, 500))
    if kind < 0.2:
        return rng.choice(TRICKS)
    if kind < 0.25:
        return cbor2.dumps(value(rng))
    verb = rng.choice([*RIGHT, *["submit"] * 4])
    said = {"verb": verb, **RIGHT[verb]}
    if verb == "submit":
        said["key"] = f"key{rng.randrange(10**9)}key"
    if verb == "submit" and rng.random() < 0.5:
        said["documents"] = [{**PAPER, rng.choice(list(PAPER)): value(rng)}]
    for _ in range(rng.randrange(3)):
        said[rng.choice([*said, *said, "extra", 1])] = value(rng)
    return cbor2.dumps(said)


def is_whole(sent):
    """Whether nothing is missing at the end: somebody is there who could be told."""
    file = io.BytesIO(sent)
    try:
        while file.tell() < len(sent):
            cbor2.CBORDecoder(file).decode()
    except cbor2.CBORDecodeEOF:
        return False
    except (ValueError, cbor2.CBORError, RecursionError):
        return True
    return len(sent) > len(HELLO)


async def exchange(lab, sent):
    """What is answered to `sent`, on a connection of its own that ends with it."""
    found = b""
    async with await connect(lab) as stream:
        with contextlib.suppress(trio.BrokenResourceError):
            await stream.send_all(sent)
            await stream.send_eof()
            while data := await stream.receive_some():
                found += data
    return items(found)


@pytest.mark.parametrize("verb", [verb for verb in RIGHT if verb])
async def test_each_argument_of_each_verb_may_be_anything(tmp_path, verb):
    """One at a time, and every kind of thing: what is wrong is said, and nothing is logged."""
    odd = [0, -1, 2**70, 1.5, True, b"x", [], [1], [[]], {}, {"a": []}, {1: 2}, "", "x" * 3000,
           datetime(2026, 1, 1, tzinfo=UTC), cbor2.CBORTag(4000, "x"), cbor2.undefined]  # fmt: skip
    async with open_door(tmp_path) as lab:
        await lab.know()
        await lab.submit()
        for name in [*RIGHT[verb], "extra"]:
            for value in odd:
                said = cbor2.dumps({"verb": verb, **RIGHT[verb], name: value})
                with structlog.testing.capture_logs() as lines:
                    answers = (await exchange(lab, HELLO + said))[1:]
                wrong = [a["error"] for a in answers if "error" in a]

                assert [] == [line for line in lines if line["log_level"] == "error"], (name, value)
                assert "internal" not in [error["kind"] for error in wrong], (name, value)
                assert all(error["message"] for error in wrong)
        _, broken = hosts_files.read_all(lab.config.paths.hosts, "default")
        assert [] == broken


async def test_whatever_comes_in_the_answer_says_what_would_be_right(tmp_path):
    print(f"FUZZ_SEED={SEED}")
    rng, kinds = random.Random(SEED), set()
    with trio.fail_after(60):
        async with open_door(tmp_path) as lab:
            await lab.know()
            for n in range(CASES * TIMES):
                sent = request(rng)
                hello = rng.choice([HELLO] * 9 + [b"", cbor2.dumps({"appliance": 2})])
                with structlog.testing.capture_logs() as lines:
                    answers = (await exchange(lab, hello + sent))[1:]
                try:
                    for answer in answers:
                        if "error" in answer:
                            kinds.add(answer["error"]["kind"])
                            assert answer["error"]["message"]
                            assert len(answer["error"]["message"]) < 2000
                        elif "result" in answer:
                            kinds.add("result")
                    assert "internal" not in kinds
                    assert not [line for line in lines if line["log_level"] == "error"], lines
                    hung_up = b"drain" in sent or not is_whole(hello + sent)  # drain may wait
                    assert answers or hung_up
                    lab.check()
                except AssertionError as error:
                    error.add_note(f"FUZZ_SEED={SEED}, case {n}: {sent[:600]!r}\n{answers!r:.900}")
                    raise
            submit = cbor2.dumps({"verb": "submit", "documents": [PAPER], "key": "z" * 16})
            [answer] = [a for a in await exchange(lab, HELLO + submit) if "result" in a]

            assert 1 == len(ids(answer))
    assert {"result", "bad-request", "not-found"} <= kinds
    assert not (tmp_path / "pwned").exists()
