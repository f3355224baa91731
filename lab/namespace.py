"""Makes namespaces for a lab: bridge, taps, daemons and testboxes, and nothing left behind.

Everything runs in one network, mount and process namespace, held by one process that waits for
the end of its standard input.  However the lab ends (even by `kill -9`), that pipe closes, the
holder exits, and the kernel kills every process in the namespace and removes bridge, taps and
mounts.  So two labs can use the same addresses side by side, and both always clean up.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import IO, Final

import attrs
import trio

from appliance.errors import ApplianceError

BRIDGE: Final = "lab0"
SERVER: Final = "172.28.0.1"

# $1 = number of taps, then pairs LOWER MERGED: overlays that show LOWER and keep changes in memory,
# so that a test may spoil an image that others use.  An NFS server needs file handles, which an
# overlay has only with an index, and one device number for all files (xino).  An overlay that
# cannot have them is mounted without.
_BEGIN: Final = """\
set -e
ip link set lo up
ip link add "$BRIDGE" type bridge forward_delay 0 stp_state 0
ip addr add "$SERVER/24" dev "$BRIDGE"
ip link set "$BRIDGE" up
taps=$1 n=0
shift
while [ "$n" -lt "$taps" ]; do
    ip tuntap add "tap$n" mode tap
    ip link set "tap$n" master "$BRIDGE" up
    n=$((n + 1))
done
while [ "$#" -gt 1 ]; do
    mkdir -p "$2"
    mount -t tmpfs tmpfs "$2"
    mkdir "$2/changes" "$2/work"
    mount -t overlay overlay \
        -o "lowerdir=$1,upperdir=$2/changes,workdir=$2/work,index=on,nfs_export=on,xino=on" "$2"
    shift 2
done
echo up
cat >/dev/null
kill -KILL -1
[ -z "$SCRATCH" ] || rm -rf -- "$SCRATCH"
"""


@attrs.frozen
class Namespace:
    """A running namespace, which ends with the process `holder`."""

    holder: int
    _started: list[trio.Process] = attrs.field(factory=list, init=False)

    async def start(
        self, command: Sequence[str], *, stdout: int | IO[bytes], stderr: int | IO[bytes]
    ) -> trio.Process:
        """Starts `command` inside, as the child of a returned `nsenter` with its exit status.

        End the command with `signal_program`.
        """
        ns = f"/proc/{self.holder}/ns"
        enter = [f"--net={ns}/net", f"--mount={ns}/mnt", f"--pid={ns}/pid_for_children"]
        process = await trio.lowlevel.open_process(
            ["nsenter", *enter, "--", *command],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,  # Ctrl-C reaches only us, who end the lab in order
        )
        self._started.append(process)
        return process

    def path(self, path: Path) -> Path:
        """Returns the outside path of the inside path `path`, overlays included."""
        return Path(f"/proc/{self.holder}/root") / path.relative_to("/")

    def listening(self, port: int) -> bool:
        """Whether a socket inside accepts TCP connections or receives datagrams on `port`."""
        for table, state in (("tcp", "0A"), ("tcp6", "0A"), ("udp", "07"), ("udp6", "07")):
            for line in Path(f"/proc/{self.holder}/net/{table}").read_text().splitlines()[1:]:
                words = line.split()
                if words[3] == state and int(words[1].rpartition(":")[2], 16) == port:
                    return True
        return False


@attrs.frozen
class Overlay:
    """Shows `lower` at `merged`; changes there are lost when the namespace ends."""

    lower: Path
    merged: Path


@asynccontextmanager
async def namespace(
    taps: int, overlays: Sequence[Overlay] = (), scratch: Path | None = None
) -> AsyncIterator[Namespace]:
    """Makes a namespace with SERVER's bridge and taps tap0, tap1, ...

    At the end of the block every process in the namespace is killed, and the directory `scratch`
    is removed.
    """
    pairs = [str(path) for each in overlays for path in (each.lower, each.merged)]
    command = ["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
    holder = await trio.lowlevel.open_process(
        [*command, "sh", "-c", _BEGIN, "namespace", str(taps), *pairs],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "BRIDGE": BRIDGE,
            "SERVER": SERVER,
            "SCRATCH": str(scratch or ""),
        },
        start_new_session=True,
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    inside = Namespace(holder.pid)
    try:
        said = b""
        while not said.endswith(b"up\n"):
            chunk = await holder.stdout.receive_some()
            if not chunk:
                raise ApplianceError(
                    f"no namespace for the lab (root is needed): {said.decode().strip()}"
                )
            said += chunk
        yield inside
    finally:
        with trio.CancelScope(shield=True):
            await holder.stdin.aclose()
            for process in (holder, *inside._started):
                await process.wait()
                if process.stdout is not None:
                    await process.stdout.aclose()


def signal_program(process: trio.Process, what: signal.Signals) -> None:
    """Sends `what` to the program that this `nsenter` runs; nsenter would not forward a signal."""
    if (pid := program(process)) is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, what)


def program(process: trio.Process) -> int | None:
    """Returns the process id of the program that this `nsenter` runs; None before and after."""
    try:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    except FileNotFoundError:
        return None
    return int(children[0]) if children else None
