"""etcd's Election service.

Source: etcd v3election; clientv3 ``concurrency``, Election.
"""

from __future__ import annotations

from typing import Final

from twisted.internet.defer import Deferred

from etcdtw.grpc.call import UNKNOWN, Call, MethodTable, StatusError
from etcdtw.node.facade import Facade
from etcdtw.rpc.concurrency.contender import (
    SESSION_EXPIRED,
    Arena,
    Contender,
    created_at,
    oldest_request,
    own_key,
    prefix_end,
    put_op,
    range_op,
    resign_request,
)
from etcdtw.rpc.decode import decode
from etcdtw.rpc.leader_loss import LeaderLoss
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire import mvccpb
from etcdtw.wire import v3electionpb as epb

PREFIX: Final = "/v3electionpb.Election/"
OUTPUT_SIZE_MAX: Final = 256 * 1024
"""Octets that wait for an observer; then it is told nothing more until they are out."""
NOT_LEADER: Final = "election: not leader"
NO_LEADER: Final = "election: no leader"
MISSING_LEADER_KEY: Final = '"leader" field must be provided'


class ElectionService:
    """Answers the five RPCs."""

    def __init__(self, arena: Arena, node: Facade, election_timeout_s: float) -> None:
        self._arena = arena
        self._leader_loss = LeaderLoss(node, election_timeout_s)

    def register(self, methods: MethodTable) -> None:
        """Add this service's methods."""
        methods.add_unary(PREFIX + "Campaign", self.campaign)
        methods.add_unary(PREFIX + "Proclaim", self.proclaim)
        methods.add_unary(PREFIX + "Leader", self.leader)
        methods.add_server_stream(PREFIX + "Observe", self.observe)
        methods.add_unary(PREFIX + "Resign", self.resign)

    def campaign(self, call: Call, message: bytes) -> None:
        """Answer when the caller's session leads."""
        request = decode(epb.CampaignRequest, message)

        async def elected(contender: Contender) -> None:
            call.reply((await _campaign(contender, request)).SerializeToString())

        self._arena.wait(call, elected)

    def proclaim(self, call: Call, message: bytes) -> None:
        """Give the leader's key another value."""
        request = decode(epb.ProclaimRequest, message)
        if not request.HasField("leader"):
            raise StatusError(UNKNOWN, MISSING_LEADER_KEY)
        leader = request.leader

        async def proclaimed(contender: Contender) -> None:
            lease_id = await contender.session(leader.lease)
            header = await _proclaim(contender, leader.key, leader.rev, lease_id, request.value)
            call.reply(epb.ProclaimResponse(header=header).SerializeToString())

        self._arena.serve(call, proclaimed)

    def resign(self, call: Call, message: bytes) -> None:
        """Delete the leader's key; that somebody else leads is no error."""
        request = decode(epb.ResignRequest, message)
        if not request.HasField("leader"):
            raise StatusError(UNKNOWN, MISSING_LEADER_KEY)
        leader = request.leader

        async def resigned(contender: Contender) -> None:
            done = await contender.calls.txn(resign_request(leader.key, leader.rev))
            call.reply(epb.ResignResponse(header=done.header).SerializeToString())

        self._arena.serve(call, resigned)

    def leader(self, call: Call, message: bytes) -> None:
        """Answer who leads now."""
        request = decode(epb.LeaderRequest, message)

        async def found(contender: Contender) -> None:
            oldest = await contender.calls.range(oldest_request(request.name + b"/"))
            if not oldest.kvs:
                raise StatusError(UNKNOWN, NO_LEADER)
            leader = epb.LeaderResponse(header=oldest.header, kv=oldest.kvs[0])
            call.reply(leader.SerializeToString())

        self._arena.serve(call, found)

    def observe(self, call: Call) -> None:
        """Tell who leads, and each value and leader that follows.

        As with etcd, what a read or a watch of it fails with is not told: the stream ends.
        """

        def begin(message: bytes) -> None:
            request = decode(epb.LeaderRequest, message)

            async def observed(contender: Contender) -> None:
                observer = _Observer(contender, request.name + b"/")
                end_watch = call.on_end

                def ended() -> None:
                    self._leader_loss.forget(call)
                    if end_watch is not None:
                        end_watch()
                    observer.go_on()

                call.on_end = ended
                if self._leader_loss.admit(call, ended):
                    await observer.run()
                    self._leader_loss.forget(call)
                    call.finish()

            self._arena.wait(call, observed)

        call.on_message = begin


