# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The channel through a real SSH daemon: the key opens one door, on one host, for one session."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base.command import run
from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._channel import client as channel_client
from ansible_collections.livemigrate.criu.plugins.module_utils._channel.client import Channel
from ansible_collections.livemigrate.criu.plugins.module_utils._host import machine
from ansible_collections.livemigrate.criu.plugins.module_utils._migration import source as source_module
from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import Session
from tests.unit.helpers.ssh_host import SshHost
from tests.unit.helpers.support import PACKAGE

# The first one may have to make the root file system.
pytestmark = pytest.mark.timeout(400)

MakeSession = Callable[..., Session]

USERS = ["root", "ops"]


@pytest.fixture(scope="module")
def ssh_host() -> Iterator[SshHost]:
    host = SshHost()
    yield host
    host.stop()


class Line:
    """A channel that is open, and what the destination made for it."""

    def __init__(self, host: SshHost, session: Session, user: str, **keywords: Any) -> None:
        self.host, self.session, self.user = host, session, user
        self.opened = host.open(session.id, user, channel_client.make_key(session), **keywords)
        self.place: Path = self.opened["place"]
        self.point_to(host.address)
        self.channel = Channel(session)

    def point_to(self, address: str, host_keys: list[str] | None = None) -> None:
        keys = host_keys or self.opened["host_keys"]
        channel_client.set_peer(
            self.session, {"address": address, "port": self.host.port, "user": self.user, "host_keys": keys}
        )

    def ssh(self, *words: str, options: tuple[str, ...] = (), stdin: str = "") -> subprocess.CompletedProcess[str]:
        """What the key's holder can try with an ssh of his own."""
        return subprocess.run(
            [*self.channel._ssh(*options), self.host.address, *words],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=20,
        )


@pytest.fixture
def connect(ssh_host: SshHost, make_session: MakeSession) -> Iterator[Callable[..., Line]]:
    """A function that opens a channel: connect(user="root", life=3600)."""
    lines: list[Line] = []
    numbers = iter(range(100))

    def open_line(user: str = "root", **keywords: Any) -> Line:
        session = make_session(container=f"{next(numbers):064x}")
        lines.append(Line(ssh_host, session, user, **keywords))
        return lines[-1]

    yield open_line
    for line in lines:
        line.channel.disconnect()
        ssh_host.run("rm", "-rf", f"/var/lib/livemigrate/{line.session.id}", "/var/lib/livemigrate/locks")
        ssh_host.run(
            "sh", "-c", "rm -f /root/.ssh/authorized_keys /home/ops/.ssh/authorized_keys /etc/sudoers.d/livemigrate-*"
        )


@pytest.fixture
def session_ids(request: pytest.FixtureRequest) -> Iterator[str]:
    """Ids that no other test of this file uses: the host outlives the tests."""
    number = abs(hash(request.node.nodeid)) % 86400
    return (f"202611{day:02}T{number // 3600:02}{number // 60 % 60:02}{number % 60:02}Z-3f9a1c" for day in range(1, 29))


Connect = Callable[..., Line]


@pytest.mark.parametrize("user", USERS)
def test_commands_and_directories_go_through_one_connection(
    user: str, connect: Connect, ssh_host: SshHost, disk: Path
) -> None:
    line = connect(user)
    before = ssh_host.log.count("Accepted publickey")
    host = line.channel.call("ping")["host"]
    assert host.startswith("0123456789abcdef0123456789abcdef/")
    source = disk / "content"
    source.mkdir()
    (source / "file").write_text("content")
    assert line.channel.rsync(str(source), "layer", ("--delete", "--force")) > 0
    assert (line.place / "file").read_text() == "content"
    assert (line.place / "file").stat().st_uid == 0, "it is root who writes"
    assert line.channel.rsync(str(source), "layer", running=True) > 0
    (disk / "names").write_bytes(b"file\0")
    assert line.channel.rsync(str(source), "layer", names=str(disk / "names")) > 0
    assert ssh_host.log.count("Accepted publickey") == before + 1
    line.channel.disconnect()
    line.channel.call("ping")
    assert ssh_host.log.count("Accepted publickey") == before + 2


