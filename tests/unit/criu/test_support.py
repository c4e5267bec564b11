# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rules of docs/support.md, both sides of every line they draw."""

from __future__ import annotations

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base.versions import at_least, parse_version
from ansible_collections.livemigrate.criu.plugins.module_utils._criu.support import criu_verdict, engine_verdict

GOOD = "Looks good."


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("4.2.1", (4, 2, 1)),
        ("26.1.5+dfsg1", (26, 1, 5)),
        ("1.7.24~ds1", (1, 7, 24)),
        ("v2.1.9-k3s1", (2, 1, 9)),
        ("6.12.48+deb13-cloud-amd64", (6, 12, 48)),
        ("unknown", ()),
        ("", ()),
        (None, ()),
    ],
)
def test_parse_version(text: str | None, version: tuple[int, ...]) -> None:
    assert parse_version(text) == version


@pytest.mark.parametrize(
    ("version", "wanted", "answer"),
    [
        ((4, 2), (4, 2, 0), True),
        ((4, 2, 0), (4, 2), True),
        ((4, 10), (4, 9), True),
        ((4, 1, 1), (4, 2), False),
        ((), (1,), False),
    ],
)
def test_at_least(version: tuple[int, ...], wanted: tuple[int, ...], answer: bool) -> None:
    assert at_least(version, wanted) is answer


@pytest.mark.parametrize(
    ("version", "kernel", "machine"),
    [
        ("4.2.1", "6.18.44", "x86_64"),
        ("4.2", "6.16.0", "x86_64"),
        ("4.1.1", "6.15.9", "x86_64"),
        ("4.1.1", "6.12.48+deb13-amd64", "x86_64"),
        ("3.17.1", "6.12.48", "aarch64"),
        ("3.17", "4.12.0", "x86_64"),
    ],
)
def test_a_criu_that_works(version: str, kernel: str, machine: str) -> None:
    assert criu_verdict(version, None, True, GOOD, kernel, machine).reasons == []


@pytest.mark.parametrize(
    ("version", "kernel", "machine", "reported"),
    [
        (None, "6.12.0", "x86_64", "not installed"),
        ("3.16.1", "6.1.0", "x86_64", "3.17 is the oldest"),
        ("4.0", "6.13.0", "x86_64", "vDSO"),
        # The pair on which `criu check` looks good and every dump of a TCP socket fails.
        ("4.1.1", "6.16.0", "x86_64", "need CRIU 4.2"),
        ("4.1.1", "6.18.44", "aarch64", "need CRIU 4.2"),
        # The article's CentOS 7.
        ("3.17", "3.10.0-1160.el7.x86_64", "x86_64", "TCP sockets"),
    ],
)
def test_a_criu_that_does_not(version: str | None, kernel: str, machine: str, reported: str) -> None:
    reasons = criu_verdict(version, None, True, GOOD, kernel, machine).reasons
    assert len(reasons) == 1
    assert reported in reasons[0]


def test_all_reasons_are_reported_at_once() -> None:
    assert len(criu_verdict("3.16", None, False, "Error (x): bad", "3.10.0", "x86_64").reasons) == 3


@pytest.mark.parametrize(
    ("output", "reported"),
    [
        (
            "Warn (a): one\nError (criu/cr-check.c:1): no such syscall\nLooks bad.",
            "criu/cr-check.c:1): no such syscall",
        ),
        ("something\nelse", "else"),
        ("", "no output"),
    ],
)
def test_a_check_that_fails_says_why(output: str, reported: str) -> None:
    (reason,) = criu_verdict("4.2", None, False, output, "6.12.0", "x86_64").reasons
    assert reason.endswith(reported)


def test_a_check_that_could_not_be_run_is_no_verdict() -> None:
    (reason,) = criu_verdict("4.2", None, None, "did not finish", "6.12.0", "x86_64").reasons
    assert "could not be run: did not finish" in reason


@pytest.mark.parametrize(
    ("version", "revision", "remarked"),
    [
        ("4.1", "4.1-1", True),
        ("3.17.1", None, True),
        ("3.17.1", "3.17.1-2+deb12u1", True),
        ("3.17.1", "3.17.1-2+deb12u2", False),
        ("3.17.1", "3.17.1-2+deb12u10", False),
        ("4.1.1", "4.1.1-1", False),
    ],
)
def test_the_mount_fix_is_known_by_version_or_by_debian_12s_revision(
    version: str, revision: str | None, remarked: bool
) -> None:
    remarks = criu_verdict(version, revision, True, GOOD, "6.1.0", "x86_64").remarks
    assert any("mount namespaces" in remark for remark in remarks) is remarked


def test_a_kernel_newer_than_every_criu_is_remarked() -> None:
    assert criu_verdict("4.2.1", None, True, GOOD, "7.1.0", "x86_64").remarks != []
    assert criu_verdict("4.2.1", None, True, GOOD, "7.0.9", "x86_64").remarks == []


@pytest.mark.parametrize(
    ("engine", "containerd", "restores"),
    [
        (None, None, "unknown"),
        ("17.03.2-ce", None, "none"),
        ("18.09.9", "1.2.13", "none"),
        ("19.03.15", "1.2.13", "all"),
        ("19.03.15", "1.3.0", "none"),
        ("20.10.5+dfsg1", "1.4.13~ds1", "none"),
        ("20.10.24+dfsg1", "1.6.20~ds1", "all"),
        ("24.0.9", "1.7.1", "all"),
        ("25.0.0", "1.7.12", "none"),
        ("25.0.3", "1.7.13", "none"),
        ("25.0.4", "1.7.14", "all"),
        ("26.0.0", "1.7.14", "host_network"),
        ("26.0.1", "1.7.15", "all"),
        ("26.1.5+dfsg1", "1.7.24~ds1", "all"),
        ("27.5.1", "1.7.25", "all"),
        ("28.0.0", "1.7.25", "host_network"),
        ("28.5.2+dfsg4", "2.1.9+unknown", "host_network"),
        ("29.7.2", "2.2.0", "host_network"),
        ("26.1.5", None, "all"),
    ],
)
def test_which_engine_restores(engine: str | None, containerd: str | None, restores: str) -> None:
    verdict = engine_verdict(engine, containerd)
    assert verdict.restores == restores
    assert (verdict.reason == "") is (restores == "all")
