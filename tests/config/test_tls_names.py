"""Go's names of cipher suites, and what OpenSSL has of them."""

from __future__ import annotations

import pytest
from OpenSSL import SSL

from etcdtw.config.tls_names import (
    OPENSSL_NAMES,
    UnknownCipherSuiteError,
    check_cipher_suites,
    openssl_ciphers,
)


def test_openssl_knows_every_name_that_it_is_given() -> None:
    for name, openssl in OPENSSL_NAMES.items():
        if openssl:
            context = SSL.Context(SSL.TLS_METHOD)
            context.set_cipher_list(f"{openssl}:@SECLEVEL=0".encode())
            assert openssl in SSL.Connection(context).get_cipher_list(), name


def test_suites_of_tls_1_3_are_allowed_and_left_out() -> None:
    names = ["TLS_AES_128_GCM_SHA256", "TLS_RSA_WITH_AES_128_CBC_SHA"]
    check_cipher_suites(names)
    assert openssl_ciphers(names) == "AES128-SHA"
    assert openssl_ciphers(names[:1]) == openssl_ciphers([]) == ""


def test_the_first_name_that_is_none_is_refused_by_name() -> None:
    with pytest.raises(UnknownCipherSuiteError) as refused:
        check_cipher_suites(["TLS_AES_128_GCM_SHA256", "TLS_FIRST", "TLS_SECOND"])
    assert refused.value.name == "TLS_FIRST"
