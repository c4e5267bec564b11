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
    _channel_server,
    _checkpoint_dir,
    _durable,
    _networks,
    _proof,
    _spec,
    _trees,
    _watchdog,
)
from ansible_collections.livemigrate.criu.plugins.module_utils._engine import Engine
from ansible_collections.livemigrate.criu.plugins.module_utils._errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._session import (
    DESTINATION,
    REFUSED,
    RUN,
    SOURCE,
    Session,
)
from ansible_collections.livemigrate.criu.plugins.module_utils._tasks import TaskGroup

# containerd unpacks a checkpoint here for every restore and never deletes it (containerd#10166): process memory on a disk.
_LEFTOVER_ROOT = "/tmp"  # noqa: S108 (containerd's choice, not ours)
_LEFTOVER_PREFIX = "ctrd-checkpoint"

# Host directories that no migration may write into, whatever a user names.
_SYSTEM_DIRECTORIES = frozenset(
    "/ /bin /boot /dev /etc /home /lib /lib64 /proc /root /run /sbin /sys /tmp /usr /var /var/lib /var/lib/docker /var/run".split()
)


# -- making room --------------------------------------------------------------------------------------------------


def open_session(
    session: str, facts: t.Mapping[str, t.Any], *, channel_user: str, public_key: str
) -> t.Tuple[Session, t.List[str]]:
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
    except BaseException:
        _channel_server.revoke(opened)
        _watchdog.disarm(opened.id)
        opened.close(keep=False)
        raise
    return opened, _channel_server.host_keys()


def read_spec(session: Session) -> t.Dict[str, t.Any]:
    """What the source has sent about the container.

    :raises MigrationError: ``spec_missing``.
    """
    spec = _durable.read_json(session.memory_path("inbox", "spec.json"))
    if spec is None:
        raise MigrationError("spec_missing", "The container's spec has not arrived on the destination.", session=session.id)
    return t.cast("t.Dict[str, t.Any]", spec)


def image_state(session: Session, engine: Engine) -> str:
    """``present``, ``pulled`` (now, by digest) or ``missing``: then the source has to send it."""
    image = read_spec(session)["image"]
    if engine.find_image(image["id"]):
        return "present"
    for digest in image["digests"]:
        if engine.pull(digest) and engine.find_image(image["id"]):
            return "pulled"
    return "missing"


def load_image(session: Session, engine: Engine, stream: t.BinaryIO) -> t.Dict[str, t.Any]:
    """Take an image in from the channel; what is loaded but not the container's own image goes again.

    :raises MigrationError: ``image_load_failed``.
    """
    image = read_spec(session)["image"]
    # Noted first: what a refusal has to take away again, however far this gets.
    _durable.write_json(session.path("image_sent.json"), {"id": image["id"], "tags": image["tags"]})
    said = engine.load_image(stream)
    if not engine.find_image(image["id"]):
        raise MigrationError(
            "image_load_failed", f"The image that was sent is not the container's image {image['id']}: {said or 'nothing was loaded'}"
        )
    return {"loaded": image["id"]}


def _own_past(session: Session) -> t.List[Session]:
    """Earlier sessions of this container that began on this host: what they left here is the container's own."""
    ancestors = set(session.facts.get("ancestry", []))
    return [
        earlier
        for earlier in Session.all()
        if earlier.role == SOURCE and earlier.reached("committed") and earlier.facts["container_id"] in ancestors
    ]


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


