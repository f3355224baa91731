"""All scenes, played once, two side by side: as many as a small machine has cores."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import attrs
import trio

from tests import scenery
from tests.scenery import Failure, Kept

from . import beside, generations, power, scenes
from .scenes import Evidence

PLACES = 2


@attrs.define
class Played:
    """What all scenes left."""

    power: power.Evidence = attrs.field(factory=power.Evidence)
    ran: Evidence = attrs.field(factory=Evidence)
    gone: Evidence = attrs.field(factory=Evidence)
    nfs: Evidence = attrs.field(factory=Evidence)
    initramfs: Evidence = attrs.field(factory=Evidence)
    bios: Evidence = attrs.field(factory=Evidence)
    arm64: Evidence = attrs.field(factory=Evidence)
    http: Evidence = attrs.field(factory=Evidence)
    generations: generations.Evidence = attrs.field(factory=generations.Evidence)
    proxy: beside.Evidence = attrs.field(factory=beside.Evidence)
    pointed: beside.Evidence = attrs.field(factory=beside.Evidence)


async def play(keep: Path) -> Kept:
    """The longest first, so that it does not end alone; one that fails leaves the others alone."""
    played = Played()
    failures: dict[str, Failure | None] = {}
    waiting: list[tuple[str, Callable[[Path, Evidence], Awaitable[None]]]] = [
        ("power", power.it_goes_twice),
        ("generations", generations.three_of_them_wait),
        ("proxy", beside.as_a_proxy),
        ("ran", scenes.a_job_runs),
        ("gone", scenes.files_are_gone),
        ("nfs", scenes.a_job_runs_on_nfs),
        ("initramfs", scenes.a_job_runs_in_an_initramfs),
        ("bios", scenes.a_job_runs_on_bios),
        ("arm64", scenes.a_job_runs_on_arm64),
        ("http", scenes.a_box_boots_by_http),
        ("pointed", beside.pointed_at),
    ]

    async def one_after_the_other() -> None:
        while waiting:
            name, scene = waiting.pop(0)
            work = partial(scene, keep / name, getattr(played, name))
            failures[name] = await scenery.play(name, work)

    async with trio.open_nursery() as nursery:
        for _ in range(PLACES):
            nursery.start_soon(one_after_the_other)
    return Kept(played, failures)
