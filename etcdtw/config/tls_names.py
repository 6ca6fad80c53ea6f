"""Names of TLS things: Go's, which etcd's flags use, and OpenSSL's, which Twisted needs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

_ECDHE: Final = {
    "AES_128_GCM_SHA256": "AES128-GCM-SHA256",
    "AES_256_GCM_SHA384": "AES256-GCM-SHA384",
    "AES_128_CBC_SHA": "AES128-SHA",
    "AES_256_CBC_SHA": "AES256-SHA",
    "AES_128_CBC_SHA256": "AES128-SHA256",
    "CHACHA20_POLY1305": "CHACHA20-POLY1305",
    "CHACHA20_POLY1305_SHA256": "CHACHA20-POLY1305",
}
OPENSSL_NAMES: Final = {
    f"TLS_ECDHE_{key}_WITH_{suite}": f"ECDHE-{key}-{openssl}"
    for key in ("RSA", "ECDSA")
    for suite, openssl in _ECDHE.items()
} | {
    "TLS_RSA_WITH_AES_128_GCM_SHA256": "AES128-GCM-SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384": "AES256-GCM-SHA384",
    "TLS_RSA_WITH_AES_128_CBC_SHA": "AES128-SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256": "AES128-SHA256",
    "TLS_RSA_WITH_AES_256_CBC_SHA": "AES256-SHA",
    # Of TLS 1.3: always offered, naming them is allowed and changes nothing.
    "TLS_AES_128_GCM_SHA256": "",
    "TLS_AES_256_GCM_SHA384": "",
    "TLS_CHACHA20_POLY1305_SHA256": "",
}


class UnknownCipherSuiteError(ValueError):
    """No suite has this name."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def check_cipher_suites(names: Iterable[str]) -> None:
    """Raises `UnknownCipherSuiteError` for the first name that is none."""
    for name in names:
        if name not in OPENSSL_NAMES:
            raise UnknownCipherSuiteError(name)


def openssl_ciphers(names: Iterable[str]) -> str:
    """Return the list that OpenSSL takes for these suites; empty: its own choice."""
    return ":".join(OPENSSL_NAMES[name] for name in names if OPENSSL_NAMES[name])
