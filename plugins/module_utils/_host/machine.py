# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""What a host is, beside its CRIU and its engine: kernel configuration, processor, clock, the way to its peer."""

from __future__ import annotations

import contextlib
import getpass
import gzip
import os
import pwd
import re
import socket
import time
import typing as t

from .._base import valid_names
from .._base.command import Runner
from .._base.errors import MigrationError

Facts = dict[str, t.Any]

# What CRIU needs of a kernel, or makes use of.
CONFIG = (
    *(
        "CONFIG_CHECKPOINT_RESTORE",
        "CONFIG_UNIX_DIAG",
        "CONFIG_INET_DIAG",
        "CONFIG_INET_UDP_DIAG",
        "CONFIG_PACKET_DIAG",
    ),
    *("CONFIG_NETLINK_DIAG", "CONFIG_FHANDLE", "CONFIG_NETFILTER_XT_MARK", "CONFIG_TIME_NS", "CONFIG_MEM_SOFT_DIRTY"),
    *("CONFIG_USERFAULTFD", "CONFIG_INET_DIAG_DESTROY", "CONFIG_SECCOMP_FILTER"),
)
# Flags of /proc/cpuinfo that are instructions which programs find out about and then use. All others are the kernel's business.
_INSTRUCTIONS = re.compile(
    r"(s*sse\w*|pni|avx\w*|fma4?|f16c|aes|pclmulqdq|vaes|vpclmulqdq|gfni|sha_ni|sha512|sm3|sm4|bmi[12]|abm|lzcnt|popcnt|movbe|"
    r"adx|rdrand|rdseed|rdpid|rdtscp|clflushopt|clwb|cldemote|movdiri|movdir64b|xsave\w*|fsgsbase|pku|rtm|hle|amx_\w+|enqcmd|"
    r"serialize|waitpkg|cx16|lahf_lm|3dnow\w*|mmx\w*|xop|tbm|"
    # arm64
    r"fp|asimd\w*|sha[1235]\w*|crc32|atomics|fphp|jscvt|fcma|lrcpc|dcpop|sm[34]\w*|sve\w*|i8mm|bf16|sme\d?|sme_\w+|bti|paca|pacg)"
)
_PEER_SECONDS = 5.0
# Seconds for which a daemon that turns us away is asked again, and from one time to the next. OpenSSH 9.8 and newer turns away an
# address that has often failed to log in, for 15 seconds or more (PerSourcePenalties); older ones do where many log in at once.
_TURNED_AWAY_SECONDS = 30.0
_ASK_AGAIN_SECONDS = 2.0
# What OpenSSH says then, instead of its version. Some versions, and a host's access lists, say nothing.
_TURNS_AWAY = re.compile(r"(Not allowed at this time|Exceeded MaxStartups)?\Z")
# RFC 4253, section 4.2: other lines may come before the version.
_GREETING_BYTES = 4096


# Limits of the whole host that programs need to be high: databases and search engines ask for them in their manuals, and a
# container cannot bring them along. Those of namespaces travel, see _surroundings/sysctls.py.
LIMITS = (
    "vm.max_map_count",
    "vm.overcommit_memory",
    "fs.aio-max-nr",
    "fs.nr_open",
    "fs.inotify.max_user_instances",
    "fs.inotify.max_user_watches",
    "net.core.rmem_max",
    "net.core.wmem_max",
)


def limits(root: str = "/proc/sys") -> dict[str, int]:
    """Settings of this host on which programs rely, by their names as sysctl(8) has them; without those that are not there."""
    found = {}
    for name in LIMITS:
        with (
            contextlib.suppress(OSError, ValueError),
            open(os.path.join(root, *name.split(".")), encoding="ascii") as handle,
        ):
            found[name] = int(handle.read())
    return found


def parse_config(text: str) -> dict[str, bool]:
    """Which of CONFIG a kernel was built with, as a module too; what its configuration does not name is left out."""
    found = {}
    for name in CONFIG:
        match = re.search(rf"^(?:# )?{name}(=[ym]| is not set)$", text, re.MULTILINE)
        if match:
            found[name] = match.group(1) != " is not set"
    return found


