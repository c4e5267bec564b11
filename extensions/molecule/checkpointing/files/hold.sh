#!/usr/bin/env bash
# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# A container is dumped, and its copy restored by the runtime: refused without images, ended while held, let go.
# This plays the session's part, on one host and without a session. Says what it found; the first thing that is not as it
# should be ends it.
set -e -u -o pipefail

lib=/usr/local/lib/livemigrate
images=$(mktemp -d)
mark='' work='' pid=''
trap tidy EXIT

# Docker answers nothing about a copy that is held, not even its removal: a copy that an error has left so is given up first.
tidy() {
    if [ -n "$pid" ] && [ -d "$work" ]; then
        touch "$work/refused"
        wait "$pid" || :
    fi
    docker rm --force role-source role-copy >/dev/null 2>&1 || :
    rm -rf "$images" ${mark:+"$mark"} ${work:+"$work"}
}

# shellcheck disable=SC2016 # for the container's shell
counter='i=0; while :; do i=$((i + 1)); echo $i; sleep 1; done'

until_there() {
    for _ in $(seq 600); do
        [ -e "$1" ] && return
        sleep 0.1
    done
    echo "$1 did not come within a minute" >&2
    cat "$work/start" >&2
    return 1
}

# docker start in the background, until the copy is held. Nothing may ask Docker for the container before the decision.
start_held() {
    docker start role-copy >"$work/start" 2>&1 &
    pid=$!
    until_there "$work/waiting"
    cgroup=$(sed -n 2p "$work/held")
    grep -q 'frozen 1' "$cgroup/cgroup.events"
    # Looked at by its number: for a moment after each fork the child has the same command line.
    shim=$(tr '\0' ' ' <"/proc/$(cat "$work/waiting")/cmdline")
    if [[ $shim != "/bin/sh $lib/livemigrate-runc "*" start "* ]]; then
        echo "not the runtime waits, but $shim" >&2
        return 1
    fi
}

docker rm --force role-source role-copy >/dev/null 2>&1 || :
docker run --detach --name role-source role-test sh -c "$counter" >/dev/null
sleep 3
docker pause role-source >/dev/null
runc --root /run/docker/runtime-runc/moby checkpoint --leave-running --image-path "$images" --work-path "$images" \
    "$(docker inspect --format '{{.Id}}' role-source)"
last=$(docker logs --tail 1 role-source)
docker rm --force role-source >/dev/null
echo "dumped at $last"

docker create --name role-copy --runtime livemigrate --annotation mine=kept role-test sh -c "$counter" >/dev/null
id=$(docker inspect --format '{{.Id}}' role-copy)
mark=/var/lib/livemigrate/restores/$id work=/run/livemigrate/restores/$id
mkdir -p "$mark" "$work"
echo role-test-session >"$mark/session"

if docker start role-copy >"$work/start" 2>&1; then
    echo 'a copy without images was started' >&2
    exit 1
fi
grep -q 'copy of migration role-test-session, .* playbooks/recover.yml' "$work/start"
echo 'refused without images'

cp -a "$images" "$work/images"
printf '%s\n' manage-cgroups=ignore tcp-close link-remap file-locks ext-unix-sk \
    "action-script=$lib/livemigrate-criu-action" >"$work/criu.conf"
touch "$work/ready"
start_held
touch "$work/refused"
if wait "$pid"; then
    echo 'a copy that was given up was started' >&2
    exit 1
fi
pid=''
grep -q 'was given up' "$work/start"
[ ! -e "$cgroup" ]
[ "$(docker logs role-copy 2>&1)" = '' ]
echo 'held, and ended'

rm "$work/refused"
start_held
# runc reads the annotation out of an object that is there already, and keeps what else is in it.
runc --root /run/docker/runtime-runc/moby state "$id" |
    python3 -c 'import json, sys; a = json.load(sys.stdin)["annotations"]; assert a["mine"] == "kept", a; print(a["org.criu.config"])' |
    grep -qx "$work/criu.conf"
before=$(grep usage_usec "$cgroup/cpu.stat")
sleep 2
[ "$(grep usage_usec "$cgroup/cpu.stat")" = "$before" ]
touch "$mark/consumed"
wait "$pid"
pid=''
sleep 2
[ ! -e "$work/images" ]
first=$(docker logs role-copy | sed -n 1p)
[ "$first" -gt "$last" ]
[ "$first" -le $((last + 2)) ]
echo "held, and let go: $first"

# From here on it is a container like any other.
[ "$(docker exec role-copy sh -c 'echo inside')" = inside ]
docker pause role-copy >/dev/null
docker unpause role-copy >/dev/null
rm -rf "${images:?}"/*
docker pause role-copy >/dev/null
runc --root /run/docker/runtime-runc/moby checkpoint --leave-running --image-path "$images" --work-path "$images" "$id"
docker unpause role-copy >/dev/null
docker restart --time 1 role-copy >/dev/null
sleep 1
[ "$(docker logs --tail 1 role-copy)" -le 3 ]
runc --root /run/docker/runtime-runc/moby state "$id" | python3 -c 'import json, sys
assert "org.criu.config" not in json.load(sys.stdin)["annotations"]'
echo 'dumped again, and restarted afresh'
