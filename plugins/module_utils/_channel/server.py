# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The channel's destination end: who may come in, and the few commands that the destination's agent understands.

``authorise`` lets a session's key in for one forced command; ``serve`` is that command. It can write into the places that
this session prepared and nowhere else, it never reads anything out, and it runs nothing but ``rsync --server`` and its own
code. Commands: ``ping``, ``decision``, ``close``, those that the kind of what is moved has beside them (``Kind.commands``), and
rsync's own server command. A conversation (see ``_channel/messages.py``) begins with its name: ``transfer`` or ``handover``.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import re
import shlex
import signal
import sys
import time
import typing as t

from .._base import durable, valid_names
from .._base.command import Runner, run
from .._base.errors import MigrationError
from .._host import confinement, system_directories
from .._session.session import Session
from . import authorized_keys

SUDOERS_DIRECTORY = "/etc/sudoers.d"
# How long a key is good for when nobody revokes it.
KEY_LIFE_SECONDS = 24 * 3600

# What our own client's rsync asks of its server side (see RSYNC_ARCHIVE in _channel/client.py), and nothing else: --sender would
# read files out, -s would have the real arguments read from standard input, unseen, -K would follow links out of the target. (-R
# comes with --files-from.) The letters after "e." are the client's capabilities, not options.
_SERVER_SHORT = re.compile(r"-[vlogDtpHAXSrRIc]+e\.[a-zA-Z]*|-@-1")
_SERVER_LONG = re.compile(
    r"--(numeric-ids|delete|delete-during|force|stats|specials|devices|modify-window=-1|timeout=\d+)"
)
_STALL_SECONDS = 120
_TRANSFER_PREFIX = "transfer."
_TARGETS = "targets.json"
# Which directories the places were when they were named. Somebody who may change a directory above one can put a link in its
# place.
_IDENTITIES = "identities.json"
# A name and no path: what it stands for is what the session has prepared under it, see :func:`set_targets`.
_TARGET = re.compile(r"[a-z]+(/[a-zA-Z0-9][a-zA-Z0-9_.-]*)?/?")

# By sudoers(5).
_SUDO_ALIAS = re.compile(r"[A-Z][A-Z0-9_]*")

#: what a conversation leaves to be done
Afterwards = t.Callable[[], None]


# -- letting the key in -------------------------------------------------------------------------------------------


def _marker(session: str) -> str:
    return f"livemigrate:{session}"


def _without(lines: t.Iterable[bytes], session: str) -> list[bytes]:
    end = b" " + _marker(session).encode()
    return [line for line in lines if not line.endswith(end)]


def _key_options(command: str, runner: Runner) -> str:
    version = runner(["ssh", "-V"]).output
    found = re.search(r"OpenSSH_(\d+)\.(\d+)", version)
    options = f'restrict,command="{command}"'
    # An sshd that does not know expiry-time (before 8.2) would refuse the whole line.
    if found and (int(found.group(1)), int(found.group(2))) >= (8, 2):
        expires = time.strftime("%Y%m%d%H%M", time.localtime(time.time() + KEY_LIFE_SECONDS))
        options += f',expiry-time="{expires}"'
    return options


def authorise(session: Session, user: str, public_key: str, agent: t.Sequence[str], runner: Runner = run) -> None:
    """Let the session's key in as *user*, for the agent's ``serve`` and nothing else.

    A user other than root gets a sudo rule for that one command as well, which goes with the session.

    :param agent: the command line of the agent on this host.
    :raises MigrationError: ``channel_failed``; ``invalid_name``.
    """
    try:
        pwd.getpwnam(valid_names.account(user))
    except KeyError:
        raise MigrationError("channel_failed", f"There is no user {user} on the destination for the channel.") from None
    kind, blob = [*public_key.split(), "", ""][:2]
    if not re.fullmatch(r"ssh-ed25519", kind) or not re.fullmatch(r"[A-Za-z0-9+/=]+", blob):
        raise MigrationError("channel_failed", "The public key of the channel is not an ed25519 key.")
    serve = " ".join(shlex.quote(part) for part in (*agent, "serve", session.id))
    if user != "root":
        serve = f"sudo -n {serve}"
        _let_become_root(session, user, " ".join((*agent, "serve", session.id)), runner)
    # sshd hands the client's own command over in this variable; quoted, it reaches the agent as one argument.
    command = serve + ' \\"$SSH_ORIGINAL_COMMAND\\"'
    line = f"{_key_options(command, runner)} {kind} {blob} {_marker(session.id)}"
    authorized_keys.rewrite(
        authorized_keys.path_of(user, runner),
        user,
        lambda lines: [*_without(lines, session.id), line.encode()],
    )


