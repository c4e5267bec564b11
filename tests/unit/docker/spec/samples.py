# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Inspect data for the tests of the specification.

fixtures/VERSION-WHAT.json were captured from real engines (``made_by`` in each says how): ``inspect`` is the container that
``command`` made, ``copy`` what came of POSTing ``body``, the creation body made from ``inspect``, to another engine.
fixtures/20.10.24-by-hand.json is what its name says: that engine was not to be had.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

FIXTURES = Path(__file__).parent / "fixtures"
BY_HAND = "20.10.24-by-hand"
CAPTURED = sorted(path.stem for path in FIXTURES.glob("*.json") if path.stem != BY_HAND)

ID = "0123456789ab" + "c" * 52
IMAGE = "sha256:" + "5" * 64
SECRET = "s3cret"


def load(name: str) -> dict[str, Any]:
    """One fixture."""
    data: dict[str, Any] = json.loads((FIXTURES / f"{name}.json").read_text())
    return data


def container(
    config: dict[str, Any] | None = None,
    host: dict[str, Any] | None = None,
    *,
    networks: dict[str, Any] | None = None,
    ports: dict[str, Any] | None = None,
    mounts: list[dict[str, Any]] | None = None,
    **top: Any,
) -> dict[str, Any]:
    """A small running container, with what the test is about."""
    endpoint = {"NetworkID": "a" * 64, "IPAddress": "172.17.0.2", "MacAddress": "02:42:ac:11:00:02"}
    inspect = {
        "Id": ID,
        "Name": "/one",
        "Image": IMAGE,
        "Platform": "linux",
        "State": {"Status": "running", "Running": True, "Paused": False, "Restarting": False, "Dead": False, "Pid": 42},
        "Config": {"Hostname": ID[:12], "Image": "app:1", "Cmd": ["run"], "Entrypoint": ["/entry"], **(config or {})},
        "HostConfig": {
            "NetworkMode": "bridge",
            "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
            "LogConfig": {"Type": "json-file", "Config": {}},
            "IpcMode": "private",
            **(host or {}),
        },
        "NetworkSettings": {
            "Ports": ports or {},
            "Networks": {"bridge": endpoint} if networks is None else networks,
        },
        "Mounts": mounts or [],
        **top,
    }
    return copy.deepcopy(inspect)


def volume(name: str, destination: str, **more: Any) -> dict[str, Any]:
    """An entry of the top level Mounts."""
    return {
        "Type": "volume",
        "Name": name,
        "Source": f"/var/lib/docker/volumes/{name}/_data",
        "Destination": destination,
        "Driver": "local",
        "Mode": "",
        "RW": True,
        "Propagation": "",
        **more,
    }
