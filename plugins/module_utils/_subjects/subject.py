# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""What the machine of a migration asks of the thing that is moved.

The machine (``_migration/``, with ``_session/`` and ``_channel/`` below it) opens sessions, freezes, hands over, decides and
recovers. It knows no containers. What it moves is an :class:`Original` on the source and a :class:`Copy` on the destination; a
:class:`Kind` makes them. Each is made once, at the beginning of a step, and handed on: it may keep what does not change while the
step goes on. Where something may have changed and must be looked at again, the name of the method says so.

Whatever may fail raises ``MigrationError``; where the machine does something of its own about an error, its code is named here.
An order that is given here is part of the promise that nothing is lost and nothing runs twice.
"""

from __future__ import annotations

import typing as t

from .._base.errors import MigrationError
from .._channel.tree import Tree
from .._criu.images import Manifest
from .._host.flush import Flush
from .._session.session import Session

Params = t.Mapping[str, t.Any]
Result = dict[str, t.Any]
Step = t.Callable[[Session, Params], Result]
Answer = t.Callable[[], Result]

#: the code of the error that the keeper of a thing (the Docker Engine of a container) does not answer
UNREACHABLE = "engine_unreachable"


class Prepared(t.NamedTuple):
    """What :meth:`Original.prepare` found out."""

    data: dict[str, t.Any]
    """Plain data for the journal, with phase ``prepared``: whoever settles the session after a crash has it."""
    warnings: list[str]
    """What a person should know, a sentence each."""


class Dumped(t.NamedTuple):
    """What came of :meth:`Original.dump`."""

    stopped: list[int]
    """The processes that do not run when somebody else thaws them, see :meth:`Original.require_not_run_since_dump`."""
    size: int
    """Bytes of the checkpoint."""
    seconds: float
    """That the dump itself took."""
    report: dict[str, t.Any]
    """More that a module returns of it, plain data."""


class Found(t.Protocol):
    """Something that runs on this host, looked at once, before there is a session about it."""

    @property
    def id(self) -> str:
        """No two things of this host have the same, whatever their kinds. It can be the name of a file."""

    @property
    def name(self) -> str:
        """What people call it."""

    def require_movable(self, params: Params) -> None:
        """Refuse what cannot be moved, as far as this host can tell.

        :param params: of the module that opens a session.
        :raises MigrationError: ``cannot_move`` with all findings at once.
        """

    def facts(self, params: Params) -> Result:
        """What ``session.json`` says of it: id and name under the keys of its kind (``_session/session.py``), and whatever else a
        later step needs. Plain data without secrets, it stays until cleanup.

        The machine itself reads ``data_root`` where it is there: a directory of this host that is flushed together with what the
        source sends, because the keeper notes things about the copy in it. And ``volumes``: names of data that stay behind.
        """

    def describe(self, session: Session) -> None:
        """Write what the destination has to know into the directory ``outbox`` in the session's memory, which is sent to it."""


