# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Making what the container needs on the destination: its image, networks and volumes, and the container itself, not
started."""

from __future__ import annotations

import contextlib
import os
import typing as t

from ..._base import durable
from ..._base.command import run, run_checked
from ..._base.errors import MigrationError
from ..._channel import client as channel_client
from ..._channel import durable_content
from ..._channel import server as channel_server
from ..._docker import directories as directories_module
from ..._docker import host_files, image_stream
from ..._docker import images as docker_images
from ..._docker import networks as docker_networks
from ..._docker import volumes as docker_volumes
from ..._docker.engine import Engine
from ..._docker.spec import create as spec_create
from ..._docker.spec import networks as spec_networks
from ..._engines import bound_files
from ..._engines import by_name as engines
from ..._host.flush import Flush
from ..._preflight import judge as preflight_judge
from ..._preflight.facts import container as facts_of_container
from ..._preflight.facts import destination as facts_of_destination
from ..._preflight.finding import ERROR, Case, Settings, findings
from ..._preflight.rules import container as rules_container
from ..._session import arrivals, lineage
from ..._session.session import Session
from . import made_places, old_records, parents, trees

# What a copy would have to be made on top of, or into: that is refused here whatever rules a user ignores.
_NEVER_IGNORED = (
    *("name_taken", "foreign_data", "volume_used_there", "volume_differs", "bind_mount_refused", "bind_used_there"),
    "old_copy_in_use",
)


def read_spec(session: Session) -> dict[str, t.Any]:
    """Read the description of the container that the source has sent.

    :raises MigrationError: ``spec_missing``.
    """
    spec = durable.read_json(session.memory_path("inbox", "spec.json"))
    if spec is None:
        raise MigrationError(
            "spec_missing", "The container's spec has not arrived on the destination.", session=session.id
        )
    return t.cast("dict[str, t.Any]", spec)


def image_state(session: Session, engine: Engine) -> str:
    """``present``, ``pulled`` (now, by digest) or ``missing``: then the source has to send it."""
    image = read_spec(session)["image"]
    if docker_images.find(engine, image):
        return "present"
    for digest in image["digests"]:
        # Noted first: what a refusal has to take away again, however far this gets. What was sent and then removed has been
        # noted with more.
        if not os.path.exists(session.path("image_brought.json")):
            durable.write_json(session.path("image_brought.json"), {"image": image, "tags": {}})
        if engine.pull(digest) and docker_images.find(engine, image):
            return "pulled"
    return "missing"


def load_image(session: Session, engine: Engine, stream: image_stream.Stream) -> dict[str, t.Any]:
    """Load the container's image from the channel, and nothing else. The caller holds the session's lock.

    When the image is here already, nothing is loaded: a look afterwards could not show whether the stream held that image or
    another one.

    :param stream: what ``docker save`` wrote.
    :raises MigrationError: ``image_load_failed``; ``channel_refused`` in a phase in which no image may come.
    """
    if session.phase != "opened" or session.decision is not None:
        raise MigrationError("channel_refused", f"Session {session.id} takes no image in phase {session.phase}.")
    image = read_spec(session)["image"]
    there = docker_images.find(engine, image)
    if there is not None:
        # Whoever has brought it, it was not this session, which has not to take it away again.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(session.path("image_brought.json"))
        return {"loaded": there["Id"]}
    # Noted first: what a refusal has to take away again, however far this gets, and what the tags pointed at before.
    tags = {tag: (engine.find_image(tag) or {}).get("Id") for tag in image["tags"]}
    kept = docker_images.last_names(engine, tags, session.id)
    durable.write_json(session.path("image_brought.json"), {"image": image, "tags": tags, "kept": kept})
    for before, name in kept.items():
        engine.tag_image(before, name)
    output = engine.load_image(image_stream.only(stream, image))
    loaded = docker_images.find(engine, image)
    if loaded is None or any((engine.find_image(tag) or {}).get("Id") != loaded["Id"] for tag in tags):
        _put_names_back(engine, tags)
        raise MigrationError(
            "image_load_failed",
            f"The image that was sent is not the container's image {image['id']}: {output or 'nothing was loaded'}",
        )
    return {"loaded": loaded["Id"]}


def _put_names_back(engine: Engine, tags: t.Mapping[str, str | None]) -> None:
    """Give names back to the images that had them before: another image than the container's has come under them."""
    for tag, before in tags.items():
        now = engine.find_image(tag)
        if now is not None and now["Id"] != before:
            engine.remove_image(tag)
            if before:
                engine.tag_image(before, tag)


