# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What belongs to a container's processes and is not their memory moves with them."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.engines.conftest import Moving
from tests.migration.conftest import Pair

Start = Callable[..., Moving]

# The counter, beside a program that opens its standard output anew for every line.
_OPENS_STDOUT = (
    "(while :; do echo opened > /dev/stdout || echo FAILED >&2; sleep 0.2; done) & exec /usr/local/bin/counter"
)


def test_a_user_without_root_opens_its_standard_output(newer: Pair, start: Start) -> None:
    """The pipe belongs to the container's user, as Docker has made it, and not to root."""
    hosts = [newer.alpha, newer.beta]
    moving = start(hosts[0], hosts, "--user", "1000:1000", command=["sh", "-c", _OPENS_STDOUT])
    for source, destination in (hosts, hosts[::-1]):
        moving.move(source, destination).succeed()
        moving.assert_runs_on(destination)
        lines = destination.docker("logs", moving.name).splitlines()
        time.sleep(0.5)
        more = destination.run(["sh", "-c", f"docker logs {moving.name} 2>&1"]).stdout.splitlines()
        assert more.count("opened") > lines.count("opened")
        assert "FAILED" not in more