def _let_become_root(session: Session, user: str, command: str, runner: Runner) -> None:
    """Give an account a sudo rule for the agent's one command, for as long as the key is good for.

    The rule is checked before it is put where sudo reads it: a sudo that does not understand it might refuse everybody.

    :raises MigrationError: ``channel_failed``.
    """
    draft = session.path("sudoers")
    # Without quotes sudo takes a name in capitals for one that another file has given a group of accounts, and ALL for everybody.
    name = f'"{user}"' if _SUDO_ALIAS.fullmatch(user) else user
    expires = time.strftime("%Y%m%d%H%M%SZ", time.gmtime(time.time() + KEY_LIFE_SECONDS))
    output = ""
    try:
        # A sudo that does not know an end (before 1.8.20, sudo-rs) takes the whole file for broken.
        for end in (f"NOTAFTER={expires} ", ""):
            rule = f"Defaults:{name} !requiretty\n{name} ALL=(root) {end}NOPASSWD: {command} *\n".encode()
            durable.write(draft, rule, 0o440)
            done = runner(["visudo", "-c", "-q", "-f", draft])
            if done.rc == 0:
                durable.write(_sudoers_path(session.id), rule, 0o440)
                return
            output = done.output
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft)
    raise MigrationError("channel_failed", f"The sudo rule for the channel is not accepted: {output}")


def revoke(session: Session, runner: Runner = run) -> None:
    """Take the session's sudo rule and key away; doing it twice is fine.

    :raises MigrationError: ``channel_failed`` where root's own file of keys cannot be changed.
    """
    with contextlib.suppress(FileNotFoundError):
        os.unlink(_sudoers_path(session.id))
    user = session.facts.get("channel_user")
    if not user:
        return
    try:
        path = authorized_keys.path_of(user, runner)
        if os.path.exists(path):
            authorized_keys.rewrite(path, user, lambda lines: _without(lines, session.id))
    except KeyError:
        # There is no such account any more.
        return
    except MigrationError:
        # A session has to come to its end whatever an account does to its own file. Without the sudo rule the key can do
        # nothing.
        if user == "root":
            raise


def _sudoers_path(session: str) -> str:
    # sudo ignores files with a dot in their name; a session's id has none.
    return os.path.join(SUDOERS_DIRECTORY, f"livemigrate-{session}")


# -- serving it ---------------------------------------------------------------------------------------------------


def set_targets(session: Session, targets: t.Mapping[str, str], own: t.Container[str] = ()) -> None:
    """Name the places into which the source may write, replacing what was named before.

    :param own: the names of places that this session made for itself alone, in directories that others may change.
    :raises MigrationError: ``bind_mount_refused`` where one is a directory of the host itself.
    """
    for name in targets:
        if not _TARGET.fullmatch(name):
            raise ValueError(f"not a target: {name}")
    identities = {name: _identity(path, own=name in own) for name, path in targets.items()}
    for name, identity in identities.items():
        _require_no_system_directory(targets[name], identity)
    # First, so that there is none without it.
    durable.write_json(session.memory_path(_IDENTITIES), identities)
    durable.write_json(session.memory_path(_TARGETS), dict(targets))


def _identity(path: str, *, own: bool) -> list[int] | None:
    if own:
        with contextlib.suppress(OSError), durable.own_directory(path) as descriptor:
            return durable.identity(descriptor)
        return None
    return durable.identity(path)


def _require_no_system_directory(path: str, identity: t.Sequence[int] | None) -> None:
    """Refuse a place that is a directory of the host itself, whatever leads there: rsync would delete what it holds.

    :param identity: which directory it is.
    :raises MigrationError: ``bind_mount_refused``.
    """
    found = system_directories.name_of(identity)
    if found:
        raise MigrationError(
            "bind_mount_refused",
            f"{path} leads to {found} of the destination, a directory of the host itself: nothing is written there. Have it lead "
            "to a directory of its own.",
            path=path,
            leads_to=found,
        )


