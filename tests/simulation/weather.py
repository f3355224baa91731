"""Pure: no clock, no socket, no await.

What goes wrong in one run.  Swarm testing: in each run some faults do not happen at all and the
others have wildly different weights, so that rare combinations are not drowned by common ones.
"""

from __future__ import annotations

import random
from collections.abc import Set
from typing import Any

import attrs


def _most(value: float) -> Any:
    """A rate per hour, or a chance per occasion, that is drawn up to `value`."""
    return attrs.field(default=0.0, metadata={"most": value})


@attrs.frozen
class Weather:
    """Rates are per hour of virtual time; chances are per occasion."""

    # boxes
    power_cut: float = _most(2.0)  # rate, per box
    no_fin: float = _most(0.9)  # chance that a power cut is not seen by the server for a while
    stays_off: float = _most(0.1)  # chance that nobody switches it on again
    slow_post: float = _most(0.3)
    fickle: float = _most(0.1)  # per POST: for a while it asks, and is gone before it is told
    fetch_breaks: float = _most(0.15)
    fetch_stalls: float = _most(0.1)  # longer than the lease
    refetches: float = _most(0.4)
    boot_panics: float = _most(0.2)
    slow_boot: float = _most(0.15)  # longer than the boot's deadline, and then it runs
    run_panics: float = _most(0.2)
    overruns: float = _most(0.1)
    ignores_wanted: float = _most(0.5)  # a client that never asks whether it is still wanted
    never_closes: float = _most(0.2)  # it reboots without lkp-post-run
    no_prefix: float = _most(0.3)  # a client that does not obey HTTP_PREFIX
    upload_refused: float = _most(0.15)
    told_twice: float = _most(0.4)  # the same report again at once
    told_late: float = _most(0.4)  # the same report again, up to two hours later
    # people
    cancels: float = _most(0.2)
    holds: float = _most(2.0)  # rates
    drains: float = _most(2.0)
    renews: float = _most(2.0)
    answer_lost: float = _most(0.5)  # they submit again with the same key
    # the server: rates
    kill: float = _most(3.0)
    kill_in_disk: float = _most(2.0)
    disk_full: float = _most(1.0)
    disk_broken: float = _most(1.0)
    sync_fails: float = _most(1.0)
    image_gone: float = _most(0.5)
    stop: float = _most(1.0)  # in good order
    # the server: chances
    power_loss: float = _most(0.7)  # of a kill: what was not synced is lost
    clock_jumps: float = _most(0.5)  # of a restart

    @classmethod
    def draw(cls, rng: random.Random, often: float, troubles: float, faults: Set[str]) -> Weather:
        """Each fault: off in two of five runs, else anything from rare to the most there is.

        Power cuts are multiplied by `often`, the rates of the server's troubles by `troubles`;
        what is not among `faults` does not happen.
        """
        drawn = {}
        for field in attrs.fields(cls):
            strength = rng.choice((0.0, 0.0, 0.1, 0.4, 1.0))
            scale = {"power_cut": often}.get(field.name, troubles if field.name in RATES else 1.0)
            drawn[field.name] = strength * field.metadata["most"] * scale * (0.5 + rng.random() / 2)
        return cls(**{name: value for name, value in drawn.items() if name in faults})


RATES = frozenset(
    ["kill", "kill_in_disk", "disk_full", "disk_broken", "sync_fails", "image_gone", "stop"]
)  # the server's
FAULTS = frozenset(field.name for field in attrs.fields(Weather))
CALM = Weather()
