# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""Directories, files and volumes that a session makes on the destination, and how a refusal takes them away again.

A refusal may come a quarter of an hour after they were made. By then others may use the same places: a container that was moved
or started into a directory below the one that was made, or a person who has put a backup there. So only the container's own
directory is taken away with its content, and only under three conditions: it is the same directory that was made, no other
container of this host mounts it, and nothing is mounted below it. The directories above it are removed where they are empty.
What stays is reported.

Directories are recognised by their numbers and removed by descriptors, so that somebody who may change a directory above them
cannot lead us to another place.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import shutil
import typing as t

from ..._base import durable
from ..._docker import mount_users, old_copy_names
from ..._docker import volumes as docker_volumes
from ..._docker.engine import Engine
from ..._engines import bound_files
from ..._host import directory_attributes, mountinfo
from ..._session import lineage
from ..._session.session import Session

_Entry = t.Mapping[str, t.Any]
# A place of a session: its path, and which directory it is or is made in. The oldest sessions noted the path alone: nobody can
# say any more which directory that was, so what lies there is left.
_Place = t.Union[_Entry, str]

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


# -- making -------------------------------------------------------------------------------------------------------


def missing_directories(binds: t.Iterable[_Entry]) -> list[dict[str, t.Any]]:
    """All directories that have to be made for bind mounts that travel, those further up first.

    :param binds: entries of ``docker_volumes.of_container``.
    :returns: ``path``; ``around``, the directory in which it is made, if that is there already; ``leaf``, whether it is the
        directory of a mount, whose content is the container's, and not a directory above one.
    """
    found: dict[str, dict[str, t.Any]] = {}
    for entry in binds:
        if entry["travels"]:
            is_file = entry["form"] == docker_volumes.FILE
            path = os.path.normpath(entry["path"])
            place = os.path.dirname(path) if is_file else path
            leaf = not is_file
            while not os.path.lexists(place):
                around = durable.identity(os.path.dirname(place))
                noted = found.setdefault(place, {"path": place, "around": around, "leaf": leaf})
                noted["leaf"] = noted["leaf"] or leaf
                place, leaf = os.path.dirname(place), False
    return sorted(found.values(), key=_depth)


def _depth(place: _Entry) -> int:
    return str(place["path"]).count("/")


def _noted(places: t.Iterable[_Place]) -> list[_Entry]:
    """Those of which it is known which directories they are, those further up first."""
    return sorted((place for place in places if not isinstance(place, str)), key=_depth)


def make_directories(places: t.Iterable[_Entry]) -> dict[str, list[int] | None]:
    """Make what :func:`missing_directories` has found, for root alone: see ``parents.py`` for what follows, and rsync gives that
    of a mount its owner and mode. A directory that somebody else has made meanwhile does not count as ours.

    :returns: which directories those are that were made, by their paths.
    """
    made = {}
    for place in places:
        with contextlib.suppress(FileExistsError):
            os.mkdir(place["path"], 0o700)
            made[place["path"]] = durable.lasting_identity(place["path"])
    return made


def empty_places(engine: Engine, spec: t.Mapping[str, t.Any]) -> list[dict[str, t.Any]]:
    """Directories that are there and empty, with their numbers: a refusal empties them again, and gives them back what rsync has
    changed of themselves."""
    places = []
    for entry in spec["volumes"]:
        if entry["travels"]:
            found = engine.find_volume(entry["name"]) if entry["kind"] == "volume" else {"Mountpoint": entry["path"]}
            path = found["Mountpoint"] if found else ""
            known = durable.lasting_identity(path)
            # One in whose place another comes at this moment is left alone later.
            with contextlib.suppress(OSError), durable.same_directory(path, known) as directory:
                if not os.listdir(directory):
                    attributes = directory_attributes.read(directory)
                    places.append({"path": path, "identity": known, "attributes": attributes})
    return places


# -- taking away --------------------------------------------------------------------------------------------------


