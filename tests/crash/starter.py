"""Starts `appliance serve` quickly: a process that imported everything forks one when told to.

Importing takes a second of CPU, far more than a start; two hundred starts cannot pay that.  The
child runs the very function that the console script runs, with arguments, environment and log of
its own.

    stdin   {"arguments": [...], "notify": "<path>", "log": "<path>"}   start one
            {}                                                         wait for its end
    stdout  <pid>                       or   <status as waitpid gives it>
"""

from __future__ import annotations

import json
import os
import sys

from appliance import cli, run  # noqa: F401 # what takes the time
from appliance.cli import serve  # noqa: F401


def main() -> None:
    pid = 0
    for line in sys.stdin:
        wanted = json.loads(line)
        if not wanted:
            print(os.waitpid(pid, 0)[1], flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            _become(wanted)
        print(pid, flush=True)


def _become(wanted: dict[str, object]) -> None:
    log = os.open(str(wanted["log"]), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    null = os.open(os.devnull, os.O_RDWR)
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.environ["NOTIFY_SOCKET"] = str(wanted["notify"])
    sys.argv = ["appliance", *map(str, wanted["arguments"])]  # type: ignore[call-overload]
    cli.main()
    os._exit(0)


if __name__ == "__main__":
    main()
