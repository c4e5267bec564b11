# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Meets the step of a session at a phase of its journal, and stops or kills it there.

The handover of the engine `runtime` is one step of some tenths of a second, so the one who waits for the phase is on the host.
"""

from __future__ import annotations

import subprocess
import threading
import time

from tests.moves.moving_counter import Moving, session_on
from tests.moves.playbook_run import Migration
from tests.workloads.host import Host

# The lease of a frozen session, the watchdog's interval, and what a settling takes on a busy machine.
SETTLED_WITHIN = 30 + 5 + 60
# The same with the lease of a held copy.
GIVEN_UP_WITHIN = 120 + 5 + 60

# The one who works on a session holds the lock on its file; /proc/locks tells who that is.
_MEET = r"""
name=$1 phase=$2 signal=$3 file=$4 left=$5 d=

# Nothing but builtins while it matters: the phases are some hundredths of a second apart.
has() {
    while IFS= read -r line || [ -n "$line" ]; do
        case $line in *"\"$2\": \"$3\""*) return 0 ;; esac
    done <"$1"
    return 1
} 2>/dev/null

# Whether a file is there; its name may be a pattern.
there() { [ $# -eq 0 ] || [ -e "$1" ]; }

while [ "$left" -gt 0 ]; do
    left=$((left - 1))
    if [ -z "$d" ]; then
        for record in /var/lib/livemigrate/2*/session.json; do
            # A session of before has a decision.
            has "$record" container_name "$name" && ! [ -e "${record%/*}/decision" ] || continue
            inode=$(stat -c %i "${record%/*}/lock") && d=${record%/*}
        done
    elif { [ "$phase" = decision ] && [ -e "$d/decision" ] || has "$d/journal" phase "$phase"; } && there $file; then
        [ "$signal" != none ] || exec echo 0
        pid=$(awk -v inode="$inode" '$2 == "FLOCK" && $6 ~ ":" inode "$" { print $5; exit }' /proc/locks)
        test -n "$pid" || exit 3
        kill -"$signal" "$pid" || exit 4
        echo "$pid"
        exit 0
    fi
    sleep 0.01
done
exit 5
"""


class Meeting:
    """Waits on a host, from now on, for a session of a container to reach a phase; `decision` means that its decision is written.

    :param signal: for the process that works on the session then; `none` leaves it alone, where it may have ended by then.
    :param file: a pattern of a name that has to be there as well, for moments between two phases.
    :param seconds: until then it must have been reached. A move that ends before is noticed at once.
    """

    def __init__(self, host: Host, name: str, phase: str, signal: str, file: str = "", *, seconds: float = 300) -> None:
        self._host, self._phase, self._seconds = host, phase, seconds
        self._done: subprocess.CompletedProcess[str] | None = None
        self._thread = threading.Thread(target=self._wait, args=(name, phase, signal, file), daemon=True)
        self._thread.start()

    def _wait(self, *words: str) -> None:
        turns = str(round(self._seconds * 100))
        # A turn takes longer than its pause, and none of them is to be cut off.
        self._done = self._host.run(["sh", "-c", _MEET, "sh", *words, turns], check=False, timeout=3 * self._seconds)

    def happened(self, migration: Migration | None = None) -> int:
        """The process that was met, 0 where it was left alone. Fails the test if none was.

        :param migration: which is to meet it; what it has printed is told with the failure.
        """
        deadline = time.monotonic() + self._seconds
        while self._thread.is_alive() and time.monotonic() < deadline and not (migration and migration.over):
            self._thread.join(1)
        # It may have been met in the migration's last second.
        self._thread.join(2)
        printed = f":\n{migration.output[-6000:]}" if migration else ""
        assert self._done is not None, f"the phase {self._phase} was never reached on {self._host.name}{printed}"
        code = self._done.returncode
        assert code == 0, f"nobody was met at {self._phase}: exit code {code}{printed}"
        return int(self._done.stdout)

    def go_on(self) -> None:
        """Let a stopped step go on."""
        self._host.run(["kill", "-CONT", str(self.happened())])


def wait_settled(moving: Moving, host: Host, *, seconds: float = SETTLED_WITHIN) -> None:
    """Wait until the newest session of a container is closed on a host, by its watchdog alone."""
    deadline = time.monotonic() + seconds
    while session_on(host, moving.name)["phases"][-1:] != ["closed"]:
        assert time.monotonic() < deadline, f"not settled: {session_on(host, moving.name)}"
        time.sleep(1)


def with_run_unknown_to_source(moving: Moving, source: Host, destination: Host) -> tuple[Migration, Meeting]:
    """A handover in which the destination has decided RUN and its source does not know it: the source's step is stopped."""
    meeting = Meeting(source, moving.name, "decision", "STOP")
    migration = moving.move(source, destination)
    step = meeting.happened(migration)
    # It may have been stopped before it has said so to the destination, whose answer takes many times a slice.
    deadline = time.monotonic() + SETTLED_WITHIN
    while session_on(destination, moving.name)["phases"][-1] != "run":
        assert time.monotonic() < deadline, "the destination has not heard the decision"
        source.run(["sh", "-c", f"kill -CONT {step}; sleep 0.002; kill -STOP {step}"])
        time.sleep(0.3)
    return migration, meeting


def with_a_held_copy(
    moving: Moving, source: Host, destination: Host, *, seconds: float = 300
) -> tuple[Migration, Meeting]:
    """A handover in which the copy is held and nobody has told the source yet: the destination's agent is stopped. Docker shows
    the copy as running then.

    :param seconds: until then it must be as far as that.
    """
    # The shim has to be told first, which follows the phase within a millisecond; the restore takes a hundred times that.
    file = "/run/livemigrate/restores/*/ready"
    meeting = Meeting(destination, moving.name, "starting", "STOP", file, seconds=seconds)
    migration = moving.move(source, destination)
    meeting.happened(migration)
    deadline = time.monotonic() + seconds / 6
    while destination.run(["sh", "-c", "ls /run/livemigrate/restores/*/plumbed"], check=False).returncode != 0:
        assert time.monotonic() < deadline, "the copy was never held"
        time.sleep(0.1)
    while destination.docker("inspect", "--format", "{{.State.Running}}", moving.name) != "true":
        assert time.monotonic() < deadline, "the engine has not noted it"
        time.sleep(0.1)
    return migration, meeting
