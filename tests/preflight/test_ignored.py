# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What really happens to those who do not heed a rule: each rule has to earn its place.

Either the move fails, in the words of who refused it, and the same process goes on where it was; or it moves and something
is lost.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import pytest

from tests.moves.host_snapshot import assert_unchanged, snapshot
from tests.moves.pair import Pair
from tests.moves.playbook_run import Migration
from tests.moves_api.conftest import RECORDS
from tests.preflight.ground import (
    IMAGE,
    MOUNTS,
    PREFIX,
    assert_counts,
    count,
    holding,
    ignoring,
    look,
    shell,
    wait_until_held,
)
from tests.workloads.host import Host
from tests.workloads.probe import NoAnswerError, wait_for_answer

pytestmark = pytest.mark.usefixtures("pipelined")

NAME = f"{PREFIX}i"
_QUIET = ("--env", "COUNTER_PORT=")
_FREE = ("--privileged", "--security-opt", "seccomp=unconfined", *MOUNTS)


@dataclass(frozen=True)
class Ignored:
    """A state as in scenes.py, and the words in which the move fails."""

    words: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    before: str = ""
    then: str = ""
    there: str = ""
    undo: str = ""
    undo_there: str = ""


_TAKEN = "systemd-run --quiet --unit=preflight-port python3 -m http.server 9485"
_SAME = "docker network create --subnet 198.18.92.0/24 preflight-same"

FAILING: dict[str, Ignored] = {
    "io_uring": Ignored(("CRIU cannot dump the container", "send_fds failed"), _FREE, ("io_uring",)),
    "socket_protocol": Ignored(("CRIU cannot dump the container", "Unsupported proto 262"), _FREE, ("mptcp",)),
    "inotify_on_overlay": Ignored(("CRIU cannot dump the container", "Can't dump that handle"), _FREE, ("inotify",)),
    "nested_namespaces": Ignored(
        ("CRIU cannot dump the container", "Can't dump nested uts namespace"), _FREE, ("namespace",)
    ),
    "exec_session_running": Ignored(
        ("Processes entered through docker exec keep running in the container and cannot be moved: sleep",),
        then="docker exec -d $1 sleep 1000",
    ),
    "mount_inside": Ignored(
        # In CRIU's mount stage, which by itself leaves a file system mounted on the host.
        (
            "CRIU cannot restore the container: mnt",
            "mnt-v2: Can't mount at",
            "Its whole log is /var/lib/livemigrate/logs/",
        ),
        ("--privileged",),
        then=(
            "docker exec $1 sh -c 'mkdir -p /m /t; mount -t tmpfs x /t; mkdir /t/u /t/w;"
            "  mount -t overlay -o lowerdir=/usr,upperdir=/t/u,workdir=/t/w x /m'"
        ),
    ),
    "name_taken": Ignored(
        (
            "Create the container on the destination: The destination already has a container preflight-i (status created)",
        ),
        there=f"docker create --name $1 {IMAGE}",
    ),
    "port_taken": Ignored(
        ("The engine did not start the copy", "failed to bind host port for 0.0.0.0:9485", "address already in use"),
        ("--publish", "9485:80"),
        there=_TAKEN,
        undo_there="systemctl stop preflight-port",
    ),
    "address_in_use": Ignored(
        ("The engine did not start the copy", "container networking: Address already in use"),
        ("--network", "preflight-same", "--ip", "198.18.92.40"),
        before=_SAME,
        there=f"{_SAME}; docker run -d --name preflight-a --network preflight-same --ip 198.18.92.40 {IMAGE}",
    ),
    "host_address_missing": Ignored(
        ("The engine did not start the copy", "failed to bind host port", "cannot assign requested address"),
        ("--publish", "{source}:9486:80"),
    ),
    "init_missing": Ignored(
        ("The engine did not start the copy", 'exec: \\"docker-init\\": executable file not found'),
        ("--init",),
        there="mv /usr/bin/docker-init /usr/bin/docker-init.away",
        undo_there="mv /usr/bin/docker-init.away /usr/bin/docker-init",
    ),
    "unix_stream_outside": Ignored(
        ("CRIU cannot dump the container", "Can't dump half of stream unix connection"),
        ("--volume", "/var/run/docker.sock:/docker.sock", *_FREE),
        ("unix",),
    ),
    "traced": Ignored(("CRIU cannot dump the container", "found while seizing"), _FREE, ("traced",)),
    "devices_open": Ignored(("CRIU cannot dump the container", "Can't dump file"), _FREE, ("fuse",)),
    "device_missing": Ignored(
        ("The engine did not start the copy", "error gathering device information"),
        ("--device", "/dev/preflight"),
        before="mknod /dev/preflight c 1 3",
        undo="rm /dev/preflight",
    ),
    "volume_differs": Ignored(
        ("Create the container on the destination: The destination has a volume preflight-options of another kind",),
        ("--volume", "preflight-options:/v"),
        there="docker volume create --opt type=tmpfs --opt device=tmpfs preflight-options",
    ),
    "pid_mode": Ignored(
        ("The source's first process was not recorded; nothing can be proved",), ("--pid", "host", *_QUIET)
    ),
    "descriptors_unsupported": Ignored(
        ("CRIU cannot dump the container", "Can't dump file", "[userfaultfd]"), _FREE, ("userfault",)
    ),
}


