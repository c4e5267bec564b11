# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""What the source sends: what it says of the original, its files, and in the end its checkpoint."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import time
import typing as t
from concurrent.futures import Future, ThreadPoolExecutor

from .._base import durable
from .._base.command import run, run_checked
from .._base.errors import MigrationError
from .._channel import durable_content
from .._channel.client import Channel
from .._channel.tree import Tree, inbox
from .._host import filesystems, flush
from .._session.session import Session
from .._subjects.subject import Original

# How many directories travel at once.
_PARALLEL_TREES = 4

# By how much the host's clock may be set between two passes. More than what a time daemon slews it by in that time.
_CLOCK_TOLERANCE_SECONDS = 1.0
# How long anything stands still for its last changes at most.
_LAST_PASS_SECONDS = 300.0
# How fast a disk is read at least, in bytes a second, and what it has besides, in seconds: a bound, no prediction.
_READ_RATE = 20_000_000
_COMPARE_LEAST_SECONDS = 120
# A change time is that of the kernel's last tick, not of the moment.
_MARGIN_SECONDS = 1.0


def send_description(session: Session) -> int:
    """Bring what is said of the original into the destination's memory; returns the bytes sent."""
    tree = inbox(session.memory_path("outbox"))
    return Channel(session).rsync(tree.path, tree.target, tree.options)


def send_content(original: Original, *, running: bool) -> int:
    """Bring the directories that travel up to date on the destination; returns the bytes sent.

    :param running: whether the original still runs: then files may change meanwhile, and a second pass follows. What has been
        sent is on the destination's disk when this returns, so that little is left to be written there in the frozen time.
    """
    session, trees = original.session, original.trees()
    if not running:
        return send_trees(session, trees, running=False)

    def pass_ahead(there: t.Container[str]) -> int:
        # From here on every write moves a file's time, those through shared memory maps too: the pages that were dirty are
        # written out, and the next store to one is seen by the kernel. See _send_tree.
        began = _moment()
        flush.write_out([tree.path for tree in trees])
        durable.write_json(session.memory_path("content_sent.json"), began)
        return send_trees(session, trees, running=True, there=there)

    return durable_content.send(session, pass_ahead, seconds=durable_content.RUNNING_SECONDS)


def send_trees(session: Session, trees: t.Sequence[Tree], *, running: bool, there: t.Container[str] = ()) -> int:
    """Bring directories up to date on the destination; returns the bytes sent.

    :param there: the targets in which the destination has files that this session has not sent. They are compared by content.
    """
    # At once: most of them have little to say, and what each costs is the start of two rsyncs and an agent.
    with ThreadPoolExecutor(max_workers=_PARALLEL_TREES) as pool:
        return sum(
            pool.map(lambda tree: _send_tree(session, tree, running=running, compare=tree.target in there), trees)
        )


def _seconds_to_read(tree: Tree) -> int:
    """How long it may take to read all of a directory. In that time rsync may say nothing: it reads the files of a directory
    before it begins with the next one."""
    argv = ["find", "-H", tree.path, "-type", "f", "-printf", "%s\n"]
    done = run(argv, timeout=600)
    # Files may vanish meanwhile.
    total = sum(int(line) for line in done.stdout.split())
    return _COMPARE_LEAST_SECONDS + int(total / _READ_RATE)


def _moment() -> dict[str, float]:
    """Now by the clock that change times are taken from, and how far that is from the one which nobody sets."""
    now = time.time()
    return {"began": now, "ahead": now - time.clock_gettime(time.CLOCK_BOOTTIME)}


def _touched_since(session: Session, tree: Tree) -> float | None:
    """From which change time on a file of a directory may be newer than the pass before; None where no time can tell.

    Nobody can set a file's change time, but somebody can set the clock that it is taken from, and on a file system of the
    network that is another host's clock.
    """
    before = durable.read_json(session.memory_path("content_sent.json"))
    if before is None or not filesystems.has_local_times_throughout(tree.path):
        return None
    moved: float = _moment()["ahead"] - before["ahead"]
    if abs(moved) > _CLOCK_TOLERANCE_SECONDS:
        return None
    return float(before["began"]) + min(moved, 0.0) - _MARGIN_SECONDS


def changed(session: Session, trees: t.Sequence[Tree]) -> list[Tree]:
    """Those directories in which anything was touched since the pass before began; a start of rsync costs more than a look.

    By change times; a deletion or a new name moves that of its directory.
    """

    def has(tree: Tree) -> bool:
        since = None if tree.always else _touched_since(session, tree)
        return since is None or _touched(tree, since)

    return [tree for tree in trees if has(tree)]


def _touched(tree: Tree, since: float, *, dumped: bool = False) -> bool:
    """Whether anything in a directory was touched.

    :param dumped: whether nobody but the dump can have touched it, where that makes directories of its own.
    """
    only = list(tree.counts)
    if tree.dump_makes_directories and dumped:
        only += ["!", "-type", "d"]
    # -H: the source of a bind mount may be a link to the directory.
    argv = ["find", "-H", tree.content, *only, "-newerct", f"@{since:.3f}", "-print", "-quit"]
    return bool(run_checked(run, argv, "transfer_failed", f"look for changes below {tree.content}", timeout=600).stdout)


