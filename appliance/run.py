"""The process: what starts, and in which order it stops.

Two nurseries, because the order of closing matters: the outer one keeps and dispatches, the inner
one is the doors.  A stop sends every parked box away with a re-chain, lets transfers end, shuts
the doors, and writes the last snapshot when nobody can change the store any more.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import resource
import secrets
import signal
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs
import hypercorn.trio
import structlog
import trio
from hypercorn.config import Config as HypercornConfig

from appliance import addresses, systemd, turns
from appliance import log as logs
from appliance.boot import runner
from appliance.boot.daemons import own_ipxe
from appliance.boot.images import pinning
from appliance.config import Config
from appliance.control import retention, verbs
from appliance.control import server as control
from appliance.doors import wiring
from appliance.doors.admission import is_named
from appliance.doors.boot_wait_ws import MESSAGE_BYTES_MAX
from appliance.doors.neighbours import Kernel
from appliance.errors import Refused
from appliance.jobs.shown import views
from appliance.jobs.store import Store
from appliance.keep import results
from appliance.keep.archive import Archive
from appliance.keep.state import journal as journals
from appliance.keep.state import space
from appliance.keep.state.disk import Disk, StateFolder
from appliance.scheduler import archiver, dispatch, hosts_files, pulse, reaper
from appliance.scheduler.clock import Clock
from appliance.scheduler.scheduler import Scheduler
from appliance.web import connections, file_server, listen, shares
from appliance.web.asgi import Doors
from appliance.web.entrance import Entrance
from appliance.web.sending import Owed
from appliance.web.shares import Kind

# Python looks for garbage in circles after every 700 new objects, and a submit alone makes some
# hundred that stay: a fifth of its time.  And to look through a lab of 10,000 parked boxes stops
# the loop for a second, which a storm of them must not bring about.  Here circles may gather for
# five million objects, some 500 MB at the worst; connections, the most of all, leave none.
GC_THRESHOLDS: Final = (10_000, 10, 50)

log = structlog.get_logger()


@attrs.frozen
class Open:
    """A running appliance, as whoever started it sees it."""

    scheduler: Scheduler
    close: trio.Event  # set it, and the appliance stops


async def serve(
    config: Config,
    disk: Disk,
    archive: Archive,
    sockets: list[socket.socket],
    images: pinning.Images,
    runner_cgz: bytes,
    *,
    control_socket: socket.socket | None = None,
    task_status: trio.TaskStatus[Open] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run the appliance until Open.close is set, then close in order.

    `control_socket` is the command line's door where somebody else made it.
    """
    store, journal = await journals.restore(disk, config.space.journal)
    await archive.check(store)
    await _number_on(config, store)
    scheduler = Scheduler(
        config,
        store,
        journal,
        archive,
        images,
        clock=Clock.of_this_run(systemd.boot()),
        token=partial(secrets.token_hex, 16),
        link_gbits=link_gbits(config.network.interface),
    )
    logs.learn(
        partial(views.subject, store), partial(views.is_of_the_lab, store, config.network.address)
    )
    scheduler.restarted()
    await _learn_hosts(scheduler)
    close = trio.Event()
    last_orders = partial(_last_orders, scheduler, close)
    entrance, callers = _entrance(scheduler)
    owed = Owed()
    async with trio.open_nursery() as behind:  # outlives the doors
        behind.start_soon(systemd.stay_alive)
        behind.start_soon(_tell_floods)
        await behind.start(journal.serve)
        await behind.start(space.watch, disk, journal.gate, config.space)
        await behind.start(dispatch.hand_over, scheduler)
        await behind.start(reaper.reap, scheduler)
        await behind.start(archiver.file, scheduler)
        behind.start_soon(archiver.look_over, scheduler)
        behind.start_soon(retention.tidy, scheduler)
        behind.start_soon(_cut_late_transfers, config, close)
        async with trio.open_nursery() as doors:
            at_control = partial(control.serve, made=control_socket, callers=callers, owed=owed)
            controlled = await doors.start(_controlled, scheduler, at_control)
            talking, giving = wiring.make_doors(scheduler, runner_cgz, Kernel())
            files = [sock for sock in sockets if sock.getsockname()[1] in giving]
            others = [sock for sock in sockets if sock not in files]
            give = partial(file_server.serve, stop=close.wait, entrance=entrance, owed=owed)
            patience = config.waits.shutdown_transfers
            await doors.start(partial(give, patience=patience), Doors(giving), files)
            app: Any = Doors(talking)  # Hypercorn has its own names for ASGI's maps
            made = _hypercorn(config, others, entrance, owed)
            http = partial(hypercorn.trio.serve, app, made, shutdown_trigger=last_orders)
            await doors.start(_then_cancel, http, controlled)
            behind.start_soon(pulse.watch, scheduler.measures.late)  # a start may take its time
            task_status.started(Open(scheduler, close))
        # Nobody can change the store any more.
        behind.cancel_scope.cancel()
    scheduler.change([scheduler.clock.reading()])
    with trio.CancelScope(shield=True):
        await journal.stop()
    log.info("stopped", jobs=len(store.jobs))