@pytest.mark.parametrize("user", USERS)
def test_the_daemon_s_own_answer_says_where_its_keys_are(user: str, connect: Connect, ssh_host: SshHost) -> None:
    line = connect(user)
    file = ssh_host.path("/root/.ssh/authorized_keys" if user == "root" else "/home/ops/.ssh/authorized_keys")
    assert f"livemigrate:{line.session.id}" in file.read_text()
    assert "expiry-time=" in file.read_text()
    ssh_host.revoke(line.session.id)
    assert file.read_text() == ""
    assert not ssh_host.path(f"/etc/sudoers.d/livemigrate-{line.session.id}").exists()


def _refusal(done: subprocess.CompletedProcess[str]) -> str:
    try:
        return str(json.loads(done.stdout)["failure"]["code"])
    except ValueError:
        return f"no answer of the agent, but {done.stdout!r} and {done.stderr!r}"


COMMANDS = [
    "id",
    "touch /pwned",
    "ping; touch /pwned",
    "ping && touch /pwned",
    "ping\ntouch /pwned",
    "$(touch /pwned)",
    "`touch /pwned`",
    '"; touch /pwned; "',
    "'; touch /pwned; '",
    '\\"; touch /pwned; \\"',
    "sh -c 'touch /pwned'",
    "/bin/sh",
    "scp -t /",
    "/usr/lib/openssh/sftp-server",
    "internal-sftp",
    "rsync --server --sender -logDtpre.iLsfxC . /etc",
    "rsync --server -slogDtpre.iLsfxC . layer",
    "rsync --server -logDtpre.iLsfxC . /etc",
    "settle",
]


@pytest.mark.parametrize("user", USERS)
def test_the_key_runs_nothing_else(user: str, connect: Connect, ssh_host: SshHost) -> None:
    line = connect(user)
    # sudo sees the words as one more argument; what a shell could make of them is the same for both.
    for command in COMMANDS if user == "root" else COMMANDS[::4]:
        done = line.ssh(command, stdin="touch /pwned\n")
        assert done.returncode != 0, command
        if not command.startswith("rsync"):
            assert _refusal(done) in ("channel_refused", "channel_failed"), command
    # No command at all would be a shell.
    assert _refusal(line.ssh(stdin="touch /pwned\n")) == "channel_refused"
    assert line.ssh("sftp", options=("-s",), stdin="").returncode != 0
    assert not ssh_host.path("/pwned").exists()


def test_the_key_opens_no_terminal_and_forwards_nothing(connect: Connect) -> None:
    line = connect()
    line.channel.disconnect()
    alone = ("-S", "none")
    done = line.ssh("ping", options=(*alone, "-tt"))
    assert "PTY allocation request failed" in done.stderr
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        probe.listen()
        port = probe.getsockname()[1]
        # The daemon would connect to us.
        done = line.ssh(options=(*alone, "-W", f"127.0.0.1:{port}"))
        assert done.returncode != 0
        assert "forwarding failed" in done.stderr
        done = line.ssh("ping", options=(*alone, "-o", "ExitOnForwardFailure=yes", "-R", f"0:127.0.0.1:{port}"))
        assert done.returncode != 0
        assert "forwarding failed" in done.stderr


def test_a_revoked_key_opens_nothing(connect: Connect, ssh_host: SshHost) -> None:
    first, second = connect(), connect()
    first.channel.call("ping")
    ssh_host.revoke(first.session.id)
    first.channel.disconnect()
    with pytest.raises(MigrationError) as caught:
        first.channel.call("ping")
    assert caught.value.code == "channel_revoked"
    assert "has been closed" in caught.value.message
    assert second.channel.call("ping")


def test_a_key_that_nobody_revoked_expires(connect: Connect) -> None:
    line = connect(life=-120)
    with pytest.raises(MigrationError) as caught:
        line.channel.call("ping")
    assert caught.value.code == "channel_revoked"


