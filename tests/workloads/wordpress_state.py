# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Puts state of every kind into a WordPress site, and finds out later whether it is all still there.

post      in the database, which stays where it is
upload    a file that the site wrote, in its writable layer or a volume
session   a PHP session, a file as well
site      Apache's shared memory: token and count
workers   the memory of each single process
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Any

from .wordpress_client import WordPress, WordPressError

# Questions enough that each of the four workers answers some: the kernel hands connections out in turns.
_QUESTIONS = 24
# Where a known worker has not answered by then, it is not there.
_MOST_QUESTIONS = 240


def fill(url: str, user: str, password: str) -> dict[str, Any]:
    """Logs in, publishes, uploads, and notes who answers; returns the notes (plain data) for verify()."""
    site = WordPress(url)
    site.log_in(user, password)
    mark = secrets.token_hex(8)
    title, text = f"Written before the move {mark}", f"Text {mark} of the post."
    number = site.publish(title, text)
    content = secrets.token_bytes(150_000).hex().encode()
    media, path = site.upload(f"before-{mark}.txt", content)
    visits = site.proof(session=True)["session"]["visits"]
    found, workers = _ask_around(site, set())
    return {
        "post": {"number": number, "title": title, "text": text},
        "upload": {"number": media, "path": path, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()},
        "session": {"cookie": site.cookies["PHPSESSID"], "visits": visits},
        "site": {"token": found["token"], "count": found["count"]},
        "workers": workers,
    }


def verify(url: str, noted: dict[str, Any]) -> list[str]:
    """Everything of NOTED that the site at URL does not have any more, in words; empty when all is there.

    Does not log in and writes nothing but a visit into the session, so it may be repeated.
    """
    site = WordPress(url)
    wrong: list[str] = []
    for look in (_missing_memory, _missing_post, _missing_upload, _missing_session):
        try:
            wrong += look(site, noted)
        except WordPressError as error:
            wrong.append(str(error))
    return wrong


def _missing_memory(site: WordPress, noted: dict[str, Any]) -> list[str]:
    wrong = []
    found, workers = _ask_around(site, set(noted["workers"]))
    if found["token"] != noted["site"]["token"]:
        wrong.append(f"Apache was started afresh: token {found['token']}, not {noted['site']['token']}")
    elif found["count"] <= noted["site"]["count"]:
        wrong.append(f"the site counts {found['count']}, after {noted['site']['count']}")
    for pid, before in noted["workers"].items():
        now = workers.get(pid)
        if now is None:
            wrong.append(f"worker {pid} does not answer any more; those that do: {', '.join(sorted(workers))}")
        elif now["token"] != before["token"]:
            wrong.append(f"worker {pid} is another process: token {now['token']}, not {before['token']}")
        elif now["hits"] <= before["hits"]:
            wrong.append(f"worker {pid} counts {now['hits']} requests, after {before['hits']}")
    return wrong


def _missing_post(site: WordPress, noted: dict[str, Any]) -> list[str]:
    wrong = []
    post = noted["post"]
    title, text = site.post(post["number"])
    if title != post["title"] or post["text"] not in text:
        wrong.append(f"post {post['number']} is {title!r}, {text!r}")
    if post["title"] not in site.front_page():
        wrong.append("the front page does not show the post")
    return wrong


def _missing_upload(site: WordPress, noted: dict[str, Any]) -> list[str]:
    upload = noted["upload"]
    content = site.download(upload["path"])
    if hashlib.sha256(content).hexdigest() == upload["sha256"]:
        return []
    return [f"{upload['path']} differs: {len(content)} bytes, {upload['bytes']} were uploaded"]


def _missing_session(site: WordPress, noted: dict[str, Any]) -> list[str]:
    site.cookies["PHPSESSID"] = noted["session"]["cookie"]
    visits = site.proof(session=True)["session"]["visits"]
    if visits > noted["session"]["visits"]:
        return []
    return [f"the PHP session counts {visits} visits, after {noted['session']['visits']}"]


def _ask_around(site: WordPress, expected: set[str]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The last answer of the site, and the last of each worker by its process number."""
    workers: dict[str, dict[str, Any]] = {}
    found: dict[str, Any] = {}
    for question in range(_MOST_QUESTIONS):
        if question >= _QUESTIONS and expected <= set(workers):
            break
        found = site.proof()
        worker = found["worker"]
        workers[str(worker["pid"])] = {"token": worker["token"], "hits": worker["hits"]}
    return found, workers
