# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The one exception that every util raises for something a person has to know."""

from __future__ import annotations

import re
import traceback
import typing as t

from . import printable

# A message has line breaks where the output of a program is quoted. No other invisible character gets into it.
_KEPT = "\n\t"
_CODE = re.compile(r"[a-z][a-z0-9_]{0,60}")


#: the code of a defect of ours
UNEXPECTED = "unexpected"


class MigrationError(Exception):
    """Something that cannot be done, described for people and for programs.

    What containers and programs have put into its texts is made visible here, whoever shows them later (see
    ``_base/printable.py``).

    :param code: short stable name in snake_case, e.g. ``container_not_found``; programs branch on it.
    :param message: a full sentence that names the cause and, where there is one, the remedy.
    :param details: facts for the report, plain data, never a secret (no environment, no key, no spec).
    """

    def __init__(self, code: str, message: str, /, **details: t.Any) -> None:
        self.code = code
        self.message = printable.text(message, _KEPT)
        self.details: dict[str, t.Any] = printable.data(details, _KEPT)
        super().__init__(self.message)

    @classmethod
    def of(cls, exc: BaseException, code: str) -> MigrationError:
        """An error as it is, or any other exception as one of that code."""
        return exc if isinstance(exc, cls) else cls(code, f"{type(exc).__name__}: {exc}")

    @classmethod
    def unexpected(cls, exc: BaseException) -> MigrationError:
        """A defect of ours, while it is handled: with its traceback among the details."""
        return cls(
            UNEXPECTED,
            f"Unexpected error, please report it: {type(exc).__name__}: {exc}",
            traceback="".join(traceback.format_exception(type(exc), exc, exc.__traceback__)),
        )

    @classmethod
    def from_failure(cls, failure: t.Any) -> MigrationError:
        """The error that another process, perhaps of the other host, has sent with :meth:`as_failure`. It may be anything."""
        fields = failure if isinstance(failure, dict) else {}
        code, message, details = fields.get("code"), fields.get("message"), fields.get("details")
        if not isinstance(code, str) or not _CODE.fullmatch(code) or not isinstance(message, str):
            return cls("channel_failed", f"A failure was told that cannot be understood: {str(failure)[:200]}")
        return cls(code, message, **(details if isinstance(details, dict) else {}))

    def as_failure(self) -> dict[str, t.Any]:
        """The form in which modules and the agent return it."""
        return {"code": self.code, "message": self.message, "details": self.details}
