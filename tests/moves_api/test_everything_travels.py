# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One container with a setting of every kind moves: what `docker inspect` says, and every kind of file, is the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.moves.nothing_left import forget, nothing_left
from tests.moves.pair import Pair
from tests.moves.playbook_run import Migration
from tests.workloads.host import Host
from tests.workloads.inspect_comparison import compare, unexpected
from tests.workloads.probe import wait_for_answer

pytestmark = pytest.mark.usefixtures("pipelined")

NAME = "all-sorts"
PORT = 9800
BIND = "/srv/all-sorts"
# A single file of the host, in a directory of its own that the destination does not have.
BIND_FILE = "/srv/all-sorts-etc/app.conf"

# A file of every kind, in the writable layer and in the volume alike. Paths below one directory.
_MAKE_FILES = r"""
set -e
cd "$1"
mkdir -p tree/sub; chmod 2750 tree/sub; chown 1234:4321 tree/sub
echo plain > tree/plain; touch -d '2001-02-03 04:05:06' tree/plain; chmod 4711 tree/plain
ln tree/plain tree/hard; ln -s ../nowhere tree/soft; mkfifo tree/fifo
printf 'odd' > "tree/$(printf 'a\001b\377')"
dd if=/dev/zero of=tree/holes bs=1 count=1 seek=67108863 2>/dev/null
"""
# What a listing tells of them; blocks prove the holes.
_LIST_FILES = r"""
cd "$1"
find tree | sort | while IFS= read -r f; do stat -c '%A %u:%g %h %s %Y %F' "$f"; done
stat -c %b tree/holes | awk '{print ($1 < 1000) ? "sparse" : "filled"}'
md5sum tree/plain tree/hard tree/holes | sed 's/ .*//'
readlink tree/soft
ls tree | md5sum
"""


def _root(host: Host) -> str:
    """The container's own file system, as a path on its host."""
    return f"/proc/{host.inspect(NAME)['State']['Pid']}/root"


def _volume(host: Host) -> str:
    return host.docker("volume", "inspect", "--format", "{{.Mountpoint}}", f"{NAME}-data")


@pytest.fixture
def all_sorts(pair: Pair) -> Iterator[dict[str, Any]]:
    """The container on alpha, with its files; what inspect said of it."""
    forget(pair.hosts, [NAME])
    _remove_rest(pair)
    with nothing_left(pair, [NAME], also=lambda: _remove_rest(pair)):
        _make(pair.alpha)
        yield pair.alpha.inspect(NAME)


def _make(alpha: Host) -> None:
    alpha.docker("network", "create", "--subnet", "198.18.77.0/24", f"{NAME}-one")
    alpha.docker("network", "create", "--label", "kept=yes", f"{NAME}-two")
    alpha.docker("volume", "create", "--label", "kept=yes", f"{NAME}-data")
    alpha.run(["sh", "-c", f"mkdir -p {BIND} && echo bound > {BIND}/file"])
    make_file = (
        'mkdir -p "$(dirname "$1")"; echo alone > "$1"; chown 1234:4321 "$1"; chmod 4640 "$1"; touch -d 2001-02-03 "$1"'
    )
    alpha.run(["sh", "-ec", f'{make_file}; echo secret > "$1.not"', "sh", BIND_FILE])
    alpha.start(
        NAME,
        "livemigrate/counter:1",
        [
            *("--network", f"{NAME}-one", "--ip", "198.18.77.50", "--network-alias", "sortie"),
            *("--publish", f"{PORT}:8080", "--publish", "127.0.0.1::7"),
            *("--env", "SECRET=correct horse", "--label", "site=here", "--workdir", "/tmp", "--user", "0:0"),
            *("--restart", "on-failure:4", "--stop-signal", "SIGINT", "--stop-timeout", "7"),
            *("--cap-add", "NET_ADMIN", "--cap-drop", "MKNOD", "--security-opt", "no-new-privileges"),
            *("--ulimit", "nofile=512:1024", "--sysctl", "net.ipv4.ip_forward=1", "--shm-size", "32m"),
            *(
                "--tmpfs",
                "/scratch:size=8m",
                "--add-host",
                "elsewhere:192.0.2.7",
                "--dns",
                "192.0.2.53",
                "--dns-search",
                "example.org",
            ),
            *("--group-add", "50", "--oom-score-adj", "100", "--device", "/dev/null:/dev/nothing"),
            *("--log-opt", "max-size=5m", "--log-opt", "max-file=3", "--domainname", "example.org"),
            *("--health-cmd", "true", "--health-interval", "5s"),
            *("--volume", f"{NAME}-data:/data", "--volume", "/anonymous", "--volume", f"{BIND}:/bound"),
            *("--volume", f"{BIND_FILE}:/etc/app.conf"),
        ],
    )
    alpha.docker("network", "connect", "--alias", "second", f"{NAME}-two", NAME)
    for directory in (f"{_root(alpha)}/tmp", _volume(alpha)):
        alpha.run(["bash", "-c", _MAKE_FILES, "bash", directory])
    # A file of the image that the container has deleted, and one that it has replaced.
    alpha.docker("exec", NAME, "sh", "-c", "rm /usr/local/bin/entry; echo changed > /etc/new; mkdir -p /etc/deep/er")
    wait_for_answer(f"http://{alpha.address}:{PORT}/")


def _remove_rest(pair: Pair) -> None:
    for host in (pair.alpha, pair.beta):
        for network in ("one", "two"):
            host.docker("network", "rm", f"{NAME}-{network}", check=False)
        host.run(["sh", "-c", f"docker volume rm {NAME}-data; rm -rf {BIND} $(dirname {BIND_FILE})"], check=False)


