"""The client for scripts; what it does with a member: `tests/integration/test_client.py`."""

from __future__ import annotations

import pytest

from etcdtw.client.blocking import BlockingClient


def test_the_thread_of_the_reactor_cannot_wait_for_itself() -> None:
    with pytest.raises(RuntimeError, match="the reactor runs in this thread"):
        BlockingClient("127.0.0.1:2379")
