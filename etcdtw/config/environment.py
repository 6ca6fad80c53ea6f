"""Flags from ``ETCD_*`` variables, by etcd's rules; the environment is an argument.

An empty variable is unset.  A flag given both ways is an error: one of them would be
silently wrong.
"""

from __future__ import annotations

from collections.abc import Mapping

from etcdtw.cluster.urls import UrlError
from etcdtw.config.flags import FlagError, FlagSpec, Value, parse_value
from etcdtw.config.govalues import ValueTextError

PREFIX = "ETCD_"
_NOT_FLAGS = ("ETCD_UNSUPPORTED_ARCH", "ETCD_VERIFY")
"""Variables of etcd that are no flags; they say nothing to etcdtw."""


def values_from_environment(
    environment: Mapping[str, str], specs: Mapping[str, FlagSpec], given: Mapping[str, Value]
) -> tuple[dict[str, Value], list[str]]:
    """Return the flags that variables set, and warnings about variables that set none.

    ``given``: the flags of the command line.  Raises `FlagError` (status 1).
    """
    found: dict[str, Value] = {}
    known = {spec.variable: spec for spec in specs.values()}
    warnings = []
    for variable in sorted(environment):
        text = environment[variable]
        if not variable.startswith(PREFIX) or variable in _NOT_FLAGS or not text:
            continue
        spec = known.get(variable)
        if spec is None or variable == "ETCD_VERSION":
            warnings.append(f"unrecognized environment variable {variable}={text}")
            continue
        if spec.name in given:
            raise FlagError(
                "conflicting environment variable is shadowed by corresponding command-line flag "
                f"(either unset environment variable or disable flag): {variable}"
            )
        try:
            found[spec.name] = parse_value(spec, text)
        except (ValueTextError, UrlError) as error:
            raise FlagError(f'invalid value "{text}" for {variable}: {error}') from error
    return found, warnings
