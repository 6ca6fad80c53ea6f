"""Numbers and base64 as Go's protojson takes them."""

from __future__ import annotations

import random
from base64 import b64encode, urlsafe_b64encode
from decimal import Decimal

import pytest

from etcdtw.gateway.transcoding.scalars import decode_base64, number_octets, whole_number
from etcdtw.gateway.transcoding.tables import table_of
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire.encode import encode_varint

RANGE = table_of(pb.RangeRequest).by_name


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("-0", 0),
        ("0.000", 0),
        ("0e99999999999", 0),
        ("12", 12),
        ("-12", -12),
        ("1.0", 1),
        ("1.50e1", 15),
        ("100e-2", 1),
        ("1e2", 100),
        ("1E+2", 100),
        ("1e19", 10**19),
        ("1e-0", 1),
    ],
)
def test_whole_numbers(text: str, number: int) -> None:
    assert whole_number(text) == number


@pytest.mark.parametrize(
    "text",
    [
        *("", " 1", "1 ", "01", "+1", ".5", "1.", "1e", "0x1", "1_0", "\u0661", "1.5", "15e-1"),
        *("1e20", "1e30", "1e99999999999", "-", "NaN", "1,0", "0.5", "1e-1", "5e-1"),
    ],
)
def test_what_is_no_whole_number(text: str) -> None:
    assert whole_number(text) is None


def test_numbers_of_any_shape_are_what_they_say() -> None:
    source = random.Random(1)
    for _ in range(2_000):
        text = f"{source.randint(-99, 99)}"
        text += source.choice(["", ".0", ".5", ".25", ".10"])
        text += source.choice(["", "e0", "e1", "E2", "e-1", "e-2"])
        exact = Decimal(text)
        expected = int(exact) if exact == exact.to_integral_value() else None
        found = whole_number(text)
        # As Go: what has a fraction, or is 0 once it is shifted out, is none.
        assert found == expected or (found is None and "e-" in text.lower())


def test_numbers_must_fit_their_field() -> None:
    limit, order = RANGE["limit"], RANGE["sort_order"]
    greatest = 2**63 - 1
    assert number_octets(limit, str(greatest), is_quoted=True) == encode_varint(greatest)
    assert number_octets(limit, str(greatest + 1), is_quoted=True) is None
    assert number_octets(limit, str(-greatest - 1), is_quoted=False) == encode_varint(-greatest - 1)
    assert number_octets(order, str(2**31), is_quoted=False) is None
    assert number_octets(order, "1", is_quoted=False) == b"\1"
    assert number_octets(order, "1", is_quoted=True) is None


@pytest.mark.parametrize("size", range(10))
def test_base64_of_both_alphabets_with_and_without_padding(size: int) -> None:
    octets = bytes([0xFB, 0xFF] * 5)[:size]
    for text in (b64encode(octets).decode(), urlsafe_b64encode(octets).decode()):
        assert decode_base64(text) == octets
        assert decode_base64(text.rstrip("=")) == octets
        assert decode_base64("\n".join(text[at : at + 4] for at in range(0, len(text), 4))) in (
            octets,
            None,  # Go counts the line breaks where it looks for padding
        )


@pytest.mark.parametrize(
    "text", ["*", "Y", "YQ=", "YQ===", "=YQ=", "Y=Q=", "_+==", "ü", "YQ==YQ=="]
)
def test_what_is_no_base64(text: str) -> None:
    assert decode_base64(text) is None
