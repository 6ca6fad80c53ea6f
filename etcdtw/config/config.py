"""The configuration of a member: one frozen record, made from flags, variables or a file.

`configure` is pure: the environment and the reading of files are arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar, cast

from etcdtw.cluster.urls import MemberUrl
from etcdtw.config.auth_token import AuthToken
from etcdtw.config.checks import AUTH_TOKEN_TTL_S, RAFT_TIMEOUT_MIN_S, bcrypt_cost, check
from etcdtw.config.completion import completion_text
from etcdtw.config.discovery import Discovery, find_discovery
from etcdtw.config.environment import values_from_environment
from etcdtw.config.feature_gates import FeatureGates
from etcdtw.config.file import values_from_file
from etcdtw.config.flag_table import FLAGS
from etcdtw.config.flags import NO_EFFECT, FlagError, Value, parse_arguments, parse_value
from etcdtw.config.govalues import NS_PER_S
from etcdtw.config.help import help_text, version_text
from etcdtw.config.legacy_flags import DEPRECATIONS
from etcdtw.config.log_rotation import LogRotation, parse_log_rotation
from etcdtw.config.settings import Settings

REVISION_MODE: Final = "revision"
PERIODIC_MODE: Final = "periodic"
QUOTA_DEFAULT_BYTES: Final = 2 * 1024**3
COMPACTION_BATCH_DEFAULT: Final = 1000
COMPACTION_SLEEP_DEFAULT_S: Final = 0.01
PROGRESS_NOTIFY_DEFAULT_S: Final = 600.0
PROGRESS_NOTIFY_MIN_S: Final = 0.1

_T = TypeVar("_T")


class TextRequestedError(Exception):
    """The command line asked for a text, not for a member."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


@dataclass(frozen=True, kw_only=True)
class ClientTls:
    """What client listeners show and demand; file names, empty where not set."""

    cert_file: str
    key_file: str
    trusted_ca_file: str
    client_cert_auth: bool
    crl_file: str
    allowed_hostnames: tuple[str, ...]
    allowed_cns: tuple[str, ...]
    self_signed_years: int
    """How long a certificate lasts that is made here; 0: none is made."""
    cipher_suites: tuple[str, ...]
    version_min: str
    version_max: str

    @property
    def demands_certificates(self) -> bool:
        """etcd's rule: an authority alone already demands certificates of clients."""
        return self.client_cert_auth or bool(self.trusted_ca_file)


@dataclass(frozen=True, kw_only=True)
class PeerTls:
    """What members show each other and demand; file names, empty where not set."""

    cert_file: str
    key_file: str
    client_cert_file: str
    """Shown when dialling; empty: ``cert_file``."""
    client_key_file: str
    trusted_ca_file: str
    client_cert_auth: bool
    crl_file: str
    allowed_cns: tuple[str, ...]
    allowed_hostnames: tuple[str, ...]
    skips_client_addresses: bool
    """Do not compare a dialling member's certificate with its address."""
    self_signed_years: int
    """How long a certificate lasts that is made here; 0: none is made."""
    cipher_suites: tuple[str, ...]
    version_min: str
    version_max: str


@dataclass(frozen=True, kw_only=True)
class Logging:
    """Where log lines go, from which level on, and in which form."""

    outputs: tuple[str, ...]
    level: str
    form: str
    """json, console, or empty: console on a terminal, else json."""
    rotation: LogRotation | None
    """None: files grow until a signal says that they were renamed."""


@dataclass(frozen=True, kw_only=True)
class Quota:
    """How the quota is measured, and what is done about it unasked."""

    counts_allocated: bool
    """etcd's measure: the whole file."""
    auto_disarm: bool
    auto_compaction_s: float
    """History older than this goes when the quota is nearly used; 0: never."""


