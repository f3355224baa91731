"""Lets a root process work in another user's folder with only that user's rights.

A folder's owner decides what its names lead to: with a link under the name of a state file, the
owner could make root's process write to any file of the machine.  With the owner's rights, the
process reaches only files that the owner can reach anyway.
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
_LINKS_MAX: Final = 40  # on one path, as the kernel's own MAXSYMLINKS
_LOOK: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


@contextlib.contextmanager
def acting(folder: Path) -> Iterator[None]:
    """Acts as the owner of `folder`, or of the nearest existing folder above it.

    Changes nothing if the process is not root, or if root owns the folder.  The real user stays
    root, so that the owner can neither trace this process nor send it signals.  Raises Refused
    if the owner cannot reach the folder, or if another user could replace it.
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
    """Returns the owner of `path`, or of the nearest existing folder above it.

    Raises Refused if any other user but root can change a folder or link on the way there
    (systemd has the same rule); OSError.
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
    """Whether only root, this process's user or this program's owner decides what `path` is."""
    try:
        return of(path) in (_ROOT, os.geteuid(), _owner_of_this_program())
    except (Refused, OSError):
        return False


def check_roots(folder: Path) -> None:
    """Raises Refused if this process is root and another user controls `folder`; OSError."""
    if os.geteuid() == _ROOT:
        whose = of(folder)
        if whose not in (_ROOT, _owner_of_this_program()):
            raise Refused(
                f"{folder}: belongs to {name(whose)}, and must be root's: what root makes there"
                " could end up elsewhere; move it away, or `chown` it after a look at what is in it"
            )


def name(uid: int) -> str:
    """Returns a user's name, or `user N` for a user without one."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _way(path: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yields every folder and link from / to `path`, up to the first missing one."""
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
    """Whether other users may change a folder; in a sticky one they can only add files."""
    if stat.S_ISLNK(facts.st_mode) or facts.st_mode & stat.S_ISVTX:
        return False
    # Group-writable folders of users other than root are common: often the group is their own.
    group = facts.st_mode & stat.S_IWGRP and facts.st_uid == _ROOT != facts.st_gid
    return bool(group or facts.st_mode & stat.S_IWOTH)


def _owner_of_this_program() -> int:
    """Returns this program's owner; of a checkout, the developer, whose code root runs anyway."""
    try:
        return os.stat(__file__).st_uid
    except OSError:  # a built program in one file
        return _ROOT


def _groups(uid: int) -> tuple[int, list[int]]:
    """Returns a user's own group and all groups; without a name, the gid that equals the uid."""
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
        pass  # the folder does not exist yet
