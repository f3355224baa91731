"""The images under /srv/os: lists them, and finds the files that boot `<os>/<arch>/<version>`.

`/srv/os/<os>/<arch>/<version>` is a symlink to `<version>-<timestamp>`, a folder that never
changes once it has its name.  `resolve` follows the symlink, so a job keeps the snapshot of its
submit when the symlink is moved to a newer one (docs/wire.md#files).

A URL path is the real path without srv; a path that leaves srv counts as absent.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

from appliance.errors import BadImage

Program = tuple[str, str]  # its name, and its version or "latest"
# Names of an os, arch, version or kernel in a document: no path, nothing that iPXE would expand.
_WORD: Final = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9._+-]{0,127}\Z")
# The target of a symlink may have any name, and goes into a script's lines, CIFS options, and the
# journal; only such plain paths are accepted.
_PLAIN: Final = re.compile(r"[A-Za-z0-9._~+@=/-]*\Z")
_KERNEL: Final = "vmlinuz-"
SIZE: Final = "boot/size"  # file in an image that we made: its bytes on disk, as a number
_SIZE_DIGITS_MAX: Final = 18  # more than any disk; limits the int read from a hostile file


@attrs.frozen
class Boot:
    """The files that a submit pins: URL paths, every symlink followed."""

    kernel: str  # "/os/debian/x86_64/12-20260102-030405/boot/vmlinuz-6.1.0-1-amd64"
    initrds: tuple[str, ...]  # the initrds before job.cgz; the modules are at index 1
    root: str  # "/os/debian/x86_64/12-20260102-030405"
    kernel_version: str
    deps: tuple[str, ...] = ()  # archives of what its programs need
    pkgs: tuple[str, ...] = ()  # archives of the programs themselves


@attrs.frozen
class Image:
    """One image that a document can name."""

    os: str
    arch: str
    version: str
    snapshot: str  # URL path of the folder that the name leads to
    kernels: tuple[str, ...]  # kernel versions, the default one first
    problems: tuple[str, ...]  # why it does not boot; empty: it does
    size_bytes: int | None = None  # None: made elsewhere, size unknown

    @property
    def name(self) -> str:
        """The name as a path: "debian/x86_64/12"."""
        return f"{self.os}/{self.arch}/{self.version}"

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return not self.problems


def resolve(
    srv: Path,
    os: str,
    arch: str,
    version: str,
    os_mount: str,
    kernel_version: str | None = None,
    programs: tuple[Program, ...] = (),
) -> Boot:
    """Finds the files as they are now.  Raises BadImage with what is missing and what exists."""
    words = {"os": os, "os_arch": arch, "os_version": version}
    if kernel_version is not None:
        words["kernel_version"] = kernel_version
    for field, word in words.items():
        check_word(field, word)
    name = f"{os}/{arch}/{version}"
    deps, pkgs = _extras(srv, name, os_mount, programs)
    if os_mount == "container":  # its provider has the image
        return Boot("", (), "", "", deps, pkgs)
    folder = real(srv, Path("os", name))
    if folder is None or not folder.is_dir():
        there = [real(srv, Path("os", *path)) is not None for path in ((os,), (os, arch))]
        field = ("os", "arch", "os_version")[sum(there)]
        raise BadImage(f"there is no image {name}; {_there_are(srv, os_mount)}", field)
    boot, absent = _boot(srv, folder, name, os_mount, kernel_version)
    if boot is None:
        kernels = ", ".join(_kernels(folder)) or "none"
        raise BadImage(
            f"image {name} (os_mount {os_mount}) lacks {' and '.join(absent)};"
            f" kernels in it: {kernels}; {_there_are(srv, os_mount)}",
            "kernel_version" if kernel_version is not None else "os_version",
        )
    return attrs.evolve(boot, deps=deps, pkgs=pkgs)


def _extras(
    srv: Path, name: str, os_mount: str, programs: tuple[Program, ...]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Finds the existing archives of dependencies, and of programs (docs/wire.md#files)."""
    mount = "nfs" if os_mount == "cifs" else os_mount
    deps = [f"deps/{mount}/{name}/{program}/{program}.cgz" for program, _ in programs]
    pkgs = [f"pkg/{mount}/{name}/{program}/{version}.cgz" for program, version in programs]
    found = [[real(srv, Path("initrd", path)) for path in paths] for paths in (deps, pkgs)]
    urls = [
        dict.fromkeys(url_path(srv, file) for file in files if file is not None and _readable(file))
        for files in found
    ]
    if odd := [url for url in (*urls[0], *urls[1]) if not _PLAIN.match(url)]:
        raise BadImage(f"{odd[0]!r} needs a plain name")  # it stands in a boot script
    return tuple(urls[0]), tuple(urls[1])


def missing(srv: Path, boot: Boot) -> list[str]:
    """Returns the URL paths that cannot be read any more; takes a few stat calls."""
    gone = [] if os.path.isdir(f"{srv}{boot.root}") else [boot.root]
    files = (boot.kernel, *boot.initrds, *boot.deps, *boot.pkgs)
    return gone + [path for path in files if path and not _readable(f"{srv}{path}")]


def images(srv: Path) -> list[Image]:
    """Returns all images, by name; a snapshot with a symlink is listed only under that name."""
    return [_image(srv, name, folder) for name, folder in _names(srv)]


