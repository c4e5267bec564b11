# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A database in the container that moves, which the article says cannot be: it can, as long as it does not use io_uring."""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.moves.moving_counter import Moving, gap_reported, remove
from tests.moves.pair import Pair
from tests.workloads.database_client import Writer
from tests.workloads.host import Host
from tests.workloads.probe import Answer
from tests.workloads.recipes import RECIPES

pytestmark = pytest.mark.usefixtures("pipelined")

_PORTS = itertools.count(9381)

# Arguments of docker run, options of the server, and what it then maps for its input and output. Docker's own seccomp profile
# forbids io_uring, and the server falls back to libaio.
AIO: dict[str, tuple[list[str], list[str], str]] = {
    "libaio": ([], [], "/[aio]"),
    "threads": (["--privileged", "--security-opt", "seccomp:unconfined"], ["--innodb-use-native-aio=0"], ""),
}
IO_URING: tuple[list[str], list[str], str] = (["--security-opt", "seccomp=unconfined"], [], "anon_inode:[io_uring]")

_RINGS = r"""
pid=$(docker inspect --format '{{.State.Pid}}' "$1")
grep -oE '/\[aio\]|anon_inode:\[io_uring\]' /proc/$pid/maps | sort -u
true
"""


@dataclass
class Base(Moving):
    """A MariaDB that moves between hosts, with its data in a volume."""

    password: str = ""

    def sql(self, host: Host, statement: str) -> str:
        """What the server answers, in the container on a host."""
        return host.docker("exec", self.name, "mariadb", "--batch", "--skip-column-names", "work", "-e", statement)


Open = Callable[[Sequence[str], Sequence[str], str], Base]


@pytest.fixture
def database(newer: Pair, tmp_path: Path) -> Iterator[Open]:
    """A function that starts a database on the first host and makes its tables; its arguments are as in AIO."""
    made: list[Base] = []
    recipe = RECIPES["mariadb"]

    def begin(arguments: Sequence[str], options: Sequence[str], rings: str) -> Base:
        host = newer.alpha
        port = next(_PORTS)
        base = Base(f"engine-{port}", port, tmp_path, Answer(0, "", {}), list(newer.hosts), secrets.token_hex(12))
        made.append(base)
        common = ["--publish", f"{port}:3306", "--volume", f"engine-{port}:/var/lib/mysql"]
        common += ["--env", f"MARIADB_PASSWORD={base.password}"]
        command = [*recipe.config["Cmd"], *options] if options else []
        host.start(base.name, host.load(recipe), [*common, *arguments], command)
        deadline = time.monotonic() + 120
        while "ready for connections" not in (log := _log(host, base.name)):
            assert time.monotonic() < deadline, log
            time.sleep(0.5)
        assert host.run(["sh", "-c", _RINGS, "sh", base.name]).stdout.strip() == rings
        base.sql(host, "CREATE TABLE written (n INT PRIMARY KEY) ENGINE=InnoDB")
        # Its content is in the server's memory, and gone with the server.
        base.sql(host, "CREATE TABLE memory (n INT) ENGINE=MEMORY; INSERT INTO memory VALUES (42)")
        return base

    yield begin
    for base in made:
        remove(base)
        for host in base.hosts:
            host.docker("volume", "rm", "-f", base.name)


def _log(host: Host, name: str) -> str:
    done = host.run(["docker", "logs", name])
    return done.stdout + done.stderr


@pytest.mark.parametrize("aio", ["libaio", pytest.param("threads", marks=pytest.mark.long)])
def test_a_database_moves_while_a_client_writes(newer: Pair, database: Open, aio: str) -> None:
    """Nothing that was acknowledged is missing, and it is the same server with the same memory."""
    source, destination = newer.alpha, newer.beta
    base = database(*AIO[aio])
    writer = Writer(Host.of_lab("gamma"), [host.address for host in newer.hosts], base.port, base.password)
    with writer:
        deadline = time.monotonic() + 120
        while int(base.sql(source, "SELECT COUNT(*) FROM written")) < 20:
            assert time.monotonic() < deadline, "the client does not write"
            time.sleep(0.2)
        output = base.move(source, destination).succeed()
        before = int(base.sql(destination, "SELECT COUNT(*) FROM written"))
        deadline = time.monotonic() + 30
        while int(base.sql(destination, "SELECT COUNT(*) FROM written")) < before + 20:
            assert time.monotonic() < deadline, "the client does not write any more"
            time.sleep(0.2)
    written = writer.written()
    assert base.sql(destination, "SELECT n FROM memory") == "42", "it was started afresh"
    numbers = [int(line) for line in base.sql(destination, "SELECT n FROM written ORDER BY n").splitlines()]
    # The last one may be there without its word.
    assert numbers[: written.acknowledged] == list(range(1, written.acknowledged + 1))
    assert len(numbers) <= written.acknowledged + 1
    assert "crash recovery" not in _log(destination, base.name)
    base.sql(destination, "CHECK TABLE written")
    print(f"{aio}: gap {gap_reported(output):.2f} s, {written}")


def test_a_database_with_io_uring_is_refused(newer: Pair, database: Open) -> None:
    """CRIU cannot dump that; it is found before anything is touched."""
    source, destination = newer.alpha, newer.beta
    base = database(*IO_URING)
    base.move(source, destination).fail_with(
        "[io_uring]", "use io_uring, which CRIU cannot dump: mariadbd", "Nothing has been touched"
    )
    assert not source.inspect(base.name)["State"]["Paused"]
    assert base.sql(source, "SELECT n FROM memory") == "42"
