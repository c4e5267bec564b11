# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A container that is the copy of a migration under way: restored in `create`, held beyond `start`, started afresh by nothing."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.shim.support import CONTAINER, Shim

# What the action script leaves behind when all goes well.
HELD = 'printf "4242\\n%s\\n" "$PLACE/cgroup/x.scope" >"$PLACE/works/$LIVEMIGRATE_RESTORE/held"'


def refused(shim: Shim, done: subprocess.CompletedProcess[bytes]) -> str:
    """The message, which is the same on stderr and in runc's log."""
    assert done.returncode == 1
    assert done.stdout == b""
    (message,) = shim.messages()
    assert done.stderr.decode() == message + "\n"
    assert message.startswith("livemigrate: ")
    return message


# --- create ---


def test_create_restores(shim: Shim) -> None:
    shim.await_copy()
    shim.then(f"umask; {HELD}")
    done = shim.run(*shim.create())
    assert (done.returncode, done.stderr) == (0, b"")
    assert shim.calls() == [
        [
            *shim.globals(),
            *("restore", "--detach", "--no-subreaper"),
            *("--image-path", f"{shim.work}/images", "--work-path", f"{shim.work}/work"),
            *("--bundle", str(shim.bundle), "--pid-file", f"{shim.bundle}/init.pid"),
            CONTAINER,
        ]
    ]
    assert (shim.work / "work").stat().st_mode & 0o777 == 0o700
    spec = json.loads((shim.bundle / "config.json").read_text())
    assert spec == {"ociVersion": "1.2.0", "annotations": {"org.criu.config": f"{shim.work}/criu.conf"}}
    assert shim.messages() == []
    # Only the decision takes them away.
    assert (shim.work / "ready").exists()


_PRIVATE = '{"ociVersion":"1.2.0","mounts":[%s],"linux":{"namespaces":[{"type":"mount"},{"type":"cgroup"}]}}'
_MOUNT = '{"destination":"/sys/fs/cgroup","type":"cgroup","source":"cgroup","options":["ro"]}'
_BIND = '{"destination":"/sys/fs/cgroup","type":"bind","source":"/sys/fs/cgroup","options":["rbind"]}'


@pytest.mark.parametrize(
    ("spec", "mounted", "own"),
    [
        (_PRIVATE % _MOUNT, True, True),
        (_PRIVATE % _BIND, False, True),
        (_PRIVATE.replace(',{"type":"cgroup"}', "") % _MOUNT, False, False),
    ],
    ids=["own", "bound", "host"],
)
def test_a_cgroup_namespace_of_its_own(shim: Shim, spec: str, mounted: bool, own: bool) -> None:
    """CRIU is called through the program that makes it, and the mount of it begins at the container's cgroup."""
    shim.await_copy()
    (shim.bundle / "config.json").write_text(spec)
    (shim.place / "programs").mkdir()
    criu = shim.place / "programs" / "criu"
    criu.write_text("#!/bin/sh\n")
    criu.chmod(0o755)
    shim.then(f'echo "$LIVEMIGRATE_OWN_CGROUPS $(command -v criu)" >"$PLACE/called"; {HELD}')
    assert shim.run(*shim.create()).returncode == 0
    options = (shim.work / "criu.conf").read_text().splitlines()
    assert (f"external=mnt[/sys/fs/cgroup]:{shim.work}/cgroup" in options) is mounted
    called = (shim.place / "called").read_text().strip()
    assert (called == f"1 {criu}") is own
    # A namespace that cannot be made is no reason to fail here: the copy will be compared.
    criu.unlink()
    (shim.work / "work").rmdir()
    assert shim.run(*shim.create()).returncode == 0
    assert not (shim.place / "called").read_text().startswith("1")


