# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""CRIU's options for the dump of one container and for its restore, found by looking at it instead of asking a person for them.

Those of the dump go into a file that runc reads in place of ``/etc/criu/runc.conf`` (see ``runc.dump``): what stands in a file
overrides the flags of runc. Lines of the host's own file stay, but for those that are decided here.

One option has to go another way. CRIU up to 4.2 dies (SIGSEGV) when it meets ``network-lock`` in the file that runc names: having
read it, it compares the command with "restore", and there are no arguments in a request of runc. The file that the environment
names (``CRIU_CONFIG_FILE``) is read together with CRIU's own arguments, where that is safe for every version.
"""

from __future__ import annotations

import re
import typing as t

from .._base.versions import at_least, parse_version
from .._host.deleted_files import NOTHING_DELETED, Deleted

# What CRIU dumps of deleted files at most, in bytes, unless a bigger one is found.
GHOST_LIMIT = 256 << 20

# `network-lock=skip` is known to CRIU from here on.
_NETWORK_LOCK_SKIP = (3, 19)

_KEPT, _CLOSED = "tcp-established", "tcp-close"
SKIP_LOCK = "network-lock=skip"


def skips_network_lock(criu_version: str | None) -> bool:
    """Whether this CRIU has an option not to lock the network, which the fence has done."""
    return at_least(parse_version(criu_version), _NETWORK_LOCK_SKIP)


def can_skip_network_lock(host: t.Mapping[str, t.Any]) -> bool:
    """The same for a host of which more is known: what its CRIU refused when it was tried is not asked of it.

    :param host: what ``host_facts`` in ``_preflight/facts/host.py`` tells of it, ``criu`` and ``self_test`` of it at least.
    """
    refused = (host.get("self_test") or {}).get("refused_options") or ()
    return skips_network_lock((host.get("criu") or {}).get("version")) and SKIP_LOCK not in refused


def of_connections(*, kept: bool) -> str:
    """The option about connections, which a restore needs as the dump had it.

    How the network was locked a restore learns from the images.

    :param kept: whether connections go on; else they are closed for the container's programs, as far as they do not end in it.
    """
    return _KEPT if kept else _CLOSED


def by_environment(*, skip_lock: bool) -> str:
    """The text of the options file that the environment names.

    :param skip_lock: whether CRIU need not lock the network by itself, see :func:`skips_network_lock`.
    """
    return f"{SKIP_LOCK}\n" if skip_lock else ""


def for_dump(host: str, *, kept: bool, deleted: Deleted) -> str:
    """The text of the options file that runc names to CRIU for a dump.

    :param host: the text of the host's own file.
    """
    decided = _decided(kept=kept, deleted=deleted)
    return "".join(line + "\n" for line in [*_kept_lines(host, decided), *decided])


def for_restore(*, kept: bool, action_script: str) -> list[str]:
    """The options of every restore. What the dump was made with a restore does not mind, connections apart.

    :param action_script: the path of the program that CRIU calls at each stage.
    """
    return [
        "manage-cgroups=ignore",
        "file-locks",
        "link-remap",
        "ext-unix-sk",
        f"action-script={action_script}",
        of_connections(kept=kept),
    ]


def _decided(*, kept: bool, deleted: Deleted) -> list[str]:
    """The options that are decided here."""
    return [
        "manage-cgroups=ignore",
        # These cost nothing in a container that has nothing of the kind. In one that has, the dump fails without them.
        "file-locks",
        "link-remap",
        "ext-unix-sk",
        # Connections that the kernel has made and no program has accepted: see left_behind in _network/sockets.py.
        "skip-in-flight",
        f"ghost-limit={max(GHOST_LIMIT, _with_reserve(deleted.largest))}",
        of_connections(kept=kept),
    ]


def names_network_lock(host: str) -> bool:
    """Whether the host's own file says how to lock the network: a move with the engine ``runtime`` leaves that line out.

    :param host: its text.
    """
    return any(_name(line) == "network-lock" for line in host.splitlines())


def _with_reserve(size: int) -> int:
    """A file may come to occupy more than it did when it was looked at: its file system writes later, and ahead."""
    return size + size // 8 + (1 << 20)


def kept_lines(host: str) -> list[str]:
    """The lines of the host's own file that go into every dump's.

    :param host: its text.
    """
    return _kept_lines(host, _decided(kept=True, deleted=NOTHING_DELETED))


def _kept_lines(host: str, decided: t.Sequence[str]) -> list[str]:
    # The log belongs beside this dump's own statistics, not where one container's overwrites another's.
    names = {_name(line) for line in (*decided, _KEPT, _CLOSED, "network-lock", "log-file")}
    return [line for line in host.splitlines() if _name(line) and _name(line) not in names]


def _name(line: str) -> str:
    """The option in a line of CRIU's configuration; "no-x" is about the option x, too. Empty for a comment."""
    found = re.match(r"\s*(?:no-)?([a-zA-Z][a-zA-Z0-9-]*)", line)
    return found.group(1) if found else ""
