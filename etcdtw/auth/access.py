"""May who asked do this?  The rules for each kind of request, on users and roles as they are now.

Each answers with an `AuthError`, or None: yes.  A request that does several things is refused
whole, whichever part of it would be done: of a txn both branches, and all those within.

Source: etcd 3.7.3; CVE-2026-33343 (txns within txns), CVE-2026-44283 (previous values and leases
of puts within txns) and GHSA-xg4h-6gfc-h4m8 (open ends of watches) are rules here.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Final

from etcdtw.auth.errors import (
    AuthError,
    OldRevisionError,
    PermissionDeniedError,
    UserNameEmptyError,
    UserNotFoundError,
)
from etcdtw.auth.key_check import KNOWN_KEYS_MIN, KeyCheck, KnownLeases
from etcdtw.auth.rights import Rights
from etcdtw.auth.seams import Attachments
from etcdtw.auth.store import AuthStore
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire.entry_header import Asker
from etcdtw.wire.requests import Op, Put, Txn

LONG_LEASE_KEYS: Final = 200
"""Keys of a lease from which on they are not looked at in one go: 0.1 ms, of which a txn may have
128.  The entry is long then (`LongLeaseError`)."""
STEP_KEYS: Final = 500


class LongLeaseError(Exception):
    """Too many keys are attached to a lease to look at them in one go; nothing was changed.

    `Access.lease_steps` looks at them; then the question has an answer.
    """

    def __init__(self, lease_id: int) -> None:
        super().__init__(f"very many keys are attached to lease {lease_id}")
        self.lease_id = lease_id


class Access:
    """The rules, for one member's users and roles."""

    def __init__(
        self, store: AuthStore, attachments: Attachments, long_lease_keys: int = LONG_LEASE_KEYS
    ) -> None:
        self._store = store
        self._attachments = attachments
        self._long_lease_keys = long_lease_keys
        self._known = KnownLeases()
        # What the steps have found for the entry that is being applied.
        self._found: dict[tuple[Asker, int], AuthError | None] = {}

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
        rights = store.known_rights.get(asker.user)
        if rights is not None and revision >= store.revision:
            return rights
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
        store = self._store
        rights = store.known_rights.get(asker.user)
        if (
            rights is not None
            and not put.lease
            and asker.auth_revision >= store.revision
            and store.is_enabled
        ):
            if rights.is_admin or (
                rights.write.covers(put.key, b"")
                and (not put.prev_kv or rights.read.covers(put.key, b""))
            ):
                return None
            return PermissionDeniedError()
        refusal = self.write_refusal(asker, put.key, b"")
        if refusal is None and put.lease:
            refusal = self.lease_change_refusal(asker, put.lease)
        if refusal is None and put.prev_kv:
            refusal = self.read_refusal(asker, put.key, b"")
        if refusal is None and put.lease:
            self._known.attaches(put.lease, put.key)
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

    def renewal_check(self, asker: Asker, lease_id: int) -> KeyCheck | None:
        """Return what is to be asked of a lease's keys before it is renewed: may he change them?

        None: nothing.  The keys are many: who asks for them passes them on in steps.
        """
        if not self._store.is_enabled or self.is_admin(asker) or self._knows(asker, lease_id):
            return None
        return self._key_check(asker, writes=True)

    def listing_check(self, asker: Asker) -> KeyCheck | None:
        """Return what is to be asked of a lease's keys before they are told: may he read them?"""
        if not self._store.is_enabled or self.is_admin(asker):
            return None
        return self._key_check(asker, writes=False)

    def may_renew(self, check: KeyCheck, lease_id: int, count: int) -> None:
        """A `renewal_check` had no objection to any of the ``count`` keys of a lease."""
        check.passed(self._known, lease_id, count)

    def _key_check(self, asker: Asker, *, writes: bool) -> KeyCheck:
        rights = self._rights(asker)
        return KeyCheck(self._store, asker.user, rights, writes=writes)

    def lease_change_refusal(self, asker: Asker, lease_id: int) -> AuthError | None:
        """Ending or joining a lease where that is applied: the same.

        Raises `LongLeaseError`.
        """
        if not self._store.is_enabled or self.is_admin(asker) or self._knows(asker, lease_id):
            return None
        place = (asker, lease_id)
        if place in self._found:
            return self._found[place]
        if self._attachments.has_attached(lease_id, self._long_lease_keys):
            raise LongLeaseError(lease_id)
        return self._looked_at(asker, lease_id)

    def lease_steps(self, asker: Asker, lease_id: int) -> Generator[None, None, None]:
        """Answer `lease_change_refusal` for the entry that is being applied, in steps.

        Everything before that entry must be durable.
        """
        refusal: AuthError | None = None
        position = b""
        while True:
            keys, position = self._attachments.attached_durable(lease_id, position, STEP_KEYS)
            refusal = self._keys_refusal(asker, keys)
            if refusal is not None or not position:
                break
            yield None
        self._found[asker, lease_id] = refusal
        if refusal is None:
            self._remember(asker, lease_id)

    def applied(self) -> None:
        """The entry for which steps were taken is applied: what they found is over."""
        self._found.clear()

    def forget_lease(self, lease_id: int) -> None:
        """The lease ends."""
        self._known.forget(lease_id)

    def _looked_at(self, asker: Asker, lease_id: int) -> AuthError | None:
        keys = self._attachments.attached(lease_id)
        refusal = self._keys_refusal(asker, keys)
        if refusal is None and len(keys) >= KNOWN_KEYS_MIN:
            self._remember(asker, lease_id)
        return refusal

    def _keys_refusal(self, asker: Asker, keys: list[bytes]) -> AuthError | None:
        for key in keys:
            refusal = self.write_refusal(asker, key, b"")
            if refusal is not None:
                return refusal
        return None

    def _knows(self, asker: Asker, lease_id: int) -> bool:
        found = self._known.rights(lease_id, asker.user)
        return found is not None and found is self._rights(asker)

    def _remember(self, asker: Asker, lease_id: int) -> None:
        rights = self._rights(asker)
        if not isinstance(rights, AuthError):  # or no key is left, or who asked is nobody
            self._known.remember(lease_id, asker.user, rights)
