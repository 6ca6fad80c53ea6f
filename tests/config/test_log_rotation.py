"""etcd's JSON of log rotation."""

from __future__ import annotations

import pytest

from etcdtw.config.flag_table import FLAGS
from etcdtw.config.govalues import ValueTextError
from etcdtw.config.log_rotation import LogRotation, can_rotate, parse_log_rotation


def test_the_default_rotates_at_100_mb_and_keeps_all() -> None:
    assert parse_log_rotation(FLAGS["log-rotation-config-json"].default) == LogRotation(
        size_max=100 * 1024 * 1024,
        age_max_s=0,
        backups_max=0,
        is_local_time=False,
        compresses=False,
    )


def test_every_key_counts_in_any_case() -> None:
    text = (
        '{"MaxSize": 2, "maxage": 3, "maxbackups": 4, "localtime": true, "compress": true, "x": 1}'
    )
    assert parse_log_rotation(text) == LogRotation(
        size_max=2 * 1024 * 1024,
        age_max_s=3 * 86_400,
        backups_max=4,
        is_local_time=True,
        compresses=True,
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "improperly formatted log rotation config: "),
        ("", "improperly formatted log rotation config: "),
        ("[]", "invalid log rotation config: expected an object"),
        ('{"maxsize": "1"}', "invalid log rotation config: maxsize is '1'"),
        ('{"maxsize": true}', "invalid log rotation config: maxsize is True"),
        ('{"maxage": -1}', "invalid log rotation config: maxage is negative"),
        ('{"compress": 1}', "invalid log rotation config: compress is 1"),
    ],
)
def test_what_is_wrong_is_said(text: str, message: str) -> None:
    with pytest.raises(ValueTextError) as caught:
        parse_log_rotation(text)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("outputs", "can"),
    [
        (("default",), False),
        (("a.log",), True),
        (("stderr", "a.log"), True),
        (("a.log", "b.log"), False),
        (("a.log", "systemd/journal"), False),
        (("stderr", "stdout"), True),
    ],
)
def test_etcd_rotates_one_file(outputs: tuple[str, ...], can: bool) -> None:
    assert can_rotate(outputs) is can
