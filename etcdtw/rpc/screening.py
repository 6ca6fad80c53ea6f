"""What is decided before a method is called: may a learner, or a member whose keys are known to
differ, serve it, its caller's version label and ``hasleader``.

Worked out once for each distinct header block; only callers that ask for a leader, and those
who came before this member was a voter, pay for it on every call.  Source: etcd v3 api,
metadata of clients and rules of learners.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from etcdtw.apply.errors import CorruptError, LearnerError, NoLeaderError
from etcdtw.grpc.call import BIDI_STREAM, Call, Metadata, Method
from etcdtw.node.facade import Facade
from etcdtw.rpc.decode import decode
from etcdtw.rpc.errors import fail, status_error
from etcdtw.wire import etcdserverpb as pb

CLIENT_API_VERSION: Final = b"client-api-version"
HAS_LEADER: Final = b"hasleader"
UNKNOWN_VERSION: Final = "unknown"
"""etcd's label for clients that name none."""
OTHER_VERSION: Final = "other"
VERSIONS_MAX: Final = 32
"""Distinct labels; more would let a client grow the metrics without end."""
VERSION_LENGTH_MAX: Final = 32


RANGE: Final = "/etcdserverpb.KV/Range"
LEARNER_METHODS: Final = frozenset(
    ("/etcdserverpb.Maintenance/Status", "/etcdserverpb.Maintenance/Snapshot")
)
"""What a learner answers, besides serializable ranges; not even the health service."""


CORRUPT_MEMBER_PREFIXES: Final = (
    "/etcdserverpb.Maintenance/",
    "/etcdserverpb.Cluster/",
    "/grpc.health.v1.Health/",
)
"""What a member whose keys differ still answers: what it takes to look at it and replace it."""
SNAPSHOT: Final = "/etcdserverpb.Maintenance/Snapshot"
"""Its snapshot is of no use to anybody."""


Admit = Callable[[Method, Metadata], Method]
"""What to call in the place of a method, by callers with this metadata."""


class Screening:
    """Implements `grpc.call.Screen` for etcd's services.  One per member.

    ``admit`` None: everybody may call everything.
    """

    def __init__(self, source: Facade, admit: Admit | None = None) -> None:
        self._source = source
        self._admit = admit
        self._versions: set[str] = set()

    def __call__(self, method: Method, metadata: Metadata) -> tuple[str, Method]:
        """Return the client's version as a label, and the method to call.

        Raises `StatusError` for a version that is no text.
        """
        version = self._version(metadata(CLIENT_API_VERSION))
        if self._admit is not None:
            method = self._admit(method, metadata)
        if not self._source.is_voter and method.path not in LEARNER_METHODS:
            method = _UnlessLearner(self._source, method).method
        if self._source.is_quarantined and (
            method.path == SNAPSHOT or not method.path.startswith(CORRUPT_MEMBER_PREFIXES)
        ):
            method = UnlessRefused(self._corrupt_refusal, method).method
        # Bidirectional streams look for themselves: they must also end when the leader goes.
        if metadata(HAS_LEADER) != b"true" or method.kind == BIDI_STREAM:
            return version, method
        return version, UnlessRefused(self._no_leader_refusal, method).method

    def _corrupt_refusal(self, call: Call) -> Exception | None:
        """While this member's keys are known to differ."""
        return CorruptError() if self._source.is_quarantined else None

    def _no_leader_refusal(self, call: Call) -> Exception | None:
        """While no leader is known."""
        return None if self._source.leader_id else NoLeaderError()

    def _version(self, octets: bytes | None) -> str:
        if octets is None:
            return UNKNOWN_VERSION
        try:
            version = octets.decode()
        except UnicodeDecodeError:
            raise status_error("InvalidClientAPIVersion") from None
        if version not in self._versions:
            if len(self._versions) >= VERSIONS_MAX or len(version) > VERSION_LENGTH_MAX:
                return OTHER_VERSION
            self._versions.add(version)
        return version


class _UnlessLearner:
    """A method that is refused while this member learns, but for serializable ranges."""

    def __init__(self, source: Facade, inner: Method) -> None:
        self._source = source
        self._inner = inner
        self._is_range = inner.path == RANGE
        self.method = inner.served_by(self._unary, self._opened)

    def _unary(self, call: Call, message: bytes) -> bytes | None:
        if self._source.is_learner and not (
            self._is_range and decode(pb.RangeRequest, message).serializable
        ):
            raise status_error("NotSupportedForLearner")
        assert self._inner.unary is not None
        return self._inner.unary(call, message)

    def _opened(self, call: Call) -> None:
        if self._source.is_learner:
            fail(call, LearnerError())
            return
        assert self._inner.opened is not None
        self._inner.opened(call)


class UnlessRefused:
    """A method that is not called while ``refusal`` says why not."""

    def __init__(self, refusal: Callable[[Call], Exception | None], inner: Method) -> None:
        self._refusal = refusal
        self._inner = inner
        self.method = inner.served_by(self._unary, self._opened)

    def _unary(self, call: Call, message: bytes) -> bytes | None:
        refusal = self._refusal(call)
        if refusal is not None:
            fail(call, refusal)
            return None
        assert self._inner.unary is not None
        return self._inner.unary(call, message)

    def _opened(self, call: Call) -> None:
        refusal = self._refusal(call)
        if refusal is not None:
            fail(call, refusal)
            return
        assert self._inner.opened is not None
        self._inner.opened(call)
