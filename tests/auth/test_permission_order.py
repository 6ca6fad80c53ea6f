"""Where a permission comes to stand in its role."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcdtw.auth.permission_order import with_appended
from etcdtw.auth.store import AuthStore
from etcdtw.auth.values import READ, Permission
from tests.auth.permission_orders import RECORDED, digest, grants
from tests.support.model_backend import ModelBackend


def permissions(keys: list[bytes]) -> tuple[Permission, ...]:
    return tuple(Permission(READ, key, b"z%d" % i) for i, key in enumerate(keys))


@given(st.lists(st.sampled_from([b"a", b"b", b"c", b"d"]), max_size=120), st.binary(max_size=1))
def test_they_are_in_the_order_of_their_keys_and_none_is_lost(
    keys: list[bytes], last: bytes
) -> None:
    before = permissions(sorted(keys))
    appended = Permission(READ, last, b"")
    after = with_appended(before, appended)
    assert sorted(after) == sorted((*before, appended))
    assert [p.key for p in after] == sorted(p.key for p in after)


def test_few_of_one_key_stay_in_the_order_in_which_they_came() -> None:
    before = permissions([b"a", b"b", b"b", b"c"])
    appended = Permission(READ, b"b", b"")
    assert with_appended(before, appended) == (*before[:3], appended, before[3])


@pytest.mark.parametrize("seed", RECORDED)
def test_many_of_one_key_stand_as_on_real_members(seed: int) -> None:
    store = AuthStore(ModelBackend())
    store.add_role("r")
    states = []
    for permission in grants(seed):
        if permission.range_end in (b"", b"\0") or permission.key < permission.range_end:
            store.grant_permission("r", permission)
        states.append(store.role_permissions("r"))
    assert digest(states) == RECORDED[seed]
