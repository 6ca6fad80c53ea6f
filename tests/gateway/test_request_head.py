"""What heads of JSON requests mean for the call."""

from __future__ import annotations

import pytest

from etcdtw.gateway.request_head import TIMEOUT_MS_MAX, HeadError, metadata, timeout_ms


def head(**fields: bytes) -> dict[bytes, bytes]:
    return {name.replace("_", "-").encode(): value for name, value in fields.items()}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"", None),
        (b"0S", None),
        (b"1n", 1),
        (b"1u", 1),
        (b"5m", 5),
        (b"2S", 2_000),
        (b"3M", 180_000),
        (b"1H", 3_600_000),
        (b"-1S", -1_000),
        (b"+1S", 1_000),
        (b"999999999999999999H", TIMEOUT_MS_MAX),
    ],
)
def test_timeouts(value: bytes, expected: int | None) -> None:
    assert timeout_ms(head(grpc_timeout=value).get) == expected


@pytest.mark.parametrize("value", ["3x", "S", "1", "1.5S", " 1S", "1SS", "x1S", "9" * 20 + "S"])
def test_what_is_no_timeout_is_shown(value: str) -> None:
    with pytest.raises(HeadError, match="invalid grpc-timeout: "):
        timeout_ms(head(grpc_timeout=value.encode()).get)


def test_without_fields_there_is_no_metadata() -> None:
    assert metadata(head(accept=b"*/*").get) == []
    assert timeout_ms(head().get) is None


def test_authorization_is_passed_on() -> None:
    given = head(authorization=b"Bearer abc")
    assert metadata(given.get) == [(b"authorization", b"Bearer abc")]
    both = head(authorization=b"abc", grpc_metadata_token=b"def")
    assert metadata(both.get) == [(b"authorization", b"abc"), (b"token", b"def")]
    of_metadata = head(authorization=b"abc", grpc_metadata_authorization=b"Bearer def")
    assert metadata(of_metadata.get)[0] == (b"authorization", b"abc"), "the first one counts"


def test_metadata_that_services_know_is_passed_on() -> None:
    given = head(grpc_metadata_hasleader=b"true", grpc_metadata_client_api_version=b"3.7")
    assert metadata(given.get) == [(b"hasleader", b"true"), (b"client-api-version", b"3.7")]
    assert metadata(head(grpc_metadata_hasleader=b"tr\xffe").get) == []
