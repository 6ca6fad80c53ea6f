"""What can one client do to the others?  ``python -m benchmarks.attacks``  (= ``make attacks``)

Each row starts one member, or three, of etcdtw and of real etcd in turn.  A few well-behaved
clients put at a low, steady rate; they are timed while nothing else happens and while one attacker
(`benchmarks.attackers`, in a process of its own, held to half a core) does its worst.  Latencies
count from when a put was due, so that a stall shows in every put that it held up.

A row of etcdtw passes when the others' p99 is at most twice the quiet one plus one budget (10 ms)
and no worse than real etcd's under the same attack, and no leader was lost.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import ssl
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks import attackers, gateway_attackers, surroundings, user_attackers, workloads
from benchmarks.attackers import Pace, Target
from benchmarks.load import percentile
from etcdtw.wire import etcdserverpb as pb
from tests.support.certs import Authority
from tests.support.cluster_processes import Cluster
from tests.support.piece_times import longest_piece
from tests.support.processes import PROGRAMS, RunningMember, TlsFiles, memory_kib
from tests.support.user_setup import signed_token_flag, switch_users_on, token_of
from tests.support.wire_client import ConnectionFailedError, WireClient

CLIENTS: Final = 4
PUTS_PER_SECOND: Final = 25.0  # of each client
PUT_TIMEOUT_S: Final = 60.0
BUDGET_MS: Final = 10.0
PIECE_MAX_MS: Final = 25.0
ARM_TIMEOUT_S: Final = 300.0
LEAD_S: Final = 0.5  # between two phases
PAUSE_S: Final = 6.0
DESCRIPTORS: Final = 1024
TXNS_IN_FLIGHT: Final = 16
FLAGS: Final = ("--quota-backend-bytes", "8589934592")
SIMPLE: Final = "simple"
SIGNED: Final = "signed"
SIGN_METHOD: Final = "RS256"


@dataclass(frozen=True, slots=True)
class Row:
    """One attack, and what it needs."""

    name: str
    attack: Callable[[Target, Pace], None]
    members: int = 1
    keys: int = 0  # below `attackers.HEAVY`
    has_tls: bool = False
    descriptors: int = 0  # the member's limit of open files; 0: the machine's
    pauses_followers: bool = False
    users: str = ""  # switched on, with tokens of this kind: `SIMPLE` or `SIGNED`


ROWS: Final = (
    Row("sorted ranges in a txn", attackers.sorted_ranges, keys=attackers.KEYS),
    Row("sorted ranges in a txn", attackers.sorted_ranges, members=3, keys=attackers.KEYS),
    Row("range compares", attackers.range_compares, members=3, keys=attackers.KEYS),
    Row("ranges and a put", attackers.ranges_and_a_put, members=3, keys=attackers.KEYS),
    Row("400 read-only txns", attackers.many_txns, keys=attackers.KEYS),
    Row("lease list", attackers.lease_list),
    Row("progress requests", attackers.progress_requests),
    Row("progress requests", attackers.progress_requests, members=3),
    Row("watched deletes", attackers.watched_deletes),
    Row("/metrics over HTTP/2", attackers.pages_over_http2),
    Row("/metrics pipelined", attackers.pipelined_pages),
    Row("unread answers, TLS", attackers.unread_answers, keys=attackers.KEYS, has_tls=True),
    Row("metadata", attackers.metadata),
    Row("unfinished bodies", attackers.unfinished_bodies),
    Row("empty DATA", attackers.empty_data),
    Row("PING", attackers.pings),
    Row("peer places", attackers.peer_places, members=3, pauses_followers=True),
    Row("idle connections", attackers.idle_connections, descriptors=DESCRIPTORS),
    Row("deep JSON", gateway_attackers.deep_json),
    Row("large JSON", gateway_attackers.large_bodies),
    Row("WebSocket flood", gateway_attackers.socket_flood),
    Row("slow JSON watches", gateway_attackers.slow_readers),
    Row("guessed passwords", user_attackers.guessed_passwords, users=SIMPLE),
    Row("wrong tokens", user_attackers.wrong_tokens, users=SIMPLE),
    Row("wrong tokens", user_attackers.wrong_tokens, members=3, users=SIMPLE),
    Row("wrong signatures", user_attackers.wrong_signatures, users=SIGNED),
    Row("signed tokens of 8 MB", user_attackers.huge_tokens, users=SIGNED),
)


def client_of(endpoint: str, ca_file: str, token: str = "") -> WireClient:
    """Connect to ``endpoint``, over TLS where an authority is named, as whom a token names."""
    context = None
    if ca_file:
        context = ssl.create_default_context(cafile=ca_file)
        context.check_hostname = False  # the certificate names localhost, the endpoint its address
        context.set_alpn_protocols(["h2"])
    return WireClient(endpoint, PUT_TIMEOUT_S, context, token)


class Others:
    """The well-behaved clients: each puts at its rate and notes how long it took."""

    def __init__(self, endpoint: str, ca_file: str, token: str) -> None:
        self._endpoint = endpoint
        self._ca_file = ca_file
        self._token = token
        self._stop = threading.Event()
        self._due: dict[int, float] = {}  # what each client is at, or waits for
        self.taken: list[tuple[float, float]] = []  # when it was due, how long it took; seconds
        self.failures: list[str] = []
        self._threads = [threading.Thread(target=self._put, args=(i,)) for i in range(CLIENTS)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _put(self, number: int) -> None:
        client: WireClient | None = None
        due = time.monotonic() + number / CLIENTS / PUTS_PER_SECOND
        i = 0
        while not self._stop.is_set():
            self._due[number] = due
            time.sleep(max(0.0, due - time.monotonic()))
            message = pb.PutRequest(key=b"other/%d/%d" % (number, i % 1000), value=b"v" * 256)
            try:
                client = client or client_of(self._endpoint, self._ca_file, self._token)
                done = client.call("/etcdserverpb.KV/Put", message.SerializeToString())
                if done.code:
                    self.failures.append(done.text)
                self.taken.append((due, time.monotonic() - due))
            except (OSError, ConnectionFailedError) as error:
                self.failures.append(f"{type(error).__name__}: {error}")
                self.taken.append((due, time.monotonic() - due))
                client = None
            i += 1
            due += 1 / PUTS_PER_SECOND

    def phase(self, begin: float, end: float) -> Phase:
        """Return what was due between two moments.

        What is not answered yet counts as taking until now: a stall that lasts is no silence.
        """
        now = time.monotonic()
        chosen = [taken for due, taken in self.taken if begin <= due < end]
        for waiting in list(self._due.values()):
            while waiting < min(end, now):
                if waiting >= begin:
                    chosen.append(now - waiting)
                waiting += 1 / PUTS_PER_SECOND
        chosen.sort()
        finished = [begin, *sorted(due + taken for due, taken in self.taken), now]
        within = [moment for moment in finished if begin <= moment <= max(end, now)]
        gaps = [later - one for one, later in itertools.pairwise(within)]
        return Phase(
            percentile(chosen, 50) * 1000,
            percentile(chosen, 99) * 1000,
            max(gaps, default=end - begin),
            len(chosen),
        )


@dataclass(frozen=True, slots=True)
class Phase:
    """The others' puts over one stretch of time."""

    p50_ms: float
    p99_ms: float
    gap_s: float  # the longest time in which none was answered
    count: int


