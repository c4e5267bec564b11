# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Letting a key in and out of an authorized_keys file that belongs to somebody else."""

from __future__ import annotations

import calendar
import contextlib
import itertools
import mmap
import os
import pwd
import re
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base.command import Completed, run
from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._channel import authorized_keys
from ansible_collections.livemigrate.criu.plugins.module_utils._channel import client as channel_client
from ansible_collections.livemigrate.criu.plugins.module_utils._channel import server as channel_server
from ansible_collections.livemigrate.criu.plugins.module_utils._session.phases import DESTINATION
from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import Session
from tests.unit.helpers.support import killed_at, race

MakeSession = Callable[..., Session]

ME = pwd.getpwuid(os.geteuid()).pw_name
AGENT = ("/usr/bin/python3", "-I", "-B", "/var/lib/livemigrate/x/agent.pyz")
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJb1kXn3XZ1l0nqFJtC0Q4kTgK6U3m8B0h5aYtqYw0Zk livemigrate:x"
ADMIN = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFakeFakeFakeFakeFakeFakeFakeFakeFakeFakeFake admin@example.com"


class Host:
    """A destination's place for keys. What only an SSH daemon and sudo can say is said here; the rest is real."""

    def __init__(self, directory: Path) -> None:
        self.file = directory / "home" / ".ssh" / "authorized_keys"
        self.daemon_says: str | None = f"port 22\nauthorizedkeysfile {self.file} .ssh/authorized_keys2\nusepam yes\n"
        self.version = "OpenSSH_9.2p1 Debian-2+deb12u6, OpenSSL 3.0.15"
        self.sudoers = directory / "sudoers.d"
        self.sudoers.mkdir()
        self.sudo_says: Callable[[str], Completed] = lambda _rule: Completed(0, "", "")
        self.rules: list[str] = []
        self.printed: list[Sequence[str]] = []

    def run(self, argv: Sequence[str], **keywords: Any) -> Completed:
        self.printed.append(argv)
        if argv[0] == "sshd":
            if self.daemon_says is None:
                raise MigrationError("program_missing", "no sshd")
            return Completed(0, self.daemon_says, "")
        if list(argv) == ["ssh", "-V"]:
            return Completed(0, "", self.version)
        if argv[0] == "visudo":
            rule = Path(argv[-1])
            assert stat.S_IMODE(rule.stat().st_mode) == 0o440
            # Not yet where sudo would read it: it might not understand it.
            assert list(self.sudoers.iterdir()) == []
            self.rules.append(rule.read_text())
            return self.sudo_says(self.rules[-1])
        return run(argv, **keywords)


