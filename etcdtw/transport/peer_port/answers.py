"""What the peer port answers: the statuses, headers and texts of etcd's peer protocol.

Knows no connections and no time.
"""

from __future__ import annotations

from datetime import date
from typing import Final

from etcdtw.cluster.ids import id_text, parse_id
from etcdtw.rafthttp.codec import MalformedMessageError, decode_message
from etcdtw.rafthttp.headers import CLUSTER_ID_MISMATCH, incompatibility, sender_of, urls_of
from etcdtw.rafthttp.http import Head
from etcdtw.transport.peer.network import PeerNetwork
from etcdtw.transport.peer.outlet import STREAM_KINDS
from etcdtw.transport.peer.seams import PageAnswer

PATH_MESSAGES: Final = "/raft"
PATH_STREAMS: Final = "/raft/stream/"
PATH_SNAPSHOT: Final = "/raft/snapshot"
PATH_PROBING: Final = "/raft/probing"

_TEXT: Final = (("Content-Type", "text/plain; charset=utf-8"),)
_ERROR: Final = (*_TEXT, ("X-Content-Type-Options", "nosniff"))
_EPOCH: Final = date(1970, 1, 1).toordinal()


def refuse(status: int, text: str, *headers: tuple[str, str]) -> PageAnswer:
    """Return an error as Go's http.Error writes it."""
    return PageAnswer(status, text.encode() + b"\n", (*headers, *_ERROR))


NOT_FOUND: Final = refuse(404, "404 page not found")


class OtherCluster(PageAnswer):
    """The refusal of a member of another cluster: operators need to know."""


class PeerAnswers:
    """The answers of one member, about and to its peers."""

    def __init__(self, network: PeerNetwork) -> None:
        self._network = network
        self._identity = network.identity
        # What every answer below /raft says, probing aside.
        self.raft_headers = (("X-Etcd-Cluster-ID", id_text(network.identity.cluster_id)),)
        self.stream_headers = (
            ("X-Server-Version", str(network.identity.version)),
            *self.raft_headers,
        )

    def refuse_head(self, head: Head) -> PageAnswer | None:
        """Return the refusal of a request below /raft that its head calls for; None: go on."""
        path = head.path
        if path.startswith(PATH_STREAMS):
            return self._refuse_stream(head)
        if path not in (PATH_MESSAGES, PATH_SNAPSHOT):
            return None
        if head.method != "POST":
            return refuse(405, "Method Not Allowed", ("Allow", "POST"))
        refusal = self._incompatible(head, self.raft_headers)
        if refusal is not None:
            return refusal
        self._note_stranger(head)
        return None

    def _refuse_stream(self, head: Head) -> PageAnswer | None:
        if head.method != "GET":
            return refuse(405, "Method Not Allowed", ("Allow", "GET"))
        headers = self.stream_headers
        refusal = self._incompatible(head, headers)
        if refusal is not None:
            return refusal
        kind, _, sender = head.path.removeprefix(PATH_STREAMS).rpartition("/")
        if kind not in STREAM_KINDS:
            return refuse(404, "invalid path", *headers)
        try:
            sender_id = parse_id(sender)
        except ValueError:
            return refuse(404, "invalid from", *headers)
        if self._network.receiver.is_removed(sender_id):
            return refuse(410, "removed member", *headers)
        if not self._network.has_peer(sender_id):
            self._note_stranger(head)
            return refuse(404, "error sender not found", *headers)
        if head.headers.get("x-raft-to", "").lower() != id_text(self._identity.member_id):
            return refuse(412, "to field mismatch", *headers)
        return None

    def _incompatible(self, head: Head, headers: tuple[tuple[str, str], ...]) -> PageAnswer | None:
        why = incompatibility(self._identity, head.headers)
        if why is None:
            return None
        refusal = refuse(412, why, *headers)
        if why != CLUSTER_ID_MISMATCH:
            return refusal
        return OtherCluster(refusal.status, refusal.body, refusal.headers)

    def _note_stranger(self, head: Head) -> None:
        """Let replies flow to a member that our own state does not name yet."""
        sender_id = sender_of(head.headers)
        if sender_id is not None and not self._network.receiver.is_removed(sender_id):
            self._network.set_remote(sender_id, urls_of(head.headers))

    def take_message(self, head: Head, body: bytes) -> PageAnswer:
        """Hand a posted message on; after a 500 the connection ends, as in etcd."""
        try:
            m = decode_message(body)
        except MalformedMessageError:
            return refuse(400, "error unmarshalling raft message", *self.raft_headers)
        if self._network.accept(m, sender_of(head.headers), len(body)) is not None:
            return refuse(500, "error processing raft message", *self.raft_headers)
        return PageAnswer(204, b"", self.raft_headers)

    def snapshot(self, status: int, text: str) -> PageAnswer:
        """Return the answer to a snapshot."""
        if status == 204:
            return PageAnswer(204, b"", self.raft_headers)
        return refuse(status, text, *self.raft_headers)


def stream_of(head: Head) -> tuple[str, int]:
    """Return the kind of stream that a request which was not refused asks for, and who asks."""
    kind, _, sender = head.path.removeprefix(PATH_STREAMS).rpartition("/")
    return kind, parse_id(sender)


def probe(unix_ns: int) -> PageAnswer:
    """Answer the question whether we are there, and what time it is."""
    body = f'{{"OK":true,"Now":"{rfc3339_nano(unix_ns)}"}}\n'
    return PageAnswer(200, body.encode(), _TEXT)


def rfc3339_nano(unix_ns: int) -> str:
    """Return a time in UTC as Go's RFC3339Nano has it: no zeros at the end of the fraction."""
    seconds, nanoseconds = divmod(unix_ns, 1_000_000_000)
    days, second = divmod(seconds, 86_400)
    day = date.fromordinal(_EPOCH + days).isoformat()
    fraction = f".{nanoseconds:09d}".rstrip("0") if nanoseconds else ""
    hour, second = divmod(second, 3600)
    return f"{day}T{hour:02d}:{second // 60:02d}:{second % 60:02d}{fraction}Z"