@dataclass(slots=True)
class Outcome:
    """What one row did to one program."""

    quiet: Phase
    attacked: Phase
    leader_changes: int
    gained_mib: float
    kept_mib: float
    cut_off: int
    failures: int
    is_running: bool
    piece: tuple[float, str]  # of the attacked member: CPU time in ms, kind
    remarks: list[str] = field(default_factory=list)

    def columns(self) -> str:
        quiet, attacked = self.quiet, self.attacked
        return (
            f"{quiet.p50_ms:8.1f}{quiet.p99_ms:8.1f}{attacked.p50_ms:9.1f}{attacked.p99_ms:9.1f}"
            f"{attacked.gap_s:8.2f}{self.failures:7}{self.leader_changes:8}"
            f"{self.gained_mib:9.0f}{self.kept_mib:8.0f}{self.cut_off:8}"
            f"{self.piece[0]:8.1f} {self.piece[1]:10}"
        )


def judged(ours: Outcome, theirs: Outcome | None) -> str:
    """Return ``ok``, or what of the promise was missed."""
    missed = []
    bound_ms = 2 * ours.quiet.p99_ms + BUDGET_MS
    if ours.attacked.p99_ms > bound_ms:
        missed.append(f"p99 over {bound_ms:.0f} ms")
    if theirs is not None and ours.attacked.p99_ms > max(theirs.attacked.p99_ms, bound_ms):
        missed.append("worse than etcd")
    if ours.piece[0] > PIECE_MAX_MS:
        missed.append("a long piece")
    if ours.leader_changes:
        missed.append("leader lost")
    if not ours.is_running:
        missed.append("member ended")
    return ", ".join(missed) or "ok"


