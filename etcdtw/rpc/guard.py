"""Who asks, and may he?  The questions of all services about a call's caller.

Who asks is told by his token, or without one by the certificate that his connection has proved.
What he may do is decided in `auth.access`; which call needs what stands in `needs`.

Source: etcd 3.7.3.  While auth is off nothing is looked at, not even a token.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from etcdtw.auth.access import Access
from etcdtw.auth.errors import InvalidTokenError, PermissionDeniedError, UserNameEmptyError
from etcdtw.auth.key_check import KeyCheck
from etcdtw.auth.rights import Rights
from etcdtw.auth.seams import Tokens
from etcdtw.auth.store import AuthStore
from etcdtw.auth.values import ROOT
from etcdtw.grpc.caller import Caller
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire.entry_header import NOBODY, Asker
from etcdtw.wire.requests import Txn

KNOWN_S: Final = 1.0
"""How long it is believed that a caller is who he was: a token is noted as used once a second."""


class _Known:
    """Who a caller is, what he may do, and for how long this is believed."""

    __slots__ = ("asker", "epoch", "rights", "until_s")

    def __init__(self, asker: Asker, rights: Rights, epoch: object, until_s: float) -> None:
        self.asker = asker
        self.rights = rights
        self.epoch = epoch
        self.until_s = until_s


class Guard:
    """Answers for one member.

    trusts_certificates  ``--client-cert-auth``, without which a name in one means nothing
    seconds              a clock that only goes forward
    """

    def __init__(
        self,
        store: AuthStore,
        access: Access,
        tokens: Tokens,
        *,
        trusts_certificates: bool = False,
        seconds: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.store = store
        self.switch = store.switch
        """Whether anybody may be refused anything."""
        self._access = access
        self._tokens = tokens
        self._trusts_certificates = trusts_certificates
        self._seconds = seconds

    @property
    def revision(self) -> int:
        """The revision of users and roles."""
        return self.store.revision

    def identify(self, caller: Caller) -> Asker | Exception:
        """Return on whose behalf ``caller`` asks, or why he may not."""
        known = self._known(caller)
        if known is not None:
            return known.asker
        store = self.store
        token = caller.token
        if token is not None:
            asker = self._tokens.asker_of(token, store.revision, caller.address)
            if asker is None:
                return InvalidTokenError()
        elif self._trusts_certificates and caller.is_certified:
            asker = Asker(caller.common_name, store.revision)
        else:
            return NOBODY
        rights = store.rights(asker.user)
        if rights is not None and asker.auth_revision >= store.revision:
            until_s = self._seconds() + KNOWN_S
            caller.memo = _Known(asker, rights, store.epoch, until_s)
        return asker

    def _known(self, caller: Caller) -> _Known | None:
        """Return what is still believed of him."""
        known = caller.memo
        if (
            isinstance(known, _Known)
            and known.epoch is self.store.epoch
            and self._seconds() < known.until_s
        ):
            return known
        return None

    def own(self) -> Asker:
        """Return on whose behalf this member asks for itself."""
        return Asker(ROOT, self.store.revision)

    # What services ask before they do something.

    def _refusal(
        self, caller: Caller, refusal_of: Callable[[Asker], Exception | None]
    ) -> Exception | None:
        """Say why ``caller`` is nobody, or what ``refusal_of`` says of who he is."""
        if not self.switch.is_on:
            return None
        asker = self.identify(caller)
        return asker if isinstance(asker, Exception) else refusal_of(asker)

    def user_refusal(self, caller: Caller) -> Exception | None:
        """Any user will do."""
        return self._refusal(caller, self._access.user_refusal)

    def admin_refusal(self, caller: Caller) -> Exception | None:
        """Nobody but users with the role ``root``."""
        return self._refusal(caller, self._access.admin_refusal)

    def token_refusal(self, caller: Caller) -> Exception | None:
        """Everybody, but no token that is none."""
        return self._refusal(caller, lambda asker: None)

    def user_get_refusal(self, caller: Caller, name: str) -> Exception | None:
        """Looking at a user."""
        return self._refusal(caller, lambda asker: self._access.user_get_refusal(asker, name))

    def role_get_refusal(self, caller: Caller, name: str) -> Exception | None:
        """Looking at a role."""
        return self._refusal(caller, lambda asker: self._access.role_get_refusal(asker, name))

    def read_refusal(self, caller: Caller, request: pb.RangeRequest | Txn) -> Exception | None:
        """Reading a range, or a txn that only reads."""
        if not isinstance(request, Txn):
            return self.range_refusal(caller, request.key, request.range_end)
        txn = request
        return self._refusal(caller, lambda asker: self._access.txn_refusal(asker, txn))

    def range_refusal(self, caller: Caller, key: bytes, range_end: bytes) -> Exception | None:
        """Reading a range."""
        if not self.switch.is_on:
            return None
        known = self._known(caller)
        if known is not None:
            rights = known.rights
            if rights.is_admin or rights.read.covers(key, range_end):
                return None
            return PermissionDeniedError()
        asker = self.identify(caller)
        if isinstance(asker, Exception):
            return asker
        return self._access.read_refusal(asker, key, range_end)

    def watch_refusal(self, asker: Asker, key: bytes, range_end: bytes) -> Exception | None:
        """Watching a range, in the form in which the client named it."""
        return self._access.read_refusal(asker, key, range_end)

    def renewal_check(self, caller: Caller, lease_id: int) -> KeyCheck | Exception | None:
        """Renewing a lease: as writing its keys, which are to be shown to the answer; None: yes."""
        return self._key_check(caller, lambda asker: self._access.renewal_check(asker, lease_id))

    def may_renew(self, check: KeyCheck, lease_id: int, count: int) -> None:
        """All ``count`` keys of a lease were shown to its `renewal_check`: remember it."""
        self._access.may_renew(check, lease_id, count)

    def listing_check(self, caller: Caller) -> KeyCheck | Exception | None:
        """Seeing leases with their keys: as reading them; as `renewal_check`."""
        return self._key_check(caller, self._access.listing_check)

    def _key_check(
        self, caller: Caller, check_of: Callable[[Asker], KeyCheck | None]
    ) -> KeyCheck | Exception | None:
        if not self.switch.is_on:
            return None
        asker = self.identify(caller)
        if isinstance(asker, Exception):
            return asker
        return UserNameEmptyError() if asker is NOBODY else check_of(asker)
