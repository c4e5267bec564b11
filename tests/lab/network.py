# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab's network: a bridge in the root namespace, a network namespace and a cable per host, NAT to the outside.

Every name in the kernel begins with the bridge's name, and the bridge's alias tells whose lab it is; `down` needs no
other record to find them. The only settings of the machine that are touched are net.ipv4.ip_forward and those of
limits.py (put back by the last lab that goes down) and, where a firewall drops forwarded packets, two ACCEPT rules that
carry the lab's name.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import shutil
import socket
import time
from pathlib import Path
from typing import Any

from . import limits
from .settings import Settings, write_json
from .shell import LabError, exclusive, mount_points, note, run

_ALIAS = "livemigrate-lab "
_CARRIER_SECONDS = 10
_IP_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
_NETNS_DIRECTORY = Path("/run/netns")
_MACHINE_STATE = Path("/run/livemigrate-lab.json")
_MACHINE_LOCK = Path("/run/lock/livemigrate-lab")

# Documentation ranges (RFC 5737), then the range for benchmarks between networks (RFC 2544): none is a real network,
# but a machine in somebody else's lab may itself sit in one.
_CANDIDATES = ("192.0.2", "198.51.100", "203.0.113", *(f"198.18.{third}" for third in range(16)))


def namespace(settings: Settings, name: str) -> str:
    """Name of a host's network namespace, as `ip netns` lists it."""
    return f"{settings.bridge}-{name}"


def cable(settings: Settings, octet: int) -> str:
    """Name of the root end of a host's cable (a veth pair; the other end is eth0 in the host)."""
    return f"{settings.bridge}.{octet}"


def _ip_json(*arguments: str) -> list[dict[str, Any]]:
    done = run(["ip", "-j", *arguments], check=False)
    value = json.loads(done.stdout) if done.stdout.strip() else []
    return [entry for entry in value if entry]


def _unborn(settings: Settings) -> str:
    return f"{settings.bridge}.new"


def lab_bridges() -> dict[str, str]:
    """Bridges of all labs on this machine: name to the directory of its lab."""
    found = {}
    for link in _ip_json("link", "show", "type", "bridge"):
        alias = str(link.get("ifalias", ""))
        if alias.startswith(_ALIAS):
            found[str(link["ifname"])] = alias[len(_ALIAS) :]
    return found


def foreign_owner(settings: Settings) -> str | None:
    """Who else holds our bridge's name: the directory of that lab, or "" for no lab; None where it is ours or free."""
    if not Path("/sys/class/net", settings.bridge).exists():
        return None
    owner = lab_bridges().get(settings.bridge, "")
    return None if owner == str(settings.directory) else owner


def check_owner(settings: Settings) -> None:
    """Raise LabError when the bridge is there and belongs to another lab, or to something else."""
    owner = foreign_owner(settings)
    if owner is None:
        return
    if not owner:
        raise LabError(
            f"a network device {settings.bridge} exists that is no lab's: set LIVEMIGRATE_LAB_BRIDGE to another name"
        )
    raise LabError(
        f"the lab in {owner} is up and holds the bridge {settings.bridge}. Take it down there (`lab.py down`), "
        "or run a second lab beside it: set LIVEMIGRATE_LAB_BRIDGE to another name"
    )


def choose_network(settings: Settings, mirror_hosts: list[str], resolvers: list[str]) -> str:
    """The first /24 that the machine does not use: no address, no route, no name server, no package mirror in it.

    Raises LabError where the network that the user told, or every candidate, is taken.
    """
    taken: list[tuple[str, ipaddress.IPv4Network]] = []
    for link in _ip_json("-4", "address", "show"):
        if link["ifname"] == settings.bridge:
            continue
        for address in link.get("addr_info", []):
            interface = ipaddress.ip_interface(f"{address['local']}/{address['prefixlen']}")
            if isinstance(interface, ipaddress.IPv4Interface):
                taken.append((f"address of {link['ifname']}", interface.network))
    for route in _ip_json("-4", "route", "show", "table", "all"):
        if route.get("dev") == settings.bridge:
            continue
        with contextlib.suppress(ValueError):
            taken.append((f"route to {route.get('dst')}", ipaddress.IPv4Network(str(route.get("dst")))))
    for server in resolvers:
        with contextlib.suppress(ValueError):
            taken.append((f"name server {server}", ipaddress.IPv4Network(server)))
    for host in mirror_hosts:
        with contextlib.suppress(OSError):
            for *_rest, address in socket.getaddrinfo(host, None, socket.AF_INET, socket.SOCK_STREAM):
                taken.append(("the package mirror", ipaddress.IPv4Network(str(address[0]))))
    candidates = [settings.network] if settings.network else list(_CANDIDATES)
    reasons = []
    for candidate in candidates:
        network = ipaddress.IPv4Network(f"{candidate}.0/24")
        reason = next((why for why, other in taken if other.overlaps(network) and other.prefixlen), None)
        if reason is None:
            return candidate
        reasons.append(f"{candidate}.0/24: {reason}")
    raise LabError(f"no free network for the lab; set LIVEMIGRATE_LAB_NET ({'; '.join(reasons)})")


