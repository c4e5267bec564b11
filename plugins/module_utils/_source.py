# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""What a session does on the source: look, freeze, dump, send, and in the end kill the old copy or let it go on.

Each function is one step of the journal (see ``_session.py``) and may be repeated. Until ``GO_SENT`` is decided the source
may give up on its own; after it only the destination's answer counts.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import typing as t
from concurrent.futures import ThreadPoolExecutor

from ansible_collections.livemigrate.criu.plugins.module_utils import (
    _agent_package,
    _channel,
    _checkpoint_dir,
    _criu_log,
    _durable,
    _images,
    _names,
    _proof,
    _spec,
    _trees,
    _watchdog,
)
from ansible_collections.livemigrate.criu.plugins.module_utils._channel import Channel
from ansible_collections.livemigrate.criu.plugins.module_utils._channel_server import KEY_LIFE_SECONDS
from ansible_collections.livemigrate.criu.plugins.module_utils._command import run, run_checked
from ansible_collections.livemigrate.criu.plugins.module_utils._engine import Engine, memory_timeout
from ansible_collections.livemigrate.criu.plugins.module_utils._errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._session import (
    ABORT,
    DESTINATION,
    GO_SENT,
    RUN,
    SOURCE,
    Session,
    boot_mark,
)
from ansible_collections.livemigrate.criu.plugins.module_utils._tasks import TaskGroup

Inspect = dict[str, t.Any]

# Seconds. Docker's pause returns when the kernel has frozen everything; more than this means a task stuck in the kernel.
FREEZE_TIMEOUT = 15.0
# How many directories travel at once.
_PARALLEL_TREES = 4
# How often a freeze is tried again because a process of `docker exec` (a health check, usually) was in the way.
FOREIGN_ATTEMPTS = 20


# -- before anything is touched -----------------------------------------------------------------------------------


def examine(engine: Engine, container: str) -> tuple[Inspect, list[dict[str, str]]]:
    """A running container's inspect data, and why it cannot be moved, if so.

    :raises MigrationError: ``container_not_found``, ``container_not_running``.
    """
    inspect = engine.inspect(_names.container_name(container))
    TaskGroup.of_container(inspect)
    # ExecIDs come and go with every health check; what is really in the way are processes, looked for here and again after
    # the freeze.
    transient = {"exec_sessions"}
    findings = [finding._asdict() for finding in _spec.refusals(inspect) if finding.code not in transient]
    foreign = _lasting_foreign(TaskGroup.of_container(inspect), int(inspect["State"]["Pid"]))
    if foreign:
        findings.append(
            {
                "code": "exec_session_running",
                "message": f"Processes entered through docker exec are running in it: {', '.join(foreign)}. They are not part of "
                "a checkpoint.",
                "remedy": "End them.",
            }
        )
    with contextlib.suppress(MigrationError):
        for volume in _volumes(engine, inspect, ()):
            if volume["device"]:
                findings.append(
                    {
                        "code": "volume_unsupported",
                        "message": f"Volume {volume['name']} is a mount of {volume['device']} on its host; its content is not "
                        "where a volume's content is.",
                        "remedy": "Use a bind mount (see migrate_bind_mounts), or shared storage.",
                    }
                )
            if volume["in_use_by"]:
                findings.append(
                    {
                        "code": "volume_in_use",
                        "message": f"Volume {volume['name']} is also used by the running container(s) "
                        f"{', '.join(volume['in_use_by'])}, which would go on writing into the copy that stays.",
                        "remedy": "Stop them, or give them a volume of their own.",
                    }
                )
    try:
        _trees.upper_directory(inspect)
    except MigrationError as exc:
        findings.append(
            {"code": exc.code, "message": exc.message, "remedy": "docs/support.md tells which storage can be moved."}
        )
    return inspect, findings


def _lasting_foreign(group: TaskGroup, init: int) -> list[str]:
    """Processes of ``docker exec`` that do not end within a second, as those of a health check do."""
    deadline = time.monotonic() + 1.0
    while True:
        foreign = group.foreign(init)
        if not foreign or time.monotonic() >= deadline:
            return foreign
        time.sleep(0.1)


