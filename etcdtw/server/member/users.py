"""Users and roles of one member put together: who asks, what he may do, and his password."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from etcdtw.apply.auth_entries import AuthEntries
from etcdtw.apply.authorization import Authorization
from etcdtw.auth.access import Access
from etcdtw.auth.seams import Tokens
from etcdtw.auth.store import AuthStore
from etcdtw.auth.tokens import LETTERS, LETTERS_COUNT, SimpleTokens
from etcdtw.config.auth_token import JWT, AuthToken
from etcdtw.config.config import Config
from etcdtw.mvcc.backend import Backend
from etcdtw.mvcc.store import Store
from etcdtw.node.facade import Facade
from etcdtw.rpc.auth.authentication import Authentication
from etcdtw.rpc.auth.passwords import Passwords
from etcdtw.rpc.auth.service import AuthService
from etcdtw.rpc.guard import Guard
from etcdtw.rpc.watch import WatchRights
from etcdtw.server.member.runtime import Runtime
from etcdtw.server.start.token_files import TokenFiles

if TYPE_CHECKING:
    from etcdtw.rpc.auth.signed_tokens import SignedTokens


@dataclass(frozen=True, kw_only=True)
class Users:
    """Who may do what on a member, and what compares passwords."""

    guard: Guard
    passwords: Passwords
    authorization: Authorization
    signer: SignedTokens | None
    """Makes signed tokens; None: tokens are letters."""

    def entries(
        self, store: Store, cluster_id: int, cluster_version: Callable[[], str]
    ) -> AuthEntries:
        """Return what applies changes of them."""
        return AuthEntries(
            self.guard.store, store, cluster_id, cluster_version, self.passwords.start
        )

    def service(self, node: Facade) -> AuthService:
        """Return what clients call."""
        authentication = Authentication(
            node, self.guard.store, self.passwords, _token_letters, signer=self.signer
        )
        return AuthService(node, self.guard, self.passwords, authentication)

    def watch_rights(self, node: Facade, config: Config) -> WatchRights | None:
        """Return what ends watches with the right to them, unless a flag lets them go on."""
        if config.watch_outlives_permission:
            return None
        rights = WatchRights(node.clock)
        self.guard.store.on_change = rights.changed
        return rights


def open_users(
    runtime: Runtime, config: Config, state: Backend, time_ms: Callable[[], int]
) -> Users:
    """Return the users in ``state``; ``time_ms``: the clock by which tokens live."""
    tokens: Tokens
    signer = None
    if config.auth_token.kind == JWT:
        tokens = signer = _signed_tokens(runtime, config.auth_token)
        store = AuthStore(state)
    else:
        tokens = simple = SimpleTokens(config.auth_token_ttl_s * 1000, time_ms)
        store = AuthStore(state, simple)
    access = Access(store, state)
    reactor = runtime.reactor
    return Users(
        guard=Guard(
            store,
            access,
            tokens,
            trusts_certificates=config.client_tls.client_cert_auth,
            seconds=runtime.clock.seconds,
        ),
        passwords=Passwords(reactor.callInThread, reactor.callFromThread, config.bcrypt_cost),
        authorization=Authorization(store, access),
        signer=signer,
    )


def _signed_tokens(runtime: Runtime, token: AuthToken) -> SignedTokens:
    from etcdtw.rpc.auth.signed_tokens import SignedTokens  # PyJWT: where it is needed

    files = TokenFiles(token, runtime.clock.seconds)
    return SignedTokens(
        token.sign_method,
        files,
        token.ttl_s,
        lambda: runtime.unix_ms() / 1000,
        runtime.clock.seconds,
    )


def _token_letters() -> str:
    """Return what nobody guesses."""
    return "".join(secrets.choice(LETTERS) for _ in range(LETTERS_COUNT))
