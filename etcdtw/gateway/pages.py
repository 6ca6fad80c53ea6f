"""A set of pages by exact path, with Go's words for everything else.

Most are asked by GET and answered whole; `Taking` pages get the body of a POST, and any page may
answer in a stream.

Knows no page: `site` puts them together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Final, NamedTuple, Protocol
from urllib.parse import parse_qsl, unquote_to_bytes

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime, ITCPTransport
from twisted.logger import Logger
from twisted.python.failure import Failure

from etcdtw.gateway.websocket import VERSION, asks_for_websocket, handshake
from etcdtw.grpc.quoting import quote_go
from etcdtw.http1.answers import Fields
from etcdtw.transport.client.seams import HttpRequest, Successor

OK: Final = 200
BAD_REQUEST: Final = 400
NOT_FOUND: Final = 404
NOT_ALLOWED: Final = 405
MISDIRECTED_REQUEST: Final = 421
INTERNAL_SERVER_ERROR: Final = 500
_log: Final = Logger("etcdtw.gateway.pages")

TEXT: Final = b"text/plain; charset=utf-8"
JSON: Final = b"application/json"
NOT_FOUND_BODY: Final = b"404 page not found\n"
MISDIRECTED_TEXT: Final = """
etcd received your request, but the Host header was unrecognized.

To fix this, choose one of the following options:
- Enable TLS, then any HTTPS request will be allowed.
- Add the hostname you want to use to the whitelist in settings.
  - e.g. etcd --host-whitelist {host}

This requirement has been added to help prevent "DNS Rebinding" attacks (CVE-2018-5702).

"""
NOT_ALLOWED_BODY: Final = b"Method Not Allowed\n"
ITERATION_SIZE: Final = 65_536
"""Octets of a streamed answer that are written in one iteration, passed by one part at the most."""

Arguments = Mapping[bytes, list[bytes]]
"""The query; a word without = counts as an empty value."""

NO_FIELDS: Final[Fields] = ()
_NO_SNIFF: Final[Fields] = ((b"X-Content-Type-Options", b"nosniff"),)


class Answer(NamedTuple):
    """What a page says."""

    status: int
    body: bytes
    content_type: bytes = TEXT
    is_guarded: bool | None = None
    """Whether it says ``nosniff``; None: if it is an error.  etcd's checks do so in any case."""
    fields: Fields = NO_FIELDS


FAILED: Final = Answer(INTERNAL_SERVER_ERROR, b"Internal Server Error\n")


class Parts(Protocol):
    """What a streamed answer is made of; `client.channel.Stream` is one.

    Asked for one part after the other, as the client reads.
    """

    def receive(self) -> Deferred[bytes | None]:
        """Return the next part; None: there are no more."""
        ...

    def cancel(self) -> None:
        """Nobody wants any more; also called behind the last part."""
        ...


class Streamed(NamedTuple):
    """An answer whose parts go out as they come.  When they fail the client sees that it is not
    whole."""

    status: int
    parts: Parts
    content_type: bytes = JSON
    fields: Fields = NO_FIELDS


Said = Answer | Streamed
Page = Callable[[Arguments], "Said | Deferred[Said] | Deferred[Answer]"]


class Posted(NamedTuple):
    """What a page that takes a body is given."""

    arguments: Arguments
    header: Callable[[bytes], bytes | None]
    """Returns the first value of a field; names in any case."""
    body: bytes
    connection: ITCPTransport
    """The same for all requests of a connection."""
    let_go: Callable[[], None] = lambda: None
    """To be called when the body was read and the answer may be long in coming: what is held of
    it counts until then."""
    broken: str = ""
    """Why the body ends before its end; empty: it does not."""


class Taking(NamedTuple):
    """A page that is asked by POST; what is larger than ``body_size_max`` is refused."""

    page: Callable[[Posted], Said | Deferred[Said] | Deferred[Answer]]
    body_size_max: int


NONE_TAKING: Final[Mapping[bytes, Taking]] = {}


class Tree(Protocol):
    """Many pages below one path, which words by itself what is none of them."""

    def find(self, path: bytes) -> Taking | None:
        """Return the page at ``path``; None: there is none."""
        ...

    def bar(self, path: bytes, connection: ITCPTransport) -> Answer | None:
        """Return what it says to who may ask nothing below it; None: he may, or that is not."""
        ...

    def refuse(self, verb: bytes, path: bytes) -> Answer | None:
        """Return what it says to a request for none of its pages; None: that is not below it."""
        ...

    def upgrade(self, path: bytes, posted: Posted) -> Successor | None:
        """Return what speaks on a WebSocket at ``path``; None: that is not below it."""
        ...


