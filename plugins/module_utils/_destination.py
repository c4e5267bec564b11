# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""What a session does on the destination: make room, let content in, start the copy, prove it, or take everything away.

``RUN`` or ``REFUSED``, written once, is the word on which the source kills its copy or lets it go on.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import typing as t

from ansible_collections.livemigrate.criu.plugins.module_utils import (
    _agent_package,
    _channel,
    _channel_server,
    _checkpoint_dir,
    _criu_log,
    _durable,
    _host_files,
    _networks,
    _proof,
    _spec,
    _trees,
    _watchdog,
)
from ansible_collections.livemigrate.criu.plugins.module_utils._command import run, run_checked
from ansible_collections.livemigrate.criu.plugins.module_utils._engine import Engine, memory_timeout
from ansible_collections.livemigrate.criu.plugins.module_utils._errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._session import (
    DESTINATION,
    REFUSED,
    RUN,
    SOURCE,
    Session,
)
from ansible_collections.livemigrate.criu.plugins.module_utils._tasks import TaskGroup, group_of_id

# Host directories that no migration may write into, whatever a user names.
_SYSTEM_DIRECTORIES = frozenset(
    {
        *(
            "/",
            "/bin",
            "/boot",
            "/dev",
            "/etc",
            "/home",
            "/lib",
            "/lib64",
            "/proc",
            "/root",
            "/run",
            "/sbin",
            "/sys",
            "/usr",
        ),
        *("/tmp", "/var", "/var/lib", "/var/lib/docker", "/var/run"),  # noqa: S108
    }
)


# -- making room --------------------------------------------------------------------------------------------------


def open_session(
    session: str, facts: t.Mapping[str, t.Any], *, channel_user: str, public_key: str
) -> tuple[Session, list[str]]:
    """Begin the destination's half of a session and let the source's key in.

    :param facts: ``container_id``, ``container_name``, ``peer_name``, ``ancestry`` of the source's half.
    :returns: the session and this host's public host keys.
    """
    opened = Session.open(session, DESTINATION, dict(facts, channel_user=channel_user))
    try:
        agent = _agent_package.install(opened)
        inbox = opened.memory_path("inbox")
        os.makedirs(inbox, mode=0o700, exist_ok=True)
        _channel_server.set_targets(opened, {"inbox": inbox})
        _channel_server.authorise(opened, channel_user, public_key, agent)
        _watchdog.arm(opened.id, (*agent, "settle", opened.id))
        _agent_package.check(opened, agent)
    except BaseException:
        _channel_server.revoke(opened)
        _watchdog.disarm(opened.id)
        opened.close(keep=False)
        raise
    return opened, _channel_server.host_keys()


def read_spec(session: Session) -> dict[str, t.Any]:
    """What the source has sent about the container.

    :raises MigrationError: ``spec_missing``.
    """
    spec = _durable.read_json(session.memory_path("inbox", "spec.json"))
    if spec is None:
        raise MigrationError(
            "spec_missing", "The container's spec has not arrived on the destination.", session=session.id
        )
    return t.cast("dict[str, t.Any]", spec)


def image_state(session: Session, engine: Engine) -> str:
    """``present``, ``pulled`` (now, by digest) or ``missing``: then the source has to send it."""
    image = read_spec(session)["image"]
    if engine.find_image(image["id"]):
        return "present"
    for digest in image["digests"]:
        # Noted first: what a refusal has to take away again, however far this gets.
        _durable.write_json(session.path("image_brought.json"), {"id": image["id"], "tags": {}})
        if engine.pull(digest) and engine.find_image(image["id"]):
            return "pulled"
    return "missing"


def load_image(session: Session, engine: Engine, stream: t.BinaryIO) -> dict[str, t.Any]:
    """Take an image in from the channel; what is loaded but not the container's own image goes again.

    :raises MigrationError: ``image_load_failed``.
    """
    image = read_spec(session)["image"]
    # Noted first: what a refusal has to take away again, however far this gets, and what the tags pointed at before.
    tags = {tag: (engine.find_image(tag) or {}).get("Id") for tag in image["tags"]}
    _durable.write_json(session.path("image_brought.json"), {"id": image["id"], "tags": tags})
    said = engine.load_image(stream)
    if not engine.find_image(image["id"]):
        raise MigrationError(
            "image_load_failed",
            f"The image that was sent is not the container's image {image['id']}: {said or 'nothing was loaded'}",
        )
    return {"loaded": image["id"]}


