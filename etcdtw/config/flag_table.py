"""Every flag of the server: what it is called, what it holds, what it is for.

Names and defaults are etcd v3.7's; where a default differs the meaning says so.
"""

from __future__ import annotations

from typing import Final

from etcdtw.config.flags import (
    BOOL,
    CHOICE,
    CHOICES,
    DURATION,
    INT,
    LEGACY,
    LIST,
    NO_EFFECT,
    STRING,
    SUPPORTED,
    UINT,
    UINT32,
    URLS,
    FlagSpec,
)
from etcdtw.config.legacy_flags import LEGACY_FLAGS

MEMBER: Final = "Member"
CLUSTER: Final = "Cluster"
SECURITY: Final = "Security"
AUTH: Final = "Authentication"
MONITORING: Final = "Monitoring, logging and tracing"
BEHAVIOUR: Final = "Behaviour"
DANGEROUS: Final = "Unsafe"
PROGRAM: Final = "Program"
GROUPS: Final = (PROGRAM, MEMBER, CLUSTER, SECURITY, AUTH, MONITORING, BEHAVIOUR, DANGEROUS)

_Row = tuple[str, str, str, str, str]
"""name, kind, default, status, meaning"""

_PROGRAM: Final[tuple[_Row, ...]] = (
    ("version", BOOL, "false", SUPPORTED, "Print the version and exit."),
    (
        "completion",
        CHOICE,
        "",
        SUPPORTED,
        "Print what completes these flags in bash, zsh or fish, and exit (etcdtw's own flag).",
    ),
    (
        "config-file",
        STRING,
        "",
        SUPPORTED,
        "Read everything from this YAML or JSON file; all other flags and variables are ignored.",
    ),
)

