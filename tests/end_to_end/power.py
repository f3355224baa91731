"""The scene in which a box loses its power twice: while its job runs, and as it loads.

Its third boot runs to the end, and outlasts the lease of its address.  An address that the
appliance's own dnsmasq gives to a testbox is its own for ever; so this one plays another's
server, as in proxyDHCP mode: it knows no testboxes, and takes addresses back.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import trio

from appliance.boot.daemons import dnsmasq
from appliance.config import Config

from . import scenes
from .scenes import Stage, stage

# `first` is where attempt 1 uploads, on this very box; its token is in what it has left there.
# A late word of attempt 1 is what the box itself sends with that token, cookie and path.
# At last it reads a file that no cache has: were the address gone, so would be the root.
OUTLASTS = """\
suite: end-to-end
testbox: box
retry: true
script: |
  server=http://$LKP_SERVER
  put() { # TEXT PATH
      echo "$1" >/tmp/text
      curl -s -w '%{http_code}' -o /dev/null -T /tmp/text -H "Cookie: JOBID=$id" "$server:3080$2"
  }
  case $result_root in
      */attempt-*) ;;
      *)
          echo "attempt 1 uploaded: $(put "$HTTP_PREFIX" "$result_root/prefix")"
          sleep 3000
          ;;
  esac
  first=${result_root%/attempt-*}
  old=$(curl -s "$server:3080$first/prefix")
  about="job_file=/lkp/scheduled/job.yaml&job_id=$id"
  echo "prefix $HTTP_PREFIX"
  report=$(curl -s "$old/cgi-bin/lkp-jobfile-append-var?$about&job_state=failed")
  close=$(curl -s "$old/cgi-bin/lkp-post-run?$about")
  echo "late: $report $close $(put "late" "$first/late")"
  until curl -sf -o /dev/null "$server:8000/os/outlasted"; do sleep 2; done
  echo 3 >/proc/sys/vm/drop_caches
  ip -4 -o address show scope global
  echo "sum $(sha256sum </run/rootfs/image/usr/bin/perl)"
  echo "ran to its end" >"$RESULT_ROOT/said"
