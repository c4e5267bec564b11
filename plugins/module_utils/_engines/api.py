# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The engine ``api``: checkpoints through the Docker Engine's own calls.

Its daemon has to run with experimental features, and only some versions can restore (``criu_support.api_restore``). The copy
runs from the moment of its restore.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
import typing as t
from concurrent.futures import ThreadPoolExecutor

from .._base import durable
from .._base.errors import MigrationError
from .._channel import durable_content
from .._criu import images as criu_images
from .._criu import log as criu_log
from .._docker import directories, runc
from .._docker.engine import Engine, memory_timeout
from .._host import fingerprints as process_fingerprints
from .._host.flush import write_out
from .._host.tasks import TaskGroup
from .._network import fence as network_fence
from .._session import reservations
from .._session.phases import RUN
from .._session.session import Session
from .._surroundings import surroundings
from .._surroundings.side import Side
from . import bound_files

Inspect = t.Mapping[str, t.Any]

# The manifest of the checkpoint on the disk, and its name when nothing is to be restored from that any more.
_MANIFEST, _GIVEN_UP = "manifest.json", "manifest-given-up.json"

# -- on the source ------------------------------------------------------------------------------------------------


def images(session: Session) -> str:
    """Where the checkpoint of the source lies: where its engine writes it."""
    return directories.checkpoint_directory(session.facts["data_root"], session.facts["container_id"], session.id)


def reserve_space(session: Session, size: int) -> None:
    """Check that a dump fits, before anything is frozen.

    :raises MigrationError: ``no_space``.
    """
    _reserve_space(session, 3 * size, "the engine writes a checkpoint three times, which may take {needed} MiB here")


def keeps_connections() -> bool:
    """Where the options of the whole host say so: with this engine there are no others."""
    return bool(re.search(r"^\s*tcp-established\b", runc.host_options(), re.MULTILINE))


def dump(session: Session, engine: Engine, group: TaskGroup) -> dict[str, t.Any]:
    """Dump the frozen container; returns nothing more to tell.

    :raises MigrationError: ``dump_failed`` with CRIU's own errors.
    """
    with criu_log.explain_errors("dump_failed"):
        engine.checkpoint(
            session.facts["container_id"],
            session.id,
            leave_running=True,
            timeout=memory_timeout(session.data("arming")["bytes"]),
        )
    return {}


def seal(session: Session, content: t.Sequence[str]) -> int:
    """Write checkpoint and files out and make the manifest; returns the size of the checkpoint in bytes.

    A reboot of this host must find them whole and of one moment (see :func:`bring_back`).
    """
    directory = images(session)
    paths = [directory, *content]
    with ThreadPoolExecutor(max_workers=1) as pool:
        written = pool.submit(write_out, paths)
        manifest = criu_images.manifest(directory)
        durable.write_json(os.path.join(session.memory_path("outbox"), "manifest.json"), manifest)
        # Names, sizes and hashes only: what a start from this checkpoint after a reboot is checked against.
        durable.write_json(session.path(_MANIFEST), manifest)
        written.result()
    return criu_images.total_bytes(manifest)


def await_dump(session: Session, seconds: float) -> None:
    """Nothing to wait for: the engine answers an unpause when it is done."""


def give_up_checkpoint(session: Session) -> None:
    """Give the manifest, without which :func:`bring_back` does nothing, another name. Only :func:`forget` looks for that."""
    try:
        with contextlib.suppress(FileNotFoundError):
            os.rename(session.path(_MANIFEST), session.path(_GIVEN_UP))
        # In any case: whoever was cut off here before may have got as far as that.
        durable.sync_directory(session.directory)
    except OSError:
        # The images lie on the disk of the container's files: where that takes no change either, the files do not change.
        delete_images(session, session.facts["container_id"])
        with contextlib.suppress(OSError):
            durable.sync_directory(os.path.dirname(images(session)))


def delete_images(session: Session, container: str) -> None:
    """Delete them behind the engine's back."""
    shutil.rmtree(
        directories.checkpoint_directory(session.facts["data_root"], container, session.id), ignore_errors=True
    )


