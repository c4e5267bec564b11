#!/usr/bin/env bash
# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# A container of the default runtime, used as people use one. It stays, running.
set -e -u -o pipefail

code() {
    local wanted=$1 got=0
    shift
    "$@" || got=$?
    [ $got = "$wanted" ]
}

docker rm --force role-runtime >/dev/null 2>&1 || :
docker run --detach --name role-runtime role-test sh -c 'echo "two  blanks"; while :; do sleep 1; done' >/dev/null
[ "$(docker inspect --format '{{.HostConfig.Runtime}}' role-runtime)" = livemigrate ]
# shellcheck disable=SC2016 # for the container's shell
[ "$(echo in | docker exec --interactive role-runtime sh -c 'read -r x; echo "$x $1"' sh 'a  b')" = 'in a  b' ]
code 37 docker exec role-runtime sh -c 'exit 37'
code 41 docker run --rm role-test sh -c 'exit 41'
# With a terminal: the console's socket.
[ "$(docker run --rm --tty role-test sh -c 'test -t 1 && echo terminal' | tr -d '\r')" = terminal ]
docker restart --time 1 role-runtime
docker stop --time 1 role-runtime
docker start role-runtime
[ "$(docker logs role-runtime)" = "$(printf 'two  blanks\n%.0s' 1 2 3)" ]
