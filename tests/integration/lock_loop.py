"""Critical sections by four kinds of clients while members are stopped and killed.

``python -m tests.integration.lock_loop --sections 1000 --program etcdtw``

Clients lock one name through the gRPC service, through JSON, with `etcdctl lock`, and by the
recipe of client libraries over plain keys.  Each notes when it was inside, by the clock of this
machine; a section counts if the session was alive behind it.  No two that count may overlap.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import random
import subprocess
import sys
import threading
import time
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Any, Final

from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire import v3lockpb
from tests.support.cluster_processes import Cluster, ClusterMember
from tests.support.etcd_client import EtcdClient, RpcFailedError
from tests.support.etcdctl import ctl_environment

NAME: Final = b"section"
TTL_S: Final = 8
CALL_TIMEOUT_S: Final = 15.0
INSIDE_S: Final = 0.005
POLL_S: Final = 0.02
FAULT_EVERY_S: Final = (0.5, 2.0)
FAULTS_MIN: Final = 2
DOWN_S: Final = (0.3, 1.5)
WITHIN_S: Final = 600.0

Failed = (RpcFailedError, OSError, http.client.HTTPException, ValueError, KeyError)


@dataclass(frozen=True, slots=True, order=True)
class Section:
    """When somebody was inside, by the clock of this machine."""

    began_ns: int
    ended_ns: int
    kind: str


@dataclass(slots=True)
class Loop:
    """What runs, and what it has seen."""

    cluster: Cluster
    wanted: int
    seed: int
    sections: list[Section] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    is_over: bool = False

    def run(self) -> None:
        """Go on until there are enough sections, and faults."""
        threads = [
            threading.Thread(target=self._work, args=(kind, number))
            for number, kind in enumerate(KINDS)
        ]
        threads.append(threading.Thread(target=self._break))
        for thread in threads:
            thread.start()
        until_s = time.monotonic() + WITHIN_S
        while not self._is_enough() and time.monotonic() < until_s:
            time.sleep(POLL_S)
        self.is_over = True
        for thread in threads:
            thread.join()

    def _is_enough(self) -> bool:
        return len(self.sections) >= self.wanted and self.faults.total() >= FAULTS_MIN

    def overlaps(self) -> list[tuple[Section, Section]]:
        """Return sections that were not over when the next one began."""
        ordered = sorted(self.sections)
        pairs = itertools.pairwise(ordered)
        return [(one, other) for one, other in pairs if other.began_ns < one.ended_ns]

    def _work(self, kind: str, number: int) -> None:
        source = random.Random(self.seed * 10 + number)
        while not self.is_over:
            serving = self.cluster.serving
            member = source.choice(serving or self.cluster.all)
            try:
                section = KINDS[kind](self, member)
            except Failed as error:
                self.outcomes[f"{kind}: {type(error).__name__}"] += 1
                time.sleep(POLL_S)
                continue
            if section is not None:
                self.sections.append(section)
                self.outcomes[kind] += 1

    def _break(self) -> None:
        source = random.Random(self.seed)
        while not self.is_over:
            time.sleep(source.uniform(*FAULT_EVERY_S))
            member = source.choice(self.cluster.all)
            if source.random() < 0.5:
                self.faults["stopped"] += 1
                member.pause()
                time.sleep(source.uniform(*DOWN_S))
                member.resume()
            else:
                self.faults["killed"] += 1
                member.kill()
                time.sleep(source.uniform(*DOWN_S))
                member.start()


# The four kinds.  Each returns its section if the session outlived it.


def inside(kind: str, client: EtcdClient, lease: int) -> Section | None:
    """Be inside, and look whether the session is alive then."""
    began_ns = time.time_ns()
    time.sleep(INSIDE_S)
    ended_ns = time.time_ns()
    told = client.invoke("lease_time_to_live", ID=lease)
    return Section(began_ns, ended_ns, kind) if told.TTL > 0 else None


def with_session(
    loop: Loop, member: ClusterMember, work: Callable[[EtcdClient, int], Section | None]
) -> Section | None:
    """Run ``work`` with a session of its own: who fails leaves no key for longer than that."""
    with EtcdClient(member.endpoint) as client:
        lease = int(client.invoke("lease_grant", TTL=TTL_S).ID)
        try:
            return work(client, lease)
        finally:
            with suppress(*Failed):
                client.invoke("lease_revoke", ID=lease)


def by_service(loop: Loop, member: ClusterMember) -> Section | None:
    def work(client: EtcdClient, lease: int) -> Section | None:
        request = v3lockpb.LockRequest(name=NAME, lease=lease).SerializeToString()
        octets = client.raw_unary("/v3lockpb.Lock/Lock", request, CALL_TIMEOUT_S)
        key = v3lockpb.LockResponse.FromString(octets).key
        section = inside("service", client, lease)
        unlock = v3lockpb.UnlockRequest(key=key).SerializeToString()
        with suppress(*Failed):  # the session's end does it, too
            client.raw_unary("/v3lockpb.Lock/Unlock", unlock, CALL_TIMEOUT_S)
        return section

    return with_session(loop, member, work)


def by_json(loop: Loop, member: ClusterMember) -> Section | None:
    def ask(path: str, message: dict[str, Any]) -> Any:
        connection = http.client.HTTPConnection(member.endpoint, timeout=CALL_TIMEOUT_S)
        with closing(connection):
            connection.request("POST", f"/v3/lock/{path}", json.dumps(message))
            answer = connection.getresponse()
            told = json.loads(answer.read())
        if answer.status != 200:
            raise ValueError(told)
        return told

    def work(client: EtcdClient, lease: int) -> Section | None:
        key = ask("lock", {"name": b64encode(NAME).decode(), "lease": str(lease)})["key"]
        assert b64decode(key).startswith(NAME + b"/")
        section = inside("json", client, lease)
        with suppress(*Failed):
            ask("unlock", {"key": key})
        return section

    return with_session(loop, member, work)


def by_etcdctl(loop: Loop, member: ClusterMember) -> Section | None:
    clock = "date +%s%N"
    script = f"{clock}; sleep {INSIDE_S}; {clock}"
    command = loop.cluster.ctl_command(
        "lock", f"--ttl={TTL_S}", NAME.decode(), "--", "sh", "-c", script, members=[member]
    )
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=CALL_TIMEOUT_S,
            env=ctl_environment(),
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise OSError("etcdctl takes too long") from None
    if done.returncode != 0:
        raise OSError(done.stderr[-200:])
    began, ended = done.stdout.split()
    return Section(int(began), int(ended), "etcdctl")


def by_recipe(loop: Loop, member: ClusterMember) -> Section | None:
    prefix = NAME + b"/"

    def work(client: EtcdClient, lease: int) -> Section | None:
        key = b"%b%x" % (prefix, lease)
        put = pb.PutRequest(key=key, lease=lease)
        absent = pb.Compare(key=key, target=pb.Compare.CREATE, create_revision=0)
        txn = pb.TxnRequest(compare=[absent], success=[pb.RequestOp(request_put=put)])
        own = client.call("txn", txn).header.revision
        until_s = time.monotonic() + CALL_TIMEOUT_S
        while True:
            older = client.range(
                prefix, prefix[:-1] + b"0", max_create_revision=own - 1, count_only=False
            )
            if not older.kvs:
                break
            if time.monotonic() > until_s:
                raise OSError("it takes too long")
            time.sleep(POLL_S)
        if not client.range(key).kvs:
            raise OSError("the session is over")
        section = inside("recipe", client, lease)
        with suppress(*Failed):
            client.invoke("delete_range", key=key)
        return section

    return with_session(loop, member, work)


KINDS: Final[dict[str, Callable[[Loop, ClusterMember], Section | None]]] = {
    "service": by_service,
    "json": by_json,
    "etcdctl": by_etcdctl,
    "recipe": by_recipe,
}


def run_loop(programs: list[str], sections: int, seed: int) -> Loop:
    """Run until there are so many sections, on a cluster of its own."""
    with Cluster(programs) as cluster:
        loop = Loop(cluster, sections, seed)
        loop.run()
    return loop


def main() -> int:
    """Run the loop by command; status 1 if any two sections overlap, or there are too few."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sections", type=int, default=1_000)
    parser.add_argument("--program", default="etcdtw")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    loop = run_loop([given.program] * 3, given.sections, given.seed)
    found = loop.overlaps()
    print(f"{len(loop.sections)} sections, {len(found)} overlaps")
    print(f"by: {dict(loop.outcomes)}")
    print(f"faults: {dict(loop.faults)}")
    for one, other in found:
        print(one, other)
    return int(bool(found) or len(loop.sections) < given.sections)


if __name__ == "__main__":
    sys.exit(main())