class Access:
    """Who may ask: the origins that browsers may come from, the names of this host.

    ``*`` in a set admits all.  Host names count on plain HTTP only (a page of another site
    that rebinds its name to us carries the wrong one: CVE-2018-5702 of another product).
    """

    def __init__(self, origins: frozenset[str], hosts: frozenset[str]) -> None:
        self._origins = origins
        self._hosts = hosts
        self.admits_all_hosts = "*" in hosts

    def origin_allowed(self, origin: str | None) -> str | None:
        """Return what Access-Control-Allow-Origin says; None: nothing."""
        if "*" in self._origins:
            return "*"
        return origin if origin in self._origins else None

    def host_allowed(self, host: str) -> bool:
        """``host``: the name without its port."""
        return "*" in self._hosts or host in self._hosts


ALL_ALLOWED: Final = Access(frozenset("*"), frozenset("*"))


class Pages:
    """Serves GET (and no other method) for each path of a table, POST for those that take a body.

    ``open_paths``: those that are served whatever the method.  ``clock`` gives the iterations in
    which streamed answers go on; what it calls later are pieces of work.  Implements
    `transport.client.seams.Routes`.
    """

    def __init__(
        self,
        pages: Mapping[bytes, Page],
        access: Access = ALL_ALLOWED,
        open_paths: frozenset[bytes] = frozenset(),
        *,
        taking: Mapping[bytes, Taking] = NONE_TAKING,
        tree: Tree | None = None,
        clock: IReactorTime | None = None,
    ) -> None:
        self._taking = dict(taking)
        self._tree = tree
        self._clock = clock
        self._open_paths = open_paths
        self._pages = dict(pages)
        self._access = access

    def add(self, pages: Mapping[bytes, Page]) -> None:
        """Serve more."""
        self._pages.update(pages)

    def body_size_max(self, verb: bytes, target: bytes) -> int:
        """Implements `grpc.plain.BodySizeMax`."""
        if verb != b"POST":
            return 0
        taking = self._find(target.partition(b"?")[0])
        return 0 if taking is None else taking.body_size_max

    def _find(self, path: bytes) -> Taking | None:
        taking = self._taking.get(path)
        if taking is None and self._tree is not None:
            return self._tree.find(path)
        return taking

    def serve(self, request: HttpRequest) -> None:
        """Answer now or when the page's Deferred fires; a client that leaves cancels it."""
        access = self._access
        if not access.admits_all_hosts and not request.is_secure:
            host = _name_of(request.host)
            if not access.host_allowed(host):
                text = MISDIRECTED_TEXT.format(host=quote_go(host.encode("latin-1")))
                _write(request, Answer(MISDIRECTED_REQUEST, text.encode()))
                return
        tree = self._tree
        if tree is not None and (barred := tree.bar(request.path, request.connection)) is not None:
            _write(request, barred)
            return
        # Clients may send any octets; Latin-1 has a character for each.
        origin = request.header(b"origin")
        allowed = access.origin_allowed(None if origin is None else origin.decode("latin-1"))
        more = NO_FIELDS if allowed is None else _allowing(allowed)
        try:
            self._serve(request, more)
        except Exception:
            _log.failure("page {path} failed", path=request.path)
            _write(request, FAILED, more)

    def _serve(self, request: HttpRequest, more: Fields) -> None:
        """``more``: what every answer from here on says."""
        path = request.path
        verb = request.verb
        taking = self._find(path)
        page = self._pages.get(unquote_to_bytes(path) if b"%" in path else path)
        if verb == b"OPTIONS":
            _write(request, Answer(OK, b"", b""), more)
        elif asks_for_websocket(request.header) and self._upgrade(request, more):
            pass
        elif taking is not None and verb == b"POST":
            self._say(request, taking.page(_posted(request)), more)
        elif page is not None and (verb == b"GET" or path in self._open_paths):
            self._say(request, page(arguments_of(request.query)), more)
        elif path == b"*":
            _write(request, Answer(BAD_REQUEST, b"", b"", False), more)
        elif page is None and (refused := self._refused(request)) is not None:
            _write(request, refused, more)
        elif page is None and taking is None:
            _write(request, Answer(NOT_FOUND, NOT_FOUND_BODY), more)
        else:
            verbs = [b"GET"] * (page is not None) + [b"POST"] * (taking is not None)
            allow = (b"Allow", b", ".join(verbs))
            _write(request, Answer(NOT_ALLOWED, NOT_ALLOWED_BODY, fields=(allow,)), more)

    def _upgrade(self, request: HttpRequest, more: Fields) -> bool:
        """Make a WebSocket of the connection, or say why not; False: it is none here."""
        if self._tree is None:
            return False
        head = handshake(request.verb, request.header)
        successor = self._tree.upgrade(request.path, _posted(request))
        if successor is None:
            return False
        if isinstance(head, bytes):
            return request.take_over(successor, head)
        status, text = head
        fields = ((b"Sec-Websocket-Version", VERSION),)
        _write(request, Answer(status, text, fields=fields), more)
        return True

    def _refused(self, request: HttpRequest) -> Answer | None:
        return None if self._tree is None else self._tree.refuse(request.verb, request.path)

    def _say(
        self, request: HttpRequest, said: Said | Deferred[Said] | Deferred[Answer], more: Fields
    ) -> None:
        if isinstance(said, Deferred):
            self._wait(request, said, more)
        elif isinstance(said, Streamed):
            assert self._clock is not None, "pages that stream were given a clock"
            Streaming(request, said, self._clock).start(more)
        else:
            _write(request, said, more)

    def _wait(
        self, request: HttpRequest, answer: Deferred[Said] | Deferred[Answer], more: Fields
    ) -> None:
        is_gone = False

        def gone() -> None:
            nonlocal is_gone
            is_gone = True
            answer.cancel()

        def ready(found: Said) -> None:
            if not is_gone:
                self._say(request, found, more)
            elif isinstance(found, Streamed):  # a page may have made an answer of the cancelling
                found.parts.cancel()

        def failed(failure: Failure) -> None:
            if not is_gone:
                _log.failure("page {path} failed", failure, path=request.path)
                _write(request, FAILED, more)

        request.on_end = gone
        answer.addCallbacks(ready, failed)
        answer.addErrback(failed)


