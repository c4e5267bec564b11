#!/usr/bin/python
# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: criu_check
short_description: Tell what a host offers for checkpoint and restore
version_added: 1.0.0
author:
  - The livemigrate.criu authors (@livemigrate)
description:
  - Gathers what matters for moving containers with CRIU, that is CRIU itself and its verdict on the running kernel, the
    Docker Engine with its containerd and runc, the tools CRIU needs, memory, disk and Python.
  - CRIU is tried, too. A tiny container is run, dumped and restored by C(runc) with the options of a move, in a systemd unit
    of its own that leaves nothing behind. It takes about half a second; see RV(self_test).
  - It tells and never fails on absence. Without CRIU or without Docker it says so in what it returns; roles and playbooks judge.
  - The engine is asked through its socket, so neither the docker command line nor docker-py is needed.
  - CRIU needs root for its checks; use C(become).
extends_documentation_fragment:
  - livemigrate.criu.attributes.read_only
  - livemigrate.criu.attributes
options:
  criu_path:
    description:
      - The CRIU to ask.
      - Without it the one that services find, that is the first in C(/usr/local/sbin), C(/usr/local/bin), C(/usr/sbin),
        C(/usr/bin).
    type: path
  features:
    description:
      - Names of kernel features to ask CRIU for, as C(criu check --feature) takes them.
    type: list
    elements: str
    default:
      - mem_dirty_track
      - uffd-noncoop
      - network_lock_nftables
      - external_net_ns
      - timens
      - overlayfs_maps
      - pidfd_store
      - pagemap_scan
      - seccomp_suspend
      - seccomp_filters
  container:
    description:
      - Name or id of a container of this host. What of it decides a move is returned in RV(container), without its environment,
        arguments, values of labels, and options of volumes.
      - A container that is not there is a fact like any other.
    type: str
  bind_mounts:
    description: Host paths of bind mounts whose content is to move with O(container).
    type: list
    elements: path
    default: []
  for_container:
    description:
      - What this module returned for a container on another host (RV(container)), from which that is to come here.
      - What this host has for it is returned in RV(for_container). Nothing is made.
    type: dict
  peer:
    description: Another host, whose SSH daemon is to be greeted; whether and how fast it answers is returned in RV(peer).
    type: dict
    suboptions:
      address:
        description: Its name or address.
        type: str
        required: true
      port:
        description: Port of its SSH daemon.
        type: int
        default: 22
  channel:
    description:
      - Tell whether an account of this host can be the end of the channel between the hosts. Nobody logs in.
    type: dict
    suboptions:
      user:
        description: The account; without it the one that Ansible uses.
        type: str
      from_address:
        description: The address that the other host comes from, as RV(peer) tells it there.
        type: str
  asked_at:
    description: The time at which the control node asks, in seconds since 1970, for a comparison of the hosts' clocks.
    type: float
seealso:
  - module: ansible.builtin.setup
  - name: CRIU's own page on checking a kernel
    description: What C(criu check) looks at and which kernel options it needs.
    link: https://criu.org/Check_the_kernel
"""

EXAMPLES = r"""
---
- name: Look at the host
  livemigrate.criu.criu_check:
  become: true
  register: host

- name: Stop where CRIU cannot work
  ansible.builtin.assert:
    that: host.usable
    fail_msg: "{{ host.reasons | join(' ') }}"

- name: Say whether memory can be copied ahead while the service runs
  ansible.builtin.debug:
    msg: "{{ 'with' if host.criu.features.mem_dirty_track else 'without' }} memory pre-copy"

- name: Look at a container before it moves
  livemigrate.criu.criu_check:
    container: mwp
  become: true
  register: source

- name: Look at what another host has for it
  livemigrate.criu.criu_check:
    for_container: "{{ source.container }}"
  become: true
  delegate_to: beta

- name: Ask a CRIU that was built from source for one feature
  livemigrate.criu.criu_check:
    criu_path: /opt/criu/sbin/criu
    features: [mem_dirty_track]
  become: true
"""

RETURN = r"""
---
container:
  description:
    - What decides whether and how O(container) can move. RV(container.found) is V(false) where there is no such container, and
      RV(container.error) says so.
    - The preflight reads it; its other keys may change from release to release.
  returned: with O(container)
  type: dict
  contains:
    found:
      description: Whether the engine knows it.
      type: bool
      sample: true
    error:
      description: Why there is nothing to tell.
      type: str
      sample: There is no container 'mpw' on this host. Did you mean mwp?
