"""TLS in flags and file: what is read, refused and warned of, in etcd's words."""

from __future__ import annotations

import json

import pytest

from tests.config.configuring import configured, refusal


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--listen-client-urls=https://127.0.0.1:1", "--advertise-client-urls=https://a:1"],
            "TLS key/cert (--cert-file, --key-file) must be provided for client url "
            "https://127.0.0.1:1 with HTTPS scheme",
        ),
        (["--cert-file=x"], "--cert-file and --key-file go together: set both or neither"),
        (["--cipher-suites=FOO"], 'unexpected TLS cipher suite "FOO"'),
        (
            ["--cipher-suites=TLS_RSA_WITH_AES_128_CBC_SHA", "--tls-min-version=TLS1.3"],
            "cipher suites cannot be configured when only TLS1.3 is enabled",
        ),
        (
            ["--tls-min-version=TLS1.3", "--tls-max-version=TLS1.2"],
            "--tls-min-version TLS1.3 is newer than --tls-max-version TLS1.2",
        ),
        (
            ["--listen-peer-urls=https://127.0.0.1:1"],
            "cannot listen on TLS for 127.0.0.1:1: KeyFile and CertFile are not presented",
        ),
        (
            ["--peer-key-file=x"],
            "--peer-cert-file and --peer-key-file go together: set both or neither",
        ),
        (
            ["--peer-client-cert-file=x"],
            "ClientKeyFile and ClientCertFile must both be present or both absent: key: , cert: x]",
        ),
        (
            ["--peer-cert-allowed-cn=a,b", "--peer-cert-allowed-hostname=c"],
            'AllowedCNs and AllowedHostnames are mutually exclusive (cns=["a" "b"], '
            'hostnames=["c"])',
        ),
        (
            ["--client-cert-allowed-cn=a", "--client-cert-allowed-hostname=c"],
            'AllowedCNs and AllowedHostnames are mutually exclusive (cns=["a"], hostnames=["c"])',
        ),
        (
            ["--peer-cert-allowed-cn=a"],
            "--peer-cert-allowed-cn needs peers that show certificates: set "
            "--peer-trusted-ca-file or --peer-client-cert-auth",
        ),
        (
            ["--auto-tls", "--self-signed-cert-validity=0"],
            "selfSignedCertValidity is invalid,it should be greater than 0",
        ),
        (
            ["--peer-auto-tls", "--self-signed-cert-validity=101"],
            "--self-signed-cert-validity=101 is too long: 100 years at the most",
        ),
        (
            ["--peer-auto-tls", "--peer-trusted-ca-file=ca"],
            "--peer-auto-tls trusts everybody, so --peer-trusted-ca-file would not count: remove "
            "one of them, or give --peer-cert-file",
        ),
        (
            ["--auto-tls", "--client-cert-auth"],
            "--auto-tls trusts everybody, so --client-cert-auth would not count: remove one of "
            "them, or give --cert-file",
        ),
    ],
)
def test_wrong_tls_ends_with_status_1(arguments: list[str], message: str) -> None:
    assert refusal(*arguments) == (1, message)


def test_authority_alone_demands_certificates() -> None:
    assert configured("--trusted-ca-file=ca").client_tls.demands_certificates
    assert configured("--client-cert-auth").client_tls.demands_certificates


def test_allowed_hostnames_need_clients_with_certificates() -> None:
    status, message = refusal("--client-cert-allowed-hostname=a.test")
    assert (status, "--trusted-ca-file or --client-cert-auth" in message) == (1, True)
    assert configured("--client-cert-allowed-hostname=a,b", "--client-cert-auth").client_tls


def test_peers_tls_is_read_and_its_traps_are_warned_of() -> None:
    config = configured(
        "--name=m", "--peer-cert-file=c", "--peer-key-file=k", "--peer-auto-tls", "--auto-tls",
        "--self-signed-cert-validity=100", "--peer-trusted-ca-file=ca", "--peer-crl-file=crl",
        "--peer-cert-allowed-cn=a,b", "--peer-client-cert-file=cc", "--peer-client-key-file=ck",
        "--peer-skip-client-san-verification", "--tls-min-version=TLS1.3",
        "--listen-client-urls=https://127.0.0.1:1", "--advertise-client-urls=https://a:1",
    )  # fmt: skip
    peers = config.peer_tls
    assert (peers.cert_file, peers.client_cert_file, peers.trusted_ca_file) == ("c", "cc", "ca")
    assert (peers.allowed_cns, peers.crl_file) == (("a", "b"), "crl")
    assert peers.skips_client_addresses
    assert peers.version_min == "TLS1.3"
    assert (peers.self_signed_years, config.client_tls.self_signed_years) == (0, 100)
    assert config.warnings == (
        "ignoring peer auto TLS since certs given",
        "http://localhost:2380 is plain though --peer-cert-file is set: TLS is not used there",
    )


def test_file_has_keys_for_both_kinds_of_tls() -> None:
    content = {
        "client-transport-security": {
            "cert-file": "c", "key-file": "k", "trusted-ca-file": "ca", "allowed-cn": ["x"],
        },
        "peer-transport-security": {
            "auto-tls": True, "skip-client-san-verification": True,
        },
    }  # fmt: skip
    config = configured("--config-file=f", files={"f": json.dumps(content)})
    assert config.client_tls.allowed_cns == ("x",)
    assert config.peer_tls.self_signed_years == 1
    assert config.peer_tls.skips_client_addresses
