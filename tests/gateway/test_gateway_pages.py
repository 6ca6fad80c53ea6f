"""The pages behind HTTP/1.x, over a fake transport.  No sockets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import cast

import pytest
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.logger import LogLevel, capturedLogs

from etcdtw import __version__
from etcdtw.apply.members import Members
from etcdtw.gateway.health import HealthCounts
from etcdtw.gateway.pages import Access, Answer, Page, Pages
from etcdtw.gateway.site import client_site, metrics_site
from etcdtw.transport.client.http1 import Http1Channel
from etcdtw.transport.client.http1_site import HttpSite
from etcdtw.transport.rounds import Rounds


class FakeMembers:
    """Knows the versions that the test decides."""

    server_version = "3.7.3"
    storage_version = ""
    cluster_version = ""


class FakeMember:
    """A member whose health the test decides."""

    def __init__(self) -> None:
        self.has_leader = True
        self.is_learner = False
        self.disk_trouble = ""
        self.state_trouble = ""
        self.alarms: Sequence[str] = ()
        self.read_errors: dict[bool, str] = {}
        self.reads: list[bool] = []
        self.pending: Deferred[None] | None = None

    def read(self, linearizable: bool) -> Deferred[None]:
        self.reads.append(linearizable)
        if self.pending is not None:
            return self.pending
        if linearizable in self.read_errors:
            return fail(RuntimeError(self.read_errors[linearizable]))
        return succeed(None)


class Asked:
    """One request and what came back so far."""

    def __init__(
        self, pages: Pages, request: bytes, transport: StringTransport | None = None
    ) -> None:
        clock = MemoryReactorClock()
        self.transport = transport or StringTransport()
        self.channel = Http1Channel(
            HttpSite(pages, clock, unix_s=clock.seconds), self.transport, Rounds(clock)
        )
        self.channel.receive(request)

    @property
    def status(self) -> int:
        return int(self.transport.value().split(b" ", 2)[1])

    @property
    def body(self) -> bytes:
        return bytes(self.transport.value().partition(b"\r\n\r\n")[2])

    def header(self, name: str) -> str | None:
        head = self.transport.value().partition(b"\r\n\r\n")[0].decode()
        for line in head.split("\r\n")[1:]:
            found, _, value = line.partition(": ")
            if found.lower() == name.lower():
                return str(value)
        return None

    def leave(self) -> None:
        self.channel.lost()


class Rig:
    """The pages of a fake member."""

    def __init__(self) -> None:
        self.member = FakeMember()
        self.members = FakeMembers()
        self.counts = HealthCounts()
        self.access = Access(frozenset("*"), frozenset("*"))
        self.metrics_only = False
        self.variables: dict[str, object] = {}

    def ask(self, target: str, method: str = "GET", origin: str = "") -> Asked:
        origin_line = f"Origin: {origin}\r\n" if origin else ""
        request = f"{method} {target} HTTP/1.1\r\nHost: db.example:2379\r\n{origin_line}\r\n"
        return Asked(self.site(), request.encode("latin-1"))

    def site(self) -> Pages:
        if self.metrics_only:
            return metrics_site(self.member, self.counts, lambda: b"up 1\n")
        return client_site(
            self.member,
            self.counts,
            cast(Members, self.members),
            lambda: b"up 1\n",
            self.access,
            lambda: self.variables,
        )


@pytest.fixture
def rig() -> Rig:
    return Rig()


def status(asked: Asked) -> int:
    return asked.status


def body(asked: Asked) -> bytes:
    return asked.body


def header(asked: Asked, name: str) -> str | None:
    return asked.header(name)


def test_healthy_member_says_so_in_etcds_words(rig: Rig) -> None:
    request = rig.ask("/health")
    assert (status(request), body(request)) == (200, b'{"health":"true","reason":""}')
    assert header(request, "Content-Type") == "text/plain; charset=utf-8"
    assert rig.member.reads == [True]
    assert (rig.counts.successes, rig.counts.failures) == (1, 0)


def test_raised_alarm_is_unhealthy_before_anything_else(rig: Rig) -> None:
    rig.member.alarms = ["NOSPACE"]
    request = rig.ask("/health")
    assert (status(request), body(request)) == (
        503,
        b'{"health":"false","reason":"ALARM NOSPACE"}\n',
    )
    assert header(request, "X-Content-Type-Options") == "nosniff"
    assert rig.member.reads == []
    assert rig.counts.failures == 1


def test_excluded_alarm_is_overlooked(rig: Rig) -> None:
    rig.member.alarms = ["NOSPACE", "CORRUPT"]
    assert status(rig.ask("/health?exclude=NOSPACE&exclude=CORRUPT")) == 200
    assert b"ALARM CORRUPT" in body(rig.ask("/health?exclude=NOSPACE"))


def test_leaderless_member_is_unhealthy_unless_only_it_is_asked(rig: Rig) -> None:
    rig.member.has_leader = False
    assert b"RAFT NO LEADER" in body(rig.ask("/health"))
    assert status(rig.ask("/health?serializable=true")) == 200
    assert rig.member.reads == [False]


def test_failing_read_is_the_reason(rig: Rig) -> None:
    rig.member.read_errors[True] = "etcdserver: request timed out"
    assert json.loads(body(rig.ask("/health"))) == {
        "health": "false",
        "reason": "RANGE ERROR:etcdserver: request timed out",
    }


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
@pytest.mark.parametrize("path", ["/health", "/livez", "/readyz", "/version", "/debug/vars"])
def test_other_methods_are_not_allowed(rig: Rig, path: str, method: str) -> None:
    request = rig.ask(path, method)
    assert (status(request), body(request)) == (405, b"Method Not Allowed\n")
    assert header(request, "Allow") == "GET"


@pytest.mark.parametrize(
    "path", ["/", "/nope", "/health/", "/v2/keys", "/livez/linearizable_read", "/livez/"]
)
def test_unknown_paths_get_gos_text(rig: Rig, path: str) -> None:
    request = rig.ask(path)
    assert (status(request), body(request)) == (404, b"404 page not found\n")


def test_livez_is_short_unless_verbose(rig: Rig) -> None:
    assert body(rig.ask("/livez")) == b"ok\n"
    assert body(rig.ask("/livez?verbose")) == b"[+]serializable_read ok\nok\n"
    assert rig.member.reads == [False, False]


def test_readyz_runs_its_four_checks(rig: Rig) -> None:
    assert body(rig.ask("/readyz?verbose=1")) == (
        b"[+]data_corruption ok\n[+]serializable_read ok\n[+]linearizable_read ok\n"
        b"[+]non_learner ok\nok\n"
    )


def test_failing_readyz_lists_every_check(rig: Rig) -> None:
    rig.member.alarms = ["CORRUPT", "NOSPACE"]
    rig.member.is_learner = True
    rig.member.read_errors[True] = "no quorum"
    request = rig.ask("/readyz")
    assert status(request) == 503
    assert body(request) == (
        b"[-]data_corruption failed: alarm activated: CORRUPT\n[+]serializable_read ok\n"
        b"[-]linearizable_read failed: no quorum\n"
        b"[-]non_learner failed: not supported for learner\n"
    )
    assert rig.counts.last[("readyz", "non_learner")] == 0
    assert rig.counts.checks[("readyz", "serializable_read", "success")] == 1
    assert rig.counts.checks[("readyz", "linearizable_read", "error")] == 1


def test_a_disk_that_is_short_fails_readyz_and_is_not_listed_otherwise(rig: Rig) -> None:
    assert body(rig.ask("/readyz/disk_space")) == b"ok\n"
    rig.member.disk_trouble = "the disk is short of space: 3 MiB"
    for path in ("/readyz", "/readyz/disk_space"):
        request = rig.ask(path)
        assert status(request) == 503
        assert body(request).endswith(b"[-]disk_space failed: the disk is short of space: 3 MiB\n")
    assert body(rig.ask("/readyz?exclude=disk_space")) == b"ok\n"
    assert body(rig.ask("/livez")) == b"ok\n"


def test_nospace_does_not_fail_readyz(rig: Rig) -> None:
    rig.member.alarms = ["NOSPACE"]
    assert status(rig.ask("/readyz")) == 200


def test_excluded_check_is_not_run_and_unknown_ones_are_ignored(rig: Rig) -> None:
    rig.member.is_learner = True
    rig.member.read_errors[True] = "no quorum"
    request = rig.ask("/readyz?exclude=non_learner&exclude=linearizable_read&exclude=zzz&verbose")
    assert body(request) == b"[+]data_corruption ok\n[+]serializable_read ok\nok\n"


def test_single_check_has_its_own_path(rig: Rig) -> None:
    rig.member.is_learner = True
    assert status(rig.ask("/readyz/non_learner")) == 503
    assert body(rig.ask("/readyz/data_corruption?verbose")) == b"[+]data_corruption ok\nok\n"
    assert status(rig.ask("/livez/serializable_read")) == 200


def test_version_knows_etcds_words_for_not_yet(rig: Rig) -> None:
    assert json.loads(body(rig.ask("/version"))) == {
        "etcdserver": "3.7.3",
        "etcdcluster": "not_decided",
        "storage": "unknown",
        "etcdtw": __version__,
    }
    rig.members.cluster_version = rig.members.storage_version = "3.7.0"
    request = rig.ask("/version")
    assert b'"etcdcluster":"3.7.0","storage":"3.7.0"' in body(request)
    assert header(request, "Content-Type") == "application/json"


def test_metrics_are_served_as_prometheus_text(rig: Rig) -> None:
    request = rig.ask("/metrics")
    assert body(request) == b"up 1\n"
    assert (
        header(request, "Content-Type")
        == "text/plain; version=0.0.4; charset=utf-8; escaping=underscores"
    )


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "DELETE"])
@pytest.mark.parametrize("metrics_only", [False, True])
def test_metrics_are_served_whatever_the_method(rig: Rig, method: str, metrics_only: bool) -> None:
    rig.metrics_only = metrics_only
    request = rig.ask("/metrics", method)
    assert (status(request), body(request)) == (200, b"" if method == "HEAD" else b"up 1\n")


def test_checks_that_pass_say_that_they_are_no_html(rig: Rig) -> None:
    for path in ("/livez", "/readyz", "/readyz/non_learner"):
        assert header(rig.ask(path), "X-Content-Type-Options") == "nosniff"
    for path in ("/health", "/version", "/metrics"):
        assert header(rig.ask(path), "X-Content-Type-Options") is None


def test_variables_of_the_process_are_told_by_name(rig: Rig) -> None:
    rig.variables = {"raft.status": {"term": 2, "lead": "1"}, "cmdline": ["etcdtw"]}
    request = rig.ask("/debug/vars")
    assert body(request) == b'{\n"cmdline": ["etcdtw"],\n"raft.status": {"term":2,"lead":"1"}\n}\n'
    assert header(request, "Content-Type") == "application/json; charset=utf-8"


def test_metrics_listener_has_health_and_metrics_only(rig: Rig) -> None:
    rig.metrics_only = True
    assert [status(rig.ask(path)) for path in ("/metrics", "/health", "/livez", "/readyz")] == [
        200
    ] * 4
    assert status(rig.ask("/version")) == 404


@pytest.mark.parametrize("target", ["/health", "/livez", "/readyz/linearizable_read"])
def test_pending_check_is_cancelled_when_the_client_leaves(rig: Rig, target: str) -> None:
    cancelled: list[bool] = []
    rig.member.pending = Deferred(lambda _: cancelled.append(True))
    asked = rig.ask(target)
    assert asked.transport.value() == b""
    with capturedLogs() as logged:
        asked.leave()
    assert cancelled == [True]
    assert asked.transport.value() == b""
    assert [event for event in logged if event["log_level"] > LogLevel.warn] == []


def test_head_is_not_allowed_either(rig: Rig) -> None:
    asked = rig.ask("/health", "HEAD")
    assert (asked.status, asked.header("Allow")) == (405, "GET")


def raising(arguments: object) -> Answer:
    raise ValueError("oh")


@pytest.mark.parametrize("page", [raising, lambda _: fail(ValueError("oh"))])
def test_page_that_breaks_is_an_internal_error(page: Page) -> None:
    asked = Asked(Pages({b"/broken": page}), b"GET /broken HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (asked.status, asked.body) == (500, b"Internal Server Error\n")


def test_any_origin_is_allowed_by_default(rig: Rig) -> None:
    request = rig.ask("/health")
    assert header(request, "Access-Control-Allow-Origin") == "*"
    assert header(request, "Access-Control-Allow-Methods") == "POST, GET, OPTIONS, PUT, DELETE"


def test_listed_origins_alone_are_allowed(rig: Rig) -> None:
    rig.access = Access(frozenset(["http://a.example"]), frozenset("*"))
    assert header(rig.ask("/health"), "Access-Control-Allow-Origin") is None
    asked = rig.ask("/health", origin="http://a.example")
    assert header(asked, "Access-Control-Allow-Origin") == "http://a.example"
    refused = rig.ask("/health", origin="http://b.example")
    assert header(refused, "Access-Control-Allow-Origin") is None


def test_preflight_is_answered_for_any_path(rig: Rig) -> None:
    request = rig.ask("/v3/kv/put", "OPTIONS")
    assert (status(request), body(request)) == (200, b"")
    assert header(request, "Content-Type") is None


def test_unlisted_host_name_is_misdirected_on_plain_http(rig: Rig) -> None:
    rig.access = Access(frozenset("*"), frozenset(["other.example"]))
    refused = rig.ask("/health")
    assert status(refused) == 421
    assert body(refused).startswith(b"\netcd received your request, but the Host header was unrec")
    assert b'\n  - e.g. etcd --host-whitelist "db.example"\n' in body(refused)
    assert header(refused, "Access-Control-Allow-Origin") is None
    rig.access = Access(frozenset("*"), frozenset(["db.example"]))
    assert status(rig.ask("/health")) == 200


@pytest.mark.parametrize("query", ["x=\x80", "exclude=%ff", "a=%zz&%ff=1", "\x80"])
def test_a_query_of_any_octets_is_read(rig: Rig, query: str) -> None:
    assert status(rig.ask(f"/livez?{query}")) == 200


def test_an_origin_of_any_octets_is_one_that_is_not_listed(rig: Rig) -> None:
    rig.access = Access(frozenset(("http://a.example",)), frozenset("*"))
    asked = rig.ask("/livez", origin="http://\xff")
    assert status(asked) == 200
    assert header(asked, "Access-Control-Allow-Origin") is None


def test_a_request_without_a_host_over_a_unix_socket_is_answered(rig: Rig) -> None:
    transport = StringTransport(hostAddress=UNIXAddress(b"/etcdtw.sock"))
    Asked(rig.site(), b"GET /livez HTTP/1.0\r\n\r\n", transport)
    assert transport.value().startswith(b"HTTP/1.0 200 ")
