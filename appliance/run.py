"""Runs the process: starts everything, and stops it in order.

The order needs two nurseries: the outer one keeps the state and dispatches jobs, the inner one
runs the doors.  A stop answers every parked box with a re-chain, lets transfers end, closes the
doors, and writes the last snapshot when nothing can change the store any more.
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

# By default Python collects cyclic garbage after every 700 new objects.  A submit alone makes some
# hundred lasting objects, and would spend a fifth of its time in collections.  A full collection
# with 10,000 parked boxes stops the loop for a second, which a storm of boxes must not cause.  With
# these thresholds a full one comes after five million objects, at worst some 500 MB of garbage;
# connections, the most frequent objects, leave no cycles.
GC_THRESHOLDS: Final = (10_000, 10, 50)

log = structlog.get_logger()


@attrs.frozen
class Open:
    """A running appliance, for the task that started it."""

    scheduler: Scheduler
    close: trio.Event  # when set, the appliance stops


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
    """Runs the appliance until Open.close is set, then stops in order.

    `control_socket` is a listening control socket made by systemd; None: make one.
    """
    store, journal = await journals.restore(disk, config.space.journal, archive.check)
    await archive.say_version()
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
            app: Any = Doors(talking)  # Hypercorn has its own types for ASGI's maps
            made = _hypercorn(config, others, entrance, owed)
            http = partial(hypercorn.trio.serve, app, made, shutdown_trigger=last_orders)
            await doors.start(_then_cancel, http, controlled)
            behind.start_soon(pulse.watch, scheduler.measures.late)  # a start may block the loop
            task_status.started(Open(scheduler, close))
        # Nobody can change the store any more.
        behind.cancel_scope.cancel()
    scheduler.change([scheduler.clock.reading()])
    with trio.CancelScope(shield=True):
        await journal.stop()
    log.info("stopped", jobs=len(store.jobs))


async def _last_orders(scheduler: Scheduler, close: trio.Event) -> None:
    """Waits for the stop, then dismisses parked boxes and watchers."""
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
    """Makes a new state number its jobs after those that already have results here."""
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
    """Reads the hosts files; logs and skips unusable ones."""
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
    """Makes the admission to the HTTP ports and to the control socket."""
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
    # Messages of a request that Hypercorn reads ahead, 64 KiB each: the default of ten is 300 MB
    # when 500 boxes upload.  Three hold a short body, its end, and the notice of a hang-up.
    made.max_app_queue_size = 3
    return made


async def until_signalled(config: Config) -> None:
    """Serves until SIGTERM or SIGINT.  Raises BadConfig and BadState."""
    raise_open_files()
    gc.set_threshold(*GC_THRESHOLDS)
    gc.disable()  # while the state is read, since a start makes no garbage
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
                gc.freeze()  # collections skip the state; looking through it takes a second
                gc.enable()
                systemd.notify("READY=1")
                log.info("ready", lab=config.lab, jobs=len(opened.scheduler.store.jobs))
                async for _ in signals:
                    systemd.notify("STOPPING=1")
                    opened.close.set()
                    break


def link_gbits(interface: str) -> float:
    """Returns the speed of the lab's link; 1 if the kernel does not say (a bridge, a link down)."""
    try:
        megabits = int(Path("/sys/class/net", interface or "lo", "speed").read_text())
    except (OSError, ValueError):
        return 1.0
    return megabits / 1000 if megabits > 0 else 1.0


def raise_open_files() -> int:
    """Raises the soft limit of open files to the hard one; logs and returns the hard limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(PermissionError):  # systemd has raised it, and forbids changes
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    log.info("open files", limit=hard)
    return hard
