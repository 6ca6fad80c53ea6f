"""Which TLS settings a member refuses or warns of, in etcd's words where etcd has some."""

from __future__ import annotations

from typing import Final, cast

from etcdtw.cluster.urls import MemberUrl
from etcdtw.config.flags import FlagError
from etcdtw.config.settings import Settings
from etcdtw.config.tls_names import UnknownCipherSuiteError, check_cipher_suites

SELF_SIGNED_YEARS_MAX: Final = 100

_CLIENT_URLS: Final = ("listen-client-urls", "listen-client-http-urls")
_CLIENT_DEMANDS: Final = ("trusted-ca-file", "client-cert-auth")
_CLIENT_LIMITS: Final = ("client-cert-allowed-hostname", "client-cert-allowed-cn")
_PEER_DEMANDS: Final = ("peer-trusted-ca-file", "peer-client-cert-auth")
_PEER_LIMITS: Final = ("peer-cert-allowed-hostname", "peer-cert-allowed-cn")


def check_tls(settings: Settings) -> None:
    """Raises `FlagError` for the first thing that is wrong."""
    _check_pair(settings, "cert-file", "key-file")
    _check_pair(settings, "peer-cert-file", "peer-key-file")
    _check_dialling_pair(settings)
    _check_certificates_of_listeners(settings)
    _check_limits(settings, "client", _CLIENT_DEMANDS, _CLIENT_LIMITS)
    _check_limits(settings, "peer", _PEER_DEMANDS, _PEER_LIMITS)
    _check_self_signed(settings, "auto-tls", (*_CLIENT_DEMANDS, *_CLIENT_LIMITS, "client-crl-file"))
    _check_self_signed(settings, "peer-auto-tls", (*_PEER_DEMANDS, *_PEER_LIMITS, "peer-crl-file"))
    _check_versions(settings)


def tls_warnings(settings: Settings) -> list[str]:
    """Return what is accepted and yet may surprise."""
    warnings = []
    for prefix, who in (("", "client"), ("peer-", "peer")):
        if settings[f"{prefix}auto-tls"] and not _is_self_signed(settings, prefix):
            warnings.append(f"ignoring {who} auto TLS since certs given")
    for flag, name in (("cert-file", "listen-client-urls"), ("peer-cert-file", "listen-peer-urls")):
        if settings.text(flag):
            warnings += [
                f"{url} is plain though --{flag} is set: TLS is not used there"
                for url in settings.urls(name)
                if not url.is_tls
            ]
    return warnings


def _check_pair(settings: Settings, cert: str, key: str) -> None:
    if bool(settings.text(cert)) != bool(settings.text(key)):
        raise FlagError(f"--{cert} and --{key} go together: set both or neither")


def _check_dialling_pair(settings: Settings) -> None:
    cert, key = settings.text("peer-client-cert-file"), settings.text("peer-client-key-file")
    if bool(cert) != bool(key):
        raise FlagError(
            "ClientKeyFile and ClientCertFile must both be present or both absent: "
            f"key: {key}, cert: {cert}]"
        )


def _check_certificates_of_listeners(settings: Settings) -> None:
    if not (settings.text("cert-file") or settings["auto-tls"]):
        if any(url.is_tls for url in settings.urls("listen-metrics-urls")):
            raise FlagError(
                "client TLS key/cert (--cert-file, --key-file) must be provided for metrics "
                "secure url"
            )
        for name in _CLIENT_URLS:
            for url in settings.urls(name):
                if url.is_tls:
                    raise FlagError(
                        "TLS key/cert (--cert-file, --key-file) must be provided for client url "
                        f"{url} with HTTPS scheme"
                    )
    if not (settings.text("peer-cert-file") or settings["peer-auto-tls"]):
        for url in settings.urls("listen-peer-urls"):
            if url.is_tls:
                raise FlagError(
                    f"cannot listen on TLS for {_address(url)}: KeyFile and CertFile are not "
                    "presented"
                )


def _address(url: MemberUrl) -> str:
    return str(url).partition("://")[2]


def _check_limits(
    settings: Settings, who: str, demands: tuple[str, ...], limits: tuple[str, ...]
) -> None:
    hostnames, cns = (cast("tuple[str, ...]", settings[name]) for name in limits)
    if hostnames and cns:
        raise FlagError(
            f"AllowedCNs and AllowedHostnames are mutually exclusive (cns={_quoted(cns)}, "
            f"hostnames={_quoted(hostnames)})"
        )
    if any(settings[name] for name in demands):
        return
    for name in limits:
        if settings[name]:
            raise FlagError(
                f"--{name} needs {who}s that show certificates: set --{' or --'.join(demands)}"
            )


def _quoted(words: tuple[str, ...]) -> str:
    """Return a list of texts as Go prints it with %q."""
    return "[" + " ".join(f'"{word}"' for word in words) + "]"


def _is_self_signed(settings: Settings, prefix: str) -> bool:
    """Whether certificates are made here: asked for, and none is given."""
    return bool(settings[f"{prefix}auto-tls"]) and not settings.text(f"{prefix}cert-file")


def _check_self_signed(settings: Settings, flag: str, others: tuple[str, ...]) -> None:
    if not _is_self_signed(settings, flag.removesuffix("auto-tls")):
        return
    for name in others:
        if settings[name]:
            raise FlagError(
                f"--{flag} trusts everybody, so --{name} would not count: remove one of them, "
                f"or give --{flag.replace('auto-tls', 'cert-file')}"
            )
    years = settings.number("self-signed-cert-validity")
    if years == 0:
        raise FlagError("selfSignedCertValidity is invalid,it should be greater than 0")
    if years > SELF_SIGNED_YEARS_MAX:
        raise FlagError(
            f"--self-signed-cert-validity={years} is too long: {SELF_SIGNED_YEARS_MAX} years "
            "at the most"
        )


def _check_versions(settings: Settings) -> None:
    suites = cast("tuple[str, ...]", settings["cipher-suites"])
    oldest, newest = settings.text("tls-min-version"), settings.text("tls-max-version")
    if oldest == "TLS1.3" and newest == "TLS1.2":
        raise FlagError("--tls-min-version TLS1.3 is newer than --tls-max-version TLS1.2")
    if suites and oldest == "TLS1.3":
        raise FlagError("cipher suites cannot be configured when only TLS1.3 is enabled")
    try:
        check_cipher_suites(suites)
    except UnknownCipherSuiteError as error:
        raise FlagError(f'unexpected TLS cipher suite "{error.name}"') from error