def test_flags_of_create(shim: Shim) -> None:
    """Kept, dropped where restore does not know them, and in each of the ways in which Go lets flags be written."""
    shim.await_copy()
    shim.then(HELD)
    before = ["--root=/r", "-log", str(shim.log), "--log-format=json", "--rootless", "create", "--debug"]
    flags = ["-b", str(shim.bundle), "--console-socket=/c", "--no-pivot"]
    dropped = ["--no-new-keyring", "--preserve-fds", "3", "--pidfd-socket=/p"]
    assert shim.run(*before, "create", *flags, *dropped, CONTAINER).returncode == 0
    (call,) = shim.calls()
    assert call[: len(before)] == before
    assert call[len(before)] == "restore"
    assert call[-len(flags) - 1 :] == [*flags, CONTAINER]


def test_unknown_flag(shim: Shim) -> None:
    shim.await_copy()
    done = shim.run(*shim.globals(), "create", "--something=new", "--bundle", str(shim.bundle), CONTAINER)
    assert "--something=new" in refused(shim, done)
    assert shim.calls() == []


def test_streams_of_create_are_the_containers(shim: Shim, tmp_path: Path) -> None:
    """A file in between would be one that the container holds open, and fail its next dump."""
    shim.await_copy()
    note = 'for n in 0 1 2; do all="$all $(readlink "/proc/$$/fd/$n")"; done; echo "$all" >"$PLACE/streams"'
    shim.then(f"{note}; {HELD}")
    names = [tmp_path / name for name in ("in", "out", "err")]
    names[0].touch()
    with names[0].open() as stdin, names[1].open("w") as stdout, names[2].open("w") as stderr:
        done = shim.run(*shim.create(), capture_output=False, stdin=stdin, stdout=stdout, stderr=stderr)
    assert done.returncode == 0
    assert (shim.place / "streams").read_text().split() == [str(name) for name in names]


SPECS = [
    pytest.param('{"ociVersion":"1.2.0","process":{"env":["A=}"]}}', id="one line"),
    pytest.param('{\n  "ociVersion": "1.2.0",\n  "linux": {\n  }\n}\n\n \t\n', id="indented, blanks behind"),
    pytest.param('{"annotations":{"mine":"1"},"x":{}}', id="annotations first"),
    pytest.param('{"x":[],"annotations":{"mine":"1","org.criu.config":"/old"}}', id="annotations last, one of CRIU's"),
    pytest.param('{"annotations":null,"x":1}', id="null"),
    pytest.param('{"a":"\\"annotations\\":{\\"}","b":"%s %d \\\\ \\u0000 $HOME `id` \\n"}', id="words in strings"),
    pytest.param('{"a":"' + "".join(chr(n) for n in range(0x80, 0x2100)) + '"}', id="every second byte of UTF-8"),
    pytest.param('{"a":"' + "x" * 300_000 + '"}', id="longer than an argument may be"),
]


def merged(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object as Go reads it: of a key that is there twice both objects' entries. null empties what was before it."""
    result: dict[str, Any] = {}
    for key, value in pairs:
        if isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key].update(value)
        else:
            result[key] = value
    return result


@pytest.mark.parametrize("spec", SPECS)
def test_annotation(shim: Shim, spec: str) -> None:
    shim.await_copy()
    shim.then(HELD)
    path = shim.bundle / "config.json"
    path.write_bytes(spec.encode())
    path.chmod(0o640)
    before = path.stat()
    assert shim.run(*shim.create()).returncode == 0
    expected = json.loads(spec)
    annotations = expected.get("annotations") or {}
    expected["annotations"] = {**annotations, "org.criu.config": f"{shim.work}/criu.conf"}
    assert json.loads(path.read_bytes(), object_pairs_hook=merged) == expected
    after = path.stat()
    assert (after.st_mode, after.st_uid) == (before.st_mode, before.st_uid)
    # Another file in its place, not the old one written over; and nothing beside it.
    assert after.st_ino != before.st_ino
    assert [entry.name for entry in shim.bundle.iterdir()] == ["config.json"]


@pytest.mark.parametrize("spec", ["", "[]", '"}"'])
def test_broken_bundle(shim: Shim, spec: str) -> None:
    shim.await_copy()
    (shim.bundle / "config.json").write_text(spec)
    assert "no JSON object" in refused(shim, shim.run(*shim.create()))
    assert shim.calls() == []
    assert (shim.bundle / "config.json").read_text() == spec


