# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The engine ``runtime``: runc dumps, and a shim in front of runc restores inside an ordinary start.

It needs no experimental features, works with every Docker Engine that runs containers by runc, and copies memory only to
send it. The copy is held, with every task frozen before it ran, until RUN is decided: see ``_engines/shim_files.py`` and the
shim. The engine takes it for running meanwhile. So nothing but our own thaw follows RUN: no dockerd that ends, hangs or is
upgraded can take away what runs.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import typing as t

from .._base import durable
from .._base.errors import MigrationError
from .._channel import durable_content
from .._criu import core_image
from .._criu import failure as criu_failure
from .._criu import images as criu_images
from .._criu import log as criu_log
from .._criu import options as criu_options
from .._docker import directories, runc, shim
from .._docker import socket as engine_socket
from .._docker.engine import Engine, memory_timeout
from .._host import deleted_files, namespaces, prepared_memory
from .._host import fingerprints as process_fingerprints
from .._host.flush import Flush
from .._host.tasks import TaskGroup
from .._network import fence as network_fence
from .._network.announce import Announcer
from .._preflight import finding
from .._session import reservations, timeline
from .._session.phases import RUN
from .._session.session import Session
from .._surroundings import sysctls as surroundings_sysctls
from .._surroundings.side import Side
from .._surroundings.surroundings import bring_over, look_ahead_there, sentence
from . import armed_start, bound_files, connections, shim_files
from .shim_files import Held, Mark

Inspect = t.Mapping[str, t.Any]

# The processes of the held copy when they were recognised, as this host numbers them.
_HELD_PIDS = "held_pids.json"

# Memory that a host keeps for itself when images are put into it.
_RESERVE_BYTES = 128 << 20

# Seconds that the engine may take around a restore: network, containerd, systemd.
_START_SECONDS = 60.0
# Seconds that it has for a word before RUN. An engine that is slow because its host is busy is no reason to give a move up.
_DECIDING_SECONDS = 2.0
# While its answer is waited for: how often it is asked whether it works at all, and the seconds that it has to say so.
_LOOK_SECONDS, _ALIVE_SECONDS = 1.0, 5.0
# Seconds that one attempt to thaw waits for a dump to end. The watchdog comes again; recover.yml gets its turn in between.
_DUMP_END_SECONDS = 60.0
_POLL_SECONDS = 0.005


def place_for(size: int, session: Session, name: str, *, memory: int) -> str:
    """A directory for images of so many bytes: in memory where it fits twice (as images and as the tasks'), else on the disk.

    It is reserved for the session, so that another one finds no more than what is left.

    :param name: of the directory, below the session's own.
    :param memory: bytes of memory that the session is going to take where the images are put into memory.
    :raises MigrationError: ``no_space``.
    """
    in_memory, on_disk = session.memory_path(name), session.path(name)
    with reservations.in_turns(session) as others:
        available = _available_memory() - others.memory
        free = shutil.disk_usage(session.memory_path()).free - others.memory
        if size + _RESERVE_BYTES < free and 2 * size + _RESERVE_BYTES < available:
            os.makedirs(in_memory, mode=0o700, exist_ok=True)
            reservations.reserve(session, memory=memory, used_in=[in_memory])
            return in_memory
        reserved = others.disk(session.directory)
        free = shutil.disk_usage(session.directory).free - reserved
        if free < size + _RESERVE_BYTES:
            theirs = max(reserved, others.memory)
            raise MigrationError(
                "no_space",
                f"The checkpoint may take {size >> 20} MiB. {session.directory} has {max(free, 0) >> 20} MiB left, and memory "
                f"{max(available, 0) >> 20} MiB"
                + (f", beside {theirs >> 20} MiB that other moves of this host have reserved" if theirs else "")
                + ". Make room.",
                free=free,
                needed=size,
            )
        os.makedirs(on_disk, mode=0o700, exist_ok=True)
        reservations.reserve(session, disk=size, directory=session.directory, used_in=[on_disk])
        return on_disk


