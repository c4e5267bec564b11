# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a host may be like for the time of a test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.workloads.host import Host


@contextmanager
def criu_fails(host: Host) -> Iterator[None]:
    """No restore succeeds on a host meanwhile."""
    script = "/usr/local/lib/livemigrate/livemigrate-criu-action"
    host.run(["sh", "-c", f"cp -p {script} {script}.kept; printf '#!/bin/sh\nexit 1\n' > {script}"])
    try:
        yield
    finally:
        host.run(["mv", f"{script}.kept", script])


@contextmanager
def containerd_store(*hosts: Host) -> Iterator[None]:
    """Docker's containerd image store on these hosts; their other images and containers are out of sight meanwhile."""
    change = "import json; p='/etc/docker/daemon.json'; d=json.load(open(p)); {}; json.dump(d, open(p,'w'))"

    def switch(host: Host, statement: str) -> None:
        host.run(["python3", "-c", change.format(statement)])
        host.run(["sh", "-c", "systemctl reset-failed docker; systemctl restart docker"])

    for host in hosts:
        switch(host, "d['features']={'containerd-snapshotter': True}")
    try:
        yield
    finally:
        for host in hosts:
            switch(host, "d.pop('features', None)")
