"""Users and roles over JSON: a group of `json_pages`, to be asked last."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.differential.json_sequence import A, Ask, call, of

PASSWORD = "pw"
Z = of("z")
ZZ = of("zz")


def users() -> Iterator[Ask]:
    """Yield what makes users, what each of them asks, and what ends it."""
    yield from founding()
    yield call("auth/enable", {})
    yield call("auth/status", {})
    yield call("auth/authenticate", {"name": "al", "password": "no"})
    yield call("auth/authenticate", {"name": "nobody", "password": "no"})
    for lease, user in ((70, ""), (71, "al"), (72, "root")):
        yield from asked_by(user, lease)
    key = call("kv/range", {"key": A})
    for text in ("Bearer x", "x", "Bearer x.1"):
        yield key._replace(fields={"Authorization": text})
        yield key._replace(fields={"Grpc-Metadata-Token": text})
    yield call("auth/disable", {}, user="root")
    yield key._replace(fields={"Authorization": "x"})


def founding() -> Iterator[Ask]:
    yield call("auth/status", {})
    yield call("auth/enable", {})
    for name in ("root", "root", "", "al"):
        yield call("auth/user/add", {"name": name, "password": PASSWORD})
    yield call("auth/user/add", {"name": "np", "options": {"no_password": True}})
    yield call("auth/role/add", {"name": "r"})
    permission: dict[str, Any] = {"permType": "READWRITE", "key": A, "range_end": of("b")}
    yield call("auth/role/grant", {"name": "r", "perm": permission})
    yield call("auth/role/grant", {"name": "r", "perm": {"permType": 0, "key": of("x")}})
    yield call("auth/role/get", {"role": "r"})
    yield call("auth/role/list", {})
    yield call("auth/user/grant", {"user": "al", "role": "r"})
    yield call("auth/user/grant", {"user": "root", "role": "root"})
    yield call("auth/user/get", {"name": "al"})
    yield call("auth/user/list", {})
    yield call("auth/authenticate", {"name": "al", "password": PASSWORD})


def asked_by(user: str, lease: int) -> Iterator[Ask]:
    asked: list[tuple[str, dict[str, Any]]] = [
        ("kv/put", {"key": A, "value": of("1")}),
        ("kv/put", {"key": Z, "value": of("1")}),
        ("kv/range", {"key": A}),
        ("kv/range", {"key": Z}),
        ("kv/txn", {"success": [{"request_put": {"key": A}}, {"request_range": {"key": Z}}]}),
        ("auth/user/list", {}),
        ("auth/status", {}),
        ("maintenance/status", {}),
        ("maintenance/hash", {}),
        ("cluster/member/list", {}),
        ("lease/grant", {"ID": lease, "TTL": 600}),
        ("lock/lock", {"name": A, "lease": 71}),
        ("lock/unlock", {"key": of("a/47")}),
        ("lock/lock", {"name": ZZ, "lease": 71}),
        ("lock/unlock", {"key": of("zz/47")}),
        ("election/leader", {"name": ZZ}),
        ("election/campaign", {"name": A, "lease": 71}),
        ("election/observe", {"name": ZZ}),
        ("election/observe", {"name": A}),
        ("election/resign", {"leader": {"key": of("a/47"), "rev": 1, "lease": 71}}),
        ("watch", {"create_request": {"key": A}}),
        ("watch", {"create_request": {"key": Z}}),
    ]
    if user != "root":  # he gets it, and it is as long as it is
        asked.append(("maintenance/snapshot", {}))
    for path, message in asked:
        yield call(path, message, user=user)
