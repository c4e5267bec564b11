# Copyright (c) 2026, the livemigrate.criu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Steps that fail in the middle: the source goes on, and nothing is left on the destination."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.moves.pair import Pair
from tests.moves.playbook_run import Migration
from tests.moves_api.conftest import Counter
from tests.workloads.host import Host
from tests.workloads.watch import Watch


def test_destination_refuses_because_a_port_is_taken(counter: Counter, pair: Pair) -> None:
    """Something on the destination has the published port: the restored container cannot be plumbed."""
    pair.beta.run(["systemd-run", "--unit=port-taker", "python3", "-m", "http.server", str(counter.port)])
    try:
        with Watch([counter.url(pair.alpha)], token=counter.first.token) as watch:
            # Taken after the preflight has looked.
            ignoring = ["-e", '{"migrate_ignore_rules": ["port_taken"]}']
            counter.migrate(*ignoring).fail_with("Restore the container on the destination", "address already in use")
        assert not watch.report().violations
    finally:
        pair.beta.run(["systemctl", "stop", "port-taker"])
    counter.assert_untouched()


def test_restore_fails(counter: Counter, pair: Pair) -> None:
    """CRIU on the destination cannot restore (an option it does not know makes it fail)."""
    migration = counter.migrate()
    with _option_unknown_to_criu(pair.beta, after=migration):
        migration.fail_with("Restore the container on the destination", "the container stayed here")
    counter.assert_untouched()
    counter.migrate().succeed()
    counter.assert_runs_on(pair.beta, pair.alpha)


def test_dump_fails(counter: Counter, pair: Pair) -> None:
    """CRIU on the source cannot dump: the container goes on at once."""
    with Watch([counter.url(pair.alpha)], token=counter.first.token) as watch:
        migration = counter.migrate()
        with _option_unknown_to_criu(pair.alpha, after=migration):
            migration.fail_with("Freeze the container and dump its memory", "the container stayed here")
    report = watch.report()
    assert not report.violations
    assert report.longest_gap < 5, "a failed dump kept the container frozen"
    counter.assert_untouched()


def test_criu_that_fails_is_reported_before_anything_is_touched(counter: Counter, pair: Pair) -> None:
    """The same option, in the file from the beginning: the preflight has tried CRIU with it."""
    with _option_unknown_to_criu(pair.beta):
        counter.migrate().fail_with("[criu_works]", "no-such-option", "Nothing has been touched")
    counter.assert_untouched()


@contextmanager
def _option_unknown_to_criu(host: Host, *, after: Migration | None = None) -> Iterator[None]:
    """An option in the host's own file that makes every CRIU fail; written once the preflight of a migration has tried CRIU."""
    if after:
        after.until_task("Open the session on the source")
    conf = "/etc/criu/runc.conf"
    host.run(["sh", "-c", f"cp -p {conf} {conf}.kept; echo no-such-option >> {conf}"])
    try:
        yield
    finally:
        host.run(["mv", f"{conf}.kept", conf])


def test_transfer_is_cut(counter: Counter, pair: Pair) -> None:
    """The network between the hosts goes away while the frozen container is being sent."""
    migration = counter.migrate()
    migration.until_task("Send the last changes and the checkpoint")
    with pair.lab.partitioned("beta", ["alpha"]):
        migration.fail_with("the container stayed here")
        counter.assert_runs_on(pair.alpha, pair.beta)
    # The playbook has told the destination, which the control node still reached.
    counter.assert_untouched()


def test_image_has_no_name(counter: Counter, pair: Pair) -> None:
    """The image is not on the destination and has no tag on the source either: it is sent by its id."""
    image = pair.alpha.inspect(counter.name)["Image"]
    pair.alpha.docker("tag", image, "kept:for-later")
    pair.beta.docker("tag", image, "kept:for-later")
    tag = pair.alpha.inspect(counter.name)["Config"]["Image"]
    try:
        pair.beta.docker("rmi", "--force", tag, "kept:for-later")
        pair.alpha.docker("rmi", "--force", tag, "kept:for-later")
        counter.migrate().succeed()
        assert pair.beta.inspect(counter.name)["Image"] == image
        counter.assert_runs_on(pair.beta, pair.alpha)
    finally:
        for host in (pair.alpha, pair.beta):
            host.docker("tag", image, tag, check=False)


def test_somebody_thaws_the_source(counter: Counter, pair: Pair) -> None:
    """`docker unpause` by a person after the dump runs none of the container's code; the migration gives up."""
    migration = counter.migrate()
    migration.until_task("Send the last changes and the checkpoint")
    pair.alpha.docker("unpause", counter.name, check=False)
    migration.end()
    counter_runs_on_beta = bool(pair.beta.docker("ps", "-q", "--filter", f"name=^{counter.name}$"))
    if counter_runs_on_beta:
        # The dump was still going on when the person came, and paused it again.
        counter.assert_runs_on(pair.beta, pair.alpha)
    else:
        counter.assert_untouched()
