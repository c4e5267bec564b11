# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""MariaDB on a host of its own: the service that stays where it is while a container that uses it moves."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass

from .host import Host, HostError

_SETTINGS_FILE = "/etc/mysql/mariadb.conf.d/99-workload.cnf"
# Throw-away data: speed before safety. Names are not looked up, since a lab has no DNS for its containers.
_SETTINGS = """\
[mysqld]
bind-address = {address}
skip-name-resolve
innodb_flush_log_at_trx_commit = 0
innodb_buffer_pool_size = 64M
performance_schema = off
"""
_NAME = re.compile(r"^[a-z][a-z0-9_]{0,30}$")


@dataclass(frozen=True)
class Database:
    """An empty database, and who may use it from where the containers run. The user has the database's name."""

    address: str
    name: str
    password: str

    def environment(self) -> list[str]:
        """The arguments of docker run that hand it to WordPress."""
        values = {
            "WORDPRESS_DB_HOST": self.address,
            "WORDPRESS_DB_NAME": self.name,
            "WORDPRESS_DB_USER": self.name,
            "WORDPRESS_DB_PASSWORD": self.password,
        }
        return [word for key, value in values.items() for word in ("-e", f"{key}={value}")]


def ensure_server(host: Host) -> None:
    """Installs MariaDB on HOST and has it listen on the host's address; quick when that is done already. HostError."""
    settings = _SETTINGS.format(address=host.address)
    if host.run(["cat", _SETTINGS_FILE], check=False).stdout != settings:
        if host.run(["test", "-x", "/usr/sbin/mariadbd"], check=False).returncode != 0:
            apt = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-o", "DPkg::Lock::Timeout=120"]
            host.run([*apt, "update"], timeout=180)
            host.run([*apt, "install", "--yes", "--no-install-recommends", "mariadb-server"], timeout=600)
        host.run(["sh", "-c", f"cat >{_SETTINGS_FILE}"], text_input=settings)
        host.run(["systemctl", "restart", "mariadb"])
    if host.run(["systemctl", "is-active", "--quiet", "mariadb"], check=False).returncode != 0:
        host.run(["systemctl", "start", "mariadb"])


def create(host: Host, name: str) -> Database:
    """An empty database NAME with a user of its own and a new password; an old one of that name is dropped.

    Installs the server first where it is missing. HostError.
    """
    _check(name)
    ensure_server(host)
    password = secrets.token_urlsafe(18)
    _sql(
        host,
        f"DROP DATABASE IF EXISTS {name}; CREATE DATABASE {name};"
        f"CREATE OR REPLACE USER {name}@'%' IDENTIFIED BY '{password}';"
        f"GRANT ALL ON {name}.* TO {name}@'%';",
    )
    return Database(host.address, name, password)


def drop(host: Host, name: str) -> None:
    """Removes a database and its user, there or not."""
    _check(name)
    _sql(host, f"DROP DATABASE IF EXISTS {name}; DROP USER IF EXISTS {name}@'%';")


def _check(name: str) -> None:
    if not _NAME.match(name):
        raise HostError(f"database name {name!r}: small letters, digits and _, at most 31")


def _sql(host: Host, statements: str) -> None:
    # Through standard input: a password on the command line could be seen by every user of the host.
    host.run(["mariadb", "--batch"], text_input=statements)
