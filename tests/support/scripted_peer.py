"""A process that is a peer of real etcd: our transport and Raft core, and no state machine.

    python -m tests.support.scripted_peer PORT http://127.0.0.1:2380 DIRECTORY

Its member must have been added with the peer URL of that port.  Each line of its stdout is a
JSON object about something that happened.  ``snapshot ID`` on stdin makes it send that member a
snapshot that is long out of date.
"""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path
from typing import Any, cast

from twisted.internet.base import ReactorBase
from twisted.internet.defer import Deferred, succeed
from twisted.internet.protocol import Protocol
from twisted.internet.stdio import StandardIO
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool

from etcdtw.cluster.ids import parse_id
from etcdtw.cluster.member import Member, decode_member
from etcdtw.cluster.version import Version
from etcdtw.raft.confchange import ADD_LEARNER_NODE, ADD_NODE, REMOVE_NODE, decode_conf_change
from etcdtw.raft.config import Config
from etcdtw.raft.entry import ENTRY_NORMAL, ConfState, Entry, Snapshot
from etcdtw.raft.errors import PeerNotFoundError, ProposalDroppedError
from etcdtw.raft.memory_storage import MemoryStorage
from etcdtw.raft.message import MSG_SNAP, Message
from etcdtw.raft.raw_node import RawNode
from etcdtw.rafthttp.headers import PeerIdentity
from etcdtw.transport.listener import listen, parse_listen_url
from etcdtw.transport.peer.client import build_dial
from etcdtw.transport.peer.network import PeerNetwork
from etcdtw.transport.peer.request import request_page
from etcdtw.transport.peer.seams import PageAnswer
from etcdtw.transport.peer.snapshot_out import Offload
from etcdtw.transport.peer_port.server import PeerPort
from tests.support.judges import judge_line, judge_version

TICK_S = 0.1
VERSION = Version(*judge_version())


def say(what: str, **facts: object) -> None:
    print(json.dumps({"what": what, **facts}), flush=True)


