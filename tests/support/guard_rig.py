"""A guard with two users: ``ann``, who may have nothing yet, and ``root``."""

from __future__ import annotations

from etcdtw.auth.access import Access
from etcdtw.auth.store import AuthStore
from etcdtw.auth.tokens import SimpleTokens
from etcdtw.auth.values import READWRITE, Permission
from etcdtw.grpc.caller import Caller
from etcdtw.rpc.guard import Guard
from tests.support.model_backend import ModelBackend

CERTIFIED = Caller("", "ann", is_certified=True)
ANN = Caller("", "", b"a.1")
ROOT = Caller("", "", b"r.1")
WRONG = Caller("", "ann", b"no.1", is_certified=True)


class GuardRig:
    """``permit`` gives ``ann`` a key."""

    def __init__(
        self, backend: ModelBackend | None = None, *, trusts_certificates: bool = True
    ) -> None:
        self.backend = backend or ModelBackend()
        tokens = self.tokens = SimpleTokens(1000, lambda: 0)
        self.auth = AuthStore(self.backend, tokens)
        for name in ("root", "ann"):
            self.auth.add_user(name, b"", no_password=False)
        self.auth.grant_role("root", "root")
        self.auth.enable()
        tokens.assigned("a.1", "ann")
        tokens.assigned("r.1", "root")
        self.guard = Guard(
            self.auth,
            Access(self.auth, self.backend),
            tokens,
            trusts_certificates=trusts_certificates,
        )

    def permit(self, key: bytes, range_end: bytes = b"") -> None:
        """Let ``ann`` read and write a range."""
        if "r" not in self.auth.role_names():
            self.auth.add_role("r")
            self.auth.grant_role("ann", "r")
        self.auth.grant_permission("r", Permission(READWRITE, key, range_end))
