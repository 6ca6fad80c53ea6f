"""Configurations as a command line, an environment and files make them."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from etcdtw.config.config import Config, configure
from etcdtw.config.flags import FlagError


def configured(
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    files: Mapping[str, str] | None = None,
) -> Config:
    def read_file(path: str) -> bytes:
        if path not in (files or {}):
            raise FileNotFoundError(2, "No such file or directory", path)
        return (files or {})[path].encode()

    return configure(arguments, environment or {}, read_file)


def refusal(
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    files: Mapping[str, str] | None = None,
) -> tuple[int, str]:
    with pytest.raises(FlagError) as caught:
        configured(*arguments, environment=environment, files=files)
    return caught.value.status, caught.value.message