def _make_ready(session: Session, size: int) -> None:
    """Touch the memory that will be taken in the frozen time, where the images go into memory at all."""
    if os.path.isdir(session.memory_path("images")):
        prepared_memory.touch(size)


def _available_memory() -> int:
    """MemAvailable in bytes."""
    with open("/proc/meminfo", encoding="ascii") as handle:
        for line in handle:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    return 0


def keeps_connections() -> bool:
    """Each dump and restore has options of its own."""
    return True


# -- on the source ------------------------------------------------------------------------------------------------


def images(session: Session) -> str:
    """Where the checkpoint of the source lies."""
    for directory in (session.memory_path("images"), session.path("images")):
        if os.path.isdir(directory):
            return directory
    return session.memory_path("images")


def reserve_space(session: Session, size: int) -> None:
    """Make the directory for the images, before anything is frozen.

    :raises MigrationError: ``no_space``; ``runc_unknown`` where the container does not run under runc.
    """
    runc.root_of(session.facts["container_id"])
    place_for(size, session, "images", memory=size)
    _make_ready(session, size)
    os.makedirs(session.memory_path("dump"), mode=0o700, exist_ok=True)


def options_file(session: Session) -> str:
    """Where CRIU's options for the dump are."""
    return session.memory_path("dump.conf")


def dump(session: Session, engine: Engine, group: TaskGroup) -> dict[str, t.Any]:
    """Dump the frozen container with the options that it needs.

    :returns: ``criu``, its statistics, and ``found``: how many connections are ``kept`` and ``closed``, and ``deleted_files``.
    :raises MigrationError: ``dump_failed`` with CRIU's own errors.
    """
    plan = connections.Plan.of(session)
    pids = group.pids()
    outlook = connections.outlook(plan, pids[0])
    deleted = deleted_files.deleted_files(pids)
    options = options_file(session)
    # In place: the unit that waits for the dump has these very files before its eyes.
    for path, text in (
        (options, criu_options.for_dump(runc.host_options(), kept=outlook.established, deleted=deleted)),
        (runc.by_environment(options), criu_options.by_environment(skip_lock=plan.skip_lock)),
    ):
        with open(path, "w", encoding="utf-8") as handle:
            handle.write(text)
    work, began = session.memory_path("dump"), time.time()
    try:
        statistics = runc.dump(
            session.id,
            session.facts["container_id"],
            images(session),
            work,
            options=options,
            timeout=memory_timeout(session.data("arming")["bytes"]),
        )
    except MigrationError as exc:
        where = criu_failure.keep_log(criu_failure.DUMP, criu_log.text(work, began), session.id, session.state_root)
        raise MigrationError(exc.code, f"{exc.message}{where}", **exc.details) from exc
    return {"criu": statistics, "found": {**outlook._asdict(), "deleted_files": deleted.files}}


def seal(session: Session, content: t.Sequence[str]) -> int:
    """Nothing to note: the hashes are made while it is sent; returns the size of the checkpoint in bytes."""
    directory = images(session)
    return sum(os.lstat(os.path.join(directory, name)).st_size for name in criu_images.files(directory))


def await_dump(session: Session, seconds: float) -> None:
    """Wait for a dump whose caller is gone: CRIU has the tasks in its hand, and freezes them again at its end.

    One that is overdue hangs, and the service stands still as long as it does.
    """
    try:
        runc.await_end(session.id, max(0.0, min(seconds, _DUMP_END_SECONDS)))
    except MigrationError as exc:
        if exc.code != "dump_running" or seconds > _DUMP_END_SECONDS:
            raise
        runc.end_dump(session.id)


def give_up_checkpoint(session: Session) -> None:
    """Nothing is brought back with this engine."""


def delete_images(session: Session, container: str) -> None:
    """Delete them, and what CRIU has noted of a dump."""
    _delete(session, "images", "dump")


