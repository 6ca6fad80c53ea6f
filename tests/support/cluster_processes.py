"""A cluster of running members, each of a program of its own: etcd, etcd34 or etcdtw.

Members are processes with the flags that an operator would give.  Membership is changed over
gRPC as etcdctl does it.  Logs of members outlive the cluster when something went wrong.
"""

from __future__ import annotations

import json
import os
import shutil
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from etcdtw.wire import etcdserverpb as pb
from tests.support.certs import Authority, Issued
from tests.support.etcd_client import EtcdClient, RpcFailedError
from tests.support.etcdctl import ctl_environment
from tests.support.judges import judge_line, judge_program
from tests.support.ports import free_port
from tests.support.processes import (
    BASE,
    OLDER_LINES,
    READY_TIMEOUT_S,
    RunningMember,
    start_command,
)
from tests.support.wire_client import WireClient

ETCDTW: Final = "etcdtw"
ELECTION_S: Final = 1.0  # etcd's default
HEARTBEAT_S: Final = 0.1
LEADER_TIMEOUT_S: Final = 30.0
SETTLE_TIMEOUT_S: Final = 60.0
PROBE_TIMEOUT_S: Final = 1.0
POLL_S: Final = 0.02
ELECTION_PROBE_S: Final = 0.01
CTL_TIMEOUT_S: Final = 60.0
KEPT_LOGS: Final = Path(os.environ.get("ETCDTW_KEPT_LOGS", "/tmp/etcdtw-cluster-logs"))
STRICT_RETRY_TEXTS: Final = ("unhealthy cluster", "in sync with leader", "too many requests")


