# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The channel's filter: our own rsync gets through to prepared places, and nothing else gets anywhere."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._channel import client as channel_client
from ansible_collections.livemigrate.criu.plugins.module_utils._channel import server as channel_server
from ansible_collections.livemigrate.criu.plugins.module_utils._channel import tree
from ansible_collections.livemigrate.criu.plugins.module_utils._channel.server import rsync_server_argv, set_targets
from ansible_collections.livemigrate.criu.plugins.module_utils._host import confinement
from ansible_collections.livemigrate.criu.plugins.module_utils._subjects.container import trees as container_trees
from tests.unit.helpers.support import wait_for
from tests.unit.helpers.wire import Wire

TARGETS = {"layer": "/place/layer", "volume/data": "/place/data/", "bind/0": "/place/bind", "inbox": "/place/inbox"}
GOOD = "rsync --server -lHogDtpAXrSe.iLsfxCIvu --delete --force --stats --numeric-ids -@-1 --timeout=30 . layer"


# -- what gets through -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        # rsync 3.5.0 on a source
        GOOD,
        # 3.1.3 to 3.2.7, by their sources (options.c, server_options): long form of the window, other capabilities
        "rsync --server -lHogDtpAXrSe.iLsfxC --delete --force --stats --numeric-ids --modify-window=-1 --timeout=30 . layer",
        "rsync --server -vlHogDtpAXrSe.iLsfxCIvu --delete-during --force --numeric-ids . layer/",
    ],
)
def test_the_command_of_our_own_client_is_run_on_the_prepared_place(command: str) -> None:
    words = shlex.split(command)
    argv = rsync_server_argv(words, TARGETS)
    assert argv[:3] == ["rsync", "--server", words[2]]
    assert argv[-2:] == [".", "/place/layer/"]
    assert set(words[2:-2]) <= set(argv)


@pytest.mark.parametrize(
    ("target", "place"), [("volume/data", "/place/data/"), ("bind/0", "/place/bind/"), ("inbox/", "/place/inbox/")]
)
def test_each_target_has_its_place(target: str, place: str) -> None:
    assert rsync_server_argv([*shlex.split(GOOD)[:-1], target], TARGETS)[-1] == place


def test_a_client_that_has_vanished_is_not_waited_for_for_ever() -> None:
    assert "--timeout=30" in rsync_server_argv(shlex.split(GOOD), TARGETS)
    silent = rsync_server_argv(shlex.split(GOOD.replace(" --timeout=30", "")), TARGETS)
    assert [option for option in silent if option.startswith("--timeout=")] != []


# -- what does not ---------------------------------------------------------------------------------------------------