def bring_back(session: Session, engine: Engine) -> bool:
    """A checkpoint in memory does not survive what ended the container."""
    return False


def forget(session: Session, engine: Engine) -> None:
    """Delete the checkpoint."""
    delete_images(session, session.facts["container_id"])


def _delete(session: Session, *names: str) -> None:
    """Remove directories of :func:`place_for`, wherever they were put, and give back what was reserved for them."""
    reservations.release(session)
    for name in names:
        # Not memory_path(), which would make the directory of a session that is over.
        shutil.rmtree(os.path.join(session.volatile, name), ignore_errors=True)
        shutil.rmtree(session.path(name), ignore_errors=True)


# -- on the destination -------------------------------------------------------------------------------------------


def runtime_of(source: Inspect, engine: Engine) -> str:
    """Which runtime the copy is created with: the shim, by name unless it is this host's default.

    :raises MigrationError: ``shim_missing``.
    """
    info = engine.info()
    if shim.RUNTIME not in (info.get("Runtimes") or {}):
        raise MigrationError(
            "shim_missing",
            f"The runtime {shim.RUNTIME} is not registered with the destination's engine. The role "
            "livemigrate.criu.checkpointing (playbooks/provision.yml) does that, without a restart; or set migrate_engine: api.",
        )
    return shim.RUNTIME


def receive(session: Session, container: str) -> str:
    """Mark the container as a copy that is not to be started afresh, and make the place for its checkpoint.

    :returns: the place.
    """
    mark = Mark.of(session, container)
    mark.make(session.id)
    size = int((durable.read_json(session.memory_path("inbox", "spec.json")) or {}).get("memory_bytes", 0))
    # The images and the tasks.
    directory = place_for(size, session, "images", memory=2 * size)
    _make_ready(session, 2 * size)
    if not os.path.lexists(mark.images):
        os.symlink(directory, mark.images)
    return directory


def checkpoint_place(session: Session) -> str:
    """Where the images go that the source sends."""
    return os.path.realpath(Mark.of(session).images)


def arm(session: Session, engine: Engine) -> None:
    """Give the copy its name and let a unit wait for the checkpoint, so that nothing of that is left for the frozen time."""
    engine.rename(session.data("created")["container_id"], session.facts["container_name"])
    durable.write_json(session.memory_path("surroundings.json"), look_ahead_there())
    armed_start.arm(session, session.agent)


def _options(session: Session, network: connections.Arrangement) -> list[str]:
    """CRIU's options for the restore. What runc says of mounts is overruled where it names a symbolic link."""
    links = session.data("created").get("links", {})
    return [
        *criu_options.for_restore(kept=network.established, action_script=shim.ACTION_SCRIPT),
        *(f"external=mnt[{place}]:{path}" for place, path in sorted(links.items())),
    ]


def _prepare_network(mark: Mark, network: connections.Arrangement) -> None:
    """What the shim and CRIU's action script do for the copy's network: see ``livemigrate-network``."""
    if network.fenced:
        mark.set_fence(network_fence.rules(network_fence.ALL))
    mark.set_addresses(network.addresses)


