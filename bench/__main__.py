"""`make bench`: measures, and prints the table that README.md quotes.

python -m bench [files] [archive] [lobby] [storm] [fleet] [queue] [submits] [restart] [boot]
                [installed] [simulation]
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable

from bench import (
    archive,
    boot,
    files,
    fleet,
    installed,
    lobby,
    queue,
    restart,
    simulation,
    storm,
    submits,
)
from bench.table import Row, markdown

GROUPS: dict[str, Callable[[], list[Row]]] = {
    "files": files.rows,
    "archive": archive.rows,
    "lobby": lobby.rows,
    "storm": storm.rows,
    "fleet": fleet.rows,
    "queue": queue.rows,
    "submits": submits.rows,
    "restart": restart.rows,
    "boot": boot.rows,
    "installed": installed.rows,
    "simulation": simulation.rows,
}


def main(chosen: list[str]) -> int:
    """The exit status: 1 if an aim was missed."""
    if unknown := set(chosen) - set(GROUPS):
        print(f"no benchmark {', '.join(sorted(unknown))}; there are: {', '.join(GROUPS)}")
        return 2
    rows = []
    for name in chosen or GROUPS:
        print(f"measuring: {name}", file=sys.stderr, flush=True)
        rows += GROUPS[name]()
    print(f"{os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}")
    print()
    print(markdown(rows))
    return 1 if any(row.good is False for row in rows) else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