def test_bundle_that_is_not_there(shim: Shim) -> None:
    shim.await_copy()
    (shim.bundle / "config.json").unlink()
    assert shim.run(*shim.create()).returncode == 1
    assert shim.calls() == []


def test_create_without_images(shim: Shim) -> None:
    """A mark from before a reboot too: images are gone, and nothing is started in their place."""
    shim.await_copy()
    (shim.work / "ready").unlink()
    message = refused(shim, shim.run(*shim.create()))
    assert f"container {CONTAINER[:12]} is the copy of migration 20261123-migration" in message
    assert "playbooks/recover.yml" in message
    assert shim.calls() == []


def test_create_after_a_reboot(shim: Shim) -> None:
    shim.mark.mkdir()
    assert "migration unknown" in refused(shim, shim.run(*shim.create()))
    assert shim.calls() == []


def test_create_of_a_copy_given_up(shim: Shim) -> None:
    shim.await_copy()
    (shim.work / "refused").touch()
    assert "given up" in refused(shim, shim.run(*shim.create()))
    assert shim.calls() == []


@pytest.mark.parametrize("command", ["run", "restore", "resume", "start"])
def test_no_other_way_in(shim: Shim, command: str) -> None:
    """`resume` would let go of what is held, `run` and `restore` are for people and for the engine's own restore."""
    shim.await_copy()
    if command == "resume":
        shim.hold()
    refused(shim, shim.run(*shim.globals(), command, CONTAINER))
    assert shim.calls() == []


