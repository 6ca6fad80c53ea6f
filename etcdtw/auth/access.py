"""May who asked do this?  The rules for each kind of request, on users and roles as they are now.

Each answers with an `AuthError`, or None: yes.  A request that does several things is refused
whole, whichever part of it would be done: of a txn both branches, and all those within.

Source: etcd 3.7.3; CVE-2026-33343 (txns within txns), CVE-2026-44283 (previous values and leases
of puts within txns) and GHSA-xg4h-6gfc-h4m8 (open ends of watches) are rules here.
"""

from __future__ import annotations

from etcdtw.auth.errors import (
    AuthError,
    OldRevisionError,
    PermissionDeniedError,
    UserNameEmptyError,
    UserNotFoundError,
)
from etcdtw.auth.rights import Rights
from etcdtw.auth.seams import Attachments
from etcdtw.auth.store import AuthStore
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire.entry_header import Asker
from etcdtw.wire.requests import Op, Put, Txn


class Access:
    """The rules, for one member's users and roles."""

    def __init__(self, store: AuthStore, attachments: Attachments) -> None:
        self._store = store
        self._attachments = attachments

    # Whoever it is.

    def user_refusal(self, asker: Asker) -> AuthError | None:
        """Refuse nobody; any user will do, even one whose certificate bears no name."""
        if self._store.is_enabled and not asker.user and not asker.auth_revision:
            return UserNameEmptyError()
        return None

    def admin_refusal(self, asker: Asker) -> AuthError | None:
        """Refuse everybody without the role ``root``."""
        if not self._store.is_enabled:
            return None
        if not asker.user:
            return UserNameEmptyError()
        rights = self._store.rights(asker.user)
        if rights is None:
            return UserNotFoundError()
        return None if rights.is_admin else PermissionDeniedError()

    def is_admin(self, asker: Asker) -> bool:
        """Whether `admin_refusal` has nothing to say."""
        return self.admin_refusal(asker) is None

    def user_get_refusal(self, asker: Asker, name: str) -> AuthError | None:
        """Everybody may look at himself."""
        refusal = self.admin_refusal(asker)
        return None if name == asker.user else refusal

    def role_get_refusal(self, asker: Asker, name: str) -> AuthError | None:
        """Everybody may look at the roles he has."""
        refusal = self.admin_refusal(asker)
        if refusal is not None:
            user = self._store.user(asker.user)
            if user is not None and name in user.roles:
                return None
        return refusal

    # Keys.

    def _rights(self, asker: Asker) -> Rights | AuthError:
        """Return what ``asker`` may do, or why he is not even asked."""
        store = self._store
        revision = asker.auth_revision
        if revision == 0:
            return UserNameEmptyError()
        if revision < store.revision:
            return OldRevisionError()
        return store.rights(asker.user) or PermissionDeniedError()

    def read_refusal(self, asker: Asker, key: bytes, range_end: bytes) -> AuthError | None:
        """Reading a range: all of it, or nothing."""
        if not self._store.is_enabled:
            return None
        rights = self._rights(asker)
        if isinstance(rights, AuthError):
            return rights
        if rights.is_admin or rights.read.covers(key, range_end):
            return None
        return PermissionDeniedError()

    def write_refusal(self, asker: Asker, key: bytes, range_end: bytes) -> AuthError | None:
        """Changing a range: all of it, or nothing."""
        if not self._store.is_enabled:
            return None
        rights = self._rights(asker)
        if isinstance(rights, AuthError):
            return rights
        if rights.is_admin or rights.write.covers(key, range_end):
            return None
        return PermissionDeniedError()

    def put_refusal(self, asker: Asker, put: Put) -> AuthError | None:
        """A put writes its key, may read it, and ties it to a lease that others' keys hang on."""
        refusal = self.write_refusal(asker, put.key, b"")
        if refusal is None and put.lease:
            refusal = self.lease_write_refusal(asker, put.lease)
        if refusal is None and put.prev_kv:
            refusal = self.read_refusal(asker, put.key, b"")
        return refusal

    def delete_refusal(self, asker: Asker, request: pb.DeleteRangeRequest) -> AuthError | None:
        """A delete writes its range, and may read it."""
        refusal = self.write_refusal(asker, request.key, request.range_end)
        if refusal is None and request.prev_kv:
            refusal = self.read_refusal(asker, request.key, request.range_end)
        return refusal

    def txn_refusal(self, asker: Asker, txn: Txn) -> AuthError | None:
        """Everything a txn might do."""
        for compare in txn.compare:
            refusal = self.read_refusal(asker, compare.key, compare.range_end)
            if refusal is not None:
                return refusal
        for op in (*txn.success, *txn.failure):
            refusal = self._op_refusal(asker, op)
            if refusal is not None:
                return refusal
        return None

    def _op_refusal(self, asker: Asker, op: Op) -> AuthError | None:
        if op.put is not None:
            return self.put_refusal(asker, op.put)
        if op.range is not None:
            return self.read_refusal(asker, op.range.key, op.range.range_end)
        if op.delete_range is not None:
            return self.delete_refusal(asker, op.delete_range)
        return None if op.txn is None else self.txn_refusal(asker, op.txn)

    # Leases: whoever ends one deletes its keys.

    def lease_write_refusal(self, asker: Asker, lease_id: int) -> AuthError | None:
        """Ending, renewing or joining a lease: as changing each of its keys."""
        if not self._store.is_enabled or self.is_admin(asker):
            return None
        for key in self._attachments.attached(lease_id):
            refusal = self.write_refusal(asker, key, b"")
            if refusal is not None:
                return refusal
        return None

    def lease_read_refusal(self, asker: Asker, lease_id: int) -> AuthError | None:
        """Seeing the keys of a lease: as reading each of them."""
        if not self._store.is_enabled or self.is_admin(asker):
            return None
        for key in self._attachments.attached(lease_id):
            refusal = self.read_refusal(asker, key, b"")
            if refusal is not None:
                return refusal
        return None
