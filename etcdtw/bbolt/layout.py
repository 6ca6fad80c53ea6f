"""What pages, elements and metas look like.

A file is an array of pages.  Integers are little-endian here; etcd's own keys and values are not.

    page   := id:u64 flags:u16 count:u16 overflow:u32 body      (spans 1 + overflow page sizes)
    meta   := magic:u32 version:u32 page_size:u32 flags:u32
              root:u64 sequence:u64 freelist:u64 high_water:u64 txid:u64 checksum:u64
    leaf   := (flags:u32 position:u32 key_size:u32 value_size:u32)* data
    branch := (position:u32 key_size:u32 id:u64)* data
    bucket := root:u64 sequence:u64 [a leaf page, if root is 0]  (a value in the root's tree)

A position counts from its own element.  Pages 0 and 1 are metas; of the two the valid one with
the higher txid counts.  Source: bbolt's file format, version 2.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

MAGIC: Final = 0xED0CDAED
VERSION: Final = 2
PAGE_SIZE: Final = 4096
PAGE_SIZE_MIN: Final = 1024
PAGE_SIZE_MAX: Final = 1 << 16
"""What etcd's platforms have; bbolt itself would take more."""

FLAG_BRANCH: Final = 0x01
FLAG_LEAF: Final = 0x02
FLAG_META: Final = 0x04
FLAG_FREELIST: Final = 0x10
ELEMENT_BUCKET: Final = 0x01

PAGE_HEAD: Final = Struct("<QHHI")
META_BODY: Final = Struct("<IIIIQQQQQ")
U64: Final = Struct("<Q")
BUCKET_HEAD: Final = Struct("<QQ")
HEAD_SIZE: Final = PAGE_HEAD.size
ELEMENT_SIZE: Final = 16
META_SIZE: Final = META_BODY.size + U64.size

NO_FREELIST: Final = 0xFFFFFFFFFFFFFFFF
"""In place of the freelist's page: it is found by a scan.  etcd on Linux always writes this."""
FIRST_PAGE: Final = 2  # behind the metas
ELEMENTS_MAX: Final = 0xFFFE
LONG_COUNT: Final = 0xFFFF  # a freelist's count that does not fit: its first id is the count
KEY_SIZE_MAX: Final = 32768
VALUE_SIZE_MAX: Final = (1 << 31) - 2
INLINE_PART: Final = 4  # a bucket is inline up to this part of a page

_FNV_BASIS: Final = 0xCBF29CE484222325
_FNV_PRIME: Final = 0x100000001B3
_U64_MASK: Final = 0xFFFFFFFFFFFFFFFF


class BboltError(Exception):
    """The octets are no bbolt file that can be read, or cannot become one; says where and why."""


def fnv1a_64(octets: bytes) -> int:
    """Return the checksum of a meta: FNV-1a of 64 bits."""
    checksum = _FNV_BASIS
    for octet in octets:
        checksum = (checksum ^ octet) * _FNV_PRIME & _U64_MASK
    return checksum


class Meta:
    """One of the two heads of a file."""

    __slots__ = ("freelist", "high_water", "page_size", "root", "txid")

    def __init__(
        self, page_size: int, root: int, freelist: int, high_water: int, txid: int
    ) -> None:
        self.page_size = page_size
        self.root = root
        self.freelist = freelist
        self.high_water = high_water
        """The first page id that was never used: the pages of the file."""
        self.txid = txid


def encode_meta(meta: Meta) -> bytes:
    """Return the whole page; its id is the txid's parity."""
    body = META_BODY.pack(
        MAGIC, VERSION, meta.page_size, 0, meta.root, 0, meta.freelist, meta.high_water, meta.txid
    )
    page = PAGE_HEAD.pack(meta.txid % 2, FLAG_META, 0, 0) + body + U64.pack(fnv1a_64(body))
    return page.ljust(meta.page_size, b"\0")


def decode_meta(head: bytes) -> Meta:
    """Return the meta at the beginning of a page.  Raises `BboltError` when it is not valid."""
    if len(head) < HEAD_SIZE + META_SIZE:
        raise BboltError("the file ends within a meta page")
    magic, version, page_size, _, root, _, freelist, high_water, txid = META_BODY.unpack_from(
        head, HEAD_SIZE
    )
    if magic != MAGIC:
        raise BboltError("not a bbolt database: wrong magic")
    if version != VERSION:
        raise BboltError(f"version {version} of the bbolt format is not supported")
    body_end = HEAD_SIZE + META_BODY.size
    if U64.unpack_from(head, body_end)[0] != fnv1a_64(head[HEAD_SIZE:body_end]):
        raise BboltError("a meta page fails its checksum")
    if not PAGE_SIZE_MIN <= page_size <= PAGE_SIZE_MAX or page_size & (page_size - 1):
        raise BboltError(f"page size {page_size} is not supported")
    return Meta(page_size, root, freelist, high_water, txid)
