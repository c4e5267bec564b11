# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Changing an account's authorized_keys file, in one step and with no more rights than the account has itself.

The file lies in a directory that the account owns. At any moment the account may put a link in the place of the file or of a
directory, so what root opens or makes there by its path could be any file of the host. Therefore a child process that has
become the account changes the file. Root changes it only where nobody but root can change its path
(``AuthorizedKeysFile /etc/...``, and root's own file).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import re
import select
import signal
import stat
import typing as t
import uuid

from .._base import durable
from .._base.command import Runner, run
from .._base.errors import MigrationError
from .._session.session import STATE_ROOT

Lines = list[bytes]

# The account may stop the child, or let its files lie where nothing answers.
_SECONDS = 30.0
_LARGEST_BYTES = 4 << 20
# As many as the kernel follows in one path.
_MOST_LINKS = 40
_SELINUX = "security.selinux"
_DONE = b"done"


def path_of(user: str, runner: Runner = run) -> str:
    """The file in which sshd looks up a user's keys, asked of sshd itself.

    :raises MigrationError: ``channel_failed`` where sshd reads no such file.
    """
    account = pwd.getpwnam(user)
    pattern = ".ssh/authorized_keys"
    with contextlib.suppress(MigrationError):
        done = runner(["sshd", "-T", "-C", f"user={user},host=localhost,addr=127.0.0.1"])
        for line in done.stdout.splitlines():
            if line.lower().startswith("authorizedkeysfile "):
                pattern = line.split()[1]
    if pattern == "none":
        raise MigrationError("channel_failed", f"sshd accepts no key files for {user} (AuthorizedKeysFile none).")
    meanings = {"%%": "%", "%h": account.pw_dir, "%u": user}
    pattern = re.sub(r"%[%hu]", lambda found: meanings[found.group()], pattern)
    return os.path.join(account.pw_dir, pattern)


def rewrite(path: str, user: str, change: t.Callable[[Lines], Lines]) -> None:
    """Change an authorized_keys file, one session at a time; owner and mode stay, or become what sshd demands.

    :param change: makes new lines out of the old ones, without their ends.
    :raises MigrationError: ``channel_failed``.
    """
    account = pwd.getpwnam(user)
    durable.make_directory(STATE_ROOT)
    fd = os.open(os.path.join(STATE_ROOT, "authorized_keys.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        if account.pw_uid == os.geteuid() or _is_roots(path):
            _change(path, account, change)
        else:
            _as_account(account, path, lambda: _change(path, account, change))
    except OSError as exc:
        raise _failed(path, user, str(exc)) from exc
    finally:
        os.close(fd)


def _failed(path: str, user: str, why: str) -> MigrationError:
    return MigrationError(
        "channel_failed",
        f"The file {path} cannot be changed as {user}, whose keys it holds: {why}. Make it and its directory that account's own, "
        "as sshd wants it, or name another account in migrate_channel_user.",
        path=path,
        user=user,
    )


def _is_roots(path: str) -> bool:
    """Whether nobody but root can change where the path of a file leads. The file need not be there.

    Each directory of the path counts, also those through which a link leads to another link.
    """
    todo, place, links = path.split("/")[::-1], "/", 0
    while todo:
        part = todo.pop()
        if part in ("", "."):
            continue
        above = os.lstat(place)
        if above.st_uid != 0 or above.st_mode & 0o022 or not stat.S_ISDIR(above.st_mode):
            return False
        following = os.path.dirname(place) if part == ".." else os.path.join(place, part)
        try:
            status = os.lstat(following)
        except FileNotFoundError:
            return True
        if stat.S_ISLNK(status.st_mode):
            links += 1
            target = os.readlink(following)
            if links > _MOST_LINKS:
                return False
            todo += target.split("/")[::-1]
            following = "/" if target.startswith("/") else place
        place = following
    return True


def _as_account(account: pwd.struct_passwd, path: str, work: t.Callable[[], None]) -> None:
    """Do something in a child process that has become an account, and has none of root's rights any more."""
    groups = os.getgrouplist(account.pw_name, account.pw_gid)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _be_the_child(account, groups, writing, work)
    os.close(writing)
    outcome = b""
    try:
        while select.select([reading], [], [], _SECONDS)[0]:
            part = os.read(reading, 4096)
            outcome += part
            if not part:
                break
        else:
            os.kill(child, signal.SIGKILL)
            outcome = f"the process for it did not end within {_SECONDS:g} seconds".encode()
    finally:
        os.close(reading)
        os.waitpid(child, 0)
    if outcome != _DONE:
        why = outcome.decode("utf-8", "replace") or "the process for it was killed"
        raise _failed(path, account.pw_name, why)


def _be_the_child(
    account: pwd.struct_passwd, groups: t.Sequence[int], writing: int, work: t.Callable[[], None]
) -> t.NoReturn:
    outcome = b""
    try:
        os.setgroups(list(groups))
        os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
        os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)
        work()
        outcome = _DONE
    except BaseException as exc:  # noqa: BLE001 - the parent reports it, and the child ends here
        outcome = (str(exc) or type(exc).__name__).encode("utf-8", "replace")
    finally:
        os.write(writing, outcome)
        # Not by exit: what the parent has begun is not the child's to end.
        os._exit(0)


def _change(path: str, account: pwd.struct_passwd, change: t.Callable[[Lines], Lines]) -> None:
    """As the one who calls it: read, change, and put in place."""
    # A link of the account's to another file of its own stays a link. Where it leads cannot be more than the caller may reach.
    path = os.path.realpath(path)
    directory = os.path.dirname(path)
    _make_directory(directory, account)
    before, old = _read(path)
    lines = before.split(b"\n")
    last = lines.pop()
    after = b"".join(line + b"\n" for line in change([*lines, *([last] if last else [])]))
    if after == before:
        return
    temporary = f"{path}.{uuid.uuid4().hex}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(fd, "wb") as handle:
            _make_alike(fd, old, account)
            handle.write(after)
            handle.flush()
            os.fsync(fd)
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    durable.sync_directory(directory)


def _make_directory(directory: str, account: pwd.struct_passwd) -> None:
    if not os.path.isdir(directory):
        # sshd reads the file as the account, which has to get to it where the directory is root's.
        os.makedirs(directory, 0o700 if account.pw_uid == os.geteuid() else 0o755)


class _Old(t.NamedTuple):
    """What is kept of the file that was there."""

    status: os.stat_result
    label: bytes | None


def _read(path: str) -> tuple[bytes, _Old | None]:
    """Read the file as bytes: what its owner wrote stays as it is, line ends included."""
    try:
        # Without O_NONBLOCK a named pipe in its place would be waited for.
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return b"", None
    with os.fdopen(fd, "rb") as handle:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST_BYTES:
            raise OSError("it is no regular file, or one that is too large")
        label = None
        with contextlib.suppress(OSError):
            label = os.getxattr(fd, _SELINUX)
        return handle.read(_LARGEST_BYTES), _Old(status, label)


def _make_alike(fd: int, old: _Old | None, account: pwd.struct_passwd) -> None:
    if old is None:
        if account.pw_uid != os.geteuid():
            os.fchown(fd, account.pw_uid, account.pw_gid)
        return
    # Before the mode: it would take the set-id bits off. A file in the account's own directory that belonged to another cannot
    # be given back to that one by the account; it is the account's then, which could have put it there itself.
    with contextlib.suppress(PermissionError):
        os.fchown(fd, old.status.st_uid, old.status.st_gid)
    os.fchmod(fd, old.status.st_mode & 0o777)
    if old.label is not None:
        with contextlib.suppress(OSError):
            os.setxattr(fd, _SELINUX, old.label)