BAD_TARGETS = [
    "/etc",
    "/place/layer",
    "..",
    "../layer",
    "layer/..",
    "layer/../../etc",
    "layer//",
    "layer/sub",
    "./layer",
    "volume/..",
    "volume/../layer",
    "volume/data/..",
    "volume/",
    "volume",
    "bind/x",
    "bind/-1",
    "bind/\u0660",
    "layer\n",
    "layer ",
    " layer",
    "",
    ".",
    "layer\0",
    "log",
    "volume/other",
    "bind/1",
    "checkpoint",
    "-layer",
    "host:layer",
    "~",
    "*",
]
# Each as one more option, or in place of the letters.
BAD_OPTIONS = [
    "--sender",
    "--daemon",
    "--server",
    "--config=/tmp/x",
    "--rsync-path=/bin/sh",
    "--log-file=/etc/cron.d/x",
    "--log-format=%o",
    "--temp-dir=/etc",
    "--partial-dir=/etc",
    "--backup",
    "--backup-dir=/etc",
    "--suffix=x",
    "--compare-dest=/etc",
    "--copy-dest=/etc",
    "--link-dest=/etc/shadow",
    "--files-from=/etc/shadow",
    "--write-devices",
    "--copy-devices",
    "--copy-links",
    "--copy-unsafe-links",
    "--keep-dirlinks",
    "--remove-source-files",
    "--delete-missing-args",
    "--existing",
    "--fake-super",
    "--super",
    "--usermap=0:0",
    "--chown=0:0",
    "--munge-links",
    "--protect-args",
    "--secluded-args",
    "--iconv=x",
    "--checksum-choice=none",
    "--only-write-batch=/etc/x",
    "--read-batch=/etc/x",
    "--timeout=x",
    "--timeout=1 0",
    "--modify-window=5",
    "--stats ",
    "--stats\n",
    "--stats=x",
    "-s",
    "-se.iLsfxCIvu",
    "-slogDtpre.iLsfxCIvu",
    "-logDtprse.iLsfxCIvu",
    "-logDtprKe.iLsfxCIvu",
    "-logDtprLe.iLsfxCIvu",
    "-logDtprke.iLsfxCIvu",
    "-logDtprbe.iLsfxCIvu",
    "-logDtprde.iLsfxCIvu",
    "-logDtprTe.iLsfxCIvu",
    "-logDtprMe.iLsfxCIvu",
    "-logDtprfe.iLsfxCIvu",
    "-logDtpre.iLsfxCIvu --sender",
    "-logDtpr",
    "-e",
    "-e.",
    "-e.iLs/fx",
    "-T/etc",
    "-M--sender",
    "-f",
    "-",
    "--",
    "",
    " ",
    "layer",
    "/etc/passwd",
    "-logDtpre.iLsfxC\nx",
]


def _refused(words: list[str]) -> bool:
    try:
        rsync_server_argv(words, TARGETS)
    except MigrationError as exc:
        return exc.code == "channel_refused"
    return False


def test_no_other_target() -> None:
    assert [target for target in BAD_TARGETS if not _refused([*shlex.split(GOOD)[:-1], target])] == []


def test_no_other_option() -> None:
    words = shlex.split(GOOD)
    let_through = []
    for option in BAD_OPTIONS:
        for attempt in (
            [*words[:3], option, *words[3:]],
            [*words[:2], option, *words[2:]],
            [*words[:2], option, *words[3:]],
        ):
            if not _refused(attempt):
                let_through.append(attempt)
    # Without its letters the command is only shorter: --stats twice and the like change nothing.
    assert let_through == []


@pytest.mark.parametrize(
    "command",
    [
        "",
        "rsync",
        "rsync --server",
        "rsync . layer",
        "rsync --daemon -e.x . layer",
        "rsync -e.iLsfxC --server . layer",
        "/usr/bin/rsync --server -logDtpre.iLsfxC . layer",
        "sh --server -logDtpre.iLsfxC . layer",
        "rsync --server -logDtpre.iLsfxC / layer",
        "rsync --server -logDtpre.iLsfxC .. layer",
        "rsync --server -logDtpre.iLsfxC layer",
        "rsync --server -logDtpre.iLsfxC . layer layer",
        "rsync --server -logDtpre.iLsfxC . layer /etc",
        "rsync --server -logDtpre.iLsfxC . . layer",
        "rsync --server --sender -logDtpre.iLsfxC . layer",
    ],
)
def test_no_other_form(command: str) -> None:
    assert _refused(shlex.split(command))


def test_only_names_that_can_be_targets_are_prepared(wire: Wire, tmp_path: Path) -> None:
    set_targets(
        wire.destination,
        {"layer": "/x", "volume/a": "/y", "bind/10": "/z", "log": "/l", "checkpoint": "/c", "inbox": "/i"},
    )
    for name in ("", "/", "../x", "/etc", "volume/../x", "volume/.hidden", "volume/a/b", "layer\n", "Layer"):
        with pytest.raises(ValueError, match="not a target"):
            set_targets(wire.destination, {name: str(tmp_path)})


# -- over the wire ---------------------------------------------------------------------------------------------------


@pytest.fixture
def content(disk: Path) -> Path:
    directory = disk / "content"
    (directory / "sub").mkdir(parents=True)
    (directory / "file").write_text("content")
    (directory / "sub" / "na\udcffme\n").write_text("odd")
    return directory


