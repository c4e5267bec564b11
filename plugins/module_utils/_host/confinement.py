# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Programs that work on one directory of this host and can reach no other file of it, whatever lies in that directory.

rsync works as root on directories whose content others decide: a container that still runs, or the other end of the channel.
Who may change a directory while rsync works on it can put a symbolic link into the place of a directory, and rsync before 3.5
follows that to anywhere. So it runs in a private mount namespace with a root directory of its own. In that there are the
directory, under its own name, and the host's programs, which cannot be written to. The directory is mounted ``nosymfollow``:
the kernel follows no link that lies in it, while links can still be read and made (Linux 5.10; before that a link leads
to what the private root holds, which is the host's programs at most). It is mounted ``nodev`` too: a device node that has
taken the place of a file cannot be opened.

What is mounted below the directory is restricted likewise, by mount_setattr(2) with the directory itself in one call (Linux
5.14), because its owner may rename directories meanwhile: a name that was read a moment ago may lead nowhere, or to another
mount. Older kernels do it by names, again and again until all of them have it.

The namespace is made in a thread, which has it for itself, and not by unshare(1) and mount(8): those would be the start of seven
programs in the frozen time. It goes with the last program in it. The host's other mounts are let go of before the program
starts, so that none is kept busy.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import struct
import subprocess
import typing as t

from .._base import command
from .._base.command import Completed, environment
from .._base.errors import MigrationError
from . import mountinfo, namespaces

# By sys/mount.h. A kernel that does not know the last one, before Linux 5.10, does without it and says nothing.
_RDONLY, _NOSUID, _NODEV, _NOEXEC, _NOSYMFOLLOW = 1, 2, 4, 8, 256
_REMOUNT, _BIND, _REC, _PRIVATE = 32, 4096, 1 << 14, 1 << 18
_DETACH = 2
_FLAGS = {"ro": _RDONLY, "nosuid": _NOSUID, "nodev": _NODEV, "noexec": _NOEXEC, "nosymfollow": _NOSYMFOLLOW}
# mount_setattr(2), for which C libraries have no function before glibc 2.36; its names for the flags; AT_FDCWD and AT_RECURSIVE;
# struct mount_attr: what to set, what to clear, propagation, user namespace.
_MOUNT_SETATTR = 442
_ATTRIBUTES = {_RDONLY: 1, _NOSUID: 2, _NODEV: 4, _NOEXEC: 8, _NOSYMFOLLOW: 1 << 21}
_HERE, _RECURSIVE = -100, 1 << 15
_MOUNT_ATTR = struct.Struct("=QQQQ")
# How often names of mounts are read, on a kernel without that call, before somebody seems to change them all the time.
_LOOKS = 10

# Where the private root is put together: a directory that every host has and nobody keeps anything in. It is covered in the
# namespace only.
_SCAFFOLD = "/sys"
# What programs and their libraries lie in.
_PROGRAMS = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32")
_FILES = ("/etc/ld.so.cache", "/dev/null", "/dev/urandom")
_HOST = "/.livemigrate-host"

#: The beginning of the command line of a program that is started from within, and runs as if it were not.
OUTSIDE = ("nsenter", f"--mount={_HOST}/mnt")


def directory(path: str) -> str:
    """The name by which a confined program knows a directory: its own, without links."""
    return os.path.realpath(path)


def start(argv: t.Sequence[str], path: str, *, only: tuple[int, ...] = (), **streams: t.Any) -> subprocess.Popen[bytes]:
    """Start a program that sees a directory and the host's programs, and nothing else.

    :param argv: the program and its arguments; the directory is to be named there by what :func:`directory` says.
    :param path: the directory; what is mounted below it is seen too.
    :param only: which directory that has to be, by the numbers of its file system and of itself; any where none are given.
    :param streams: ``stdin``, ``stdout`` and ``stderr``, as for Popen.
    :raises MigrationError: ``program_missing``, ``confinement_failed``; ``place_changed`` where it is another directory.
    """
    surroundings = environment()
    program = shutil.which(argv[0], path=surroundings["PATH"])
    if program is None:
        raise command.missing(argv[0])
    program = os.path.realpath(program)

    def enter_and_start() -> subprocess.Popen[bytes]:
        _make_root(directory(path), program, only)
        # Without close_fds: that wants /proc in the child, which is not there, or tries every number. Python's own are not
        # inherited anyway. Not run_command: this is no process of AnsibleModule's, but the thread's.
        return subprocess.Popen(  # pylint: disable=ansible-bad-function
            list(argv), executable=program, env=surroundings, close_fds=False, **streams
        )

    try:
        return namespaces.inside_fresh(("mnt",), enter_and_start)
    except OSError as exc:
        if exc.errno == errno.ESTALE:
            raise MigrationError(
                "place_changed",
                f"Another directory has come in the place of {path} since that was prepared: {argv[0]} is not started for it.",
                path=path,
            ) from None
        raise MigrationError(
            "confinement_failed",
            f"{argv[0]} cannot be started for {path} in a mount namespace of its own ({exc}), without which a symbolic link in "
            "there could lead it to other files of this host. The modules need root with all capabilities (CAP_SYS_ADMIN).",
            path=path,
        ) from None


def run(argv: t.Sequence[str], path: str, *, timeout: float, stdin: t.IO[bytes] | None = None) -> Completed:
    """Run a program as :func:`start` does, and return what it answered, whatever its exit code.

    :param timeout: seconds after which the program is killed.
    :param stdin: a file that it may read; without it, standard input is empty.
    :raises MigrationError: as :func:`start`; ``program_timeout``.
    """
    with contextlib.ExitStack() as stack:
        source = stdin or stack.enter_context(open(os.devnull, "rb"))
        process = stack.enter_context(start(argv, path, stdin=source, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
        try:
            stdout, stderr = process.communicate(timeout=timeout)
        except BaseException as exc:
            process.kill()
            if not isinstance(exc, subprocess.TimeoutExpired):
                raise
            raise command.too_slow(argv[0], timeout) from None
    return Completed(process.returncode, stdout.decode("utf-8", "replace"), stderr.decode("utf-8", "replace"))


def _make_root(tree: str, program: str, only: tuple[int, ...]) -> None:
    """Leave nothing in this thread's mount namespace but a directory and the host's programs.

    Nothing of Python's that reads a file may follow, but for the start of the program.
    """
    _mount(None, "/", _REC | _PRIVATE)
    top = sorted({*_PROGRAMS, program.split("/")[1]})
    links = {name: os.readlink("/" + name) for name in top if os.path.islink("/" + name)}
    places = ["/" + name for name in top if name not in links and os.path.isdir("/" + name)]
    places += filter(os.path.exists, _FILES)
    proc = os.open("/proc", os.O_PATH | os.O_CLOEXEC)
    try:
        _mount("tmpfs", _SCAFFOLD, _NOSUID | _NODEV | _NOEXEC, "tmpfs", "mode=755,size=1m")
        for name, target in links.items():
            os.symlink(target, f"{_SCAFFOLD}/{name}")
        for place in places:
            _bind(place, _SCAFFOLD + place)
        # The first thread of this process has not left the host's namespace.
        _bind(f"/proc/{os.getpid()}/ns", _SCAFFOLD + _HOST)
        done = all(_restrict_whole(place, tree) for place in (*places, _HOST))
        # Last: it may lie below one of the others.
        _bind(tree, _SCAFFOLD + tree)
        # What is mounted is not led elsewhere any more.
        found = os.stat(_SCAFFOLD + tree)
        if only and only != (found.st_dev, found.st_ino):
            raise OSError(errno.ESTALE, "another directory has come in its place")
        done = done and _restrict_whole(tree, tree) and _restrict_whole("", tree, recursive=0)
        os.chdir(_SCAFFOLD)
        namespaces.call("pivot_root", b".", b".")
        # The old root now lies upon the new one.
        namespaces.call("umount2", b".", _DETACH)
        os.chdir("/")
        if not done:
            _restrict_by_names(tree, proc)
    finally:
        os.close(proc)


def _restrict_whole(place: str, tree: str, recursive: int = _RECURSIVE) -> bool:
    """Restrict what is mounted at a place of the new root, and all that is mounted below it; returns whether that was possible.

    Nothing has been restricted where it was not: this kernel is too old, or a filter of system calls does not know it.
    """
    wanted = 0
    for flag, attribute in _ATTRIBUTES.items():
        wanted |= attribute if _restrictions(place or "/", tree) & flag else 0
    attributes = _MOUNT_ATTR.pack(wanted, 0, 0, 0)
    try:
        where = os.fsencode(_SCAFFOLD + place)
        namespaces.call("syscall", _MOUNT_SETATTR, _HERE, where, recursive, attributes, _MOUNT_ATTR.size)
    except OSError:
        return False
    return True


def _restrict_by_names(tree: str, proc: int) -> None:
    """Restrict every mount that there is, one after another.

    :param proc: a descriptor of /proc.
    :raises OSError: also where one below the directory escapes it every time.
    """
    mounts = _mounts(proc)
    for _look in range(_LOOKS):
        for mount in mounts:
            try:
                _mount(None, mount.place, _REMOUNT | _BIND | _kept(mount) | _restrictions(mount.place, tree))
            except OSError as exc:
                # One that another mount covers cannot be reached, by nobody; or it has got another name since.
                if exc.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EINVAL) or mount.place in ("/", tree):
                    raise
        if not any(_is_below(mount.place, tree) and mount.place != tree for mount in mounts):
            return
        mounts = _mounts(proc)
        if not _unrestricted(mounts, tree):
            return
    raise OSError(errno.EBUSY, "directories in which something is mounted are renamed all the time")


def _unrestricted(mounts: t.Sequence[mountinfo.KernelMount], tree: str) -> bool:
    """Whether a mount that can be reached below the directory lacks a restriction that the directory itself has."""
    covered = mountinfo.covered(mounts)
    below = [mount for mount in mounts if _is_below(mount.place, tree) and mount.number not in covered]
    # An old kernel does without some of them and says nothing.
    wanted = _restrictions(tree, tree)
    for mount in below:
        if mount.place == tree:
            wanted &= _kept(mount)
    return any(wanted & ~_kept(mount) for mount in below)


def _mounts(proc: int) -> list[mountinfo.KernelMount]:
    return mountinfo.parse(_read("thread-self/mountinfo", proc))


def _read(name: str, parent: int) -> str:
    """A file of /proc, which may be nowhere any more. Names of mounts need not be UTF-8."""
    with open(os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=parent), "rb") as handle:
        return os.fsdecode(handle.read())


def _restrictions(place: str, tree: str) -> int:
    if _is_below(place, tree):
        return _NOSYMFOLLOW | _NOSUID | _NODEV | _NOEXEC
    return _RDONLY | _NOSUID | (0 if place.startswith("/dev/") else _NODEV)


def _is_below(place: str, tree: str) -> bool:
    """Whether a place is a directory or lies in it."""
    return f"{place}/".startswith(tree.rstrip("/") + "/")


def _kept(mount: mountinfo.KernelMount) -> int:
    """What a mount has been restricted by before, which a remount would lift. (Times of access stay by themselves.)"""
    flags = 0
    for name in mount.options.split(","):
        flags |= _FLAGS.get(name, 0)
    return flags


def _bind(source: str, place: str) -> None:
    """Mount a directory or file, and what is mounted below it, at a place that is made for it."""
    if os.path.isdir(source):
        os.makedirs(place, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(place), exist_ok=True)
        # Not opened: a program that another thread starts at this moment would have it open for writing until it begins, and what
        # is written to cannot be made read-only.
        os.mknod(place, stat.S_IFREG | 0o600)
    _mount(source, place, _BIND | _REC)


def _mount(source: str | None, place: str, flags: int, kind: str | None = None, data: str | None = None) -> None:
    encoded = [None if text is None else os.fsencode(text) for text in (source, place, kind, data)]
    namespaces.call("mount", *encoded[:3], flags, encoded[3])