def kernel_config(release: str) -> dict[str, bool]:
    """The running kernel's configuration, as far as a file shows it; empty where no file does."""
    with contextlib.suppress(OSError, EOFError), gzip.open("/proc/config.gz", "rt") as handle:
        return parse_config(handle.read())
    for path in (f"/boot/config-{release}", f"/lib/modules/{release}/config"):
        with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as handle:
            return parse_config(handle.read())
    return {}


def parse_cpuinfo(text: str) -> Facts:
    """The instructions of the processors (of the poorest, where they differ), and what they are called."""
    sets = [
        {flag for flag in line.split() if _INSTRUCTIONS.fullmatch(flag)}
        for line in re.findall(r"^(?:flags|Features)\s*:\s*(.*)$", text, re.MULTILINE)
    ]
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return {
        "model": model.group(1).strip() if model else "unknown",
        "instructions": sorted(set.intersection(*sets)) if sets else [],
    }


def parse_criu_options(text: str) -> dict[str, str]:
    """The options in a configuration file of CRIU. The last line of each counts; ``no-x`` takes x back."""
    options: dict[str, str] = {}
    for line in text.splitlines():
        match = re.match(r"\s*(?:--)?([A-Za-z][A-Za-z0-9-]*)\s*[=\s]?\s*([^#]*)", line)
        if match is None:
            continue
        name, value = match.group(1), match.group(2).strip().strip('"')
        if name.startswith("no-"):
            options.pop(name[3:], None)
        else:
            options[name] = value
    return options


class ClockReading:
    """One look at this host's wall clock, for a comparison with the clock of another host.

    Who asks knows when it asked and when it had the answer. The clock was read somewhere in between, so a slow answer leaves it
    open when; it must not look like a clock that goes wrong. The time that this host went on after the reading is reported too:
    by that much the reading was earlier than the answer.
    """

    def __init__(self, asked_at: float | None) -> None:
        """
        :param asked_at: the wall clock of the host that asks, when it asked.
        """
        self._asked_at = asked_at
        self._wall = time.time()
        self._read = time.monotonic()

    def facts(self) -> Facts:
        """The reading; to be called as late as possible."""
        return {"wall": self._wall, "asked_at": self._asked_at, "age_seconds": round(time.monotonic() - self._read, 3)}


def parse_containerd_root(configuration: str) -> str | None:
    """Where containerd keeps its content, out of its config.toml; None where that says nothing of it."""
    before_tables = re.split(r"^\s*\[", configuration, maxsplit=1, flags=re.MULTILINE)[0]
    found = re.search(r"""^\s*root\s*=\s*["']([^"']+)["']""", before_tables, re.MULTILINE)
    return found.group(1) if found else None


def containerd_root(data_root: str | None) -> str:
    """Where the containerd of this host's engine keeps its content.

    :param data_root: of the engine, which starts a containerd of its own where the host has no service for it.
    """
    if data_root and os.path.exists("/run/docker/containerd/containerd.sock"):
        return os.path.join(data_root, "containerd", "daemon")
    text = ""
    with (
        contextlib.suppress(OSError),
        open("/etc/containerd/config.toml", encoding="utf-8", errors="replace") as handle,
    ):
        text = handle.read()
    return parse_containerd_root(text) or "/var/lib/containerd"


def login() -> str:
    """The account through which this process came in, before it became root."""
    for name in ("SUDO_USER", "DOAS_USER"):
        if os.environ.get(name):
            return os.environ[name]
    with contextlib.suppress(OSError, ValueError, KeyError):
        with open("/proc/self/loginuid", encoding="ascii") as handle:
            number = int(handle.read())
        # Not set: no audit in this kernel, or a process of the system.
        if number < 0xFFFFFFFF:
            return pwd.getpwuid(number).pw_name
    return getpass.getuser()


