"""Where founders are looked for when ``--initial-cluster`` does not name them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, cast

from etcdtw.config.flags import FlagError
from etcdtw.config.govalues import NS_PER_S
from etcdtw.config.settings import Settings

CONFLICT: Final = (
    "multiple discovery or bootstrap flags are set. Choose one of "
    '"initial-cluster", "discovery-endpoints" or "discovery-srv"'
)
_NAMES: Final = ("discovery-srv", "discovery-srv-name", "discovery-endpoints")


@dataclass(frozen=True, kw_only=True)
class Discovery:
    """Either a domain of DNS, or another cluster that keeps a registry."""

    srv_domain: str
    """Empty: it is the registry."""
    srv_suffix: str
    token: str
    endpoints: tuple[str, ...]
    dial_timeout_s: float
    request_timeout_s: float
    keepalive_time_s: float
    keepalive_timeout_s: float
    is_plain: bool
    """Endpoints without a scheme are spoken to without TLS."""
    verifies: bool
    cert_file: str
    key_file: str
    trusted_ca_file: str
    user: str
    password: str


def names_no_founders(settings: Settings) -> bool:
    """Whether founders are to be found: then --initial-cluster has no default."""
    return any(settings[name] for name in _NAMES)


def find_discovery(settings: Settings, initial_cluster: str) -> Discovery | None:
    """Return what the flags ask for; None: the founders are named.  Raises `FlagError`."""
    domain = settings.text("discovery-srv")
    endpoints = cast("tuple[str, ...]", settings["discovery-endpoints"])
    if sum(bool(one) for one in (initial_cluster, domain, endpoints)) > 1:
        raise FlagError(CONFLICT)
    if bool(settings.text("discovery-token")) != bool(endpoints):
        raise FlagError("both --discovery-token and --discovery-endpoints must be set")
    if not (domain or endpoints):
        if settings.text("discovery-srv-name") and not initial_cluster:
            raise FlagError(
                "--discovery-srv-name alone finds nobody: give --discovery-srv, the domain"
            )
        return None
    if bool(settings.text("discovery-cert")) != bool(settings.text("discovery-key")):
        raise FlagError("--discovery-cert and --discovery-key go together: set both or neither")
    user, colon, password = settings.text("discovery-user").partition(":")
    return Discovery(
        srv_domain=domain,
        srv_suffix=settings.text("discovery-srv-name"),
        token=settings.text("discovery-token"),
        endpoints=endpoints,
        dial_timeout_s=settings.number("discovery-dial-timeout") / NS_PER_S,
        request_timeout_s=settings.number("discovery-request-timeout") / NS_PER_S,
        keepalive_time_s=settings.number("discovery-keepalive-time") / NS_PER_S,
        keepalive_timeout_s=settings.number("discovery-keepalive-timeout") / NS_PER_S,
        is_plain=bool(settings["discovery-insecure-transport"]),
        verifies=not settings["discovery-insecure-skip-tls-verify"],
        cert_file=settings.text("discovery-cert"),
        key_file=settings.text("discovery-key"),
        trusted_ca_file=settings.text("discovery-cacert"),
        user=user,
        password=password if colon else settings.text("discovery-password"),
    )