def require_movable(engine: Engine, container: str) -> Inspect:
    """The inspect data of a container that can be moved as far as its own host can tell.

    :raises MigrationError: ``cannot_move`` with all findings at once, or as :func:`examine`.
    """
    inspect, findings = examine(engine, container)
    if findings:
        text = " ".join(f"{finding['message']} {finding['remedy']}" for finding in findings)
        raise MigrationError("cannot_move", f"Container {container} cannot be moved: {text}", findings=findings)
    return inspect


def _volumes(engine: Engine, inspect: Inspect, bind_mounts: t.Sequence[str]) -> list[dict[str, t.Any]]:
    """The container's volumes and bind mounts, each with whether its content travels."""
    found: list[dict[str, t.Any]] = []
    for mount in _spec.mounts(inspect):
        if mount.kind == "volume":
            details = engine.find_volume(mount.name) or {}
            shared = _trees.is_shared(_durable.filesystem_type(mount.source), details.get("Options") or {})
            users = [
                other["Names"][0].lstrip("/")
                for other in engine.containers({"volume": mount.name}, running=True)
                if other["Id"] != inspect["Id"]
            ]
            found.append(
                {
                    "kind": "volume",
                    "name": mount.name,
                    "path": mount.source,
                    "destination": mount.destination,
                    "travels": (details.get("Driver") or mount.driver) == "local" and not shared,
                    "shared": shared,
                    "in_use_by": [] if shared else users,
                    "device": "" if shared else (details.get("Options") or {}).get("device", ""),
                    "create": {
                        "Name": mount.name,
                        "Driver": details.get("Driver") or mount.driver or "local",
                        "DriverOpts": details.get("Options") or {},
                        "Labels": details.get("Labels") or {},
                    },
                }
            )
        elif mount.kind == "bind":
            named = any(os.path.normpath(path) == os.path.normpath(mount.source) for path in bind_mounts)
            found.append(
                {
                    "kind": "bind",
                    "name": mount.source,
                    "path": mount.source,
                    "destination": mount.destination,
                    "travels": named,
                    "shared": _trees.is_shared(_durable.filesystem_type(mount.source), {}),
                    "in_use_by": [],
                    "device": "",
                    "create": None,
                }
            )
    for wanted in bind_mounts:
        if not any(
            entry["kind"] == "bind" and entry["travels"] for entry in found if entry["path"] == os.path.normpath(wanted)
        ):
            raise MigrationError(
                "bind_mount_unknown",
                f"{wanted} is to be moved but is not a bind mount of container {inspect['Name'].lstrip('/')}.",
                path=wanted,
            )
    return found


def _ancestry(container_id: str) -> list[str]:
    """The ids under which this container lived before, on whatever host: newest first."""
    for session in reversed(Session.all()):
        if session.role == DESTINATION and session.data("run").get("container_id") == container_id:
            return [session.facts["container_id"], *session.facts.get("ancestry", [])]
    return []


def open_session(
    engine: Engine, container: str, *, peer_name: str, engine_name: str, strategy: str, bind_mounts: t.Sequence[str]
) -> tuple[Session, str]:
    """Begin a session: claim the container, gather its spec, make the channel's key, start the watchdog.

    :param peer_name: what the playbook calls the destination, for people.
    :param bind_mounts: host paths of bind mounts whose content travels.
    :returns: the session and the channel's public key.
    :raises MigrationError: ``cannot_move`` with all findings; ``session_busy``; ``watchdog_failed`` ...
    """
    inspect = require_movable(engine, container)
    volumes = _volumes(engine, inspect, bind_mounts)
    name = inspect["Name"].lstrip("/")
    session = Session.open(
        _names.new_session_id(),
        SOURCE,
        {
            "container_id": inspect["Id"],
            "container_name": name,
            "peer_name": peer_name,
            "engine": engine_name,
            "strategy": strategy,
            "ancestry": _ancestry(inspect["Id"]),
            "volumes": [entry["name"] for entry in volumes if entry["travels"]],
        },
    )
    try:
        public_key = _channel.make_key(session)
        networks = [engine.find_network(endpoint.name) for endpoint in _spec.networks(inspect)]
        outbox = session.memory_path("outbox")
        os.makedirs(outbox, mode=0o700, exist_ok=True)
        _durable.write_json(
            os.path.join(outbox, "spec.json"),
            {
                "inspect": inspect,
                "image": _images.describe(engine, inspect),
                "volumes": volumes,
                "networks": [network for network in networks if network],
                "ancestry": session.facts["ancestry"],
            },
        )
        agent = _agent_package.install(session)
        _watchdog.arm(session.id, (*agent, "settle", session.id))
        _agent_package.check(session, agent)
    except BaseException:
        _watchdog.disarm(session.id)
        session.close(keep=False)
        raise
    return session, public_key