def _host_keys_of(run: Runner, address: str, port: int) -> list[str]:
    """The host keys that an SSH daemon shows, as lines ``kind blob``: the most usual kind, or else the others."""
    # Each kind is a connection of its own, and sshd counts those against us that do not log in.
    for kinds in ("ed25519", "ecdsa,rsa"):
        with contextlib.suppress(MigrationError):
            shown = run(["ssh-keyscan", "-T", "5", "-p", str(port), "-t", kinds, "--", address], timeout=15).stdout
            keys = [" ".join(line.split()[1:3]) for line in shown.splitlines() if not line.startswith("#")]
            if keys:
                return keys
    return []


def _greeting(connection: socket.socket) -> str | None:
    """What comes instead of an SSH daemon's version, its first line; None where that comes."""
    seen = b""
    with contextlib.suppress(ConnectionResetError):
        while len(seen) < _GREETING_BYTES:
            more = connection.recv(_GREETING_BYTES)
            seen += more
            if re.search(rb"^SSH-", seen, re.MULTILINE):
                return None
            if not more:
                break
    return seen.decode("ascii", "replace").partition("\n")[0].strip()[:80]


def _greet(facts: Facts, seconds: float) -> tuple[str | None, str]:
    """Connect once, and note what that tells; returns what came instead of a version, and the address as numbers.

    :raises OSError: where no connection comes about, or nothing through it.
    """
    began = time.monotonic()
    with socket.create_connection((facts["address"], facts["port"]), timeout=seconds) as connection:
        facts["rtt_seconds"] = round(time.monotonic() - began, 4)
        connection.settimeout(seconds)
        local = str(connection.getpeername()[0])
        facts["from_address"] = connection.getsockname()[0]
        facts["is_own"] = facts["from_address"] == local
        return _greeting(connection), local


def peer_facts(
    run: Runner, address: str, port: int, seconds: float = _PEER_SECONDS, patience: float = _TURNED_AWAY_SECONDS
) -> Facts:
    """Whether this host reaches another one's SSH daemon, how long that takes, and by which device.

    Nobody logs in: the daemon greets whoever connects.

    :param seconds: for a connection, and for the greeting.
    :param patience: seconds for which a daemon that turns connections away is asked again.
    :raises MigrationError: ``invalid_name`` for an address that is none.
    """
    valid_names.address(address)
    facts: Facts = {
        "address": address,
        "port": port,
        "error": None,
        # Whether an SSH daemon may well be there, which does not talk to this host now.
        "turned_away": False,
        # Whether the way there leads back to this host, as localhost does.
        "is_own": False,
        "from_address": None,
        "host_keys": [],
        "rtt_seconds": None,
        "device": None,
        "speed_mbit": None,
    }
    deadline = time.monotonic() + patience
    try:
        greeting, local = _greet(facts, seconds)
        while greeting is not None and _TURNS_AWAY.match(greeting) and time.monotonic() < deadline:
            time.sleep(_ASK_AGAIN_SECONDS)
            greeting, local = _greet(facts, seconds)
    except OSError as exc:
        facts["error"] = f"{exc.strerror or exc}."
        return facts
    if greeting is not None:
        facts["turned_away"] = bool(_TURNS_AWAY.match(greeting))
        facts["error"] = (
            f"it turns this host's connections away ({greeting or 'it says nothing and closes them'})."
            if facts["turned_away"]
            else "what listens there is no SSH daemon."
        )
    if facts["error"] is None:
        facts["host_keys"] = _host_keys_of(run, address, port)
    with contextlib.suppress(MigrationError, OSError, ValueError):
        route = run(["ip", "-o", "route", "get", local], timeout=5).stdout
        found = re.search(r"\bdev (\S+)", route)
        if found:
            facts["device"] = found.group(1)
            with open(f"/sys/class/net/{found.group(1)}/speed", encoding="ascii") as handle:
                speed = int(handle.read())
            facts["speed_mbit"] = speed if speed > 0 else None
    return facts