def _check_volume(engine: Engine, entry: t.Mapping[str, t.Any], own: t.Container[str], overwrite: bool) -> bool:
    """Whether a volume has to be made; refuses one that is there and not ours to overwrite."""
    found = engine.find_volume(entry["name"])
    if found is None:
        return True
    if not entry["travels"]:
        return False
    users = [other["Names"][0].lstrip("/") for other in engine.containers({"volume": entry["name"]}, running=True)]
    if users:
        raise MigrationError(
            "volume_in_use",
            f"Volume {entry['name']} on the destination is used by the running container(s) {', '.join(users)}.",
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


def create(session: Session, engine: Engine, *, overwrite: bool = False) -> t.Dict[str, t.Any]:
    """Make networks, volumes and the container, not started, and open their places to the channel.

    Everything that is made is noted before it is made, so that a refusal can take it away whatever happens in between.

    :param overwrite: whether content on the destination that is not the container's own may be replaced.
    :raises MigrationError: ``name_taken``, ``foreign_data``, ``bind_mount_missing``, ``create_failed`` ...
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
    _creation(spec, engine)
    volumes = [entry for entry in spec["volumes"] if entry["kind"] == "volume"]
    new_volumes = [entry for entry in volumes if _check_volume(engine, entry, own, overwrite)]
    new_networks = _missing_networks(engine, spec)
    temporary = f"livemigrate-{session.id}"
    session.enter(
        "creating",
        name=temporary,
        volumes=[entry["name"] for entry in new_volumes],
        networks=[body["Name"] for body in new_networks],
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
    targets = _targets(session, engine, created, spec, past)
    session.enter("created", container_id=container, policy=inspect["HostConfig"]["RestartPolicy"])
    _channel_server.set_targets(session, targets)
    warnings = [f"{note['field']}: {note['why']}" for note in plan["changes"]]
    warnings += [f"{name}: unknown to this collection; carried over as it is." for name in plan["unknown_fields"]]
    return {"container_id": container, "created_volumes": [v["name"] for v in new_volumes], "notes": warnings}


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
            "cannot_recreate", f"The destination's engine (API {engine.api_version}) cannot express all of the container: {text}"
        )
    return plan


def _missing_networks(engine: Engine, spec: t.Mapping[str, t.Any]) -> t.List[t.Dict[str, t.Any]]:
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


def _targets(
    session: Session, engine: Engine, created: t.Mapping[str, t.Any], spec: t.Mapping[str, t.Any], past: t.Sequence[Session]
) -> t.Dict[str, str]:
    data_root = engine.info()["DockerRootDir"]
    checkpoint = _trees.checkpoint_directory(data_root, created["Id"], session.id)
    os.makedirs(checkpoint, mode=0o700, exist_ok=True)
    targets = {
        "inbox": session.memory_path("inbox"),
        "layer": _trees.upper_directory(created),
        "log": _trees.container_directory(data_root, created["Id"]),
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


def start(session: Session, engine: Engine) -> t.Dict[str, t.Any]:
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


def _start(session: Session, engine: Engine) -> t.Dict[str, t.Any]:
    container = session.data("created")["container_id"]
    manifest = _durable.read_json(session.memory_path("inbox", "manifest.json"))
    source = _durable.read_json(session.memory_path("inbox", "fingerprints.json"))
    if manifest is None or source is None:
        raise MigrationError("checkpoint_incomplete", "The checkpoint's manifest has not arrived on the destination.")
    if session.decision is not None:
        raise MigrationError("already_refused", f"Session {session.id} was refused on the destination meanwhile.")
    data_root = engine.info()["DockerRootDir"]
    _checkpoint_dir.verify(_trees.checkpoint_directory(data_root, container, session.id), manifest)
    _trees.adopt_log(_trees.container_directory(data_root, container), session.facts["container_id"], container)
    engine.rename(container, session.facts["container_name"])
    session.enter("starting")
    began = time.monotonic()
    engine.start(container, session.id)
    running_since = time.clock_gettime(time.CLOCK_BOOTTIME)
    seconds = time.monotonic() - began
    proof = _prove(engine, container, source)
    if session.decide(RUN) != RUN:
        raise MigrationError("already_refused", f"Session {session.id} was refused on the destination meanwhile.")
    session.enter("run", container_id=container, running_since=running_since)
    finish(session, engine)
    return {"container_id": container, "seconds": seconds, **proof}


def _prove(engine: Engine, container: str, source: _proof.Fingerprints) -> t.Dict[str, int]:
    inspect = engine.inspect(container)
    if not inspect["State"]["Running"]:
        state = inspect["State"]
        raise MigrationError(
            "restored_copy_died",
            f"The restored container ended at once (exit code {state.get('ExitCode')}{', ' + state['Error'] if state.get('Error') else ''}).",
        )
    return _proof.check(source, _proof.take(TaskGroup.of_container(inspect).pids()))


def finish(session: Session, engine: Engine) -> None:
    """What follows RUN: restart policy, no checkpoint left, the superseded old copy removed. May be repeated."""
    container = session.data("run")["container_id"]
    inspect = engine.find(container)
    if inspect is not None:
        policy = session.data("created")["policy"]
        if inspect["HostConfig"]["RestartPolicy"] != policy:
            engine.set_restart_policy(container, policy)
        engine.remove_checkpoint(container, session.id)
        for earlier in _own_past(session):
            # Its memory is outdated and its volumes are the new copy's now.
            engine.remove(earlier.facts["container_id"])
    remove_leftovers(session)


def remove_leftovers(session: Session) -> None:
    """Delete containerd's copies of THIS checkpoint: those whose inventory is the one of our manifest."""
    manifest = _durable.read_json(session.memory_path("inbox", "manifest.json")) or {}
    with contextlib.suppress(FileNotFoundError):
        for entry in os.listdir(_LEFTOVER_ROOT):
            path = os.path.join(_LEFTOVER_ROOT, entry)
            if not entry.startswith(_LEFTOVER_PREFIX) or os.path.islink(path) or not os.path.isdir(path):
                continue
            status = os.stat(path)
            with contextlib.suppress(MigrationError):
                if status.st_uid == 0 and status.st_mode & 0o077 == 0 and manifest:
                    _checkpoint_dir.verify(path, manifest)
                    shutil.rmtree(path)


# -- refusing -----------------------------------------------------------------------------------------------------


def refuse(session: Session, engine: Engine, reason: str) -> str:
    """Decide REFUSED unless RUN has been decided, and take away what this session made here. May be repeated.

    The word is written before the copy is taken away, and given out (see :func:`verdict`) only after: whoever reads
    REFUSED through the channel may thaw the source.

    :returns: the word that is in force.
    """
    if session.decide(REFUSED) == RUN:
        return RUN
    with contextlib.suppress(MigrationError):
        remove_leftovers(session)
    made = session.data("creating")
    if made:
        for container in {session.data("created").get("container_id") or made["name"], made["name"]}:
            found = engine.find(container)
            if found is not None:
                if found["State"]["Running"]:
                    TaskGroup.of_container(found).kill()
                engine.remove(found["Id"])
                if engine.find(found["Id"]) is not None:
                    raise MigrationError("kill_failed", "The restored copy cannot be removed from the destination.")
        for volume in made["volumes"]:
            engine.remove_volume(volume)
        for network in made["networks"]:
            engine.remove_network(network)
    image = _durable.read_json(session.path("image_sent.json"))
    if image:
        for reference in (*image["tags"], image["id"]):
            engine.remove_image(reference)
    session.enter("refused", reason=reason)
    return REFUSED


def verdict(session: Session, engine: Engine) -> t.Dict[str, t.Any]:
    """RUN or REFUSED, decided now if it has not been.

    A copy that was started and is running, and provably the source's, is RUN even if the step that started it was cut off
    before it could say so: it may have answered clients already. Everything else is REFUSED.

    :returns: ``decision``, and for RUN ``container_id`` and ``running_for`` (seconds).
    """
    with session.locked():
        if session.phase == "starting" and session.decision is None and session.happened_in_this_boot("starting"):
            container = session.data("created")["container_id"]
            source = _durable.read_json(session.memory_path("inbox", "fingerprints.json")) or {}
            with contextlib.suppress(MigrationError):
                _prove(engine, container, source)
                session.decide(RUN)
        if session.decision == RUN:
            if session.phase == "starting":
                session.enter("run", container_id=session.data("created")["container_id"])
            run = session.data("run")
            since = run.get("running_since")
            answer: t.Dict[str, t.Any] = {"decision": RUN, "container_id": run["container_id"]}
            if since is not None and session.happened_in_this_boot("run"):
                answer["running_for"] = time.clock_gettime(time.CLOCK_BOOTTIME) - since
            return answer
        refuse(session, engine, "the source gave up")
        return {"decision": REFUSED, "reason": session.data("refused").get("reason")}


def bye(session: Session, engine: Engine) -> t.Dict[str, t.Any]:
    """The source is done with this session: settle and close it."""
    with session.locked():
        settle(session, engine, heard=True)
    return {}


def settle(session: Session, engine: Engine, *, heard: bool = False) -> t.Optional[str]:
    """Bring the destination's half to its end. The caller holds its lock.

    :param heard: whether the source knows the outcome. Until it does, a REFUSED stays here to be asked for, and the
        channel with it.
    :returns: ``RUN`` or ``REFUSED``.
    """
    if session.ended:
        return session.decision
    if session.decision == RUN:
        if session.phase == "starting":
            session.enter("run", container_id=session.data("created")["container_id"])
        finish(session, engine)
        _after_reboot(session, engine)
    else:
        refuse(session, engine, session.data("refused").get("reason") or "nobody finished it")
    outcome = session.decision
    if heard:
        close(session)
    else:
        _watchdog.disarm(session.id)
    return outcome


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
    shutil.rmtree(session.memory_path("inbox"), ignore_errors=True)
    session.close(keep=session.decision == RUN)
