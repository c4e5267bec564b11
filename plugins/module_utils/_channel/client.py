# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The one connection between the two hosts, at its source end: SSH with a key and a command that only this session has.

The key is made on the source for this session; the destination accepts it for one forced command (the agent, see
``_channel/server.py``), which understands a handful of commands. The destination's host keys come through Ansible and are
pinned. All calls of a session share one SSH connection.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import socket
import subprocess
import typing as t

from .._base import durable, valid_names
from .._base.command import Runner, run, run_checked
from .._base.errors import MigrationError
from .._host import confinement
from .._session.session import Session

# OpenSSH's own defaults, those first that processors with AES instructions do several times as fast as its first choice.
_CIPHERS_WITH_AES = (
    "aes128-gcm@openssh.com,aes256-gcm@openssh.com,chacha20-poly1305@openssh.com,aes128-ctr,aes192-ctr,aes256-ctr"
)
# fcntl(2); the module fcntl has the name from Python 3.10 on. Pipes are that large at most without being root's.
_F_SETPIPE_SZ = 1031
_PIPE_BYTES = 1 << 20

# Host keys are pinned under this name, whatever address or port leads to the destination.
_HOST_KEY_ALIAS = "livemigrate-destination"
# Seconds the shared connection outlives its last use; it ends with the session anyway.
_PERSIST_SECONDS = 60

# What rsync is told for every tree: everything the file system knows of a file. -S keeps sparse files sparse.
# Without --modify-window=-1 rsync compares times in whole seconds and would leave a file as it is that was written again within
# the second of the pass before. The arguments must be seen by the other end's filter, whatever RSYNC_PROTECT_ARGS says.
RSYNC_ARCHIVE = (
    "-aHAXS",
    "--numeric-ids",
    "--devices",
    "--specials",
    "--stats",
    "--no-human-readable",
    "--modify-window=-1",
    "--no-protect-args",
)
# Seconds without a byte after which a transfer counts as dead while what is moved stands still.
_FROZEN_STALL_SECONDS = 30
# rsync's exit code for files that vanished while it read them, which is normal while the service is running.
_RSYNC_VANISHED = 24

_NO_LIMIT = float(7 * 24 * 3600)

# What ssh prints when the destination's half has been closed: its key is gone or, through a connection that is still open, its
# agent.
_REVOKED = re.compile(r"Permission denied \(|can't open file '[^']*/agent\.pyz'")
# What ssh says, with this exit code, when it could not connect. Everything else comes from a host that is there.
_NOT_CONNECTED = re.compile(r"^ssh: (connect to host .* port \d+: |Could not resolve hostname )", re.MULTILINE)
_SSH_FAILED = 255

# A kind and a key, and maybe a comment; OpenSSH's names of kinds may have an @ in them.
_HOST_KEY = re.compile(r"([a-z0-9][a-z0-9.@-]*) ([A-Za-z0-9+/]+=*)(?: .*)?\Z")

_SENT = re.compile(r"^Total bytes sent: (\d+)", re.MULTILINE)


def ciphers(cpuinfo: str) -> str | None:
    """What to prefer on a processor, from the text of /proc/cpuinfo; None for OpenSSH's own order."""
    found = re.search(r"^(?:flags|Features)\s*:.*\baes\b", cpuinfo, re.MULTILINE)
    return _CIPHERS_WITH_AES if found else None


def _before_the_answer(output: str) -> str:
    """The first line of what was printed before the agent's answer; empty where there is no answer after it."""
    for found in re.finditer(r"\{", output):
        with contextlib.suppress(ValueError):
            if isinstance(json.loads(output[found.start() :]), dict):
                return output[: found.start()].strip().partition("\n")[0][:80]
    return ""


def make_key(session: Session, runner: Runner = run) -> str:
    """Make the session's key pair in its directory, unless it is there; returns the public key."""
    path = session.path("key")
    if not os.path.exists(path + ".pub"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"livemigrate:{session.id}", "-f", path]
        run_checked(runner, argv, "channel_failed", "make the key of the channel")
        # After a power cut the source needs it to ask for the destination's decision.
        for name in (path, path + ".pub"):
            durable.sync_file(name)
        durable.sync_directory(session.directory)
    with open(path + ".pub", encoding="ascii") as handle:
        return handle.read().strip()


