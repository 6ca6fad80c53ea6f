"""The values of all flags, by name: what was given, else the default."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from etcdtw.cluster.urls import MemberUrl
from etcdtw.config.auth_token import SIMPLE, AuthToken
from etcdtw.config.flags import Value


class Settings:
    """The values of all flags; ``given`` names those that were set."""

    def __init__(self, given: Mapping[str, Value], defaults: Mapping[str, Value]) -> None:
        self.given = given
        self._defaults = defaults
        self.feature_gates: dict[str, bool] = {}
        self.auto_compaction: tuple[str, int, float] = ("periodic", 0, 0.0)
        """mode, revisions to keep, seconds to keep"""
        self.initial_cluster = ""
        self.auth_token = AuthToken(SIMPLE)

    def __getitem__(self, name: str) -> Value:
        value = self.given.get(name)
        return self._defaults[name] if value is None else value

    def text(self, name: str) -> str:
        return cast(str, self[name])

    def number(self, name: str) -> int:
        return cast(int, self[name])

    def urls(self, name: str) -> tuple[MemberUrl, ...]:
        return cast("tuple[MemberUrl, ...]", self[name])