def _start(pair: Pair, arguments: tuple[str, ...], kinds: tuple[str, ...]) -> None:
    given = [argument.format(source=pair.alpha.address) for argument in arguments]
    pair.alpha.start(NAME, IMAGE, given, holding(*kinds) if kinds else ())
    wait_until_held(pair.alpha, NAME, *kinds)


def _moved(pair: Pair, inventory: str, rule: str) -> None:
    """It is refused, and with the rule ignored it moves: its count goes on."""
    Migration(NAME, inventory=inventory).fail_with(f"[{rule}]", "Nothing has been touched")
    counted = count(pair.alpha, NAME)
    Migration(NAME, [*ignoring(rule)], inventory=inventory).succeed()
    assert_counts(pair.beta, NAME, at_least=counted)


def test_a_missing_bind_mount_is_an_empty_directory(clean: Pair, inventory: str) -> None:
    shell(clean.alpha, "mkdir -p /srv/preflight-here; echo precious > /srv/preflight-here/file")
    try:
        _start(clean, ("--volume", "/srv/preflight-here:/here"), ())
        assert clean.alpha.docker("exec", NAME, "ls", "/here") == "file"
        _moved(clean, inventory, "bind_mount_missing")
        assert clean.beta.docker("exec", NAME, "ls", "/here") == ""
    finally:
        for host in clean.hosts:
            host.remove(NAME)
            host.run(["rm", "-rf", "/srv/preflight-here"])


@pytest.mark.parametrize(
    ("rule", "ipc"), [("ipc_shareable", "shareable"), pytest.param("ipc_mode", "host", marks=pytest.mark.long)]
)
def test_shared_memory_that_is_a_mount_of_the_host_is_left_behind(
    clean: Pair, inventory: str, rule: str, ipc: str
) -> None:
    """What programs had put there is gone, and nobody tells them."""
    try:
        _start(clean, ("--ipc", ipc, *_QUIET, *MOUNTS), ("shm",))
        assert clean.alpha.docker("exec", NAME, "cat", "/dev/shm/precious") == "precious"
        _moved(clean, inventory, rule)
        assert "precious" not in clean.beta.docker("exec", NAME, "ls", "/dev/shm")
    finally:
        clean.alpha.run(["rm", "-f", "/dev/shm/precious"])


def test_nobody_reaches_a_network_whose_addresses_are_used_otherwise(clean: Pair, inventory: str) -> None:
    """The engine makes the network all the same, and the destination's older route leads past it."""
    shell(clean.alpha, _SAME)
    try:
        _start(clean, ("--network", "preflight-same", "--publish", "9487:8080"), ())
        wait_for_answer(f"http://{clean.alpha.address}:9487/", timeout=10)
        shell(clean.beta, "ip link add pfbr1 type bridge; ip addr add 198.18.92.1/24 dev pfbr1; ip link set pfbr1 up")
        _moved(clean, inventory, "network_overlaps")
        with pytest.raises(NoAnswerError):
            wait_for_answer(f"http://{clean.beta.address}:9487/", timeout=5)
    finally:
        clean.beta.run(["ip", "link", "del", "pfbr1"], check=False)


def test_nobody_reaches_a_socket_that_is_bound_to_the_old_address(clean: Pair, inventory: str) -> None:
    knock = (
        "import socket, sys; c = socket.socket(); c.settimeout(3); print(c.connect_ex((sys.argv[1], int(sys.argv[2]))))"
    )
    where = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    # Else the copy may get the same address by chance, since both hosts begin to count anew.
    for number in range(3):
        clean.beta.start(f"{PREFIX}before-{number}", IMAGE)
    _start(clean, MOUNTS, ("bound",))
    old = clean.alpha.docker("inspect", "--format", where, NAME)
    assert clean.alpha.run(["python3", "-c", knock, old, "7000"]).stdout == "0\n"
    _moved(clean, inventory, "socket_bound_to_address")
    new = clean.beta.docker("inspect", "--format", where, NAME)
    assert new != old
    assert clean.beta.run(["python3", "-c", knock, new, "8080"]).stdout == "0\n"
    assert clean.beta.run(["python3", "-c", knock, new, "7000"]).stdout != "0\n"


