"""What header blocks mean that differ from the block before in their timeout alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcdtw.grpc.call import Call, Metadata, Method, MethodTable
from etcdtw.grpc.intake import HEAVY_OCTETS_MIN, Fields, Intake, resolve, resolve_like
from etcdtw.grpc.message import frame_message
from etcdtw.grpc.server import CallServer
from etcdtw.grpc.stats import ServerStats
from etcdtw.http2.connection import Connection
from tests.grpc.grpc_rig import PREFIX, request_fields

TIMEOUT = b"grpc-timeout"


class ScreenedRig:
    """A server whose screen and calls are noted."""

    def __init__(self) -> None:
        self.screened: list[str] = []
        self.calls: list[Call] = []
        self.methods = MethodTable(self._screen)
        self.methods.add_unary(PREFIX + "Unary", self._answer)
        self.methods.add_unary(PREFIX + "Other", self._answer)
        http2 = Connection()
        http2.begin()
        self.server = CallServer(http2, self.methods, ServerStats(), on_output=lambda: None)
        self.client = Connection(client=True)
        self.client.begin()

    def call(self, *more: tuple[bytes, bytes], name: str = "Unary") -> Call:
        """Make a call, and return it as its handler got it."""
        stream_id = self.client.open_stream()
        self.client.send_headers(stream_id, request_fields(name, *more))
        self.client.send_data(stream_id, frame_message(b"m"), True)
        self.server.receive(self.client.take_output(), 1_000)
        self.client.receive(self.server.take_output(), 1_000)
        return self.calls[-1]

    def _screen(self, method: Method, metadata: Metadata) -> tuple[str, Method]:
        self.screened.append(method.path)
        return "", method

    def _answer(self, call: Call, message: bytes) -> None:
        self.calls.append(call)


@pytest.fixture
def rig() -> ScreenedRig:
    return ScreenedRig()


def test_calls_that_differ_in_their_timeout_alone_are_screened_once(rig: ScreenedRig) -> None:
    deadlines = [rig.call((TIMEOUT, b"%dm" % n), (b"k", b"v")).deadline_ms for n in (5, 7, 6)]
    assert deadlines == [1_005, 1_007, 1_006]
    assert rig.calls[-1].metadata(b"k") == b"v"
    assert rig.screened == [PREFIX + "Unary"]


def test_another_token_is_never_taken_for_the_one_before(rig: ScreenedRig) -> None:
    tokens = [b"a", b"b", b"a"]
    calls = [rig.call((TIMEOUT, b"%dm" % n), (b"token", t)) for n, t in enumerate(tokens, 5)]
    assert [call.caller.token for call in calls] == tokens
    assert rig.call((TIMEOUT, b"9m")).caller.token is None


def test_another_method_or_no_timeout_is_screened_by_itself(rig: ScreenedRig) -> None:
    rig.call((TIMEOUT, b"5m"))
    rig.call((TIMEOUT, b"6m"), name="Other")
    assert rig.call().deadline_ms is None
    assert rig.screened == [PREFIX + "Unary", PREFIX + "Other", PREFIX + "Unary"]


def test_another_field_in_the_place_of_the_timeout_is_none(rig: ScreenedRig) -> None:
    rig.call((TIMEOUT, b"5m"))
    call = rig.call((b"k", b"6m"))
    assert call.deadline_ms is None
    assert call.metadata(b"k") == b"6m"


@pytest.mark.parametrize(("octets", "screened"), [(-1, 1), (0, 2)])
def test_heavy_fields_are_not_kept_for_the_next_call(
    rig: ScreenedRig, octets: int, screened: int
) -> None:
    fields = request_fields("Unary", (TIMEOUT, b"5m"), (b"k", b""))
    value = b"v" * (HEAVY_OCTETS_MIN + octets - Intake(fields).octets)
    for timeout in (b"5m", b"6m"):
        rig.call((TIMEOUT, timeout), (b"k", value))
    assert len(rig.screened) == screened


def told(intake: Intake) -> tuple[object, ...]:
    """Return all that an intake says, but for octets that need only be about right."""
    names = ("fields", "encoding", "is_grpc", "head", "head_block", "method", "refusal")
    more = ("stats", "timeout_at", "timeout_ms", "unary", "_values")
    return tuple(getattr(intake, name) for name in names + more)


FIELDS = st.sampled_from(
    [
        *((TIMEOUT, value) for value in (b"5m", b"6m", b"7S", b"0m", b"x")),
        *((b"token", value) for value in (b"a", b"b")),
        (b"grpc-encoding", b"gzip"),
    ]
)
LISTS = st.lists(FIELDS, max_size=4).map(lambda more: request_fields("Unary", *more))


@given(LISTS, LISTS, st.sampled_from([b"5m", b"60S", b"0m", b"", b"x"]))
def test_what_is_taken_from_the_block_before_is_what_the_block_says(
    before: Fields, after: Fields, timeout: bytes
) -> None:
    rig = ScreenedRig()
    stats = ServerStats()
    known = resolve(before, rig.methods, stats)
    at = known.timeout_at
    if at >= 0:
        same = (*before[:at], (TIMEOUT, timeout), *before[at + 1 :])
        assert (resolve_like(known, same) is None) == (timeout in (b"0m", b"", b"x"))
        after = same if len(after) % 2 else after
    found = resolve_like(known, after)
    if found is not None:
        assert told(found) == told(resolve(after, rig.methods, stats))