def bring_back(session: Session, engine: Engine) -> bool:
    """Start a container that ended while it was frozen from its own checkpoint, where that is whole.

    Only one that was on the disk together with all files counts; memory beside older or newer files corrupts. So it is used
    once: what is cut off here is started as Docker would do it.

    :returns: whether it did.
    """
    if not session.reached("dumped"):
        return False
    with contextlib.suppress(MigrationError, OSError):
        manifest = durable.read_json(session.path(_MANIFEST)) or {}
        criu_images.verify(images(session), manifest)
        give_up_checkpoint(session)
        try:
            engine.start(
                session.facts["container_id"],
                session.id,
                timeout=memory_timeout(criu_images.total_bytes(manifest)),
            )
        finally:
            criu_images.remove_leftovers(manifest)
        return True
    return False


def forget(session: Session, engine: Engine) -> None:
    """Delete the checkpoint, if need be behind the engine's back (experimental features may be off by now)."""
    reservations.release(session)
    container = session.facts["container_id"]
    with contextlib.suppress(MigrationError):
        engine.remove_checkpoint(container, session.id)
    delete_images(session, container)
    # Of a start from the checkpoint that was cut off.
    criu_images.remove_leftovers(durable.read_json(session.path(_GIVEN_UP)) or {})


# -- on the destination -------------------------------------------------------------------------------------------


def runtime_of(source: Inspect, engine: Engine) -> str:
    """Which runtime the copy is created with: the source's, except the shim where this host has none."""
    runtime = str(source["HostConfig"].get("Runtime") or "")
    return runtime if runtime in (engine.info().get("Runtimes") or {}) else ""


def receive(session: Session, container: str) -> str:
    """Make the place to which the source sends the checkpoint, and return it."""
    directory = directories.checkpoint_directory(session.facts["data_root"], container, session.id)
    os.makedirs(directory, mode=0o700, exist_ok=True)
    return directory


def arm(session: Session, engine: Engine) -> None:
    """Nothing can be done before the checkpoint is there."""


def start(session: Session, engine: Engine) -> dict[str, t.Any]:
    """Restore the copy, which runs then, prove it, and decide RUN.

    :raises MigrationError: ``no_space``, ``checkpoint_corrupt``, ``flush_failed``, ``restore_failed``, ``not_a_restore``,
        ``already_refused``.
    """
    container = session.data("created")["container_id"]
    manifest, source = criu_images.arrived(session.memory_path("inbox"))
    # Names, sizes and hashes only: by them containerd's copies are recognised, after a reboot too.
    durable.write_json(session.path(_MANIFEST), manifest)
    data_root = session.facts["data_root"]
    size = criu_images.total_bytes(manifest)
    _reserve_space(session, 2 * size, "restoring the checkpoint on the destination takes {needed} MiB")
    criu_images.verify(directories.checkpoint_directory(data_root, container, session.id), manifest)
    # What has come is on the disk already (source.send_checkpoint); here it gets its places and names.
    with durable_content.arriving(session) as flush:
        directories.adopt_log(data_root, session.facts["container_id"], container)
        bound_files.adopt(session)
        engine.rename(container, session.facts["container_name"])
        flush.now(durable_content.FROZEN_SECONDS)
    session.enter("starting")
    began = time.monotonic()
    with criu_log.explain_errors("restore_failed"):
        engine.start(container, session.id, timeout=memory_timeout(size))
    running_since = time.clock_gettime(time.CLOCK_BOOTTIME)
    seconds = time.monotonic() - began
    proof = prove(engine, container, source)
    if session.decide(RUN) != RUN:
        raise MigrationError("already_refused", f"Session {session.id} was refused on the destination meanwhile.")
    session.enter("run", container_id=container, running_since=running_since)
    return {"container_id": container, "seconds": seconds, **proof, "warnings": _bring_surroundings(session, engine)}