def own_past(session: Session) -> list[Session]:
    """Earlier sessions that moved this container away from this host: what they left here belongs to the container."""
    return lineage.past_of(session.facts.get("ancestry", []))


def _require_free(session: Session, engine: Engine, spec: t.Mapping[str, t.Any], overwrite: bool) -> dict[str, t.Any]:
    """Refuse what this host cannot give the container, by the same rules as the preflight, which may have looked a while ago.

    :raises MigrationError: its code is the id of the first rule that has a finding; its message has all findings.
    """
    wanted = facts_of_container.of_spec(spec, session.facts["container_name"], session.facts.get("ancestry", []))
    there = facts_of_destination.gather(engine, wanted, session=session.id)
    settings = Settings(engine=session.facts.get("engine", engines.API), overwrite_data=overwrite)
    ignored = set(spec.get("ignore_rules", ())) - set(_NEVER_IGNORED)
    rules = [rule for rule in preflight_judge.rules() if rule.severity == ERROR and "there" in rule.needs]
    found = findings(Case(container=wanted, there=there, settings=settings), ignored, rules)
    if found:
        text = " ".join(f"{one.message} {one.remedy}" for one in found)
        raise MigrationError(found[0].rule, text, findings=[one._asdict() for one in found])
    return there


def create(session: Session, engine: Engine, *, overwrite: bool = False) -> dict[str, t.Any]:
    """Make networks, volumes and the container, not started, and open their places to the channel.

    Everything that is made is noted before it is made, so that a refusal can take it away whatever happens in between.

    :param overwrite: whether content on the destination that is not the container's own may be replaced.
    :raises MigrationError: ``name_taken``, ``foreign_data``, ``bind_mount_missing``, ``init_missing``, ``mount_is_link``,
        ``create_failed`` ...
    """
    spec = read_spec(session)
    inspect = spec["inspect"]
    # Before the others wait: it may take a moment.
    old_records.prune_beside(engine, session)
    past = own_past(session)
    # No other session finds these places free between the look at them and the note.
    with arrivals.in_turns(session):
        there = _require_free(session, engine, spec, overwrite)
        links = _links(spec, there)
        # Now, while nothing has been made yet, and not a second time when it has.
        plan = _creation(session, spec, engine)
        volumes = [entry for entry in spec["volumes"] if entry["kind"] == "volume"]
        new_volumes = [entry for entry in volumes if there["volumes"][entry["name"]] is None]
        new_networks = _missing_networks(spec, there)
        temporary = f"livemigrate-{session.id}"
        directories = made_places.missing_directories(_binds(spec))
        noted = {arrivals.NOTED: _arrives_in(engine, spec)}
        session.enter(
            "creating",
            name=temporary,
            volumes=[entry["name"] for entry in new_volumes],
            networks=[body["Name"] for body in new_networks],
            made_directories=directories,
            empty_directories=made_places.empty_places(engine, spec),
            files=_arrivals(session, spec),
            **noted,
        )
    for body in new_networks:
        engine.create_network(body)
    made_volumes = {
        entry["name"]: durable.lasting_identity(engine.create_volume(entry["create"]).get("Mountpoint") or "")
        for entry in new_volumes
    }
    made_directories = made_places.make_directories(directories)
    _make_bound_places(session, spec)
    parents.give(directories, made_directories, spec.get("parents", {}))
    container = engine.create(temporary, plan["body"])
    # At once: a copy that is not marked could be started afresh by anybody.
    checkpoint = engines.functions_of(session).receive(session, container)
    for request in plan["endpoints_to_connect"]:
        engine.connect(request["network"], container, request["settings"])
    created = engine.inspect(container)
    _seed_layer(engine, past, created)
    targets = _targets(session, engine, created, spec, checkpoint)
    session.enter(
        "created",
        container_id=container,
        policy=spec_create.restart_policy(inspect),
        addresses=_addresses_of(engine, inspect, created),
        links=links,
        # Before anything is sent: only of what is noted here a refusal removes the content.
        made_directories=made_directories,
        made_volumes=made_volumes,
    )
    own = [name for name, path in targets.items() if bound_files.is_arrival(path)]
    channel_server.set_targets(session, targets, own)
    engines.functions_of(session).arm(session, engine)
    warnings = [f"{note['field']}: {note['why']}" for note in plan["changes"]]
    warnings += [f"{name}: unknown to this collection; carried over as it is." for name in plan["unknown_fields"]]
    return {"container_id": container, "created_volumes": [v["name"] for v in new_volumes], "notes": warnings}


