"""What this member asks of others over the peers' HTTP: of its leader, and of every member.

Each question has a deadline; a question to the leader is asked again, of whoever leads then,
until it is answered or the request timeout is over.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from etcdtw.apply.members import Members
from etcdtw.cluster.divergence import KeyHash, decode_hash_page
from etcdtw.cluster.ids import id_text
from etcdtw.cluster.member import Member
from etcdtw.cluster.remote import decode_version_page
from etcdtw.cluster.version import Version
from etcdtw.gateway.peer_pages import HASH_KV, OK, PROGRAM, PROGRAM_NAME
from etcdtw.node.duties.cluster_version import VersionsTold
from etcdtw.node.duties.history.quota_compaction import ProgramsTold
from etcdtw.node.intake.wakeup import Wakeup
from etcdtw.node.standing import Standing
from etcdtw.rpc.leader_line import Answered
from etcdtw.transport.peer.client import Dial
from etcdtw.transport.peer.request import request_page
from etcdtw.transport.peer.seams import PageAnswer

RETRY_S: Final = 0.05
"""Between two questions to the leader while it gives no answer; etcd asks about as often."""
ATTEMPT_S: Final = 5.0
VERSION_S: Final = 3.0
HASH_S: Final = 30.0
"""A member reads all its keys for an answer."""
QUESTIONS_MAX: Final = 1024
"""Questions to the leader at once, past which new ones fail at once."""
FAILED_STATUSES: Final = (408, 500)
"""Answers of one who does not lead, or not yet: another try may do better."""


class LeaderLine:
    """The questions of one member."""

    def __init__(
        self,
        standing: Standing,
        members: Members,
        wakeup: Wakeup,
        dial: Dial,
        clock: IReactorTime,
        request_timeout_ms: int,
    ) -> None:
        self._standing = standing
        self._members = members
        self._wakeup = wakeup
        self._request_timeout_ms = request_timeout_ms
        self._dial = dial
        self._clock = clock
        self._open = 0

    def ask_leader(self, path: str, body: bytes, answered: Answered) -> None:
        """POST ``body`` to the leader's ``path``."""
        if self._open >= QUESTIONS_MAX:
            answered(0, b"")
            return
        self._open += 1
        until_s = self._clock.seconds() + self._request_timeout_ms / 1000

        def done(status: int, octets: bytes) -> None:
            self._open -= 1
            answered(status, octets)

        self._ask_until(until_s, path, body, done)

    def ask(
        self,
        urls: Sequence[str],
        method: str,
        path: str,
        answered: Answered,
        body: bytes = b"",
        timeout_s: float = ATTEMPT_S,
    ) -> None:
        """Ask one member, at the first of its URLs that answers."""
        if not urls:
            answered(0, b"")
            return
        headers = [("X-Etcd-Cluster-ID", id_text(self._standing.cluster_id))]

        def failed(_: Failure) -> None:
            self.ask(urls[1:], method, path, answered, body, timeout_s)

        def told(answer: PageAnswer) -> None:
            answered(answer.status, answer.body)

        asked = request_page(
            self._dial,
            self._clock,
            urls[0],
            method,
            path,
            headers=headers,
            body=body,
            timeout_s=timeout_s,
        )
        asked.addCallbacks(told, failed)

    def ask_versions(self, members: Sequence[Member], told: VersionsTold) -> None:
        """Ask each of ``members`` what it runs; tell once, when all have answered or not."""
        found: dict[int, Version] = {}

        def answered(member: Member, status: int, body: bytes) -> None:
            with suppress(ValueError):
                server = decode_version_page(body).server if status else None
                if server is not None:
                    found[member.member_id] = server

        self._ask_each(members, "/version", answered, lambda: told(found))

    def ask_programs(self, members: Sequence[Member], told: ProgramsTold) -> None:
        """Ask each of ``members`` whether it is etcdtw; real etcd knows no such page."""
        found: set[int] = set()

        def answered(member: Member, status: int, body: bytes) -> None:
            if status == OK and body.startswith(PROGRAM_NAME):
                found.add(member.member_id)

        self._ask_each(members, PROGRAM, answered, lambda: told(found))

    def _ask_each(
        self,
        members: Sequence[Member],
        path: str,
        answered: Callable[[Member, int, bytes], None],
        done: Callable[[], None],
    ) -> None:
        """GET a page of what each member is; call ``done`` when all have answered or not."""
        missing = {one.member_id for one in members}

        def ask(member: Member) -> None:
            def told(status: int, body: bytes) -> None:
                answered(member, status, body)
                missing.discard(member.member_id)
                if not missing:
                    done()

            self.ask(member.peer_urls, "GET", path, told, timeout_s=VERSION_S)

        for member in members:
            ask(member)

    def ask_hashes(
        self,
        members: Sequence[Member],
        revision: int,
        told: Callable[[Mapping[int, KeyHash]], None],
    ) -> None:
        """Ask each of ``members`` for its hash at ``revision``, 0: its newest; tell once.

        Who does not answer, is behind, or has compacted that revision away is left out.
        """
        found: dict[int, KeyHash] = {}
        missing = {one.member_id for one in members}
        question = json.dumps({"revision": revision} if revision else {}).encode()

        def ask(member: Member) -> None:
            def answered(status: int, body: bytes) -> None:
                if status == OK:
                    with suppress(ValueError):
                        found[member.member_id] = decode_hash_page(body, revision)
                missing.discard(member.member_id)
                if not missing:
                    told(found)

            self.ask(member.peer_urls, "GET", HASH_KV, answered, question, timeout_s=HASH_S)

        for member in members:
            ask(member)

    def _ask_until(self, until_s: float, path: str, body: bytes, done: Answered) -> None:
        left_s = until_s - self._clock.seconds()
        if left_s <= 0 or self._wakeup.is_stopping:
            done(0, b"")
            return
        leader = self._members.member(self._standing.leader_id)

        def again() -> None:
            self._clock.callLater(RETRY_S, self._ask_until, until_s, path, body, done)

        def answered(status: int, octets: bytes) -> None:
            if status == 0 or status in FAILED_STATUSES:
                again()
            else:
                done(status, octets)

        if leader is None:
            again()
        else:
            timeout_s = min(left_s, ATTEMPT_S)
            self.ask(leader.peer_urls, "POST", path, answered, body, timeout_s)
