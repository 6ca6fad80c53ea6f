"""Authenticate: a name and a password for a token.

The password is compared on this member alone, beside the reactor; what is proposed holds the name
and the letters of a token, which all members then know; a signed token is made for the answer.
When users or roles have changed while that went on, all of it is done again, as real members do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from etcdtw.apply.auth_entries import FIELD_AUTHENTICATE
from etcdtw.apply.errors import TooManyRequestsError
from etcdtw.auth.errors import (
    AuthFailedError,
    AuthNotEnabledError,
    NoPasswordUserError,
    OldRevisionError,
    VerifyOnlyError,
)
from etcdtw.auth.store import AuthStore
from etcdtw.grpc.call import INTERNAL, Call, StatusError
from etcdtw.mvcc.applied import Applied
from etcdtw.node.facade import Facade
from etcdtw.rpc.auth.attempts import Attempts
from etcdtw.rpc.auth.passwords import Passwords
from etcdtw.rpc.decode import decode
from etcdtw.rpc.errors import fail
from etcdtw.wire import etcdserverpb as pb

if TYPE_CHECKING:  # PyJWT: where it is needed
    from etcdtw.rpc.auth.signed_tokens import SignedTokens, Signing

UNSIGNED: Final = StatusError(INTERNAL, "the token could not be signed")
ROUNDS_MAX: Final = 20
"""How often a password is compared again because users or roles have changed meanwhile."""


class Authentication:
    """Hands out tokens.

    letters  makes those of a token, such as nobody guesses
    signer   makes signed tokens in the place of letters; None: letters do
    """

    def __init__(
        self,
        node: Facade,
        auth: AuthStore,
        passwords: Passwords,
        letters: Callable[[], str],
        attempts: Attempts | None = None,
        signer: SignedTokens | None = None,
    ) -> None:
        self._node = node
        self._auth = auth
        self._passwords = passwords
        self._letters = letters
        self._signer = signer
        self._attempts = Attempts() if attempts is None else attempts

    def authenticate(self, call: Call, message: bytes) -> None:
        """Answer with a token, in time."""
        request = decode(pb.AuthenticateRequest, message)
        _Attempt(self, call, request.name, request.password.encode()).begin()

    @property
    def node(self) -> Facade:
        return self._node

    def now_s(self) -> float:
        """Return the time by which attempts are counted."""
        return self._node.clock.seconds()

    def check(self, attempt: _Attempt, address: str) -> None:
        """Begin to compare a password; raises why it is not."""
        auth = self._auth
        if not auth.is_enabled:
            raise AuthNotEnabledError()
        if not self._attempts.may_try(address, attempt.name, self.now_s()):
            raise TooManyRequestsError()
        user = auth.user(attempt.name)
        if user is not None and user.no_password:
            raise NoPasswordUserError()
        attempt.revision = auth.revision
        password_hash = None if user is None else user.password
        self._passwords.check(attempt.password, password_hash, attempt.call, attempt.compared)

    def failed(self, attempt: _Attempt, address: str) -> None:
        """The password is not his."""
        self._attempts.failed(address, attempt.name, self.now_s())

    def propose(self, attempt: _Attempt) -> None:
        """Ask for a token."""
        letters = self._letters() if self._signer is None else ""
        request = pb.InternalAuthenticateRequest(name=attempt.name, simple_token=letters)
        message = request.SerializeToString()
        self._node.propose(FIELD_AUTHENTICATE, message, request, attempt.call, attempt.applied)

    def make(self, attempt: _Attempt, body: bytes) -> None:
        """Make the response with the token; ``body``: that with one of letters.

        Raises `VerifyOnlyError`, `TooManyRequestsError`.
        """
        signer = self._signer
        if signer is None:
            attempt.made(body)
            return
        signing = signer.begin(attempt.name, attempt.revision)
        if not signer.is_slow:
            self._signed(attempt, signer, signing, signing.make())
            return
        self._passwords.sign(
            signing.make, attempt.call, lambda token: self._signed(attempt, signer, signing, token)
        )

    def _signed(
        self, attempt: _Attempt, signer: SignedTokens, signing: Signing, token: str | None
    ) -> None:
        if token is None:
            fail(attempt.call, UNSIGNED)
            return
        signer.signed(signing, token)
        body: bytes = pb.AuthenticateResponse(token=token).SerializeToString()
        attempt.made(body)

    def is_current(self, attempt: _Attempt) -> bool:
        """Whether users and roles are those by which the password was compared."""
        return attempt.revision == self._auth.revision


class _Attempt:
    """One call, until it is answered."""

    def __init__(self, home: Authentication, call: Call, name: str, password: bytes) -> None:
        self._home = home
        self.call = call
        self.name = name
        self.password = password
        self.revision = 0
        self._address = call.caller.address
        self._rounds = 0
        self._applied_revision = 0

    def begin(self) -> None:
        """Wait until this member knows what is committed."""
        self._home.node.read(self.call, self._read)

    def _read(self, call: Call, error: Exception | None) -> None:
        if error is not None:
            fail(call, error)
        else:
            self._check()

    def _check(self) -> None:
        self._rounds += 1
        if self._rounds > ROUNDS_MAX:
            fail(self.call, OldRevisionError())
            return
        try:
            self._home.check(self, self._address)
        except (AuthNotEnabledError, NoPasswordUserError, TooManyRequestsError) as error:
            fail(self.call, error)

    def compared(self, is_his: bool) -> None:
        """The password was compared."""
        if not is_his:
            self._home.failed(self, self._address)
            if self.call.is_open:
                fail(self.call, AuthFailedError())
        elif self.call.is_open:
            self._home.propose(self)

    def applied(self, call: Call, applied: Applied) -> None:
        """The token is known everywhere, or will be."""
        if applied.error is not None:
            fail(call, applied.error)
            return
        if not self._home.is_current(self):
            self._check()
            return
        self._applied_revision = applied.revision
        try:
            self._home.make(self, applied.body)
        except (VerifyOnlyError, TooManyRequestsError) as refusal:
            fail(call, refusal)

    def made(self, body: bytes) -> None:
        """The response is there, without its header."""
        if self._home.is_current(self):
            self.call.reply(self._home.node.header(self._applied_revision) + body)
        elif self.call.is_open:
            self._check()