@pytest.mark.parametrize(("running", "protect"), [(True, "0"), (False, "1")])
def test_a_directory_travels_and_the_bytes_are_counted(
    running: bool, protect: str, wire: Wire, content: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RSYNC_PROTECT_ARGS", protect)
    place = wire.prepare("volume/data")
    (place / "stale").write_text("")
    sent = wire.channel.rsync(str(content), "volume/data", ("--delete", "--force"), running=running)
    assert sorted(str(path.relative_to(place)) for path in place.rglob("*")) == ["file", "sub", "sub/na\udcffme\n"]
    assert (place / "file").read_text() == "content"
    assert sent >= len("contentodd")
    assert wire.channel.rsync(str(content) + "/", "volume/data", ("--delete", "--force"), running=running) < sent


def test_named_files_travel_whatever_their_times_say(wire: Wire, content: Path, disk: Path) -> None:
    place = wire.prepare("layer")
    wire.channel.rsync(str(content), "layer")
    before = (content / "file").stat().st_mtime_ns
    for name in ("file", "sub/na\udcffme\n"):
        (content / name).write_text((content / name).read_text().upper())
        os.utime(content / name, ns=(before, before))
        os.utime(place / name, ns=(before, before))
    wire.channel.rsync(str(content), "layer")
    assert (place / "file").read_text() == "content", "what this test rests on: rsync goes by size and time"
    names = disk / "names"
    names.write_bytes(b"file\0")
    wire.channel.rsync(str(content), "layer", names=str(names))
    assert (place / "file").read_text() == "CONTENT"
    assert (place / "sub" / "na\udcffme\n").read_text() == "odd"
    names.write_bytes(b"sub/na\xffme\n\0")
    wire.channel.rsync(str(content), "layer", names=str(names))
    assert (place / "sub" / "na\udcffme\n").read_text() == "ODD"


def test_a_place_that_was_not_prepared_is_reported(wire: Wire, content: Path) -> None:
    wire.prepare("layer")
    with pytest.raises(MigrationError) as caught:
        wire.channel.rsync(str(content), "volume/data")
    assert caught.value.code == "transfer_failed"
    assert "has not been prepared" in caught.value.message
    assert caught.value.details["target"] == "volume/data"


def test_files_that_vanish_are_normal_while_the_service_runs_and_an_error_when_it_does_not(
    wire: Wire, content: Path
) -> None:
    wire.prepare("layer")
    fake = wire.programs / "rsync"
    # rsync's own code for it (man rsync, EXIT VALUES); a real race would not come every time.
    fake.write_text("#!/bin/sh\necho 'Total bytes sent: 5'\nexit 24\n")
    fake.chmod(0o755)
    assert wire.channel.rsync(str(content), "layer", running=True) == 5
    with pytest.raises(MigrationError) as caught:
        wire.channel.rsync(str(content), "layer", running=False)
    assert caught.value.details["rc"] == 24


HOSTILE = {
    "arguments that the filter does not see": ("rsync --server -slogDtpre.iLsfxCIvu . layer", ["-s"]),
    "an absolute target": ("rsync --server -logDtpre.iLsfxCIvu . {outside}", []),
    "a target above": ("rsync --server -logDtpre.iLsfxCIvu . layer/../outside", []),
    "another program": ("cp -r {content} {outside}", []),
    "a shell": ("ping; cp -r {content}/. {outside}", []),
    "a second line": ("rsync --server -logDtpre.iLsfxCIvu . layer\ncp -r {content}/. {outside}", []),
}


@pytest.mark.parametrize("attack", HOSTILE)
def test_a_hostile_client_writes_nowhere_else(attack: str, wire: Wire, content: Path) -> None:
    wire.prepare("layer")
    outside = wire.places / "outside"
    outside.mkdir()
    command, options = HOSTILE[attack]
    wire.send_instead(command.format(outside=outside, content=content))
    argv = ["rsync", *options, "-a", "--timeout=5", "-e", "ssh", f"{content}/", f"root@x:{outside}/"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=20)
    assert done.returncode != 0
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("hidden", [False, True])
def test_a_hostile_client_reads_nothing(hidden: bool, wire: Wire, content: Path, tmp_path: Path) -> None:
    wire.prepare("layer")
    letters = "-slogDtpre.iLsfxCIvu" if hidden else "-logDtpre.iLsfxCIvu"
    sender = "" if hidden else "--sender "
    wire.send_instead(f"rsync --server {sender}{letters} . {'layer' if hidden else content}")
    argv = [
        "rsync",
        *(["-s"] if hidden else []),
        "-a",
        "--timeout=5",
        "-e",
        "ssh",
        f"root@x:{content}/",
        str(tmp_path / "stolen"),
    ]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=20)
    assert done.returncode != 0
    assert not list(tmp_path.rglob("file"))