def machine_lock() -> contextlib.AbstractContextManager[None]:
    """What labs share (which networks are free, ip_forward) is looked at and changed by one of them at a time."""
    return exclusive(_MACHINE_LOCK, timeout=60)


def build(settings: Settings) -> None:
    """Bridge, NAT and forwarding. Safe to repeat. The caller has held machine_lock() since the network was chosen."""
    check_owner(settings)
    if not Path("/sys/class/net", settings.bridge).exists():
        # The name comes last: a bridge of that name without an owner would be nobody's to remove.
        unborn = _unborn(settings)
        run(["ip", "link", "delete", unborn], check=False)
        run(["ip", "link", "add", unborn, "type", "bridge", "forward_delay", "0"])
        run(["ip", "link", "set", unborn, "alias", f"{_ALIAS}{settings.directory}"])
        run(["ip", "link", "set", unborn, "name", settings.bridge])
    run(["ip", "address", "replace", f"{settings.gateway}/24", "dev", settings.bridge])
    run(["ip", "link", "set", settings.bridge, "up"])
    before: dict[str, Any] = json.loads(_MACHINE_STATE.read_text()) if _MACHINE_STATE.exists() else {}
    if not before:
        before = {
            "ip_forward": _IP_FORWARD.read_text().strip(),
            "netns_mount": _NETNS_DIRECTORY in mount_points(),
            "limits": limits.read(),
        }
        write_json(_MACHINE_STATE, before)
    if _IP_FORWARD.read_text().strip() != "1":
        _IP_FORWARD.write_text("1")
    limits.enlarge()
    _build_nat(settings)


def _build_nat(settings: Settings) -> None:
    # A table of our own: it appears and disappears in one step and shares no chain with anybody's firewall.
    # The clamp is for containers: their own bridge says 1500 bytes whatever the machine's uplink can carry.
    clamp = "tcp flags & (syn|rst) == syn tcp option maxseg size set rt mtu"
    run(
        ["nft", "-f", "-"],
        text_input=f"""
add table ip {settings.bridge}
delete table ip {settings.bridge}
table ip {settings.bridge} {{
  chain postrouting {{
    type nat hook postrouting priority srcnat
    ip saddr {settings.network}.0/24 oifname != "{settings.bridge}" masquerade
  }}
  chain forward {{
    type filter hook forward priority mangle
    iifname "{settings.bridge}" oifname != "{settings.bridge}" {clamp}
    iifname != "{settings.bridge}" oifname "{settings.bridge}" {clamp}
  }}
}}
""",
    )
    rules = _forward_rules(settings)
    if rules and not any(settings.bridge in rule for rule in _saved_rules()):
        # Docker on the machine sets this policy. ACCEPT in a table of ours would not overrule a DROP in that one.
        for rule in rules:
            run(["iptables", "-I", "FORWARD", *rule])


def _saved_rules() -> list[str]:
    if not shutil.which("iptables-save"):
        return []
    return run(["iptables-save", "-t", "filter"], check=False).stdout.splitlines()


def _forward_rules(settings: Settings) -> list[list[str]]:
    if not any(line.startswith(":FORWARD DROP") for line in _saved_rules()):
        return []
    mark = ["-m", "comment", "--comment", f"{_ALIAS.strip()}-{settings.bridge}", "-j", "ACCEPT"]
    return [["-i", settings.bridge, *mark], ["-o", settings.bridge, *mark]]


def mac(settings: Settings, octet: int) -> str:
    """A host's address on the wire: known in advance, so that neighbours need not learn a new one when it comes back."""
    return f"02:6c:6d:{':'.join(f'{int(part):02x}' for part in settings.network.split('.')[1:])}:{octet:02x}"


def plug(settings: Settings, name: str, octet: int, port: dict[str, str], *, tap: bool = False) -> None:
    """A fresh network namespace for one start of a host, and its cable to the bridge, with the faults in port applied.

    Fresh at every start, because a real host loses addresses, routes, rules and container bridges when it reboots.
    tap: the namespace is only a piece of the way: the cable goes on to a device tap0 in it, for a virtual machine.
    """
    unplug(settings, name, octet)
    inside, outside = namespace(settings, name), cable(settings, octet)
    run(["ip", "netns", "add", inside])
    run(["ip", "link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", inside])
    (_lay_to_tap if tap else _address)(settings, inside, octet)
    run(["ip", "link", "set", outside, "master", settings.bridge, "up"])
    apply_port(settings, name, octet, port)


def _address(settings: Settings, inside: str, octet: int) -> None:
    """The namespace is the host's own."""
    run(["ip", "-n", inside, "link", "set", "eth0", "address", mac(settings, octet)])
    run(["ip", "-n", inside, "link", "set", "lo", "up"])
    run(["ip", "-n", inside, "address", "add", f"{settings.network}.{octet}/24", "dev", "eth0"])
    run(["ip", "-n", inside, "link", "set", "eth0", "up"])
    run(["ip", "-n", inside, "route", "add", "default", "via", settings.gateway])
    # A new namespace copies the machine's value, which is 1 while a lab is up; a new host does not forward.
    run(["ip", "netns", "exec", inside, "sh", "-c", "echo 0 > /proc/sys/net/ipv4/ip_forward"])


