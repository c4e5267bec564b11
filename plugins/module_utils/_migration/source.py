# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""What a session does on the source: open, freeze, dump, hand over, and in the end kill the old copy or let it go on.

Each function is one step of the journal (see ``_session/session.py``) and may be repeated. Until ``GO_SENT`` is decided the
source may give up on its own; after it only the destination's answer counts.
"""

from __future__ import annotations

import contextlib
import os
import time
import typing as t

from .._base import durable, valid_names
from .._base.errors import MigrationError
from .._channel import client as channel_client
from .._channel import durable_content, tree
from .._channel.client import Channel
from .._channel.server import KEY_LIFE_SECONDS
from .._docker import directories, host_files
from .._docker import images as docker_images
from .._docker import volumes as docker_volumes
from .._docker.engine import Engine, memory_timeout
from .._docker.spec import networks as spec_networks
from .._engines import by_name as engines
from .._engines import connections, removed_names
from .._host import fingerprints as process_fingerprints
from .._host.boot import host_identity
from .._host.tasks import TaskGroup
from .._preflight.facts import container as facts_of_container
from .._session import agent_package, lineage, watchdog
from .._session.phases import ABORT, GO_SENT, RUN, SOURCE
from .._session.session import Session
from .._subjects.container import examine, old_copy, old_records, restart_policy
from .._subjects.container import trees as container_trees
from .._surroundings import surroundings as surroundings_module
from .._surroundings.side import Side
from . import destination, freeze, transfer

# How often the watchdog asks a destination that does not let this session in.
_REVOKED_SECONDS = 60.0

Inspect = dict[str, t.Any]


# -- opening ------------------------------------------------------------------------------------------------------


def open_session(
    engine: Engine,
    container: str,
    *,
    peer_name: str,
    engine_name: str,
    bind_mounts: t.Sequence[str],
    ignore_rules: t.Sequence[str] = (),
    agent: str,
) -> tuple[Session, str]:
    """Begin a session: claim the container, gather its spec, make the channel's key, start the watchdog.

    :param peer_name: what the playbook calls the destination, for people.
    :param bind_mounts: host paths of bind mounts whose content travels.
    :param ignore_rules: ids of rules of the preflight that the user does not heed.
    :param agent: the file of the agent that runs this, and will act for the session.
    :returns: the session and the channel's public key.
    :raises MigrationError: ``cannot_move`` with all findings; ``session_busy``; ``watchdog_failed`` ...
    """
    # What the move that brought it here has left to be done would else be done to a container that is being moved, or has been.
    destination.finish_arrival(engine, valid_names.container_name(container))
    inspect = examine.require_movable(engine, container, ignore_rules=ignore_rules)
    volumes = docker_volumes.of_container(engine, inspect, bind_mounts)
    name = inspect["Name"].lstrip("/")
    session = Session.open(
        valid_names.new_session_id(),
        SOURCE,
        {
            "container_id": inspect["Id"],
            "container_name": name,
            "peer_name": peer_name,
            "engine": engine_name,
            "data_root": engine.info()["DockerRootDir"],
            "ancestry": lineage.ancestry(inspect["Id"]),
            "volumes": [entry["name"] for entry in volumes if entry["travels"]],
            "ignore_rules": list(ignore_rules),
        },
    )
    try:
        session.keep_out_of_swap()
        public_key = channel_client.make_key(session)
        networks = [engine.find_network(endpoint.name) for endpoint in spec_networks.networks(inspect)]
        outbox = session.memory_path("outbox")
        os.makedirs(outbox, mode=0o700, exist_ok=True)
        durable.write_json(
            os.path.join(outbox, "spec.json"),
            {
                "inspect": inspect,
                "image": docker_images.describe(engine, inspect),
                "volumes": volumes,
                "networks": [network for network in networks if network],
                "ignore_rules": list(ignore_rules),
                "ancestry": session.facts["ancestry"],
                "real_places": host_files.real_places(
                    f"/proc/{inspect['State']['Pid']}/root",
                    [host_files.INIT_PLACE, *(entry["destination"] for entry in volumes)],
                ),
                # What the destination makes room for.
                "memory_bytes": facts_of_container.checkpoint_bytes(inspect),
            },
        )
        command = agent_package.install(session, agent)
        watchdog.arm(session.id, (*command, "settle", session.id))
        old_records.prune_beside(engine, session)
    except BaseException:
        watchdog.disarm(session.id)
        session.close(keep=False)
        raise
    return session, public_key


def probe(session: Session) -> dict[str, t.Any]:
    """A tiny word through the channel, before anything depends on it.

    :raises MigrationError: ``destination_unreachable``; ``same_host``; ``login_refused``; ``account_prints``.
    """
    try:
        answer = Channel(session).call("ping")
    except MigrationError as exc:
        if exc.code != "channel_revoked":
            raise
        # It is the first login of this session: nobody can have closed its other half.
        raise MigrationError(
            "login_refused",
            f"The SSH daemon refuses {exc.details['address']} with the key that was made for this migration. Usual causes are "
            "its settings (AllowUsers, AllowGroups, PermitRootLogin, AuthorizedKeysFile, a Match block), a locked account, or a "
            "home directory that others may write to; its log on the destination names the one (journalctl -u ssh -u sshd). Mend "
            "that, or name another account in migrate_channel_user.",
            **exc.details,
        ) from None
    if answer["host"] == host_identity():
        raise MigrationError("same_host", "Source and destination are the same host; nothing is to be moved.")
    return answer


def prepared(session: Session, engine: Engine, *, close_connections: bool) -> list[str]:
    """Note that the destination has made room, and what becomes of the container's connections.

    :param close_connections: see ``rules_network.connections_break``.
    :returns: what a person should know.
    :raises MigrationError: ``cannot_move``.
    """
    inspect = engine.inspect(session.facts["container_id"])
    keeps = engines.of(session).keeps_connections()
    plan, warnings = connections.make_plan(session, inspect, keeps=keeps, close_connections=close_connections)
    session.enter("prepared", **plan.as_data())
    side = _side(session, int(inspect["State"]["Pid"]), TaskGroup.of_container(inspect))
    durable.write_json(_surroundings_file(session), surroundings_module.look_ahead(side))
    return warnings


def look_last(session: Session) -> None:
    """The last look at the surroundings of a container that is about to be frozen."""
    path = _surroundings_file(session)
    arming = session.data("arming")
    side = _side(session, arming["pid"], TaskGroup(arming["cgroup"]))
    durable.write_json(path, surroundings_module.look_last(side, durable.read_json(path) or {}))


def _surroundings_file(session: Session) -> str:
    return session.memory_path("surroundings.json")


def _side(session: Session, init: int, group: TaskGroup) -> Side:
    """What topics of the surroundings are given of this host."""
    plan = connections.Plan.of(session)
    return Side(
        init,
        group,
        directories.container_directory(session.facts["data_root"], session.facts["container_id"]),
        own_network=plan.fence is not None,
        ignored=session.facts.get("ignore_rules", ()),
        keeps_connections=bool(plan.after.reachable),
    )


# -- dumping and sending ------------------------------------------------------------------------------------------


def dump(session: Session, engine: Engine) -> dict[str, t.Any]:
    """Dump the frozen container, and make sure that nothing can run it before we say so.

    :returns: ``bytes`` of the checkpoint, ``seconds`` the dump took, and what the engine tells more.
    """
    way = engines.of(session)
    started = time.monotonic()
    group = TaskGroup(session.data("arming")["cgroup"])
    ahead = durable.read_json(_surroundings_file(session)) or {}
    with surroundings_module.Reading(_side(session, session.data("arming")["pid"], group), ahead) as surroundings:
        told = way.dump(session, engine, group)
        dumped = time.monotonic()
        durable.write_json(session.memory_path("outbox", "surroundings.json"), surroundings.result())
    # CRIU thaws the cgroup while it works and freezes it again (runc leaves it as it was: paused).
    group.wait_frozen(True, freeze.FREEZE_TIMEOUT)
    removed_names.give(session, way.images(session), session.data("arming")["pid"], group.pids())
    held = group.hold()
    fingerprints = os.path.join(session.memory_path("outbox"), "fingerprints.json")
    durable.write_json(fingerprints, process_fingerprints.take(group.pids()))
    spec = durable.read_json(session.memory_path("outbox", "spec.json"))
    content = container_trees.content(spec["inspect"], session.facts["data_root"], spec["volumes"])
    size = way.seal(session, [one.path for one in content])
    session.enter("dumped", held=held, bytes=size)
    return {"bytes": size, "seconds": dumped - started, **told}


def send_checkpoint(session: Session, engine: Engine) -> int:
    """The last pass while everything stands still (engine ``api``): content, checkpoint, manifest; returns the bytes sent.

    All of it is on the destination's disk then. The checkpoint need not be, but lies on the same file system as the layer.
    """
    engines.require(session, engines.API)
    inspect = engine.inspect(session.facts["container_id"])
    checkpoint = tree.checkpoint(engines.of(session).images(session))
    inbox = tree.inbox(session.memory_path("outbox"))
    content = transfer.changed(session, transfer.content_trees(session, inspect))
    memory_seconds = memory_timeout(session.data("dumped")["bytes"])
    sent = durable_content.send(
        session,
        lambda: transfer.send_frozen(session, [checkpoint, *content, inbox], memory_seconds=memory_seconds),
        seconds=durable_content.FROZEN_SECONDS + memory_seconds,
    )
    removed_names.take_back(session)
    session.enter("sent", bytes=sent)
    return sent


def go(session: Session) -> None:
    """Decide that the destination may run it. From here on the source waits for the destination's word.

    :raises MigrationError: ``already_aborted``; ``source_thawed`` when the frozen tasks are not as they were dumped.
    """
    last = "held" if session.facts["engine"] == engines.RUNTIME else "sent"
    group = TaskGroup(session.data("arming")["cgroup"])
    if session.phase == last and not group.still_held(session.data("dumped")["held"]):
        raise MigrationError(
            "source_thawed",
            "Somebody has thawed the container since it was dumped (docker unpause, a restart of the engine?). Its checkpoint "
            "is not used; the container goes on here.",
        )
    if session.phase != last or session.decide(GO_SENT) != GO_SENT:
        raise MigrationError(
            "already_aborted", f"Session {session.id} has been aborted meanwhile.", phase=session.phase
        )


# -- the end ------------------------------------------------------------------------------------------------------


def commit(session: Session, engine: Engine, verdict: t.Mapping[str, t.Any]) -> None:
    """The destination runs it: kill the old copy without letting it run again, and keep what is left under another name.

    :param verdict: the destination's answer, see ``destination.verdict``.
    """
    # Before anything else: "running_for" counts until the answer.
    heard = freeze.now()
    container = session.facts["container_id"]
    inspect = engine.find(container)
    if inspect is not None:
        if session.happened_in_this_boot("arming"):
            # Clients wait to be told that their connections are over. If that fails, the old copy is ended all the same.
            with contextlib.suppress(MigrationError, OSError, ValueError):
                connections.tell_clients(connections.Plan.of(session))
        old_copy.end(session, engine, inspect)
    # Also where somebody has removed the container: its memory must not stay.
    engines.of(session).forget(session, engine)
    gap = None
    if session.happened_in_this_boot("freezing") and verdict.get("running_for") is not None:
        gap = heard - session.data("freezing")["at"] - float(verdict["running_for"])
    session.enter("committed", destination_container_id=verdict["container_id"], gap=gap)


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
            freeze.thaw(session, engine)
        old_copy.give_name_back(session, engine, inspect)
        # Before the look: what ends the container from here on (a restart of dockerd) starts it again by this policy.
        restart_policy.put(session, engine, container, inspect, policy)
        # A reboot ends it, and so does a restart of dockerd without live-restore.
        if not engine.inspect(container)["State"]["Running"]:
            _bring_back(session, engine, inspect)
    if policy is not None:
        engines.of(session).forget(session, engine)
    session.enter("aborted", destination_lost=destination_lost)


def abort_without_engine(session: Session, timeout: float) -> None:
    """What of an abort cannot wait for the engine of this host, which does not answer: the service goes on, if it may.

    :param timeout: seconds to wait for the destination's word, where that is needed.
    :raises MigrationError: when that word cannot be had now, or says RUN.
    """
    if session.reached("committed") or session.reached("aborted") or not session.happened_in_this_boot("arming"):
        return
    if not os.path.isdir(session.data("arming").get("cgroup") or ""):
        # What has ended has nothing to go on with.
        return
    if session.decide(ABORT) == ABORT or _ask_seldom(session, timeout)["decision"] != RUN:
        freeze.thaw_tasks(session)


def _bring_back(session: Session, engine: Engine, inspect: Inspect) -> None:
    """A container that ended while it was frozen: from its own checkpoint where that is whole, else as Docker would start it."""
    if not engines.of(session).bring_back(session, engine) and inspect["State"]["Status"] != "created":
        engine.start(session.facts["container_id"])


def farewell(session: Session) -> bool:
    """Tell the destination that this session is over for us; returns whether nobody waits for that any more."""
    if not os.path.exists(session.path("peer.json")):
        # The two never spoke.
        return True
    try:
        Channel(session).call("bye", timeout=60)
        return True
    except MigrationError as exc:
        if exc.code == "channel_revoked":
            # It had heard us before, and this half was cut off before it could note that.
            return True
        entry = session.reached("committed") or session.reached("aborted")
        # After its life nobody can come in with the key to ask.
        return entry is not None and time.time() - entry["time"] > KEY_LIFE_SECONDS


def close(session: Session) -> None:
    """End the session on this host: channel, secrets and watchdog go; the record stays.

    The watchdog goes last: it finishes what is cut off before.
    """
    with contextlib.suppress(MigrationError):
        Channel(session).hang_up()
    session.close(keep=True)
    watchdog.disarm(session.id)


def ask(session: Session, timeout: float = 120.0) -> dict[str, t.Any]:
    """The destination's verdict, waited for until it is given or the time is up.

    :raises MigrationError: ``destination_unreachable`` or ``session_locked`` when there was none in time; ``channel_revoked`` or
        ``channel_closed`` at once, where waiting does not help.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            return Channel(session).call("verdict", timeout=timeout)
        except MigrationError as exc:
            if exc.code in ("channel_revoked", "channel_closed") or time.monotonic() >= deadline:
                raise
            time.sleep(1)


