# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Uses a WordPress site as a browser does: logs in, writes a post, uploads a file, reads both again."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import quote, urlencode, urlsplit


class WordPressError(Exception):
    """The site did not do what it was asked; the text holds its answer."""


class WordPress:
    """One visitor of the site at URL (`http://HOST:PORT`). All methods raise WordPressError."""

    def __init__(self, url: str, timeout: float = 30.0) -> None:
        parts = urlsplit(url)
        self._host, self._port, self._timeout = parts.hostname or "", parts.port or 80, timeout
        self._nonce = ""
        # By name; a test may look at them, and take them along to the next host.
        self.cookies: dict[str, str] = {}

    def log_in(self, user: str, password: str) -> None:
        """Through the login form; then asks for the token that the REST interface wants from a browser."""
        form = urlencode({"log": user, "pwd": password, "wp-submit": "Log In", "testcookie": "1"}).encode()
        self.cookies["wordpress_test_cookie"] = quote("WP Cookie check")
        status, body = self.request(
            "POST", "/wp-login.php", form, {"Content-Type": "application/x-www-form-urlencoded"}, expect=(200, 302)
        )
        if status != 302:
            raise WordPressError(f"no login as {user}: {body[-300:]!r}")
        _dummy, nonce = self.request("GET", "/wp-admin/admin-ajax.php?action=rest-nonce")
        self._nonce = nonce.decode()

    def publish(self, title: str, text: str) -> int:
        """Publishes a post and returns its number."""
        _dummy, body = self._rest(
            "POST", "posts", json.dumps({"title": title, "content": text, "status": "publish"}).encode()
        )
        return int(body["id"])

    def post(self, number: int) -> tuple[str, str]:
        """Title and text (as HTML) of a post, as any visitor sees them."""
        _dummy, body = self._rest("GET", f"posts/{number}")
        return str(body["title"]["rendered"]), str(body["content"]["rendered"])

    def upload(self, name: str, content: bytes, kind: str = "text/plain") -> tuple[int, str]:
        """Uploads a file into the media library; returns its number and its path on the site."""
        headers = {"Content-Type": kind, "Content-Disposition": f'attachment; filename="{name}"'}
        _dummy, body = self._rest("POST", "media", content, headers)
        return int(body["id"]), urlsplit(str(body["source_url"])).path

    def download(self, path: str) -> bytes:
        """A file of the site."""
        return self.request("GET", path)[1]

    def front_page(self) -> str:
        """The HTML of the front page."""
        return self.request("GET", "/")[1].decode()

    def proof(self, session: bool = False) -> dict[str, Any]:
        """What proof.php tells: count and token of the site, and who of its workers answered."""
        found: dict[str, Any] = json.loads(self.request("GET", "/proof.php" + ("?session" if session else ""))[1])
        return found

    def _rest(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, Any]]:
        sent = {"Content-Type": "application/json", **(headers or {})}
        if self._nonce:
            sent["X-WP-Nonce"] = self._nonce
        status, answer = self.request(method, f"/?rest_route=/wp/v2/{path}", body, sent, expect=(200, 201))
        found: dict[str, Any] = json.loads(answer)
        return status, found

    def request(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        expect: tuple[int, ...] = (200,),
    ) -> tuple[int, bytes]:
        """One request on a connection of its own, with the cookies of those before; redirects are not followed."""
        sent = {"Connection": "close", **(headers or {})}
        if self.cookies:
            sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        connection = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)
        try:
            connection.request(method, target, body or None, sent)
            response = connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise WordPressError(f"{method} {target}: {type(error).__name__}: {error}") from error
        finally:
            connection.close()
        for line in response.headers.get_all("Set-Cookie") or []:
            for name, morsel in SimpleCookie(line).items():
                self.cookies[name] = morsel.coded_value
        if response.status not in expect:
            raise WordPressError(f"{method} {target}: HTTP status {response.status}: {answer[:120]!r}")
        return response.status, answer
