"""May one user have each key of a lease?  Asked in steps, as a lease may have a million keys."""

from __future__ import annotations

from typing import Final

from etcdtw.auth.errors import AuthError, OldRevisionError, PermissionDeniedError
from etcdtw.auth.rights import Rights
from etcdtw.auth.store import AuthStore

KNOWN_KEYS_MIN: Final = 16
"""Keys of a lease from which on it is remembered that a user may change all of them."""
KNOWN_LEASES_MAX: Final = 10_000


class KnownLeases:
    """By lease and user, the rights under which he was found to be allowed to change all its keys.

    As keys come to a lease only through puts, that holds as long as the rights if `attaches` is
    told of each.
    """

    def __init__(self) -> None:
        self._known: dict[int, dict[str, Rights]] = {}

    def rights(self, lease_id: int, user: str) -> Rights | None:
        """Return the rights with which ``user`` was found to be allowed all."""
        known = self._known.get(lease_id)
        return None if known is None else known.get(user)

    def remember(self, lease_id: int, user: str, rights: Rights) -> None:
        """``user`` may change all keys that the lease has now."""
        if len(self._known) >= KNOWN_LEASES_MAX:
            self._known.clear()
        self._known.setdefault(lease_id, {})[user] = rights

    def attaches(self, lease_id: int, key: bytes) -> None:
        """A key may come to a lease: only who may change it, too, is still allowed all keys."""
        known = self._known.get(lease_id)
        if known is None:
            return
        for user, rights in list(known.items()):
            if not rights.write.covers(key, b""):
                del known[user]
        if not known:
            del self._known[lease_id]

    def forget(self, lease_id: int) -> None:
        """The lease ends."""
        self._known.pop(lease_id, None)


class KeyCheck:
    """The question for one user, under the rights that he has when it begins."""

    def __init__(
        self, store: AuthStore, user: str, rights: Rights | AuthError, *, writes: bool
    ) -> None:
        """``rights``: his, or why he has none; ``writes``: may he change the keys, or read them?"""
        self._store = store
        self._revision = store.revision
        self._user = user
        self._rights = rights
        self._writes = writes

    def refusal(self, keys: list[bytes]) -> AuthError | None:
        """Say why he may not have one of ``keys``, or that users and roles have changed."""
        if self._store.revision != self._revision:
            return OldRevisionError()
        rights = self._rights
        if isinstance(rights, AuthError):
            return rights if keys else None
        covers = (rights.write if self._writes else rights.read).covers
        for key in keys:
            if not covers(key, b""):
                return PermissionDeniedError()
        return None

    def passed(self, known: KnownLeases, lease_id: int, count: int) -> None:
        """He may have all ``count`` keys that the lease has now."""
        rights = self._rights
        if self._writes and count >= KNOWN_KEYS_MIN and not isinstance(rights, AuthError):
            known.remember(lease_id, self._user, rights)
