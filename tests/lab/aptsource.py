# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How this machine gets Debian packages and resolves names, read at run time, so that the hosts can do the same.

Nothing of it is written down in the repository: every machine has its own mirror.
"""

from __future__ import annotations

import dataclasses
import datetime
import email.utils
import functools
import ipaddress
import os
import re
import tempfile
import urllib.parse
from pathlib import Path

from .shell import LabError, run

# Settings that say how to reach the mirror and how far to trust its clock; everything else is the machine's own affair.
_CARRIED = re.compile(
    r"^Acquire::(Check-Valid-Until|Check-Date|Max-FutureTime|Retries|ForceIPv[46]|By-Hash"
    r"|https?::(Proxy|Timeout|Verify-Peer|Verify-Host|CaInfo|No-Cache|Pipeline-Depth)(::\S*)?) ",
    re.IGNORECASE,
)
_PROXY_VARIABLES = ("http_proxy", "https_proxy", "no_proxy")


@dataclasses.dataclass(frozen=True)
class Mirror:
    """A Debian archive: its base URI, and lines of apt configuration that go with it."""

    uri: str
    options: tuple[str, ...]

    @property
    def host(self) -> str:
        return urllib.parse.urlsplit(self.uri).hostname or ""


def find_mirror() -> Mirror:
    """The Debian archive that this machine installs its own release from. LabError where apt names none."""
    release = _os_release()
    listed = run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages"]
    ).stdout
    names = {release.get("VERSION_CODENAME", ""), "stable", "testing", "unstable", "sid", "trixie", "forky", "bookworm"}
    for line in listed.splitlines():
        uri, suite, component = (line.split() + ["", "", ""])[:3]
        if component == "main" and suite in names and urllib.parse.urlsplit(uri).scheme in ("http", "https"):
            options = [entry for entry in run(["apt-config", "dump"]).stdout.splitlines() if _CARRIED.match(entry)]
            return Mirror(uri=uri.rstrip("/"), options=tuple(options))
    raise LabError(
        f"no Debian archive (component main) in this machine's apt sources; it is {release.get('PRETTY_NAME')}"
    )


@functools.cache
def suite_options(mirror: Mirror, suite: str) -> tuple[str, ...]:
    """apt options that this suite needs beyond the mirror's own: none, unless its Release file has expired.

    LabError when the mirror does not have the suite.
    """
    with tempfile.TemporaryDirectory() as scratch:
        release = Path(scratch) / "InRelease"
        # apt's own downloader: it knows the machine's proxies and certificates. Its sandbox user must reach the file.
        Path(scratch).chmod(0o755)
        done = run(
            ["/usr/lib/apt/apt-helper", "download-file", f"{mirror.uri}/dists/{suite}/InRelease", str(release)],
            check=False,
            timeout=120,
        )
        if done.returncode != 0 or not release.exists():
            raise LabError(
                f"this machine's Debian mirror gives no release file of {suite}: {done.stderr.strip()[-500:]}"
            )
        found = re.search(r"^Valid-Until: (.+)$", release.read_text(errors="replace"), re.MULTILINE)
    if not found:
        return ()
    until = email.utils.parsedate_to_datetime(found.group(1).replace("UTC", "+0000"))
    if until > datetime.datetime.now(datetime.UTC):
        return ()
    return ('Acquire::Check-Valid-Until "false";',)


def resolvers() -> list[str]:
    """Name servers that answer in another network namespace too.

    A stub on a loopback address does not; systemd-resolved then keeps its real servers in a file of its own. LabError
    where only such a stub is known.
    """
    for source in ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"):
        path = Path(source)
        if not path.exists():
            continue
        found = []
        for line in path.read_text(errors="replace").splitlines():
            words = line.split()
            if len(words) > 1 and words[0] == "nameserver" and "%" not in words[1]:
                address = ipaddress.ip_address(words[1])
                if address.version == 4 and not address.is_loopback and not address.is_link_local:
                    found.append(words[1])
        if found:
            return found
    raise LabError("this machine's resolv.conf names no IPv4 name server that other network namespaces can reach")


def resolver_options() -> list[str]:
    """The search and options lines of the machine's resolv.conf."""
    path = Path("/etc/resolv.conf")
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    return [line for line in lines if line.split()[:1] in (["search"], ["options"], ["domain"])]


def mirror_in_hosts_file(mirror: Mirror) -> list[str]:
    """Lines of the machine's /etc/hosts that name the mirror: DNS alone would not find it then."""
    lines = Path("/etc/hosts").read_text(errors="replace").splitlines()
    return [line for line in lines if not line.startswith("#") and mirror.host in line.split()[1:]]


def local_certificates() -> list[Path]:
    """Certificates that this machine's administrator added to the trusted ones."""
    return sorted(Path("/usr/local/share/ca-certificates").glob("**/*.crt"))


def proxy_environment() -> list[str]:
    """Proxy settings of this machine's environment, as lines for /etc/environment."""
    lines = []
    for name in _PROXY_VARIABLES:
        value = os.environ.get(name) or os.environ.get(name.upper())
        if value:
            lines += [f"{name}={value}", f"{name.upper()}={value}"]
    return lines


def _os_release() -> dict[str, str]:
    pairs = (line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    return {key: value.strip('"') for key, value in pairs}
