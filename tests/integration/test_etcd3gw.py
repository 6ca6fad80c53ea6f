"""etcd3gw, OpenStack's client of the JSON gateway, as it is on PyPI."""

from __future__ import annotations

from threading import Timer
from typing import Any

import pytest
from etcd3gw import client as connect
from etcd3gw.utils import _encode as encode

from tests.support.processes import RunningMember

pytestmark = pytest.mark.integration


@pytest.fixture
def gateway(member: RunningMember) -> Any:
    return connect(host="127.0.0.1", port=member.client_port)


def test_keys(gateway: Any) -> None:
    assert gateway.put("gw/a", "1")
    assert gateway.get("gw/a") == [b"1"]
    assert not gateway.create("gw/a", "2")
    assert gateway.create("gw/b", "2")
    assert gateway.replace("gw/a", "1", "3")
    found = [(record["key"], value) for value, record in gateway.get_prefix("gw/")]
    assert found == [(b"gw/a", b"3"), (b"gw/b", b"2")]
    assert gateway.delete_prefix("gw/")
    assert gateway.get_prefix("gw/") == []


def test_transactions(gateway: Any) -> None:
    gateway.put("gw/t", "1")
    compare = {"key": encode("gw/t"), "result": "EQUAL", "target": "VALUE", "value": encode("1")}
    put = {"request_put": {"key": encode("gw/t"), "value": encode("2")}}
    told = gateway.transaction({"compare": [compare], "success": [put], "failure": []})
    assert told["succeeded"] is True
    assert gateway.get("gw/t") == [b"2"]


def test_leases_and_locks(gateway: Any) -> None:
    lease = gateway.lease(ttl=30)
    gateway.put("gw/l", "v", lease=lease)
    assert lease.keys() == [b"gw/l"]
    assert 25 <= lease.refresh() <= 30
    assert lease.revoke()
    assert gateway.get("gw/l") == []
    lock = gateway.lock("gw", ttl=10)
    assert lock.acquire()
    assert lock.is_acquired()
    assert lock.refresh() == 10
    assert lock.release()


def test_watches(gateway: Any) -> None:
    events, cancel = gateway.watch("gw/w")
    timer = Timer(0.3, lambda: [gateway.put("gw/w", value) for value in "123"])
    timer.start()
    assert [next(events)["kv"]["value"] for _ in range(3)] == [b"1", b"2", b"3"]
    cancel()
    timer.join()


def test_members_and_status(gateway: Any) -> None:
    assert [member["name"] for member in gateway.members()] == ["m1"]
    assert gateway.status()["version"]
