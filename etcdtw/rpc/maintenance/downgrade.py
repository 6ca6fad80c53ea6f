"""Maintenance.Downgrade: is the next lower line possible, go there, call it off.

The cluster's version follows by its leader (`cluster.version.decide_cluster_version`).
Source: etcd v3 api and its semantics of 3.6; error texts are in `rpc.errors`.
"""

from __future__ import annotations

from etcdtw.apply.applier import FIELD_DOWNGRADE_INFO_SET
from etcdtw.apply.errors import NotCapableError
from etcdtw.cluster.version import (
    DOWNGRADE_ENTRIES_MIN,
    V3_ENTRIES_MIN,
    Version,
    VersionError,
    downgrade_target_of,
    parse_downgrade_target,
)
from etcdtw.grpc.call import UNKNOWN, Call, MethodTable, StatusError
from etcdtw.mvcc.applied import Applied
from etcdtw.node.facade import Facade
from etcdtw.rpc.decode import decode
from etcdtw.rpc.errors import fail, status_error
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire import membershippb

VALIDATE = 0
ENABLE = 1
CANCEL = 2


class DowngradeService:
    """Judges downgrades and writes them into the log."""

    def __init__(self, node: Facade) -> None:
        self._node = node

    def register(self, methods: MethodTable) -> None:
        """Add this service's method."""
        methods.add_unary("/etcdserverpb.Maintenance/Downgrade", self.downgrade)

    def downgrade(self, call: Call, message: bytes) -> None:
        """Ask the quorum for the present state, then judge, enable or cancel."""
        request = decode(pb.DowngradeRequest, message)
        action = int(request.action)
        if action not in (VALIDATE, ENABLE, CANCEL):
            raise StatusError(UNKNOWN, "etcdserver: unknown method")
        target = _target(request.version) if action != CANCEL else None

        def read(call: Call, error: Exception | None) -> None:
            if error is not None:
                fail(call, error)
                return
            try:
                self._act(call, action, target)
            except StatusError as refusal:
                fail(call, refusal)

        self._node.read(call, read)

    def _act(self, call: Call, action: int, target: Version | None) -> None:
        members = self._node.members
        current = members.version
        if current is None:
            raise status_error("ClusterVersionUnavailable")
        if current < DOWNGRADE_ENTRIES_MIN:
            # Older members do not know the entry, and would die of it.
            fail(call, NotCapableError())
            return
        if target is None:
            self._cancel(call, current)
            return
        if target != downgrade_target_of(current):
            raise status_error("InvalidDowngradeTargetVersion")
        if members.downgrade_target is not None:
            raise status_error("DowngradeInProcess")
        if action == ENABLE:
            self._propose(call, True, str(target))
        else:
            call.reply(self._body())

    def _cancel(self, call: Call, current: Version) -> None:
        if self._node.members.downgrade_target is None and current < V3_ENTRIES_MIN:
            raise status_error("NoInflightDowngrade")
        self._propose(call, False, "")

    def _propose(self, call: Call, enabled: bool, target: str) -> None:
        request = membershippb.DowngradeInfoSetRequest(enabled=enabled, ver=target)
        self._node.propose(
            FIELD_DOWNGRADE_INFO_SET, request.SerializeToString(), request, call, self._answer
        )

    def _answer(self, call: Call, applied: Applied) -> None:
        if applied.error is not None:
            fail(call, applied.error)
        else:
            call.reply(self._body())

    def _body(self) -> bytes:
        """Name the cluster's version as operators write it: ``3.7``."""
        version = self._node.members.cluster_version.rpartition(".")[0]
        response = pb.DowngradeResponse(version=version)
        return self._node.header(self._node.store.revision) + response.SerializeToString()


def _target(text: str) -> Version:
    try:
        return parse_downgrade_target(text)
    except VersionError:
        raise status_error("WrongDowngradeVersionFormat") from None
