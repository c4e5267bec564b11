# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The packet filter of a container's network namespace, as its programs have set it up: nftables and iptables.

Left out are the tables of the fence (``_network/fence.py``) and of CRIU, and the rules by which the engine leads DNS to its
resolver: the engine makes them on the copy with the ports that its resolver has there. iptables of the kind ``nf_tables`` keeps
its rules in tables of nftables which nft alone cannot always make again, so those are saved and restored by iptables itself.
"""

from __future__ import annotations

import re
import typing as t

from .._base.command import Runner, run
from .._base.errors import MigrationError
from .._host import namespaces, process_resources
from .._network import fence as network_fence
from .side import Side

NAME = "firewall"
OF_PROCESSES = False

_NFT = ["nft", "list", "ruleset"]
#: nft tells and takes times of day in the local time of who asks
_ENV = {"TZ": "UTC"}
_TABLE = re.compile(r"^table (\S+) (\S+) \{.*?^\}\n", re.MULTILINE | re.DOTALL)
_CRIU = re.compile(r"inet CRIU-\d+")
# Tables that iptables has; arptables and ebtables have some too, which nft can read and write.
_OF_IPTABLES = ("filter", "nat", "mangle", "raw", "security")
# Chains of the engine's, for its resolver, and of CRIU's, while it locks the network.
_FOREIGN = ("DOCKER_OUTPUT", "DOCKER_POSTROUTING", "CRIU")
_ENGINE = re.compile(r"^:({0}) |^-A ({0}) | -j ({0})$".format("|".join(_FOREIGN)))
_FOREIGN_CHAIN = re.compile(r"^\tchain ({}) \{{.*?^\t\}}\n".format("|".join(_FOREIGN)), re.MULTILINE | re.DOTALL)
# What counts by itself, and how long something still lasts.
_MOVING = re.compile(r"packets \d+ bytes \d+|expires [0-9a-z]+|\[\d+:\d+\]|used \d+ \w+")

# What the kernel has noted of connections in the namespace of who reads it: conntrack's entries, which do not move.
_ENTRIES = "/proc/sys/net/netfilter/nf_conntrack_count"
# Words of rules that ask for those entries, or live by them: of nft; of what it cannot tell in its own words; of iptables.
_STATEFUL_NFT = re.compile(r"\b(ct|dnat|snat|masquerade|redirect|synproxy)\b")
_STATEFUL_XT = re.compile(
    r'\bxt (match|target) "(state|conntrack|conn\w+|DNAT|SNAT|MASQUERADE|REDIRECT|NETMAP|SYNPROXY)"'
)
_STATEFUL_IPTABLES = re.compile(
    r" (-m (state|conntrack|conn\w+)|-j (DNAT|SNAT|MASQUERADE|REDIRECT|NETMAP|CONNMARK|SYNPROXY))( |$)", re.MULTILINE
)

#: the programs by family and kind: the kernel's older interface, and iptables over nftables
_PROGRAMS = {
    ("ip", "nft"): "iptables-nft",
    ("ip6", "nft"): "ip6tables-nft",
    ("ip", "legacy"): "iptables-legacy",
    ("ip6", "legacy"): "ip6tables-legacy",
}
# What iptables-save writes of a table. A line of iptables-restore takes the options of iptables, among them one for a program
# that loads modules.
_SAVED = re.compile(r"#.*|\*\w+|COMMIT|:\S+ (-|[A-Z]+) \[\d+:\d+\]|(\[\d+:\d+\] )?-A .*|", re.ASCII)
_LOADER = re.compile(r"-\w*M.*|--mo(d|dp|dpr|dpro|dprob|dprobe)?(=.*)?", re.ASCII | re.DOTALL)
# Of which the next word is a text that may say what it likes.
_TEXT_OPTIONS = ("--comment", "--string", "--hex-string", "--log-prefix", "--nflog-prefix")
# Words of iptables-restore: a quoted one is as good as another, and a backslash in it quotes one character.
_WORD = re.compile(r'(?:"(?:\\.|[^"\\])*"|[^\s"])+')
_QUOTED = re.compile(r'"((?:\\.|[^"\\])*)"')
# Of nft: a text knows no backslash. What stands in it, or behind a number sign, is no statement.
_NO_STATEMENT = re.compile(r'"[^"]*"|#[^\n]*')
_INCLUDE = re.compile(r"(^|[;{}])\s*include\b", re.MULTILINE)
_LEGACY_NAMES = {"ip": "ip_tables_names", "ip6": "ip6_tables_names"}


def look_ahead(side: Side) -> t.Any:
    """Nothing: rules may change until the freeze, and are read beside the dump."""
    return None


def take(side: Side, ahead: t.Any, runner: Runner = run) -> t.Any:
    """The rules of the source: ``nft``, a text; ``iptables``, texts by program. None where there are none."""
    if not side.own_network:
        return None
    found = _read(side, runner)
    return found if found["nft"] or found["iptables"] else None


def _read(side: Side, runner: Runner) -> dict[str, t.Any]:
    # nsenter(1) would be one more program for each.
    return namespaces.inside(side.init, ["net"], lambda: _read_here(side.init, runner))


def _read_here(init: int, runner: Runner) -> dict[str, t.Any]:
    tables = tables_of(_output_of(runner, _NFT))
    native = {}
    saved: dict[str, str] = {}
    for family in ("ip", "ip6"):
        program = _PROGRAMS[family, "nft"]
        mine = {name: text for (its, name), text in tables.items() if its == family and name in _OF_IPTABLES}
        if mine and all(_is_engines(text) for text in mine.values()):
            continue
        text = _saved(runner, program) if mine else None
        if text is None:
            # Made by nft under these names, or there is no iptables here.
            native.update({(family, name): text for name, text in mine.items()})
        elif text:
            saved[program] = text
    native.update(
        {key: text for key, text in tables.items() if not (key[0] in ("ip", "ip6") and key[1] in _OF_IPTABLES)}
    )
    for family, names in _LEGACY_NAMES.items():
        program = _PROGRAMS[family, "legacy"]
        if process_resources.read(f"/proc/{init}/net/{names}").strip():
            text = _saved(runner, program)
            if text is None:
                raise OSError(f"{program}-save cannot read its rules")
            if text:
                saved[program] = text
    return {"nft": "".join(native[key] for key in sorted(native)), "iptables": saved}


def stateful_here(init: int, runner: Runner = run) -> list[str]:
    """The programs whose rules depend on what the kernel has noted of connections, in the namespace of the calling thread.

    None where it has noted nothing: what is open already got on without.

    :param init: a process in that namespace.
    :raises OSError: when the rules cannot be read.
    """
    try:
        with open(_ENTRIES, encoding="ascii") as handle:
            entries = int(handle.read())
    except FileNotFoundError:
        entries = 0
    return stateful(_read_here(init, runner)) if entries else []


def _output_of(runner: Runner, argv: t.Sequence[str]) -> str:
    try:
        done = runner(argv, env=_ENV)
    except MigrationError as exc:
        raise OSError(exc.message) from exc
    if done.rc != 0:
        raise OSError(f"{argv[0]}: {done.output}")
    return done.stdout


def _saved(runner: Runner, program: str) -> str | None:
    """What iptables saves, without what is the engine's; None where it is not there or does not know these tables."""
    try:
        done = runner([f"{program}-save", "-c"])
    except MigrationError:
        return None
    return iptables_rules(done.stdout) if done.rc == 0 and "incompatible" not in done.output else None


