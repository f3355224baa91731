"""Which Debian archives a root filesystem is made from, and how this system's apt gets at them.

Without --mirror they are those of this system's own apt.  With it they are the release, and of its
updates and security fixes those that the mirror has.
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
_KEYRING: Final = re.compile(r"/[A-Za-z0-9._/+-]+\Z")  # a path: keys inside the source stay there
# Programs of apt that are on no PATH.
_APT_LIBRARY: Final = "/usr/lib/apt"
# What apt-helper says of a file that is not there; anything else is a mirror in trouble.
_ABSENT: Final = re.compile(r"\b(403|404|410)\s|File not found|No such file")


@attrs.frozen
class Source:
    """One archive and suite; `line` is how apt reads it."""

    uri: str
    suite: str
    components: str
    signed_by: str | None = None  # a keyring's path; None: whatever apt trusts

    @property
    def line(self) -> str:
        """In one-line style."""
        option = f"[signed-by={self.signed_by}] " if self.signed_by else ""
        return f"deb {option}{self.uri} {self.suite} {self.components}"


def sources(codename: str, mirror: str | None, say: Say) -> list[Source]:
    """Of that release, its own archive first.  Raises BadImage."""
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
    """How this system's apt gets at its mirror: proxies, time-outs, checks."""
    dump = subprocess.run(
        ("apt-config", "dump"), stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    kept = re.compile(r"Acquire::(http|https|Check|Retries|ForceIPv|Languages)", re.IGNORECASE)
    return [line for line in dump.stdout.decode().splitlines() if kept.match(line) and '"' in line]


def _of_mirror(mirror: str, codename: str, say: Say) -> list[tuple[str, str]]:
    """(URI, suite) of the release and of those of its companions that are there."""
    mirror = mirror.rstrip("/")
    found = [(mirror, codename)]  # not asked: who unpacks it has the better words
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
    """Asked with apt's own program, so through the same proxies.  BadImage: no answer."""
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
    """(URI, suite, keyring) of the archives that this system's apt reads, in order, each once.

    An archive has a component main; others that are named after the release have theirs alone.
    """
    # Without that option apt leaves out, and does not say so, whatever it has fetched no list of.
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
    """The keyring of apt's source `FILE:NUMBER`: a line of a .list, a paragraph of a .sources."""
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
