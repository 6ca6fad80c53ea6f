"""What a stranger or a careless client may send, each as a function for a process of its own.

Every attack is legal on the wire or nearly so, costs its sender at most half a core (`Pace`), and
goes on until its time is over, with a new connection whenever it is cut off.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from etcdtw.wire import etcdserverpb as pb
from tests.support import wire_frames as wire
from tests.support.wire_client import ConnectionFailedError, WireClient

CPU_SHARE: Final = 0.5  # of one core, for one attacker
CALL_TIMEOUT_S: Final = 120.0
DRAIN_OCTETS: Final = 1 << 20
IDLE_S: Final = 0.05
RECONNECT_S: Final = 0.02
KEYS: Final = 150_000  # that the heavy ranges and compares go over, below `HEAVY`
HEAVY: Final = b"heavy/"
HEAVY_END: Final = b"heavy0"
KV: Final = "/etcdserverpb.KV/"
WATCH: Final = "/etcdserverpb.Watch/Watch"

PROGRESS_WATCHERS: Final = 50_000
PROGRESS_REQUESTS: Final = 1_000
PAGES_AT_ONCE: Final = 1_000
PIPELINED_PAGES: Final = 100_000
TXNS_AT_ONCE: Final = 400
DELETED_KEYS: Final = 10_000
DELETE_WATCHERS: Final = 500
UNREAD_CONNECTIONS: Final = 40
METADATA_STREAMS: Final = 10_000
METADATA_OCTETS: Final = 60_000
BODY_CONNECTIONS: Final = 400
BODY_OCTETS: Final = 2_000_000
PEER_CONNECTIONS: Final = 1_100
IDLE_CONNECTIONS: Final = 1_500
LEASES: Final = 100_000
FLOOD_FRAMES: Final = 2_000
REFILL: Final = wire.window_update(0, 1 << 24)


@dataclass(frozen=True, slots=True)
class Target:
    """Where to: client and peer ``host:port`` of each member, the one to attack first."""

    clients: tuple[str, ...]
    peers: tuple[str, ...]
    ca_file: str = ""

    @property
    def client(self) -> str:
        return self.clients[0]


class Pace:
    """Holds the attacker to its share of a core, and tells when its time is over."""

    def __init__(self, armed: Callable[[], None], stop: Callable[[], bool]) -> None:
        self._armed = armed
        self._stop = stop
        self._wall_s = time.monotonic()
        self._cpu_s = time.process_time()
        self.cut_off = 0  # connections that the member ended

    def begin(self) -> None:
        """Say that what was prepared is there: the attack itself follows."""
        self._armed()
        self._wall_s, self._cpu_s = time.monotonic(), time.process_time()

    def goes_on(self) -> bool:
        """Rest as the share demands; False once the attack is to end."""
        used_s = (time.process_time() - self._cpu_s) / CPU_SHARE
        ahead_s = used_s - (time.monotonic() - self._wall_s)
        if ahead_s > 0:
            time.sleep(min(ahead_s, 1.0))
        return not self._stop()


def connect(endpoint: str, ca_file: str = "") -> socket.socket:
    """Open a connection, over TLS where an authority is named."""
    host, _, port = endpoint.rpartition(":")
    plain: socket.socket = socket.create_connection((host, int(port)), timeout=5.0)
    if ca_file:
        context = ssl.create_default_context(cafile=ca_file)
        context.set_alpn_protocols(["h2"])
        return context.wrap_socket(plain, server_hostname="localhost")
    return plain


def open_http2(endpoint: str, ca_file: str = "") -> socket.socket:
    """Open a connection whose windows never hold an answer back."""
    sock = connect(endpoint, ca_file)
    sock.sendall(
        wire.PREFACE
        + wire.settings({wire.SETTINGS_INITIAL_WINDOW_SIZE: wire.WINDOW_MAX})
        + wire.window_update(0, wire.WINDOW_MAX - wire.WINDOW_DEFAULT)
    )
    return sock


def pour(sock: socket.socket, octets: bytes, pace: Pace) -> bool:
    """Send all of ``octets`` and throw away what comes meanwhile; False when cut off."""
    sock.setblocking(False)
    view = memoryview(octets)
    try:
        while view and pace.goes_on():
            moved = 0
            with suppress(BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                moved = sock.send(view[: 1 << 16])
                view = view[moved:]
            if not drain(sock) and not moved:
                time.sleep(IDLE_S / 10)
    except OSError:
        pace.cut_off += 1
        return False
    return True


def drain(sock: socket.socket) -> int:
    """Read what is there and throw it away; raises `ConnectionResetError` at its end."""
    total = 0
    with suppress(BlockingIOError, ssl.SSLWantReadError):
        while total < DRAIN_OCTETS:
            got = sock.recv(1 << 18)
            if not got:
                raise ConnectionResetError("closed")
            total += len(got)
    return total


def drain_for(sock: socket.socket, seconds: float, pace: Pace) -> bool:
    """Throw away what comes until nothing has come for ``seconds``; False when cut off."""
    last = time.monotonic()
    try:
        while time.monotonic() - last < seconds and pace.goes_on():
            if drain(sock):
                last = time.monotonic()
            else:
                time.sleep(IDLE_S / 10)
    except OSError:
        pace.cut_off += 1
        return False
    return True


def repeat(
    endpoint: str,
    once: Callable[[socket.socket], bool],
    pace: Pace,
    open_one: Callable[[str], socket.socket] = open_http2,
) -> None:
    """Do ``once`` again and again on one connection, on a new one after each cut."""
    pace.begin()
    while pace.goes_on():
        try:
            sock = open_one(endpoint)
        except OSError:
            pace.cut_off += 1
            time.sleep(RECONNECT_S)
            continue
        with sock:
            while pace.goes_on() and once(sock):
                pass
        time.sleep(RECONNECT_S)


def bursts(
    endpoint: str,
    count: int,
    call: Callable[[int], bytes],
    quiet_s: float,
    pace: Pace,
    refill: bytes = REFILL,
) -> None:
    """Send ``count`` calls in one packet, throw away what comes for ``quiet_s``, and again.

    ``refill``: what is sent behind each packet; nothing, where answers have no body.
    """
    first = 1

    def once(sock: socket.socket) -> bool:
        nonlocal first
        octets = b"".join(map(call, range(first, first + 2 * count, 2)))
        sent = pour(sock, octets + refill, pace)
        done = sent and drain_for(sock, quiet_s, pace)
        first = first + 2 * count if done else 1
        return done

    repeat(endpoint, once, pace)


def calls(endpoint: str, path: str, messages: list[bytes], pace: Pace) -> None:
    """Make the calls ``messages`` one after the other, again and again."""
    pace.begin()
    while pace.goes_on():
        try:
            client = WireClient(endpoint, CALL_TIMEOUT_S)
            for message in messages:
                if not pace.goes_on():
                    return
                # In pieces, so that the attack ends in time although an answer does not come.
                streams = client.begin([(path, message)])
                while not streams[0].is_ended:
                    client.poll(IDLE_S)
                    streams[0].take_messages()
                    if not pace.goes_on():
                        return
            client.close()
        except (OSError, ConnectionFailedError):
            pace.cut_off += 1
            time.sleep(RECONNECT_S)


# -- ranges and txns -------------------------------------------------------------------------------


def sorted_range() -> pb.RangeRequest:
    """Everything below `HEAVY` by value, of which one key is wanted."""
    return pb.RangeRequest(
        key=HEAVY,
        range_end=HEAVY_END,
        limit=1,
        sort_order=pb.RangeRequest.DESCEND,
        sort_target=pb.RangeRequest.VALUE,
    )


def sorted_ranges(target: Target, pace: Pace) -> None:
    """Read-only txns of 32 sorted ranges."""
    ops = [pb.RequestOp(request_range=sorted_range()) for _ in range(32)]
    calls(target.client, f"{KV}Txn", [pb.TxnRequest(success=ops).SerializeToString()], pace)


def range_compares(target: Target, pace: Pace) -> None:
    """Txns of 32 compares over all keys, each of which holds to the last one."""
    compare = pb.Compare(
        key=HEAVY,
        range_end=HEAVY_END,
        target=pb.Compare.VERSION,
        result=pb.Compare.GREATER,
        version=0,
    )
    message = pb.TxnRequest(compare=[compare] * 32).SerializeToString()
    calls(target.client, f"{KV}Txn", [message], pace)


def ranges_and_a_put(target: Target, pace: Pace) -> None:
    """The sorted ranges and a put in one txn: an entry."""
    ops = [pb.RequestOp(request_range=sorted_range()) for _ in range(32)]
    ops.append(pb.RequestOp(request_put=pb.PutRequest(key=b"attacker", value=b"x")))
    calls(target.client, f"{KV}Txn", [pb.TxnRequest(success=ops).SerializeToString()], pace)


def many_txns(target: Target, pace: Pace) -> None:
    """400 read-only txns of 3 ranges of 4,500 keys in one packet."""
    ops = [
        pb.RequestOp(request_range=pb.RangeRequest(key=HEAVY, range_end=HEAVY_END, limit=4_500))
    ] * 3
    message = wire.grpc_message(pb.TxnRequest(success=ops).SerializeToString())
    block = wire.header_block(wire.grpc_fields(f"{KV}Txn", target.client))

    def call(stream_id: int) -> bytes:
        head = wire.frame(wire.HEADERS, wire.END_HEADERS, stream_id, block)
        return head + wire.data_frames(stream_id, message, end=True)

    bursts(target.client, TXNS_AT_ONCE, call, 1.0, pace)


def lease_list(target: Target, pace: Pace) -> None:
    """LeaseLeases of 100,000 leases."""
    client = WireClient(target.client, CALL_TIMEOUT_S)
    grant = pb.LeaseGrantRequest(TTL=3600).SerializeToString()
    for _ in range(LEASES // 500):
        client.finish(client.begin([("/etcdserverpb.Lease/LeaseGrant", grant)] * 500))
    client.close()
    calls(target.client, "/etcdserverpb.Lease/LeaseLeases", [b""], pace)


# -- watches ---------------------------------------------------------------------------------------


def progress_requests(target: Target, pace: Pace) -> None:
    """1,000 progress requests at once on a stream of 50,000 watchers."""
    client = WireClient(target.client, CALL_TIMEOUT_S)
    stream = client.open(WATCH)
    made = 0
    for i in range(PROGRESS_WATCHERS):
        create = pb.WatchCreateRequest(key=b"watched/%d" % i)
        client.send(stream, pb.WatchRequest(create_request=create).SerializeToString())
        while i - made > 500:
            client.poll(IDLE_S)
            made += len(stream.take_messages())
    while made < PROGRESS_WATCHERS:
        client.receive(time.monotonic() + CALL_TIMEOUT_S)
        made += len(stream.take_messages())
    progress = pb.WatchRequest(progress_request=pb.WatchProgressRequest()).SerializeToString()
    pace.begin()
    try:
        while pace.goes_on():
            for _ in range(PROGRESS_REQUESTS):
                client.send(stream, progress)
            for _ in range(100):
                client.poll(IDLE_S / 10)
                stream.take_messages()
                if not pace.goes_on():
                    break
    except (OSError, ConnectionFailedError):
        pace.cut_off += 1


def watched_deletes(target: Target, pace: Pace) -> None:
    """Deletes of 10,000 keys that 500 watchers of their prefix see."""
    watcher = open_http2(target.client)
    create = pb.WatchRequest(
        create_request=pb.WatchCreateRequest(key=b"doomed/", range_end=b"doomed0")
    )
    message = wire.grpc_message(create.SerializeToString()) * DELETE_WATCHERS
    block = wire.header_block(wire.grpc_fields(WATCH, target.client))
    watcher.sendall(
        wire.frame(wire.HEADERS, wire.END_HEADERS, 1, block)
        + wire.data_frames(1, message, end=False)
    )
    watcher.setblocking(False)
    delete = pb.DeleteRangeRequest(key=b"doomed/", range_end=b"doomed0").SerializeToString()
    client = WireClient(target.client, CALL_TIMEOUT_S)
    pace.begin()
    while pace.goes_on():
        try:
            for start in range(0, DELETED_KEYS, 100):
                puts = [
                    pb.RequestOp(request_put=pb.PutRequest(key=b"doomed/%06d" % i, value=b"v"))
                    for i in range(start, start + 100)
                ]
                client.call(f"{KV}Txn", pb.TxnRequest(success=puts).SerializeToString())
                drain(watcher)
                if not pace.goes_on():
                    return
            client.call(f"{KV}DeleteRange", delete)
            watcher.sendall(b"")
            drain_for(watcher, 0.5, pace)
            watcher.setblocking(False)
            watcher.send(wire.window_update(0, 1 << 24) + wire.window_update(1, 1 << 24))
        except (OSError, ConnectionFailedError):
            pace.cut_off += 1
            return


# -- pages -----------------------------------------------------------------------------------------


def pages_over_http2(target: Target, pace: Pace) -> None:
    """1,000 GET /metrics over HTTP/2 in one packet."""
    fields = [
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":path", b"/metrics"),
        (b":authority", target.client.encode()),
    ]
    block = wire.header_block(fields)
    flags = wire.END_HEADERS | wire.END_STREAM
    bursts(
        target.client,
        PAGES_AT_ONCE,
        lambda stream_id: wire.frame(wire.HEADERS, flags, stream_id, block),
        0.5,
        pace,
    )


def pipelined_pages(target: Target, pace: Pace) -> None:
    """100,000 GET /metrics over one HTTP/1.1 connection, without waiting for an answer."""
    octets = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * PIPELINED_PAGES
    pace.begin()
    while pace.goes_on():
        try:
            sock = connect(target.client)
        except OSError:
            pace.cut_off += 1
            time.sleep(RECONNECT_S)
            continue
        with sock:
            if pour(sock, octets, pace):
                drain_for(sock, 1.0, pace)


# -- memory ----------------------------------------------------------------------------------------


def hold(pace: Pace, make: Callable[[], socket.socket], count: int) -> None:
    """Hold ``count`` connections that ``make`` opened; the lost ones are opened anew."""
    held: list[socket.socket] = []
    pace.begin()
    while pace.goes_on():
        alive = []
        for sock in held:
            try:
                sock.setblocking(False)
                with suppress(BlockingIOError, ssl.SSLWantReadError):
                    if not sock.recv(1 << 12, 0 if isinstance(sock, ssl.SSLSocket) else 2):
                        raise ConnectionResetError("closed")
                alive.append(sock)
            except OSError:
                pace.cut_off += 1
                sock.close()
        held = alive
        for _ in range(min(50, count - len(held))):
            try:
                held.append(make())
            except OSError:
                pace.cut_off += 1
                break
        time.sleep(IDLE_S)
    for sock in held:
        sock.close()


def unread_answers(target: Target, pace: Pace) -> None:
    """Large ranges over TLS whose answers are never read."""
    request = pb.RangeRequest(key=HEAVY, range_end=HEAVY_END, limit=4_500)
    message = wire.grpc_message(request.SerializeToString())
    block = wire.header_block(wire.grpc_fields(f"{KV}Range", target.client))
    octets = b"".join(
        wire.frame(wire.HEADERS, wire.END_HEADERS, stream_id, block)
        + wire.data_frames(stream_id, message, end=True)
        for stream_id in range(1, 80, 2)
    )

    def make() -> socket.socket:
        host, _, port = target.client.rpartition(":")
        plain = socket.socket()
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        plain.settimeout(5.0)
        plain.connect((host, int(port)))
        context = ssl.create_default_context(cafile=target.ca_file)
        context.set_alpn_protocols(["h2"])
        sock = context.wrap_socket(plain, server_hostname="localhost")
        sock.sendall(
            wire.PREFACE
            + wire.settings({wire.SETTINGS_INITIAL_WINDOW_SIZE: wire.WINDOW_MAX})
            + wire.window_update(0, wire.WINDOW_MAX - wire.WINDOW_DEFAULT)
            + octets
        )
        return sock

    held: list[socket.socket] = []
    pace.begin()
    while pace.goes_on():
        if len(held) < UNREAD_CONNECTIONS:
            try:
                held.append(make())
            except OSError:
                pace.cut_off += 1
        time.sleep(IDLE_S)
    for sock in held:
        sock.close()


def metadata(target: Target, pace: Pace) -> None:
    """10,000 calls with 60 kB of metadata each that never end."""
    value = b"m" * (METADATA_OCTETS // 4)
    fields = wire.grpc_fields(f"{KV}Range", target.client)
    fields += [(b"x-metadata-%d" % i, value) for i in range(4)]
    block = wire.header_block(fields)
    pieces = [block[i : i + wire.FRAME_SIZE] for i in range(0, len(block), wire.FRAME_SIZE)]
    first = [1]

    def once(sock: socket.socket) -> bool:
        if first[0] > 2 * METADATA_STREAMS:
            time.sleep(IDLE_S)
            return True
        frames = [wire.frame(wire.HEADERS, 0, first[0], pieces[0])]
        for piece in pieces[1:]:
            flags = wire.END_HEADERS if piece is pieces[-1] else 0
            frames.append(wire.frame(wire.CONTINUATION, flags, first[0], piece))
        first[0] += 2
        done = pour(sock, b"".join(frames), pace)
        if not done:
            first[0] = 1
        return done

    repeat(target.client, once, pace)


def unfinished_bodies(target: Target, pace: Pace) -> None:
    """400 HTTP/1.1 requests whose bodies of 2 MB never end."""
    head = b"POST /v3/kv/put HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % BODY_OCTETS
    octets = head + bytes(BODY_OCTETS - 1)

    def make() -> socket.socket:
        sock = connect(target.client)
        sock.settimeout(2.0)
        sock.sendall(octets)
        return sock

    hold(pace, make, BODY_CONNECTIONS)


# -- floods and places -----------------------------------------------------------------------------


def empty_data(target: Target, pace: Pace) -> None:
    """Empty DATA frames without end, on a new connection after each cut."""
    block = wire.header_block(wire.grpc_fields(f"{KV}Range", target.client))
    opened = wire.frame(wire.HEADERS, wire.END_HEADERS, 1, block)
    flood = wire.frame(wire.DATA, 0, 1) * FLOOD_FRAMES

    def once(sock: socket.socket) -> bool:
        return pour(sock, opened, pace) and all(pour(sock, flood, pace) for _ in range(1_000))

    repeat(target.client, once, pace)


def pings(target: Target, pace: Pace) -> None:
    """PING frames without end, on a new connection after each cut."""
    flood = wire.frame(wire.PING, 0, 0, bytes(8)) * FLOOD_FRAMES
    repeat(target.client, lambda sock: pour(sock, flood, pace), pace)


def peer_places(target: Target, pace: Pace) -> None:
    """Idle connections to every member's peer port, more than it has places."""
    made = [0]

    def make() -> socket.socket:
        made[0] += 1
        return connect(target.peers[made[0] % len(target.peers)])

    hold(pace, make, PEER_CONNECTIONS * len(target.peers))


def idle_connections(target: Target, pace: Pace) -> None:
    """More idle connections than the member has descriptors, and a defragment each second."""
    held: list[socket.socket] = []
    pace.begin()
    for _ in range(IDLE_CONNECTIONS):
        try:
            held.append(connect(target.client))
        except OSError:
            pace.cut_off += 1
    while pace.goes_on():
        with suppress(OSError, ConnectionFailedError):
            held.pop().close()
            client = WireClient(target.client, 5.0)
            client.call("/etcdserverpb.Maintenance/Defragment", b"")
            client.close()
        time.sleep(1.0)
    for sock in held:
        sock.close()
