# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Systemd units of this host that start a container of its engine.

When the old copy ends, such a unit starts it again, or a fresh container of its name, beside the one that has moved. Only units
that systemd has loaded are looked at: no other can be started by anything but a person. systemd itself tells their commands, with
drop-ins applied and specifiers (``%i``) expanded. Scripts that they run are read as well.
"""

from __future__ import annotations

import contextlib
import os
import re
import typing as t

from .._base.command import Runner, run
from .._base.errors import MigrationError

Inspect = t.Mapping[str, t.Any]

_COMMANDS = ("ExecStartPre", "ExecStart", "ExecStartPost", "ExecReload")
# Seconds that systemd may take.
_TIMEOUT = 10.0
# Of a script no more than this is read.
_SCRIPT_BYTES = 64 << 10

# "{ path=/usr/bin/docker ; argv[]=/usr/bin/docker start -a web ; ignore_errors=no ; start_time=[n/a] ; ..."
_COMMAND = re.compile(r"\{ path=(?P<path>.*?) ; argv\[\]=(?P<words>.*) ; (?:ignore_errors|flags)=")
# Quotes are gone from what systemd tells, and in a script they may stand anywhere.
_BETWEEN_WORDS = re.compile(r"[\s;&|()\"'`]+")
# Of docker itself; a value may also follow behind "=".
_OPTIONS_WITH_VALUE = frozenset(
    {"-H", "--host", "-c", "--context", "-l", "--log-level", "--config", "--tlscacert", "--tlscert", "--tlskey"}
)
_STARTING = frozenset({"start", "restart"})
_MAKING = frozenset({"run", "create"})
_COMPOSING = frozenset({"up", "start", "restart", "run", "create"})


class _Wanted(t.NamedTuple):
    """How commands may call a container."""

    name: str
    identity: str
    #: project, its directory and its files, where Docker Compose has made the container
    project: str
    directory: str
    files: tuple[str, ...]

    @classmethod
    def of(cls, inspect: Inspect) -> _Wanted:
        labels = (inspect.get("Config") or {}).get("Labels") or {}
        files = labels.get("com.docker.compose.project.config_files") or ""
        return cls(
            str(inspect["Name"]).lstrip("/"),
            str(inspect["Id"]),
            labels.get("com.docker.compose.project") or "",
            labels.get("com.docker.compose.project.working_dir") or "",
            tuple(name for name in files.split(",") if name),
        )

    def is_called(self, word: str) -> bool:
        return word == self.name or (len(word) >= 12 and self.identity.startswith(word))


def of(inspect: Inspect, runner: Runner = run) -> list[dict[str, str]]:
    """The units that start a container.

    :returns: of each ``unit``, and ``command``: which of Docker's commands does it. No arguments: they may hold secrets.
    """
    argv = ["systemctl", "show", f"--property=Id,WorkingDirectory,{','.join(_COMMANDS)}", "*.service"]
    try:
        text = runner(argv, timeout=_TIMEOUT).stdout
    except MigrationError:
        # No systemd, or one that does not answer: then nothing is reported, and not that there is no such unit.
        return []
    wanted = _Wanted.of(inspect)
    found = []
    for block in text.split("\n\n"):
        unit, directory, commands = _parse(block)
        command = next(filter(None, (_starts(command, directory, wanted) for command in commands)), "")
        if command:
            found.append({"unit": unit, "command": command})
    return sorted(found, key=lambda one: one["unit"])


def _parse(block: str) -> tuple[str, str, list[tuple[str, str]]]:
    """Of one unit: its name, its working directory, and the program and the words of each of its commands."""
    unit = directory = ""
    commands = []
    for line in block.splitlines():
        key, _equals, value = line.partition("=")
        if key == "Id":
            unit = value
        elif key == "WorkingDirectory":
            directory = value.lstrip("!-")
        elif key in _COMMANDS:
            command = _COMMAND.match(value)
            if command:
                commands.append((command["path"], command["words"]))
    return unit, directory, commands


def _script(path: str) -> str:
    """The text of a program that is a script; empty for any other."""
    with contextlib.suppress(OSError), open(path, "rb") as handle:
        if os.path.isfile(path) and handle.read(2) == b"#!":
            return handle.read(_SCRIPT_BYTES).decode("utf-8", "replace").replace("\\\n", " ")
    return ""


def _starts(command: tuple[str, str], directory: str, wanted: _Wanted) -> str:
    """Which of Docker's commands starts the container, in a unit's command or in the script that it runs; empty for none."""
    path, words = command
    return calls(words, directory, wanted) or calls(_script(path), directory, wanted)


def calls(text: str, directory: str, wanted: _Wanted) -> str:
    """Which of Docker's commands in a text starts the container; empty for none."""
    words = [word for word in _BETWEEN_WORDS.split(text) if word]
    places = [number for number, word in enumerate(words) if os.path.basename(word) in ("docker", "docker-compose")]
    for place, end in zip(places, [*places[1:], len(words)]):
        found = _call(os.path.basename(words[place]), words[place + 1 : end], text, directory, wanted)
        if found:
            return found
    return ""


def _verb(words: list[str]) -> tuple[str, list[str]]:
    """The command of ``docker``, and the words after it; the options of ``docker`` itself stand before it."""
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word in _OPTIONS_WITH_VALUE:
            rest = rest[1:]
        elif not word.startswith("-") and word != "container":
            return word, rest
    return "", []


def _call(program: str, words: list[str], text: str, directory: str, wanted: _Wanted) -> str:
    """:func:`calls` of the words behind one ``docker``, up to the next."""
    verb, rest = ("compose", words) if program == "docker-compose" else _verb(words)
    if verb == "compose" and _COMPOSING.intersection(rest) and _is_of_project(rest, text, directory, wanted):
        return "docker compose"
    if verb in _STARTING and any(map(wanted.is_called, rest)):
        return f"docker {verb}"
    named = f" --name {wanted.name} " in f" {' '.join(rest)} " or f"--name={wanted.name}" in rest
    if verb in _MAKING and named:
        return f"docker {verb} --name"
    return ""


def _is_of_project(words: list[str], text: str, directory: str, wanted: _Wanted) -> bool:
    """Whether a command of Docker Compose is about the project that has made the container."""
    if not wanted.project:
        return False
    places = {wanted.directory, *wanted.files} - {""}
    named = {value for option, value in zip(words, words[1:]) if option in ("-p", "--project-name")}
    named.update(word.partition("=")[2] for word in words if word.startswith("--project-name="))
    if named:
        return wanted.project in named
    # In its directory, or with that or a file of its own among the words (cd, -f, --project-directory).
    values = {word.partition("=")[2] or word for word in _BETWEEN_WORDS.split(text)}
    return os.path.normpath(directory or "/") == wanted.directory or bool(
        places & {word.rstrip("/") for word in values}
    )
