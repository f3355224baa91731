"""The first thing that a built program runs: its own libraries are for itself alone.

PyInstaller's start sets LD_LIBRARY_PATH, and keeps what stood there.  ssh, apt and dnsmasq would
load our libssl instead of the system's.
"""

import os

before = os.environ.pop("LD_LIBRARY_PATH_ORIG", None)
os.environ.pop("LD_LIBRARY_PATH", None)
if before is not None:
    os.environ["LD_LIBRARY_PATH"] = before
