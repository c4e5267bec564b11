# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""What programs have made in the container's network that a move would lose, or that would be in its way.

Pure rules over what ``_preflight/facts/network.py`` saw.

Addresses, routes, rules, neighbours, settings of devices and firewall rules that were made inside are carried over, see
``_surroundings/network.py`` and ``_surroundings/firewall.py``.
"""

from __future__ import annotations

import typing as t

from ..finding import ERROR, Case, Told, rule

_Found = t.Iterator[Told]

_NAMED = 3
_LOSE = "if its programs make it again by themselves, put {0} into migrate_ignore_rules"


def _made(case: Case, name: str) -> t.Any:
    return ((case.container or {}).get("network_made") or {}).get(name)


@rule(ERROR, "network devices that were made inside", "reproductions, run", "processes", volatile=True)
def network_devices_inside(case: Case) -> _Found:
    devices = _made(case, "devices")
    if devices:
        yield (
            f"Network devices were made inside of the container, and the copy would not have them: {', '.join(devices)}.",
            f"Remove them for the time of the move, or, {_LOSE.format('network_devices_inside')}.",
        )


@rule(ERROR, "traffic control that was set up inside", "run", "processes", volatile=True)
def traffic_control_inside(case: Case) -> _Found:
    shaped = _made(case, "shaped")
    if shaped:
        yield (
            f"Queueing disciplines were set inside of the container, which the copy would not have: {', '.join(shaped)}.",
            f"Remove them (tc qdisc del), or, {_LOSE.format('traffic_control_inside')}.",
        )


@rule(ERROR, "policies and associations of IPsec", "run", "processes", volatile=True)
def ipsec_inside(case: Case) -> _Found:
    number = _made(case, "ipsec")
    if number:
        yield (
            f"The container's network has {number} association(s) and policies of IPsec, which the copy would not have.",
            f"End them (ip xfrm state, ip xfrm policy), or, {_LOSE.format('ipsec_inside')}.",
        )


@rule(ERROR, "sets of ipset(8)", "by reading", "processes", volatile=True)
def ipsets_inside(case: Case) -> _Found:
    names = _made(case, "ipsets")
    if names:
        yield (
            f"The container's network has sets of ipset, which the copy would not have: {', '.join(names)}.",
            f"Use sets of nftables, or, {_LOSE.format('ipsets_inside')}.",
        )


@rule(ERROR, "a permanent neighbour entry of the gateway", "run", "processes", volatile=True)
def gateway_neighbour_inside(case: Case) -> _Found:
    gateways = _made(case, "gateways")
    if gateways:
        yield (
            f"The MAC address of the gateway was set inside ({', '.join(gateways)}); there it is another one.",
            f"Remove the entry (ip neighbour del), or, {_LOSE.format('gateway_neighbour_inside')}.",
        )


@rule(ERROR, "firewall rules inside that go by the state of connections which are kept", "run", "processes", "network")
def firewall_stateful_inside(case: Case) -> _Found:
    programs = _made(case, "stateful")
    kept = [one for one in case.network.connections if one.address in case.network.after.reachable]
    if programs and kept:
        yield (
            f"Firewall rules inside of the container ask for the state of connections, or translate addresses "
            f"({', '.join(programs)} lists them). What the kernel knows of open connections does not move, so the copy's rules "
            f"may drop what comes for them: {', '.join(map(str, kept[:_NAMED]))}"
            + (f" and {len(kept) - _NAMED} more." if len(kept) > _NAMED else "."),
            (
                "Remove these rules for the time of the move, or have these connections closed before it. Where the rules let "
                "packets of theirs pass in any case, put firewall_stateful_inside into migrate_ignore_rules."
            ),
        )


@rule(
    ERROR,
    "connections that are kept and that the kernel encrypts (kTLS)",
    "criu 4.2 by reading",
    "processes",
    "network",
    volatile=True,
)
def tcp_ulp(case: Case) -> _Found:
    upper = (case.container or {})["processes"].get("upper_protocols") or {}
    kept = [
        f"{one} ({upper[str(one.inode)]})"
        for one in case.network.sockets.inet
        if str(one.inode) in upper and case.network.after.keep(one)
    ]
    if kept:
        yield (
            (
                "The kernel encrypts connections, or runs another protocol on top of them (TCP_ULP), and CRIU does not store "
                f"that: {', '.join(kept[:_NAMED])}{f' and {len(kept) - _NAMED} more' if len(kept) > _NAMED else ''}. The copy "
                "would send on them in the clear."
            ),
            (
                "Turn kTLS off in the program (nginx: ssl_conf_command Options -KTLS; OpenSSL: without SSL_OP_ENABLE_KTLS), or "
                "have these connections closed before the move."
            ),
        )