class Original(t.Protocol):
    """What is moved, on its source, for one step of a session."""

    @property
    def session(self) -> Session:
        """Its session."""

    @property
    def can_be_held(self) -> bool:
        """Whether its copy can be restored and held, with nothing of it having run, until RUN is decided. Else the copy runs from
        the moment of its restore, and RUN is decided when it does."""

    def require_held(self, held: bool) -> None:
        """Refuse a step that is not for a copy of this sort.

        :raises MigrationError: ``wrong_engine``.
        """

    def reach(self, seconds: float | None = None) -> None:
        """Connect to its keeper, where it has one that can fail to answer.

        :param seconds: that the keeper has to answer; its usual time if left out.
        :raises MigrationError: ``engine_unreachable``: see :meth:`go_on_alone`.
        """

    # -- while it runs

    def trees(self) -> t.Sequence[Tree]:
        """The directories that travel with it, without its checkpoint; they stay the same for the whole session."""

    def prepare(self, *, close_connections: bool) -> Prepared:
        """Look how it is now, and decide what the move is going to do with it. The copy is made by then, and not started.

        :param close_connections: whether the user takes it that connections which cannot be kept are closed.
        :raises MigrationError: ``cannot_move``.
        """

    def look_ahead(self) -> None:
        """Read what need not be read while it stands still. After ``prepared`` is in the journal."""

    def make_ready(self) -> dict[str, t.Any]:
        """Look once more at what may have changed since, and make room for the dump.

        :returns: plain data for the journal, with phase ``arming``: whoever settles the session finds its tasks and what was put
            aside by that alone. ``bytes``: what the dump may take.
        :raises MigrationError: ``cannot_move``; what it has become that was not prepared for.
        """

    def put_aside(self) -> None:
        """Take from it what would start it again by itself once it has been frozen or killed; on the disk when this returns.

        After ``arming`` is in the journal, so that it can be given back.
        """

    # -- freezing it; all of it once for each attempt

    def look_last(self) -> None:
        """The last look at what need not be read while it stands still."""

    def keep_newcomers_out(self) -> None:
        """Let nothing new begin that the freeze would cut off; all else goes on."""

    def stop(self) -> list[str]:
        """Freeze it, and have nobody answer for it.

        :returns: what was found in it that cannot be moved and may go by itself: then another attempt is made. Empty when it
            stands still as it is to be.
        :raises MigrationError: ``freeze_failed``.
        """

    def step_back(self) -> None:
        """After an attempt that has found something: let it go on until the next one."""

    def in_the_way(self, found: t.Sequence[str]) -> MigrationError:
        """What to tell when that does not go by itself."""

    # -- while it stands still

    def dump_ready(self) -> t.ContextManager[t.Any]:
        """Around the freeze: what can be started beforehand so that the dump begins at once. Only where a copy can be held."""

    def images(self) -> str:
        """The directory in which the checkpoint lies, or comes to lie."""

    def files_stand_still(self) -> bool:
        """Whether nobody but the dump writes its files while it stands still, so that they may be sent beside that."""

    def dump(self) -> Dumped:
        """Dump it, and make sure that nothing can run it before we say so: not even a thaw by somebody else.

        It is frozen before and after. What the destination has to know lies in ``outbox`` when this returns.

        :raises MigrationError: ``dump_failed`` ...
        """

    def patience(self) -> float:
        """Seconds that its memory may take on its way, or to be restored, besides what everything takes. After the dump."""

    def for_copy(self) -> dict[str, t.Any]:
        """What :meth:`Copy.hold` gets beside the manifest: plain data. In the same step as the dump."""

    def all_sent(self) -> None:
        """The last of its files have left: take away what the dump has put among them. May be repeated."""

    def require_not_run_since_dump(self) -> None:
        """Make sure that nothing of it has run since the dump.

        :raises MigrationError: ``source_thawed``.
        """

    # -- the end. Each may be repeated from wherever it was cut off, by another process and after a boot of this host.

    def end(self) -> None:
        """RUN is heard: end it without letting it run again, and keep what is left under another name.

        First all that could start it is taken from it, on the disk. One that somebody has removed meanwhile is fine.
        """

    def go_on(self) -> None:
        """Let it go on as if nothing had happened: ABORT is decided, or REFUSED heard, or the destination lost. It gets back what
        was put aside, and where it has ended meanwhile it is started.

        Where its keeper does not answer, or refuses, its tasks go on all the same, and this fails after that.
        """

    def may_go_on_alone(self) -> bool:
        """Whether it has tasks on this host that may be frozen, as the kernel says."""

    def go_on_alone(self) -> None:
        """Of :meth:`go_on` what can be done while its keeper does not answer: its tasks run. The rest follows later."""

    def forget(self) -> None:
        """Delete the checkpoint, after either end. Also where the thing itself is gone: its memory must not stay."""


