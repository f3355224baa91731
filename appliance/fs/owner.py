"""Root at work in a folder that somebody else owns: with that owner's rights, and no more.

Whoever owns a folder decides what its names lead to.  A link under the name of a state file would
have root's process write to any file of the machine; the owner's own rights reach only what the
owner reaches anyway, however the names change meanwhile.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from appliance.errors import Refused

_ROOT: Final = 0
_LINKS_MAX: Final = 40  # on one way, as the kernel's own MAXSYMLINKS
_LOOK: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


@contextlib.contextmanager
def acting(folder: Path) -> Iterator[None]:
    """As the owner of `folder`, or of the nearest one above it that is there.

    Nothing changes for a process that is not root, or where only root decides.  The real user stays
    root, so that the owner can neither trace this process nor send it signals.  Raises Refused
    where that owner cannot get there, or where somebody else could put another folder in its place.
    """
    uid = _ROOT if os.geteuid() != _ROOT else of(folder)
    if uid == _ROOT:
        yield
        return
    gid, groups = _groups(uid)
    before = os.getegid(), os.getgroups()
    try:
        os.setgroups(groups)
        os.setegid(gid)
        os.seteuid(uid)
        _check_reach(folder, uid)
        yield
    finally:
        os.seteuid(_ROOT)
        os.setegid(before[0])
        os.setgroups(before[1])


def of(path: Path) -> int:
    """The user who decides what lies at `path`: its owner, or that of the nearest folder above it.

    The way there is safe if only root and that user can change it, links on it included, as
    systemd's own rule has it.  Raises Refused where it is not, OSError.
    """
    trusted = {_ROOT, _owner_of_this_program()}
    whose = _ROOT
    for place, facts in _way(path):
        if whose not in (facts.st_uid, *trusted):
            raise Refused(
                f"{path}: on the way there {name(whose)} can put something else in the place of"
                f" {place}, which is {name(facts.st_uid)}'s; root does nothing there"
            )
        whose = facts.st_uid
        if _is_anybodys(facts):
            raise Refused(
                f"{path}: others than its owner may change {place}; root does nothing there"
            )
    return whose


def is_safe(path: Path) -> bool:
    """Whether only root, this process's user, or who wrote this program decides what lies there."""
    try:
        return of(path) in (_ROOT, os.geteuid(), _owner_of_this_program())
    except (Refused, OSError):
        return False


def check_roots(folder: Path) -> None:
    """Raises Refused where this is root, and others decide what lies in `folder`; OSError."""
    if os.geteuid() == _ROOT:
        whose = of(folder)
        if whose not in (_ROOT, _owner_of_this_program()):
            raise Refused(
                f"{folder}: belongs to {name(whose)}, and must be root's: what root makes there"
                " could end up elsewhere; move it away, or `chown` it after a look at what is in it"
            )


def name(uid: int) -> str:
    """A user's name; the number of one that has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _way(path: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Every folder and link from / to `path`, as far as it is there."""
    left = list(reversed(path.absolute().parts[1:]))
    here, links = Path("/"), 0
    with contextlib.ExitStack() as stack:

        def look(name: str | Path, within: int | None = None) -> tuple[int, os.stat_result]:
            descriptor = os.open(name, _LOOK, dir_fd=within)
            stack.callback(os.close, descriptor)
            return descriptor, os.fstat(descriptor)

        folder, facts = look(here)
        yield here, facts
        while left:
            part = left.pop()
            try:
                entry, facts = look(part, folder)
            except FileNotFoundError:
                return
            except NotADirectoryError as error:
                raise OSError(error.errno, error.strerror, str(here)) from error
            yield here / part, facts
            if not stat.S_ISLNK(facts.st_mode):
                folder, here = entry, here.parent if part == ".." else here / part
                continue
            links += 1
            if links > _LINKS_MAX:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
            target = Path(os.readlink("", dir_fd=entry))
            if target.is_absolute():
                here = Path("/")
                folder, _ = look(here)
            left += [each for each in reversed(target.parts) if each != "/"]


def _is_anybodys(facts: os.stat_result) -> bool:
    """Whether others may change it; in a sticky folder they can only add to it."""
    if stat.S_ISLNK(facts.st_mode) or facts.st_mode & stat.S_ISVTX:
        return False
    # Of users who have a group of their own, folders are the group's as well.
    group = facts.st_mode & stat.S_IWGRP and facts.st_uid == _ROOT != facts.st_gid
    return bool(group or facts.st_mode & stat.S_IWOTH)


def _owner_of_this_program() -> int:
    """Of a checkout, its developer's: root runs what that user has written already."""
    try:
        return os.stat(__file__).st_uid
    except OSError:  # one file, built
        return _ROOT


def _groups(uid: int) -> tuple[int, list[int]]:
    """The user's own group, and all groups; of one without a name, one of its own number."""
    try:
        user = pwd.getpwuid(uid)
    except KeyError:
        return uid, []
    return user.pw_gid, os.getgrouplist(user.pw_name, user.pw_gid)


def _check_reach(folder: Path, uid: int) -> None:
    try:
        os.stat(folder)
    except PermissionError:
        raise Refused(
            f"{folder}: {name(uid)}, who owns it, cannot get there, and root does nothing in it"
            " with its own rights; if it is a copy, `chown -R root:` it first"
        ) from None
    except OSError:
        pass  # it is not there yet