def test_another_host_in_its_place_is_not_spoken_to(connect: Connect, ssh_host: SshHost) -> None:
    line = connect()
    line.point_to(ssh_host.address, ["ssh-ed25519 " + channel_client.make_key(line.session).split()[1]])
    before = ssh_host.log.count("Accepted publickey")
    with pytest.raises(MigrationError) as caught:
        Channel(line.session).call("ping")
    assert caught.value.code == "destination_unreachable"
    assert "Host key verification failed" in caught.value.message
    assert ssh_host.log.count("Accepted publickey") == before


@pytest.mark.parametrize("address", ["::1", "localhost"])
def test_the_destination_may_go_by_any_address(address: str, connect: Connect, disk: Path) -> None:
    if address == "::1":
        with socket.socket(socket.AF_INET6) as probe:
            try:
                probe.bind(("::1", 0))
            except OSError:
                pytest.skip("this machine has no ::1")
    line = connect()
    line.point_to(address)
    channel = Channel(line.session)
    assert channel.call("ping")
    (disk / "content").mkdir()
    (disk / "content" / "file").write_text("content")
    channel.rsync(str(disk / "content"), "layer")
    assert (line.place / "file").read_text() == "content"
    channel.disconnect()


def test_nobody_there_is_reported_in_time(connect: Connect) -> None:
    line = connect()
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        channel_client.set_peer(
            line.session,
            {
                "address": "127.0.0.1",
                "port": closed.getsockname()[1],
                "user": "root",
                "host_keys": line.opened["host_keys"],
            },
        )
        for attempt in (
            lambda: Channel(line.session).call("ping"),
            lambda: Channel(line.session).rsync("/etc/ssh", "layer"),
        ):
            with pytest.raises(MigrationError) as caught:
                attempt()
            assert caught.value.code in ("destination_unreachable", "transfer_failed")
            assert "Connection refused" in caught.value.message


def test_a_stream_that_nobody_reads_to_its_end_is_answered(connect: Connect) -> None:
    answer, sent = connect().channel.stream("ping", (bytes(1 << 16) for _chunk in range(64)))
    assert answer["host"]
    assert sent <= 64 << 16


def test_an_ordinary_user_may_ask_sudo_for_what_the_channel_may_and_no_more(
    connect: Connect, ssh_host: SshHost
) -> None:
    line = connect("ops")
    agent = line.opened["agent"]

    def as_ops(*words: str) -> subprocess.CompletedProcess[str]:
        return ssh_host.run("setpriv", "--reuid=ops", "--regid=ops", "--init-groups", "sudo", "-n", *words, check=False)

    assert "host" in json.loads(as_ops(*agent, "serve", line.session.id, "ping").stdout)
    refused = [
        ("id",),
        tuple(agent[:1]),
        (*agent[:1], "-c", "print()"),
        (*agent, "settle", line.session.id),
        (*agent, "open"),
        (*agent[:-1], "/tmp/agent.pyz", "serve", line.session.id, "ping"),
        (*agent, "serve", "20260101T000000Z-ffffff", "ping"),
    ]
    for words in refused:
        done = as_ops(*words)
        assert done.returncode != 0, words
        assert "password is required" in done.stderr, words
    # More words than one are no command.
    done = as_ops(*agent, "serve", line.session.id, "ping", "settle")
    assert done.returncode != 0
    assert "host" not in done.stdout


# -- an account that is not fit for it ------------------------------------------------------------------------------

_LOOK = f"""
import json, sys
sys.path.insert(0, "/opt/tree")
from {PACKAGE}._channel import login as channel_login
from {PACKAGE}._base.command import run
json.dump(channel_login.look(run, sys.argv[1], "127.0.0.1"), sys.stdout)
"""


def _seen_beforehand(host: SshHost, user: str) -> dict[str, str]:
    """What the preflight finds of an account, without logging in."""
    seen: dict[str, str] = json.loads(host.run("python3", "-c", _LOOK, user).stdout)
    return seen