def _own_past(session: Session) -> list[Session]:
    """Earlier sessions of this container that began on this host: what they left here is the container's own."""
    ancestors = set(session.facts.get("ancestry", []))
    return [
        earlier
        for earlier in Session.all()
        if earlier.role == SOURCE and earlier.reached("committed") and earlier.facts["container_id"] in ancestors
    ]


def _empty(path: str) -> None:
    """Remove what is in a directory, not the directory."""
    with contextlib.suppress(FileNotFoundError):
        for entry in os.scandir(path):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)


def _has_content(path: str) -> bool:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return bool(os.listdir(path))
    return os.path.exists(path)


def _check_binds(entries: t.Sequence[t.Mapping[str, t.Any]], own: t.Container[str], overwrite: bool) -> None:
    for entry in entries:
        path = os.path.normpath(entry["path"])
        if entry["travels"]:
            if path in _SYSTEM_DIRECTORIES or (os.path.exists(path) and not os.path.isdir(path)):
                raise MigrationError(
                    "bind_mount_refused",
                    f"{path} is a directory of the host itself, or no directory; a migration does not write there.",
                    path=path,
                )
            if _has_content(path) and path not in own and not overwrite:
                raise _foreign_data(f"directory {path}", path)
        elif not os.path.lexists(path):
            raise MigrationError(
                "bind_mount_missing",
                f"The container mounts {path} of its host at {entry['destination']}; that does not exist on the destination. "
                "Provide it there, or name it in migrate_bind_mounts to have its content moved.",
                path=path,
            )


def _foreign_data(what: str, name: str) -> MigrationError:
    return MigrationError(
        "foreign_data",
        f"The {what} on the destination has content that no earlier move of this container put there. Remove it, or set "
        "migrate_overwrite_data: true to have it replaced.",
        name=name,
    )


def _check_volume(
    engine: Engine, entry: t.Mapping[str, t.Any], own: t.Container[str], copies: t.Container[str], overwrite: bool
) -> bool:
    """Whether a volume has to be made; refuses one that is there and not ours to overwrite.

    :param copies: ids of the container's own old copies on this host, which may go on using it.
    """
    found = engine.find_volume(entry["name"])
    if found is None:
        return True
    if not entry["travels"]:
        return False
    users = [
        other["Names"][0].lstrip("/")
        for other in engine.containers({"volume": entry["name"]})
        if other["Id"] not in copies
    ]
    if users:
        raise MigrationError(
            "volume_in_use",
            f"Volume {entry['name']} on the destination is used by the container(s) {', '.join(users)} there. Remove them, or "
            "give them another volume.",
            volume=entry["name"],
        )
    if found.get("Driver") != "local" or (found.get("Options") or {}) != (entry["create"]["DriverOpts"] or {}):
        raise MigrationError(
            "volume_differs",
            f"The destination has a volume {entry['name']} of another kind (driver {found.get('Driver')}, options "
            f"{sorted(found.get('Options') or {})}).",
            volume=entry["name"],
        )
    if _has_content(found["Mountpoint"]) and entry["name"] not in own and not overwrite:
        raise _foreign_data(f"volume {entry['name']}", entry["name"])
    return False