def set_peer(session: Session, peer: t.Mapping[str, t.Any]) -> None:
    """Note where the destination is and pin its host keys.

    The addresses that its name has now are noted too. They are needed to find out whether the destination is alive when its
    name does not resolve any more.

    :param peer: ``address``, ``port``, ``user``, ``host_keys`` (lines as in /etc/ssh/ssh_host_*_key.pub). The account and the
        keys come from the destination itself.
    :raises MigrationError: ``invalid_name`` for an account or address that is not valid; ``channel_failed``.
    """
    place: dict[str, t.Any] = {
        "address": valid_names.address(peer["address"]),
        "port": int(peer["port"]),
        "user": valid_names.account(peer["user"]),
    }
    lines = []
    for key in peer["host_keys"]:
        found = _HOST_KEY.match(key)
        if not found:
            raise MigrationError("channel_failed", f"{key!r}, of the destination's SSH daemon, is no public host key.")
        lines.append(f"{_HOST_KEY_ALIAS} {found.group(1)} {found.group(2)}\n")
    if not lines:
        raise MigrationError(
            "channel_failed", "The destination's SSH daemon has no host key; the channel cannot be trusted."
        )
    durable.write(session.path("known_hosts"), "".join(lines).encode())
    durable.write_json(session.path("peer.json"), {**place, "addresses": _resolved(place["address"], place["port"])})


def _resolved(address: str, port: int) -> list[str]:
    """The addresses of a name, as numbers; none where it has none, of which ssh tells."""
    try:
        found = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    numbers = (socket.getnameinfo(one[4], socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)[0] for one in found)
    return list(dict.fromkeys(numbers))


