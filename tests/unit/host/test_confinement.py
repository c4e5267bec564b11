# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a confined program can reach; and both ends of rsync while somebody swaps a directory for a link under their hands."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ansible_collections.livemigrate.criu.plugins.module_utils._base.command import Completed
from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._channel.client import Channel
from ansible_collections.livemigrate.criu.plugins.module_utils._host import confinement
from tests.unit.helpers import old_rsync
from tests.unit.helpers.support import PACKAGE, ROOT, wait_for
from tests.unit.helpers.wire import Wire

pytestmark = pytest.mark.usefixtures("needs_namespaces")


@pytest.fixture
def tree(disk: Path) -> Path:
    """A directory, beside one whose content is nobody's business."""
    (disk / "secret").mkdir()
    (disk / "secret" / "file").write_text("SECRET")
    directory = disk / "tree"
    directory.mkdir()
    (directory / "file").write_text("content")
    return directory


def _confined(tree: Path, *argv: str) -> Completed:
    return confinement.run(argv, str(tree), timeout=10)


# -- what is there -----------------------------------------------------------------------------------------------------


def test_there_is_the_directory_and_what_programs_need(tree: Path) -> None:
    assert _confined(tree, "cat", f"{tree}/file").stdout == "content"
    top = set(_confined(tree, "ls", "-A", "/").stdout.split())
    assert top - {name for name in os.listdir("/") if name.startswith(("lib", "bin", "sbin", "usr"))} == {
        *("dev", "etc", "tmp", ".livemigrate-host")
    }
    assert set(_confined(tree, "ls", "-A", "/etc", "/dev").stdout.split()) <= {
        *("/etc:", "ld.so.cache", "/dev:", "null", "urandom")
    }
    assert _confined(tree, "ls", "-A", str(tree.parent)).stdout.split() == ["tree"]


@pytest.mark.parametrize("program", ["cat {}/secret/file", "cat {}/tree/../secret/file", "ls /proc/self", "ls /root"])
def test_nothing_else_is_there(program: str, tree: Path) -> None:
    done = _confined(tree, *program.format(tree.parent).split())
    assert done.rc != 0
    assert "No such file or directory" in done.stderr


def test_the_directory_can_be_written_and_nothing_else(tree: Path) -> None:
    assert _confined(tree, "touch", f"{tree}/new").rc == 0
    assert (tree / "new").exists()
    for place in ("/usr", "/etc", "/", "/.livemigrate-host"):
        done = _confined(tree, "touch", f"{place.rstrip('/')}/new")
        assert done.rc != 0, place
    assert "Read-only file system" in _confined(tree, "touch", "/usr/bin/env").stderr
    assert _confined(tree, "dd", "if=/dev/urandom", "of=/dev/null", "count=1").rc == 0