_MEMBER: Final[tuple[_Row, ...]] = (
    ("name", STRING, "default", SUPPORTED, "Name of this member, unique in its cluster."),
    ("data-dir", STRING, "", SUPPORTED, "Where the data lives; empty: <name>.etcd."),
    ("wal-dir", STRING, "", SUPPORTED, "Where the log lives; empty: in the data directory."),
    (
        "snapshot-count",
        UINT,
        "10000",
        SUPPORTED,
        "Applied entries after which the log is shortened.",
    ),
    (
        "snapshot-catchup-entries",
        UINT,
        "5000",
        SUPPORTED,
        "Entries that stay in the log for members that lag.",
    ),
    ("heartbeat-interval", UINT, "100", SUPPORTED, "Milliseconds between a leader's heartbeats."),
    (
        "election-timeout",
        UINT,
        "1000",
        SUPPORTED,
        "Milliseconds without a leader before an election; at least 5 heartbeats.",
    ),
    (
        "initial-election-tick-advance",
        BOOL,
        "true",
        NO_EFFECT,
        "Hold the first election after a start early; a lone member does not wait for one.",
    ),
    (
        "listen-peer-urls",
        URLS,
        "http://localhost:2380",
        SUPPORTED,
        "Where other members reach this one.",
    ),
    (
        "listen-client-urls",
        URLS,
        "http://localhost:2379",
        SUPPORTED,
        "Where clients reach this member: gRPC and HTTP.",
    ),
    (
        "listen-client-http-urls",
        URLS,
        "",
        SUPPORTED,
        "Listeners for HTTP alone; the client URLs then carry gRPC alone.",
    ),
    ("max-snapshots", UINT, "5", NO_EFFECT, "Snapshot files to keep; etcdtw keeps none."),
    ("max-wals", UINT, "5", NO_EFFECT, "Log files to keep; etcdtw's log is one environment."),
    (
        "core-dumps",
        BOOL,
        "false",
        SUPPORTED,
        "Let a crash leave a core, with keys, values and passwords in it (etcdtw's own flag).",
    ),
    ("memory-mlock", BOOL, "false", SUPPORTED, "Keep the database's pages in memory once read."),
    (
        "quota-backend-bytes",
        INT,
        "0",
        SUPPORTED,
        "Octets the data may use; 0: 2 GiB, negative: no limit.",
    ),
    ("quota-measure", CHOICE, "in-use", SUPPORTED, "in-use, or as etcd allocated (our own flag)."),
    (
        "quota-auto-disarm",
        BOOL,
        "true",
        SUPPORTED,
        "Clear this member's NOSPACE when 5 % are free (etcdtw's own flag).",
    ),
    (
        "quota-auto-compaction",
        DURATION,
        "1h",
        SUPPORTED,
        "Compact history older than this at 80 % of the quota; 0: never (etcdtw's own flag).",
    ),
    (
        "backend-bbolt-freelist-type",
        STRING,
        "map",
        NO_EFFECT,
        "Form of bbolt's list of free pages; etcdtw stores in LMDB.",
    ),
    (
        "backend-batch-interval",
        DURATION,
        "0s",
        NO_EFFECT,
        "Longest wait before bbolt commits; etcdtw paces its own writer.",
    ),
    ("backend-batch-limit", INT, "0", NO_EFFECT, "Writes in one bbolt commit."),
    ("max-txn-ops", UINT, "128", SUPPORTED, "Operations in one transaction."),
    ("max-request-bytes", UINT, "1572864", SUPPORTED, "Octets in one request."),
    (
        "max-concurrent-streams",
        UINT32,
        "10000",
        SUPPORTED,
        "Calls at once on one connection (etcd's default is 4294967295).",
    ),
    (
        "grpc-keepalive-min-time",
        DURATION,
        "5s",
        SUPPORTED,
        "A client that pings more often than this is sent away.",
    ),
    (
        "grpc-keepalive-interval",
        DURATION,
        "2h0m0s",
        SUPPORTED,
        "How often the server pings an idle client; 0: never.",
    ),
    (
        "grpc-keepalive-timeout",
        DURATION,
        "20s",
        SUPPORTED,
        "How long the server waits for the answer to its ping; 0: no limit.",
    ),
    ("socket-reuse-port", BOOL, "false", SUPPORTED, "Let other processes share the TCP ports."),
    (
        "socket-reuse-address",
        BOOL,
        "false",
        NO_EFFECT,
        "Set SO_REUSEADDR on listeners; it is always set.",
    ),
    (
        "raft-read-timeout",
        DURATION,
        "5s",
        SUPPORTED,
        "Longest silence on a stream from a peer, at least 5s.",
    ),
    (
        "raft-write-timeout",
        DURATION,
        "5s",
        SUPPORTED,
        "How long a peer may not read what is sent to it, at least 5s.",
    ),
    (
        "feature-gates",
        STRING,
        "",
        SUPPORTED,
        "Gates to open or shut: FastLeaseKeepAlive=false,AllBeta=true.",
    ),
)

