#!/usr/bin/env bash
# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# A container is dumped, and its copy restored by the runtime: refused without images, held and known to Docker, ended, let go.
# This plays the session's part, on one host and without a session. Says what it found; the first thing that is not as it
# should be ends it.
set -e -u -o pipefail

lib=/usr/local/lib/livemigrate
images=$(mktemp -d)
mark='' work=''
trap tidy EXIT

tidy() {
    docker rm --force role-source role-copy >/dev/null 2>&1 || :
    rm -rf "$images" ${mark:+"$mark"} ${work:+"$work"}
}

# shellcheck disable=SC2016 # for the container's shell
counter='i=0; while :; do i=$((i + 1)); echo $i; sleep 1; done'

# Docker takes it for running, and no task of it does.
start_held() {
    docker start role-copy
    [ -e "$work/plumbed" ]
    cgroup=$(sed -n 2p "$work/held")
    grep -q 'frozen 1' "$cgroup/cgroup.events"
    [ "$(docker inspect --format '{{.State.Running}}' role-copy)" = true ]
}

# A start that has to fail, and why.
refused() {
    if docker start role-copy >"$work/start" 2>&1; then
        echo "a copy was started that $2" >&2
        return 1
    fi
    grep -q "$1" "$work/start"
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

refused 'copy of migration role-test-session, .* playbooks/recover.yml' 'had no images'
echo 'refused without images'

cp -a "$images" "$work/images"
printf '%s\n' manage-cgroups=ignore tcp-close link-remap file-locks ext-unix-sk \
    "action-script=$lib/livemigrate-criu-action" >"$work/criu.conf"
touch "$work/ready"
start_held
for words in pause 'update --memory 500m --memory-swap 500m'; do
    # shellcheck disable=SC2086 # several words
    if docker $words role-copy >"$work/words" 2>&1; then
        echo "a copy that is held was changed: $words" >&2
        exit 1
    fi
    grep -q 'has not been handed over to this host' "$work/words"
done
docker kill role-copy || :
docker wait role-copy
[ ! -e "$cgroup" ]
[ "$(docker logs role-copy 2>&1)" = '' ]
refused 'was restored before' 'had been held before'
touch "$work/refused"
refused 'was given up' 'was given up'
echo 'held, and ended'

rm -r "$work/refused" "$work/work"
start_held
# runc reads the annotation out of an object that is there already, and keeps what else is in it.
runc --root /run/docker/runtime-runc/moby state "$id" |
    python3 -c 'import json, sys; a = json.load(sys.stdin)["annotations"]; assert a["mine"] == "kept", a; print(a["org.criu.config"])' |
    grep -qx "$work/criu.conf"
before=$(grep usage_usec "$cgroup/cpu.stat")
sleep 2
[ "$(grep usage_usec "$cgroup/cpu.stat")" = "$before" ]
docker exec role-copy sh -c 'echo inside' >"$work/inside" &
entering=$!
sleep 1
[ ! -s "$work/inside" ]
touch "$mark/consumed"
echo 0 >"$cgroup/cgroup.freeze"
wait "$entering"
[ "$(cat "$work/inside")" = inside ]
# As the session does: a dump before the next start reads what it reads for every container.
ln -sf /etc/criu/runc.conf "$work/criu.conf"
sleep 2
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
