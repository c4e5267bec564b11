# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How one gets into the hosts: the lab's SSH key, pinned host keys, the password of `ops`, and two inventories."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from pathlib import Path

from .settings import GROUPS, Settings
from .shell import run


def ensure_secrets(settings: Settings) -> None:
    """The lab's key pair and the sudo password of `ops`, new for every lab."""
    if not settings.key_file.exists():
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "livemigrate-lab", "-f", str(settings.key_file)])
    if not settings.password_file.exists():
        _write_private(settings.password_file, secrets.token_urlsafe(18) + "\n")


def admit(settings: Settings, root: Path, name: str) -> None:
    """Write keys and password into a host's root file system, before its first start."""
    public_key = settings.key_file.with_suffix(".pub").read_text()
    ops = (root / "home/ops").stat()
    for home, uid, gid in (("root", 0, 0), ("home/ops", ops.st_uid, ops.st_gid)):
        directory = root / home / ".ssh"
        directory.mkdir(mode=0o700, exist_ok=True)
        authorized = directory / "authorized_keys"
        authorized.write_text(public_key)
        authorized.chmod(0o600)
        for path in (directory, authorized):
            os.chown(path, uid, gid)
    password = settings.password_file.read_text().strip()
    run(["chroot", str(root), "chpasswd"], text_input=f"ops:{password}\n")
    host_key = root / "etc/ssh/ssh_host_ed25519_key"
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(host_key)])
    shutil.copy(host_key.with_suffix(".pub"), settings.host_directory(name) / "host_key.pub")


def set_root_login(root: Path, allowed: bool) -> None:
    """Write sshd's answer to root; sshd reads it at its next reload."""
    (root / "etc/ssh/sshd_config.d/root-login.conf").write_text(root_login_line(allowed))


def root_login_line(allowed: bool) -> str:
    """What sshd's configuration says of root."""
    return f"PermitRootLogin {'prohibit-password' if allowed else 'no'}\n"


def root_login_allowed(root: Path) -> bool:
    """What set_root_login said last."""
    path = root / "etc/ssh/sshd_config.d/root-login.conf"
    return not path.exists() or path.read_text().strip() != "PermitRootLogin no"


def ssh_options(settings: Settings) -> list[str]:
    """The options with which the lab's hosts are reached; host keys are known, never trusted on first use."""
    options = (
        f"UserKnownHostsFile={settings.known_hosts}",
        "GlobalKnownHostsFile=/dev/null",
        "StrictHostKeyChecking=yes",
        "IdentitiesOnly=yes",
        # A host that lost its power or its cable answers nothing: notice within half a minute.
        "ServerAliveInterval=5",
        "ServerAliveCountMax=6",
    )
    return [word for option in options for word in ("-o", option)]


def write_inventories(settings: Settings, hosts: dict[str, str]) -> None:
    """Pin the host keys and write inventory/ (as root) and inventory-ops/ (as ops, with sudo password).

    hosts: name to address.
    """
    pins = []
    for name, address in hosts.items():
        key = settings.host_directory(name) / "host_key.pub"
        if key.exists():
            pins.append(f"{address},{name} {' '.join(key.read_text().split()[:2])}\n")
    _replace(settings.known_hosts, "".join(pins))
    for directory, user in (("inventory", "root"), ("inventory-ops", "ops")):
        target = settings.directory / directory
        (target / "host_vars").mkdir(parents=True, exist_ok=True)
        _replace(target / "hosts.yml", _inventory(settings, hosts, user))
        for path in (target / "host_vars").iterdir():
            if path.stem not in hosts or user != "ops":
                path.unlink()
        if user == "ops":
            password = settings.password_file.read_text().strip()
            for name in hosts:
                lines = ["---", "ansible_become: true", "ansible_become_method: sudo"]
                lines.append(f"ansible_become_password: {json.dumps(password)}")
                _write_private(target / "host_vars" / f"{name}.yml", "\n".join(lines) + "\n")


def _inventory(settings: Settings, hosts: dict[str, str], user: str) -> str:
    # A JSON string is a YAML string too.
    lines = [
        "---",
        "# Written by tests/lab/lab.py; it goes away with the lab.",
        "all:",
        "  vars:",
        f"    ansible_user: {user}",
        "    ansible_python_interpreter: /usr/bin/python3",
        f"    ansible_ssh_private_key_file: {json.dumps(str(settings.key_file))}",
        f"    ansible_ssh_common_args: {json.dumps(' '.join(ssh_options(settings)))}",
        "  children:",
    ]
    groups = {group: [name] for group, name in GROUPS.items() if name in hosts}
    rest = [name for name in hosts if name not in GROUPS.values()]
    if rest:
        groups["others"] = rest
    for group, names in groups.items():
        lines += [f"    {group}:", "      hosts:"]
        for name in names:
            lines += [f"        {name}:", f"          ansible_host: {hosts[name]}"]
    return "\n".join(lines) + "\n"


def _write_private(path: Path, text: str) -> None:
    _replace(path, text, mode=0o600)


def _replace(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Write a file in one step: programs that work on the other hosts may read it at any time."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as handle:
        handle.write(text)
    temporary.replace(path)