def test_another_thread_that_starts_a_program_is_not_in_the_way(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it begins it has open what we have open, and what is open for writing cannot be made read-only (seen under load)."""
    real = os.open
    others: list[subprocess.Popen[bytes]] = []

    def open_while_another_thread_forks(path: str, flags: int, *arguments: int, **words: int) -> int:
        found = real(path, flags, *arguments, **words)
        if flags & (os.O_WRONLY | os.O_RDWR):
            others.append(subprocess.Popen(["sleep", "10"], pass_fds=[found]))
        return found

    monkeypatch.setattr(os, "open", open_while_another_thread_forks)
    try:
        assert _confined(tree, "cat", f"{tree}/file").stdout == "content"
    finally:
        for one in others:
            one.kill()
            one.wait()


def test_links_are_read_and_made_and_not_followed(tree: Path) -> None:
    (tree / "absolute").symlink_to("/usr/bin/env")
    (tree / "within").symlink_to("file")
    for name in ("absolute", "within"):
        assert _confined(tree, "readlink", f"{tree}/{name}").stdout.strip() == os.readlink(tree / name)
        done = _confined(tree, "cat", f"{tree}/{name}")
        assert done.rc != 0
        assert "Too many levels of symbolic links" in done.stderr
    assert _confined(tree, "ln", "-s", "/anywhere", f"{tree}/made").rc == 0
    assert os.readlink(tree / "made") == "/anywhere"


def test_a_device_in_it_cannot_be_opened(tree: Path) -> None:
    """A container may make devices in its layer and not open them; put in the place of a file, root would open them for it."""
    assert _confined(tree, "mknod", f"{tree}/device", "c", "1", "5").rc == 0
    assert stat.S_ISCHR((tree / "device").stat().st_mode)
    done = _confined(tree, "head", "-c1", f"{tree}/device")
    assert done.rc != 0
    assert "Permission denied" in done.stderr
    with (tree / "device").open("rb") as device:
        assert device.read(1) == b"\0", "what this test rests on"


@pytest.mark.parametrize("name", ["a b\tc\n", "na\udcffme", "back\\slash"])
def test_any_name_will_do(name: str, tree: Path) -> None:
    directory = tree / name
    directory.mkdir()
    (directory / "way").symlink_to("/usr")
    (directory / "file").write_text("odd")
    assert _confined(directory, "cat", f"{directory}/file").stdout == "odd"
    assert "Too many levels" in _confined(directory, "ls", f"{directory}/way/").stderr


def test_a_directory_that_is_a_link_goes_by_the_name_of_what_it_leads_to(tree: Path) -> None:
    link = tree.parent / "link"
    link.symlink_to(tree)
    assert confinement.directory(str(link)) == str(tree)
    assert _confined(link, "cat", f"{tree}/file").stdout == "content"


# Runs in a mount namespace of its own. The last two cover one another.
_MOUNTS = f"""
import subprocess, sys
from pathlib import Path
sys.path.insert(0, {str(ROOT / ".tree")!r})
from {PACKAGE}._host import confinement
tree = Path(sys.argv[1])
if sys.argv[2] == "old kernel":
    confinement._restrict_whole = lambda *_arguments, **_keywords: False
for number, options in enumerate(("rw", "ro,noexec", "rw")):
    (tree / f"sub{{number % 2}}").mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "rw", "tmpfs", str(tree / f"sub{{number % 2}}")], check=True)
    (tree / f"sub{{number % 2}}" / f"deep{{number}}").mkdir()
    (tree / f"sub{{number % 2}}" / "way").symlink_to("/usr")
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(tree / f"sub{{number % 2}}" / f"deep{{number}}")], check=True)
    (tree / f"sub{{number % 2}}" / f"deep{{number}}" / "file").write_text("deep")
    subprocess.run(["mount", "-o", f"remount,bind,{{options}}", str(tree / f"sub{{number % 2}}")], check=True)
for argv in (["cat", f"{{tree}}/sub0/deep2/file", f"{{tree}}/sub1/deep1/file"], ["ls", f"{{tree}}/sub0/way/"],
             ["touch", f"{{tree}}/sub1/new"], ["touch", f"{{tree}}/sub0/new"], ["ls", f"{{tree}}/sub0/deep0"]):
    done = confinement.run(argv, str(tree), timeout=10)
    print(done.rc, (done.output.splitlines() or [""])[-1].rpartition(": ")[2])
"""


@pytest.mark.parametrize("kernel", ["new kernel", "old kernel"])
def test_what_is_mounted_in_it_is_seen_as_it_was_and_its_links_are_not_followed(kernel: str, tree: Path) -> None:
    argv = ["unshare", "--mount", sys.executable, "-c", _MOUNTS, str(tree), kernel]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == [
        "0 deepdeep",
        "2 Too many levels of symbolic links",
        "1 Read-only file system",
        "0 ",
        "2 No such file or directory",
    ], done.stderr


# A container that has the directory as a volume renames what lies above a mount in it, when it suits it. On an old kernel that is
# after a look at the mounts; the names change back and forth there for as long as it is told to.
_RENAMED = f"""
import os, subprocess, sys
from pathlib import Path
sys.path.insert(0, {str(ROOT / ".tree")!r})
from {PACKAGE}._host import confinement
from {PACKAGE}._base.errors import MigrationError
tree, kernel, times, how = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
for name in ("a", "b"):
    (tree / name / "mount").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(tree / name / "mount")], check=True)
    (tree / name / "mount" / "way").symlink_to("/usr/bin/env")
    subprocess.run(["mknod", str(tree / name / "mount" / "device"), "c", "1", "5"], check=True)
left = times
def rename():
    global left
    left -= 1
    if left >= 0 and how == "moved away":
        os.rename(tree / "a", tree / "c") if (tree / "a").exists() else os.rename(tree / "c", tree / "a")
    elif left >= 0:
        for one, other in (("a", "x"), ("b", "a"), ("x", "b")):
            os.rename(tree / one, tree / other)
