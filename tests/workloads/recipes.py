# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the images are made of: one recipe per image, data only; `build.py` carries them out."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SUITE = "trixie"


@dataclass(frozen=True)
class Recipe:
    """One image: a base layer of Debian packages, and a layer of the files kept here."""

    name: str
    packages: tuple[str, ...]
    # "busybox": the one static program of the package and a link per applet; "debian": a small Debian system.
    base: str
    # Where it answers with its count and token (probe.py).
    port: int
    path: str
    # The directory whose rootfs/ becomes the second layer; two recipes may share one.
    source: str
    # The part of an image's configuration that `docker inspect` shows as Config.
    config: dict[str, Any] = field(default_factory=dict)
    # Shell commands (mmdebstrap's customize hooks, "$1" is the root) that finish a "debian" base.
    customize: tuple[str, ...] = ()

    @property
    def tag(self) -> str:
        """The image's name on a host."""
        return f"livemigrate/{self.name}:1"

    @property
    def rootfs(self) -> Path:
        """The files of the second layer."""
        return HERE / self.source / "rootfs"


_COUNTER_CONFIG: dict[str, Any] = {
    "Entrypoint": ["/usr/local/bin/entry"],
    "Cmd": ["/usr/local/bin/counter"],
    "Env": ["PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "COUNTER_INTERVAL=0.1", "COUNTER_PORT=8080"],
    "ExposedPorts": {"8080/tcp": {}},
    "Labels": {"livemigrate.workload": "counter"},
    "WorkingDir": "/",
}

_RECIPES = (
    Recipe(
        name="counter",
        packages=("busybox-static",),
        base="busybox",
        port=8080,
        path="/",
        source="counter",
        config=_COUNTER_CONFIG,
    ),
    # The same with a volume of the image's own: every container of it gets an anonymous one.
    Recipe(
        name="counter-volume",
        packages=("busybox-static",),
        base="busybox",
        port=8080,
        path="/",
        source="counter",
        config={
            **_COUNTER_CONFIG,
            "Env": [*_COUNTER_CONFIG["Env"], "COUNTER_APPEND=/var/lib/counter/layer.log /data/volume.log"],
            "Volumes": {"/data": {}},
        },
    ),
    Recipe(
        name="wordpress",
        packages=(
            "apache2",
            "libapache2-mod-php",
            "php-apcu",
            "php-mysql",
            "wordpress",
            "wordpress-theme-twentytwentyfive",
        ),
        base="debian",
        port=80,
        path="/proof.php",
        source="wordpress",
        config={
            "Entrypoint": ["/usr/local/bin/entry"],
            "Cmd": ["apache2", "-DFOREGROUND"],
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "ExposedPorts": {"80/tcp": {}},
            "Labels": {"livemigrate.workload": "wordpress"},
            "StopSignal": "SIGWINCH",
            "WorkingDir": "/usr/share/wordpress",
        },
        customize=(
            # proof.php calls libc.
            'for d in "$1"/etc/php/*/apache2/conf.d; do echo ffi.enable=true >"$d/90-workload.ini"; done',
            # The package depends on a database client that the site never runs: a quarter of the image.
            'rm -f "$1"/usr/bin/mariadb* "$1"/usr/bin/mysql*',
            'cd "$1"/usr/bin && rm -f perror replace resolve_stack_dump my_print_defaults',
        ),
    ),
    # Answers to clients of its protocol only, so that `probe` and `start --wait` have nothing to ask it.
    Recipe(
        name="mariadb",
        packages=("mariadb-server",),
        base="debian",
        port=3306,
        path="",
        source="mariadb",
        config={
            "Entrypoint": ["/usr/local/bin/entry"],
            "Cmd": [
                "mariadbd",
                "--user=mysql",
                "--bind-address=0.0.0.0",
                "--skip-name-resolve",
                "--init-file=/run/mysqld/init.sql",
            ],
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "ExposedPorts": {"3306/tcp": {}},
            "Labels": {"livemigrate.workload": "mariadb"},
            "Volumes": {"/var/lib/mysql": {}},
            "WorkingDir": "/",
        },
        # What the package's installation made; every container makes its own.
        customize=('rm -rf "$1"/var/lib/mysql/* "$1"/var/log/mysql/*',),
    ),
)

RECIPES = {recipe.name: recipe for recipe in _RECIPES}
