"""Serves a `PageSet` on a real socket: ``python -m tests.gateway.page_server URL``."""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet import reactor as installed_reactor

from etcdtw.grpc.stats import ServerStats
from etcdtw.transport.listener import listen, parse_listen_url
from tests.gateway.page_rig import PageSet, build_port


def main() -> None:
    clock: Any = installed_reactor
    port = build_port(clock, ServerStats(), PageSet(clock).pages)
    listen(clock, parse_listen_url(sys.argv[1]), port, None)
    clock.callWhenRunning(lambda: print("ready", flush=True))
    clock.run()


if __name__ == "__main__":
    main()