# The users of the other ends of unix connections, as both programs would be answered.
_CLIENTS = """
import ctypes, os, socket, struct, sys
users = set()
for pid in map(int, sys.argv[1:]):
    process = os.pidfd_open(pid)
    for number in os.listdir(f"/proc/{pid}/fd"):
        if os.readlink(f"/proc/{pid}/fd/{number}").startswith("socket:"):
            # pidfd_getfd(2)
            one = socket.socket(fileno=ctypes.CDLL(None).syscall(438, process, int(number), 0))
            if one.family == socket.AF_UNIX and not one.getsockopt(socket.SOL_SOCKET, 30):
                users.add(struct.unpack("3i", one.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1])
print(*sorted(users))
"""


def _clients(host: Host) -> str:
    # The letter in brackets keeps the command from finding its own shell.
    pids = host.run(["pgrep", "-f", "hold.p[y] client"]).stdout.split()
    return host.run(["python3", "-c", _CLIENTS, *pids]).stdout


def test_a_service_takes_any_client_for_root(clean: Pair, inventory: str) -> None:
    """One of a user without rights, through a connection that is open while the container moves."""
    _start(clean, MOUNTS, ("client",))
    assert _clients(clean.alpha) == "0 1000\n"
    Migration(NAME, ["-e", "migrate_fail_on=warning"], inventory=inventory).fail_with(
        "[peer_credentials]", "Nothing has been touched"
    )
    Migration(NAME, inventory=inventory).succeed()
    assert _clients(clean.beta) == "0\n", "where the move carried it, the rule has to go"


def test_a_semaphore_is_never_given_back(clean: Pair, inventory: str) -> None:
    """Its holder asked the kernel for that, and ends after the move."""
    value = (
        'pid=$(docker inspect --format {{.State.Pid}} "$1");'
        'nsenter --ipc -t "$pid" python3 -c "import ctypes; print(ctypes.CDLL(None).semctl(0, 0, 12))"'
    )
    _start(clean, MOUNTS, ("undo",))
    assert shell(clean.alpha, value, NAME) == "1\n"
    _moved(clean, inventory, "semaphore_undo")
    # The letter in brackets keeps the command from finding its own shell.
    shell(clean.beta, "pkill -f 'hold.p[y] undo'; sleep 1")
    assert shell(clean.beta, value, NAME) == "1\n", "where the move carried it, the rule has to go"


def test_a_database_that_was_open_is_written_no_more(clean: Pair, inventory: str) -> None:
    """SQLite finds another inode number at its path, until the program opens it anew."""
    # The letter in brackets keeps the command from finding its own shell.
    write = "pkill -USR1 -f 'hold.p[y] sqlite'"
    _start(clean, (*_QUIET, *MOUNTS), ("sqlite",))
    shell(clean.alpha, write)
    _await_log(clean.alpha, "sqlite: written")
    _moved(clean, inventory, "sqlite_open")
    shell(clean.beta, write)
    _await_log(clean.beta, "sqlite: attempt to write a readonly database")


def _await_log(host: Host, line: str) -> None:
    deadline = time.monotonic() + 10
    while line not in shell(host, 'docker logs "$1" 2>&1 | grep "^sqlite" || true', NAME):
        assert time.monotonic() < deadline, f"it has not written {line!r}"
        time.sleep(0.1)


# They end as one of the others does.
_ALIKE = frozenset(
    {
        *("unix_stream_outside", "traced", "devices_open", "descriptors_unsupported"),
        *("host_address_missing", "init_missing", "device_missing", "pid_mode", "volume_differs"),
    }
)


@pytest.mark.parametrize(
    "rule", [pytest.param(rule, marks=[pytest.mark.long] if rule in _ALIKE else []) for rule in FAILING]
)
def test_the_move_fails_and_the_process_goes_on(clean: Pair, inventory: str, rule: str) -> None:
    case = FAILING[rule]
    shell(clean.alpha, case.before, NAME)
    try:
        _start(clean, case.arguments, case.kinds)
        shell(clean.alpha, case.then, NAME)
        shell(clean.beta, case.there, NAME)
        was, counted = look(clean.alpha, NAME), count(clean.alpha, NAME)
        traces = [snapshot(host) for host in clean.hosts]
        # Begun, so that no other rule has refused it, and given up.
        stayed = f"not moved to {clean.beta.name}; the container stayed here"
        printed = Migration(NAME, [*ignoring(rule)], inventory=inventory).fail_with(stayed)
        now = look(clean.alpha, NAME)
        assert now == was
        if was["State"]["Status"] == "running":
            assert_counts(clean.alpha, NAME, at_least=counted)
        assert_unchanged(clean.alpha, traces[0], ignore=RECORDS)
        assert_unchanged(clean.beta, traces[1])
        reported = " ".join(printed.split())
        missing = [word for word in case.words if word not in reported]
        assert not missing, f"{missing} is not in:\n{printed[-6000:]}"
    finally:
        # Containers go before the devices of their networks.
        clean.alpha.remove(NAME)
        shell(clean.beta, case.undo_there or "true", NAME)
        shell(clean.alpha, case.undo or "true", NAME)