"""
IMAGE = scenes.IMAGES / "debian/x86_64/12"
READS = "usr/bin/perl"  # nothing else on the box does
SLOW_BYTES = 512 * 2**20  # some seconds, and less than the box's memory
# The half minute of a back-off ends well within a wait: at the end of one the offer might find that
# the box has just left, and the numbers of attempts would jump.
PARK_S = 3.4
SLACK_S = 5.0  # dnsmasq counts whole seconds

# A machine that nobody knows asks for an address; it says whether it was given one.
STRANGER = """\
ip link add stranger type veth peer name wall
ip link set wall master lab0 up
ip link set stranger address 02:00:00:00:00:01 up
busybox udhcpc -f -n -q -i stranger -t 3 -T 4 -s /bin/true
"""


@attrs.define
class Evidence(scenes.Evidence):
    """What it left, in order."""

    power: list[int] = attrs.field(factory=list)  # serial lines before each press of the button
    ran: dict = attrs.field(factory=dict)  # the job's row while attempt 1 ran
    cut: dict = attrs.field(factory=dict)  # when the box was off again and nobody had noticed
    loading: dict = attrs.field(factory=dict)  # the same after job.cgz of attempt 2
    back: dict = attrs.field(factory=dict)  # the box was back after that
    back_host: dict = attrs.field(factory=dict)
    late: dict = attrs.field(factory=dict)  # after the late words of attempt 1
    renewals: int = 0  # lines of dnsmasq's log before that
    history: list[dict] = attrs.field(factory=list)
    boots: list[dict] = attrs.field(factory=list)  # the box's own, step by step
    first_until: float = 0.0  # UTC: the end of the lease that the job began with
    asked_at: float = 0.0  # UTC: when the stranger asked
    leases: str = ""  # dnsmasq's book then
    stranger: str = ""


async def it_goes_twice(keep: Path, evidence: Evidence) -> None:
    """Attempt 1 loses its power as it runs, attempt 2 as it loads, attempt 3 ends well."""
    async with stage(keep, evidence, PARK_S, dhcp=takes_back) as on:
        job = await on.submit(OUTLASTS)
        await _press(on, evidence)
        await _line(on, job, "attempt 1 uploaded: ")
        evidence.ran = await _row(on, job)
        await on.box.power_off()
        evidence.cut = await _row(on, job)

        with _slow_to_load(on):
            await _press(on, evidence)
            fetched = rf"/job_initrd_tmpfs/{re.escape(job)}/job\.cgz\.+ ok"
            await _line(on, job, fetched, after=evidence.power[-1])
            await on.box.power_off()
        evidence.loading = await _row(on, job)

        await _press(on, evidence)
        # Before its first wait is over: between two it renews its lease, and is away for that.
        await _line(on, job, r"tftp://\S+/boot\.ipxe\.+ ok", after=evidence.power[-1])
        with on.box.limit(f"{job} to be taken from it"):
            while (row := await _row(on, job))["stage"] == evidence.loading["stage"]:
                pass  # it asks within the same second
        evidence.back = row
        (evidence.back_host,) = json.loads(await on.lab.run("hosts", "--json"))
        await _line(on, job, "late: ", after=evidence.power[-1])
        evidence.late = await _row(on, job)
        await _outlast(on, evidence)
        evidence.stranger = await _output(on, STRANGER)
        (on.lab.inside.path(on.lab.config.paths.srv) / "os/outlasted").touch()
        row = await on.over(job)
        evidence.stdout = await on.lab.run("results", job, "cat", "stdout", check=False)
        evidence.uploaded = Path(row["result_root"])
        evidence.history = json.loads(await on.lab.run("show", job, "--json"))["history"]
        evidence.boots = json.loads(await on.lab.run("host", "show", "box", "--json"))["boots"]


def takes_back(config: Config) -> str:
    """dnsmasq.conf of a server with one address, for two minutes: it gives none for less."""
    configuration = dnsmasq.configuration(config)
    lines = [line for line in configuration.splitlines() if not line.startswith("dhcp-hostsdir")]
    text, changed = re.subn(
        r"dhcp-range=([0-9.]+),[0-9.]+,([0-9.]+),168h", r"dhcp-range=\1,\1,\2,2m", "\n".join(lines)
    )
    assert 1 == changed, configuration
    return text + "\n"


async def _press(on: Stage, evidence: Evidence) -> None:
    evidence.power.append(len(on.box.lines))
    await on.lab.power_on(on.box)


async def _line(on: Stage, job: str, pattern: str, after: int = 0) -> None:
    """Waits for the line, in vain if the job is over before: then this fails, and says how."""

    async def over() -> None:
        row = await on.over(job)
        raise AssertionError(f"no line {pattern!r}, and {job} is over: {row}")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(over)
        await on.box.line(pattern, after=after)
        nursery.cancel_scope.cancel()


async def _row(on: Stage, job: str) -> dict[str, Any]:
    return json.loads(await on.lab.run("show", job, "--json"))["job"]


@contextmanager
def _slow_to_load(on: Stage) -> Iterator[None]:
    """The kernel comes last and is small: with zeros behind it, there is time to cut the power."""
    boot = next(on.lab.inside.path(on.lab.config.paths.srv / "os").glob("*/*/*-*/boot"))
    kernel = next(boot.glob("vmlinuz-*"))
    size = kernel.stat().st_size
    os.truncate(kernel, size + SLOW_BYTES)
    yield
    os.truncate(kernel, size)


async def _outlast(on: Stage, evidence: Evidence) -> None:
    """Until the lease that the job began with is over."""
    book = trio.Path(on.lab.config.paths.state / "dnsmasq.leases")
    evidence.renewals = len(evidence.dnsmasq)
    evidence.first_until = float((await book.read_text()).split()[0])
    await trio.sleep(max(0.0, evidence.first_until - time.time()) + SLACK_S)
    evidence.asked_at = time.time()
    evidence.leases = await book.read_text()


async def _output(on: Stage, script: str) -> str:
    process = await on.lab.inside.start(
        ["sh", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdout is not None
    said = b"".join([bytes(chunk) async for chunk in process.stdout])
    await process.wait()
    return said.decode()
