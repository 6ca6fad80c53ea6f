"""Whether a certificate fits the address that it comes from.

etcd's rule for peers: a certificate without alternative names may come from anywhere; else
one of its addresses must be the remote one, or one of its host names must lead there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from ipaddress import IPv6Address, ip_address
from typing import Final, Protocol

from cryptography import x509
from twisted.internet.defer import Deferred
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import IReactorTime

from etcdtw.transport.tls.verification import NAME_SHOWN_MAX

LOOKUP_S: Final = 5.0
"""How long all look-ups for one connection may take."""
NAMES_LOOKED_UP_MAX: Final = 20
"""Host names of one certificate that are looked up."""


class TooManyLookupsError(DNSLookupError):
    """Nothing is known of the name: it was not asked for, later it may be."""


class NameLookup(Protocol):
    """What is known of names and addresses; fails with an exception whose text says why.

    With `TooManyLookupsError` when it has no room for the question now.
    """

    def names_of(self, address: str) -> Awaitable[Sequence[str]]: ...

    def addresses_of(self, name: str) -> Awaitable[Sequence[str]]: ...


class AddressCheck:
    """Compares certificates with remote addresses."""

    def __init__(self, lookup: NameLookup, clock: IReactorTime) -> None:
        self._lookup = lookup
        self._clock = clock

    def check(self, certificate: x509.Certificate, address: str) -> Deferred[str]:
        """Return what is wrong, in etcd's words; empty when the certificate fits.

        Fires at once unless names must be looked up, and within `LOOKUP_S` at the latest.
        """
        checked = Deferred.fromCoroutine(self._check(certificate, address))
        checked.addTimeout(LOOKUP_S, self._clock, lambda _, __: f"no answer about {address}")
        return checked

    async def _check(self, certificate: x509.Certificate, address: str) -> str:
        try:
            extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        except x509.ExtensionNotFound:
            return ""
        except ValueError:
            return "the alternative names of the certificate cannot be read"
        remote = plain_address(address)
        ips = [str(ip) for ip in extension.value.get_values_for_type(x509.IPAddress)]
        names = [name for name in extension.value.get_values_for_type(x509.DNSName) if name]
        if remote in ips or not (ips or names):
            return ""
        if not names:
            valid = ", ".join(ips)[:NAME_SHOWN_MAX]
            return f"x509: certificate is valid for {valid}, not {remote}"
        return await self._match(remote, names)

    async def _match(self, remote: str, names: list[str]) -> str:
        exact = [name for name in names if not name.startswith("*.")]
        suffixes = tuple(name[1:] for name in names if name.startswith("*."))
        fault = ""
        try:
            for found in await self._lookup.names_of(remote):
                name = found.rstrip(".")
                if name in exact or (suffixes and name.endswith(suffixes)):
                    return ""
        except (OSError, ValueError) as error:
            fault = f" ({error})"
        for name in exact[:NAMES_LOOKED_UP_MAX]:
            try:
                if remote in await self._lookup.addresses_of(name):
                    return ""
            except (OSError, ValueError) as error:
                fault = f" ({error})"
        shown = " ".join(f'"{name}"' for name in names)
        shown = ascii(shown[:NAME_SHOWN_MAX])[1:-1]
        return f'tls: "{remote}" does not match any of DNSNames [{shown}]{fault}'


def plain_address(text: str) -> str:
    """Return the address in its shortest form; IPv4 inside IPv6 as IPv4."""
    found = ip_address(text.partition("%")[0])
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return str(found)