for_container:
  description:
    - What this host has for the container of O(for_container), that is whether its name, addresses and ports are free, its image
      and networks there, and what its volumes and bind mounts would meet. V(null) where the engine does not answer.
    - The preflight reads it; its keys may change from release to release.
  returned: with O(for_container)
  type: dict
peer:
  description: How O(peer) was reached.
  returned: with O(peer)
  type: dict
  contains:
    error:
      description: Why it was not, V(null) where it was.
      type: str
      sample: Connection refused.
    is_own:
      description: Whether the way there leads back to this host.
      type: bool
      sample: false
    from_address:
      description: The address of this host from which it was reached.
      type: str
      sample: 192.0.2.1
    host_keys:
      description: The host keys that the SSH daemon there shows, as C(kind blob).
      type: list
      elements: str
      sample: ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI..."]
    rtt_seconds:
      description: How long the connection took.
      type: float
      sample: 0.0004
    device:
      description: The network device that leads to it.
      type: str
      sample: eth0
    speed_mbit:
      description: What that device says of its speed, V(null) where it does not tell.
      type: int
      sample: 1000
login:
  description: The account through which this module came to the host, before it became root.
  returned: always
  type: str
  sample: admin
cpu:
  description: The processor.
  returned: always
  type: dict
  contains:
    model:
      description: What it calls itself.
      type: str
      sample: AMD EPYC
    instructions:
      description: Flags of instructions that programs find out about and use.
      type: list
      elements: str
      sample: [avx, avx2, sse4_2]
limits:
  description: Settings of the whole host on which programs rely, by their names, as far as its kernel has them.
  returned: always
  type: dict
  sample: {"vm.max_map_count": 262144, "vm.overcommit_memory": 0, "fs.aio-max-nr": 65536}
clock:
  description: The wall clock.
  returned: always
  type: dict
  contains:
    wall:
      description: Seconds since 1970.
      type: float
      sample: 1795778697.68
    asked_at:
      description: What O(asked_at) said.
      type: float
      sample: 1795778697.12
    age_seconds:
      description: How long before the end of the module the clock was read.
      type: float
      sample: 0.4
ssh_host_keys:
  description: The public host keys of the SSH daemon, as C(kind blob).
  returned: always
  type: list
  elements: str
  sample: ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI..."]
huge_pages:
  description: Huge pages by their size in KiB, with the kernel's own counters.
  returned: always
  type: dict
  sample: {"2048": {"nr_hugepages": 16, "free_hugepages": 4, "resv_hugepages": 0}}
channel_login:
  description: What stands in the way of the channel's login; each text is empty where nothing does.
  returned: with O(channel)
  type: dict
  contains:
    user:
      description: The account.
      type: str
      sample: root
    prints:
      description: The first line of what it prints at every login.
      type: str
      sample: ""
    fails:
      description: Why no command of it can be run.
      type: str
      sample: ""
    refused:
      description: Why the SSH daemon would not let a key in.
      type: str
      sample: ""
swap:
  description: Whether what a session keeps in memory may be read from a disk afterwards.
  returned: always
  type: dict
  contains:
    noswap:
      description: Whether the kernel has file systems in memory that are never swapped out (6.4 and later).
      type: bool
      sample: true
    in_the_clear:
      description: Swap spaces that are neither encrypted nor in memory themselves.
      type: list
      elements: str
      sample: ["/dev/vda2"]
tmpfs_free_bytes:
  description: Room in the file system in memory where a session keeps a checkpoint.
  returned: always
  type: int
  sample: 4096000000