class Stage:
    """The member or members of one row, running."""

    def __init__(self, program: str, row: Row, stack: ExitStack) -> None:
        self._row = row
        self.ca_file = self.token = ""
        flags = list(FLAGS)
        if row.users == SIGNED:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="attacks-"))
            flags.append(signed_token_flag(SIGN_METHOD, Path(folder)))
        if row.members > 1:
            cluster = stack.enter_context(Cluster([program] * row.members, flags=flags))
            first = cluster.leader()
            self.members: list[Any] = [first, *(m for m in cluster.all if m is not first)]
        else:
            tls = self._tls(stack) if row.has_tls else None
            member = _Limited(program, row.descriptors, flags=flags, tls=tls)
            self.members = [stack.enter_context(member)]
        self.target = Target(
            tuple(member.endpoint for member in self.members),
            tuple(f"127.0.0.1:{member.peer_port}" for member in self.members),
            self.ca_file,
        )

    def _tls(self, stack: ExitStack) -> TlsFiles:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="attacks-")))
        authority = Authority(folder)
        issued = authority.issue("member")
        self.ca_file = str(authority.ca_file)
        return TlsFiles(Path(issued.cert_file), Path(issued.key_file), Path(self.ca_file))

    def prepare(self) -> None:
        """Store the keys of the heavy requests, or switch users on."""
        if self._row.users:
            client = client_of(self.target.client, self.ca_file)
            switch_users_on(client)
            self.token = token_of(client)
            client.close()
        if not self._row.keys:
            return
        names = [attackers.HEAVY + b"%06d" % i for i in range(self._row.keys)]
        # A message begins with gRPC's prefix of five octets, which the client makes itself.
        messages = [message[5:] for message in workloads.load_in_txns(names).messages]
        client = client_of(self.target.client, self.ca_file)
        for start in range(0, len(messages), TXNS_IN_FLIGHT):
            pieces = messages[start : start + TXNS_IN_FLIGHT]
            streams = client.begin([(f"{attackers.KV}Txn", message) for message in pieces])
            client.finish(streams)
            assert not any(stream.code for stream in streams), [one.text for one in streams]
        client.close()

    def terms(self) -> int:
        """Return the greatest term: it grows with each election."""
        found = 0
        for endpoint in self.target.clients:
            with suppress(OSError, ConnectionFailedError):
                client = client_of(endpoint, self.ca_file, self.token)
                done = client.call("/etcdserverpb.Maintenance/Status", b"")
                if done.messages:
                    found = max(found, pb.StatusResponse.FromString(done.messages[0]).raftTerm)
                client.close()
        return found

    def memory_mib(self) -> float:
        return memory_kib(self.members[0].pids) / 1024 if self.members[0].is_running else 0.0

    def longest_piece(self) -> tuple[float, str]:
        """Return the longest piece of work of the attacked member's reactor; (0, "?"): unknown."""
        try:
            return longest_piece(self.members[0].client_url, self.ca_file)
        except OSError:
            return 0.0, "?"

    def pause_followers(self, seconds: float) -> None:
        """Stop each follower for a while, one after the other; the leader goes on meanwhile."""
        for member in self.members[1:]:
            member.pause()
            time.sleep(min(PAUSE_S, seconds / 3))
            member.resume()


class _Limited(RunningMember):
    """A member with a limit of open files."""

    def __init__(self, program: str, descriptors: int, **options: Any) -> None:
        super().__init__(program, **options)
        self._descriptors = descriptors

    def command(self) -> list[str]:
        if not self._descriptors:
            return super().command()
        return ["prlimit", f"--nofile={self._descriptors}:{self._descriptors}", *super().command()]


