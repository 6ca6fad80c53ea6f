"""Users and roles for rigs of other parts, and hashes that are made when a test says so."""

from __future__ import annotations

from collections.abc import Callable

from etcdtw.apply.auth_entries import AuthEntries
from etcdtw.auth.seams import Buckets
from etcdtw.auth.store import AuthStore
from etcdtw.mvcc.store import Store

CLUSTER_ID = 0xC1


class LateHash:
    """A hash that is made by `make`."""

    def __init__(self, password: bytes, salt: bytes) -> None:
        self.password = password
        self.salt = salt
        self._made: bytes | None = None
        self._resume: Callable[[], None] | None = None

    def take(self) -> bytes | None:
        return self._made

    def when_done(self, resume: Callable[[], None]) -> None:
        self._resume = resume

    def make(self) -> None:
        self._made = b"hash of " + self.password + b" with " + self.salt.hex().encode()
        if self._resume is not None:
            self._resume()


class LateHashes:
    """Starts hashes; implements `apply.auth_entries.StartHash`."""

    def __init__(self) -> None:
        self.started: list[LateHash] = []

    def __call__(self, password: bytes, salt: bytes) -> LateHash:
        self.started.append(LateHash(password, salt))
        return self.started[-1]


def auth_entries(
    buckets: Buckets,
    store: Store,
    hashes: LateHashes | None = None,
    auth: AuthStore | None = None,
    version: str = "3.7.0",
) -> AuthEntries:
    """Return what applies entries about users and roles, on ``buckets``."""
    if auth is None:
        auth = AuthStore(buckets)
    return AuthEntries(
        auth, store, CLUSTER_ID, lambda: version, LateHashes() if hashes is None else hashes
    )
