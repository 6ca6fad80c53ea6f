"""The pages of the peer port that are not Raft's: who the members are, what a leader is asked.

``/members`` ``/version`` ``/downgrade/enabled`` ``/members/hashkv`` are for everybody, and so is
``/etcdtw``, which real members do not have;
``/leases`` ``/leases/internal`` ``/members/promote/<id>`` are what followers ask their leader.
Source: etcd's peer contract, section 3, texts included.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from google.protobuf.message import DecodeError
from twisted.internet.defer import Deferred, succeed

from etcdtw import __version__
from etcdtw.apply.errors import RequestTimeoutError
from etcdtw.cluster.divergence import KeyHash
from etcdtw.cluster.ids import id_text
from etcdtw.cluster.remote import encode_member_list, encode_version_page
from etcdtw.cluster.version import parse_version
from etcdtw.grpc.call import Call
from etcdtw.mvcc.errors import MvccError
from etcdtw.node.facade import Facade
from etcdtw.node.no_call import NO_CALL
from etcdtw.rpc.cluster.promotion import PATH as PROMOTE
from etcdtw.rpc.cluster.promotion import promotion_answer, promotion_id
from etcdtw.rpc.cluster.service import ClusterService
from etcdtw.rpc.errors import status_of
from etcdtw.rpc.lease.for_peers import LeasesForPeers
from etcdtw.storage.state.errands import ErrandError
from etcdtw.transport.peer.seams import PageAnswer
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire import leasepb
from etcdtw.wire.encode import delimited

CLUSTER_ID: Final = "X-Etcd-Cluster-ID"
MEMBERS: Final = "/members"
HASH_KV: Final = "/members/hashkv"
PROGRAM: Final = "/etcdtw"
"""What this member is; real etcd has no such page."""
PROGRAM_NAME: Final = b"etcdtw"
JSON: Final = ("Content-Type", "application/json")
TEXT: Final = ("Content-Type", "text/plain; charset=utf-8")
PROTOBUF: Final = ("Content-Type", "application/protobuf")
LEASE_TAG: Final = b"\x0a"
"""Of a LeaseTimeToLiveResponse in a LeaseInternalResponse."""
EMPTY_HEADER: Final = b"\x0a\x00"
OK: Final = 200
BAD_REQUEST: Final = 400
NOT_FOUND: Final = 404
NOT_ALLOWED: Final = 405
TIMEOUT: Final = 408
MISMATCH: Final = 412
FAILED: Final = 500

Headers = dict[str, str]
Page = Callable[[str, Headers, bytes], "Deferred[PageAnswer]"]


def text(status: int, line: str) -> PageAnswer:
    """Return one line of plain text, as Go's ``http.Error`` writes it."""
    return PageAnswer(status, f"{line}\n".encode(), (TEXT, ("X-Content-Type-Options", "nosniff")))


