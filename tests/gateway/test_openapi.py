"""``/openapi.json`` describes every route, and refers to nothing that it does not hold."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from etcdtw.gateway.openapi import openapi_page
from etcdtw.gateway.routes import ROUTES


def document() -> Any:
    answer = openapi_page({})
    assert (answer.status, answer.content_type) == (200, b"application/json")
    return json.loads(answer.body)


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"]
        for one in value.values():
            yield from references(one)
    elif isinstance(value, list):
        for one in value:
            yield from references(one)


def test_every_route_is_there_once() -> None:
    found = document()
    assert set(found["paths"]) == {path.decode() for path in ROUTES}
    names = [one["post"]["operationId"] for one in found["paths"].values()]
    assert len(set(names)) == len(names)


def test_what_is_referred_to_is_there() -> None:
    found = document()
    named = {reference.rpartition("/")[2] for reference in references(found)}
    assert named <= set(found["components"]["schemas"])


def test_fields_are_as_the_gateway_writes_them() -> None:
    schemas = document()["components"]["schemas"]
    assert schemas["mvccpb.KeyValue"]["properties"] == {
        "key": {"type": "string", "format": "byte"},
        "create_revision": {"type": "string", "format": "int64"},
        "mod_revision": {"type": "string", "format": "int64"},
        "version": {"type": "string", "format": "int64"},
        "value": {"type": "string", "format": "byte"},
        "lease": {"type": "string", "format": "int64"},
    }
    ranged = schemas["etcdserverpb.RangeRequest"]["properties"]
    assert ranged["sort_order"] == {"type": "string", "enum": ["NONE", "ASCEND", "DESCEND"]}
    assert ranged["serializable"] == {"type": "boolean"}
    told = schemas["etcdserverpb.RangeResponse"]["properties"]["kvs"]
    assert told == {"type": "array", "items": {"$ref": "#/components/schemas/mvccpb.KeyValue"}}


def test_streams_are_lines_of_results() -> None:
    watch = document()["paths"]["/v3/watch"]["post"]
    schema = watch["responses"]["200"]["content"]["application/json"]["schema"]
    assert set(schema["properties"]) == {"result", "error"}