def hold(
    session: Session,
    received: criu_images.Manifest,
    sent: criu_images.Manifest,
    fingerprints: process_fingerprints.Fingerprints,
    network: connections.Arrangement,
    surroundings: t.Mapping[str, t.Any],
    flush: Flush,
) -> dict[str, t.Any]:
    """Restore the copy with every task frozen, prove that it is the source's, and let it have the surroundings that it had there.

    Meanwhile its files are written to the disk: what was durable on the source is durable here before the copy may run. And the
    engine notes that it runs.

    :param received: what arrived.
    :param sent: what the source says it has sent.
    :param fingerprints: the source's, see ``_host/fingerprints.py``.
    :param network: what the source says of the container's network.
    :param surroundings: the source's, see ``_surroundings/surroundings.py``.
    :param flush: the file systems of the copy's files, open since before the last pass.
    :returns: ``processes``, ``recognised``, ``seconds`` of all of it, ``flush_seconds``, and ``flush_waited``: for how many of
        ``seconds`` nothing was left to be done but to wait for the disk. ``timeline``: its events, see ``_session/timeline.py``.
    :raises MigrationError: ``checkpoint_corrupt``, ``restore_failed`` with CRIU's own errors, ``not_a_restore``,
        ``surroundings_differ``, ``flush_failed``.
    """
    line = timeline.Timeline()
    line.record(timeline.RECEIVED)
    container = session.data("created")["container_id"]
    mark = Mark.of(session)
    criu_images.compare(received, sent)
    directories.adopt_log(session.facts["data_root"], session.facts["container_id"], container)
    bound_files.adopt(session)
    core_image.let_sleeps_go_on(os.path.realpath(mark.images))
    mark.set_options(_options(session, network))
    _prepare_network(mark, network)
    mark.set_sysctls(surroundings_sysctls.for_restore(surroundings.get(surroundings_sysctls.NAME)))
    session.enter("starting")
    began = time.monotonic()
    # Everything that came has its place by now.
    flush.begin()
    patience = memory_timeout(criu_images.total_bytes(received))
    group = _restore(session, mark, _START_SECONDS + patience)
    line.record(timeline.RESTORED)
    pids = group.pids()
    proof = _prove(fingerprints, pids)
    line.record(timeline.RECOGNISED)
    network.end_what_stays_behind(_held_copy(mark).init)
    ahead = durable.read_json(session.memory_path("surroundings.json"))
    warnings = _bring_surroundings(
        session,
        Side(
            _held_copy(mark).init,
            group,
            directories.container_directory(session.facts["data_root"], container),
            # The source says whether it was closed there. Here it must not be the host's, whatever the source says.
            own_network=network.fenced and not namespaces.shares(_held_copy(mark).init, os.getpid(), "net"),
            ahead=ahead,
        ),
        surroundings,
    )
    line.record(timeline.COMPARED)
    # As long as the flush, which began with it.
    _await_note(session, mark, began + durable_content.FROZEN_SECONDS + patience - time.monotonic())
    line.record(timeline.NOTED)
    waited = flush.finish(durable_content.FROZEN_SECONDS + patience)
    line.record(timeline.FLUSHED)
    durable.write_json(session.memory_path(_HELD_PIDS), pids)
    session.enter("held")
    return {
        "seconds": time.monotonic() - began,
        "flush_seconds": flush.seconds,
        "flush_waited": waited,
        "warnings": warnings,
        "timeline": line.events,
        **proof,
    }


def _restore(session: Session, mark: Mark, seconds: float) -> TaskGroup:
    """Have the shim restore the copy, whose checkpoint is whole, and return its tasks, which are frozen.

    :raises MigrationError: ``restore_failed``, ``not_held``.
    """
    began, wall = time.monotonic(), time.time()
    mark.set_ready()
    while True:
        # In this order: the engine answers after the shim.
        outcome = armed_start.outcome(session)
        if mark.plumbed:
            break
        if outcome is not None:
            raise _restore_failed(session, mark, outcome or "it says that it did, but nothing holds it", wall)
        if time.monotonic() >= began + seconds:
            raise _restore_failed(session, mark, f"it is not done after {seconds:.0f} seconds", wall)
        time.sleep(_POLL_SECONDS)
    group = TaskGroup(_held_copy(mark).cgroup)
    if not group.frozen:
        raise MigrationError("not_held", "The restored copy is not frozen; it is not trusted.")
    return group