def create(session: Session, engine: Engine, *, overwrite: bool = False) -> dict[str, t.Any]:
    """Make networks, volumes and the container, not started, and open their places to the channel.

    Everything that is made is noted before it is made, so that a refusal can take it away whatever happens in between.

    :param overwrite: whether content on the destination that is not the container's own may be replaced.
    :raises MigrationError: ``name_taken``, ``foreign_data``, ``bind_mount_missing``, ``init_missing``, ``mount_is_link``,
        ``create_failed`` ...
    """
    spec = read_spec(session)
    inspect = spec["inspect"]
    name = session.facts["container_name"]
    taken = engine.find(name)
    if taken is not None:
        raise MigrationError(
            "name_taken",
            f"The destination already has a container {name} (status {taken['State']['Status']}). Remove or rename it there.",
            container=name,
        )
    past = _own_past(session)
    own = {entry for earlier in past for entry in earlier.facts.get("volumes", [])}
    binds = [entry for entry in spec["volumes"] if entry["kind"] == "bind"]
    _check_binds(binds, own, overwrite)
    sources = {entry["destination"]: entry["path"] for entry in binds}
    init = _host_files.require_init(inspect, engine.info())
    _host_files.require_no_links({**sources, **({_host_files.INIT_PLACE: init} if init else {})})
    _creation(spec, engine)
    volumes = [entry for entry in spec["volumes"] if entry["kind"] == "volume"]
    copies = {earlier.facts["container_id"] for earlier in past}
    new_volumes = [entry for entry in volumes if _check_volume(engine, entry, own, copies, overwrite)]
    new_networks = _missing_networks(engine, spec)
    temporary = f"livemigrate-{session.id}"
    session.enter(
        "creating",
        name=temporary,
        volumes=[entry["name"] for entry in new_volumes],
        networks=[body["Name"] for body in new_networks],
        made_directories=[entry["path"] for entry in binds if entry["travels"] and not os.path.exists(entry["path"])],
        empty_directories=_empty_places(engine, spec),
    )
    for body in new_networks:
        engine.create_network(body)
    for entry in new_volumes:
        engine.create_volume(entry["create"])
    for entry in binds:
        if entry["travels"]:
            os.makedirs(entry["path"], exist_ok=True)
    plan = _creation(spec, engine)
    container = engine.create(temporary, plan["body"])
    for request in plan["endpoints_to_connect"]:
        engine.connect(request["network"], container, request["settings"])
    created = engine.inspect(container)
    _seed_layer(engine, past, created)
    targets = _targets(session, engine, created, spec)
    session.enter("created", container_id=container, policy=_spec.restart_policy(inspect))
    _channel_server.set_targets(session, targets)
    warnings = [f"{note['field']}: {note['why']}" for note in plan["changes"]]
    warnings += [f"{name}: unknown to this collection; carried over as it is." for name in plan["unknown_fields"]]
    return {"container_id": container, "created_volumes": [v["name"] for v in new_volumes], "notes": warnings}


def _empty_places(engine: Engine, spec: t.Mapping[str, t.Any]) -> list[str]:
    """Directories that are there and empty: a refusal empties them again."""
    places = []
    for entry in spec["volumes"]:
        if entry["travels"]:
            found = engine.find_volume(entry["name"]) if entry["kind"] == "volume" else {"Mountpoint": entry["path"]}
            if found and os.path.isdir(found["Mountpoint"]) and not _has_content(found["Mountpoint"]):
                places.append(found["Mountpoint"])
    return places


def _creation(spec: t.Mapping[str, t.Any], engine: Engine) -> _spec.CreationSpec:
    """What to ask of this host's engine.

    :raises MigrationError: ``cannot_recreate`` where its API cannot express all of it.
    """
    local = engine.find_image(spec["image"]["reference"])
    plan = _spec.creation_parameters(
        spec["inspect"],
        image_id=spec["image"]["id"],
        reference_image_id=local["Id"] if local else None,
        api_version=engine.api_version,
    )
    if plan["unsupported_fields"]:
        text = "; ".join(f"{note['field']}: {note['why']}" for note in plan["unsupported_fields"])
        raise MigrationError(
            "cannot_recreate",
            f"The destination's engine (API {engine.api_version}) cannot express all of the container: {text}",
        )
    return plan


def _missing_networks(engine: Engine, spec: t.Mapping[str, t.Any]) -> list[dict[str, t.Any]]:
    bodies = []
    wanted = {network.name: network for network in _spec.networks(spec["inspect"])}
    for network in spec["networks"]:
        body = _networks.creation_body(network)
        if body is None:
            continue
        found = engine.find_network(network["Name"])
        if found is None:
            bodies.append(body)
        else:
            endpoint = wanted[network["Name"]]
            _networks.require_fit(network, found, [a for a in (endpoint.ipv4_requested, endpoint.ipv6_requested) if a])
    return bodies


