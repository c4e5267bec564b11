# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""What has to be on each of two hosts for a move, and the way between them: pure rules over what criu_check tells of both."""

from __future__ import annotations

import typing as t

from ..._base.versions import at_least, parse_version
from ..._criu import options as criu_options
from ..finding import ERROR, INFO, WARNING, Case, Facts, Told, rule

_Found = t.Iterator[Told]

_PROVISION = "playbooks/provision.yml installs and starts it."
_NEWER_CRIU = "playbooks/provision.yml installs a CRIU; see the README of the role criu for newer ones."


@rule(ERROR, "no Docker engine, or one that does not answer", "run", "source", "destination")
def docker_present(case: Case) -> _Found:
    for where, facts in case.hosts():
        docker = facts["docker"]
        if not docker.get("running"):
            state = "does not answer" if docker.get("installed") else "is not installed"
            cause = f": {docker['error']}" if docker.get("error") else ""
            yield f"The Docker engine on the {where} {state}{cause}.", _PROVISION


@rule(ERROR, "no docker-py for the modules", "run", "source", "destination")
def docker_py_present(case: Case) -> _Found:
    for where, facts in case.hosts():
        if not facts["python"].get("docker_py"):
            yield (
                f"{facts['python'].get('executable')} on the {where} has no docker-py.",
                "playbooks/provision.yml brings it.",
            )


@rule(ERROR, "a CRIU that is missing or cannot work on its kernel", "docs/support.md", "source", "destination")
def criu_usable(case: Case) -> _Found:
    for where, facts in case.hosts():
        if not facts["usable"] and not _fails_when_tried(facts):
            yield f"CRIU cannot be used on the {where}: {' '.join(facts['reasons'])}", _NEWER_CRIU


def _fails_when_tried(facts: Facts) -> bool:
    return (facts.get("self_test") or {}).get("ok") is False


@rule(ERROR, "a CRIU that fails or crashes when it dumps and restores a tiny container", "run", "source", "destination")
def criu_works(case: Case) -> _Found:
    for where, facts in case.hosts():
        if _fails_when_tried(facts):
            lines = facts["self_test"].get("host_lines")
            yield (
                f"CRIU does not work on the {where}: {' '.join(facts['reasons'])}",
                "Take these lines out of that file, or out of checkpointing_criu_options." if lines else _NEWER_CRIU,
            )


@rule(
    ERROR, "options of the host with which CRIU fails or crashes", "run (4.1.1)", "source", "destination", engine="api"
)
def criu_options_work(case: Case) -> _Found:
    for where, facts in case.hosts():
        error = (facts.get("self_test") or {}).get("host_file_error")
        if error:
            yield (
                f"With /etc/criu/runc.conf of the {where} as it is, CRIU fails: {error}",
                "Take network-lock out of it (CRIU up to 4.2 crashes over that), or use migrate_engine: runtime.",
            )


@rule(INFO, "a CRIU that could not be tried", "run", "source", "destination")
def criu_not_tried(case: Case) -> _Found:
    for where, facts in case.hosts():
        tried = facts.get("self_test") or {"ok": True}
        if tried["ok"] is None and facts["usable"]:
            yield (
                f"Whether CRIU can dump and restore on the {where} is not known: {tried['error']}",
                "Nothing; if it cannot, the dump or the restore fails, and the container goes on where it is.",
            )


@rule(WARNING, "what is known against a CRIU that can be used", "docs/support.md", "source", "destination")
def criu_remarks(case: Case) -> _Found:
    for where, facts in case.hosts():
        for remark in facts["remarks"]:
            yield f"{where.capitalize()}: {remark}", "Bring a newer CRIU (role livemigrate.criu.criu)."


# What the channel and the network fence are made of.
_TOOLS = ("ip", "nft", "nsenter", "rsync", "ss", "ssh")


@rule(ERROR, "tools that are missing: rsync and ssh, or nftables and iproute2", "run", "source", "destination")
def tools_present(case: Case) -> _Found:
    for where, facts in case.hosts():
        missing = sorted(name for name in _TOOLS if facts["tools"].get(name, True) in (False, None, ""))
        if missing:
            yield f"The {where} lacks {' and '.join(missing)}.", "playbooks/provision.yml installs the packages."


@rule(ERROR, "an rsync that cannot be confined to the directory it works on", "run", "source", "destination")
def rsync_confined(case: Case) -> _Found:
    for where, facts in case.hosts():
        if facts["rsync"]["error"]:
            yield (
                f"rsync on the {where} cannot be kept from the host's other files: {facts['rsync']['error']}",
                "Where the host is a container itself, it has to be one that may mount (systemd-nspawn, or a privileged one).",
            )


# The first one that does not follow links which somebody has put in its way (CVE-2026-53797, CVE-2026-53801 and others).
_SAFE_RSYNC = (3, 5)