class _Observer:
    """Tells one caller who leads."""

    def __init__(self, contender: Contender, prefix: bytes) -> None:
        self._contender = contender
        self._call = contender.call
        self._prefix = prefix
        self._room: Deferred[None] | None = None
        self._call.on_drain = self.go_on

    def go_on(self) -> None:
        """There is room again, or nobody listens."""
        room, self._room = self._room, None
        if room is not None:
            room.callback(None)

    async def run(self) -> None:
        """Return when that cannot go on."""
        try:
            while self._call.is_open:
                await self._follow_one()
        except StatusError:
            pass

    async def _follow_one(self) -> None:
        """Tell of one leader until its key is deleted, or its events are compacted away."""
        contender = self._contender
        oldest = await contender.oldest(self._prefix)
        if oldest.kvs:
            key, revision = oldest.kvs[0].key, oldest.header.revision
            await self._tell(oldest.header, oldest.kvs[0])
        else:
            first = await self._first_put(oldest.header.revision)
            if first is None:
                return
            key, revision = first
        watched = pb.WatchCreateRequest(key=key, start_revision=revision + 1)
        async for response in contender.watch(watched):
            for event in response.events:
                if event.type == mvccpb.Event.DELETE:
                    contender.end_watch()
                    return
                await self._tell(response.header, event.kv)
            if response.compact_revision:
                return

    async def _first_put(self, revision: int) -> tuple[bytes, int] | None:
        """Wait for a candidate and tell of it; return its key and revision, None: look again."""
        contender = self._contender
        watched = pb.WatchCreateRequest(
            key=self._prefix, range_end=prefix_end(self._prefix), start_revision=revision
        )
        async for response in contender.watch(watched):
            for event in response.events:
                if event.type == mvccpb.Event.PUT:
                    contender.end_watch()
                    header = response.header
                    header.revision = event.kv.mod_revision
                    await self._tell(header, event.kv)
                    return event.kv.key, header.revision
            if response.compact_revision:
                break
        return None

    async def _tell(self, header: pb.ResponseHeader, record: mvccpb.KeyValue) -> None:
        """Send one leader, and wait for room for the next."""
        call = self._call
        call.send(epb.LeaderResponse(header=header, kv=record).SerializeToString())
        if call.queued > OUTPUT_SIZE_MAX:
            self._room = Deferred()
            await self._room


async def _campaign(contender: Contender, request: epb.CampaignRequest) -> epb.CampaignResponse:
    prefix = request.name + b"/"
    lease_id = await contender.session(request.lease)
    key = own_key(prefix, lease_id)
    contender.claim(key)
    asked = await contender.calls.txn(
        pb.TxnRequest(
            compare=[created_at(key, 0)],
            success=[put_op(key, request.value, lease_id)],
            failure=[range_op(pb.RangeRequest(key=key))],
        )
    )
    own_revision = asked.header.revision
    try:
        if not asked.succeeded:
            found = asked.responses[0].response_range.kvs[0]
            own_revision = found.create_revision
            if found.value != request.value:
                await _proclaim(contender, key, own_revision, lease_id, request.value)
        if await contender.wait_deletes(prefix, own_revision - 1):
            # Its turn has come, but its session may be over: then the key went with the lease.
            own = await contender.read(pb.RangeRequest(key=key))
            if not own.kvs or own.kvs[0].create_revision != own_revision:
                raise StatusError(UNKNOWN, NOT_LEADER)
        if not contender.is_wanted:
            raise StatusError(UNKNOWN, SESSION_EXPIRED)
    except StatusError:
        await contender.take_back(key, own_revision)
        raise
    leader = epb.LeaderKey(name=request.name, key=key, rev=own_revision, lease=lease_id)
    return epb.CampaignResponse(header=asked.header, leader=leader)


async def _proclaim(
    contender: Contender, key: bytes, create_revision: int, lease_id: int, value: bytes
) -> pb.ResponseHeader:
    """Return the header of the change.  Fails when somebody else leads."""
    done = await contender.calls.txn(
        pb.TxnRequest(
            compare=[created_at(key, create_revision)], success=[put_op(key, value, lease_id)]
        )
    )
    if not done.succeeded:
        raise StatusError(UNKNOWN, NOT_LEADER)
    return done.header
