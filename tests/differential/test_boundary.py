"""What both protocols carry at their edges is what real etcd sends and takes."""

from __future__ import annotations

import pytest

from tests.differential.boundary import CHECKS
from tests.differential.judged import NEEDS_JUDGE
from tests.support.processes import RunningMember

pytestmark = [pytest.mark.integration, NEEDS_JUDGE]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: str(check.__name__))
@pytest.mark.parametrize("program", ["etcdtw", pytest.param("etcd", marks=pytest.mark.long)])
def test_nothing_differs_at_the_boundary(program: str, check: object) -> None:
    with (
        RunningMember("etcd", flags=["--unsafe-no-fsync"]) as left,
        RunningMember(program) as right,
    ):
        differences = check(left.endpoint, right.endpoint)  # type: ignore[operator]
    assert not differences, "\n".join(differences)
