# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""A directory that travels through the channel: under which name, from where, and how it is looked at between two passes."""

from __future__ import annotations

import os
import typing as t

#: rsync's options for a tree of which the other side is to have nothing else
DELETE = ("--delete", "--force")

# The targets that every session has: the description of the thing that is moved, and CRIU's images of it (or what its kind has
# instead of them).
INBOX, CHECKPOINT = "inbox", "checkpoint"


class Tree(t.NamedTuple):
    """A directory that travels."""

    target: str
    """Its name in the channel: ``TARGET`` or ``TARGET/NAME``. The destination knows which directory of its own that is."""
    path: str
    """Where it lies on this host."""
    options: tuple[str, ...]
    """rsync's options for it, besides those that hold for all."""
    file: str = ""
    """The name of the one file in it that travels, and nothing else; empty for all of it."""
    always: bool = False
    """Whether it is in the last pass whether anything was touched or not: others than the thing that is moved write into it."""
    counts: tuple[str, ...] = ()
    """What of it counts when it is looked at for changes, in the words of find(1); all of it where empty."""
    dump_makes_directories: bool = False
    """Whether every dump makes a directory in it and removes it again, so that the times of its directories tell nothing then."""
    by_times: bool = True
    """Whether a second pass must not trust sizes and times: what was touched since the first one is sent whatever they say."""

    @property
    def content(self) -> str:
        """The path of what travels."""
        return os.path.join(self.path, self.file) if self.file else self.path


def inbox(outbox: str) -> Tree:
    """The description of the thing that is moved, which the source sends.

    :param outbox: the directory that has it.
    """
    return Tree(INBOX, outbox, ("--delete",), by_times=False)


def checkpoint(directory: str) -> Tree:
    """A checkpoint, wherever it was put."""
    return Tree(CHECKPOINT, directory, DELETE, by_times=False)