self_test:
  description:
    - What became of a tiny container of this module's own that CRIU dumped and restored here, by way of C(runc) and with the
      options that a move has.
    - A try that succeeded is noted in C(/run/livemigrate/self-test.json). It is repeated when the host was booted again, and
      when the programs criu and runc, C(/etc/criu/runc.conf) or this collection's own options are other ones.
  returned: always
  type: dict
  contains:
    ok:
      description: Whether it was restored and went on. V(null) when it could not be tried.
      type: bool
      sample: true
    error:
      description: Why it failed or could not be tried, in full sentences, V(null) where there is nothing to say.
      type: str
      sample: "A small container of its own cannot be dumped: sockets: Can't get 1:16 opt: Operation not supported."
    steps:
      description: The steps that succeeded, with the seconds that each took.
      type: dict
      sample: {"run": 0.11, "dump": 0.19, "restore": 0.17}
    seconds:
      description: How long all of it took.
      type: float
      sample: 0.56
    options:
      description: CRIU's options for the dump that it was tried with last.
      type: list
      elements: str
      sample: [manage-cgroups=ignore, file-locks]
    refused_options:
      description: Options that this CRIU cannot take, and that a move does without.
      type: list
      elements: str
      sample: []
    host_lines:
      description: Lines of C(/etc/criu/runc.conf) without which it would succeed.
      type: list
      elements: str
      sample: []
    host_file_error:
      description:
        - Where C(/etc/criu/runc.conf) names C(network-lock), what becomes of a dump with that file as it is, which the engine
          C(api) makes. V(null) where that succeeds or was not asked.
      type: str
      sample: "CRIU 4.1.1 crashed on kernel 6.12.117 while it dumped a small container."
    from_note:
      description: Whether this is what an earlier try has noted.
      type: bool
      sample: false
usable:
  description: Whether this CRIU can be used on this kernel.
  returned: always
  type: bool
  sample: true
reasons:
  description: Why it cannot be used, in full sentences. Empty when it can.
  returned: always
  type: list
  elements: str
  sample: ["CRIU is not installed."]
remarks:
  description: What to keep in mind although it can be used, in full sentences.
  returned: always
  type: list
  elements: str
  sample: []
criu:
  description: The CRIU of this host.
  returned: always
  type: dict
  contains:
    present:
      description: Whether there is a CRIU that tells its version.
      type: bool
      sample: true
    path:
      description: Where it is, V(null) where there is none.
      type: str
      sample: /usr/sbin/criu
    version:
      description: Its version, V(null) where there is none.
      type: str
      sample: 4.2.1
    package:
      description: The distribution's package that owns it, V(null) where none does, as for a CRIU from source.
      type: str
      sample: criu
    package_revision:
      description: That package's revision; it tells of fixes that the version does not.
      type: str
      sample: 3.17.1-2+deb12u2
    check:
      description: The verdict of C(criu check). RV(criu.check.ok) is V(null) when it could not be run.
      type: dict
      contains:
        ok:
          description: Whether it looks good.
          type: bool
          sample: true
        output:
          description: What it printed.
          type: str
          sample: Looks good.
    features:
      description: Every feature of O(features), V(true), V(false), or V(null) where this CRIU does not know it.
      type: dict
      sample: {"mem_dirty_track": false, "uffd-noncoop": true}
    options:
      description: What C(/etc/criu/runc.conf) says, by name.
      type: dict
      sample: {"file-locks": "", "ghost-limit": "256M"}
kernel:
  description: The running kernel.
  returned: always
  type: dict
  contains:
    release:
      description: As C(uname -r).
      type: str
      sample: 6.12.48+deb13-cloud-amd64
    machine:
      description: As C(uname -m).
      type: str
      sample: x86_64
    cgroup_version:
      description: V(2) for the unified hierarchy, else V(1).
      type: int
      sample: 2
    lsm:
      description: Active security modules. Empty where securityfs is not mounted.
      type: list
      elements: str
      sample: [capability, apparmor]
    page_size:
      description: In bytes.
      type: int
      sample: 4096
    processors:
      description: The numbers of the processors that are online.
      type: list
      elements: int
      sample: [0, 1, 2, 3]
    time_namespace:
      description: Whether it has time namespaces.
      type: bool
      sample: true
    ipv6:
      description: Whether it has IPv6. One that was booted with C(ipv6.disable=1) has none.
      type: bool
      sample: true
    config:
      description: Of the options that matter to CRIU, which it was built with. Empty where its configuration cannot be read.
      type: dict
      sample: {"CONFIG_CHECKPOINT_RESTORE": true, "CONFIG_MEM_SOFT_DIRTY": false}
