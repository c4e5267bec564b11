# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The three files that the engine writes for a container and binds into it: /etc/hosts, /etc/resolv.conf, /etc/hostname.

They lie beside the container, not in its layer, and the engine of the destination has written its own. What was edited inside
is written into these, in place: processes may have the files open, and the mounts are of these inodes. At its next start the
engine writes them anew, on the copy as on the source.

The content of a file shows whether it was edited, and not its times: a program may have edited it before the engine had noted
the container's start.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import ipaddress
import json
import os
import re
import typing as t

from .._host import mountinfo, process_resources
from .side import Side

NAME = "files"
OF_PROCESSES = False

_HOSTS, _RESOLVER, _HOSTNAME = "hosts", "resolv.conf", "hostname"
_FILES = (_HOSTS, _RESOLVER, _HOSTNAME)
_LARGEST = 1 << 20
_GATEWAY_OF_HOST = "host-gateway"


def look_ahead(side: Side) -> t.Any:
    """Nothing: they may be edited until the freeze, and are small."""
    return None


def take(side: Side, ahead: t.Any) -> t.Any:
    """Owner and mode of each of the files that is the container's own, and its text where it counts."""
    if not side.own_network:
        # They are those of the other container, or made of the host's own.
        return None
    files = {name: _file(side, name) for name in _bound(side)}
    config, host = _json(side, "config.v2.json"), _json(side, "hostconfig.json")
    hostname = str((config.get("Config") or {}).get("Hostname") or "")
    if _RESOLVER in files and not resolver_edited(files[_RESOLVER]["text"], _resolver_hash(side)):
        files[_RESOLVER]["text"] = None
    if _HOSTNAME in files and files[_HOSTNAME]["text"] == hostname + "\n":
        files[_HOSTNAME]["text"] = None
    networks = ((config.get("NetworkSettings") or {}).get("Networks") or {}).values()
    given = [one.get(key) for one in networks if one for key in ("IPAddress", "GlobalIPv6Address")]
    return {
        "files": files,
        "hostname": hostname,
        "addresses": [address for address in given if address],
        "engine_names": _engine_names(host),
    }


def _bound(side: Side) -> list[str]:
    """Those that are mounted over the places where the engine puts them; a user may have put others there."""
    mounts = {one.place: one.root for one in mountinfo.parse(process_resources.read(f"/proc/{side.init}/mountinfo"))}
    tail = os.path.join(os.path.basename(side.directory), "")
    return [name for name in _FILES if mounts.get(f"/etc/{name}", "").endswith(f"/{tail}{name}")]


def _file(side: Side, name: str) -> dict[str, t.Any]:
    path = os.path.join(side.directory, name)
    with open(path, "rb") as handle:
        found = os.fstat(handle.fileno())
        # One character a byte: nobody says that it is UTF-8.
        text = handle.read(_LARGEST + 1).decode("latin-1")
    if len(text) > _LARGEST:
        # It would have to be read and written while the container stands still; and a part of it is another file.
        raise OSError(errno.EFBIG, f"/etc/{name} is larger than {_LARGEST >> 20} MiB")
    return {"text": text, "mode": found.st_mode & 0o7777, "uid": found.st_uid, "gid": found.st_gid}


def _json(side: Side, name: str) -> dict[str, t.Any]:
    with open(os.path.join(side.directory, name), encoding="utf-8") as handle:
        found: dict[str, t.Any] = json.load(handle)
    return found


def _resolver_hash(side: Side) -> str:
    with (
        contextlib.suppress(OSError),
        open(os.path.join(side.directory, "resolv.conf.hash"), encoding="ascii") as handle,
    ):
        return handle.read().strip()
    return ""


def _engine_names(host: t.Mapping[str, t.Any]) -> list[str]:
    """Names in /etc/hosts whose address is another one on each host: of the host itself, and of linked containers."""
    names = []
    for entry in host.get("ExtraHosts") or []:
        name, _colon, address = re.sub("=", ":", entry, count=1).partition(":")
        if address == _GATEWAY_OF_HOST:
            names.append(name)
    for link in host.get("Links") or []:
        names.append(link.rpartition(":")[2].rpartition("/")[2])
    return names


# -- pure functions -----------------------------------------------------------------------------------------------


def resolver_edited(text: str, noted: str) -> bool:
    """Whether somebody has edited /etc/resolv.conf since the engine wrote it.

    :param noted: what the engine has noted beside it: ``sha256:...`` of what it wrote first. In a network with a resolver of
        the engine's it has put that into the file afterwards, which is undone here.
    """
    return noted not in (_hash(text), _hash(_before_internal(text)))


def _hash(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode("latin-1")).hexdigest()


