"""Every cell of the stream's transition table (RFC 9113 section 5.1, figure 2)."""

from __future__ import annotations

import pytest

from etcdtw.http2.errors import INTERNAL_ERROR, PROTOCOL_ERROR, STREAM_CLOSED
from etcdtw.http2.stream import INPUT_NAMES, STATE_NAMES, TRANSITIONS

EXPECTED = {
    "idle": "open P P P P open x x x",
    "open": "open open remote closed open open open local closed",
    "half closed (local)": "local local closed closed local x x x closed",
    "half closed (remote)": "S S S closed remote remote remote closed closed",
    "closed": "S S S closed closed x x x closed",
}
WORDS = {
    "open": STATE_NAMES.index("open"),
    "local": STATE_NAMES.index("half closed (local)"),
    "remote": STATE_NAMES.index("half closed (remote)"),
    "closed": STATE_NAMES.index("closed"),
    "P": -PROTOCOL_ERROR,
    "S": -STREAM_CLOSED,
    "x": -INTERNAL_ERROR,
}
CELLS = [
    (state, given, word)
    for state, row in enumerate(EXPECTED.values())
    for given, word in enumerate(row.split())
]


@pytest.mark.parametrize(("state", "given", "word"), CELLS)
def test_rfc9113_5_1_each_state_and_input_leads_where_the_figure_says(
    state: int, given: int, word: str
) -> None:
    assert TRANSITIONS[state][given] == WORDS[word], (STATE_NAMES[state], INPUT_NAMES[given])


def test_the_table_is_complete() -> None:
    assert list(EXPECTED) == list(STATE_NAMES)
    assert [len(row) for row in TRANSITIONS] == [len(INPUT_NAMES)] * len(STATE_NAMES)
    assert len(CELLS) == len(STATE_NAMES) * len(INPUT_NAMES)