def url_path(srv: Path, real: Path) -> str:
    """Returns the URL path of `real`.  Raises BadImage for a path outside srv."""
    base = os.path.realpath(srv)
    if not str(real).startswith(f"{base.rstrip('/')}/"):
        raise BadImage(f"{real} is not under {base}")
    return str(real)[len(base.rstrip("/")) :]


def real(srv: Path, path: Path) -> Path | None:
    """Resolves every symlink of `srv/path`; None if it does not exist or leaves srv."""
    base = os.path.realpath(srv)
    try:
        found = os.path.realpath(os.path.join(base, path), strict=True)
    except OSError:  # absent, a dangling link, or links in a circle
        return None
    inside = os.path.commonpath((base, found)) == base
    return Path(found) if inside else None


def check_word(field: str, word: str) -> None:
    """Raises BadImage for a word that is not a single name in a path."""
    if not _WORD.match(word):
        raise BadImage(
            f"{field}: {word!r} should be one word of letters, digits and ._+- without a leading"
            " dot"
        )


def _boot(
    srv: Path, folder: Path, name: str, os_mount: str, kernel_version: str | None
) -> tuple[Boot | None, list[str]]:
    """Returns the files that boot `folder`, or (None and) what is missing."""
    default = real(srv, folder / "boot/vmlinuz")
    if kernel_version is None and (default is None or not default.name.startswith(_KERNEL)):
        return None, ["boot/vmlinuz (a symlink to vmlinuz-<kernel version>)"]
    version = kernel_version or str(default and default.name.removeprefix(_KERNEL))
    kernel = folder / f"boot/{_KERNEL}{version}"
    modules = folder / f"boot/modules-{version}.cgz"
    if os_mount == "initramfs":
        osimage = Path("initrd/osimage", name)
        wanted = [kernel, osimage / "current", modules, osimage / "run-ipconfig.cgz"]
    else:
        wanted = [kernel, folder / "initrd.lkp", modules]
    found = [real(srv, path) for path in wanted]
    if os_mount == "local" and found[-1] is None:
        found, wanted = found[:-1], wanted[:-1]  # such images have no modules since 2022
    absent = [
        str(path.relative_to(folder)) if path.is_relative_to(folder) else f"/{path}"
        for path, file in zip(wanted, found, strict=True)
        if file is None or not _readable(file)
    ]
    if absent:
        return None, absent
    urls = [url_path(srv, file) for file in found if file is not None]
    odd = [url for url in (url_path(srv, folder), *urls) if not _PLAIN.match(url)]
    if odd:
        return None, [f"a plain name for {url!r}" for url in odd[:1]]
    return Boot(urls[0], tuple(urls[1:]), url_path(srv, folder), version), []


def _image(srv: Path, name: str, folder: Path) -> Image:
    system, arch, version = name.split("/")
    boot, absent = _boot(srv, folder, name, "cifs", None)
    problems = [f"{path} is missing" for path in absent]
    if boot is not None:
        bits = {boot.root: stat.S_IROTH | stat.S_IXOTH}
        bits |= dict.fromkeys((boot.kernel, *boot.initrds), stat.S_IROTH)
        problems += [
            f"{path} is not readable by others"
            for path, bit in bits.items()
            if os.stat(f"{srv}{path}").st_mode & bit != bit
        ]
    kernels = _kernels(folder)
    if boot is not None:
        kernels.sort(key=lambda kernel: kernel != boot.kernel_version)
    url = url_path(srv, folder)
    return Image(system, arch, version, url, tuple(kernels), tuple(problems), _size(srv, folder))


def _size(srv: Path, folder: Path) -> int | None:
    file = real(srv, folder / SIZE)
    if file is None or not _readable(file):
        return None
    with file.open("rb") as opened:
        word = opened.read(_SIZE_DIGITS_MAX + 1).strip()
    return int(word) if word.isdigit() and len(word) <= _SIZE_DIGITS_MAX else None


def _names(srv: Path) -> Iterator[tuple[str, Path]]:
    """Yields (name, folder) of every image that a document can name; skips builds under way."""
    found = sorted(srv.glob("os/[!.]*/[!.]*/[!.]*"))
    places = [place for place in found if all(map(_WORD.match, place.parts[-3:]))]
    links = [place for place in places if place.is_symlink()]
    behind = {os.path.realpath(link) for link in links}
    for place in places:
        folder = real(srv, place.relative_to(srv))
        if folder is None or not folder.is_dir():
            continue
        if place.is_symlink() or str(folder) not in behind:
            yield str(place.relative_to(srv / "os")), folder


def _kernels(folder: Path) -> list[str]:
    found = sorted(path.name for path in folder.glob(f"boot/{_KERNEL}*"))
    return [name.removeprefix(_KERNEL) for name in found if _WORD.match(name)]


def _there_are(srv: Path, os_mount: str) -> str:
    """Describes the images that would boot, for an error message."""
    names = [name for name, folder in _names(srv) if _boot(srv, folder, name, os_mount, None)[0]]
    return f"images: {', '.join(names)}" if names else f"there are no images in {srv}/os"


def _readable(path: str | Path) -> bool:
    return os.path.isfile(path) and os.access(path, os.R_OK)
