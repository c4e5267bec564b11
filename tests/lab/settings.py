# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where one lab lives and what its parts are called. Everything here can be told by environment variables.

LIVEMIGRATE_LAB_DIR     state of the lab (default: .lab in the checkout)
LIVEMIGRATE_LAB_CACHE   base file systems, shared by all labs (default: ~/.cache/livemigrate-lab)
LIVEMIGRATE_LAB_BRIDGE  name of the bridge, and prefix of every other kernel name (default: lmlab0)
LIVEMIGRATE_LAB_NET     first three numbers of the lab's /24 (default: the first documentation range that is free)
LIVEMIGRATE_LAB_MEMORY  MiB of each virtual machine (default: 1280)
LIVEMIGRATE_LAB_CPUS    processors of each virtual machine (default: 1)
LIVEMIGRATE_LAB_ACCEL   QEMU's accelerator (default: tcg,thread=multi; "kvm" where KVM works)

Two labs may run side by side when their directory and bridge differ.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from pathlib import Path
from typing import Any

from .shell import LabError

CHECKOUT = Path(__file__).resolve().parents[2]
DEFAULT_HOSTS = ("alpha", "beta", "gamma")
# A flavour is a Debian release, with "vm-" before it for a virtual machine. Docker and CRIU are on virtual machines but for
# the "-bare" ones, and on no others but the "-ready" ones.
VIRTUAL, BARE, READY = "vm-", "-bare", "-ready"
VM_SUITES = ("bookworm", "trixie", "forky")
FLAVOURS = (
    "trixie",
    "forky",
    f"forky{READY}",
    *(f"{VIRTUAL}{suite}" for suite in VM_SUITES),
    *(f"{VIRTUAL}{suite}{BARE}" for suite in VM_SUITES),
)
FIXED_OCTETS = {"alpha": 11, "beta": 12, "gamma": 13}
GROUPS = {"source": "alpha", "destination": "beta", "services": "gamma"}

_HOST_NAME = re.compile(r"^[a-z][a-z0-9]{0,14}$")
_BRIDGE_NAME = re.compile(r"^[a-z][a-z0-9]{0,9}$")
_NETWORK = re.compile(r"^\d{1,3}\.\d{1,3}\.\d{1,3}$")


@dataclasses.dataclass(frozen=True)
class Settings:
    """The fixed parts of one lab. network is empty until `up` has chosen one."""

    directory: Path
    cache: Path
    bridge: str
    network: str

    @property
    def state_file(self) -> Path:
        return self.directory / "lab.json"

    @property
    def lock_file(self) -> Path:
        # Not in the lab's directory: `down` removes that, and another checkout must meet the same lock.
        return Path("/run/lock") / f"livemigrate-lab.{self.bridge}"

    @property
    def gateway(self) -> str:
        return f"{self.network}.1"

    @property
    def key_file(self) -> Path:
        return self.directory / "id_ed25519"

    @property
    def known_hosts(self) -> Path:
        return self.directory / "known_hosts"

    @property
    def password_file(self) -> Path:
        return self.directory / "ops-password"

    def host_directory(self, name: str) -> Path:
        return self.directory / "hosts" / name


def load_settings() -> Settings:
    """Settings from the environment, completed by those of a lab that is already there.

    Raises LabError for values that cannot work, and where the environment contradicts the existing lab.
    """
    directory = Path(os.environ.get("LIVEMIGRATE_LAB_DIR") or CHECKOUT / ".lab").absolute()
    cache = Path(os.environ.get("LIVEMIGRATE_LAB_CACHE") or Path.home() / ".cache" / "livemigrate-lab").absolute()
    if any(letter.isspace() or letter in "\"'%:" for letter in f"{directory}{cache}"):
        # ssh splits UserKnownHostsFile at blanks and expands %, systemd-nspawn splits at colons.
        raise LabError(
            f"the lab's directory {directory} must not contain blanks, quotes, % or colons: set LIVEMIGRATE_LAB_DIR"
        )
    reported = {
        "bridge": os.environ.get("LIVEMIGRATE_LAB_BRIDGE", ""),
        "network": os.environ.get("LIVEMIGRATE_LAB_NET", ""),
    }
    stored = _stored(directory / "lab.json")
    for key, value in reported.items():
        if value and stored.get(key) and value != stored[key]:
            raise LabError(
                f"the lab in {directory} has {key} {stored[key]}, the environment says {value}: run `down` first"
            )
    bridge = reported["bridge"] or stored.get("bridge") or "lmlab0"
    network = reported["network"] or stored.get("network") or ""
    if not _BRIDGE_NAME.match(bridge):
        raise LabError(f"bridge name {bridge!r}: at most ten small letters and digits")
    if network and (not _NETWORK.match(network) or any(int(part) > 255 for part in network.split("."))):
        raise LabError(f"network {network!r}: three numbers, like 198.51.100")
    return Settings(directory=directory, cache=cache, bridge=bridge, network=network)


def _stored(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except ValueError:
        # Never ours: write_json() replaces the file in one step. `down` must work all the same.
        return {}
    return value if isinstance(value, dict) else {}


def suite_of(flavour: str) -> str:
    """The Debian release of a flavour."""
    return flavour.removeprefix(VIRTUAL).removesuffix(BARE).removesuffix(READY)


def check_host_name(name: str) -> str:
    """The name, if a host of the lab may have it; else LabError."""
    if not _HOST_NAME.match(name):
        raise LabError(f"host name {name!r}: at most fifteen small letters and digits")
    return name


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file in one step, so that no reader sees half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")
    temporary.replace(path)
