"""Lays out the tftp root: iPXE under Compass-CI's names, and the first scripts of this lab.

This project contains no iPXE: the binaries come from Debian's `ipxe` package.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs

from appliance.boot.daemons import dnsmasq, own_ipxe
from appliance.config import Config
from appliance.errors import NotFound
from appliance.fs import atomic, owner, plain_files
from appliance.programs import run

# Folders of an iPXE package; the second is for a package of another release (packages.sh).
PACKAGED: Final = (Path("/usr/lib/ipxe"), Path("/usr/local/lib/appliance/ipxe"))
# Links to tftpboot/.
TEMPLATES: Final = tuple(Path(__file__).with_name(name) for name in dnsmasq.SCRIPTS)

# For each name in the tftp root, the package's names, best first.  `snponly` uses only the card
# that the firmware booted from, through the firmware's driver: it works with every card that can
# PXE, and ${mac} is the MAC that asked.  `ipxe` has its own drivers, is five times as large, and
# tries all cards of the box in an order of its own.  Debian has no snponly for arm64.
NAMES: Final = {
    "undionly.kpxe": ("undionly.kpxe",),
    "ipxe/bin-x86_64-efi/snp.efi": ("snponly.efi", "ipxe.efi"),
    "ipxe/bin-arm64-efi/snp.efi": ("snponly-arm64.efi", "ipxe-arm64.efi"),
}
# The first Debian release whose package has iPXE for arm64, and the script that fetches it.
NEWER: Final = "trixie"
_RELEASE: Final = Path(__file__).with_name("fetch_packages.sh")
assert tuple(NAMES) == tuple(firmware.file for firmware in dnsmasq.FIRMWARES)


@attrs.frozen
class Laid:
    """One file of the tftp root; `source` is None if no package here has it."""

    name: str
    source: Path | None


def lay_out(config: Config, ipxe: Sequence[Path] = PACKAGED) -> list[Laid]:
    """Fills config.paths.tftp, or brings it up to date; returns each file's source.

    Raises NotFound if none of `ipxe` has any iPXE, Refused if a folder in it is not root's.
    """
    root = config.paths.tftp
    laid = [Laid(name, _find(words, ipxe)) for name, words in NAMES.items()]
    if not any(each.source for each in laid):
        raise NotFound(
            f"no iPXE in {', '.join(map(str, ipxe))}: install Debian's package ipxe,"
            " or name a directory with --ipxe"
        )
    for each in laid:
        if each.source is not None:
            _replace(root / each.name, each.source.read_bytes())
    for name, script in _scripts(config).items():
        _replace(root / name, script)
    _answer_to_the_seeds_root(root)
    return [*laid, *(Laid(template.name, template) for template in TEMPLATES)]


@contextmanager
def newer() -> Iterator[Path]:
    """Fetches a newer Debian's iPXE from the system's mirror into a temporary folder.

    Raises Refused if it cannot be fetched.
    """
    with tempfile.TemporaryDirectory(prefix="appliance-ipxe-") as scratch:
        arch = run(["dpkg", "--print-architecture"]).strip()
        run(["sh", str(_RELEASE), f"{scratch}/package", NEWER, arch, "ipxe"])
        yield Path(scratch, "package/usr/lib/ipxe")


def is_laid_out(config: Config, ipxe: Sequence[Path] = PACKAGED) -> bool:
    """Tells whether the tftp root is as `lay_out` would make it now."""
    root, wanted = config.paths.tftp, _scripts(config)
    for name, words in NAMES.items():
        if (source := _find(words, ipxe)) is not None:
            wanted[name] = source.read_bytes()
    files = ((root / name, data) for name, data in wanted.items())
    return all(holds(path, data) for path, data in files)


def holds(path: Path, data: bytes) -> bool:
    """Tells whether `path` is a regular file with exactly these bytes."""
    try:
        return plain_files.read(path, len(data), follow=True) == data
    except OSError:
        return False


def _scripts(config: Config) -> dict[str, bytes]:
    host, port = config.network.address, config.ports.scheduler
    return {
        template.name: dnsmasq.first_script(template.read_text(), host, port).encode()
        for template in TEMPLATES
    }


def remove(root: Path) -> None:
    """Removes what `lay_out` made; other files stay, and so do the folders that hold them.

    Raises Refused if a folder in it leads elsewhere.
    """
    for name in (*NAMES, *dnsmasq.SCRIPTS):
        owner.check_roots((root / name).parent)
        (root / name).unlink(missing_ok=True)
    if (root / "tftpboot").is_symlink():
        (root / "tftpboot").unlink()
    with owner.acting(root / own_ipxe.FOLDER):  # the folder belongs to the server's user
        for name in own_ipxe.given(root):
            own_ipxe.take_away(root, name)
    for folder in (
        *((root / name).parent for name in NAMES),
        root / "ipxe",
        root / own_ipxe.FOLDER,
        root,
    ):
        _remove_empty(folder)


def _remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


def _find(words: Sequence[str], ipxe: Sequence[Path]) -> Path | None:
    found = (place / word for word in words for place in ipxe)
    return next((path for path in found if path.is_file()), None)


def _replace(path: Path, data: bytes) -> None:
    """Replaces a file atomically: boxes may be loading the old one."""
    _make(path.parent)
    atomic.put(path, [data], 0o644)  # dnsmasq reads it as a user of its own


def _make(folder: Path) -> None:
    """Makes a folder owned by root, even if the server's user may write to a folder above it.

    Each level is checked before the next is made in it, so a symlink planted by the server's user
    is never followed; and that user cannot replace a folder that is root's.
    """
    for place in (*reversed(folder.parents), folder):
        with contextlib.suppress(FileExistsError):
            if not place.is_dir():
                place.mkdir()
        owner.check_roots(place)


def _answer_to_the_seeds_root(root: Path) -> None:
    """Makes Compass-CI's absolute names, /tftpboot/ipxe/..., work below any tftp root.

    dnsmasq takes an absolute name that does not begin with its root as relative to its root.
    """
    link = root / "tftpboot"
    if root.name == "tftpboot" and root.parent == Path("/"):
        return
    if not link.is_symlink() and not link.exists():
        link.symlink_to(".")
