"""TLS files that change under a running member.

The files are looked at for each new connection and now and then in between; what was built
from them last and well is used.  Open connections stay, but for those of revoked certificates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final

from OpenSSL import SSL
from twisted.logger import Logger

from etcdtw.transport.tls.context import Loaded
from etcdtw.transport.tls.files import Fingerprint, TlsError, fingerprint
from etcdtw.transport.tls.verification import Name

MISSING: Final[Fingerprint] = ()
"""Some file could not be looked at."""


class RotatingContext:
    """The newest usable context of some files.  Raises `TlsError` when there is none yet.

    ``on_revocations`` is called when other revocation lists are in use.
    """

    log = Logger()

    def __init__(
        self, paths: Sequence[str], build: Callable[[], Loaded], on_revocations: Callable[[], None]
    ) -> None:
        self._paths = tuple(paths)
        self._build = build
        self._on_revocations = on_revocations
        try:
            # Taken before the files are read: a change in between is seen the next time.
            self._fingerprint = fingerprint(self._paths)
        except OSError:
            self._fingerprint = MISSING  # the reading says which file, and what is wrong
        self._loaded = build()
        self.reloads = 0
        self.failed_reloads = 0

    @property
    def context(self) -> SSL.Context:
        return self._loaded.context

    @property
    def ends(self) -> Mapping[str, datetime]:
        """When the certificates in use end, by file."""
        return self._loaded.ends

    def is_revoked(self, name: Name) -> bool:
        """Whether a list of its issuer that is in use names the certificate."""
        issuer, serial = name
        return any(
            revoked.get_revoked_certificate_by_serial_number(serial) is not None
            for of, revoked in self._loaded.revocations
            if of == issuer
        )

    def refresh(self) -> None:
        """Read the files again if they changed.  Costs one ``stat`` a file otherwise."""
        try:
            found = fingerprint(self._paths)
        except OSError as error:
            if self._fingerprint != MISSING:
                self._keep(str(error), MISSING)
            return
        if found == self._fingerprint:
            return
        old = self._loaded.revocations
        try:
            self._loaded = self._build()
        except TlsError as error:
            self._keep(str(error), found)
            return
        self._fingerprint = found
        self.reloads += 1
        self.log.info("TLS files reloaded: {paths}", paths=", ".join(self._paths))
        if self._loaded.revocations != old:
            self._on_revocations()

    def _keep(self, why: str, found: Fingerprint) -> None:
        """Go on with the old state; the same bad files are not tried again."""
        self.failed_reloads += 1
        self.log.error("TLS files changed but cannot be used, old ones stay: {why}", why=why)
        self._fingerprint = found


class UsesTlsFiles:
    """What whoever stands on a `RotatingContext` tells of it."""

    _files: RotatingContext

    @property
    def reloads(self) -> int:
        return self._files.reloads

    @property
    def failed_reloads(self) -> int:
        return self._files.failed_reloads

    @property
    def ends(self) -> Mapping[str, datetime]:
        """When the certificates in use end, by file."""
        return self._files.ends
