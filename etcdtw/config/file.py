"""The configuration file: octets in, flags by name out.

Keys are the flags' names, but for three maps (TLS, sockets, discovery).  Durations are whole
nanoseconds, as etcd has them.  JSON is a subset of YAML, so one parser reads both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from etcdtw.cluster.urls import UrlError
from etcdtw.config.flags import (
    BOOL,
    DURATION,
    INT,
    LIST,
    UINT,
    UINT32,
    FlagError,
    FlagSpec,
    Value,
    parse_value,
)
from etcdtw.config.govalues import ValueTextError

_CLIENT_TLS: Final = {
    "cert-file": "cert-file",
    "key-file": "key-file",
    "client-cert-file": "client-cert-file",
    "client-key-file": "client-key-file",
    "client-cert-auth": "client-cert-auth",
    "trusted-ca-file": "trusted-ca-file",
    "auto-tls": "auto-tls",
    "allowed-cn": "client-cert-allowed-cn",
    "allowed-hostname": "client-cert-allowed-hostname",
}
_PEER_TLS: Final = {
    "cert-file": "peer-cert-file",
    "key-file": "peer-key-file",
    "client-cert-file": "peer-client-cert-file",
    "client-key-file": "peer-client-key-file",
    "client-cert-auth": "peer-client-cert-auth",
    "trusted-ca-file": "peer-trusted-ca-file",
    "auto-tls": "peer-auto-tls",
    "allowed-cn": "peer-cert-allowed-cn",
    "allowed-hostname": "peer-cert-allowed-hostname",
    "skip-client-san-verification": "peer-skip-client-san-verification",
}
_Names = Mapping[str, "str | _Names"]
"""Flags by key; a map within a map has its own."""

_DISCOVERY_CLIENT: Final[_Names] = {
    "endpoints": "discovery-endpoints",
    "dial-timeout": "discovery-dial-timeout",
    "request-timeout": "discovery-request-timeout",
    "keepalive-time": "discovery-keepalive-time",
    "keepalive-timeout": "discovery-keepalive-timeout",
    "secure": {
        "cert": "discovery-cert",
        "key": "discovery-key",
        "cacert": "discovery-cacert",
        "insecure-transport": "discovery-insecure-transport",
        "insecure-skip-tls-verify": "discovery-insecure-skip-tls-verify",
    },
    "auth": {"username": "discovery-user", "password": "discovery-password"},
}
_MAPS: Final[_Names] = {
    "client-transport-security": _CLIENT_TLS,
    "peer-transport-security": _PEER_TLS,
    "socket-options": {
        "reuse-port": "socket-reuse-port",
        "reuse-address": "socket-reuse-address",
    },
    "discovery-config": {"token": "discovery-token", "client": _DISCOVERY_CLIENT},
}
_INTEGER_KINDS: Final = (INT, UINT, UINT32)
_NO_KEYS: Final = frozenset(("version", "completion", "config-file", "discovery-fallback"))
"""Flags that etcd reads from the command line alone: it overlooks such keys, whatever they hold
(`discovery-fallback: proxy` stands in its own sample)."""


def values_from_file(
    path: str, data: bytes, specs: Mapping[str, FlagSpec]
) -> tuple[dict[str, Value], list[str]]:
    """Return the flags that the file sets, and warnings about keys that name none.

    Raises `FlagError` (status 1) that names the file and the key.
    """
    import yaml  # few starts read a file, and it is a fortieth of a start

    try:
        content = yaml.safe_load(data)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise FlagError(f"{path}: not YAML or JSON: {error}") from error
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise FlagError(f"{path}: expected a map of flag names to values")
    found: dict[str, Value] = {}
    warnings: list[str] = []

    def take(names: _Names, content: Mapping[object, object], before: str) -> None:
        for key, value in content.items():
            where = f"{before}{key}"
            inner = names.get(str(key), "" if before else str(key))
            if isinstance(inner, str):
                _take(path, where, inner, value, specs, found, warnings)
            elif isinstance(value, dict):
                take(inner, value, f"{where}.")
            elif value is not None:
                raise FlagError(f"{path}: {where}: expected a map, found {value!r}")

    take(_MAPS, content, "")
    return found, warnings


def _take(
    path: str,
    where: str,
    name: str,
    value: object,
    specs: Mapping[str, FlagSpec],
    found: dict[str, Value],
    warnings: list[str],
) -> None:
    spec = specs.get(name)
    if spec is None or name in _NO_KEYS:
        warnings.append(f"{path}: unknown key {where} is ignored")
    elif value is not None:
        try:
            found[name] = _value(spec, value)
        except (ValueTextError, UrlError) as error:
            raise FlagError(f"{path}: {where}: {error}") from error


def _value(spec: FlagSpec, value: object) -> Value:
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    if spec.kind == BOOL:
        if not isinstance(value, bool):
            raise ValueTextError(f"expected true or false, found {value!r}")
        return value
    if spec.kind == DURATION:
        if not is_integer:
            raise ValueTextError(f"expected whole nanoseconds, found {value!r}")
        assert isinstance(value, int)
        return value
    if spec.kind in _INTEGER_KINDS:
        if not is_integer:
            raise ValueTextError(f"expected a whole number, found {value!r}")
        return parse_value(spec, str(value))
    if spec.kind == LIST and isinstance(value, list):
        if not all(isinstance(word, str) for word in value):
            raise ValueTextError(f"expected a list of texts, found {value!r}")
        return tuple(value)
    if not isinstance(value, str):
        raise ValueTextError(f"expected a text, found {value!r} (put it in quotes)")
    return parse_value(spec, value)