docker:
  description:
    - The Docker Engine of this host. All keys are there always; those that only a running engine can tell are V(null) or
      empty without one.
  returned: always
  type: dict
  contains:
    installed:
      description: Whether there is a dockerd.
      type: bool
      sample: true
    running:
      description: Whether it answers.
      type: bool
      sample: true
    error:
      description: Why it does not answer.
      type: str
      sample: "There is no engine listening: its socket does not exist."
    version:
      description: Version of the engine.
      type: str
      sample: 26.1.5+dfsg1
    api_version:
      description: Its newest API.
      type: str
      sample: "1.45"
    min_api_version:
      description: Its oldest API.
      type: str
      sample: "1.24"
    experimental:
      description: Whether the checkpoint endpoints are switched on.
      type: bool
      sample: true
    storage_driver:
      description: The storage driver or, with the containerd image store, the snapshotter.
      type: str
      sample: overlay2
    image_store:
      description: V(graphdriver) or V(containerd).
      type: str
      sample: graphdriver
    cgroup_driver:
      description: V(systemd) or V(cgroupfs).
      type: str
      sample: systemd
    cgroup_version:
      description: The cgroup version the engine uses.
      type: int
      sample: 2
    live_restore:
      description: Whether containers outlive a restart of the engine.
      type: bool
      sample: false
    data_root:
      description: Where the engine keeps its data.
      type: str
      sample: /var/lib/docker
    security_options:
      description: Names of the active security options.
      type: list
      elements: str
      sample: [apparmor, seccomp, cgroupns]
    rootless:
      description: Whether the engine runs without root.
      type: bool
      sample: false
    userns_remap:
      description: Whether containers get a user namespace.
      type: bool
      sample: false
    runtimes:
      description: Names of the registered runtimes.
      type: list
      elements: str
      sample: [io.containerd.runc.v2, runc]
    default_runtime:
      description: The runtime of containers that name none.
      type: str
      sample: runc
    shim:
      description:
        - The runtime that restores containers inside an ordinary start, as the role P(livemigrate.criu.checkpointing#role)
          installs it.
      type: dict
      contains:
        registered:
          description: Whether the engine knows it, and its files are there.
          type: bool
          sample: true
        path:
          description: Where the engine looks for it, or else where it would be.
          type: str
          sample: /usr/local/lib/livemigrate/livemigrate-runc
        installed:
          description: Whether its files are there and can be executed.
          type: bool
          sample: true
        version:
          description: Version of the files that a migration and it exchange, V(null) where there is none.
          type: str
          sample: "1"
    containers_running:
      description: How many containers live, paused ones included.
      type: int
      sample: 3
    containerd_version:
      description: Version of containerd, from the engine or else from its program.
      type: str
      sample: 1.7.24
    runc_version:
      description: Version of runc, from the engine or else from its program.
      type: str
      sample: 1.1.15
    swarm:
      description: The node's state in a swarm.
      type: str
      sample: inactive
    containerd_root:
      description: Where its containerd keeps its content.
      type: str
      sample: /var/lib/containerd
    init_binary:
      description: Where the engine finds the first process of containers made with C(--init), V(null) where it finds none.
      type: str
      sample: /usr/bin/docker-init
    init_bytes:
      description: The size of that file in bytes. CRIU restores a program only where its file has the size that it had.
      type: int
      sample: 1033896
    api_engine:
      description: Whether this engine can restore a checkpoint through its own API.
      type: dict
      contains:
        restores:
          description: V(all), V(host_network) (only containers without a network namespace of their own), V(none) or V(unknown).
          type: str
          sample: all
        reason:
          description: Why not V(all).
          type: str
          sample: ""
tools:
  description: Where programs are that a migration may need, V(null) for one that is missing.
  returned: always
  type: dict
  sample: {"iptables": "/usr/sbin/iptables", "nft": null}
rsync:
  description: The rsync of this host, and whether it can be confined to the directory that it works on. Found out by doing it.
  returned: always
  type: dict
  contains:
    version:
      description: Its version, V(null) where there is none.
      type: str
      sample: 3.2.7
    error:
      description: Why it cannot be confined; empty where it can, or where there is none.
      type: str
      sample: ""
    follows_links:
      description: Whether symbolic links in that directory are followed, as before Linux 5.10. V(null) where that is not known.
      type: bool
      sample: false
memory:
  description: Memory of the host.
  returned: always
  type: dict
  contains:
    total_bytes:
      description: All of it.
      type: int
      sample: 25225728000
    available_bytes:
      description: What the kernel could give without swapping.
      type: int
      sample: 18225728000
disk:
  description: Room at the places that a migration fills. Paths with the same RV(disk[].device) share it.
  returned: always
  type: list
  elements: dict
  contains:
    path:
      description: The place. One that is not there yet is judged by its nearest parent.
      type: str
      sample: /var/lib/docker
    free_bytes:
      description: Free for users without privileges.
      type: int
      sample: 90225728000
    total_bytes:
      description: Size of the file system.
      type: int
      sample: 100225728000
    filesystem:
      description: Its type.
      type: str
      sample: ext4
    device:
      description: Its device number.
      type: int
      sample: 65025
python:
  description: The Python that runs modules on this host.
  returned: always
  type: dict
  contains:
    executable:
      description: Where it is.
      type: str
      sample: /usr/bin/python3
    version:
      description: Its version.
      type: str
      sample: 3.13.5
    docker_py:
      description: Version of docker-py as the modules of this collection find it, V(null) where they find none.
      type: str
      sample: 7.1.0
    docker_py_path:
      description: Where they find it.
      type: str
      sample: /usr/lib/python3/dist-packages/docker
    docker_py_error:
      description: Why it cannot be imported.
      type: str
      sample: No module named 'docker'
"""

import typing as t

from ansible_collections.livemigrate.criu.plugins.module_utils._base.command import run
from ansible_collections.livemigrate.criu.plugins.module_utils._base.module import run_module
from ansible_collections.livemigrate.criu.plugins.module_utils._docker.socket import Asks, EngineSocket
from ansible_collections.livemigrate.criu.plugins.module_utils._host import machine
from ansible_collections.livemigrate.criu.plugins.module_utils._preflight.facts.host import FEATURES, host_facts

Facts = dict[str, t.Any]


def _asked(name: str, look: t.Callable[[Asks], Facts]) -> Facts:
    """What the engine lets us see of a container; that it does not answer is a fact too."""
    try:
        return look(EngineSocket())
    except (OSError, ValueError) as exc:
        return {"found": False, "name": name, "error": f"The engine does not answer: {exc}"}


# Imports within functions: of a host alone, which is what the roles ask, most of the code tells nothing, and compiling what lies
# in Ansible's zip takes its time.


def _of_container(name: str, binds: t.Sequence[str], meanwhile: t.Callable[[], None]) -> Facts:
    from ansible_collections.livemigrate.criu.plugins.module_utils._preflight.facts import (
        container as facts_of_container,
    )

    return _asked(name, lambda asks: facts_of_container.gather(asks, name, binds, meanwhile=meanwhile))


def _for_container(wanted: Facts) -> Facts | None:
    from ansible_collections.livemigrate.criu.plugins.module_utils._preflight.facts import (
        destination as facts_of_destination,
    )

    there = _asked("", lambda asks: facts_of_destination.gather(asks, wanted)) if wanted.get("found") else {}
    return None if there.get("found") is False or not there else there


def _login_of(channel: Facts) -> Facts:
    from ansible_collections.livemigrate.criu.plugins.module_utils._channel import login as channel_login

    return channel_login.look(run, channel["user"] or machine.login(), channel["from_address"])


def _check(params: Facts, check_mode: bool) -> Facts:  # noqa: ARG001 - it changes nothing anyway
    name, wanted, peer = params["container"], params["for_container"], params["peer"]
    facts: Facts = {}

    def host() -> None:
        if peer is not None and "peer" not in facts:
            facts["peer"] = machine.peer_facts(run, peer["address"], peer["port"])
        if "criu" not in facts:
            facts.update(host_facts(run, params["criu_path"], params["features"], params["asked_at"]))

    if name is not None:
        # A container's connections are looked at twice: the host is looked at between.
        facts["container"] = _of_container(name, params["bind_mounts"], host)
    if wanted is not None:
        facts["for_container"] = _for_container(wanted)
    if params["channel"] is not None:
        facts["channel_login"] = _login_of(params["channel"])
    host()
    return {"changed": False, **facts}


def main() -> None:
    run_module(
        _check,
        argument_spec={
            "criu_path": {"type": "path"},
            "features": {"type": "list", "elements": "str", "default": list(FEATURES)},
            "container": {"type": "str"},
            "bind_mounts": {"type": "list", "elements": "path", "default": []},
            "for_container": {"type": "dict"},
            "peer": {
                "type": "dict",
                "options": {"address": {"type": "str", "required": True}, "port": {"type": "int", "default": 22}},
            },
            "channel": {"type": "dict", "options": {"user": {"type": "str"}, "from_address": {"type": "str"}}},
            "asked_at": {"type": "float"},
        },
    )


if __name__ == "__main__":
    main()
