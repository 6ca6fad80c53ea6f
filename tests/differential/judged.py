"""The differential tests are against etcd 3.7: an older judge answers in other ways."""

from __future__ import annotations

import pytest

from tests.support.judges import judge_version

JUDGE_MIN = (3, 7, 3)
NEEDS_JUDGE = pytest.mark.skipif(
    judge_version() < JUDGE_MIN, reason="NO REAL ETCD 3.7.3: `make judges`"
)