def _before_internal(text: str) -> str:
    servers = re.search(r"^# ExtServers: \[(.*)\]$", text, re.MULTILINE)
    if servers is None:
        return text
    # `host(ADDRESS)` is one that is asked from the host's network.
    nameservers = "\n".join(f"nameserver {one}" for one in re.sub(r"host\(([^)]*)\)", r"\1", servers.group(1)).split())
    text = re.sub(r"^nameserver 127\.0\.0\.11$", nameservers, text, count=1, flags=re.MULTILINE)
    text = text.replace("(internal resolver)\n", "(legacy)\n", 1).replace(servers.group(0) + "\n", "", 1)
    if "# Option ndots from: internal\n" in text:
        text = text.replace("# Option ndots from: internal\n", "", 1)
        text = re.sub(r"^options ndots:0\n", "", text, count=1, flags=re.MULTILINE)
        text = re.sub(r"^(options .*) ndots:0$", r"\1", text, count=1, flags=re.MULTILINE)
    return text


def hosts_for_copy(
    text: str, made: str, *, addresses: t.Collection[str], hostname: str, engine_names: t.Collection[str] = ()
) -> str:
    """/etc/hosts of the source in the terms of the copy: the container's own addresses are those that it has now.

    :param text: that of the source.
    :param made: what the engine of the destination has written.
    :param addresses: what the engine of the source gave the container.
    :param engine_names: names whose addresses are the engine's to say.
    """
    own = {_address(one) for one in addresses}
    lines = [line.split("#")[0].split() for line in made.splitlines()]
    by_engine = {fields[1]: fields[0] for fields in lines if len(fields) > 1}
    now = [fields[0] for fields in lines if len(fields) > 1 and hostname in fields[1:] and _is_given(fields[0])]
    left = [one for one in now if _address(one) not in own]
    replacements: dict[str, str] = {}
    written = []
    for line in text.splitlines(keepends=True):
        fields = line.split("#")[0].split()
        address = _address(fields[0]) if fields else None
        if address is not None and address in own:
            new = replacements.get(fields[0]) or _replacement(fields[0], now, left)
            if new:
                replacements[fields[0]] = new
                written.append(line.replace(fields[0], new, 1))
        elif len(fields) > 1 and fields[1] in engine_names and fields[1] in by_engine:
            written.append(line.replace(fields[0], by_engine[fields[1]], 1))
        else:
            written.append(line)
    if all(str(one) in replacements for one in own if any((":" in now_) == (":" in str(one)) for now_ in now)):
        # Nobody took the engine's lines out, and it has written more of them here.
        more = [line + "\n" for line in made.splitlines() if line.split()[:1] and line.split()[0] in left]
        if more and written and not written[-1].endswith("\n"):
            written[-1] += "\n"
        written += more
    return "".join(written)


def _replacement(old: str, now: t.Collection[str], left: list[str]) -> str:
    """Which of the copy's addresses stands for one of the source's; nothing where none does."""
    if _address(old) in {_address(one) for one in now}:
        return old
    new = next((one for one in left if (":" in one) == (":" in old)), "")
    if new:
        left.remove(new)
    return new


def _is_given(text: str) -> bool:
    """Whether it is an address that a container is given: those of loopback are everybody's."""
    address = _address(text)
    return address is not None and not address.is_loopback


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


# -- on the copy --------------------------------------------------------------------------------------------------


def _wanted(side: Side, source: t.Any) -> dict[str, dict[str, t.Any]]:
    """What each file is to be that both have, by name."""
    wanted = {}
    for name in _bound(side):
        sent = source["files"].get(name)
        if sent is not None:
            now = _file(side, name)
            text = sent["text"]
            if text is None:
                text = now["text"]
            elif name == _HOSTS:
                text = hosts_for_copy(
                    text,
                    side.notes.setdefault("hosts", now["text"]),
                    addresses=source["addresses"],
                    hostname=source["hostname"],
                    engine_names=source["engine_names"],
                )
            wanted[name] = {**sent, "text": text, "now": now}
    return wanted


def carry(side: Side, source: t.Any) -> None:
    """Write what was edited into the copy's files."""
    for name, wanted in _wanted(side, source).items() if side.own_network else ():
        now = wanted.pop("now")
        if now == wanted:
            continue
        # In place: a new file would not be the one that is mounted.
        with open(os.path.join(side.directory, name), "r+b") as handle:
            if now["text"] != wanted["text"]:
                handle.write(wanted["text"].encode("latin-1"))
                handle.truncate()
                handle.flush()
            os.fchown(handle.fileno(), wanted["uid"], wanted["gid"])
            os.fchmod(handle.fileno(), wanted["mode"])
            os.fsync(handle.fileno())


def compare(side: Side, source: t.Any) -> list[str]:
    """The files that do not say what they said on the source, or that others may read or write."""
    if not side.own_network:
        return []
    found = _wanted(side, source)
    wrong = [name for name, wanted in found.items() if wanted.pop("now") != wanted]
    return [f"the file /etc/{name}" for name in wrong]
