"""Which door stands on which port (design.md §7)."""

from __future__ import annotations

from appliance.doors import boxes, reports
from appliance.doors.asgi import Doors
from appliance.doors.files import Files
from appliance.doors.results import Results
from appliance.jobs.fetches import Fetches
from appliance.jobs.reports import Reports
from appliance.jobs.scheduler import Scheduler


def make_app(scheduler: Scheduler, runner_cgz: bytes) -> Doors:
    """The doors of design.md §7, by port."""
    config = scheduler.config
    fetches = Fetches(scheduler)
    srv, ports = config.paths.srv, config.ports
    small = reports.make_app(Reports(scheduler))
    results = Results(scheduler, Files({"/result": srv / "result"}, fetches))
    others = ("initrd", "upload-files", "kernel")
    return Doors(
        {
            ports.scheduler: boxes.door(scheduler, fetches, runner_cgz, small),
            ports.os: Files({"/os": srv / "os"}, fetches),
            ports.initrd: Files({f"/{name}": srv / name for name in others}, fetches),
            ports.upload: results,
            ports.results: Files({"/result": srv / "result"}, fetches),
        }
    )
