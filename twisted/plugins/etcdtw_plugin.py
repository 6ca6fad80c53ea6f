"""Makes ``twistd etcdtw`` known.  Every start of any twistd program loads this file."""

from twisted.application.service import ServiceMaker

etcdtw_server = ServiceMaker(
    "etcdtw",
    "etcdtw.plugins.server",
    "A distributed key-value store that speaks etcd's protocols.",
    "etcdtw",
)
