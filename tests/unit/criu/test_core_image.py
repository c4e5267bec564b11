# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The registers of a task in CRIU's images: which calls are made again after a restore, with what, and nothing else changes."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._criu import core_image
from ansible_collections.livemigrate.criu.plugins.module_utils._criu.core_image import build, parse

EINTR = (1 << 64) - 4
IP, STACK, OTHER = 0x7F0000001234, 0x7FFC00001000, 0x7FFC00002000
# In the order of user_x86_regs_entry, from 1 on.
NAMES = (
    *("r15", "r14", "r13", "r12", "bp", "bx", "r11", "r10", "r9", "r8", "ax", "cx", "dx", "si", "di", "orig_ax", "ip"),
    *("cs", "flags", "sp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs", "mode"),
)
NUMBERS = {name: number for number, name in enumerate(NAMES, 1)}


def _registers(**changes: int) -> dict[int, int]:
    reported = {**dict.fromkeys(NAMES, 0), "ax": EINTR, "ip": IP, "mode": 1, "flags": 0x246, **changes}
    return {NUMBERS[name]: value for name, value in reported.items()}


SIGUSR1, SIGSTOP, SIGUSR2, SIGCHLD = 10, 19, 12, 17
HANDLER = 0x401000


def _queue(*signals: int) -> bytes:
    """Signals on their way, as CRIU keeps them: a siginfo_t of each."""
    return build([(1, 2, build([(1, 2, struct.pack("<iii", signal, 0, -6) + bytes(116))])) for signal in signals])


def _core(
    *,
    shared: tuple[int, ...] = (),
    own: tuple[int, ...] = (),
    blocked: int | None = None,
    handled: dict[int, int] | None = None,
    first: bool = True,
) -> list[tuple[int, int, int | bytes]]:
    """What is noted of a task and of its thread; of one that is not the first there is no task."""
    mask = sum(1 << (signal - 1) for signal in ([] if blocked is None else [blocked]))
    actions = [
        build([(1, 0, (handled or {}).get(signal, 0)), (2, 0, 0), (3, 0, 0), (4, 0, 0)])
        for signal in range(1, 65)
        if signal not in (9, SIGSTOP)
    ]
    task = build(
        [
            *((number, 0, value) for number, value in ((1, 1), (2, 0), (3, 0), (4, 0), (5, mask))),
            *((6, 2, b"sleep"), (10, 2, _queue(*shared))),
            *((15, 2, action) for action in actions),
        ]
    )
    thread = build([(1, 0, 0), (2, 0, 0), (3, 0, 0), *([] if first else [(6, 0, mask)]), (9, 2, _queue(*own))])
    return [*([(3, 2, task)] if first else []), (5, 2, thread)]


def _image(
    registers: dict[int, int], machine: int = 1, core: list[tuple[int, int, int | bytes]] | None = None
) -> bytes:
    """A file as CRIU writes it: registers amid what is none of our business."""
    general = build((number, 0, value) for number, value in registers.items())
    floating = build([(5, 0, IP), (13, 2, build([(1, 0, 7), (6, 1, b"12345678")]))])
    thread = build([(1, 0, 0x7F0000009000), (2, 2, general), (3, 2, floating)])
    entry = build([(1, 0, machine), (2, 2, thread), *(core or _core()), (4, 2, b"ids"), (20, 5, b"1234")])
    return struct.pack("<III", 0x54564319, 0x55053847, len(entry)) + entry


def _changed(image: bytes) -> dict[str, int]:
    """The registers that an image has now."""
    thread = {number: value for number, _kind, value in parse(image[12:])}[2]
    assert isinstance(thread, bytes)
    general = {number: value for number, _kind, value in parse(thread)}[2]
    assert isinstance(general, bytes)
    return {NAMES[number - 1]: int(value) for number, _kind, value in parse(general) if isinstance(value, int)}


@pytest.mark.parametrize(
    ("registers", "again"),
    [
        # clock_nanosleep(clock, 0, what is asked for, where the rest is told)
        (_registers(orig_ax=230, di=1, dx=STACK, r10=STACK), {"ax": 230, "dx": STACK}),
        (_registers(orig_ax=230, di=0, dx=STACK, r10=OTHER), {"ax": 230, "dx": OTHER}),
        (_registers(orig_ax=230, di=0, dx=STACK), {"ax": 230, "dx": STACK}),
        # nanosleep(what is asked for, where the rest is told)
        (_registers(orig_ax=35, di=STACK, si=OTHER), {"ax": 35, "di": OTHER}),
        (_registers(orig_ax=35, di=STACK), {"ax": 35, "di": STACK}),
        # The kernel had begun them again before.
        (_registers(orig_ax=219, di=1, dx=STACK, r10=OTHER), {"ax": 230, "dx": OTHER}),
        (_registers(orig_ax=219, di=STACK, si=OTHER), {"ax": 35, "di": OTHER}),
        # poll(descriptors, how many, milliseconds): for ever, and without any.
        (_registers(orig_ax=7, di=STACK, si=3, dx=0xFFFFFFFF), {"ax": 7}),
        (_registers(orig_ax=7, di=STACK, si=3, dx=(1 << 64) - 1), {"ax": 7}),
        (_registers(orig_ax=7, dx=5000), {"ax": 7}),
    ],
)
def test_an_interrupted_call_is_made_again(registers: dict[int, int], again: dict[str, int]) -> None:
    image = _image(registers)
    reported = core_image.with_sleep_made_again(image)
    assert reported is not None
    before = {NAMES[number - 1]: value for number, value in registers.items()}
    assert _changed(reported) == {**before, **again, "ip": IP - 2}
    # The same file but for that.
    restored = _changed(reported)
    assert _image({NUMBERS[name]: value for name, value in restored.items()}) == reported


