# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The commands of workload.py. Answers go to standard output, as JSON where a program may want to read them."""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from tests.lab import LabError

from . import counter_files, database, wordpress_state
from .build import BuildError, build
from .host import Host, HostError
from .probe import NoAnswerError, ask, wait_for_answer
from .recipes import RECIPES
from .watch import Watch
from .wordpress_client import WordPressError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="workload.py", description="Containers for the migration tests.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    for name, help_text in (
        ("build", "build an image into the cache, and print the path of its tar file"),
        ("load", "have an image on a host (builds it when needed), and print its tag"),
        ("start", "load an image, run a container of it and print its id; arguments of docker run follow a --"),
    ):
        command = commands.add_parser(name, help=help_text)
        command.add_argument("workload", choices=sorted(RECIPES))
        if name != "build":
            command.add_argument("--host", required=True, help="a host of the lab: alpha, beta, gamma")
        if name == "start":
            command.add_argument("--name", required=True, help="name of the container")
            command.add_argument("--wait", type=float, default=0.0, metavar="SECONDS", help="until it answers")

    probe = commands.add_parser("probe", help="ask once, and print count and token")
    probe.add_argument("url")
    probe.add_argument(
        "--wait", type=float, default=0.0, metavar="SECONDS", help="go on asking until there is an answer"
    )

    watch = commands.add_parser(
        "watch", help="ask all the time until SIGTERM, SIGINT or --seconds; exit code 1 on violations"
    )
    watch.add_argument("urls", nargs="+", metavar="URL", help="every place at which it may answer, now or later")
    watch.add_argument("--seconds", type=float, default=3600.0, help="when to end (3600)")
    watch.add_argument("--interval", type=float, default=0.1, help="seconds between two questions to one place (0.1)")
    watch.add_argument("--timeout", type=float, default=1.0, help="seconds to wait for an answer (1)")
    watch.add_argument("--token", default="", help="the token it must have (default: that of the first answer)")
    watch.add_argument("--out", type=Path, help="write the report there as well, in one step")
    watch.add_argument("--ready", type=Path, help="create this file after the first good answer")

    database = commands.add_parser("database", help="an empty database on a host, as arguments of docker run")
    database.add_argument("--host", required=True)
    database.add_argument("--name", required=True)
    database.add_argument("--drop", action="store_true", help="remove it instead")

    fill = commands.add_parser("wordpress-fill", help="log in, publish, upload; print what to find again")
    verify = commands.add_parser("wordpress-verify", help="look for all of it; exit code 1 when something is missing")
    for command in (fill, verify):
        command.add_argument("url", help="like http://ADDRESS:81")
    fill.add_argument("--user", default="admin")
    fill.add_argument("--password", required=True, help="WORDPRESS_ADMIN_PASSWORD of the container")
    verify.add_argument("--noted", type=Path, required=True, help="file with the output of wordpress-fill")

    files = commands.add_parser(
        "counter-files", help="whether files that a counter appends to lack any line; exit code 1"
    )
    files.add_argument("--host", required=True)
    files.add_argument("--name", required=True)
    files.add_argument("paths", nargs="+", metavar="PATH", help="in the container")

    remove = commands.add_parser("remove", help="remove a container and its anonymous volumes, if it is there")
    remove.add_argument("--host", required=True)
    remove.add_argument("--name", required=True)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    words = sys.argv[1:] if argv is None else argv
    # What follows the first -- belongs to docker run; argparse would hand it to any positional that can take more.
    split = words.index("--") if "--" in words else len(words)
    arguments = _parser().parse_args(words[:split])
    arguments.docker = words[split + 1 :]
    try:
        return _dispatch(arguments)
    except (BuildError, HostError, LabError, NoAnswerError, WordPressError) as error:
        print(f"workload: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _dispatch(arguments: argparse.Namespace) -> int:
    command = arguments.command
    if command == "build":
        print(build(RECIPES[arguments.workload]))
    elif command == "load":
        print(Host.of_lab(arguments.host).load(RECIPES[arguments.workload]))
    elif command == "start":
        host = Host.of_lab(arguments.host)
        recipe = RECIPES[arguments.workload]
        print(host.start(arguments.name, host.load(recipe), arguments.docker))
        if arguments.wait:
            host.wait_until_answering(arguments.name, recipe, arguments.wait)
    elif command == "probe":
        _print_json(
            (wait_for_answer(arguments.url, arguments.wait) if arguments.wait else ask(arguments.url)).as_json()
        )
    elif command == "watch":
        return _watch(arguments)
    elif command == "database":
        server = Host.of_lab(arguments.host)
        if arguments.drop:
            database.drop(server, arguments.name)
        else:
            print(shlex.join(database.create(server, arguments.name).environment()))
    elif command == "wordpress-fill":
        _print_json(wordpress_state.fill(arguments.url, arguments.user, arguments.password))
    elif command == "wordpress-verify":
        wrong = wordpress_state.verify(arguments.url, json.loads(arguments.noted.read_text(encoding="utf-8")))
        _print_json({"ok": not wrong, "wrong": wrong})
        return 1 if wrong else 0
    elif command == "counter-files":
        found = counter_files.check(Host.of_lab(arguments.host), arguments.name, arguments.paths)
        _print_json(found)
        return 0 if found["ok"] else 1
    elif command == "remove":
        Host.of_lab(arguments.host).remove(arguments.name)
    return 0


def _watch(arguments: argparse.Namespace) -> int:
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    with Watch(arguments.urls, interval=arguments.interval, timeout=arguments.timeout, token=arguments.token) as watch:
        waited = 0.0
        while not ended.wait(0.05) and waited < arguments.seconds:
            waited += 0.05
            if arguments.ready and not arguments.ready.exists() and watch.good_answers():
                arguments.ready.touch()
    report = watch.report()
    if arguments.out:
        temporary = arguments.out.with_name(f".{arguments.out.name}.new")
        temporary.write_text(json.dumps(report.as_json(), indent=2) + "\n", encoding="utf-8")
        temporary.replace(arguments.out)
    _print_json(report.as_json())
    return 0 if report.ok else 1


def _print_json(value: dict[str, Any]) -> None:
    print(json.dumps(value, indent=2))
