# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""How long a move will take, from what is known before it: pure functions.

The rates were measured on the lab (docs/decisions/0058) and are good for an order of magnitude. What the network between the
hosts does is taken from the source's device, which knows an upper bound.
"""

from __future__ import annotations

import typing as t

Facts = t.Mapping[str, t.Any]

# Where the device does not tell: what a gigabit network does.
_ASSUMED_LINK = 117_000_000
# ssh and hashing, on one core.
_CHANNEL_RATE = 120_000_000

# How fast both hosts read, at the same time, what the destination has already (docs/decisions/0086).
_COMPARE_RATE = 200_000_000

# By engine: seconds that nothing saves, and bytes a second of dump and restore.
_FIXED = {"runtime": 1.0, "api": 2.5}
_DUMP_RATE = {"runtime": 500_000_000, "api": 25_000_000}
_RESTORE_RATE = {"runtime": 220_000_000, "api": 25_000_000}
# Tasks of a whole move that each take about as long as one of the two that have looked at the hosts: a connection, a module, an
# answer. On a quiet lab host that is a second, on a busy one several.
_TASKS = {"runtime": 11, "api": 15}
_TASK_SECONDS = 1.1


def memory_bytes(container: Facts) -> int:
    """What a checkpoint of the container will hold, about."""
    memory = container.get("memory") or {}
    return int(memory.get("dump_bytes", 0)) + int(memory.get("tmpfs_bytes", 0))


def task_bytes(container: Facts) -> int:
    """What the container's tasks and its file systems in memory take of a host, about; what processes share counts once."""
    memory = container.get("memory") or {}
    return int(memory.get("taken_bytes", 0)) + int(memory.get("tmpfs_bytes", 0))


def data_bytes(container: Facts, there: Facts | None) -> int:
    """What travels while the container runs: layer, volumes, and the image where it is not there."""
    sizes = container.get("sizes") or {}
    image = 0 if there is None or there["image"]["present"] else int(container["image"]["size"])
    return int(sizes.get("layer_bytes", 0)) + int(sizes.get("volume_bytes", 0)) + image


def compared_bytes(container: Facts, there: Facts | None) -> int:
    """What both hosts read to find out what differs, at most: the layer and the volumes, where the destination has some of them
    from an earlier move, or from others that may be overwritten."""
    if there is None:
        return 0
    sizes = container.get("sizes") or {}
    places = [*there["volumes"].values(), *there["binds"].values()]
    volumes = int(sizes.get("volume_bytes", 0)) if any(one and one.get("has_base") for one in places) else 0
    return volumes + (int(sizes.get("layer_bytes", 0)) if there["old_layer"] else 0)


def link_rate(source: Facts) -> tuple[int, str]:
    """Bytes a second between the hosts, and what that rests on."""
    peer = source.get("peer") or {}
    speed = peer.get("speed_mbit")
    if speed:
        return int(speed) * 125_000, f"device {peer['device']} ({speed} Mbit/s)"
    return _ASSUMED_LINK, "assumed (the device does not tell)"


def task_seconds(source: Facts, destination: Facts, judged_at: float | None) -> float:
    """How long a task takes from here to these hosts now, by those that have looked at them.

    :param judged_at: the control node's clock when both hosts had answered.
    """
    first, second = source["clock"]["asked_at"], destination["clock"]["asked_at"]
    if first is None or second is None or judged_at is None or judged_at <= first:
        return _TASK_SECONDS
    return float((judged_at - first) / 2)


def predict(
    source: Facts, container: Facts, there: Facts | None, engine: str, task: float = _TASK_SECONDS
) -> dict[str, t.Any]:
    """What a move will take, from the start of the playbook to its end. Seconds and bytes.

    ``dirty_bytes_per_second`` is what the container writes into its memory while it runs, None where nothing can tell.
    """
    memory, data = memory_bytes(container), data_bytes(container, there)
    compared = compared_bytes(container, there)
    link, why = link_rate(source)
    rate = min(link, _CHANNEL_RATE)
    gap = _FIXED[engine] + memory / _DUMP_RATE[engine] + memory / rate + memory / _RESTORE_RATE[engine]
    tracked = (source["criu"]["features"]).get("mem_dirty_track")
    return {
        "memory_bytes": memory,
        "data_bytes": data,
        "compared_bytes": compared,
        "data_complete": bool((container.get("sizes") or {}).get("complete", False)),
        "link_bytes_per_second": link,
        "link_source": why,
        "dirty_bytes_per_second": None,
        "dirty_reason": (
            "not measured: all memory is sent in one pass"
            if tracked
            else "the source's kernel tracks no dirty pages (CONFIG_MEM_SOFT_DIRTY)"
        ),
        "gap_seconds": round(gap, 2),
        "total_seconds": round(_TASKS[engine] * task + data / rate + compared / _COMPARE_RATE + gap, 1),
    }
