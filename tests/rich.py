"""Random changes that a store can take: a small lab's history, drawn from a seed."""

from __future__ import annotations

import random

import attrs

from appliance.config import Defaults, Waits
from appliance.errors import IllegalMove, Refused
from appliance.jobs import box as boxes
from appliance.jobs import cluster, decisions, operator
from appliance.jobs import job as jobs
from appliance.jobs.box import Identity
from appliance.jobs.changes import (
    Archived,
    Clocked,
    Filed,
    Job,
    Moment,
    Quarantined,
    Submitted,
    Swept,
    Synced,
)
from appliance.jobs.documents import document
from appliance.jobs.store import Store
from appliance.keep import archive
from tests.lab import PINNED

WAITS = Waits()
TEXTS = (
    "script: echo hi\n",
    "script: x\ndeadlines: {boot: 20m}\npriority: 7\nretry: true\nsecrets: {TOKEN: s3cret}\n",
    "script: x\nreboots: 2\ncluster: cs-1\ntags: [ssd]\npp: {iperf: {runtime: 20, rate: 0.5}}\n",
    "job2sh: {run_job: [a, b]}\nqueue: other\nany: [1, {b: [true, ~]}]\n",
    f"script: x\narch: aarch64\npkg_data: {{lkp: {{tag: v1, md5: {'0' * 32}}}}}\n",
    "script: x\nrootfs_disk: [/dev/sda]\ntimeout: 5m\nkernel_version: 6.10\ntext: 'ü\\n漢'\n",
)


NODE = {"node_roles": "server a", "ip": "10.0.0.1", "direct_ips": "192.168.222.1"}


def grow(seed: int, steps: int) -> tuple[Store, list[list[object]]]:
    """A store after `steps` random happenings, and the lists of changes that made it."""
    rng = random.Random(seed)
    store, made = Store(), []
    now = 1000.0
    while len(made) < steps:
        now += rng.random() * 100
        try:
            changes = _happening(rng, store, now)
            for change in changes:
                store.apply(change)
        except (IllegalMove, Refused):
            continue
        if changes:
            made.append(changes)
    store.check()
    return store, made


def shelve(connection, store, change):
    """What the archive is given before the store is told so."""
    if isinstance(change, Filed):
        bodies = [(job.number, job.document.body) for job in map(store.job, change.jobs)]
        archive.file_bodies(connection, bodies)
    elif isinstance(change, Archived):
        archive.take(connection, map(store.job, change.jobs))


def _happening(rng, store, now):
    roll = rng.random()
    box = rng.choice(list(store.boxes.values()) or [None])
    active = list(store.active())
    if roll < 0.15 or box is None:
        name, number = f"box-{rng.randrange(5)}", rng.randrange(5)
        fields = {
            "mac": [f"52:54:00:00:00:0{number}"],
            "arch": rng.choice(["x86_64", "aarch64"]),
            "queues": rng.choice([[], ["default", "other"]]),
            "tags": rng.choice([[], ["ssd"]]),
            "rootfs_disk": rng.choice([[], ["/dev/sda", "/dev/sdb"]]),
            "console": rng.choice([[], ["ttyS0,115200"]]),
            "memory": "64G",
        }
        return decisions.registered(store, boxes.facts(name, fields, "default"), now)
    if roll < 0.3:
        return [Submitted(_job(rng, store, now))]
    if roll < 0.5:
        number = rng.randrange(8)
        who = Identity(
            f"52:54:00:00:00:0{number}", f"10.0.0.{number}", rng.choice([None, "x86_64"]),
            rng.choice([None, f"0000000{number}-0000-0000-0000-000000000001"]), "serial", "product",
        )  # fmt: skip
        return decisions.asked(store, who, now, WAITS, 2)
    if roll < 0.52:
        return [Filed(names)] if (names := tuple(job.id for job in store.unfiled(9))) else []
    if roll < 0.53:
        return [Archived(names)] if (names := tuple(job.id for job in store.over(3, 2))) else []
    if roll < 0.535:
        return [Clocked(now, "one", now, rng.choice([0.0, -5.0]))]
    if roll < 0.55:
        return _an_operator_decides(rng, store, box, now)
    if roll < 0.6 and box.job is None and box.address is not None and box.known:
        queued = [job for job in store.jobs.values() if isinstance(job.state, jobs.Queued)]
        if queued:
            pair = (box.name, rng.choice(queued).id)
            return decisions.offers(store, [pair], now, WAITS, lambda: f"token-{now}")
        return []
    if roll < 0.61 and store.jobs:
        late = rng.choice(list(store.jobs.values()))
        return decisions.refused_upload(late, rng.choice([1, 2]), "quota", now)
    if not active:
        return []
    job = rng.choice(active)
    owner = store.box(job.attempt.box)
    if roll < 0.7:
        return decisions.fetched_job(store, job, now, WAITS)
    if roll < 0.75:
        return [*decisions.loaded(store, job, now, WAITS), decisions.step(owner, now, "file", "x")]
    if roll < 0.9:
        word = rng.choice(["running", "post_run", "manual_check", "failed", "finished"])
        return [
            decisions.step(owner, now, "report", word, 5, 0.1, job=job),
            *decisions.reported(job, word, now, WAITS),
        ]
    if roll < 0.93:
        return decisions.closed(store, job, rng.choice([None, "failed"]), now, WAITS)
    if roll < 0.95:
        return decisions.refused_upload(job, job.attempt.number, "quota", now)
    if roll < 0.96:
        return [Synced(job.id, cluster.said(job, rng.choice(cluster.WORDS), NODE))]
    if roll < 0.97:
        return decisions.cancelled(job, "ann", now)
    return decisions.due(store, [job.id for job in store.active()], {}, now + 10_000, WAITS)


def _an_operator_decides(rng, store, box, now):
    roll = rng.random()
    over = [job for job in store.jobs.values() if isinstance(job.state, jobs.Finished)]
    if roll < 0.1 and over:
        return operator.kept(rng.choice(over), rng.random() < 0.7, "ann", now)
    if roll < 0.2:
        return [Swept(job.id, now) for job in operator.sweepable(store, now - 3000)]
    if roll < 0.3:
        return operator.reserved(box, rng.choice([None, "ann"]), now + 5000, "root", "why", now)
    if roll < 0.5:
        return operator.released(box, "root", now)
    if roll < 0.6:
        return [Quarantined(box.name, "3 boots lost in a row", "the appliance", now)]
    if roll < 0.8:
        return operator.expired(store.boxes.values(), now)
    if roll < 0.85:
        return operator.unregistered(box, "root", now)
    return operator.resumed(store, now) if store.drained else operator.drained(store, "root", now)


def _job(rng, store, now):
    number = store.counter + 1
    found = document.parse(rng.choice(TEXTS), "a.yaml", Defaults())
    history = (Moment(now, "submit", "submitted by ann"),)
    who = rng.choice(["ann", "bob"])
    root = decisions.result_root(found, f"lab.{number}", now)
    pinned = attrs.evolve(PINNED, packages=("/upload-files/x.cgz",) if number % 3 else ())
    return Job(
        f"lab.{number}", number, "a.yaml", found, who, f"key{number // 2}", now, pinned, root,
        history=history,
    )  # fmt: skip