# -- pure functions -----------------------------------------------------------------------------------------------


def tables_of(ruleset: str) -> dict[tuple[str, str], str]:
    """The tables in what ``nft list ruleset`` says, by family and name, without the fence and CRIU's."""
    found = {(one.group(1), one.group(2)): one.group(0) for one in _TABLE.finditer(ruleset)}
    return {
        key: text for key, text in found.items() if key[1] != network_fence.TABLE and not _CRIU.fullmatch(" ".join(key))
    }


def _is_engines(table: str) -> bool:
    """Whether a table of nftables holds the engine's rules for its resolver, and chains that do nothing."""
    chain = ""
    for line in table.splitlines()[1:-1]:
        fields = line.split()
        if fields[:1] == ["chain"]:
            chain = fields[1]
        elif chain in _FOREIGN or not fields or fields == ["}"]:
            continue
        elif fields[0] == "type":
            if "policy accept;" not in line:
                return False
        elif fields[-2:-1] != ["jump"] or fields[-1] not in _FOREIGN:
            return False
    return True


def iptables_rules(saved: str) -> str:
    """What ``iptables-save -c`` says without the engine's chains and rules; nothing where the rest does nothing."""
    parts = []
    for table in re.findall(r"^\*.*?^COMMIT\n", saved, re.MULTILINE | re.DOTALL):
        lines = [line for line in table.splitlines() if not _ENGINE.search(re.sub(r"^\[\d+:\d+\] ", "", line))]
        # Chains of its own that nothing leads to are somebody's too.
        if any("-A " in line or (line.startswith(":") and " ACCEPT " not in line) for line in lines):
            parts.append("\n".join(lines) + "\n")
    return "".join(parts)


