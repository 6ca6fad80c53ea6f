"""Orders of permissions as real etcd 3.7.3 keeps them, and how they were recorded.

    python -m tests.auth.permission_orders

prints `RECORDED` anew: for each seed the grants of `grants` are made on one role, and what
``RoleGet`` tells behind each of them goes into one digest.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from hashlib import sha256
from typing import Final

from etcdtw.auth.values import Permission, permission_messages
from etcdtw.wire import etcdserverpb as pb

SEEDS: Final = range(24)
RECORDED: Final = {
    0: "939ab363893823f9",
    1: "35a9c39e72ef0fb3",
    2: "f29d512a90804c8c",
    3: "4f68a70dbd794ad8",
    4: "00cfbb00ae4edef3",
    5: "994d6915c1153851",
    6: "2109db2e2fa8d479",
    7: "d0a9612fd22d9881",
    8: "fe6f6a708dc2ef01",
    9: "11e8223cd1b72b44",
    10: "d3fd28a2674253b2",
    11: "4fa4fab75816c5f2",
    12: "64cb959aca198697",
    13: "76662d48d4530179",
    14: "d6f7d658caeb107b",
    15: "e6575669b2f3fefd",
    16: "282422f35f06bde2",
    17: "837523a80d0178f0",
    18: "287e1e11926e89e3",
    19: "30c0553a35b0c2b8",
    20: "8e7f0b0377b04e01",
    21: "7de8299fee9cdb53",
    22: "0f866959867d4fa7",
    23: "10f436b4c12c0917",
}


def grants(seed: int) -> list[Permission]:
    """Return grants on few keys, so that many of them have one in common."""
    chance = random.Random(seed)
    keys = [bytes([97 + i]) for i in range(chance.choice([1, 2, 3, 5, 9]))]
    return [
        Permission(
            chance.randrange(3),
            chance.choice(keys),
            chance.choice([b"", b"\0", b"z%d" % chance.randrange(60)]),
        )
        for _ in range(chance.choice([14, 20, 33, 52, 90]))
    ]


def digest(states: Iterable[tuple[Permission, ...]]) -> str:
    """Return a digest of all orders that there were."""
    found = sha256()
    for permissions in states:
        response = pb.AuthRoleGetResponse(perm=permission_messages(permissions))
        found.update(response.SerializeToString())
    return found.hexdigest()[:16]


def main() -> None:
    """Record."""
    from etcdtw.wire import authpb
    from tests.differential.users import AUTH, FLAGS, Member, Operation
    from tests.support.processes import RunningMember

    with RunningMember("etcd", flags=FLAGS) as running:
        member = Member(running.endpoint)
        for seed in SEEDS:
            name = f"role{seed}"
            add = pb.AuthRoleAddRequest(name=name)
            member.call(Operation(AUTH + "RoleAdd", add, pb.AuthRoleAddResponse, None))
            states = []
            for kind, key, range_end in grants(seed):
                perm = authpb.Permission(permType=kind, key=key, range_end=range_end)
                grant = pb.AuthRoleGrantPermissionRequest(name=name, perm=perm)
                path = AUTH + "RoleGrantPermission"
                member.call(Operation(path, grant, pb.AuthRoleGrantPermissionResponse, None))
                get = pb.AuthRoleGetRequest(role=name)
                found = member.call(Operation(AUTH + "RoleGet", get, pb.AuthRoleGetResponse, None))
                states.append(
                    tuple(Permission(p.permType, p.key, p.range_end) for p in found[2].perm)
                )
            print(f'    {seed}: "{digest(states)}",')
        member.close()


if __name__ == "__main__":
    main()
