# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""`make demo`: a running container moves from one real host to another, and goes on counting.

Everything is real: two hosts with their own systemd, network and dockerd (see tests/lab), provisioned by the collection's own
playbook, a container whose count is nowhere but in its memory, and a client that keeps asking it. The hosts are taken down at
the end, unless LIVEMIGRATE_LAB_KEEP=1.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from tests.workloads.host import Host
from tests.workloads.probe import wait_for_answer
from tests.workloads.recipes import RECIPES
from tests.workloads.watch import Watch

ROOT = Path(__file__).resolve().parents[2]
LOG = ROOT / ".cache" / "logs" / "demo.log"
LAB = [sys.executable, "tests/lab/lab.py"]
INVENTORY = ["-i", ".lab/inventory"]
# Debian 13's CRIU is too old for the newest kernels; the lab shares this machine's kernel, so it takes the next release's.
PROVISION = ["-e", "criu_extra_suite=forky"]
CONTAINER = "loop"
PORT = 8080


def say(text: str) -> None:
    """A line of the demo's own."""
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n{text}", flush=True)


def quietly(what: str, argv: list[str]) -> None:
    """A step whose output goes to the log; SystemExit with its tail when it fails."""
    print(f"  {what} ...", end="", flush=True)
    started = time.monotonic()
    with LOG.open("a") as log:
        done = subprocess.run(
            argv, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, check=False
        )
    if done.returncode != 0:
        print(" failed\n" + "\n".join(LOG.read_text().splitlines()[-40:]))
        raise SystemExit(f"the step failed (exit code {done.returncode}); the whole log is {LOG.relative_to(ROOT)}")
    print(f" {time.monotonic() - started:.0f} s", flush=True)


def show(host: Host, *command: str) -> None:
    """A docker command on a host, with what it says."""
    print(f"  {host.name}$ docker {' '.join(command)}")
    for line in host.docker(*command).splitlines():
        print(f"    {line}")
    sys.stdout.flush()


def main() -> int:
    """The demo; exit code 0 when the container has moved with its memory."""
    LOG.parent.mkdir(parents=True, exist_ok=True)
    LOG.write_text("")
    say("Two real hosts, alpha and beta")
    try:
        quietly("start them (own network, systemd, sshd)", [*LAB, "up", "alpha", "beta"])
        return demonstrate()
    finally:
        if os.environ.get("LIVEMIGRATE_LAB_KEEP") != "1":
            say("Tidying up")
            quietly("take the hosts down", [*LAB, "down"])


def demonstrate() -> int:
    """The part that needs the hosts."""
    quietly(
        "install Docker and CRIU with playbooks/provision.yml",
        ["ansible-playbook", *INVENTORY, "playbooks/provision.yml", *PROVISION],
    )
    alpha, beta = Host.of_lab("alpha"), Host.of_lab("beta")
    for host in (alpha, beta):
        host.remove(CONTAINER)
    say("A container on alpha counts, ten times a second, in its memory alone")
    image = alpha.load(RECIPES["counter"])
    alpha.start(CONTAINER, image, ["-p", f"{PORT}:{PORT}", "--restart", "unless-stopped"])
    urls = [f"http://{host.address}:{PORT}/" for host in (alpha, beta)]
    first = wait_for_answer(urls[0])
    time.sleep(2)
    show(alpha, "logs", "--tail", "2", CONTAINER)

    move = ["ansible-playbook", *INVENTORY, "playbooks/migrate.yml", "-e", f"container={CONTAINER}"]
    say(f"It moves to beta while a client keeps asking: {' '.join(move)}")
    environment = dict(os.environ, ANSIBLE_DISPLAY_SKIPPED_HOSTS="false", ANSIBLE_FORCE_COLOR="false")
    with Watch(urls, token=first.token) as watch:
        done = subprocess.run(move, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, check=False)
        after = wait_for_answer(urls[1], timeout=10) if done.returncode == 0 else None
        time.sleep(2)
    report = watch.report()
    if after is None:
        return done.returncode

    say(
        "It goes on counting on beta: same count, same random token from its start, log lines from before the move included"
    )
    show(alpha, "ps", "--all", "--format", "{{.Names}}: {{.Status}}")
    show(beta, "ps", "--format", "{{.Names}}: {{.Status}}")
    show(beta, "logs", "--tail", "2", CONTAINER)
    print(f"  first answer from alpha: count {first.count}, token {first.token}")
    print(f"  newest answer from beta: count {after.count}, token {after.token}")
    print(f"  longest silence between two good answers to the client: {report.longest_gap:.2f} s")
    for violation in report.violations:
        print(f"  VIOLATION: {violation}")
    good = report.ok and after.token == first.token and after.count > first.count
    say("The container has moved, nothing was lost." if good else "Something was lost; see above.")
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