def _await_note(session: Session, mark: Mark, seconds: float) -> None:
    """Wait until the engine has noted that the copy runs. It writes a file, which a slow disk delays as it delays the flush.

    :param seconds: that it may take at most. It has a few in any case.
    :raises MigrationError: ``restore_failed``, ``engine_unreachable``.
    """
    began, wall = time.monotonic(), time.time()
    seconds, asked = max(seconds, _ALIVE_SECONDS), began
    while not armed_start.is_noted(session):
        outcome = armed_start.outcome(session)
        if outcome:
            raise _restore_failed(session, mark, outcome, wall)
        if time.monotonic() >= began + seconds:
            raise _restore_failed(session, mark, f"it has not noted within {seconds:.0f} seconds that it runs", wall)
        if time.monotonic() >= asked + _LOOK_SECONDS:
            _require_engine(_ALIVE_SECONDS)
            asked = time.monotonic()
        time.sleep(_POLL_SECONDS)


def _require_engine(seconds: float) -> None:
    """Make sure that the engine answers: whoever works with a container needs it.

    :raises MigrationError: ``engine_unreachable``.
    """
    if not engine_socket.answers(timeout=seconds):
        raise MigrationError(
            "engine_unreachable",
            "The Docker Engine of the destination does not answer (any more), so the copy was not let go there. Look at "
            "systemctl status docker on the destination.",
        )


def _prove(source: process_fingerprints.Fingerprints, pids: t.Sequence[int]) -> dict[str, int]:
    """Make sure that the held tasks are the source's, every one of them.

    :raises MigrationError: ``not_a_restore``.
    """
    proof = process_fingerprints.check(source, process_fingerprints.take(pids))
    if proof["recognised"] != proof["processes"]:
        # None of them has run, so none can have ended.
        raise MigrationError(
            "not_a_restore",
            f"Only {proof['recognised']} of {proof['processes']} processes were restored as they were.",
            **proof,
        )
    return proof


def _bring_surroundings(session: Session, copy: Side, source: t.Mapping[str, t.Any]) -> list[str]:
    """Let the held copy have the surroundings that it had on the source.

    :returns: what still differs, for a person, where the user does not heed that.
    :raises MigrationError: ``surroundings_differ``.
    """
    left = bring_over(copy, source)
    if not left:
        return []
    text = sentence(left)
    spec = durable.read_json(session.memory_path("inbox", "spec.json")) or {}
    if finding.SURROUNDINGS_DIFFER in spec.get("ignore_rules", ()):
        return [text]
    raise MigrationError(
        finding.SURROUNDINGS_DIFFER,
        f"{text} It was discarded, and the original goes on at its host. If it can do without that, move it with "
        f"{finding.SURROUNDINGS_DIFFER} in migrate_ignore_rules.",
        differences=left,
    )


def _restore_failed(session: Session, mark: Mark, output: str, began: float) -> MigrationError:
    """What to tell; CRIU's log is kept, because all that lies beside it goes with the copy."""
    log = mark.log()
    why = criu_failure.explain_start(output, log, began, mark.failure())
    where = criu_failure.keep_log(criu_failure.RESTORE, log, session.id, session.state_root)
    return MigrationError("restore_failed", f"{why}{where}", criu=criu_log.errors(log))


def _held_copy(mark: Mark) -> Held:
    held = mark.held
    if held is None:
        raise MigrationError("not_held", "The runtime shim did not tell what it holds.")
    return held


def init_of(session: Session) -> int:
    """The first process of the held copy, as this host numbers it.

    :raises MigrationError: ``not_held``.
    """
    return _held_copy(Mark.of(session)).init


