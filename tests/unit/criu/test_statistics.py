# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""CRIU's statistics, read without protobuf: a real file of CRIU 4.2, and what is none."""

from __future__ import annotations

import base64
import os
import struct

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._criu.statistics import dump_statistics

# stats-dump of CRIU 4.2. By images/stats.proto, a key being (field << 3 | 0) and a number seven bits a byte, lowest first:
#   40 59 10 55  06 33 09 57    the two magic numbers, IMG_SERVICE 0x55105940 and STATS 0x57093306
#   23 00 00 00                 35 bytes of stats_entry
#   0a 21                       field 1 (dump), 33 bytes of dump_stats_entry
#   08 80 05                    1 freezing_time          0x00 | 0x05 << 7             =    640 us
#   10 e8 bd 07                 2 frozen_time            0x68 | 0x3d << 7 | 0x07 << 14 = 122600 us
#   18 ba 0a                    3 memdump_time           0x3a | 0x0a << 7             =   1338 us
#   20 85 02                    4 memwrite_time          0x05 | 0x02 << 7             =    261 us
#   28 4c  30 00  38 34         5 pages_scanned 76, 6 pages_skipped_parent 0, 7 pages_written 52
#   40 00  48 00  50 0c  58 0c  60 00  68 00  70 00      fields that are not told
SAMPLE = base64.b64decode("QFkQVQYzCVcjAAAACiEIgAUQ6L0HGLoKIIUCKEwwADg0QABIAFAMWAxgAGgAcAA=")
TOLD = {
    "freezing_seconds": 0.00064,
    "frozen_seconds": 0.1226,
    "memory_seconds": 0.001338,
    "write_seconds": 0.000261,
    "pages_scanned": 76,
    "pages_written": 52,
}
MAGIC = SAMPLE[:8]


def _file(entry: bytes) -> bytes:
    return MAGIC + struct.pack("<I", len(entry)) + entry


def test_the_file_of_a_real_dump() -> None:
    assert dump_statistics(SAMPLE) == pytest.approx(TOLD, abs=1e-12)


def test_what_stands_behind_the_message_does_not_count() -> None:
    assert dump_statistics(SAMPLE + b"\xff" * 40) == dump_statistics(SAMPLE)


@pytest.mark.parametrize("length", range(len(SAMPLE)))
def test_a_file_that_is_cut_off_tells_nothing(length: int) -> None:
    assert dump_statistics(SAMPLE[:length]) == {}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 100,
        b"\xff" * 100,
        b"(00.000001) Error (criu/x.c:1): no statistics\n" * 10,
        # The other order, and a file of another kind.
        SAMPLE[4:8] + SAMPLE[:4] + SAMPLE[8:],
        SAMPLE[:4] + b"\x16\x49\x31\x58" + SAMPLE[8:],
        _file(b""),
        # Statistics of a restore: field 2.
        _file(b"\x12\x04\x08\x01\x10\x02"),
        # Field 1 as a number.
        _file(b"\x08\x05"),
        # Wire types that stats.proto has none of: 64 and 32 bits, groups, 6 and 7.
        *(_file(bytes([1 << 3 | kind]) + b"\0" * 20) for kind in (1, 3, 4, 5, 6, 7)),
        *(_file(b"\x0a\x15" + bytes([1 << 3 | kind]) + b"\0" * 20) for kind in (1, 3, 4, 5, 6, 7)),
        # Lengths beyond the end, inside and outside; a number without an end.
        _file(b"\x0a\x7f\x08\x01"),
        MAGIC + b"\xff\xff\xff\xff" + SAMPLE[12:],
        _file(b"\x0a\x03\x08\xff\xff"),
    ],
)
def test_garbage_tells_nothing(content: bytes) -> None:
    assert dump_statistics(content) == {}


def test_no_noise_in_the_message_is_an_error() -> None:
    for _attempt in range(500):
        reported = dump_statistics(_file(os.urandom(33)))
        assert set(reported) <= set(TOLD)
        reported = dump_statistics(_file(b"\x0a\x21" + os.urandom(33)))
        assert set(reported) <= set(TOLD)


def test_a_field_of_another_kind_or_that_is_missing_is_left_out() -> None:
    # pages_written 300, frozen_time as a string, a field of a later CRIU with a number beyond one byte.
    entry = b"\x38\xac\x02" + b"\x12\x02hi" + b"\xa0\x06\x01"
    assert dump_statistics(_file(b"\x0a" + bytes([len(entry)]) + entry)) == {"pages_written": 300}