def standing(rules: t.Mapping[str, t.Any]) -> dict[str, str]:
    """Rules without what moves by itself, by the program that reads them: by which those of two hosts are compared."""
    return {name: _MOVING.sub("", text) for name, text in {"nft": rules["nft"], **rules["iptables"]}.items() if text}


def stateful(rules: t.Mapping[str, t.Any]) -> list[str]:
    """The programs whose rules depend on what the kernel has noted of connections; those of the engine's resolver do not count.

    :param rules: what :func:`take` returns.
    """
    native = _FOREIGN_CHAIN.sub("", rules["nft"])
    found = ["nft"] if _STATEFUL_XT.search(native) or _STATEFUL_NFT.search(_QUOTED.sub("", native)) else []
    texts = {program: _QUOTED.sub("", text) for program, text in rules["iptables"].items()}
    return found + sorted(program for program, text in texts.items() if _STATEFUL_IPTABLES.search(text))


def renamed(source: t.Any, names: t.Mapping[str, str]) -> t.Any:
    """The same for network devices that are called otherwise.

    :param source: what :func:`take` returned.
    :param names: what devices are called on the copy, by their names on the source; empty for one that is not there.
    """
    changed = {name: new for name, new in names.items() if new and new != name}
    if not changed:
        return source
    device = re.compile(r"(?<![\w.-])({})(?![\w.-])".format("|".join(map(re.escape, changed))))

    def put(text: str) -> str:
        return device.sub(lambda found: changed[found.group(0)], text)

    return {"nft": put(source["nft"]), "iptables": {name: put(text) for name, text in source["iptables"].items()}}


def check(source: t.Mapping[str, t.Any]) -> None:
    """Check that rules that another host sent have their programs do no more than load them.

    :raises ValueError: where they name a file or program, which root would read or run.
    """
    if _INCLUDE.search(_NO_STATEMENT.sub('""', source["nft"])):
        raise ValueError("rules for nft name a file")
    for text in source["iptables"].values():
        for line in text.split("\n"):
            if not _SAVED.fullmatch(line) or any(map(_LOADER.fullmatch, _options(line))):
                raise ValueError("rules for iptables are none that iptables saves")


def _options(line: str) -> t.Iterator[str]:
    """The words of a line of iptables-restore, as the program gets them, without texts."""
    before = ""
    for option in _WORD.findall(line):
        plain = _QUOTED.sub(lambda found: re.sub(r"\\(.)", r"\1", found.group(1)), option)
        if before not in _TEXT_OPTIONS:
            yield plain
        before = plain


# -- on the copy --------------------------------------------------------------------------------------------------


def carry(side: Side, source: t.Any, runner: Runner = run) -> None:
    """Load the rules of the source.

    :raises ValueError: for rules that would do something else.
    """
    check(source)

    def load(argv: list[str], text: str) -> None:
        try:
            runner(argv, text=text, env=_ENV)
        except MigrationError as exc:
            raise OSError(exc.message) from exc

    def work() -> None:
        if source["nft"]:
            load(["nft", "-f", "-"], source["nft"])
        for program, text in source["iptables"].items():
            if program not in _PROGRAMS.values():
                # It came from the other host, and shows in the comparison.
                continue
            load([f"{program}-restore", "-c", "--noflush"], text)

    if side.own_network:
        # What is not taken shows in the comparison.
        namespaces.inside(side.init, ["net"], work)


def compare(side: Side, source: t.Any, runner: Runner = run) -> list[str]:
    """The programs whose rules are not those of the source."""
    if not side.own_network:
        return []
    wanted, now = standing(source), standing(_read(side, runner))
    return [
        f"the firewall rules that {program} lists"
        for program, text in sorted(wanted.items())
        if now.get(program, "") != text
    ]