@pytest.fixture
def host(disk: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setattr(authorized_keys, "STATE_ROOT", str(disk / "locks"))
    monkeypatch.setattr(channel_server, "SUDOERS_DIRECTORY", str(disk / "sudoers.d"))
    return Host(disk)


@pytest.fixture
def sessions(make_session: MakeSession) -> Iterator[Session]:
    """Destination halves, each for another container."""
    return (make_session(DESTINATION, container=f"{number:064x}", channel_user=ME) for number in itertools.count())


def _home_of_nobody(host: Host) -> Path:
    """A home directory that is that account's own, as homes are."""
    home = host.file.parent.parent
    home.mkdir(exist_ok=True)
    home.parent.chmod(0o755)
    account = pwd.getpwnam("nobody")
    os.chown(home, account.pw_uid, account.pw_gid)
    return home


def _authorise(host: Host, session: Session, user: str = ME, key: str = KEY) -> None:
    channel_server.authorise(session, user, key, AGENT, host.run)


# -- the line --------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: another user gets a sudo rule")
def test_the_key_may_run_one_command_for_a_day(host: Host, sessions: Iterator[Session]) -> None:
    session = next(sessions)
    _authorise(host, session)
    (line,) = host.file.read_text().splitlines()
    options, kind, blob, comment = line.rsplit(" ", 3)
    assert (kind, blob, comment) == ("ssh-ed25519", KEY.split()[1], f"livemigrate:{session.id}")
    assert options.startswith('restrict,command="')
    command = options.removeprefix('restrict,command="').rpartition('",expiry-time="')
    assert command[0] == f'{" ".join(AGENT)} serve {session.id} \\"$SSH_ORIGINAL_COMMAND\\"'
    day = subprocess.run(
        ["date", "-d", "+24 hours", "+%Y%m%d"], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert command[2][:8] == day
    assert len(command[2]) == len("202611240345") + 1


def test_paths_with_blanks_reach_the_shell_as_they_are(host: Host, sessions: Iterator[Session]) -> None:
    channel_server.authorise(next(sessions), ME, KEY, ("/opt/my python/bin/python3", "/x"), host.run)
    assert "'/opt/my python/bin/python3' /x serve" in host.file.read_text()


@pytest.mark.parametrize(
    ("version", "expires"),
    [
        ("OpenSSH_9.2p1 Debian-2+deb12u6, OpenSSL 3.0.15", True),
        ("OpenSSH_10.0p2 Debian-7, OpenSSL 3.5.1", True),
        ("OpenSSH_8.2p1 Ubuntu-4", True),
        ("OpenSSH_8.0p1, OpenSSL 1.1.1k", False),
        ("OpenSSH_7.9p1", False),
        ("something else", False),
    ],
)
def test_a_daemon_that_does_not_know_an_expiry_is_not_reported_one(
    version: str, expires: bool, host: Host, sessions: Iterator[Session]
) -> None:
    host.version = version
    _authorise(host, next(sessions))
    assert ("expiry-time" in host.file.read_text()) == expires


BAD_KEYS = [
    "ssh-rsa AAAAB3NzaC1yc2E= x",
    'ssh-ed25519 AAAA" x',
    "ssh-ed25519 AAA\\A x",
    'command="id" ssh-ed25519 AAAA',
    "ssh-ed25519 $(id) x",
    "ssh-ed25519",
    "",
    "garbage",
]


@pytest.mark.parametrize("key", BAD_KEYS)
def test_what_is_no_key_of_ours_is_refused(key: str, host: Host, sessions: Iterator[Session]) -> None:
    with pytest.raises(MigrationError) as caught:
        _authorise(host, next(sessions), key=key)
    assert caught.value.code == "channel_failed"
    assert not host.file.exists()


def test_only_the_key_itself_is_taken(host: Host, sessions: Iterator[Session]) -> None:
    _authorise(host, next(sessions), key=f"{KEY}\n{ADMIN}\n")
    assert len(host.file.read_text().splitlines()) == 1
    assert "admin" not in host.file.read_text()


def test_an_unknown_user_is_reported(host: Host, sessions: Iterator[Session]) -> None:
    with pytest.raises(MigrationError) as caught:
        _authorise(host, next(sessions), user="livemigrate-nobody")
    assert caught.value.code == "channel_failed"
    assert "livemigrate-nobody" in caught.value.message


# -- the file --------------------------------------------------------------------------------------------------------

CONTENTS = {
    "nothing": b"",
    "one key": f"{ADMIN}\n".encode(),
    "comments and empty lines": f"# mine\n\n{ADMIN}\n   \n# end\n".encode(),
    "no end of line": f"{ADMIN}\n{ADMIN}2".encode(),
    "bytes that are no text": ADMIN.encode() + b" \xff\xfe\n",
    "DOS lines": f"{ADMIN}\r\n{ADMIN}2\r\n".encode(),
    "odd blanks": f'environment="A=1\x0b\x0c\x1c\x85\u2028" {ADMIN}\n'.encode(),
    "a session of the past": f"{ADMIN}\n{KEY.replace('livemigrate:x', 'livemigrate:20250101T000000Z-aaaaaa')}\n".encode(),
}


@pytest.mark.parametrize("content", CONTENTS)
def test_what_was_there_stays_as_it_was_and_what_came_goes(
    content: str, host: Host, sessions: Iterator[Session]
) -> None:
    before = CONTENTS[content]
    host.file.parent.mkdir(parents=True)
    host.file.write_bytes(before)
    session = next(sessions)
    _authorise(host, session)
    lines = host.file.read_bytes().split(b"\n")
    assert lines[-1] == b""
    assert lines[-2].endswith(f"livemigrate:{session.id}".encode())
    assert (
        lines[:-2] == (before.rstrip(b"\n") if content == "no end of line" else before).split(b"\n")[: len(lines) - 2]
    )
    channel_server.revoke(session, host.run)
    assert host.file.read_bytes() == (before + b"\n" if content == "no end of line" else before)


@pytest.mark.usefixtures("needs_root")
def test_owner_and_mode_stay(host: Host, sessions: Iterator[Session]) -> None:
    host.file.parent.mkdir(parents=True)
    host.file.write_text(f"{ADMIN}\n")
    host.file.chmod(0o640)
    os.chown(host.file, 12345, 54321)
    session = next(sessions)
    for change in (lambda: _authorise(host, session), lambda: channel_server.revoke(session, host.run)):
        change()
        status = host.file.stat()
        assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o640, 12345, 54321)
    assert [path.name for path in host.file.parent.iterdir()] == ["authorized_keys"]


@pytest.mark.usefixtures("needs_root")
def test_a_new_file_is_its_user_s_and_private_as_the_daemon_demands(host: Host, sessions: Iterator[Session]) -> None:
    account = pwd.getpwnam("nobody")
    _home_of_nobody(host)
    _authorise(host, next(sessions), user="nobody")
    for path, mode in ((host.file, 0o600), (host.file.parent, 0o700)):
        status = path.stat()
        assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (mode, account.pw_uid, account.pw_gid)


@pytest.mark.usefixtures("needs_root")
def test_in_a_directory_of_root_s_the_file_is_the_account_s_to_read(host: Host, sessions: Iterator[Session]) -> None:
    """AuthorizedKeysFile /etc/ssh/keys/%u: the account cannot write there, and sshd reads as the account."""
    with tempfile.TemporaryDirectory(prefix="lm", dir="/usr/local") as directory:
        Path(directory).chmod(0o755)
        host.daemon_says = f"authorizedkeysfile {directory}/keys/%u"
        _authorise(host, next(sessions), user="nobody")
        status = Path(directory, "keys", "nobody").stat()
        assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o600, pwd.getpwnam("nobody").pw_uid)
        assert stat.S_IMODE(Path(directory, "keys").stat().st_mode) == 0o755
        assert Path(directory, "keys").stat().st_uid == 0


