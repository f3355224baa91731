"""runner.cgz as an archive; what its scripts do is in tests/runner/."""

from __future__ import annotations

import gzip
import subprocess
from pathlib import Path

import pytest

from appliance.boot import runner
from tests.test_cgz import listing

ADDON = "lkp/lkp/src/rootfs/addon"
LISTING = f"""\
-rw-r--r-- {ADDON}/usr/lib/systemd/system/lkp-bootstrap.service
-rw-r--r-- usr/lib/systemd/system/lkp-bootstrap.service
-rwxr-xr-x {ADDON}/etc/init.d/lkp-bootstrap
-rwxr-xr-x {ADDON}/etc/init.d/lkp-bootstrap-openrc
-rwxr-xr-x lkp/lkp/src/runner/attempt.sh
-rwxr-xr-x lkp/lkp/src/runner/capture.sh
-rwxr-xr-x lkp/lkp/src/runner/console.sh
-rwxr-xr-x lkp/lkp/src/runner/firmware.sh
-rwxr-xr-x lkp/lkp/src/runner/http.sh
-rwxr-xr-x lkp/lkp/src/runner/reboot.sh
-rwxr-xr-x lkp/lkp/src/runner/report.sh
-rwxr-xr-x lkp/lkp/src/runner/runner.sh
-rwxr-xr-x lkp/lkp/src/runner/upload.sh
-rwxr-xr-x lkp/lkp/src/runner/watchdog.sh
lrwxrwxrwx etc/systemd/system/multi-user.target.wants/lkp-bootstrap.service\
 -> /usr/lib/systemd/system/lkp-bootstrap.service
lrwxrwxrwx {ADDON}/etc/rc2.d/S77lkp-bootstrap -> ../init.d/lkp-bootstrap
lrwxrwxrwx {ADDON}/etc/rc3.d/S77lkp-bootstrap -> ../init.d/lkp-bootstrap
lrwxrwxrwx {ADDON}/etc/rc4.d/S77lkp-bootstrap -> ../init.d/lkp-bootstrap
lrwxrwxrwx {ADDON}/etc/rc5.d/S77lkp-bootstrap -> ../init.d/lkp-bootstrap
lrwxrwxrwx {ADDON}/etc/runlevels/default/lkp-bootstrap-openrc -> /etc/init.d/lkp-bootstrap-openrc
lrwxrwxrwx {ADDON}/etc/systemd/system/multi-user.target.wants/lkp-bootstrap.service\
 -> /usr/lib/systemd/system/lkp-bootstrap.service
"""


def test_gnu_cpio_lists_every_part_with_its_mode() -> None:
    rows = [(mode, path) for mode, path, _ in listing(runner.archive()) if mode[0] != "d"]

    assert LISTING.splitlines() == sorted(f"{mode} {path}" for mode, path in rows)


def test_directories_are_open_to_all() -> None:
    assert {"drwxr-xr-x"} == {mode for mode, _, _ in listing(runner.archive()) if mode[0] == "d"}


def test_the_same_package_gives_the_same_bytes() -> None:
    assert runner.archive() == runner.archive()


def test_every_script_of_the_room_is_packed() -> None:
    scripts = {path.stem for path in Path(runner.__file__).parent.glob("*.sh")}

    assert scripts == set(runner.PARTS)


@pytest.fixture
def unpacked(tmp_path):
    archive = gzip.decompress(runner.archive())
    subprocess.run(["cpio", "-id", "--quiet"], input=archive, cwd=tmp_path, check=True)
    return tmp_path


@pytest.mark.slow  # likewise
def test_shellcheck_has_nothing_to_say(unpacked) -> None:
    scripts = (
        unpacked / "lkp/lkp/src/runner/runner.sh",
        unpacked / ADDON / "etc/init.d/lkp-bootstrap",
    )

    out = subprocess.run(["shellcheck", "-x", "-a", *map(str, scripts)], capture_output=True)

    assert "" == out.stdout.decode()


@pytest.mark.slow  # `make check` needs no package of the system
def test_systemd_understands_the_unit(unpacked) -> None:
    unit = unpacked / ADDON / "usr/lib/systemd/system/lkp-bootstrap.service"

    out = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True
    ).stderr.decode()

    assert [] == [line for line in out.splitlines() if "lkp-bootstrap.service" in line]
