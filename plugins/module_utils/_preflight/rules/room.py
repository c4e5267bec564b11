# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Whether there is room for a move on both hosts: in memory, for images, and for what travels."""

from __future__ import annotations

import typing as t

from ..._host import huge_pages as huge_pages_module
from .. import prediction as predictions
from ..finding import ERROR, WARNING, Case, Facts, Told, rule

_Found = t.Iterator[Told]

# A little more than what any container needs beside its image: checkpoint copies, layers, logs.
_LEAST_FREE_BYTES = 512 << 20
# Memory that a host keeps for itself when a container comes to it.
_RESERVE_BYTES = 128 << 20
# Where runc writes its images for containerd, with the engine `api` alone. It is often a small file system in memory.
_API_IMAGES = "/tmp"  # noqa: S108 - it is only looked at


# ------------------------------------------------------------------------------------------------------------------ room


@rule(ERROR, "a disk with next to no room", "run", "source", "destination")
def disk_free(case: Case) -> _Found:
    for where, facts in case.hosts():
        for disk in facts.get("disk") or []:
            counts = disk["path"] != _API_IMAGES or case.settings.engine == "api"
            if counts and int(disk["free_bytes"]) < _LEAST_FREE_BYTES:
                yield (
                    (
                        f"{disk['path']} on the {where} has {int(disk['free_bytes']) >> 20} MiB left; a migration needs "
                        f"{_LEAST_FREE_BYTES >> 20} MiB and the container's own size."
                    ),
                    "Make room.",
                )


def _free(facts: Facts, *paths: str) -> tuple[str, int]:
    """The place with the least room of those named, with its free bytes."""
    disks = [disk for disk in facts.get("disk") or [] if disk["path"] in paths]
    worst = min(disks, key=lambda disk: int(disk["free_bytes"]), default=None)
    return (str(worst["path"]), int(worst["free_bytes"])) if worst else ("", 1 << 62)


@rule(ERROR, "too little memory for the container on the destination", "run", "destination", "processes")
def memory_room(case: Case) -> _Found:
    container, facts = case.container or {}, case.destination or {}
    needed = predictions.task_bytes(container) + _RESERVE_BYTES
    available = facts["memory"]["available_bytes"]
    if available < needed:
        yield (
            f"The destination has {available >> 20} MiB of memory available; the container needs {needed >> 20} MiB there.",
            "Free memory there, or choose another host.",
        )


@rule(ERROR, "too little room for the checkpoint", "run", "source", "destination", "processes")
def checkpoint_room(case: Case) -> _Found:
    size = predictions.memory_bytes(case.container or {})
    for where, facts in case.hosts():
        needs = _needs_of_api(facts, size) if case.settings.engine == "api" else _needs_of_runtime(facts, size)
        for place, needed, free in needs:
            if free < needed:
                yield (
                    f"The checkpoint may take {needed >> 20} MiB at {place} on the {where}, which has {free >> 20} MiB left.",
                    "Make room there, or use migrate_engine: runtime, which makes no copies of a checkpoint on the disk."
                    if case.settings.engine == "api"
                    else "Make room there.",
                )


@rule(
    WARNING, "a memory image that may be swapped out to a disk", "tmpfs(5)", "source", "destination", engine="runtime"
)
def swap_in_the_clear(case: Case) -> _Found:
    for where, facts in case.hosts():
        swap = facts.get("swap") or {}
        if swap.get("in_the_clear") and not swap.get("noswap"):
            yield (
                (
                    f"The container's memory images and settings lie in /run on the {where}, and the kernel there may swap them "
                    f"out to {', '.join(swap['in_the_clear'])}, which is not encrypted: there they outlive the move."
                ),
                (
                    "Boot a kernel of 6.4 or later there, encrypt the swap space (crypttab(5), option swap), or turn it off for "
                    "the move (swapoff -a)."
                ),
            )


# A place, the bytes that a checkpoint takes there, and the bytes that are free.
_Need = tuple[str, int, int]


def _needs_of_api(facts: Facts, size: int) -> t.Iterator[_Need]:
    """Where the engine's three copies of a checkpoint go, one to each place; places on one file system share its room.

    runc writes its images below the temporary directory of containerd, containerd packs them into its content store, and dockerd
    unpacks that into its own directory of the container; a restore goes the other way round.
    """
    docker = facts["docker"]
    places = (
        _API_IMAGES,
        str(docker.get("containerd_root") or "/var/lib/containerd"),
        str(docker.get("data_root") or "/var/lib/docker"),
    )
    devices: dict[object, list[Facts]] = {}
    for disk in facts.get("disk") or []:
        if disk["path"] in places:
            devices.setdefault(disk["device"], []).append(disk)
    for disks in devices.values():
        names = " and ".join(str(disk["path"]) for disk in disks)
        yield names, len(disks) * size, min(int(disk["free_bytes"]) for disk in disks)


def _needs_of_runtime(facts: Facts, size: int) -> t.Iterator[_Need]:
    """Images go into memory where they fit twice (as images and as the tasks' memory), else beside the session's journal."""
    in_memory = 2 * size + _RESERVE_BYTES < facts["memory"]["available_bytes"]
    if not (in_memory and size + _RESERVE_BYTES < facts["tmpfs_free_bytes"]):
        place, free = _free(facts, "/var/lib/livemigrate")
        yield place, size + _RESERVE_BYTES, free


@rule(ERROR, "too little room for layer, volumes and image", "run", "destination", "container", "there")
def data_room(case: Case) -> _Found:
    facts = case.destination or {}
    needed = predictions.data_bytes(case.container or {}, case.there) + _RESERVE_BYTES
    place, free = _free(facts, str(facts["docker"].get("data_root") or "/var/lib/docker"))
    if free < needed:
        yield (
            (
                f"Layer, volumes and image of the container take {needed >> 20} MiB at {place} on the destination, which has "
                f"{free >> 20} MiB left."
            ),
            "Make room.",
        )


# In KiB, the size that sysctl(8) speaks of.
_USUAL_HUGE_PAGE = "2048"


def _more_huge_pages(size: str, number: int) -> str:
    if size == _USUAL_HUGE_PAGE:
        return f"Set more of them aside there: sysctl vm.nr_hugepages={number}."
    return f"Set more of them aside there: echo {number} > /sys/kernel/mm/hugepages/hugepages-{size}kB/nr_hugepages."


@rule(
    ERROR,
    "too few huge pages, on either host",
    "criu/kerndat.c, run",
    "source",
    "destination",
    "processes",
    volatile=True,
)
def huge_pages(case: Case) -> _Found:
    for size, needed in ((case.container or {})["processes"]["huge_pages"]).items():
        here = (case.source or {})["huge_pages"].get(size)
        if here and not huge_pages_module.available(here):
            yield (
                (
                    f"The container has {needed} huge page(s) of {int(size) >> 10} MiB, and the source has no more: CRIU needs "
                    "one that is free to learn what they are."
                ),
                _more_huge_pages(size, here["nr_hugepages"] + 1),
            )
        there = (case.destination or {})["huge_pages"].get(size)
        if there is None:
            yield (
                (
                    f"The container has {needed} huge page(s) of {int(size) >> 10} MiB, a size that the destination's kernel "
                    "does not have."
                ),
                "Choose a host that has them (default_hugepagesz and hugepagesz on the kernel's command line).",
            )
        elif huge_pages_module.available(there) < needed:
            free = huge_pages_module.available(there)
            yield (
                f"The container has {needed} huge page(s) of {int(size) >> 10} MiB; the destination has {free} left.",
                _more_huge_pages(size, there["nr_hugepages"] + needed - free),
            )