def _lay_to_tap(_settings: Settings, inside: str, _octet: int) -> None:
    """The namespace joins the cable and the virtual machine's tap device, and speaks itself to nobody."""
    run(["ip", "netns", "exec", inside, "sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6"], check=False)
    run(["ip", "-n", inside, "link", "add", "join", "type", "bridge", "forward_delay", "0", "mcast_snooping", "0"])
    run(["ip", "-n", inside, "tuntap", "add", "tap0", "mode", "tap"])
    for device in ("tap0", "eth0"):
        run(["ip", "-n", inside, "link", "set", device, "master", "join"])
    for device in ("tap0", "eth0", "join"):
        run(["ip", "-n", inside, "link", "set", device, "up"])


def unplug(settings: Settings, name: str, octet: int) -> None:
    """Remove a host's cable and namespace; nothing to do where they are gone."""
    inside, outside = namespace(settings, name), cable(settings, octet)
    if Path("/sys/class/net", outside).exists():
        run(["ip", "link", "delete", outside], check=False)
    if (_NETNS_DIRECTORY / inside).exists():
        run(["ip", "netns", "delete", inside])


def apply_port(settings: Settings, name: str, octet: int, port: dict[str, str]) -> None:
    """Make a host's port on the bridge be as port says.

    partition: "all" (the port forwards nothing, the host's link stays up) or "isolated" (it cannot reach other isolated
    ports, but does reach the control node and every other host). rate: as tc writes it ("100mbit"), both directions.
    """
    inside, outside = namespace(settings, name), cable(settings, octet)
    partition = port.get("partition", "")
    run(["bridge", "link", "set", "dev", outside, "isolated", "on" if partition == "isolated" else "off"])
    _set_state(outside, "0" if partition == "all" else "3")
    for prefix, device in ((["tc"], outside), (["tc", "-n", inside], "eth0")):
        if port.get("rate"):
            shape = ["root", "tbf", "rate", port["rate"], "burst", "256kb", "latency", "50ms"]
            run([*prefix, "qdisc", "replace", "dev", device, *shape])
        else:
            run([*prefix, "qdisc", "delete", "dev", device, "root"], check=False)


def _set_state(port: str, state: str) -> None:
    """Set a port's state. The kernel refuses that (Network is down) until it has noticed that the cable is plugged in."""
    deadline = time.monotonic() + _CARRIER_SECONDS
    while True:
        done = run(["bridge", "link", "set", "dev", port, "state", state], check=False)
        if done.returncode == 0:
            return
        if time.monotonic() >= deadline:
            raise LabError(f"bridge link set dev {port} state {state}: {done.stderr.strip()}")
        time.sleep(0.1)


def tear_down(settings: Settings) -> None:
    """Remove all that the lab brought into the kernel's network, found by name. Safe to repeat."""
    with machine_lock():
        if _NETNS_DIRECTORY.is_dir():
            for entry in sorted(_NETNS_DIRECTORY.iterdir()):
                if entry.name.startswith(f"{settings.bridge}-"):
                    # Not a process of the lab (those are dead by now): somebody's `ip netns exec`. Not ours to kill.
                    pids = run(["ip", "netns", "pids", entry.name], check=False).stdout.split()
                    if pids:
                        note(f"these processes keep the network of {entry.name} alive: {' '.join(pids)}")
                    run(["ip", "netns", "delete", entry.name])
        for link in _ip_json("link", "show", "type", "veth"):
            if str(link["ifname"]).startswith(f"{settings.bridge}."):
                run(["ip", "link", "delete", str(link["ifname"])], check=False)
        if run(["nft", "list", "table", "ip", settings.bridge], check=False).returncode == 0:
            run(["nft", "delete", "table", "ip", settings.bridge])
        mark = f"{_ALIAS.strip()}-{settings.bridge}"
        for rule in _saved_rules():
            words = rule.replace('"', "").split()
            if mark in words and words[0] == "-A":
                run(["iptables", "-D", *words[1:]], check=False)
        for name in (settings.bridge, _unborn(settings)):
            if Path("/sys/class/net", name).exists():
                run(["ip", "link", "delete", name])
        if not lab_bridges() and _MACHINE_STATE.exists():
            _restore_machine(json.loads(_MACHINE_STATE.read_text()))
            _MACHINE_STATE.unlink()


def _restore_machine(before: dict[str, Any]) -> None:
    if before.get("ip_forward") and _IP_FORWARD.read_text().strip() != before["ip_forward"]:
        _IP_FORWARD.write_text(str(before["ip_forward"]))
    limits.put_back(before.get("limits", {}))
    # `ip netns add` makes this directory a mount of its own, the first time it is used after a boot.
    if not before.get("netns_mount") and _NETNS_DIRECTORY.is_dir() and not any(_NETNS_DIRECTORY.iterdir()):
        while _NETNS_DIRECTORY in mount_points():
            run(["umount", str(_NETNS_DIRECTORY)])
        with contextlib.suppress(OSError):
            _NETNS_DIRECTORY.rmdir()
