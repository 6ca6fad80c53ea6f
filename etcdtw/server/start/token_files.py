"""The key files of signed tokens: read at the start, and again when they change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from twisted.logger import Logger

from etcdtw.config.auth_token import JWT, AuthToken
from etcdtw.transport.tls.files import Fingerprint, fingerprint

if TYPE_CHECKING:
    from etcdtw.rpc.auth.token_keys import TokenKey

LOOK_INTERVAL_S: Final = 1.0
"""How long the files are believed to be as they were."""


class TokenFilesError(Exception):
    """Files that ``--auth-token`` names and that cannot be used; the text says which and why."""


def check_token_files(token: AuthToken) -> None:
    """Raise `TokenFilesError` when signed tokens are wanted and cannot be made or verified."""
    if token.kind == JWT:
        _load(token)


class TokenFiles:
    """The key of now.  Implements `signed_tokens.Keys`.  ``now_s``: a clock that goes forward.

    Files that cannot be used any more leave the key as it was, and are logged once.
    """

    log = Logger()

    def __init__(self, token: AuthToken, now_s: Callable[[], float]) -> None:
        self._token = token
        self._now_s = now_s
        self._paths = [p for p in (token.private_key_file, token.public_key_file) if p]
        # Taken before they are read: a change in between is seen the next time.
        self._found = self._look()
        self._key = _load(token)
        self._look_at_s = now_s() + LOOK_INTERVAL_S

    def key(self) -> TokenKey:
        """Return it: the same object as long as the files are the same."""
        now_s = self._now_s()
        if now_s >= self._look_at_s:
            self._look_at_s = now_s + LOOK_INTERVAL_S
            found = self._look()
            if found != self._found:
                self._found = found
                self._renew()
        return self._key

    def _renew(self) -> None:
        try:
            self._key = _load(self._token, is_validated=False)
        except TokenFilesError as error:
            self.log.error(
                "keys of signed tokens changed but cannot be used, the old ones stay: {why}",
                why=str(error),
            )
        else:
            self.log.info("keys of signed tokens read again: {paths}", paths=self._paths)

    def _look(self) -> Fingerprint | None:
        try:
            return fingerprint(self._paths)
        except OSError:
            return None  # the reading says which file, and what is wrong


def _load(token: AuthToken, *, is_validated: bool = True) -> TokenKey:
    from etcdtw.rpc.auth.token_keys import TokenKeyError, load_key  # cryptography: where needed

    octets = []
    for path in (token.private_key_file, token.public_key_file):
        try:
            octets.append(Path(path).read_bytes() if path else b"")
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise TokenFilesError(f"--auth-token: {path}: {reason}") from error
    try:
        return load_key(token.sign_method, *octets, is_validated=is_validated)
    except TokenKeyError as error:
        raise TokenFilesError(f"--auth-token: {error}") from error
