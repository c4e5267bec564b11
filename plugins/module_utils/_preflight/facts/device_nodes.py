# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The device nodes of a container, and whether they are the same devices on another host.

A node is two numbers and whether it is a block or a character device. The ``/dev`` of a container is a file system in memory,
which CRIU packs with tar and unpacks on the destination. So the copy's nodes have the numbers of the source, whatever device
has them on the destination. Many numbers are given as drivers come (see /proc/devices), and a disk gets its own as it is found.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import typing as t

Facts = dict[str, t.Any]

# Majors of character devices whose minors are the same on every Linux: memory and terminals. By the kernel's own list,
# Documentation/admin-guide/devices.txt.
_EVERYWHERE = frozenset({1, 4, 5, 7, 136})
_NUMBERS = re.compile(r"[bc] \d+:\d+", re.ASCII)
# A container may have made as many as it likes.
_MOST = 2000


def numbers(path: str) -> str:
    """The kind and the numbers of a device node as ``b 8:1``, following links; empty where there is none."""
    with contextlib.suppress(OSError, ValueError):
        return _text(os.stat(path))
    return ""


def _text(found: os.stat_result) -> str:
    if not (stat.S_ISBLK(found.st_mode) or stat.S_ISCHR(found.st_mode)):
        return ""
    kind = "b" if stat.S_ISBLK(found.st_mode) else "c"
    return f"{kind} {os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"


def of_container(inspect: t.Mapping[str, t.Any], init: int) -> list[Facts]:
    """The nodes that may be other devices elsewhere.

    :param init: its first process, as this host numbers it.
    :returns: of each its ``path`` inside, the ``host_path`` by which the host has it, its ``numbers``, and whether it was
        ``given`` to the container, and is not there because a privileged container has all devices of its host.
    """
    root = f"/proc/{init}/root"
    config = inspect.get("HostConfig") or {}
    given = dict(_given(config.get("Devices") or []))
    found = []
    for path in sorted({*given, *_inside(root)}):
        # Without following a link at its end: that would lead to a path of this host.
        with contextlib.suppress(OSError):
            text = _text(os.lstat(root + path))
            if text and not (text.startswith("c") and int(text[2:].partition(":")[0]) in _EVERYWHERE):
                is_given = path in given or not config.get("Privileged")
                found.append({"path": path, "host_path": given.get(path, path), "numbers": text, "given": is_given})
    return found


def _given(devices: t.Iterable[t.Any]) -> t.Iterator[tuple[str, str]]:
    """Of each ``--device`` its path inside and that of the host. The engine gives all devices of a directory."""
    for one in devices:
        outer = os.path.normpath(str(one.get("PathOnHost") if isinstance(one, dict) else one))
        inner = os.path.normpath(str((one.get("PathInContainer") if isinstance(one, dict) else "") or outer))
        yield inner, outer
        for directory, _names, files in os.walk(outer) if os.path.isdir(outer) else ():
            for name in files:
                path = os.path.join(directory, name)
                yield os.path.join(inner, os.path.relpath(path, outer)), path


def _inside(root: str) -> t.Iterator[str]:
    """What is in the container's /dev, without what is mounted in it."""
    left = _MOST
    top = f"{root}/dev"
    with contextlib.suppress(OSError):
        own = os.lstat(top).st_dev
        for directory, names, files in os.walk(top):
            names[:] = [name for name in names if _device(os.path.join(directory, name)) == own]
            for name in files[:left]:
                yield os.path.join(directory, name)[len(root) :]
            left -= len(files)
            if left <= 0:
                return


def _device(path: str) -> int | None:
    with contextlib.suppress(OSError):
        return os.lstat(path).st_dev
    return None


def differing(nodes: t.Iterable[t.Mapping[str, t.Any]]) -> list[Facts]:
    """Those that are another device on this host.

    :param nodes: what :func:`of_container` returned on the source.
    :returns: the same, with ``here``, the numbers that the path has on this host, and ``owner``, the name of the device that has
        the numbers of the source here. Either may be empty. Where both are, nothing can be opened by the node, and that is the
        business of the rule for devices that are missing.
    """
    found = []
    for node in nodes:
        here, text = numbers(str(node["host_path"])), str(node["numbers"])
        owner = "" if here == text else _owner(text)
        if here != text and (here or owner):
            found.append({**node, "here": here, "owner": owner})
    return found


def _owner(text: str) -> str:
    """The name that the kernel gives the device with these numbers on this host; empty where there is none."""
    # It comes from the other host and becomes a path.
    if not _NUMBERS.fullmatch(text):
        return ""
    kind = "block" if text.startswith("b") else "char"
    with contextlib.suppress(OSError):
        return os.path.basename(os.readlink(f"/sys/dev/{kind}/{text[2:]}"))
    return ""