# -- sending ------------------------------------------------------------------------------------------------------


def probe(session: Session) -> dict[str, t.Any]:
    """A tiny word through the channel, before anything depends on it.

    :raises MigrationError: ``destination_unreachable``; ``same_host``.
    """
    answer = Channel(session).call("ping")
    if answer["host"] == host_identity():
        raise MigrationError("same_host", "Source and destination are the same host; nothing is to be moved.")
    return answer


def host_identity() -> str:
    """What tells this host from every other one at this moment."""
    with open("/etc/machine-id", encoding="ascii") as handle:
        return f"{handle.read().strip()}/{boot_mark()}"


def send_spec(session: Session) -> int:
    """Bring spec (and later manifest and fingerprints) into the destination's memory; returns the bytes sent."""
    return Channel(session).rsync(session.memory_path("outbox"), "inbox", ("--delete",))


def send_image(session: Session, engine: Engine) -> int:
    """Stream the container's image from engine to engine; returns the bytes sent."""
    spec = _durable.read_json(session.memory_path("outbox", "spec.json"))
    image = spec["image"]
    # By its tags where it has any, so that they exist on the other side; the id alone would arrive nameless.
    _answer, sent = Channel(session).stream("image-load", engine.export_image(image["tags"] or [image["id"]]))
    return sent


def _content_trees(session: Session, engine: Engine, inspect: Inspect) -> list[_trees.Tree]:
    spec = _durable.read_json(session.memory_path("outbox", "spec.json"))
    trees = [_trees.layer(inspect)]
    log = _trees.log(inspect, engine.info()["DockerRootDir"])
    if log is not None:
        trees.append(log)
    binds = 0
    for entry in spec["volumes"]:
        if entry["kind"] == "volume" and entry["travels"]:
            trees.append(_trees.volume(entry["name"], entry["path"]))
        elif entry["kind"] == "bind" and entry["travels"]:
            trees.append(_trees.bind(binds, entry["path"]))
            binds += 1
    return trees


def send_content(session: Session, engine: Engine, *, running: bool) -> int:
    """Bring writable layer, log, volumes and named bind mounts up to date on the destination; returns the bytes sent.

    :param running: whether the container still runs: then files may change meanwhile, and a second pass follows.
    """
    inspect = engine.inspect(session.facts["container_id"])
    trees = _content_trees(session, engine, inspect)
    if running:
        # From here on every write moves a file's time, those through shared memory maps too: the pages that were dirty are
        # written out, and the next store to one is seen by the kernel. See _send_tree.
        began = time.time()
        _write_out([tree.path for tree in trees])
        _durable.write_json(session.memory_path("content_sent.json"), {"began": began})
    return _send_trees(session, trees, running=running)


def _write_out(paths: t.Sequence[str]) -> None:
    run_checked(run, ["sync", "-f", *paths], "sync_failed", "write the container's files to disk", timeout=600)


def _send_trees(session: Session, trees: t.Sequence[_trees.Tree], *, running: bool) -> int:
    # At once: most of them have little to say, and what each costs is the start of two rsyncs and an agent.
    with ThreadPoolExecutor(max_workers=_PARALLEL_TREES) as pool:
        return sum(pool.map(lambda tree: _send_tree(session, tree, running=running), trees))