def _arrives_in(engine: Engine, spec: t.Mapping[str, t.Any]) -> dict[str, list[str]]:
    """The places into which content is going to come."""
    names = [entry["name"] for entry in spec["volumes"] if entry["travels"] and entry["kind"] == "volume"]
    paths = [entry["path"] for entry in _binds(spec) if entry["travels"]]
    lie = ((engine.find_volume(name) or {}).get("Mountpoint") for name in names)
    return arrivals.places(names, [*paths, *(path for path in lie if path)])


def _binds(spec: t.Mapping[str, t.Any]) -> list[t.Mapping[str, t.Any]]:
    return [entry for entry in spec["volumes"] if entry["kind"] == "bind"]


def _links(spec: t.Mapping[str, t.Any], there: t.Mapping[str, t.Any]) -> dict[str, str]:
    """The mounts whose source on this host is a symbolic link."""
    sources = {entry["destination"]: entry["path"] for entry in _binds(spec)}
    if spec["inspect"]["HostConfig"].get("Init") and there["init"]:
        sources[host_files.INIT_PLACE] = there["init"]
    return host_files.links(sources, spec.get("real_places", {}))


def _arrivals(session: Session, spec: t.Mapping[str, t.Any]) -> list[dict[str, t.Any]]:
    """What is to be noted of each file that is mounted by itself, before its place is made."""
    return [
        {
            "path": path,
            "arrival": bound_files.arrival(session, number, path),
            "made": not os.path.lexists(path),
            "around": durable.identity(os.path.dirname(path)),
        }
        for number, path in _files(spec)
    ]


def _make_bound_places(session: Session, spec: t.Mapping[str, t.Any]) -> None:
    """The places of bind mounts that travel."""
    for entry in _binds(spec):
        if entry["travels"] and entry["form"] != docker_volumes.FILE:
            os.makedirs(entry["path"], exist_ok=True)
    for number, path in _files(spec):
        bound_files.make_place(session, number, path)


