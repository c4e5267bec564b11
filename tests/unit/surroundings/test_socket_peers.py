# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who has made a unix socket listen: real processes of other users, and a copy that root has made, as CRIU does."""

from __future__ import annotations

import json
import os
import select
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._host import unix_peers
from ansible_collections.livemigrate.criu.plugins.module_utils._host.borrowed_descriptor import borrowed
from ansible_collections.livemigrate.criu.plugins.module_utils._host.process_sockets import opened
from ansible_collections.livemigrate.criu.plugins.module_utils._host.unix_peers import Peer
from ansible_collections.livemigrate.criu.plugins.module_utils._network import backlog
from ansible_collections.livemigrate.criu.plugins.module_utils._surroundings import sockets, surroundings
from ansible_collections.livemigrate.criu.plugins.module_utils._surroundings.side import Side
from tests.unit.helpers.groups import Group, own_group
from tests.unit.helpers.inhabitants import inhabited

# 100 listens, 101 and 102 are a connection through it, 103 and 104 a pair; 105 to 107 the same with packets, 105 listening.
# What has "who" in front of it is done as that user. The program stays root, as one that has given nothing up.
_OPEN = """
import os, socket
UNIX, STREAM, PACKETS = socket.AF_UNIX, socket.SOCK_STREAM, socket.SOCK_SEQPACKET
made = []
class Who:
    def __init__(self, uid=0, gid=0, groups=()):
        self.ids = uid, gid, groups
    def __enter__(self):
        os.setgroups(self.ids[2])
        os.setegid(self.ids[1])
        os.seteuid(self.ids[0])
    def __exit__(self, *_exc):
        os.seteuid(0)
        os.setegid(0)
        os.setgroups([])
def at(number, one):
    os.dup2(one.fileno(), number)
    one.close()
    made.append(socket.socket(fileno=number))
    return made[-1]
def listening(number, kind, who, backlog=5):
    one = at(number, socket.socket(UNIX, kind))
    one.bind("")
    with who:
        one.listen(backlog)
    return one
def connect(number, to, who):
    one = at(number, socket.socket(UNIX, to.type))
    with who:
        one.connect(to.getsockname())
    return one
def pair(number, who):
    with who:
        one, other = socket.socketpair(UNIX, STREAM)
    at(number, one), at(number + 1, other)
"""
_ALL_ROOT = """
server = listening(100, STREAM, Who())
client = connect(101, server, Who())
at(102, server.accept()[0])
pair(103, Who())
packets = listening(105, PACKETS, Who())
connect(106, packets, Who())
at(107, packets.accept()[0])
"""
_OF_USERS = """
server = listening(100, STREAM, Who(1000, 1001, [5, 6]), 7)
client = connect(101, server, Who(1002, 1003))
at(102, server.accept()[0])
pair(103, Who(1002, 1003))
packets = listening(105, PACKETS, Who(0, 1001))
connect(106, packets, Who(1002))
at(107, packets.accept()[0])
"""

NOTHING: dict[str, Any] = {"created": {}, "special": []}


@pytest.fixture
def group() -> Iterator[Group]:
    with own_group() as made:
        yield made


def _taken(side: Side) -> Any:
    return json.loads(json.dumps(sockets.take(side, sockets.look_ahead(side))))


def _listeners(side: Side) -> dict[int, list[Any]]:
    """What is noted, by the number of the descriptor: user, group, groups."""
    return {number: rest for _process, number, *rest in _taken(side)["listeners"]}


EXPECTED = {100: [1000, 1001, [5, 6]], 105: [0, 1001, []]}


def test_what_is_noted_is_what_root_has_not_made_listen(group: Group) -> None:
    with inhabited(group, "users", _OPEN + _OF_USERS) as users, inhabited(group, "root", _OPEN + _ALL_ROOT) as root:
        assert _listeners(users) == EXPECTED
        assert _listeners(root) == {}


def test_a_listener_listens_again_as_who_it_was(group: Group) -> None:
    with (
        inhabited(group, "original", _OPEN + _OF_USERS) as original,
        inhabited(group, "copy", _OPEN + _ALL_ROOT) as copy,
    ):
        source = _taken(original)
        before = sockets.compare(copy, source)
        assert (
            "the one who listens at descriptor 100 of process 1 was of user and group 1000:1001 and is of 0:0" in before
        )
        assert len(before) == len(EXPECTED)
        assert surroundings.bring_over(copy, {"sockets": source}) == []
        assert _listeners(copy) == EXPECTED
        assert (os.geteuid(), os.getegid()) == (0, 0)


