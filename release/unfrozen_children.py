"""Runs first in a built program: restores LD_LIBRARY_PATH for child processes.

PyInstaller's launcher sets LD_LIBRARY_PATH and saves the old value.  With it, ssh, apt and dnsmasq
would load our libssl instead of the system's.
"""

import os

before = os.environ.pop("LD_LIBRARY_PATH_ORIG", None)
os.environ.pop("LD_LIBRARY_PATH", None)
if before is not None:
    os.environ["LD_LIBRARY_PATH"] = before