def _ask_seldom(session: Session, timeout: float) -> dict[str, t.Any]:
    """:func:`ask`, and have the watchdog wait for a minute where the destination does not let this session in.

    Its SSH daemon counts failed logins against this host's address: by 5 seconds each, from 15 on it takes no connection from it
    (PerSourcePenalties, OpenSSH 9.8 and newer). Other migrations, and whatever else this host wants there, would be cut off.

    :raises MigrationError: as :func:`ask` does.
    """
    try:
        return ask(session, timeout)
    except MigrationError as exc:
        if exc.code == "channel_revoked":
            session.rest(_REVOKED_SECONDS)
        raise


def settle(
    session: Session,
    engine: Engine,
    *,
    timeout: float = 120.0,
    told: bool = False,
    word: t.Mapping[str, t.Any] | None = None,
) -> str | None:
    """Bring a session to its end, whatever state it is in. The caller holds its lock.

    The container is where it belongs when this returns; the session itself stays open, in the watchdog's care, until the
    destination knows, so that nothing is left there either.

    :param timeout: seconds to wait for the destination's word, where that is needed.
    :param told: whether the destination's half has been closed by other means.
    :param word: the destination's word, where somebody has brought it by another way than the channel; it is not asked then.
    :returns: ``RUN`` when the destination has the container, else ``ABORT``.
    :raises MigrationError: when it cannot be settled now (the destination's word is needed and cannot be had).
    """
    if session.ended:
        return RUN if session.reached("committed") else ABORT
    if not session.reached("committed") and not session.reached("aborted"):
        if session.decide(ABORT) == ABORT:
            abort(session, engine)
        else:
            verdict = word or _ask_seldom(session, timeout)
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
