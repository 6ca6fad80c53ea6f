"""The Huffman code of HPACK: an octet-wise state machine, and an encoder.

The code of RFC 7541 appendix B is canonical (codes ascend by length, then by symbol), so the
lengths alone define it.  A state is an inner node of the code tree; a row of the machine maps
the next input octet to (symbols completed, next state) and is built when first visited.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from etcdtw.http2.errors import CompressionError

Cell: TypeAlias = tuple[bytes, int]

EOS: Final = 256
# fmt: off
CODE_LENGTHS: Final[tuple[int, ...]] = (
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
)
# fmt: on
"""Bits of each symbol's code; the last one is EOS."""


def _assign_codes() -> tuple[int, ...]:
    codes = [0] * len(CODE_LENGTHS)
    code = 0
    length = 0
    for symbol in sorted(range(EOS + 1), key=lambda s: (CODE_LENGTHS[s], s)):
        code <<= CODE_LENGTHS[symbol] - length
        length = CODE_LENGTHS[symbol]
        codes[symbol] = code
        code += 1
    return tuple(codes)


def _grow_tree() -> list[list[int]]:
    """Return the inner nodes, root first: [child on 0, child on 1]; a leaf is ``~symbol``."""
    nodes = [[0, 0]]
    for symbol, code in enumerate(CODES):
        node = 0
        for shift in range(CODE_LENGTHS[symbol] - 1, 0, -1):
            bit = code >> shift & 1
            if not nodes[node][bit]:
                nodes.append([0, 0])
                nodes[node][bit] = len(nodes) - 1
            node = nodes[node][bit]
        nodes[node][code & 1] = ~symbol
    return nodes


CODES: Final = _assign_codes()
_NODES: Final = _grow_tree()
_FAILED: Final = len(_NODES)
"""The state after an EOS symbol inside a string, which RFC 7541 5.2 forbids."""


def _final_states() -> frozenset[int]:
    """Return the states a string may end in: up to 7 bits of padding, all ones."""
    states = [0]
    for _ in range(7):
        states.append(_NODES[states[-1]][1])
    return frozenset(states)


_FINAL: Final = _final_states()
_ROWS: Final[list[tuple[Cell, ...] | None]] = [None] * _FAILED + [((b"", _FAILED),) * 256]


def _build_row(state: int) -> tuple[Cell, ...]:
    row = []
    for octet in range(256):
        node = state
        symbols = bytearray()
        for shift in range(7, -1, -1):
            node = _NODES[node][octet >> shift & 1]
            if node < 0:
                if ~node == EOS:
                    node = _FAILED
                    break
                symbols.append(~node)
                node = 0
        row.append((bytes(symbols), node))
    built = tuple(row)
    _ROWS[state] = built
    return built


def decode(data: bytes) -> bytes:
    """Return the string that ``data`` codes.

    Raises `CompressionError` on an EOS symbol, or on padding longer than 7 bits or not all ones.
    """
    state = 0
    pieces = []
    for octet in data:
        piece, state = (_ROWS[state] or _build_row(state))[octet]
        pieces.append(piece)
    if state not in _FINAL:
        raise CompressionError("bad Huffman padding or symbol")
    return b"".join(pieces)


def encode(text: bytes) -> bytes:
    """Return the Huffman code of ``text``, padded with ones."""
    bits = 0
    count = 0
    for octet in text:
        length = CODE_LENGTHS[octet]
        bits = bits << length | CODES[octet]
        count += length
    padding = -count % 8
    bits = bits << padding | (1 << padding) - 1
    return bits.to_bytes((count + padding) // 8, "big")