def _send_tree(session: Session, tree: _trees.Tree, *, running: bool) -> int:
    channel = Channel(session)
    sent = channel.rsync(tree.path, tree.target, tree.options, running=running)
    before = _durable.read_json(session.memory_path("content_sent.json"))
    if not running and before is not None and tree.target not in ("checkpoint", "inbox", "log"):
        # A file that was written while the pass before read it, or through a shared map, can have new content under the same
        # size and time. Whatever was touched since that pass began (by its change time, which nobody can set back) is sent again.
        names = session.memory_path("touched." + tree.target.replace("/", "."))
        since = f"@{before['began'] - 1:.0f}"
        argv = ["find", tree.path, "-type", "f", "-newerct", since, "-fprintf", names, "%P\\0"]
        run_checked(run, argv, "transfer_failed", f"look for touched files of {tree.target}", timeout=600)
        if os.path.getsize(names):
            # The directory itself, for its time: the names below it change that.
            with open(names, "ab") as handle:
                handle.write(b".\0")
            filters = [option for option in tree.options if option.startswith("--filter")]
            sent += channel.rsync(tree.path, tree.target, filters, names=names)
        os.unlink(names)
    return sent


# -- freezing and dumping -----------------------------------------------------------------------------------------


def _frozen_at() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def freeze(session: Session, engine: Engine) -> None:
    """Put the restart policy aside, and freeze the container with the watchdog behind it.

    :raises MigrationError: ``exec_session_running`` when processes of ``docker exec`` keep being in the way.
    """
    container = session.facts["container_id"]
    inspect = engine.inspect(container)
    group = TaskGroup.of_container(inspect)
    _require_space(engine, group)
    session.enter("arming", policy=_spec.restart_policy(inspect), pid=inspect["State"]["Pid"], cgroup=group.path)
    _watchdog.prove(session.id)
    # A restart policy would start the image afresh beside the restored copy as soon as the old copy is killed.
    engine.set_restart_policy(container, {"Name": "no", "MaximumRetryCount": 0})
    session.enter("armed")
    foreign: list[str] = []
    for _attempt in range(FOREIGN_ATTEMPTS):
        session.enter("freezing", at=_frozen_at())
        engine.pause(container)
        group.wait_frozen(True, FREEZE_TIMEOUT)
        foreign = group.foreign(inspect["State"]["Pid"])
        if not foreign:
            return
        # Entered by `docker exec`: not a descendant of the container's init, so CRIU would leave it behind or fail. Health
        # checks come and go that way; give them the moment they need.
        engine.unpause(container)
        time.sleep(0.25)
    raise MigrationError(
        "exec_session_running",
        f"Processes entered through docker exec keep running in the container and cannot be moved: {', '.join(foreign)}. End "
        "them and try again.",
        commands=foreign,
    )


def _require_space(engine: Engine, group: TaskGroup) -> None:
    root = engine.info()["DockerRootDir"]
    free, needed = shutil.disk_usage(root).free, 3 * group.resident_bytes
    if free < needed:
        raise MigrationError(
            "no_space",
            f"{root} has {free >> 20} MiB left; the engine writes a checkpoint three times, which may take "
            f"{needed >> 20} MiB here. Make room.",
            free=free,
            needed=needed,
        )


def dump(session: Session, engine: Engine) -> dict[str, t.Any]:
    """Dump the frozen container through the engine, and make sure that nothing can run it before we say so.

    :returns: ``bytes`` of the checkpoint and ``seconds`` the dump took.
    """
    container = session.facts["container_id"]
    started = time.monotonic()
    group = TaskGroup(session.data("arming")["cgroup"])
    with _criu_log.told("dump_failed"):
        engine.checkpoint(container, session.id, leave_running=True, timeout=memory_timeout(group.resident_bytes))
    dumped = time.monotonic()
    # CRIU thaws the cgroup while it works and freezes it again (runc leaves it as it was: paused).
    group.wait_frozen(True, FREEZE_TIMEOUT)
    held = group.hold()
    directory = _trees.checkpoint_directory(engine.info()["DockerRootDir"], container, session.id)
    inspect = engine.inspect(container)
    # A reboot of this host must find checkpoint and files whole and of one moment (see _bring_back).
    paths = [directory, *(tree.path for tree in _content_trees(session, engine, inspect))]
    with ThreadPoolExecutor(max_workers=1) as pool:
        written = pool.submit(_write_out, paths)
        outbox = session.memory_path("outbox")
        _durable.write_json(os.path.join(outbox, "fingerprints.json"), _proof.take(group.pids()))
        manifest = _checkpoint_dir.manifest(directory)
        _durable.write_json(os.path.join(outbox, "manifest.json"), manifest)
        # Names, sizes and hashes only: what a start from this checkpoint after a reboot is checked against.
        _durable.write_json(session.path("manifest.json"), manifest)
        written.result()
    size = _checkpoint_dir.total_bytes(manifest)
    session.enter("dumped", held=held, bytes=size)
    return {"bytes": size, "seconds": dumped - started}