def test_a_session_has_one_line_and_only_its_own_goes(host: Host, sessions: Iterator[Session]) -> None:
    first, second = next(sessions), next(sessions)
    for session in (first, second, first):
        _authorise(host, session)
    assert [line.rsplit(" ", 1)[1] for line in host.file.read_text().splitlines()] == [
        f"livemigrate:{second.id}",
        f"livemigrate:{first.id}",
    ]
    for _twice in range(2):
        channel_server.revoke(first, host.run)
        assert [line.rsplit(" ", 1)[1] for line in host.file.read_text().splitlines()] == [f"livemigrate:{second.id}"]


def test_revoking_what_was_never_let_in_changes_nothing(host: Host, make_session: MakeSession) -> None:
    channel_server.revoke(make_session(DESTINATION), host.run)
    channel_server.revoke(make_session(DESTINATION, container="c" * 64, channel_user=ME), host.run)
    channel_server.revoke(make_session(DESTINATION, container="d" * 64, channel_user="livemigrate-nobody"), host.run)
    assert not host.file.exists()


def test_of_eight_sessions_that_come_and_go_at_once_none_disturbs_another(
    host: Host, sessions: Iterator[Session]
) -> None:
    host.file.parent.mkdir(parents=True)
    host.file.write_text(f"{ADMIN}\n" * 30)
    open_ones = [next(sessions) for _number in range(8)]
    for _turn in range(3):
        assert race(8, lambda number: _authorise(host, open_ones[number])) == [("ok", None)] * 8
        lines = host.file.read_text().splitlines()
        assert lines[:30] == [ADMIN] * 30
        assert sorted(line.rsplit(" ", 1)[1] for line in lines[30:]) == [
            f"livemigrate:{session.id}" for session in open_ones
        ]
        assert race(8, lambda number: channel_server.revoke(open_ones[number], host.run)) == [("ok", None)] * 8
        assert host.file.read_text() == f"{ADMIN}\n" * 30


def test_a_change_that_is_killed_leaves_the_file_of_before_or_after(host: Host, sessions: Iterator[Session]) -> None:
    host.file.parent.mkdir(parents=True)
    session = next(sessions)
    seen = set()
    for step in itertools.count(1):
        host.file.write_text(f"{ADMIN}\n")
        killed = killed_at(step, lambda: _authorise(host, session))
        seen.add(host.file.read_text().replace(f"{ADMIN}\n", "ADMIN ", 1)[:15])
        if not killed:
            break
    assert {text[:6] for text in seen} == {"ADMIN "}
    assert len(seen) == 2


