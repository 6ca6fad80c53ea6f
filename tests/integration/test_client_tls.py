"""The client over TLS and over unix sockets, on real sockets."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor as installed_reactor

from etcdtw.client.channel import NotTakenError
from etcdtw.client.client import Client, ClientTls
from etcdtw.client.network.bounds import NetworkBounds
from etcdtw.grpc.call import UNAVAILABLE
from tests.support.certs import Authority
from tests.support.processes import PROGRAMS, RunningMember, TlsFiles

pytestmark = pytest.mark.integration

reactor: Final[Any] = installed_reactor
IMPATIENT: Final = NetworkBounds(connection_wait_ms=1_000)


@pytest.mark.parametrize("program", PROGRAMS)
@ensureDeferred
async def test_a_client_shows_its_certificate_and_reads_it_again(
    program: str, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    server = authority.issue("server")
    good = authority.issue("good")
    (tmp_path / "strange").mkdir()
    shown = Authority(tmp_path / "strange", "strange").issue("shown")
    files = TlsFiles(
        Path(server.cert_file),
        Path(server.key_file),
        Path(authority.ca_file),
        client_cert_auth=True,
    )
    tls = ClientTls(
        trusted_ca_file=authority.ca_file, cert_file=shown.cert_file, key_file=shown.key_file
    )
    with RunningMember(program, tls=files) as member:
        async with Client(reactor, member.client_url, tls=tls, bounds=IMPATIENT) as client:
            with pytest.raises(NotTakenError) as refused:
                await client.put("k", "v")
            assert refused.value.code == UNAVAILABLE
            for name, told in ((shown.cert_file, good.cert_pem), (shown.key_file, good.key_pem)):
                Path(name).write_bytes(told)
            assert (await client.put("k", "v")).header.revision == 2


@pytest.mark.parametrize("program", PROGRAMS)
@ensureDeferred
async def test_a_server_that_cannot_prove_its_name_is_not_asked(
    program: str, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    server = authority.issue("server")
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other", "other")
    files = TlsFiles(Path(server.cert_file), Path(server.key_file), Path(authority.ca_file))
    with RunningMember(program, tls=files) as member:
        tls = ClientTls(trusted_ca_file=other.ca_file)
        async with Client(reactor, member.client_url, tls=tls, bounds=IMPATIENT) as client:
            with pytest.raises(NotTakenError, match="no TLS with"):
                await client.put("k", "v")
        async with Client(
            reactor, member.client_url, tls=ClientTls(trusted_ca_file=authority.ca_file)
        ) as client:
            assert (await client.put("k", "v")).header.revision == 2


@ensureDeferred
async def test_a_unix_socket_and_a_description_are_servers_too(tmp_path: Path) -> None:
    with RunningMember("etcdtw") as member:
        async with Client(reactor, f"tcp:127.0.0.1:{member.client_port}") as client:
            await client.put("k", "v")
    path = tmp_path / "etcd.sock"
    with RunningMember("etcdtw", flags=["--listen-client-urls", f"unix://{path}"]):
        async with Client(reactor, f"unix://{path}") as client:
            assert (await client.put("k", "v")).header.revision == 2
