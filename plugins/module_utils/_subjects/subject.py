# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The interface between the machine of a migration and the thing that is moved.

The machine (``_migration/``, with ``_session/`` and ``_channel/`` below it) opens sessions, freezes, hands over, decides and
recovers. It knows no containers. What it moves is an :class:`Original` on the source and a :class:`Copy` on the destination; a
:class:`Kind` makes them. Each is made once, at the beginning of a step, and passed on: it may keep what does not change during
the step. Where something may have changed and must be read again, the name of the method says so.

Every method may raise ``MigrationError``. Where the machine handles an error itself, the code of that error is named here.
Where an order of actions is given here, it is needed so that nothing is lost and nothing runs twice.
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


class Prepared(t.NamedTuple):
    """The result of :meth:`Original.prepare`."""

    data: dict[str, t.Any]
    """Plain data for the journal, with phase ``prepared``: whoever settles the session after a crash has it."""
    warnings: list[str]
    """What a person should know, a sentence each."""


class Dumped(t.NamedTuple):
    """The result of :meth:`Original.dump`."""

    stopped: list[int]
    """The processes that do not run when somebody else thaws them, see :meth:`Original.require_not_run_since_dump`."""
    size: int
    """Bytes of the checkpoint."""
    seconds: float
    """That the dump itself took."""
    report: dict[str, t.Any]
    """What else the module returns about the dump: plain data."""


class Found(t.Protocol):
    """Something that runs on this host, as it was when it was looked at once, before there is a session for it."""

    @property
    def id(self) -> str:
        """Its id. No two things of this host have the same id, whatever their kinds. It can be the name of a file."""

    @property
    def name(self) -> str:
        """What people call it."""

    def require_movable(self, params: Params) -> None:
        """Refuse what cannot be moved, as far as this host can tell.

        :param params: of the module that opens a session.
        :raises MigrationError: ``cannot_move`` with all findings at once.
        """

    def facts(self, params: Params) -> Result:
        """What ``session.json`` notes about it: its id and name under the keys of its kind (``_session/session.py``), and
        everything else that a later step needs. This is plain data without secrets; it stays until cleanup.

        The machine itself reads ``data_root`` where it is there: a directory of this host that is flushed together with what the
        source sends, because the keeper notes things about the copy in it. And ``volumes``: names of data that stay behind.
        """

    def describe(self, session: Session) -> None:
        """Write what the destination has to know into the directory ``outbox`` in the session's memory, which is sent there."""