def _seed_layer(engine: Engine, past: t.Sequence[Session], created: t.Mapping[str, t.Any]) -> None:
    """Begin with the writable layer that the container left here when it went: only what changed since has to travel."""
    for earlier in reversed(past):
        old = engine.find(earlier.facts["container_id"])
        if old is not None and old["Image"] == created["Image"]:
            layer, target = _trees.layer(old), _trees.upper_directory(created)
            argv = ["rsync", *_channel.RSYNC_ARCHIVE, *layer.options, layer.path + "/", target + "/"]
            run_checked(run, argv, "seed_failed", "copy the layer of the old copy", timeout=3600)
            return


def _targets(
    session: Session,
    engine: Engine,
    created: t.Mapping[str, t.Any],
    spec: t.Mapping[str, t.Any],
) -> dict[str, str]:
    data_root = engine.info()["DockerRootDir"]
    checkpoint = _trees.checkpoint_directory(data_root, created["Id"], session.id)
    os.makedirs(checkpoint, mode=0o700, exist_ok=True)
    os.makedirs(_trees.incoming_log_directory(data_root, created["Id"]), mode=0o700, exist_ok=True)
    targets = {
        "inbox": session.memory_path("inbox"),
        "layer": _trees.upper_directory(created),
        "log": _trees.incoming_log_directory(data_root, created["Id"]),
        "checkpoint": checkpoint,
    }
    binds = 0
    for entry in spec["volumes"]:
        if entry["travels"] and entry["kind"] == "volume":
            found = engine.find_volume(entry["name"]) or {}
            targets[f"volume/{entry['name']}"] = found["Mountpoint"]
        elif entry["travels"]:
            targets[f"bind/{binds}"] = entry["path"]
            binds += 1
    return targets


# -- starting -----------------------------------------------------------------------------------------------------


def start(session: Session, engine: Engine) -> dict[str, t.Any]:
    """Restore the copy, prove that it is a restore, and decide RUN; on any failure take it away and decide REFUSED.

    :returns: ``container_id``, ``processes``, ``recognised``, ``seconds`` of the restore.
    :raises MigrationError: what went wrong; the session is REFUSED then, and nothing of it runs here.
    """
    try:
        return _start(session, engine)
    except BaseException as exc:
        reason = exc.message if isinstance(exc, MigrationError) else f"{type(exc).__name__}: {exc}"
        refuse(session, engine, reason)
        raise


def _start(session: Session, engine: Engine) -> dict[str, t.Any]:
    container = session.data("created")["container_id"]
    manifest = _durable.read_json(session.memory_path("inbox", "manifest.json"))
    source = _durable.read_json(session.memory_path("inbox", "fingerprints.json"))
    if manifest is None or source is None:
        raise MigrationError("checkpoint_incomplete", "The checkpoint's manifest has not arrived on the destination.")
    if session.decision is not None:
        raise MigrationError("already_refused", f"Session {session.id} was refused on the destination meanwhile.")
    # Names, sizes and hashes only: by them containerd's copies are recognised, after a reboot too.
    _durable.write_json(session.path("manifest.json"), manifest)
    data_root = engine.info()["DockerRootDir"]
    size = _checkpoint_dir.total_bytes(manifest)
    _require_space(data_root, 2 * size)
    _checkpoint_dir.verify(_trees.checkpoint_directory(data_root, container, session.id), manifest)
    _trees.adopt_log(data_root, session.facts["container_id"], container)
    engine.rename(container, session.facts["container_name"])
    session.enter("starting")
    began = time.monotonic()
    with _criu_log.told("restore_failed"):
        engine.start(container, session.id, timeout=memory_timeout(size))
    running_since = time.clock_gettime(time.CLOCK_BOOTTIME)
    seconds = time.monotonic() - began
    proof = _prove(engine, container, source)
    if session.decide(RUN) != RUN:
        raise MigrationError("already_refused", f"Session {session.id} was refused on the destination meanwhile.")
    session.enter("run", container_id=container, running_since=running_since)
    warnings = []
    try:
        finish(session, engine)
    except (MigrationError, OSError) as exc:
        # It runs here, for good; what is left to do is done again when the source says bye.
        warnings.append(f"The container runs here, but tidying up is not complete: {exc}")
    return {"container_id": container, "seconds": seconds, "warnings": warnings, **proof}


