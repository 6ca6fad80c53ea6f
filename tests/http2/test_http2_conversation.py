"""Our connection against h2, an independent implementation, in both roles."""

from __future__ import annotations

import h2.config
import h2.connection
import h2.events
import h2.settings

from etcdtw.http2 import events
from etcdtw.http2.connection import Connection
from etcdtw.http2.hpack import encode_block

REQUEST_FIELDS = [
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/etcdserverpb.KV/Put"),
    (b":authority", b"localhost"),
    (b"te", b"trailers"),
]
HEAD = encode_block([(b":status", b"200"), (b"content-type", b"application/grpc")])
TRAILERS = encode_block([(b"grpc-status", b"0")])


def h2_client(**values: int) -> h2.connection.H2Connection:
    client = h2.connection.H2Connection(
        h2.config.H2Configuration(client_side=True, header_encoding=False)
    )
    if values:
        client.local_settings = h2.settings.Settings(
            client=True, initial_values={h2.settings.SettingCodes[k]: v for k, v in values.items()}
        )
    client.initiate_connection()
    return client


def h2_server() -> h2.connection.H2Connection:
    server = h2.connection.H2Connection(
        h2.config.H2Configuration(client_side=False, header_encoding=False)
    )
    server.initiate_connection()
    return server


def test_a_small_request_is_one_event_and_one_reply() -> None:
    client = h2_client()
    server = Connection()
    server.begin()
    client.receive_data(server.take_output())
    assert server.receive(client.data_to_send(), 0) == []
    client.send_headers(1, REQUEST_FIELDS)
    client.send_data(1, b"body", end_stream=True)
    (found,) = server.receive(client.data_to_send(), 0)
    assert found[:2] == (events.REQUEST, 1)
    assert list(found[2].fields) == REQUEST_FIELDS
    assert found[3] == b"body"
    server.reply(1, HEAD, b"answer", TRAILERS)
    answers = client.receive_data(server.take_output())
    assert [type(answer).__name__ for answer in answers] == [
        "SettingsAcknowledged",
        "ResponseReceived",
        "DataReceived",
        "TrailersReceived",
        "StreamEnded",
    ]
    assert server.open_streams == 0
