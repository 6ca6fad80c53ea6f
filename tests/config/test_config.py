"""Flags, variables and the configuration file: what is read, what is refused, in which words."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from etcdtw import __version__
from etcdtw.config.config import Quota, TextRequestedError
from etcdtw.config.flag_table import FLAGS
from etcdtw.config.flags import LEGACY, NO_EFFECT, parse_value
from etcdtw.config.help import help_text
from etcdtw.config.legacy_flags import DEPRECATIONS
from etcdtw.lease.lessor import CHECKPOINT_INTERVAL_MS, Lessor
from etcdtw.server.member.assembly import checkpoint_interval_ms
from tests.config.configuring import configured, refusal


def test_defaults_are_etcds() -> None:
    config = configured()
    assert config.name == "default"
    assert config.data_dir == "default.etcd"
    assert config.wal_dir is None
    assert (config.heartbeat_interval_ms, config.election_timeout_ms) == (100, 1000)
    assert config.election_timeout_ticks == 10
    assert [str(url) for url in config.listen_client_urls] == ["http://localhost:2379"]
    assert config.initial_cluster == "default=http://localhost:2380"
    assert config.quota_backend_bytes == 2 * 1024**3
    assert (config.max_txn_ops, config.max_request_bytes) == (128, 1_572_864)
    assert (config.snapshot_count, config.snapshot_catchup_entries) == (10_000, 5_000)
    assert config.grpc_keepalive_interval_s == 7200
    assert config.auto_compaction_period_s == 0
    assert (config.compaction_batch_limit, config.compaction_sleep_interval_s) == (1000, 0.01)
    assert config.watch_progress_notify_interval_s == 600
    assert config.cors_origins == config.host_whitelist == {"*"}
    assert config.logging.outputs == ("stderr",)
    assert config.feature_gates["FastLeaseKeepAlive"]
    assert config.pre_vote
    assert config.strict_reconfig_check
    assert not config.client_tls.demands_certificates
    assert [warning for warning in config.warnings if "default" not in warning] == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["--name=m1"],
        ["--name", "m1"],
        ["-name=m1"],
        ["-name", "m1"],
        ["--name=m0", "--name=m1"],
        ["--name", "m1", "--"],
    ],
)
def test_flag_may_be_written_in_any_of_gos_ways(arguments: list[str]) -> None:
    config = configured(*arguments)
    assert (config.name, config.data_dir) == ("m1", "m1.etcd")
    assert config.initial_cluster == "m1=http://localhost:2380"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--socket-reuse-port"], True),
        (["-socket-reuse-port=true"], True),
        (["--socket-reuse-port=T"], True),
        (["--socket-reuse-port=0"], False),
        (["--socket-reuse-port=FALSE"], False),
    ],
)
def test_boolean_takes_its_value_after_the_equals_sign(
    arguments: list[str], expected: bool
) -> None:
    assert configured(*arguments).socket_reuse_port is expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--nosuch"], "flag provided but not defined: -nosuch"),
        (["--nam", "x"], "flag provided but not defined: -nam"),
        (["-nosuch=1"], "flag provided but not defined: -nosuch"),
        (["---x"], "bad flag syntax: ---x"),
        (["-=x"], "bad flag syntax: -=x"),
        (["--name"], "flag needs an argument: -name"),
        (
            ["--heartbeat-interval", "x"],
            'invalid value "x" for flag -heartbeat-interval: parse error',
        ),
        (["--max-txn-ops", "-1"], 'invalid value "-1" for flag -max-txn-ops: parse error'),
        (
            ["--max-learners=99999999999999999999"],
            'invalid value "99999999999999999999" for flag -max-learners: value out of range',
        ),
        (
            ["--max-concurrent-streams=4294967296"],
            'invalid value "4294967296" for flag -max-concurrent-streams: value out of range',
        ),
        (["--pre-vote=zz"], 'invalid boolean value "zz" for -pre-vote: parse error'),
        (["--pre-vote="], 'invalid boolean value "" for -pre-vote: parse error'),
        (
            ["--grpc-keepalive-min-time", "5"],
            'invalid value "5" for flag -grpc-keepalive-min-time: parse error',
        ),
        (
            ["--initial-cluster-state", "foo"],
            'invalid value "foo" for flag -initial-cluster-state: invalid value',
        ),
        (
            ["--listen-client-urls", "127.0.0.1:1"],
            'invalid value "127.0.0.1:1" for flag -listen-client-urls: '
            'parse "127.0.0.1:1": first path segment in URL cannot contain colon',
        ),
        (
            ["--v2-deprecation=not-yet"],
            'invalid value "not-yet" for flag -v2-deprecation: invalid value "not-yet"',
        ),
        (
            ["--v2-deprecation=gone,x"],
            'invalid value "gone,x" for flag -v2-deprecation: invalid value "x"',
        ),
        (
            ["--discovery-fallback=x"],
            'invalid value "x" for flag -discovery-fallback: invalid value',
        ),
        (
            ["--feature-gates=Nope=true"],
            'invalid value "Nope=true" for flag -feature-gates: unrecognized feature gate: Nope',
        ),
    ],
)
def test_wrong_flag_ends_with_status_2_and_gos_words(arguments: list[str], message: str) -> None:
    assert refusal(*arguments) == (2, message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["foo"], "'foo' is not a valid flag"),
        (["--pre-vote", "false"], "'false' is not a valid flag"),
        (["--name=a", "--", "--name=b"], "'--name=b' is not a valid flag"),
        (["-"], "'-' is not a valid flag"),
        (
            ["--listen-client-urls", "http://127.0.0.1:1"],
            "--advertise-client-urls is required when --listen-client-urls is set explicitly",
        ),
        (["--heartbeat-interval=0"], "--heartbeat-interval must be >0 (set to 0ms)"),
        (["--election-timeout=0"], "--election-timeout must be >0 (set to 0ms)"),
        (
            ["--heartbeat-interval=201"],
            "--election-timeout[1000ms] should be at least as 5 times as "
            "--heartbeat-interval[201ms]",
        ),
        (
            ["--election-timeout=50001"],
            "--election-timeout[50001ms] is too long, and should be set less than 50000ms",
        ),
        (
            ["--listen-client-urls=http://db:1", "--advertise-client-urls=http://db:1"],
            "expected IP in URL for binding (http://db:1)",
        ),
        (
            ["--listen-metrics-urls=http://db:1"],
            "expected IP in URL for binding (http://db:1)",
        ),
        (
            ["--initial-advertise-peer-urls=http://:1"],
            '--initial-advertise-peer-urls "http://:1" must be "host:port" '
            "(unexpected empty host (http://:1))",
        ),
        (
            ["--discovery-fallback=proxy"],
            'v2 proxy is deprecated, and --discovery-fallback can\'t be configured as "proxy"',
        ),
        (
            ["--listen-metrics-urls=https://127.0.0.1:1"],
            "client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url",
        ),
        (
            ["--listen-client-http-urls=http://localhost:2379"],
            "cannot bind both --listen-client-urls and --listen-client-http-urls on the same url "
            "http://localhost:2379",
        ),
        (
            ["--enable-log-rotation"],
            "--log-outputs requires a single file path when --log-rotate-config-json is defined",
        ),
        (
            ["--enable-log-rotation", "--log-outputs=a,b"],
            "--log-outputs requires a single file path when --log-rotate-config-json is defined",
        ),
        (
            [
                "--enable-log-rotation",
                "--log-outputs=a",
                '--log-rotation-config-json={"maxage":1.5}',
            ],
            "invalid log rotation config: maxage is 1.5, no whole number",
        ),
        (["--logger=foo"], 'unknown logger option "foo"'),
        (["--log-outputs=default,stderr"], 'multi logoutput for "default" is not supported yet'),
        (["--auto-compaction-mode=foo"], 'unknown auto-compaction-mode "foo"'),
        (
            ["--auto-compaction-retention=foo"],
            'error parsing CompactionRetention: time: invalid duration "foo"',
        ),
        (
            ["--auto-compaction-mode=revision", "--auto-compaction-retention=1h"],
            '--auto-compaction-retention "1h" must count revisions when '
            "--auto-compaction-mode is revision",
        ),
        (["--auto-compaction-retention=-1"], "--auto-compaction-retention must not be negative"),
        (
            ["--initial-cluster=a=b=c"],
            "error setting up initial cluster: URL scheme must be http, https, unix, or unixs: b=c",
        ),
        (
            ["--initial-advertise-peer-urls="],
            "--initial-advertise-peer-urls is empty: name this member's peer URLs",
        ),
        (
            ["--compat-version=3.3"],
            '--compat-version "3.3" is unknown; known: 3.7, 3.6, 3.5, 3.4',
        ),
        (["--max-txn-ops=0"], "--max-txn-ops must be >0 (set to 0)"),
        (["--max-learners=-1"], "--max-learners must not be negative"),
        (["--grpc-keepalive-interval=-1s"], "--grpc-keepalive-interval must not be negative"),
        (["--config-file=nope.yml"], "open nope.yml: no such file or directory"),
    ],
)
def test_wrong_configuration_ends_with_status_1(arguments: list[str], message: str) -> None:
    assert refusal(*arguments) == (1, message)


def test_turning_fsync_off_is_refused_kindly() -> None:
    status, message = refusal("--unsafe-no-fsync")
    assert status == 1
    assert "never acknowledges what a power loss could take back" in message
    assert not configured("--unsafe-no-fsync=false").warnings[1:]


def other_value(name: str) -> str:
    """Return a value that is not the default of the flag."""
    by_kind = {"bool": "true", "duration": "77s", "int": "77", "uint": "77", "uint32": "77"}
    spec = FLAGS[name]
    value = spec.choices[-1] if spec.choices else by_kind.get(spec.kind, "x")
    return "false" if spec.kind == "bool" and spec.default == "true" else value


@pytest.mark.parametrize("name", [s.name for s in FLAGS.values() if s.status == NO_EFFECT])
def test_flag_without_effect_says_so(name: str) -> None:
    config = configured(f"--{name}={other_value(name)}", "--name=m")
    assert [w for w in config.warnings if w.startswith(f"--{name} has no effect")]


@pytest.mark.parametrize("name", [s.name for s in FLAGS.values() if s.status == LEGACY])
def test_flag_that_etcd_ignores_is_ignored(name: str) -> None:
    config = configured(f"--{name}={other_value(name)}", "--name=m")
    assert set(config.warnings) <= {DEPRECATIONS.get(name)}


@pytest.mark.parametrize("name", DEPRECATIONS)
def test_deprecated_flag_is_warned_of_in_etcds_words_whatever_its_value(name: str) -> None:
    default = FLAGS[name].default
    assert DEPRECATIONS[name] not in configured("--name=m").warnings
    assert DEPRECATIONS[name] in configured(f"--{name}={default}").warnings
    assert DEPRECATIONS[name] in configured(environment={FLAGS[name].variable: default}).warnings
    value = default if default.isdigit() else f"'{default}'"
    files = {"f": f"{name}: {value}"}
    assert DEPRECATIONS[name] in configured("--config-file=f", files=files).warnings


def test_every_default_can_be_set_explicitly() -> None:
    arguments = [
        f"--{spec.name}={spec.default}"
        for spec in FLAGS.values()
        if spec.name not in ("version", "config-file")
    ]
    config = configured(*arguments)
    assert set(config.warnings) == {*configured().warnings, *DEPRECATIONS.values()}
    assert replace(config, warnings=()) == replace(configured(), warnings=())


def test_help_names_every_flag_with_its_default() -> None:
    text = help_text()
    for spec in FLAGS.values():
        if spec.group:
            assert f"--{spec.name}" in text
            assert spec.meaning in text
            assert spec.default in text


def test_help_tells_what_has_no_effect_at_its_end() -> None:
    text = help_text()
    begins = text.index("\nAccepted, without effect here")
    names = re.findall(r"^  --([\w-]+)", text, re.MULTILINE)
    assert len(names) == len(set(names))
    for spec in FLAGS.values():
        if spec.group:
            is_at_end = text.index(f"\n  --{spec.name}") > begins
            assert is_at_end == (spec.status in (NO_EFFECT, LEGACY)), spec.name


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["--help=1"], ["--name=m", "-help"]])
def test_help_is_asked_for_in_any_place(arguments: list[str]) -> None:
    with pytest.raises(TextRequestedError) as caught:
        configured(*arguments)
    assert caught.value.text == help_text()


def test_version_is_ours_and_the_contracts() -> None:
    with pytest.raises(TextRequestedError) as caught:
        configured("--version")
    assert f"etcdtw Version: {__version__}\netcd Version: 3.7.3\n" in caught.value.text


# The environment.


@pytest.mark.parametrize(
    "name", [s.name for s in FLAGS.values() if s.name not in ("version", "config-file")]
)
def test_every_flag_has_a_variable(name: str) -> None:
    spec = FLAGS[name]
    assert spec.variable == "ETCD_" + name.upper().replace("-", "_")
    environment = {spec.variable: spec.default} if spec.default else {}
    advertise = () if name == "advertise-client-urls" else ("--advertise-client-urls=http://a:1",)
    config = configured(*advertise, environment=environment)
    assert set(config.warnings) - {DEPRECATIONS.get(name)} == set(configured(*advertise).warnings)
    assert replace(config, warnings=()) == replace(configured(*advertise), warnings=())


def test_variable_sets_a_flag_and_an_empty_one_does_not() -> None:
    config = configured(environment={"ETCD_NAME": "m1", "ETCD_DATA_DIR": "", "HOME": "/x"})
    assert (config.name, config.data_dir) == ("m1", "m1.etcd")


def test_flag_and_variable_together_are_a_conflict() -> None:
    status, message = refusal("--name=a", environment={"ETCD_NAME": "b"})
    assert status == 1
    assert message == (
        "conflicting environment variable is shadowed by corresponding command-line flag "
        "(either unset environment variable or disable flag): ETCD_NAME"
    )


def test_wrong_variable_is_named() -> None:
    assert refusal(environment={"ETCD_HEARTBEAT_INTERVAL": "x"}) == (
        1,
        'invalid value "x" for ETCD_HEARTBEAT_INTERVAL: parse error',
    )


def test_unknown_variable_is_a_warning() -> None:
    config = configured("--name=m", environment={"ETCD_FOO": "1", "ETCD_VERSION": "3"})
    assert config.warnings == (
        "unrecognized environment variable ETCD_FOO=1",
        "unrecognized environment variable ETCD_VERSION=3",
    )


# The file.


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ("periodic", 0, 0.0)),
        (["--auto-compaction-retention=5"], ("periodic", 0, 5 * 3600.0)),
        (["--auto-compaction-retention=90s"], ("periodic", 0, 90.0)),
        (["--auto-compaction-retention="], ("periodic", 0, 0.0)),
        (
            ["--auto-compaction-mode=revision", "--auto-compaction-retention=1000"],
            ("revision", 1000, 0.0),
        ),
    ],
)
def test_retention_depends_on_the_mode(
    arguments: list[str], expected: tuple[str, int, float]
) -> None:
    config = configured(*arguments)
    found = (
        config.auto_compaction_mode,
        config.auto_compaction_revisions,
        config.auto_compaction_period_s,
    )
    assert found == expected


def test_the_quota_is_kept_by_itself_unless_told_to_be_as_etcds() -> None:
    assert configured().quota == Quota(
        counts_allocated=False, auto_disarm=True, auto_compaction_s=3600.0
    )
    flags = ["--quota-measure=allocated", "--quota-auto-disarm=false", "--quota-auto-compaction=0"]
    assert configured(*flags).quota == Quota(
        counts_allocated=True, auto_disarm=False, auto_compaction_s=0.0
    )
    assert refusal("--quota-measure=free")[0] == 2
    told = refusal("--quota-auto-compaction=-1s")
    assert told[1] == "--quota-auto-compaction must not be negative"


def test_risky_sizes_and_plain_listeners_are_warned_of() -> None:
    config = configured(
        "--name=m", "--quota-backend-bytes=8589934593", "--max-request-bytes=10485761",
        "--cert-file=c", "--key-file=k",
    )  # fmt: skip
    assert config.warnings == (
        "--quota-backend-bytes=8589934593 exceeds the recommended 8589934592",
        "--max-request-bytes=10485761 exceeds the recommended 10485760",
        "http://localhost:2379 is plain though --cert-file is set: TLS is not used there",
    )


def test_progress_is_notified_at_most_ten_times_a_second() -> None:
    config = configured("--watch-progress-notify-interval=1ms")
    assert config.watch_progress_notify_interval_s == 0.1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("AllAlpha", "missing bool value for AllAlpha"),
        ("AllBeta=x", 'invalid value of AllBeta=x, err: strconv.ParseBool: parsing "x": '
                      "invalid syntax"),
        ("LeaseCheckpointPersist=false", "LeaseCheckpointPersist=false is not supported"),
        ("LeaseCheckpoint=false,LeaseCheckpointPersist=true", "needs LeaseCheckpoint"),
    ],
)  # fmt: skip
def test_wrong_gates_are_refused(text: str, message: str) -> None:
    status, found = refusal(f"--feature-gates={text}")
    assert status == 2
    assert message in found


@pytest.mark.parametrize(
    ("text", "is_open"),
    [
        ("", True),
        ("LeaseCheckpoint=true", True),
        ("LeaseCheckpoint=false", False),
        ("AllAlpha=false", False),
    ],
)
def test_lease_checkpoints_are_on_until_their_gate_is_shut(text: str, is_open: bool) -> None:
    gates = configured(f"--feature-gates={text}").feature_gates
    assert gates["LeaseCheckpoint"] is is_open
    assert (checkpoint_interval_ms(gates) == CHECKPOINT_INTERVAL_MS) is is_open


def test_shut_gate_replicates_no_checkpoint() -> None:
    gates = configured("--feature-gates=LeaseCheckpoint=false").feature_gates
    for interval_ms, count in (
        (checkpoint_interval_ms(gates), 0),
        (checkpoint_interval_ms(configured().feature_gates), 1),
    ):
        lessor = Lessor(2, checkpoint_interval_ms=interval_ms)
        lessor.promote(0)
        lessor.grant(1, 1000)
        lessor.advance(400_000)
        assert len(lessor.due_checkpoints(10)) == count


def test_bulk_gate_gives_way_to_a_named_one() -> None:
    gates = configured("--feature-gates=AllBeta=false, FastLeaseKeepAlive=true,").feature_gates
    assert gates["FastLeaseKeepAlive"]
    assert not gates["TxnModeWriteWithSharedBuffer"]


def test_defaults_of_the_table_are_values_of_their_kind() -> None:
    for spec in FLAGS.values():
        parse_value(spec, spec.default)


def test_name_and_urls_make_the_default_cluster() -> None:
    config = configured("--name=a", "--initial-advertise-peer-urls=http://x:2,http://x:1")
    assert config.initial_cluster == "a=http://x:1,a=http://x:2"


def test_shipped_sample_is_a_valid_configuration() -> None:
    samples = sorted(Path(__file__).parents[2].glob("deploy/**/*.conf.yml"))
    assert samples
    for path in samples:
        content = path.read_text(encoding="utf-8")
        assert configured("--config-file=f", files={"f": content}).warnings == ()


def test_comparisons_of_keys_are_on_where_they_cost_clients_nothing() -> None:
    config = configured()
    assert config.feature_gates["InitialCorruptCheck"]
    assert config.feature_gates["CompactHashCheck"]
    assert (config.corrupt_check_time_s, config.compact_hash_check_time_s) == (0, 60)


@pytest.mark.parametrize("value", ["0s", "-1s"])
def test_comparison_at_compactions_has_a_period(value: str) -> None:
    assert refusal(f"--compact-hash-check-time={value}") == (
        1,
        "--compact-hash-check-time must be >0 (set to 0s)",
    )
    assert refusal("--corrupt-check-time=-1s")[1] == "--corrupt-check-time must not be negative"


@pytest.mark.parametrize(
    ("argument", "field", "value"),
    [
        ("--grpc-keepalive-timeout=7s", "grpc_keepalive_timeout_s", 7.0),
        ("--host-whitelist=a,b", "host_whitelist", {"a", "b"}),
        ("--warning-apply-duration=5ms", "warning_apply_duration_s", 0.005),
        ("--warning-unary-request-duration=1s", "warning_unary_request_duration_s", 1.0),
        ("--raft-read-timeout=7s", "raft_read_timeout_s", 7.0),
        ("--raft-read-timeout=4s", "raft_read_timeout_s", 5.0),
        ("--raft-write-timeout=8s", "raft_write_timeout_s", 8.0),
        ("--raft-write-timeout=0s", "raft_write_timeout_s", 5.0),
        ("--downgrade-check-time=7s", "downgrade_check_time_s", 7.0),
        ("--memory-mlock", "memory_mlock", True),
        ("--metrics=extensive", "measures_calls", True),
        ("--enable-pprof", "enable_pprof", True),
        ("--log-level=debug", "enable_pprof", True),
        ("--log-level=info", "enable_pprof", False),
        ("--bootstrap-defrag-threshold-megabytes=2", "bootstrap_defrag_threshold_bytes", 2 << 20),
    ],
)
def test_flag_reaches_its_field(argument: str, field: str, value: object) -> None:
    assert getattr(configured(argument), field) == value


@pytest.mark.parametrize("name", ["raft-read-timeout", "raft-write-timeout"])
def test_a_raft_timeout_below_the_least_is_raised_with_etcds_words(name: str) -> None:
    warning = f"{name} increased to minimum value: 5s"
    assert warning in configured(f"--{name}=4999ms").warnings
    assert warning not in configured(f"--{name}=5s").warnings


def test_logs_are_written_in_the_form_that_is_asked_for() -> None:
    assert configured("--log-format=json").logging.form == "json"
    assert configured().logging.form == ""
    assert configured().logging.rotation is None
    rotation = configured("--enable-log-rotation", "--log-outputs=a").logging.rotation
    assert rotation is not None
    assert rotation.size_max == 100 << 20