class Others:
    """Who else uses what a session wants to take away. The engine is asked when that is first needed."""

    def __init__(self, session: Session, engine: Engine) -> None:
        self._session = session
        self._engine = engine

    @functools.cached_property
    def _uses(self) -> list[mount_users.Use]:
        own = {str(self._session.data("created").get("container_id"))}
        for earlier in lineage.past_of(self._session.facts.get("ancestry", [])):
            old = self._engine.find(earlier.subject_id)
            # One that has been started again or renamed is somebody's.
            if old is not None and not old_copy_names.why_in_use(earlier, old):
                own.add(old["Id"])
        return mount_users.uses(self._engine, own)

    def of_path(self, path: str, top: str = "") -> str:
        """Why what lies at a path has to be left; empty where it may be taken away.

        :param path: with all links followed.
        :param top: the uppermost directory that was made for it. A container that mounts that one, or one below it, sees the
            content too.
        """
        users = {
            one.container
            for one in self._uses
            if mount_users.within(one.path, path)
            or (mount_users.within(one.path, top or path) and mount_users.within(path, one.path))
        }
        return _mounted_by(users) or ("something is mounted in it" if _is_mounted_in(path) else "")

    def of_volume(self, name: str, path: str) -> str:
        """The same for a volume.

        :param path: where it lies; empty where that is not known.
        """
        by_name = {one.container for one in self._uses if one.volume == name}
        return _mounted_by(by_name) or (self.of_path(os.path.realpath(path)) if path else "")


def _mounted_by(users: t.Collection[str]) -> str:
    return f"container(s) of this host mount it ({', '.join(sorted(users))})" if users else ""


def _is_mounted_in(path: str) -> bool:
    """Whether anything is mounted below a directory. An automounter counts too: to look into it would mount something."""
    return any(one.place != path and mount_users.within(one.place, path) for one in mountinfo.of_host())


def _left(what: str, why: str) -> str:
    return f"{what} was left as it is: {why}."


_ANOTHER = "it is not the one any more that this session has made or found"


def take_away(session: Session, engine: Engine) -> list[str]:
    """Take away what a session has made and received, apart from its copy. This may be repeated.

    What cannot be removed is left: the source may be waiting for the end of the refusal, and the owner of a directory can mount
    something in it that even root cannot remove.

    :returns: a sentence for each thing that had to be left.
    :raises MigrationError: where the engine does not tell who uses what; nothing of that has been removed then.
    """
    noted, created = session.data("creating"), session.data("created")
    others = Others(session, engine)
    places = list(noted.get("made_directories", ()))
    directories = _noted(places)
    made = created.get("made_directories", {})
    left = [remove_volume(engine, name, created.get("made_volumes", {}), others) for name in noted.get("volumes", ())]
    left += [empty(place, others) for place in noted.get("empty_directories", ())]
    left += [_remove_file(session, entry, directories, made, others) for entry in noted.get("files", ())]
    left += remove_directories(places, made, others)
    return [one for one in left if one]


def remove_volume(engine: Engine, name: str, made: t.Mapping[str, t.Any], others: Others) -> str:
    """Remove a volume that a session has made.

    :param made: the numbers of the directories of volumes that were made. One that was cut off before it could note them has
        sent nothing.
    :returns: why it was left; empty where it was not.
    """
    found = engine.find_volume(name)
    if found is None:
        return ""
    path = str(found.get("Mountpoint") or "")
    now = durable.lasting_identity(path)
    # Without the number of the file system, which may be another one after the next boot. The others are the directory's own.
    known = list(made.get(name) or ())
    why = _ANOTHER if known and now and now[1:] != known[1:] else others.of_volume(name, path)
    if why:
        return _left(f"Volume {name}", why)
    engine.remove_volume(name)
    return ""


def empty(place: _Place, others: Others) -> str:
    """Remove what is in a directory of :func:`empty_places`, not the directory; nothing where another has come in its place.

    :returns: why it was left; empty where it was not.
    """
    if isinstance(place, str):
        return ""
    path = place["path"]
    try:
        with durable.same_directory(path, place["identity"]) as directory:
            why = others.of_path(_path_of(directory)) if os.listdir(directory) else ""
            if not why:
                _clear(directory)
                why = "not all of it can be removed" if os.listdir(directory) else ""
            if not why:
                return _put_back(path, directory, place.get("attributes"))
    except OSError:
        why = _ANOTHER if os.path.lexists(path) else ""
    return _left(path, f"{why}; what this session has sent there is still in it") if why else ""


def _put_back(path: str, directory: int, attributes: t.Mapping[str, t.Any] | None) -> str:
    """Give a directory back its owner, mode and access lists; returns a sentence about it where that fails.

    :param attributes: what was noted; an older session has noted nothing.
    """
    try:
        if attributes is not None:
            directory_attributes.put_back(directory, attributes)
    except OSError as exc:
        return f"{path} was emptied; its owner, mode or access list cannot be put back ({exc.strerror})."
    return ""


def _path_of(descriptor: int) -> str:
    """Where a directory lies now, with all links followed."""
    return os.readlink(f"/proc/self/fd/{descriptor}")


