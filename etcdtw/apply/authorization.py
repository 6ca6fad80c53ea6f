"""Which entries the rules of users and roles are asked about, and with which question."""

from __future__ import annotations

from typing import Any, Final

from etcdtw.apply.auth_entries import MANAGING
from etcdtw.apply.permissions import LongCheckError
from etcdtw.auth.access import Access, LongLeaseError
from etcdtw.auth.store import AuthStore
from etcdtw.wire.entry_header import Asker

# etcd's numbers, as in `applier`, which knows this module by its seam only.
_FIELD_PUT: Final = 4
_FIELD_DELETE_RANGE: Final = 5
_FIELD_TXN: Final = 6
_FIELD_LEASE_REVOKE: Final = 9


class Authorization:
    """Implements `permissions.Permissions`.

    Entries of all other kinds were asked about before they were proposed, where that is etcd's
    way: compactions, grants of leases, alarms, the cluster's own.
    """

    def __init__(self, store: AuthStore, access: Access) -> None:
        self.switch = store.switch
        self._access = access

    def refusal(self, asker: Asker, field: int, request: Any) -> Exception | None:
        """Return why ``asker`` is refused a request of InternalRaftRequest's ``field``, if so.

        Raises `LongCheckError`.
        """
        if field == _FIELD_PUT and not request.lease:
            return self._access.put_refusal(asker, request)
        try:
            return self._refusal(asker, field, request)
        except LongLeaseError as long:
            steps = self._access.lease_steps(asker, long.lease_id)
            raise LongCheckError(steps) from None

    def checked(self) -> None:
        """Forget what steps found for the entry."""
        self._access.applied()

    def _refusal(self, asker: Asker, field: int, request: Any) -> Exception | None:
        access = self._access
        if field == _FIELD_PUT:
            return access.put_refusal(asker, request)
        if field == _FIELD_TXN:
            return access.txn_refusal(asker, request)
        if field == _FIELD_DELETE_RANGE:
            return access.delete_refusal(asker, request)
        if field == _FIELD_LEASE_REVOKE:
            refusal = access.lease_change_refusal(asker, request.ID)
            if refusal is None:
                access.forget_lease(request.ID)
            return refusal
        return access.admin_refusal(asker) if field in MANAGING else None