class Channel:
    """The channel of one session, at its source end."""

    def __init__(self, session: Session, runner: Runner = run) -> None:
        self.session = session
        self._run = runner
        peer = durable.read_json(session.path("peer.json"))
        if peer is None:
            raise MigrationError(
                "channel_closed",
                f"The channel of session {session.id} was never opened or is closed already.",
                session=session.id,
            )
        self._address, self._user, self._port = str(peer["address"]), str(peer["user"]), int(peer["port"])
        self._destination = f"{self._user}@{self._address}"

    def _ssh(self, *more: str) -> list[str]:
        """The beginning of a command line of ssh; the address and a command follow it.

        :param more: further options.
        """
        options = {
            "BatchMode": "yes",
            "IdentitiesOnly": "yes",
            "IdentityFile": self.session.path("key"),
            "UserKnownHostsFile": self.session.path("known_hosts"),
            "GlobalKnownHostsFile": "/dev/null",
            "StrictHostKeyChecking": "yes",
            "HostKeyAlias": _HOST_KEY_ALIAS,
            "ConnectTimeout": "10",
            "ServerAliveInterval": "5",
            "ServerAliveCountMax": "3",
            "ControlMaster": "auto",
            "ControlPath": self.session.memory_path("ssh"),
            "ControlPersist": str(_PERSIST_SECONDS),
            "LogLevel": "ERROR",
            "Compression": "no",
        }
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as handle:
            preferred = ciphers(handle.read())
        if preferred:
            options["Ciphers"] = preferred
        argv = ["ssh", "-F", "none", "-T", "-p", str(self._port)]
        for name, value in options.items():
            argv += ["-o", f"{name}={value}"]
        # What comes from the destination can be no option: each stands where ssh looks for nothing else.
        return [*argv, "-l", self._user, *more, "--"]

    def call(self, command: str, *, timeout: float = 60.0) -> dict[str, t.Any]:
        """Send one command to the destination's agent and return its answer.

        :raises MigrationError: ``destination_unreachable`` when no answer came (its detail ``connected`` is false where ssh could
            not connect); ``channel_revoked``; the agent's own failure when it reports one.
        """
        done = self._run([*self._ssh(), self._address, command], timeout=timeout)
        return self._answer(done.rc, done.stdout, done.stderr)

    def _answer(self, rc: int, stdout: str, stderr: str) -> dict[str, t.Any]:
        answer = None
        with contextlib.suppress(ValueError):
            answer = json.loads(stdout)
        printed = "" if isinstance(answer, dict) else _before_the_answer(stdout)
        if printed:
            raise MigrationError(
                "account_prints",
                f"The account {self._destination} prints text when it logs in ({printed!r}), which gets between the hosts' "
                "data. Have its shell's start-up files (.bashrc, /etc/ssh/sshrc) print nothing where nobody sits at a terminal, "
                "or name another account in migrate_channel_user.",
                address=self._destination,
            )
        if not isinstance(answer, dict) and _REVOKED.search(stderr):
            raise MigrationError(
                "channel_revoked",
                f"The destination {self._destination} does not let this session in any more: its half has been closed, or the "
                "session's key has expired (after a day) or was taken out of authorized_keys. recover.yml, run for both hosts, "
                "carries the destination's decision to this host.",
                address=self._destination,
            )
        if not isinstance(answer, dict):
            raise MigrationError(
                "destination_unreachable",
                f"The destination {self._destination} (port {self._port}) gave no answer through the channel: "
                f"{stderr.strip() or stdout.strip() or f'ssh ended with code {rc}'}",
                address=self._destination,
                connected=rc != _SSH_FAILED or not _NOT_CONNECTED.search(stderr),
            )
        failure = answer.get("failure")
        if failure:
            raise MigrationError.from_failure(failure)
        return answer

    def stream(self, command: str, chunks: t.Iterable[bytes]) -> tuple[dict[str, t.Any], int]:
        """Send a command and bytes after it; returns the agent's answer and the number of bytes."""
        sent = 0
        # Not run_command: that would want the whole stream in memory.
        with subprocess.Popen(  # pylint: disable=ansible-bad-function
            [*self._ssh(), self._address, command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            stdin = t.cast("t.IO[bytes]", process.stdin)
            try:
                for chunk in chunks:
                    stdin.write(chunk)
                    sent += len(chunk)
            except BrokenPipeError:
                # The destination has stopped reading; its answer says why.
                pass
            except BaseException:
                process.kill()
                raise
            with contextlib.suppress(BrokenPipeError):
                stdin.close()
            process.stdin = None
            stdout, stderr = process.communicate()
        return self._answer(
            process.returncode, stdout.decode("utf-8", "replace"), stderr.decode("utf-8", "replace")
        ), sent

    def start_conversation(self, name: str) -> subprocess.Popen[bytes]:
        """Begin a conversation: the standard input of this process leads to the destination, its standard output from there."""
        process = subprocess.Popen(  # pylint: disable=ansible-bad-function
            [*self._ssh(), self._address, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        # Memory goes through it: less often to and fro between us and ssh. It does with less as well.
        with contextlib.suppress(OSError):
            fcntl.fcntl(t.cast("t.IO[bytes]", process.stdin), _F_SETPIPE_SZ, _PIPE_BYTES)
        return process

    def rsync(
        self,
        source: str,
        target: str,
        extra: t.Sequence[str] = (),
        *,
        running: bool = False,
        compare_for: int = 0,
        names: str = "",
    ) -> int:
        """Bring one directory's content to a named target of the destination.

        :param source: a directory; its content travels, not itself.
        :param target: a name that the destination has prepared a place for (see ``_channel/server.py``).
        :param running: whether files may change and vanish meanwhile.
        :param compare_for: with *running*, compare the content of files, whatever their sizes and times say. To read the files on
            one side may take so many seconds, in which nothing goes through the channel. 0: trust sizes and times.
        :param names: a file with relative names, a NUL after each: send only these, whatever their times say.
        :returns: the bytes that went through the channel.
        """
        argv = ["rsync", *RSYNC_ARCHIVE, *extra, "-e", " ".join((*confinement.OUTSIDE, *self._ssh()))]
        if not running:
            argv.append(f"--timeout={_FROZEN_STALL_SECONDS}")
        elif compare_for:
            argv += ["--checksum", f"--timeout={compare_for}"]
        if names:
            argv += ["--files-from=-", "--from0", "--no-recursive", "--ignore-times"]
        # To rsync two colons mean a daemon, so an IPv6 address stands in brackets.
        address = f"[{self._address}]" if ":" in self._address else self._address
        argv += ["--", confinement.directory(source).rstrip("/") + "/", f"{address}:{target}"]
        with open(names or os.devnull, "rb") as listed:
            # rsync ends by itself when the connection dies (ServerAliveInterval); no bound on its time would fit every size.
            done = confinement.run(argv, source, timeout=_NO_LIMIT, stdin=listed)
        if done.rc not in ((0, _RSYNC_VANISHED) if running else (0,)):
            raise MigrationError(
                "transfer_failed",
                f"The transfer of {target} to the destination failed: {done.output[-2000:]}",
                target=target,
                rc=done.rc,
            )
        found = _SENT.search(done.stdout)
        return int(found.group(1)) if found else 0

    def disconnect(self) -> None:
        """End the shared connection."""
        with contextlib.suppress(MigrationError):
            self._run([*self._ssh("-O", "exit"), self._address], timeout=10)
