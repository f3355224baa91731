"""Carries out the steps of a plan, and undoes them when one fails.

An action may be repeated: the result is the same.  Every file appears whole or not at all.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from appliance.errors import Refused
from appliance.fs import atomic, plain_files, trees
from appliance.fs import owner as owners
from appliance.install import actions, debian
from appliance.install.actions import Action, Owner, Step
from appliance.keep.state import heads
from appliance.programs import SHOWN_LINES, run

SETTLED_S: Final = 1.5  # a daemon that cannot bind or read its configuration ends within one

Say = Callable[[str], None]


def carry_out(steps: Sequence[Step], say: Say) -> None:
    """Carries out all steps; after one that fails, undoes it and those before it.

    Raises Refused with the step, why it failed, and what could not be undone.
    """
    done: list[Step] = []
    for step in steps:
        begun = list(done)
        try:
            say(str(step.do))
            begun.append(step)
            do(step.do)
        except BaseException as error:  # Ctrl-C too: half an installation helps nobody
            if not isinstance(error, Refused | OSError | KeyboardInterrupt):
                raise
            why = str(error) or "interrupted"
            with contextlib.suppress(OSError):  # undo even if output fails
                say(f"failed: {why}")
            left = _go_back(begun, say)
            told = f"could not {step.do}: {why}"
            raise Refused("\n".join([told, *_after(left, done)])) from error
        done.append(step)


def _go_back(done: Sequence[Step], say: Say) -> list[str]:
    left = []
    for step in reversed(done):
        if step.undo is None:
            continue
        try:
            with contextlib.suppress(OSError):
                say(f"going back: {step.undo}")
            do(step.undo)
        except (Refused, OSError, KeyboardInterrupt) as error:
            left.append(f"could not {step.undo}: {str(error) or 'interrupted'}")
    return left


def _after(left: Sequence[str], done: Sequence[Step]) -> list[str]:
    head = "to put right by hand:" if left else "what was done before it has been taken back"
    return [head, *left, *(f"stays: {step.stays}" for step in done if step.stays)]


def do(action: Action) -> None:
    """Carries out one action.  Raises Refused and OSError."""
    match action:
        case actions.Write(path, text, mode, owner):
            _write(path, text, mode, owner)
        case actions.Touch(path, mode, owner):
            _touch(path, mode, owner)
        case actions.Folder(path, mode, owner):
            path.mkdir(parents=True, exist_ok=True)
            if not path.is_symlink():  # a symlink is the operator's choice
                _own_folder(path, mode, owner)
        case actions.GiveBack(path, mode, owner):
            if path.is_dir() and not path.is_symlink():
                _own_folder(path, mode, owner)
        case actions.Link(path, target):
            atomic.link(path, target)
        case actions.Unpack():
            _unpack(action)
        case actions.Remove(path):
            _remove(path)
        case actions.RemoveEmpty(path):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                if not any(path.iterdir()):
                    path.rmdir()
        case actions.Install(names):
            debian.install(names)
        case actions.Run(command):
            run(command)
        case actions.Settle(units):
            _settle(units)
        case actions.StateBack():
            _state_back(action)
        case actions.All(several):
            for each in several:
                do(each)


def _state_back(back: actions.StateBack) -> None:
    run(["sh", "-c", back.tidy])
    if state_version(back.state) > back.reads:
        try:
            run(["sh", "-c", back.swap])
        except BaseException:  # half a copy would take disk space that the state needs
            run(["sh", "-c", back.unswap])
            raise
        run(["sh", "-c", back.keep])


def state_version(folder: Path) -> int:
    """Returns the version of the state in `folder`; 0 if it has none, or cannot be read."""
    try:
        with owners.acting(folder):
            return heads.newest(folder)
    except (Refused, OSError):
        return 0


def _ids(path: Path, owner: Owner) -> tuple[int, int]:
    """Returns uid and gid; digits are an id, of an owner that has no name any more."""
    user, group = owner.user, owner.group
    try:
        uid = int(user) if user.isdecimal() else pwd.getpwnam(user).pw_uid
        return uid, int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise Refused(f"{path}: {error.args[0]}") from error


def _touch(path: Path, mode: int, owner: Owner) -> None:
    """Creates a file in another user's folder; the owner of an existing file is not changed."""
    uid, gid = _ids(path, owner)
    with contextlib.suppress(FileExistsError):
        made = plain_files.open_(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            os.fchown(made, uid, gid)
            os.fchmod(made, mode)
        finally:
            os.close(made)
    what, whose = plain_files.kind(path), os.lstat(path).st_uid
    if what or whose != uid:
        raise Refused(f"{path}: {what or 'a file'} of user {whose} is in the way; move it away")


def _own_folder(path: Path, mode: int, owner: Owner) -> None:
    uid, gid = _ids(path, owner)
    # By descriptor: the path may lead to something else by then.
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchown(folder, uid, gid)
        os.fchmod(folder, mode)
    finally:
        os.close(folder)


def _write(path: Path, text: str, mode: int, owner: Owner) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.put(path, [text.encode()], mode, _ids(path, owner))


def _unpack(action: actions.Unpack) -> None:
    beside = action.target.with_name(action.target.name + ".new")
    shutil.rmtree(beside, ignore_errors=True)  # left by an interrupted install
    leave = shutil.ignore_patterns(action.launcher)
    shutil.copytree(action.source, beside / "_internal", ignore=leave, symlinks=True)
    shutil.copyfile(action.source / action.launcher, beside / action.program)
    for path in (beside, *beside.rglob("*")):
        if not path.is_symlink():
            runs = path.is_dir() or path.name == action.program or ".so" in path.name
            path.chmod(0o755 if runs else 0o644)
    beside.replace(action.target)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        trees.remove(path)  # the state's owner is another user, who may have nested it deeply
    else:
        path.unlink(missing_ok=True)


def _settle(units: Sequence[str]) -> None:
    since = time.monotonic()
    while time.monotonic() - since < SETTLED_S:
        for unit in units:
            shown = run(["systemctl", "show", "-p", "ActiveState", "--value", unit]).strip()
            if shown != "active":
                journal = ["journalctl", "-q", "-n", str(SHOWN_LINES), "-o", "cat", "-u", unit]
                said = subprocess.run(journal, capture_output=True, text=True, check=False).stdout
                raise Refused(f"{unit} does not stay up ({shown}); its journal ends with\n{said}")
        time.sleep(SETTLED_S / 5)
