"""Chooses the Debian archives for a root filesystem, and the apt options to reach them.

Without --mirror, the archives are those of this system's own apt.  With it, they are the release on
the mirror, plus its updates and its security fixes if the mirror has them.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path
from typing import Final

import attrs

from appliance.boot.images import sandbox
from appliance.boot.images.sandbox import Say
from appliance.errors import BadImage

_MIRROR: Final = re.compile(r"[a-z]+:[!-~]+")
_KEYRING: Final = re.compile(r"/[A-Za-z0-9._/+-]+\Z")  # a path, not a key inside the source
# Folder of apt programs that are not in PATH.
_APT_LIBRARY: Final = "/usr/lib/apt"
# apt-helper's messages about a missing file; any other failure is a problem of the mirror.
_ABSENT: Final = re.compile(r"\b(403|404|410)\s|File not found|No such file")


@attrs.frozen
class Source:
    """One archive and suite."""

    uri: str
    suite: str
    components: str
    signed_by: str | None = None  # a keyring's path; None: apt's trusted keys

    @property
    def line(self) -> str:
        """The source in apt's one-line style."""
        option = f"[signed-by={self.signed_by}] " if self.signed_by else ""
        return f"deb {option}{self.uri} {self.suite} {self.components}"


def sources(codename: str, mirror: str | None, say: Say) -> list[Source]:
    """Returns the sources of a release, its main archive first.  Raises BadImage."""
    components = "main non-free-firmware" if codename != "bullseye" else "main"
    own = [
        Source(uri, suite, components, key)
        for uri, suite, key in _of_this_system()
        if suite == codename or suite.startswith((f"{codename}-", f"{codename}/"))
    ]
    own.sort(key=lambda source: source.suite != codename)  # stable
    if mirror is None:
        if not own or own[0].suite != codename:
            raise BadImage(
                f"this system's apt sources do not have Debian {codename}: use --mirror URI"
            )
        return own
    if not _MIRROR.fullmatch(mirror):
        raise BadImage(f"--mirror {mirror!r} should be a URI such as http://mirror/debian")
    key = next((source.signed_by for source in own if source.signed_by), None)
    return [Source(*place, components, key) for place in _of_mirror(mirror, codename, say)]


def apt_options() -> list[str]:
    """Returns this system's apt options for downloads: proxies, time-outs, checks."""
    dump = subprocess.run(
        ("apt-config", "dump"), stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    kept = re.compile(r"Acquire::(http|https|Check|Retries|ForceIPv|Languages)", re.IGNORECASE)
    return [line for line in dump.stdout.decode().splitlines() if kept.match(line) and '"' in line]


def _of_mirror(mirror: str, codename: str, say: Say) -> list[tuple[str, str]]:
    """Returns (URI, suite) of the release, and of its updates and security if they exist."""
    mirror = mirror.rstrip("/")
    found = [(mirror, codename)]  # not checked: the installer reports errors better
    for uri, suite in (
        (mirror, f"{codename}-updates"),
        (f"{mirror}-security", f"{codename}-security"),  # debian -> debian-security, as at Debian
    ):
        if _is_there(f"{uri}/dists/{suite}/InRelease"):
            found.append((uri, suite))
        else:
            say(f"this mirror has no {suite} ({uri}): the image does without")
    return found


def _is_there(uri: str) -> bool:
    """Tells whether a file exists, with apt's own downloader and proxies.  Raises BadImage."""
    helper = sandbox.program("apt-helper", _APT_LIBRARY)
    if helper is None:
        raise BadImage("apt-helper is not installed (package apt)")
    said: list[str] = []
    with tempfile.TemporaryDirectory(prefix="appliance-") as scratch:
        try:
            sandbox.run((helper, "download-file", uri, f"{scratch}/file"), said.append)
        except BadImage:
            if any(_ABSENT.search(line) for line in said):
                return False
            raise
        return True


def _of_this_system() -> list[tuple[str, str, str | None]]:
    """Returns (URI, suite, keyring) of the archives in this system's apt sources, each once.

    Only archives with a component `main` count: third-party ones named after the release have none.
    """
    # Without --no-release-info apt silently omits archives whose lists it has not fetched.
    listed = subprocess.run(
        ("apt-get", "indextargets", "--no-release-info", "--format",
         "$(REPO_URI) $(RELEASE) $(COMPONENT) $(SOURCESENTRY)"),
        stdin=subprocess.DEVNULL, capture_output=True, check=False,
    )  # fmt: skip
    rows = [line.split() for line in listed.stdout.decode().splitlines()]
    found = {(row[0], row[1]): row[3] for row in reversed(rows) if row[2:3] == ["main"] and row[3:]}
    order = list(dict.fromkeys((row[0], row[1]) for row in rows if row[2:3] == ["main"]))
    return [(uri, suite, _signed_by(found.get((uri, suite), ""))) for uri, suite in order]


def _signed_by(entry: str) -> str | None:
    """Finds the keyring of apt's source `FILE:NUMBER`.

    NUMBER counts the lines of a .list, or the paragraphs of a .sources file.
    """
    file, _, number = entry.rpartition(":")
    try:
        text = Path(file).read_text(errors="replace")
    except OSError:
        return None
    if file.endswith(".sources"):
        parts = [part for part in re.split(r"\n\s*\n", _uncommented(text)) if part.strip()]
        pattern = re.compile(r"^Signed-By:[ \t]*(\S+)[ \t]*$", re.IGNORECASE | re.MULTILINE)
    else:
        parts = text.splitlines()
        pattern = re.compile(r"\[[^]]*\bsigned-by=([^\s\]]+)", re.IGNORECASE)
    if not number.isdigit() or not 0 < int(number) <= len(parts):
        return None
    found = pattern.search(parts[int(number) - 1])
    return found[1] if found and _KEYRING.match(found[1]) else None


def _uncommented(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.startswith("#"))