class MemberPages:
    """Implements `transport.peer.seams.PeerPages` for one member."""

    def __init__(
        self,
        node: Facade,
        cluster: ClusterService,
        leases: LeasesForPeers,
    ) -> None:
        self._node = node
        self._cluster = cluster
        self._leases = leases
        self._pages: dict[str, tuple[str, Page]] = {
            MEMBERS: ("GET", self._members),
            "/version": ("GET", self._version),
            "/downgrade/enabled": ("GET", self._downgrade_enabled),
            HASH_KV: ("GET", self._hash_kv),
            PROGRAM: ("GET", self._program),
            "/leases": ("POST", self._renew),
            "/leases/internal": ("POST", self._time_to_live),
        }

    def page(
        self, method: str, path: str, headers: Headers, body: bytes
    ) -> Deferred[PageAnswer] | None:
        """Answer one request; None: there is no such page."""
        verb, page = self._pages.get(path, ("", self._members))
        if not verb and path.startswith(PROMOTE):
            verb, page = "POST", self._promote
        elif not verb and path.startswith(MEMBERS + "/"):
            return succeed(text(BAD_REQUEST, "bad path"))
        if not verb:
            return None
        if method != verb:
            answer = PageAnswer(NOT_ALLOWED, b"Method Not Allowed\n", (("Allow", verb), TEXT))
            return succeed(answer)
        return page(path, headers, body)

    # For everybody.

    def _members(self, path: str, headers: Headers, body: bytes) -> Deferred[PageAnswer]:
        octets = encode_member_list(self._node.members.all())
        identity = (CLUSTER_ID, id_text(self._node.cluster_id))
        return succeed(PageAnswer(OK, octets, (identity, JSON)))

    def _version(self, path: str, headers: Headers, body: bytes) -> Deferred[PageAnswer]:
        members = self._node.members
        octets = encode_version_page(parse_version(members.server_version), members.version)
        return succeed(PageAnswer(OK, octets, (JSON,)))

    def _program(self, path: str, headers: Headers, body: bytes) -> Deferred[PageAnswer]:
        return succeed(PageAnswer(OK, b"%b %b\n" % (PROGRAM_NAME, __version__.encode()), (TEXT,)))

    def _downgrade_enabled(self, path: str, headers: Headers, body: bytes) -> Deferred[PageAnswer]:
        answer: Deferred[PageAnswer] = Deferred()

        def read(error: Exception | None) -> None:
            if error is not None:
                answer.callback(text(FAILED, f"failed linearized read: {status_of(error)[1]}"))
                return
            enabled = self._node.members.downgrade_target is not None
            answer.callback(PageAnswer(OK, b"true" if enabled else b"false", (TEXT,)))

        self._node.linearize(read)
        return answer

    def _hash_kv(self, path: str, headers: Headers, body: bytes) -> Deferred[PageAnswer]:
        wanted = headers.get(CLUSTER_ID.lower())
        if wanted is not None and wanted != id_text(self._node.cluster_id):
            return succeed(text(MISMATCH, "cluster ID mismatch"))
        try:
            request: Any = json.loads(body)
            revision = int(request.get("revision") or 0)
        except (ValueError, AttributeError, TypeError, RecursionError, OverflowError):
            return succeed(text(BAD_REQUEST, "error unmarshalling request"))
        answer: Deferred[PageAnswer] = Deferred()

        def hashed(found: KeyHash | ErrandError | MvccError) -> None:
            if isinstance(found, MvccError):
                answer.callback(text(BAD_REQUEST, status_of(found)[1].removeprefix("etcdserver: ")))
                return
            if isinstance(found, ErrandError):
                answer.callback(text(FAILED, status_of(found)[1]))
                return
            record: dict[str, object] = {"header": {"revision": found.revision}}
            if found.value:
                record["hash"] = found.value
            record["compact_revision"] = found.compact_revision
            record["hash_revision"] = found.hash_revision
            octets = json.dumps(record, separators=(",", ":")).encode()
            answer.callback(PageAnswer(OK, octets, (JSON,)))

        self._node.hashes.compute(revision, hashed)
        return answer

    # For followers.

    def _renew(self, path: str, headers: Headers, body: bytes) -> Deferred[PageAnswer]:
        try:
            request = pb.LeaseKeepAliveRequest.FromString(body)
        except DecodeError:
            return succeed(text(BAD_REQUEST, "error unmarshalling request"))
        answer: Deferred[PageAnswer] = Deferred()

        def renewed(error: Exception | None, ttl_s: int) -> None:
            if error is not None:
                answer.callback(_lease_failure(error))
            elif ttl_s <= 0:
                answer.callback(text(NOT_FOUND, "lease not found"))
            else:
                response = pb.LeaseKeepAliveResponse(ID=request.ID, TTL=ttl_s)
                answer.callback(PageAnswer(OK, response.SerializeToString(), (PROTOBUF,)))

        self._leases.renew(request.ID, renewed)
        return answer

    def _time_to_live(self, path: str, headers: Headers, body: bytes) -> Deferred[PageAnswer]:
        try:
            request = leasepb.LeaseInternalRequest.FromString(body).LeaseTimeToLiveRequest
        except DecodeError:
            return succeed(text(BAD_REQUEST, "error unmarshalling request"))
        answer: Deferred[PageAnswer] = Deferred()

        def found(error: Exception | None, lease: bytes | None) -> None:
            if error is not None:
                answer.callback(_lease_failure(error))
            elif lease is None:
                answer.callback(text(NOT_FOUND, "lease not found"))
            else:
                whole = delimited(LEASE_TAG, EMPTY_HEADER + lease)
                answer.callback(PageAnswer(OK, whole, (PROTOBUF,)))

        self._leases.time_to_live(request.ID, request.keys, found)
        return answer

    def _promote(self, path: str, headers: Headers, body: bytes) -> Deferred[PageAnswer]:
        try:
            member_id = promotion_id(path[len(PROMOTE) :])
        except ValueError as error:
            return succeed(text(NOT_FOUND, str(error)))
        answer: Deferred[PageAnswer] = Deferred()

        def promoted(call: Call, error: Exception | None) -> None:
            status, octets = promotion_answer(error, self._node.members.all())
            kind = TEXT if status in (NOT_FOUND, MISMATCH) else JSON
            answer.callback(PageAnswer(status, octets, (kind,)))

        self._cluster.promote(member_id, NO_CALL, promoted)
        return answer


def _lease_failure(error: Exception) -> PageAnswer:
    if isinstance(error, RequestTimeoutError):
        return text(TIMEOUT, "waiting for node to catch up its applied index has timed out")
    return text(FAILED, "not a primary lessor")
