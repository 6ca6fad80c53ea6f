"""The plan by which a member starts, begun by the test: no service runs, nothing is opened."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock

from etcdtw.config.config import configure
from etcdtw.server.doors.taken import Taken
from etcdtw.server.services.order import build_member


class NotOpenedError(Exception):
    pass


def test_nothing_is_built_before_the_data_that_it_stands_on_is_open(tmp_path: Path) -> None:
    roles = SimpleNamespace(listens=None, dials=SimpleNamespace(wrap=None), proves_members=False)
    taken = Taken(
        bound={}, client_tls=None, peer_tls=cast(Any, roles), lookup=cast(Any, SimpleNamespace())
    )
    begun: list[str] = []

    async def begin(child: Any) -> Any:
        begun.append(child.name)
        if child.name == "storage":
            raise NotOpenedError
        return taken if child.name == "doors" else None

    config = configure([f"--data-dir={tmp_path / 'm'}"], {}, lambda path: b"")
    plan = build_member(MemoryReactorClock(), config, lambda: 0)
    assert begun == []
    failed: list[object] = []
    Deferred.fromCoroutine(plan(begin)).addErrback(lambda failure: failed.append(failure.type))
    assert begun == ["supervision", "doors", "storage"]
    assert failed == [NotOpenedError]
    assert list(tmp_path.iterdir()) == []
