"""What users cost, beside real etcd: ``python -m benchmarks.users``  (= ``make bench-users``)

Each round starts fresh members of real etcd, etcdtw and real etcd once more, in turn without users,
with users who show tokens, and with users who show certificates; one is awake at a time, as in
`benchmarks.side_by_side`, whose table this is.  Authentications are compared at the same bcrypt
cost.  Below the table: what users cost etcdtw itself, as rates and as CPU time a call.
"""

from __future__ import annotations

import argparse
import ssl
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks import surroundings, workloads
from benchmarks.load import Identity, LoadResult, LoadRun, Work
from benchmarks.side_by_side import AGAIN, ETCD, ETCDTW, SETTLE_S, Line, notes, table
from etcdtw.wire import etcdserverpb as pb
from tests.support import wire_frames as wire
from tests.support.certs import Authority
from tests.support.processes import RunningMember, TlsFiles, cpu_seconds
from tests.support.user_setup import AUTH, USER, switch_users_on, token_of
from tests.support.wire_client import WireClient

SIDES: Final = (ETCD, ETCDTW, AGAIN)
BCRYPT_COST: Final = 10  # the default of both
FLAGS: Final = (
    *("--quota-backend-bytes", "8589934592"),
    *("--bcrypt-cost", str(BCRYPT_COST)),
    *("--auth-token-ttl", "3600"),
)
NOBODY, TOKEN, NAME = "", "token", "name"
"""Who asks: anybody, a user by token, a user by the name in a certificate."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    name: str
    asked_by: str
    build: Callable[[], Work]
    connections: int = 100
    streams: int = 10


@cache
def authentications() -> Work:
    """Right passwords for tokens."""
    request = pb.AuthenticateRequest(name=USER, password=USER)
    return Work(f"{AUTH}Authenticate", [wire.grpc_message(request.SerializeToString())])


ROWS: Final = (
    Row("put", NOBODY, workloads.put),
    Row("range linearizable", NOBODY, workloads.linearizable_range),
    Row("range serializable", NOBODY, workloads.serializable_range),
    Row("put by token", TOKEN, workloads.put),
    Row("range linearizable by token", TOKEN, workloads.linearizable_range),
    Row("range serializable by token", TOKEN, workloads.serializable_range),
    Row(f"authenticate, cost {BCRYPT_COST} 8x1", TOKEN, authentications, 8, 1),
    Row("put by name over TLS", NAME, workloads.put),
)
COSTS: Final = (
    ("put by token", "put"),
    ("range linearizable by token", "range linearizable"),
    ("range serializable by token", "range serializable"),
)


class Certificates:
    """What members and clients of one run show each other."""

    def __init__(self, folder: Path) -> None:
        authority = Authority(folder)
        member = authority.issue("member", host="localhost")
        user = authority.issue(USER)
        self.ca_file = str(authority.ca_file)
        self.identity: Identity = (user.cert_file, user.key_file)
        self.tls = TlsFiles(
            Path(member.cert_file), Path(member.key_file), Path(self.ca_file), client_cert_auth=True
        )

    def client(self, endpoint: str) -> WireClient:
        """Connect as the user; before users are asked for, that is anybody."""
        context = ssl.create_default_context(cafile=self.ca_file)
        context.check_hostname = False
        context.load_cert_chain(*self.identity)
        context.set_alpn_protocols(["h2"])
        return WireClient(endpoint, 60.0, context)


class Stage:
    """The members of one round that are asked in one way, one awake at a time."""

    def __init__(self, sides: list[str], asked_by: str, certificates: Certificates) -> None:
        self._certificates = certificates if asked_by == NAME else None
        self._asked_by = asked_by
        tls = certificates.tls if asked_by == NAME else None
        self._members = {
            side: RunningMember(side.split()[0], flags=FLAGS, tls=tls) for side in sides
        }
        self._tokens: dict[str, str] = {}

    @contextmanager
    def running(self) -> Iterator[None]:
        """Start all of them, with the keys and the users that they need."""
        with ExitStack() as stack:
            for side, member in self._members.items():
                stack.enter_context(member)
                self._prepare(side, member)
                time.sleep(SETTLE_S)
                member.pause()
            yield

    def _prepare(self, side: str, member: RunningMember) -> None:
        if self._certificates is not None:
            client = self._certificates.client(member.endpoint)
            switch_users_on(client)
            client.close()
            return
        load = LoadRun(workloads.preload())
        stored = load.exhaust(member.endpoint, connections=10, streams=4)
        assert not stored.errors, stored.error_texts
        if self._asked_by == TOKEN:
            client = WireClient(member.endpoint, 60.0)
            switch_users_on(client)
            self._tokens[side] = token_of(client)
            client.close()

    def measure(self, row: Row, line: Line, seconds: float) -> None:
        """Measure one row on each member in turn."""
        for side, member in self._members.items():
            member.resume()
            before_s = cpu_seconds(member.pids)
            result = self._run(row, side, member, seconds)
            line.add(side, result, cpu_seconds(member.pids) - before_s)
            time.sleep(SETTLE_S)
            member.pause()

    def _run(self, row: Row, side: str, member: RunningMember, seconds: float) -> LoadResult:
        certificates = self._certificates
        return LoadRun(replace(row.build(), token=self._tokens.get(side, ""))).closed_loop(
            member.endpoint,
            connections=row.connections,
            streams=row.streams,
            seconds=seconds,
            ca_file=certificates.ca_file if certificates else None,
            identity=certificates.identity if certificates else None,
        )


def measure(chosen: list[Row], rounds: int, seconds: float) -> dict[str, Line]:
    """Run all rounds; prints one line for each."""
    lines = {row.name: Line(row.name) for row in chosen}
    with tempfile.TemporaryDirectory(prefix="users-") as folder:
        certificates = Certificates(Path(folder))
        for i in range(rounds):
            sides = [*SIDES[i % len(SIDES) :], *SIDES[: i % len(SIDES)]]
            for asked_by in (NOBODY, TOKEN, NAME):
                rows = [row for row in chosen if row.asked_by == asked_by]
                if not rows:
                    continue
                stage = Stage(sides, asked_by, certificates)
                with stage.running():
                    for row in rows:
                        stage.measure(row, lines[row.name], seconds)
            print(f"round {i + 1} of {rounds} done", file=sys.stderr, flush=True)
    return lines


def costs(lines: dict[str, Line]) -> list[str]:
    """Return what users cost, against the same calls without them."""
    said = []
    for with_users, without in COSTS:
        if with_users not in lines or without not in lines:
            continue
        for side in (ETCDTW, ETCD):
            rates = [median(lines[name].rates[side]) for name in (with_users, without)]
            cpus_us = [median(_cpu_us(lines[name], side)) for name in (with_users, without)]
            said.append(
                f"{side:7} {with_users}: rate {rates[0] / rates[1]:.2f}, CPU {cpus_us[0]:.1f} us "
                f"instead of {cpus_us[1]:.1f} ({cpus_us[0] / cpus_us[1]:.2f})"
            )
    return said


def _cpu_us(line: Line, side: str) -> list[float]:
    pairs = zip(line.server_cpu[side], line.rates[side], strict=True)
    return [cores / rate * 1e6 for cores, rate in pairs if rate]


def main() -> int:
    """Measure what the command line asks for, print the report and keep it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.users", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--only", default="", help="parts of names, separated by commas")
    parser.add_argument("--no-keep", action="store_true", help="do not keep the table as a file")
    options = parser.parse_args()
    parts = [part for part in options.only.split(",") if part]
    chosen = [row for row in ROWS if not parts or any(part in row.name for part in parts)]
    text = [*surroundings.describe(), "", *notes(options.rounds, options.seconds)]
    lines = measure(chosen, options.rounds, options.seconds)
    text += [*table(lines), "", *costs(lines)]
    print("\n".join(text))
    if not options.no_keep:
        print(f"kept as {surroundings.keep('users', text)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
