"""Requests from octets: the one place where a malformed message becomes a status."""

from __future__ import annotations

from typing import Protocol, TypeVar

from google.protobuf.message import DecodeError

from etcdtw.grpc.call import INTERNAL, StatusError

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
        raise StatusError(INTERNAL, f"grpc: error unmarshalling request: {error}") from None
