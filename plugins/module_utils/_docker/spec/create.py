# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""From the inspect data of a container on the source to the creation call on the destination.

What happens with each field is in one table, FIELDS in _docker/spec/fields.py. How, for the rows that say "transform", is in
TRANSFORMS below.
"""

from __future__ import annotations

import copy
import typing as t
from dataclasses import dataclass

from .fields import CONFIG, DROP, HOST, NETWORK, TRANSFORM, Field, fields_by_path, is_empty, parse_api
from .mounts import requested_binds, requested_mounts
from .networks import (
    ENDPOINT_SYSCTLS,
    REQUESTED,
    endpoint_settings,
    interface_sysctls,
    networks,
    port_bindings,
    primary_network,
)

JSON = dict[str, t.Any]
Inspect = t.Mapping[str, t.Any]


class Note(t.TypedDict):
    """A field and what is to be said about it; never its value."""

    field: str
    why: str


class ConnectRequest(t.TypedDict):
    """One ``POST /networks/NETWORK/connect`` after the creation: ``{"Container": ID, "EndpointConfig": settings}``."""

    network: str
    settings: JSON


class CreationSpec(t.TypedDict):
    """Everything that re-creates a container. Holds secrets (environment): 0600 files only, redact() for people."""

    #: the ``name`` parameter of the creation call
    name: str
    #: the body of ``POST /containers/create``
    body: JSON
    #: to be done one by one after the creation and before the start; empty from API 1.44 on
    endpoints_to_connect: list[ConnectRequest]
    #: for ``POST /containers/ID/update {"RestartPolicy": ...}`` once the restore is proved
    restart_policy: JSON
    #: fields that the table does not know: copied where there is a place for them
    unknown_fields: list[str]
    #: fields in use that the destination's API cannot express: the copy would be another container
    unsupported_fields: list[Note]
    #: fields that are sent otherwise than the source shows them
    changes: list[Note]


class EndpointPlan(t.NamedTuple):
    """Which endpoints go into the creation body, and which are connected afterwards."""

    endpoints_at_create: dict[str, JSON]
    endpoints_to_connect: list[ConnectRequest]


@dataclass(frozen=True)
class Context:
    """What the transforms need to know."""

    inspect: Inspect
    api: tuple[int, int]
    image_id: str
    reference_image_id: str | None

    @property
    def host(self) -> Inspect:
        return self.inspect.get("HostConfig") or {}


class Unsent:
    """The value of a field that is not sent."""

    def __init__(self, filled: bool) -> None:
        #: whether the destination fills it in by itself, with a value of its own
        self.filled = filled


OMIT = Unsent(filled=False)
FILLED = Unsent(filled=True)


def _hostname(value: t.Any, context: Context) -> t.Any:
    # moby refuses a hostname together with the host's UTS namespace, though inspect shows one.
    return FILLED if context.host.get("UTSMode") == "host" else value


def _image(value: t.Any, context: Context) -> t.Any:
    return value if value and context.reference_image_id == context.image_id else context.image_id


def _mac_address(value: t.Any, context: Context) -> t.Any:
    return value if value and context.api < (1, 44) else OMIT


def _console_size(value: t.Any, context: Context) -> t.Any:
    return value if context.api >= (1, 42) else [0, 0]


def _sysctls(value: t.Any, context: Context) -> t.Any:
    return value if context.api < (1, 46) else interface_sysctls(context.inspect)[0]


#: path of a field -> (its value, context) -> what is sent. One for each row of Config and HostConfig that says
#: "transform".
TRANSFORMS: dict[str, t.Callable[[t.Any, Context], t.Any]] = {
    "Config.Hostname": _hostname,
    "Config.Image": _image,
    # mergeAndVerifyConfig in moby's daemon/create.go: null takes the image's entry point, [""] ends as null again.
    "Config.Entrypoint": lambda value, context: value or [""],
    "Config.MacAddress": _mac_address,
    "HostConfig.Binds": lambda value, context: requested_binds(context.inspect),
    "HostConfig.NetworkMode": lambda value, context: primary_network(context.inspect),
    "HostConfig.PortBindings": lambda value, context: port_bindings(context.inspect),
    "HostConfig.RestartPolicy": lambda value, context: {"Name": "no", "MaximumRetryCount": 0},
    "HostConfig.VolumesFrom": lambda value, context: None,
    "HostConfig.ConsoleSize": _console_size,
    "HostConfig.Sysctls": _sysctls,
    "HostConfig.Mounts": lambda value, context: requested_mounts(context.inspect) or OMIT,
}


_NOT_WORTH_A_WORD = ("HostConfig.ConsoleSize",)


def endpoint_plan(inspect: Inspect, api_version: str, *, keep_addresses: t.Collection[str] = ()) -> EndpointPlan:
    """Endpoints for a destination that speaks ``api_version``: all at creation from API 1.44 on, before that the
    first only.

    :param keep_addresses: networks (names) on which the addresses in use now are asked for, also where they were
        only assigned
    """
    sysctls = interface_sysctls(inspect)[1]
    settings = {
        network.name: endpoint_settings(
            network,
            api_version,
            sysctls=sysctls if network.primary else "",
            keep_addresses=network.name in keep_addresses,
        )
        for network in networks(inspect)
    }
    if parse_api(api_version) >= (1, 44):
        return EndpointPlan(settings, [])
    names = list(settings)
    return EndpointPlan(
        {name: settings[name] for name in names[:1]},
        [{"network": name, "settings": settings[name]} for name in names[1:]],
    )


def restart_policy(inspect: Inspect) -> JSON:
    """The container's own restart policy, in the form that ``POST /containers/ID/update`` takes."""
    policy = (inspect.get("HostConfig") or {}).get("RestartPolicy") or {}
    return {"Name": policy.get("Name") or "no", "MaximumRetryCount": policy.get("MaximumRetryCount") or 0}