@dataclass(frozen=True, kw_only=True)
class Tracing:
    """Where traces of calls go, and which ones."""

    address: str
    service_name: str
    instance_id: str
    """Empty: none is told."""
    samples_per_million: int


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything a member is told.  Zeros that mean "the default" are already resolved."""

    name: str
    data_dir: str
    wal_dir: str | None
    snapshot_count: int
    snapshot_catchup_entries: int
    heartbeat_interval_ms: int
    election_timeout_ms: int
    listen_peer_urls: tuple[MemberUrl, ...]
    listen_client_urls: tuple[MemberUrl, ...]
    listen_client_http_urls: tuple[MemberUrl, ...]
    listen_metrics_urls: tuple[MemberUrl, ...]
    advertise_client_urls: tuple[MemberUrl, ...]
    initial_advertise_peer_urls: tuple[MemberUrl, ...]
    initial_cluster: str
    """Empty: `discovery` finds the founders."""
    discovery: Discovery | None
    initial_cluster_state: str
    initial_cluster_token: str
    strict_reconfig_check: bool
    enable_grpc_gateway: bool
    pre_vote: bool
    max_learners: int
    force_new_cluster: bool
    compat_version: str
    quota_backend_bytes: int | None
    """None: no limit."""
    quota: Quota
    max_txn_ops: int
    max_request_bytes: int
    max_concurrent_streams: int
    grpc_keepalive_min_time_s: float
    grpc_keepalive_interval_s: float
    grpc_keepalive_timeout_s: float
    socket_reuse_port: bool
    raft_read_timeout_s: float
    raft_write_timeout_s: float
    auto_compaction_mode: str
    auto_compaction_revisions: int
    """Mode revision: how many revisions to keep; 0: off."""
    auto_compaction_period_s: float
    """Mode periodic: how much time to keep; 0: off."""
    downgrade_check_time_s: float
    memory_mlock: bool
    bootstrap_defrag_threshold_bytes: int
    """0: the state is never defragmented at the start."""
    compaction_batch_limit: int
    compaction_sleep_interval_s: float
    state_sweep_interval_s: float
    watch_progress_notify_interval_s: float
    corrupt_check_time_s: float
    """0: off."""
    compact_hash_check_time_s: float
    auth_token: AuthToken
    auth_token_ttl_s: int
    """Of simple tokens."""
    bcrypt_cost: int
    watch_outlives_permission: bool
    core_dumps: bool
    warning_apply_duration_s: float
    warning_unary_request_duration_s: float
    feature_gates: FeatureGates
    client_tls: ClientTls
    peer_tls: PeerTls
    logging: Logging
    enable_pprof: bool
    measures_calls: bool
    """Count how long the calls of each method take."""
    tracing: Tracing | None
    """None: nothing is traced."""
    cors_origins: frozenset[str]
    host_whitelist: frozenset[str]
    warnings: tuple[str, ...]
    """To be logged at the start: unknown variables, flags without effect, risky sizes."""

    @property
    def election_timeout_ticks(self) -> int:
        return self.election_timeout_ms // self.heartbeat_interval_ms


def configure(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    read_file: Callable[[str], bytes],
) -> Config:
    """Return the configuration that the command line and the environment ask for.

    ``read_file`` raises OSError.  Raises `FlagError` when a member cannot start like this
    and `TextRequestedError` when a text was asked for.
    """
    given, words = parse_arguments(arguments, FLAGS)
    if given.get("help"):
        raise TextRequestedError(help_text())
    if words:
        raise FlagError(f"'{words[0]}' is not a valid flag")
    if given.get("version"):
        raise TextRequestedError(version_text())
    if given.get("completion"):
        raise TextRequestedError(completion_text(str(given["completion"]), list(FLAGS.values())))
    path = str(given.get("config-file") or environment.get(FLAGS["config-file"].variable, ""))
    if path:
        try:
            data = read_file(path)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise FlagError(f"open {path}: {reason}") from error
        given, warnings = values_from_file(path, data, FLAGS)
    else:
        from_environment, warnings = values_from_environment(environment, FLAGS, given)
        given = {**from_environment, **given}
    warnings += _status_warnings(given)
    settings = Settings(given, {name: parse_value(s, s.default) for name, s in FLAGS.items()})
    warnings += check(settings)
    return _config(settings, tuple(warnings))


def _status_warnings(given: Mapping[str, Value]) -> list[str]:
    """Name the flags that are set and have no effect."""
    warnings = [text for name, text in DEPRECATIONS.items() if name in given]
    for name, value in given.items():
        spec = FLAGS[name]
        if value == parse_value(spec, spec.default):
            continue
        if spec.status == NO_EFFECT:
            warnings.append(f"--{name} has no effect: {spec.meaning}")
    return warnings


class _Reader:
    """Reads settings by name, as the kind the table promises."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def number(self, name: str) -> int:
        return cast(int, self._settings[name])

    def text(self, name: str) -> str:
        return cast(str, self._settings[name])

    def flag(self, name: str) -> bool:
        return cast(bool, self._settings[name])

    def words(self, name: str) -> tuple[str, ...]:
        return cast("tuple[str, ...]", self._settings[name])

    def urls(self, name: str) -> tuple[MemberUrl, ...]:
        return cast("tuple[MemberUrl, ...]", self._settings[name])

    def seconds(self, name: str) -> float:
        return self.number(name) / NS_PER_S


