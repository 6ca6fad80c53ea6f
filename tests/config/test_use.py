"""No flag is ignored in silence: each field of the configuration is read by what it configures."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Final

import pytest

import etcdtw
from etcdtw.config.config import ClientTls, Config, Logging, PeerTls, Quota
from etcdtw.config.discovery import Discovery
from etcdtw.config.flag_table import FLAGS
from etcdtw.config.flags import SUPPORTED

PACKAGE: Final = Path(etcdtw.__file__).parent
CONFIGURATION: Final = ("config.py", "checks.py", "discovery.py", "file.py", "flag_table.py")

UNREAD: Final[dict[str, str]] = {}
"""Fields that nothing reads, and why that is no lie to whoever sets them."""

TOLD_OTHERWISE: Final = {
    "version": "ends in a text, before there is a configuration",
    "completion": "ends in a text, too",
    "config-file": "is where the configuration comes from",
    "unsafe-no-fsync": "is refused",
    "discovery-fallback": "has one value only",
    "logger": "has one value only",
}
"""Supported flags without a field, and what becomes of them."""


def sources() -> Iterator[str]:
    for path in PACKAGE.rglob("*.py"):
        if not (path.parent.name == "config" and path.name in CONFIGURATION):
            yield path.read_text(encoding="utf-8")


@pytest.mark.parametrize("record", [Config, ClientTls, Discovery, PeerTls, Logging, Quota])
def test_every_field_of_the_configuration_is_read_somewhere(
    record: type[Config | ClientTls | Discovery | PeerTls | Logging | Quota],
) -> None:
    text = "\n".join(sources())
    unread = {
        field.name for field in fields(record) if not re.search(rf"\.{field.name}\b", text)
    } - set(UNREAD)
    # A property of the record may be the reader.
    shown = (PACKAGE / "config" / "config.py").read_text(encoding="utf-8")
    assert {name for name in unread if f"self.{name}" not in shown} == set()


def test_nothing_on_the_list_of_the_unread_is_read_after_all() -> None:
    text = "\n".join(sources())
    assert [name for name in UNREAD if re.search(rf"config\.{name}\b", text)] == []


def test_every_supported_flag_reaches_the_configuration() -> None:
    shown = (PACKAGE / "config" / "config.py").read_text(encoding="utf-8")
    shown += (PACKAGE / "config" / "checks.py").read_text(encoding="utf-8")
    shown += (PACKAGE / "config" / "discovery.py").read_text(encoding="utf-8")
    reads = set(
        re.findall(r'(?:read\.\w+|_word_set\(read\.text|settings\.\w+)\(\s*"([\w-]+)"', shown)
    )
    reads |= set(re.findall(r'settings\["([\w-]+)"\]', shown))
    supported = {name for name, spec in FLAGS.items() if spec.status == SUPPORTED}
    assert supported - reads - set(TOLD_OTHERWISE) == set()