class Original(t.Protocol):
    """What is moved, on its source, for one step of a session."""

    @property
    def session(self) -> Session:
        """Its session."""

    @property
    def can_be_held(self) -> bool:
        """Whether its copy can be held: restored, but without having run anything until RUN is decided. Else the copy runs from
        the moment of its restore, and RUN is decided then."""

    def require_held(self, held: bool) -> None:
        """Refuse a step that is not for a copy of this sort.

        :raises MigrationError: ``wrong_engine``.
        """

    def reach(self, seconds: float | None = None) -> None:
        """Connect to its keeper, where it has one that can fail to answer.

        :param seconds: that the keeper has to answer; its usual time if left out.
        :raises MigrationError: ``engine_unreachable``, or another reason why it cannot be asked: see :meth:`go_on_alone`.
        """

    # -- while it runs

    def trees(self) -> t.Sequence[Tree]:
        """The directories that travel with it, without its checkpoint; they stay the same for the whole session."""

    def prepare(self, *, close_connections: bool) -> Prepared:
        """Read its state, and decide what the move is going to do with it. The copy has been made by then, and is not started.

        :param close_connections: whether the user accepts that connections which cannot be kept are closed.
        :raises MigrationError: ``cannot_move``.
        """

    def look_ahead(self) -> None:
        """Read what need not be read while it is frozen. This comes after ``prepared`` is in the journal."""

    def make_ready(self) -> dict[str, t.Any]:
        """Read once more what may have changed since then, and reserve space for the dump.

        :returns: plain data for the journal, with phase ``arming``: whoever settles the session needs nothing else to find its
            tasks and what was put aside. ``bytes``: what the dump may take.
        :raises MigrationError: ``cannot_move``; an error for a change that was not prepared for.
        """

    def put_aside(self) -> None:
        """Put aside what would start it again by itself after it has been frozen or killed. That is on the disk when this
        returns.

        This comes after ``arming`` is in the journal, so that it can be given back.
        """

    # -- freezing it; all of it once for each attempt

    def look_last(self) -> None:
        """Read for the last time what need not be read while it is frozen."""

    def keep_newcomers_out(self) -> None:
        """Let nothing new begin that the freeze would cut off. Everything else goes on."""

    def stop(self) -> list[str]:
        """Freeze it, and make sure that nobody answers in its place.

        :returns: what was found in it that cannot be moved and may end by itself: then another attempt is made. It is empty
            when the freeze has succeeded.
        :raises MigrationError: ``freeze_failed``.
        """

    def step_back(self) -> None:
        """Let it go on until the next attempt, after one that has found something."""

    def in_the_way(self, found: t.Sequence[str]) -> MigrationError:
        """The error when what was found does not end by itself."""

    # -- while it stands still

    def dump_ready(self) -> t.ContextManager[t.Any]:
        """In this block, which is around the freeze, everything is started that lets the dump begin at once. Only where a copy
        can be held."""

    def images(self) -> str:
        """The directory in which the checkpoint lies, or comes to lie."""

    def files_stand_still(self) -> bool:
        """Whether only the dump writes into its files while it is frozen, so that they may be sent beside the dump."""

    def dump(self) -> Dumped:
        """Dump it, and make sure that nothing can run it until the session lets it: not even a thaw by somebody else.

        It is frozen before and after. What the destination has to know lies in ``outbox`` when this returns.

        :raises MigrationError: ``dump_failed`` ...
        """

    def patience(self) -> float:
        """Seconds that its memory may take to be sent, or to be restored, in addition to the time that every move takes. After
        the dump."""

    def for_copy(self) -> dict[str, t.Any]:
        """What :meth:`Copy.hold` gets beside the manifest: plain data. In the same step as the dump."""

    def all_sent(self) -> None:
        """After the last of its files has been sent: take away what the dump has put among them. This may be repeated."""

    def require_not_run_since_dump(self) -> None:
        """Make sure that nothing of it has run since the dump.

        :raises MigrationError: ``source_thawed``.
        """

    # -- the end. Each may be repeated from wherever it was cut off, by another process and after a boot of this host.

    def end(self) -> None:
        """After the decision RUN: end it without letting it run again, and keep what is left under another name.

        First everything that could start it is taken from it, on the disk. It is no error if somebody has removed it meanwhile.
        """

    def go_on(self) -> None:
        """Let it go on as if nothing had happened: after ABORT or REFUSED, or when the destination is lost. It gets back what
        was put aside. If it has ended meanwhile, it is started.

        When its keeper does not answer, or refuses, its tasks go on all the same, and after that this raises an error.
        """

    def may_go_on_alone(self) -> bool:
        """Whether the kernel shows tasks of it on this host that may be frozen."""

    def go_on_alone(self) -> None:
        """Do the part of :meth:`go_on` that needs no keeper: its tasks run. The rest follows later."""

    def forget(self) -> None:
        """Delete the checkpoint, whatever the end of the move was, and also when the thing itself is gone: its memory must not
        stay."""


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
        """Prepare the announcement to the neighbours, while the source decides. It is no error if that cannot be done."""

    def run(self) -> None:
        """Decide RUN and let it go; the phase ``run`` is entered, with the copy's id, when it runs.

        :raises MigrationError: where it is not held any more, or ``already_refused``.
        """

    def announce_again(self) -> None:
        """Tell the neighbours once more, some time later."""

    # -- a copy that runs from its restore on

    def start(self) -> Result:
        """Restore it, prove that it is the original, decide RUN, and enter ``starting`` and ``run``.

        :returns: what the module returns; ``warnings`` among it.
        """

    def announce(self) -> None:
        """Tell the neighbours where it is. It is no error if that cannot be done."""

    # -- settling. Each may be repeated, by another process and after a boot of this host.

    def decide_interrupted(self) -> str | None:
        """Decide RUN when an interrupted start has to count as a start, because the copy may have run.

        :returns: why it has not been decided, else None.
        :raises MigrationError: when it cannot be known now.
        """

    def let_go(self) -> None:
        """After RUN is decided: make sure that it runs, and enter ``run``. This does not need its keeper."""

    def end(self) -> None:
        """After REFUSED is decided: leave nothing of it that could run. This does not need its keeper, which may be waiting for
        it.

        :raises MigrationError: ``kill_failed``.
        """

    def take_away(self) -> list[str]:
        """After :meth:`end`: take away everything that was made for it.

        :returns: what had to be left, and why: a sentence for each thing.
        """

    def finish(self) -> list[str]:
        """Do what follows RUN: give it what was put aside on the source, delete the checkpoint, and remove old copies that it
        supersedes.

        :returns: why old copies are left alone: a sentence for each.
        """

    def hand_to_keeper(self) -> None:
        """After :meth:`finish`: hand it to its keeper, which answers for it from now on. What the keeper would have done by now
        is done."""


class Kind(t.Protocol):
    """All things of one kind on this host, for one step."""

    @property
    def noun(self) -> str:
        """What people call one: in messages, in keys of records, and as the option of modules that names it."""

    def reach(self) -> None:
        """See :meth:`Original.reach`."""

    def find(self, name: str) -> Found | None:
        """Look for the thing of that name or id; None where there is none.

        :param name: valid by ``valid_names.subject_name``.
        """

    def unknown(self, name: str) -> MigrationError:
        """The error when there is none of that name."""

    def facts_of_copy(self, params: Params) -> Result:
        """What ``session.json`` notes on the destination: see :meth:`Found.facts`.

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
        """Do the same while a session is opened. What cannot be removed then is left for the next time."""

    def remove_old_copy(self, session: Session, *, check_mode: bool) -> list[str]:
        """Remove what a move has left on its source, not its data.

        :returns: its name, if it is there.
        :raises MigrationError: ``old_copy_in_use``.
        """
