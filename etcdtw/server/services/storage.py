"""The open data directory as a service: opened before anything else of a member is built."""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, cast

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFDSet, IReactorFromThreads

from etcdtw.cluster.joining import RemoteCluster
from etcdtw.config.config import Config
from etcdtw.server.member.joining import ask_cluster
from etcdtw.server.member.opened import OpenData
from etcdtw.server.member.runtime import Runtime
from etcdtw.server.process.memory_lock import lock_memory
from etcdtw.server.process.piece_report import watch_collections
from etcdtw.server.process.state_sizes import StateSizes
from etcdtw.server.process.supervision import Supervision
from etcdtw.server.start.bootstrap import remote_urls
from etcdtw.server.start.data import has_identity, open_data
from etcdtw.storage.disk.failure import stop_process
from etcdtw.storage.snapshot.snapshots import StateSnapshots
from etcdtw.storage.state.open import MAP_SIZE
from etcdtw.storage.writer.process import ProcessStateWriter
from etcdtw.storage.writer.worker import Pace
from etcdtw.transport.peer.client import Dial

FLUSH_S: Final = 15.0
"""How long a stop waits for the state's writer.  The log holds everything, so nothing is lost
by not waiting longer."""
Discover = Callable[[Config], Awaitable[Config]]
WRITER_SILENT: Final = "the state's writer does not answer"


class Storage(Service):
    """Asks the cluster who this member is, if it joins; opens the data, and closes it."""

    name = "storage"

    def __init__(
        self,
        runtime: Runtime,
        config: Config,
        supervision: Supervision,
        dial: Dial,
        fail_stop: Callable[[str], None],
        discover: Discover,
    ) -> None:
        """``discover`` names the founders, where the configuration has them found."""
        self._runtime = runtime
        self._config = config
        self._supervision = supervision
        self._dial = dial
        self._fail_stop = fail_stop
        self._discover = discover
        self._opened: OpenData | None = None

    def startService(self) -> Deferred[OpenData]:
        """Give the open data."""
        super().startService()
        # What was imported lives as long as the process: the collector need not visit it again.
        gc.freeze()
        gc.disable()
        watch_collections(self._runtime.pieces)
        self._supervision.opening()
        return Deferred.fromCoroutine(self._open())

    async def _open(self) -> OpenData:
        if self._config.memory_mlock:
            lock_memory()
        config = self._config
        if config.discovery is not None and not has_identity(config):
            config = await self._discover(config)
        remote = await self._ask_cluster(config)
        reactor = self._runtime.reactor
        descriptors = cast(IReactorFDSet, reactor)
        pace = Pace(
            config.compaction_batch_limit,
            config.compaction_sleep_interval_s,
            config.state_sweep_interval_s,
        )

        def make_writer(path: Path, map_size: int, lock_fd: int) -> ProcessStateWriter:
            pieces = self._runtime.pieces
            return ProcessStateWriter(descriptors, path, map_size, lock_fd, pace, pieces)

        data = open_data(
            config,
            self._runtime.clock.seconds,
            cast(IReactorFromThreads, reactor).callFromThread,
            make_writer,
            self._fail_stop,
            remote=remote,
        )
        self._opened = OpenData(
            data=data,
            snapshot_files=StateSnapshots(
                descriptors, data.state, data.state_path, MAP_SIZE, self._fail_stop
            ),
        )
        sizes = StateSizes(data.state)
        data.state.stats.on_compacted = sizes.compacted
        if config.bootstrap_defrag_threshold_bytes:
            seconds = self._runtime.clock.seconds
            await sizes.defragment(config.bootstrap_defrag_threshold_bytes, seconds)
        return self._opened

    async def _ask_cluster(self, config: Config) -> RemoteCluster | None:
        """Return what the others say, if this member is new and there may be others."""
        if has_identity(config):
            return None
        urls = remote_urls(config)
        own = [str(url) for url in config.initial_advertise_peer_urls]
        return await ask_cluster(self._dial, self._runtime.clock, urls, own) if urls else None

    def stopService(self) -> Deferred[None] | None:
        """Bring everything applied to the disk, then let go of it."""
        super().stopService()
        opened = self._opened
        if opened is None:
            return None
        data = opened.data
        flushed: Deferred[None] = Deferred()
        overdue = self._runtime.clock.callLater(FLUSH_S, stop_process, WRITER_SILENT)
        data.state.flush(lambda: flushed.callback(None))
        flushed.addBoth(lambda _: overdue.cancel())
        flushed.addBoth(lambda _: opened.snapshot_files.close())
        flushed.addBoth(lambda _: data.close())
        return flushed
