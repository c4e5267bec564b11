# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Write docs/rules.md, docs/protocol.md, the versions in docs/support.md, and the list of docs/decisions: ``make rules``.

With ``--check`` nothing is written; it fails where one of them is out of date.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / ".tree"), str(ROOT)]

from ansible_collections.livemigrate.criu.plugins.module_utils._criu import support as criu_support  # noqa: E402
from ansible_collections.livemigrate.criu.plugins.module_utils._preflight import finding  # noqa: E402
from ansible_collections.livemigrate.criu.plugins.module_utils._preflight import judge as preflight_judge  # noqa: E402
from tests.unit.protocol import page  # noqa: E402

DECISIONS = ROOT / "docs" / "decisions"
BEGIN = "<!-- made by make rules -->"
END = "<!-- end of what is made -->"
WHEN = {"api": "with the engine `api`", "runtime": "with the engine `runtime`"}


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def rules() -> str:
    """The text of docs/rules.md."""
    text = f"""# Rules of the preflight

{BEGIN}

What `playbooks/preflight.yml` looks for, and `migrate.yml` before it begins. Each row is a small function of the same name; its
message has the facts in it, and its remedy says what to do. `migrate_fail_on` is the severity for which a move is not begun
(`error`), `migrate_ignore_rules` takes names out of this list that do not count.

* `error`: the move would fail, or lose something. `warning`: it changes something for somebody. `info`: good to know.
* *last moment*: asked again when the session opens, just before anything is touched.
* Where it comes from: an issue or pull request; *run*, seen on a host; *by reading*, source code or documentation.

One more name counts in `migrate_ignore_rules`: `{finding.SURROUNDINGS_DIFFER}`. It is no rule of the preflight, because it is
found only while the copy is held: the copy's processes would see something else than the original's. Ignored, it is a warning.
"""
    for topic, module in preflight_judge.TOPICS.items():
        text += f"\n## {topic}\n\n`_preflight/rules/{module.__name__.rpartition('.')[2]}.py`\n\n"
        text += _row("rule", "severity", "what it sees", "lifted by", "comes from") + _row(*["---"] * 5)
        for rule in preflight_judge.rules():
            if rule.judge.__module__ == module.__name__:
                notes = [WHEN[rule.engine]] if rule.engine else []
                notes += ["last moment"] if rule.volatile else []
                seen = rule.title + (f" ({', '.join(notes)})" if notes else "")
                lifted = f"`{rule.variable}`" if rule.variable else ""
                text += _row(f"`{rule.id}`", rule.severity, seen, lifted, rule.source)
    return text


def versions() -> str:
    """The table of versions for docs/support.md."""
    text = _row("versions", "state", "why", "rests on") + _row(*["---"] * 4)
    for fault in criu_support.CRIU_FAULTS:
        why = fault.sentence.format(criu="N", kernel="K")
        state = "remarked" if fault.usable else "refused"
        state += ", where CRIU could not be tried" if fault.tried else ""
        text += _row(fault.title, state, why, fault.source)
    for engine in criu_support.ENGINE_FAULTS:
        why = engine.sentence.format(engine="N", containerd="N")
        text += _row(f"Docker Engine {engine.title}", "refused with the engine `api`", why, engine.source)
    return text


def decisions() -> str:
    """The text of docs/decisions/README.md: the title of each decision, which is the first line of its file."""
    files = sorted(path for path in DECISIONS.glob("*.md") if path.name != "README.md")
    titles = {path.name: path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ") for path in files}
    lines = [f"* {name[:4]} [{title}]({name})\n" for name, title in titles.items()]
    return f"""# Decisions

{BEGIN}

Where this collection does something else than the obvious, and why. Each file has the context, the decision and its consequences.
Newest last. A decision that is changed gets a new text, not a second file: what counts is how things are now.

{"".join(lines)}"""


def made() -> dict[Path, str]:
    """Every file that is made, with its text."""
    support = ROOT / "docs" / "support.md"
    old = support.read_text(encoding="utf-8")
    before, _begin, rest = old.partition(BEGIN)
    _table, _end, after = rest.partition(END)
    return {
        ROOT / "docs" / "rules.md": rules(),
        ROOT / "docs" / "protocol.md": page.text(),
        DECISIONS / "README.md": decisions(),
        support: f"{before}{BEGIN}\n\n{versions()}\n{END}{after}",
    }


def stale() -> list[Path]:
    """The files that do not say what the code says."""
    return [path for path, text in made().items() if not path.exists() or path.read_text(encoding="utf-8") != text]


def main() -> int:
    if "--check" in sys.argv[1:]:
        old = stale()
        for path in old:
            print(f"{path.relative_to(ROOT)} is out of date: make rules")
        return bool(old)
    for path, text in made().items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
