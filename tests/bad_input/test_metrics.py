"""Bad input for `/metrics`, which tells whoever asks: methods, queries, bodies, hosts."""

from __future__ import annotations

import random

import prometheus_client  # noqa: F401 # imported by the door, in a thread, which takes real time
import structlog
import trio

from appliance.doors.metrics import METRICS
from tests.lab import no_disks, open_lab

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
    query,
)

CASES = 200
PATHS = [METRICS] * 6 + ["/metrics/", "/metricsx", "//metrics", "/%6detrics", "/scheduler/metrics"]
BODIES = [b"", b"", b"x", b"{}", b"\0" * 3000, b"5\r\nabcde\r\n0\r\n\r\n"]
HEADERS = [
    "accept: application/openmetrics-text; version=1.0.0", "accept: \x01", "accept-encoding: gzip",
    "authorization: Basic " + "A" * 5000, "range: bytes=5-2", "if-none-match: *", "host: y",
    "x-forwarded-for: 127.0.0.1",
]  # fmt: skip


async def test_whatever_is_asked_of_the_metrics_changes_nothing_and_is_answered(
    autojump_clock, tmp_path
):
    print(f"FUZZ_SEED={SEED}")
    rng, seen = random.Random(SEED), set()
    async with open_lab(config()) as lab:
        by_prefix = dict(lab.wire.app._by_port[3000]._by_prefix)
        by_prefix[METRICS]._look = no_disks
        state = await at_work(lab)
        before, tasks = state(), len(lab.wire.nursery.child_tasks)
        for n in range(CASES * TIMES):
            client = rng.choice([STRANGER, BOX])
            target = rng.choice(PATHS) + rng.choice(["", f"?{query(rng)}", "?" + "x" * 5000])
            headers = [rng.choice(HEADERS)] if rng.random() < 0.4 else []
            sent = asked(rng, rng.choice(METHODS), target, headers, rng.choice(BODIES))
            with structlog.testing.capture_logs() as lines:
                answer = await exchange(lab, client, [sent])
                await trio.sleep(2 * lab.wire.config.keep_alive_timeout)  # what 431 leaves behind
            try:
                seen.add(check(lab, before, state(), answer, lines, client, sent))
                assert tasks == len(lab.wire.nursery.child_tasks)
            except AssertionError as error:
                error.add_note(f"FUZZ_SEED={SEED}, case {n} from {client}: {sent[:600]!r}")
                raise

    assert {200, 400, 404, 405} <= seen