def _listener(side: Side, number: int, ask: Any) -> Any:
    with borrowed(side.init, number) as ours, opened(ours) as one:
        return ask(one, ours)


def test_what_waits_and_how_much_may_wait_stays(group: Group) -> None:
    """A client that the program has not accepted; and who is in other groups alone."""
    waits = (
        _OPEN + "server = listening(100, STREAM, Who(), 3)\nclient = connect(101, server, Who())\nclient.send(b'x')\n"
    )
    source = {**NOTHING, "listeners": [["1", 100, 77, 78, [79]]]}
    with inhabited(group, "copy", waits) as copy:
        sockets.carry(copy, source)
        assert sockets.compare(copy, source) == []
        assert _listener(copy, 100, lambda _one, ours: backlog.of_unix(os.fstat(ours).st_ino)) == 3
        assert _listener(copy, 100, lambda one, _ours: select.select([one], [], [], 0)[0]), "the client waits still"
        others = {**source, "listeners": [["1", 100, 77, 78, [80]]]}
        assert sockets.compare(copy, others) == [
            "the one who listens at descriptor 100 of process 1 was of user and group 77:78 and is of 77:78 in other groups"
        ]
    with pytest.raises(OSError, match="No such file"):
        backlog.of_unix(1)


def test_of_a_copy_that_runs_nothing_is_changed(group: Group) -> None:
    """As with the engine `api`: it is reported, but not what its programs have closed or changed meanwhile."""
    with (
        inhabited(group, "original", _OPEN + _OF_USERS) as original,
        inhabited(group, "copy", _OPEN + _ALL_ROOT) as copy,
    ):
        source = _taken(original)
        source["listeners"] += [["1", 199, 1, 1, []], ["1", 103, 1, 1, []], ["9", 100, 1, 1, []]]
        frozen = sockets.compare(copy, source)
        assert "descriptor 103 of process 1 is no unix socket that listens" in frozen
        assert "who listens at descriptor 199 of process 1 cannot be read (Bad file descriptor)" in frozen
        copy.group.thaw()
        sockets.carry(copy, source)
        assert len(sockets.compare(copy, source)) == len(EXPECTED)


@pytest.mark.parametrize(
    "peers",
    [
        [["1", 100, -1, 0, []]],
        [["1", 100, 0xFFFFFFFF, 0, []]],
        [["1", 100, "0", 0, []]],
        [["1", 100, 0, 0, [True]]],
        [["1", 100, 0, 0, "5"]],
        [["1", 100, 0, 0, [5] * 65537]],
        [["1", "100", 0, 0, []]],
        [[1, 100, 0, 0, []]],
        [["1"]],
        None,
    ],
)
def test_only_numbers_become_users(peers: Any, group: Group) -> None:
    """The data come from another host."""
    source = {**NOTHING, "listeners": peers}
    with inhabited(group, "copy", _OPEN + _ALL_ROOT) as copy:
        with pytest.raises(ValueError, match=r" no "):
            sockets.carry(copy, source)
        assert _listeners(copy) == {}


def test_the_thread_alone_is_another_user(tmp_path: Any) -> None:
    """The process and its other threads stay who they are, and what fails says so."""
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(tmp_path / "one"))
        one.listen(2)
        unix_peers.listen_again(one, 2, Peer(1000, 1001, (7,)))
        assert unix_peers.of_listener(one) == Peer(1000, 1001, (7,))
        assert unix_peers.name(one) == str(tmp_path / "one")
        ids: list[tuple[int, int]] = []
        other = threading.Thread(target=lambda: ids.append((os.geteuid(), os.getegid())))
        other.start()
        other.join()
        assert ids == [(os.geteuid(), os.getegid())] == [(0, 0)]
    with socket.socket(socket.AF_UNIX) as one, pytest.raises(OSError, match="Invalid argument"):
        unix_peers.listen_again(one, 2, Peer(1000, 1001))


def test_the_preflight_finds_connections_and_no_pairs(group: Group) -> None:
    with inhabited(group, "users", _OPEN + _OF_USERS) as users, inhabited(group, "root", _OPEN + _ALL_ROOT) as root:
        found = unix_peers.of_processes(users.group.pids())
        assert sorted((one["uid"], one["gid"]) for one in found) == [(0, 1001), (1000, 1001), (1002, 0), (1002, 1003)]
        assert len({one["program"] for one in found}) == 1
        assert all(one["name"].startswith("@") for one in found)
        assert unix_peers.of_processes(root.group.pids()) == []
        assert unix_peers.of_processes([]) == []