def _config(settings: Settings, warnings: tuple[str, ...]) -> Config:
    read = _Reader(settings)
    mode, revisions, period_s = settings.auto_compaction
    return Config(
        name=read.text("name"),
        data_dir=read.text("data-dir") or f"{read.text('name')}.etcd",
        wal_dir=read.text("wal-dir") or None,
        snapshot_count=read.number("snapshot-count"),
        snapshot_catchup_entries=read.number("snapshot-catchup-entries"),
        heartbeat_interval_ms=read.number("heartbeat-interval"),
        election_timeout_ms=read.number("election-timeout"),
        listen_peer_urls=read.urls("listen-peer-urls"),
        listen_client_urls=read.urls("listen-client-urls"),
        listen_client_http_urls=read.urls("listen-client-http-urls"),
        listen_metrics_urls=read.urls("listen-metrics-urls"),
        advertise_client_urls=read.urls("advertise-client-urls"),
        initial_advertise_peer_urls=read.urls("initial-advertise-peer-urls"),
        initial_cluster=settings.initial_cluster,
        discovery=find_discovery(settings, settings.initial_cluster),
        initial_cluster_state=read.text("initial-cluster-state"),
        initial_cluster_token=read.text("initial-cluster-token"),
        strict_reconfig_check=read.flag("strict-reconfig-check"),
        enable_grpc_gateway=read.flag("enable-grpc-gateway"),
        pre_vote=read.flag("pre-vote"),
        max_learners=read.number("max-learners"),
        compat_version=read.text("compat-version"),
        force_new_cluster=read.flag("force-new-cluster"),
        quota_backend_bytes=_quota_bytes(read),
        quota=_quota(read),
        max_txn_ops=read.number("max-txn-ops"),
        max_request_bytes=read.number("max-request-bytes"),
        max_concurrent_streams=read.number("max-concurrent-streams"),
        grpc_keepalive_min_time_s=read.seconds("grpc-keepalive-min-time"),
        grpc_keepalive_interval_s=read.seconds("grpc-keepalive-interval"),
        grpc_keepalive_timeout_s=read.seconds("grpc-keepalive-timeout"),
        socket_reuse_port=read.flag("socket-reuse-port"),
        raft_read_timeout_s=max(read.seconds("raft-read-timeout"), RAFT_TIMEOUT_MIN_S),
        raft_write_timeout_s=max(read.seconds("raft-write-timeout"), RAFT_TIMEOUT_MIN_S),
        auto_compaction_mode=mode,
        auto_compaction_revisions=revisions,
        auto_compaction_period_s=period_s,
        downgrade_check_time_s=read.seconds("downgrade-check-time"),
        memory_mlock=read.flag("memory-mlock"),
        bootstrap_defrag_threshold_bytes=read.number("bootstrap-defrag-threshold-megabytes") << 20,
        compaction_batch_limit=read.number("compaction-batch-limit") or COMPACTION_BATCH_DEFAULT,
        compaction_sleep_interval_s=_sleep_s(read),
        corrupt_check_time_s=read.seconds("corrupt-check-time"),
        state_sweep_interval_s=read.seconds("state-sweep-interval"),
        compact_hash_check_time_s=read.seconds("compact-hash-check-time"),
        auth_token=settings.auth_token,
        auth_token_ttl_s=read.number("auth-token-ttl") or AUTH_TOKEN_TTL_S,
        bcrypt_cost=bcrypt_cost(read.number("bcrypt-cost")),
        core_dumps=read.flag("core-dumps"),
        watch_outlives_permission=read.flag("watch-outlives-permission"),
        watch_progress_notify_interval_s=_progress_interval_s(read),
        warning_apply_duration_s=read.seconds("warning-apply-duration"),
        warning_unary_request_duration_s=read.seconds("warning-unary-request-duration"),
        feature_gates=settings.feature_gates,
        client_tls=_client_tls(read),
        peer_tls=_peer_tls(read),
        logging=_logging(read),
        measures_calls=read.text("metrics") == "extensive",
        tracing=_tracing(read) if read.flag("enable-distributed-tracing") else None,
        # etcd's rule: whoever logs all may look at all.
        enable_pprof=read.flag("enable-pprof") or read.text("log-level") == "debug",
        cors_origins=_word_set(read.text("cors")),
        host_whitelist=_word_set(read.text("host-whitelist")),
        warnings=warnings,
    )


