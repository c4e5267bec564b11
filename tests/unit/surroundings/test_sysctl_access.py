# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who can change the sysctls of a container: real processes, and mount tables as Docker makes them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._host import mountinfo
from ansible_collections.livemigrate.criu.plugins.module_utils._host.tasks import TaskGroup
from ansible_collections.livemigrate.criu.plugins.module_utils._surroundings import sysctl_access
from ansible_collections.livemigrate.criu.plugins.module_utils._surroundings import sysctls as surroundings_sysctls
from ansible_collections.livemigrate.criu.plugins.module_utils._surroundings.side import Side
from tests.unit.helpers.support import wait_for

# Of a container of Docker 26 with its defaults, without what lies outside of /proc and /sys.
USUAL = """\
600 590 0:60 / / rw,relatime - overlay overlay rw,lowerdir=/a,upperdir=/b,workdir=/c
601 600 0:63 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw
604 600 0:65 / /sys ro,nosuid,nodev,noexec,relatime - sysfs sysfs ro
520 601 0:63 /bus /proc/bus ro,nosuid,nodev,noexec,relatime - proc proc rw
523 601 0:63 /sys /proc/sys ro,nosuid,nodev,noexec,relatime - proc proc rw
524 601 0:63 /sysrq-trigger /proc/sysrq-trigger ro,nosuid,nodev,noexec,relatime - proc proc rw
527 601 0:67 / /proc/scsi ro,relatime - tmpfs tmpfs ro
"""


@pytest.mark.parametrize(
    ("added", "taken", "writable"),
    [
        pytest.param("", "", False, id="as-docker-makes-it"),
        pytest.param("", "523 ", True, id="systempaths-unconfined"),
        pytest.param("700 600 0:63 / /host/proc rw - proc proc rw\n", "", True, id="another-proc"),
        pytest.param("700 600 0:63 / /host/proc ro - proc proc rw\n", "", False, id="another-proc-read-only"),
        pytest.param("700 523 0:63 /sys/net /proc/sys/net rw - proc proc rw\n", "", True, id="a-writable-part"),
        pytest.param("700 523 0:63 /sys /proc/sys rw - proc proc rw\n", "", True, id="writable-upon-read-only"),
        pytest.param("700 600 0:63 /sysvipc /mnt rw - proc proc rw\n", "", False, id="something-else-of-proc"),
    ],
)
def test_through_which_mounts(added: str, taken: str, writable: bool) -> None:
    lines = [line for line in USUAL.splitlines(keepends=True) if not taken or not line.startswith(taken)]
    assert sysctl_access.has_writable_place(mountinfo.parse("".join(lines) + added)) is writable


class _Group(TaskGroup):
    """The processes of a test, which are in no cgroup of their own."""

    def __init__(self, *pids: int) -> None:
        super().__init__("/nowhere")
        self._pids = pids

    def pids(self) -> list[int]:
        return list(self._pids)


@contextmanager
def _container(
    *, read_only: bool, bounding: str, inherited: str = "-all", command: str = "sleep 60", comm: str = "sleep"
) -> Iterator[Side]:
    """A process in namespaces of its own, with a /proc/sys and capabilities like those that an engine gives."""
    mount = "mount --bind -o ro /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && " if read_only else ""
    script = f"{mount}exec setpriv --bounding-set={bounding} --inh-caps={inherited} {command}"
    with subprocess.Popen(["unshare", "--net", "--ipc", "--uts", "--mount", "sh", "-c", script]) as process:
        try:
            name = Path(f"/proc/{process.pid}/comm")
            wait_for(lambda: name.read_text() == f"{comm}\n", "a process with namespaces of its own")
            yield Side(process.pid, _Group(process.pid), "/nowhere", own_network=True)
        finally:
            process.kill()


@pytest.mark.usefixtures("needs_namespaces")
@pytest.mark.parametrize(
    ("read_only", "bounding", "can"),
    [
        pytest.param(True, "-all,+net_raw,+setuid", False, id="usual"),
        pytest.param(False, "-all,+net_raw,+setuid", True, id="mounted-writable"),
        pytest.param(True, "-all,+net_admin", True, id="net-admin"),
        pytest.param(True, "-all,+sys_admin", True, id="sys-admin"),
        pytest.param(True, "-all,+sys_ptrace", True, id="sys-ptrace"),
    ],
)
def test_a_real_process(read_only: bool, bounding: str, can: bool) -> None:
    with _container(read_only=read_only, bounding=bounding) as side:
        assert sysctl_access.can_write(side) is can


@pytest.mark.usefixtures("needs_namespaces")
def test_what_is_inherited_is_had_again_by_a_set_user_id_program() -> None:
    command = "setpriv --reuid=65534 --clear-groups --bounding-set=-all sleep 60"
    with _container(read_only=True, bounding="+all", inherited="-all,+net_admin", command=command) as side:
        status = Path(f"/proc/{side.init}/status").read_text()
        assert "CapPrm:\t0000000000000000" in status
        assert "CapBnd:\t0000000000000000" in status
        assert sysctl_access.can_write(side)


_A_THREAD = """
import ctypes, threading, time
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
# By linux/prctl.h and linux/capability.h: this thread alone drops all that it has, and may get.
libc = ctypes.CDLL(None)
for number in range(41):
    libc.prctl(24, number, 0, 0, 0)
header, nothing = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
assert libc.capset(header, nothing) == 0
libc.prctl(15, b"ready")
time.sleep(60)
"""


@pytest.mark.usefixtures("needs_namespaces")
def test_a_thread_may_have_what_the_process_has_not(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(_A_THREAD)
    command = f"/usr/bin/python3 {tmp_path / 'program.py'}"
    with _container(read_only=True, bounding="-all,+net_admin,+setpcap", command=command, comm="ready") as side:
        assert "CapPrm:\t0000000000000000" in Path(f"/proc/{side.init}/status").read_text()
        assert sysctl_access.can_write(side)


@pytest.mark.usefixtures("needs_namespaces")
@pytest.mark.parametrize("read_only", [True, False])
def test_they_are_read_before_the_freeze_where_nobody_can_change_them(read_only: bool) -> None:
    with _container(read_only=read_only, bounding="-all,+net_raw") as side:
        ahead = surroundings_sysctls.look_last(side, surroundings_sysctls.look_ahead(side))
        # Of an attempt before: what was read then counts no more.
        assert ahead == surroundings_sysctls.look_last(side, {**ahead, "values": {"net/core/somaxconn": "55"}})
        subprocess.run(
            ["nsenter", f"--net=/proc/{side.init}/ns/net", "sysctl", "-q", "-w", "net.core.somaxconn=77"], check=True
        )
        values = surroundings_sysctls.take(side, ahead)["values"]
    # Where the container could have done it, it is found.
    assert (values["net/core/somaxconn"] == "77") is not read_only


@pytest.mark.usefixtures("needs_namespaces")
def test_a_process_in_namespaces_of_its_own_may_do_what_it_likes() -> None:
    apart = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "sleep", "60"]
    with _container(read_only=True, bounding="-all,+net_raw") as side, subprocess.Popen(apart) as other:
        try:
            wait_for(lambda: Path(f"/proc/{other.pid}/comm").read_text() == "sleep\n", "another process")
            # Another mount namespace, with a writable /proc/sys: root may write by the file's mode.
            side.group = _Group(side.init, other.pid)
            assert sysctl_access.can_write(side)
        finally:
            other.kill()
