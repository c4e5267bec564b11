# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The comparison of a container before its move and its copy after it.

Each field's row in the table (_docker/spec/fields.py) says whether the two hosts may differ in it and what may be told of its
value; the transforms (_docker/spec/create.py) say what else was asked for.
"""

from __future__ import annotations

import json
import typing as t
from dataclasses import dataclass

from ansible_collections.livemigrate.criu.plugins.module_utils._docker.spec.create import (
    TRANSFORMS,
    Context,
    Unsent,
    endpoint_plan,
)
from ansible_collections.livemigrate.criu.plugins.module_utils._docker.spec.fields import (
    CONFIG,
    ENDPOINTS,
    HOST,
    MOUNTS,
    NAMES,
    NETWORK,
    SHOW,
    TOP,
    TRANSFORM,
    Field,
    fields_by_path,
    is_empty,
    parse_api,
)
from ansible_collections.livemigrate.criu.plugins.module_utils._docker.spec.mounts import Mount, mounts
from ansible_collections.livemigrate.criu.plugins.module_utils._docker.spec.networks import SHORT_ID
from tests.workloads.inspect_view import HIDDEN, view

JSON = dict[str, t.Any]
Inspect = t.Mapping[str, t.Any]

_LONGEST = 200


@dataclass(frozen=True)
class Difference:
    """One field in which two containers differ; its texts hold no secret."""

    path: str
    source: str
    destination: str
    #: whether it has to be so after a good move
    expected: bool
    why: str


#: Where null and the zero value do not mean the same (pointers in Go, and lists whose absence means the engine's
#: default).
_EXACT = (
    "Config.StopTimeout",
    "HostConfig.Init",
    "HostConfig.MemorySwappiness",
    "HostConfig.MaskedPaths",
    "HostConfig.ReadonlyPaths",
)

#: Lists whose order means something.
_ORDERED = (
    "Args",
    "Config.Cmd",
    "Config.Entrypoint",
    "Config.Shell",
    "Config.OnBuild",
    "HostConfig.ConsoleSize",
    "HostConfig.Dns",
    "HostConfig.DnsSearch",
)


#: Maps whose keys users choose: a key without a value is still there. All other mappings are Go structs.
_MAPS = (
    "Config.ExposedPorts",
    "Config.Volumes",
    "Config.Labels",
    "HostConfig.Annotations",
    "HostConfig.PortBindings",
    "HostConfig.StorageOpt",
    "HostConfig.Sysctls",
    "HostConfig.Tmpfs",
)
#: The same one level down: LogConfig.Config, VolumeOptions.Labels, DriverConfig.Options, an endpoint's DriverOpts.
_MAPS_WITHIN = ("Config", "Labels", "Options", "DriverOpts")


# Names under which runc is registered, and the shim in front of it.
_RUNC = frozenset({"", "runc", "livemigrate", "io.containerd.runc.v2"})


def _is_map(path: str) -> bool:
    return path in _MAPS or path.endswith(".DriverOpts")


def _normal(value: t.Any, *, ordered: bool = True, is_map: bool = False) -> t.Any:
    """A value without what Go leaves out or fills in at will: empty parts of structs, order where it means nothing."""
    if isinstance(value, dict):
        parts = {name: _normal(item, is_map=name in _MAPS_WITHIN) for name, item in value.items()}
        return parts if is_map else {name: item for name, item in parts.items() if not is_empty(item)}
    if isinstance(value, (list, tuple)):
        # Below the first level order is kept: those lists are commands.
        items = [_normal(item) for item in value]
        return items if ordered else sorted(items, key=lambda item: json.dumps(item, sort_keys=True))
    return value


def _same(path: str, one: t.Any, other: t.Any) -> bool:
    if path in _EXACT:
        return bool(one == other)
    left, right = (_normal(value, ordered=path in _ORDERED, is_map=_is_map(path)) for value in (one, other))
    return bool(left == right) or (is_empty(left) and is_empty(right))


def _text(row: Field | None, value: t.Any) -> str:
    text = json.dumps(view(row, value), sort_keys=True, default=str)
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "..."


#: Fields that are compared part by part.
_APART = (
    "State",
    "Config",
    "HostConfig",
    "NetworkSettings",
    "Mounts",
    "NetworkSettings.Networks",
    "NetworkSettings.Ports",
)


class _Comparison:
    """Collects the differences of one pair."""

    def __init__(self, source: Inspect, destination: Inspect, api_version: str) -> None:
        self.source = source
        self.destination = destination
        self.table = fields_by_path()
        # Without reference_image_id: what is judged by it are images that were named otherwise than on the source.
        self.context = Context(source, parse_api(api_version), str(destination.get("Image") or ""), None)
        plan = endpoint_plan(source, api_version)
        self.endpoints = dict(plan.endpoints_at_create)
        self.endpoints.update({request["network"]: request["settings"] for request in plan.endpoints_to_connect})
        self.found: list[Difference] = []

    def add(self, path: str, source: str, destination: str, expected: bool, why: str) -> None:
        # What may be told of both can be the same.
        shown = destination if destination != source else "differs"
        self.found.append(Difference(path, source, shown, expected, why))

    def field(self, path: str, row: Field | None, source: t.Any, destination: t.Any, expected: bool, why: str) -> None:
        """One differing field: a difference for each of its parts where they have names, else one for all of it."""
        if row is not None and row.view in (NAMES, SHOW, MOUNTS):
            one, other = _parts(row, source), _parts(row, destination)
            if one is not None and other is not None:
                is_map = _is_map(path)
                for name in sorted(set(one) | set(other)):
                    there = (name in one) == (name in other) or not is_map
                    if not there or not _same("", one.get(name), other.get(name)):
                        self.part("%s[%s]" % (path, name), row, (one, other), name, expected, why)
                return
        self.add(path, _text(row, source), _text(row, destination), expected, why)

    def part(self, path: str, row: Field, sides: tuple[JSON, JSON], name: str, expected: bool, why: str) -> None:
        if row.view == NAMES:
            before, after = ("set" if name in side else "not set" for side in sides)
        else:
            before, after = (_text(row, side[name]) if name in side else "not set" for side in sides)
        self.add(path, before, after, expected, why)

    def section(self, section: str, source: Inspect, destination: Inspect) -> None:
        """Fields of Config, HostConfig, NetworkSettings or the top level."""
        for name in list(source) + [name for name in destination if name not in source]:
            path = name if section == TOP else "%s.%s" % (section, name)
            if path in _APART:
                continue
            row = self.table.get(path)
            one, other = source.get(name), destination.get(name)
            if _same(path, one, other):
                continue
            expected, why = self.judge(path, row, one, other)
            self.field(path, row, one, other, expected, why)

    def state(self) -> None:
        """What both are doing. Error texts and the output of health checks may hold anything."""
        row = self.table.get("State")
        expected, why = (True, row.differs) if row is not None else (False, "this field is not known")
        source, destination = self.source.get("State") or {}, self.destination.get("State") or {}
        for name in list(source) + [name for name in destination if name not in source]:
            one, other = source.get(name), destination.get(name)
            if not _same("", one, other):
                hide = isinstance(one, dict) or isinstance(other, dict) or name == "Error"
                texts = (HIDDEN, HIDDEN) if hide else (json.dumps(one), json.dumps(other))
                self.add("State.%s" % name, texts[0], texts[1], expected, why)

    def judge(self, path: str, row: Field | None, source: t.Any, destination: t.Any) -> tuple[bool, str]:
        """Whether a difference is what the creation asked for."""
        if row is None:
            return False, "this field is not known"
        if row.differs:
            return True, row.differs
        if path in ("Driver", "Image") and self.stores_differ():
            return True, "image stores of two kinds, in which one image has two ids"
        if path == "HostConfig.Runtime" and {source, destination} <= _RUNC:
            return True, "the engine runtime restores through a runtime of its own, which is runc after that"
        if row.action == TRANSFORM and path in TRANSFORMS:
            sent = TRANSFORMS[path](source, self.context)
            if isinstance(sent, Unsent):
                sent = destination if sent.filled else None
            if _same(path, sent, destination):
                return True, row.why
        return False, "it must be the same on both hosts"

    def stores_differ(self) -> bool:
        """Whether one engine keeps images itself and the other lets containerd do it; layers of both kinds can be moved."""
        return {self.source.get("Driver"), self.destination.get("Driver")} == {"overlay2", "overlayfs"}

    def networks(self) -> None:
        source = (self.source.get("NetworkSettings") or {}).get("Networks") or {}
        destination = (self.destination.get("NetworkSettings") or {}).get("Networks") or {}
        for name in sorted(set(source) | set(destination)):
            path = "NetworkSettings.Networks.%s" % name
            if name not in source or name not in destination:
                here, there = ("on it" if name in side else "not on it" for side in (source, destination))
                self.add(path, here, there, False, "the container must be on the same networks")
                continue
            self.endpoint(path, name, source[name] or {}, destination[name] or {})

    def endpoint(self, path: str, network: str, source: Inspect, destination: Inspect) -> None:
        planned = self.endpoints.get(network, {})
        for name in list(source) + [name for name in destination if name not in source]:
            row = self.table.get("%s.%s" % (ENDPOINTS, name))
            one, other = source.get(name), destination.get(name)
            if name == "Aliases":
                one, other = _own_aliases(self.source, one), _own_aliases(self.destination, other)
            if _same("%s.%s" % (path, name), one, other):
                continue
            if name == "MacAddress" and planned.get("MacAddress"):
                expected, why = False, "this address was requested"
            elif row is not None and row.differs:
                expected, why = True, row.differs
            elif row is not None and not is_empty(other) and _same("%s.%s" % (path, name), planned.get(name), other):
                expected, why = True, row.why
            else:
                expected, why = False, "it must be the same on both hosts"
            self.field("%s.%s" % (path, name), row, one, other, expected, why)

    def ports(self) -> None:
        """The ports really bound. A container that does not run has none."""
        source = (self.source.get("NetworkSettings") or {}).get("Ports") or {}
        destination = (self.destination.get("NetworkSettings") or {}).get("Ports") or {}
        stopped = not (
            (self.source.get("State") or {}).get("Running") and (self.destination.get("State") or {}).get("Running")
        )
        for port in sorted(set(source) | set(destination)):
            one, other = (_bound(side.get(port)) for side in (source, destination))
            if one == other:
                continue
            # IPv6 may be switched on at one host only; the port's number must still be the same.
            numbers = {entry.rsplit(":", 1)[-1] for entry in one} == {entry.rsplit(":", 1)[-1] for entry in other}
            why = "ports are bound while a container runs" if stopped else "bound on other addresses of the host"
            expected = stopped or numbers
            self.add(
                "NetworkSettings.Ports.%s" % port,
                json.dumps(one),
                json.dumps(other),
                expected,
                why if expected else "clients must find it at the same port",
            )

    def mounts(self) -> None:
        source = {mount.destination: mount for mount in mounts(self.source)}
        destination = {mount.destination: mount for mount in mounts(self.destination)}
        for place in sorted(set(source) | set(destination)):
            one, other = source.get(place), destination.get(place)
            path = "Mounts[%s]" % place
            if one is None or other is None:
                self.add(path, _kind(one), _kind(other), False, "a restore needs the same set of mounts")
                continue
            for name in ("kind", "name", "driver", "read_write", "propagation", "source", "mode"):
                before, after = getattr(one, name), getattr(other, name)
                if before == after:
                    continue
                expected, why = False, "it must be the same on both hosts"
                if name == "source" and one.kind == "volume":
                    expected, why = True, "a path below the data-root of this host"
                elif name == "mode" and one.declared_by == "" and after in ("", "z"):
                    expected, why = True, "it is asked for by name now"
                self.add("%s.%s" % (path, name), json.dumps(before), json.dumps(after), expected, why)


def _kind(mount: Mount | None) -> str:
    return "no mount" if mount is None else mount.kind


def _bound(entries: list[JSON] | None) -> list[str]:
    return sorted("%s:%s" % (entry.get("HostIp") or "", entry.get("HostPort") or "") for entry in entries or [])


def _own_aliases(inspect: Inspect, aliases: list[str] | None) -> list[str]:
    """Aliases without those that engines add by themselves when they are asked with an API below 1.45."""
    automatic = (str(inspect.get("Id") or "")[:SHORT_ID], (inspect.get("Config") or {}).get("Hostname") or "")
    return [alias for alias in aliases or [] if alias not in automatic]


def _parts(row: Field, value: t.Any) -> JSON | None:
    """A value by the names of its parts: keys, NAME of NAME=VALUE, targets of mounts. None where it has no names."""
    if value is None:
        return {}
    if isinstance(value, dict):
        return {str(name): item for name, item in value.items()}
    if not isinstance(value, list) or row.view == SHOW:
        return None
    parts: JSON = {}
    for entry in value:
        # A list again: that is what _text() knows how to show.
        name = str(entry.get("Target")) if isinstance(entry, dict) else str(entry).split("=", 1)[0]
        parts.setdefault(name, []).append(entry)
    return parts


def compare(inspect_source: Inspect, inspect_destination: Inspect, *, api_version: str = "1.51") -> list[Difference]:
    """The differences between a container before its move and its copy after it.

    ``expected`` is true for what has to differ (ids, paths, generated addresses) and for what the creation asked
    for otherwise; everything else is a defect. Values of environment, labels and options never appear.

    :param inspect_source: the source's inspect data from before the move
    :param inspect_destination: the copy's, best asked with the same API version
    :param api_version: with which the copy was created
    """
    comparison = _Comparison(inspect_source, inspect_destination, api_version)
    comparison.section(TOP, inspect_source, inspect_destination)
    comparison.state()
    for section in (CONFIG, HOST, NETWORK):
        comparison.section(section, inspect_source.get(section) or {}, inspect_destination.get(section) or {})
    comparison.networks()
    comparison.ports()
    comparison.mounts()
    return comparison.found


def unexpected(differences: t.Iterable[Difference]) -> list[Difference]:
    """Those that must not be there after a good move."""
    return [difference for difference in differences if not difference.expected]
