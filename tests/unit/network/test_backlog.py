# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How many may wait at a unix socket, as this kernel tells it of real ones."""

from __future__ import annotations

import os
import socket

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._network import backlog


@pytest.mark.parametrize("number", [0, 1, 7, 100])
def test_it_is_what_listen_was_given(number: int) -> None:
    with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as other:
        one.bind("")
        one.listen(number)
        other.bind("")
        other.listen(number + 1)
        assert backlog.of_unix(os.fstat(one.fileno()).st_ino) == number
        # One that waits changes nothing of it.
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(one.getsockname())
            assert backlog.of_unix(os.fstat(one.fileno()).st_ino) == number


def test_of_a_socket_that_is_gone_nothing_is_reported() -> None:
    with socket.socket(socket.AF_UNIX) as one:
        inode = os.fstat(one.fileno()).st_ino
    with pytest.raises(OSError, match="No such file"):
        backlog.of_unix(inode)