def run(session: Session, announcer: Announcer | None = None) -> float:
    """Decide RUN and let the copy go.

    :param announcer: what tells the neighbours where the copy is, see ``_network/announce.py``.
    :returns: since when it runs, by the clock CLOCK_BOOTTIME.
    :raises MigrationError: ``not_held`` where the copy is not waiting any more, ``engine_unreachable``, ``already_refused``.
    """
    mark = Mark.of(session)
    group = TaskGroup(_held_copy(mark).cgroup)
    # With little patience: the service stands still. And first: the copy may be killed or thawed meanwhile. An engine that fails
    # after its answer is no danger.
    _require_engine(_DECIDING_SECONDS)
    # The phase says as well that the engine knows the copy: else its tasks would run unknown to Docker.
    if session.phase != "held" or not group.frozen:
        raise MigrationError("not_held", "The restored copy is not waiting to be let go (any more).")
    # A frozen task can be killed, for instance by the kernel where memory is short. The original is still whole.
    ended = set(durable.read_json(session.memory_path(_HELD_PIDS)) or ()) - set(group.pids())
    if ended:
        raise MigrationError(
            "not_held",
            f"{len(ended)} processes of the restored copy have ended since they were recognised, although they were frozen. The "
            "kernel's log tells whether memory was short (journalctl --dmesg --grep 'Killed process').",
        )
    if session.decide(RUN) != RUN:
        raise MigrationError("already_refused", f"Session {session.id} was refused on the destination meanwhile.")
    return _let_go(session, announcer)


def let_go(session: Session) -> float:
    """Write the tombstone, let the tasks go on, and note RUN. May be repeated.

    :returns: since when it runs, by the clock CLOCK_BOOTTIME.
    """
    since = _let_go(session, None)
    forget_images(session)
    return since


def forget_images(session: Session) -> None:
    """Delete the images of a copy that runs. They hold a second copy of its memory."""
    _delete(session, "images")


def _let_go(session: Session, announcer: Announcer | None) -> float:
    container = session.data("created")["container_id"]
    mark = Mark.of(session)
    try:
        # Before the thaw, so that the shim refuses nothing to a copy that runs.
        session.write_even_when_full(mark.consume)
    finally:
        # RUN is on the disk. A disk that takes no change after that must not keep the service frozen: whoever settles the session
        # writes the tombstone when it can be written.
        since = _set_free(session, mark, announcer)
    if session.phase != "run":
        session.enter("run", container_id=container, running_since=since)
    return since


def _set_free(session: Session, mark: Mark, announcer: Announcer | None) -> float:
    held = mark.held if session.happened_in_this_boot("created") else None
    if held is not None:
        _thaw(held)
    since = time.clock_gettime(time.CLOCK_BOOTTIME)
    # Its memory is in use by now.
    reservations.release(session)
    if held is not None:
        connections.let_speak(held.init, announcer or connections.announcer(session, held.init))
        mark.use_options_of_host()
    return since


def _thaw(held: Held) -> None:
    """Open the fence and thaw the tasks. A copy that has ended meanwhile is its engine's."""
    group = TaskGroup(held.cgroup)
    if group.freeze_requested:
        # Opened first: a program that sends through a closed fence is told so. It is decided, so that it goes on in any case; the
        # fence is looked at once more when it runs.
        with contextlib.suppress(MigrationError):
            network_fence.Fence.of(held.init).lift()
        with contextlib.suppress(MigrationError, FileNotFoundError):
            group.thaw()


def decide_interrupted(session: Session, engine: Engine) -> str | None:
    """A copy that is held has run nothing: it is not RUN unless that was decided.

    :returns: why it is not.
    """
    return "the source gave up before the hand-over"


def finish(session: Session, engine: Engine, container: str) -> None:
    """After RUN: no checkpoint stays."""
    Mark.of(session, container).forget_checkpoint()
    _delete(session, "images")


def give_up(session: Session, container: str) -> str:
    """Before the copy is killed: tell the shim, so that it starts nothing more of it.

    :returns: the cgroup that CRIU and the tasks are in, where a restore has begun.
    """
    mark = Mark.of(session, container)
    # Where there is no room to say it the shim learns it by the end of the tasks, or of the mark.
    with contextlib.suppress(OSError):
        mark.refuse()
    return mark.cgroup


def discard(session: Session, container: str) -> None:
    """After the copy is gone: the call, the mark and the checkpoint."""
    armed_start.disarm(session.id)
    # Also one whose container was removed before its id had been noted.
    for mark in shim_files.of_session(session):
        mark.remove()
    if len(container) == 64:
        Mark.of(session, container).remove()
    _delete(session, "images")