@pytest.mark.parametrize("letters", ["logDtpr", "lKogDtpr"])
def test_a_link_out_of_the_place_is_not_followed(letters: str, wire: Wire, disk: Path) -> None:
    place = wire.prepare("layer")
    outside = wire.places / "outside"
    outside.mkdir()
    first, second = disk / "first", disk / "second"
    (second / "way").mkdir(parents=True)
    (second / "way" / "file").write_text("escaped")
    first.mkdir()
    (first / "way").symlink_to(outside)
    wire.channel.rsync(str(first), "layer")
    assert (place / "way").is_symlink(), "a container's own links are content"
    wire.send_instead(f"rsync --server -{letters}e.iLsfxCIvu . layer")
    subprocess.run(
        ["rsync", "-aK", "--timeout=5", "-e", "ssh", f"{second}/", "root@x:layer"],
        capture_output=True,
        check=False,
        timeout=20,
    )
    assert list(outside.iterdir()) == []


# -- commands --------------------------------------------------------------------------------------------------------


def test_a_command_is_answered(wire: Wire) -> None:
    assert wire.channel.call("ping") == {"host": "here"}


@pytest.mark.parametrize("command", ["", "pong", "ping ping", "'ping", "sh -c ping"])
def test_another_command_is_refused(command: str, wire: Wire) -> None:
    wire.send_instead(command)
    with pytest.raises(MigrationError) as caught:
        wire.channel.call("ping")
    assert caught.value.code in ("channel_refused", "channel_failed")


def test_no_answer_is_reported_with_what_there_was(wire: Wire) -> None:
    with pytest.raises(MigrationError) as caught:
        wire.channel.call("stumble")
    assert caught.value.code == "destination_unreachable"
    assert "ZeroDivisionError" in caught.value.message
    assert "root@192.0.2.1" in caught.value.message


def test_a_call_is_a_sign_of_life(wire: Wire) -> None:
    lease = Path(wire.destination.volatile) / "lease"
    lease.unlink()
    wire.channel.call("ping")
    assert wire.destination.lease_left > 0


def test_a_stream_goes_with_its_command(wire: Wire) -> None:
    answer, sent = wire.channel.stream("ping", [b"x" * 10, b"y" * 5])
    assert answer == {"host": "here"}
    assert sent <= 15


