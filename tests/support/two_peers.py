"""A process with two members of ours that are peers over TLS, on real sockets.

    python -m tests.support.two_peers DIRECTORY PORT PORT

Prints one JSON object: what arrived, and how long the reactor was ever away from its clock.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any, cast

from twisted.internet.base import ReactorBase
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.ssl import (
    Certificate,
    PrivateCertificate,
    optionsForClientTLS,
    trustRootFromCertificates,
)
from twisted.internet.task import LoopingCall, deferLater
from twisted.internet.threads import deferToThreadPool

from etcdtw.cluster.version import Version
from etcdtw.raft.entry import ConfState, Snapshot
from etcdtw.raft.message import MSG_SNAP, Message
from etcdtw.rafthttp.headers import PeerIdentity
from etcdtw.transport.dialled import TlsWrap
from etcdtw.transport.listener import listen, parse_listen_url
from etcdtw.transport.peer.client import build_dial
from etcdtw.transport.peer.network import PeerNetwork
from etcdtw.transport.peer_port.server import PeerPort
from etcdtw.transport.tls.policy import TlsFiles, TlsPolicy
from tests.support.certs import Authority
from tests.transport.peer.peer_rig import (
    CLUSTER,
    ONE,
    TWO,
    NotingPages,
    NotingReceiver,
    append,
    heartbeat,
)

SNAPSHOT_SIZE = 40 * 1024 * 1024
COUNT = 500
TICK_S = 0.01
TIMEOUT_S = 30.0


def client_tls(directory: Path, authority: Authority) -> TlsWrap:
    issued = authority.issue("client")
    own = PrivateCertificate.loadPEM(issued.cert_pem + issued.key_pem)
    trusted = trustRootFromCertificates([Certificate.loadPEM(Path(authority.ca_file).read_bytes())])

    def wrap(endpoint: IStreamClientEndpoint, host: str) -> IStreamClientEndpoint:
        options = optionsForClientTLS(host, trusted, own)
        return wrapClientTLS(options, endpoint)

    return wrap


class RealMember:
    """One member on a real socket."""

    def __init__(
        self, reactor: ReactorBase, member_id: int, port: int, directory: Path, wrap: TlsWrap
    ) -> None:
        self.url = f"https://127.0.0.1:{port}"
        self.receiver = NotingReceiver(directory)
        pool = reactor.getThreadPool()

        def offload(function: Any) -> Deferred[Any]:
            return deferToThreadPool(reactor, pool, function)

        self.network = PeerNetwork(
            PeerIdentity(
                cluster_id=CLUSTER,
                member_id=member_id,
                version=Version(3, 5, 1),
                peer_urls=(self.url,),
            ),
            self.receiver,
            clock=reactor,
            dial=build_dial(reactor, wrap, 1.0),
            offload=offload,
            unix_ns=time.time_ns,
        )
        self.port = PeerPort(
            self.network, NotingPages(), clock=reactor, offload=offload, unix_ns=time.time_ns
        )


async def converse(reactor: ReactorBase, directory: Path, ports: list[int]) -> dict[str, object]:
    authority = Authority(directory)
    issued = authority.issue("server")
    policy = TlsPolicy(
        TlsFiles(
            cert_file=issued.cert_file,
            key_file=issued.key_file,
            trusted_ca_file=authority.ca_file,
            alpn=(),
        )
    )
    wrap = client_tls(directory, authority)
    one = RealMember(reactor, ONE, ports[0], directory, wrap)
    two = RealMember(reactor, TWO, ports[1], directory, wrap)
    for member in (one, two):
        listen(reactor, parse_listen_url(member.url), member.port, policy)
    one.network.set_peer(TWO, [two.url])
    two.network.set_peer(ONE, [one.url])
    while (
        one.network.connected_since_ms(TWO) is None or two.network.connected_since_ms(ONE) is None
    ):
        await deferLater(reactor, TICK_S)
    source = directory / "source"
    source.write_bytes(bytes(range(256)) * (SNAPSHOT_SIZE // 256))
    seen = [reactor.seconds()]
    gaps: list[float] = []

    def tick() -> None:
        gaps.append(reactor.seconds() - seen[0])
        seen[0] = reactor.seconds()

    ticking = LoopingCall(tick)
    ticking.start(TICK_S)
    m = Message(MSG_SNAP, to=TWO, from_id=ONE, term=2, snapshot=Snapshot(7, 2, ConfState((ONE,))))
    ended: Deferred[bool] = Deferred()
    began = reactor.seconds()
    one.network.send_snapshot(m, str(source), SNAPSHOT_SIZE, ended.callback)
    for i in range(COUNT):
        one.network.send([append(TWO, ONE, i, 2, 1000), heartbeat(TWO, ONE, commit=i)])
        two.network.send([heartbeat(ONE, TWO, commit=i)])
        await deferLater(reactor, 0)
    is_sent = await ended
    snapshot_s = reactor.seconds() - began
    await deferLater(reactor, 0.2)
    ticking.stop()
    same = Path(two.receiver.installed[0][1]).read_bytes() == source.read_bytes()
    return {
        "sent": is_sent,
        "same": same,
        "arrived": [len(one.receiver.messages), len(two.receiver.messages)],
        "failures": [*one.receiver.unreachable, *two.receiver.unreachable],
        "snapshot_s": snapshot_s,
        "gap_s": max(gaps),
    }


def main() -> None:
    from twisted.internet import reactor as real

    reactor = cast(ReactorBase, real)
    directory, *ports = sys.argv[1:]
    found: list[object] = []
    running = Deferred.fromCoroutine(converse(reactor, Path(directory), [int(p) for p in ports]))
    running.addTimeout(TIMEOUT_S, reactor).addBoth(found.append)
    running.addBoth(lambda _: reactor.stop())
    reactor.run()
    print(json.dumps(found[0], default=str))


if __name__ == "__main__":
    main()
