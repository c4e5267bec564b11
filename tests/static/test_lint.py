# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Linters and type checker, each as one test."""

from __future__ import annotations

import re
from pathlib import Path

from tests.conftest import ROOT, RunTool

SHELLS = (b"#!/bin/sh", b"#!/bin/bash", b"#!/bin/dash", b"#!/usr/bin/env bash", b"#!/usr/bin/env sh")


def test_ruff_check(run_tool: RunTool) -> None:
    run_tool(["ruff", "check", "."], name="ruff-check")


def test_ruff_format(run_tool: RunTool) -> None:
    run_tool(["ruff", "format", "--check", "."], name="ruff-format")


def test_mypy(run_tool: RunTool) -> None:
    output = run_tool(["mypy"], name="mypy")
    assert "Success: no issues found" in output


def test_yamllint(run_tool: RunTool) -> None:
    run_tool(["yamllint", "--strict", "."], name="yamllint")


def test_ansible_lint(run_tool: RunTool) -> None:
    output = run_tool(["ansible-lint", "--offline", "--nocolor"], name="ansible-lint")
    # It says it in one of two ways, with the number of files or without.
    assert re.search(r"'production' profile|Profile 'production' was required, and it passed", output)


def test_shellcheck(run_tool: RunTool, repository_files: list[Path]) -> None:
    scripts = [path for path in repository_files if is_shell(ROOT / path)]
    assert Path(".ci/run") in scripts
    run_tool(["shellcheck", "--external-sources", *scripts], name="shellcheck")


def is_shell(path: Path) -> bool:
    """Whether a file is a shell program, by its name or its first line. Templates are not: they are no shell yet."""
    if path.suffix == ".j2":
        return False
    with path.open("rb") as file:
        first = file.readline().strip()
    return path.suffix in (".sh", ".bash") or first.startswith(SHELLS)
