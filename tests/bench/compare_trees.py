# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How long a small container stands still with this checkout and with others, on the same two hosts in one run.

    make lab-up FLAVOUR=forky && ansible-playbook -i .lab/inventory playbooks/provision.yml
    make bench OTHER="../before ../after"

One container for each checkout moves back and forth, in turns, so that what else the machine does meets both. The hosts are the
lab's source and destination, provisioned from this checkout. Printed are the medians of what each migration's summary tells.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.conftest import ROOT
from tests.moves.inventories import write_inventory
from tests.workloads.host import Host
from tests.workloads.probe import wait_for_answer
from tests.workloads.recipes import RECIPES

_PARTS = re.compile(r"Gap ([0-9.]+) s: dump ([0-9.]+) s, transfer ([0-9.]+) s, restore ([0-9.]+) s")
_NAMES = ("gap", "dump", "transfer", "restore")
_FIRST_PORT = 9801


class Tree:
    """A checkout, and its container."""

    def __init__(self, name: str, directory: Path, port: int) -> None:
        self.name = name
        self.directory = directory
        self.container = f"bench-{name}"
        self.port = port
        self.seconds: list[tuple[float, ...]] = []
        link = directory / ".tree" / "ansible_collections" / "livemigrate" / "criu"
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to("../../..")

    def install(self, host: Host) -> None:
        """Put its runtime, of which a host has one, in the place of another checkout's."""
        for path in sorted((self.directory / "roles" / "checkpointing" / "files").iterdir()):
            # Beside it first: it may be at work.
            place = f"/usr/local/lib/livemigrate/{path.name}"
            host.run(
                ["sh", "-c", f"cat >{place}.new && chmod 0755 {place}.new && mv {place}.new {place}"],
                text_input=path.read_text(),
            )

    def move(self, inventory: str) -> None:
        """Move its container with its playbook. SystemExit with the playbook's last words where that fails."""
        done = subprocess.run(
            ["ansible-playbook", "-i", inventory, "playbooks/migrate.yml", "-e", f"container={self.container}"],
            cwd=self.directory,
            env={
                **os.environ,
                "ANSIBLE_COLLECTIONS_PATH": str(self.directory / ".tree"),
                "ANSIBLE_NOCOLOR": "1",
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        found = _PARTS.search(" ".join(done.stdout.split()))
        if done.returncode != 0 or not found:
            raise SystemExit(f"{self.name}: {done.stdout[-3000:]}{done.stderr[-1000:]}")
        self.seconds.append(tuple(float(word) for word in found.groups()))

    def medians(self) -> dict[str, float]:
        """Of the gap and of its parts, in seconds."""
        columns = zip(*self.seconds, strict=True)
        return {name: statistics.median(column) for name, column in zip(_NAMES, columns, strict=True)}


def compare(trees: Sequence[Tree], names: Sequence[str], moves: int) -> None:
    """Move each tree's container so many times; what was measured is in the trees then."""
    hosts = [Host.of_lab(name) for name in names]
    tag = hosts[0].load(RECIPES["counter"])
    hosts[1].load(RECIPES["counter"])
    with tempfile.TemporaryDirectory() as scratch:
        ways = [
            write_inventory(Path(scratch) / f"{source}.yml", source=[source], destination=[destination])
            for source, destination in (names, names[::-1])
        ]
        try:
            for tree in trees:
                for host in hosts:
                    host.remove(tree.container)
                hosts[0].start(tree.container, tag, ["-p", f"{tree.port}:8080"])
                wait_for_answer(f"http://{hosts[0].address}:{tree.port}/")
            for number in range(moves):
                # Who goes first goes second the next time.
                for tree in trees if number % 2 else trees[::-1]:
                    for host in hosts:
                        tree.install(host)
                    tree.move(ways[number % 2])
                    print(f"  {tree.name}: {tree.seconds[-1][0]:.2f} s", flush=True)
        finally:
            for host in hosts:
                trees[0].install(host)
                for tree in trees:
                    for name in host.docker(
                        "ps", "-a", "--filter", f"name=^{tree.container}", "--format", "{{.Names}}"
                    ).split():
                        host.remove(name)


def main() -> int:
    """The comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "others", nargs="+", type=Path, help="the other checkouts; a directory's name is what it is called"
    )
    parser.add_argument("--moves", type=int, default=10, help="of each container (10)")
    parser.add_argument("--hosts", nargs=2, default=["alpha", "beta"], help="two hosts of the lab (alpha beta)")
    arguments = parser.parse_args()
    places = {"this": ROOT, **{place.resolve().name: place.resolve() for place in arguments.others}}
    trees = [Tree(name, place, _FIRST_PORT + number) for number, (name, place) in enumerate(places.items())]
    compare(trees, arguments.hosts, arguments.moves)
    print(f"medians of {arguments.moves} moves, in seconds")
    for tree in trees:
        print(f"  {tree.name:10}" + "".join(f"  {name} {value:.3f}" for name, value in tree.medians().items()))
    ours, *others = trees
    for other in others:
        gap, before = ours.medians()["gap"], other.medians()["gap"]
        print(f"  this tree's gap is {gap / before:.2f} of that of {other.name} ({1000 * (gap - before):+.0f} ms)")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
