"""Who gets how many file descriptors, at the edges."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from etcdtw.server.process.descriptors import ALL_SHARES, RESERVE, share_out
from etcdtw.transport.peer_port.places import PlaceBounds


def test_at_etcds_reserve_nobody_can_be_served_and_one_more_serves_one_client() -> None:
    assert share_out(RESERVE) is None
    shares = share_out(RESERVE + 1)
    assert shares is not None
    assert shares.clients_max == 1


def test_shares_never_promise_more_than_there_is() -> None:
    for limit in range(RESERVE + 1, 30_000, 97):
        shares = share_out(limit)
        assert shares is not None
        # The reserve holds the first 64 places of peers and 86 descriptors of our own.
        assert shares.clients_max + shares.peers_max + 86 <= limit
        places = shares.places
        assert places.total_max >= places.address_max + places.strangers_max
        assert places.stranger_max >= 1
    assert shares == ALL_SHARES
    assert shares.places == PlaceBounds()


def test_a_usual_limit_leaves_clients_nearly_as_many_as_etcd_does() -> None:
    shares = share_out(1024)
    assert shares is not None
    assert (shares.clients_max, shares.peers_max) == (820, 118)


@pytest.mark.processes
def test_too_few_descriptors_end_the_start_with_etcds_words(tmp_path: Path) -> None:
    code = (
        "import resource, sys;"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({RESERVE}, {RESERVE}));"
        "from twisted.scripts.twistd import run;"
        f"sys.argv = ['twistd', '-n', '--pidfile=', 'etcdtw', '--data-dir', '{tmp_path}/d'];"
        "run()"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 1
    assert '"msg":"file descriptor limit of etcd process is too low; please set higher"' in (
        run.stderr
    )
    assert '"limit":150,"recommended-limit":150' in run.stderr
    assert not os.path.exists(tmp_path / "d")
