"""What the services of one member share, opened and built by the first of them."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from twisted.internet.defer import Deferred, execute
from twisted.internet.interfaces import (
    IReactorCore,
    IReactorFDSet,
    IReactorFromThreads,
    IReactorInThreads,
    IReactorPluggableNameResolver,
    IReactorTime,
)
from twisted.internet.threads import deferToThreadPool

from etcdtw import __version__
from etcdtw.apply.alarms import alarm_name
from etcdtw.apply.errors import CorruptError
from etcdtw.cluster.joining import RemoteCluster
from etcdtw.config.config import Config
from etcdtw.gateway.health import HealthCounts
from etcdtw.grpc.stats import ServerStats
from etcdtw.node.no_call import NoCall
from etcdtw.node.node import Node
from etcdtw.rpc.errors import status_of
from etcdtw.server.doors.addresses import Doors
from etcdtw.server.doors.tls_roles import PeerTlsRoles
from etcdtw.server.member.assembly import Services, Surroundings, build_member_node, build_services
from etcdtw.server.member.joining import ask_cluster
from etcdtw.server.member.leader_line import LeaderLine
from etcdtw.server.process.descriptors import ALL_SHARES, DescriptorShares
from etcdtw.server.process.piece_report import measured_pieces
from etcdtw.server.process.readiness import started_environment
from etcdtw.server.process.services import EXIT_REMOVED, leave_with_status
from etcdtw.server.process.supervision import Supervision
from etcdtw.server.start.bootstrap import remote_urls
from etcdtw.server.start.data import Data, has_identity, open_data, telling_stop
from etcdtw.server.start.preflight import Taken, take
from etcdtw.storage.disk.room import DiskRoom, RealDisk
from etcdtw.storage.snapshot.snapshots import StateSnapshots
from etcdtw.storage.state.open import MAP_SIZE
from etcdtw.storage.writer.process import ProcessStateWriter
from etcdtw.storage.writer.worker import Pace
from etcdtw.transport.client.inflation import inflate_in_turns
from etcdtw.transport.client.offenders import Offenders
from etcdtw.transport.flusher import Flusher
from etcdtw.transport.listener import Bound
from etcdtw.transport.name_lookup import DialResolver
from etcdtw.transport.peer.client import build_dial
from etcdtw.transport.peer.network import PeerNetwork
from etcdtw.transport.rounds import Rounds
from etcdtw.transport.tls.policy import TlsPolicy
from etcdtw.wire import etcdserverpb as pb

READ_ONE: Final = pb.RangeRequest(key=b"\0", range_end=b"\0", limit=1, keys_only=True)
"""What a health check reads: the first key, whichever it is."""


_T = TypeVar("_T")


class Member:
    """What the services of one member share; the storage fills it in."""

    def __init__(
        self,
        reactor: Any,
        config: Config,
        unix_ms: Callable[[], int],
        shares: DescriptorShares = ALL_SHARES,
        taken: Taken | None = None,
    ) -> None:
        self.reactor = reactor
        self.shares = shares
        self.clock: IReactorTime = reactor
        self.config = config
        self.unix_ms = unix_ms
        self.pieces = measured_pieces()
        self.rounds = Rounds(reactor, self.pieces)
        self.flusher = Flusher(reactor, self.pieces, self.rounds.renew)
        self.offenders = Offenders()
        self.random = random.Random()
        self.call_stats = ServerStats()
        inflate_in_turns(reactor, self.call_stats.inflations, self.pieces)
        self.health_counts = HealthCounts()
        self.data: Data | None = None
        self.network: PeerNetwork | None = None
        self.doors = Doors(reactor, self._bound)
        self.supervision = Supervision(self.clock, os.environ)
        self._taken = taken
        self._node: Node | None = None
        self._line: LeaderLine | None = None
        self._services: Services | None = None
        self._room: DiskRoom | None = None

    @property
    def node(self) -> Node:
        assert self._node is not None, "storage was not opened"
        return self._node

    @property
    def services(self) -> Services:
        assert self._services is not None, "storage was not opened"
        return self._services

    @property
    def room(self) -> DiskRoom:
        assert self._room is not None, "storage was not opened"
        return self._room

    @property
    def opened(self) -> Data:
        assert self.data is not None, "storage was not opened"
        return self.data

    @property
    def peers(self) -> PeerNetwork:
        assert self.network is not None, "peering was not started"
        return self.network

    @property
    def line(self) -> LeaderLine:
        assert self._line is not None, "storage was not opened"
        return self._line

    @property
    def peer_tls(self) -> PeerTlsRoles:
        return self.taken.peer_tls

    @property
    def client_tls(self) -> TlsPolicy | None:
        return self.taken.client_tls

    @property
    def taken(self) -> Taken:
        """What was checked and taken before the start; done now if it was not."""
        if self._taken is None:
            environment = started_environment()
            self._taken = take(self.config, environment, self.reactor, self.now())
        return self._taken

    def _bound(self) -> Mapping[str, Sequence[Bound]]:
        return self.taken.bound

    async def open(self) -> None:
        """Open the data and build the node; ask the cluster first if this member joins it."""
        reactor = self.reactor
        config = self.config
        # etcd's dial timeout: a second and an election.
        dial_s = 1.0 + config.election_timeout_ms / 1000
        # Redials are many: what their names are looked up with is bounded.
        resolver = DialResolver(self.taken.lookup)
        cast(IReactorPluggableNameResolver, reactor).installNameResolver(resolver)
        self.dial = build_dial(cast(IReactorCore, reactor), self.peer_tls.dials.wrap, dial_s)
        remote = await self._ask_cluster()
        stop = telling_stop(config)
        pace = Pace(
            config.compaction_batch_limit,
            config.compaction_sleep_interval_s,
            config.state_sweep_interval_s,
        )

        def make_writer(path: Path, map_size: int, lock_fd: int) -> ProcessStateWriter:
            fds = cast(IReactorFDSet, reactor)
            return ProcessStateWriter(fds, path, map_size, lock_fd, pace, self.pieces)

        data = self.data = open_data(
            config,
            self.clock.seconds,
            cast(IReactorFromThreads, reactor).callFromThread,
            make_writer,
            stop,
            remote=remote,
        )
        self.snapshot_files = StateSnapshots(
            cast(IReactorFDSet, reactor), data.state, data.state_path, MAP_SIZE, stop
        )
        in_thread = cast(IReactorInThreads, reactor).callInThread
        room = self._room = DiskRoom(data.places(), RealDisk(), in_thread)
        surroundings = Surroundings(
            clock=self.clock,
            flusher=self.flusher,
            pieces=self.pieces,
            randomness=self.random,
            unix_ms=self.unix_ms(),
            snapshot_files=self.snapshot_files,
            dial=self.dial,
            on_removed=self.removed,
            look_at_disks=room.look,
            fail_stop=stop,
        )
        self._node, self._line = build_member_node(config, data, surroundings)
        self._services = build_services(
            self._node,
            config,
            data,
            self.random,
            lambda: self.unix_ms() // 1000,
            self._line,
            self.offload,
        )
        self.call_stats.prepare(self.services.methods)

    async def _ask_cluster(self) -> RemoteCluster | None:
        """Return what the others say, if this member is new and there may be others."""
        config = self.config
        if has_identity(config):
            return None
        urls = remote_urls(config)
        own = [str(url) for url in config.initial_advertise_peer_urls]
        return await ask_cluster(self.dial, self.clock, urls, own) if urls else None

    def now(self) -> datetime:
        """Return the time of day, for certificates."""
        return datetime.fromtimestamp(self.unix_ms() / 1000, UTC)

    def offload(self, function: Callable[[], _T], /) -> Deferred[_T]:
        """Run what may block in a thread; give its result."""
        pool = self.reactor.getThreadPool()
        return deferToThreadPool(self.reactor, pool, function)

    def removed(self) -> None:
        """The others have removed this member for good: it ends, as etcd does.

        With a status of its own (etcd's is 0), so that a supervisor does not start it again.
        """
        leave_with_status(self.reactor, EXIT_REMOVED)

    # What the gateway asks.

    @property
    def has_leader(self) -> bool:
        return self.node.leader_id != 0

    @property
    def is_learner(self) -> bool:
        return self.node.is_learner

    @property
    def alarms(self) -> Sequence[str]:
        return [alarm_name(alarm) for _, alarm in self.node.alarms.active()]

    @property
    def state_trouble(self) -> str:
        return self.node.duties.damage.trouble()

    @property
    def disk_trouble(self) -> str:
        return self.node.duties.space.trouble()

    def read(self, linearizable: bool) -> Deferred[None]:
        """Try a read; fails with the error that a client would see."""
        if not linearizable:
            return execute(self._read_one)
        done: Deferred[None] = Deferred(lambda _: None)

        def answer(_call: object, error: Exception | None) -> None:
            if done.called:
                return
            if error is None:
                execute(self._read_one).chainDeferred(done)
            else:
                done.errback(ReadFailedError(status_of(error)[1]))

        self.node.read(NoCall(), answer)
        return done

    def _read_one(self) -> None:
        """Read from the state, disk included, what any client could read."""
        if self.node.is_quarantined:
            raise ReadFailedError(status_of(CorruptError())[1])
        self.node.store.range(READ_ONE)

    @property
    def server_version(self) -> str:
        return self.node.members.server_version

    @property
    def cluster_version(self) -> str | None:
        return self.node.members.cluster_version or None

    @property
    def storage_version(self) -> str | None:
        return self.node.members.storage_version or None

    @property
    def product_version(self) -> str:
        return __version__


class ReadFailedError(Exception):
    """A health read failed; its text is what a client would see."""
