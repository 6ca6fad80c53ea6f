"""The private descriptor pool in which all of etcdtw's message classes live.

Generated ``_pb2`` modules register in protobuf's process-wide default pool, where they
collide with those of any other etcd client in the same process.  The descriptors are
therefore a checked-in file (``descriptors.bin``), loaded into a pool of our own.
"""

from __future__ import annotations

from importlib import resources
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory


def _load_pool() -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    encoded = resources.files("etcdtw.wire").joinpath("descriptors.bin").read_bytes()
    for file in descriptor_pb2.FileDescriptorSet.FromString(encoded).file:
        pool.Add(file)
    return pool


POOL = _load_pool()


def message_class(full_name: str) -> Any:
    """Return the message class called ``full_name`` (such as ``mvccpb.KeyValue``)."""
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(full_name))
