#!/usr/bin/python
# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: migration_session
short_description: Open, decide, settle and explain the session of a migration
version_added: 1.0.0
author:
  - The livemigrate.criu authors (@livemigrate)
description:
  - A migration is one session with a half on each host. This module opens and ends the halves, carries the decisions on
    which the safety of a migration rests, and tells what sessions a host has.
  - The role P(livemigrate.criu.migrate#role) and the playbooks C(recover.yml) and C(cleanup.yml) use it; there is seldom a
    reason to call it by hand, apart from O(state=inspected).
  - The decision of the source is V(GO_SENT) or V(ABORT), that of the destination V(RUN) or V(REFUSED). Each is written
    once. Before V(GO_SENT) the source may give up alone; after it only the decision of the destination counts.
extends_documentation_fragment:
  - livemigrate.criu.attributes
attributes:
  idempotent:
    support: partial
    details:
      - O(state=opened) on the source opens a new session each time.
options:
  state:
    description:
      - V(inspected) tells about the sessions of this host, and changes nothing.
      - V(opened) begins a half. On the source it claims the container, refuses what cannot be moved, and starts the watchdog.
        On the destination it lets the key of the source in.
      - V(connected) (source) pins the host keys of the destination, speaks to it for the first time, and tells it what the
        container is to be created from.
      - V(go) (source) decides that the destination may run the container.
      - V(handed_over) (source) does the whole handover with O(engine=runtime) in one step, from the freeze to the end of the old
        copy. A step that fails before the decision lets the container go on at once.
      - V(committed) (source) asks the destination for its decision and acts on it, that is it kills and renames the old copy, or
        lets it go on and fails.
      - V(settled) brings unfinished sessions to their end, whatever state they are in.
      - V(decided) (destination) returns the decision of the destination in RV(destination_decision). It is made if it has not
        been made. A session that is closed there has its decision still. A playbook carries it to the source with
        O(destination_decision).
      - V(cleaned) removes the old copies that finished sessions have kept on the source, and closed sessions' records. An old
        copy that runs again, or has another name by now, is never removed; the module fails then, when all else is done.
    type: str
    choices: [inspected, opened, connected, handed_over, go, committed, settled, decided, cleaned]
    default: inspected
  agent_code:
    description:
      - The code of the program that acts for a session. It is not for users. The action plugin of this module gives it, whatever
        a task says.
    type: str
  role:
    description: Which half to open; with O(state=settled) only these halves are meant.
    type: str
    choices: [source, destination]
  session:
    description:
      - Id of the session. Required but for O(state=inspected), O(state=settled), O(state=cleaned) (which take it to mean this
        session only), and for opening the half of the source.
    type: str
  container:
    description:
      - Name or id of the container, for opening the half of the source.
      - With O(state=inspected), O(state=settled) and O(state=cleaned) only sessions of the container of this name are meant.
    type: str
  engine:
    description:
      - For opening a half, how the container is dumped and restored. Both halves are opened with the same.
      - V(runtime) dumps with runc and restores through the runtime shim that the role P(livemigrate.criu.checkpointing#role)
        installs. V(api) uses the checkpoint calls of the Docker Engine.
    type: str
    choices: [runtime, api]
    default: runtime
  peer_name:
    description: What people call the other host.
    type: str
  bind_mounts:
    description: Host paths of bind mounts whose content moves with the container.
    type: list
    elements: path
    default: []
  ignore_rules:
    description: Ids of rules of the preflight (C(docs/rules.md)) that do not count when the half of the source is opened.
    type: list
    elements: str
    default: []
  channel_user:
    description: The account on the destination through which the channel comes in.
    type: str
  public_key:
    description: The public key of the channel, as the half of the source returned it.
    type: str
  ancestry:
    description: Ids that the container had before, as the half of the source returned them.
    type: list
    elements: str
    default: []
  container_id:
    description: Full id of the container on the source, for opening the half of the destination.
    type: str
  peer:
    description: Where the destination is, for O(state=connected).
    type: dict
    suboptions:
      address:
        description: Name or address by which the source reaches the destination.
        type: str
        required: true
      port:
        description: Port of its SSH daemon.
        type: int
        default: 22
      user:
        description: The account of the channel.
        type: str
        required: true
      host_keys:
        description: Public host keys of its SSH daemon.
        type: list
        elements: str
        required: true
  ignore_lease:
    description:
      - With O(state=settled), do not wait for the lease of the session to run out. A session that has shown a sign of life in the
        last seconds has a lease, and may be at work.
      - Set it only where you know that nobody is at work on O(session) any more, for example because it was your own.
      - The alias O(abandoned) is the old name. It is removed in the release after the next one.
    type: bool
    default: false
    aliases: [abandoned]
  other_half_settled:
    description:
      - With O(state=settled), that the half of the session on the other host has come to its end, or knows the outcome. So nobody
        there will ask again, and nobody there has to know.
      - The alias O(peer_settled) is the old name. It is removed in the release after the next one.
    type: bool
    default: false
    aliases: [peer_settled]
  wait:
    description: Seconds to wait for the decision of the destination, and for the lease of a session to run out.
    type: int
    default: 120
  destination_lost:
    description:
      - With O(state=settled) on the source, a session id whose destination is declared dead and fenced by a person.
      - The source then goes on although the destination may have decided V(RUN). If it lives after all, two copies run.
      - Where the outcome is known already the session is closed, and nothing is done to the container.
      - It is refused unless no connection to the destination can be made. One that refuses the key, or whose SSH daemon is down,
        is not lost.
    type: str
  destination_decision:
    description:
      - With O(state=settled) on the source, what RV(destination_decision) was with O(state=decided) on the destination.
      - The source acts on it instead of asking through the channel, whose key may be gone.
      - The alias O(destination_word) is the old name. It is removed in the release after the next one.
    type: dict
    aliases: [destination_word]
    suboptions:
      session:
        description: Id of the session whose decision it is.
        type: str
        required: true
      decision:
        description: The decision.
        type: str
        choices: [RUN, REFUSED]
        required: true
      container_id:
        description: Full id of the container on the destination, with V(RUN).
        type: str
"""

EXAMPLES = r"""
---
- name: What has been moved from or to this host, and what is unfinished
  livemigrate.criu.migration_session:
  become: true
  register: sessions

- name: Say it
  ansible.builtin.debug:
    msg: "{{ item.session }} {{ item.container_name }}: {{ item.story }}"
  loop: "{{ sessions.sessions }}"

- name: Settle what an interrupted playbook left
  livemigrate.criu.migration_session:
    state: settled
  become: true
"""

RETURN = r"""
sessions:
  description:
    - The sessions of this host, oldest first.
    - Where a refusal on the destination could not take all away that had been made, RV(ignore:left) has a sentence for each.
  returned: O(state=inspected), O(state=settled), O(state=cleaned)
  type: list
  elements: dict
  sample:
    - session: 20261123T034500Z-3f9a1c
      role: source
      container_name: mwp
      phase: closed
      decision: GO_SENT
      story: moved to beta
moved:
  description:
    - Where the container of this name has been moved to, V(null) where it has not, or has come back.
  returned: O(state=inspected) with O(container)
  type: dict
  sample:
    peer: beta
    session: 20261123T034500Z-3f9a1c
    story: moved to beta
session:
  description: Id of the session.
  returned: O(state=opened)
  type: str
  sample: 20261123T034500Z-3f9a1c
container_id:
  description: Full id of the container on the source.
  returned: O(state=opened) with O(role=source)
  type: str
container_name:
  description: Its name.
  returned: O(state=opened) with O(role=source)
  type: str
ancestry:
  description: Ids the container had before.
  returned: O(state=opened) with O(role=source)
  type: list
  elements: str
public_key:
  description: Public key of the channel.
  returned: O(state=opened) with O(role=source)
  type: str
host_keys:
  description: Public host keys of this host.
  returned: O(state=opened) with O(role=destination)
  type: list
  elements: str
destination_decision:
  description: The decision of the destination, for the option O(destination_decision) on the source.
  returned: O(state=decided)
  type: dict
  sample: {session: 20261123T034500Z-3f9a1c, decision: REFUSED}
word:
  description:
    - The same as RV(destination_decision), under its old name.
    - This key is removed in the release after the next one.
  returned: O(state=decided)
  type: dict
  sample: {session: 20261123T034500Z-3f9a1c, decision: REFUSED}
outcome:
  description: V(RUN), the destination has the container; V(ABORT), the source kept it.
  returned: O(state=committed)
  type: str
gap:
  description:
    - Seconds from the freeze on the source to the copy running on the destination.
    - Measured by the clock of the source alone; the time the answer took through the channel counts in.
  returned: O(state=committed) and O(state=handed_over)
  type: float
  sample: 0.97
bytes:
  description: Bytes that went through the channel after the freeze.
  returned: O(state=handed_over)
  type: int
checkpoint_bytes:
  description: Size of the checkpoint in bytes.
  returned: O(state=handed_over)
  type: int
seconds:
  description:
    - How long V(dump), V(transfer) and V(restore) took.
    - V(flush) is how long it took after that until the last changes of the container's files were on the destination's disk.
      They are written there beside the restore.
  returned: O(state=handed_over)
  type: dict
  sample: {dump: 0.21, transfer: 0.25, restore: 0.31, flush: 0.0}
timeline:
  description:
    - The events of the frozen time on both hosts, by the clock of the source. It is in the journal of the source as well, with
      the phase C(committed).
    - V(seconds) count from the beginning of the freeze. V(host) is V(source) or V(destination).
    - V(event) is one of V(frozen), V(dumped), V(sent) and V(held) on the source, and of V(received), V(restored), V(recognised),
      V(compared), V(noted), V(flushed) and V(running) on the destination. Those of the destination are as exact as the way of one
      message. V(noted) is when its Docker Engine has noted that the copy runs, which is held still (engine V(runtime)).
  returned: O(state=handed_over)
  type: list
  elements: dict
  sample:
    - {event: frozen, host: source, seconds: 0.0231}
    - {event: dumped, host: source, seconds: 0.1874}
processes:
  description: How many processes the source had.
  returned: O(state=handed_over)
  type: int
recognised:
  description: How many of them were restored, proved by their memory layout.
  returned: O(state=handed_over)
  type: int
connections:
  description: How many TCP connections the frozen container had that go on (V(kept)), and how many were reset (V(closed)).
  returned: O(state=handed_over)
  type: dict
  sample: {kept: 2, closed: 0}
criu:
  description:
    - Statistics of CRIU about the dump; times in seconds, pages of the machine's size.
    - V(frozen_seconds) is how long CRIU itself held the processes.
  returned: O(state=handed_over), if CRIU wrote them
  type: dict
  sample: {frozen_seconds: 0.08, memory_seconds: 0.004, pages_written: 268}
failure:
  description: Why it failed, for programs.
  returned: failure
  type: dict
  contains:
    code:
      description: Short stable name.
      type: str
      sample: session_busy
    message:
      description: The same sentence as RV(ignore:msg).
      type: str
    details:
      description: Facts.
      type: dict
"""

import typing as t

from ansible_collections.livemigrate.criu.plugins.module_utils._base.errors import MigrationError
from ansible_collections.livemigrate.criu.plugins.module_utils._base.module import run_module
from ansible_collections.livemigrate.criu.plugins.module_utils._docker.engine import Engine
from ansible_collections.livemigrate.criu.plugins.module_utils._session import phases, step_call
from ansible_collections.livemigrate.criu.plugins.module_utils._session import stories as session_stories
from ansible_collections.livemigrate.criu.plugins.module_utils._session.session import Session

Params = dict[str, t.Any]
Result = dict[str, t.Any]


def _step(session: Session, params: Params) -> Result:
    given = {key: params[key] for key in ("peer", "wait")}
    if params["state"] != "committed":
        return step_call.call(session, params["state"], given)
    if not session.ended:
        # Else its watchdog has settled it.
        try:
            step_call.call(session, "committed", given)
        except MigrationError as exc:
            # It does so at this moment.
            if exc.code != "session_over":
                raise
    return _outcome(session)


def _outcome(session: Session) -> Result:
    if not session.reached("committed"):
        raise MigrationError(
            "refused", "The destination refused; the source goes on with the container.", session=session.id
        )
    return {"changed": True, "outcome": phases.RUN, "gap": session.data("committed").get("gap")}


def _is_here(name: str) -> bool:
    return Engine().find(name) is not None


def _body(params: Params, check_mode: bool) -> Result:
    state, code = params["state"], params["agent_code"]
    if state == "opened":
        return step_call.open_half(
            {key: value for key, value in params.items() if key != "agent_code"}, code, check_mode=check_mode
        )
    if state in ("connected", "handed_over", "go", "committed"):
        return {"changed": True} if check_mode else _step(Session(params["session"]), params)
    only = {"session": params["session"], "name": params["container"]}
    if state == "inspected":
        moved = session_stories.moved(params["container"], _is_here) if params["container"] else None
        return {"sessions": session_stories.stories(**only), "moved": moved}
    if state == "settled":
        if params["destination_decision"] is None:
            open_ones = session_stories.unsettled(
                role=params["role"], other_half_settled=params["other_half_settled"], **only
            )
            if not open_ones:
                return {"changed": False, "sessions": session_stories.stories(**only)}
        names = ("role", "wait", "ignore_lease", "other_half_settled", "destination_lost", "destination_decision")
        given = {key: params[key] for key in names}
        return step_call.recover(state, {"check_mode": check_mode, **given, **only}, code)
    if state == "decided":
        if check_mode:
            return {"changed": True}
        result = step_call.recover(state, {"session": params["session"]}, code)
        # The old name of the key, for one release.
        return {**result, "word": result["destination_decision"]}
    return step_call.recover(state, {"check_mode": check_mode, **only}, code)


def main() -> None:
    run_module(
        _body,
        argument_spec={
            "state": {
                "type": "str",
                "choices": [
                    *("inspected", "opened", "connected", "handed_over"),
                    *("go", "committed", "settled", "decided", "cleaned"),
                ],
                "default": "inspected",
            },
            # Not for the log: it is long.
            "agent_code": {"type": "str", "no_log": True},
            "role": {"type": "str", "choices": ["source", "destination"]},
            "session": {"type": "str"},
            "container": {"type": "str"},
            "engine": {"type": "str", "choices": ["runtime", "api"], "default": "runtime"},
            "peer_name": {"type": "str"},
            "bind_mounts": {"type": "list", "elements": "path", "default": []},
            "ignore_rules": {"type": "list", "elements": "str", "default": []},
            "channel_user": {"type": "str"},
            "public_key": {"type": "str", "no_log": False},
            "ancestry": {"type": "list", "elements": "str", "default": []},
            "container_id": {"type": "str"},
            "peer": {
                "type": "dict",
                "options": {
                    "address": {"type": "str", "required": True},
                    "port": {"type": "int", "default": 22},
                    "user": {"type": "str", "required": True},
                    "host_keys": {"type": "list", "elements": "str", "required": True, "no_log": False},
                },
            },
            "ignore_lease": {"type": "bool", "default": False, "aliases": ["abandoned"]},
            "other_half_settled": {"type": "bool", "default": False, "aliases": ["peer_settled"]},
            "wait": {"type": "int", "default": 120},
            "destination_lost": {"type": "str"},
            "destination_decision": {
                "type": "dict",
                "aliases": ["destination_word"],
                "options": {
                    "session": {"type": "str", "required": True},
                    "decision": {"type": "str", "choices": ["RUN", "REFUSED"], "required": True},
                    "container_id": {"type": "str"},
                },
            },
        },
        required_if=[
            ("state", "opened", ("role", "container")),
            ("state", "connected", ("session", "peer")),
            ("state", "handed_over", ("session",)),
            ("state", "go", ("session",)),
            ("state", "committed", ("session",)),
            ("state", "decided", ("session",)),
        ],
    )


if __name__ == "__main__":
    main()
