"""A quota that clients fill and empty again and again, while nobody disarms or defragments.

``python -m tests.integration.quota_loop --quota-mib 4096 --rounds 10``

In each round clients put values of very different sizes, half of them over keys of their own from
before, until all of them are refused; the cluster then has to take whatever makes room: they delete
and compact, and puts must pass again, by nothing but time.  What is watched is the file of the
state, which must not outgrow the quota by much.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from etcdtw.wire import etcdserverpb as pb
from tests.support.cluster_processes import Cluster, ClusterMember
from tests.support.etcd_client import EtcdClient, RpcFailedError

MIB: Final = 1 << 20
RATIO_MAX: Final = 1.3
"""Of the file to the quota."""
WRITERS: Final = 4
KEYS: Final = 64
"""Over which each writer puts again and again, beside new ones."""
SIZES: Final = ((200, 6), (4_000, 6), (30_000, 5), (250_000, 2), (1_000_000, 1))
"""Octets of values, and how often each is taken."""
VALUE: Final = random.Random(1).randbytes(max(size for size, _ in SIZES))
DELETED_KEYS: Final = 500
"""A writer deletes its new keys in ranges of so many."""
FILL_S: Final = 1_800.0
EMPTY_S: Final = 120.0
POLL_S: Final = 0.1
NO_SPACE: Final = "etcdserver: mvcc: database space exceeded"
BUSY: Final = "etcdserver: too many requests"
CALL_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Round:
    """What came of one round."""

    puts: int
    octets: int
    full_s: float
    """Until everybody was refused."""
    emptied_s: float
    """From there until puts passed again."""
    file_octets: int
    """Of the largest file of all members, at the end."""
    in_use: int


@dataclass(slots=True)
class QuotaLoop:
    """A cluster, and the rounds it has seen."""

    cluster: Cluster
    quota: int
    seed: int
    rounds: list[Round] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """How the largest file that was seen compares to the quota."""
        return max(one.file_octets for one in self.rounds) / self.quota

    def run(self) -> Round:
        """Fill and empty the quota once.  Raises `RpcFailedError` when room cannot be made."""
        number = len(self.rounds)
        began_s = time.monotonic()
        with ThreadPoolExecutor(WRITERS) as pool:
            filled = list(pool.map(lambda w: self._fill(number, w), range(WRITERS)))
            full_s = time.monotonic() - began_s
            list(pool.map(lambda w: self._delete(number, w, filled[w][2]), range(WRITERS)))
        self._compact()
        self._put_again()
        emptied_s = time.monotonic() - began_s - full_s
        sizes = [self._sizes(member) for member in self.cluster.all]
        found = Round(
            puts=sum(puts for puts, _, _ in filled),
            octets=sum(octets for _, octets, _ in filled),
            full_s=full_s,
            emptied_s=emptied_s,
            file_octets=max(whole for whole, _ in sizes),
            in_use=max(used for _, used in sizes),
        )
        self.rounds.append(found)
        return found

    def _member(self, writer: int) -> ClusterMember:
        members = self.cluster.all
        return members[writer % len(members)]

    def _fill(self, number: int, writer: int) -> tuple[int, int, int]:
        """Put until there is no room; return how many puts and octets passed, and new keys."""
        source = random.Random(f"{self.seed} {number} {writer}")
        sizes = [size for size, _ in SIZES]
        weights = [weight for _, weight in SIZES]
        puts = octets = new = 0
        until_s = time.monotonic() + FILL_S
        with EtcdClient(self._member(writer).endpoint) as client:
            while time.monotonic() < until_s:
                size = source.choices(sizes, weights)[0]
                if source.random() < 0.5:
                    key = b"old/%d/%d" % (writer, source.randrange(KEYS))
                else:
                    key = new_key(number, writer, new)
                    new += 1
                request = pb.PutRequest(key=key, value=VALUE[:size])
                try:
                    client.call("put", request, timeout_s=CALL_S)
                except RpcFailedError as error:
                    if error.text == NO_SPACE:
                        return puts, octets, new
                    if error.text != BUSY:
                        raise
                    time.sleep(POLL_S)
                    continue
                puts += 1
                octets += size
        raise TimeoutError(f"writer {writer} was not refused within {FILL_S:.0f} s")

    def _delete(self, number: int, writer: int, new: int) -> None:
        with EtcdClient(self._member(writer).endpoint) as client:
            for first in range(0, new, DELETED_KEYS):
                client.call(
                    "delete_range",
                    pb.DeleteRangeRequest(
                        key=new_key(number, writer, first),
                        range_end=new_key(number, writer, first + DELETED_KEYS),
                    ),
                    timeout_s=CALL_S,
                )

    def _compact(self) -> None:
        with EtcdClient(self._member(0).endpoint) as client:
            revision = client.range(b"none").header.revision
            client.call("compact", pb.CompactionRequest(revision=revision), timeout_s=CALL_S)

    def _put_again(self) -> None:
        """Wait until every member takes a put again."""
        until_s = time.monotonic() + EMPTY_S
        for member in self.cluster.all:
            with EtcdClient(member.endpoint) as client:
                while True:
                    try:
                        client.put(b"again", b"v")
                        break
                    except RpcFailedError as error:
                        if error.text != NO_SPACE or time.monotonic() > until_s:
                            raise
                        time.sleep(POLL_S)

    def _sizes(self, member: ClusterMember) -> tuple[int, int]:
        """Return octets of a member's file, and of what is in use of it."""
        with EtcdClient(member.endpoint) as client:
            status = client.invoke("status")
        return status.dbSize, status.dbSizeInUse


def new_key(number: int, writer: int, position: int) -> bytes:
    return b"new/%06d/%d/%010d" % (number, writer, position)


def quota_flags(quota: int) -> list[str]:
    return [f"--quota-backend-bytes={quota}", "--snapshot-count=10000"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the loop by command; status 1 if a file outgrew the quota."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quota-mib", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--members", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args(arguments)
    quota = given.quota_mib * MIB
    with Cluster(["etcdtw"] * given.members, flags=quota_flags(quota)) as cluster:
        loop = QuotaLoop(cluster, quota, given.seed)
        for number in range(given.rounds):
            one = loop.run()
            print(
                f"round {number + 1}: {one.puts} puts of {one.octets / MIB:.0f} MiB, full after "
                f"{one.full_s:.1f} s, puts again {one.emptied_s:.1f} s later; file "
                f"{one.file_octets / MIB:.1f} MiB ({one.file_octets / quota:.3f} of the quota), "
                f"in use {one.in_use / MIB:.1f}",
                flush=True,
            )
    print(f"largest file: {loop.ratio:.3f} of the quota, allowed {RATIO_MAX}")
    return int(loop.ratio >= RATIO_MAX)


if __name__ == "__main__":
    sys.exit(main())
