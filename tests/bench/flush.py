# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What it costs the frozen time that the destination writes the last changes of a container's files to its disk.

    make lab-up FLAVOUR=forky && ansible-playbook -i .lab/inventory playbooks/provision.yml
    .venv/bin/python -m tests.bench.flush                     # --other ../before: beside a checkout that does not flush

A container moves back and forth. Between the pass in which its files are sent ahead and its freeze so many megabytes of its
volume are written anew, for each of the sizes. Printed are medians, as rows of the table in docs/decisions/0071. The last column
is how long the restored copy waited for the disk and for nothing else. What the flush took from the restore itself, by keeping
the disk busy, is seen in the columns before, beside those of a checkout without it.

Hosts that are nspawn containers share the file system of this machine, and so its other writers: take the figures from virtual
machines (make lab-up LAB=vm) or from real hosts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from tests.bench.compare_trees import Tree
from tests.conftest import ROOT
from tests.moves.inventories import write_inventory
from tests.moves.moving_counter import session_on
from tests.moves.phase_meeting import Meeting
from tests.workloads.host import Host
from tests.workloads.probe import wait_for_answer
from tests.workloads.recipes import RECIPES

_FIRST_PORT = 9821
# Random, so that rsync finds nothing in it that it need not send.
_WRITE = 'rm -f "$1"/changed.*; test "$2" = 0 || dd if=/dev/urandom of="$1/changed.$3" bs=1M count="$2" status=none'


class Move(NamedTuple):
    """What the source's journal tells of one move, in seconds."""

    gap: float
    transfer_and_restore: float
    flush: float
    added: float


def _journal(host: Host, container: str) -> dict[str, dict[str, Any]]:
    """The phases of a container's newest session, with their ``time`` and ``data``."""
    session = session_on(host, container)["id"]
    lines = host.run(["cat", f"/var/lib/livemigrate/{session}/journal"]).stdout.splitlines()
    return {entry["phase"]: entry for entry in map(json.loads, lines)}


def _move(tree: Tree, hosts: Sequence[Host], inventory: str, megabytes: int, number: int) -> Move:
    """Move a tree's container from the first host to the second, and let so much of its volume change before the freeze."""
    source = hosts[0]
    volume = source.docker("volume", "inspect", "--format", "{{.Mountpoint}}", tree.container)
    # The handover has begun and nothing is frozen: the step that is stopped there is the one that freezes next.
    meeting = Meeting(source, tree.container, "arming", "STOP")
    with ThreadPoolExecutor(max_workers=1) as pool:
        moving = pool.submit(tree.move, inventory)
        meeting.happened()
        source.run(["sh", "-c", _WRITE, "sh", volume, str(megabytes), str(number)])
        meeting.go_on()
        moving.result()
    phases = _journal(source, tree.container)
    held = phases["held"]["data"]
    return Move(
        gap=phases["committed"]["data"]["gap"],
        transfer_and_restore=phases["held"]["time"] - phases["dumped"]["time"],
        flush=held.get("flush_seconds", 0.0),
        added=held.get("flush_waited", 0.0),
    )


def measure(trees: Sequence[Tree], names: Sequence[str], sizes: Sequence[int], moves: int) -> dict[str, list[Move]]:
    """Make all moves; returns what was measured by ``TREE MEGABYTES``."""
    hosts = [Host.of_lab(name) for name in names]
    tag = hosts[0].load(RECIPES["counter"])
    hosts[1].load(RECIPES["counter"])
    found: dict[str, list[Move]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        ways = [
            (
                pair,
                write_inventory(
                    Path(scratch) / f"{pair[0].name}.yml", source=[pair[0].name], destination=[pair[1].name]
                ),
            )
            for pair in (hosts, hosts[::-1])
        ]
        try:
            for tree in trees:
                _forget(hosts, tree)
                arguments = ["-p", f"{tree.port}:8080", "--volume", f"{tree.container}:/data"]
                hosts[0].start(tree.container, tag, arguments)
                wait_for_answer(f"http://{hosts[0].address}:{tree.port}/")
            for number, megabytes in enumerate([size for size in sizes for _time in range(moves)]):
                pair, inventory = ways[number % 2]
                for tree in trees if number % 2 else trees[::-1]:
                    one = _move(tree, pair, inventory, megabytes, number)
                    found.setdefault(f"{tree.name} {megabytes}", []).append(one)
                    print(f"  {tree.name}, {megabytes} MB: gap {one.gap:.2f} s, added {one.added:.2f} s", flush=True)
        finally:
            for tree in trees:
                _forget(hosts, tree)
    return found


def _forget(hosts: Sequence[Host], tree: Tree) -> None:
    """Remove its container, its old copies and its volume."""
    for host in hosts:
        listed = host.docker("ps", "-a", "--filter", f"name=^{tree.container}", "--format", "{{.Names}}")
        for name in listed.split():
            host.remove(name)
        host.docker("volume", "rm", "--force", tree.container)


def main() -> int:
    """The measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--other", type=Path, help="another checkout, measured beside this one")
    parser.add_argument("--sizes", nargs="+", type=int, default=[0, 10, 500], help="megabytes changed (0 10 500)")
    parser.add_argument("--moves", type=int, default=4, help="for each size (4)")
    parser.add_argument("--hosts", nargs=2, default=["alpha", "beta"], help="two hosts of the lab (alpha beta)")
    arguments = parser.parse_args()
    trees = [Tree("flush-this", ROOT, _FIRST_PORT)]
    if arguments.other:
        trees.append(Tree("flush-other", arguments.other.resolve(), _FIRST_PORT + 1))
    found = measure(trees, arguments.hosts, arguments.sizes, arguments.moves)
    print("\n| changed in the last pass | gap | from the dump to the held copy | of it the flush took | and added |")
    print("|---|---|---|---|---|")
    for name, all_moves in found.items():
        tree, megabytes = name.split()
        columns = (statistics.median(column) for column in zip(*all_moves, strict=True))
        of = "" if tree == trees[0].name else " (the other checkout)"
        print(f"| {megabytes} MB{of} | " + " | ".join(f"{value:.2f} s" for value in columns) + " |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
