# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.
"""Sleeps that go on after a restore: the one thing that is changed in CRIU's images.

A task that sleeps in nanosleep(2) or clock_nanosleep(2), or waits in poll(2) for ever, is interrupted when it is frozen. The
kernel would go on with its wait from a note of its own (ERESTART_RESTARTBLOCK), which CRIU cannot read; so it writes into the
image of the task's registers (core-N.img) that the call has ended with EINTR, and programs like busybox's sleep end by that.

What the kernel does with every other call is done here: the call is made again. Where the program has given a place for the
time that is left, the kernel has written that there when it interrupted the sleep, and the call is made again with it: not a
second is lost or added. Without such a place it sleeps its whole time again. Where a signal is on its way that the program
handles, the call would have ended by that without a move too, and is left to end. Only the registers of such tasks change, of
64-bit programs on x86_64; an image that is not exactly as expected is left as it is. (CRIU, images/core.proto and
compel/arch/x86/src/lib/infect.c.)
"""

from __future__ import annotations

import os
import re
import struct
import typing as t

_NAME = re.compile(r"core-\d+\.img")
# The head of such a file: kind, and the one entry's size.
_HEAD = struct.Struct("<III")
_MAGIC = (0x54564319, 0x55053847)
_X86_64 = 1
_NATIVE = 1
# Fields of core_entry, thread_info_x86 and user_x86_regs_entry.
_MTYPE, _THREAD_INFO, _GPREGS = 1, 2, 2
# Of core_entry, task_core_entry, thread_core_entry, signal_queue_entry, siginfo_entry and sa_entry; the task's is there of the
# first thread only.
_TASK, _THREAD = 3, 5
_BLOCKED, _SHARED_SIGNALS, _ACTIONS = 5, 10, 15
_BLOCKED_BY_THREAD, _OWN_SIGNALS = 6, 9
_SIGNALS, _SIGINFO, _ACTION = 1, 1, 1
# SIG_DFL and SIG_IGN; and the signals that nobody can handle, which are left out of the actions.
_NO_HANDLERS = (0, 1)
_UNHANDLED = (9, 19)
_R10, _AX, _DX, _SI, _DI, _ORIG_AX, _IP, _MODE = 8, 11, 13, 14, 15, 16, 17, 28
_WORD = (1 << 64) - 1
_EINTR = _WORD - 3
# A system call's instruction has two bytes.
_INSTRUCTION = 2
# System calls of x86_64.
_POLL, _NANOSLEEP, _RESTART, _CLOCK_NANOSLEEP = 7, 35, 219, 230
# Clocks are small numbers, and what lies in a 64-bit program's memory has large addresses.
_CLOCKS = 16
_ADDRESS = 1 << 32
_FOR_EVER = range(1 << 31, 1 << 32)

# How an interrupted call looks in the file: most tasks can be left alone without a closer look.
_INTERRUPTED = b"\x58\xfc" + b"\xff" * 8 + b"\x01"

# A field of a protobuf message: number, wire type, and what it holds.
_Field = tuple[int, int, t.Union[int, bytes]]


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return value, place


def _as_varint(value: int) -> bytes:
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)


def parse(data: bytes) -> list[_Field]:
    """The fields of a protobuf message, in their order.

    :raises ValueError: for what is none.
    """
    fields: list[_Field] = []
    place = 0
    try:
        while place < len(data):
            key, place = _varint(data, place)
            number, kind = key >> 3, key & 7
            if kind == 0:
                value, place = _varint(data, place)
                fields.append((number, kind, value))
                continue
            if kind == 2:
                size, place = _varint(data, place)
            else:
                size = {1: 8, 5: 4}[kind]
            if place + size > len(data):
                raise ValueError("cut off")
            fields.append((number, kind, data[place : place + size]))
            place += size
    except (IndexError, KeyError):
        raise ValueError("no protobuf message") from None
    return fields


def build(fields: t.Iterable[_Field]) -> bytes:
    """The message of these fields."""
    made = bytearray()
    for number, kind, value in fields:
        made += _as_varint(number << 3 | kind)
        if isinstance(value, int):
            made += _as_varint(value)
        else:
            made += (_as_varint(len(value)) if kind == 2 else b"") + value
    return bytes(made)


def made_again(registers: t.Mapping[int, int]) -> dict[int, int]:
    """The registers that have to change for an interrupted sleep to be made again; none where there is no such sleep.

    :param registers: by their numbers in user_x86_regs_entry.
    """
    if registers[_AX] != _EINTR or registers.get(_MODE, _NATIVE) != _NATIVE:
        return {}
    call = registers[_ORIG_AX]
    first, second, third = registers[_DI], registers[_SI], registers[_DX]
    if call == _RESTART:
        call = _first_call(first, second, third)
    again = {_AX: call, _IP: registers[_IP] - _INSTRUCTION}
    if call == _CLOCK_NANOSLEEP and not second:
        return {**again, _DX: registers[_R10] or third}
    if call == _NANOSLEEP:
        return {**again, _DI: second or first}
    if call == _POLL and (third & 0xFFFFFFFF in _FOR_EVER or not second):
        return again
    return {}


