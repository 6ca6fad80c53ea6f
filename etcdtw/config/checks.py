"""Which configurations a member refuses, in etcd's words where etcd has some."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Final, cast

from etcdtw.cluster.initial_cluster import InitialClusterError, parse_initial_cluster
from etcdtw.cluster.line import LineError, parse_line
from etcdtw.cluster.urls import MemberUrl, own_address
from etcdtw.config.auth_token import parse_auth_token
from etcdtw.config.discovery import names_no_founders
from etcdtw.config.feature_gates import parse_feature_gates
from etcdtw.config.flags import STATUS_USAGE, FlagError
from etcdtw.config.govalues import NS_PER_S, ValueTextError, parse_duration_ns, parse_integer
from etcdtw.config.log_rotation import can_rotate, parse_log_rotation
from etcdtw.config.settings import Settings
from etcdtw.config.tls_checks import check_tls, tls_warnings

ELECTION_TIMEOUT_MAX_MS: Final = 50_000
ELECTION_HEARTBEATS_MIN: Final = 5
RAFT_TIMEOUT_MIN_S: Final = 5
AUTH_TOKEN_TTL_S: Final = 300
"""How long a token lives where the flag says 0."""
BCRYPT_COST: Final = 10
TRACES_MAX: Final = 1_000_000
"""Per million calls."""
BCRYPT_COST_MIN: Final = 4
BCRYPT_COST_MAX: Final = 31
QUOTA_WARNED_BYTES: Final = 8 * 1024**3
REQUEST_WARNED_BYTES: Final = 10 * 1024**2
_HOUR_NS: Final = 3600 * NS_PER_S


def check(settings: Settings) -> list[str]:
    """Check all and resolve what needs more than one flag; returns warnings.

    Raises `FlagError` for the first thing that is wrong.
    """
    _check_safety(settings)
    if settings.text("discovery-fallback") == "proxy":
        raise FlagError(
            'v2 proxy is deprecated, and --discovery-fallback can\'t be configured as "proxy"'
        )
    _check_urls(settings)
    _check_timing(settings)
    _check_limits(settings)
    settings.auth_token = parse_auth_token(settings.text("auth-token"))
    check_tls(settings)
    _check_logging(settings)
    _check_tracing(settings)
    settings.feature_gates = _feature_gates(settings)
    settings.auto_compaction = _auto_compaction(settings)
    settings.initial_cluster = _initial_cluster(settings)
    try:
        parse_line(settings.text("compat-version"))
    except LineError as error:
        raise FlagError(f"--compat-version {error}") from error
    return _warnings(settings)


def _check_safety(settings: Settings) -> None:
    if settings["unsafe-no-fsync"]:
        raise FlagError(
            "--unsafe-no-fsync is refused: etcdtw never acknowledges what a power loss could "
            "take back. Remove the flag; for tests put the data directory on a tmpfs"
        )


def bcrypt_cost(given: int) -> int:
    """Return the cost of password hashes: etcd's default in the place of one that is none."""
    return given if BCRYPT_COST_MIN <= given <= BCRYPT_COST_MAX else BCRYPT_COST


def _check_tracing(settings: Settings) -> None:
    """As in etcd the rate counts only where it is used."""
    if not settings["enable-distributed-tracing"]:
        return
    rate = cast(int, settings["distributed-tracing-sampling-rate"])
    reason = ""
    if rate < 0:
        reason = "tracing sampling rate must be positive"
    elif rate > TRACES_MAX:
        reason = f"tracing sampling rate must be less than {TRACES_MAX}"
    if reason:
        raise FlagError(f"distributed tracing configurition is not valid: ({reason})")  # sic


def _check_urls(settings: Settings) -> None:
    for name in (
        "listen-peer-urls",
        "listen-client-urls",
        "listen-client-http-urls",
        "listen-metrics-urls",
    ):
        for url in settings.urls(name):
            if not url.is_unix and not _is_bindable(url.host):
                raise FlagError(f"expected IP in URL for binding ({url})")
    addresses = {_address(url) for url in settings.urls("listen-client-urls")}
    for url in settings.urls("listen-client-http-urls"):
        if _address(url) in addresses:
            raise FlagError(
                "cannot bind both --listen-client-urls and --listen-client-http-urls on the same "
                f"url {url}"
            )
    for name in ("initial-advertise-peer-urls", "advertise-client-urls"):
        urls = settings.urls(name)
        for url in urls:
            if not url.host:
                joined = ",".join(str(one) for one in urls)
                raise FlagError(
                    f'--{name} "{joined}" must be "host:port" (unexpected empty host ({url}))'
                )
    if "listen-client-urls" in settings.given and "advertise-client-urls" not in settings.given:
        raise FlagError(
            "--advertise-client-urls is required when --listen-client-urls is set explicitly"
        )


def _address(url: MemberUrl) -> str:
    return str(url).partition("://")[2]


