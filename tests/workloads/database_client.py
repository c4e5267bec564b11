# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A client that writes into a MariaDB all the time, wherever it may be, and knows what it was told to be written."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from .host import Host, HostError

# Runs where the client is. It keeps its connection as long as that works; then it opens another one and says the same again.
_CLIENT = r"""
import json, os, sys, time
import pymysql

stop, port, hosts = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
password = sys.stdin.readline().strip()
n = acknowledged = connections = turn = 0
longest, last, connection = 0.0, time.monotonic(), None
while not os.path.exists(stop):
    try:
        if connection is None:
            turn += 1
            connection = pymysql.connect(
                host=hosts[turn % len(hosts)], port=port, user="work", password=password, database="work",
                connect_timeout=2, read_timeout=3, write_timeout=3, autocommit=True,
            )
            connections += 1
        if n == acknowledged:
            n += 1
        with connection.cursor() as cursor:
            # It may be there: written, and the word about it lost.
            cursor.execute("INSERT IGNORE INTO written VALUES (%s)", (n,))
        acknowledged = n
        longest, last = max(longest, time.monotonic() - last), time.monotonic()
    except (pymysql.err.Error, OSError):
        connection = None
        time.sleep(0.05)
longest = max(longest, time.monotonic() - last)
print(json.dumps({"acknowledged": acknowledged, "connections": connections, "longest_gap": round(longest, 3)}))
"""


@dataclass(frozen=True)
class Written:
    """What the client tells: the last number that was acknowledged, how often it connected, the longest silence in seconds."""

    acknowledged: int
    connections: int
    longest_gap: float


class Writer:
    """Writes 1, 2, 3 ... into the table `written`, from HOST, on a connection that it opens anew when it breaks."""

    def __init__(self, host: Host, addresses: Sequence[str], port: int, password: str) -> None:
        self._host, self._password = host, password
        self._stop = f"/run/database-client-{port}.stop"
        self._command = ["python3", "-c", _CLIENT, self._stop, str(port), *addresses]
        self._printed = ""
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Writer:
        if self._host.run(["python3", "-c", "import pymysql"], check=False).returncode != 0:
            apt = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-o", "DPkg::Lock::Timeout=120"]
            self._host.run([*apt, "update"], timeout=180)
            self._host.run([*apt, "install", "--yes", "--no-install-recommends", "python3-pymysql"], timeout=300)
        self._host.run(["rm", "-f", self._stop])
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._host.run(["touch", self._stop])
        self._thread.join(30)

    def _run(self) -> None:
        self._printed = self._host.run(self._command, text_input=f"{self._password}\n", timeout=600).stdout

    def written(self) -> Written:
        """What it tells; after its end. HostError when it told nothing."""
        if not self._printed:
            raise HostError(f"{self._host.name}: the client of the database ended without a word")
        return Written(**json.loads(self._printed))
