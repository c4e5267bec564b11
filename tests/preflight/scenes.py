# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bad states of containers and hosts, how each is made and undone, and which rules have to tell of it. Data only.

States that do not hide each other share a scene: one look of the preflight tells them all.
In the scripts $1 is the container's name, $2 the source's address, $3 the destination's.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.preflight.ground import IMAGE, MOUNTS

# A rule's id, and a part of what it says that it could not say of another state.
Told = dict[str, str]


@dataclass(frozen=True)
class Scene:
    """One container between two hosts."""

    errors: Told
    #: what is said of it as well, and keeps nobody from moving it
    warnings: Told = field(default_factory=dict)
    #: for docker run; ``{source}`` and ``{destination}`` are the hosts' addresses, ``{network}`` the first three numbers of them
    arguments: tuple[str, ...] = ()
    #: what hold.py holds in it
    kinds: tuple[str, ...] = ()
    #: on the source, before the container is there
    before: str = ""
    #: on the source, once it runs
    then: str = ""
    #: on the destination
    there: str = ""
    #: afterwards, beside the containers, volumes and networks, which go by themselves
    undo: str = ""
    undo_there: str = ""
    #: for the playbooks
    options: str = "{}"
    #: with the engine api as well, and what that one adds
    api: Told = field(default_factory=dict)
    #: what is warned of with that one alone
    api_warnings: Told = field(default_factory=dict)
    #: what the engine says of it
    state: str = "running"
    #: whether it is there at all
    exists: bool = True
    #: whether migrate.yml is asked too
    moved: bool = False


_OTHER = f"docker run -d --name $1-other {IMAGE}"
# The hosts' own network, in which a container's address moves with it.
_WAN = (
    "docker network create --driver macvlan --subnet ${2%.*}.0/24 --gateway ${2%.*}.1"
    " --opt parent=$(ip -o route get ${2%.*}.1 | sed 's/.* dev //; s/ .*//') preflight-wan"
)

