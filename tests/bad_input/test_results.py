"""Bad uploads on port 3080: paths, cookies, methods and bodies from a grammar, on real files.

They take threads, so they run on the real clock; a client that lies about its body's length ends
its side of the connection, as one does that lost its program.
"""

from __future__ import annotations

import contextlib
import random
from urllib.parse import quote

import attrs
import structlog
import trio

from appliance.config import Limits
from appliance.keep.results import PART
from tests.lab import KEY, open_lab

from .strangers import (
    BOX,
    IDS,
    SEED,
    STRANGER,
    TIMES,
    asked,
    at_work,
    check,
    config,
    exchange,
    garbage,
    is_honest,
    value,
)

CASES = 250
UPLOAD = ("10.0.0.1", 3080)
LIMIT = 4000  # bytes of a file here, so that some are too large
NAMES = [
    "stdout", "a//b", "./x", "..", "%2e%2e", "..%2f..%2fx", "%00", "%", "\\", "é", "%ff", "a;b",
    "d/" * 120 + "x", "x" * 300, ".appliance-part-1", "$(touch x)", "con fig",
]  # fmt: skip
METHODS = ["PUT"] * 6 + ["POST"] * 4 + ["MKCOL", "DELETE", "MOVE", "PATCH", "PROPFIND", "GET"]


def cookie(rng, job):
    wrong = [f"JOBID={rng.choice(IDS)}", f"jobid={job}", f'JOBID="{job}"; x=$(id)', "JOBID",
             f"a=b; JOBID={job}; JOBID=lab.2", "=;=;", "\x07", "JOBID=" + "9" * 5000]  # fmt: skip
    return rng.choice([f"JOBID={job}"] * 3 * len(wrong) + wrong)


def place(rng, root, other):
    base = rng.choice([root] * 6 + [other, "/result", "", "/os", "/../..", f"{root}/attempt-2",
                                    f"{root}x", f"{root}/..", root.replace("/", "//")])  # fmt: skip
    name = rng.choice([*NAMES, *["stdout", "results/deep/f"] * 6, quote(value(rng))])
    return f"{base}/{name}".replace(" ", "%20").encode("utf-8").decode("latin-1")


def form(rng):
    """A multipart form, or what is none."""
    name = rng.choice(
        ["dmesg"] * 7 + ["../x", "/etc/passwd", "", "x" * 300, ".", "a\r\nb", "é", ".."]
    )
    disposition = rng.choice(
        [f'form-data; name="file"; filename="{name}"'] * 5 + ["form-data", "", "x"]
    )
    body = f"--b\r\ncontent-disposition: {disposition}\r\n\r\n".encode() + rng.randbytes(50)
    return rng.choice([body + b"\r\n--b--\r\n"] * 4 + [body, b"--b--\r\n", b"--b\r\n" * 99, b""])


def request(rng, job, other):
    if rng.random() < 0.05:
        return garbage(rng)
    method = rng.choice(METHODS)
    headers = [f"cookie: {cookie(rng, job.id)}"] if rng.random() < 0.9 else []
    body = rng.randbytes(rng.choice([0, 1, 30, 30, LIMIT, LIMIT + 1, 3 * LIMIT]))
    if method == "POST":
        body = form(rng)
        kind = rng.choice(["multipart/form-data; boundary=b"] * 5 + ["multipart/form-data", "x/y"])
        headers.append(f"content-type: {kind}")
    if rng.random() < 0.05:
        headers.append("content-range: bytes 5-9/10")
    return asked(rng, method, place(rng, job.result_root, other.result_root), headers, body)


def files(root):
    """What can be read; folders are made for an upload that is refused, too."""
    return {str(path.relative_to(root)): read(path) for path in root.rglob("*") if path.is_file()}


def read(path):
    with contextlib.suppress(FileNotFoundError):  # a part of an upload that is over
        return path.read_bytes()


async def test_whatever_is_uploaded_stays_in_its_attempts_place_or_is_refused(tmp_path):
    print(f"FUZZ_SEED={SEED}")
    rng, seen = random.Random(SEED), set()
    limits = Limits(upload_file_bytes=LIMIT, upload_attempt_bytes=50 * LIMIT)
    with trio.fail_after(60):
        async with open_lab(attrs.evolve(config(tmp_path), limits=limits)) as lab:
            await at_work(lab, patience=0)
            job = lab.scheduler.store.job("lab.1")
            other = await lab.submit("script: other\n", key=KEY[::-1])
            srv, own = tmp_path / "srv", job.result_root[1:]

            def whole(root):
                return {name: data for name, data in files(root).items() if PART not in name}

            def elsewhere():
                return {k: v for k, v in files(srv).items() if not k.startswith(f"{own}/")}

            def state():
                now, [attempt] = lab.stage(job), lab.scheduler.store.job(job.id).attempts
                # What a box is refused of its own makes its results incomplete.
                return now, attempt.token, attempt.address, lab.stage(other)

            (srv / "os").mkdir(parents=True)
            (srv / other.result_root[1:]).mkdir(parents=True)
            (srv / other.result_root[1:] / "stdout").write_text("of another job")
            (srv / own).mkdir(parents=True)
            before, there = state(), elsewhere()
            for n in range(CASES * TIMES):
                client = rng.choice([STRANGER, BOX, BOX])
                while any(PART in name for name in files(srv)):  # noqa: ASYNC110 - a thread's work
                    await trio.sleep(0.001)
                mine = whole(srv / own)
                data = request(rng, job, other)
                with structlog.testing.capture_logs() as lines:
                    answer = await exchange(lab, client, [data], UPLOAD, ends=True)
                try:
                    status = check(lab, before, state(), answer, lines, client, data)
                    assert there == elsewhere()
                    changed = whole(srv / own)
                    if client == STRANGER or (is_honest(data) and status not in (200, 201)):
                        assert mine == changed
                    seen.add((client, status))
                except AssertionError as error:
                    error.add_note(f"FUZZ_SEED={SEED}, case {n} from {client}: {data[:600]!r}")
                    raise

    assert {(BOX, status) for status in (201, 400, 403, 405)} <= seen
    assert (STRANGER, 403) in seen
    assert (STRANGER, 201) not in seen
