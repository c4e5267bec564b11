# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""How many connections may wait at a unix socket that listens: asked of the kernel by the socket's inode (sock_diag(7))."""

from __future__ import annotations

import errno
import os
import struct

from .netlink import SOCK_DIAG, Netlink

# sock_diag.h, unix_diag.h
_BY_FAMILY, _AF_UNIX, _SHOW_QUEUES, _QUEUES = 20, 1, 0x10, 4
# struct unix_diag_req: family, protocol, pad, states, inode, what to show, a cookie of two parts, of which this one is for any.
_REQUEST = struct.Struct("=BBHIIIII")
_ANY = 0xFFFFFFFF
# struct unix_diag_msg: family, type, state, pad, inode, cookie.
_ANSWER_BYTES = 16


def of_unix(inode: int) -> int:
    """The backlog as listen(2) was given it, of a socket in the network namespace of the calling thread.

    :raises OSError: where there is no such socket; where the kernel cannot tell (CRIU needs the same of it: CONFIG_UNIX_DIAG).
    """
    request = _REQUEST.pack(_AF_UNIX, 0, 0, _ANY, inode, _SHOW_QUEUES, _ANY, _ANY)
    with Netlink(SOCK_DIAG) as netlink:
        answer = netlink.ask(_BY_FAMILY, request, _ANSWER_BYTES)
    queues = answer.get(_QUEUES) if answer is not None else None
    if queues is None or len(queues) != 8:
        raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))
    return int(struct.unpack("=II", queues)[1])
