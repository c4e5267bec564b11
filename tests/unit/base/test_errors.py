# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An error on its way through programs and hosts: what it is raised with is what a person reads at the end."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import UNEXPECTED, MigrationError


def test_an_error_arrives_as_it_was_raised() -> None:
    sent = json.dumps(
        MigrationError("image_missing", "No image.\n\tAsk for it.", image="web", sizes=[1, 2]).as_failure()
    )
    arrived = MigrationError.from_failure(json.loads(sent))
    assert (arrived.code, arrived.message) == ("image_missing", "No image.\n\tAsk for it.")
    assert arrived.details == {"image": "web", "sizes": [1, 2]}
    assert str(arrived) == arrived.message


@pytest.mark.parametrize(
    "failure",
    [
        None,
        "refused",
        [],
        {},
        {"code": "image_missing"},
        {"message": "No image."},
        {"code": "Image missing", "message": "No image."},
        {"code": "a" * 62, "message": "No image."},
        {"code": "image_missing\n", "message": "No image."},
        {"code": "image_missing", "message": 7},
    ],
)
def test_what_is_no_failure_is_reported_as_such(failure: Any) -> None:
    arrived = MigrationError.from_failure(failure)
    assert arrived.code == "channel_failed"
    assert "cannot be understood" in arrived.message


def test_details_that_are_none_are_left_out() -> None:
    arrived = MigrationError.from_failure({"code": "image_missing", "message": "No image.", "details": ["x"]})
    assert (arrived.code, arrived.details) == ("image_missing", {})


def test_our_own_error_stays_and_another_one_gets_the_code() -> None:
    own = MigrationError("image_missing", "No image.")
    assert MigrationError.of(own, "other") is own
    made = MigrationError.of(OSError(2, "gone"), "other")
    assert (made.code, made.message) == ("other", "FileNotFoundError: [Errno 2] gone")


def test_a_defect_comes_with_its_traceback() -> None:
    def fails() -> None:
        raise ZeroDivisionError("by nothing")

    with pytest.raises(ZeroDivisionError) as caught:
        fails()
    made = MigrationError.unexpected(caught.value)
    assert made.code == UNEXPECTED
    assert "ZeroDivisionError: by nothing" in made.message
    assert "in fails" in made.details["traceback"]
