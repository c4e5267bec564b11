# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The commands of lab.py."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time

from . import cgroups, network
from .api import Lab
from .machine import Machine
from .settings import FLAVOURS
from .shell import LabError, note
from .supervise import supervise


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lab.py", description="Real hosts on this machine, for tests.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    up = commands.add_parser("up", help="create and start hosts; running ones are left alone")
    up.add_argument("hosts", nargs="*", metavar="HOST", help="default: alpha beta gamma")
    up.add_argument("--flavour", choices=FLAVOURS, default="", help="for hosts created now (default: trixie)")
    up.add_argument(
        "--no-root-login", action="store_true", help="hosts created now refuse root over ssh; use inventory-ops"
    )
    base = commands.add_parser("base", help="make a flavour's base file system now, unless the cache has it")
    base.add_argument("flavour", choices=FLAVOURS)
    commands.add_parser("down", help="remove all hosts and every trace of the lab; the cache stays")
    commands.add_parser("status", help="one line per host")
    renew = commands.add_parser("renew", help="make hosts anew from the base, with empty disks")
    renew.add_argument("hosts", nargs="+", metavar="HOST")
    renew.add_argument("--flavour", choices=FLAVOURS, default="")

    for name, help_text in (
        ("shell", "a shell, or a command, in a host through ssh"),
        ("console", "the same without network or sshd, always as root"),
    ):
        command = commands.add_parser(name, help=help_text)
        command.add_argument("host", metavar="HOST")
        command.add_argument("argv", nargs=argparse.REMAINDER, metavar="CMD")

    for name, help_text in (
        ("power-cut", "kill the whole host at once"),
        ("boot", "start a host that is down, on the disk it had"),
        ("reboot", "`systemctl reboot` in the host, and wait for it"),
    ):
        commands.add_parser(name, help=help_text).add_argument("host", metavar="HOST")
    partition = commands.add_parser("partition", help="cut a host off, silently")
    partition.add_argument("host", metavar="HOST")
    partition.add_argument("--from", dest="others", nargs="+", default=[], metavar="HOST", help="only from these hosts")
    heal = commands.add_parser("heal", help="end the partition of hosts")
    heal.add_argument("hosts", nargs="+", metavar="HOST")
    rate = commands.add_parser("rate", help="limit a host's network, both directions")
    rate.add_argument("host", metavar="HOST")
    rate.add_argument("rate", metavar="RATE", help='like 100mbit; "off" ends it')
    root_login = commands.add_parser("root-login", help="whether sshd admits root (by key)")
    root_login.add_argument("host", metavar="HOST")
    root_login.add_argument("answer", choices=("on", "off"))
    # Not for users: a host's power supply, started by `up` and `boot`.
    commands.add_parser("supervise").add_argument("host")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = _parser().parse_args(argv)
    # `up` stopped by a signal must release its locks and end what it runs.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return _dispatch(Lab.load(), arguments)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _dispatch(lab: Lab, arguments: argparse.Namespace) -> int:
    command = arguments.command
    started = time.monotonic()
    if command == "up":
        lab.up(arguments.hosts, flavour=arguments.flavour, root_login=not arguments.no_root_login)
        print(_status(lab))
        note(f"up in {time.monotonic() - started:.1f} s; inventory: {lab.inventory}")
    elif command == "base":
        lab.make_base(arguments.flavour)
    elif command == "down":
        lab.down()
    elif command == "status":
        print(_status(lab))
    elif command == "renew":
        lab.renew(arguments.hosts, flavour=arguments.flavour)
    elif command in ("shell", "console"):
        return _enter(lab.machine(arguments.host), command, arguments.argv)
    elif command == "supervise":
        return supervise(lab.machine(arguments.host))
    elif command == "power-cut":
        lab.power_cut(arguments.host)
    elif command == "boot":
        lab.boot(arguments.host)
    elif command == "reboot":
        lab.reboot(arguments.host)
    elif command == "partition":
        lab.partition(arguments.host, arguments.others)
    elif command == "heal":
        for host in arguments.hosts:
            lab.heal(host)
    elif command == "rate":
        lab.rate(arguments.host, arguments.rate)
    elif command == "root-login":
        lab.root_login(arguments.host, arguments.answer == "on")
    return 0


def _enter(machine: Machine, command: str, argv: list[str]) -> int:
    words = argv[1:] if argv[:1] == ["--"] else argv
    line = machine.ssh_command(words) if command == "shell" else machine.console_command(words or ["bash", "-l"])
    os.execvp(line[0], line)  # noqa: S606 - this process becomes the session: signals and terminal are ssh's own affair


def _status(lab: Lab) -> str:
    machines = lab.machines()
    foreign = network.foreign_owner(lab.settings)
    if foreign is not None:
        here = "the lab here has ended (run `lab.py down`)" if machines else "no lab here"
        return f"{here}; {foreign or 'something else'} holds the bridge {lab.settings.bridge}"
    if not machines:
        leftovers = network.lab_bridges().get(lab.settings.bridge) or cgroups.hosts(lab.settings)
        return "no lab here, but traces of one: run `lab.py down`" if leftovers else "no lab here"
    lines = []
    for machine in machines:
        state = "up" if machine.is_up() else "starting" if machine.is_running() else "down"
        faults = " ".join(f"{key}={value}" for key, value in sorted(machine.port.items()))
        docker, criu = machine.installed_version("docker.io"), machine.installed_version("criu")
        lines.append(
            f"{machine.name:8} {state:8} {machine.address:15} {machine.flavour or '-':7} "
            f"docker {docker or '-':20} criu {criu or '-':12} {faults}".rstrip()
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