@pytest.mark.parametrize(
    "arguments",
    [
        # Whether it takes a value decides where the command is.
        ["--later-flag", "value", "create"],
        ["--later-flag", "create"],
        ["--later-flag=value", "start"],
        ["-x", "state", "create"],
        ["--root", "/x", "--later-flag", "delete", "start"],
        ["--bundle", "state", "start"],
        ["--", "create"],
        # A command of a later runc, or one under another name.
        ["launch"],
        ["Create"],
        ["init"],
        [],
        ["--root"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("held", [False, True], ids=["awaited", "held"])
def test_what_it_does_not_know_is_refused(shim: Shim, arguments: list[str], held: bool) -> None:
    """It may be one more way to start the container, which may be running elsewhere."""
    shim.await_copy()
    if held:
        shim.hold()
    text = refused(shim, shim.run(*shim.globals(), *arguments, CONTAINER))
    assert "does not know" in text
    assert "not started afresh" in text
    # It is this container alone that is protected.
    other = CONTAINER[:-1] + "0"
    assert shim.run(*arguments, other).returncode == 0
    assert shim.calls() == [[*arguments, other]]


@pytest.mark.parametrize("session", ['"; rm -rf /', "a\\b", "../x", ""])
def test_session_that_is_no_id(shim: Shim, session: str) -> None:
    shim.await_copy(session)
    (shim.work / "ready").unlink()
    assert "migration unknown" in refused(shim, shim.run(*shim.create()))


@pytest.mark.parametrize(
    "options", ["manage-cgroups=ignore\n", "# action-script=ACTION\n", "action-script=ACTION2\n", None]
)
def test_nothing_would_hold_it(shim: Shim, options: str | None) -> None:
    shim.await_copy()
    if options is None:
        shim.action.chmod(0o644)
    else:
        (shim.work / "criu.conf").write_text(options.replace("ACTION", str(shim.action)))
    assert "nothing would hold" in refused(shim, shim.run(*shim.create()))
    assert shim.calls() == []


def test_restore_that_fails(shim: Shim) -> None:
    shim.await_copy()
    shim.then(
        """cat >"$PLACE/works/$LIVEMIGRATE_RESTORE/work/restore.log" <<'X'
(00.000001) Error (criu/x.c:1): RLIMIT_NOFILE is low
(00.000002) Restoring
(00.000003) Error (criu/y.c:2): Can't open "/tmp/it"\there \\ now
X
echo '{"level":"error","msg":"criu failed","time":"now"}' >>"$PLACE/a log.json"
exit 3"""
    )
    done = shim.run(*shim.create())
    assert done.returncode == 1
    # containerd tells the last one.
    message = shim.messages()[-1]
    assert message.endswith('could not be restored: Can\'t open "/tmp/it" here \\ now')


def test_restore_that_is_killed(shim: Shim) -> None:
    shim.await_copy()
    shim.then("kill -KILL $$")
    assert shim.run(*shim.create()).returncode == 1
    assert "CRIU ended without a word" in shim.messages()[-1]


@pytest.fixture
def mounted() -> Iterator[list[Path]]:
    """Two places as CRIU makes them, with its file system in memory and one more mounted in that."""
    places = []
    for _dummy in range(2):
        place = Path(f"/tmp/.criu.mntns.{secrets.token_hex(3)}")
        place.mkdir()
        for one in (place, place / "mnt-1"):
            one.mkdir(exist_ok=True)
            subprocess.run(["mount", "-t", "tmpfs", "none", str(one)], check=True)
        places.append(place)
    yield places
    for place in places:
        if place.exists():
            subprocess.run(["umount", "--recursive", str(place)], check=False)
            place.rmdir()


def test_what_criu_leaves_mounted_goes_with_it(shim: Shim, mounted: list[Path]) -> None:
    """Its own alone, and not while it is still at work."""
    own, foreign = mounted
    shim.await_copy()
    shim.then(
        f"""cat >"$PLACE/works/$LIVEMIGRATE_RESTORE/work/restore.log" <<'X'
(00.189) 1: Error (criu/mount-v2.c:413): mnt-v2: Can't remount {own}/mnt-0000001163 with MS_PRIVATE: No such file or directory
(00.193) Error (criu/mount.c:3700): mnt: Can't remove the directory {own}: Device or resource busy
X
echo 7005 >"$PLACE/works/$LIVEMIGRATE_RESTORE/restoring"
exit 1"""
    )
    shim.process(7005, "/x")
    (shim.proc / "7005" / "comm").write_text("criu\n")
    assert shim.run(*shim.create()).returncode == 1
    assert (own / "mnt-1").exists()
    # It has ended; its number is another's.
    (shim.proc / "7005" / "comm").write_text("other\n")
    shutil.rmtree(shim.work / "work")
    assert shim.run(*shim.create()).returncode == 1
    assert not own.exists()
    assert (foreign / "mnt-1").exists()


@pytest.mark.parametrize("kind", ["a link", "another's directory"])
def test_what_others_call_as_criu_does_stays_as_it_is(kind: str, shim: Shim, mounted: list[Path]) -> None:
    """A container whose files have such names has CRIU's log name them, and everybody may make something of that name."""
    foreign = mounted[0]
    named = Path(f"/tmp/.criu.mntns.{secrets.token_hex(3)}")
    if kind == "a link":
        named.symlink_to(foreign)
    else:
        named = foreign
        os.chown(named, 65534, 65534)
    try:
        shim.await_copy()
        shim.then(
            f"""cat >"$PLACE/works/$LIVEMIGRATE_RESTORE/work/restore.log" <<'X'
(00.189) 1: Error (criu/files-reg.c:2196): Can't open file {named} on restore: No such file or directory
X
exit 1"""
        )
        assert shim.run(*shim.create()).returncode == 1
        assert (foreign / "mnt-1").is_mount()
    finally:
        if named.is_symlink():
            named.unlink()


def test_restore_in_which_criu_dies(shim: Shim) -> None:
    """runc alone has something to say then; who reads it knows what it means."""
    shim.await_copy()
    shim.then(
        """echo '{"level":"error","msg":"read unixpacket @->@: EOF","time":"now"}' >>"$PLACE/a log.json"
exit 1"""
    )
    assert shim.run(*shim.create()).returncode == 1
    assert shim.messages()[-1].endswith("could not be restored: read unixpacket @->@: EOF")


def test_log_as_text(shim: Shim) -> None:
    shim.await_copy()
    (shim.work / "ready").unlink()
    assert shim.run("--log", str(shim.log), "create", CONTAINER).returncode == 1
    assert ' level=error msg="livemigrate: container ' in shim.log.read_text()


def test_restored_but_not_held(shim: Shim) -> None:
    """It runs; that must not last."""
    shim.await_copy()
    assert "nothing held it" in refused(shim, shim.run(*shim.create()))
    assert shim.calls()[1] == ["--root", "/run/docker/runtime-runc/moby", "delete", "--force", CONTAINER]


def test_a_checkpoint_is_restored_once(shim: Shim) -> None:
    """`docker restart` of a copy that is held: the second one would be let go by nobody."""
    shim.await_copy()
    shim.then(HELD)
    assert shim.run(*shim.create()).returncode == 0
    assert "was restored before, and has ended; it is not started afresh" in refused(shim, shim.run(*shim.create()))
    assert len(shim.calls()) == 1


# --- start ---


def test_start_leaves_it_held(shim: Shim) -> None:
    """Docker notes that it runs, and whatever becomes of Docker then, this is so when it does."""
    shim.await_copy()
    (shim.work / "addresses").write_text("192.0.2.10\n")
    cgroup = shim.hold()
    done = shim.run(*shim.start())
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert shim.calls() == []
    assert (cgroup / "cgroup.freeze").read_text() == "1\n"
    assert (cgroup / "cgroup.kill").read_text() == ""
    assert shim.network_calls() == ["plumbed 4242 1"]
    assert int((shim.work / "plumbed").read_text()) > 0
    # Only the decision takes them away.
    assert (shim.work / "images" / "pages-1.img").exists()


def test_it_says_so_when_the_network_is_there(shim: Shim) -> None:
    """Whoever compares it with its original would find the device that stood in for its own."""
    shim.await_copy()
    (shim.work / "addresses").write_text("192.0.2.10\n")
    shim.hold()
    (shim.place / "network").write_text(f'#!/bin/sh\nls "{shim.work}" >"$PLACE/there"\n')
    assert shim.run(*shim.start()).returncode == 0
    there = (shim.place / "there").read_text().split()
    assert "held" in there
    assert "plumbed" not in there


# --- what Docker does with a container that it takes for running ---


def ended(process: subprocess.Popen[bytes]) -> subprocess.CompletedProcess[bytes]:
    stdout, stderr = process.communicate(timeout=20)
    return subprocess.CompletedProcess([], process.returncode, stdout, stderr)


def _exec(shim: Shim) -> list[str]:
    return [*shim.globals(), "exec", "--process", "/tmp/runc-process1", "--detach", CONTAINER]


def test_who_enters_it_waits_until_it_runs(shim: Shim) -> None:
    """A health check that begins while it is held is late, and does not fail."""
    shim.await_copy()
    cgroup = shim.hold()
    process = shim.begin(*_exec(shim))
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.2)
    (shim.mark / "consumed").touch()
    # Nor does it enter before the tasks are thawed: runc would refuse that, or make one more task that stands still.
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.2)
    assert shim.calls() == []
    (cgroup / "cgroup.events").write_text("populated 1\nfrozen 0\n")
    assert ended(process).returncode == 0
    assert shim.calls() == [_exec(shim)]


@pytest.mark.parametrize("then", ["its files are taken away", "it ends"])
def test_who_enters_one_that_was_let_go_between_two_looks_is_let_in(shim: Shim, then: str) -> None:
    """runc says what has become of it."""
    shim.await_copy()
    shim.hold()
    process = shim.begin(*_exec(shim))
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.2)
    os.kill(process.pid, signal.SIGSTOP)
    (shim.mark / "consumed").touch()
    if then == "it ends":
        (shim.proc / "4242" / "cgroup").unlink()
    else:
        shutil.rmtree(shim.work)
    os.kill(process.pid, signal.SIGCONT)
    assert ended(process).returncode == 0
    assert shim.calls() == [_exec(shim)]


