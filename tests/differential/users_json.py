"""The operations of `users` over JSON: every answer of two members' gateways compared.

python -m tests.differential.users_json --operations 100000 --seed 7
"""

from __future__ import annotations

import http.client
import json
import sys
from collections.abc import Sequence
from contextlib import closing
from typing import Any, Final

from google.protobuf import json_format

from etcdtw.gateway.routes import ROUTES
from etcdtw.grpc.call import UNARY
from tests.differential import users
from tests.differential.users import KV, TIMEOUT_S, Found, Member, Operation

STREAMED: Final = {KV + "RangeStream": KV + "Range"}
"""What has no page is asked otherwise."""
PAGES: Final = {route.method: (path.decode(), route) for path, route in ROUTES.items()}


class JsonMember(Member):
    """One side, asked by pages."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(endpoint)
        self._endpoint = endpoint
        self._pages = http.client.HTTPConnection(endpoint, timeout=TIMEOUT_S)

    def close(self) -> None:
        self._pages.close()
        super().close()

    def call(self, operation: Operation) -> tuple[int, str, Any]:
        """Return code, text and response, of a stream the first one."""
        path, route = PAGES[STREAMED.get(operation.path, operation.path)]
        body = json_format.MessageToJson(operation.request, preserving_proto_field_name=True)
        fields = {}
        if operation.user is not None:
            fields["Authorization"] = self._token(operation.user)
        if route.kind != UNARY:
            told = self._first_line(path, body, fields)
        else:
            self._pages.request("POST", path, body, fields)
            told = json.loads(self._pages.getresponse().read())
        if told is None:
            return 0, "ended", None
        error = told.get("error", told)
        if "code" in error:
            return error["code"], error["message"], None
        response = operation.response()
        if operation.path in STREAMED:
            response = response.range_response
        told = told.get("result", told)
        if "blob" in told:
            return 0, "", None
        return 0, "", json_format.ParseDict(told, response)

    def _first_line(self, path: str, body: str, fields: dict[str, str]) -> Any:
        connection = http.client.HTTPConnection(self._endpoint, timeout=TIMEOUT_S)
        with closing(connection):
            connection.request("POST", path, body, fields)
            with closing(connection.getresponse()) as answer:
                line = answer.readline()
        return json.loads(line) if line else None


def run(programs: Sequence[str], seed: int, operations: int) -> Found:
    """Run ``operations`` on two new members."""
    return users.run(programs, seed, operations, JsonMember)


if __name__ == "__main__":
    sys.exit(users.main(JsonMember))