# -- an account that means harm ----------------------------------------------------------------------------------------


SECRET = "root:$6$only-root-reads-this"


def _away(path: Path) -> None:
    if os.path.lexists(path):
        os.rename(path, f"{path}.{len(os.listdir(path.parent))}")


def _link(path: Path, target: Path) -> None:
    _away(path)
    os.symlink(target, path)


def _empty(path: Path) -> None:
    _away(path)
    with open(path, "w", encoding="ascii"):
        pass


# What the account does to its own files, at any moment.
Trick = Callable[[Path, Path], None]
TRICKS: dict[str, Trick] = {
    "a link to a file of root's": lambda home, prey: _link(home / ".ssh" / "authorized_keys", prey / "shadow"),
    "a file of its own": lambda home, _prey: _empty(home / ".ssh" / "authorized_keys"),
    "a link to a directory of root's": lambda home, prey: _link(home / ".ssh", prey),
}


def _make_directory(home: Path, _prey: Path) -> None:
    (home / ".ssh").mkdir(0o700)


def _make_link(home: Path, prey: Path) -> None:
    _make_directory(home, prey)
    TRICKS["a link to a file of root's"](home, prey)


BEFORE: dict[str, Trick] = {
    "nothing": lambda _home, _prey: None,
    "a directory": _make_directory,
    "a link to a file of root's": _make_link,
    "a link to a directory of root's": TRICKS["a link to a directory of root's"],
}
# What asks or changes something by a path or a descriptor: before any of these the account may come in between.
_CALLS = ("open", "stat", "lstat", "fstat", "mkdir", "chown", "fchown", "fchmod", "rename", "readlink", "listdir")


@contextlib.contextmanager
def _as_nobody() -> Iterator[None]:
    """With that account's rights, whether this process is root or has become that account already."""
    if os.geteuid() != 0:
        yield
        return
    account = pwd.getpwnam("nobody")
    os.setegid(account.pw_gid)
    os.seteuid(account.pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


def _interfered(step: int, trick: Callable[[], object], work: Callable[[], object]) -> bool:
    """Do some work in a process, and a trick before its *step*-th call; returns whether it came to that."""
    # The work may be done by yet another process.
    left = mmap.mmap(-1, 1)
    left[0] = step

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            if left[0]:
                left[0] -= 1
                if not left[0]:
                    with contextlib.suppress(OSError), _as_nobody():
                        trick()
            return call(*args, **kwargs)

        return wrapper

    child = os.fork()
    if child == 0:
        for name in _CALLS:
            setattr(os, name, counted(getattr(os, name)))
        with contextlib.suppress(MigrationError, OSError):
            work()
        os._exit(0)
    os.waitpid(child, 0)
    return left[0] == 0


@pytest.mark.usefixtures("needs_root")
@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("trick", TRICKS)
def test_whatever_an_account_puts_into_the_way_it_gets_nothing_of_root_s(
    before: str, trick: str, disk: Path, monkeypatch: pytest.MonkeyPatch, host: Host
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _fd: None)
    prey = disk / "prey"
    prey.mkdir(0o700)
    (prey / "shadow").write_text(SECRET)
    (prey / "shadow").chmod(0o600)
    home = host.file.parent.parent

    def work() -> None:
        authorized_keys.rewrite(str(host.file), "nobody", lambda lines: [*lines, b"a key"])

    for step in itertools.count(1):
        _home_of_nobody(host)
        with _as_nobody():
            BEFORE[before](home, prey)
        came = _interfered(step, lambda: TRICKS[trick](home, prey), work)
        assert {path.name for path in prey.iterdir()} == {"shadow"}, step
        assert (prey.stat().st_uid, (prey / "shadow").stat().st_uid) == (0, 0), step
        assert (prey / "shadow").read_text() == SECRET, step
        for path in home.rglob("*"):
            if not path.is_symlink():
                assert path.owner() == "nobody", (step, path)
                assert not path.is_file() or SECRET not in path.read_text(), (step, path)
        shutil.rmtree(home)
        if not came:
            break
    assert step > 10, "the calls are no longer those that the work is made of"


@pytest.mark.usefixtures("needs_root")
@pytest.mark.parametrize(
    "kind", ["a pipe", "a directory", "another's", "a file of root's", "too large", "not to be written"]
)
def test_what_cannot_be_changed_as_the_account_is_reported_and_nothing_hangs(
    kind: str, host: Host, make_session: MakeSession, disk: Path
) -> None:
    account = pwd.getpwnam("nobody")
    home = _home_of_nobody(host)
    host.file.parent.mkdir(mode=0o700)
    os.chown(host.file.parent, account.pw_uid, account.pw_gid)
    if kind == "a pipe":
        os.mkfifo(host.file)
    elif kind == "a directory":
        host.file.mkdir()
    elif kind == "too large":
        os.truncate(os.open(host.file, os.O_CREAT | os.O_WRONLY), 5 << 20)
    elif kind == "not to be written":
        os.chown(host.file.parent, 0, 0)
        host.file.parent.chmod(0o755)
    else:
        target = disk / "theirs" if kind == "a file of root's" else host.file
        target.write_text(SECRET)
        target.chmod(0o600)
        if target != host.file:
            host.file.symlink_to(target)
    before = {path: path.lstat().st_ino for path in home.rglob("*")}
    session = make_session(DESTINATION, channel_user="nobody")
    with pytest.raises(MigrationError) as caught:
        _authorise(host, session, user="nobody")
    assert caught.value.code == "channel_failed"
    assert "migrate_channel_user" in caught.value.message
    assert {path: path.lstat().st_ino for path in home.rglob("*")} == before
    # And it keeps no session from its end: without its sudo rule a key does nothing.
    (disk / "sudoers.d" / f"livemigrate-{session.id}").write_text("")
    channel_server.revoke(session, host.run)
    assert list((disk / "sudoers.d").iterdir()) == []


@pytest.mark.usefixtures("needs_root")
def test_a_link_of_the_account_s_own_stays_one(host: Host, make_session: MakeSession) -> None:
    account = pwd.getpwnam("nobody")
    home = _home_of_nobody(host)
    (home / ".ssh").mkdir()
    (home / "dotfiles").mkdir()
    (home / "dotfiles" / "keys").write_text(f"{ADMIN}\n")
    host.file.symlink_to("../dotfiles/keys")
    for path in home.rglob("*"):
        os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)
    session = make_session(DESTINATION, channel_user="nobody")
    _authorise(host, session, user="nobody")
    assert os.readlink(host.file) == "../dotfiles/keys"
    assert len((home / "dotfiles" / "keys").read_text().splitlines()) == 2
    channel_server.revoke(session, host.run)
    assert os.readlink(host.file) == "../dotfiles/keys"
    assert (home / "dotfiles" / "keys").read_text() == f"{ADMIN}\n"


