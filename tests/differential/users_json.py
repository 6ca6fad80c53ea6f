"""The operations of `users` over JSON: every answer of two members' gateways compared.

python -m tests.differential.users_json --operations 100000 --seed 7
"""

from __future__ import annotations

import argparse
import http.client
import json
from collections.abc import Sequence
from contextlib import closing
from typing import Any, Final

from google.protobuf import json_format

from etcdtw.gateway.routes import ROUTES
from etcdtw.grpc.call import UNARY
from tests.differential.users import FLAGS, KV, TIMEOUT_S, Found, Member, Operation, Pair
from tests.support.processes import RunningMember

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
    with (
        RunningMember(programs[0], flags=FLAGS) as left,
        RunningMember(programs[1], flags=FLAGS) as right,
    ):
        return Pair(left.endpoint, right.endpoint, seed, JsonMember).run(operations)


def main() -> None:
    """Run as a command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--operations", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--programs", default="etcd,etcdtw")
    arguments = parser.parse_args()
    found = run(arguments.programs.split(","), arguments.seed, arguments.operations)
    print(f"{found.operations} operations, {len(found.differences)} differences")
    for status, count in found.statuses.most_common():
        print(f"{count:8} {status}")
    for difference in found.differences:
        print(difference)


if __name__ == "__main__":
    main()
