"""A small set of GET pages by exact path, with Go's words for everything else.

Knows no page: `site` puts them together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple
from urllib.parse import parse_qsl

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import INTERNAL_SERVER_ERROR, NOT_ALLOWED, NOT_FOUND, OK
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

TEXT: Final = b"text/plain; charset=utf-8"
JSON: Final = b"application/json"
NOT_FOUND_BODY: Final = b"404 page not found\n"
MISDIRECTED_REQUEST: Final = 421
MISDIRECTED_BODY: Final = (
    b"this host name is not served here: add it to --host-whitelist, or use TLS\n"
)
NOT_ALLOWED_BODY: Final = b"Method Not Allowed\n"

Arguments = Mapping[bytes, list[bytes]]
"""The query, as twisted.web parses it; a word without = counts as an empty value."""


class Answer(NamedTuple):
    """What a page says."""

    status: int
    body: bytes
    content_type: bytes = TEXT
    is_guarded: bool = False
    """Says ``nosniff`` although it is no error, as etcd's checks do."""


Page = Callable[[Arguments], "Answer | Deferred[Answer]"]


class Access:
    """Who may ask: the origins that browsers may come from, the names of this host.

    ``*`` in a set admits all.  Host names count on plain HTTP only (a page of another site
    that rebinds its name to us carries the wrong one: CVE-2018-5702 of another product).
    """

    def __init__(self, origins: frozenset[str], hosts: frozenset[str]) -> None:
        self._origins = origins
        self._hosts = hosts

    def origin_allowed(self, origin: str | None) -> str | None:
        """Return what Access-Control-Allow-Origin says; None: nothing."""
        if "*" in self._origins:
            return "*"
        return origin if origin in self._origins else None

    def host_allowed(self, host: str) -> bool:
        """``host``: the name without its port."""
        return "*" in self._hosts or host in self._hosts


ALL_ALLOWED: Final = Access(frozenset("*"), frozenset("*"))


class Pages(Resource):
    """Serves GET (and no other method) for each path of a table.

    ``open_paths``: those that are served whatever the method.
    """

    isLeaf = True
    log = Logger()

    def __init__(
        self,
        pages: Mapping[bytes, Page],
        access: Access = ALL_ALLOWED,
        open_paths: frozenset[bytes] = frozenset(),
    ) -> None:
        super().__init__()
        self._open_paths = open_paths
        self._pages = dict(pages)
        self._access = access

    def render(self, request: Request) -> int:
        """Answer now or when the page's Deferred fires; a client that leaves cancels it."""
        host = _host_of(request)
        page = self._pages.get(request.path)
        self._set_cors(request)
        if not request.isSecure() and not self._access.host_allowed(host):
            _write(request, Answer(MISDIRECTED_REQUEST, MISDIRECTED_BODY))
        elif request.method == b"OPTIONS":
            _write(request, Answer(OK, b"", b""))
        elif page is None:
            _write(request, Answer(NOT_FOUND, NOT_FOUND_BODY))
        elif request.method != b"GET" and request.path not in self._open_paths:
            request.setHeader(b"Allow", b"GET")
            _write(request, Answer(NOT_ALLOWED, NOT_ALLOWED_BODY))
        else:
            answer = page(query_of(request.uri))
            if isinstance(answer, Deferred):
                self._wait(request, answer)
            else:
                _write(request, answer)
        return NOT_DONE_YET

    def _set_cors(self, request: Request) -> None:
        # Clients may send any octets; Latin-1 has a character for each.
        origin = request.getHeader(b"origin")
        name = None if origin is None else origin.decode("latin-1")
        allowed = self._access.origin_allowed(name)
        if allowed is not None:
            request.setHeader("Access-Control-Allow-Methods", "POST, GET, OPTIONS, PUT, DELETE")
            request.setHeader("Access-Control-Allow-Origin", allowed)
            request.setHeader("Access-Control-Allow-Headers", "accept, content-type, authorization")

    def _wait(self, request: Request, answer: Deferred[Answer]) -> None:
        is_gone = False

        def gone(_: Failure) -> None:
            nonlocal is_gone
            is_gone = True
            answer.cancel()

        def ready(found: Answer) -> None:
            if not is_gone:  # a page may have made an answer of the cancelling
                _write(request, found)

        def failed(failure: Failure) -> None:
            if not is_gone:
                self.log.failure("page {path} failed", failure, path=request.path)
                _write(request, Answer(INTERNAL_SERVER_ERROR, b"Internal Server Error\n"))

        request.notifyFinish().addErrback(gone)
        answer.addCallback(ready)
        answer.addErrback(failed)


def _host_of(request: Request) -> str:
    """Return the name that a client asks for, without its port; empty without a Host field.

    Twisted would take the socket's own address then, which a Unix socket has none of.
    """
    if not request.requestHeaders.hasHeader(b"host"):
        return ""
    name: bytes = request.getRequestHostname()
    return name.decode("latin-1")


def _write(request: Request, answer: Answer) -> None:
    request.setResponseCode(answer.status)
    if answer.content_type:
        request.setHeader(b"Content-Type", answer.content_type)
    else:
        request.defaultContentType = None  # or twisted.web sets its own
    request.setHeader(b"Content-Length", str(len(answer.body)).encode())
    if answer.status >= 400 or answer.is_guarded:
        request.setHeader(b"X-Content-Type-Options", b"nosniff")
    request.write(answer.body)
    request.finish()


def query_of(uri: bytes) -> dict[bytes, list[bytes]]:
    """Return the query of a request target; ``?verbose`` means ``verbose`` with an empty value."""
    found: dict[bytes, list[bytes]] = {}
    query = uri.partition(b"?")[2].decode("latin-1")
    for name, value in parse_qsl(query, keep_blank_values=True, encoding="latin-1"):
        found.setdefault(name.encode("latin-1"), []).append(value.encode("latin-1"))
    return found