def creation_parameters(
    inspect: Inspect,
    *,
    image_id: str,
    reference_image_id: str | None = None,
    api_version: str,
    keep_addresses: t.Collection[str] = (),
) -> CreationSpec:
    """Everything that re-creates the container of ``inspect`` on a destination. Holds its environment: treat it as
    a secret.

    :param inspect: data of ``GET /containers/ID/json`` of the running source, best taken with API 1.51 or older
        (only there is a requested MAC address to be seen)
    :param image_id: id of the image on the destination
    :param reference_image_id: id that the source's image reference (Config.Image) resolves to on the destination,
        if at all
    :param api_version: with which the destination is going to be asked; use its highest
    :param keep_addresses: networks (names) on which the addresses in use now are asked for, also where they were
        only assigned
    """
    context = Context(inspect, parse_api(api_version), image_id, reference_image_id)
    notes: dict[str, list[t.Any]] = {"unknown": [], "unsupported": [], "changes": []}
    body = _section(CONFIG, inspect.get("Config") or {}, context, notes)
    body["HostConfig"] = _section(HOST, inspect.get("HostConfig") or {}, context, notes)
    plan = endpoint_plan(inspect, api_version, keep_addresses=keep_addresses)
    body["NetworkingConfig"] = {"EndpointsConfig": plan.endpoints_at_create}
    _note_nested(context, notes)
    _note_elsewhere(inspect, notes)
    return {
        "name": str(inspect.get("Name") or "").lstrip("/"),
        "body": body,
        "endpoints_to_connect": plan.endpoints_to_connect,
        "restart_policy": restart_policy(inspect),
        "unknown_fields": sorted(notes["unknown"]),
        "unsupported_fields": notes["unsupported"],
        "changes": notes["changes"],
    }


def _section(section: str, values: Inspect, context: Context, notes: dict[str, list[t.Any]]) -> JSON:
    """One section of the creation body, by the table."""
    table = fields_by_path()
    sent: JSON = {}
    # A transform may have something to add where inspect leaves an empty field out (Mounts).
    absent = [
        row.name
        for row in table.values()
        if row.section == section and row.action == TRANSFORM and row.name not in values
    ]
    for name in list(values) + absent:
        path = "%s.%s" % (section, name)
        value = values.get(name)
        row = table.get(path)
        if row is None:
            notes["unknown"].append(path)
            sent[name] = copy.deepcopy(value)
            continue
        if row.action == DROP:
            continue
        if not _supported(row, context.api):
            if not is_empty(value):
                notes["unsupported"].append(_version_note(path, row))
            continue
        result = TRANSFORMS[path](value, context) if row.action == TRANSFORM else value
        if isinstance(result, Unsent):
            if not is_empty(value):
                notes["changes"].append({"field": path, "why": row.why})
            continue
        if name in values or not is_empty(result):
            sent[name] = copy.deepcopy(result)
        if result != value and not (is_empty(result) and is_empty(value)) and path not in _NOT_WORTH_A_WORD:
            notes["changes"].append({"field": path, "why": row.why})
    return sent