@pytest.mark.parametrize("engine", ["api", "runtime"])
def test_every_setting_and_every_kind_of_file_moves(pair: Pair, all_sorts: dict[str, Any], engine: str) -> None:
    """Settings by inspect, files by what stat says of them, names by what answers to them."""
    alpha, beta = pair.alpha, pair.beta
    files = [
        alpha.run(["bash", "-c", _LIST_FILES, "bash", place]).stdout
        for place in (f"{_root(alpha)}/tmp", _volume(alpha))
    ]
    assert "sparse" in files[0], "the test's own files are not what they should be"
    token = wait_for_answer(f"http://{alpha.address}:{PORT}/").token

    asked = {"migrate_bind_mounts": [BIND, BIND_FILE], "migrate_engine": engine}
    output = Migration(NAME, ["-e", json.dumps(asked)]).succeed()

    assert wait_for_answer(f"http://{beta.address}:{PORT}/").token == token
    moved = beta.inspect(NAME)
    differences = unexpected(compare(all_sorts, moved))
    assert not differences, "\n".join(f"{d.path}: {d.source} -> {d.destination}" for d in differences)
    assert moved["HostConfig"]["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 4}
    assert "correct horse" not in output, "a value of the environment was printed"
    places = (f"{_root(beta)}/tmp", _volume(beta))
    assert [beta.run(["bash", "-c", _LIST_FILES, "bash", place]).stdout for place in places] == files
    assert beta.run(["cat", f"{BIND}/file"]).stdout == "bound\n"
    assert beta.docker("exec", NAME, "cat", "/etc/app.conf") == "alone"
    reported = ["stat", "-c", "%n %a %u:%g %s %Y", BIND_FILE]
    assert beta.run(reported).stdout == alpha.run(reported).stdout
    assert beta.run(["ls", "-A", str(Path(BIND_FILE).parent)]).stdout.split() == ["app.conf"]
    assert beta.docker("volume", "inspect", "--format", "{{.Labels.kept}}", f"{NAME}-data") == "yes"
    assert beta.docker("network", "inspect", "--format", "{{.Labels.kept}}", f"{NAME}-two") == "yes"
    inside = beta.docker(
        "exec", NAME, "sh", "-c", "cat /etc/new; test -d /etc/deep/er; test -e /usr/local/bin/entry || echo gone"
    )
    assert inside.split() == ["changed", "gone"]


def test_a_missing_bind_source_and_a_wrong_one_are_refused(pair: Pair, all_sorts: dict[str, Any]) -> None:
    """A bind mount that is not named has to be on the destination; one that is named has to be one."""
    Migration(NAME).fail_with(f"The container mounts {BIND}", "migrate_bind_mounts")
    Migration(NAME, ["-e", json.dumps({"migrate_bind_mounts": ["/etc"]})]).fail_with(
        "is not a bind mount of the container"
    )
    assert pair.alpha.inspect(NAME)["Id"] == all_sorts["Id"]
    assert pair.alpha.inspect(NAME)["State"]["Status"] == "running"
    assert not pair.beta.docker("volume", "ls", "-q", "--filter", f"name={NAME}-data"), (
        "the refusal left a volume behind"
    )
    assert not pair.beta.docker("network", "ls", "-q", "--filter", f"name={NAME}"), "the refusal left a network behind"


# Other content of the same size and time, as in a package whose files all have one date.
_CHANGE_UNSEEN = """
for f; do cp -p "$f" /tmp/times; printf other > /tmp/content; cat /tmp/content > "$f"; touch -r /tmp/times "$f"; done
"""


def test_a_move_back_brings_what_differs_and_asks_for_nothing_but_what_is_somebody_elses(
    pair: Pair, all_sorts: dict[str, Any]
) -> None:
    """Volume, bind mount, single file and layer are there already, as they were; then another project has the volume's name."""
    alpha, beta = pair.alpha, pair.beta
    asked = ["-e", json.dumps({"migrate_bind_mounts": [BIND, BIND_FILE]})]
    back = ["-e", "migrate_source_group=destination", "-e", "migrate_destination_group=source"]

    def files(host: Host) -> list[str]:
        return [f"{_volume(host)}/plain5", f"{BIND}/file", BIND_FILE, f"{_root(host)}/tmp/plain5"]

    for name in files(alpha):
        alpha.run(["sh", "-c", 'printf first > "$1"; touch -d 1985-10-26 "$1"', "sh", name])
    Migration(NAME, asked).succeed()
    beta.run(["sh", "-ec", _CHANGE_UNSEEN, "sh", *files(beta)])
    Migration(NAME, [*asked, *back]).succeed()
    assert alpha.inspect(NAME)["State"]["Running"], all_sorts["Id"]
    assert [alpha.run(["cat", name]).stdout for name in files(alpha)] == ["other"] * 4

    Migration(NAME, playbook="cleanup.yml").succeed()
    volume = f"{NAME}-data"
    beta.docker("volume", "rm", volume)
    beta.docker("volume", "create", volume)
    beta.run(["sh", "-c", f"echo theirs > {_volume(beta)}/theirs"])
    Migration(NAME, asked).fail_with(f"The volume {volume} on the destination has content")
    assert beta.run(["cat", f"{_volume(beta)}/theirs"]).stdout == "theirs\n"
    assert alpha.inspect(NAME)["State"]["Running"]
    # The anonymous volume has been re-created there under its name, and stays as any volume of a name does.
    for mount in alpha.inspect(NAME)["Mounts"]:
        if mount["Type"] == "volume" and not mount["Name"].startswith(NAME):
            beta.docker("volume", "rm", mount["Name"])
