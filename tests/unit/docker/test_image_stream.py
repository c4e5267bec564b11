# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Archives of images as engines write them, and as one does who has the channel's key: only the container's image comes in."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base import durable
from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._docker import image_stream
from ansible_collections.livemigrate.criu.plugins.module_utils._migration import agent
from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import Session
from ansible_collections.livemigrate.criu.plugins.module_utils._subjects.container import creation, keeper
from tests.unit.helpers.support import bring_to, hold_lock

MakeSession = Callable[..., Session]
Member = tuple[str, Any]

CONFIG, LAYER = b'{"os": "linux"}', os.urandom(3 << 20)
IMAGE = {"id": "sha256:" + hashlib.sha256(CONFIG).hexdigest(), "tags": ["web:1", "registry.example/team/web:1"]}
NAMES = ["docker.io/library/web:1", "registry.example/team/web:1"]
OTHER = "sha256:" + "0" * 64


def _blob(content: bytes) -> str:
    return f"blobs/sha256/{hashlib.sha256(content).hexdigest()}"


def _manifest(**changes: Any) -> list[dict[str, Any]]:
    return [{"Config": _blob(CONFIG), "RepoTags": IMAGE["tags"], "Layers": [_blob(LAYER)], **changes}]


def _index(*descriptors: dict[str, Any]) -> dict[str, Any]:
    return {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": list(descriptors)}


def _descriptor(name: str = NAMES[0], **changes: Any) -> dict[str, Any]:
    annotations = {
        "io.containerd.image.name": name,
        "org.opencontainers.image.ref.name": "1",
        "org.example.other": "x",
    }
    return {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": "sha256:" + "5" * 64,
        "size": 3,
        "annotations": annotations,
        **changes,
    }


INDEX, MANIFEST = _index(_descriptor(), _descriptor(NAMES[1])), _manifest()


def _archive(members: Iterable[Member], form: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar archive: bytes are a file's, None is a directory, a string is where a link leads, a TarInfo is itself."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            # Go's writer says fractions of seconds in a header of their own.
            info.mtime = 1.5
            if content is None:
                info.type = tarfile.DIRTYPE
            elif isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
            elif isinstance(content, tarfile.TarInfo):
                info = content
            else:
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
                continue
            archive.addfile(info)
    return buffer.getvalue()


def _oci(*, index: Any = None, manifest: Any = None, more: Iterable[Member] = ()) -> list[Member]:
    """As Docker writes it since 25."""
    return [
        ("blobs", None),
        ("blobs/sha256", None),
        (_blob(CONFIG), CONFIG),
        (_blob(LAYER), LAYER),
        *more,
        ("index.json", INDEX if index is None else index),
        ("manifest.json", MANIFEST if manifest is None else manifest),
        ("oci-layout", b'{"imageLayoutVersion": "1.0.0"}'),
        ("repositories", {"web": {"1": "a" * 64}}),
    ]


def _former() -> list[Member]:
    """As Docker writes it up to 24: a directory for each layer, a link for one that is there already."""
    name = hashlib.sha256(CONFIG).hexdigest()
    layers = ["a" * 64, "b" * 64]
    members: list[Member] = []
    for layer, content in zip(layers, (LAYER, f"../{layers[0]}/layer.tar"), strict=True):
        members += [(layer, None), (f"{layer}/VERSION", b"1.0"), (f"{layer}/json", b"{}")]
        members.append((f"{layer}/layer.tar", content))
    manifest = _manifest(Config=f"{name}.json", Layers=[f"{layer}/layer.tar" for layer in layers])
    return [
        *members,
        (f"{name}.json", CONFIG),
        ("manifest.json", manifest),
        ("repositories", {"web": {"1": layers[1]}}),
    ]


def _only(data: bytes, image: dict[str, Any] | None = None) -> dict[str, Any]:
    """What is in the archive that the engine gets."""
    made = b"".join(image_stream.only(io.BytesIO(data), image or IMAGE))
    found: dict[str, Any] = {}
    with tarfile.open(fileobj=io.BytesIO(made)) as archive:
        for member in archive:
            assert (member.uid, member.gid, member.pax_headers) == (0, 0, {})
            handle = archive.extractfile(member) if member.isreg() else None
            found[member.name] = handle.read() if handle else member.linkname or None
    return found


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
@pytest.mark.parametrize("members", [_oci(), _former()], ids=["25 and later", "before 25"])
def test_the_container_s_image_comes_in_as_it_is(members: list[Member], form: int) -> None:
    got = _only(_archive(members, form))
    sent = {name: content for name, content in members if name != "repositories"}
    assert list(got) == list(sent)
    for name, content in sent.items():
        if name == "manifest.json":
            assert json.loads(got[name]) == content
        elif name == "index.json":
            for descriptor in content["manifests"]:
                descriptor["annotations"].pop("org.example.other", None)
            assert json.loads(got[name]) == content
        else:
            assert got[name] == content


def test_an_image_without_a_name_comes_without_one() -> None:
    image = {**IMAGE, "tags": []}
    bare = {key: value for key, value in _descriptor().items() if key != "annotations"}
    got = _only(_archive(_oci(index=_index(bare), manifest=_manifest(RepoTags=None))), image)
    assert json.loads(got["manifest.json"])[0]["RepoTags"] == []
    assert json.loads(got["index.json"]) == _index(bare)


def test_a_large_layer_goes_through_in_pieces() -> None:
    """Nothing but what is being passed on is in memory, and what comes is read as it is asked for."""
    pieces = list(image_stream.only(io.BytesIO(_archive(_oci())), IMAGE))
    assert max(map(len, pieces)) <= 1 << 20


BAD: dict[str, list[Member]] = {
    "another name": _oci(manifest=_manifest(RepoTags=["web:1", "nginx:latest"])),
    "a name that only looks like it": _oci(manifest=_manifest(RepoTags=["docker.io/library/web:1"])),
    "another name in the index": _oci(index=_index(_descriptor("docker.io/library/nginx:latest"))),
    "another reference in the index": _oci(
        index=_index(_descriptor(annotations={"org.opencontainers.image.ref.name": "docker.io/library/nginx:latest"}))
    ),
    "a second image": _oci(manifest=[*_manifest(), *_manifest(Config=_blob(b"other"), RepoTags=[])]),
    "a second image in the index": _oci(index=_index(_descriptor(), _descriptor(digest=OTHER))),
    "a second list": _oci(more=[("manifest.json", _manifest(RepoTags=["nginx:latest"]))]),
    "a second layer of one name": _oci(more=[(_blob(LAYER), b"other")]),
    "a list elsewhere": _oci(more=[("./x/../manifest.json", _manifest())]),
    "a list that is a link": [*_oci()[:4], ("manifest.json", _blob(CONFIG))],
    "a link that leads out": [("a" * 64 + "/layer.tar", "/etc/shadow"), *_former()],
    "a link to a list": [("c" * 64 + "/layer.tar", "../manifest.json"), *_former()],
    "a file of no kind": _oci(more=[("etc/passwd", b"x")]),
    "an absolute path": _oci(more=[("/" + _blob(b"x"), b"x")]),
    "a path upwards": _oci(more=[("../" + _blob(b"x"), b"x")]),
    "layers elsewhere": _oci(manifest=_manifest(Layers=["../../etc/shadow"])),
    "no list": _oci()[:4],
    "nothing": [],
    "a list of nothing": _oci(manifest={"a": 1}),
    "a list of words": _oci(manifest=["x"]),
    "a list that is no JSON": [*_oci()[:4], ("manifest.json", b"\xff\xfe")],
    "a list without end": [*_oci()[:4], ("manifest.json", b"[" * 100000)],
    "a list too long": [*_oci()[:4], ("manifest.json", json.dumps(_manifest()).encode() + b" " * (5 << 20))],
}


@pytest.mark.parametrize("members", BAD.values(), ids=BAD)
def test_anything_else_ends_the_load(members: list[Member]) -> None:
    with pytest.raises(MigrationError) as caught:
        _only(_archive(members))
    assert caught.value.code == "image_load_failed"


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_neither_devices_nor_hard_links(kind: bytes) -> None:
    info = tarfile.TarInfo(_blob(b"x"))
    info.type, info.linkname = kind, "/etc/shadow"
    with pytest.raises(MigrationError):
        _only(_archive(_oci(more=[(info.name, info)])))


@pytest.mark.parametrize("data", [b"", b"x" * 5000, b"\0" * 512, _archive(_oci())[: 2 << 20]])
def test_what_is_no_whole_archive_ends_the_load(data: bytes) -> None:
    with pytest.raises(MigrationError) as caught:
        _only(data)
    assert caught.value.code == "image_load_failed"


def test_words_that_engines_read_in_any_case_do_not_come_through() -> None:
    """Go takes "repotags" for "RepoTags", and the last of two."""
    entry = json.dumps(_manifest()[0])[:-1] + ', "repotags": ["nginx:latest"], "REPOTAGS": ["nginx:latest"]}'
    got = _only(_archive([*_oci()[:4], ("manifest.json", f"[{entry}]".encode())]))
    assert json.loads(got["manifest.json"]) == MANIFEST


@pytest.mark.parametrize(
    ("tag", "name"),
    [
        ("web:1", "docker.io/library/web:1"),
        ("team/web:1", "docker.io/team/web:1"),
        ("localhost/web:1", "localhost/web:1"),
        ("host:5000/web:1", "host:5000/web:1"),
        ("registry.example/a/b:1", "registry.example/a/b:1"),
    ],
)
def test_whole_names(tag: str, name: str) -> None:
    assert image_stream.full_name(tag) == name


def test_a_stream_that_stands_still_is_given_up() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as stream, os.fdopen(writing, "wb", buffering=0) as other:
        steady = image_stream.Steady(stream, 0.1)
        other.write(b"word")
        assert steady.read(100) == b"word"
        began = time.monotonic()
        with pytest.raises(MigrationError) as caught:
            steady.read(100)
        assert 0.09 < time.monotonic() - began < 5
        assert caught.value.code == "channel_failed"


# -- into the engine -----------------------------------------------------------------------------------------------------


class Engine:
    """An engine as far as names of images go. What it loads is what the archive's manifest says."""

    def __init__(self, **names: str) -> None:
        self.names = {name.replace("_", ":"): image for name, image in names.items()}
        self.loads: str | None = None
        self.loaded: list[bytes] = []

    def info(self) -> dict[str, Any]:
        return {}

    def image_ids(self) -> list[str]:
        return sorted(set(self.names.values()))

    def find_image(self, reference: str) -> dict[str, Any] | None:
        found = self.names.get(reference) or (reference if reference in self.names.values() else None)
        return (
            {"Id": found, "RepoTags": [name for name, image in self.names.items() if image == found]} if found else None
        )

    def tag_image(self, image: str, reference: str) -> None:
        self.names[reference] = image

    def remove_image(self, reference: str) -> None:
        self.names.pop(reference, None)

    def load_image(self, stream: Iterable[bytes]) -> str:
        with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as archive:
            manifest = archive.extractfile("manifest.json")
            assert manifest is not None
            for entry in json.loads(manifest.read()):
                for tag in entry["RepoTags"]:
                    self.names[tag] = self.loads or "sha256:" + entry["Config"].rpartition("/")[2]
        return "Loaded"


@pytest.fixture
def session(make_session: MakeSession) -> Session:
    made = make_session("destination")
    os.makedirs(made.memory_path("inbox"))
    image = {**IMAGE, "store": "graphdriver", "identity": None, "digests": [], "reference": "web:1"}
    durable.write_json(made.memory_path("inbox", "spec.json"), {"image": image})
    return made


def _load(session: Session, engine: Engine, members: list[Member]) -> dict[str, Any]:
    fake: Any = engine
    return creation.load_image(session, fake, io.BytesIO(_archive(members)))


def test_the_image_is_loaded_under_its_names(session: Session) -> None:
    engine = Engine(web_1="sha256:before", other_1="sha256:other")
    assert _load(session, engine, _oci()) == {"loaded": IMAGE["id"]}
    assert engine.names == {**dict.fromkeys(IMAGE["tags"], IMAGE["id"]), "other:1": "sha256:other"}


def test_an_archive_with_something_else_loads_nothing(session: Session) -> None:
    engine = Engine(web_1="sha256:before")
    with pytest.raises(MigrationError) as caught:
        _load(session, engine, BAD["another name"])
    assert (caught.value.code, engine.names) == ("image_load_failed", {"web:1": "sha256:before"})


def test_another_image_under_its_names_leaves_the_names_as_they_were(session: Session) -> None:
    """Which image it is shows only when it is loaded."""
    engine = Engine(web_1="sha256:before")
    engine.loads = "sha256:evil"
    with pytest.raises(MigrationError) as caught:
        _load(session, engine, _oci())
    assert caught.value.code == "image_load_failed"
    assert engine.names == {"web:1": "sha256:before"}


def test_where_the_image_is_here_already_nothing_is_loaded(session: Session) -> None:
    """By its id it would be found afterwards, whatever has come under its names."""
    names = {"web:1": str(IMAGE["id"]), "other:1": "sha256:other"}
    engine = Engine(**names)
    engine.loads = "sha256:evil"
    # The session has tried to pull it before.
    Path(session.path("image_brought.json")).write_text("{}")
    assert _load(session, engine, _oci()) == {"loaded": IMAGE["id"]}
    assert engine.names == names
    assert not os.path.exists(session.path("image_brought.json")), "it is not this session's to take away"


def test_another_image_beside_it_gets_none_of_its_names(session: Session) -> None:
    """Somebody else pulls the container's image while the archive comes in."""
    engine = Engine(web_1="sha256:before")
    engine.loads = "sha256:evil"
    load = engine.load_image

    def load_while_it_is_pulled(stream: Iterable[bytes]) -> str:
        engine.names["pulled:1"] = str(IMAGE["id"])
        return load(stream)

    engine.load_image = load_while_it_is_pulled  # type: ignore[method-assign]
    with pytest.raises(MigrationError) as caught:
        _load(session, engine, _oci())
    assert caught.value.code == "image_load_failed"
    assert engine.names == {"web:1": "sha256:before", "pulled:1": IMAGE["id"]}


@pytest.mark.parametrize("phase", ["creating", "created", "starting", "held", "run", "refused"])
def test_it_is_taken_before_the_container_is_made_and_at_no_other_time(session: Session, phase: str) -> None:
    bring_to(session, phase)
    engine = Engine()
    with pytest.raises(MigrationError) as caught:
        _load(session, engine, _oci())
    assert (caught.value.code, engine.names) == ("channel_refused", {})


def test_it_is_not_taken_when_the_session_has_been_given_up(session: Session) -> None:
    session.decide("REFUSED")
    with pytest.raises(MigrationError) as caught:
        _load(session, Engine(), _oci())
    assert caught.value.code == "channel_refused"


def test_it_waits_for_the_session_s_lock(
    session: Session, roots: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "archive"
    file.write_bytes(_archive(_oci()))
    engine = Engine()
    monkeypatch.setattr(keeper, "Engine", lambda **_settings: engine)
    holder = hold_lock(session.id, roots)
    threading.Timer(0.5, lambda: os.kill(holder, 9)).start()
    with file.open() as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        began = time.monotonic()
        assert agent.serve(session, "image-load") == 0
    assert time.monotonic() - began > 0.4
    os.waitpid(holder, 0)
    assert engine.names == dict.fromkeys(IMAGE["tags"], IMAGE["id"])