def _supported(row: Field, api: tuple[int, int]) -> bool:
    return not (row.since and api < parse_api(row.since)) and not (row.until and api >= parse_api(row.until))


def _version_note(path: str, row: Field) -> Note:
    if row.since:
        return {"field": path, "why": "the destination's API is too old for it: %s or newer is needed" % row.since}
    return {"field": path, "why": "the destination's API no longer has it: it was removed in %s" % row.until}


#: Parts of fields that came later than the field: path, first API version, how to find out whether they are in use.
_NESTED: tuple[tuple[str, str, t.Callable[[Inspect, Inspect], bool]], ...] = (
    (
        "Config.Healthcheck.StartInterval",
        "1.44",
        lambda config, host: bool((config.get("Healthcheck") or {}).get("StartInterval")),
    ),
    (
        "HostConfig.Mounts.BindOptions.CreateMountpoint",
        "1.42",
        lambda config, host: _mount_option(host, "Bind", "CreateMountpoint"),
    ),
    (
        "HostConfig.Mounts.BindOptions.ReadOnlyNonRecursive",
        "1.44",
        lambda config, host: _mount_option(host, "Bind", "ReadOnlyNonRecursive"),
    ),
    (
        "HostConfig.Mounts.BindOptions.ReadOnlyForceRecursive",
        "1.44",
        lambda config, host: _mount_option(host, "Bind", "ReadOnlyForceRecursive"),
    ),
    ("HostConfig.Mounts.VolumeOptions.Subpath", "1.45", lambda config, host: _mount_option(host, "Volume", "Subpath")),
    ("HostConfig.Mounts.TmpfsOptions.Options", "1.46", lambda config, host: _mount_option(host, "Tmpfs", "Options")),
)


def _mount_option(host: Inspect, kind: str, option: str) -> bool:
    return any((mount.get(kind + "Options") or {}).get(option) for mount in host.get("Mounts") or [])


def _note_nested(context: Context, notes: dict[str, list[t.Any]]) -> None:
    """Name what the destination's API cannot express below the level of fields."""

    def missing(path: str, since: str) -> None:
        notes["unsupported"].append(
            {"field": path, "why": "the destination's API is too old for it: %s or newer is needed" % since}
        )

    for path, since, used in _NESTED:
        if context.api < parse_api(since) and used(context.inspect.get("Config") or {}, context.host):
            missing(path, since)
    for network in networks(context.inspect):
        path = "NetworkSettings.Networks.%s." % network.name
        if network.gw_priority and context.api < (1, 48):
            missing(path + "GwPriority", "1.48")
        if ENDPOINT_SYSCTLS in network.driver_opts and context.api < (1, 46):
            missing(path + "DriverOpts", "1.46")
        # Below 1.44 only the container's own network can have one, through Config.MacAddress.
        if network.mac_origin == REQUESTED and not network.primary and context.api < (1, 44):
            missing(path + "MacAddress", "1.44")


def _note_elsewhere(inspect: Inspect, notes: dict[str, list[t.Any]]) -> None:
    """Name unknown fields outside of Config and HostConfig; those of endpoints are copied, for the others there is no
    place.
    """
    table = fields_by_path()
    notes["unknown"].extend(name for name in inspect if name not in table)
    settings = inspect.get("NetworkSettings") or {}
    notes["unknown"].extend("%s.%s" % (NETWORK, name) for name in settings if "%s.%s" % (NETWORK, name) not in table)
    for network in networks(inspect):
        notes["unknown"].extend("NetworkSettings.Networks.%s.%s" % (network.name, name) for name in network.unknown)