def _sleep_s(read: _Reader) -> float:
    return read.seconds("compaction-sleep-interval") or COMPACTION_SLEEP_DEFAULT_S


def _progress_interval_s(read: _Reader) -> float:
    interval_s = read.seconds("watch-progress-notify-interval")
    if interval_s == 0:
        return PROGRESS_NOTIFY_DEFAULT_S
    return max(interval_s, PROGRESS_NOTIFY_MIN_S)


def _quota_bytes(read: _Reader) -> int | None:
    quota = read.number("quota-backend-bytes")
    return None if quota < 0 else quota or QUOTA_DEFAULT_BYTES


def _quota(read: _Reader) -> Quota:
    return Quota(
        counts_allocated=read.text("quota-measure") == "allocated",
        auto_disarm=read.flag("quota-auto-disarm"),
        auto_compaction_s=read.seconds("quota-auto-compaction"),
    )


def _client_tls(read: _Reader) -> ClientTls:
    is_self_signed = read.flag("auto-tls") and not read.text("cert-file")
    return ClientTls(
        cert_file=read.text("cert-file"),
        key_file=read.text("key-file"),
        trusted_ca_file=read.text("trusted-ca-file"),
        client_cert_auth=read.flag("client-cert-auth"),
        crl_file=read.text("client-crl-file"),
        allowed_hostnames=read.words("client-cert-allowed-hostname"),
        allowed_cns=read.words("client-cert-allowed-cn"),
        self_signed_years=read.number("self-signed-cert-validity") if is_self_signed else 0,
        cipher_suites=read.words("cipher-suites"),
        version_min=read.text("tls-min-version"),
        version_max=read.text("tls-max-version"),
    )


def _peer_tls(read: _Reader) -> PeerTls:
    is_self_signed = read.flag("peer-auto-tls") and not read.text("peer-cert-file")
    return PeerTls(
        cert_file=read.text("peer-cert-file"),
        key_file=read.text("peer-key-file"),
        client_cert_file=read.text("peer-client-cert-file"),
        client_key_file=read.text("peer-client-key-file"),
        trusted_ca_file=read.text("peer-trusted-ca-file"),
        client_cert_auth=read.flag("peer-client-cert-auth"),
        crl_file=read.text("peer-crl-file"),
        allowed_cns=read.words("peer-cert-allowed-cn"),
        allowed_hostnames=read.words("peer-cert-allowed-hostname"),
        skips_client_addresses=read.flag("peer-skip-client-san-verification"),
        self_signed_years=read.number("self-signed-cert-validity") if is_self_signed else 0,
        cipher_suites=read.words("cipher-suites"),
        version_min=read.text("tls-min-version"),
        version_max=read.text("tls-max-version"),
    )


def _logging(read: _Reader) -> Logging:
    outputs = read.words("log-outputs") or ("default",)
    rotation = None
    if read.flag("enable-log-rotation"):
        rotation = parse_log_rotation(read.text("log-rotation-config-json"))
    return Logging(
        outputs=tuple("stderr" if one == "default" else one for one in outputs),
        level=read.text("log-level"),
        form=read.text("log-format"),
        rotation=rotation,
    )


def _tracing(read: _Reader) -> Tracing:
    return Tracing(
        address=read.text("distributed-tracing-address"),
        service_name=read.text("distributed-tracing-service-name"),
        instance_id=read.text("distributed-tracing-instance-id"),
        samples_per_million=read.number("distributed-tracing-sampling-rate"),
    )


def _word_set(text: str) -> frozenset[str]:
    """``*`` stands for all and is what the empty text means too, as in etcd."""
    words = frozenset(word.strip() for word in text.split(",") if word.strip())
    return words or frozenset(("*",))