def _bring_surroundings(session: Session, engine: Engine) -> list[str]:
    """Let the copy have the surroundings that it had on the source. It runs already, so a difference that is left is only
    reported.

    :returns: that, for a person.
    """
    source = durable.read_json(session.memory_path("inbox", "surroundings.json")) or {}
    container = session.data("created")["container_id"]
    try:
        inspect = engine.inspect(container)
        side = Side(
            int(inspect["State"]["Pid"]),
            TaskGroup.of_container(inspect),
            directories.container_directory(session.facts["data_root"], container),
            own_network=network_fence.refusal(inspect) is None,
        )
        left = surroundings.bring_over(side, source)
    except MigrationError as exc:
        return [exc.message]
    return [surroundings.sentence(left)] if left else []


def _reserve_space(session: Session, needed: int, what: str) -> None:
    """Reserve room on the disk of the engine's data.

    :param needed: bytes.
    :param what: what takes so much, with ``{needed}`` for it in MiB.
    :raises MigrationError: ``no_space``.
    """
    root = session.facts["data_root"]
    with reservations.in_turns(session) as others:
        reserved = others.disk(root)
        free = shutil.disk_usage(root).free - reserved
        if free < needed:
            theirs = f", beside {reserved >> 20} MiB that other moves of this host have reserved" if reserved else ""
            raise MigrationError(
                "no_space",
                f"{root} has {max(free, 0) >> 20} MiB left{theirs}; {what.format(needed=needed >> 20)}. Make room.",
                free=free,
                needed=needed,
            )
        reservations.reserve(session, disk=needed, directory=root)


def prove(engine: Engine, container: str, source: process_fingerprints.Fingerprints) -> dict[str, int]:
    """Make sure that a started copy runs and is the source's.

    :raises MigrationError: ``restored_copy_died``, ``not_a_restore``.
    """
    inspect = engine.inspect(container)
    if not inspect["State"]["Running"]:
        state = inspect["State"]
        why = f"exit code {state.get('ExitCode')}" + (f", {state['Error']}" if state.get("Error") else "")
        raise MigrationError(
            "restored_copy_died",
            f"The restored container ended at once ({why}).",
        )
    return process_fingerprints.check(source, process_fingerprints.take(TaskGroup.of_container(inspect).pids()))


# What a look at the copy may say that makes it no copy; anything else (an engine that does not answer) decides nothing.
_NO_COPY = frozenset(
    {"not_a_restore", "restored_copy_died", "container_not_found", "container_not_running", "process_gone"}
)


def decide_interrupted(session: Session, engine: Engine) -> str | None:
    """Decide RUN where the start was cut off after the copy had begun to run: it may have answered clients already.

    :returns: why there is no copy that could be RUN, or None where RUN has been decided.
    :raises MigrationError: when it cannot be known now.
    """
    if session.phase != "starting" or not session.happened_in_this_boot("starting"):
        return "nobody finished it"
    source = durable.read_json(session.memory_path("inbox", "fingerprints.json")) or {}
    try:
        prove(engine, session.data("created")["container_id"], source)
    except MigrationError as exc:
        if exc.code not in _NO_COPY:
            raise
        return exc.message
    session.decide(RUN)
    return None


def let_go(session: Session) -> None:
    """The copy runs already; only note it."""
    if session.phase == "starting":
        session.enter("run", container_id=session.data("created")["container_id"])


def finish(session: Session, engine: Engine, container: str) -> None:
    """After RUN: no checkpoint stays."""
    reservations.release(session)
    if engine.find(container) is not None:
        engine.remove_checkpoint(container, session.id)
    criu_images.remove_leftovers(durable.read_json(session.path(_MANIFEST)) or {})


def give_up(session: Session, container: str) -> str:
    """Before the copy is killed: nothing stands in the way, and nobody has said where it is."""
    return ""


def discard(session: Session, container: str) -> None:
    """After the copy is gone, and its checkpoint with it: containerd's own copies of that."""
    reservations.release(session)
    criu_images.remove_leftovers(durable.read_json(session.path(_MANIFEST)) or {})