def send_checkpoint(session: Session, engine: Engine) -> int:
    """The last pass while everything stands still: content, checkpoint, manifest; returns the bytes sent."""
    inspect = engine.inspect(session.facts["container_id"])
    checkpoint = _trees.checkpoint(engine.info()["DockerRootDir"], inspect["Id"], session.id)
    inbox = _trees.Tree("inbox", session.memory_path("outbox"), ("--delete",))
    content = _content_trees(session, engine, inspect)
    sent = _send_trees(session, [checkpoint, *content, inbox], running=False)
    session.enter("sent", bytes=sent)
    return sent


def go(session: Session) -> None:
    """Decide that the destination may run it. From here on the source waits for the destination's word.

    :raises MigrationError: ``already_aborted``; ``source_moved`` when the frozen tasks are not as they were dumped.
    """
    group = TaskGroup(session.data("arming")["cgroup"])
    if session.phase == "sent" and not group.still_held(session.data("dumped")["held"]):
        raise MigrationError(
            "source_thawed",
            "Somebody has thawed the container since it was dumped (docker unpause, a restart of the engine?). Its checkpoint "
            "is not used; the container goes on here.",
        )
    if session.phase != "sent" or session.decide(GO_SENT) != GO_SENT:
        raise MigrationError(
            "already_aborted", f"Session {session.id} has been aborted meanwhile.", phase=session.phase
        )


# -- the end ------------------------------------------------------------------------------------------------------


def commit(session: Session, engine: Engine, verdict: t.Mapping[str, t.Any]) -> None:
    """The destination runs it: kill the old copy without letting it run again, and keep what is left under another name.

    :param verdict: the destination's answer, see ``_destination.verdict``.
    """
    container = session.facts["container_id"]
    inspect = engine.find(container)
    if inspect is not None:
        group = TaskGroup(session.data("arming")["cgroup"])
        if session.happened_in_this_boot("arming"):
            group.kill()
        # For Docker to take notice; a container that is down already is fine.
        engine.kill(container)
        _wait_stopped(engine, container)
        old_name = _names.moved_name(session.facts["container_name"], session.id)
        if inspect["Name"].lstrip("/") != old_name:
            engine.rename(container, old_name)
        _forget_checkpoint(session, engine)
    gap = None
    if session.happened_in_this_boot("freezing") and verdict.get("running_for") is not None:
        gap = _frozen_at() - session.data("freezing")["at"] - float(verdict["running_for"])
    session.enter("committed", destination_container_id=verdict["container_id"], gap=gap)


def _wait_stopped(engine: Engine, container: str, timeout: float = 20.0) -> None:
    deadline = time.monotonic() + timeout
    while True:
        inspect = engine.find(container)
        if inspect is None or not inspect["State"]["Running"]:
            return
        if time.monotonic() >= deadline:
            raise MigrationError(
                "kill_failed", f"Docker still calls container {container[:12]} running {timeout:g} s after its end."
            )
        time.sleep(0.05)


def abort(session: Session, engine: Engine, *, destination_lost: bool = False) -> None:
    """Let the source go on as if nothing had happened. May be repeated until it went through.

    Only to be called when ABORT is decided, or when the destination has answered REFUSED, or when a person has declared it
    dead and fenced.
    """
    container = session.facts["container_id"]
    inspect = engine.find(container)
    policy = session.data("arming").get("policy")
    if inspect is not None and policy is not None:
        if session.happened_in_this_boot("arming"):
            _thaw(session, engine)
        # A reboot ends it, and so does a restart of dockerd without live-restore.
        if not engine.inspect(container)["State"]["Running"]:
            _bring_back(session, engine, inspect)
        if _spec.restart_policy(inspect) != policy:
            engine.set_restart_policy(container, policy)
        _forget_checkpoint(session, engine)
    session.enter("aborted", destination_lost=destination_lost)


