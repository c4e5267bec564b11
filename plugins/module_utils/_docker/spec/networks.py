# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Networks and published ports of a container, from inspect data, and the endpoint settings that ask for the same
again.
"""

from __future__ import annotations

import ipaddress
import re
import typing as t
from dataclasses import dataclass, field

from ..._network.addresses import Addresses
from ..._network.sockets import Address
from .fields import ENDPOINTS, fields_by_path, is_empty, parse_api

JSON = dict[str, t.Any]
Inspect = t.Mapping[str, t.Any]

SHORT_ID = 12
#: driver option of an endpoint that holds the sysctls of its interface, from API 1.46 on
ENDPOINT_SYSCTLS = "com.docker.network.endpoint.sysctls"

# net.ipv4.conf.eth0.log_martians and the like: sysctls of one interface (handleSysctlBC in moby's create route)
_INTERFACE_SYSCTL = re.compile(r"^(net\.[^.]+\.[^.]+)\.(eth\d+)\.(.+)$")

REQUESTED = "requested"
GENERATED = "generated"
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Network:
    """One network that the container is on, as the source has it. Its driver and subnets are in ``docker network
    inspect``.
    """

    name: str
    network_id: str
    #: whether it is the network of HostConfig.NetworkMode
    primary: bool
    #: without the automatic short container id
    aliases: tuple[str, ...]
    #: NAME:ALIAS
    links: tuple[str, ...]
    driver_opts: t.Mapping[str, str]
    gw_priority: int
    #: static addresses that the user asked for; empty where the engine chose
    ipv4_requested: str
    ipv6_requested: str
    #: IPAMConfig as it was asked for, without empty parts
    ipam: t.Mapping[str, t.Any]
    #: addresses in use now; empty where the container does not run
    ipv4_assigned: str
    ipv6_assigned: str
    #: the MAC address in use now
    mac: str
    #: requested, generated or unknown (see _mac_origin)
    mac_origin: str
    #: fields of the endpoint that the table does not know
    unknown: t.Mapping[str, t.Any] = field(default_factory=dict)


def _mac_origin(mac: str, ipv4: str, container_wide: str, primary: bool) -> str:
    """Whether a MAC address was asked for.

    The endpoint's MacAddress is the generated one as soon as the container runs. Certain are: Config.MacAddress,
    which inspect fills with the requested address of the container's own network (below API 1.52 only: ask with
    1.51 or older); the form 02:42 + IPv4 address, which engines up to 27 generate; an address without the "local"
    bit, which none generates. Engines from 28 on generate random local ones: there the address of a second network
    remains unknown.
    """
    if not mac:
        return GENERATED
    if primary and container_wide:
        return REQUESTED if mac.lower() == container_wide.lower() else UNKNOWN
    try:
        first = int(mac.split(":")[0], 16)
        by_ip = "02:42:" + ":".join("%02x" % byte for byte in ipaddress.IPv4Address(ipv4).packed) if ipv4 else ""
    except ValueError:
        return UNKNOWN
    if mac.lower() == by_ip:
        return GENERATED
    return UNKNOWN if first & 2 else REQUESTED


def primary_network(inspect: Inspect) -> str:
    """Name of the network of HostConfig.NetworkMode, or of the first one where the container has left that.

    ``docker run --network ID`` leaves the id there, old clients leave "default". host, none and container:X come
    back as they are.
    """
    mode: str = (inspect.get("HostConfig") or {}).get("NetworkMode") or "default"
    endpoints = (inspect.get("NetworkSettings") or {}).get("Networks") or {}
    if mode == "default":
        mode = "bridge"
    if mode in endpoints or mode in ("host", "none") or mode.startswith("container:"):
        return mode
    for name, endpoint in endpoints.items():
        network_id = (endpoint or {}).get("NetworkID") or ""
        # A short prefix could be anything: the engine's own short ids have 12 digits.
        if network_id and len(mode) >= SHORT_ID and network_id.startswith(mode):
            return str(name)
    if not endpoints:
        return mode
    # Gone from its first network (docker network disconnect): the engine gives the default route to the highest
    # priority and, among equals, to the first name.
    return str(min(endpoints, key=lambda name: (-((endpoints[name] or {}).get("GwPriority") or 0), name)))


def networks(inspect: Inspect) -> list[Network]:
    """The networks of the container, its own (HostConfig.NetworkMode) first, the others by name.

    Empty for ``--network host``, ``none`` and ``container:X``: there is nothing to ask for.
    """
    primary = primary_network(inspect)
    if primary in ("host", "none") or primary.startswith("container:"):
        return []
    short_id = str(inspect.get("Id") or "")[:SHORT_ID]
    container_wide = (inspect.get("Config") or {}).get("MacAddress") or ""
    known = {row.name for row in fields_by_path().values() if row.section == ENDPOINTS}
    found = []
    for name, settings in ((inspect.get("NetworkSettings") or {}).get("Networks") or {}).items():
        endpoint = settings or {}
        ipam = endpoint.get("IPAMConfig") or {}
        ipv4 = endpoint.get("IPAddress") or ""
        mac = endpoint.get("MacAddress") or ""
        found.append(
            Network(
                name=name,
                network_id=endpoint.get("NetworkID") or "",
                primary=name == primary,
                aliases=tuple(dict.fromkeys(alias for alias in endpoint.get("Aliases") or [] if alias != short_id)),
                links=tuple(endpoint.get("Links") or ()),
                driver_opts=dict(endpoint.get("DriverOpts") or {}),
                gw_priority=endpoint.get("GwPriority") or 0,
                ipv4_requested=ipam.get("IPv4Address") or "",
                ipv6_requested=ipam.get("IPv6Address") or "",
                ipam={key: value for key, value in ipam.items() if not is_empty(value)},
                ipv4_assigned=ipv4,
                ipv6_assigned=endpoint.get("GlobalIPv6Address") or "",
                mac=mac,
                mac_origin=_mac_origin(mac, ipv4, container_wide, name == primary),
                unknown={key: value for key, value in endpoint.items() if key not in known},
            )
        )
    return sorted(found, key=lambda network: (not network.primary, network.name))


def interface_sysctls(inspect: Inspect) -> tuple[dict[str, str], str]:
    """Sysctls of the container without those of eth0, and those as the endpoint's driver option (empty: there are
    none).

    Only eth0 ever worked reliably; what names another interface stays, for the engine to refuse.
    """
    rest: dict[str, str] = {}
    moved = []
    for key, value in ((inspect.get("HostConfig") or {}).get("Sysctls") or {}).items():
        match = _INTERFACE_SYSCTL.match(key)
        if match is not None and match.group(2) == "eth0":
            moved.append("%s.IFNAME.%s=%s" % (match.group(1), match.group(3), value))
        else:
            rest[key] = value
    return rest, ",".join(moved)


def endpoint_settings(network: Network, api_version: str, *, sysctls: str = "", keep_addresses: bool = False) -> JSON:
    """What asks for this endpoint on a destination that speaks ``api_version``.

    :param sysctls: driver option from interface_sysctls(), for the container's own network
    :param keep_addresses: ask for the addresses that are in use now, also where they were only assigned; the engine
        accepts that only on networks with a configured subnet
    """
    api = parse_api(api_version)
    settings: JSON = dict(network.unknown)
    ipam: JSON = dict(network.ipam)
    if keep_addresses and network.ipv4_assigned:
        ipam["IPv4Address"] = network.ipv4_assigned
    if keep_addresses and network.ipv6_assigned:
        ipam["IPv6Address"] = network.ipv6_assigned
    if ipam:
        settings["IPAMConfig"] = ipam
    if network.links:
        settings["Links"] = list(network.links)
    if network.aliases:
        settings["Aliases"] = list(network.aliases)
    driver_opts = dict(network.driver_opts)
    if sysctls and api >= (1, 46):
        given = driver_opts.get(ENDPOINT_SYSCTLS)
        # The endpoint's own settings come last and win, as in the engine's migration.
        driver_opts[ENDPOINT_SYSCTLS] = sysctls if not given else "%s,%s" % (sysctls, given)
    if driver_opts:
        settings["DriverOpts"] = driver_opts
    if network.gw_priority and api >= (1, 48):
        settings["GwPriority"] = network.gw_priority
    if network.mac and (network.mac_origin == REQUESTED or keep_addresses) and api >= (1, 44):
        settings["MacAddress"] = network.mac
    return settings


# ------------------------------------------------------------------------------------------------------ published ports


@dataclass(frozen=True)
class PublishedPort:
    """One port that the container publishes on the host."""

    #: "80/tcp"
    port: str
    #: empty: all addresses
    host_ip: str
    #: 0: the engine chooses, and what it chose is not known (the container does not run)
    host_port: int
    #: whether the engine had chosen the number
    pinned: bool


def _in_range(wanted: str, port: str) -> bool:
    """Whether a bound port may have come from the HostPort that was asked for ("", "0", "8000-8010")."""
    low, dash, high = wanted.partition("-")
    if not dash:
        return wanted in ("", "0") or wanted == port
    return port.isdigit() and int(low) <= int(port) <= int(high)


def _take(bound: list[JSON], wanted: str, addresses: tuple[str, ...] | None) -> JSON | None:
    for entry in bound:
        if _in_range(wanted, entry.get("HostPort") or "") and (
            addresses is None or (entry.get("HostIp") or "") in addresses
        ):
            bound.remove(entry)
            return entry
    return None


_ALL4 = "0.0.0.0"  # noqa: S104  # what inspect shows, nothing listens here
_ALL6 = "::"
_ANY4 = (_ALL4, "")
_ANY6 = (_ALL6,)
#: ways in which inspect says "all addresses of the host"
ANY_ADDRESS = ("", _ALL4, _ALL6)


def _pin(wanted: str, host_ip: str, bound: list[JSON], only: bool) -> list[tuple[str, str]]:
    """(address, port) for one binding whose port the engine chose, taken from what is really bound."""
    if host_ip:
        entry = _take(bound, wanted, (host_ip,))
        return [(host_ip, entry["HostPort"])] if entry else []
    four = _take(bound, wanted, _ANY4)
    if four is None:
        # Only IPv6, or an address from the daemon's own "ip" setting.
        entry = _take(bound, wanted, None)
        return [("", entry["HostPort"])] if entry else []
    if _take(bound, four["HostPort"], _ANY6) is not None or not only:
        return [("", four["HostPort"])]
    # Engines before 20.10.7 could choose another number for IPv6.
    six = _take(bound, wanted, _ANY6)
    if six is None:
        return [("", four["HostPort"])]
    return [(_ALL4, four["HostPort"]), (_ALL6, six["HostPort"])]


def published_ports(inspect: Inspect) -> list[PublishedPort]:
    """The ports that the container publishes, each with the number it has now.

    Also those of ``--publish-all``. A container on the host's network publishes none by itself: its bindings come
    back as asked.
    """
    host = inspect.get("HostConfig") or {}
    wanted: dict[str, list[JSON]] = {}
    for port, bindings in (host.get("PortBindings") or {}).items():
        # An empty list is one binding with everything left to the engine (handlePortBindingsBC in moby's create route).
        wanted[port] = list(bindings or [{}])
    if host.get("PublishAllPorts"):
        for port in (inspect.get("Config") or {}).get("ExposedPorts") or {}:
            wanted.setdefault(port, [{}])
    ports = []
    for port, bindings in wanted.items():
        bound = list(((inspect.get("NetworkSettings") or {}).get("Ports") or {}).get(port) or [])
        fixed = [binding for binding in bindings if _fixed(binding)]
        free = [binding for binding in bindings if not _fixed(binding)]
        for binding in fixed:
            host_ip = binding.get("HostIp") or ""
            ports.append(PublishedPort(port, host_ip, int(binding["HostPort"]), False))
            for addresses in ((host_ip,),) if host_ip else (_ANY4, _ANY6):
                _take(bound, binding["HostPort"], addresses)
        for binding in free:
            host_ip = binding.get("HostIp") or ""
            pinned = _pin(binding.get("HostPort") or "", host_ip, bound, len(free) == 1)
            ports.extend(PublishedPort(port, address, int(number), True) for address, number in pinned)
            if not pinned:
                ports.append(PublishedPort(port, host_ip, 0, False))
    return ports


def _fixed(binding: JSON) -> bool:
    number = binding.get("HostPort") or ""
    return number.isdigit() and int(number) > 0


def port_bindings(inspect: Inspect) -> dict[str, list[JSON]]:
    """HostConfig.PortBindings to send, every port with the number it has now."""
    ports = published_ports(inspect)
    wanted = (inspect.get("HostConfig") or {}).get("PortBindings") or {}
    sent: dict[str, list[JSON]] = {}
    for key in dict.fromkeys(port.port for port in ports):
        of_key = [port for port in ports if port.port == key]
        if all(port.host_port for port in of_key):
            sent[key] = [{"HostIp": port.host_ip, "HostPort": str(port.host_port)} for port in of_key]
        elif key in wanted:
            # Not all numbers are known: as asked. --publish-all needs nothing here, the flag itself is sent.
            sent[key] = list(wanted[key] or [{"HostIp": "", "HostPort": ""}])
    return sent


# -- what becomes of addresses

# Networks of one host: what leaves them carries the host's address, so that a connection knows the host, not the container.
_HIDDEN = ("bridge", "host", "null", "nat")


def addresses_after(
    source: t.Mapping[str, t.Any], destination: t.Mapping[str, t.Any], drivers: t.Mapping[str, str]
) -> Addresses:
    """Compare the addresses that a container has with those that its copy, created and not started, has asked for.

    :param drivers: the driver of each network of the copy, by name, on the destination.
    """
    asked = {network.name: network for network in networks(destination)}
    there: set[Address] = set()
    reachable: set[Address] = set()
    for network in networks(source):
        copy = asked.get(network.name)
        if copy is None:
            continue
        pairs = ((network.ipv4_assigned, copy.ipv4_requested), (network.ipv6_assigned, copy.ipv6_requested))
        same = {ipaddress.ip_address(now) for now, wanted in pairs if now and wanted and _same_address(now, wanted)}
        there |= same
        if drivers.get(network.name, "bridge") not in _HIDDEN:
            reachable |= same
    return Addresses(frozenset(there), frozenset(reachable))


def _same_address(one: str, other: str) -> bool:
    return ipaddress.ip_address(one) == ipaddress.ip_address(other)
