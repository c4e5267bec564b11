# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names that reach a path: what is let through, and above all what is not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base import valid_names
from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError

SESSION = "20261123T034500Z-3f9a1c"

GOOD_NAMES = ["mwp", "a1", "0a", "Web_1.example-2", "a" * 200, "a..b", "f" * 64]
# Each would be a path, an option, a second line or another name by the time it reaches the engine or a unit file.
BAD_NAMES = [
    "",
    "a",
    ".",
    "..",
    "../etc",
    "a/../b",
    "a/b",
    "/",
    "//mwp",
    "-rf",
    ".hidden",
    "_web",
    "web\n",
    "\nweb",
    "web\nexit",
    "web\0",
    "web ",
    " web",
    "we b",
    "web;id",
    "$(id)",
    "web*",
    "wéb",
    "web\u0661",
    "\uff57\uff45\uff42",
    "web\u2028x",
    "a" * 201,
]
GOOD_IDS = ["0123456789abcdef" * 4]
BAD_IDS = ["", "f" * 63, "f" * 65, "F" * 64, "g" * 64, "f" * 63 + "\n", "f" * 64 + "\n", "/" + "f" * 63, "\u0661" * 64]
GOOD_SESSIONS = [SESSION, "19700101T000000Z-000000"]
BAD_SESSIONS = [
    "",
    SESSION[:-1],
    SESSION + "0",
    SESSION + "\n",
    "/" + SESSION,
    SESSION.upper(),
    SESSION.replace("-", "/"),
    "../" + SESSION,
    SESSION.replace("2026", "\u0662026"),
    "20261123T034500Z-3f9a1g",
]

GOOD_ACCOUNTS = ["root", "ops", "r", "_apt", "4ops", "first.last", "svc-move_1", "a" * 64]
# By the time they reach ssh, sshd and sudo they would be an option, a second setting, a pattern or another host's name.
BAD_ACCOUNTS = [
    *(
        "",
        "-l",
        "-oProxyCommand=id",
        ".ops",
        "..",
        "ops,user=root",
        "ops@beta",
        "ops root",
        "ops\n",
        "\nops",
        "ops\0",
        "ops:x",
    ),
    *("ALL=(ALL)", "%wheel", "#0", "ops*", "../ops", "a" * 65, "ops\u0661", "DOMAIN\\ops"),
]
GOOD_ADDRESSES = [
    *(
        "beta",
        "b",
        "beta.example.com",
        "198.51.100.12",
        "2001:db8::1",
        "::1",
        "fe80::1%eth0",
        "fe80::1%br-0.5",
        "a_b",
        "10",
    ),
    "a" * 253,
]
BAD_ADDRESSES = [
    *(
        "",
        "-oProxyCommand=id",
        "-",
        ".beta",
        "root@beta",
        "beta:22",
        "[::1]",
        "beta example",
        "beta\n",
        "\nbeta",
        "beta/x",
    ),
    *(
        "fe80::1%",
        "fe80::1%-o",
        "fe80::1%a,user=root",
        "fe80::1%a%b",
        "::1/128",
        "be;ta",
        "b\u0661",
        "a" * 254,
        "beta\0",
    ),
]

CASES = [
    pytest.param(valid_names.account, GOOD_ACCOUNTS, BAD_ACCOUNTS, "invalid_name", id="account"),
    pytest.param(valid_names.address, GOOD_ADDRESSES, BAD_ADDRESSES, "invalid_name", id="address"),
    pytest.param(valid_names.container_name, GOOD_NAMES, BAD_NAMES, "invalid_name", id="container_name"),
    pytest.param(valid_names.checkpoint_name, GOOD_NAMES, [*BAD_NAMES, "/web"], "invalid_name", id="checkpoint_name"),
    pytest.param(valid_names.container_id, GOOD_IDS, BAD_IDS, "invalid_id", id="container_id"),
    pytest.param(valid_names.session_id, GOOD_SESSIONS, BAD_SESSIONS, "invalid_session", id="session_id"),
]

Check = Callable[[str], str]


@pytest.mark.parametrize(("check", "good", "bad", "code"), CASES)
def test_good_and_bad(check: Check, good: list[str], bad: list[str], code: str) -> None:
    for value in good:
        assert check(value) == value
    let_through = []
    for value in bad:
        try:
            check(value)
        except MigrationError as exc:
            # The message has to show what was given, made visible.
            reported = (exc.code, repr(value) in exc.message)
        else:
            reported = ("let through", True)
        if reported != (code, True):
            let_through.append((value, reported))
    assert let_through == []


def test_one_leading_slash_is_docker_s_own_way_of_writing_a_container_name() -> None:
    assert valid_names.container_name("/mwp") == "mwp"


def test_new_session_ids_are_valid_differ_and_sort_by_time() -> None:
    same_second = {valid_names.new_session_id(1_795_404_300.9) for _attempt in range(50)}
    assert len(same_second) == 50
    for made in same_second:
        assert valid_names.session_id(made).startswith("20261123T032500Z-")
    assert (
        valid_names.new_session_id(0)
        < valid_names.new_session_id(1_795_404_300)
        < valid_names.new_session_id(1_795_404_301)
    )
    assert valid_names.session_id(valid_names.new_session_id())


def test_the_name_of_an_old_copy_is_a_container_name_to_docker_and_fits_a_file_name() -> None:
    longest = valid_names.moved_name("a" * 200, SESSION)
    assert longest == "a" * 200 + "-moved-" + SESSION
    assert valid_names.NAME_PATTERN.fullmatch(longest)
    assert len(longest) <= 255


@pytest.mark.parametrize(("name", "session"), [("../web", SESSION), ("web", "../../etc")])
def test_the_name_of_an_old_copy_is_made_of_valid_parts_only(name: str, session: str) -> None:
    with pytest.raises(MigrationError):
        valid_names.moved_name(name, session)


def test_what_a_thing_of_a_kind_is_called() -> None:
    """A container by Docker's rule, and everything else so that it can be the name of a file."""
    assert valid_names.subject_name("container", "/web") == "web"
    assert valid_names.subject_id("container", "a" * 64) == "a" * 64
    assert valid_names.subject_id("process", "process.1") == valid_names.subject_name("process", "process.1")
    bad = ("", ".", "..", ".hidden", "a/b", "a\n", "-x", "x" * 201)
    for check, code in ((valid_names.subject_name, "invalid_name"), (valid_names.subject_id, "invalid_id")):
        for value in bad:
            with pytest.raises(MigrationError) as caught:
                check("process", value)
            assert caught.value.code == code
    with pytest.raises(MigrationError):
        valid_names.subject_id("container", "a" * 12)
