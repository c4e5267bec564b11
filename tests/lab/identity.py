# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What makes a copy of a base this host: name, addresses of others, mirror, certificates, keys.

All of it is written into the root file system before the host's first start.
"""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

from . import access, aptsource
from .settings import Settings, suite_of
from .shell import bound, run


def write(settings: Settings, root: Path, name: str, flavour: str, mirror: aptsource.Mirror) -> None:
    """Write the host's identity into its root file system."""
    (root / "etc/hostname").write_text(f"{name}\n")
    (root / "etc/machine-id").write_text(f"{uuid.uuid4().hex}\n")
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n")
    with (root / "etc/hosts").open("a") as hosts:
        hosts.writelines(f"{line}\n" for line in aptsource.mirror_in_hosts_file(mirror))
    _write_resolver(root)
    write_apt(root, suite_of(flavour), mirror)
    certificates = aptsource.local_certificates()
    if certificates:
        for certificate in certificates:
            shutil.copy(certificate, root / "usr/local/share/ca-certificates" / certificate.name)
        run(bound("chroot", str(root), "update-ca-certificates"))
    access.admit(settings, root, name)


def unknown_neighbours(hosts_file: str, neighbours: dict[str, str]) -> str:
    """The lines that /etc/hosts lacks. neighbours: name to address."""
    known = {word for line in hosts_file.splitlines() for word in line.split()[1:]}
    return "".join(f"{address} {name}\n" for name, address in neighbours.items() if name not in known)


def _write_resolver(root: Path) -> None:
    servers = [f"nameserver {server}" for server in aptsource.resolvers()]
    resolv = root / "etc/resolv.conf"
    resolv.unlink(missing_ok=True)
    resolv.write_text("\n".join([*aptsource.resolver_options(), *servers]) + "\n")
    (root / "etc/environment").write_text("".join(f"{line}\n" for line in aptsource.proxy_environment()))


def write_apt(root: Path, suite: str, mirror: aptsource.Mirror) -> None:
    """Have the host install from this machine's mirror."""
    options = [*mirror.options, *aptsource.suite_options(mirror, suite)]
    (root / "etc/apt/apt.conf.d/80mirror").write_text("".join(f"{option}\n" for option in options))
    (root / "etc/apt/sources.list.d/debian.sources").write_text(
        f"Types: deb\nURIs: {mirror.uri}\nSuites: {suite}\nComponents: main\n"
        "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
    )