_CLUSTER: Final[tuple[_Row, ...]] = (
    (
        "initial-advertise-peer-urls",
        URLS,
        "http://localhost:2380",
        SUPPORTED,
        "This member's peer URLs as the others see them; they make its id.",
    ),
    (
        "initial-cluster",
        STRING,
        "default=http://localhost:2380",
        SUPPORTED,
        "The founding members: name=url,...; not read after the first start.",
    ),
    ("initial-cluster-state", CHOICE, "new", SUPPORTED, "new, or existing to join one."),
    (
        "initial-cluster-token",
        STRING,
        "etcd-cluster",
        SUPPORTED,
        "Mixed into the ids, so that clusters with the same URLs differ.",
    ),
    (
        "advertise-client-urls",
        URLS,
        "http://localhost:2379",
        SUPPORTED,
        "This member's client URLs as clients see them.",
    ),
    ("discovery-token", STRING, "", SUPPORTED, "Find the founders through another cluster."),
    ("discovery-endpoints", LIST, "", SUPPORTED, "Where that cluster is."),
    ("discovery-dial-timeout", DURATION, "2s", SUPPORTED, "Longest dial of that cluster."),
    ("discovery-request-timeout", DURATION, "5s", SUPPORTED, "Longest request to it."),
    ("discovery-keepalive-time", DURATION, "2s", SUPPORTED, "How often to ping it."),
    ("discovery-keepalive-timeout", DURATION, "6s", SUPPORTED, "How long to wait for its answer."),
    ("discovery-insecure-transport", BOOL, "true", SUPPORTED, "Reach it without TLS."),
    ("discovery-insecure-skip-tls-verify", BOOL, "false", SUPPORTED, "Do not verify it."),
    ("discovery-cert", STRING, "", SUPPORTED, "Certificate to show it."),
    ("discovery-key", STRING, "", SUPPORTED, "Key of that certificate."),
    ("discovery-cacert", STRING, "", SUPPORTED, "Authority that vouches for it."),
    ("discovery-user", STRING, "", SUPPORTED, "User and password for it."),
    ("discovery-password", STRING, "", SUPPORTED, "Password for it."),
    ("discovery-srv", STRING, "", SUPPORTED, "Find the founders through DNS."),
    ("discovery-srv-name", STRING, "", SUPPORTED, "Suffix of the DNS service name."),
    ("discovery-fallback", CHOICE, "exit", SUPPORTED, "exit: the only way left."),
    (
        "strict-reconfig-check",
        BOOL,
        "true",
        SUPPORTED,
        "Refuse membership changes that would cost the quorum.",
    ),
    ("pre-vote", BOOL, "true", SUPPORTED, "Ask before an election whether it could be won."),
    (
        "auto-compaction-mode",
        STRING,
        "periodic",
        SUPPORTED,
        "What the retention counts: periodic (time) or revision.",
    ),
    (
        "auto-compaction-retention",
        STRING,
        "0",
        SUPPORTED,
        "History to keep: 30m, hours as a bare number, or revisions; 0: all.",
    ),
    ("v2-deprecation", CHOICES, "write-only", LEGACY, "Ignored, as by etcd."),
    (
        "compat-version",
        STRING,
        "3.7",
        SUPPORTED,
        "The etcd line of a new cluster: 3.4 to 3.7 (etcdtw's own flag).",
    ),
)

_SECURITY: Final[tuple[_Row, ...]] = (
    ("cert-file", STRING, "", SUPPORTED, "Certificate that clients are shown."),
    ("key-file", STRING, "", SUPPORTED, "Key of that certificate."),
    (
        "trusted-ca-file",
        STRING,
        "",
        SUPPORTED,
        "Authority for clients' certificates; set, every client must show one.",
    ),
    ("client-cert-auth", BOOL, "false", SUPPORTED, "Demand certificates of clients."),
    ("client-crl-file", STRING, "", SUPPORTED, "Revoked clients' certificates; read again often."),
    (
        "client-cert-allowed-hostname",
        LIST,
        "",
        SUPPORTED,
        "A client's certificate must carry one of these names.",
    ),
    (
        "client-cert-allowed-cn",
        LIST,
        "",
        SUPPORTED,
        "Common names that clients may have (a key of etcd's file; the flag is etcdtw's own).",
    ),
    (
        "client-cert-file",
        STRING,
        "",
        NO_EFFECT,
        "Certificate of etcd's JSON gateway towards its own gRPC; etcdtw dials nobody there.",
    ),
    ("client-key-file", STRING, "", NO_EFFECT, "Key of that certificate."),
    ("auto-tls", BOOL, "false", SUPPORTED, "Make a certificate for clients, if none is given."),
    ("peer-cert-file", STRING, "", SUPPORTED, "Certificate that peers are shown."),
    ("peer-key-file", STRING, "", SUPPORTED, "Key of that certificate."),
    (
        "peer-trusted-ca-file",
        STRING,
        "",
        SUPPORTED,
        "Authority for peers' certificates; set, every peer must show one.",
    ),
    ("peer-client-cert-auth", BOOL, "false", SUPPORTED, "Demand certificates of peers."),
    (
        "peer-client-cert-file",
        STRING,
        "",
        SUPPORTED,
        "Certificate shown when dialling peers; empty: the one that peers are shown.",
    ),
    ("peer-client-key-file", STRING, "", SUPPORTED, "Key of that certificate."),
    ("peer-crl-file", STRING, "", SUPPORTED, "Revoked peers' certificates; read again often."),
    (
        "peer-auto-tls",
        BOOL,
        "false",
        SUPPORTED,
        "Make a certificate for peers, if none is given, and believe any peer.",
    ),
    ("peer-cert-allowed-cn", LIST, "", SUPPORTED, "Common names that peers may have."),
    (
        "peer-cert-allowed-hostname",
        LIST,
        "",
        SUPPORTED,
        "A peer's certificate must carry one of these names.",
    ),
    (
        "peer-skip-client-san-verification",
        BOOL,
        "false",
        SUPPORTED,
        "Do not compare a dialling peer's certificate with its address.",
    ),
    ("self-signed-cert-validity", UINT, "1", SUPPORTED, "Years that made certificates last."),
    ("cipher-suites", LIST, "", SUPPORTED, "TLS 1.2 suites to offer, by Go's names."),
    ("tls-min-version", CHOICE, "TLS1.2", SUPPORTED, "Oldest TLS to speak: TLS1.2 or TLS1.3."),
    ("tls-max-version", CHOICE, "", SUPPORTED, "Newest TLS to speak; empty: the newest known."),
    ("cors", STRING, "*", SUPPORTED, "Origins that browsers may come from."),
    ("host-whitelist", STRING, "*", SUPPORTED, "Host names that plain HTTP may ask for."),
)