@pytest.mark.usefixtures("needs_root")
@pytest.mark.parametrize("way", ["the file is a link", "its directory is a link"])
def test_a_link_of_root_s_to_a_place_of_the_account_s_gives_it_no_file_of_root_s(way: str, host: Host) -> None:
    """AuthorizedKeysFile /etc/ssh/keys/%u, where that leads into the account's home; and there a link leads back."""
    home = _home_of_nobody(host)
    with tempfile.TemporaryDirectory(prefix="lm", dir="/usr/local") as directory:
        Path(directory).chmod(0o755)
        prey = Path(directory, "prey")
        prey.mkdir(0o755)
        keys = Path(directory, "keys")
        if way == "the file is a link":
            keys.mkdir(0o755)
            (keys / "nobody").symlink_to(home / "mine")
            leads_back, target = home / "mine", prey / "nobody"
        else:
            keys.symlink_to(home / "mine")
            leads_back, target = home / "mine", prey
        with _as_nobody():
            leads_back.symlink_to(target)
        with pytest.raises(MigrationError) as caught:
            authorized_keys.rewrite(str(keys / "nobody"), "nobody", lambda lines: [*lines, b"a key"])
        assert caught.value.code == "channel_failed"
        assert list(prey.iterdir()) == []


@pytest.mark.usefixtures("needs_root")
def test_links_of_root_s_to_places_of_root_s_are_followed(host: Host) -> None:  # noqa: ARG001
    with tempfile.TemporaryDirectory(prefix="lm", dir="/usr/local") as directory:
        top = Path(directory)
        top.chmod(0o755)
        (top / "all").mkdir(0o755)
        (top / "keys").symlink_to("../" + top.name + "/all")
        (top / "all" / "nobody").symlink_to("./common")
        authorized_keys.rewrite(str(top / "keys" / "nobody"), "nobody", lambda lines: [*lines, b"a key"])
        assert (top / "all" / "common").read_text() == "a key\n"


