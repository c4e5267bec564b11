# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""One image on two hosts, whichever way their engines keep images.

With the engine's own store an image's id is the digest of its configuration. With containerd's it is the digest of a manifest
(or of the index of several) that names the configuration, so one image has different ids in stores of different kinds, and
nothing that inspect shows of both is the same digest. What is equal on both sides is what the image consists of: its layers
and its configuration. Between stores of one kind ``docker save`` and ``docker load`` keep the id.
"""

from __future__ import annotations

import hashlib
import json
import typing as t

from .socket import Asks

Image = t.Mapping[str, t.Any]

CONTAINERD = "containerd"
GRAPHDRIVER = "graphdriver"

# What an image says about its containers (image-spec config.md, moby's DockerOCIImageConfigExt). Engines before 28 show
# further fields, which are a container's and always empty in an image.
_CONFIG = (
    *("User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels", "StopSignal"),
    *("ArgsEscaped", "Healthcheck", "OnBuild", "Shell"),
)


def store(info: t.Mapping[str, t.Any]) -> str:
    """The kind of image store out of the engine's ``/info``: ``containerd`` or ``graphdriver``."""
    status = {row[0]: row[1] for row in info.get("DriverStatus") or [] if len(row) == 2}
    return CONTAINERD if status.get("driver-type") == "io.containerd.snapshotter.v1" else GRAPHDRIVER


def identity(image: Image) -> str:
    """A digest of what an image consists of; equal in stores of both kinds. Tells nothing of the environment in it.

    :param image: its inspect data.
    """
    config = image.get("Config") or {}
    parts = {
        "Os": image.get("Os"),
        "Architecture": image.get("Architecture"),
        "Layers": (image.get("RootFS") or {}).get("Layers") or [],
        # What is not set is null, empty or not there, by engine.
        "Config": {name: config[name] for name in _CONFIG if config.get(name)},
    }
    return "sha256:" + hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def describe(engine: Asks, inspect: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """A container's image, for its spec: by this another host recognises it.

    :param inspect: the container's inspect data.
    """
    image = engine.find_image(inspect["Image"]) or {}
    return {
        "id": inspect["Image"],
        "identity": identity(image) if image else None,
        "store": store(engine.info()),
        "reference": inspect["Config"]["Image"],
        "tags": image.get("RepoTags") or [],
        "digests": image.get("RepoDigests") or [],
        "size": image.get("Size") or 0,
    }


def find(engine: Asks, wanted: Image) -> dict[str, t.Any] | None:
    """An image of this host that is the described one, or None; its ``Id`` is what this host's engine calls it.

    :param wanted: an image as :func:`describe` tells of it.
    """
    found = engine.find_image(wanted["id"])
    if found or not wanted.get("identity") or wanted.get("store") == store(engine.info()):
        return found
    # Its names first: asking for all images of a host may take a while.
    names = [wanted.get("reference"), *wanted.get("tags", []), *wanted.get("digests", [])]
    seen: set[str] = set()
    for reference in [*filter(None, names), *engine.image_ids()]:
        found = None if reference in seen else engine.find_image(reference)
        seen.update((reference, found["Id"]) if found else (reference,))
        if found and identity(found) == wanted["identity"]:
            return found
    return None


def last_names(engine: Asks, tags: t.Mapping[str, str | None], session: str) -> dict[str, str]:
    """Which images of this host would be without a name once a loaded image has these tags, and a name to keep each by.

    The engine's own store keeps such an image. containerd's deletes it, unless the engine makes a note (28 does, 26 does not).

    :param tags: tag to the id of the image that has it now, None for none.
    :param session: id of the session, part of the names.
    :returns: image id to name; empty where nothing has to be done.
    """
    if store(engine.info()) != CONTAINERD:
        return {}
    names: dict[str, str] = {}
    for before in filter(None, tags.values()):
        image = engine.find_image(before)
        if image is not None and not set(image.get("RepoTags") or []) - tags.keys():
            names.setdefault(before, f"livemigrate-kept:{session}-{len(names) + 1}")
    return names
