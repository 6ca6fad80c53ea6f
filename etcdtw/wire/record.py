"""A stored record (an encoded ``mvccpb.KeyValue``), read without protobuf.

Records are canonical: fields ascending, each once, zeros omitted (`encode.encode_record`, and
etcd's own encoder for records that came from a real member).
"""

from __future__ import annotations

from etcdtw.wire.mvccpb import KeyValue


class Record:
    """The parts of one record."""

    __slots__ = (
        "_key_at",
        "_key_end",
        "_octets",
        "_value_at",
        "_value_end",
        "create_revision",
        "lease",
        "mod_revision",
        "version",
    )

    def __init__(self, octets: bytes) -> None:
        """Raises ValueError or protobuf's DecodeError when ``octets`` are no record."""
        self._octets = octets
        self._key_at = 0
        self._key_end = 0
        self._value_at = 0
        self._value_end = 0
        self.create_revision = 0
        self.mod_revision = 0
        self.version = 0
        self.lease = 0
        if not self._parse(octets):
            self._take(KeyValue.FromString(octets))

    @property
    def key(self) -> bytes:
        return self._octets[self._key_at : self._key_end]

    @property
    def value(self) -> bytes:
        return self._octets[self._value_at : self._value_end]

    def _take(self, kv: KeyValue) -> None:
        self.create_revision = kv.create_revision
        self.mod_revision = kv.mod_revision
        self.version = kv.version
        self.lease = kv.lease
        self._octets = kv.key + kv.value
        self._key_at = 0
        self._key_end = self._value_at = len(kv.key)
        self._value_end = len(self._octets)

    def _parse(self, octets: bytes) -> bool:
        """Read canonical octets; False when they are anything else."""
        at = 0
        end = len(octets)
        last_tag = 0
        while at < end:
            tag = octets[at]
            if tag <= last_tag or tag > 0x30:
                return False
            last_tag = tag
            number = 0
            shift = 0
            while True:
                at += 1
                if at >= end or shift > 56:
                    return False
                octet = octets[at]
                number |= (octet & 0x7F) << shift
                if octet < 0x80:
                    break
                shift += 7
            at += 1
            if tag == 0x0A:
                self._key_at = at
                at += number
                self._key_end = at
            elif tag == 0x10:
                self.create_revision = number
            elif tag == 0x18:
                self.mod_revision = number
            elif tag == 0x20:
                self.version = number
            elif tag == 0x2A:
                self._value_at = at
                at += number
                self._value_end = at
            elif tag == 0x30:
                self.lease = number
            else:
                return False
        return at == end


def record_at(frame: bytes) -> int:
    """Return where the record begins in a frame."""
    at = 1
    while frame[at] >= 0x80:
        at += 1
    return at + 1


def record_of(frame: bytes) -> bytes:
    """Return the record in a frame: field 2 of a RangeResponse."""
    return frame[record_at(frame) :]