@pytest.mark.usefixtures("needs_root")
def test_a_child_that_does_not_answer_is_ended(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    _home_of_nobody(host)
    monkeypatch.setattr(authorized_keys, "_SECONDS", 0.2)
    parent = os.getpid()

    def stand_still(_lines: list[bytes]) -> list[bytes]:
        assert os.getpid() != parent
        os.kill(os.getpid(), signal.SIGSTOP)
        return []

    with pytest.raises(MigrationError, match=r"the process for it did not end within 0.2 seconds"):
        authorized_keys.rewrite(str(host.file), "nobody", stand_still)


# -- where -----------------------------------------------------------------------------------------------------------

HOME = pwd.getpwnam(ME).pw_dir


@pytest.mark.parametrize(
    ("says", "path"),
    [
        ("authorizedkeysfile .ssh/authorized_keys .ssh/authorized_keys2", f"{HOME}/.ssh/authorized_keys"),
        ("AuthorizedKeysFile %h/keys", f"{HOME}/keys"),
        ("authorizedkeysfile /etc/ssh/keys/%u", f"/etc/ssh/keys/{ME}"),
        ("authorizedkeysfile /etc/ssh/100%%/%u/x", f"/etc/ssh/100%/{ME}/x"),
        ("authorizedkeysfile /etc/ssh/%%u/x", "/etc/ssh/%u/x"),
        ("port 22", f"{HOME}/.ssh/authorized_keys"),
        ("", f"{HOME}/.ssh/authorized_keys"),
        (None, f"{HOME}/.ssh/authorized_keys"),
    ],
)
def test_the_file_is_the_one_that_the_daemon_reads(says: str | None, path: str, host: Host) -> None:
    host.daemon_says = says
    assert authorized_keys.path_of(ME, host.run) == path
    assert host.printed == [["sshd", "-T", "-C", f"user={ME},host=localhost,addr=127.0.0.1"]]


def test_a_daemon_that_reads_no_file_is_reported(host: Host) -> None:
    host.daemon_says = "authorizedkeysfile none"
    with pytest.raises(MigrationError) as caught:
        authorized_keys.path_of(ME, host.run)
    assert caught.value.code == "channel_failed"


# -- another user ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("user", "written"),
    [
        ("ADMIN", '"ADMIN"'),
        ("ALL", '"ALL"'),
        ("A_1", '"A_1"'),
        ("Admin", "Admin"),
        ("admin", "admin"),
        ("_A", "_A"),
    ],
)
def test_a_name_in_capitals_is_no_group_of_accounts_to_sudo(
    user: str, written: str, host: Host, make_session: MakeSession
) -> None:
    """Run with sudo 1.9.16: without quotes the rule is for whom another file calls so, or for nobody, and visudo is content."""
    channel_server._let_become_root(make_session(DESTINATION), user, "agent serve x", host.run)
    (rule,) = host.rules
    assert rule.startswith(f"Defaults:{written} !requiretty\n{written} ALL=(root) ")


@pytest.mark.usefixtures("needs_root")
def test_another_user_gets_a_sudo_rule_for_the_one_command_that_goes_with_the_session(
    host: Host, make_session: MakeSession, disk: Path
) -> None:
    _home_of_nobody(host)
    session = make_session(DESTINATION, channel_user="nobody")
    _authorise(host, session, user="nobody")
    (rule,) = (disk / "sudoers.d").iterdir()
    assert "." not in rule.name, "sudo would pass over it"
    assert stat.S_IMODE(rule.stat().st_mode) == 0o440
    day = r"NOTAFTER=(\d{14})Z"
    command = f"{' '.join(AGENT)} serve {session.id} *"
    reported = re.fullmatch(
        rf"Defaults:nobody !requiretty\nnobody ALL=\(root\) {day} NOPASSWD: {re.escape(command)}\n", rule.read_text()
    )
    assert reported, rule.read_text()
    ends = calendar.timegm(time.strptime(reported.group(1), "%Y%m%d%H%M%S"))
    assert 0 <= time.time() + 24 * 3600 - ends < 60, "as long as the key"
    assert not Path(session.path("sudoers")).exists()
    assert (
        f'command="sudo -n {" ".join(AGENT)} serve {session.id} \\"$SSH_ORIGINAL_COMMAND\\""' in host.file.read_text()
    )
    for _twice in range(2):
        channel_server.revoke(session, host.run)
        assert list((disk / "sudoers.d").iterdir()) == []
    assert host.file.read_text() == ""