SCENES: dict[str, Scene] = {
    "kept-by-the-engine": Scene(
        {
            "auto_remove": "--rm",
            "ipc_shareable": "/dev/shm",
            "links": "--link",
            "volume_in_use": "-other",
            "volume_unsupported": "preflight-mounted is a mount of tmpfs",
            "mount_replaced": "/srv/preflight-file was removed or replaced on the host",
        },
        warnings={"started_by_unit": "preflight-start.service of the source starts this container (docker start)"},
        arguments=(
            *(
                "--rm",
                "--ipc",
                "shareable",
                "--link",
                "preflight-c-other:other",
                "--volume",
                "preflight-shared:/shared",
            ),
            *("--volume", "preflight-mounted:/mounted", "--volume", "/srv/preflight-file:/file"),
        ),
        before=(
            "echo one > /srv/preflight-file;"
            "docker volume create --opt type=tmpfs --opt device=tmpfs preflight-mounted;"
            f"docker run -d --name $1-other -v preflight-shared:/shared {IMAGE}"
        ),
        then=(
            "sed -i s/one/two/ /srv/preflight-file;"
            "systemd-run --quiet --unit=preflight-start --remain-after-exit docker start $1"
        ),
        undo="rm /srv/preflight-file; systemctl stop preflight-start",
        options='{"migrate_bind_mounts": ["/srv/preflight-file"]}',
    ),
    "namespaces-of-the-host": Scene(
        {"pid_mode": "the host (--pid host)", "ipc_mode": "the host (--ipc host)"},
        arguments=("--pid", "host", "--ipc", "host"),
    ),
    "network-of-another": Scene(
        {"network_mode_container": "another container", "network_strangers": "are in its network namespace"},
        arguments=("--network", "container:preflight-c-other", "--env", "COUNTER_PORT="),
        before=_OTHER,
    ),
    "entered": Scene(
        {
            "exec_session_running": "sleep",
            "session_outside": "outside of the container's process ids: tail",
            "mount_inside": "/m",
            "no_network": "disconnected from every network",
        },
        arguments=("--privileged",),
        then=(
            "docker exec -d $1 sleep 1000;"
            # Entered without the engine, which would have begun a session inside.
            "pid=$(docker inspect --format '{{.State.Pid}}' $1);"
            "echo $$ > /sys/fs/cgroup$(sed -n s/^0:://p /proc/$pid/cgroup)/cgroup.procs;"
            "nsenter -t $pid -m -p -n -u -i -C -- sh -c 'tail -f /dev/null >/dev/null 2>&1 </dev/null & exit 0';"
            "docker exec $1 sh -c 'mkdir -p /m /t; mount -t tmpfs x /t; mkdir /t/u /t/w;"
            "  mount -t overlay -o lowerdir=/usr,upperdir=/t/u,workdir=/t/w x /m';"
            "docker network disconnect bridge $1"
        ),
        moved=True,
    ),
    "paused": Scene({"paused": "is paused already"}, then="docker pause $1", state="paused"),
    "stopped": Scene({"not_running": "it is exited"}, then="docker stop -t 1 $1", state="exited"),
    "misnamed": Scene({"container_found": "There is no container"}, exists=False),
    "programs": Scene(
        {
            "io_uring": "io_uring",
            "socket_protocol": "MPTCP",
            "inotify_on_overlay": "the container's own layer",
            "nested_namespaces": "a namespace of hostnames",
            "traced": "debugger or tracer",
            "multicast_joined": "239.1.2.3",
            "socket_bound_to_address": ":7000",
            "unix_stream_outside": "docker.sock",
            "connections_break": "{destination}:22",
            "descriptors_unsupported": "userfaultfd",
            "devices_open": "/dev/fuse",
            "pipe_without_writer": "/pipe (",
            "sqlite_open": "/app.db (",
            "huge_pages": "1 huge page(s) of 2 MiB; the destination has 0 left",
            "network_devices_inside": "pfbr9 (bridge)",
            "traffic_control_inside": "pfbr9 (tbf)",
            "ipsec_inside": "1 association(s) and policies",
            "gateway_neighbour_inside": "172.17.0.1",
            "semaphore_undo": "the kernel may have to give those of these programs back when they end",
        },
        warnings={
            "memory_merged": "(KSM): ld-linux",
            "peer_credentials": "(@preflight, user and group 1000:1000)",
        },
        arguments=(
            *("--privileged", "--security-opt", "seccomp=unconfined"),
            *("--volume", "/var/run/docker.sock:/docker.sock", *MOUNTS),
        ),
        kinds=(
            *("io_uring", "mptcp", "inotify", "namespace", "traced", "multicast", "bound", "unix", "out", "userfault"),
            *("fuse", "deleted", "lock", "pipe", "sleep", "huge", "client", "undo", "merged", "sqlite"),
        ),
        then=(
            "pid=$(docker inspect --format '{{.State.Pid}}' $1); n=\"nsenter -n -t $pid\"; $n ip link add pfbr9 type bridge;"
            "$n tc qdisc add dev pfbr9 root tbf rate 1mbit burst 4k latency 9ms;"
            "$n ip xfrm policy add src 10.1.0.0/16 dst 10.2.0.0/16 dir out;"
            "$n ip neighbour replace 172.17.0.1 lladdr 02:00:00:00:00:01 dev eth0 nud permanent"
        ),
        before=(
            # The lab's hosts have one kernel: what the container takes is the destination's too.
            "cat /proc/sys/vm/nr_hugepages > /run/huge.kept; "
            # Two MiB in one piece: where memory is in use there may be none without that.
            "echo 1 > /proc/sys/vm/compact_memory; sysctl -q vm.nr_hugepages=1;"
            "cp /etc/criu/runc.conf /etc/criu/runc.conf.kept;"
            "sed -i -e /file-locks/d -e /ghost-limit/d /etc/criu/runc.conf"
        ),
        undo="mv /etc/criu/runc.conf.kept /etc/criu/runc.conf; cat /run/huge.kept > /proc/sys/vm/nr_hugepages",
        api={
            "engine_restores": "cannot restore a container",
            "deleted_file_large": "the deleted file /big of 3 MiB",
            "file_locks": "1 file lock(s)",
        },
        # The other engine makes such a sleep again.
        api_warnings={"sleep_ends": "(for 6000 s)"},
        moved=True,
    ),
    "kept-connection": Scene(
        {
            "firewall_stateful_inside": "{network}.199:",
            "processors_missing": "to processors that the destination does not have: counter to 1",
        },
        arguments=("--network", "preflight-wan", "--ip", "{network}.199", *MOUNTS),
        kinds=("out",),
        before=_WAN,
        then=(
            "pid=$(docker inspect --format '{{.State.Pid}}' $1); taskset -cp 1 $pid;"
            "nsenter -n -t $pid nft 'add table inet t; add chain inet t c { type filter hook input priority 0 ; };"
            " add rule inet t c ct state established accept'"
        ),
        # The lab's hosts have one kernel: this one finds a processor less.
        there=f"{_WAN}; echo 0 > /run/online; mount --bind /run/online /sys/devices/system/cpu/online",
        undo_there="umount /sys/devices/system/cpu/online",
    ),
    "destination": Scene(
        {
            "name_taken": "already has a container preflight-c (status created)",
            "port_taken": "tcp port 9480 (a program of the host), tcp port 9482 (container preflight-port)",
            "address_in_use": "198.18.92.40 on network preflight-same",
            "network_differs": "198.18.93.40 on network preflight-kind",
            "network_overlaps": "198.18.95.0/24",
            "network_parent_missing": "pfbr0",
            "host_address_missing": "{source}",
            "foreign_data": "volume preflight-foreign",
            "volume_used_there": "preflight-user",
            "volume_differs": "volume preflight-options of another kind",
            "bind_mount_missing": "/srv/preflight-here",
            "bind_mount_unknown": "/srv/nowhere",
            "bind_mount_refused": "would be written into /home of the destination",
            "device_missing": "/dev/preflight",
            "device_differs": "/dev/other is c 120:7 in the container; on the destination /dev/preflight-other is c 120:8.",
            "init_missing": "no docker-init",
        },
        warnings={"neighbours_stay": "network preflight-same stay behind: preflight-neighbour."},
        arguments=(
            *("--network", "name=preflight-same,ip=198.18.92.40", "--network", "name=preflight-kind,ip=198.18.93.40"),
            *("--network", "preflight-parent", "--network", "preflight-over"),
            *("--publish", "9480:80", "--publish", "9482:82", "--publish", "{source}:9481:81"),
            *("--volume", "preflight-foreign:/v1", "--volume", "preflight-used:/v2"),
            *(
                "--volume",
                "preflight-options:/v3",
                "--volume",
                "/srv/preflight-here:/b",
                "--volume",
                "/srv/preflight-link:/h:ro",
            ),
            *("--init", "--device", "/dev/preflight", "--device", "/dev/preflight-other:/dev/other"),
        ),
        before=(
            "ip link add pfbr0 type bridge; mknod /dev/preflight c 1 3; mknod /dev/preflight-other c 120 7;"
            "mkdir -p /srv/preflight-here /srv/preflight-link;"
            "docker network create --subnet 198.18.92.0/24 preflight-same;"
            "docker network create --subnet 198.18.93.0/24 preflight-kind;"
            "docker network create --driver macvlan --opt parent=pfbr0 --subnet 198.18.94.0/24 preflight-parent;"
            "docker network create --subnet 198.18.95.0/24 preflight-over;"
            f"docker run -d --name preflight-neighbour --network preflight-same {IMAGE}"
        ),
        there=(
            f"docker create --name $1 {IMAGE};"
            "systemd-run --quiet --unit=preflight-port python3 -m http.server 9480;"
            f"docker run -d --name preflight-port --publish 9482:82 {IMAGE};"
            "docker network create --subnet 198.18.92.0/24 preflight-same;"
            f"docker run -d --name preflight-address --network preflight-same --ip 198.18.92.40 {IMAGE};"
            "docker network create --subnet 198.18.96.0/24 preflight-kind;"
            "ip link add pfbr1 type bridge; ip addr add 198.18.95.1/24 dev pfbr1; ip link set pfbr1 up;"
            "docker volume create preflight-foreign; touch /var/lib/docker/volumes/preflight-foreign/_data/theirs;"
            f"docker run -d --name preflight-user --volume preflight-used:/v2 {IMAGE};"
            "docker volume create --opt type=tmpfs --opt device=tmpfs preflight-options;"
            "ln -s /home /srv/preflight-link; mknod /dev/preflight-other c 120 8;"
            "mv /usr/bin/docker-init /usr/bin/docker-init.away"
        ),
        undo="ip link del pfbr0; rm -rf /dev/preflight /dev/preflight-other /srv/preflight-here /srv/preflight-link",
        undo_there=(
            "rm -f /srv/preflight-link /dev/preflight-other; systemctl stop preflight-port; ip link del pfbr1;"
            "mv /usr/bin/docker-init.away /usr/bin/docker-init"
        ),
        options='{"migrate_bind_mounts": ["/srv/nowhere", "/srv/preflight-link"]}',
        moved=True,
    ),
    "hosts": Scene(
        {
            "shim_registered": "is not registered",
            "tools_present": "The destination lacks rsync",
            "archive_tools": "The source lacks gzip",
            "docker_py_present": "on the source has no docker-py",
            "channel_reachable": "{destination} port 22",
            "disk_free": "/var/lib/livemigrate on the destination has 6",
            "criu_usable": "CRIU cannot be used on the destination",
        },
        before=(
            "mv /usr/bin/gzip /usr/bin/gzip.away; mv /usr/lib/python3/dist-packages/docker /usr/lib/python3/docker.away;"
            "ip route add unreachable $3"
        ),
        there=(
            "cp /etc/docker/daemon.json /etc/docker/daemon.kept;"
            "python3 -c \"import json; p='/etc/docker/daemon.json'; d=json.load(open(p)); d.pop('runtimes');"
            " json.dump(d, open(p, 'w'))\";"
            "systemctl reset-failed docker; systemctl restart docker;"
            "mv /usr/bin/rsync /usr/bin/rsync.away; mv /usr/sbin/criu /usr/sbin/criu.away;"
            "mkdir -p /var/lib/livemigrate; mount -t tmpfs -o size=64m small /var/lib/livemigrate"
        ),
        undo=(
            "mv /usr/bin/gzip.away /usr/bin/gzip; mv /usr/lib/python3/docker.away /usr/lib/python3/dist-packages/docker;"
            "ip route del unreachable $3"
        ),
        undo_there=(
            "umount /var/lib/livemigrate; mv /usr/bin/rsync.away /usr/bin/rsync; mv /usr/sbin/criu.away /usr/sbin/criu;"
            "mv /etc/docker/daemon.kept /etc/docker/daemon.json; systemctl reload docker"
        ),
    ),
    "elsewhere": Scene(
        {
            "channel_leads_elsewhere": "At localhost port 22 the source does not find the destination, but the source itself",
            "channel_login": "The account preflight on the destination prints text whenever it logs in",
        },
        there="useradd --create-home --shell /bin/bash preflight; echo 'echo Good morning' > /home/preflight/.bashrc",
        undo_there="userdel --remove preflight",
        options='{"migrate_destination_address": "localhost", "migrate_channel_user": "preflight"}',
    ),
    "engine-stopped": Scene(
        {"docker_present": "on the destination does not answer"},
        there="systemctl stop docker.socket docker",
        undo_there="systemctl reset-failed docker; systemctl start docker.socket docker",
    ),
}
