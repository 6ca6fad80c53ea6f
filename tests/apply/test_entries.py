"""Where the one request of an entry stands, whoever wrote it."""

from __future__ import annotations

import pytest

from etcdtw.apply.entries import FIELD_V2, V2_METHODS, asker_of, find_request
from etcdtw.node.intake.requests import RequestIds, tag
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire import membershippb
from etcdtw.wire.encode import delimited, encode_varint
from etcdtw.wire.entry_header import NOBODY, Asker

ID = b"\x08" + encode_varint(2**63 + 5)
HEADER = delimited(b"\xa2\x06", ID)
LONG_HEADER = delimited(b"\xa2\x06", ID + delimited(b"\x12", b"user" * 50))


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_383, 16_384, 2_097_152])
@pytest.mark.parametrize("field", [4, 6, 15, 16, 1301])
def test_request_is_found_behind_before_and_without_a_header(field: int, size: int) -> None:
    body = bytes(size)
    request = delimited(tag(field), body)
    for before, after in [
        (HEADER, b""),
        (LONG_HEADER, b""),
        (b"", HEADER),
        (b"", LONG_HEADER),
        (ID, HEADER),
        (ID, b""),
        (b"", b""),
        (RequestIds(7, 1).next_header(), b""),
    ]:
        data = before + request + after
        found, start, end = find_request(data)
        assert (found, data[start:end]) == (field, body)
        is_users = LONG_HEADER in (before, after)
        assert asker_of(data, start, end) == (Asker("user" * 50, 0) if is_users else NOBODY)


def test_real_messages_are_found_as_protobuf_finds_them() -> None:
    header = pb.RequestHeader(ID=77, username="u", auth_revision=3)
    put = pb.PutRequest(key=b"k", value=b"v" * 300)
    version = membershippb.ClusterVersionSetRequest(ver="3.6.0")
    for data, field, message in [
        (pb.InternalRaftRequest(ID=7, header=header, put=put).SerializeToString(), 4, put),
        (
            pb.InternalRaftRequest(header=header, cluster_version_set=version).SerializeToString(),
            1300,
            version,
        ),
    ]:
        found, start, end = find_request(data)
        assert (found, data[start:end]) == (field, message.SerializeToString())
        assert asker_of(data, start, end) == Asker("u", 3)


@pytest.mark.parametrize("method", sorted(V2_METHODS))
def test_bare_request_of_the_old_api_is_told_by_its_method(method: bytes) -> None:
    for request in (pb.Request(ID=9, Method=method, Path=b"/x"), pb.Request(Method=method)):
        data = request.SerializeToString()
        assert find_request(data) == (FIELD_V2, 0, len(data))


def test_request_of_the_old_api_within_an_entry_is_found_too() -> None:
    inner = pb.Request(ID=9, Method=b"PUT", Path=b"/0/version").SerializeToString()
    data = delimited(b"\x12", inner)
    assert find_request(data) == (FIELD_V2, 2, len(data))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (HEADER, "no request"),
        (ID, "no request"),
        (delimited(b"\x22", b"a") + delimited(b"\x2a", b"b"), "fields 4 and 5 are both requests"),
        (delimited(b"\x22", b"a") * 2, "fields 4 and 4 are both requests"),
        (b"\x22\x05abc", "field 4 is cut short"),
        (HEADER + b"\x22\x05abc", "field 4 is cut short"),
        (b"\x20\x05", "field 4 has wire type 0"),
        (b"\x23\x24", "field 4 has wire type 3"),
        (b"\x22", "no varint"),
        (b"\x22\xff", "no varint"),
        (b"\x22\xff\xff", "no varint"),
        (b"\xa2\x06\x0b\x08", "field 100 is cut short"),
        (b"\xff" * 11, "no varint"),
        (delimited(b"\x22", b"a") + b"\xa2\x06\x7f", "field 100 is cut short"),
        (delimited(b"\x22", b"a") + b"\xa2\x06", "no varint"),
    ],
)
def test_entry_without_exactly_one_request_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_request(data)
