"""Requests from octets: the one place where a malformed message becomes a status."""

from __future__ import annotations

from typing import Protocol, TypeVar

from google.protobuf.message import DecodeError

from etcdtw.grpc.call import INTERNAL, StatusError
from etcdtw.wire.requests import Put, Txn, parse_put, parse_txn

M_co = TypeVar("M_co", covariant=True)


class _MessageClass(Protocol[M_co]):
    @staticmethod
    def FromString(data: bytes) -> M_co: ...  # noqa: N802


def decode(message_class: _MessageClass[M_co], octets: bytes) -> M_co:
    """Parse a request; octets that are no such message end the call with INTERNAL.

    Source: grpc-go's server, which answers so when its codec fails.
    """
    try:
        return message_class.FromString(octets)
    except DecodeError as error:
        raise _malformed(error) from None


def decode_put(octets: bytes) -> Put:
    """As `decode`, of a PutRequest."""
    try:
        return parse_put(octets)
    except DecodeError as error:
        raise _malformed(error) from None


def decode_txn(octets: bytes) -> Txn:
    """As `decode`, of a TxnRequest."""
    try:
        return parse_txn(octets)
    except DecodeError as error:
        raise _malformed(error) from None


def _malformed(error: DecodeError) -> StatusError:
    return StatusError(INTERNAL, f"grpc: error unmarshalling request: {error}")
