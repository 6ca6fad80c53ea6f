"""The JSON gateway answers as real etcd's does: routes, bodies, heads, verbs and streams."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.differential.json_pages import GROUPS, differences
from tests.differential.judged import NEEDS_JUDGE
from tests.support.processes import RunningMember

pytestmark = [pytest.mark.integration, NEEDS_JUDGE]

STEPS = {"sequence": 1, "verbs": 5, "heads": 1, "refused": 11, "users": 1}
"""One in so many requests of each group; ``python -m tests.differential.json_pages`` asks all."""
CHEAP_PASSWORDS = ["--bcrypt-cost=4"]


@pytest.fixture(scope="module")
def endpoints() -> Iterator[tuple[str, str]]:
    with (
        RunningMember("etcd", flags=["--unsafe-no-fsync", *CHEAP_PASSWORDS]) as judge,
        RunningMember("etcdtw", flags=CHEAP_PASSWORDS) as ours,
    ):
        yield judge.endpoint, ours.endpoint
        assert "Traceback" not in ours.stderr(), ours.stderr()[-4000:]


@pytest.mark.parametrize("group", GROUPS)
def test_nothing_differs(endpoints: tuple[str, str], group: str) -> None:
    count, found = differences(*endpoints, group, STEPS[group])
    assert not found, "\n".join(found)
    assert count > 15