def _is_bindable(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _check_timing(settings: Settings) -> None:
    heartbeat_ms = settings.number("heartbeat-interval")
    election_ms = settings.number("election-timeout")
    if heartbeat_ms == 0:
        raise FlagError("--heartbeat-interval must be >0 (set to 0ms)")
    if election_ms == 0:
        raise FlagError("--election-timeout must be >0 (set to 0ms)")
    if ELECTION_HEARTBEATS_MIN * heartbeat_ms > election_ms:
        raise FlagError(
            f"--election-timeout[{election_ms}ms] should be at least as 5 times as "
            f"--heartbeat-interval[{heartbeat_ms}ms]"
        )
    if election_ms > ELECTION_TIMEOUT_MAX_MS:
        raise FlagError(
            f"--election-timeout[{election_ms}ms] is too long, and should be set less than "
            f"{ELECTION_TIMEOUT_MAX_MS}ms"
        )


def _check_limits(settings: Settings) -> None:
    for name in ("snapshot-count", "max-request-bytes", "max-txn-ops", "max-concurrent-streams"):
        if settings.number(name) == 0:
            raise FlagError(f"--{name} must be >0 (set to 0)")
    for name in ("max-learners", "compaction-batch-limit", "compaction-sleep-interval"):
        if settings.number(name) < 0:
            raise FlagError(f"--{name} must not be negative")
    for name in (
        "grpc-keepalive-min-time",
        "grpc-keepalive-interval",
        "grpc-keepalive-timeout",
        "watch-progress-notify-interval",
        "corrupt-check-time",
        "downgrade-check-time",
        "warning-apply-duration",
        "warning-unary-request-duration",
        "quota-auto-compaction",
    ):
        if settings.number(name) < 0:
            raise FlagError(f"--{name} must not be negative")

    if settings.number("compact-hash-check-time") <= 0:
        raise FlagError("--compact-hash-check-time must be >0 (set to 0s)")


def _check_logging(settings: Settings) -> None:
    if settings.text("logger") != "zap":
        raise FlagError(f'unknown logger option "{settings.text("logger")}"')
    outputs = cast("tuple[str, ...]", settings["log-outputs"])
    if "default" in outputs and len(outputs) > 1:
        raise FlagError('multi logoutput for "default" is not supported yet')
    if settings["enable-log-rotation"]:
        if not can_rotate(outputs):
            raise FlagError(
                "--log-outputs requires a single file path when --log-rotate-config-json is defined"
            )
        try:
            parse_log_rotation(settings.text("log-rotation-config-json"))
        except ValueTextError as error:
            raise FlagError(str(error)) from error


def _feature_gates(settings: Settings) -> dict[str, bool]:
    text = settings.text("feature-gates")
    try:
        return parse_feature_gates(text)
    except ValueTextError as error:
        raise FlagError(
            f'invalid value "{text}" for flag -feature-gates: {error}', STATUS_USAGE
        ) from error


def _auto_compaction(settings: Settings) -> tuple[str, int, float]:
    mode = settings.text("auto-compaction-mode")
    retention = settings.text("auto-compaction-retention") or "0"
    if mode not in ("periodic", "revision"):
        raise FlagError(f'unknown auto-compaction-mode "{mode}"')
    try:
        count = parse_integer(retention, -(2**63), 2**63 - 1)
    except ValueTextError:
        count = None
    if mode == "revision" and count is not None:
        revisions, period_ns = count, 0
    elif mode == "periodic" and count is not None:
        revisions, period_ns = 0, count * _HOUR_NS  # a bare number counts hours
    else:
        try:
            revisions, period_ns = 0, parse_duration_ns(retention)
        except ValueTextError as error:
            raise FlagError(
                f'error parsing CompactionRetention: time: invalid duration "{retention}"'
            ) from error
        if mode == "revision":
            raise FlagError(
                f'--auto-compaction-retention "{retention}" must count revisions when '
                "--auto-compaction-mode is revision"
            )
    if revisions < 0 or period_ns < 0:
        raise FlagError("--auto-compaction-retention must not be negative")
    return mode, revisions, period_ns / NS_PER_S


def _initial_cluster(settings: Settings) -> str:
    """The default follows the name and the advertised URLs, as in etcd."""
    name = settings.text("name")
    urls = settings.urls("initial-advertise-peer-urls")
    if not urls:
        raise FlagError("--initial-advertise-peer-urls is empty: name this member's peer URLs")
    if "initial-cluster" not in settings.given and names_no_founders(settings):
        return ""
    if "initial-cluster" not in settings.given and (
        "name" in settings.given or "initial-advertise-peer-urls" not in settings.given
    ):
        return ",".join(f"{name}={url}" for url in urls)
    text = settings.text("initial-cluster")
    try:
        parse_initial_cluster(text)
    except InitialClusterError as error:
        raise FlagError(f"error setting up initial cluster: {error}") from error
    return text


def _warnings(settings: Settings) -> list[str]:
    warnings = []
    quota = settings.number("quota-backend-bytes")
    if quota > QUOTA_WARNED_BYTES:
        warnings.append(
            f"--quota-backend-bytes={quota} exceeds the recommended {QUOTA_WARNED_BYTES}"
        )
    request = settings.number("max-request-bytes")
    if request > REQUEST_WARNED_BYTES:
        warnings.append(
            f"--max-request-bytes={request} exceeds the recommended {REQUEST_WARNED_BYTES}"
        )
    urls = settings.urls("initial-advertise-peer-urls")
    if settings.feature_gates["SetMemberLocalAddr"] and own_address(urls) is None:
        warnings.append(
            "unable to set a member local address due to lack of suitable local addresses"
        )
    for name in ("raft-read-timeout", "raft-write-timeout"):
        if settings.number(name) < RAFT_TIMEOUT_MIN_S * NS_PER_S:
            warnings.append(f"{name} increased to minimum value: {RAFT_TIMEOUT_MIN_S}s")
    warnings += tls_warnings(settings)
    if settings.auth_token.unknown:
        warnings.append(f"--auth-token: no such options: {', '.join(settings.auth_token.unknown)}")
    if settings.text("name") == "default":
        warnings.append('this member is called "default": give it a name of its own (--name)')
    return warnings
