# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.
"""Whether the channel can use an account of this host: what its shell prints at a login, and what sshd lets it do.

Nobody logs in for it. The shell is started as sshd starts it for a command, and sshd is asked for its settings.
"""

from __future__ import annotations

import contextlib
import pwd
import re
import typing as t

from .._base import valid_names
from .._base.command import Runner
from .._base.errors import MigrationError

Facts = dict[str, t.Any]

_SECONDS = 10.0
_SHOWN = 80


def _what_is_printed(run: Runner, account: pwd.struct_passwd) -> tuple[str, str]:
    """Run a command that prints nothing as the account. Return what is printed all the same, and why it cannot be run; each is
    empty where all is well."""
    shell = account.pw_shell or "/bin/sh"
    environment = (
        *(f"HOME={account.pw_dir}", f"USER={account.pw_name}", f"LOGNAME={account.pw_name}", f"SHELL={shell}"),
        # By this bash knows that sshd has started it, and reads .bashrc.
        *("PATH=/usr/local/bin:/usr/bin:/bin", "SSH_CLIENT=127.0.0.1 1 22", "SSH_CONNECTION=127.0.0.1 1 127.0.0.1 22"),
    )
    argv = ["runuser", "-u", account.pw_name, "--", "env", "-i", *environment, shell, "-c", "true"]
    done = run(argv, timeout=_SECONDS)
    first = next((line.strip() for line in done.stdout.splitlines() if line.strip()), "")[:_SHOWN]
    if done.rc != 0:
        return "", f"its shell {shell} runs no commands ({first or done.stderr.strip()[:_SHOWN] or f'code {done.rc}'})"
    return first, ""


def parse_sshd(settings: str, user: str) -> str:
    """Why sshd would not let the channel's key in, out of what ``sshd -T`` prints; empty where it would.

    What depends on names of users, groups and hosts (AllowUsers and so on) is left to sshd.
    """
    values = {name.lower(): value for name, value in re.findall(r"^(\S+) (.*)$", settings, re.MULTILINE)}
    if values.get("pubkeyauthentication") == "no":
        return "sshd takes no keys (PubkeyAuthentication no)"
    if user == "root" and values.get("permitrootlogin") == "no":
        return "sshd does not let root in (PermitRootLogin no)"
    if values.get("forcecommand", "none") != "none":
        return "sshd runs a command of its own for it (ForceCommand)"
    methods = values.get("authenticationmethods", "any").split()
    if methods != ["any"] and not any(method in ("publickey", "any") for method in methods):
        return f"sshd wants more than a key (AuthenticationMethods {' '.join(methods)})"
    return ""


def look(run: Runner, user: str, address: str | None = None) -> Facts:
    """What prevents the channel's login; each text is empty where nothing does.

    :param user: the account.
    :param address: where the login comes from, as this host sees it.
    """
    facts: Facts = {"user": user, "prints": "", "fails": "", "refused": ""}
    try:
        account = pwd.getpwnam(valid_names.account(user))
    except KeyError:
        facts["fails"] = "there is no such account"
        return facts
    except MigrationError:
        facts["fails"] = (
            "the channel takes letters, digits, '_', '.' and '-' in its name, and no '-' or '.' at its beginning"
        )
        return facts
    with contextlib.suppress(MigrationError, OSError):
        facts["prints"], facts["fails"] = _what_is_printed(run, account)
    with contextlib.suppress(MigrationError, OSError):
        come = valid_names.address(address or "127.0.0.1")
        facts["refused"] = parse_sshd(run(["sshd", "-T", "-C", f"user={user},host={come},addr={come}"]).stdout, user)
    return facts
