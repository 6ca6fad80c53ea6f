"""Requests from octets: the one place where a malformed message becomes a status.

What goes into the log must mean the same to every member, and implementations differ in what
they make of unusual octets: real members up to 3.5 refuse what Python's protobuf skips, and
replace what it merges.  So an entry holds a request as it was understood here.
"""

from __future__ import annotations

from typing import Final, Protocol, TypeVar

from google.protobuf.message import DecodeError, Message

from etcdtw.grpc.call import INTERNAL, StatusError
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire.requests import Put, Txn, put_of, txn_of, usual_put, usual_txn

CANNOT_PARSE: Final = "proto: cannot parse invalid wire-format data"
"""What Go's protobuf says of octets that are no message; some builds have a no-break space."""
MALFORMED_MESSAGE: Final = f"grpc: failed to unmarshal the received message: {CANNOT_PARSE}"
"""The same on a stream."""

M_co = TypeVar("M_co", covariant=True)
E = TypeVar("E", bound=Message)


class _MessageClass(Protocol[M_co]):
    @staticmethod
    def FromString(data: bytes) -> M_co: ...  # noqa: N802


def decode(message_class: _MessageClass[M_co], octets: bytes) -> M_co:
    """Parse a request; octets that are no such message end the call with INTERNAL.

    Source: grpc-go's server, which answers so when its codec fails.
    """
    try:
        return message_class.FromString(octets)
    except DecodeError:
        raise _malformed() from None


def decode_entry(message_class: _MessageClass[E], octets: bytes) -> tuple[E, bytes]:
    """As `decode`; and the octets to propose."""
    request = decode(message_class, octets)
    request.DiscardUnknownFields()
    return request, request.SerializeToString()


def decode_put(octets: bytes) -> tuple[Put, bytes]:
    """As `decode_entry`, of a PutRequest."""
    found = usual_put(octets)
    if found is not None:
        return found, octets
    request, octets = decode_entry(pb.PutRequest, octets)
    return put_of(request), octets


def decode_txn(octets: bytes) -> tuple[Txn, bytes]:
    """As `decode_entry`, of a TxnRequest."""
    try:
        found = usual_txn(octets)
    except DecodeError:
        raise _malformed() from None
    if found is not None:
        return found, octets
    request, octets = decode_entry(pb.TxnRequest, octets)
    return txn_of(request), octets


def _malformed() -> StatusError:
    return StatusError(INTERNAL, f"grpc: error unmarshalling request: {CANNOT_PARSE}")