@pytest.mark.parametrize(
    "registers",
    [
        # Until a moment: CRIU has it made again by itself.
        _registers(orig_ax=230, di=1, si=1, dx=STACK),
        # It waits for descriptors for a time: who does that is used to being interrupted, and knows how long to wait still.
        _registers(orig_ax=7, di=STACK, si=3, dx=5000),
        _registers(orig_ax=219, di=STACK, si=3, dx=5000),
        # futex(2), read(2).
        _registers(orig_ax=202, di=STACK, si=128),
        _registers(orig_ax=219, di=STACK, si=128),
        _registers(orig_ax=0, di=3, si=STACK, dx=100),
        # It was not interrupted.
        _registers(orig_ax=230, ax=0, di=1, dx=STACK),
        _registers(orig_ax=(1 << 64) - 1, di=1, dx=STACK),
        # A 32-bit program numbers its calls in another way.
        _registers(orig_ax=35, di=STACK, mode=2),
    ],
)
def test_other_calls_are_left_alone(registers: dict[int, int]) -> None:
    assert core_image.with_sleep_made_again(_image(registers)) is None


@pytest.mark.parametrize(
    ("core", "again"),
    [
        (_core(shared=(SIGUSR1,), handled={SIGUSR1: HANDLER}), False),
        (_core(own=(SIGUSR1,), handled={SIGUSR1: HANDLER}), False),
        (_core(own=(SIGCHLD, 64), handled={64: HANDLER}), False),
        # The process' actions are told with its first thread.
        (_core(own=(SIGUSR1,), first=False), False),
        # It is not delivered, or does not end the call.
        (_core(shared=(SIGUSR1,), handled={SIGUSR1: HANDLER}, blocked=SIGUSR1), True),
        (_core(own=(SIGUSR1,), blocked=SIGUSR1, first=False), True),
        (_core(shared=(SIGCHLD,), handled={SIGUSR1: HANDLER}), True),
        (_core(shared=(SIGUSR1,), handled={SIGUSR1: 1, SIGUSR2: HANDLER, 11: HANDLER}), True),
        (_core(own=(SIGSTOP,), handled={18: HANDLER, 20: HANDLER}), True),
        (_core(handled={SIGUSR1: HANDLER}), True),
        (_core(first=False), True),
    ],
)
def test_a_signal_that_is_handled_ends_a_sleep_as_it_would_have(
    core: list[tuple[int, int, int | bytes]], again: bool
) -> None:
    reported = core_image.with_sleep_made_again(_image(_registers(orig_ax=35, di=STACK, si=OTHER), core=core))
    assert (reported is not None) == again


def test_what_is_not_as_expected_is_left_as_it_is(tmp_path: Path) -> None:
    good = _image(_registers(orig_ax=35, di=STACK, si=OTHER))
    strange = {
        "core-2.img": good[:-1],
        "core-3.img": good + b"x",
        "core-4.img": b"",
        "core-5.img": good[:4] + b"\0" + good[5:],
        # Another machine's registers.
        "core-6.img": _image(_registers(orig_ax=35, di=STACK, si=OTHER), machine=3),
        "core-7.img": good[:12] + b"\x07" + good[13:],
        # Other images.
        "core-8.img.old": good,
        "fs-1.img": good,
    }
    for name, content in {**strange, "core-1.img": good}.items():
        (tmp_path / name).write_bytes(content)
    assert core_image.let_sleeps_go_on(str(tmp_path)) == 1
    assert (tmp_path / "core-1.img").read_bytes() != good
    assert {name: (tmp_path / name).read_bytes() for name in strange} == strange


def test_messages_of_every_kind_of_field_come_out_as_they_went_in() -> None:
    fields: list[core_image._Field] = [
        (1, 0, 0),
        (2, 0, (1 << 64) - 1),
        (3, 2, b""),
        (300, 2, b"x" * 300),
        (4, 1, b"12345678"),
        (5, 5, b"1234"),
    ]
    assert parse(build(fields)) == fields
    for broken in (b"\x08", b"\x12\x05abc", b"\x0b", b"\x80"):
        with pytest.raises(ValueError, match=r"cut off|no protobuf"):
            parse(broken)
