"""Assigns the doors to their ports (docs/wire.md#ports)."""

from __future__ import annotations

from appliance.boot.daemons.dnsmasq import HTTP_ROOT
from appliance.doors import boot_wait, reports
from appliance.doors.admission import Admission
from appliance.doors.index import Index
from appliance.doors.monitor import FILTER, Monitor
from appliance.doors.neighbours import Neighbours
from appliance.doors.providers import Providers
from appliance.doors.uploads import Results
from appliance.scheduler.boot_progress import Fetches
from appliance.scheduler.reports import Reports
from appliance.scheduler.scheduler import Scheduler
from appliance.web.asgi import App, Paths, Receive, Scope, Send, answer
from appliance.web.files import Files


def make_doors(
    scheduler: Scheduler, runner_cgz: bytes, neighbours: Neighbours
) -> tuple[dict[int, App | Paths], dict[int, App | Paths]]:
    """Returns the doors by port: those that Hypercorn serves, and those that only serve files."""
    config = scheduler.config
    admission = Admission(config.network, neighbours, scheduler.store.registered)
    fetches = Fetches(scheduler, admission.check, admission.acts)
    srv, ports = config.paths.srv, config.ports
    small = reports.make_app(Reports(scheduler, admission.check), Providers(scheduler), admission)
    read = Index(
        "/result", srv / "result", Files({"/result": srv / "result"}, fetches.at(ports.results))
    )
    results = Results(scheduler, admission, read)
    others = ("initrd", "upload-files", "kernel", "cci")
    trees = {f"/{name}": srv / name for name in others}
    trees[f"/{HTTP_ROOT}"] = config.paths.tftp / HTTP_ROOT
    talking: dict[int, App | Paths] = {
        ports.scheduler: boot_wait.door(scheduler, admission, fetches, runner_cgz, small),
        ports.upload: results,
        ports.monitor: Paths({}, _only_sockets, sockets={"/": Monitor(scheduler)}),
    }
    giving: dict[int, App | Paths] = {
        ports.os: Files({"/os": srv / "os"}, fetches.at(ports.os)),
        ports.initrd: Files(trees, fetches.at(ports.initrd)),
        ports.results: read,
    }
    return talking, giving


async def _only_sockets(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, 404, f"the monitor is a WebSocket at {FILTER}")
