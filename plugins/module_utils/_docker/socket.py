# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The Docker engine asked through its socket with Python's own library: for looking, where docker-py may be "
"missing or slow to load."""

from __future__ import annotations

import http.client
import json
import socket
import typing as t
from urllib.parse import quote, urlencode

DOCKER_SOCKET = "/run/docker.sock"
# From 1.52 on inspect does not tell a MAC address that was asked for from one that was made up.
_HIGHEST_API = (1, 51)

Facts = dict[str, t.Any]


class Asks(t.Protocol):
    """What can be asked of an engine, whichever way: :class:`EngineSocket`, or ``docker_engine.Engine``."""

    def info(self) -> Facts: ...

    def find(self, name: str) -> Facts | None: ...

    def names(self) -> list[str]: ...

    def containers(self, filters: dict[str, t.Any] | None = ..., *, running: bool = ...) -> list[Facts]: ...

    def find_image(self, reference: str) -> Facts | None: ...

    def image_ids(self) -> list[str]: ...

    def find_network(self, name: str) -> Facts | None: ...

    def find_volume(self, name: str) -> Facts | None: ...


class UnixConnection(http.client.HTTPConnection):
    """HTTP over the engine's socket: needs neither the docker command line nor docker-py, which may both be missing."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _request(path: str, socket_path: str, timeout: float) -> tuple[int, bytes]:
    connection = UnixConnection(socket_path, timeout)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    except http.client.HTTPException as exc:
        raise ValueError(f"no HTTP from {socket_path}: {exc!r}") from exc
    finally:
        connection.close()


def engine_get(path: str, socket_path: str = DOCKER_SOCKET, timeout: float = 30.0) -> Facts:
    """Ask the engine for a JSON object.

    :param path: e.g. ``/info``; without a version the engine answers in its newest.
    :param timeout: seconds.
    :raises OSError: the engine cannot be reached.
    :raises ValueError: what answers is no engine, or refuses.
    """
    status, body = _request(path, socket_path, timeout)
    if status != 200:
        raise ValueError(f"{path} answered {status}: {body[:200].decode('utf-8', 'replace')}")
    data = json.loads(body)
    if not isinstance(data, dict):
        raise ValueError(f"{path} answered no JSON object")
    return data


def answers(socket_path: str | None = None, *, timeout: float) -> bool:
    """Whether the engine answers at all: one that hangs takes the call and says nothing.

    :param socket_path: this host's own where it is left out.
    :param timeout: seconds that it may be silent.
    """
    try:
        status, _body = _request("/_ping", socket_path or DOCKER_SOCKET, timeout)
    except (OSError, ValueError):
        return False
    return status == 200


class EngineSocket:
    """The engine of this host, for looking only. Methods raise OSError or ValueError as :func:`engine_get`."""

    def __init__(self, socket_path: str = DOCKER_SOCKET) -> None:
        self._socket = socket_path
        newest = tuple(int(part) for part in str(self._get("/version")["ApiVersion"]).split("."))
        self._prefix = "/v" + ".".join(str(part) for part in min(newest, _HIGHEST_API))

    def _get(self, path: str, **query: str) -> t.Any:
        """The answer as data; None for 404."""
        full = path + ("?" + urlencode(query) if query else "")
        status, body = _request(full, self._socket, 30.0)
        if status == 404:
            return None
        if status != 200:
            raise ValueError(f"{path} answered {status}: {body[:200].decode('utf-8', 'replace')}")
        return json.loads(body)

    def _ask(self, path: str, **query: str) -> t.Any:
        return self._get(self._prefix + path, **query)

    def info(self) -> Facts:
        """GET /info."""
        return dict(self._ask("/info"))

    def find(self, name: str) -> Facts | None:
        """A container's inspect data."""
        found: Facts | None = self._ask(f"/containers/{quote(name, safe='')}/json")
        return found

    def names(self) -> list[str]:
        """The names of all containers."""
        return sorted(n.lstrip("/") for c in self.containers() for n in c.get("Names") or [])

    def containers(self, filters: dict[str, t.Any] | None = None, *, running: bool = False) -> list[Facts]:
        """GET /containers/json."""
        wanted = {key: value if isinstance(value, list) else [value] for key, value in (filters or {}).items()}
        return list(self._ask("/containers/json", all="0" if running else "1", filters=json.dumps(wanted)))

    def find_image(self, reference: str) -> Facts | None:
        """An image's inspect data."""
        found: Facts | None = self._ask(f"/images/{quote(reference, safe='/:@')}/json")
        return found

    def image_ids(self) -> list[str]:
        """The ids of all images."""
        return sorted({str(image["Id"]) for image in self._ask("/images/json")})

    def find_network(self, name: str) -> Facts | None:
        """A network's inspect data."""
        found: Facts | None = self._ask(f"/networks/{quote(name, safe='')}")
        return found

    def networks(self) -> list[Facts]:
        """GET /networks."""
        return list(self._ask("/networks"))

    def find_volume(self, name: str) -> Facts | None:
        """A volume's inspect data."""
        found: Facts | None = self._ask(f"/volumes/{quote(name, safe='')}")
        return found