def close_targets(session: Session) -> None:
    """Receive nothing any more, and end the transfers that are running. This writes nothing to the disk, which may be full of
    what has to be removed."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(session.memory_path(_TARGETS))
    end_transfers(session)


def rsync_server_argv(parts: t.Sequence[str], targets: t.Mapping[str, str]) -> list[str]:
    """The command line to run for what a client's rsync asked for.

    :param parts: the client's own server command, split.
    :param targets: name to directory.
    :raises MigrationError: ``channel_refused``.
    """

    def refuse(why: str) -> MigrationError:
        return MigrationError("channel_refused", f"The channel does not take that: {why}.")

    if len(parts) < 4 or parts[0] != "rsync" or parts[1] != "--server":
        raise refuse("not rsync's server command")
    *options, dot, target = parts[2:]
    if dot != ".":
        raise refuse("rsync's server command has an unexpected form")
    for option in options:
        if not (_SERVER_LONG.fullmatch(option) or _SERVER_SHORT.fullmatch(option)):
            raise refuse(f"option {option}")
    if not _TARGET.fullmatch(target):
        raise refuse(f"target {target!r}")
    place = targets.get(target.rstrip("/"))
    if place is None:
        raise refuse(f"the target {target!r} has not been prepared")
    if not any(option.startswith("--timeout=") for option in options):
        # A source that has lost its power says nothing for hours.
        options = [*options, f"--timeout={_STALL_SECONDS}"]
    return ["rsync", "--server", *options, ".", confinement.directory(place).rstrip("/") + "/"]


def _run_rsync(session: Session, argv: t.Sequence[str], target: str) -> int:
    identities = durable.read_json(session.memory_path(_IDENTITIES)) or {}
    only = tuple(identities.get(target.rstrip("/")) or (0, 0))
    # Once more, because something may have been mounted since. The directory that rsync gets is the one with these numbers.
    _require_no_system_directory(argv[-1], only)
    # With this very process's own streams.
    with session.alive(), confinement.start(argv, argv[-1], only=only) as process, _noted(session, process.pid):
        # close_targets() removes the places first, and then ends the processes that are noted. A process that was started in
        # between ends itself here.
        if not os.path.exists(os.path.join(session.volatile, _TARGETS)):
            process.kill()
            process.wait()
            raise MigrationError("channel_refused", "The channel does not take that: its places have been closed.")
        return process.wait()


@contextlib.contextmanager
def _noted(session: Session, pid: int) -> t.Iterator[None]:
    """Let :func:`end_transfers` know of a process."""
    note = session.memory_path(f"{_TRANSFER_PREFIX}{pid}")
    with open(note, "w", encoding="ascii"):
        pass
    try:
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(note)


def end_transfers(session: Session) -> None:
    """End the processes that still receive something for this session: an rsync or a conversation whose source may have lost
    its power."""
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(session.volatile):
            if name.startswith(_TRANSFER_PREFIX):
                pid = int(name[len(_TRANSFER_PREFIX) :])
                arguments = _command_line(pid)
                ours = arguments.startswith(b"rsync\0--server\0") or f"\0serve\0{session.id}\0".encode() in arguments
                if ours and pid != os.getpid():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)


def _command_line(pid: int) -> bytes:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as handle:
            return handle.read()
    except FileNotFoundError:
        return b""


def serve(
    session: Session,
    request: str,
    commands: t.Mapping[str, t.Callable[[], dict[str, t.Any]]],
    conversations: t.Mapping[str, t.Callable[[], Afterwards | None]] | None = None,
) -> int:
    """Do what the source asked for, and answer as JSON on standard output (rsync speaks its own protocol there).

    :param request: what the source has sent: a command, the name of a conversation, or rsync's server command.
    :param commands: what each command does.
    :param conversations: what each conversation does, on the channel's own streams. What it returns is done when nothing can come
        in by it any more: :func:`end_transfers` leaves that alone.
    :returns: the exit code.
    """
    conversations = conversations or {}
    try:
        parts = shlex.split(request)
        if len(parts) == 1 and parts[0] in conversations:
            # Who holds this connection open need not be alive: what arrives on it tells (see _channel/messages.py).
            session.renew()
            with _noted(session, os.getpid()):
                afterwards = conversations[parts[0]]()
            if afterwards is not None:
                afterwards()
            return 0
        if len(parts) == 1 and parts[0] in commands:
            # A source may ask for the decision for days and not act on it. This host has to tidy up meanwhile.
            with session.alive() if session.decision is None else contextlib.nullcontext():
                answer = commands[parts[0]]()
        elif parts and parts[0] == "rsync":
            targets = durable.read_json(session.memory_path(_TARGETS)) or {}
            # On the channel's own streams.
            return _run_rsync(session, rsync_server_argv(parts, targets), parts[-1])
        else:
            raise MigrationError(
                "channel_refused", f"The destination's agent does not know the command {request[:40]!r}."
            )
    except (MigrationError, ValueError, OSError) as exc:
        failure = MigrationError.of(exc, "channel_failed")
        if request.startswith("rsync "):
            # Standard output is rsync's own there; the client shows what comes on the other stream.
            sys.stderr.write(failure.message + "\n")
        else:
            # A whole line: the source may be in a conversation (see _channel/messages.py).
            sys.stdout.write(json.dumps({"failure": failure.as_failure()}) + "\n")
        return 1
    json.dump(answer, sys.stdout)
    return 0


def serve_rsync(argv: t.Sequence[str]) -> int:
    """:func:`serve` for rsync's own command, without what the other commands need; see ``_session/agent_package.py``.

    :param argv: ``serve``, the session, the command.
    """
    try:
        return serve(Session(argv[1]), argv[2], {})
    except MigrationError as exc:
        sys.stderr.write(exc.message + "\n")
        return 1