def _attack(
    attack: Callable[[Target, Pace], None], target: Target, armed: Any, stop: Any, told: Any
) -> None:
    pace = Pace(armed.set, stop.is_set)
    try:
        attack(target, pace)
    finally:
        told.put(pace.cut_off)


def measure(program: str, row: Row, seconds: float) -> Outcome:
    """Run one row against fresh members of ``program``."""
    context = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        stage = Stage(program, row, stack)
        stage.prepare()
        armed, stop, told = context.Event(), context.Event(), context.Queue()
        attacker = context.Process(
            target=_attack, args=(row.attack, stage.target, armed, stop, told), daemon=True
        )
        others = Others(stage.target.client, stage.ca_file, stage.token)
        others.start()
        time.sleep(LEAD_S)
        quiet_from = time.monotonic()
        time.sleep(seconds)
        quiet = others.phase(quiet_from, time.monotonic())
        attacker.start()
        armed.wait(ARM_TIMEOUT_S)
        term = stage.terms()
        quiet_mib = most_mib = stage.memory_mib()
        time.sleep(LEAD_S)
        attacked_from = time.monotonic()
        failures = len(others.failures)
        pauser = threading.Thread(target=stage.pause_followers, args=(seconds,))
        if row.pauses_followers:
            pauser.start()
        while time.monotonic() < attacked_from + seconds or pauser.is_alive():
            most_mib = max(most_mib, stage.memory_mib())
            time.sleep(0.05)
        attacked = others.phase(attacked_from, time.monotonic())
        stop.set()
        cut_off = -1
        with suppress(Exception):
            cut_off = told.get(timeout=10.0)
        attacker.join(5.0)
        if attacker.is_alive():
            attacker.kill()
        time.sleep(1.5)
        kept_mib = stage.memory_mib()
        others.stop()
        return Outcome(
            quiet,
            attacked,
            max(0, stage.terms() - term),
            most_mib - quiet_mib,
            kept_mib - quiet_mib,
            cut_off,
            len(others.failures) - failures,
            all(member.is_running for member in stage.members),
            stage.longest_piece(),
            sorted(set(others.failures))[:3],
        )


def main() -> int:
    """Run what the command line asks for, print the table and keep it; 1 if a row was missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attacks", description=__doc__)
    parser.add_argument("--seconds", type=float, default=15.0, help="quiet, and under attack")
    parser.add_argument("--programs", default=",".join(PROGRAMS))
    parser.add_argument("--only", default="", help="parts of names, separated by commas")
    parser.add_argument("--no-keep", action="store_true", help="do not keep the table as a file")
    options = parser.parse_args()
    parts = [part for part in options.only.split(",") if part]
    text = [
        *surroundings.describe(),
        "",
        f"{CLIENTS} clients put {PUTS_PER_SECOND:g} times a second each, {options.seconds:g} s "
        "quiet and as long beside one attacker at half a core.",
        f"{'program':8}{'attack':26}{'quiet':>8}{'':8}{'attacked':>9}{'':9}{'longest':>8}"
        f"{'failed':>7}{'leader':>8}{'MiB':>9}{'MiB':>8}{'cut':>8}{'longest':>8}",
        f"{'':34}{'p50 ms':>8}{'p99':>8}{'p50':>9}{'p99':>9}{'gap s':>8}{'puts':>7}"
        f"{'changes':>8}{'gained':>9}{'kept':>8}{'off':>8}{'piece ms':>9}",
    ]
    print("\n".join(text), flush=True)
    missed = 0
    for row in ROWS:
        name = f"{row.name}, {row.members}" if row.members > 1 else row.name
        if parts and not any(part in name for part in parts):
            continue
        found: dict[str, Outcome] = {}
        for program in sorted(options.programs.split(","), reverse=False):
            outcome = found[program] = measure(program, row, options.seconds)
            verdict = judged(outcome, found.get("etcd")) if program == "etcdtw" else ""
            missed += verdict not in ("", "ok")
            line = f"{program:8}{name:26}{outcome.columns()}  {verdict}"
            lines = [line, *(f"{'':8}  said: {remark[:120]}" for remark in outcome.remarks)]
            print("\n".join(lines), flush=True)
            text += lines
    text.append(f"rows of etcdtw that miss what is promised: {missed}")
    print(text[-1])
    if not options.no_keep:
        print(f"kept as {surroundings.keep('attacks', text)}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
