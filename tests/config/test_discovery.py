"""Flags that have the founders found."""

from __future__ import annotations

import pytest

from etcdtw.config.discovery import CONFLICT, Discovery
from tests.config.configuring import configured, refusal

REGISTRY = ("--discovery-token=t", "--discovery-endpoints=a:1,https://b:2")


def found(*arguments: str) -> Discovery:
    discovery = configured(*arguments).discovery
    assert discovery is not None
    return discovery


def test_founders_are_named_unless_they_are_to_be_found() -> None:
    assert configured().discovery is None
    config = configured("--name=m", "--discovery-srv=example.test", "--discovery-srv-name=blue")
    assert config.initial_cluster == ""
    assert config.discovery is not None
    assert (config.discovery.srv_domain, config.discovery.srv_suffix) == ("example.test", "blue")


def test_a_registry_is_reached_as_the_flags_say() -> None:
    plain = found(*REGISTRY)
    assert (plain.token, plain.endpoints) == ("t", ("a:1", "https://b:2"))
    assert (plain.dial_timeout_s, plain.request_timeout_s) == (2.0, 5.0)
    assert (plain.keepalive_time_s, plain.keepalive_timeout_s) == (2.0, 6.0)
    assert (plain.is_plain, plain.verifies, plain.user) == (True, True, "")
    told = found(
        *REGISTRY,
        "--discovery-dial-timeout=1s",
        "--discovery-request-timeout=3s",
        "--discovery-keepalive-time=4s",
        "--discovery-keepalive-timeout=7s",
        "--discovery-insecure-transport=false",
        "--discovery-insecure-skip-tls-verify",
        "--discovery-cert=c",
        "--discovery-key=k",
        "--discovery-cacert=a",
        "--discovery-user=u",
        "--discovery-password=p",
    )
    assert told == Discovery(
        srv_domain="",
        srv_suffix="",
        token="t",
        endpoints=("a:1", "https://b:2"),
        dial_timeout_s=1.0,
        request_timeout_s=3.0,
        keepalive_time_s=4.0,
        keepalive_timeout_s=7.0,
        is_plain=False,
        verifies=False,
        cert_file="c",
        key_file="k",
        trusted_ca_file="a",
        user="u",
        password="p",
    )
    assert found(*REGISTRY, "--discovery-user=u:p:q").password == "p:q"


def test_a_file_says_the_same_in_its_maps() -> None:
    text = """
    discovery-config:
      token: t
      client:
        endpoints: ["a:1", "https://b:2"]
        dial-timeout: 1000000000
        secure: {cert: c, key: k, cacert: a, insecure-transport: false}
        auth: {username: u, password: p}
        x: 1
    """
    config = configured("--config-file=f", files={"f": text})
    discovery = config.discovery
    assert discovery == found(
        *REGISTRY,
        "--discovery-dial-timeout=1s",
        "--discovery-cert=c",
        "--discovery-key=k",
        "--discovery-cacert=a",
        "--discovery-insecure-transport=false",
        "--discovery-user=u:p",
    )
    assert "f: unknown key discovery-config.client.x is ignored" in config.warnings


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--discovery-token=t"],
            "both --discovery-token and --discovery-endpoints must be set",
        ),
        (
            ["--discovery-endpoints=a:1"],
            "both --discovery-token and --discovery-endpoints must be set",
        ),
        (["--discovery-srv=x", *REGISTRY], CONFLICT),
        (["--discovery-srv=x", "--initial-cluster=a=http://a:1"], CONFLICT),
        ([*REGISTRY, "--initial-cluster=a=http://a:1"], CONFLICT),
        (
            ["--discovery-srv-name=x"],
            "--discovery-srv-name alone finds nobody: give --discovery-srv, the domain",
        ),
        (
            [*REGISTRY, "--discovery-cert=c"],
            "--discovery-cert and --discovery-key go together: set both or neither",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(arguments: list[str], message: str) -> None:
    assert refusal(*arguments) == (1, message)