class ScriptedPeer:
    """One member: `PeerReceiver` and `PeerPages` in one."""

    def __init__(self, reactor: ReactorBase, identity: PeerIdentity, directory: Path) -> None:
        self.identity = identity
        self.directory = directory
        self.storage = MemoryStorage()
        self.node = RawNode(
            Config(
                id=identity.member_id,
                election_ticks=10,
                heartbeat_ticks=1,
                storage=self.storage,
                random=random.Random(identity.member_id),
                async_storage_writes=False,
            )
        )
        self.reactor = reactor
        self.removed_ids: set[int] = set()
        self.types: dict[str, int] = {}
        self.told: dict[str, object] = {}
        self._is_woken = False
        pool = reactor.getThreadPool()

        def offload(function: Any) -> Deferred[Any]:
            return deferToThreadPool(reactor, pool, function)

        self.network = PeerNetwork(
            identity,
            self,
            clock=reactor,
            dial=build_dial(reactor, None, 1.0),
            offload=cast(Offload, offload),
            unix_ns=time.time_ns,
        )
        self.port = PeerPort(
            self.network, self, clock=reactor, offload=offload, unix_ns=time.time_ns
        )

    # -- PeerReceiver --------------------------------------------------------------------------

    def receive(self, m: Message) -> None:
        name = repr(m).split()[0].partition("(")[2]
        self.types[name] = self.types.get(name, 0) + 1
        try:
            self.node.step(m)
        except (PeerNotFoundError, ProposalDroppedError):
            return
        self.wake()

    def report_unreachable(self, member_id: int) -> None:
        self.node.report_unreachable(member_id)

    def report_snapshot(self, member_id: int, ok: bool) -> None:
        self.node.report_snapshot(member_id, ok)

    def is_removed(self, member_id: int) -> bool:
        return member_id in self.removed_ids

    def removed(self) -> None:
        say("removed")
        self.reactor.stop()

    def snapshot_path(self, index: int) -> str:
        return str(self.directory / f"{index:016x}.snap.db")

    def snapshot_received(self, m: Message, path: str) -> Deferred[None]:
        assert m.snapshot is not None
        say("snapshot", index=m.snapshot.index, path=path, size=Path(path).stat().st_size)
        self.node.step(m)
        self.wake()
        return succeed(None)

    # -- PeerPages -----------------------------------------------------------------------------

    def page(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> Deferred[PageAnswer] | None:
        if path != "/version":
            return None
        text = json.dumps({"etcdserver": str(VERSION), "etcdcluster": judge_line()})
        return succeed(PageAnswer(200, text.encode(), (("Content-Type", "application/json"),)))

    # -- the turn ------------------------------------------------------------------------------

    def wake(self) -> None:
        if not self._is_woken:
            self._is_woken = True
            self.reactor.callLater(0, self.turn)

    def tick(self) -> None:
        self.node.tick()
        self.wake()
        self.tell_status()

    def turn(self) -> None:
        self._is_woken = False
        while self.node.has_ready():
            ready = self.node.ready()
            if ready.snapshot is not None:
                self.storage.apply_snapshot(ready.snapshot)
            if ready.hard_state is not None:
                self.storage.set_hard_state(ready.hard_state)
            self.storage.append(ready.entries)
            assert not any(m.type == MSG_SNAP for m in ready.messages)
            self.network.send(ready.messages)
            for entry in ready.committed_entries:
                self.apply(entry)
            self.node.advance()

    def apply(self, entry: Entry) -> None:
        if entry.type == ENTRY_NORMAL:
            say("entry", index=entry.index, term=entry.term, data=entry.data.decode("latin-1"))
            return
        change = decode_conf_change(entry)
        self.node.apply_conf_change(change)
        kind, member_id = change.changes[0]
        say("conf change", index=entry.index, kind=kind, member=f"{member_id:x}")
        if kind == REMOVE_NODE:
            self.removed_ids.add(member_id)
            self.network.remove_peer(member_id)
        elif kind in (ADD_NODE, ADD_LEARNER_NODE):
            urls = json.loads(change.context).get("peerURLs")
            if urls:
                self.network.set_peer(member_id, urls)

    def tell_status(self) -> None:
        """Say what changed."""
        stats = self.network.stats()
        facts: dict[str, object] = {
            "lead": f"{self.node.lead:x}",
            "is_leader": self.node.is_leader,
            "connected": {
                f"{peer:x}": self.network.connected_since_ms(peer) is not None for peer in stats
            },
            "failures": sum(s.receive_failures for s in stats.values()),
        }
        if facts != self.told:
            self.told = facts
            say("status", **facts, types=self.types)


class Commands(Protocol):
    """What is asked for on stdin."""

    def __init__(self, peer: ScriptedPeer) -> None:
        self.peer = peer

    def dataReceived(self, data: bytes) -> None:
        _, target = data.decode().split()
        path = self.peer.directory / "old.db"
        path.write_bytes(b"old" * 100_000)
        m = Message(
            MSG_SNAP,
            to=parse_id(target),
            from_id=self.peer.identity.member_id,
            term=self.peer.node.term,
            snapshot=Snapshot(1, 1, ConfState((parse_id(target),)), b"{}"),
        )
        self.peer.network.send_snapshot(
            m, str(path), path.stat().st_size, lambda ok: say("snapshot sent", ok=ok)
        )


async def join(reactor: ReactorBase, port: int, target: str, directory: Path) -> None:
    """Find out who we are, listen, and wait for the leader to come."""
    own_url = f"http://127.0.0.1:{port}"
    answer = await request_page(build_dial(reactor, None, 1.0), reactor, target, "GET", "/members")
    cluster_id = parse_id(dict(answer.headers)["x-etcd-cluster-id"])
    members = [decode_member(json.dumps(one).encode())[0] for one in json.loads(answer.body)]
    (own,) = [member for member in members if member.peer_urls == (own_url,)]
    identity = PeerIdentity(
        cluster_id=cluster_id, member_id=own.member_id, version=VERSION, peer_urls=own.peer_urls
    )
    peer = ScriptedPeer(reactor, identity, directory)
    listen(reactor, parse_listen_url(own_url), peer.port, None)
    others: list[Member] = [member for member in members if member is not own]
    for other in others:
        peer.network.set_peer(other.member_id, other.peer_urls)
    StandardIO(Commands(peer))
    say("listening", id=f"{own.member_id:x}", cluster=f"{cluster_id:x}")
    LoopingCall(peer.tick).start(TICK_S)


def main() -> None:
    from twisted.internet import reactor

    port, target, directory = sys.argv[1:]
    running = Deferred.fromCoroutine(
        join(cast(ReactorBase, reactor), int(port), target, Path(directory))
    )

    def failed(failure: object) -> None:
        say("failed", why=str(failure))
        cast(ReactorBase, reactor).stop()

    running.addErrback(failed)
    cast(ReactorBase, reactor).run()


if __name__ == "__main__":
    main()
