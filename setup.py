"""Builds the compiled cores when asked to; everything else about the package is in setup.cfg.

    pip install '.[compile]' && ETCDTW_COMPILE=1 pip install --no-deps --force-reinstall
        --no-build-isolation .        (with a C compiler)

The compiled modules are the same Python, made native by mypyc; the interpreted ones stay the
reference, and the rooms' tests run on both (`make test-compiled`).
"""

import os
from glob import glob

from setuptools import setup

HOT = [
    "etcdtw/apply/a*.py",
    "etcdtw/apply/entries.py",
    "etcdtw/auth/*.py",
    "etcdtw/client/loopback*.py",
    "etcdtw/gateway/json_gateway.py",
    "etcdtw/gateway/json_lines.py",
    "etcdtw/gateway/pages.py",
    "etcdtw/gateway/request_head.py",
    "etcdtw/gateway/transcoding/*.py",
    "etcdtw/grpc/*.py",
    "etcdtw/http1/*.py",
    "etcdtw/http2/*.py",
    "etcdtw/lease/*.py",
    "etcdtw/mvcc/*.py",
    "etcdtw/mvcc/watch/*.py",
    "etcdtw/node/intake/durations.py",
    "etcdtw/node/intake/inbox.py",
    "etcdtw/node/intake/reads.py",
    "etcdtw/node/intake/requests.py",
    "etcdtw/node/intake/wakeup.py",
    "etcdtw/node/loop/turn.py",
    "etcdtw/raft/*.py",
    "etcdtw/rafthttp/codec.py",
    "etcdtw/rafthttp/stream.py",
    "etcdtw/rpc/decode.py",
    "etcdtw/rpc/errors.py",
    "etcdtw/rpc/guard.py",
    "etcdtw/rpc/kv/checks.py",
    "etcdtw/rpc/kv/service.py",
    "etcdtw/rpc/lease/keep_alive.py",
    "etcdtw/storage/log/codec.py",
    "etcdtw/storage/log/journal.py",
    "etcdtw/storage/log/journal_codec.py",
    "etcdtw/storage/log/journal_writer.py",
    "etcdtw/storage/log/log.py",
    "etcdtw/storage/log/writer.py",
    "etcdtw/storage/rows/codec.py",
    "etcdtw/storage/rows/fences.py",
    "etcdtw/storage/rows/seal.py",
    "etcdtw/storage/rows/tables.py",
    "etcdtw/storage/state/attachments.py",
    "etcdtw/storage/state/generation_queue.py",
    "etcdtw/storage/state/overlay.py",
    "etcdtw/storage/state/piece_reader.py",
    "etcdtw/storage/state/reader.py",
    "etcdtw/storage/state/row_blocks.py",
    "etcdtw/storage/state/state.py",
    "etcdtw/transport/client/deadline.py",
    "etcdtw/transport/client/grpc_channel.py",
    "etcdtw/transport/client/http1.py",
    "etcdtw/transport/client/http1_site.py",
    "etcdtw/transport/flusher.py",
    "etcdtw/transport/rounds.py",
    "etcdtw/wire/encode.py",
    "etcdtw/wire/histogram.py",
    "etcdtw/wire/pieces.py",
    "etcdtw/wire/record.py",
    "etcdtw/wire/requests.py",
]
# Seams are Protocols, which anything may implement; one has weak references; one is the
# base of what is not compiled; the others are tables and test support.
INTERPRETED = {
    "etcdtw/auth/seams.py",
    "etcdtw/grpc/call.py",
    "etcdtw/grpc/client.py",
    "etcdtw/grpc/wrapped_call.py",
    "etcdtw/http2/huffman.py",
    "etcdtw/http2/static_table.py",
    "etcdtw/lease/moment.py",
    "etcdtw/mvcc/backend.py",
    "etcdtw/raft/memory_storage.py",
    "etcdtw/raft/storage.py",
}


def hot_modules() -> list[str]:
    """Return the files to compile."""
    found = [path for pattern in HOT for path in sorted(glob(pattern))]
    return [p for p in found if p not in INTERPRETED and not p.endswith("__init__.py")]


if os.environ.get("ETCDTW_COMPILE") == "1":
    from mypyc.build import mypycify

    # -O3 takes ten times as long to compile and wins nothing measurable.
    extensions = mypycify(hot_modules(), opt_level="1", debug_level="0")
    for extension in extensions:
        # In one file of 180 MB this warning of -Wall takes three of four minutes.
        extension.extra_compile_args.append("-Wno-misleading-indentation")
    setup(ext_modules=extensions)
else:
    setup()
