"""Metadata values: ASCII as they are, ``-bin`` keys in base64.

Source: gRPC over HTTP/2, "Custom-Metadata".
"""

from __future__ import annotations

from binascii import Error, a2b_base64, b2a_base64


def is_binary_key(name: bytes) -> bool:
    """Whether values of this (lower-case) key travel in base64."""
    return name.endswith(b"-bin")


def encode_value(name: bytes, value: bytes) -> bytes:
    """Return ``value`` as it goes on the wire: base64 without padding for binary keys."""
    if not is_binary_key(name):
        return value
    return b2a_base64(value, newline=False).rstrip(b"=")


def decode_value(name: bytes, value: bytes) -> bytes | None:
    """Return the octets meant; None when a binary value is no base64.

    Padding is optional.  Of several values joined by commas the first is returned.
    """
    if not is_binary_key(name):
        return value
    first = value.split(b",", 1)[0].strip()
    try:
        return a2b_base64(first + b"=" * (-len(first) % 4), strict_mode=True)
    except Error:
        return None
