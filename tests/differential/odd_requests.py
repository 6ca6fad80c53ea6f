"""Odd requests of HTTP/1.x, octet by octet: what a server is sent that nobody's library would.

Each has a name; `odd_http` sends them to two members and compares.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

HOST: Final = b"Host: a\r\n"
RANGE: Final = b'{"key":"bm9uZQ=="}'


class Odd(NamedTuple):
    """Some octets, sent in parts of which the later ones wait for an answer, or a while."""

    name: str
    parts: tuple[bytes, ...]
    is_first: bool = False
    """Whether nothing is sent before: real etcd looks at the first line of a connection twice."""


def get(line: bytes = b"GET /version HTTP/1.1", fields: bytes = HOST, body: bytes = b"") -> bytes:
    return line + b"\r\n" + fields + b"\r\n" + body


def post(fields: bytes, body: bytes = b"", path: bytes = b"/v3/kv/range") -> bytes:
    return b"POST " + path + b" HTTP/1.1\r\n" + HOST + fields + b"\r\n" + body


def sized(body: bytes = RANGE, fields: bytes = b"") -> bytes:
    return post(fields + b"Content-Length: %d\r\n" % len(body), body)


def chunked(body: bytes, fields: bytes = b"", path: bytes = b"/v3/kv/range") -> bytes:
    return post(fields + b"Transfer-Encoding: chunked\r\n", body, path)


WHOLE: Final = b"%x\r\n%b\r\n0\r\n\r\n" % (len(RANGE), RANGE)
GET: Final = get()


def request_lines() -> Iterator[tuple[str, bytes]]:
    for version in (
        *(b"HTTP/1.0", b"HTTP/1.1", b"HTTP/1.2", b"HTTP/1.9", b"HTTP/1.10", b"HTTP/2.0"),
        *(b"HTTP/0.9", b"HTTP/1", b"HTTP/1.", b"http/1.1", b"HTTP/1.1 ", b"HTTP/01.1", b"HTTP/1.x"),
        *(b"HTTPS/1.1", b"HTTP/3.0", b"", b"HTTP/1.1\t", b"HTTP /1.1", b"1.1", b"HTTP/+1.1"),
    ):
        yield f"version {version!r}", get(b"GET /version " + version)
    yield "no version", get(b"GET /version")
    yield "nothing but a verb", get(b"GET")
    yield "an empty line before", b"\r\n" + GET
    yield "two empty lines before", b"\r\n\r\n" + GET
    yield "a line feed before", b"\n" + GET
    yield "a space before", b" " + GET
    yield "line feeds alone", b"GET /version HTTP/1.1\nHost: a\n\n"
    yield "a carriage return alone", b"GET /version HTTP/1.1\rHost: a\r\r"
    yield "two carriage returns", b"GET /version HTTP/1.1\r\r\nHost: a\r\n\r\n"
    yield "two spaces after the verb", get(b"GET  /version HTTP/1.1")
    yield "two spaces before the version", get(b"GET /version  HTTP/1.1")
    yield "tabs", get(b"GET\t/version\tHTTP/1.1")
    for verb in (
        b"get",
        b"BREW",
        b"G@T",
        b"G(T",
        b"G\xc4T",
        b"PRI",
        b"A" * 17,
        b"A" * 200,
        b"G\0T",
    ):
        yield f"verb {verb[:20]!r}", get(verb + b" /version HTTP/1.1")
    for verb in (b"TRACE", b"CONNECT", b"PUT", b"PATCH", b"DELETE"):
        yield f"verb {verb!r}", get(verb + b" /version HTTP/1.1")


def targets() -> Iterator[tuple[str, bytes]]:
    for target in (
        *(b"*", b"", b"version", b"?", b"/?", b"/version?", b"/version?a=%zz", b"/version#x"),
        *(b"http://a/version", b"HTTP://a/version", b"https://b:1/version", b"ftp://a/version"),
        *(b"http://a", b"http://a?x", b"http:///version", b"http:/version", b"http:version"),
        *(b"http://u:p@a/version", b"http://[::1]/version", b"http://[::1/version"),
        *(
            b"http://a b/version",
            b"http://a:x/version",
            b"://a/version",
            b"a:80",
            b"1a://b/version",
        ),
        *(b"/%zz", b"/%", b"/%4", b"/%00", b"/vers%69on", b"/version%20", b"/\x01", b"/\x7f"),
        *(b"/\xc3\xa9", b"/\xff", b"/a\tb", b"/version;x", b"/version/", b"/./version", b"/a:b"),
        *(b"/version?\x01", b"/version?\xff", b"/version?a=b#c", b'/<>"{}|\\^`', b'/version?<>"'),
        *(b"http://a\x01/version", b"http://a%41/version", b"http://a/%zz", b"/" + b"x" * 3_000),
        b"/version?" + b"x" * 100_000,
    ):
        yield f"target {target[:40]!r}", get(b"GET " + target + b" HTTP/1.1")
    for verb in (b"CONNECT", b"OPTIONS", b"HEAD", b"POST"):
        for target in (b"*", b"a:80", b"http://a/version", b"/nothing"):
            yield f"{verb.decode()} {target!r}", get(verb + b" " + target + b" HTTP/1.1")
    yield "options in HTTP/1.0", get(b"OPTIONS * HTTP/1.0")
    yield "everything in HTTP/1.0", get(b"GET * HTTP/1.0", b"")


def hosts() -> Iterator[tuple[str, bytes]]:
    line = b"GET /version HTTP/1.1"
    yield "no host", get(line, b"")
    yield "no host in HTTP/1.0", get(b"GET /version HTTP/1.0", b"")
    yield "no host but an absolute target", get(b"GET http://a/version HTTP/1.1", b"")
    yield "no host with CONNECT", get(b"CONNECT a:80 HTTP/1.1", b"")
    yield "two hosts", get(line, HOST + HOST)
    yield "two hosts in HTTP/1.0", get(b"GET /version HTTP/1.0", HOST + b"Host: b\r\n")
    for host in (
        *(b"", b" ", b"a b", b"a/b", b"a:b", b"a:", b":80", b"[::1]:80", b"[", b"a,b", b"a@b"),
        *(b"\xff", b"a\tb", b"a%41", b'a"', b"a<", b"a_b", b"-", b"..", b"a#b", b"a?b", b"a\\b"),
    ):
        yield f"host {host!r}", get(line, b"Host: " + host + b"\r\n")


def fields() -> Iterator[tuple[str, bytes]]:
    line = b"GET /version HTTP/1.1"
    for field in (
        *(
            b"X",
            b"X:",
            b":x",
            b": x",
            b"X : y",
            b" X: y",
            b"X\t: y",
            b"X Y: z",
            b"X\0: y",
            b"X: \0",
        ),
        *(b"X: a\x01b", b"X: a\x7fb", b"X: \xff", b"X: a\rb", b"X: a\tb", b"X:y", b"X:\ty\t"),
        *(b"X(: y", b"X@: y", b"X\xff: y", b"X/: y", b'X": y', b"X;: y", b"X[: y", b"X~!#$: y"),
        *(b"X: a\r\n b", b"X: a\r\n\tb", b"X: a\r\n ", b"X:\r\n y", b"X: a\n b", b"X: a\nY: b"),
        *(b"X: a\r\n \r\n", b"\tX: y", b"X: " + b"y" * 9_000, b"X" * 9_000 + b": y", b"=: y"),
        *(b"X: a\r\r\nY: b", b"\rX: a", b"X: a\r\n:", b"X: a\r\n\r", b"Content-Length : 5"),
    ):
        yield f"field behind {field[:40]!r}", get(line, HOST + field + b"\r\n")
        if len(field) < 20:
            yield f"field before {field!r}", get(line, field + b"\r\n" + HOST)
    for count in (99, 101, 1_000, 5_000):
        yield (
            f"{count} fields",
            get(line, HOST + b"".join(b"X-%d: y\r\n" % i for i in range(count))),
        )
    for size in (60_000, 500_000, 1_040_000):
        yield f"a field of {size}", get(line, HOST + b"X: " + b"y" * size + b"\r\n")
    yield "the same field a thousand times", get(line, HOST + b"X: y\r\n" * 1_000)


def connections() -> Iterator[tuple[str, bytes]]:
    for version in (b"HTTP/1.0", b"HTTP/1.1"):
        for value in (
            *(
                b"close",
                b"keep-alive",
                b"Close",
                b"KEEP-ALIVE",
                b"close, x",
                b"x,close",
                b"upgrade",
            ),
            *(b"", b"close;x", b"closed", b"keep-alive, close", b"close\r\nConnection: keep-alive"),
            *(b"keep-alive\r\nConnection: close", b"x\r\nConnection: close"),
        ):
            field = b"Connection: " + value + b"\r\n"
            for path in (b"/version", b"/nothing"):
                asked = get(b"GET " + path + b" " + version, HOST + field)
                yield f"{version.decode()} {path.decode()} connection {value!r}", asked + GET
    yield "proxy-connection", get(fields=HOST + b"Proxy-Connection: close\r\n") + GET
    for upgrade in (b"h2c", b"websocket", b"TLS/1.0"):
        more = b"Connection: Upgrade\r\nUpgrade: " + upgrade + b"\r\n"
        yield f"upgrade to {upgrade!r}", get(fields=HOST + more) + GET
    h2c = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    yield "upgrade to HTTP/2 with settings", get(fields=HOST + h2c) + GET


def lengths() -> Iterator[tuple[str, bytes]]:
    for value in (
        *(b"18", b" 18 ", b"\t18", b"018", b"+18", b"-18", b"18,18", b"18, 18", b"18,19", b"0x12"),
        *(
            b"",
            b"1 8",
            b"18;",
            b"18.0",
            b"99999999999999999999",
            b"9223372036854775808",
            b"a",
            b"-0",
        ),
        *(
            b"18\r\nContent-Length: 18",
            b"18\r\nContent-Length: 19",
            b"18\r\nContent-Length: ",
            b"1_8",
        ),
        *(b"0000000000000000000000018", b"18\r\n ", b"1\r\n 8", b"18\0", b"\xb218", b'"18"'),
        *(b"018\r\nContent-Length: 18", b"0\r\nContent-Length: 00"),
    ):
        yield f"length {value!r}", post(b"Content-Length: " + value + b"\r\n", RANGE)
    yield "no length", post(b"", b"") + GET
    yield "no length, and octets", post(b"", RANGE)
    yield "a length of nothing", post(b"Content-Length: 0\r\n") + GET
    yield "more than its length", sized() + b"x"
    yield "less than its length", post(b"Content-Length: 50\r\n", RANGE)
    yield "a body of a GET", get(fields=HOST + b"Content-Length: 5\r\n", body=b"12345") + GET
    yield (
        "a body of a HEAD",
        (get(b"HEAD /version HTTP/1.1", HOST + b"Content-Length: 5\r\n", b"12345") + GET),
    )
    yield (
        "a long body that nobody reads",
        (get(fields=HOST + b"Content-Length: 200000\r\n", body=bytes(200_000)) + GET),
    )
    yield (
        "a body in HTTP/1.0",
        (b"POST /v3/kv/range HTTP/1.0\r\nContent-Length: 18\r\n\r\n" + RANGE),
    )
    yield (
        "a body in HTTP/1.0 that is kept alive",
        (
            b"POST /v3/kv/range HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 18\r\n\r\n"
            + RANGE
            + GET
        ),
    )


def codings() -> Iterator[tuple[str, bytes]]:
    for value in (
        *(b"chunked", b"Chunked", b"CHUNKED", b" chunked ", b"\tchunked", b"chunked,", b",chunked"),
        *(b"chunked, chunked", b"gzip, chunked", b"chunked, gzip", b"gzip", b"identity", b""),
        *(b"chunked;q=1", b"xchunked", b'"chunked"', b"chunked\r\nTransfer-Encoding: chunked"),
        *(b"identity\r\nTransfer-Encoding: chunked", b"chunked\r\nTransfer-Encoding: identity"),
        *(
            b"chunked\x0b",
            b"\x0bchunked",
            b"chun\r\n ked",
            b"\r\n chunked",
            b"chunked\0",
            b"ch\xff",
        ),
    ):
        yield f"coding {value!r}", post(b"Transfer-Encoding: " + value + b"\r\n", WHOLE)
    for length in (b"18", b"0", b"5", b"x", b"-1", b"18\r\nContent-Length: 19"):
        both = b"Content-Length: " + length + b"\r\nTransfer-Encoding: chunked\r\n"
        yield f"a coding and the length {length!r}", post(both, WHOLE) + GET
        turned = b"Transfer-Encoding: chunked\r\nContent-Length: " + length + b"\r\n"
        yield f"a coding before the length {length!r}", post(turned, WHOLE) + GET
    yield (
        "a coding not known and a length",
        (post(b"Transfer-Encoding: gzip\r\nContent-Length: 18\r\n", RANGE) + GET),
    )
    old = b"POST /v3/kv/range HTTP/1.0\r\nTransfer-Encoding: chunked\r\n"
    yield "a coding in HTTP/1.0", old + b"\r\n" + WHOLE
    yield "a coding and a length in HTTP/1.0", old + b"Content-Length: 18\r\n\r\n" + RANGE
    yield (
        "a coding in HTTP/1.2",
        post(b"Transfer-Encoding: chunked\r\n", WHOLE).replace(b"HTTP/1.1", b"HTTP/1.2"),
    )
    yield "a name with a space before its colon", post(b"Transfer-Encoding : chunked\r\n", WHOLE)
    yield "an underscore in the name", post(b"Transfer_Encoding: chunked\r\n", b"")
    yield "chunks of a GET", get(fields=HOST + b"Transfer-Encoding: chunked\r\n", body=WHOLE) + GET


def chunks() -> Iterator[tuple[str, bytes]]:
    yield "one chunk", chunked(WHOLE) + GET
    yield (
        "a chunk for each octet",
        (chunked(b"".join(b"1\r\n%c\r\n" % octet for octet in RANGE) + b"0\r\n\r\n") + GET),
    )
    for size in (
        *(
            b"0012",
            b"12 ",
            b" 12",
            b"12\t",
            b"\t12",
            b"12;",
            b"12;a",
            b"12;a=b",
            b'12;a="b"',
            b"12 ;a",
        ),
        *(b"0x12", b"+12", b"-12", b"", b"12h", b"1 2", b"00000000000000012", b"0000000000000012"),
        *(b'12;a="\r\n"', b"12;a\nb", b"12;\rb", b"12;" + b"x" * 3_000, b"12;" + b"x" * 5_000),
        *(
            b"12,",
            b"12\0",
            b"12\x0b",
            b"\xb912",
            b"12;\xff",
            b"ffffffffffffffff",
            b"7fffffffffffffff",
        ),
    ):
        yield f"chunk size {size[:20]!r}", chunked(size + b"\r\n" + RANGE + b"\r\n0\r\n\r\n") + GET
    for name, body in {
        "a line feed behind the size": b"12\n" + RANGE + b"\r\n0\r\n\r\n",
        "a line feed behind the octets": b"12\r\n" + RANGE + b"\n0\r\n\r\n",
        "a carriage return behind the size": b"12\r" + RANGE + b"\r\n0\r\n\r\n",
        "two carriage returns behind the size": b"12\r\r\n" + RANGE + b"\r\n0\r\n\r\n",
        "nothing behind the octets": b"12\r\n" + RANGE + b"0\r\n\r\n",
        "other octets behind the octets": b"12\r\n" + RANGE + b"xx0\r\n\r\n",
        "more octets than the size": b"11\r\n" + RANGE + b"\r\n0\r\n\r\n",
        "less octets than the size": b"13\r\n" + RANGE + b"\r\n0\r\n\r\n",
        "a last chunk of two noughts": b"12\r\n" + RANGE + b"\r\n00\r\n\r\n",
        "a last chunk with an extension": b"12\r\n" + RANGE + b"\r\n0;a=b\r\n\r\n",
        "a last chunk with line feeds": b"12\r\n" + RANGE + b"\r\n0\n\n",
        "a last line with a line feed": b"12\r\n" + RANGE + b"\r\n0\r\n\n",
        "a trailer": b"12\r\n" + RANGE + b"\r\n0\r\nX: y\r\n\r\n",
        "a trailer with a line feed": b"12\r\n" + RANGE + b"\r\n0\r\nX: y\n\r\n",
        "a trailer without a colon": b"12\r\n" + RANGE + b"\r\n0\r\nX\r\n\r\n",
        "a trailer with a space before its colon": b"12\r\n" + RANGE + b"\r\n0\r\nX : y\r\n\r\n",
        "a trailer that is folded": b"12\r\n" + RANGE + b"\r\n0\r\nX: y\r\n z\r\n\r\n",
        "a trailer that begins with a space": b"12\r\n" + RANGE + b"\r\n0\r\n X: y\r\n\r\n",
        "a trailer with a length": b"12\r\n" + RANGE + b"\r\n0\r\nContent-Length: 5\r\n\r\n",
        "a trailer of the wrong octets": b"12\r\n" + RANGE + b"\r\n0\r\nX: \0\r\n\r\n",
        "a long trailer": b"12\r\n" + RANGE + b"\r\n0\r\nX: " + b"y" * 3_000 + b"\r\n\r\n",
        "a longer trailer": b"12\r\n" + RANGE + b"\r\n0\r\nX: " + b"y" * 5_000 + b"\r\n\r\n",
        "an empty body": b"0\r\n\r\n",
        "an end without its line": b"12\r\n" + RANGE + b"\r\n0\r\n",
        "no last chunk": b"12\r\n" + RANGE + b"\r\n",
        "no chunk": b"\r\n",
        "JSON that ends within": b"9\r\n" + RANGE[:9] + b"\r\n0\r\n\r\n",
        "JSON that is whole before the size is wrong": b"12\r\n" + RANGE + b"\r\nx\r\n\r\n",
    }.items():
        yield name, chunked(body) + GET
    yield "wrong chunks that nobody reads", chunked(b"x\r\n\r\n", path=b"/nothing") + GET
    small = b"".join(b"1;%b\r\nx\r\n" % (b"y" * 40) for _ in range(1_000))
    yield "long extensions of small chunks", chunked(small + b"0\r\n\r\n") + GET
    yield "spaces in chunks of one octet", chunked(b"1\r\n \r\n" * 3_000 + WHOLE) + GET


def verbs() -> Iterator[tuple[str, bytes]]:
    for path in (
        b"/version",
        b"/health",
        b"/metrics",
        b"/nothing",
        b"/v3/kv/range",
        b"/debug/vars",
    ):
        for verb in (b"HEAD", b"OPTIONS", b"DELETE"):
            for version in (b"1.0", b"1.1"):
                asked = get(verb + b" " + path + b" HTTP/" + version, HOST)
                yield f"{verb.decode()} {path.decode()} {version.decode()}", asked + GET
    yield "two in one", GET + GET
    yield "ten in one", GET * 10
    yield "a body between", GET + sized() + GET + chunked(WHOLE) + GET
    yield "an error between", GET + get(b"GET /version HTTP/1.1", b"") + GET
    yield "an end between", GET + get(fields=HOST + b"Connection: close\r\n") + GET
    yield "nonsense behind", GET + b"nonsense\r\n\r\n"
    yield "empty lines between", GET + b"\r\n" + GET + b"\r\n\r\n" + GET
    yield "an empty line behind a body", sized() + b"\r\n" + GET
    for agent in (b"gzip", b"deflate, br", b"*"):
        yield (
            f"accept-encoding {agent!r}",
            get(fields=HOST + b"Accept-Encoding: " + agent + b"\r\n"),
        )


def expectations() -> Iterator[tuple[str, tuple[bytes, ...]]]:
    length = b"Content-Length: 18\r\n"
    for value in (
        *(
            b"100-continue",
            b"100-Continue",
            b"100-continue, x",
            b"x",
            b"",
            b"100-continue;x",
            b"200-ok",
        ),
        *(b"100-continue\r\nExpect: 100-continue", b"x\r\nExpect: 100-continue"),
    ):
        expect = b"Expect: " + value + b"\r\n"
        yield f"expects {value!r}", (post(expect + length), RANGE, GET)
        yield f"expects {value!r}, and sends", (post(expect + length, RANGE) + GET,)
    expect = b"Expect: 100-continue\r\n"
    yield "expects with chunks", (chunked(b"", expect), WHOLE, GET)
    yield "expects without a body", (post(expect + b"Content-Length: 0\r\n"), GET)
    yield "expects with GET", (get(fields=HOST + expect), GET)
    yield "expects where nobody reads", (post(expect + length, path=b"/nothing"), RANGE, GET)
    yield "expects where it may not", (post(expect + length, path=b"/version"), RANGE, GET)
    yield (
        "expects in HTTP/1.0",
        (
            b"POST /v3/kv/range HTTP/1.0\r\n" + expect + length + b"\r\n",
            RANGE,
            GET,
        ),
    )
    yield "a body in two parts", (post(length, RANGE[:5]), RANGE[5:] + GET)
    yield "a head in two parts", (GET[:9], GET[9:] + GET)
    yield (
        "a chunk in two parts",
        (chunked(b"12\r\n" + RANGE[:5]), RANGE[5:] + b"\r\n0\r\n\r\n" + GET),
    )


def everything() -> Iterator[Odd]:
    """Yield all of them; those whose first line is odd also as the first of a connection."""
    for made in (
        *(request_lines, targets, hosts, fields, connections, lengths, codings, chunks, verbs),
    ):
        for name, octets in made():
            yield Odd(name, (octets,))
    for name, parts in expectations():
        yield Odd(name, parts)
    for name, octets in (*request_lines(), *targets()):
        yield Odd(f"first: {name}", (octets,), is_first=True)
