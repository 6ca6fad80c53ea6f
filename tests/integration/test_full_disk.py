"""A few rounds of filling and freeing small disks of a cluster under load; `make full-disk`: 50."""

from __future__ import annotations

import contextlib
import time
from contextlib import ExitStack

import pytest

from tests.integration.full_disk_loop import (
    DISK_OCTETS,
    MIB,
    STATE,
    Disks,
    NoMountsError,
    disk_status,
    filler_path,
    run,
)
from tests.support.cluster_processes import Cluster, wait_for
from tests.support.etcd_client import RpcFailedError

WITHIN_S = 60.0

ROUNDS = 2
"""A filler at the leader's log, and one at its state beside writes that use its reserve up."""

pytestmark = pytest.mark.integration


def test_a_short_member_hands_over_to_real_etcd_and_catches_up_when_there_is_room() -> None:
    with ExitStack() as stack:
        disks = stack.enter_context(Disks())
        cluster = Cluster(["etcdtw", "etcd", "etcd"])
        short = cluster.members["m1"]
        try:
            disk = disks.mount("m1", STATE)
        except NoMountsError as error:
            pytest.skip(f"{error}: full disks are not tried here")
        short.data_dir = disk / "data"
        stack.enter_context(cluster)
        cluster.move_leader(short)
        with filler_path(disk).open("wb", buffering=0) as file:
            for _ in range(DISK_OCTETS[STATE] // MIB):
                try:
                    file.write(bytes(MIB))
                except OSError:
                    break
        number = 0
        deadline = time.monotonic() + WITHIN_S
        while disk_status(short) == 200:  # it writes until its reserve is used up
            assert time.monotonic() < deadline, "never short"
            with contextlib.suppress(RpcFailedError):
                cluster.client(cluster.leader()).put(b"k%d" % (number % 16), bytes(256 * 1024))
            number += 1
        wait_for(lambda: cluster.leader() is not short, WITHIN_S, "another member leads")
        for _ in range(20):
            cluster.client(cluster.leader()).put(b"on", b"and on")
        filler_path(disk).unlink()
        wait_for(lambda: disk_status(short) == 200, WITHIN_S, "it has room again")
        revision = cluster.revision()
        cluster.wait_applied(revision)
        cluster.assert_equal(revision)
        cluster.check_logs()


def test_nothing_is_lost_and_nobody_dies_of_full_disks() -> None:
    try:
        tally, lines = run(ROUNDS, 1, is_quiet=True)
    except NoMountsError as error:
        pytest.skip(f"{error}: full disks are not tried here")
    assert not tally.problems, "\n".join([*tally.problems, *lines])
    assert tally.rounds == ROUNDS
    assert tally.acknowledged > 0