def send_frozen(session: Session, trees: t.Sequence[Tree], *, memory_seconds: float) -> int:
    """Bring directories of a frozen original and its checkpoint up to date; returns the bytes sent.

    :param memory_seconds: what the checkpoint may take, besides what the last changes of files may.
    :raises MigrationError: ``transfer_failed``, also where it takes too long, see :meth:`LastPass.finish`.
    """
    seconds = _LAST_PASS_SECONDS + memory_seconds
    pool = ThreadPoolExecutor(max_workers=1)
    try:
        return pool.submit(send_trees, session, trees, running=False).result(seconds)
    except BaseException as exc:
        with contextlib.suppress(MigrationError):
            Channel(session).disconnect()
        if isinstance(exc, concurrent.futures.TimeoutError):
            raise _too_late(session.kind, seconds) from None
        raise
    finally:
        # Not waited for: the original goes on now. With the connection rsync ends.
        pool.shutdown(wait=False)


def _too_late(kind: str, seconds: float) -> MigrationError:
    return MigrationError(
        "transfer_failed",
        f"The last changes of the {kind}'s files did not reach the destination within {seconds:g} seconds.",
    )


class LastPass:
    """The last pass over the directories of a frozen original, made while it is dumped: both only read.

    What is touched meanwhile after all (CRIU links files without a name, others write into a shared directory, the keeper writes
    down the last lines of a log) is found in the end, and sent again.
    """

    # The kernel's times of files lag behind its clock by a tick, 10 ms at most.
    _TICKS_SECONDS = 0.02

    def __init__(self, session: Session, trees: t.Sequence[Tree], *, beside: bool = True) -> None:
        """
        :param beside: whether it may begin at once, and not only when :meth:`dumped` is called.
        """
        self._session = session
        self._trees = trees
        self._began = _moment()
        self._pool = ThreadPoolExecutor(max_workers=1)
        self._passes: list[Future[int]] = []
        if beside:
            self._begin()
        self._after_dump = self._ended = False

    def _begin(self) -> None:
        self._passes.append(self._pool.submit(self._send, lambda: changed(self._session, self._trees)))

    def __enter__(self) -> LastPass:
        return self

    def __exit__(self, *_exc: object) -> None:
        # Not waited for: where the dump has failed the original goes on now. With the connection rsync ends.
        self._pool.shutdown(wait=False, cancel_futures=True)
        if not self._ended:
            with contextlib.suppress(MigrationError):
                Channel(self._session).disconnect()

    def _send(self, which: t.Callable[[], t.Sequence[Tree]]) -> int:
        return send_trees(self._session, which(), running=False)

    def dumped(self) -> None:
        """The dump has ended: make the pass, or begin to look for what was touched since it began."""
        self._after_dump = True
        if not self._passes:
            self._begin()
        else:
            trees = self._trees
            self._passes.append(self._pool.submit(self._send, lambda: [one for one in trees if self._may_differ(one)]))

    def _may_differ(self, tree: Tree) -> bool:
        """Whether a directory was touched since the pass began, or no time can tell (see :func:`_touched_since`)."""
        moved = abs(_moment()["ahead"] - self._began["ahead"]) > self._TICKS_SECONDS
        if moved or not filesystems.has_local_times_throughout(tree.path):
            return True
        return _touched(tree, self._began["began"] - self._TICKS_SECONDS, dumped=True)

    def finish(self) -> int:
        """Wait until everything is there; returns the bytes sent.

        :raises MigrationError: ``transfer_failed``, also where it takes too long: the original stands still meanwhile, and a
            destination whose disk hangs answers rsync's own questions for ever.
        """
        if not self._after_dump:
            self.dumped()
        deadline = time.monotonic() + _LAST_PASS_SECONDS
        try:
            sent = sum(one.result(max(0.0, deadline - time.monotonic())) for one in self._passes)
        except concurrent.futures.TimeoutError:
            raise _too_late(self._session.kind, _LAST_PASS_SECONDS) from None
        self._ended = True
        return sent


def _send_tree(session: Session, tree: Tree, *, running: bool, compare: bool = False) -> int:
    channel = Channel(session)
    if tree.file:
        return _send_file(session, channel, tree, running=running)
    # An old file there may have the size and the time of the new one: packages with one date for all, `cp -p`, images of
    # encrypted disks. By checksum, because that writes only what differs; see decision 0086.
    compare_for = _seconds_to_read(tree) if compare and tree.by_times else 0
    sent = channel.rsync(tree.path, tree.target, tree.options, running=running, compare_for=compare_for)
    again = os.path.exists(session.memory_path("content_sent.json"))
    if not running and again and tree.by_times:
        # A file that was written while the pass before read it, or through a shared map, can have new content under the same
        # size and time. Whatever was touched since that pass began, or may have been, is sent again.
        names = session.memory_path("touched." + tree.target.replace("/", "."))
        since = _touched_since(session, tree)
        newer = [] if since is None else ["-newerct", f"@{since:.3f}"]
        argv = ["find", "-H", tree.path, "-type", "f", *newer, "-fprintf", names, "%P\\0"]
        run_checked(run, argv, "transfer_failed", f"look for touched files of {tree.target}", timeout=600)
        try:
            if os.path.getsize(names):
                # The directory itself, for its time: the names below it change that.
                with open(names, "ab") as handle:
                    handle.write(b".\0")
                filters = [option for option in tree.options if option.startswith("--filter")]
                sent += channel.rsync(tree.path, tree.target, filters, names=names)
        finally:
            os.unlink(names)
    return sent


def _send_file(session: Session, channel: Channel, tree: Tree, *, running: bool) -> int:
    """Bring one file up to date, whatever its times say, and nothing of the directory around it."""
    names = session.memory_path("file." + tree.target.replace("/", "."))
    with open(names, "wb") as handle:
        handle.write(os.fsencode(tree.file) + b"\0")
    try:
        return channel.rsync(tree.path, tree.target, tree.options, running=running, names=names)
    finally:
        os.unlink(names)
