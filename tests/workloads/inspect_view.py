# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A container's specification without its secrets. Each field's row in the table says what may be told of its value."""

from __future__ import annotations

import hashlib
import typing as t

from ansible_collections.livemigrate.criu.plugins.module_utils._docker.spec.fields import (
    ARGV,
    COUNT,
    ENDPOINTS,
    HEALTH,
    HIDE,
    LOG,
    MOUNTS,
    NAMES,
    SECURITY,
    Field,
    fields_by_path,
    is_empty,
)
from ansible_collections.livemigrate.criu.plugins.module_utils._docker.spec.networks import SHORT_ID

JSON = dict[str, t.Any]

HIDDEN = "(not shown)"


def _names(value: t.Any) -> t.Any:
    """Names of a mapping, or of NAME=VALUE entries."""
    if isinstance(value, dict):
        return sorted(str(name) for name in value)
    if isinstance(value, list):
        return sorted(str(entry).split("=", 1)[0] for entry in value)
    return HIDDEN


def _argv(value: t.Any) -> t.Any:
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list):
        return HIDDEN
    if not value:
        return value
    # A whole command line may be one word: what follows its first blank is as good as an argument.
    program, blank, _rest = str(value[0]).partition(" ")
    hidden = len(value) - 1
    more = "%d argument(s)" % hidden if hidden else ("its arguments" if blank else "")
    return "%s (and %s, not shown)" % (program, more) if more else program


def _count(value: t.Any) -> t.Any:
    return "%d argument(s), not shown" % len(value) if isinstance(value, list) else HIDDEN


def _health(value: t.Any) -> t.Any:
    if not isinstance(value, dict):
        return HIDDEN
    test = value.get("Test")
    # The first word is CMD, CMD-SHELL or NONE; what follows CMD-SHELL is a whole command line.
    shown = test[:1] if isinstance(test, list) else test
    return dict(value, Test=shown)


def _log(value: t.Any) -> t.Any:
    return (
        {"Type": value.get("Type"), "Config": _names(value.get("Config") or {})} if isinstance(value, dict) else HIDDEN
    )


def _security(value: t.Any) -> t.Any:
    return [_security_option(str(option)) for option in value] if isinstance(value, list) else HIDDEN


def _security_option(option: str) -> str:
    for separator in ("=", ":"):
        name, found, profile = option.partition(separator)
        if found and name == "seccomp" and profile.lstrip().startswith("{"):
            digest = hashlib.sha256(profile.encode("utf-8", "surrogatepass")).hexdigest()
            return "seccomp%s(profile of %d characters, sha256 %s)" % (separator, len(profile), digest[:SHORT_ID])
    return option


def _mount_requests(value: t.Any) -> t.Any:
    return [_mount_request(dict(entry)) for entry in value] if isinstance(value, list) else HIDDEN


def _mount_request(entry: JSON) -> JSON:
    options = entry.get("VolumeOptions")
    if isinstance(options, dict):
        shown = dict(options)
        if shown.get("Labels"):
            shown["Labels"] = _names(shown["Labels"])
        if isinstance(shown.get("DriverConfig"), dict):
            driver = shown["DriverConfig"]
            shown["DriverConfig"] = {"Name": driver.get("Name"), "Options": _names(driver.get("Options") or {})}
        entry["VolumeOptions"] = shown
    return entry


def _endpoint(value: t.Any) -> t.Any:
    """Endpoint settings by the table's rows."""
    table = fields_by_path()
    return {name: view(table.get("%s.%s" % (ENDPOINTS, name)), item) for name, item in (value or {}).items()}


_VIEWS: dict[str, t.Callable[[t.Any], t.Any]] = {
    NAMES: _names,
    ARGV: _argv,
    COUNT: _count,
    HEALTH: _health,
    LOG: _log,
    SECURITY: _security,
    MOUNTS: _mount_requests,
    HIDE: lambda value: value if is_empty(value) else HIDDEN,
}


def view(row: Field | None, value: t.Any) -> t.Any:
    """What may be told of a value. Of a field that the table does not know: nothing, it may be anything."""
    if row is None:
        return value if is_empty(value) else HIDDEN
    shown = _VIEWS.get(row.view)
    return value if shown is None or value is None else shown(value)
