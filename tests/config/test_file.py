"""The configuration file: what is read, what is refused, in which words."""

from __future__ import annotations

import json

import pytest
import yaml

from tests.config.configuring import configured, refusal

CONTENT = {
    "name": "m1",
    "data-dir": "/data",
    "heartbeat-interval": 200,
    "listen-client-urls": "http://127.0.0.1:1,http://127.0.0.1:2",
    "advertise-client-urls": "http://a:1",
    "initial-cluster": "m1=http://localhost:2380",
    "quota-backend-bytes": -1,
    "grpc-keepalive-min-time": 1_500_000_000,
    "pre-vote": False,
    "log-outputs": ["stdout", "/var/log/etcdtw.log"],
    "cipher-suites": ["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"],
    "feature-gates": "FastLeaseKeepAlive=false,AllBeta=true",
    "client-transport-security": {
        "cert-file": "c",
        "key-file": "k",
        "allowed-hostname": ["h"],
        "client-cert-auth": True,
    },
    "socket-options": {"reuse-port": True},
    "peer-transport-security": None,
    "max-txn-ops": None,
}


@pytest.mark.parametrize("written", [json.dumps(CONTENT), yaml.safe_dump(CONTENT)])
def test_file_in_yaml_or_json_sets_everything(written: str) -> None:
    config = configured("--config-file=f", files={"f": written})
    assert (config.name, config.data_dir, config.heartbeat_interval_ms) == ("m1", "/data", 200)
    assert [url.port for url in config.listen_client_urls] == [1, 2]
    assert config.quota_backend_bytes is None
    assert config.grpc_keepalive_min_time_s == 1.5
    assert not config.pre_vote
    assert config.logging.outputs == ("stdout", "/var/log/etcdtw.log")
    assert not config.feature_gates["FastLeaseKeepAlive"]
    assert config.feature_gates["TxnModeWriteWithSharedBuffer"]
    assert config.client_tls.cert_file == "c"
    assert config.client_tls.allowed_hostnames == ("h",)
    assert config.socket_reuse_port
    assert config.max_txn_ops == 128


def test_file_makes_flags_and_variables_count_for_nothing() -> None:
    config = configured(
        "--name=flag", "--config-file=f", environment={"ETCD_NAME": "e"}, files={"f": "name: file"}
    )
    assert config.name == "file"
    config = configured(environment={"ETCD_CONFIG_FILE": "f"}, files={"f": ""})
    assert config.name == "default"


def test_etcds_sample_configuration_is_accepted() -> None:
    """Keys and values of etcd 3.7.3's etcd.conf.yml.sample; it asks for what etcd overlooks."""
    empty = ["data-dir", "wal-dir", "cors", "discovery", "discovery-proxy", "initial-cluster"]
    values = {
        "name": "'default'",
        "discovery-fallback": "'proxy'",
        "initial-cluster-state": "'new'",
        "strict-reconfig-check": "false",
        "enable-pprof": "true",
        "proxy": "'off'",
        "proxy-failure-wait": "5000",
        "client-transport-security": "{cert-file: , client-cert-auth: false, auto-tls: false}",
        "peer-transport-security": "{cert-file: , client-cert-auth: false, auto-tls: false}",
        "log-level": "debug",
        "log-outputs": "[stderr]",
        "auto-compaction-retention": '"1"',
        "cipher-suites": (
            "[TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384]"
        ),
        "tls-min-version": "'TLS1.2'",
        "tls-max-version": "'TLS1.3'",
    }
    lines = [f"{name}:" for name in empty] + [f"{name}: {value}" for name, value in values.items()]
    config = configured("--config-file=f", files={"f": "\n".join(lines)})
    assert "f: unknown key discovery-fallback is ignored" in config.warnings
    assert config.enable_pprof


def test_unknown_key_is_a_warning() -> None:
    config = configured(
        "--config-file=f", files={"f": "{name: m, nope: 1, socket-options: {x: 1}}"}
    )
    assert config.warnings == (
        "f: unknown key nope is ignored",
        "f: unknown key socket-options.x is ignored",
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name: 5", "f: name: expected a text, found 5 (put it in quotes)"),
        ("pre-vote: 'yes'", "f: pre-vote: expected true or false, found 'yes'"),
        ("heartbeat-interval: 1s", "f: heartbeat-interval: expected a whole number, found '1s'"),
        ("heartbeat-interval: true", "f: heartbeat-interval: expected a whole number, found True"),
        ("max-txn-ops: -1", "f: max-txn-ops: parse error"),
        (
            "grpc-keepalive-min-time: 5s",
            "f: grpc-keepalive-min-time: expected whole nanoseconds, found '5s'",
        ),
        ("cipher-suites: [1]", "f: cipher-suites: expected a list of texts, found [1]"),
        (
            "listen-client-urls: x",
            "f: listen-client-urls: URL scheme must be http, https, unix, or unixs: x",
        ),
        ("socket-options: 1", "f: socket-options: expected a map, found 1"),
        ("- 1", "f: expected a map of flag names to values"),
    ],
)
def test_wrong_file_is_refused_with_the_key(content: str, message: str) -> None:
    assert refusal("--config-file=f", files={"f": content}) == (1, message)


def test_file_that_is_no_yaml_is_refused() -> None:
    status, message = refusal("--config-file=f", files={"f": "a: ["})
    assert status == 1
    assert message.startswith("f: not YAML or JSON: ")


# What needs more than one flag.