@pytest.mark.parametrize("how", ["refused", "ended", "unmarked", "never held"])
def test_nobody_enters_a_copy_that_is_given_up(shim: Shim, how: str) -> None:
    shim.await_copy()
    if how != "never held":
        shim.hold()
    process = shim.begin(*_exec(shim))
    if how != "never held":
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
    if how == "refused":
        (shim.work / "refused").touch()
    elif how == "ended":
        (shim.proc / "4242" / "cgroup").unlink()
    elif how == "unmarked":
        (shim.mark / "session").unlink()
        shim.mark.rmdir()
    assert "no process can enter it" in refused(shim, ended(process))
    assert shim.calls() == []


@pytest.mark.parametrize("command", ["checkpoint", "pause", "update"])
def test_what_would_change_it_is_refused(shim: Shim, command: str) -> None:
    shim.await_copy()
    shim.hold()
    text = refused(shim, shim.run(*shim.globals(), command, CONTAINER))
    assert (
        f"copy of migration 20261123-migration, which has not been handed over to this host; it cannot be changed ({command})"
        in text
    )
    assert shim.calls() == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["kill", CONTAINER, "9"],
        ["kill", CONTAINER, "KILL"],
        ["kill", "--all", CONTAINER, "SIGKILL"],
        ["delete", "--force", CONTAINER],
        ["delete", "-force", CONTAINER],
        ["delete", "-f", CONTAINER],
        ["delete", "--force=true", CONTAINER],
    ],
    ids=" ".join,
)
def test_all_tasks_are_killed_before_runc_can_thaw_any(shim: Shim, arguments: list[str]) -> None:
    """runc kills the first process, thaws the container, and leaves it to the kernel to end the others."""
    shim.await_copy()
    cgroup = shim.hold()
    shim.then(f'cat "{cgroup}/cgroup.kill" >"$PLACE/killed"')
    assert shim.run(*shim.globals(), *arguments).returncode == 0
    assert (shim.place / "killed").read_text() == "1\n"
    assert shim.calls() == [[*shim.globals(), *arguments]]