if kernel == "old kernel":
    confinement._restrict_whole = lambda *_arguments, **_keywords: False
    if how == "moved away":
        read = confinement._read
        def read_then_renamed(name, parent):
            text = read(name, parent)
            rename()
            return text
        confinement._read = read_then_renamed
    else:
        mount = confinement._mount
        def mounted_then_swapped(source, place, *more):
            mount(source, place, *more)
            if place.startswith(str(tree)) and place.endswith("/mount"):
                rename()
        confinement._mount = mounted_then_swapped
else:
    rename()
script = f"for m in {{tree}}/*/mount; do head -c1 $m/device; head -c1 $m/way; done; ls -d {{tree}}/*/mount | wc -l"
try:
    done = confinement.run(["sh", "-c", script], str(tree), timeout=10)
    errors = sorted({{line.rpartition(": ")[2] for line in done.stderr.splitlines()}})
    print(done.stdout.strip(), len(done.stderr.splitlines()), *errors, sep="|")
except MigrationError as exc:
    print(exc.code, "renamed all the time" in exc.message, sep="|")
"""
_NOTHING_OPENED = "2|4|Permission denied|Too many levels of symbolic links"


@pytest.mark.parametrize(
    ("kernel", "times", "how", "reported"),
    [
        ("new kernel", 1, "moved away", _NOTHING_OPENED),
        ("old kernel", 0, "moved away", _NOTHING_OPENED),
        ("old kernel", 1, "moved away", _NOTHING_OPENED),
        # Each of the two names leads to a mount when it is its turn, and both times to the same one.
        ("old kernel", 1, "exchanged", _NOTHING_OPENED),
        ("old kernel", 1000, "moved away", "confinement_failed|True"),
    ],
)
def test_a_mount_below_it_does_not_escape_by_another_name(
    kernel: str, times: int, how: str, reported: str, tree: Path
) -> None:
    argv = ["unshare", "--mount", sys.executable, "-c", _RENAMED, str(tree), kernel, str(times), how]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == reported, done.stderr


def test_it_keeps_no_other_mount_of_the_host_busy_and_the_host_sees_none_of_its_own(tree: Path) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    with confinement.start(["sleep", "5"], str(tree)) as process:
        mounts = Path(f"/proc/{process.pid}/mountinfo").read_text().splitlines()
        here = Path("/proc/self/mountinfo").read_text()
        process.kill()
    assert {
        line.split()[4] for line in mounts if not line.split()[4].startswith(("/usr", "/bin", "/sbin", "/lib"))
    } == {*("/", "/dev/null", "/dev/urandom", "/etc/ld.so.cache", "/.livemigrate-host", str(tree))}
    assert here == before
    assert Path("/proc/self/mountinfo").read_text() == before


# As systemd has it: what is mounted anywhere shows in every other namespace.
_SHARED = f"""
import subprocess, sys
from pathlib import Path
sys.path.insert(0, {str(ROOT / ".tree")!r})
from {PACKAGE}._host import confinement
before = Path("/proc/self/mountinfo").read_text()
with confinement.start(["sleep", "5"], sys.argv[1]) as process:
    unchanged = Path("/proc/self/mountinfo").read_text() == before
    mounts = Path(f"/proc/{{process.pid}}/mountinfo").read_text()
    process.kill()