def _require_space(directory: str, needed: int) -> None:
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise MigrationError(
            "no_space",
            f"{directory} on the destination has {free >> 20} MiB left; restoring the checkpoint takes "
            f"{needed >> 20} MiB. Make room.",
            free=free,
            needed=needed,
        )


def _prove(engine: Engine, container: str, source: _proof.Fingerprints) -> dict[str, int]:
    inspect = engine.inspect(container)
    if not inspect["State"]["Running"]:
        state = inspect["State"]
        why = f"exit code {state.get('ExitCode')}" + (f", {state['Error']}" if state.get("Error") else "")
        raise MigrationError(
            "restored_copy_died",
            f"The restored container ended at once ({why}).",
        )
    return _proof.check(source, _proof.take(TaskGroup.of_container(inspect).pids()))


def finish(session: Session, engine: Engine) -> None:
    """What follows RUN: restart policy, no checkpoint left, the superseded old copy removed. May be repeated."""
    container = session.data("run")["container_id"]
    inspect = engine.find(container)
    if inspect is not None:
        policy = session.data("created")["policy"]
        if _spec.restart_policy(inspect) != policy:
            engine.set_restart_policy(container, policy)
        engine.remove_checkpoint(container, session.id)
        for earlier in _own_past(session):
            # Its memory is outdated and its volumes are the new copy's now.
            engine.remove(earlier.facts["container_id"])
    _remove_secrets(session)


def _remove_secrets(session: Session) -> None:
    """The container's spec, and containerd's copies of the checkpoint."""
    shutil.rmtree(session.memory_path("inbox"), ignore_errors=True)
    _checkpoint_dir.remove_leftovers(_durable.read_json(session.path("manifest.json")) or {})


# -- refusing -----------------------------------------------------------------------------------------------------


def refuse(session: Session, engine: Engine, reason: str) -> str:
    """Decide REFUSED unless RUN has been decided, and take away what this session made here. May be repeated.

    The word is written before the copy is taken away, and given out (see :func:`verdict`) only after: whoever reads
    REFUSED through the channel may thaw the source.

    :returns: the word that is in force.
    """
    if session.decide(REFUSED) == RUN:
        return RUN
    _channel_server.end_transfers(session)
    with contextlib.suppress(OSError):
        _remove_secrets(session)
    made = session.data("creating")
    if made:
        _remove_copy(engine, session.data("created").get("container_id") or made["name"])
        for volume in made["volumes"]:
            engine.remove_volume(volume)
        for network in made["networks"]:
            engine.remove_network(network)
        for directory in made["empty_directories"]:
            _empty(directory)
        for directory in made["made_directories"]:
            shutil.rmtree(directory, ignore_errors=True)
    _remove_image(session, engine)
    session.enter("refused", reason=reason)
    return REFUSED


def _remove_copy(engine: Engine, container: str) -> None:
    """Take the copy away and make sure, without taking Docker's word for it, that none of its tasks is left.

    :raises MigrationError: ``kill_failed``.
    """
    if len(container) == 64:
        # Also one that the engine is still restoring: it answers nothing about a container before that has ended.
        group = group_of_id(container)
        if group is not None:
            group.kill()
    found = engine.find(container)
    if found is None:
        return
    engine.remove(found["Id"])
    group = group_of_id(found["Id"])
    if group is not None:
        group.kill()
    if engine.find(found["Id"]) is not None:
        raise MigrationError(
            "kill_failed", "The restored copy cannot be removed from the destination.", container=found["Id"]
        )