async def _last_orders(scheduler: Scheduler, close: trio.Event) -> None:
    """Wait for the end, and send away whoever waits."""
    await close.wait()
    log.info("dismissing the lobby", parked=len(scheduler.lobby))
    scheduler.lobby.dismiss()
    scheduler.watchers.dismiss()


async def _tell_floods() -> None:
    try:
        while True:
            await trio.sleep(logs.FLOODS_S)
            logs.tell_floods()
    finally:
        logs.tell_floods(all_of_them=True)


async def _cut_late_transfers(config: Config, close: trio.Event) -> None:
    await close.wait()
    await trio.sleep(config.waits.shutdown_transfers)
    if ended := listen.cut(config):
        log.warning("cut transfers that did not end", connections=ended)


async def _controlled(
    scheduler: Scheduler,
    at_control: Callable[..., Awaitable[object]],
    *,
    task_status: trio.TaskStatus[trio.CancelScope] = trio.TASK_STATUS_IGNORED,
) -> None:
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            await nursery.start(at_control, scheduler, verbs.Verbs(scheduler))
            task_status.started(scope)


async def _then_cancel(
    http: partial[object],
    scope: trio.CancelScope,
    *,
    task_status: trio.TaskStatus[object] = trio.TASK_STATUS_IGNORED,
) -> None:
    await http(task_status=task_status)  # type: ignore[misc] # partial loses that it is async
    scope.cancel()


async def _number_on(config: Config, store: Store) -> None:
    """The first job of a new state comes behind those that have results here already."""
    if store.counter:
        return
    find = partial(results.newest_number, config.paths.srv / "result", config.lab)
    try:
        store.counter = await trio.to_thread.run_sync(find)
    except OSError as error:
        log.warning("job ids may be given again: results cannot be read", why=str(error))
    if store.counter:
        log.warning("a new state, and results of older jobs", newest=store.counter)


async def _learn_hosts(scheduler: Scheduler) -> None:
    """Read the hosts files; one that cannot be used is logged and left out."""
    config = scheduler.config
    read = partial(hosts_files.read_all, config.paths.hosts, config.defaults.queue)
    facts, wrong = await trio.to_thread.run_sync(read)
    for text in wrong:
        log.error("hosts file left out", why=text)
    for host in facts:
        try:
            scheduler.change(scheduler.known(host))
        except Refused as error:
            log.error("hosts file left out", why=str(error))
            continue
        try:
            hosts_files.announce(config.paths, host)
        except OSError as error:
            log.warning("dnsmasq was not told", host=host.name, why=str(error))
    named = {host.name for host in facts}
    for name in set(own_ipxe.given(config.paths.tftp)) - named:
        own_ipxe.take_away(config.paths.tftp, name)
    for box in scheduler.store.boxes.values():
        if box.known and box.name not in named and not wrong:
            log.warning("no hosts file; `appliance host remove` makes it unknown", host=box.name)


