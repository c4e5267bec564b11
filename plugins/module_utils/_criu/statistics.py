# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""CRIU's own statistics of a dump: the files ``stats-dump`` in its working directory (CRIU images/stats.proto)."""

from __future__ import annotations

import struct

# Two magic numbers, then one length and one message (CRIU criu/include/magic.h, lib/pycriu/images).
_MAGIC = struct.pack("<II", 0x55105940, 0x57093306)

# dump_stats_entry's fields that are returned. Times are in microseconds.
_TIMES = {1: "freezing_seconds", 2: "frozen_seconds", 3: "memory_seconds", 4: "write_seconds"}
_COUNTS = {5: "pages_scanned", 7: "pages_written"}


def _varint(data: bytes, offset: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[offset]
        offset += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, offset
        shift += 7


def _fields(message: bytes) -> dict[int, int | bytes]:
    """The top level of a protocol buffer; of a repeated field the last value."""
    found: dict[int, int | bytes] = {}
    offset = 0
    while offset < len(message):
        key, offset = _varint(message, offset)
        kind = key & 7
        if kind == 0:
            found[key >> 3], offset = _varint(message, offset)
        elif kind == 2:
            length, offset = _varint(message, offset)
            if offset + length > len(message):
                raise ValueError(f"field {key >> 3} is cut off")
            found[key >> 3] = message[offset : offset + length]
            offset += length
        else:
            raise ValueError(f"field {key >> 3} has the wire type {kind}")
    return found


def dump_statistics(content: bytes) -> dict[str, float | int]:
    """``frozen_seconds``, ``pages_written`` and others from the content of a stats-dump file; {} for what is none.

    Pages are of the machine's page size.
    """
    if not content.startswith(_MAGIC):
        return {}
    try:
        (length,) = struct.unpack_from("<I", content, len(_MAGIC))
        message = content[len(_MAGIC) + 4 :]
        if len(message) < length:
            return {}
        entry = _fields(message[:length]).get(1)
        if not isinstance(entry, bytes):
            return {}
        fields = _fields(entry)
    except (struct.error, IndexError, ValueError):
        return {}
    statistics: dict[str, float | int] = {}
    for number, name in _TIMES.items():
        value = fields.get(number)
        if isinstance(value, int):
            statistics[name] = value / 1e6
    for number, name in _COUNTS.items():
        value = fields.get(number)
        if isinstance(value, int):
            statistics[name] = value
    return statistics
