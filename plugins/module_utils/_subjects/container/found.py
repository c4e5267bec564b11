# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""A container on its own host before there is a session about it: looked at once, examined, and described for the destination."""

from __future__ import annotations

import os
import typing as t

from ..._base import durable
from ..._docker import host_files, left_data
from ..._docker import images as docker_images
from ..._docker import volumes as docker_volumes
from ..._docker.spec import networks as spec_networks
from ..._preflight.facts import container as facts_of_container
from ..._session.session import Session
from ..subject import Params, Result
from . import examine, parents
from .keeper import Keeper

Inspect = t.Mapping[str, t.Any]


class Found:
    """A container of this host, as it was when it was looked at.

    :param inspect: its inspect data of that moment.
    """

    def __init__(self, keeper: Keeper, inspect: Inspect) -> None:
        self._keeper = keeper
        self._inspect = inspect
        self._volumes: list[dict[str, t.Any]] = []

    @property
    def id(self) -> str:
        """64 hexadecimal digits."""
        return str(self._inspect["Id"])

    @property
    def name(self) -> str:
        """Without Docker's slash."""
        return str(self._inspect["Name"]).lstrip("/")

    def require_movable(self, params: Params) -> None:
        """By the rules of the preflight, which may have been asked a while ago.

        :param params: ``container``, ``ignore_rules``.
        """
        examine.require_movable(
            self._keeper.engine, self._inspect, called=params["container"], ignore_rules=params["ignore_rules"]
        )

    def facts(self, params: Params) -> Result:
        """Of the container and of its engine.

        :param params: ``engine``, ``bind_mounts`` (host paths of those whose content travels), ``ignore_rules``.
        :raises MigrationError: ``bind_mount_unknown``.
        """
        self._volumes = docker_volumes.of_container(self._keeper.engine, self._inspect, params["bind_mounts"])
        return {
            "container_id": self.id,
            "container_name": self.name,
            "engine": params["engine"],
            "data_root": self._keeper.engine.info()["DockerRootDir"],
            "volumes": [entry["name"] for entry in self._volumes if entry["travels"]],
            # Now, while the container holds them: what is at their places at its end may be somebody else's already.
            "left_data": {
                entry["name"]: left_data.note(entry["path"], entry.get("created_at", ""))
                for entry in self._volumes
                if entry["travels"]
            },
            "ignore_rules": list(params["ignore_rules"]),
        }

    def describe(self, session: Session) -> None:
        """Write ``spec.json``. After :meth:`facts`."""
        engine, inspect = self._keeper.engine, self._inspect
        networks = [engine.find_network(endpoint.name) for endpoint in spec_networks.networks(inspect)]
        durable.write_json(
            os.path.join(session.memory_path("outbox"), "spec.json"),
            {
                "inspect": inspect,
                "image": docker_images.describe(engine, inspect),
                "volumes": self._volumes,
                "parents": parents.of(
                    entry["path"] for entry in self._volumes if entry["kind"] == "bind" and entry["travels"]
                ),
                "networks": [network for network in networks if network],
                "ignore_rules": session.facts["ignore_rules"],
                "ancestry": session.facts["ancestry"],
                "real_places": host_files.real_places(
                    f"/proc/{inspect['State']['Pid']}/root",
                    [host_files.INIT_PLACE, *(entry["destination"] for entry in self._volumes)],
                ),
                # What the destination makes room for.
                "memory_bytes": facts_of_container.checkpoint_bytes(inspect),
            },
        )