@pytest.fixture
def changed(ssh_host: SshHost) -> Iterator[Callable[[str, str], None]]:
    """A function that changes a file of the host, by what a line of shell makes of it; undone at the end."""
    before: dict[Path, bytes | None] = {}

    def change(path: str, text: str) -> None:
        file = ssh_host.path(path)
        before.setdefault(file, file.read_bytes() if file.exists() else None)
        file.write_text(text + "\n" + (before[file] or b"").decode())
        file.chmod(0o644)

    yield change
    for file, content in before.items():
        if content is None:
            file.unlink()
        else:
            file.write_bytes(content)


def test_a_first_login_that_is_refused_is_no_half_that_was_closed(connect: Connect, ssh_host: SshHost) -> None:
    line = connect()
    ssh_host.revoke(line.session.id)
    with pytest.raises(MigrationError) as caught:
        source_module.probe(line.session)
    assert caught.value.code == "login_refused"
    assert "root@127.0.0.1" in caught.value.message
    assert "AllowUsers" in caught.value.message
    assert "closed" not in caught.value.message


@pytest.mark.parametrize("user", USERS)
def test_an_account_that_prints_is_named_with_what_it_prints(
    user: str, connect: Connect, ssh_host: SshHost, changed: Callable[[str, str], None]
) -> None:
    home = "/root" if user == "root" else "/home/ops"
    assert _seen_beforehand(ssh_host, user) == {"user": user, "prints": "", "fails": "", "refused": ""}
    changed(f"{home}/.bashrc", "echo 'Welcome to {beta}!'; echo; printf 'Have a nice day '")
    assert _seen_beforehand(ssh_host, user)["prints"] == "Welcome to {beta}!"
    with pytest.raises(MigrationError) as caught:
        source_module.probe(connect(user).session)
    assert caught.value.code == "account_prints"
    assert "'Welcome to {beta}!'" in caught.value.message
    assert f"{user}@127.0.0.1" in caught.value.message


@pytest.mark.parametrize("shell", ["/usr/sbin/nologin", "/bin/false", "/no/such/shell"])
def test_an_account_whose_shell_runs_nothing_is_found_beforehand(shell: str, ssh_host: SshHost) -> None:
    ssh_host.run("usermod", "--shell", shell, "ops")
    try:
        assert f"its shell {shell} runs no commands" in _seen_beforehand(ssh_host, "ops")["fails"]
    finally:
        ssh_host.run("usermod", "--shell", "/bin/bash", "ops")
    assert _seen_beforehand(ssh_host, "nobody-at-all")["fails"] == "there is no such account"


@pytest.mark.parametrize(
    ("settings", "user", "why"),
    [
        ("PubkeyAuthentication no", "ops", "PubkeyAuthentication no"),
        ("PermitRootLogin no", "root", "PermitRootLogin no"),
        ("PermitRootLogin no", "ops", ""),
        ("PermitRootLogin forced-commands-only", "root", ""),
        ("ForceCommand internal-sftp", "ops", "ForceCommand"),
        (
            "PasswordAuthentication yes\nAuthenticationMethods publickey,password",
            "ops",
            "AuthenticationMethods publickey,password",
        ),
        ("PasswordAuthentication yes\nAuthenticationMethods publickey,password publickey", "ops", ""),
    ],
)
def test_what_sshd_itself_forbids_is_found_beforehand(
    settings: str, user: str, why: str, ssh_host: SshHost, changed: Callable[[str, str], None]
) -> None:
    changed("/etc/ssh/sshd_config", settings)
    refused = _seen_beforehand(ssh_host, user)["refused"]
    assert why in refused
    assert bool(why) == bool(refused)


def test_the_keys_that_a_host_shows_tell_which_it_is(connect: Connect, ssh_host: SshHost) -> None:
    reported = connect().opened["host_keys"]
    seen = machine.peer_facts(run, "localhost", ssh_host.port)
    assert seen["error"] is None
    assert set(seen["host_keys"]) & set(reported)
    assert seen["is_own"]
