"""Users and roles in a cluster of several programs: the same verdicts on every member.

    python -m tests.differential.users_cluster --programs etcd36,etcd,etcdtw --operations 3000

Random operations (`tests.differential.users`), each through any member, while each member leads in
turn.  In the end every member's keys (HashKV) and buckets of users and roles are compared.  Members
of one line must agree, 3.7.3 with ours; what 3.6 holds else is told.  Its tree of permissions is
another one, which shows in ranges that end before they begin: ``--no-odd-ranges`` does without.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import defaultdict
from typing import Any, Final

import grpc

from etcdtw.wire import etcdserverpb as pb
from tests.differential.users import AUTH, FLAGS, USERS, Member, Operation, Script
from tests.support.bbolt_rig import read_file
from tests.support.cluster_processes import Cluster, wait_for
from tests.support.processes import OLDER_LINES
from tests.support.user_setup import snapshot_octets

SETTLED_S: Final = 20.0
BUCKETS: Final = (b"auth", b"authUsers", b"authRoles")
DIGEST_SIZE: Final = 32
"""Behind the file in a snapshot."""
Kept = tuple[int, int, str]
"""HashKV, the revision it is of, and the buckets of one member."""


def snapshot_buckets(endpoint: str, token: str) -> list[Any]:
    """Return the buckets of users and roles in a snapshot."""
    octets = snapshot_octets(endpoint, token)[:-DIGEST_SIZE]
    content = read_file(octets)
    return [content.get(name, []) for name in BUCKETS]


class MixedRun:
    """Random operations on the members of one cluster, each through any of them."""

    def __init__(self, cluster: Cluster, seed: int, *, odd_ranges: bool = True) -> None:
        self._cluster = cluster
        self._script = Script(seed, odd_ranges=odd_ranges)
        self._random = random.Random(seed)
        self.members = {m.name: Member(m.endpoint) for m in cluster.all}

    def apply(self, operation: Operation) -> None:
        """Call one of the members; a token that it gives is shown to all of them."""
        name = self._random.choice(list(self.members))
        code, _, response = self.members[name].call(operation)
        if code:
            return
        script, request = self._script, operation.request
        if operation.path == AUTH + "Authenticate":
            script.tokenless.discard(request.name)
            for member in self.members.values():
                member.tokens[request.name] = response.token
        elif operation.path in (AUTH + "UserAdd", AUTH + "UserChangePassword"):
            script.passwords[request.name] = request.password
            script.tokenless.add(request.name)
        elif operation.path == AUTH + "AuthDisable":
            script.tokenless.update(USERS)

    def run(self, operations: int) -> None:
        """Let each member lead for a while."""
        for operation in self._script.setup():
            self.apply(operation)
        for leader in self._cluster.all:
            self.repair()
            move_leader(self._cluster, leader, self.members[leader.name].tokens["root"])
            for _ in range(operations):
                self.apply(self._script.next())
        self.repair()

    def repair(self) -> None:
        """Let root be asked, and have a token that all members know.

        A real member that is one entry behind refuses a new token.
        """
        for operation in self._script.repair():
            self.apply(operation)
        status = Operation(
            "/etcdserverpb.Maintenance/Status", pb.StatusRequest(), pb.StatusResponse, "root"
        )
        wait_for(
            lambda: all(member.call(status)[0] == 0 for member in self.members.values()),
            SETTLED_S,
            "all members know root's token",
        )

    def hash_of(self, name: str) -> tuple[int, int]:
        """Return the hash of a member's keys, and the revision that it is of."""
        operation = Operation(
            "/etcdserverpb.Maintenance/HashKV", pb.HashKVRequest(), pb.HashKVResponse, "root"
        )
        code, text, answer = self.members[name].call(operation)
        assert code == 0, f"{name}: {text}"
        return answer.hash, answer.hash_revision

    def hashes(self) -> set[tuple[int, int]]:
        """Return the hashes of all members' keys."""
        return {self.hash_of(name) for name in self.members}

    def buckets(self) -> list[list[Any]]:
        """Return each member's buckets of users and roles, in the order of the members."""
        return [
            snapshot_buckets(m.endpoint, self.members[m.name].tokens["root"])
            for m in self._cluster.all
        ]

    def close(self) -> None:
        for member in self.members.values():
            member.close()


def move_leader(cluster: Cluster, target: Any, token: str) -> None:
    """Let ``target`` lead, as far as it is asked nicely."""
    statuses = {}
    for member in cluster.all:
        with grpc.insecure_channel(member.endpoint) as channel:
            metadata = [("token", token)]
            statuses[member.name] = channel.unary_unary(
                "/etcdserverpb.Maintenance/Status",
                request_serializer=pb.StatusRequest.SerializeToString,
                response_deserializer=pb.StatusResponse.FromString,
            )(pb.StatusRequest(), metadata=metadata, timeout=10)
    wanted = statuses[target.name].header.member_id
    for member in cluster.all:
        status = statuses[member.name]
        if status.leader == status.header.member_id != wanted:
            with grpc.insecure_channel(member.endpoint) as channel:
                channel.unary_unary(
                    "/etcdserverpb.Maintenance/MoveLeader",
                    request_serializer=pb.MoveLeaderRequest.SerializeToString,
                    response_deserializer=pb.MoveLeaderResponse.FromString,
                )(
                    pb.MoveLeaderRequest(targetID=wanted),
                    metadata=[("token", token)],
                    timeout=20,
                )


def by_line(cluster: Cluster, run: MixedRun) -> dict[str, set[Kept]]:
    """Return what members hold in the end, by their line: 3.7, ours included, or an older one."""
    found: dict[str, set[Kept]] = defaultdict(set)
    for member, buckets in zip(cluster.all, run.buckets(), strict=True):
        line = OLDER_LINES.get(member.program, "3.7")
        found[line].add((*run.hash_of(member.name), repr(buckets)))
    return found


def is_settled(cluster: Cluster, run: MixedRun) -> bool:
    """Whether members of one line hold the same keys."""
    found: dict[str, set[tuple[int, int]]] = defaultdict(set)
    for member in cluster.all:
        found[OLDER_LINES.get(member.program, "3.7")].add(run.hash_of(member.name))
    return all(len(hashes) == 1 for hashes in found.values())


def main() -> int:
    """Run as a command; 1 if members of one line differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", default="etcd36,etcd,etcdtw")
    parser.add_argument("--operations", type=int, default=3_000, help="under each leader")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-odd-ranges", action="store_true")
    options = parser.parse_args()
    with Cluster(options.programs.split(","), flags=FLAGS) as cluster:
        run = MixedRun(cluster, options.seed, odd_ranges=not options.no_odd_ranges)
        run.run(options.operations)
        wait_for(lambda: is_settled(cluster, run), SETTLED_S, "members of one line agree")
        found = by_line(cluster, run)
        run.close()
    for line, kept in sorted(found.items()):
        for value, revision, buckets in kept:
            print(f"{line}: HashKV {value} at {revision}, {len(buckets)} octets of buckets")
    lines = [next(iter(kept)) for kept in found.values()]
    keys, users = {kept[:2] for kept in lines}, {kept[2] for kept in lines}
    total = options.operations * len(cluster.all)
    print(
        f"{total} operations; keys are {'equal' if len(keys) == 1 else 'others'} and buckets "
        f"{'equal' if len(users) == 1 else 'others'} in the lines {', '.join(sorted(found))}"
    )
    return 0 if all(len(kept) == 1 for kept in found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
