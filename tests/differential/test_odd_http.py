"""Odd requests of HTTP/1.x are answered as real etcd answers them."""

from __future__ import annotations

import pytest

from tests.differential.judged import NEEDS_JUDGE
from tests.differential.odd_http import differences
from tests.support.processes import RunningMember

pytestmark = [pytest.mark.integration, NEEDS_JUDGE]


def test_nothing_differs_but_what_is_named() -> None:
    with (
        RunningMember("etcd", flags=["--unsafe-no-fsync"]) as judge,
        RunningMember("etcdtw") as ours,
    ):
        count, found = differences(judge.endpoint, ours.endpoint)
        assert "Traceback" not in ours.stderr(), ours.stderr()[-4000:]
    assert not found, "\n".join(found)
    assert count > 600
