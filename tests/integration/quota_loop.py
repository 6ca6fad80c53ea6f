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
from typing import Any, Final

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
PATIENCE_S: Final = 120.0
"""For a call, and until puts pass again."""
FILL_S: Final = 3_600.0
POLL_S: Final = 0.1
NO_SPACE: Final = "etcdserver: mvcc: database space exceeded"
BUSY: Final = "etcdserver: too many requests"
UNAVAILABLE: Final = 14
OUT_OF_RANGE: Final = 11


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
    patience_s: float = PATIENCE_S
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
                    self._insist(client, "put", request)
                except RpcFailedError as error:
                    if error.text != NO_SPACE:
                        raise
                    return puts, octets, new
                puts += 1
                octets += size
        raise TimeoutError(f"writer {writer} was not refused within {FILL_S:.0f} s")

    def _delete(self, number: int, writer: int, new: int) -> None:
        with EtcdClient(self._member(writer).endpoint) as client:
            for first in range(0, new, DELETED_KEYS):
                end = new_key(number, writer, first + DELETED_KEYS)
                request = pb.DeleteRangeRequest(key=new_key(number, writer, first), range_end=end)
                self._insist(client, "delete_range", request)

    def _compact(self) -> None:
        with EtcdClient(self._member(0).endpoint) as client:
            revision = self._insist(client, "range", pb.RangeRequest(key=b"none")).header.revision
            try:
                self._insist(client, "compact", pb.CompactionRequest(revision=revision))
            except RpcFailedError as error:
                if error.code != OUT_OF_RANGE:  # the first of two calls did it
                    raise

    def _insist(self, client: EtcdClient, name: str, request: Any) -> Any:
        """Call again what was not done for want of time: this machine may have stood still."""
        until_s = time.monotonic() + self.patience_s
        while True:
            try:
                return client.call(name, request, timeout_s=self.patience_s)
            except RpcFailedError as error:
                is_late = error.code == UNAVAILABLE or error.text == BUSY
                if not is_late or time.monotonic() > until_s:
                    raise
                time.sleep(POLL_S)

    def _put_again(self) -> None:
        """Wait until every member takes a put again."""
        until_s = time.monotonic() + self.patience_s
        for member in self.cluster.all:
            with EtcdClient(member.endpoint) as client:
                while True:
                    try:
                        self._insist(client, "put", pb.PutRequest(key=b"again", value=b"v"))
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
    parser.add_argument("--patience-s", type=float, default=PATIENCE_S)
    given = parser.parse_args(arguments)
    quota = given.quota_mib * MIB
    with Cluster(["etcdtw"] * given.members, flags=quota_flags(quota)) as cluster:
        loop = QuotaLoop(cluster, quota, given.seed, given.patience_s)
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
