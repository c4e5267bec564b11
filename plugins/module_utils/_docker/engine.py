# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The Docker engine of this host: docker-py's APIClient plus the endpoints that docker-py does not know.

docker-py 7 has nothing for checkpoints and its start() takes no options, so those four calls are made here with the same
private helpers that its own methods use (``_url``, ``_post_json``, ``_raise_for_status``); they have been there unchanged
since docker-py 2. Nothing else in the collection touches them.
"""

from __future__ import annotations

import contextlib
import sys
import time
import typing as t

from .._base import valid_names
from .._base.errors import MigrationError
from . import library as docker_library

# Seconds for ordinary calls. The default of docker-py is 60; a busy engine takes longer for some.
CALL_TIMEOUT = 300
_HIGHEST_API = (1, 51)

# Seconds for pulling, saving and loading an image, during which nothing is frozen.
IMAGE_TIMEOUT = 3600


def memory_timeout(size: int) -> float:
    """Seconds to grant a dump or a restore of so many bytes: the engine copies memory three times (35 s/GiB measured)."""
    return 60 + 120 * size / (1 << 30)


Inspect = dict[str, t.Any]


def _import_docker() -> t.Any:
    docker_library.use()
    try:
        import docker
    except ImportError as exc:
        raise MigrationError(
            "docker_py_missing",
            f"The Python library docker (docker-py, 7.1 or newer) cannot be imported by {sys.executable}: {exc}. The role "
            "livemigrate.criu.docker installs it.",
            interpreter=sys.executable,
        ) from None
    return docker


@contextlib.contextmanager
def _explain_errors(doing: str, code: str = "engine_error") -> t.Iterator[None]:
    """Turn docker-py's and requests' exceptions into sentences."""
    docker = _import_docker()
    # docker-py has imported it.
    import requests

    try:
        yield
    except docker.errors.APIError as exc:
        reason = (exc.explanation or str(exc)).strip()
        raise MigrationError(code, f"Cannot {doing}: {reason}", status=exc.status_code) from None
    except (docker.errors.DockerException, requests.exceptions.RequestException) as exc:
        raise MigrationError(
            "engine_unreachable",
            f"Cannot {doing}: the Docker engine does not answer ({exc}). Is docker.service running?",
        ) from None


class Engine:
    """One connection to the engine of this host.

    Every method raises MigrationError: ``engine_error`` (or the code it names) when the engine refuses,
    ``engine_unreachable`` when it does not answer.
    """

    def __init__(self, base_url: str = "unix:///var/run/docker.sock", *, seconds: float = CALL_TIMEOUT) -> None:
        """
        :param seconds: to wait for each answer while it is connected. Later calls have their usual time, see :meth:`within`.
        """
        docker = _import_docker()
        with _explain_errors("connect to the Docker engine"):
            client = docker.APIClient(base_url=base_url, version="auto", timeout=seconds)
            # From 1.52 on inspect does not tell a MAC address that was asked for from one that was made up.
            if tuple(int(part) for part in client._version.split(".")) > _HIGHEST_API:
                newest = ".".join(str(part) for part in _HIGHEST_API)
                client = docker.APIClient(base_url=base_url, version=newest, timeout=seconds)
            client.timeout = CALL_TIMEOUT
            self._client = client
        self._base_url = base_url
        self._errors = docker.errors

    @contextlib.contextmanager
    def within(self, seconds: float) -> t.Iterator[None]:
        """Wait no longer than that for the answer to each call in this block, where it has no time of its own."""
        before, self._client.timeout = self._client.timeout, seconds
        try:
            yield
        finally:
            self._client.timeout = before

    @property
    def api_version(self) -> str:
        """The API version agreed with the engine, e.g. ``1.45``."""
        return str(self._client._version)

    def version(self) -> dict[str, t.Any]:
        """GET /version."""
        with _explain_errors("ask the Docker engine for its version"):
            return dict(self._client.version(api_version=False))

    def info(self) -> dict[str, t.Any]:
        """GET /info."""
        with _explain_errors("ask the Docker engine about itself"):
            return dict(self._client.info())

    # -- containers --------------------------------------------------------------------------------------------

    def find(self, name: str) -> Inspect | None:
        """A container's inspect data, or None where there is none of that name or id."""
        with _explain_errors(f"look up container {name}"):
            try:
                return dict(self._client.inspect_container(name))
            except self._errors.NotFound:
                return None

    def inspect(self, name: str) -> Inspect:
        """A container's inspect data.

        :raises MigrationError: ``container_not_found``, with the names that look alike.
        """
        found = self.find(name)
        if found is not None:
            return found
        raise MigrationError("container_not_found", valid_names.unknown(name, self.names()), container=name)

    def names(self) -> list[str]:
        """The names of all containers."""
        with _explain_errors("list the containers"):
            return sorted(n.lstrip("/") for c in self._client.containers(all=True) for n in c.get("Names") or [])

    def containers(self, filters: dict[str, t.Any] | None = None, *, running: bool = False) -> list[Inspect]:
        """GET /containers/json."""
        with _explain_errors("list the containers"):
            return list(self._client.containers(all=not running, filters=filters))

    def pause(self, container: str) -> None:
        """Freeze all tasks of a container through its cgroup."""
        with _explain_errors(f"pause container {container}", "freeze_failed"):
            self._client.pause(container)

    def unpause(self, container: str) -> None:
        """Thaw it."""
        with _explain_errors(f"unpause container {container}", "thaw_failed"):
            self._client.unpause(container)

    def kill(self, container: str) -> None:
        """SIGKILL to its first process; a container that does not run is fine."""
        with _explain_errors(f"kill container {container}"), contextlib.suppress(self._errors.NotFound):
            try:
                self._client.kill(container)
            except self._errors.APIError as exc:
                if exc.status_code != 409:
                    raise

    def remove(self, container: str, *, force: bool = True) -> None:
        """Remove it with its anonymous files but not its volumes; one that is not there is fine.

        :param force: also where it runs, which the engine refuses otherwise.
        """
        with _explain_errors(f"remove container {container}"), contextlib.suppress(self._errors.NotFound):
            self._client.remove_container(container, force=force, v=False)

    def rename(self, container: str, name: str) -> None:
        """Give a container another name."""
        with _explain_errors(f"rename container {container} to {name}"):
            self._client.rename(container, name)

    def set_restart_policy(self, container: str, policy: t.Mapping[str, t.Any]) -> None:
        """Change the restart policy of a container; it takes effect at once and survives restarts of the engine."""
        with _explain_errors(f"set the restart policy of container {container}"):
            self._client.update_container(container, restart_policy=dict(policy))

    def create(self, name: str, body: t.Mapping[str, t.Any]) -> str:
        """POST /containers/create with a body as the engine defines it; returns the new id.

        docker-py's own create_container() builds the body from keyword arguments and knows only part of the fields.
        """
        with _explain_errors(f"create container {name}", "create_failed"):
            client = self._client
            answer = client._post_json(client._url("/containers/create"), data=dict(body), params={"name": name})
            return str(client._result(answer, True)["Id"])

    def start(self, container: str, checkpoint: str | None = None, *, timeout: float = CALL_TIMEOUT) -> None:
        """Start a container, from a checkpoint in its own checkpoint directory if one is named.

        A restore that follows a checkpoint at once can meet content that containerd has not yet collected (moby#42900,
        ``already exists``); it is tried again three times, as CRIU's own CI does.
        """
        params = {"checkpoint": valid_names.checkpoint_name(checkpoint)} if checkpoint else {}
        doing = (
            f"restore container {container} from checkpoint {checkpoint}"
            if checkpoint
            else f"start container {container}"
        )
        with _explain_errors(doing, "restore_failed" if checkpoint else "start_failed"):
            client = self._client
            for attempt in range(4):
                answer = client._post(client._url("/containers/{0}/start", container), params=params, timeout=timeout)
                try:
                    client._raise_for_status(answer)
                    return
                except self._errors.APIError as exc:
                    if attempt == 3 or "already exists" not in (exc.explanation or ""):
                        raise
                time.sleep(1)

    def connect(self, network: str, container: str, endpoint: t.Mapping[str, t.Any]) -> None:
        """POST /networks/NAME/connect with an EndpointSettings object."""
        with _explain_errors(f"connect container {container} to network {network}", "create_failed"):
            client = self._client
            body = {"Container": container, "EndpointConfig": dict(endpoint)}
            client._raise_for_status(client._post_json(client._url("/networks/{0}/connect", network), data=body))

    # -- checkpoints -------------------------------------------------------------------------------------------

    def checkpoints(self, container: str) -> list[str]:
        """The names of a container's checkpoints. (The engine answers null for none until 2025-09.)"""
        with _explain_errors(f"list the checkpoints of container {container}"):
            client = self._client
            answer = client._get(client._url("/containers/{0}/checkpoints", container))
            return sorted(entry["Name"] for entry in client._result(answer, True) or [])

    def checkpoint(self, container: str, name: str, *, leave_running: bool, timeout: float = IMAGE_TIMEOUT) -> None:
        """Dump a container into its own checkpoint directory."""
        with _explain_errors(f"checkpoint container {container}", "dump_failed"):
            client = self._client
            body = {"CheckpointID": valid_names.checkpoint_name(name), "Exit": not leave_running}
            url = client._url("/containers/{0}/checkpoints", container)
            client._raise_for_status(client._post_json(url, data=body, timeout=timeout))

    def remove_checkpoint(self, container: str, name: str) -> bool:
        """Delete a checkpoint; returns whether there was one."""
        # The engine joins this name to a path unchecked and removes what it finds there: no unchecked name may reach it.
        with _explain_errors(f"delete checkpoint {name} of container {container}"):
            client = self._client
            url = client._url("/containers/{0}/checkpoints/{1}", container, valid_names.checkpoint_name(name))
            try:
                client._raise_for_status(client._delete(url))
            except self._errors.APIError as exc:
                if exc.status_code == 404 or "does not exist" in (exc.explanation or ""):
                    return False
                raise
            return True

    def _patient(self) -> t.Any:
        """A connection for docker-py's own methods that take no time-out."""
        return _import_docker().APIClient(base_url=self._base_url, version=self.api_version, timeout=IMAGE_TIMEOUT)

    # -- images ------------------------------------------------------------------------------------------------

    def find_image(self, reference: str) -> dict[str, t.Any] | None:
        """An image's inspect data, or None."""
        with _explain_errors(f"look up image {reference}"):
            try:
                return dict(self._client.inspect_image(reference))
            except self._errors.NotFound:
                return None

    def image_ids(self) -> list[str]:
        """The ids of all images, those without a name too."""
        with _explain_errors("list the images"):
            return sorted({str(image["Id"]) for image in self._client.images()})

    def pull(self, reference: str) -> bool:
        """Pull an image by reference or digest; returns whether that worked. Not being able to is no error here."""
        try:
            with _explain_errors(f"pull {reference}"):
                self._patient().pull(reference)
        except MigrationError:
            return False
        return self.find_image(reference) is not None

    def export_image(self, references: t.Sequence[str]) -> t.Iterator[bytes]:
        """``docker save`` as a stream of chunks."""
        with _explain_errors(f"export image {references[0]}", "image_export_failed"):
            client = self._client
            answer = client._get(
                client._url("/images/get"), params={"names": list(references)}, stream=True, timeout=IMAGE_TIMEOUT
            )
            client._raise_for_status(answer)
            yield from answer.iter_content(1 << 20)

    def load_image(self, stream: t.Iterable[bytes]) -> str:
        """``docker load`` of an archive in pieces; returns what the engine said."""
        with _explain_errors("load the image", "image_load_failed"):
            answers = [entry.get("stream") or entry.get("error") or "" for entry in self._patient().load_image(stream)]
            return "".join(answers).strip()

    def tag_image(self, image: str, reference: str) -> None:
        """Give an image a reference."""
        repository, _colon, tag = reference.rpartition(":")
        if not repository or "/" in tag:
            repository, tag = reference, "latest"
        with _explain_errors(f"tag image {image} as {reference}"):
            self._client.tag(image, repository, tag)

    def remove_image(self, reference: str) -> None:
        """Remove an image or a reference to it; one in use or not there stays as it is."""
        with contextlib.suppress(MigrationError), _explain_errors(f"remove image {reference}"):
            self._client.remove_image(reference, noprune=True)

    # -- networks and volumes ----------------------------------------------------------------------------------

    def find_network(self, name: str) -> dict[str, t.Any] | None:
        """A network's inspect data by its exact name or id, or None."""
        with _explain_errors(f"look up network {name}"):
            try:
                return dict(self._client.inspect_network(name))
            except self._errors.NotFound:
                return None

    def create_network(self, body: t.Mapping[str, t.Any]) -> str:
        """POST /networks/create; returns the id."""
        with _explain_errors(f"create network {body.get('Name')}", "create_failed"):
            client = self._client
            answer = client._post_json(client._url("/networks/create"), data=dict(body))
            return str(client._result(answer, True)["Id"])

    def remove_network(self, name: str) -> None:
        """Remove a network; one in use or not there stays as it is."""
        with contextlib.suppress(MigrationError), _explain_errors(f"remove network {name}"):
            self._client.remove_network(name)

    def find_volume(self, name: str) -> dict[str, t.Any] | None:
        """A volume's inspect data, or None."""
        with _explain_errors(f"look up volume {name}"):
            try:
                return dict(self._client.inspect_volume(name))
            except self._errors.NotFound:
                return None

    def create_volume(self, body: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
        """POST /volumes/create; returns its inspect data."""
        with _explain_errors(f"create volume {body.get('Name')}", "create_failed"):
            client = self._client
            return dict(client._result(client._post_json(client._url("/volumes/create"), data=dict(body)), True))

    def remove_volume(self, name: str) -> None:
        """Remove a volume; one in use or not there stays as it is."""
        with contextlib.suppress(MigrationError), _explain_errors(f"remove volume {name}"):
            self._client.remove_volume(name)