def _first_call(first: int, second: int, third: int) -> int:
    """Which call it was that the kernel had begun again before, by its arguments; 0 where they do not tell."""
    if first < _CLOCKS and not second and third >= _ADDRESS:
        return _CLOCK_NANOSLEEP
    # poll(2) has a number there, futex(2) too.
    return _NANOSLEEP if first >= _ADDRESS and second >= _ADDRESS else 0


def _numbers(fields: t.Iterable[_Field], wanted: int) -> list[int]:
    return [value for number, _kind, value in fields if number == wanted and isinstance(value, int)]


def _messages(fields: t.Iterable[_Field], wanted: int) -> list[bytes]:
    return [value for number, _kind, value in fields if number == wanted and isinstance(value, bytes)]


def _signals(fields: t.Iterable[_Field], wanted: int) -> t.Iterator[int]:
    """The signals of a queue."""
    for queue in _messages(fields, wanted):
        for entry in _messages(parse(queue), _SIGNALS):
            for siginfo in _messages(parse(entry), _SIGINFO):
                # Of siginfo_t, si_signo comes first.
                yield int.from_bytes(siginfo[:4], "little")


def _will_be_handled(entry: t.Sequence[_Field]) -> bool:
    """Whether a signal is on its way to a task for which the program has a handler, or may have one."""
    task = [field for message in _messages(entry, _TASK) for field in parse(message)]
    thread = [field for message in _messages(entry, _THREAD) for field in parse(message)]
    blocked = [*_numbers(task, _BLOCKED), *_numbers(thread, _BLOCKED_BY_THREAD), 0][0]
    handlers = [number for action in _messages(task, _ACTIONS) for number in _numbers(parse(action), _ACTION)]
    catchable = [number for number in range(1, 65) if number not in _UNHANDLED]
    # What a thread's own image does not tell is in that of the first one.
    known = dict(zip(catchable, handlers)) if len(handlers) == len(catchable) else {}
    return any(
        number not in _UNHANDLED and not blocked >> (number - 1) & 1 and known.get(number) not in _NO_HANDLERS
        for number in (*_signals(task, _SHARED_SIGNALS), *_signals(thread, _OWN_SIGNALS))
        if number
    )


def with_sleep_made_again(image: bytes) -> bytes | None:
    """The image of a task whose interrupted sleep is made again; None where nothing is to be changed.

    :raises ValueError: for what is no such image.
    """
    if len(image) < _HEAD.size:
        raise ValueError("no image")
    kind, core, size = _HEAD.unpack_from(image)
    if (kind, core) != _MAGIC or len(image) != _HEAD.size + size:
        raise ValueError("no image of a task")
    entry = parse(image[_HEAD.size :])
    if not any(field == (_MTYPE, 0, _X86_64) for field in entry):
        return None
    if _will_be_handled(entry):
        return None
    changed = False

    def change(field: _Field) -> _Field:
        nonlocal changed
        number, wire, value = field
        if number != _THREAD_INFO or not isinstance(value, bytes):
            return field
        thread: list[_Field] = []
        for inner, inner_wire, content in parse(value):
            if inner == _GPREGS and isinstance(content, bytes):
                fields = parse(content)
                again = made_again({one: number for one, _wire, number in fields if isinstance(number, int)})
                changed = changed or bool(again)
                thread.append((inner, inner_wire, build((n, w, again.get(n, v)) for n, w, v in fields)))
            else:
                thread.append((inner, inner_wire, content))
        return number, wire, build(thread)

    changed_entry = build([change(field) for field in entry])
    return _HEAD.pack(kind, core, len(changed_entry)) + changed_entry if changed else None


def let_sleeps_go_on(directory: str) -> int:
    """Change the images of a checkpoint, of one that has been compared with what the source sent; returns how many.

    A file that is not as expected is CRIU's business.
    """
    count = 0
    for name in os.listdir(directory):
        if _NAME.fullmatch(name):
            path = os.path.join(directory, name)
            with open(path, "rb") as handle:
                image = handle.read()
            try:
                changed_image = with_sleep_made_again(image) if _INTERRUPTED in image else None
            except (KeyError, ValueError):
                continue
            if changed_image is not None:
                with open(path, "wb") as handle:
                    handle.write(changed_image)
                count += 1
    return count