def _thaw(session: Session, engine: Engine) -> None:
    container = session.facts["container_id"]
    group = TaskGroup(session.data("arming")["cgroup"])
    if not group.exists:
        return
    # Before the thaw: a SIGCONT takes back a SIGSTOP only as long as that has not been delivered.
    group.release(session.data("dumped").get("held", []))
    if engine.inspect(container)["State"]["Paused"]:
        engine.unpause(container)
    if group.exists and group.frozen:
        group.thaw()
    group.wait_frozen(False, FREEZE_TIMEOUT)


def _bring_back(session: Session, engine: Engine, inspect: Inspect) -> None:
    """A container that ended while it was frozen: from its own checkpoint where that is whole, else as Docker would start it.

    Only a checkpoint that was on the disk together with all files counts; memory beside older files corrupts.
    """
    container = session.facts["container_id"]
    if session.reached("dumped"):
        directory = _trees.checkpoint_directory(engine.info()["DockerRootDir"], container, session.id)
        with contextlib.suppress(MigrationError, OSError):
            manifest = _durable.read_json(session.path("manifest.json")) or {}
            _checkpoint_dir.verify(directory, manifest)
            size = _checkpoint_dir.total_bytes(manifest)
            try:
                engine.start(container, session.id, timeout=memory_timeout(size))
            finally:
                _checkpoint_dir.remove_leftovers(manifest)
            return
    if inspect["State"]["Status"] != "created":
        engine.start(container)


def _forget_checkpoint(session: Session, engine: Engine) -> None:
    """Delete the checkpoint, if need be behind the engine's back (experimental features may be off by now)."""
    container = session.facts["container_id"]
    with contextlib.suppress(MigrationError):
        engine.remove_checkpoint(container, session.id)
    directory = _trees.checkpoint_directory(engine.info()["DockerRootDir"], container, session.id)
    shutil.rmtree(directory, ignore_errors=True)


def farewell(session: Session) -> bool:
    """Tell the destination that this session is over for us; returns whether nobody waits for that any more."""
    if not os.path.exists(session.path("peer.json")):
        # The two never spoke.
        return True
    try:
        Channel(session).call("bye", timeout=60)
        return True
    except MigrationError:
        entry = session.reached("committed") or session.reached("aborted")
        # After its life nobody can come in with the key to ask.
        return entry is not None and time.time() - entry["time"] > KEY_LIFE_SECONDS


def close(session: Session) -> None:
    """End the session on this host: channel, watchdog and secrets go; the record stays."""
    with contextlib.suppress(MigrationError):
        Channel(session).hang_up()
    _watchdog.disarm(session.id)
    shutil.rmtree(session.memory_path("outbox"), ignore_errors=True)
    session.close(keep=True)


def ask(session: Session, timeout: float = 120.0) -> dict[str, t.Any]:
    """The destination's verdict, waited for until it is given or the time is up.

    :raises MigrationError: ``destination_unreachable`` or ``session_locked`` when there was none in time.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            return Channel(session).call("verdict", timeout=timeout)
        except MigrationError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(1)


def settle(session: Session, engine: Engine, *, timeout: float = 120.0, told: bool = False) -> str | None:
    """Bring a session to its end, whatever state it is in. The caller holds its lock.

    The container is where it belongs when this returns; the session itself stays open, in the watchdog's care, until the
    destination knows, so that nothing is left there either.

    :param timeout: seconds to wait for the destination's word, where that is needed.
    :param told: whether the destination's half has been closed by other means.
    :returns: ``RUN`` when the destination has the container, else ``ABORT``.
    :raises MigrationError: when it cannot be settled now (the destination's word is needed and cannot be had).
    """
    if session.ended:
        return RUN if session.reached("committed") else ABORT
    if not session.reached("committed") and not session.reached("aborted"):
        if session.decide(ABORT) == ABORT:
            abort(session, engine)
        else:
            verdict = ask(session, timeout)
            if verdict["decision"] == RUN:
                commit(session, engine, verdict)
            else:
                abort(session, engine)
    outcome = RUN if session.reached("committed") else ABORT
    if told or farewell(session):
        close(session)
    else:
        # Nothing is frozen any more; the watchdog says it again soon.
        session.renew()
    return outcome