@rule(WARNING, "an rsync before 3.5 on a kernel before 5.10: it follows links", "run", "source", "destination")
def rsync_follows_links(case: Case) -> _Found:
    for where, facts in case.hosts():
        version = facts["rsync"]["version"]
        if facts["rsync"]["follows_links"] and version and not at_least(parse_version(version), _SAFE_RSYNC):
            yield (
                (
                    f"The {where}'s kernel {facts['kernel']['release']} cannot be told to follow no symbolic link, and its rsync "
                    f"{version} follows one that is put into its way while it works. The container could lead it to the host's "
                    "programs (/usr), though to no other files."
                ),
                "Bring rsync 3.5 or newer, or Linux 5.10 or newer.",
            )


@rule(ERROR, "no tar or gzip, by which CRIU packs file systems in memory", "run", "source", "destination")
def archive_tools(case: Case) -> _Found:
    for where, facts in case.hosts():
        missing = sorted(name for name in ("gzip", "tar") if facts["tools"].get(name, True) in (False, None, ""))
        if missing:
            yield (
                f"The {where} lacks {' and '.join(missing)}, by which CRIU packs /dev/shm and every tmpfs of a container.",
                "playbooks/provision.yml installs the packages.",
            )


@rule(ERROR, "nothing by which CRIU can hold a container's network", "criu/net.c", "source", "destination")
def network_lock(case: Case) -> _Found:
    if case.settings.engine == "runtime" and criu_options.can_skip_network_lock(case.source or {}):
        # The fence is the lock, and the images tell the destination's CRIU that there is no other.
        return
    for where, facts in case.hosts():
        # The engine runtime names no other way to CRIU: up to 4.2 it would crash over that.
        named = facts["criu"]["options"].get("network-lock") if case.settings.engine == "api" else ""
        how = str(named or "iptables")
        program = {"iptables": "iptables-restore", "nftables": "nft"}.get(how)
        if program and facts["tools"].get(program, True) in (False, None, ""):
            yield (
                (
                    f"The {where} lacks {program}, by which CRIU holds the network of a container while it works "
                    f"(network-lock={how})."
                ),
                "playbooks/provision.yml installs the package.",
            )


@rule(ERROR, "the source cannot reach the destination's SSH daemon", "run", "source")
def channel_reachable(case: Case) -> _Found:
    peer = (case.source or {}).get("peer")
    if peer and peer["error"]:
        yield (
            (
                f"The source does not reach the SSH daemon of the destination at {peer['address']} port {peer['port']}: "
                f"{peer['error']}"
            ),
            (
                "See in its log on the destination why (journalctl -u ssh -u sshd), and try again in some minutes. It does that "
                "to an address that has often failed to log in (PerSourcePenalties; PerSourcePenaltyExemptList exempts one), "
                "and where many log in at once (MaxStartups)."
            )
            if peer.get("turned_away")
            else "Set migrate_destination_address and migrate_destination_port to where the source finds it, and let it through.",
        )


@rule(ERROR, "an address at which the source finds another host than the destination", "run", "source", "destination")
def channel_leads_elsewhere(case: Case) -> _Found:
    source, destination = case.both_hosts()
    peer = source.get("peer")
    if not peer or peer["error"]:
        return
    shown, here, there = (
        set(keys) for keys in (peer["host_keys"], source["ssh_host_keys"], destination["ssh_host_keys"])
    )
    # A tunnel that begins on the source leads to the destination all the same, and its keys prove it.
    proved = bool(shown & there) and not shown & here
    if peer["is_own"] and not proved:
        found = "the source itself"
    elif shown and there and not shown & there:
        found = "the source itself" if shown & here else "another host, whose keys are not the destination's"
    else:
        return
    yield (
        f"At {peer['address']} port {peer['port']} the source does not find the destination, but {found}.",
        (
            "Set migrate_destination_address and migrate_destination_port to where the source reaches the destination's SSH "
            "daemon; ansible_host and ansible_port are how the control node does."
        ),
    )


@rule(
    ERROR,
    "an account whose login would break the channel: it prints something, or sshd refuses it",
    "run",
    "destination",
    variable="migrate_channel_user",
)
def channel_login(case: Case) -> _Found:
    account = (case.destination or {}).get("channel_login")
    if not account:
        return
    if account["prints"]:
        yield (
            (
                f"The account {account['user']} on the destination prints text whenever it logs in, which would get between the "
                f"hosts' data: {account['prints']!r}."
            ),
            (
                "Have its shell's start-up files print nothing where nobody sits at a terminal (at the top of .bashrc: "
                "[[ $- == *i* ]] || return), or name another account in migrate_channel_user."
            ),
        )
    for why in (account["fails"], account["refused"]):
        if why:
            yield (
                f"The source cannot log in to the account {account['user']} on the destination: {why}.",
                "Mend that, or name another account in migrate_channel_user.",
            )


@rule(ERROR, "a container that is not there", "run", "source")
def container_found(case: Case) -> _Found:
    asked = (case.source or {}).get("container")
    if asked and not asked["found"] and (case.source or {})["docker"].get("running"):
        yield str(asked["error"]), "Name one that runs on the source, as docker ps shows it."