@pytest.mark.usefixtures("needs_root")
def test_a_sudo_rule_that_sudo_does_not_take_is_taken_away(host: Host, make_session: MakeSession, disk: Path) -> None:
    host.sudo_says = lambda _rule: Completed(1, "", "syntax error")
    with pytest.raises(MigrationError) as caught:
        _authorise(host, make_session(DESTINATION, channel_user="nobody"), user="nobody")
    assert caught.value.code == "channel_failed"
    assert "syntax error" in caught.value.message
    assert list((disk / "sudoers.d").iterdir()) == []
    assert not Path(host.printed[-1][-1]).exists()
    assert not host.file.exists()


@pytest.mark.usefixtures("needs_root")
def test_a_sudo_that_knows_no_end_of_a_rule_gets_one_without(host: Host, make_session: MakeSession, disk: Path) -> None:
    host.sudo_says = lambda rule: Completed(1 if "NOTAFTER" in rule else 0, "", "syntax error")
    _home_of_nobody(host)
    session = make_session(DESTINATION, channel_user="nobody")
    _authorise(host, session, user="nobody")
    (rule,) = (disk / "sudoers.d").iterdir()
    assert f"nobody ALL=(root) NOPASSWD: {' '.join(AGENT)} serve {session.id} *\n" in rule.read_text()
    assert stat.S_IMODE(rule.stat().st_mode) == 0o440


@pytest.mark.usefixtures("needs_root")
@pytest.mark.skipif(shutil.which("visudo") is None, reason="sudo is not installed")
def test_this_host_s_sudo_takes_the_rule(host: Host, make_session: MakeSession, disk: Path) -> None:
    """Every sudo does with or without an end; the rule that it gets is one that it takes."""
    host.sudo_says = lambda _rule: run(["visudo", "-c", "-q", "-f", host.printed[-1][-1]])
    _home_of_nobody(host)
    _authorise(host, make_session(DESTINATION, channel_user="nobody"), user="nobody")
    (rule,) = (disk / "sudoers.d").iterdir()
    assert run(["visudo", "-c", "-q", "-f", str(rule)]).rc == 0


# -- the key ---------------------------------------------------------------------------------------------------------

needs_keygen = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")


def _public_part(path: str) -> str:
    shown = subprocess.run(["ssh-keygen", "-y", "-f", path], capture_output=True, text=True, check=True).stdout
    return " ".join(shown.split()[:2])


@needs_keygen
def test_a_key_is_made_once_and_private(make_session: MakeSession, host: Host) -> None:
    session = make_session()
    public = channel_client.make_key(session)
    assert public.split()[0] == "ssh-ed25519"
    assert public.split()[2] == f"livemigrate:{session.id}"
    assert public.startswith(_public_part(session.path("key")))
    assert stat.S_IMODE(os.stat(session.path("key")).st_mode) == 0o600
    assert channel_client.make_key(session) == public
    assert "Proc-Type" not in Path(session.path("key")).read_text()
    # And the other end takes it.
    _authorise(host, session, key=public)


@needs_keygen
@pytest.mark.parametrize("left", ["an empty private key", "a private key"])
def test_a_key_whose_making_was_cut_off_is_made_again(left: str, make_session: MakeSession) -> None:
    session = make_session()
    if left == "a private key":
        channel_client.make_key(session)
        os.unlink(session.path("key.pub"))
    else:
        Path(session.path("key")).write_text("")
    public = channel_client.make_key(session)
    assert public.startswith(_public_part(session.path("key")))


@needs_keygen
def test_a_key_is_on_the_disk_before_anything_depends_on_it(
    make_session: MakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After GO the source asks with this key, also after a power cut: an empty key would leave it asking for ever."""
    session = make_session()
    flushed = set()
    fsync = os.fsync

    def recorded(fd: int) -> None:
        fsync(fd)
        flushed.add(os.fstat(fd).st_ino)

    monkeypatch.setattr(os, "fsync", recorded)
    channel_client.make_key(session)
    assert {os.stat(session.path(name)).st_ino for name in ("key", "key.pub", "")} <= flushed
