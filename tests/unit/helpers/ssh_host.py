# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A small host with a real SSH daemon and sudo: the lab's cached root file system under an overlay that is thrown away.

It has mounts and processes of its own and listens on a loopback port of this machine. It needs root; without that its
tests are skipped, and channel/test_server.py has the rest.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.lab import aptsource, basefs, packages
from tests.lab.settings import FLAVOURS, load_settings
from tests.unit.helpers.support import CONTAINER, PACKAGE, PLUGINS, wait_for

_START = """\
set -e
mount -t tmpfs -o mode=755 tmpfs "$2"
mkdir "$2/upper" "$2/work" "$2/root"
mount -t overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" overlay "$2/root"
cd "$2/root"
mount --bind /dev dev
mount -t proc proc proc
mkdir -p run/sshd opt/tree/ansible_collections/livemigrate/criu/plugins
mount --bind "$4" opt/tree/ansible_collections/livemigrate/criu/plugins
cat > etc/ssh/sshd_config << END
Port $3
ListenAddress 127.0.0.1
$(if [ -e /proc/sys/net/ipv6 ]; then echo ListenAddress ::1; fi)
HostKey /etc/ssh/ssh_host_ed25519_key
AuthorizedKeysFile .ssh/authorized_keys
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
Subsystem sftp internal-sftp
PidFile none
END
echo 0123456789abcdef0123456789abcdef > etc/machine-id
chroot . ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key
chroot . usermod -p '*' ops
exec chroot . /usr/sbin/sshd -D -e
"""

# What docker_restore does when it opens a destination's half, but for Docker and systemd.
_OPEN = f"""
import json, sys
sys.path.insert(0, "/opt/tree")
from {PACKAGE}._session import agent_code, agent_package
from {PACKAGE}._channel import host_keys, server as channel_server
from {PACKAGE}._base import durable
from {PACKAGE}._session.session import Session
order = json.load(sys.stdin)
session = Session.open(order["session"], "destination", {{"container_id": order["container"], "channel_user": order["user"]}})
channel_server.set_targets(session, order["targets"])
channel_server.KEY_LIFE_SECONDS = order["life"]
sources = agent_code.of_directory("/opt/tree/{PACKAGE.replace(".", "/")}")
durable.write(session.path("agent.pyz"), agent_package.build(agent_code.needed(sources)))
agent = session.agent
channel_server.authorise(session, order["user"], order["key"], agent)
json.dump({{"host_keys": host_keys.public(), "agent": agent}}, sys.stdout)
"""
_REVOKE = f"""
import sys
sys.path.insert(0, "/opt/tree")
from {PACKAGE}._channel import server as channel_server
from {PACKAGE}._session.session import Session
channel_server.revoke(Session(sys.argv[1]))
"""


def _base() -> Path:
    """The root file system that the lab makes its hosts from; made now (20 s) where nobody has yet."""
    packages.install_missing()
    return basefs.ensure_base(load_settings(), FLAVOURS[0], aptsource.find_mirror())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class SshHost:
    """The host, running."""

    def __init__(self) -> None:
        if os.geteuid() != 0:
            pytest.skip("needs root: a host of its own has mounts and processes of its own")
        base = _base()
        self.port = _free_port()
        self.address = "127.0.0.1"
        self._directory = Path(tempfile.mkdtemp(prefix="lmhost"))
        self._log = self._directory / "log"
        self._opened = 0
        work = self._directory / "mnt"
        work.mkdir()
        words = ["sh", "-c", _START, "sh", str(base), str(work), str(self.port), str(PLUGINS)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                ["unshare", "--mount", "--pid", "--fork", "--kill-child", *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            wait_for(
                lambda: "Server listening" in self.log or self._process.poll() is not None, "the SSH daemon listens", 20
            )
            if self._process.poll() is not None:
                pytest.skip(f"a host of its own cannot be started here: {self.log.strip()}")
            children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
            self._pid = int(children.read_text())
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._directory)

    @property
    def log(self) -> str:
        """What the SSH daemon has said so far."""
        return self._log.read_text(errors="replace")

    def path(self, path: str) -> Path:
        """A file of the host, as this process reaches it."""
        return Path(f"/proc/{self._pid}/root") / path.lstrip("/")

    def run(self, *argv: str, stdin: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a program on the host as root, past SSH."""
        enter = ["nsenter", f"--target={self._pid}", "--mount", "--pid", "--root", "--wdns=/"]
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "TZ": "UTC"}
        return subprocess.run(
            [*enter, *argv], input=stdin, capture_output=True, text=True, check=check, env=environment
        )

    def open(self, session: str, user: str, key: str, life: int = 3600) -> dict[str, Any]:
        """Begin the destination's half of a session; returns its host keys and the agent's command line."""
        self._opened += 1
        place = f"/srv/place{self._opened}"
        self.path(place).mkdir()
        order = {
            "session": session,
            "user": user,
            "key": key,
            "life": life,
            "container": f"{self._opened:064x}"[: len(CONTAINER)],
            "targets": {"layer": place},
        }
        answer: dict[str, Any] = json.loads(self.run("python3", "-c", _OPEN, stdin=json.dumps(order)).stdout)
        return {**answer, "place": self.path(place)}

    def revoke(self, session: str) -> None:
        self.run("python3", "-c", _REVOKE, session)