def _remove_image(session: Session, engine: Engine) -> None:
    """Take away the image that this session brought; tags that belonged to another image go back to it."""
    brought = _durable.read_json(session.path("image_brought.json"))
    if not brought:
        return
    for tag, before in brought["tags"].items():
        now = engine.find_image(tag)
        if now is not None and now["Id"] == brought["id"] and before != brought["id"]:
            engine.remove_image(tag)
            if before:
                engine.tag_image(before, tag)
    if not any(before == brought["id"] for before in brought["tags"].values()):
        engine.remove_image(brought["id"])


# What a look at the copy may say that makes it no copy; anything else (an engine that does not answer) decides nothing.
_NO_COPY = frozenset(
    {"not_a_restore", "restored_copy_died", "container_not_found", "container_not_running", "process_gone"}
)


def _decide(session: Session, engine: Engine, reason: str) -> str:
    """RUN or REFUSED, decided now if it has not been. The caller holds the session's lock.

    A copy that was started and is running, and provably the source's, is RUN even if the step that started it was cut off
    before it could say so: it may have answered clients already. Everything else is REFUSED.

    :raises MigrationError: when it cannot be told now.
    """
    if session.phase == "starting" and session.decision is None and session.happened_in_this_boot("starting"):
        container = session.data("created")["container_id"]
        source = _durable.read_json(session.memory_path("inbox", "fingerprints.json")) or {}
        try:
            _prove(engine, container, source)
            session.decide(RUN)
        except MigrationError as exc:
            if exc.code not in _NO_COPY:
                raise
            reason = exc.message
    if session.decision == RUN:
        if session.phase == "starting":
            session.enter("run", container_id=session.data("created")["container_id"])
        return RUN
    return refuse(session, engine, session.data("refused").get("reason") or reason)


def verdict(session: Session, engine: Engine) -> dict[str, t.Any]:
    """The destination's word, decided now if it has not been.

    :returns: ``decision``, and for RUN ``container_id`` and ``running_for`` (seconds).
    """
    with session.locked():
        if _decide(session, engine, "the source gave up") == RUN:
            run = session.data("run")
            since = run.get("running_since")
            answer: dict[str, t.Any] = {"decision": RUN, "container_id": run["container_id"]}
            if since is not None and session.happened_in_this_boot("run"):
                answer["running_for"] = time.clock_gettime(time.CLOCK_BOOTTIME) - since
            return answer
        return {"decision": REFUSED, "reason": session.data("refused").get("reason")}


def bye(session: Session, engine: Engine) -> dict[str, t.Any]:
    """The source is done with this session: settle and close it."""
    with session.locked():
        settle(session, engine, heard=True)
    return {}


def settle(session: Session, engine: Engine, *, heard: bool = False) -> str | None:
    """Bring the destination's half to its end. The caller holds its lock.

    :param heard: whether the source knows the outcome. Until it does, a REFUSED stays here to be asked for, and the
        channel with it.
    :returns: ``RUN`` or ``REFUSED``.
    """
    if session.ended:
        return session.decision
    # A source that was never told that this host is ready can never have handed over: it has nothing to ask.
    may_ask = session.reached("created") is not None
    if _decide(session, engine, "nobody finished it") == RUN:
        finish(session, engine)
        _after_reboot(session, engine)
    if heard or not may_ask or _key_expired(session):
        close(session)
    else:
        _watchdog.disarm(session.id)
    return session.decision


def _key_expired(session: Session) -> bool:
    return time.time() - float(session.facts["opened"]) > _channel_server.KEY_LIFE_SECONDS


def _after_reboot(session: Session, engine: Engine) -> None:
    """A host that went down between RUN and the hand-over of the restart policy: do what Docker would have done."""
    if session.happened_in_this_boot("run"):
        return
    container = session.data("run")["container_id"]
    inspect = engine.find(container)
    if inspect is not None and not inspect["State"]["Running"]:
        policy = session.data("created")["policy"].get("Name")
        if policy in ("always", "unless-stopped", "on-failure"):
            engine.start(container)


def close(session: Session) -> None:
    """End the session on this host; a refused one leaves nothing, one that runs here leaves its record."""
    _channel_server.revoke(session)
    _watchdog.disarm(session.id)
    session.close(keep=session.decision == RUN)