def test_a_stream_that_fails_on_our_side_leaves_no_program_behind(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = []
    popen = subprocess.Popen

    def remembered(*arguments: object, **keywords: object) -> object:
        process = popen(*arguments, **keywords)  # type: ignore[call-overload]
        ended.append(process)
        return process

    monkeypatch.setattr(subprocess, "Popen", remembered)

    def chunks() -> object:
        yield b"x"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        wire.channel.stream("ping", chunks())  # type: ignore[arg-type]
    assert [process.returncode for process in ended] == [-signal.SIGKILL]


def test_a_channel_that_was_never_opened_is_reported(wire: Wire) -> None:
    os.unlink(wire.source.path("peer.json"))
    with pytest.raises(MigrationError) as caught:
        channel_client.Channel(wire.source)
    assert caught.value.code == "channel_closed"


def test_a_destination_without_host_keys_is_not_trusted(wire: Wire) -> None:
    with pytest.raises(MigrationError) as caught:
        channel_client.set_peer(wire.source, {"address": "192.0.2.1", "port": 22, "user": "root", "host_keys": []})
    assert caught.value.code == "channel_failed"


# -- transfers that hang ---------------------------------------------------------------------------------------------


def test_a_transfer_that_hangs_can_be_ended_and_others_are_left_alone(wire: Wire) -> None:
    wire.prepare("layer")
    hanging = subprocess.Popen(
        ["ssh", "root@x", "rsync", "--server", "-logDtpre.iLsfxCIvu", ".", "layer"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    other = subprocess.Popen(["sleep", "60"])
    (Path(wire.destination.volatile) / f"transfer.{other.pid}").write_text("")
    try:
        volatile = Path(wire.destination.volatile)
        wait_for(lambda: len(list(volatile.glob("transfer.*"))) == 2, "the transfer is noted")
        # The note is made just after the program was started.
        time.sleep(0.05)
        channel_server.end_transfers(wire.destination)
        assert hanging.wait(5) != 0
        assert other.poll() is None
    finally:
        for process in (hanging, other):
            process.kill()
            process.communicate()


def test_a_transfer_that_begins_while_the_places_are_closed_ends(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has seen its place, and nobody has been told of it yet."""
    place = wire.prepare("layer")
    begun: list[subprocess.Popen[bytes]] = []

    @contextlib.contextmanager
    def start(_argv: Sequence[str], _tree: str, **_only: object) -> Iterator[subprocess.Popen[bytes]]:
        with subprocess.Popen(["sleep", "60"]) as process:
            begun.append(process)
            channel_server.close_targets(wire.destination)
            yield process

    monkeypatch.setattr(confinement, "start", start)
    with pytest.raises(MigrationError, match="its places have been closed") as caught:
        channel_server._run_rsync(wire.destination, ["rsync", f"{place}/"], "layer")
    assert caught.value.code == "channel_refused"
    assert begun[0].returncode == -signal.SIGKILL


def test_a_place_that_becomes_another_s_takes_nothing(wire: Wire, content: Path, tmp_path: Path) -> None:
    """Who may change the directory above it can put a link in its place, and --delete would empty what that leads to."""
    place, elsewhere = wire.prepare("bind/0"), tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "of root").write_text("stays")
    wire.channel.rsync(str(content), "bind/0", ("--delete",))
    place.rename(tmp_path / "away")
    place.symlink_to(elsewhere)
    with pytest.raises(MigrationError) as caught:
        wire.channel.rsync(str(content), "bind/0", ("--delete",))
    assert "Another directory has come in the place of" in caught.value.message
    assert [path.name for path in elsewhere.iterdir()] == ["of root"]


def test_a_transfer_that_ends_leaves_no_note(wire: Wire, content: Path) -> None:
    wire.prepare("layer")
    wire.channel.rsync(str(content), "layer")
    assert [path.name for path in Path(wire.destination.volatile).glob("transfer.*")] == []


def test_the_options_of_all_trees_pass_the_filter(wire: Wire, content: Path) -> None:
    inspect = {
        "Name": "/web",
        "Id": "a" * 64,
        "GraphDriver": {"Name": "overlay2", "Data": {"UpperDir": str(content)}},
        "HostConfig": {"LogConfig": {"Type": "json-file"}},
    }
    path = str(content)
    volumes = [
        {"kind": kind, "name": "data", "path": path, "travels": True, "form": "directory"}
        for kind in ("volume", "bind")
    ]
    trees = [*container_trees.content(inspect, str(wire.places), volumes), tree.inbox(path), tree.checkpoint(path)]
    assert len(trees) == 6
    wire.prepare(*(one.target for one in trees))
    for one in trees:
        wire.channel.rsync(str(content), one.target, one.options)
    assert {words[-1] for words in wire.commands} == {one.target for one in trees}
    # Two hosts give different numbers to the same names; that cannot be seen between two directories of one.
    assert all("--numeric-ids" in words for words in wire.commands)