def _addresses_of(engine: Engine, source: t.Mapping[str, t.Any], created: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """The addresses that the copy will have, see ``spec_networks.after``."""
    found = (engine.find_network(network.name) for network in spec_networks.networks(created))
    drivers = {network["Name"]: network["Driver"] for network in found if network}
    return spec_networks.addresses_after(source, created, drivers).as_data()


def addresses(session: Session) -> dict[str, t.Any]:
    """The answer to the source about the copy that is created and not started: its addresses, and whether connections are
    kept."""
    return {**session.data("created")["addresses"], "keeps": engines.functions_of(session).keeps_connections()}


def _files(spec: t.Mapping[str, t.Any]) -> list[tuple[int, str]]:
    """The bind mounts of single files that travel, with the numbers by which the channel calls them."""
    return [
        (one.number, os.path.normpath(one.entry["path"]))
        for one in trees.travelling(spec["volumes"])
        if one.entry["kind"] == "bind" and one.entry["form"] == docker_volumes.FILE
    ]


def _creation(session: Session, spec: t.Mapping[str, t.Any], engine: Engine) -> spec_create.CreationSpec:
    """What to ask of this host's engine.

    :raises MigrationError: ``cannot_recreate`` where its API cannot express all of it, or nobody can make such a container again.
    """
    refused = rules_container.spec_refusals(spec["inspect"], spec.get("ignore_rules", ()))
    if refused:
        raise MigrationError(
            "cannot_recreate",
            "This container cannot be made again on another host: %s %s" % (refused[0].message, refused[0].remedy),
            reasons=[finding.code for finding in refused],
        )
    local = engine.find_image(spec["image"]["reference"])
    image = docker_images.find(engine, spec["image"])
    plan = spec_create.creation_parameters(
        spec["inspect"],
        image_id=image["Id"] if image else spec["image"]["id"],
        reference_image_id=local["Id"] if local else None,
        api_version=engine.api_version,
    )
    if plan["unsupported_fields"]:
        text = "; ".join(f"{note['field']}: {note['why']}" for note in plan["unsupported_fields"])
        raise MigrationError(
            "cannot_recreate",
            f"The destination's engine (API {engine.api_version}) cannot express all of the container: {text}",
        )
    plan["body"]["HostConfig"]["Runtime"] = engines.functions_of(session).runtime_of(spec["inspect"], engine)
    return plan


def _missing_networks(spec: t.Mapping[str, t.Any], there: t.Mapping[str, t.Any]) -> list[dict[str, t.Any]]:
    bodies = [
        docker_networks.creation_body(one) for one in spec["networks"] if there["networks"].get(one["Name"]) is None
    ]
    return [body for body in bodies if body is not None]


def _seed_layer(engine: Engine, past: t.Sequence[Session], created: t.Mapping[str, t.Any]) -> None:
    """Begin with the writable layer that the container left here when it was moved away: then only what has changed since has
    to travel."""
    for earlier in reversed(past):
        old = engine.find(earlier.facts["container_id"])
        if old is not None and old["Image"] == created["Image"]:
            layer, target = trees.layer(old), directories_module.upper_directory(created)
            argv = ["rsync", *channel_client.RSYNC_ARCHIVE, *layer.options, layer.path + "/", target + "/"]
            with Flush([target], host="destination") as flush:
                run_checked(run, argv, "seed_failed", "copy the layer of the old copy", timeout=3600)
                # At once: the flush of the rest of the layer, later, would not report an error of this file.
                flush.now(durable_content.RUNNING_SECONDS)
            return


def _targets(
    session: Session,
    engine: Engine,
    created: t.Mapping[str, t.Any],
    spec: t.Mapping[str, t.Any],
    checkpoint: str,
) -> dict[str, str]:
    data_root = session.facts["data_root"]
    os.makedirs(directories_module.incoming_log_directory(data_root, created["Id"]), mode=0o700, exist_ok=True)
    targets = {
        "inbox": session.memory_path("inbox"),
        "layer": directories_module.upper_directory(created),
        "log": directories_module.incoming_log_directory(data_root, created["Id"]),
        "checkpoint": checkpoint,
    }
    for one in trees.travelling(spec["volumes"]):
        if one.entry["kind"] == "volume":
            targets[one.target] = (engine.find_volume(one.entry["name"]) or {})["Mountpoint"]
        else:
            path = os.path.normpath(one.entry["path"])
            is_file = one.entry["form"] == docker_volumes.FILE
            targets[one.target] = bound_files.arrival(session, one.number, path) if is_file else path
    return targets


def remove_image(session: Session, engine: Engine) -> None:
    """Take away the image that this session brought; tags that belonged to another image go back to it."""
    brought = durable.read_json(session.path("image_brought.json"))
    if not brought:
        return
    image = docker_images.find(engine, brought["image"])
    own = image["Id"] if image else None
    for tag, before in brought["tags"].items():
        now = engine.find_image(tag)
        if now is not None and now["Id"] == own and before != own:
            engine.remove_image(tag)
            if before:
                engine.tag_image(before, tag)
    if own and own not in brought["tags"].values():
        engine.remove_image(own)
    for before, name in brought.get("kept", {}).items():
        found = engine.find_image(before)
        if found is not None and set(found["RepoTags"]) - {name}:
            engine.remove_image(name)