def _entrance(scheduler: Scheduler) -> tuple[Entrance, shares.Callers]:
    """Through which everybody comes to the HTTP ports, and who comes to the control socket."""
    config = scheduler.config
    shared = shares.Shares.of(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    log.info("shares of open files", control=shared.control, lab=shared.lab, others=shared.others)

    def is_lab(client: str) -> bool:
        box = scheduler.store.box_at(client)
        return (box is not None and box.known) or is_named(config.network, client, "")

    def who(client: str, server: str) -> tuple[str, Kind]:
        box = scheduler.store.box_at(client)
        if addresses.is_own(client, server):
            return "the server itself", Kind.HOST
        if is_named(config.network, client, server):
            return client, Kind.HOST
        return client, Kind.BOX if box is not None and box.known else Kind.OTHER

    turns.slices().is_lab = is_lab
    waiting = (config.ports.scheduler, config.ports.monitor)
    return Entrance(shares.Places(shared), who, waiting), shares.Callers(shared.control)


def _hypercorn(
    config: Config,
    sockets: list[socket.socket],
    entrance: Entrance | None = None,
    owed: Owed | None = None,
) -> HypercornConfig:
    connections.guard(entrance, owed)
    made = HypercornConfig()
    made.bind = [f"fd://{os.dup(sock.fileno())}" for sock in sockets]  # hypercorn closes its own
    made.backlog = listen.BACKLOG
    made.graceful_timeout = config.waits.shutdown_transfers
    made.include_server_header = False
    made.errorlog = logging.getLogger("hypercorn")
    made.accesslog = None
    made.websocket_max_message_size = MESSAGE_BYTES_MAX
    # Messages of a request that are read ahead of us, 64 KiB each: ten, by default, are 300 MB
    # where 500 boxes upload.  Three are a short body, its end, and the news of a hang-up.
    made.max_app_queue_size = 3
    return made


async def until_signalled(config: Config) -> None:
    """Serve until SIGTERM or SIGINT.  Raises BadConfig and BadState."""
    raise_open_files()
    gc.set_threshold(*GC_THRESHOLDS)
    gc.disable()  # while the state is read: what a start makes stays
    with contextlib.ExitStack() as stack:
        disk = stack.enter_context(contextlib.closing(StateFolder(config.paths.state)))
        passed = systemd.sockets()
        for sock in passed:
            stack.callback(sock.close)
        sockets = listen.sockets(config, passed)
        for sock in sockets:
            stack.callback(sock.close)
        at_control = listen.control(config, passed)
        archive = stack.enter_context(contextlib.closing(Archive.of_folder(config.paths.state)))
        parts = (disk, archive, sockets, pinning.ImageFolder(config.paths.srv), runner.archive())
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async with trio.open_nursery() as nursery:
                start = partial(serve, control_socket=at_control)
                opened = await nursery.start(start, config, *parts)
                gc.freeze()  # to look through it takes a second
                gc.enable()
                systemd.notify("READY=1")
                log.info("ready", lab=config.lab, jobs=len(opened.scheduler.store.jobs))
                async for _ in signals:
                    systemd.notify("STOPPING=1")
                    opened.close.set()
                    break


def link_gbits(interface: str) -> float:
    """What the lab's link carries; 1 where the kernel does not say (a bridge, a link down)."""
    try:
        megabits = int(Path("/sys/class/net", interface or "lo", "speed").read_text())
    except (OSError, ValueError):
        return 1.0
    return megabits / 1000 if megabits > 0 else 1.0


def raise_open_files() -> int:
    """Raise the soft limit of open files to the hard one, and say what it is."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(PermissionError):  # systemd has done it, and let nobody else
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    log.info("open files", limit=hard)
    return hard
