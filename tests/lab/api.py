# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab as an object: what the command line and the tests call."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from . import access, aptsource, basefs, cgroups, network, packages, qemu, vmbase
from .machine import Machine
from .nspawn import NspawnMachine
from .settings import (
    DEFAULT_HOSTS,
    FIXED_OCTETS,
    FLAVOURS,
    VIRTUAL,
    Settings,
    check_host_name,
    load_settings,
    write_json,
)
from .shell import LabError, exclusive, note, remove_tree, wait_for
from .vm import VirtualMachine


def machine_of(settings: Settings, name: str, octet: int, flavour: str = "") -> Machine:
    """A host as an object of its kind. flavour: for one that has no disk yet."""
    path = settings.host_directory(name) / "flavour"
    known = path.read_text() if path.exists() else flavour
    return (VirtualMachine if known.startswith(VIRTUAL) else NspawnMachine)(settings, name, octet)


class Lab:
    """One lab. Create it with Lab.load(); all methods raise LabError with a text for the user."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @classmethod
    def load(cls) -> Lab:
        """The lab of this checkout, or the one that the environment names."""
        return cls(load_settings())

    # --- what is there

    @property
    def inventory(self) -> Path:
        """Inventory directory: root, by key."""
        return self.settings.directory / "inventory"

    @property
    def inventory_ops(self) -> Path:
        """Inventory directory: user ops, who becomes root by sudo with a password."""
        return self.settings.directory / "inventory-ops"

    def _octets(self) -> dict[str, int]:
        try:
            value: dict[str, Any] = json.loads(self.settings.state_file.read_text())
        except (FileNotFoundError, NotADirectoryError):
            return {}
        # Somebody else may have made the lab since this object was: what is written down wins.
        self.settings = dataclasses.replace(self.settings, network=str(value["network"]))
        return {name: int(octet) for name, octet in value.get("hosts", {}).items()}

    def machine(self, name: str) -> Machine:
        """A host by name. LabError where the lab has no such host, or lost its names in the kernel to another lab."""
        network.check_owner(self.settings)
        octets = self._octets()
        if name not in octets:
            known = ", ".join(octets) or "none: run `lab.py up`"
            raise LabError(f"no host {name} in the lab in {self.settings.directory} (hosts: {known})")
        return machine_of(self.settings, name, octets[name])

    def machines(self) -> list[Machine]:
        """All hosts, running or not."""
        octets = self._octets()
        return [machine_of(self.settings, name, octet) for name, octet in octets.items()]

    # --- up and down

    def up(self, names: Iterable[str] = (), flavour: str = "", root_login: bool = True) -> None:
        """Have these hosts (default: alpha, beta, gamma) created and running; those that run are left alone.

        flavour: for hosts created now, one of settings.FLAVOURS (default trixie; "vm-trixie" for virtual machines).
        root_login: whether sshd there admits root.
        """
        self._require_root()
        wanted = [check_host_name(name) for name in names] or list(DEFAULT_HOSTS)
        if flavour and flavour not in FLAVOURS:
            raise LabError(f"flavour {flavour!r}: one of {', '.join(FLAVOURS)}")
        with exclusive(self.settings.lock_file):
            self._octets()
            self._check_directory()
            self._take_over()
            network.check_owner(self.settings)
            packages.install_missing(virtual=flavour.startswith(VIRTUAL))
            for name in wanted:
                machine = machine_of(self.settings, name, 0)
                if flavour and machine.flavour not in ("", flavour):
                    raise LabError(
                        f"{name} is {machine.flavour}: `lab.py renew --flavour {flavour} {name}` makes it anew"
                    )
            missing = [name for name in wanted if not machine_of(self.settings, name, 0).exists()]
            # Only new hosts need to know about the mirror: a second `up` stays quick.
            mirror = aptsource.find_mirror() if missing or not self.settings.network else None
            with network.machine_lock():
                self._settle(wanted, mirror)
                network.build(self.settings)
            access.ensure_secrets(self.settings)
            if mirror:
                for name in missing:
                    self._create(name, flavour or FLAVOURS[0], mirror, root_login)
            self._introduce()
            machines = [self.machine(name) for name in wanted]
            self._power_on(machines)
        # Virtual machines take minutes to start: whoever wants other hosts meanwhile need not wait for them.
        self._wait_ready(machines)

    def _create(self, name: str, flavour: str, mirror: aptsource.Mirror, root_login: bool) -> None:
        machine_of(self.settings, name, self._octets()[name], flavour).create(flavour, mirror, root_login)

    def _take_over(self) -> None:
        """Clear away another lab's bridge where none of its hosts runs: its session ended without `down`.

        Nobody is just about to start them: every `up` holds the lock that we hold now.
        """
        owner = network.foreign_owner(self.settings)
        if owner and not any(cgroups.processes(self.settings, name) for name in cgroups.hosts(self.settings)):
            note(f"taking over {self.settings.bridge} from the lab in {owner}: none of its hosts runs")
            cgroups.remove(self.settings)
            network.tear_down(self.settings)

    def _settle(self, wanted: list[str], mirror: aptsource.Mirror | None) -> None:
        """Choose what is not chosen yet (network, addresses) and write it down."""
        if not self.settings.network or not self.settings.state_file.exists():
            mirror = mirror or aptsource.find_mirror()
            chosen = network.choose_network(self.settings, [mirror.host], aptsource.resolvers())
            self.settings = dataclasses.replace(self.settings, network=chosen)
        octets = self._octets()
        for name in wanted:
            used = {*octets.values(), *FIXED_OCTETS.values()}
            octets.setdefault(
                name, FIXED_OCTETS.get(name) or next(octet for octet in range(14, 255) if octet not in used)
            )
        self.settings.directory.mkdir(parents=True, exist_ok=True)
        write_json(
            self.settings.state_file,
            {"bridge": self.settings.bridge, "network": self.settings.network, "hosts": octets},
        )

    def _introduce(self) -> None:
        """Tell the user (inventories, known hosts) and the hosts about all hosts."""
        addresses = {machine.name: machine.address for machine in self.machines()}
        access.write_inventories(self.settings, addresses)
        for machine in self.machines():
            machine.introduce(addresses)

    @staticmethod
    def _power_on(machines: list[Machine]) -> None:
        for machine in machines:
            if not machine.is_running():
                machine.power_on()

    @staticmethod
    def _wait_ready(machines: list[Machine]) -> None:
        for machine in machines:
            # Also those that ran before: somebody may have interrupted the `up` that started them.
            machine.wait_ready()

    def make_base(self, flavour: str) -> None:
        """Have the base file system of a flavour in the cache. It needs no lab, and keeps no other command waiting."""
        self._require_root()
        virtual = flavour.startswith(VIRTUAL)
        packages.install_missing(virtual=virtual)
        mirror = aptsource.find_mirror()
        if virtual:
            qemu.ensure_qemu(self.settings, mirror)
        (vmbase if virtual else basefs).ensure_base(self.settings, flavour, mirror)

    def down(self) -> None:
        """Kill the hosts and remove all traces of the lab but the cached base file systems. Safe to repeat.

        Relies on names in the kernel more than on the lab's records, so that it works after an `up` that died anywhere.
        """
        self._require_root()
        with exclusive(self.settings.lock_file):
            if network.foreign_owner(self.settings) is not None:
                # The kernel's part under our names is somebody else's, so this lab can have no more than its directory.
                if any(machine.is_running() for machine in self.machines()):
                    network.check_owner(self.settings)
                self._remove_directory()
                return
            names = sorted({*cgroups.hosts(self.settings), *(machine.name for machine in self.machines())})
            for name in names:
                machine_of(self.settings, name, 0).power_cut()
            cgroups.remove(self.settings)
            network.tear_down(self.settings)
            # nspawn's own directories, where nothing else uses them. rmdir refuses the others.
            for path in [*Path("/run/systemd/nspawn").glob("*"), Path("/run/systemd/nspawn")]:
                with contextlib.suppress(OSError):
                    path.rmdir()
            self._remove_directory()

    def _check_directory(self) -> None:
        """LabError where the lab's directory holds something that is not a lab: `down` would remove it."""
        directory = self.settings.directory
        if directory.exists() and not self.settings.state_file.exists() and any(directory.iterdir()):
            raise LabError(
                f"{directory} is not empty and holds no lab (no lab.json): remove it, or set LIVEMIGRATE_LAB_DIR"
            )

    def _remove_directory(self) -> None:
        directory = self.settings.directory
        if directory.exists():
            self._check_directory()
            # lab.json goes last: an interrupted `down` must still find a lab here.
            for path in directory.iterdir():
                if path != self.settings.state_file:
                    remove_tree(path)
            self.settings.state_file.unlink(missing_ok=True)
            directory.rmdir()

    def renew(self, names: Iterable[str], flavour: str = "") -> None:
        """Make hosts anew from the base, as if their disks had been replaced: nothing of before is left on them."""
        wanted = list(names)
        self._require_root()
        with exclusive(self.settings.lock_file):
            for name in wanted:
                machine = self.machine(name)
                machine.power_cut()
                network.unplug(self.settings, name, machine.octet)
                kept = flavour or machine.flavour
                allowed = machine.root_login_allowed()
                packages.install_missing(virtual=kept.startswith(VIRTUAL))
                remove_tree(machine.directory)
                self._create(name, kept, aptsource.find_mirror(), allowed)
            self._introduce()
            machines = [self.machine(name) for name in wanted]
            self._power_on(machines)
        self._wait_ready(machines)

    @staticmethod
    def _require_root() -> None:
        if os.geteuid() != 0:
            raise LabError("the lab boots machines and makes network devices: run it as root")

    # --- faults and their ends

    def power_cut(self, name: str) -> None:
        """Kill a whole host at once, as when its power fails. It stays down until boot()."""
        machine = self.machine(name)
        machine.power_cut()
        network.unplug(self.settings, name, machine.octet)

    def boot(self, name: str, wait: bool = True) -> None:
        """Start a host that is down, on the disk it had; wait until it is ready."""
        machine = self.machine(name)
        with network.machine_lock():
            network.build(self.settings)
        machine.power_on()
        if wait:
            machine.wait_ready()

    def reboot(self, name: str, timeout: float = 120) -> None:
        """`systemctl reboot` in the host, and wait until it is ready again. timeout in seconds, for the way down."""
        machine = self.machine(name)
        before = machine.state.get("starts")
        if not machine.is_up():
            raise LabError(f"{name} is down")
        machine.console(["systemctl", "reboot"], check=False)
        wait_for(f"{name} to go down and start again", lambda: machine.state.get("starts") != before, timeout)
        machine.wait_ready()

    def partition(self, name: str, others: Iterable[str] = ()) -> None:
        """Cut a host off the network, silently: its link stays up and nothing goes through.

        With others, it is cut off from those hosts only, and they from each other; the control node still reaches them.
        """
        group = [name, *others]
        kind = "isolated" if len(group) > 1 else "all"
        for member in group:
            self._change_port(member, partition=kind)

    def heal(self, name: str) -> None:
        """End a partition of a host; with an isolated group, name each member that shall be whole again."""
        self._change_port(name, partition="")

    def rate(self, name: str, rate: str) -> None:
        """Limit a host's network in both directions: as tc writes rates ("100mbit"), or "off"."""
        self._change_port(name, rate="" if rate == "off" else rate)

    def _change_port(self, name: str, **changes: str) -> None:
        machine = self.machine(name)
        port = {key: value for key, value in {**machine.port, **changes}.items() if value}
        if Path("/sys/class/net", network.cable(self.settings, machine.octet)).exists():
            network.apply_port(self.settings, name, machine.octet, port)
        # Written last: a rate that tc refuses must not come back at the next boot.
        machine.set_port(port)

    def root_login(self, name: str, allowed: bool) -> None:
        """Have sshd of a host admit root (by key) or refuse root altogether. `ops` is always admitted."""
        self.machine(name).set_root_login(allowed)

    @contextlib.contextmanager
    def partitioned(self, name: str, others: Iterable[str] = ()) -> Iterator[None]:
        """partition() for the length of a with block."""
        members = [name, *others]
        self.partition(name, members[1:])
        try:
            yield
        finally:
            for member in members:
                self.heal(member)