print("shared:" in before, unchanged, "shared:" in mounts, "master:" in mounts)
"""


def test_where_the_host_s_mounts_are_shared_it_has_no_part_in_them(tree: Path) -> None:
    argv = ["unshare", "--mount", "--propagation", "shared", sys.executable, "-c", _SHARED, str(tree)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["True", "True", "False", "False"], done.stderr


def test_a_program_can_be_started_from_within_that_is_outside(tree: Path) -> None:
    argv = (*confinement.OUTSIDE, "readlink", "/proc/self/ns/mnt")
    assert _confined(tree, *argv).stdout.strip() == os.readlink("/proc/self/ns/mnt")
    assert _confined(tree, *confinement.OUTSIDE, "cat", f"{tree.parent}/secret/file").stdout == "SECRET"


def test_a_program_that_is_not_there_and_a_directory_that_is_not_there_are_reported(tree: Path) -> None:
    for argv, path, code in (
        (["livemigrate-no-such-program"], tree, "program_missing"),
        (["true"], tree / "missing", "confinement_failed"),
    ):
        with pytest.raises(MigrationError) as caught:
            confinement.run(argv, str(path), timeout=5)
        assert caught.value.code == code
        assert str(argv[0]) in caught.value.message


def test_a_program_that_does_not_end_is_killed(tree: Path) -> None:
    with pytest.raises(MigrationError) as caught:
        confinement.run(["sleep", "60"], str(tree), timeout=0.1)
    assert caught.value.code == "program_timeout"


# -- rsync, while the directory is changed under its hands ---------------------------------------------------------------


@pytest.fixture
def outside(request: pytest.FixtureRequest, disk: Path) -> Iterator[Path]:
    """A directory of the host that is none of the container's.

    By the programs: where the confined rsync can see it, because its own program lies there. Only the kernel's refusal to
    follow links keeps it from it then.
    """
    if request.param == "elsewhere":
        (disk / "outside").mkdir()
        yield disk / "outside"
        return
    top = Path("/", *Path(old_rsync.directory()).parts[1:2])
    directory = Path(tempfile.mkdtemp(prefix="lm", dir=top))
    yield directory
    shutil.rmtree(directory)


everywhere = pytest.mark.parametrize("outside", ["elsewhere", "by the programs"], indirect=True)


@pytest.fixture
def old_wire(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> Wire:
    """A channel with an rsync at both ends that follows what it is led to."""
    if not old_rsync.directory():
        pytest.skip("no rsync before 3.5 can be had")
    monkeypatch.setenv("PATH", old_rsync.directory(), prepend=":")
    return wire


def _while_it_travels(wire: Wire, source: Path, place: Path, big: str, change: Callable[[], None]) -> None:
    """Send a directory, and change something at the moment when a big file of it is on its way."""
    failures: list[MigrationError] = []

    def send() -> None:
        try:
            Channel(wire.source).rsync(str(source), "volume/data", running=True)
        except MigrationError as exc:
            failures.append(exc)

    sender = threading.Thread(target=send)
    sender.start()
    directory, name = (place / big).parent, Path(big).name
    wait_for(lambda: list(directory.glob(f".{name}.*")), f"{name} is on its way", 10)
    change()
    sender.join()
    # The test is about where things end up. That rsync finds fault with it is well.
    assert all(failure.code == "transfer_failed" for failure in failures)


def _swap(directory: Path, outside: Path) -> None:
    directory.rename(directory.with_name("away"))
    directory.symlink_to(outside)


def _unpack(directory: Path) -> set[str]:
    """The content of all files that lie in a directory, without following links."""
    files = [path for path in directory.rglob("*") if path.is_file() and not path.is_symlink()]
    return {path.read_bytes()[:100].decode("latin-1") for path in files}


@everywhere
def test_a_container_that_swaps_a_directory_for_a_link_gets_no_file_of_its_host_sent(
    outside: Path, old_wire: Wire, disk: Path
) -> None:
    source = disk / "source"
    (source / "sub").mkdir(parents=True)
    (source / "big").write_bytes(os.urandom(48 << 20))
    (source / "sub" / "shadow").write_text("harmless")
    (outside / "shadow").write_text("SECRET!!")
    place = old_wire.prepare("volume/data")
    _while_it_travels(old_wire, source, place, "big", lambda: _swap(source / "sub", outside))
    assert "SECRET!!" not in _unpack(place)
    assert (place / "big").stat().st_size == 48 << 20, "it was under way when the directory was swapped"
    # And what the directory is by now travels with the next pass.
    old_wire.channel.rsync(str(source), "volume/data", ("--delete", "--force"))
    assert os.readlink(place / "sub") == str(outside)


@everywhere
def test_a_destination_s_directory_that_is_swapped_for_a_link_leads_nothing_out_of_it(
    outside: Path, old_wire: Wire, disk: Path
) -> None:
    """Two transfers into one place are enough for it, so a source that means harm, or who has the channel's key, can do it."""
    source = disk / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "big").write_bytes(os.urandom(48 << 20))
    (source / "sub" / "evil").write_text("EVIL")
    place = old_wire.prepare("volume/data")
    _while_it_travels(old_wire, source, place, "sub/big", lambda: _swap(place / "sub", outside))
    assert list(outside.iterdir()) == []
