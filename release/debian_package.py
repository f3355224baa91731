"""`make deb`: makes a Debian package of the built program's directory form.

The distribution's daemons are suggested packages and not dependencies, since apt would start them
with their default configurations.  `appliance install --interface ...` installs them without
starting those, writes the configuration and starts the lab, as it does from the one file.
"""

from __future__ import annotations

import gzip
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import appliance
from appliance import build, names
from appliance.cli import manual
from appliance.config import Paths
from appliance.install import state_copies
from appliance.install.plan import SYSUSERS
from appliance.install.site import PACKAGES, Places
from release import binary

# Debian's names of architectures.
_ARCHS: Final = {"x86_64": "amd64", "aarch64": "arm64"}
_CONTROL: Final = """\
Package: appliance
Version: {version}
Architecture: {arch}
Maintainer: The appliance's maintainers <root@localhost>
Installed-Size: {kib}
Depends: libc6 (>= {glibc}), systemd (>= 252), iproute2
Suggests: {suggests}
Section: admin
Priority: optional
Description: takes testboxes from PXE power-on to a finished job
 One program on one lab server: boot scripts, kernels, root filesystems, a
 scheduler and the results.
 .
 Once it is installed, `appliance install --interface IFACE` installs what is
 suggested without the daemons that would start by themselves, writes the
 configuration and opens the lab.
"""
_POSTINST: Final = """\
#!/bin/sh
set -e
[ "$1" = configure ] || exit 0
systemd-sysusers appliance.conf
[ -d /run/systemd/system ] || exit 0
systemctl daemon-reload
# Sockets stay open, parked boxes ask again, jobs run on.
if systemctl --quiet is-active appliance.service; then
    appliance tftpboot >/dev/null
    systemctl restart appliance.service
fi
"""
_PRERM: Final = """\
#!/bin/sh
set -e
[ "$1" = remove ] || exit 0
if [ -e /etc/appliance/appliance.toml ] && [ -d /run/systemd/system ]; then
    appliance uninstall
fi
"""
_POSTRM: Final = f"""\
#!/bin/sh
set -e
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
fi
[ "$1" = purge ] || exit 0
echo "stays: /srv: images, files and results"
rm -rf /etc/appliance {" ".join(map(str, state_copies.all_of(Paths().state)))}
for user in appliance appliance-dnsmasq; do
    if getent passwd "$user" >/dev/null; then
        userdel "$user"
    fi
    # `userdel` leaves a group that has members: those who might submit.
    if getent group "$user" >/dev/null; then
        groupdel "$user"
    fi
done
"""


def control(version: str, arch: str, kib: int, glibc: str) -> str:
    """Returns the package's control file."""
    names = [name for part in PACKAGES.values() for name in part]
    return _CONTROL.format(
        version=version, arch=arch, kib=kib, glibc=glibc, suggests=", ".join(names)
    )


def version_of(commit: str, moment: str) -> str:
    """Returns a version that grows with `moment`, the commit's time, such as 20261124233000."""
    word = "".join(letter if letter.isalnum() else "." for letter in commit)
    return f"{appliance.__version__}+{moment}.{word}"


def lay_out(tree: Path, program: Path, name: str) -> None:
    """Lays out the package's files below `tree`; `program` is the folder that PyInstaller made."""
    places = Places(tree)
    target = places.lib / "versions" / name
    shutil.copytree(program, target, symlinks=True)
    (target / binary.LAUNCHER).rename(target / names.PROGRAM)
    places.current.symlink_to(f"versions/{name}")
    places.packaged.write_text("by dpkg\n")
    for place, text in manual.all_of(name).items():
        path = tree / place
        path.parent.mkdir(parents=True, exist_ok=True)
        if place == manual.MAN:
            path.with_name(path.name + ".gz").write_bytes(gzip.compress(text.encode(), mtime=0))
        else:
            path.write_text(text)
    shutil.copytree(build.PACKAGE / "install/systemd", places.units)
    places.sysusers.parent.mkdir(parents=True)
    places.sysusers.write_text(SYSUSERS)
    places.command.parent.mkdir(parents=True)
    places.command.symlink_to("../lib/appliance/current/appliance")
    for path in (tree, *tree.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path == target / names.PROGRAM else 0o644)


def make(target: Path) -> Path:
    """Makes the package in the folder `target`, from the output of `make binary`."""
    program = binary.WORK / "dist/directory"
    arch, facts = _ARCHS[platform.machine()], binary.read_facts()
    name = f"{appliance.__version__}-{facts['commit']}"
    version = version_of(facts["commit"], facts["moment"])
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch) / "tree"
        tree.mkdir()
        lay_out(tree, program, name)
        kib = sum(path.lstat().st_size for path in tree.rglob("*")) // 1024
        about = tree / "DEBIAN"
        about.mkdir()
        (about / "control").write_text(control(version, arch, kib, facts["glibc"]))
        for script, text in (("postinst", _POSTINST), ("prerm", _PRERM), ("postrm", _POSTRM)):
            (about / script).write_text(text)
            (about / script).chmod(0o755)
        target.mkdir(parents=True, exist_ok=True)
        made = target / f"appliance_{version}_{arch}.deb"
        command = ["dpkg-deb", "--root-owner-group", "-Zxz", "--build", str(tree), str(made)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return made


def main() -> None:
    """Runs `python -m release.debian_package [FOLDER]`."""
    made = make(Path(sys.argv[1]) if sys.argv[1:] else binary.TARGET.parent)
    print(f"{made}: {made.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
