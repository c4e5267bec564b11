# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which Docker, CRIU, kernel and runc a container was moved between: noted by the tests that moved it.

A test calls note() when it is through. The notes of a session are in .cache/matrix.json; ``make matrix`` takes them into
tests/matrix.json, which is kept in the repository, and writes the table in docs/support.md from it.
"""

from __future__ import annotations

import datetime
import fcntl
import json
import os
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.workloads.host import Host

ROOT = Path(__file__).resolve().parents[1]
NOTES = ROOT / ".cache" / "matrix.json"
KEPT = ROOT / "tests" / "matrix.json"
SUPPORT = ROOT / "docs" / "support.md"

BEGIN = "<!-- made by make matrix -->"
END = "<!-- end of the matrix -->"

# A package's own version has more words than anybody reads.
_LOOK = r"""
. /etc/os-release; printf '%s\n' "$NAME ${VERSION_ID:-$VERSION_CODENAME}"
uname -r | sed 's/-cloud-amd64$//; s/+deb.*//'
docker version --format '{{.Server.Version}}' | sed 's/[+~].*//'
containerd --version | sed 's/^[^ ]* [^ ]* //; s/[+~ ].*//'
runc --version | sed -n '1s/^[^ ]* [^ ]* //; 1s/[+~].*//p'
criu --version | sed -n 's/^Version: //p'
"""


@dataclass(frozen=True)
class Platform:
    """What a host moves containers with."""

    system: str
    kernel: str
    docker: str
    containerd: str
    runc: str
    criu: str

    def __str__(self) -> str:
        engine = f"Docker {self.docker}, containerd {self.containerd}, runc {self.runc}"
        return f"{self.system}, kernel {self.kernel}, CRIU {self.criu}, {engine}"


@dataclass(frozen=True)
class Row:
    """What was found between two platforms."""

    source: Platform
    destination: Platform
    engine: str
    # What was moved.
    what: str
    # "moved", or "refused: " and the rule or sentence.
    result: str
    test: str
    date: str

    @property
    def key(self) -> tuple[object, ...]:
        """What a newer row replaces an older one by."""
        return self.source, self.destination, self.engine, self.what


def platform(host: Host) -> Platform:
    """What a host has, by its own words."""
    return Platform(*host.run(["sh", "-c", _LOOK]).stdout.splitlines())


def note(source: Host, destination: Host, *, engine: str, what: str, result: str = "moved") -> None:
    """Note what the test that runs has found."""
    test = os.environ.get("PYTEST_CURRENT_TEST", "").partition("::")[0]
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    row = Row(platform(source), platform(destination), engine, what, result, test, today)
    NOTES.parent.mkdir(parents=True, exist_ok=True)
    with NOTES.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _write(NOTES, _merged(_read(NOTES), [row]))


def _merged(old: Iterable[Row], new: Iterable[Row]) -> list[Row]:
    rows = {row.key: row for row in (*old, *new)}
    return sorted(rows.values(), key=lambda row: (str(row.source), str(row.destination), row.engine, row.what))


def _read(path: Path) -> list[Row]:
    if not path.exists():
        return []
    return [
        Row(Platform(**entry.pop("source")), Platform(**entry.pop("destination")), **entry)
        for entry in json.loads(path.read_text(encoding="utf-8"))
    ]


def _write(path: Path, rows: Iterable[Row]) -> None:
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)


def table() -> str:
    """The table of docs/support.md."""
    lines = [("from", "to", "engine", "what", "result", "run by")]
    lines.append(("---",) * 6)
    for row in _read(KEPT):
        there = "the same" if row.source == row.destination else str(row.destination)
        ran = f"`{row.test}`, {row.date}"
        lines.append((str(row.source), there, f"`{row.engine}`", row.what, row.result, ran))
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def text() -> str:
    """docs/support.md with the table as tests/matrix.json has it."""
    before, _begin, rest = SUPPORT.read_text(encoding="utf-8").partition(BEGIN)
    _table, _end, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{table()}\n{END}{after}"


def main() -> int:
    """``make matrix``."""
    _write(KEPT, _merged(_read(KEPT), _read(NOTES)))
    SUPPORT.write_text(text(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
