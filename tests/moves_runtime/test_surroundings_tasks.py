# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What belongs to a container's processes and is not their memory moves with them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.moves.moving_counter import Moving
from tests.moves.pair import Pair
from tests.workloads.host import Host

Start = Callable[..., Moving]

pytestmark = pytest.mark.usefixtures("pipelined")

# The counter's image has no Python: the host's, by its own loader.
_LIBRARIES = "/host/lib/x86_64-linux-gnu"
_PYTHON = f"PYTHONHOME=/host {_LIBRARIES}/ld-linux-x86-64.so.2 --library-path {_LIBRARIES} /host/bin/python3"
_INHABITED = f'{_PYTHON} -c "$INHABITANTS" & exec /usr/local/bin/counter'

# The counter, beside a program that opens its standard output anew for every line.
_OPENS_STDOUT = (
    "(while :; do echo opened > /dev/stdout || echo FAILED >&2; sleep 0.2; done) & exec /usr/local/bin/counter"
)

# What others see of the inhabitants, by programs of the host alone.
_LOOK = r"""
options='
import ctypes, os, socket, struct, sys
process = os.pidfd_open(int(sys.argv[1]))
for number, level, option in ((105, 6, 9), (105, 6, 18), (106, 0, 10), (106, 0, 11), (106, 0, 21), (106, 1, 47)):
    # pidfd_getfd(2)
    one = socket.socket(fileno=ctypes.CDLL(None).syscall(438, process, number, 0))
    print("sockets", number, "option", level, option, "is", int.from_bytes(one.getsockopt(level, option, 8), "little"))
one = socket.socket(fileno=ctypes.CDLL(None).syscall(438, process, 108, 0))
# SO_PEERCRED: process, user, group
print("sockets 108 is of", *struct.unpack("3i", one.getsockopt(1, 17, 12))[1:])
'
init=$(docker inspect --format '{{.State.Pid}}' "$1")
group=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/$init/cgroup)
cd "$group"
for p in $(find . -name cgroup.procs -exec cat {} +); do
    role=$(cat /proc/$p/comm)
    case $role in priorities | threads | descriptors | sockets | user | objects | divided | clock) ;; *) continue ;; esac
    for t in $(ls /proc/$p/task); do
        echo "$role $(chrt -p $t | sed "s/pid $t/task/" | head -n 2 | tr '\n' ' ')"
        echo "$role nice $(sed 's/.*) //' /proc/$t/stat | cut -d' ' -f17) $(ionice -p $t) $(taskset -p $t | sed 's/.*: //')"
        echo "$role $(cat /proc/$t/timerslack_ns /proc/$t/oom_score_adj /proc/$t/coredump_filter | tr '\n' ' ')"
        grep -E '^(Uid|Gid|Groups|Umask|Cap|NoNewPrivs|SigIgn)' /proc/$t/status | tr '\n\t' '  ' | sed "s/^/$role /"; echo
    done
    echo "$role $(readlink /proc/$p/cwd) $(grep -E 'open files' /proc/$p/limits)"
    echo "$role in $(sed -n 's/^0:://p' /proc/$p/cgroup | sed 's/.*scope//')"
    test $role != sockets || python3 -c "$options" $p
    test $role != descriptors || test ! /proc/$p/fd/107 -ef /proc/$p/root/kept ||
        echo "descriptors 107 is kept, $(stat -L -c %h /proc/$p/root/kept) name, $(ls /proc/$p/root | grep -c link_remap) others"
    test $role != descriptors || for f in 100 101 102 103 104; do
        flags=$(sed -n 's/^flags:\t//p' /proc/$p/fdinfo/$f)
        # Without O_LARGEFILE, which changes nothing.
        printf '%s flags %o\n' "$f $(stat -L -c '%u:%g %a' /proc/$p/fd/$f)" $((flags & ~0100000))
    done
done | sort
echo "limit $(cat app/cgroup.max.descendants)"
nsenter -i -t $init ipcs -m -i 0 | grep -E 'uid=|mode=' | sed 's/cuid.*//'
nsenter -i -t $init ipcs -s -i 0 | grep -E 'uid=|mode=' | sed 's/cuid.*//'
nsenter -C -m -t $init sh -c "sed -n '/^0::/p' /proc/1/cgroup; ls -d /sys/fs/cgroup/app /sys/fs/cgroup/*.slice" 2>/dev/null
true
"""
# A part of it that somebody has chosen, and that is not what a new process has.
_CHOSEN = (
    "priorities task's current scheduling policy: SCHED_BATCH|SCHED_RESET_ON_FORK",
    "priorities nice 5 best-effort: prio 6 1",
    "priorities 123456 321 00000031",
    "threads nice 7 ",
    "100 1000:1100 620",
    "101 1001:1100 602",
    "102 1002:1100 640",
    "103 1003:1100 700",
    "104 1000:1100 620 flags 4001",
    "descriptors 107 is kept, 1 name, 0 others",
    # TCP_DEFER_ACCEPT, in seconds that make a number of retransmissions; TCP_USER_TIMEOUT; IP_MTU_DISCOVER; IP_RECVERR
    "sockets 105 option 6 9 is 31",
    "sockets 105 option 6 18 is 9000",
    "sockets 106 option 0 10 is 2",
    "sockets 106 option 0 11 is 1",
    # IP_MINTTL; SO_MAX_PACING_RATE
    "sockets 106 option 0 21 is 255",
    "sockets 106 option 1 47 is 5368709120",
    "sockets 108 is of 1002 1003",
    "user /host/lib Max open files            100                  200",
    "divided in /app/inner",
    "clock in",
    "limit 7",
    "0::/",
    "/sys/fs/cgroup/app",
)


def _look(host: Host, name: str) -> list[str]:
    return [line.rstrip() for line in host.run(["bash", "-c", _LOOK, "bash", name]).stdout.splitlines()]


def test_everything_that_a_process_can_set(newer: Pair, start: Start) -> None:
    """One container with a process for each kind of thing: there and back, and what others see of them is the same."""
    hosts = [newer.alpha, newer.beta]
    program = (Path(__file__).parent / "inhabitants.py").read_text()
    arguments = ["--privileged", "--volume", "/usr:/host:ro", "--env", f"INHABITANTS={program}"]
    moving = start(hosts[0], hosts, *arguments, command=["sh", "-c", _INHABITED])
    deadline = time.monotonic() + 20
    while "inhabited" not in hosts[0].docker("logs", moving.name):
        assert time.monotonic() < deadline, hosts[0].run(["docker", "logs", moving.name], check=False).stderr
        time.sleep(0.2)
    before = _look(hosts[0], moving.name)
    for part in _CHOSEN:
        assert any(line.startswith(part) for line in before), (part, before)
    for source, destination in (hosts, hosts[::-1]):
        moving.move(source, destination).succeed()
        moving.assert_runs_on(destination)
        assert _look(destination, moving.name) == before


def test_a_user_without_root_opens_its_standard_output(newer: Pair, start: Start) -> None:
    """The pipe belongs to the container's user, as Docker has made it, and not to root."""
    source, destination = newer.alpha, newer.beta
    moving = start(source, [source, destination], "--user", "1000:1000", command=["sh", "-c", _OPENS_STDOUT])
    moving.move(source, destination).succeed()
    moving.assert_runs_on(destination)
    lines = destination.docker("logs", moving.name).splitlines()
    time.sleep(0.5)
    more = destination.run(["sh", "-c", f"docker logs {moving.name} 2>&1"]).stdout.splitlines()
    assert more.count("opened") > lines.count("opened")
    assert "FAILED" not in more