def _clear(directory: int) -> None:
    for name in os.listdir(directory):
        with contextlib.suppress(OSError):
            durable.remove_tree(directory, name)


@contextlib.contextmanager
def parent_of(path: str, places: t.Sequence[_Entry], made: t.Mapping[str, t.Any]) -> t.Iterator[tuple[int, str]]:
    """The directory around one that was made: a descriptor of it, and where the uppermost one that was made lies.

    It is opened by descriptors, from the directory that was there before, through those that were made.

    :raises OSError: where it does not lead there any more.
    """
    chain = [one for one in places if mount_users.within(path, one["path"])]
    if not chain or chain[-1]["path"] != path:
        raise FileNotFoundError(errno.ENOENT, "it is not noted that this was made", path)
    top = chain[0]
    with contextlib.ExitStack() as stack:
        parent = stack.enter_context(durable.same_directory(os.path.dirname(top["path"]), top["around"]))
        uppermost = os.path.join(_path_of(parent), os.path.basename(top["path"]))
        for one in chain:
            if one["path"] != path:
                parent = os.open(os.path.basename(one["path"]), _OPEN_DIRECTORY, dir_fd=parent)
                stack.callback(os.close, parent)
                known = made.get(one["path"])
                if known and durable.lasting_identity(parent) != list(known):
                    raise NotADirectoryError(errno.ENOTDIR, _ANOTHER, one["path"])
        yield parent, uppermost


def remove_directories(places: t.Iterable[_Place], made: t.Mapping[str, t.Any], others: Others) -> list[str]:
    """Remove directories of :func:`missing_directories`, innermost first: those of mounts with what is in them, others if empty.

    An older session noted only the uppermost directory, and not its numbers: that one is removed if it is empty.

    :param made: what :func:`make_directories` returned. A session that was cut off before it could note that has received
        nothing.
    :returns: why some were left.
    """
    noted = _noted(places)
    left = []
    for place in reversed(noted):
        path = place["path"]
        try:
            with parent_of(path, noted, made) as (parent, top):
                why = _remove_directory(parent, top, place, made.get(path), others)
        except OSError:
            why = _ANOTHER if os.path.lexists(path) else ""
        if why:
            left.append(_left(path, why))
    return left


def _remove_directory(parent: int, top: str, place: _Entry, known: t.Sequence[int] | None, others: Others) -> str:
    """Remove one of them; returns why it was left, where that has to be reported.

    :param parent: a descriptor of the directory around it.
    :param top: where the uppermost one that was made lies.
    :raises OSError: where it is no directory any more.
    """
    name = os.path.basename(place["path"])
    with contextlib.ExitStack() as stack:
        try:
            directory = os.open(name, _OPEN_DIRECTORY, dir_fd=parent)
        except FileNotFoundError:
            return ""
        stack.callback(os.close, directory)
        if known and durable.lasting_identity(directory) != list(known):
            return _ANOTHER
        content = os.listdir(directory)
        if content and not place.get("leaf", True):
            # That is what others have put there, or what is reported already.
            return ""
        if content and not known:
            return "it has content that may be somebody else's"
        why = others.of_path(_path_of(directory), top)
        if why:
            return why
        _clear(directory)
    try:
        os.rmdir(name, dir_fd=parent)
    except OSError as exc:
        return f"it cannot be removed ({exc.strerror})"
    return ""


def _remove_file(
    session: Session, entry: _Entry, places: t.Sequence[_Entry], made: t.Mapping[str, t.Any], others: Others
) -> str:
    """Take away what was made for a file that is not to come, and what has come; returns why something was left."""
    shutil.rmtree(entry["arrival"], ignore_errors=True)
    if not entry["made"]:
        return ""
    path = entry["path"]
    around, name = os.path.split(path)
    try:
        with contextlib.ExitStack() as stack:
            if entry.get("around"):
                directory, top = stack.enter_context(durable.same_directory(around, entry["around"])), ""
            else:
                # It was made.
                parent, top = stack.enter_context(parent_of(around, places, made))
                directory = os.open(os.path.basename(around), _OPEN_DIRECTORY, dir_fd=parent)
                stack.callback(os.close, directory)
            why = "it is none that this session has made or sent"
            if bound_files.is_own(session, path, directory):
                why = others.of_path(os.path.join(_path_of(directory), name), top)
            if not why:
                os.unlink(name, dir_fd=directory)
    except OSError:
        why = _ANOTHER
    return _left(path, why) if why and os.path.lexists(path) else ""