@pytest.mark.parametrize("arguments", [["kill", CONTAINER, "15"], ["kill", CONTAINER], ["kill", CONTAINER, "19"]])
def test_another_signal_waits_as_its_process_does(shim: Shim, arguments: list[str]) -> None:
    shim.await_copy()
    cgroup = shim.hold()
    assert shim.run(*shim.globals(), *arguments).returncode == 0
    assert shim.calls() == [[*shim.globals(), *arguments]]
    assert (cgroup / "cgroup.kill").read_text() == ""


@pytest.mark.parametrize("flag", ["--all", "-all", "-a", "--all=true", "-a=1"])
def test_no_signal_is_sent_to_all(shim: Shim, flag: str) -> None:
    """runc thaws the container for that."""
    shim.await_copy()
    shim.hold()
    assert "it gets no signal" in refused(shim, shim.run(*shim.globals(), "kill", flag, CONTAINER, "15"))
    assert shim.calls() == []


@pytest.mark.parametrize("command", ["kill", "delete"])
def test_number_that_is_anothers_by_now(shim: Shim, command: str) -> None:
    """The cgroup says that it is not the container's: it is left alone, whatever `held` names."""
    shim.await_copy()
    cgroup = shim.hold()
    shim.process(4242, "/user.slice")
    arguments = ["kill", CONTAINER, "9"] if command == "kill" else ["delete", "--force", CONTAINER]
    assert shim.run(*shim.globals(), *arguments).returncode == 0
    assert (cgroup / "cgroup.kill").read_text() == ""


@pytest.mark.parametrize(("below", "there"), [("/init.scope", True), ("-another", False)])
def test_init_may_be_in_a_cgroup_below(shim: Shim, below: str, there: bool) -> None:
    """A container that divides its own cgroup, as systemd does: it is still the same container."""
    shim.await_copy()
    shim.hold()
    shim.process(4242, f"/system.slice/docker-x.scope{below}")
    done = shim.run(*shim.start())
    if there:
        assert done.returncode == 0
    else:
        assert "died before it could be held" in refused(shim, done)