class Copy(t.Protocol):
    """What becomes of it on the destination, for one step of a session."""

    @property
    def session(self) -> Session:
        """Its session."""

    @property
    def can_be_held(self) -> bool:
        """See :attr:`Original.can_be_held`."""

    def require_held(self, held: bool) -> None:
        """See :meth:`Original.require_held`."""

    def reach(self, seconds: float | None = None) -> None:
        """See :meth:`Original.reach`."""

    # -- before the freeze

    def make(self, params: Params) -> Result:
        """Make it, not started, and open its places to the channel (``_channel/server.py``, ``set_targets``).

        It enters ``creating``, with a note of everything that it is about to make, before it makes any of it; and ``created``,
        with the copy's id, when that is there and nobody can start it afresh.

        :param params: of the module.
        :returns: what the module returns.
        """

    def images(self) -> str:
        """The directory into which the checkpoint comes."""

    # -- a copy that can be held

    def hold(self, received: Manifest, sent: Manifest, for_copy: t.Mapping[str, t.Any], flush: Flush) -> Result:
        """Restore it with nothing of it running, prove that it is the original, and have its files on the disk.

        It enters ``starting`` before it begins, and ``held`` at its end.

        :param received: what arrived of the checkpoint.
        :param sent: what the source has sent, by its own account.
        :param for_copy: what :meth:`Original.for_copy` returned. It comes from another host.
        :param flush: the file systems of its files, open since before the last pass.
        :returns: ``processes``, ``recognised``, ``seconds``, ``flush_seconds``, ``flush_waited``, ``timeline``
            (``_session/timeline.py``), ``warnings``.
        """

    def prepare_announcement(self) -> None:
        """While the source decides: get ready to tell the neighbours where it is. It is no error if that cannot be done."""

    def run(self) -> None:
        """Decide RUN and let it go; the phase ``run`` is entered, with the copy's id, when it runs.

        :raises MigrationError: where it is not held any more, or ``already_refused``.
        """

    def announce_again(self) -> None:
        """Some time after: tell the neighbours once more."""

    # -- a copy that runs from its restore on

    def start(self) -> Result:
        """Restore it, prove that it is the original, decide RUN, and enter ``starting`` and ``run``.

        :returns: what the module returns; ``warnings`` among it.
        """

    def announce(self) -> None:
        """Tell the neighbours where it is. It is no error if that cannot be done."""

    # -- settling. Each may be repeated, by another process and after a boot of this host.

    def decide_interrupted(self) -> str | None:
        """Decide RUN where an interrupted start has to count as one, because the copy may have run.

        :returns: why it has not been decided, else None.
        :raises MigrationError: when it cannot be known now.
        """

    def let_go(self) -> None:
        """RUN is decided: see to it that it runs, and enter ``run``. Without its keeper."""

    def end(self) -> None:
        """REFUSED is decided: leave nothing of it that could run. Without its keeper, which may be waiting for it.

        :raises MigrationError: ``kill_failed``.
        """

    def take_away(self) -> list[str]:
        """After :meth:`end`: take away all that was made.

        :returns: what had to be left, and why, a sentence each.
        """

    def finish(self) -> list[str]:
        """What follows RUN: it gets what was put aside on the source, the checkpoint goes, and old copies that it supersedes.

        :returns: why such an old copy is left alone, a sentence each.
        """

    def hand_to_keeper(self) -> None:
        """After :meth:`finish`: from here on its keeper answers for it, and what that would have done by now is done."""


class Kind(t.Protocol):
    """All things of one kind on this host, for one step."""

    @property
    def noun(self) -> str:
        """What people call one: in messages, in keys of records, and as the option of modules that names it."""

    def reach(self) -> None:
        """See :meth:`Original.reach`."""

    def find(self, name: str) -> Found | None:
        """The one of that name or id as it is now; None where there is none.

        :param name: valid by ``valid_names.subject_name``.
        """

    def unknown(self, name: str) -> MigrationError:
        """What to tell where there is none of that name."""

    def facts_of_copy(self, params: Params) -> Result:
        """What ``session.json`` says on the destination: see :meth:`Found.facts`.

        :param params: of the module that opens that half.
        """

    def original(self, session: Session) -> Original:
        """The original of a session."""

    def copy(self, session: Session) -> Copy:
        """The copy of a session."""

    def steps(self) -> t.Mapping[str, Step]:
        """Steps for modules that only this kind has: by name, see ``_migration/steps.py``."""

    def commands(self, session: Session) -> t.Mapping[str, Answer]:
        """The commands of the channel that this kind alone has, by their names: see ``_channel/server.py``."""

    def start_when_ready(self, session: Session) -> None:
        """The body of the unit that waits for the checkpoint and starts the copy, where the kind has one."""

    def tidy(self) -> None:
        """Remove what is left of sessions of this kind that nobody needs any more, and their records."""

    def tidy_beside(self, session: Session) -> None:
        """The same while a session is opened: what stands in the way is left for the next time."""

    def remove_old_copy(self, session: Session, *, check_mode: bool) -> list[str]:
        """Remove what a move has left on its source, not its data.

        :returns: its name, if it is there.
        :raises MigrationError: ``old_copy_in_use``.
        """
