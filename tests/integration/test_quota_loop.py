"""The loop of `quota_loop`, in small: what it fills it can empty, and the file stays small."""

from __future__ import annotations

from typing import Final

import pytest

from tests.integration.quota_loop import MIB, RATIO_MAX, QuotaLoop, quota_flags
from tests.support.cluster_processes import Cluster

QUOTA: Final = 96 * MIB

pytestmark = [pytest.mark.integration, pytest.mark.long]


def test_a_quota_is_filled_and_emptied_again_and_again_by_clients_alone() -> None:
    with Cluster(["etcdtw"], flags=quota_flags(QUOTA)) as cluster:
        loop = QuotaLoop(cluster, QUOTA, seed=1)
        for _ in range(3):
            found = loop.run()
            assert found.octets > QUOTA // 4
        assert loop.ratio < RATIO_MAX
        cluster.check_logs()
