# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This code is private to the collection: it may change at any time.

"""The steps that modules do with an open session, by their names.

The session's agent runs them (``_migration/agent.py``), asked by ``_session/step_call.py``. Each works under the session's lock.
Parameters and results are those of the module, plain data.
"""

from __future__ import annotations

import time
import typing as t

from .._channel import client as channel_client
from .._session.session import LOCK_SECONDS, Session
from .._subjects import by_kind
from .._subjects.subject import Copy, Original, Params, Result
from . import destination, freeze, handover, source, transfer

# -- on the source ------------------------------------------------------------------------------------------------


def _connected(original: Original, params: Params) -> Result:
    channel_client.set_peer(original.session, params["peer"])
    source.probe(original.session)
    transfer.send_description(original.session)
    return {"changed": True}


def _sent(send: t.Callable[[], int]) -> Result:
    started = time.monotonic()
    return {"changed": True, "bytes": send(), "seconds": time.monotonic() - started}


def _checkpoint_sent(original: Original, _params: Params) -> Result:
    with source.letting_it_go_on(original, "transfer_failed"):
        original.session.expect_end(original.session.data("dumped").get("bytes", 0))
        return _sent(lambda: source.send_checkpoint(original))


def _content_sent(original: Original, params: Params) -> Result:
    result = _sent(lambda: transfer.send_content(original, running=True))
    # In the same step, because nothing is left to be done before the freeze: each step costs a second of Ansible's.
    return {**result, "warnings": source.prepared(original, close_connections=params["close_connections"])}


def _dumped(original: Original, _params: Params) -> Result:
    original.require_held(False)
    original.reach()
    with source.letting_it_go_on(original, "dump_failed"):
        freeze.freeze(original)
        dumped = source.dump(original)
        return {"changed": True, "bytes": dumped.size, "seconds": dumped.seconds, **dumped.report}


def _handed_over(original: Original, _params: Params) -> Result:
    return {"changed": True, **handover.hand_over(original)}


def _go(original: Original, _params: Params) -> Result:
    source.go(original)
    return {"changed": True}


def _committed(original: Original, params: Params) -> Result:
    # What came of it the module reads in the journal, as it does of a session that the watchdog has settled: perhaps while this
    # step waited for it.
    if not original.session.ended:
        # Where the copy runs nothing stands still here, and a keeper that is only busy is no failure.
        copy_runs = original.session.reached("committed")
        source.reach(original, params["wait"] if copy_runs else source.KEEPER_SECONDS)
        source.settle(original, timeout=params["wait"])
    return {"changed": True}


# -- on the destination -------------------------------------------------------------------------------------------


def _created(copy: Copy, params: Params) -> Result:
    return copy.make(params)


def _started(copy: Copy, _params: Params) -> Result:
    return {"changed": True, **destination.start(copy)}


_ON_SOURCE: dict[str, t.Callable[[Original, Params], Result]] = {
    "connected": _connected,
    "content_sent": _content_sent,
    "dumped": _dumped,
    "checkpoint_sent": _checkpoint_sent,
    "handed_over": _handed_over,
    "go": _go,
    "committed": _committed,
}
_ON_DESTINATION: dict[str, t.Callable[[Copy, Params], Result]] = {
    "created": _created,
    "started": _started,
}


def run(name: str, session: Session, params: Params) -> Result:
    """Do a step. What is moved is made once for it, by its kind.

    :param name: a key of the tables above, or a step that the kind of what is moved has beside them.
    :param params: of the module, as far as the step reads them.
    :returns: what the module returns; ``warnings`` where there are any.
    :raises MigrationError: as the step does; ``session_locked``.
    """
    # Before the lock: who had it may have closed the session, and then the file is gone from which more could be loaded.
    do = _step(name, session, params)
    with session.locked(timeout=_lock_seconds(name, params)):
        return do()


def _lock_seconds(name: str, params: Params) -> float:
    """The time that a step waits for who is at work on its session.

    After the handover that is the watchdog, which does what the step wants. On a slow host that takes longer than half a minute
    (an emulated one: connect, ask, end the old copy), and a move that went well must not be called a failure for it.
    """
    return max(LOCK_SECONDS, float(params["wait"])) if name == "committed" else LOCK_SECONDS


def _step(name: str, session: Session, params: Params) -> t.Callable[[], Result]:
    kind = by_kind.of(session)
    if name in _ON_SOURCE:
        original = kind.original(session)
        return lambda: _ON_SOURCE[name](original, params)
    if name in _ON_DESTINATION:
        copy = kind.copy(session)
        return lambda: _ON_DESTINATION[name](copy, params)
    step = kind.steps()[name]
    return lambda: step(session, params)