class ClusterTls:
    """A throw-away authority; a certificate for each member and one for clients."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.authority = Authority(folder)
        self.ca_file = Path(self.authority.ca_file)
        self.client = self.authority.issue("client")
        self.members: dict[str, Issued] = {}

    def flags(self, name: str) -> list[str]:
        """Return the flags of a member that demands certificates on both of its ports."""
        issued = self.members.setdefault(name, self.authority.issue(name))
        pair = ("--cert-file", issued.cert_file, "--key-file", issued.key_file)
        peer = ("--peer-cert-file", issued.cert_file, "--peer-key-file", issued.key_file)
        trust = ("--trusted-ca-file", str(self.ca_file), "--client-cert-auth")
        peer_trust = ("--peer-trusted-ca-file", str(self.ca_file), "--peer-client-cert-auth")
        return [*pair, *trust, *peer, *peer_trust]

    def context(self) -> ssl.SSLContext:
        """Return what a client over a raw socket connects with."""
        context = self.peer_context()
        context.set_alpn_protocols(["h2"])
        return context

    def peer_context(self) -> ssl.SSLContext:
        """Return the same for the peer port, which speaks HTTP/1.1."""
        context = ssl.create_default_context(cafile=str(self.ca_file))
        context.load_cert_chain(self.client.cert_file, self.client.key_file)
        return context


class ClusterMember(RunningMember):
    """One member; its place in the cluster stands in flags that a restart repeats."""

    def __init__(
        self,
        name: str,
        program: str,
        folder: Path,
        *,
        flags: Sequence[str] = (),
        cluster_tls: ClusterTls | None = None,
    ) -> None:
        super().__init__(program, flags=flags, data_dir=folder / name)
        self.name = name
        self.cluster_tls = cluster_tls
        self.initial_cluster = ""
        self.initial_cluster_state = "new"
        self.initial_cluster_token = "tests"
        self.compat_line = compat_line_of([program])
        self.is_paused = False
        self.member_id = 0  # known once the cluster has told it

    @property
    def client_url(self) -> str:
        return f"{'https' if self.cluster_tls else 'http'}://{self.endpoint}"

    @property
    def peer_url(self) -> str:
        return f"{'https' if self.cluster_tls else 'http'}://127.0.0.1:{self.peer_port}"

    @property
    def serves(self) -> bool:
        """Whether its process runs and is not stopped by SIGSTOP."""
        return self.is_running and not self.is_paused

    def command(self) -> list[str]:
        flags = [
            *("--name", self.name, "--data-dir", str(self.data_dir)),
            *("--listen-client-urls", self.client_url),
            *("--advertise-client-urls", self.client_url),
            *("--listen-peer-urls", self.peer_url),
            *("--initial-advertise-peer-urls", self.peer_url),
            *("--initial-cluster", self.initial_cluster),
            *("--initial-cluster-state", self.initial_cluster_state),
            *("--initial-cluster-token", self.initial_cluster_token),
        ]
        if self.cluster_tls is not None:
            flags += self.cluster_tls.flags(self.name)
        if self.program in (ETCDTW, BASE):
            # The line of the real etcd that it may meet; one that joins takes the cluster's.
            flags += ["--compat-version", self.compat_line]
        return [*start_command(self.program), *flags, *self.flags]

    def pause(self) -> None:
        self.is_paused = True
        super().pause()

    def resume(self) -> None:
        super().resume()
        self.is_paused = False


def compat_line_of(programs: Sequence[str]) -> str:
    """Return the line in which members of ours found a cluster with others of ``programs``.

    That of the oldest real one; of ours alone, that of the judge, which may join them.
    """
    major, minor, _ = judge_line().split(".")
    lines = [OLDER_LINES.get(program, f"{major}.{minor}") for program in programs]
    return min(lines)


class Cluster:
    """Members ``m1``, ``m2`` ... of the given programs; a context manager.

    ``flags`` go to every member.  Not safe for threads, but for `ClusterMember.endpoint`.
    """

    def __init__(
        self,
        programs: Sequence[str],
        *,
        flags: Sequence[str] = (),
        tls: bool | ClusterTls = False,
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="cluster-"))
        self.tls = ClusterTls(self.folder / "certs") if tls is True else tls or None
        self.flags = list(flags)
        self.members: dict[str, ClusterMember] = {}
        self._clients: dict[str, EtcdClient] = {}
        self._named = 0
        for program in programs:
            self._new_member(program)
        places = ",".join(f"{member.name}={member.peer_url}" for member in self.all)
        for member in self.all:
            member.initial_cluster = places
            member.compat_line = compat_line_of(programs)

    def _new_member(self, program: str) -> ClusterMember:
        self._named += 1
        name = f"m{self._named}"
        member = ClusterMember(name, program, self.folder, flags=self.flags, cluster_tls=self.tls)
        self.members[name] = member
        return member

    # -- its life ------------------------------------------------------------------------------

    @property
    def all(self) -> list[ClusterMember]:
        return list(self.members.values())

    @property
    def serving(self) -> list[ClusterMember]:
        return [member for member in self.all if member.serves]

    def __enter__(self) -> Cluster:
        try:
            self.start()
        except BaseException:
            self.close(keep_logs=True)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close(keep_logs=kind is not None)

    def start(self) -> None:
        """Start every member and wait until all serve and know one leader."""
        self.start_members(self.all)
        self.leader()

    def start_members(self, members: Sequence[ClusterMember]) -> None:
        """Start ``members`` together; one alone may have to wait for another to be ready."""
        for member in members:
            member.launch()
        for member in members:
            member.wait_ready(READY_TIMEOUT_S)

    def kill(self, members: Iterable[ClusterMember]) -> None:
        """Kill -9 of ``members``."""
        for member in members:
            self.forget_client(member)
            member.kill()
            member.is_paused = False

    def stop(self, member: ClusterMember) -> int:
        """Ask one member to end, and return its exit status."""
        self.forget_client(member)
        return member.stop()

    def close(self, *, keep_logs: bool = False) -> None:
        """Kill what runs; move the logs to `KEPT_LOGS` when asked; delete the rest."""
        for client in self._clients.values():
            client.close()
        self._clients.clear()
        for member in self.all:
            if member.is_running:
                member.kill()
        if keep_logs:
            print(f"logs of the cluster are kept in {self.keep_logs()}")
        shutil.rmtree(self.folder, ignore_errors=True)

    def keep_logs(self) -> Path:
        """Copy what the members wrote to stderr; returns the folder."""
        KEPT_LOGS.mkdir(parents=True, exist_ok=True)
        kept = Path(tempfile.mkdtemp(prefix="cluster-", dir=KEPT_LOGS))
        for log in self.folder.glob("*.stderr"):
            shutil.copy(log, kept)
        return kept

    def check_logs(self) -> None:
        """No serving member of ours has logged a traceback; no real one has panicked."""
        for member in self.all:
            text = member.stderr()
            for mark in ("Traceback", "panic:", "fatal error:"):
                assert mark not in text, f"{member.name}:\n{text[text.index(mark) - 1000 :][:5000]}"

    # -- talking to it -------------------------------------------------------------------------

    def client(self, member: ClusterMember) -> EtcdClient:
        """Return a grpcio client of ``member``, which is kept until it is killed or stopped."""
        if member.name not in self._clients:
            self._clients[member.name] = self.new_client(member)
        return self._clients[member.name]

    def new_client(self, member: ClusterMember) -> EtcdClient:
        if self.tls is None:
            return EtcdClient(member.endpoint)
        return EtcdClient(
            member.endpoint,
            ca_file=self.tls.ca_file,
            cert_file=Path(self.tls.client.cert_file),
            key_file=Path(self.tls.client.key_file),
        )

    def wire_client(self, member: ClusterMember, timeout_s: float = 20.0) -> WireClient:
        """Return a raw client of ``member``."""
        return WireClient(member.endpoint, timeout_s, self.tls.context() if self.tls else None)

    def forget_client(self, member: ClusterMember) -> None:
        client = self._clients.pop(member.name, None)
        if client is not None:
            client.close()

    def ctl(
        self, *arguments: str, members: Sequence[ClusterMember] | None = None, program: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run etcdctl to its end, with the endpoints of ``members`` (all that serve)."""
        return subprocess.run(
            self.ctl_command(*arguments, members=members, program=program),
            capture_output=True,
            text=True,
            timeout=CTL_TIMEOUT_S,
            env=ctl_environment(),
            check=False,
        )

    def ctl_command(
        self, *arguments: str, members: Sequence[ClusterMember] | None = None, program: str = ""
    ) -> list[str]:
        chosen = self.serving if members is None else members
        start = [program or str(judge_program("etcdctl"))]
        start.append("--endpoints=" + ",".join(member.client_url for member in chosen))
        if self.tls is not None:
            start += [f"--cacert={self.tls.ca_file}", f"--cert={self.tls.client.cert_file}"]
            start.append(f"--key={self.tls.client.key_file}")
        return [*start, *arguments]

    def ctl_output(self, *arguments: str, members: Sequence[ClusterMember] | None = None) -> str:
        """Run etcdctl, which must succeed; returns its stdout."""
        done = self.ctl(*arguments, members=members)
        assert done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    # -- what it says of itself ----------------------------------------------------------------

    def status(self, member: ClusterMember) -> Any:
        """Return the StatusResponse of ``member``; None when it does not answer in time."""
        try:
            return self.client(member).call("status", pb.StatusRequest(), timeout_s=PROBE_TIMEOUT_S)
        except RpcFailedError:
            return None

    def leader_now(self, among: Sequence[ClusterMember] | None = None) -> ClusterMember | None:
        """Return whom a majority of the voters among ``among`` (all) follow now, if it serves."""
        votes: dict[int, int] = {}
        voters = 0
        by_id: dict[int, ClusterMember] = {}
        for member in self.serving if among is None else among:
            status = self.status(member)
            if status is None:
                continue
            member.member_id = status.header.member_id
            by_id[member.member_id] = member
            if status.isLearner:
                continue
            voters += 1
            if status.leader:
                votes[status.leader] = votes.get(status.leader, 0) + 1
        for leader_id, count in votes.items():
            if count * 2 > voters and leader_id in by_id:
                return by_id[leader_id]
        return None

    def leader(
        self, *, other_than: ClusterMember | None = None, timeout_s: float = LEADER_TIMEOUT_S
    ) -> ClusterMember:
        """Wait until there is a leader, another one than ``other_than``."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            found = self.leader_now()
            if found is not None and found is not other_than:
                return found
            time.sleep(POLL_S)
        raise TimeoutError(f"no leader in {timeout_s} s")

    def time_to_new_leader(
        self, dead: ClusterMember, struck_s: float
    ) -> tuple[ClusterMember, float]:
        """Wait for another leader than ``dead``, which died at ``struck_s`` (monotonic)."""
        found = None
        while found is None or found is dead:
            if time.monotonic() > struck_s + LEADER_TIMEOUT_S:
                raise TimeoutError(f"no new leader {LEADER_TIMEOUT_S} s after {dead.name} died")
            time.sleep(ELECTION_PROBE_S)
            found = self.leader_now()
        return found, time.monotonic() - struck_s

    def followers(self) -> list[ClusterMember]:
        """Return the serving members that do not lead."""
        leader = self.leader()
        return [member for member in self.serving if member is not leader]

    # -- membership ----------------------------------------------------------------------------

    def add(
        self, program: str, *, learner: bool = False, flags: Sequence[str] = ()
    ) -> ClusterMember:
        """Add a member and start it; returns when it says that it serves."""
        member = self.announce(program, learner=learner, flags=flags)
        member.start(READY_TIMEOUT_S)
        return member

    def announce(
        self, program: str, *, learner: bool = False, flags: Sequence[str] = ()
    ) -> ClusterMember:
        """Add a member to the membership without starting it."""
        leader = self.leader()
        member = self._new_member(program)
        member.flags += flags
        request = pb.MemberAddRequest(peerURLs=[member.peer_url], isLearner=learner)
        try:
            answer = self._insist(leader, "member_add", request)
        except BaseException:
            del self.members[member.name]
            raise
        member.member_id = answer.member.ID
        by_id = {other.member_id: other.name for other in self.all}
        member.initial_cluster = ",".join(
            f"{by_id[told.ID]}={url}" for told in answer.members for url in told.peerURLs
        )
        member.initial_cluster_state = "existing"
        return member

    def promote(self, member: ClusterMember) -> None:
        """Make a voter of a learner; waits until it is in sync, and until it knows."""
        self._insist(self.leader(), "member_promote", pb.MemberPromoteRequest(ID=member.member_id))
        wait_for(lambda: self._is_voter(member), SETTLE_TIMEOUT_S, f"{member.name} is a voter")

    def _is_voter(self, member: ClusterMember) -> bool:
        status = self.status(member)
        return status is not None and not status.isLearner

    def move_peer_port(self, member: ClusterMember) -> None:
        """Tell the cluster of another peer URL of ``member``, and start it there again."""
        member_id = self.id_of(member)
        others = [other for other in self.serving if other is not member]
        self.stop(member)
        before = member.peer_url
        member.peer_port = free_port()
        request = pb.MemberUpdateRequest(ID=member_id, peerURLs=[member.peer_url])
        self._insist(others[0], "member_update", request)
        member.initial_cluster = member.initial_cluster.replace(before, member.peer_url)
        member.start(READY_TIMEOUT_S)

    def remove(self, member: ClusterMember) -> None:
        """Remove a member from the cluster (by another one) and end its process."""
        others = [other for other in self.serving if other is not member]
        leader = self.leader()
        asked = leader if leader is not member else others[0]
        self._insist(asked, "member_remove", pb.MemberRemoveRequest(ID=member.member_id))
        self.forget_client(member)
        if member.is_running:
            member.kill()
        del self.members[member.name]

    def move_leader(self, target: ClusterMember) -> None:
        """Transfer leadership to ``target`` and wait until all follow it."""
        leader = self.leader()
        if leader is not target:
            request = pb.MoveLeaderRequest(targetID=self.id_of(target))
            self._insist(leader, "move_leader", request)
        wait_for(lambda: self.is_followed(target), LEADER_TIMEOUT_S, f"{target.name} leads")

    def is_followed(self, leader: ClusterMember) -> bool:
        """Say whether every serving member, learners included, knows ``leader`` as its leader."""
        told = [self.status(member) for member in self.serving]
        return all(status is not None and status.leader == leader.member_id for status in told)

    def id_of(self, member: ClusterMember) -> int:
        """Return the id of ``member``, asked of itself when it is not known yet."""
        if not member.member_id:
            status = self.status(member)
            assert status is not None, f"{member.name} does not answer"
            member.member_id = status.header.member_id
        return member.member_id

    def _insist(self, member: ClusterMember, name: str, request: Any) -> Any:
        """Make a call of membership, again while the cluster says that it is not ready for it."""
        deadline = time.monotonic() + SETTLE_TIMEOUT_S
        while True:
            try:
                return self.client(member).call(name, request, timeout_s=SETTLE_TIMEOUT_S)
            except RpcFailedError as error:
                wanted = any(text in error.text for text in STRICT_RETRY_TEXTS)
                if not wanted or time.monotonic() > deadline:
                    raise
            time.sleep(0.2)

    # -- equality ------------------------------------------------------------------------------

    def revision(self) -> int:
        """Return the revision that a linearizable read tells."""
        answer = self.client(self.leader()).range(b"\0", count_only=True)
        return int(answer.header.revision)

    def wait_applied(self, revision: int, members: Sequence[ClusterMember] | None = None) -> None:
        """Wait until each member has applied ``revision``."""
        for member in self.serving if members is None else members:
            wait_for(
                lambda member=member: self.local_revision(member) >= revision,  # type: ignore[misc]
                SETTLE_TIMEOUT_S,
                f"{member.name} applies revision {revision}",
            )

    def local_revision(self, member: ClusterMember) -> int:
        """Return the revision that ``member`` has applied; 0 when it does not answer."""
        try:
            answer = self.client(member).range(b"\0", count_only=True, serializable=True)
        except RpcFailedError as error:
            if "learner" not in error.text:
                return 0
            status = self.status(member)
            return 0 if status is None else int(status.header.revision)
        return int(answer.header.revision)

    def hashes(self, revision: int = 0) -> dict[str, tuple[int, int]]:
        """Return HashKV of each serving member at one revision: (hash, compact revision)."""
        revision = revision or self.revision()
        self.wait_applied(revision)
        return {member.name: self._hash(member, revision) for member in self.serving}

    def _hash(self, member: ClusterMember, revision: int) -> tuple[int, int]:
        request = pb.HashKVRequest(revision=revision)
        try:
            answer = self.client(member).call("hash_kv", request, timeout_s=CTL_TIMEOUT_S)
        except RpcFailedError as error:
            if "learner" not in error.text:
                raise
            return self.peer_hash(member, revision)
        return answer.hash, answer.compact_revision

    def peer_hash(self, member: ClusterMember, revision: int) -> tuple[int, int]:
        """Return HashKV as the leader's corruption check asks for it, at the peer port."""
        where = ("127.0.0.1", member.peer_port)
        link = (
            HTTPConnection(*where, timeout=CTL_TIMEOUT_S)
            if self.tls is None
            else HTTPSConnection(*where, timeout=CTL_TIMEOUT_S, context=self.tls.peer_context())
        )
        try:
            link.request("GET", "/members/hashkv", json.dumps({"revision": revision}))
            answer = link.getresponse()
            told = answer.read()
        finally:
            link.close()
        assert answer.status == 200, (answer.status, told)
        fields = json.loads(told)
        return int(fields.get("hash", 0)), int(fields.get("compact_revision", 0))

    def assert_equal(self, revision: int = 0) -> int:
        """HashKV of every serving member is the same; returns it."""
        found = self.hashes(revision)
        assert len(set(found.values())) == 1, f"HashKV differs: {found}"
        return next(iter(found.values()))[0]


def wait_for(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Return once ``condition`` holds; raises `TimeoutError` otherwise."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not in {timeout_s} s: {what}")
        time.sleep(POLL_S)