_AUTH: Final[tuple[_Row, ...]] = (
    (
        "auth-token",
        STRING,
        "simple",
        SUPPORTED,
        "Tokens: simple, or jwt with sign-method=, priv-key=, pub-key=, ttl=.",
    ),
    ("auth-token-ttl", UINT, "300", SUPPORTED, "Seconds that an unused simple token lives."),
    ("bcrypt-cost", UINT, "10", SUPPORTED, "Cost of password hashes, 4 to 31."),
    (
        "watch-outlives-permission",
        BOOL,
        "false",
        SUPPORTED,
        "Let watches go on whose users lose the right to them, as etcd (etcdtw's own flag).",
    ),
)

_MONITORING: Final[tuple[_Row, ...]] = (
    (
        "enable-pprof",
        BOOL,
        "false",
        SUPPORTED,
        "Serve profiles under /debug/pprof/ (as --log-level=debug does, too).",
    ),
    ("metrics", CHOICE, "basic", SUPPORTED, "basic, or extensive: with a histogram per RPC."),
    (
        "listen-metrics-urls",
        URLS,
        "",
        SUPPORTED,
        "More listeners, for /metrics and the health checks alone.",
    ),
    ("logger", STRING, "zap", SUPPORTED, "zap: the only value, kept for compatibility."),
    (
        "log-outputs",
        LIST,
        "default",
        SUPPORTED,
        "Where to log: stderr, stdout, systemd/journal, files; default: stderr.",
    ),
    ("log-level", CHOICE, "info", SUPPORTED, "debug, info, warn, error, panic or fatal."),
    (
        "log-format",
        CHOICE,
        "",
        SUPPORTED,
        "json or console; empty: console on a terminal, else json.",
    ),
    (
        "enable-log-rotation",
        BOOL,
        "false",
        SUPPORTED,
        "Put the one file of --log-outputs aside when it has grown.",
    ),
    (
        "log-rotation-config-json",
        STRING,
        '{"maxsize": 100, "maxage": 0, "maxbackups": 0, "localtime": false, "compress": false}',
        SUPPORTED,
        "When (MB), and for how many days and files what was put aside is kept; 0: all.",
    ),
    ("warning-apply-duration", DURATION, "100ms", SUPPORTED, "Log an apply slower than this."),
    (
        "warning-unary-request-duration",
        DURATION,
        "300ms",
        SUPPORTED,
        "Log a call slower than this.",
    ),
    (
        "enable-distributed-tracing",
        BOOL,
        "false",
        SUPPORTED,
        "Send traces to a collector (OpenTelemetry; needs the extra etcdtw[tracing]).",
    ),
    ("distributed-tracing-address", STRING, "localhost:4317", SUPPORTED, "Where it listens."),
    ("distributed-tracing-service-name", STRING, "etcd", SUPPORTED, "Name of the service there."),
    ("distributed-tracing-instance-id", STRING, "", SUPPORTED, "Name of this member there."),
    (
        "distributed-tracing-sampling-rate",
        INT,
        "0",
        SUPPORTED,
        "Traces per million calls; those of a trace that is sampled already always count.",
    ),
)