def test_kernel_without_cgroup_kill(shim: Shim) -> None:
    shim.await_copy()
    cgroup = shim.hold()
    (cgroup / "cgroup.kill").unlink()
    below = shim.cgroup("system.slice/docker-x.scope/a child/deeper")
    (below.parent / "cgroup.procs").write_text("")
    victims = [subprocess.Popen(["sleep", "60"]) for count in range(2)]
    shim.processes += victims
    (cgroup / "cgroup.procs").write_text(f"{victims[0].pid}\n")
    (below / "cgroup.procs").write_text(f"{victims[1].pid}\n")
    assert shim.run(*shim.globals(), "kill", CONTAINER, "9").returncode == 0
    assert [victim.wait(10) for victim in victims] == [-9, -9]


# --- a start that ends the copy ---


def test_a_device_that_stays_ends_the_copy(shim: Shim) -> None:
    shim.await_copy()
    (shim.work / "addresses").write_text("192.0.2.10\n")
    cgroup = shim.hold()
    (cgroup / "cgroup.events").write_text("populated 0\nfrozen 1\n")
    (shim.place / "network-fails").touch()
    done = shim.run(*shim.start())
    assert done.returncode == 1
    assert "stood in" in shim.messages()[0]
    assert (cgroup / "cgroup.kill").read_text() == "1\n"


@pytest.mark.parametrize(
    ("hooks", "first"),
    [
        ('{"prestart":[{"path":"/proc/1/exe","args":["libnetwork-setkey"]}],"poststop":[{"path":"/x"}]}', 1),
        ('{"prestart":[],"poststop":[{"path":"/x"}]}', 0),
        ("{}", 0),
    ],
)
def test_the_fence_comes_before_the_engines_hook(shim: Shim, hooks: str, first: int) -> None:
    shim.await_copy()
    (shim.work / "fence").touch()
    shim.then(HELD)
    # The same words in a string are no hooks.
    text = '{"process":{"env":["A={\\"prestart\\":[{}]}"]},"hooks":%s}' % hooks
    (shim.bundle / "config.json").write_text(text)
    assert shim.run(*shim.create()).returncode == 0
    spec = json.loads((shim.bundle / "config.json").read_text())
    before = json.loads(text)
    found = spec["hooks"].get("prestart") or []
    assert found[first:] == (before["hooks"].get("prestart") or [])
    if first:
        assert found[0]["args"] == ["livemigrate-network", "hook", str(shim.work)]
        assert found[0]["path"] == f"{shim.place}/network"
    assert spec["process"] == before["process"]
    assert spec["hooks"].get("poststop") == before["hooks"].get("poststop")


@pytest.mark.parametrize(
    "held",
    ["", "4242\n", "x\nCGROUP/system.slice/docker-x.scope\n", "4242\n/etc\n", "4242\nCGROUP\n", "4242\nCGROUP/../x\n"],
)
def test_held_that_the_script_did_not_write(shim: Shim, held: str) -> None:
    shim.await_copy()
    shim.hold()
    (shim.work / "held").write_text(held.replace("CGROUP", str(shim.cgroups)))
    refused(shim, shim.run(*shim.start()))
    assert not (shim.work / "plumbed").exists()


def test_given_up_while_docker_made_the_network(shim: Shim) -> None:
    shim.await_copy()
    cgroup = shim.hold()
    (cgroup / "cgroup.events").write_text("populated 0\nfrozen 1\n")
    (shim.work / "refused").touch()
    assert "given up" in refused(shim, shim.run(*shim.start()))
    assert (cgroup / "cgroup.kill").read_text() == "1\n"
    # Never let go of on the way out.
    assert (cgroup / "cgroup.freeze").read_text() == "1\n"
    assert not (shim.work / "held").exists()
    assert not (shim.work / "plumbed").exists()