class Streaming:
    """One streamed answer on its way: takes a part when its client has room for it.

    Holds one part at the most; what is before it is its source's, what is behind it the client's
    connection's.
    """

    def __init__(self, request: HttpRequest, streamed: Streamed, clock: IReactorTime) -> None:
        self._request = request
        self._streamed = streamed
        self._clock = clock
        self._is_over = False
        self._is_going = False
        self._later: IDelayedCall | None = None
        self._asked: Deferred[bytes | None] | None = None
        self._size = 0  # written in this iteration

    def start(self, more: Fields) -> None:
        """Begin the answer."""
        request = self._request
        streamed = self._streamed
        request.on_end = self._gone
        request.on_drain = self._go_on
        # The head does not wait for the first part, which may be long in coming.
        fields = _fields(streamed.content_type, streamed.fields, more)
        request.begin(streamed.status, fields)
        self._go_on()

    def _go_on(self) -> None:
        """Take parts until there is none, no room, or enough for one iteration."""
        if self._is_going:
            return
        self._is_going = True
        while not (self._request.is_full or self._is_over or self._later or self._asked):
            asked = self._asked = self._streamed.parts.receive()
            asked.addCallbacks(self._got, self._failed)
        self._is_going = False

    def _got(self, part: bytes | None) -> None:
        self._asked = None
        if self._is_over:
            return
        if part is None:
            self._end()
            self._request.finish()
            return
        self._request.send(part)
        self._size += len(part)
        if self._size >= ITERATION_SIZE:
            self._later = self._clock.callLater(0, self._go_on_later)
        self._go_on()

    def _go_on_later(self) -> None:
        self._later = None
        self._size = 0
        self._go_on()

    def _failed(self, failure: Failure) -> None:
        self._asked = None
        if not self._is_over:
            self._end()
            _log.info(
                "the answer of page {path} breaks off: {error}",
                path=self._request.path,
                error=failure.getErrorMessage(),
            )
            self._request.break_off()

    def _gone(self) -> None:
        if not self._is_over:
            self._end()
            if self._asked is not None:
                self._asked.cancel()

    def _end(self) -> None:
        self._is_over = True
        if self._later is not None:
            self._later.cancel()
            self._later = None
        self._streamed.parts.cancel()


def _name_of(host: bytes) -> str:
    """Return the name that a client asks for, without its port."""
    is_bracketed = host[:1] == b"["
    name = host.partition(b"]")[0] + b"]" if is_bracketed else host.partition(b":")[0]
    return name.decode("latin-1")


def _posted(request: HttpRequest) -> Posted:
    return Posted(
        arguments_of(request.query),
        request.header,
        request.body,
        request.connection,
        request.let_go,
        request.broken,
    )


@lru_cache(maxsize=64)
def _allowing(origin: str) -> Fields:
    """Return what tells browsers who may come."""
    return (
        (b"Access-Control-Allow-Headers", b"accept, content-type, authorization"),
        (b"Access-Control-Allow-Methods", b"POST, GET, OPTIONS, PUT, DELETE"),
        (b"Access-Control-Allow-Origin", origin.encode("latin-1")),
    )


def _fields(content_type: bytes, own: Fields, more: Fields) -> Fields:
    if content_type:
        return (*more, (b"Content-Type", content_type), *own)
    return (*more, *own)


def _write(request: HttpRequest, answer: Answer, more: Fields = NO_FIELDS) -> None:
    fields = _fields(answer.content_type, answer.fields, more)
    is_error = answer.status >= 400
    if is_error if answer.is_guarded is None else answer.is_guarded:
        fields += _NO_SNIFF
    request.respond(answer.status, fields, answer.body)


def arguments_of(query: bytes) -> Arguments:
    """Return the query of a request; ``verbose`` means ``verbose`` with an empty value."""
    found: dict[bytes, list[bytes]] = {}
    if not query:
        return found
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, encoding="latin-1")
    for name, value in pairs:
        found.setdefault(name.encode("latin-1"), []).append(value.encode("latin-1"))
    return found