_BEHAVIOUR: Final[tuple[_Row, ...]] = (
    (
        "enable-grpc-gateway",
        BOOL,
        "true",
        SUPPORTED,
        "Serve the JSON gateway under /v3/, true or false.",
    ),
    (
        "corrupt-check-time",
        DURATION,
        "0s",
        SUPPORTED,
        "How often a leader compares all keys of the members; 0: never.",
    ),
    (
        "compact-hash-check-time",
        DURATION,
        "1m0s",
        SUPPORTED,
        "How often a leader compares what the members' compactions have left.",
    ),
    ("compaction-batch-limit", INT, "0", SUPPORTED, "Keys deleted at once; 0: 1000."),
    (
        "compaction-sleep-interval",
        DURATION,
        "0s",
        SUPPORTED,
        "Pause between those batches; 0: 10ms.",
    ),
    (
        "state-sweep-interval",
        DURATION,
        "24h",
        SUPPORTED,
        "How long a sweep over the whole state takes; 0: none (etcdtw's own flag).",
    ),
    (
        "watch-progress-notify-interval",
        DURATION,
        "0s",
        SUPPORTED,
        "How often a quiet watch is told the revision; 0: 10m, at least 100ms.",
    ),
    (
        "downgrade-check-time",
        DURATION,
        "5s",
        SUPPORTED,
        "How often a leader looks whether a downgrade is done; 0: never.",
    ),
    (
        "bootstrap-defrag-threshold-megabytes",
        UINT,
        "0",
        SUPPORTED,
        "Defragment at the start if that frees so many MiB; 0: never.",
    ),
    ("max-learners", INT, "1", SUPPORTED, "Learners at once; the same on all members."),
)

_DANGEROUS: Final[tuple[_Row, ...]] = (
    ("force-new-cluster", BOOL, "false", SUPPORTED, "Forget the other members, keep the data."),
    ("unsafe-no-fsync", BOOL, "false", SUPPORTED, "Refused: acknowledged data must last."),
)

_CHOICES: Final = {
    "completion": ("", "bash", "zsh", "fish"),
    "initial-cluster-state": ("new", "existing"),
    "quota-measure": ("in-use", "allocated"),
    "discovery-fallback": ("exit", "proxy"),
    "v2-deprecation": ("write-only", "write-only-skip-check", "write-only-drop-data", "gone"),
    "tls-min-version": ("TLS1.2", "TLS1.3"),
    "tls-max-version": ("", "TLS1.2", "TLS1.3"),
    "metrics": ("basic", "extensive"),
    "log-level": ("debug", "info", "warn", "error", "panic", "fatal"),
    "log-format": ("", "json", "console"),
}


def _specs() -> dict[str, FlagSpec]:
    rows = (_PROGRAM, _MEMBER, _CLUSTER, _SECURITY, _AUTH, _MONITORING, _BEHAVIOUR, _DANGEROUS)
    return {
        name: FlagSpec(
            name=name,
            kind=kind,
            default=default,
            group=group,
            meaning=meaning,
            status=status,
            choices=_CHOICES.get(name, ()),
        )
        for group, group_rows in zip(GROUPS, rows, strict=True)
        for name, kind, default, status, meaning in group_rows
    }


FLAGS: Final = _specs() | LEGACY_FLAGS
"""All flags by name, in the order of the help."""
